"""Lines that point: how a reply in a dialect of slots is read, and how a decision is written.

A line is a call: a slot, and the one text that its worker takes, or ``name=value`` for each
argument, or a JSON object. ``$k`` within it is a marked entity of the task, and ``#k`` becomes a
reference to the output of the k-th call (`references`), which the worker's attempt is given. An
answer is ``= text``, in which ``$k`` and ``#k`` stand for what they name; where it refers to
outputs, its text comes from the log (`Decision.answers`), and it may follow the very calls that it
names.

`PlannedCall.after` and `ref` have no form here, nor has `Decision.last_answers`.
"""

import math
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

import msgspec

from protocol.actions import Call, Json, Pool, WorkerSpec
from protocol.decisions import (
    Decision,
    PlannedCall,
    Referable,
    Rejection,
    Reply,
)
from protocol.dialects import shared
from protocol.dialects.lists import text_parameter
from protocol.dialects.shared import compact
from protocol.limits import MAX_REPLY_BYTES
from protocol.references import plain, reference, refers
from protocol.replies import linked

SLOT: Final = "@"
"""What stands before the number of a worker."""

ENTITIES: Final = "entities"
"""The input of a task that lists its marked entities."""

ABOUT: Final = 4
"""Pointers that are shown of a call: what it is of, or as many terms as one reads at a glance."""

_POINTER: Final = re.compile(r"([$#])(\d{1,3})(?!\d)")
"""What stands for an entity, or for an output."""

_CALL: Final = re.compile(r"@(\S+)[ \t]*(.*)", re.DOTALL)
_NAMED: Final = re.compile(r"(?:(?<=\s)|^)([A-Za-z_][\w-]{0,63})=")
_OUTPUT: Final = re.compile(r"\$\{output:([^{}]{0,200})\}")

_SCALARS: Final = ("integer", "number", "boolean", "null")
"""Types of which an argument is written as JSON has it."""


class _Wrong(Exception):
    """A line that can't be read; the text says why, in few words."""


def parse(reply: Reply, pool: Pool, known: Referable) -> Decision | Rejection:
    """The calls or the answer in ``reply``. Total.

    Args:
        reply: What the model said; only its text counts.
        pool: Says which arguments a worker takes. An unknown slot is for the rules to settle.
        known: What ``$k`` and ``#k`` stand for.
    """
    text = shared.clean(reply.text)
    if problem := shared.too_large(shared.size(text)):
        return problem
    said, answer = _split(shared.spoken(text))
    if not said and answer is None:
        return Rejection("empty", f"say {SLOT}SLOT or = ANSWER")
    by_name = pool.by_name()
    try:
        point = _pointing(known, len(said), MAX_REPLY_BYTES)
        calls = tuple(_call(line, number, by_name, point) for number, line in enumerate(said, 1))
        decision = _answered(calls, answer, point)
    except _Wrong as wrong:
        return Rejection("malformed", str(wrong))
    if not decision.calls and decision.answer is not None and not decision.answer.strip():
        return Rejection("empty", "the answer is empty")
    if problem := shared.too_large(shared.size(text) + len(msgspec.json.encode(decision))):
        return problem
    return linked(decision, known)


def _split(text: str) -> tuple[list[str], str | None]:
    """The lines before the answer, and the answer, which goes on to the end."""
    lines: list[str] = []
    rest = text
    while rest:
        line, _, after = rest.partition("\n")
        if line.lstrip().startswith("="):
            return lines, rest.lstrip()[1:].strip()
        if line.strip():
            lines.append(line.strip())
        rest = after
    return lines, None


_Point = Callable[[str], str]


