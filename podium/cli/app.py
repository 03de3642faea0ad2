"""The tree of commands. Each is loaded when it is used, so that help and errors come at once."""

from typing import Final

from cyclopts import App, Group, Parameter

from podium.cli.options import COMMON, LISTING, Common, Listing

ABOUT: Final = """\
Break a task into subtasks, have a pool of workers do them in parallel, answer.

Try:

  podium run "Which is larger by population, Germany or France?"
  podium runs                      what ran, and what came of it
  podium runs show RUN --content   every round and call of a run
  podium up                        keep a deployment standing: `run` attaches
  podium worker check my_pool.toml try the workers of a pool of your own
"""

WORK: Final = Group("Runs", sort_key=1)
DEBUG: Final = Group("Debug", sort_key=2)
KEEP: Final = Group("Export and archive", sort_key=3)
DEPLOY: Final = Group("Deployment", sort_key=4)
TRAIN: Final = Group("Train", sort_key=5)
OWN: Final = Group("Your own", sort_key=6)


def version() -> str:
    """The installed version."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("podium")
    except PackageNotFoundError:
        return "unknown"


def make() -> App:
    """The application."""
    app = App(
        name="podium",
        help=ABOUT,
        help_format="plaintext",
        version=version,
        default_parameter=Parameter(negative=(), show_default=False),
        version_flags=["--version"],
    )
    runs = App(name="runs", help="List runs, look at one, or tell it something.", group=WORK)
    runs.default(_list)
    for verb, say in RUNS.items():
        runs.command(f"podium.cli.runs:{verb}", name=verb.rstrip("_"), help=say)
    runs.command("podium.cli.bill:bill", name="bill", help="What a run has spent, on whom.")
    for verb, say in SIGNALS.items():
        runs.command(f"podium.cli.signals:{verb}", name=verb.rstrip("_"), help=say)
    worker = _own("worker", "Try out workers; change a deployment's.", WORKER)
    model = _own("model", "Versions of a model of ours, and which answers.", MODEL)
    dataset = _own("dataset", "Runs as data sets to train on.", DATASET, TRAIN)
    trace = App(name="trace", help="Traces for OpenTelemetry.", group=DEBUG)
    trace.command(
        "podium.cli.trace:export", name="export", help="The trace of a run, made from its log."
    )
    train = _own("train", "Train a model; its next version.", TRAIN_VERBS, TRAIN)
    gym = _own("gym", "Tasks to train and test a conductor on.", GYM, TRAIN)
    config = App(name="config", help="Look at the configuration.", group=OWN)
    config.command(
        "podium.cli.doctor:show_config", name="show", help="Every value, and where it came from."
    )
    app.command("podium.cli.run:run", name="run", help=RUN, group=WORK)
    app.command(
        "podium.cli.answer:answer",
        name="answer",
        help="Answer what a run asks a person; bare, what is asked.",
        group=WORK,
    )
    for each in (runs, trace, dataset, train, gym, worker, model, config):
        app.command(each)
    for verb, say in DEBUGGING.items():
        module = {"rerun": "fork"}.get(verb, verb)
        app.command(f"podium.cli.{module}:{verb}", name=verb, help=say, group=DEBUG)
    for verb, (place, say) in KEEPING.items():
        app.command(place, name=verb, help=say, group=KEEP)
    for verb, say in TRAINING.items():
        app.command(f"podium.cli.{verb}:{verb}", name=verb, help=say, group=TRAIN)
    for verb, say in DEPLOYMENT.items():
        app.command(f"podium.cli.deployment:{verb}", name=verb, help=say, group=DEPLOY)
    app.command(
        "podium.cli.serve:serve",
        name="serve",
        help=SERVE,
        group=DEPLOY,
    )
    app.command(
        "podium.cli.mcp:mcp",
        name="mcp",
        help="Offer pools as tools of an MCP server on stdin and stdout.",
        group=DEPLOY,
    )
    app.command(
        "podium.cli.doctor:doctor",
        name="doctor",
        help="What works here, what doesn't, and the cure.",
        group=DEPLOY,
    )
    return app


def _own(name: str, about: str, verbs: dict[str, str], group: Group = OWN) -> App:
    """The commands of a module of that name; a verb may name another module before a colon."""
    app = App(name=name, help=about, group=group)
    for verb, say in verbs.items():
        module, _, function = verb.rpartition(":")
        place = f"podium.cli.{module or name}:{function}"
        app.command(place, name=function.rstrip("_"), help=say)
    return app


def _list(*, listing: Listing = LISTING, common: Common = COMMON) -> int:
    """List the runs, look at one, or tell it something."""
    from podium.cli.runs import list_

    return list_(listing=listing, common=common)


RUNS: Final = {
    "list_": "The runs, the newest first. Bare `podium runs` does the same.",
    "show": "One run: every round and call.",
    "watch": "Follow a run until it ends.",
}

WORKER: Final = {
    "check": "Try every worker of a pool file for real.",
    "apply": "Change a standing deployment's workers while runs go.",
    "list_": "A deployment's workers, by its registry.",
}

GYM: Final = {
    "show": "What the gym draws by a seed.",
    "play": "Have a policy play, and see how well it goes.",
    "gym_live:live": "Have a standing deployment play; its runs are in the log.",
    "pool": "The pool file of the gym's workers.",
}

MODEL: Final = {
    "list_": "A model's versions: which answers, scores, and runs that used them.",
    "show": "All that was said of a model's versions, or of one.",
    "compare": "Two versions side by side: on the gate, in runs, and what they are made of.",
    "promote": "Have a version answer, unless it does worse than the current one.",
    "rollback": "Have the version answer again that was current before.",
    "canary": "Have another version answer a share of the runs that begin.",
}

RUN: Final = """\
Give a task, see the run, get the answer.

