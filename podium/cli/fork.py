"""`podium fork` and `podium rerun`: go on from where a run stood, with something changed."""

import asyncio
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec
from cyclopts import Group, Parameter

from podium.cli.interrupts import Interrupts
from podium.cli.launch import Launch, importable, of_run, registered
from podium.cli.options import HOSTING, Hosting, load_pool
from podium.cli.output import Output
from podium.cli.source import event_name, no_file
from podium.cli.world import current
from podium.render_text import ago, count, one_line, value_text
from protocol.errors import Conflict, NotFound, Usage
from protocol.subjects import run_id

if TYPE_CHECKING:
    from podium.client import Client
    from podium.config import Loaded
    from podium.poolfile import LoadedPool
    from protocol.actions import Pool, WorkerSpec
    from protocol.commands import Fork
    from protocol.events import Edit
    from protocol.rules import Draft
    from protocol.state import RunState
    from replay.chain import RunLog
    from replay.forks import Failure
    from replay.history import Entry

WHY_CHARS: Final = 160
"""Characters of a failure's text in the line that names it."""

CHANGED = Group("Changed", sort_key=5)
"""Options that say what is another in a fork than it was."""


@Parameter(name="*")
@dataclass(frozen=True)
class Changes:
    """What a fork has of its own."""

    worker: Annotated[
        list[str],
        Parameter(
            group=CHANGED,
            help="NAME=SOURCE: another worker under that name. SOURCE is FILE.toml (its worker of "
            "that name), FILE.toml:OTHER, or another worker of the run.",
        ),
    ] = field(default_factory=list)
    set: Annotated[
        list[str],
        Parameter(
            group=CHANGED,
            help="PATH=VALUE: something replaced, such as calls.2-0.value, calls.2-0.arguments.city"
            ", task.text, workers.NAME.options.role or budget.rounds. VALUE is JSON, or a text.",
        ),
    ] = field(default_factory=list)
    times: Annotated[int, Parameter(help="How many such runs (1).")] = 1
    reason: Annotated[str, Parameter(help="Why, for whoever looks at it later.")] = ""
    detach: Annotated[
        bool, Parameter(help="Only queue it; a standing deployment does the work.")
    ] = False
    dry_run: Annotated[bool, Parameter(help="Check everything and begin nothing.")] = False


NO_CHANGES: Final = Changes()


class Choice(NamedTuple):
    """Where a fork begins."""

    at: int
    reopened: tuple[str, ...] = ()
    found: str = ""
    """What is said of it, in a line."""


Choose = Callable[["RunLog", "list[Entry]"], Choice]


def fork(
    run: str,
    /,
    *,
    at: Annotated[
        str | None,
        Parameter(
            help="The last event that is shared: its number; a call (2-0), for the event before it "
            "is made; or end."
        ),
    ] = None,
    changes: Changes = NO_CHANGES,
    hosting: Hosting = HOSTING,
) -> int:
    """Go on from an event of a run, as another run, with something changed.

    What came before is shared, not made again. The run itself never changes, and may still be at
    work.

    Parameters
    ----------
    run
        Its id, or the beginning of it; RUN@57 is the same as RUN --at 57.
    """
    if "@" in run:
        named = event_name(run)
        if at is not None and at != str(named.number):
            raise Usage(f"{run} and --at {at} are two events.", hint="Name one of them.")
        run, at = named.run, str(named.number)
    if at is None:
        raise Usage(
            "No event is named at which to fork.",
            hint=f"Name one with --at; they are numbered by: podium timeline {run}",
        )
    no_file(run, f"fork {{run}} --at {at}")
    text = at

    def choose(log: "RunLog", history: "list[Entry]") -> Choice:
        from replay.forks import moment

        return Choice(moment(log, text, history))

    return asyncio.run(_Fork(hosting, changes, f"fork {run} --at {at}").run(run, choose))