def _pointing(known: Referable, planned: int, room: float = math.inf) -> _Point:
    """What puts into a text what its pointers stand for.

    Args:
        known: What they stand for.
        planned: Calls of the reply, which have numbers, too.
        room: Characters of all that is put in.
    """
    entities = entities_of(known)
    calls = [*known.calls, *(f"{known.round}-{index}" for index in range(planned))]

    def found(match: re.Match[str]) -> str:
        nonlocal room
        sign, number = match[1], int(match[2])
        if sign == "$" and not entities:
            return match[0]  # a price
        there = entities if sign == "$" else calls
        if not 1 <= number <= len(there):
            raise _Wrong(f"there is no {match[0]}")
        named = there[number - 1]
        if (room := room - len(named)) < 0:
            raise _Wrong("what it points at is too long")
        return named if sign == "$" else reference(named, "output")

    return lambda text: _POINTER.sub(found, text)


def _call(line: str, number: int, pool: dict[str, WorkerSpec], point: _Point) -> PlannedCall:
    match = _CALL.fullmatch(line)
    if match is None:
        raise _Wrong(f"line {number}: begin with {SLOT} or =")
    name = SLOT + match[1]
    return PlannedCall(name, _arguments(match[2].strip(), pool.get(name), point))


def _arguments(text: str, worker: WorkerSpec | None, point: _Point) -> dict[str, Json]:
    if not text:
        return {}
    if (given := shared.json_object(text)) is not None:
        return _pointed(given, point)
    schemas = properties(worker)
    named = [match for match in _NAMED.finditer(text) if match[1] in schemas]
    parameter = text_parameter(worker)
    if named and not text[: named[0].start()].strip() and [m[1] for m in named] != [parameter]:
        ends = [*(match.start() for match in named[1:]), len(text)]
        return {
            match[1]: _read(point(text[match.end() : end].strip()), schemas[match[1]])
            for match, end in zip(named, ends, strict=True)
        }
    first = parameter or next(iter(schemas), "")
    return {first or "text": _read(point(text), schemas.get(first, {}))}


def _pointed(value: dict[str, Json], point: _Point) -> dict[str, Json]:
    """An object in whose texts the pointers are followed."""

    def follow(item: Json) -> Json:
        match item:
            case str():
                return point(item)
            case dict():
                return {key: follow(each) for key, each in item.items()}
            case list():
                return [follow(each) for each in item]
            case _:
                return item

    return {key: follow(item) for key, item in value.items()}


