"""`podium train`: a data set, or what live actors play, becomes the next version of a model."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output
from podium.cli.train_options import NOBODY, PLAIN, USUAL, How, Played, Result, spec_of
from podium.cli.world import current
from podium.render_text import count
from protocol.errors import Usage

if TYPE_CHECKING:
    from podium.config import Config
    from protocol.decisions import PolicySpec
    from trainer.learner.sinks import Sink
    from trainer.training.job import Job
    from trainer.training.run import Outcome, Shell
    from trainer.training.spec import Kind, Spec
    from trainer.training.tasks import Tasks

TEXT_EPISODES: Final = 2_000
"""Episodes of the gym that a vocabulary is made of."""

SHOWN: Final = ("nll", "reward", "accuracy", "valid", "cost_usd")
"""Metrics of the last step that are told at the end."""

ELSE_SHOWN: Final = ("loss", "ess_frac")
"""Those that are told where there are none of the others: of rollouts in a data set."""

Model = Annotated[str, Parameter(help="The model's folder, or local:FOLDER.")]
From = Annotated[
    str, Parameter(name="--from", help="The version to begin with: 000007, base (current).")
]


def sft(
    dataset: str,
    /,
    *,
    model: Model,
    version: From = "",
    how: How = PLAIN,
    result: Result = USUAL,
    common: Common = COMMON,
) -> int:
    """Have a model imitate what a data set has; publish what comes of it.

    Ended by whatever it may be and given again, it goes on.

    Parameters
    ----------
    dataset
        A folder that `podium dataset build sft` has written, with a tokenizer.
    """
    return _Train(common, "sft", how, NOBODY, result).rows(dataset, model, version)


def rl(
    dataset: str = "",
    /,
    *,
    model: Model,
    version: From = "",
    how: How = PLAIN,
    played: Played = NOBODY,
    result: Result = USUAL,
    common: Common = COMMON,
) -> int:
    """Have a model do more of what is rewarded: by a data set, or as live actors play.

    With --tasks or --gym, the standing deployment plays groups of runs in each step, by the
    version that the step before has published. Ended by whatever it may be and given again, it
    goes on.

    Parameters
    ----------
    dataset
        A folder that `podium dataset build rl` has written; or nothing, for live rollouts.
    """
    command = _Train(common, "rl", how, played, result)
    live = played.tasks is not None or played.gym is not None
    if live == bool(dataset) or (played.tasks is not None and played.gym is not None):
        raise Usage(
            "Say what is learned from: a data set, a file of tasks, or the gym.",
            hint="podium train rl DATASET, podium train rl --tasks FILE, or --gym train",
        )
    if live and result.no_publish:
        raise Usage(
            "The versions of live rollouts are published: each step is played by its own.",
            hint="leave --no-publish out",
        )
    if live and not (how.epochs is None and how.batch is None):
        raise Usage(
            "--epochs and --batch are of a data set's rows: live rollouts have none.",
            hint="say --steps, and how much is played in each: --groups, --members",
        )
    if dataset:
        if played.given:
            raise Usage(
                "A data set's rollouts were played: options of live rollouts mean nothing.",
                hint="leave them out, or leave the data set out",
            )
        return command.rows(dataset, model, version)
    return command.live(model, version)


class _Train:
    """One `podium train`, with what it was told."""

    def __init__(
        self, common: Common, kind: "Kind", how: How, played: Played, result: Result
    ) -> None:
        from trainer.learner.loading import need, placed

        need("numpy", "pyarrow", "torch", "transformers", "safetensors")
        self.output = Output(common.json)
        self.here = current().folder or Path.cwd()
        self.common, self.played, self.result = common, played, result
        self.spec: Spec = spec_of(kind, how, played, self.here)
        placed(self.spec.device)  # is there, before a folder is begun for it
        self.out = self.here / (result.out or f"trainings/{kind}")
        if result.average and not self.spec.optimizer.ema:
            raise Usage(
                "no average of the weights is kept", hint="say optimizer.ema, such as 0.999"
            )

    def rows(self, dataset: str, model: str, version: str) -> int:
        """By a data set."""
        from trainer.training.job import held
        from trainer.training.rows import described
        from trainer.training.run import from_rows

        folder = (self.here / dataset).absolute()
        data, path = described(folder, self.spec.kind), self._model(model)
        config = self.common.load().config
        with held(self.out):
            job = self._job(path, version, data)
            with _told(config, job) as sinks:
                return self._tell(job, from_rows(job, folder, self._shell(sinks)))

    def live(self, model: str, version: str) -> int:
        """As a deployment plays."""
        from podium.live_training import Rollouts
        from trainer.training.job import held
        from trainer.training.live import policy_of
        from trainer.training.run import from_actors

        world, config = current(), self.common.load().config
        with Rollouts(world.deployments, config) as rollouts:
            path = self._model(model)
            policy = policy_of(rollouts.policy(path), self.spec)
            tasks = self._tasks(rollouts, config)
            with held(self.out):
                job = self._job(path, version, tasks.described, policy)
                source = rollouts.source(job.made.id, self.spec.live)
                with _told(config, job) as sinks:
                    done = from_actors(
                        job,
                        source,
                        tasks,
                        policy,
                        self._shell(sinks),
                        ready=lambda name: rollouts.ready(path, name),
                        alive=rollouts.alive,
                    )
                    return self._tell(job, done)

    def _tasks(self, rollouts: Any, config: "Config") -> "Tasks":
        from protocol.budgets import Budget
        from trainer.training.tasks import Gym, Listed

        if self.played.gym is not None:
            return Gym(self.played.gym, self.played.family or ())
        if self.played.family:
            raise Usage("--family is for tasks of the gym", hint="leave it out")
        standing = rollouts.standing
        budget = config.budget.over(standing.budget.over(Budget()))
        return Listed(self.here / (self.played.tasks or ""), standing.workers, budget)

    def _model(self, name: str) -> Path:
        from podium.cli.model import folder_of

        return folder_of(name)

    def _job(
        self, path: Path, version: str, data: Any, policy: "PolicySpec | None" = None
    ) -> "Job":
        from trainer.training.job import Job

        if version.isascii() and version.isdigit():
            version = f"{int(version):06}"
        named = "" if version == "current" else version
        job = Job.begin(
            self.out, path, named, data, self.spec, policy=policy, fresh=self.result.fresh
        )
        self.output.say(
            f"{job.made.id}: {path.name} from version {job.made.version}, in {_near(self.out)}"
        )
        return job

    def _shell(self, sinks: "list[Sink]") -> "Shell":
        from trainer.training.run import Shell

        return Shell(
            sinks=sinks,
            publish=not self.result.no_publish,
            current=self.result.current,
            average=self.result.average,
            progress=self.output.lively(),
            by=current().user,
            why=self.result.why,
        )

    def _tell(self, job: "Job", done: "Outcome") -> int:
        from replay.model_versions import pointed

        told = _figures(done.values, SHOWN) or _figures(done.values, ELSE_SHOWN)
        after = f", {done.begun_at} of them before" if done.begun_at else ""
        made = f"version {done.version.name}" if done.version else "nothing published"
        detail = f"{_near(job.model)}: {made} after {count(done.steps, 'step')}{after}"
        detail += f" ({told})" if told else ""
        if refused := done.values.get("refused"):
            self.output.say(f"the last batch moved nothing: {refused}")
        name = done.version.name if done.version else None
        self.output.mutation(str(job.model), detail, event_id=name)
        self.output.hint(f"its curves: podium train report {_near(self.out)}")
        if name is not None and pointed(job.model) != name:
            if self.played.given:
                self.output.say(f"version {name} was current; another was chosen since, and stays")
            self.output.hint(
                f"have it answer, if it is no worse: podium model promote {_near(job.model)} {name}"
            )
        return 0


def _near(path: Path) -> Path:
    """As it is typed here: from the current folder, where it is below that."""
    here = (current().folder or Path.cwd()).absolute()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _figures(values: Any, names: tuple[str, ...]) -> str:
    return ", ".join(
        f"{name} {value:.4g}"
        for name in names
        if isinstance(value := values.get(name), int | float)
    )


@contextlib.contextmanager
def _told(config: "Config", job: "Job") -> "Iterator[list[Sink]]":
    """Where metrics go besides the training's own file: OpenTelemetry, if that is on."""
    from actors import tracing

    wanted = tracing.wanted(current().environment, "metrics") or bool(config.trace.endpoint)
    trace = config.trace
    if not (trace.enabled and trace.metrics and wanted and tracing.installed()):
        yield []
        return
    from podium.tracing.metrics import Meters
    from trainer.learner.sinks import OtelSink

    meters = Meters()
    try:
        yield [OtelSink(meters.meter, {"podium.train.id": job.made.id})]
    finally:
        meters.close()


