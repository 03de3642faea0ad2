"""What becomes of a policy's reply: as the log will hold it, and why it can't be followed.

Pure functions of the reply and the run's state; `rules` and `run` act on what they say.
"""

from typing import Final

import msgspec

from protocol.actions import Spend
from protocol.codec import deeper_than
from protocol.decisions import Decision, Referable, Rejection, Reply
from protocol.limits import MAX_DETAIL_CHARS, MAX_NESTING, MAX_ROUND_CALLS
from protocol.references import reference, referred, refers
from protocol.state import RunState
from protocol.transitions import last_output

SHOWN_NAME_CHARS: Final = 100
"""Characters shown of the name of a worker, or a call, that there is not."""

_encode: Final = msgspec.json.Encoder().encode
_decode_reply: Final = msgspec.json.Decoder(Reply).decode


def as_recorded(reply: Reply, reserve: Spend) -> tuple[Reply, int, Rejection | None]:
    """The reply as the log will hold it, its size in bytes, and why it can't be read, if it can't.

    What is stored is what is used: a policy in this process can hand over values that JSON has
    not, and a recovered run would see others than the live one did.

    Args:
        reply: What the policy gave.
        reserve: What the question may spend; assumed to be spent where the reply doesn't say.
    """
    try:
        data = _encode(reply)
        if not deeper_than(MAX_NESTING, data):
            return _decode_reply(data), len(data), None
        what = f"The reply has more than {MAX_NESTING} levels of lists and objects."
    except (TypeError, ValueError, RecursionError) as error:
        what = _clean(f"The reply is none that can be recorded: {error}")
    kept = Reply(text=_clean(reply.text), spend=reserve, version=_clean(reply.version))
    return kept, len(_encode(kept)), Rejection("unreadable", what)


def _clean(text: object) -> str:
    """A text that UTF-8 can hold, cut to one screen."""
    return str(text)[:MAX_DETAIL_CHARS].encode("utf-8", "replace").decode()


def referable(s: RunState) -> Referable:
    """What the policy's next reply may refer to."""
    return Referable(s.task, tuple(s.calls))


def _planned(decision: Decision, round_: int) -> list[str]:
    """The ids that the calls of a decision get."""
    return [f"{round_}-{index}" for index in range(len(decision.calls))]


def linked(decision: Decision, known: Referable) -> Decision:
    """The decision, in which each call sees those whose outputs its arguments refer to.

    What refers to no call stays as it is: the rules settle that call.

    Args:
        decision: As it was parsed.
        known: The calls made before.
    """
    if not any(refers(call.arguments, "output") for call in decision.calls):
        return decision
    coming = {name: index for index, name in enumerate(_planned(decision, known.round))}
    calls = []
    for index, call in enumerate(decision.calls):
        named = referred(call.arguments, "output")
        here = [coming[name] for name in named if coming.get(name, index) != index]
        before = [name for name in named if name in known.calls]
        sees = tuple(dict.fromkeys([*call.sees, *here]))
        earlier = tuple(dict.fromkeys([*call.earlier, *before]))
        calls.append(msgspec.structs.replace(call, sees=sees, earlier=earlier))
    return msgspec.structs.replace(decision, calls=tuple(calls))


def unacceptable(decision: Decision, s: RunState) -> Rejection | None:
    """Why the decision's shape or the moment forbids it, or None."""
    if decision.answer is not None and (decision.last_answers or decision.answers):
        text = "The reply holds an answer, and says that an output is the answer. Give one of them."
        return Rejection("not_a_decision", text)
    if decision.answers and (problem := _unanswerable(decision, s)):
        return problem
    if decision.accepts:
        return None if decision.answers else _nothing_to_accept(s)
    if decision.answer is None and not decision.calls:
        return Rejection("not_a_decision", "The reply holds neither calls nor an answer. Give one.")
    if decision.calls and decision.answer is not None:
        return Rejection("not_a_decision", "The reply holds calls and an answer. Give one of them.")
    if decision.answer is not None:
        if decision.answer.strip():
            return None
        return Rejection("empty", "The answer is empty. Give one, or call workers.")
    if s.final:
        return Rejection("answer_only", "No more calls are possible. Answer with what is known.")
    if len(decision.calls) > MAX_ROUND_CALLS:
        text = f"{len(decision.calls)} calls at once; at most {MAX_ROUND_CALLS} are possible."
        return Rejection("too_many_calls", text)
    unknown = [name for call in decision.calls for name in call.earlier if name not in s.calls]
    if unknown:
        text = (
            f"There is no call {unknown[0][:SHOWN_NAME_CHARS]!r} before this decision to wait for."
        )
        return Rejection("bad_graph", text)
    if circle := _graph_problem(decision):
        return Rejection("bad_graph", circle)
    return None


def _unanswerable(decision: Decision, s: RunState) -> Rejection | None:
    """Why the outputs that the answer refers to can't be had."""
    if decision.last_answers:
        text = "The reply says twice which output is the answer. Say it once."
        return Rejection("not_a_decision", text)
    named = referred(decision.answers, "output")
    if not named:
        text = "The reply says that outputs are the answer, and refers to none. Give the answer."
        return Rejection("not_a_decision", text)
    coming = _planned(decision, s.round + 1)
    for name in named:
        if name in coming or s.has_output(name):
            continue
        shown = reference(name[:SHOWN_NAME_CHARS], "output")
        why = "that call has no output" if name in s.calls else "there is no such call"
        return Rejection("nothing_to_accept", f"{shown} can't be the answer: {why}.")
    return None


def _nothing_to_accept(s: RunState) -> Rejection | None:
    if last_output(s):
        return None
    text = "There is no output to accept: no call has succeeded. Call workers."
    return Rejection("nothing_to_accept", text)


def _graph_problem(decision: Decision) -> str:
    """Why the calls can't be put into an order, or ""."""
    needs = [{*call.after, *call.sees} for call in decision.calls]
    everything = set(range(len(needs)))
    for index, wanted in enumerate(needs):
        if not wanted <= everything:
            return f"Call {index} waits for a call that is not in this decision."
    done: set[int] = set()
    while ready := {i for i in everything - done if needs[i] <= done}:
        done |= ready
    circle = sorted(everything - done)
    return f"Calls {circle} wait for each other in a circle." if circle else ""
