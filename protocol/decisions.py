"""What a policy is shown (`View`), what it says (`Reply`), and what it can decide (`Decision`)."""

from typing import Final, Literal, TypeAlias

import msgspec

from protocol.actions import (
    NOTHING,
    UNKNOWN_USAGE,
    Call,
    Fault,
    Json,
    Pool,
    Spend,
    Status,
    Usage,
)
from protocol.budgets import Limit
from protocol.sampled import Sampled

Dialect: TypeAlias = Literal["decision", "openai", "hermes", "lists", "compact", "slots"]
"""How a policy speaks: decisions as they are (rules, scripts), OpenAI's native tool calls, the text
template of Hermes and Qwen3, the Conductor's three lists (arXiv 2512.04388), or a line a call."""

SLOTTED: Final[frozenset[Dialect]] = frozenset({"compact", "slots"})
"""The dialects in which a worker is its slot, and calls are pointed at by number."""

Naming: TypeAlias = Literal["names", "numbers"]
"""What a policy is shown of who its workers are: their names, or numbers that say nothing."""

ReplanOn: TypeAlias = Literal["never", "failure", "straggler"]
"""When a policy is asked although calls of its round go on: never, as soon as one has failed, or
when one takes far longer than its worker's calls do. What goes on is shown when it comes."""

WRITTEN: Final = "written"
"""What the name of a policy begins with whose answers a worker writes: ``written:WORKER:POLICY``.
Also the version of replies for which that policy was not asked, and the ``ref`` of that call."""


def asked(policy: str) -> str:
    """The name of the policy that is asked, of one whose answers a worker may write."""
    kind, _, rest = policy.partition(":")
    return rest.partition(":")[2] if kind == WRITTEN else policy


class PolicySpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run records of its policy."""

    name: str
    """How it was asked for: ``rules``, ``openai:gpt-5``."""
    dialect: Dialect = "decision"
    reserve: Spend = NOTHING
    """The most that one reply may spend."""
    timeout_ms: int = 120_000
    """Milliseconds that one reply may take."""
    replan_on: ReplanOn = "never"
    naming: Naming = "names"
    system: str = ""
    """What a model is told of its job, in place of the dialect's own text."""
    options: dict[str, Json] = {}
    """What it is made with: an endpoint's address and sampling, or a plan. Never a secret."""