def rerun(
    run: str,
    /,
    *,
    from_: Annotated[
        str | None,
        Parameter(name="--from", help="A call to make again, whether or not it has failed."),
    ] = None,
    changes: Changes = NO_CHANGES,
    hosting: Hosting = HOSTING,
) -> int:
    """Make again what failed in a run, and reuse every result that succeeded.

    This is a fork at the event that failed, with the code that is there: mend it first.

    Parameters
    ----------
    run
        Its id, or the beginning of it.
    """
    no_file(run, "rerun {run}" + (f" --from {from_}" if from_ else ""))

    def choose(log: "RunLog", history: "list[Entry]") -> Choice:
        from replay.forks import again_from, failure

        found = again_from(log, from_, history) if from_ else failure(log, history)
        if found is None:
            raise Conflict(
                f"nothing failed in run {log.run} that was not made good", hint=_otherwise(log)
            )
        return Choice(found.at, found.reopened, _told(log, found, history))

    return asyncio.run(_Fork(hosting, changes, f"rerun {run}").run(run, choose))


def _otherwise(log: "RunLog") -> str:
    """What to do about a run in which nothing failed."""
    from podium.render import tree

    below = [call.child for turn in tree(log).turns for call in turn.calls if call.child]
    if below:
        return f"something may have failed in a run below it: podium rerun {below[0]}"
    return f"make one of its calls again: podium rerun {log.run} --from CALL"


def _told(log: "RunLog", found: "Failure", history: "list[Entry]") -> str:
    """``round 2: stock (2-1) failed: KeyError: 'lamp'; made again, 3 results reused``."""
    from protocol.events import CallSettled, DecisionRejected, PolicyReplied
    from replay.history import values

    before = log.state(found.at)
    match history[found.event - 1].event:
        case CallSettled() as event:
            name = event.call
            value = values(log).get(event.report) if event.report else event.value
            why = (
                ""
                if event.status == "OK"
                else f": {one_line(value_text(value), WHY_CHARS).removesuffix('.')}"
            )
            word = {"OK": "succeeded", "TIMEOUT": "ran out of time"}.get(event.status, "failed")
            worker = one_line(before.calls[name].call.worker)
            what = f"round {name.partition('-')[0]}: {worker} ({name}) {word}{why}"
            others = [call for call in found.reopened if call != name]
            again = "made again" + (f" with {', '.join(others)}" if others else "")
        case PolicyReplied() as event:
            why = one_line(event.error or event.status, WHY_CHARS)
            what = f"turn {event.turn}: the policy {before.policy.name} failed: {why}"
            again = "asked again"
        case DecisionRejected() as event:
            what = f"turn {event.turn}: the reply of the policy was rejected ({event.reason})"
            again = "asked again"
        case _:
            what, again = "", ""
    kept = [n for n, c in before.calls.items() if c.status == "OK" and n not in found.reopened]
    return f"{what}; {again}, {count(len(kept), 'result')} reused"


