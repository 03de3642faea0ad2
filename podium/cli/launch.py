"""A command that has runs done: it hosts them or attaches to who does, follows them, tells the end.

`podium run`, `podium fork` and `podium rerun` differ in how a run is begun, and in nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from podium.cli.follow import Follower, done, failure_hints
from podium.cli.interrupts import EXIT_INTERRUPTED, Interrupts
from podium.cli.output import STARTING, Output
from podium.cli.world import current
from podium.render import decided, tree
from podium.render_text import duration, money
from podium.resting import pause_error, paused
from podium.while_hosted import while_hosted
from protocol.errors import Busy, PodiumError, Usage
from protocol.traces import trace_id

if TYPE_CHECKING:
    from podium.cli.world import Hosted
    from podium.client import Client
    from podium.config import Config
    from podium.poolfile import LoadedPool
    from podium.render import RunTree
    from protocol.actions import Pool
    from protocol.state import RunState
    from replay.chain import RunLog


class Launch:
    """What one command does with a deployment.

    Args:
        output: Where it prints.
        config: Which deployment is meant.
    """

    def __init__(self, output: Output, config: "Config") -> None:
        self.output, self.config = output, config
        self.deployments = current().deployments
        self.begun: list[str] = []
        """The runs that were begun."""

    @property
    def attached(self) -> bool:
        """Whether a deployment of this folder stands."""
        return self.deployments.standing(self.config) is not None

    def need_standing(self) -> None:
        """Raise `Usage` unless somebody will take up what is only queued."""
        if not self.config.nats.url and not self.attached:
            raise Usage(
                "--detach needs a standing deployment, and none lives here.",
                hint="start one: podium up",
            )

    async def preflight(self, pool: "LoadedPool", policy: str) -> None:
        """Look for keys and endpoints where the workers will run in processes of this one."""
        if not self.attached and not self.config.ray.address:
            from podium.poolcheck import preflight

            await preflight(pool, policy, self.config.secrets.place())

    async def queue(self, begin: "Callable[[Client], Awaitable[list[str]]]") -> int:
        """Queue runs, and return."""
        async with self.deployments.connect(self.config) as host:
            runs = await begin(host.client)
        for run in runs:
            self._launched(run)
            if not self.output.as_json:
                self.output.text(run)
        self.output.hint(f"watch it: podium runs watch {runs[0]}")
        return 0

    async def host(
        self,
        pool: "LoadedPool",
        begin: "Callable[[Client], Awaitable[list[str]]]",
        interrupts: Interrupts,
    ) -> int:
        """Have runs done, and show them; the exit code."""
        ended = await interrupts.unless(self._hosted(pool, begin, interrupts))
        return EXIT_INTERRUPTED if ended is None else ended

    async def _hosted(
        self,
        pool: "LoadedPool",
        begin: "Callable[[Client], Awaitable[list[str]]]",
        interrupts: Interrupts,
    ) -> int:
        stopping, attached = self._starting(), self.attached
        try:
            async with self.deployments.open(self.config, pool) as host:
                self.begun = await begin(host.client)
                stopping()
                for run in self.begun:
                    self._launched(run)
                # Told before the servers are stopped: the answer is what was waited for.
                followed = self._followed(host.client, interrupts)
                code = await while_hosted(host, followed, self._runs(), self._again(attached))
                if code != EXIT_INTERRUPTED and not attached:
                    self.output.hint("to begin at once next time: podium up")
                return code
        finally:
            stopping()

    async def _followed(self, client: "Client", interrupts: Interrupts) -> int:
        if len(self.begun) > 1:
            every = await interrupts.unless(self._every(client))
            return EXIT_INTERRUPTED if every is None else self._all_ended(every)
        follower = Follower(client, self.output, content=True)
        shown = await follower.follow(self.begun[0], interrupts)
        if shown is None:
            return EXIT_INTERRUPTED
        if shown.phase == "paused":
            raise pause_error(shown)
        return ended(self.output, shown, self.config.pool)

    def _starting(self) -> Callable[[], None]:
        """Say that servers are starting; gives what ends that."""
        return self.output.working(
            "attaching to the deployment" if self.attached else STARTING, takes=not self.attached
        )

    def _launched(self, run: str) -> None:
        if self.output.as_json:
            trace = trace_id(run)
            self.output.json({"launch": {"run_id": run, "view_url": None, "trace_id": trace}})

    def _runs(self) -> str:
        return f"run {self.begun[0]}" if len(self.begun) == 1 else f"{len(self.begun)} runs"

    def _again(self, attached: bool) -> str:
        """How what was begun goes on when the deployment has ended under it."""
        run = self.begun[0]
        if attached:
            return f"start it as before, and it goes on: podium up   then: podium runs watch {run}"
        return f"go on with it: podium run --continue {run}"

    def farewell(self) -> str:
        """What is said at Ctrl-C."""
        if not self.begun:
            return "stopping; no run has begun"
        first = self.begun[0]
        one = len(self.begun) == 1
        runs = self._runs()
        if self.attached:
            goes = "goes" if one else "go"
            return f"{runs} {goes} on without you\nwatch it: podium runs watch {first}"
        verb, them = ("is", "it") if one else ("are", "them")
        each = "it" if one else "each of them, such as this one"
        return (
            f"{runs} {verb} interrupted, and nothing of {them} is lost\n"
            f"go on with {each}: podium run --continue {first}"
        )

    # ------------------------------------------------------------------ several

    async def _every(self, client: "Client") -> "list[RunTree]":
        return await asyncio.gather(*(self._one(client, run) for run in self.begun))

    async def _one(self, client: "Client", run: str) -> "RunTree":
        """Follow one of several until it has ended or paused, and say so."""
        last: RunLog | None = None
        async with aclosing(client.follow(run)) as logs:
            async for log in logs:
                last = log
                if paused(log):
                    break
        assert last is not None
        shown = tree(last)
        if self.output.as_json:
            self.output.json({"done": done(shown)})
        else:
            took = duration(max(0, (shown.ended or shown.last) - shown.started))
            self.output.say(f"{run}  {shown.outcome or shown.phase}  {took}")
        return shown

    def _all_ended(self, every: "list[RunTree]") -> int:
        """Print what came of several runs, one a line; the exit code."""
        if not self.output.as_json:
            self.output.show(self._table(every))
            self.output.hint(f"look at one: podium runs show {every[0].run} --content")
            if len(every) > 1:
                self.output.hint(f"compare two: podium diff {every[0].run} {every[1].run}")
        resting = [pause_error(run) for run in every if run.phase == "paused"]
        if resting and not self.output.as_json:
            self.output.cures((error.message, error.hint) for error in resting)
        if resting:
            return Busy.exit_code
        return 0 if all(run.outcome == "finished" for run in every) else 1

    def _table(self, every: "list[RunTree]") -> Any:
        from podium.render_rich import table

        paid = any(run.spent.cost for run in every)
        rows = []
        for run in every:
            took = duration(max(0, (run.ended or run.last) - run.started))
            cells = [run.run, run.outcome or run.phase, str(run.rounds), str(run.spent.calls), took]
            cells += [money(run.spent.cost)] if paid else []
            rows.append([*cells, run.answer if run.outcome == "finished" else run.detail])
        heads = ["run", "status", "rounds>", "attempts>", "took>", *(["cost>"] if paid else [])]
        return table([*heads, "answer"], rows, "answer")


def of_run(pool: "LoadedPool", state: "RunState") -> "LoadedPool":
    """What has to be hosted so that a run can go on: its own workers, policy and secrets' forms."""
    import msgspec

    redact = pool.redact.union(state.redact)
    return msgspec.structs.replace(
        pool, pool=state.pool, policy=state.policy.name, redact=redact, spec=state.policy
    )


