"""`podium run`: give a task, see the run, get the answer."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from podium.cli.interrupts import Interrupts
from podium.cli.launch import Launch, importable, of_run, registered
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
from podium.cli.source import no_file
from podium.cli.world import current
from podium.render_text import count
from protocol.actions import Json
from protocol.errors import Conflict, InvalidData, Usage

if TYPE_CHECKING:
    from podium.client import Client
    from podium.config import Loaded
    from podium.poolfile import LoadedPool
    from protocol.decisions import PolicySpec, Task


def run(
    task: str = "",
    /,
    *,
    inputs: Annotated[
        str | None, Parameter(help="Data for the task: JSON, or @FILE with JSON.")
    ] = None,
    check: Annotated[
        str | None,
        Parameter(help="How the answer is checked (docs/rewards.md): JSON, or @FILE with JSON."),
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
        return asyncio.run(command.queue(_task(task, inputs, check), dry_run))
    return asyncio.run(command.host(_task(task, inputs, check), dry_run))


def _task(text: str, inputs: str | None, check: str | None) -> "Task":
    from protocol.decisions import Task

    data = {} if inputs is None else _given("--inputs", inputs, '{"year": 2026}')
    how: Json = None
    if check is not None:
        from trainer.rewards.checks import read

        how = _given("--check", check, '{"kind": "exact", "answer": "Paris"}')
        read(how)
    return Task(text=text, inputs=data, check=how)


def _given(option: str, text: str, example: str) -> dict[str, Json]:
    """The JSON object that an option holds, or names the file of."""
    try:
        given = text
        if text.startswith("@"):
            with open(text[1:], encoding="utf-8") as file:
                given = file.read()
        data: Json = msgspec.json.decode(given)
    except OSError as error:
        raise Usage(
            f"{option}: {text[1:]} can't be read: {error.strerror}.", hint="Correct the path."
        ) from None
    except ValueError as error:
        raise InvalidData(
            f"{option} is no JSON: {error}", hint=f"Give an object, such as '{example}'."
        ) from None
    if not isinstance(data, dict):
        raise InvalidData(f"{option} is no JSON object.", hint=f"Such as '{example}'.")
    return data


class _Run:
    """One `podium run`, with what it was told."""

    def __init__(self, output: Output, loaded: "Loaded", pool: "LoadedPool", priority: str) -> None:
        self.output, self.pool = output, pool
        self.budget = budget_of(loaded, pool)
        self.policy = policy_of(loaded, pool)
        self.priority: Any = priority
        self.launch = Launch(output, loaded.config)

    def _spec(self) -> "PolicySpec":
        from podium.policyfile import chosen

        return chosen(self.policy, self.pool.policy, self.pool.spec)

    def _check(self, task: "Task") -> None:
        """Refuse before anything is started what would be refused afterwards."""
        from podium.checks import check_inputs, check_start
        from protocol.commands import Start
        from protocol.subjects import run_id

        start = Start(
            run=run_id(bytes(8)),
            task=task,
            pool=self.pool.pool,
            policy=self._spec(),
            budget=self.budget,
        )
        check_start(start)
        check_inputs(start.policy, task)

    def _would(self, task: "Task") -> int:
        workers = len(self.pool.pool.workers)
        detail = f"a run of {count(workers, 'worker')} under the policy {self.policy}: {task.text}"
        self.output.mutation("run", detail, dry_run=True)
        return 0

    def _begin(self, task: "Task") -> "Callable[[Client], Awaitable[list[str]]]":
        async def begin(client: "Client") -> list[str]:
            pool, spec = self.pool.pool, self._spec()
            return [await client.submit(task, pool, spec, self.budget, self.priority)]

        return begin

    async def queue(self, task: "Task", dry_run: bool) -> int:
        """Queue the run, and return."""
        self._check(task)
        self.launch.need_standing()
        if dry_run:
            return self._would(task)
        return await self.launch.queue(self._begin(task))

    async def host(self, task: "Task", dry_run: bool) -> int:
        """Host the run, or attach to who does, and follow it."""
        self._check(task)
        with Interrupts(self.output, self.launch.farewell) as interrupts:
            await self.launch.preflight(self.pool, self.policy)
            if dry_run:
                return self._would(task)
            return await self.launch.host(self.pool, self._begin(task), interrupts)

    async def take_up(self, run: str) -> int:
        """Host a run that was begun before, with the workers it began with, and follow it."""
        no_file(run, "fork {run} --at end")
        launch = self.launch
        with Interrupts(self.output, launch.farewell) as interrupts:
            async with launch.deployments.connect(launch.config) as host:
                run = await host.client.find(run)
                log = await host.client.log(run)
                state = log.state()
                if state.phase != "new":
                    self.pool = of_run(self.pool, state)
                    if not launch.attached and not launch.config.pool:
                        self.pool = await registered(host, self.pool, launch.config)
            if log.head.n and not log.head.seq and state.phase != "ended":
                raise Conflict(
                    f"run {run} was imported, and can't go on here",
                    hint=f"begin a new run that goes on from it: podium fork {run} --at end",
                )
            if state.phase == "ended":
                raise Conflict(
                    f"run {run} has ended already ({state.outcome})",
                    hint=f"see what came of it: podium runs show {run} --content",
                )
            if state.phase != "new" and not launch.attached:
                importable(run, state.pool, f"run --continue {run}")

            async def begin(client: "Client") -> list[str]:
                return [await client.find(run)]

            return await launch.host(self.pool, begin, interrupts)
