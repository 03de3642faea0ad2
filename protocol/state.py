"""The state of a run: what the rules need to know, and nothing that they don't.

Values of reports are not in here. They stand in the inbox, and the rules never look at them;
`views` joins the two for those who do (a policy, a person).
"""

from typing import Final, Literal, TypeAlias

import msgspec

from protocol.actions import NOTHING, Call, Fault, Json, Pool, Spend, Status, WorkerSpec
from protocol.budgets import Budget, Limit
from protocol.decisions import Decision, PolicySpec, Rejection, Task
from protocol.events import FailReason, Origin, Parent, PauseReason, PolicyAsked
from protocol.secret_forms import Redaction
from protocol.subjects import Priority
from protocol.traces import FIRST, Segment

Phase: TypeAlias = Literal["new", "deciding", "working", "paused", "ended"]
"""Where a run stands: not begun, waiting for a policy, for calls, for a signal, or for nobody."""

Outcome: TypeAlias = Literal["", "finished", "failed", "cancelled"]


class CallState(msgspec.Struct, frozen=True, gc=False):
    """One call of the run."""

    call: Call
    attempt: int = 0
    """The last attempt that was started, 0 for none."""
    open: bool = False
    """Whether that attempt, or one before it, is still waited for."""
    begun_at: int = 0
    """When that attempt was begun, milliseconds since the epoch."""
    deadline: int = 0
    """Until when it is waited for."""
    status: Status | None = None
    """None until the call has settled."""
    fault: Fault = "none"
    report: str = ""
    """Hash of the report that counts, if one does."""
    value: Json = None
    """The observation's text, if no report carries it."""
    noted: tuple[str, ...] = ()
    """Hashes of all its reports that are billed."""
    late: str = ""
    """Hash of the report that came when the call had failed already, and is shown all the same."""
    segment: int = 0
    """The segment of the run that the attempt in `RunState.open` was started in."""


class TurnState(msgspec.Struct, frozen=True, gc=False):
    """One reply of the policy and what came of it."""

    text: str = ""
    round: int = 0
    """The round that it planned, 0 for none."""
    calls: tuple[str, ...] = ()
    rejection: Rejection | None = None
    left: tuple[str, ...] = ()
    """Those of its calls that went on when the round was closed."""
    late: tuple[tuple[str, str], ...] = ()
    """What has come since then and before the next turn, of any call that the policy had not seen
    settle: its id, and the hash of the report, "" for none."""
    answers: str = ""
    """The call whose output is the answer, if it succeeds, or a text that refers to outputs, if all
    of those are there; empty for none."""


EMPTY_TASK: Final = Task(text="")
EMPTY_POOL: Final = Pool(())
NO_POLICY: Final = PolicySpec(name="")
DEFAULT_BUDGET: Final = Budget()


class RunState(msgspec.Struct):
    """A run, folded. Only `run.apply` changes one, and only one that nobody else holds."""

    run: str = ""
    phase: Phase = "new"
    task: Task = EMPTY_TASK
    pool: Pool = EMPTY_POOL
    workers: dict[str, WorkerSpec] = msgspec.field(default_factory=dict)
    """The pool by name; never changed, so copies share it."""
    policy: PolicySpec = NO_POLICY
    budget: Budget = DEFAULT_BUDGET
    parent: Parent | None = None
    origin: Origin | None = None
    """What it shares with the run it was forked from, if it was."""
    depth: int = 0
    priority: Priority = "normal"
    traceparent: str = ""
    """The span under which the run's own hangs (W3C); empty for none."""
    segment: Segment = FIRST
    """Which of the run's traces it is in."""
    redact: Redaction | None = None
    """What is taken for a secret, as far as that is recorded."""
    started_at: int = 0
    wall_deadline: int = 0
    """When the wall-clock budget is used up, milliseconds since the epoch; moved by pauses and
    extensions."""

    rules: int = 0
    """Version of the rules that decide, as the last activation says."""
    epoch: int = 0
    activated_at: int = 0
    idle_activations: int = 0
    """Activations since the last progress."""

    turn: int = 0
    """Replies asked for so far."""
    asked: PolicyAsked | None = None
    """The question that is open, if one is."""
    decision: Decision | None = None
    """The last decision, until a round or an answer has come of it."""
    decided_text: str = ""
    """The text beside that decision."""
    retry_at: int = 0
    """When a failed policy may be asked again, milliseconds since the epoch."""
    policy_version: str = ""
    """Of the policy, as its last reply had it."""
    failures: int = 0
    """Failures of the policy in a row."""
    rejections: int = 0
    """Rejected replies in a row."""
    final: Limit = ""
    """Why only an answer is accepted from now on."""
    finals: int = 0
    """Replies since then that were no answer."""
    last_error: str = ""
    """What the policy last failed with."""

    round: int = 0
    turns: list[TurnState] = msgspec.field(default_factory=list)
    calls: dict[str, CallState] = msgspec.field(default_factory=dict)
    current: tuple[str, ...] = ()
    """The calls of the open round."""
    carried: tuple[str, ...] = ()
    """Calls of earlier rounds that have not settled and go on."""
    unsettled: int = 0
    """How many of both have not settled."""
    news: tuple[tuple[str, str], ...] = ()
    """What came late since the policy was asked, as `TurnState.late` has it."""
    open: dict[str, int] = msgspec.field(default_factory=dict)
    """Attempts that are waited for: call to attempt; of two, the last."""
    hedged: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    """Of calls that two attempts are waited for of: the first of them, and its segment."""
    strays: set[tuple[str, int]] = msgspec.field(default_factory=set)
    """Attempts, by call and number, that nobody waits for any more and that have not reported."""

    spent: Spend = NOTHING
    reserved: Spend = NOTHING
    reserves: dict[tuple[str, int], Spend] = msgspec.field(default_factory=dict)
    """What each attempt without a report may still spend, by call and attempt."""

    signals: frozenset[str] = frozenset()
    """Hashes of the signals that have been read."""
    paused_at: int = 0
    pause_reason: PauseReason | Literal[""] = ""
    pause_detail: str = ""

    outcome: Outcome = ""
    answer: str = ""
    limited_by: Limit = ""
    """Set when the answer is incomplete, or early, because of a limit."""
    fail_reason: FailReason | Literal[""] = ""
    detail: str = ""
    """Why the run failed, or was cancelled."""
    ended_at: int = 0
    archived: str = ""

    def copy(self) -> "RunState":
        """A state that can be changed without changing this one."""
        new = msgspec.structs.replace(self)
        new.turns = self.turns.copy()
        new.calls = self.calls.copy()
        new.open = self.open.copy()
        new.hedged = self.hedged.copy()
        new.strays = self.strays.copy()
        new.reserves = self.reserves.copy()
        return new

    def has_output(self, call: str) -> bool:
        """Whether a call has succeeded, in time or late."""
        known = self.calls.get(call)
        return known is not None and (known.status == "OK" or bool(known.late))

    @property
    def awaited(self) -> tuple[str, ...]:
        """The calls that the open round waits for, also those of earlier ones."""
        return (*self.carried, *self.current)

    def waits_for(self, call: str, attempt: int) -> bool:
        """Whether a report of that attempt is waited for."""
        return self.open.get(call) == attempt or self.hedged.get(call, (0, 0))[0] == attempt

    @property
    def committed(self) -> Spend:
        """What is spent or reserved: what the budget is checked against."""
        return self.spent + self.reserved