# ----------------------------------------------------------------------------------------- report


def report(
    *folder: Annotated[str, Parameter(help="Folders of trainings, or files of metrics.")],
    out: Annotated[str, Parameter(help="The file: .html or .svg (report.html).")] = "report.html",
    title: Annotated[str, Parameter(help="What stands above all.")] = "",
    name: Annotated[
        list[str] | None, Parameter(help="What each is called, in their order.")
    ] = None,
    together: Annotated[
        bool, Parameter(help="They are stages of one training, one behind the other.")
    ] = False,
    common: Common = COMMON,
) -> int:
    """Draw the curves of trainings: reward and its parts, turns, workers, the learner's own.

    Several lie over one another, such as one with SFT first and one without.
    """
    from trainer.learner.report import draw
    from trainer.training.job import METRICS

    if not folder:
        raise Usage("No training is named.", hint="podium train report trainings/sft")
    here = current().folder or Path.cwd()
    paths = [here / each for each in folder]
    files = [path / METRICS if path.is_dir() else path for path in paths]
    names = name or [path.name if path.is_dir() else path.stem for path in paths]
    if together and len(names) > 1 and name:
        raise Usage(
            f"{count(len(names), 'name')} for what is drawn together as one",
            hint="give --name once, or leave --together out",
        )
    if together:
        series = {(name or [title or "training"])[0]: files}
    elif len(names) != len(files):
        raise Usage(
            f"{count(len(names), 'name')} for {count(len(files), 'training')}",
            hint="give --name once for each",
        )
    elif len(set(names)) != len(names):
        raise Usage("Two trainings have one name.", hint="tell them apart: --name A --name B")
    else:
        series = {each: [file] for each, file in zip(names, files, strict=True)}
    drawn = draw(series, here / out, title=title)
    Output(common.json).mutation(str(drawn), f"{_near(drawn)}: {count(len(series), 'training')}")
    return 0


