"""The state of the whole system: nested tuples of small numbers, in one form for all like it."""

from typing import NamedTuple

from tests.model.rules import Faults

NONE, READ, ACT, OWN, UNSURE, PAUSED, ACKED, ZOMBIE = range(8)
"""Stages of a conductor with a run: not there; task delivered; read; activated; an append without
an answer; the task of a paused run given back, one look to go; (rules taken out:) task
acknowledged before the end effects; fenced and still beating."""

LOOK, LOOK_LOST, GIVE_UP, WORK, REPORTED, ACKED_FIRST, TAKEN = range(7)
"""Stages of a worker with a call: to look for its own report, for one that was marked or for one
that another worker held before; to report such a one as lost; at work; reported; (a rule taken
out:) at work after the acknowledgement, to acknowledge before the work."""

APPEND, TASK_ACK = range(2)
"""Kinds of late messages in the network."""

START, CONTINUE = 1, 2
"""Kinds of task messages; 0 is none."""


class Slot(NamedTuple):
    """What one conductor holds of one run."""

    stage: int = NONE
    inc: int = 0
    """Which task message of the run it was given."""
    belief: int = 0
    """The log that it believes in."""
    seen: int = 0
    """Inbox messages that it read or heard of, a bit each."""
    pend: int = 0
    """Those of them that it has not decided on."""
    did: int = 0
    """Effects that it has done, a bit each."""
    again: int = 0
    """Attempts that were open before it came: dispatched with the mark."""
    sent: int = 0
    """The log that its unanswered append would give."""
    owner: int = 0
    """Whether its activation is in."""
    late: int = 0
    """Whether it was frozen and has not read the tail since."""


NO_SLOT = Slot()


class Conductor(NamedTuple):
    """One conductor: whether it is frozen, and a slot for each run."""

    frozen: int
    slots: tuple[Slot, ...]


class TaskMessage(NamedTuple):
    """The one task message of a run."""

    kind: int = 0
    inc: int = 0
    flying: int = 0
    """Whether it is in flight."""
    again: int = 0
    """Whether it was delivered before."""
    waiting: int = 0
    """Whether it has a paused run go on, and was given to nobody yet."""


NO_TASK = TaskMessage()


class CallMessage(NamedTuple):
    """One call message in the queue: run and attempt, and how it came there."""

    run: int
    attempt: int
    inc: int = 0
    flying: int = 0
    again: int = 0
    """1: marked by the conductor; 2: delivered before."""


class Worker(NamedTuple):
    """One worker and the call that it holds; run 9 is none."""

    frozen: int = 0
    run: int = 9
    attempt: int = 0
    inc: int = 0
    stage: int = LOOK


IDLE = Worker()


class Late(NamedTuple):
    """A message that is still in the network."""

    kind: int
    run: int
    expected: int
    """The log that an append expects; the task message that an acknowledgement names."""
    new: int = 0


class State(NamedTuple):
    """Everything. Conductors and workers stand in sorted order: they are interchangeable."""

    logs: tuple[int, ...]
    inboxes: tuple[tuple[int, ...], ...]
    tasks: tuple[TaskMessage, ...]
    calls: tuple[CallMessage, ...]
    conductors: tuple[Conductor, ...]
    workers: tuple[Worker, ...]
    net: tuple[Late, ...]
    user: tuple[int, int]
    """How many signals are given, and the stage of the one that is being given."""
    faults: Faults
    """How many of each may still happen."""


def canonical(state: State) -> State:
    """One form for all states that differ only in who is called what."""
    conductors, workers = state.conductors, state.workers
    if len(conductors) > 1 and conductors[0] > conductors[1]:
        conductors = (conductors[1], conductors[0])
    if len(workers) > 1 and workers[0] > workers[1]:
        workers = (workers[1], workers[0])
    if conductors is state.conductors and workers is state.workers:
        return state
    return state._replace(conductors=conductors, workers=workers)
