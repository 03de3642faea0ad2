"""Commands: all that can make a run move.

Time, ids and randomness reach the rules in here, and in no other way.

A commit records what it was decided on as *causes*: short texts from which the commands can be
rebuilt out of the log.

========================  ==========================================  ==========================
cause                     command                                     where its content stands
========================  ==========================================  ==========================
``start``                 `Start`                                     the `RunStarted` event
``fork``                  `Fork`                                      the `RunForked` event
``activation``            `Activate`                                  the `RunActivated` event
``policy:<turn>``         `PolicyReply`                               the `PolicyReplied` event
``inbox:<hash>``          `Inbox`                                     the inbox message
``deadline``              `Deadline`                                  the commit's own time
``archive``               `Archive`                                   the `Archived` event
========================  ==========================================  ==========================
"""

from typing import TypeAlias

import msgspec

from protocol.actions import Pool, Report, WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import PolicySpec, Rejection, Reply, Task
from protocol.events import Edit, Origin, Parent
from protocol.inbox import Message, Signal
from protocol.secret_forms import Redaction
from protocol.subjects import Priority


class Start(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="start"):
    """A run to begin.

    This is also what a task message holds: the whole of what `RunStarted` needs.
    """

    run: str
    task: Task
    pool: Pool
    policy: PolicySpec
    budget: Budget = Budget()
    parent: Parent | None = None
    depth: int = 0
    by: str = ""
    """Who asked for it."""
    priority: Priority = "normal"
    """Its place in the task queue. Recorded: a run has one place, whoever queues it again."""
    traceparent: str = ""
    """The span of whoever wants the run (W3C). What is none counts as none."""
    redact: Redaction | None = None
    """What is taken for a secret where the run is begun."""


class Continue(msgspec.Struct, frozen=True, kw_only=True, tag="continue"):
    """The task message of a run that has begun before: a signal waits in its inbox."""

    run: str


class Fork(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="fork"):
    """A run to begin where another one stood: the whole of what `RunForked` needs.

    It is decided on in the state that the origin's events lead to.
    """

    run: str
    origin: Origin
    policy: PolicySpec | None = None
    workers: tuple[WorkerSpec, ...] = ()
    reopened: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
    priority: Priority = "normal"
    by: str = ""
    reason: str = ""
    redact: Redaction | None = None
    """What is taken for a secret where it is begun, besides what the origin recorded."""


TaskMessage: TypeAlias = Start | Fork | Continue
"""What stands in the task queue."""


class Activate(msgspec.Struct, frozen=True):
    """A conductor takes the run over."""

    conductor: str
    rules: str


class PolicyReply(msgspec.Struct, frozen=True):
    """The reply to an open question, by its turn."""

    turn: int
    reply: Reply
    refused: Rejection | None = None
    """Why the log could not keep all of it; given only when it is decided on again."""


class Inbox(msgspec.Struct, frozen=True):
    """A message from the run's inbox."""

    hash: str
    message: Message


class Deadline(msgspec.Struct, frozen=True):
    """Time has passed. The inbox has been looked into just before."""


class Archive(msgspec.Struct, frozen=True):
    """An ended run's commits are in the archive, and were read back from there."""

    manifest: str
    """Where, as a URL."""
    head: str
    """Hash of the last archived commit."""


Command: TypeAlias = Start | Fork | Activate | PolicyReply | Inbox | Deadline | Archive


def cause(command: Command) -> str:
    """What a commit records of a command."""
    match command:
        case Start():
            return "start"
        case Fork():
            return "fork"
        case Activate():
            return "activation"
        case PolicyReply(turn):
            return f"policy:{turn}"
        case Inbox(digest):
            return f"inbox:{digest}"
        case Deadline():
            return "deadline"
        case Archive():
            return "archive"


__all__ = [
    "Activate",
    "Archive",
    "Command",
    "Continue",
    "Deadline",
    "Fork",
    "Inbox",
    "PolicyReply",
    "Report",
    "Signal",
    "Start",
    "TaskMessage",
    "cause",
]