# -------------------------------------------------------------------------------------------- new


def new(
    folder: str,
    /,
    *,
    dataset: Annotated[
        str | None, Parameter(help="Its vocabulary is made of this data set's messages.")
    ] = None,
    gym: Annotated[
        str | None, Parameter(help="Of what the gym's teacher reads and writes: train, small.")
    ] = None,
    episodes: Annotated[int, Parameter(help="Of the gym.")] = TEXT_EPISODES,
    vocabulary: Annotated[int, Parameter(help="Tokens of it.")] = 1_536,
    layers: int = 3,
    width: int = 128,
    heads: int = 4,
    kv_heads: int = 2,
    feed_forward: int = 384,
    context: Annotated[int, Parameter(help="Tokens of a prompt and its reply.")] = 2_048,
    seed: int = 0,
    common: Common = COMMON,
) -> int:
    """Make a small model that nobody has trained, for the dialect `slots`.

    Parameters
    ----------
    folder
        Where it goes; nothing may be there.
    """
    from trainer.learner.loading import need

    need("numpy", "pyarrow", "torch", "transformers", "safetensors", "tokenizers")
    from trainer.small import Shape
    from trainer.training.begin import begin, gym_texts
    from trainer.training.rows import texts

    if (dataset is None) == (gym is None):
        raise Usage(
            "Say of which texts its vocabulary is made.",
            hint=f"podium train new {folder} --dataset DATASET, or --gym train",
        )
    here = current().folder or Path.cwd()
    path = (here / folder).absolute()
    said = gym_texts(gym, episodes) if gym is not None else texts(here / (dataset or ""))
    shape = Shape(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        feed_forward=feed_forward,
        context=context,
    )
    made = begin(path, said, shape, vocabulary, seed, gym=gym or "")
    output = Output(common.json)
    output.mutation(str(path), f"{_near(path)}: an untrained model of {made:,} parameters")
    output.hint(f"teach it: podium train sft DATASET --model {folder}")
    return 0
