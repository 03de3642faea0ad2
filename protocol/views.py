"""What others are shown of a run: the state joined with the values of its reports.

Pure: the values come as a mapping from the hash of a report to its value, which whoever reads the
log has at hand.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from protocol.actions import MAX_COUNT, Json, Report, Spend, Status
from protocol.budgets import Limit
from protocol.commands import Start
from protocol.decisions import Decision, Observation, Output, Reply, Turn, View
from protocol.events import Parent
from protocol.limits import (
    MAX_ARGUMENTS_BYTES,
    MAX_FILLED_BYTES,
    MAX_REPLY_BYTES,
    MAX_SEEN_BYTES,
)
from protocol.references import (
    OPENINGS,
    OUTPUTS_ARE_FILLED,
    as_text,
    filled,
    plain,
    reference,
    referred,
)
from protocol.rules import child_budget
from protocol.schemas import filled_arguments
from protocol.state import RunState
from protocol.subjects import child_id
from protocol.traces import attempt_context

Values = Mapping[str, Json]
"""Values by the hash of the report that carries them."""

COMPOSER: Final = "composer-1"
"""Version of the composer, recorded with what it writes."""

_MISSING: Final = "(the value is not in the log any more)"
_SHOWN_CHARS: Final = 300
"""Characters of one value in a composed answer."""

_COMPOSED_CHARS: Final = 16_000
"""Characters of all of them: however they are escaped, the answer fits into one reply."""

_BESIDE_BYTES: Final = 1_024
"""Bytes of a composed reply besides its answer."""

LIMIT_TEXTS: Final[dict[Limit, str]] = {
    "rounds": "the budget of rounds was used up",
    "calls": "the budget of calls was used up",
    "tokens": "the budget of tokens was used up",
    "cost": "the budget of money was used up",
    "wall": "the time was used up",
    "rejections": "the policy gave no decision that could be followed",
    "signal": "somebody asked for the answer early",
}
"""How a limit is told to a person."""


def observation(state: RunState, call: str, values: Values) -> Observation | None:
    """The observation of a call, or None while it has not settled."""
    known = state.calls[call]
    if known.status is None:
        return None
    value = values.get(known.report, _MISSING) if known.report else known.value
    return Observation(call=known.call, status=known.status, fault=known.fault, value=value)


def late_observation(state: RunState, call: str, report: str, values: Values) -> Observation | None:
    """The observation of a call that came when its round was over, by the report that had it."""
    known = state.calls[call]
    if not report or report != known.late:
        return observation(state, call, values)
    return Observation(call=known.call, status="OK", value=values.get(report, _MISSING))


def view(state: RunState, values: Values, limited_by: Limit = "") -> View:
    """What the policy is shown when it is asked."""
    turns = []
    for turn in state.turns:
        shown = (name for name in turn.calls if name not in turn.left)
        seen = (observation(state, name, values) for name in shown)
        late = (late_observation(state, name, report, values) for name, report in turn.late)
        turns.append(
            Turn(
                turn.text,
                tuple(item for item in seen if item is not None),
                turn.rejection,
                tuple(state.calls[name].call for name in turn.left),
                tuple(item for item in late if item is not None),
                turn.answers,
            )
        )
    return View(
        run=state.run,
        task=msgspec.structs.replace(state.task, check=None),
        pool=state.pool,
        turns=tuple(turns),
        final=bool(limited_by),
        limited_by=limited_by,
    )


def compose(shown: View) -> Reply:
    """An answer made of what was observed.

    The output that the policy made the answer, or what there is when it can't be asked any more.
    """
    if output := _output(shown):
        return Reply(decision=Decision(answer=output), version=COMPOSER)
    found = [
        item
        for turn in shown.turns
        for item in (*turn.observations, *turn.late)
        if item.status == "OK"
    ]
    lines: list[str] = []
    room = _COMPOSED_CHARS
    for item in reversed(found):  # what was found last was asked for knowing the rest
        line = f"{item.call.worker}({short(item.call.arguments)}): {short(item.value)}"
        room -= len(line)
        if room < 0:
            lines.append(f"({len(found) - len(lines)} earlier results are not shown)")
            break
        lines.append(line)
    lines.reverse()
    why = LIMIT_TEXTS.get(shown.limited_by, "the run had to end")
    head = f"This is incomplete: {why}. What was found:"
    answer = "\n".join([head, *(f"- {line}" for line in lines)])
    return Reply(decision=Decision(answer=answer), version=COMPOSER)


def _output(shown: View) -> str:
    """What the policy has made the answer of outputs, as text; empty if they are not there."""
    wanted = shown.turns[-1].answers if shown.turns else ""
    if names := referred(wanted, "output"):
        return _written(shown, wanted, names)
    for turn in reversed(shown.turns):
        for item in (*turn.observations, *turn.late):
            if item.call.id == wanted and item.status == "OK":
                return _as_answer(item)
    return ""


def _written(shown: View, answer: str, names: list[str]) -> str:
    """An answer that refers to outputs, with these in it."""
    found = {
        item.call.id: plain(item.value)
        for turn in shown.turns
        for item in (*turn.observations, *turn.late)
        if item.status == "OK"
    }
    if not found.keys() >= set(names):
        return ""
    share = MAX_REPLY_BYTES // answer.count(OPENINGS["output"])
    text: str = filled(answer, output=lambda name: short(found[name], share))
    return _fitting_reply(text) or f"(the output of call {names[0]} is empty)"


def _as_answer(item: Observation) -> str:
    value = item.value
    if isinstance(value, dict) and isinstance(answer := value.get("answer"), str):
        value = answer  # of a child run
    text = short(value, MAX_REPLY_BYTES)
    return _fitting_reply(text) or f"(the output of call {item.call.id} is empty)"


def _fitting_reply(text: str) -> str:
    """An answer as one reply can hold it; empty if it says nothing."""
    if not text.strip():
        return ""
    if len(msgspec.json.encode(text)) > MAX_REPLY_BYTES - _BESIDE_BYTES:
        text = short(text, _COMPOSED_CHARS)
    return text


def fills(state: RunState, call: str, values: Values) -> dict[str, str | None]:
    """The outputs that a call's arguments refer to, by their call, as they are put in.

    None for one that is too long for it, with those before it (`MAX_FILLED_BYTES`), or not at hand.
    """
    known = state.calls[call].call
    names = referred(known.arguments, "output") if state.rules >= OUTPUTS_ARE_FILLED else []
    found: dict[str, str | None] = {}
    room = MAX_FILLED_BYTES
    for each in outputs(state, call, values) if names else ():
        if each.call in names and each.status == "OK":
            text = plain(each.value)
            size = len(msgspec.json.encode(text))
            found[each.call] = text if size <= room and each.value is not _MISSING else None
            room -= min(room, size)
    return found


def filled_in(state: RunState, call: str, values: Values) -> dict[str, Json]:
    """The arguments of a call that needs no worker, with the outputs in them.

    What would be too much for the task of a child run is left as it is: it is shown what it sees.
    """
    arguments = state.calls[call].call.arguments
    given = fills(state, call, values)
    if not given:
        return arguments
    spec = state.workers[state.calls[call].call.worker]
    room = MAX_ARGUMENTS_BYTES

    def output(name: str) -> str:
        nonlocal room
        text = given.get(name)
        room -= len(text or "")
        return reference(name, "output") if text is None or room < 0 else text

    made = filled_arguments(spec.parameters, arguments, output)
    fits = room >= 0 and len(msgspec.json.encode(made)) <= MAX_ARGUMENTS_BYTES
    return made if fits else arguments


def short(value: Json, chars: int = _SHOWN_CHARS) -> str:
    """A value as text, cut to so many characters."""
    text = as_text(value)
    return text if len(text) <= chars else text[: chars - 1] + "…"


def outputs(state: RunState, call: str, values: Values) -> tuple[Output, ...]:
    """What a call is shown of those that it may see: what came late is a result, too."""
    return tuple(
        Output(name, seen.call.worker, seen.value, seen.status)
        for name in dict.fromkeys(state.calls[call].call.sees)
        if (seen := late_observation(state, name, state.calls[name].late, values)) is not None
    )


def _fitting(seen: tuple[Output, ...]) -> tuple[Output, ...]:
    """The outputs as a child run's task can hold them.

    Long values are cut, all to one length; where even that is too much, the last ones stay. What
    is cut further is what was cut before: a value of megabytes is written once.
    """
    chars = MAX_SEEN_BYTES
    while len(msgspec.json.encode(seen)) > MAX_SEEN_BYTES:
        if chars > _SHOWN_CHARS:
            chars //= 2
        else:
            seen = seen[1 + len(seen) // 8 :]
        seen = tuple(_cut(each, chars) for each in seen)
    return seen


def _cut(output: Output, chars: int) -> Output:
    text = as_text(output.value)
    if len(text) <= chars:
        return output
    return msgspec.structs.replace(output, value=short(text, chars))


def child_start(state: RunState, call: str, values: Values) -> Start:
    """The run that an open call of a conductor begins."""
    known = state.calls[call]
    arguments = filled_in(state, call, values)
    text, inputs = arguments.get("task"), arguments.get("inputs")
    segment, attempt = known.segment, known.attempt
    above = attempt_context(state.run, call, attempt, state.traceparent, segment)
    return Start(
        run=child_id(state.run, call, known.attempt),
        task=msgspec.structs.replace(
            state.task,
            text=text if isinstance(text, str) else msgspec.json.encode(arguments).decode(),
            inputs=inputs if isinstance(inputs, dict) else {},
            sees=_fitting(outputs(state, call, values)),
            check=None,
        ),
        pool=state.pool,
        policy=state.policy,
        budget=child_budget(state, known),
        parent=Parent(state.run, call, known.attempt),
        depth=state.depth + 1,
        by=f"run:{state.run}",
        priority="high",
        traceparent=above.traceparent,
        redact=state.redact,
    )


def child_report(state: RunState) -> Report:
    """What an ended child run tells its parent. The same bytes however often it is told."""
    if state.parent is None:
        raise ValueError(f"run {state.run} has no parent to tell")
    limited = {"limited_by": state.limited_by} if state.limited_by else {}
    value: Json = {"answer": state.answer, "run": state.run, **limited}
    if state.outcome != "finished":
        value = f"run {state.run} {state.outcome}: {state.detail}"
    status: Status = "OK" if state.outcome == "finished" else "EXEC_ERR"
    return Report(
        run=state.parent.run,
        call=state.parent.call,
        attempt=state.parent.attempt,
        status=status,
        fault="none" if status == "OK" else "worker",
        value=value,
        spend=Spend(*(min(part, MAX_COUNT) for part in msgspec.structs.astuple(state.committed))),
        latency_ms=max(0, state.ended_at - state.started_at),
        by=f"run:{state.run}",
    )