class _Fork:
    """One `podium fork` or `podium rerun`, with what it was told."""

    def __init__(self, hosting: Hosting, changes: Changes, command: str) -> None:
        from podium.checks import check_times

        check_times(changes.times)
        self.output, self.changes, self.command = Output(hosting.json), changes, command
        self.policy, self.named = hosting.policy, hosting.pool is not None
        self.loaded: Loaded = hosting.load()
        self.launch = Launch(self.output, self.loaded.config)
        # For what its folder adds to the import path: the code of the run's own workers.
        there = self.launch.deployments.standing(self.loaded.config)
        self.pool: LoadedPool = load_pool(self.loaded, there)

    async def run(self, name: str, choose: Choose) -> int:
        """Find where it begins, check it, and have it done."""
        from replay.history import entries

        launch = self.launch
        with Interrupts(self.output, launch.farewell) as interrupts:
            async with launch.deployments.connect(launch.config) as host:
                log = await host.client.log(await host.client.find(name))
                history = entries(log)
                choice = choose(log, history)
                made = self._made(log, choice, history)
                draft = self._tried(log.state(choice.at), made)
                pool = of_run(self.pool, draft.state)
                if not launch.attached and not launch.config.pool:
                    pool = await registered(host, pool, launch.config)
            self._hostable(log.run, pool)
            if self.changes.detach:
                launch.need_standing()
            else:
                await launch.preflight(pool, pool.policy)
            if self.changes.dry_run:
                self.output.mutation(
                    f"{log.run}@{choice.at}", self._says(log, choice, draft), dry_run=True
                )
                return 0
            self._announce(log, choice, draft)

            async def begin(client: "Client") -> list[str]:
                return await client.fork(
                    log.run,
                    choice.at,
                    policy=made.policy,
                    workers=made.workers,
                    edits=made.edits,
                    reopened=made.reopened,
                    times=self.changes.times,
                    reason=self.changes.reason,
                )

            if self.changes.detach:
                return await launch.queue(begin)
            return await launch.host(pool, begin, interrupts)

    def _made(self, log: "RunLog", choice: Choice, history: "list[Entry]") -> "Fork":
        from podium.policyfile import chosen
        from protocol.commands import Fork
        from protocol.events import RunForked
        from protocol.run import evolve
        from replay.forks import origin_at

        origin = origin_at(log, choice.at, history)
        state = log.state(choice.at)
        secrets = self.loaded.config.secrets.place()
        workers = tuple(_worker(text, state.pool, secrets) for text in self.changes.worker)
        policy = chosen(self.policy, self.pool.policy, self.pool.spec) if self.policy else None
        bare = Fork(
            run=run_id(bytes(8)),
            origin=origin,
            policy=policy,
            workers=workers,
            reopened=choice.reopened,
        )
        event = RunForked(
            run=bare.run, origin=origin, at=origin.at, workers=workers, reopened=choice.reopened
        )
        edits = _edits(evolve(state, event), self.changes.set)
        return msgspec.structs.replace(bare, edits=edits)

    def _tried(self, state: "RunState", made: "Fork") -> "Draft":
        """What will come of it first. Raises what a client would."""
        from podium.checks import check_fork
        from protocol.commands import Activate
        from protocol.run import RULES, step

        check_fork(state, made)
        return step(state, [made, Activate("podium", RULES)], current().now())

    def _hostable(self, run: str, pool: "LoadedPool") -> None:
        """Raise `Usage` unless the fork's workers are hosted as they are, or can be."""
        from podium.checks import unlike, withdrawing

        there = self.launch.deployments.standing(self.launch.config)
        hosted = (*there.workers.workers, *there.earlier) if there is not None else ()
        names = withdrawing(there.workers, self.pool.pool) if there is not None else ""
        if there is not None and self.named and (other := unlike(hosted, self.pool.pool)):
            raise Usage(
                f"the standing deployment hosts pool {there.pool!r}, {other}",
                hint=f"leave --pool out, or: podium worker apply {shlex.quote(str(self.pool.path))}"
                + (f"   (withdraws {names})" if names else ""),
            )
        if there is None:
            importable(run, pool.pool, self.command)
        elif differs := unlike(hosted, pool.pool):
            raise Usage(
                f"the standing deployment hosts pool {there.pool!r}, {differs}",
                hint="stop it, and the fork hosts workers of its own: podium down",
            )

    def _says(self, log: "RunLog", choice: Choice, draft: "Draft") -> str:
        times = self.changes.times
        forks, each = (count(times, "fork"), "each ") if times > 1 else ("fork", "")
        text = f"{forks} of {log.run}@{choice.at}: {each}{_goes_on(draft)}"
        other = _other_parameters(log.state(choice.at).pool, draft.state.pool)
        return "\n".join(filter(None, (choice.found, text, *other)))

    def _announce(self, log: "RunLog", choice: Choice, draft: "Draft") -> None:
        if self.output.as_json:
            return
        for line in self._says(log, choice, draft).splitlines():
            self.output.say(line)
        there = self.launch.deployments.standing(self.launch.config)
        if there is not None and choice.found:
            since = ago(max(0, self.output.world.now() - there.since))
            self.output.hint(
                f"the workers run the code of {since}, when they were started; "
                "after a change of it: podium worker apply FILE --renew NAME"
            )