The answer goes to stdout, the run to stderr. Without a standing deployment
this process hosts one for as long as the run takes. Ctrl-C ends that
gracefully: the run can be taken up again.

Try:

  podium run "What is the population of France divided by that of Belgium?"
  podium run --policy openai:gpt-5 --cost 0.20 "..."     a model decides
  podium run --pool my_pool.toml "..."                   workers of your own
  podium run --json "..." | jq -r '.done.answer // empty'
"""

SERVE: Final = """\
Serve pools as models of an OpenAI-compatible endpoint.

Each pool is a model under its name, and each chat completion is a run. Without
a standing deployment this process hosts one for as long as it serves.

Try:

  podium serve                              the shipped pool, on this machine
  podium serve --pool a.toml --pool b.toml  two models
  podium serve --host 0.0.0.0               with tokens in $PODIUM_SERVE_TOKENS
"""

SIGNALS: Final = {
    "cancel": "End a run without an answer.",
    "pause": "Let a run rest; it goes on with `resume`.",
    "resume": "Let a paused run go on.",
    "replan": "Have a run decide anew while calls go on.",
    "answer": "Have a run answer now, with what it has.",
    "extend": "Let a run spend more.",
}

DEBUGGING: Final = {
    "replay": "Step through a run, forward and back.",
    "timeline": "What happened in a run, event by event.",
    "state": "A run as it stood after an event.",
    "causes": "What led to an event.",
    "effects": "What an event led to.",
    "sim": "Simulate a deployment with every fault, and show that nothing is lost.",
    "reproduce": "One call of a run again, here, also under a debugger; and compare.",
    "fork": "Go on from an event of a run, with something changed.",
    "rerun": "Make again what failed in a run; reuse what succeeded.",
    "diff": "Two runs side by side: where they first differ, and in what.",
    "verify": "Check logs: hashes and gaps, then the rules and prompts.",
}

KEEPING: Final = {
    "export": (
        "podium.cli.exporting:export",
        "Write a run into one file: to take along, or for other tools.",
    ),
    "import": (
        "podium.cli.exporting:import_",
        "Read an exported file here as all other runs; no server is needed.",
    ),
    "archive": (
        "podium.cli.archiving:archive",
        "Move finished runs to Parquet; they are read as before.",
    ),
}

TRAINING: Final = {
    "score": "What runs are worth, by channels and by a recipe.",
    "label": "Say of a run how good it is, also long after it.",
}

DATASET: Final = {
    "build": "Make a data set of runs, or bring one up to date.",
    "show": "What a data set is made of, and whether its files are whole.",
    "preview": "Rows as a person reads them, with what is trained in colour.",
}

TRAIN_VERBS: Final = {
    "new": "Make a small model that nobody has trained.",
    "sft": "Have a model imitate what a data set has.",
    "rl": "Have a model do more of what is rewarded: a data set, or live actors.",
    "report": "Draw the curves of trainings.",
}

DEPLOYMENT: Final = {
    "up": "Keep a deployment standing: broker, Ray, conductor, workers.",
    "down": "Stop the standing deployment. Nothing is lost.",
    "status": "What the standing deployment does.",
}
