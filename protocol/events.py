"""The events of a run: frozen facts, deltas only.

No event carries what an earlier one already holds. `RoundPlanned` names a round whose calls stand
in the decision of the `PolicyReplied` before it; `CallSettled` names the report that counts by its
hash, and the report stands in the run's inbox. New fields have defaults; a field never changes its
type; a renamed event gets an upcaster (`codec`).
"""

from typing import Literal, TypeAlias

import msgspec

from protocol.actions import (
    NOTHING,
    UNKNOWN_USAGE,
    Fault,
    Json,
    Pool,
    Spend,
    Status,
    Usage,
    WorkerSpec,
)
from protocol.budgets import Budget, Extension, Limit
from protocol.decisions import Decision, PolicySpec, Task, ToolCall
from protocol.inbox import SignalKind
from protocol.sampled import Sampled
from protocol.secret_forms import Redaction
from protocol.subjects import Priority

Asker: TypeAlias = Literal["policy", "composer"]
"""Who is asked: the run's policy, or the composer that writes an answer from what was observed."""

PauseReason: TypeAlias = Literal["signal", "budget", "policy_unavailable", "kills_host", "person"]
NotedReason: TypeAlias = Literal["late", "retried", "hedged"]
FailReason: TypeAlias = Literal["no_answer"]


class Event(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag_field="type"
):
    """The base of all events. Field names are wire format."""


class Parent(msgspec.Struct, frozen=True):
    """The call of another run that this run answers."""

    run: str
    call: str
    attempt: int


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The part of another run's log with which a fork begins: shared, never copied."""

    run: str
    """Whose log."""
    events: int
    """How many of its events, from the first on."""
    commit: int
    """Number, in that run's own log, of the commit in which the last of them stands."""
    hash: str
    """Hash of that commit: what a fork shares can't be changed without being found out."""
    at: int
    """When that commit was made, milliseconds since the epoch: the fork's time goes on from
    here."""


class Edit(msgspec.Struct, frozen=True):
    """Something of a fork's state that is replaced, see `edits`."""

    path: str
    """Such as ``calls.1-0.value`` or ``task.text``."""
    value: Json


class RunStarted(Event, frozen=True, kw_only=True, tag="RunStarted"):
    """A run begins: everything that its rules will ever need to know of the outside."""

    run: str
    task: Task
    pool: Pool
    policy: PolicySpec
    budget: Budget
    at: int
    """Milliseconds since the epoch; the wall-clock budget counts from here."""
    parent: Parent | None = None
    depth: int = 0
    """Levels above this run."""
    priority: Priority = "normal"
    """Its place in the task queue."""
    traceparent: str = ""
    """The span under which the run's spans hang (W3C); empty for a trace of its own."""
    redact: Redaction | None = None
    """What was taken for a secret when the run was begun, and is by whoever goes on with it; None
    where that was not recorded. Names and patterns, never values."""


class RunForked(Event, frozen=True, kw_only=True, tag="RunForked"):
    """A run begins where another one stood, with something changed.

    The first event of its own log. All ids of its effects derive from its own id, so it never meets
    the calls of the run it was forked from.
    """

    run: str
    origin: Origin
    at: int
    """Milliseconds since the epoch. The time since the origin's last commit doesn't count."""
    policy: PolicySpec | None = None
    """Who decides from here on, if somebody else."""
    workers: tuple[WorkerSpec, ...] = ()
    """Workers that take the place of those of the same name, or are added."""
    reopened: tuple[str, ...] = ()
    """Settled calls of the open round that are to be made again."""
    edits: tuple[Edit, ...] = ()
    priority: Priority = "normal"
    by: str = ""
    reason: str = ""
    redact: Redaction | None = None
    """What is taken for a secret from here on, besides what the origin recorded; None for nothing
    more."""


class RunActivated(Event, frozen=True, kw_only=True, tag="RunActivated"):
    """A conductor takes the run over; whoever held it before is fenced from here on."""

    epoch: int
    conductor: str
    rules: str
    """Version of the rules that decide from here on."""
    at: int = 0


class PolicyAsked(Event, frozen=True, kw_only=True, tag="PolicyAsked"):
    """The policy is to be asked; what the reply may spend is reserved."""

    turn: int
    """Number of the question, from 1."""
    asker: Asker = "policy"
    limited_by: Limit = ""
    """When set, only an answer is accepted, and this is why."""
    reserve: Spend = NOTHING
    at: int = 0