class PlannedCall(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A call as a policy asks for it, before the rules have given it an id."""

    worker: str
    arguments: dict[str, Json]
    """What the worker is given. Texts may refer to outputs (`references`), also of calls of this
    decision: whatever is referred to is seen."""
    after: tuple[int, ...] = ()
    """Indices, in this decision, of calls that must have settled first."""
    sees: tuple[int, ...] = ()
    """Indices, in this decision, of calls whose output the worker is shown; implies ``after``."""
    ref: str = ""
    """The policy's own id of the call, if it has one."""
    earlier: tuple[str, ...] = ()
    """Ids of calls of earlier rounds whose output the worker is shown, too; it waits for them."""

    def waits(self, planned: int) -> tuple[str, ...]:
        """Ids of all calls that it waits for, where its decision is the round of that number."""
        return (*self.earlier, *(f"{planned}-{i}" for i in sorted({*self.after, *self.sees})))


class Decision(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A policy's reply, parsed: calls, or an answer, or that the last output is the answer."""

    calls: tuple[PlannedCall, ...] = ()
    answer: str | None = None
    last_answers: bool = False
    """Whether an output is the answer, and nobody is asked for one: that of the last of these
    calls, if it succeeds; without calls, the last output that the run has."""
    answers: str = ""
    """The answer as a text that refers to outputs (`references`), which nobody copies: of calls of
    the run that have succeeded, or of these calls; if one of those fails, the policy is asked."""

    @property
    def accepts(self) -> bool:
        """Whether it takes outputs that the run has for the answer."""
        return bool(self.last_answers or self.answers) and not self.calls and self.answer is None


class Rejection(msgspec.Struct, frozen=True, gc=False):
    """A reply that is no decision."""

    reason: str
    """A word for programs. Of a reply: ``empty``, ``malformed``, ``unreadable``, ``too_large``,
    ``not_a_decision``. Of what it decides: ``answer_only``, ``too_many_calls``, ``bad_graph``,
    ``nothing_to_accept``."""
    detail: str
    """What is wrong and how to mend it, as the policy is shown it."""


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """A native tool call, as the model wrote it."""

    id: str
    name: str
    arguments: str
    """JSON text, unchecked."""


NO_ROOM: Final = "length"
"""Why a model stopped that had no room for more, or none to begin in."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a policy said, before the rules have looked at it."""

    status: Status = "OK"
    """Other than OK: the policy could not be asked, and ``error`` says why."""
    error: str = ""
    text: str = ""
    """The text of the reply; for a native tool call, what stands beside the calls."""
    tool_calls: tuple[ToolCall, ...] = ()
    decision: Decision | None = None
    """Given by a policy of the ``decision`` dialect instead of text; None there means it can't
    decide (see text)."""
    spend: Spend = NOTHING
    latency_ms: int = 0
    version: str = ""
    """Which policy made it: a model's name, or the hash of its weights."""
    prompt: str = ""
    """Hash of the rendered prompt, for policies that have one."""
    retry: bool = True
    """For a failure: False when asking again can't help, as with a refused key."""
    usage: Usage = UNKNOWN_USAGE
    """The tokens in ``spend``, told apart, where the endpoint does."""
    finish: str = ""
    """Why the model stopped, in its endpoint's word: ``stop``, ``length``, ``tool_calls``. Of a
    failure, `NO_ROOM`: the conversation had become too long for it."""
    sampled: Sampled | None = None
    """Its tokens, of a model whose tokens we see; None is not for policy gradients."""


class Output(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What came of a call, as others are shown it who may see that call."""

    call: str
    """Its id, in the run that made it."""
    worker: str
    value: Json = None
    status: Status = "OK"


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a user asks."""

    text: str
    inputs: dict[str, Json] = {}
    """Data that belongs to the question, shown to the policy as JSON."""
    sees: tuple[Output, ...] = ()
    """Of a child run: what the call that it answers is shown of the run above, shown to the policy
    below the inputs. Cut to ``limits.MAX_SEEN_BYTES``."""
    check: Json = None
    """For training: how to check the answer. Never shown to a policy or a worker."""


class Observation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the conductor makes of a call: the pair of value and status, and who is at fault."""

    call: Call
    status: Status
    fault: Fault = "none"
    value: Json = None
    """The result; for any status but OK, a text that says what went wrong and how to mend it."""


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reply of the policy and what came of it: observations of a round, or a rejection."""

    text: str = ""
    """The text beside the calls; for a rejected reply, the whole of what was kept of it."""
    observations: tuple[Observation, ...] = ()
    rejection: Rejection | None = None
    open: tuple[Call, ...] = ()
    """Calls of the round that went on when the policy was asked."""
    late: tuple[Observation, ...] = ()
    """What has come since, of this round or any before: of calls that went on, or were given up."""
    answers: str = ""
    """The call whose output the policy made the answer, or a text that refers to outputs; empty for
    none."""


class Referable(msgspec.Struct, frozen=True):
    """What a reply may refer to by number, in the dialect that does."""

    task: Task = Task(text="")
    """Its marked entities are ``$1``, ``$2``…"""
    calls: tuple[str, ...] = ()
    """Ids of the calls made so far, in the order in which they were asked for: ``#1``, ``#2``…"""

    @property
    def round(self) -> int:
        """The round that the reply plans, if it does."""
        last = self.calls[-1].partition("-")[0] if self.calls else ""
        return int(last) + 1 if last.isascii() and last.isdecimal() else 1


NOTHING_REFERABLE: Final = Referable()


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a policy is shown when it is asked.

    Built from the log alone, by `replay`'s readers too.
    """

    run: str
    task: Task
    pool: Pool
    turns: tuple[Turn, ...] = ()
    final: bool = False
    """True when only an answer is accepted now."""
    limited_by: Limit = ""
    """When final because a budget is used up: which one."""