def _worker(text: str, pool: "Pool", secrets: str) -> "WorkerSpec":
    """The worker that ``NAME=SOURCE`` means. Raises `Usage` or what a pool file does."""
    from podium import poolfile
    from podium.places import renamed

    name, found, source = text.partition("=")
    if not (name and found and source):
        raise Usage(
            f"--worker {text}: it names no worker",
            hint="Say NAME=FILE.toml, NAME=FILE.toml:OTHER or NAME=OTHER.",
        )
    file, _, other = source.partition(".toml:") if ".toml:" in source else (source, "", "")
    if source.endswith(".toml"):
        file, other = source.removesuffix(".toml"), name
    if other:
        try:
            there = poolfile.load(f"{file}.toml", secrets).pool
        except NotFound as error:
            raise NotFound(error.message, hint=f"Correct its path: --worker {text}") from None
        where = f"{file}.toml"
    else:
        there, other, where = pool, source, "the run's pool"
    spec = there.get(other)
    if spec is None:
        names = ", ".join(worker.name for worker in there.workers)
        raise Usage(
            f"--worker {text}: {where} has no worker {other!r}", hint=f"There are: {names}."
        )
    if there is pool:
        return renamed(spec, name)
    return msgspec.structs.replace(spec, name=name)


def _other_parameters(before: "Pool", after: "Pool") -> list[str]:
    """Which workers take something else in a fork: its policy plans by what they take there."""
    return [
        f"{spec.name} takes {_taken(spec)} in the fork, in place of {_taken(old)}"
        for spec in after.workers
        if (old := before.get(spec.name)) is not None and old.parameters != spec.parameters
    ]


def _taken(spec: "WorkerSpec") -> str:
    """``(name, fact)``; of the same names, the schemas differ."""
    taken = spec.parameters.get("properties")
    return f"({', '.join(map(one_line, taken))})" if isinstance(taken, dict) else "(anything)"


def _edits(state: "RunState", texts: list[str]) -> "tuple[Edit, ...]":
    """What each ``PATH=VALUE`` means in this state: JSON, or a text where that is none or no fit.

    Raises:
        Usage: It has no path and value.
        InvalidData: It names a role that there is not.
    """
    from actors.workers.agent import roles
    from protocol import edits
    from protocol.events import Edit

    made = []
    for text in texts:
        path, found, value = text.partition("=")
        if not (path and found):
            raise Usage(
                f"--set {text}: it sets nothing", hint="Say PATH=VALUE, such as calls.2-0.value=7."
            )
        edit = Edit(path, _value(value))
        as_text = Edit(path, value)
        if edits.problem(state, edit) and not edits.problem(state, as_text):
            edit = as_text
        if path.startswith("workers.") and path.endswith(".options.role"):
            # As in a pool file: what is recorded is the text.
            role = roles.named(value)
            edit = edit if role is None else Edit(path, role.prompt)
        made.append(edit)
        state = state.copy()
        edits.apply(state, edit)
    return tuple(made)


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text


def _goes_on(draft: "Draft") -> str:
    """What a fork does first, in words."""
    from protocol.run import Ask, Make, due

    state = draft.state
    if state.phase == "ended":
        return f"ends at once ({state.outcome}): all was decided by then"
    if state.phase == "paused":
        return f"pauses at once ({state.pause_reason}: {one_line(state.pause_detail)})"
    effects = due(state)
    if any(isinstance(effect, Ask) for effect in effects):
        return f"asks the policy {state.policy.name}"
    made = [e.call for e in effects if isinstance(e, Make)]
    return "makes " + ", ".join(f"{one_line(state.calls[c].call.worker)} ({c})" for c in made)
