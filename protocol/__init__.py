"""What may be said, and the rules of a run: pure, with no clock, no network and no randomness.

Read `run` first: it is the whole idea in one file. The rest, in the order in which it builds up::

    limits, errors     every limit with its unit and reason; the error tree
    actions            what can be called: WorkerSpec, Pool, Call; what comes back: Report
    budgets            what a run may spend
    decisions          what a policy is shown (View), says (Reply), and decides (Decision)
    sampled            a reply token by token, of a model whose tokens we see
    schemas            do arguments fit a worker's JSON Schema
    inbox              what others say to a run: Report, Signal, Reward, Label
    events             the facts of a run
    exchanges          what an agent exchanged with its model, as a report keeps it
    commands           all that can make it move
    redaction          what is a secret, and what stands in its place (secret_forms, references)
    codec              bytes to messages and back: Commit and what stands in the queues
    subjects           names on the broker, ids of runs
    traces             ids of spans, and the context that travels with a call
    semconv            every name that a trace or a metric has
    state              a run, folded
    transitions        what each event changes, and when it is legal
    dialects           how a policy's words become a Decision, and a View its prompt
    replies            what of a reply is kept, and why a decision can't be followed
    rules              the rules, one small function each
    run                evolve, decide, due
    views              the state joined with the values of its reports

A run in memory::

    draft = step(RunState(), [Start(...), Activate("conductor", RULES)], at=now_ms)
    draft.events                 # to be appended as one Commit, with draft.causes
    due(draft.state)             # [Ask(turn=1, ...), Wait(until=...)]
    draft = step(draft.state, [PolicyReply(1, Reply(...))], at=now_ms)

What holds for every run, whatever its policy and its workers do (``tests/unit/test_run_*``): every
event is legal; no budget, depth or pool is exceeded as long as reports keep to what was reserved
for them; each call settles once, and one report at most counts; a report is billed once; time alone
ends a run or pauses it with a reason; an ended run never moves again.

Imports the standard library, msgspec and jsonschema-rs, and nothing else. The names below are
loaded when they are first used, so that a program that needs the errors pays for no more.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from protocol.actions import (
        NOTHING,
        BlobRef,
        Call,
        Fault,
        Json,
        Kind,
        Pool,
        Report,
        Spend,
        Status,
        WorkerSpec,
    )
    from protocol.budgets import Budget, Extension, Limit
    from protocol.codec import CallMessage, Commit, Withdrawal, digest, encode
    from protocol.commands import (
        Activate,
        Command,
        Continue,
        Deadline,
        Fork,
        Inbox,
        PolicyReply,
        Start,
        TaskMessage,
    )
    from protocol.decisions import (
        Decision,
        Observation,
        Output,
        PlannedCall,
        PolicySpec,
        Rejection,
        Reply,
        Task,
        ToolCall,
        Turn,
        View,
    )
    from protocol.errors import PodiumError
    from protocol.events import AnyEvent, Edit, Event, Origin
    from protocol.inbox import Label, Message, Reward, Signal
    from protocol.run import (
        RULES,
        Ask,
        Effect,
        Make,
        Tell,
        Wait,
        Withdraw,
        decide,
        due,
        evolve,
        fold,
        step,
    )
    from protocol.state import CallState, RunState
    from protocol.views import compose, view

__all__ = [
    "NOTHING",
    "RULES",
    "Activate",
    "AnyEvent",
    "Ask",
    "BlobRef",
    "Budget",
    "Call",
    "CallMessage",
    "CallState",
    "Command",
    "Commit",
    "Continue",
    "Deadline",
    "Decision",
    "Edit",
    "Effect",
    "Event",
    "Extension",
    "Fault",
    "Fork",
    "Inbox",
    "Json",
    "Kind",
    "Label",
    "Limit",
    "Make",
    "Message",
    "Observation",
    "Origin",
    "Output",
    "PlannedCall",
    "PodiumError",
    "PolicyReply",
    "PolicySpec",
    "Pool",
    "Rejection",
    "Reply",
    "Report",
    "Reward",
    "RunState",
    "Signal",
    "Spend",
    "Start",
    "Status",
    "Task",
    "TaskMessage",
    "Tell",
    "ToolCall",
    "Turn",
    "View",
    "Wait",
    "Withdraw",
    "Withdrawal",
    "WorkerSpec",
    "compose",
    "decide",
    "digest",
    "due",
    "encode",
    "evolve",
    "fold",
    "step",
    "view",
]

_HOMES: Final = {
    "actions": (
        "NOTHING",
        "BlobRef",
        "Call",
        "Fault",
        "Json",
        "Kind",
        "Pool",
        "Report",
        "Spend",
        "Status",
        "WorkerSpec",
    ),
    "budgets": ("Budget", "Extension", "Limit"),
    "codec": ("CallMessage", "Commit", "Withdrawal", "digest", "encode"),
    "commands": (
        "Activate",
        "Command",
        "Continue",
        "Deadline",
        "Fork",
        "Inbox",
        "PolicyReply",
        "Start",
        "TaskMessage",
    ),
    "decisions": (
        "Decision",
        "Observation",
        "Output",
        "PlannedCall",
        "PolicySpec",
        "Rejection",
        "Reply",
        "Task",
        "ToolCall",
        "Turn",
        "View",
    ),
    "errors": ("PodiumError",),
    "events": ("AnyEvent", "Edit", "Event", "Origin"),
    "inbox": ("Label", "Message", "Reward", "Signal"),
    "run": (
        "RULES",
        "Ask",
        "Effect",
        "Make",
        "Tell",
        "Wait",
        "Withdraw",
        "decide",
        "due",
        "evolve",
        "fold",
        "step",
    ),
    "state": ("CallState", "RunState"),
    "views": ("compose", "view"),
}
"""Where each public name stands."""

_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # type checkers know the names above, and that there are no others

    def __getattr__(name: str) -> Any:
        """A public name, from the module where it stands."""
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
