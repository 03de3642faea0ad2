"""The dialects of slots: a line a call, workers by slot, values by reference. For small models.

::

    system     population of a country | 2 fast @1
               works out an expression | 0 @2
    user       How many people live in $1 and $2 together?
    assistant  @1 $1
               @1 $2
    user       #1 $1 OK 67391582
               #2 $2 TIMEOUT world_bank took longer than 5 s.
    assistant  …
    assistant  = #3

A worker is its slot, the k-th of the pool. It ends the line: what a causal model holds of that
token is then what the line says, and to choose a worker is to find it and to repeat it. (In
``compact`` it begins the line.) A task's marked entities (``inputs["entities"]``, a list of texts
and numbers) are ``$1``, ``$2``…; ``#k`` is the k-th call of the run, in the order in which they
were asked for, also one of the same reply. So a small model points at workers, entities and values,
and never spells what it has not learned to copy.

An output stands with what its call pointed at, so that who has asked again for some of many need
not count which is whose. (In ``compact`` it doesn't.) `pointers` has how lines are read and made.

Nothing in a prompt explains the dialect: it is for models that are trained in it. `INSTRUCTIONS`
does, as a policy's ``system``, for one that isn't.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, takewhile
from typing import Final, NamedTuple

import msgspec

from protocol.actions import Call, Json, Pool, WorkerSpec
from protocol.decisions import (
    Decision,
    Dialect,
    Observation,
    PlannedCall,
    Referable,
    Reply,
    Turn,
    View,
)
from protocol.dialects import shared
from protocol.dialects.lists import text_parameter
from protocol.dialects.pointers import (
    ENTITIES,
    about,
    by_number,
    entities_of,
    marking,
    numbers_of,
    parse,
    properties,
    render,
)
from protocol.dialects.shared import Message, compact
from protocol.references import plain, refers

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

FAILURE_CHARS: Final = 80
"""Characters shown of why a call failed: its first words say whether to repeat or to change it."""

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


def request(view: View, system: str = "", dialect: Dialect = "slots") -> dict[str, Json]:
    """The part of a chat completion request that ``view`` decides: its messages.

    Args:
        view: See `View`.
        system: What stands before the workers.
        dialect: ``slots`` or ``compact``.
    """
    return {"messages": messages(view, system, dialect)}


def requests(
    views: Iterable[View], system: str = "", dialect: Dialect = "slots"
) -> Iterator[dict[str, Json]]:
    """`request` of each view; what is as it was in the view before is put into words once."""
    last: _Told | None = None
    for view in views:
        last = _told(view, system, dialect, last)
        yield {"messages": last.messages()}


def messages(view: View, system: str = "", dialect: Dialect = "slots") -> list[Message]:
    """The conversation so far: the workers, the task, each reply and what came of it."""
    return _told(view, system, dialect).messages()


class _Told(NamedTuple):
    """A view in words."""

    view: View
    opening: list[Message]
    """The workers and the task."""
    turns: list[list[Message]]
    """The words of each turn."""
    known: list[Referable]
    """What could be referred to before each turn, and after the last."""

    def messages(self) -> list[Message]:
        """All of them."""
        shown = [*self.opening, *chain.from_iterable(self.turns)]
        return [*shown, {"role": "user", "content": _FINAL}] if self.view.final else shown


def _told(view: View, system: str, dialect: Dialect, last: _Told | None = None) -> _Told:
    """A view in words: those of the one before, as far as the two are the same.

    What is said of a turn follows from the pool, the task, that turn and those before it.
    """
    if last is not None and _alike((last.view.pool, last.view.task), (view.pool, view.task)):
        pairs = zip(last.view.turns, view.turns, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: _alike(*pair), pairs))
        opening, turns, known = last.opening, last.turns[:same], last.known[: same + 1]
    else:
        opening, turns, known = _opening(view, system, dialect), [], [Referable(view.task)]
    for turn in view.turns[len(turns) :]:
        asked, before = shared.asked(turn), known[-1]
        after = Referable(view.task, (*before.calls, *(call.id for call in asked)))
        turns.append(_turn(turn, asked, view.pool, before, after, dialect == "slots"))
        known.append(after)
    return _Told(view, opening, turns, known)


def _alike(one: object, other: object) -> bool:
    """Whether two read the same. Equal ones may not: 1 and true, or keys in another order."""
    return one is other or msgspec.json.encode(one) == msgspec.json.encode(other)


def _opening(view: View, system: str, dialect: Dialect) -> list[Message]:
    workers = "\n".join(_offered(worker, dialect) for worker in view.pool.workers)
    return [
        {"role": "system", "content": f"{system}\n{workers}" if system else workers},
        {"role": "user", "content": _task(view)},
    ]


def _task(view: View) -> str:
    task, known = view.task, Referable(view.task)
    entities = entities_of(known)
    text = task.text
    marked: set[str] = set()
    if entities:
        pattern, places = marking(tuple(entities))

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


def _offered(worker: WorkerSpec, dialect: Dialect) -> str:
    """A worker in one line: what it does, what it takes beside one text, price, speed, slot."""
    told = _short(worker.description, DESCRIPTION_CHARS).rstrip(".")
    parts = [told, _taken(worker), "|", _price(worker.reserve.cost)]
    speed = worker.options.get("speed")
    parts.append(_short(speed, 16) if isinstance(speed, str) else "")
    parts.insert(0 if dialect == "compact" else len(parts), worker.name)
    return " ".join(filter(None, parts))


def _taken(worker: WorkerSpec) -> str:
    """The arguments of a worker; nothing where it takes one text, or anything."""
    schemas = properties(worker)
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


def _short(value: Json, limit: int = VALUE_CHARS) -> str:
    """A value in one line, cut: nothing in it can look like a line of its own."""
    text = " ".join(plain(value)[: 4 * limit].split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _turn(
    turn: Turn, asked: list[Call], pool: Pool, before: Referable, after: Referable, telling: bool
) -> list[Message]:
    """A reply and what came of it; ``telling`` also says what each output is of."""
    numbers = numbers_of(after)
    pointed = about(after) if telling else None
    text, lines = turn.text, []

    def line(call: Call, said: str) -> str:
        of = pointed(call) if pointed is not None else ""
        return " ".join(filter(None, (f"#{numbers.get(call.id, 0)}", of, said)))

    def observed(item: Observation) -> str:
        failed = item.status != "OK"
        value = _short(item.value, FAILURE_CHARS if telling and failed else VALUE_CHARS)
        if failed:
            value = by_number(value, numbers)
        return line(item.call, f"{item.status} {value}".rstrip())

    if turn.rejection is not None:
        lines.append(f"{_REFUSED} {_short(by_number(turn.rejection.detail, numbers))}")
    elif asked:
        text = _typed(turn, asked, pool, before)
        seen = {item.call.id: observed(item) for item in turn.observations}
        lines += [seen.get(call.id) or line(call, _OPEN) for call in asked]
    lines += [observed(item) for item in turn.late]
    # A reply of no text has ended its turn, too: what follows goes on from its tokens.
    said: list[Message] = [{"role": "assistant", "content": text}]
    return [*said, {"role": "user", "content": "\n".join(lines)}] if lines else said


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
