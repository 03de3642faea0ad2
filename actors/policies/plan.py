"""A plan written by hand: calls with places to fill in, and the answer made of what they give.

::

    name = "capitals"
    answer = "{first.output.value} and {second.output.value}"

    [[call]]
    id = "first"
    worker = "country"
    arguments = { name = "{inputs.from}", fact = "capital" }

    [[call]]
    id = "second"
    worker = "country"
    arguments = { name = "{inputs.to}", fact = "capital" }

``{task}`` is the task's text, ``{inputs.KEY}`` one of its inputs, ``{ID.output}`` what a call gave;
further keys and places go into a value: ``{second.output.items.0.name}``. A text that is one place
and nothing else becomes the value itself, in any other the value is written. ``{{task}}`` is the
text ``{task}``.

A call whose arguments need an output waits for the round after it; all others of a stage are one
round, in which ``after`` and ``sees`` say what waits for what. A call with ``fallback_for = "ID"``
is made in the round after that one, if that one did not succeed, and then stands for it wherever it
is named: a chain of them is as good as its first that succeeds. Pure: equal views give equal calls.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from protocol.actions import Json
from protocol.decisions import Observation, Task
from protocol.errors import InvalidData
from protocol.limits import MAX_ROUND_CALLS
from protocol.references import as_text

_PATH: Final = r"[A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*"
_PLACE: Final = re.compile(rf"\{{\{{({_PATH})\}}\}}|\{{({_PATH})\}}")
_ID: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")

_OTHERS: Final = ("task", "inputs")
"""What a place may begin with besides the id of a call."""

_FORM: Final = "write {task}, {inputs.KEY} or {ID.output}; {{KEY}} stands for the text {KEY}"


class Missing(Exception):
    """A place can't be filled in; the text says which, and why."""


