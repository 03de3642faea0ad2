"""A run's log, as a trainer wants it: what the policy was asked, what it said, what came of it.

A `Rollout` is a pure projection of one run's log, which `fold` makes. It holds no advantage and no
loss mask; what a rollout is worth is `rewards`' to say, which of its tokens are trained is `rows`'.
Its bytes are canonical: the same log gives the same ones, in one go, in pieces, or again after a
crash.
"""

from typing import Final, Literal, TypeAlias

import msgspec

from protocol.actions import NOTHING, UNKNOWN_USAGE, Call, Fault, Json, Pool, Spend, Status, Usage
from protocol.budgets import Budget, Limit
from protocol.decisions import Decision, PolicySpec, Rejection, Task, View
from protocol.errors import InvalidData
from protocol.events import Origin, Parent
from protocol.inbox import Label, Reward
from protocol.sampled import Sampled
from protocol.state import Outcome

Unscorable: TypeAlias = Literal["", "infrastructure", "policy_unreachable", "cancelled", "open"]
"""Why a rollout says nothing of its policy; "" if it can be scored. It is not bad, it is left out:
a fault of the infrastructure's without an answer, a policy that could not be asked, a run that
somebody cancelled, or one that has not ended."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a round, and what came of it."""

    call: Call
    status: Status | None
    """None while it goes on, or if the round was closed without it."""
    fault: Fault = "none"
    value: Json = None
    """What the policy is shown of it."""
    spend: Spend = NOTHING
    """Of all its attempts."""
    latency_ms: int = 0
    """Of the attempt that counts."""
    attempts: int = 0


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One question to the policy, its reply, and the round that came of it."""

    turn: int
    own: bool = True
    """False for what a fork shares with the run that it was forked from: context, never trained."""
    view: View
    """What the policy was shown; `protocol.dialects.request` makes the prompt of it."""
    text: str = ""
    decision: Decision | None = None
    rejection: Rejection | None = None
    """Why the reply was no decision that could be followed."""
    calls: tuple[Made, ...] = ()
    prompt: bytes = b""
    """Ids of the whole prompt's tokens, packed as in `protocol.sampled`; empty where the tokens
    are not known."""
    output: bytes = b""
    logprobs: bytes = b""
    sampled: Sampled | None = None
    """How the tokens were drawn; None is not for policy gradients. Its arrays are above."""
    version: str = ""
    """Of the policy, as its reply has it."""
    usage: Usage = UNKNOWN_USAGE
    spend: Spend = NOTHING
    latency_ms: int = 0

    @property
    def failed(self) -> bool:
        """Whether it was the policy's own mistake: a rejected reply, or one with a call that was.

        What a worker or the infrastructure did wrong is none.
        """
        return self.rejection is not None or any(each.fault == "policy" for each in self.calls)


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One execution of a task."""

    run: str
    group: str
    """Hash of what its group has in common: the task, the pool, the policy and its version; of
    forks, the moment they go on from and what was changed there, too."""
    task: Task
    """With its check."""
    pool: Pool
    policy: PolicySpec
    budget: Budget = Budget()
    parent: Parent | None = None
    """The call of another run that it answers, if it does."""
    origin: Origin | None = None
    """Of a fork: what it shares."""
    steps: tuple[Step, ...] = ()
    outcome: Outcome = ""
    answer: str = ""
    answered: bool = False
    """Whether the policy gave the answer, or made an output it: False where a limit was reached and
    what had been found was put together without it."""
    limited_by: Limit = ""
    unscorable: Unscorable = ""
    rounds: int = 0
    critical_steps: int = 0
    """See `replay.critical`."""
    spend: Spend = NOTHING
    """Of the whole run, child runs included."""
    elapsed_ms: int = 0
    """Milliseconds from its start to its end, pauses not counted."""
    started_at: int = 0
    """Milliseconds since the epoch."""
    rewards: tuple[Reward, ...] = ()
    """Given to the run from outside, in the order of the log; the last of a channel counts."""
    labels: tuple[Label, ...] = ()
    events: int = 0
    """How many of its events it was made from, those that a fork shares included. None that come
    after its end: being archived changes nothing."""
    head: str = ""
    """Hash of the last commit that it was made from: what a judgement of it names."""


_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(Rollout).decode


def encode(rollout: Rollout) -> bytes:
    """Its bytes, JSON with sorted keys: equal rollouts give equal ones on every machine."""
    return _encode(rollout)


def decode(data: bytes) -> Rollout:
    """The rollout of such bytes. Raises `InvalidData`."""
    try:
        return _decode(data)
    except (ValueError, RecursionError) as error:
        raise InvalidData(
            f"{len(data)} bytes are no rollout: {error}", hint="make it again from its run's log"
        ) from None