async def registered(host: "Hosted", pool: "LoadedPool", config: "Config") -> "LoadedPool":
    """A run's pool, in the folder from which deployments of this folder imported its modules.

    On a broker that others use as well, what they registered does not decide what is imported here.
    """
    import msgspec

    from podium.poolmodules import import_registered

    if config.nats.url:
        return pool
    folder = import_registered(await host.registry(), pool.pool.workers)
    return pool if folder is None else msgspec.structs.replace(pool, path=folder / pool.path.name)


def importable(run: str, pool: "Pool", command: str) -> None:
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
                hint=f"name the file of its pool: podium {command} --pool FILE",
            ) from None


def ended(output: Output, shown: "RunTree", pool: str = "") -> int:
    """Print what came of a run, of the pool in this file if one is named; the exit code."""
    if output.as_json:
        output.json({"done": done(shown)})
    elif shown.outcome == "finished":
        if output.lively():
            output.say("")
        output.answer(shown.answer)
    if output.lively():
        output.say("")
    if who := decided(shown):
        output.hint(f"decided by {who}")
    output.hint(f"look at it again: podium runs show {shown.run} --content")
    failure_hints(output, shown, pool)
    if shown.forked_from:
        origin = shown.forked_from.partition("@")[0]
        output.hint(f"compare it: podium diff {origin} {shown.run}")
    return 0 if shown.outcome == "finished" else 1
