"""What a worker gets of a call: built from the run's state alone, by whoever needs it.

The conductor sends it (`effects`), the worker works on it (`worker`), and a call that is reproduced
gets the very same again.
"""

from collections.abc import Mapping
from typing import Any, Final

from actors.ports import Attempt
from protocol.actions import Json
from protocol.codec import CallMessage, encode
from protocol.errors import TooLarge
from protocol.state import RunState
from protocol.views import fills, outputs, short

MAX_SEEN_CHARS: Final = 64_000
"""Characters of what a worker may see of other calls, all of them together, where the whole doesn't
fit into one message: a character has at most six bytes in JSON."""


def call_message(
    state: RunState, values: Mapping[str, Json], call: str, attempt: int, *, again: bool = False
) -> bytes:
    """The message that asks a worker for an attempt, encoded.

    Args:
        state: The run, with the call in it.
        values: Values by the hash of their report.
        call: The call's id.
        attempt: Its number.
        again: Whether it may have been sent before.
    """
    known = state.calls[call].call
    seen = outputs(state, call, values)
    spec = state.workers[known.worker]
    return fitting(
        run=state.run,
        call=call,
        attempt=attempt,
        worker=spec.place,
        arguments=known.arguments,
        timeout_ms=spec.timeout_ms,
        sees={each.call: each.value for each in seen},
        failed={each.call: each.status for each in seen if each.status != "OK"},
        fill=fills(state, call, values),
        task=state.task.text if spec.kind == "agent" else "",
        again=again,
        redact=state.redact,
        policy_version=state.policy_version,
    )


def fitting(*, sees: dict[str, Json], **fields: Any) -> bytes:
    """A call message; what the worker may see is cut where the whole would not fit."""
    try:
        return encode(CallMessage(sees=sees, **fields))
    except TooLarge:
        share = MAX_SEEN_CHARS // max(1, len(sees))
        cut = {call: short(value, share) for call, value in sees.items()}
        return encode(CallMessage(sees=cut, **fields))


def attempt_of(message: CallMessage) -> Attempt:
    """What the adapter is given."""
    return Attempt(
        run=message.run,
        call=message.call,
        attempt=message.attempt,
        arguments=message.arguments,
        timeout_s=message.timeout_ms / 1_000,
        sees=message.sees,
        failed=message.failed,
        fill=message.fill,
        task=message.task,
    )
