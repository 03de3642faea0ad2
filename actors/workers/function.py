"""Python functions as workers: `tool` marks one, `FunctionAdapter` hosts it.

The function stays what it was and can be called and tested as ever. Sync functions run in threads,
as many as the worker's concurrency; async ones on the actor's loop, where they must not block.
"""

import asyncio
import copy
import functools
import importlib
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar, overload

import msgspec

from actors.ports import Attempt, Outcome
from actors.workers.outcomes import Unrepresentable, describe, failure, json_value
from actors.workers.signature import Seen, Signature, check_shape, first_paragraph
from actors.workers.threads import Threads
from protocol.actions import MICRO, NOTHING, Json, Spend, WorkerSpec
from protocol.errors import InvalidData, NotFound
from protocol.limits import NAME_PATTERN

F = TypeVar("F", bound=Callable[..., object])

Here: TypeAlias = Callable[[Callable[..., Any], dict[str, Any]], Awaitable[object]]
"""Calls a function with arguments, and gives its result."""

KIND: Final = "function"
"""The adapter's kind: what stands before the first colon of ``WorkerSpec.adapter``."""

_CALLED: Final = {"function": "tool", "class": "adapter"}
"""What is looked for, as users call it."""

_MARK: Final = "__podium_tool__"


class ToolMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What `tool` notes on a function."""

    name: str
    description: str
    timeout_s: float = 60.0
    concurrency: int = 16
    attempts: int = 2
    cost_usd: float = 0.0
    module: str = ""


@overload
def tool(fn: F) -> F: ...


@overload
def tool(
    fn: None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float = 60.0,
    concurrency: int = 16,
    attempts: int = 2,
    cost_usd: float = 0.0,
    module: str = "",
) -> Callable[[F], F]: ...


def tool(
    fn: F | None = None,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout_s: float = 60.0,
    concurrency: int = 16,
    attempts: int = 2,
    cost_usd: float = 0.0,
    module: str = "",
) -> F | Callable[[F], F]:
    """Mark a function as a worker: ``@tool``, or ``@tool(timeout_s=5)``. Returns it unchanged.

    The policy is shown the first paragraph of its docstring and a JSON Schema of its parameters,
    with what the docstring says of each. It returns anything that has a JSON form.

    Args:
        fn: The function.
        name: The worker's name; the function's own by default.
        description: What it does, as the policy reads it; the docstring's first paragraph if None.
        timeout_s: Seconds of work that one attempt may take.
        concurrency: Attempts that one replica works on at a time.
        attempts: Tries of one call; a further one only after an infrastructure fault.
        cost_usd: US dollars that each attempt costs, such as the price of a paid interface.
        module: The module that it is to be imported from, if not the one that defines it.

    Raises:
        InvalidData: The function can't be called by named JSON arguments, or a value is out of
            range; the hint says how to mend it.
    """

    def mark(function: F) -> F:
        check_shape(function)
        meta = ToolMeta(
            name=function.__name__ if name is None else name,
            description=first_paragraph(function) if description is None else description,
            timeout_s=timeout_s,
            concurrency=concurrency,
            attempts=attempts,
            cost_usd=cost_usd,
            module=module,
        )
        _check(meta, f"{function.__module__}.{function.__qualname__}")
        setattr(function, _MARK, meta)
        return function

    return mark if fn is None else mark(fn)


def is_tool(value: object) -> bool:
    """Whether ``value`` is a function marked with `tool`."""
    return isinstance(getattr(value, _MARK, None), ToolMeta)


def spec_of(function: Callable[..., object]) -> WorkerSpec:
    """The worker that a function is; one that was never marked gets the defaults of `tool`.

    Raises:
        InvalidData: It has a parameter without JSON form, or can't be imported by name.
    """
    if not is_tool(function):
        tool(function)
    meta: ToolMeta = getattr(function, _MARK)
    module, name = meta.module or function.__module__, function.__qualname__
    if module == "__main__" or "<" in name:
        raise InvalidData(
            f"The tool {meta.name!r} ({module}.{name}) can't be imported by another process.",
            hint="Move it to the top level of a module of its own and import it from there.",
        )
    return WorkerSpec(
        name=meta.name,
        kind="tool",
        description=meta.description,
        parameters=Signature(function).schema(),
        adapter=f"{KIND}:{module}:{name}",
        reserve=_cost(meta),
        concurrency=meta.concurrency,
        timeout_ms=max(1, round(meta.timeout_s * 1_000)),
        attempts=meta.attempts,
    )


def find(adapter: str) -> Callable[..., Any]:
    """The function that ``function:module:name`` names.

    Raises:
        InvalidData: The text is no such address.
        NotFound: There is no such module or name; the hint says what to look for.
    """
    return imported(KIND, adapter, "function")


def imported(kind: str, adapter: str, what: str) -> Callable[..., Any]:
    """What ``KIND:module:name`` names, a ``what``. Raises as `find` does."""
    said, _, address = adapter.partition(":")
    module_name, _, name = address.partition(":")
    if said != kind or not module_name or not name:
        raise InvalidData(
            f"{adapter!r} names no {what}.",
            hint=f"Write it as {kind}:my_module:my_{what}.",
        )
    try:
        found: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InvalidData(
                f"The module {module_name!r} imports {error.name!r}, which is not installed.",
                hint=f"Install {error.name!r} where the workers run.",
            ) from error
        raise NotFound(
            f"There is no module {module_name!r} to find the {_CALLED[what]} {name!r} in.",
            hint="Put its folder on PYTHONPATH, or install it where the workers run.",
        ) from error
    except Exception as error:
        raise InvalidData(
            f"The module {module_name!r} can't be imported: {describe(error)}.",
            hint=f"Try it: python -c 'import {module_name}'",
        ) from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise NotFound(
            f"The module {module_name!r} has no {what} {name!r}.",
            hint="Check the spelling; it must stand at the top level of the module.",
        )
    return found


class FunctionAdapter:
    """Hosts a Python function.

    Args:
        spec: Its worker; ``spec.adapter`` is ``function:module:name``.

    Raises:
        NotFound: There is no such function.
        InvalidData: It can't be called by named JSON arguments.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self._function = find(spec.adapter)
        self._signature = Signature(self._function)
        self._is_async = inspect.iscoroutinefunction(self._function)
        self._threads = Threads(spec.concurrency, f"podium-{spec.name}")
        meta = getattr(self._function, _MARK, None)
        self._spend = _cost(meta) if isinstance(meta, ToolMeta) else NOTHING
        self.here: Here | None = None
        """Calls the function in place of a thread or the loop: a debugger."""

    @staticmethod
    def draft(adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """The worker as the function declares it. There are no options."""
        if options:
            raise InvalidData(
                f"A {KIND} worker has no options, but {adapter!r} is given {sorted(options)}.",
                hint="Say it in @podium.tool(...), or in the worker's own fields.",
            )
        return spec_of(find(adapter))

    async def run(self, attempt: Attempt) -> Outcome:
        """Call the function. What it raises is an ``EXEC_ERR`` with type, text and place."""
        try:
            arguments = self._signature.convert(attempt.arguments)
        except msgspec.ValidationError as error:
            return failure("PARSE_ERR", "policy", f"The arguments don't fit: {error}.")
        if self._signature.seen:
            arguments[self._signature.seen] = _seen(attempt)
        try:
            value = await self._called(arguments)
        except asyncio.CancelledError:
            if _being_cancelled():
                raise
            text = "The function was cancelled by something of its own."
            return failure("EXEC_ERR", "worker", text, self._spend)
        except (Exception, SystemExit, GeneratorExit, KeyboardInterrupt) as error:
            return failure("EXEC_ERR", "worker", describe(error), self._spend)
        try:
            return Outcome(value=json_value(value), spend=self._spend)
        except Unrepresentable as error:
            text = f"{self.spec.name} returned what can't be recorded. {error}"
            return failure("EXEC_ERR", "worker", text, self._spend)

    async def close(self) -> None:
        """End the idle threads. One whose function hangs does not keep the process alive."""
        self._threads.close()

    async def _called(self, arguments: dict[str, Any]) -> object:
        if self.here is not None:
            return await self.here(self._function, arguments)
        call = functools.partial(self._function, **arguments)
        value = call() if self._is_async else await self._threads.run(call)
        return await value if inspect.isawaitable(value) else value


def _seen(attempt: Attempt) -> Seen:
    """Values of its own: what a function changes in them is nobody else's."""
    values = copy.deepcopy(dict(attempt.sees))
    failed = {call: values.pop(call) for call in attempt.failed if call in values}
    return Seen(values, failed)


def _being_cancelled() -> bool:
    """Whether the cancellation is meant for the attempt, not made inside the function."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _cost(meta: ToolMeta) -> Spend:
    return Spend(cost=round(meta.cost_usd * MICRO))


def _check(meta: ToolMeta, function: str) -> None:
    wrong = [
        (not re.match(NAME_PATTERN, meta.name), "name", f"must match {NAME_PATTERN}"),
        (not meta.timeout_s > 0, "timeout_s", "must be above 0"),
        (meta.concurrency < 1, "concurrency", "must be at least 1"),
        (meta.attempts < 1, "attempts", "must be at least 1"),
        (not meta.cost_usd >= 0, "cost_usd", "can't be negative"),
    ]
    for is_wrong, field, rule in wrong:
        if is_wrong:
            raise InvalidData(
                f"The tool {function} has {field} = {getattr(meta, field)!r}, which {rule}.",
                hint=f"Change it in @podium.tool({field}=...).",
            )
