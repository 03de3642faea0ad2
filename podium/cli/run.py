"""`podium run`: give a task, see the run, get the answer."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from podium.cli.follow import Follower, done, pause_error
from podium.cli.interrupts import EXIT_INTERRUPTED, Interrupts
from podium.cli.options import (
    HOSTING,
    RUN_LIMITS,
    Hosting,
    RunLimits,
    budget_of,
    load_pool,
    policy_of,
)
from podium.cli.output import Output
from podium.cli.world import current
from protocol.actions import Json
from protocol.errors import Conflict, InvalidData, PodiumError, Usage
from protocol.traces import trace_id

if TYPE_CHECKING:
    from podium.config import Loaded
    from podium.poolfile import LoadedPool
    from podium.render import RunTree
    from protocol.actions import Pool
    from protocol.decisions import PolicySpec, Task


def run(
    task: str = "",
    /,
    *,
    inputs: Annotated[
        str | None, Parameter(help="Data for the task: JSON, or @FILE with JSON.")
    ] = None,
    detach: Annotated[
        bool, Parameter(help="Only queue it; a standing deployment does the work.")
    ] = False,
    go_on: Annotated[
        str | None,
        Parameter(name="--continue", help="Take up a run that was interrupted, by its id."),
    ] = None,
    priority: Annotated[
        Literal["normal", "high"], Parameter(help="In the queue of tasks (normal).")
    ] = "normal",
    dry_run: Annotated[bool, Parameter(help="Check everything and begin nothing.")] = False,
    hosting: Hosting = HOSTING,
    limits: RunLimits = RUN_LIMITS,
) -> int:
    """Give a task, see the run, get the answer.

    The answer goes to stdout, the run to stderr. Without a standing deployment (`podium up`) this
    process hosts one for as long as the run takes.

    Parameters
    ----------
    task
        What to find out or do.
    """
    output = Output(hosting.json)
    loaded = hosting.load(**limits.flags())
    pool = load_pool(loaded, current().deployments.standing(loaded.config))
    command = _Run(output, loaded, pool, priority)
    if go_on:
        return asyncio.run(command.take_up(go_on))
    if not task.strip():
        raise Usage("No task is given.", hint='Ask something: podium run "…"')
    if detach:
        return asyncio.run(command.queue(_task(task, inputs), dry_run))
    return asyncio.run(command.host(_task(task, inputs), dry_run))


def _task(text: str, inputs: str | None) -> "Task":
    from protocol.decisions import Task

    if inputs is None:
        return Task(text=text)
    try:
        given = inputs
        if inputs.startswith("@"):
            with open(inputs[1:], encoding="utf-8") as file:
                given = file.read()
        data: Json = msgspec.json.decode(given)
    except OSError as error:
        raise Usage(
            f"--inputs: {inputs[1:]} can't be read: {error.strerror}.", hint="Correct the path."
        ) from None
    except ValueError as error:
        raise InvalidData(
            f"--inputs is no JSON: {error}", hint="Give an object, such as '{\"year\": 2026}'."
        ) from None
    if not isinstance(data, dict):
        raise InvalidData("--inputs is no JSON object.", hint="Such as '{\"year\": 2026}'.")
    return Task(text=text, inputs=data)


class _Run:
    """One `podium run`, with what it was told."""

    def __init__(self, output: Output, loaded: "Loaded", pool: "LoadedPool", priority: str) -> None:
        self.output, self.config, self.pool = output, loaded.config, pool
        self.budget = budget_of(loaded, pool)
        self.policy = policy_of(loaded, pool)
        self.priority: Any = priority
        self.deployments = current().deployments
        self.begun = ""

    def _spec(self) -> "PolicySpec":
        from podium.poolfile import policy_spec

        return policy_spec(self.policy)

    def _check(self, task: "Task") -> None:
        """Refuse before anything is started what would be refused afterwards."""
        from podium.checks import check_start
        from protocol.commands import Start
        from protocol.subjects import run_id

        check_start(
            Start(
                run=run_id(bytes(8)),
                task=task,
                pool=self.pool.pool,
                policy=self._spec(),
                budget=self.budget,
            )
        )

    def _would(self, task: "Task") -> int:
        workers = len(self.pool.pool.workers)
        detail = f"a run of {workers} workers under the policy {self.policy}: {task.text}"
        self.output.mutation("run", detail, dry_run=True)
        return 0

    async def queue(self, task: "Task", dry_run: bool) -> int:
        """Queue the run, and return."""
        self._check(task)
        if not self.config.nats.url and self.deployments.standing(self.config) is None:
            raise Usage(
                "--detach needs a standing deployment, and none lives here.",
                hint="start one: podium up",
            )
        if dry_run:
            return self._would(task)
        async with self.deployments.connect(self.config) as host:
            run = await host.client.submit(
                task, self.pool.pool, self._spec(), self.budget, self.priority
            )
        self._launched(run)
        if not self.output.as_json:
            self.output.text(run)
        self.output.hint(f"watch it: podium runs watch {run}")
        return 0

    async def host(self, task: "Task", dry_run: bool) -> int:
        """Host the run, or attach to who does, and follow it."""
        self._check(task)
        with Interrupts(self.output, self._farewell) as interrupts:
            if self.deployments.standing(self.config) is None and not self.config.ray.address:
                from podium.poolcheck import preflight

                await preflight(self.pool, self.policy, self.config.secrets.place())
            if dry_run:
                return self._would(task)
            ended = await interrupts.unless(self._hosted(task, "", interrupts))
            return EXIT_INTERRUPTED if ended is None else ended

    async def take_up(self, run: str) -> int:
        """Host a run that was begun before, with the workers it began with, and follow it."""
        with Interrupts(self.output, self._farewell) as interrupts:
            async with self.deployments.connect(self.config) as host:
                run = await host.client.find(run)
                log = await host.client.log(run)
            state = log.state()
            if log.head.n and not log.head.seq and state.phase != "ended":
                raise Conflict(
                    f"run {run} was imported, and can't go on here",
                    hint=f"begin a new run that goes on from it: podium fork {run}",
                )
            if state.phase == "ended":
                raise Conflict(
                    f"run {run} has ended already ({state.outcome})",
                    hint=f"see what came of it: podium runs show {run} --content",
                )
            if state.phase != "new":
                self.pool = msgspec.structs.replace(self.pool, pool=state.pool)
                _importable(run, state.pool)
            ended = await interrupts.unless(self._hosted(None, run, interrupts))
            return EXIT_INTERRUPTED if ended is None else ended

    async def _hosted(self, task: "Task | None", run: str, interrupts: Interrupts) -> int:
        stopping = self._starting()
        try:
            async with self.deployments.open(self.config, self.pool) as host:
                if task is not None:
                    run = await host.client.submit(
                        task, self.pool.pool, self._spec(), self.budget, self.priority
                    )
                else:
                    run = await host.client.find(run)
                stopping()
                self.begun = run
                self._launched(run)
                follower = Follower(host.client, self.output, content=True)
                shown = await follower.follow(run, interrupts)
                # Told before the servers are stopped: the answer is what was waited for.
                if shown is None:
                    return EXIT_INTERRUPTED
                code = self._ended(shown)
                if self.deployments.standing(self.config) is None:
                    self.output.hint("to begin at once next time: podium up")
                return code
        finally:
            stopping()

    def _starting(self) -> Any:
        """Say that servers are starting; gives what ends that."""
        if not self.output.lively():
            return lambda: None
        attached = self.deployments.standing(self.config) is not None
        what = "attaching to the deployment" if attached else "starting broker, Ray and workers"
        status = self.output.console(err=True).status(f"{what} …")
        status.start()
        return status.stop

    def _launched(self, run: str) -> None:
        if self.output.as_json:
            trace = trace_id(run)
            self.output.json({"launch": {"run_id": run, "view_url": None, "trace_id": trace}})

    def _farewell(self) -> str:
        if not self.begun:
            return "stopping; no run has begun"
        run = self.begun
        if self.deployments.standing(self.config) is not None:
            return f"run {run} goes on without you\nwatch it: podium runs watch {run}"
        return (
            f"run {run} is interrupted, and nothing of it is lost\n"
            f"go on with it: podium run --continue {run}"
        )

    def _ended(self, shown: "RunTree") -> int:
        if shown.phase == "paused":
            raise pause_error(shown)
        return ended(self.output, shown)


def _importable(run: str, pool: "Pool") -> None:
    """Raise `Usage` unless the functions of a recorded pool can be found again."""
    from actors.workers.function import find

    for spec in pool.workers:
        if not spec.adapter.startswith("function:"):
            continue
        try:
            find(spec.adapter)
        except PodiumError as error:
            raise Usage(
                f"run {run} has the worker {spec.name!r}: {error.message}",
                hint=f"name the file of its pool: podium run --continue {run} --pool FILE",
            ) from None


def ended(output: Output, shown: "RunTree") -> int:
    """Print what came of a run; the exit code."""
    if output.as_json:
        output.json({"done": done(shown)})
    elif shown.outcome == "finished":
        if output.lively():
            output.say("")
        output.answer(shown.answer)
    if output.lively():
        output.say("")
    output.hint(f"look at it again: podium runs show {shown.run} --content")
    return 0 if shown.outcome == "finished" else 1