class PlanCall(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """``[[call]]``."""

    id: str
    worker: str
    arguments: dict[str, Json] = {}
    after: tuple[str, ...] = ()
    """Calls that must have settled first."""
    sees: tuple[str, ...] = ()
    """Calls whose output the worker is shown."""
    fallback_for: str = ""
    """The call in whose place it is made if that one did not succeed."""

    @property
    def needs(self) -> set[str]:
        """Calls whose output stands in its arguments."""
        return {path.partition(".")[0] for path in places(self.arguments)} - {*_OTHERS}


class Plan(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """The file."""

    name: str = ""
    call: tuple[PlanCall, ...]
    answer: str = ""
    """A text with places."""
    answer_from: str = ""
    """Instead of it: the call whose output is the answer."""

    def by_id(self) -> dict[str, PlanCall]:
        """The calls by their ids."""
        return {call.id: call for call in self.call}

    def chains(self) -> dict[str, tuple[str, ...]]:
        """Each call that is nobody's fallback, with itself, its fallback, the fallback of that."""
        behind = {call.fallback_for: call.id for call in self.call if call.fallback_for}
        found: dict[str, tuple[str, ...]] = {}
        for call in self.call:
            if call.fallback_for:
                continue
            chain = [call.id]
            while (following := behind.get(chain[-1])) is not None:
                chain.append(following)
            found[call.id] = tuple(chain)
        return found


def check(plan: Plan) -> None:
    """Raise `InvalidData` unless the plan can be followed."""
    by_id = plan.by_id()
    for call in plan.call:
        if not _ID.fullmatch(call.id) or call.id in _OTHERS:
            raise InvalidData(
                f"{call.id!r} is no id of a call",
                hint="letters, digits, _ and - make one, a letter begins it; not task, not inputs",
            )
    if len(by_id) < len(plan.call):
        twice = next(c.id for c in plan.call if by_id[c.id] is not c)
        raise InvalidData(f"two calls have the id {twice!r}", hint="give each its own")
    if not plan.call:
        raise InvalidData("the plan has no calls", hint="add a [[call]] with id, worker, arguments")
    _check_fallbacks(plan, by_id)
    for call in plan.call:
        _check_places(call.arguments, by_id, f"the arguments of the call {call.id!r}")
        for other in (*call.after, *call.sees):
            _check_named(other, by_id, f"the call {call.id!r}")
    if bool(plan.answer.strip()) == bool(plan.answer_from):
        raise InvalidData(
            "the plan needs one of answer and answer_from",
            hint='answer = "It is {ID.output}."   or   answer_from = "ID"',
        )
    if plan.answer_from:
        _check_named(plan.answer_from, by_id, "answer_from")
    _check_places(plan.answer, by_id, "the answer")
    for number, stage in enumerate(stages(plan), 1):
        if len(stage) > MAX_ROUND_CALLS:
            raise InvalidData(
                f"round {number} of the plan has {len(stage)} calls; at most {MAX_ROUND_CALLS} "
                "are possible",
                hint="let some need an output of others",
            )


def _check_places(value: Json, by_id: Mapping[str, PlanCall], where: str) -> None:
    for path in places(value):
        head, _, rest = path.partition(".")
        if head in by_id:
            _check_named(head, by_id, where)
            if rest.partition(".")[0] not in ("output", "status") or rest.startswith("status."):
                raise InvalidData(f"{where}: {{{path}}} is nothing of a call", hint=_FORM)
        elif head not in _OTHERS or (head == "task") == bool(rest):
            raise InvalidData(f"{where}: {{{path}}} names nothing", hint=_FORM)


def _check_fallbacks(plan: Plan, by_id: Mapping[str, PlanCall]) -> None:
    behind: dict[str, str] = {}
    for call in plan.call:
        if not (name := call.fallback_for):
            continue
        if name not in by_id:
            raise _no_call(name, by_id, f"fallback_for of the call {call.id!r}")
        if name in behind:
            raise InvalidData(
                f"the calls {behind[name]!r} and {call.id!r} are both the fallback for {name!r}",
                hint=f'make one the fallback for the other: fallback_for = "{behind[name]}"',
            )
        behind[name] = call.id


def _check_named(name: str, by_id: Mapping[str, PlanCall], where: str) -> None:
    """Raise `InvalidData` unless others may name it: a fallback may never be made."""
    if name not in by_id:
        raise _no_call(name, by_id, where)
    if by_id[name].fallback_for:
        first = name
        for _ in by_id:  # once round a circle, at most
            first = by_id[first].fallback_for or first
        raise InvalidData(
            f"{where}: {name!r} is a fallback, which is made only if it has to be",
            hint=f"name {first!r}: whichever of them succeeds stands for it",
        )


def _no_call(name: str, by_id: Mapping[str, PlanCall], where: str) -> InvalidData:
    return InvalidData(
        f"{where}: there is no call {name!r}", hint=f"there are: {', '.join(by_id) or 'none'}"
    )


def stages(plan: Plan) -> list[list[PlanCall]]:
    """The calls round by round. Raises `InvalidData` if they wait for each other in a circle."""
    stage: dict[str, int] = {}
    left = {call.id: call for call in plan.call}
    chains = plan.chains()

    def named(names: Iterable[str]) -> set[str]:
        """Calls, each with its fallbacks."""
        return {each for name in names for each in chains[name]}

    def before(call: PlanCall) -> set[str]:
        return named((*call.needs, *call.after, *call.sees)) | {*filter(None, [call.fallback_for])}

    while left:
        ready = [call for call in left.values() if before(call) <= stage.keys()]
        if not ready:
            raise InvalidData(
                f"the calls {', '.join(left)} wait for each other in a circle",
                hint="let one of them wait for nothing",
            )
        for call in ready:
            earlier = named(call.needs) | {*filter(None, [call.fallback_for])}
            later = (stage[name] + 1 for name in earlier)
            same = (stage[name] for name in named((*call.after, *call.sees)))
            stage[call.id] = max([0, *later, *same])
            del left[call.id]
    found: list[list[PlanCall]] = [[] for _ in range(max(stage.values(), default=-1) + 1)]
    for call in plan.call:
        found[stage[call.id]].append(call)
    return found


def places(value: Json) -> Iterator[str]:
    """The paths of all places in the texts of a value."""
    match value:
        case str():
            yield from (found[2] for found in _PLACE.finditer(value) if found[2])
        case dict():
            for item in value.values():
                yield from places(item)
        case list():
            for item in value:
                yield from places(item)


def lacking(plan: Plan, task: Task) -> str:
    """Which input the plan needs, and the task doesn't have; "" if it has all.

    What only a fallback needs may never be needed.
    """
    needed = [call.arguments for call in plan.call if not call.fallback_for]
    for path in places([*needed, plan.answer]):
        if path.partition(".")[0] in _OTHERS:
            try:
                _value(path, task, {})
            except Missing as error:
                return str(error)
    return ""


def filled(value: Json, task: Task, seen: Mapping[str, Observation]) -> Json:
    """A value with every place filled in. Raises `Missing`."""
    return _filled(value, lambda path: _value(path, task, seen))


def _filled(value: Json, of: Callable[[str], Json]) -> Json:
    match value:
        case str():
            whole = _PLACE.fullmatch(value)
            if whole and whole[2]:
                return of(whole[2])
            return _PLACE.sub(lambda at: as_text(of(at[2])) if at[2] else f"{{{at[1]}}}", value)
        case dict():
            return {key: _filled(item, of) for key, item in value.items()}
        case list():
            return [_filled(item, of) for item in value]
        case _:
            return value


def _value(path: str, task: Task, seen: Mapping[str, Observation]) -> Json:
    head, *keys = path.split(".")
    if head == "task":
        return task.text
    if head == "inputs":
        return _within(task.inputs, keys, path)
    if (observed := seen.get(head)) is None:
        raise Missing(f"{{{path}}}: the call {head} was not made")
    if keys[0] == "status":
        return observed.status
    if observed.status != "OK":
        raise Missing(f"{{{path}}}: the call {head} ended as {observed.status}")
    return _within(observed.value, keys[1:], path)


def _within(value: Any, keys: list[str], path: str) -> Json:
    for key in keys:
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isascii() and key.isdecimal():
            place = int(key[:9])
            if place >= len(value):
                raise Missing(f"{{{path}}}: there is no place {key}, of {len(value)}")
            value = value[place]
        else:
            raise Missing(f"{{{path}}}: there is no {key!r}")
    return value