def _read(text: str, schema: Json) -> Json:
    """An argument as its schema wants it; what is none of that stays a text."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind in _SCALARS:
        try:
            value = msgspec.json.decode(text.encode())
            msgspec.json.encode(value)
        except (msgspec.MsgspecError, ValueError, OverflowError):
            return text
        return text if isinstance(value, str | list | dict) else value
    return text


def _answered(calls: tuple[PlannedCall, ...], answer: str | None, point: _Point) -> Decision:
    if answer is None:
        return Decision(calls=calls)
    said = point(answer)
    if refers(said, "output"):
        return Decision(calls=calls, answers=said)
    if calls:
        raise _Wrong("calls and an answer: give one")
    return Decision(answer=said)


def render(decision: Decision, pool: Pool, known: Referable) -> Reply:
    """``decision`` as a model would say it: the inverse of `parse`, of what has a form here."""
    by_name = pool.by_name()
    numbers = numbers_of(known, len(decision.calls))
    point = _pointing(known, len(decision.calls))
    named = _naming(known, numbers, point)
    lines = []
    for call in decision.calls:
        fitting = (form for form in _forms(call, named) if _says(form, call, by_name, point))
        plainly = f"{_slot(call)} {by_number(compact(call.arguments), numbers)}"
        lines.append(next(fitting, plainly))
    answer = decision.answers or decision.answer
    if answer is not None and (answer or not decision.calls):
        lines.append(f"= {named(answer)}")
    return Reply(text="\n".join(lines))


def _slot(call: PlannedCall) -> str:
    return call.worker if call.worker.startswith(SLOT) else SLOT + call.worker


def _forms(call: PlannedCall, named: Callable[[str], str]) -> Iterator[str]:
    """The ways in which a call may be written, the shortest first."""
    slot = _slot(call)
    if not call.arguments:
        yield slot
    written = {
        key: named(value if isinstance(value, str) else compact(value))
        for key, value in call.arguments.items()
    }
    if len(written) == 1:
        yield f"{slot} {next(iter(written.values()))}"
    yield " ".join([slot, *(f"{key}={value}" for key, value in written.items())])


def _says(line: str, call: PlannedCall, pool: dict[str, WorkerSpec], point: _Point) -> bool:
    """Whether a line is read as that call."""
    if "\n" in line or line != line.strip():
        return False
    try:
        return _call(line, 1, pool, point).arguments == call.arguments
    except _Wrong:
        return False


def about(known: Referable) -> Callable[[Call], str]:
    """What says of a call what it pointed at, by which it is told from others; "" if at nothing."""
    named = _naming(known, numbers_of(known), _pointing(known, 0))

    def pointed(call: Call) -> str:
        found = (
            pointer[0]
            for value in call.arguments.values()
            for pointer in _POINTER.finditer(
                named(value if isinstance(value, str) else compact(value))
            )
        )
        return " ".join(list(dict.fromkeys(found))[:ABOUT])

    return pointed


def numbers_of(known: Referable, planned: int = 0) -> dict[str, int]:
    """The number of each call: of the known ones, and of so many that are planned."""
    calls = [*known.calls, *(f"{known.round}-{index}" for index in range(planned))]
    return {name: number for number, name in enumerate(calls, 1)}


def _naming(known: Referable, numbers: dict[str, int], point: _Point) -> Callable[[str], str]:
    """What puts pointers into a text: to outputs and to entities, for what they stand for."""
    entities = entities_of(known)
    if not entities:
        return lambda text: by_number(text, numbers)
    pattern, places = marking(tuple(entities))

    def mark(found: re.Match[str]) -> str:
        return f"${places[found[0]]}"

    def named(text: str) -> str:
        plainly = by_number(text, numbers)
        pieces = _OUTPUT.split(text)
        pieces[::2] = [pattern.sub(mark, each) for each in pieces[::2]]
        pieces[1::2] = [reference(each, "output") for each in pieces[1::2]]
        marked = by_number("".join(pieces), numbers)
        try:
            return marked if point(marked) == text else plainly
        except _Wrong:
            return plainly

    return named


@lru_cache(maxsize=1_024)  # a run asks for its own again and again
def marking(entities: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, int]]:
    """What finds entities in a text, whole words and numbers alone; and the number of each."""
    places: dict[str, int] = {}
    for place, entity in enumerate(entities, 1):
        places.setdefault(entity, place)
    longest = sorted(places, key=lambda entity: (-len(entity), entity))
    any_of = "|".join(map(re.escape, longest))
    return re.compile(rf"(?<!\w)(?<!\d\.)(?:{any_of})(?!\w)(?!\.\d)"), places


def by_number(text: str, numbers: dict[str, int]) -> str:
    """A text with ``#k`` in the place of each reference to a numbered call."""
    return _OUTPUT.sub(
        lambda found: f"#{numbers[found[1]]}" if found[1] in numbers else found[0], text
    )


def entities_of(known: Referable) -> list[str]:
    """The marked entities of a task, as texts; none if they are no list of texts and numbers."""
    listed = known.task.inputs.get(ENTITIES)
    if not isinstance(listed, list | tuple):
        return []
    plainly = [each for each in listed if isinstance(each, str | int | float) and each != ""]
    return [plain(each) for each in plainly] if len(plainly) == len(listed) else []


def properties(worker: WorkerSpec | None) -> dict[str, Json]:
    """The schemas of a worker's arguments, by name; none if nothing is said."""
    found = worker.parameters.get("properties") if worker is not None else None
    return found if isinstance(found, dict) else {}
