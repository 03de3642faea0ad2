"""The dialects of slots: a line a call, workers by slot, values by reference. For small models.

::

    system     population of a country | 2 fast @1
               works out an expression | 0 @2
    user       How many people live in $1 and $2 together?
    assistant  @1 $1
               @1 $2
    user       #1 OK 67391582
               #2 TIMEOUT world_bank took longer than 5 s.
    assistant  …
    assistant  = #3

A worker is its slot, the k-th of the pool. It ends the line: what a causal model holds of that
token is then what the line says, and to choose a worker is to find it and to repeat it. (In
``compact`` it begins the line.) A task's marked entities (``inputs["entities"]``, a list of texts
and numbers) are ``$1``, ``$2``…; ``#k`` is the k-th call of the run, in the order in which they
were asked for, also one of the same reply. So a small model points at workers, entities and values,
and never spells what it has not learned to copy.

What follows a slot is the one text that its worker takes, or ``name=value`` for each argument, or
a JSON object. ``#k`` within it becomes a reference to that output (`references`), which the
worker's attempt is given. An answer is ``= text``, in which ``$k`` and ``#k`` stand for what they
name; where it refers to outputs, its text comes from the log (`Decision.answers`), and it may
follow the very calls that it names.

Nothing in a prompt explains the dialect: it is for models that are trained in it. `INSTRUCTIONS`
does, as a policy's ``system``, for one that isn't. `PlannedCall.after` and `ref` have no form here,
nor has `Decision.last_answers`.
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
    Observation,
    PlannedCall,
    Referable,
    Rejection,
    Reply,
    Turn,
    View,
)
from protocol.dialects import shared
from protocol.dialects.lists import text_parameter
from protocol.dialects.shared import Message, compact
from protocol.limits import MAX_REPLY_BYTES
from protocol.references import plain, reference, refers
from protocol.replies import linked

SLOT: Final = "@"
"""What stands before the number of a worker."""

ENTITIES: Final = "entities"
"""The input of a task that lists its marked entities."""

INSTRUCTIONS: Final = """\
You lead the workers below. Reply with lines and nothing else.
A call: @SLOT ARGUMENT, or @SLOT name=VALUE name=VALUE. Calls of one reply run in parallel.
$1, $2 are the marked things of the task. #1, #2 are the outputs of the calls so far, in order.
Write $1 or #1 in place of what they stand for.
The answer, when you have it: = TEXT, or = #3 for an output.
With each worker stands its SLOT, and what it costs, in thousandths of a dollar."""
"""What a model has to be told that was not trained in these dialects."""

VALUE_CHARS: Final = 160
"""Characters shown of one value: what a small model can use, and needs not copy."""

DESCRIPTION_CHARS: Final = 160
"""Characters shown of a worker's description: some forty tokens of a pool's line."""

SHOWN_CHOICES: Final = 16
"""Values shown of an argument that takes one of some."""

_OPEN: Final = "OPEN"
"""In place of the status of a call that goes on."""

_FINAL: Final = "FINAL"
"""That only an answer is accepted."""

_REFUSED: Final = "REFUSED"
"""That a reply was no decision, and why."""

_KNOWN: Final = "KNOWN"
"""Before an output of the run above, which has no number here."""

_POINTER: Final = re.compile(r"([$#])(\d{1,3})(?!\d)")
"""What stands for an entity, or for an output."""

_CALL: Final = re.compile(r"@(\S+)[ \t]*(.*)", re.DOTALL)
_NAMED: Final = re.compile(r"(?:(?<=\s)|^)([A-Za-z_][\w-]{0,63})=")
_OUTPUT: Final = re.compile(r"\$\{output:([^{}]{0,200})\}")

_SCALARS: Final = ("integer", "number", "boolean", "null")
"""Types of which an argument is written as JSON has it."""


def request(view: View, system: str = "", *, ahead: bool = False) -> dict[str, Json]:
    """The part of a chat completion request that ``view`` decides: its messages.

    Args:
        view: See `View`.
        system: What stands before the workers.
        ahead: Whether a slot begins its worker's line rather than end it.
    """
    return {"messages": messages(view, system, ahead=ahead)}


def messages(view: View, system: str = "", *, ahead: bool = False) -> list[Message]:
    """The conversation so far: the workers, the task, each reply and what came of it."""
    workers = "\n".join(_offered(worker, ahead) for worker in view.pool.workers)
    known = Referable(view.task)
    shown: list[Message] = [
        {"role": "system", "content": f"{system}\n{workers}" if system else workers},
        {"role": "user", "content": _task(view)},
    ]
    for turn in view.turns:
        asked = shared.asked(turn)
        after = Referable(view.task, (*known.calls, *(call.id for call in asked)))
        shown.extend(_turn(turn, asked, view.pool, known, after))
        known = after
    if view.final:
        shown.append({"role": "user", "content": _FINAL})
    return shown


# ------------------------------------------------------------------------------------ what is said


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
    schemas = _properties(worker)
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
    numbers = _numbers(known, len(decision.calls))
    point = _pointing(known, len(decision.calls))
    lines = []
    for call in decision.calls:
        fitting = (
            form
            for form in _forms(call, known, numbers, point)
            if _says(form, call, by_name, point)
        )
        plainly = f"{_slot(call)} {_by_number(compact(call.arguments), numbers)}"
        lines.append(next(fitting, plainly))
    answer = decision.answers or decision.answer
    if answer is not None and (answer or not decision.calls):
        lines.append(f"= {_named(answer, known, numbers, point)}")
    return Reply(text="\n".join(lines))


def _slot(call: PlannedCall) -> str:
    return call.worker if call.worker.startswith(SLOT) else SLOT + call.worker


def _forms(
    call: PlannedCall, known: Referable, numbers: dict[str, int], point: _Point
) -> Iterator[str]:
    """The ways in which a call may be written, the shortest first."""
    slot = _slot(call)
    if not call.arguments:
        yield slot
    written = {
        key: _named(value if isinstance(value, str) else compact(value), known, numbers, point)
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


def _numbers(known: Referable, planned: int) -> dict[str, int]:
    """The number of each call."""
    calls = [*known.calls, *(f"{known.round}-{index}" for index in range(planned))]
    return {name: number for number, name in enumerate(calls, 1)}


def _named(text: str, known: Referable, numbers: dict[str, int], point: _Point) -> str:
    """A text with pointers: to outputs and to entities, wherever it has what they stand for."""
    plainly = _by_number(text, numbers)
    if not (entities := entities_of(known)):
        return plainly
    pattern, places = _marking(tuple(entities))
    pieces = _OUTPUT.split(text)
    pieces[::2] = [pattern.sub(lambda found: f"${places[found[0]]}", each) for each in pieces[::2]]
    pieces[1::2] = [reference(each, "output") for each in pieces[1::2]]
    marked = _by_number("".join(pieces), numbers)
    try:
        return marked if point(marked) == text else plainly
    except _Wrong:
        return plainly


@lru_cache(maxsize=1_024)  # a run asks for its own again and again
def _marking(entities: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, int]]:
    """What finds entities in a text, whole words and numbers alone; and the number of each."""
    places: dict[str, int] = {}
    for place, entity in enumerate(entities, 1):
        places.setdefault(entity, place)
    longest = sorted(places, key=lambda entity: (-len(entity), entity))
    any_of = "|".join(map(re.escape, longest))
    return re.compile(rf"(?<!\w)(?<!\d\.)(?:{any_of})(?!\w)(?!\.\d)"), places


def _by_number(text: str, numbers: dict[str, int]) -> str:
    return _OUTPUT.sub(
        lambda found: f"#{numbers[found[1]]}" if found[1] in numbers else found[0], text
    )


# ----------------------------------------------------------------------------------- what is shown


def entities_of(known: Referable) -> list[str]:
    """The marked entities of a task, as texts; none if they are no list of texts and numbers."""
    listed = known.task.inputs.get(ENTITIES)
    if not isinstance(listed, list | tuple):
        return []
    plainly = [each for each in listed if isinstance(each, str | int | float) and each != ""]
    return [plain(each) for each in plainly] if len(plainly) == len(listed) else []


def _task(view: View) -> str:
    task, known = view.task, Referable(view.task)
    entities = entities_of(known)
    text = task.text
    marked: set[str] = set()
    if entities:
        pattern, places = _marking(tuple(entities))

        def mark(match: re.Match[str]) -> str:
            marked.add(match[0])
            return f"${places[match[0]]}"

        text = pattern.sub(mark, text)
    lines = [text]
    lines += [f"${k} {_short(each)}" for k, each in enumerate(entities, 1) if each not in marked]
    rest = {key: value for key, value in task.inputs.items() if not (entities and key == ENTITIES)}
    if rest:
        lines.append(f"inputs {compact(rest)}")
    lines += [f"{_KNOWN} {each.status} {_short(each.value)}" for each in task.sees]
    return "\n".join(lines)


def _offered(worker: WorkerSpec, ahead: bool) -> str:
    """A worker in one line: what it does, what it takes beside one text, price, speed, slot."""
    told = _short(worker.description, DESCRIPTION_CHARS).rstrip(".")
    parts = [told, _taken(worker), "|", _price(worker.reserve.cost)]
    speed = worker.options.get("speed")
    parts.append(_short(speed, 16) if isinstance(speed, str) else "")
    parts.insert(0 if ahead else len(parts), worker.name)
    return " ".join(filter(None, parts))


def _taken(worker: WorkerSpec) -> str:
    """The arguments of a worker; nothing where it takes one text, or anything."""
    schemas = _properties(worker)
    if not schemas or (len(schemas) == 1 and text_parameter(worker)):
        return ""
    needed = worker.parameters.get("required")
    required = needed if isinstance(needed, list) else []
    shown = (
        f"{name}{'' if name in required else '?'}{_kind(schema)}"
        for name, schema in schemas.items()
    )
    return f"({', '.join(shown)})"


def _kind(schema: Json) -> str:
    if not isinstance(schema, dict):
        return ""
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        some = "|".join(_short(each, 40) for each in choices[:SHOWN_CHOICES])
        return f": {some}{'|…' if len(choices) > SHOWN_CHOICES else ''}"
    kind = schema.get("type")
    return f": {kind}" if isinstance(kind, str) and kind != "string" else ""


def _price(cost: int) -> str:
    """Thousandths of a dollar: whole ones, or one decimal place below that."""
    if cost >= 950 or cost == 0:
        return str((cost + 500) // 1_000)
    return f"0.{max(1, (cost + 50) // 100)}"


def _properties(worker: WorkerSpec | None) -> dict[str, Json]:
    found = worker.parameters.get("properties") if worker is not None else None
    return found if isinstance(found, dict) else {}


def _short(value: Json, limit: int = VALUE_CHARS) -> str:
    """A value in one line, cut: nothing in it can look like a line of its own."""
    text = " ".join(plain(value)[: 4 * limit].split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _turn(
    turn: Turn, asked: list[Call], pool: Pool, before: Referable, after: Referable
) -> list[Message]:
    numbers = _numbers(after, 0)
    text, lines = turn.text, []
    if turn.rejection is not None:
        lines.append(f"{_REFUSED} {_short(_by_number(turn.rejection.detail, numbers))}")
    elif asked:
        text = _typed(turn, asked, pool, before)
        seen = {item.call.id: _observed(item, numbers) for item in turn.observations}
        lines += [seen.get(call.id) or f"#{numbers[call.id]} {_OPEN}" for call in asked]
    lines += [_observed(item, numbers) for item in turn.late]
    # A reply of no text has ended its turn, too: what follows goes on from its tokens.
    said: list[Message] = [{"role": "assistant", "content": text}]
    return [*said, {"role": "user", "content": "\n".join(lines)}] if lines else said


def _observed(item: Observation, numbers: dict[str, int]) -> str:
    value = _short(item.value)
    if item.status != "OK":
        value = _by_number(value, numbers)
    return f"#{numbers.get(item.call.id, 0)} {item.status} {value}".rstrip()


def _typed(turn: Turn, asked: list[Call], pool: Pool, before: Referable) -> str:
    """The round as the model typed it, or anew if that doesn't say what was done."""
    done = [(call.worker, call.arguments) for call in asked]
    parsed = parse(Reply(text=turn.text), pool, before)
    calls = parsed.calls if isinstance(parsed, Decision) else ()
    if [(call.worker, call.arguments) for call in calls] == done:
        return turn.text
    planned = tuple(PlannedCall(worker, arguments) for worker, arguments in done)
    answers = turn.answers if refers(turn.answers, "output") else ""
    return render(Decision(calls=planned, answers=answers), pool, before).text