class PolicyReplied(Event, frozen=True, kw_only=True, tag="PolicyReplied"):
    """What the policy said: its decision, or what was kept of a reply that is none."""

    turn: int
    status: Status = "OK"
    error: str = ""
    text: str = ""
    """The text beside the calls, or all text of a reply that is no decision."""
    decision: Decision | None = None
    """What the reply decides, also where the rules then reject it."""
    tool_calls: tuple[ToolCall, ...] = ()
    """As the model wrote them; kept only when they are no decision."""
    spend: Spend = NOTHING
    latency_ms: int = 0
    version: str = ""
    prompt: str = ""
    """Hash of the prompt that was shown."""
    retry_at: int = 0
    """After a failure: when the policy may be asked again, milliseconds since the epoch; 0 for
    never."""
    usage: Usage = UNKNOWN_USAGE
    """The tokens in ``spend``, told apart, where they are known."""
    finish: str = ""
    """Why the model stopped, in its endpoint's word."""
    sampled: Sampled | None = None
    """Its tokens, of a model whose tokens we see; None is not for policy gradients."""


class DecisionRejected(Event, frozen=True, kw_only=True, tag="DecisionRejected"):
    """The reply is no decision that the rules allow; the policy is shown why."""

    turn: int
    reason: str
    detail: str


class RoundPlanned(Event, frozen=True, kw_only=True, tag="RoundPlanned"):
    """The calls of the last decision become a round; their ids are ``<round>-<index>``."""

    round: int


class AttemptStarted(Event, frozen=True, kw_only=True, tag="AttemptStarted"):
    """One try of a call is to be made."""

    call: str
    attempt: int
    deadline: int
    """When the conductor stops waiting for its report, milliseconds since the epoch."""
    reserve: Spend = NOTHING


class CallSettled(Event, frozen=True, kw_only=True, tag="CallSettled"):
    """What counts for a call, once and for all."""

    call: str
    attempt: int = 0
    """The attempt whose report counts; 0 when none was made."""
    status: Status = "OK"
    fault: Fault = "none"
    report: str = ""
    """Hash of the report that counts; empty when the conductor settles without one."""
    value: Json = None
    """The text of an observation that no report carries."""
    spend: Spend = NOTHING


class ReportNoted(Event, frozen=True, kw_only=True, tag="ReportNoted"):
    """A report that doesn't settle its call.

    It came late, or is of an attempt that is tried again, or beside which another one goes on. It
    is billed all the same.
    """

    call: str
    attempt: int
    report: str
    why: NotedReason
    spend: Spend = NOTHING
    usable: bool = False
    """Whether the policy is shown it all the same: it came late, and the call has failed."""


class RoundClosed(Event, frozen=True, kw_only=True, tag="RoundClosed"):
    """Every call of the round has settled, or goes on without it."""

    round: int
    left: tuple[str, ...] = ()
    """Calls, of this round or an earlier one, that go on while the policy is asked."""


class SignalReceived(Event, frozen=True, kw_only=True, tag="SignalReceived"):
    """Somebody's wish has been read; what follows from it are the next events, if any."""

    signal: str
    """Hash of the signal."""
    kind: SignalKind
    by: str
    reason: str = ""


class RunPaused(Event, frozen=True, kw_only=True, tag="RunPaused"):
    """The run waits for a signal and holds no place anywhere."""

    reason: PauseReason
    detail: str = ""
    at: int = 0


class RunResumed(Event, frozen=True, kw_only=True, tag="RunResumed"):
    """The run goes on; the time it was paused doesn't count against its wall-clock budget."""

    at: int = 0


class BudgetExtended(Event, frozen=True, kw_only=True, tag="BudgetExtended"):
    """A root run may spend more."""

    by: Extension


class AnswerGiven(Event, frozen=True, kw_only=True, tag="AnswerGiven"):
    """The answer of the last decision is the run's answer."""

    turn: int
    limited_by: Limit = ""
    """Set when the answer is incomplete, or was asked for early, because of a limit."""


class RunFinished(Event, frozen=True, kw_only=True, tag="RunFinished"):
    """The end, with an answer."""

    at: int = 0


class RunFailed(Event, frozen=True, kw_only=True, tag="RunFailed"):
    """The end, without an answer."""

    reason: FailReason
    detail: str = ""
    at: int = 0


class RunCancelled(Event, frozen=True, kw_only=True, tag="RunCancelled"):
    """The end, on somebody's wish."""

    by: str
    reason: str = ""
    at: int = 0


class Archived(Event, frozen=True, kw_only=True, tag="Archived"):
    """The run's earlier commits are in the archive; this one stands for them."""

    manifest: str
    """Where, as a URL."""
    head: str
    """Hash of the last archived commit."""


class UnknownEvent(Event, frozen=True, kw_only=True, tag="UnknownEvent"):
    """An event of a newer writer: kept, shown, and without effect on the state."""

    name: str
    raw: msgspec.Raw


AnyEvent: TypeAlias = (
    RunStarted
    | RunForked
    | RunActivated
    | PolicyAsked
    | PolicyReplied
    | DecisionRejected
    | RoundPlanned
    | AttemptStarted
    | CallSettled
    | ReportNoted
    | RoundClosed
    | SignalReceived
    | RunPaused
    | RunResumed
    | BudgetExtended
    | AnswerGiven
    | RunFinished
    | RunFailed
    | RunCancelled
    | Archived
    | UnknownEvent
)
"""Every event. A reader matches on it and ends with ``assert_never``."""
