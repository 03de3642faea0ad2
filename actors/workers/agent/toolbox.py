"""An agent's own tools: what its options say of them, and their use within the agent's process.

A tool is a worker like any other, and hosted by the same adapters; but nobody outside the agent
sees it. What it may be called with, what it gives and how it fails is told to the agent's model in
the words in which a conductor is told it.
"""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from actors.ports import Adapter, Attempt, Outcome
from actors.workers.agent.exchanges import Watch
from actors.workers.outcomes import failure, leaving, unable
from protocol.actions import MICRO, Json, Kind, Pool, Spend, WorkerSpec
from protocol.decisions import PlannedCall
from protocol.dialects.shared import UNREADABLE, cut, value_chars
from protocol.errors import InvalidData, PodiumError
from protocol.exchanges import Used
from protocol.limits import MAX_NESTING, MAX_ROUND_CALLS
from protocol.redaction import well_known
from protocol.schemas import check_schema, misfit
from protocol.subjects import check_name

MAX_TOOLS: Final = 64
"""Tools of one agent. Models choose badly among more, and each is a part of every prompt."""

CUT_CHARS: Final = 64
"""Characters that say how much of a value was cut."""


class ToolTable(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A tool as options have it. What is not given is taken from the adapter's draft."""

    adapter: str
    """``function:module:name``, ``python``, …: as in a pool."""
    name: str = ""
    """What the agent's model calls it."""
    kind: Kind | None = None
    description: str | None = None
    parameters: dict[str, Json] | None = None
    """JSON Schema of the arguments."""
    options: dict[str, Json] = {}
    """Of its adapter."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Seconds that one use may take, within the time that the agent's attempt has."""
    concurrency: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Uses at a time, by all attempts of the agent."""
    reserve_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """The most that one use may spend."""
    reserve_cost_usd: Annotated[float, msgspec.Meta(ge=0)] | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing has to be asked of the adapter."""
        known = (self.kind, self.description, self.parameters, self.timeout_s, self.concurrency)
        reserve = (self.reserve_tokens, self.reserve_cost_usd)
        return bool(self.name) and None not in (*known, *reserve)


def drafted(tool: str | ToolTable) -> ToolTable:
    """A tool with everything that there is to know of it filled in.

    Raises:
        InvalidData, NotFound: It can't be hosted, or something is wrong with it.
    """
    table = ToolTable(adapter=tool) if isinstance(tool, str) else tool
    if table.whole:
        return table
    from actors.workers import draft

    told = {} if table.description is None else {"description": table.description}
    made = draft(table.adapter, table.options, **told)
    given: dict[str, Any] = {
        name: value
        for name in ToolTable.__struct_fields__
        if (value := getattr(table, name)) not in (None, "", {})
    }
    known: dict[str, Any] = {
        "name": made.name,
        "kind": made.kind,
        "description": made.description,
        "parameters": made.parameters,
        "options": made.options,
        "timeout_s": made.timeout_ms / 1_000,
        "concurrency": made.concurrency,
        "reserve_tokens": made.reserve.tokens,
        "reserve_cost_usd": made.reserve.cost / MICRO,
    }
    # The draft's options are those that were given, and more exact.
    return ToolTable(**(known | given | {"options": made.options}))


def pool_of(tools: tuple[str | ToolTable, ...], whose: str) -> Pool:
    """The tools as workers. Raises `InvalidData` for what no model could be offered."""
    if len(tools) > MAX_TOOLS:
        raise InvalidData(f"{whose} has {len(tools)} tools, of {MAX_TOOLS} at most.")
    specs = tuple(_spec(drafted(tool)) for tool in tools)
    names = [spec.name for spec in specs]
    for name in names:
        check_name(name, f"the name of a tool of {whose}")
        if names.count(name) > 1:
            raise InvalidData(
                f"{whose} has several tools with the name {name!r}.",
                hint='Give each a name: tools = [{ adapter = "...", name = "..." }].',
            )
    for spec in specs:
        check_schema(spec.parameters, f"the tool {spec.name!r} of {whose}")
    return Pool(specs)


def _spec(table: ToolTable) -> WorkerSpec:
    cost = round((table.reserve_cost_usd or 0) * MICRO)
    return WorkerSpec(
        name=table.name,
        kind=table.kind or "tool",
        description=table.description or "",
        parameters=table.parameters or {"type": "object"},
        adapter=table.adapter,
        options=table.options,
        reserve=Spend(tokens=table.reserve_tokens or 0, cost=cost),
        concurrency=table.concurrency or 1,
        timeout_ms=max(1, round((table.timeout_s or 0) * 1_000)),
    )


def within(spec: WorkerSpec, depth: int = 0) -> list[WorkerSpec]:
    """The tools that a worker's options name, and those of its tools; nothing is imported.

    What is no tool is left out: whoever hosts the worker refuses it.
    """
    named = spec.options.get("tools")
    if not isinstance(named, list | tuple) or depth >= MAX_NESTING:
        return []
    found: list[WorkerSpec] = []
    for each in named:
        table = {"adapter": each} if isinstance(each, str) else each
        if isinstance(table, Mapping) and isinstance(table.get("adapter"), str):
            options = table.get("options")
            tool = WorkerSpec(
                name=str(table.get("name", "")),
                adapter=table["adapter"],
                options=options if isinstance(options, dict) else {},
            )
            found += [tool, *within(tool, depth + 1)]
    return found


class Toolbox:
    """The tools of one agent, each hosted when it is first used.

    Args:
        pool: The tools.
        parallel: Uses at a time within one attempt.
    """

    def __init__(self, pool: Pool, parallel: int) -> None:
        self._pool, self._parallel = pool, parallel
        self._hosted: dict[str, tuple[Adapter, asyncio.Semaphore]] = {}
        self._hosting = asyncio.Lock()

    async def use(
        self, calls: tuple[PlannedCall, ...], attempt: Attempt, watch: Watch
    ) -> tuple[Used, ...]:
        """Make the calls of one reply, at the same time as far as that is allowed.

        Args:
            calls: As the model has asked for them.
            attempt: The agent's, within which they are made; ``call`` with the number of the turn.
            watch: Its time.

        Returns:
            What came of each. Only cancellation is an exception, and it stops all of them.
        """
        room = value_chars(len(calls))
        places = asyncio.Semaphore(self._parallel)

        async def one(place: int, call: PlannedCall) -> Used:
            async with places:
                began_ms = watch.passed_ms
                outcome = await self._made(place, call, attempt, watch)
                took_ms = watch.passed_ms - began_ms
                return await self._shown(call, outcome, room, began_ms, took_ms)

        async with asyncio.TaskGroup() as group:
            uses = [group.create_task(one(place, call)) for place, call in enumerate(calls)]
        return tuple(use.result() for use in uses)

    async def close(self) -> None:
        """Release what the tools hold."""
        hosted, self._hosted = list(self._hosted.values()), {}
        for adapter, _ in hosted:
            await adapter.close()

    async def _made(self, place: int, call: PlannedCall, attempt: Attempt, watch: Watch) -> Outcome:
        spec = self._pool.get(call.worker)
        problem = self._problem(place, call, spec)
        if problem or spec is None:
            return failure("PARSE_ERR", "policy", problem)
        # Lazy: it imports this package.
        from actors.secrets import Secrets
        from actors.work import work_on

        try:
            async with asyncio.timeout(watch.left_s):
                adapter, slots = await self._host(spec)
                await slots.acquire()
        except PodiumError as error:
            return unable(error)
        except TimeoutError:
            text = f"{spec.name} was in use by others until the agent's time was over."
            return failure("TIMEOUT", "infrastructure", text)
        try:
            inner = msgspec.structs.replace(
                attempt,
                call=f"{attempt.call}-{place}",
                arguments=call.arguments,
                timeout_s=min(spec.timeout_ms / 1_000, watch.left_s),
                task=attempt.task if spec.kind == "agent" else "",
            )
            return await work_on(inner, adapter, Secrets(leaving.get()))
        finally:
            slots.release()

    def _problem(self, place: int, call: PlannedCall, spec: WorkerSpec | None) -> str:
        """Why a call can't be made, and how to mend it; or ""."""
        if place >= MAX_ROUND_CALLS:
            return f"At most {MAX_ROUND_CALLS} calls are made at once. Make it again later."
        if spec is None:
            names = ", ".join(each.name for each in self._pool.workers)
            return f"There is no tool {cut(call.worker, 100)!r}. There are: {names}."
        if UNREADABLE in call.arguments:
            raw = call.arguments[UNREADABLE]
            return f"The arguments are no JSON object: {raw!r}. Give one, as {spec.name} needs it."
        return misfit(spec.parameters, call.arguments)

    async def _host(self, spec: WorkerSpec) -> tuple[Adapter, asyncio.Semaphore]:
        async with self._hosting:
            if spec.name not in self._hosted:
                from actors.workers import host

                # It may import a module, which takes what it takes.
                adapter = await asyncio.to_thread(host, spec)
                self._hosted[spec.name] = adapter, asyncio.Semaphore(spec.concurrency)
            return self._hosted[spec.name]

    async def _shown(
        self, call: PlannedCall, outcome: Outcome, room: int, began_ms: int, took_ms: int
    ) -> Used:
        """The outcome as the model is shown it, which is what is recorded."""
        from actors.work import presentable

        spec = self._pool.get(call.worker) or WorkerSpec(name=call.worker)
        outcome, data = await presentable(outcome, spec, leaving.get() or well_known())
        value = outcome.value
        text = value if isinstance(value, str) else data.decode()
        if len(text) > room:
            value = cut(text, room - CUT_CHARS)
        return Used(
            status=outcome.status,
            fault=outcome.fault,
            value=value,
            spend=outcome.spend,
            usage=outcome.usage,
            record=outcome.record,
            began_ms=began_ms,
            took_ms=took_ms,
        )
