"""A policy whose answer a worker writes: ParaManager's frozen summariser (arXiv 2604.17009).

``written:WORKER:POLICY`` asks the policy for every decision. When it would answer, the worker is
called instead, with the record of the work and the policy's own answer; what it writes is the
answer of the run. So the last step is a call like any other: recorded, billed, traced, reproduced.
Where it can't be made, or fails, the policy's own answer stands.
"""

from typing import Final, cast

import msgspec

from actors.models.question import NOBODY, Maker
from actors.ports import Closing, EndpointPolicy, InstantPolicy, Policy, SamplingPolicy
from protocol.decisions import WRITTEN, Decision, Observation, PlannedCall, Reply, Turn, View
from protocol.dialects import note_of, parse, referable, render, with_note
from protocol.dialects.shared import compact, cut, outputs
from protocol.limits import MAX_ARGUMENTS_BYTES, MAX_REPLY_BYTES
from protocol.references import as_text

DRAFT_CHARS: Final = 8_000
"""Characters of the policy's own answer that the writer is shown: two screens of prose."""

VALUE_CHARS: Final = 4_000
"""Characters of one value that it is shown, where there is room."""

LEAST_CHARS: Final = 120
"""Characters of one value below which earlier calls are left out instead."""

ROOM: Final = 1_024
"""Bytes of a call's arguments that are kept free: for quotes around what is measured without."""

BARE_CHARS: Final = MAX_ARGUMENTS_BYTES // 8
"""Characters kept of a record that is too long without any calls: one has six bytes at most."""


def over(writer: str, inner: Policy) -> Policy:
    """The policy whose answers a worker of that name writes."""
    if hasattr(inner, "decide"):
        return _AtOnce(writer, cast(InstantPolicy, inner))
    if isinstance(inner, SamplingPolicy):
        return _Seen(writer, inner)
    return _Asked(writer, inner)


class _Last:
    """What happens before and after the policy is asked."""

    def __init__(self, writer: str, inner: Policy) -> None:
        self._writer, self._under = writer, inner
        self.spec = msgspec.structs.replace(
            inner.spec, name=f"{WRITTEN}:{writer}:{inner.spec.name}"
        )

    async def close(self) -> None:
        """See `Closing`."""
        if isinstance(self._under, Closing):
            await self._under.close()

    def _answer(self, view: View) -> Reply | None:
        """The answer, if the last step has been made; the policy is not asked again then."""
        turn = view.turns[-1] if view.turns else Turn()
        calls = (*(seen.call for seen in turn.observations), *turn.open)
        if [call.ref for call in calls] != [WRITTEN]:
            return None
        written = next(filter(None, map(_text, (*turn.observations, *turn.late))), "")
        return self._say(Decision(answer=written or note_of(self.spec, turn)), view)

    def _ended(self, view: View, reply: Reply) -> Reply:
        """The policy's reply; instead of an answer the call of the writer, with it as the note."""
        if view.final or reply.status != "OK":
            return reply
        decided = parse(self.spec, reply, view.pool, referable(view))
        if not isinstance(decided, Decision) or decided.answer is None:
            return reply
        if view.pool.get(self._writer) is None:
            text = f"the pool has no worker {self._writer!r}, which is to write the answer"
            return msgspec.structs.replace(reply, status="EXEC_ERR", error=text, retry=False)
        arguments = {"subtask": record(view, decided.answer)}
        call = PlannedCall(self._writer, arguments, ref=WRITTEN)
        said = with_note(self.spec, self._say(Decision(calls=(call,)), view), decided.answer)
        made = msgspec.structs.replace(
            reply, text=said.text, decision=said.decision, tool_calls=said.tool_calls
        )
        if not isinstance(parse(self.spec, made, view.pool, referable(view)), Decision):
            return reply
        # An answer so long that it leaves no room for the call is given as it is.
        return made if len(msgspec.json.encode(made)) <= MAX_REPLY_BYTES else reply

    def _say(self, decision: Decision, view: View) -> Reply:
        said = render(self.spec, decision, view.pool, referable(view))
        return msgspec.structs.replace(said, version=WRITTEN)


class _AtOnce(_Last):
    """Over a policy that decides at once."""

    def __init__(self, writer: str, inner: InstantPolicy) -> None:
        super().__init__(writer, inner)
        self._inner = inner

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        return self._answer(view) or self._ended(view, self._inner.decide(view))


class _Asked(_Last):
    """Over a policy that has to be waited for."""

    def __init__(self, writer: str, inner: EndpointPolicy) -> None:
        super().__init__(writer, inner)
        self._inner = inner

    async def ask(self, view: View) -> Reply:
        """See `EndpointPolicy`."""
        return self._answer(view) or self._ended(view, await self._inner.ask(view))


class _Seen(_Last):
    """Over a policy whose tokens we see."""

    def __init__(self, writer: str, inner: SamplingPolicy) -> None:
        super().__init__(writer, cast(EndpointPolicy, inner))
        self._inner = inner

    async def ask(self, view: View) -> Reply:
        """See `EndpointPolicy`."""
        return await self.sample(view, b"")

    async def sample(self, view: View, before: bytes, maker: Maker = NOBODY) -> Reply:
        """See `SamplingPolicy`."""
        if (answer := self._answer(view)) is not None:
            return answer
        return self._ended(view, await self._inner.sample(view, before, maker))


def _text(seen: Observation) -> str:
    """What the writer wrote; "" if it failed. A worker of another kind may give any value."""
    return as_text(seen.value) if seen.call.ref == WRITTEN and seen.status == "OK" else ""


def record(view: View, draft: str) -> str:
    """What the writer is given: the task, every call with what came of it, the policy's answer.

    It fits into a call's arguments: values are cut, the more the less room there is, and at last
    the earliest calls are left out.
    """
    head = f"The task:\n{view.task.text}"
    if view.task.inputs:
        head += f"\n\nIts inputs (JSON):\n{compact(view.task.inputs)}"
    head += outputs(view.task.sees, DRAFT_CHARS)
    tail = f"The conductor's own answer, which nobody has checked:\n{cut(draft, DRAFT_CHARS)}"
    chars = VALUE_CHARS
    lines = _lines(view, chars)
    while not _fits(text := _joined(head, lines, tail)) and chars > LEAST_CHARS:
        chars //= 2
        lines = _lines(view, chars)
    left = 0
    while not _fits(text) and lines:
        dropped = max(1, len(lines) // 10)
        lines, left = lines[dropped:], left + dropped
        text = _joined(head, [f"({left} earlier lines are left out)", *lines], tail)
    return text if _fits(text) else cut(text, BARE_CHARS)


def _joined(head: str, lines: list[str], tail: str) -> str:
    work = "\n".join(lines) or "(no calls were made)"
    return f"{head}\n\nThe record of the work:\n{work}\n\n{tail}"


def _lines(view: View, chars: int) -> list[str]:
    lines = []
    for number, turn in enumerate(view.turns, 1):
        observed = (*turn.observations, *turn.late)
        if not observed:
            continue
        note = f": {cut(turn.text.strip(), chars)}" if turn.text.strip() else ""
        lines.append(f"Round {number}{note}")
        for seen in observed:
            value = seen.value if isinstance(seen.value, str) else compact(seen.value)
            asked = cut(compact(seen.call.arguments), chars)
            lines.append(f"- {seen.call.worker} {asked}: {seen.status}: {cut(value, chars)}")
    return lines


def _fits(text: str) -> bool:
    return len(msgspec.json.encode(text)) <= MAX_ARGUMENTS_BYTES - ROOM
