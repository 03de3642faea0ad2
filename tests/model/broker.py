"""The broker, the person and the network: what can happen around the conductors and the workers.

A move is fair when it happens sooner or later if nothing else fails; faults, and what a person or a
late message may or may not do, are not. All of this is model code with a switch for each rule; what
a conductor decides is the real code's (`world`).
"""

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeVar

from tests.model.rules import Faults, Mix, Rules
from tests.model.state import (
    ACT,
    CONTINUE,
    NO_TASK,
    OWN,
    READ,
    TASK_ACK,
    UNSURE,
    Conductor,
    Slot,
    State,
    TaskMessage,
)
from tests.model.world import World

T = TypeVar("T")

FENCED_APPENDS: Final = "an append is accepted from a conductor that had been fenced"
FOREIGN_APPEND: Final = "an append is accepted that does not follow the end of the log"
FENCED_ACTS: Final = "a fenced conductor acts"
FALSE_BELIEF: Final = "a conductor believes in a commit that is not in the log"
DEAF_TIMEOUT: Final = "a time-out counts though a report was there"
TWO_COUNT: Final = "two results count for one call"
OVERRUN: Final = "a budget is overrun"
STUCK: Final = "a run is stuck though a conductor and a worker live"
UNTOLD: Final = "a run is over and left its parent or child untold"
"""Invariants, as they are told when they are broken."""


class Move(NamedTuple):
    """One step: who, what, whether it is fair, what it gives, and the invariant that it breaks."""

    who: str
    what: str
    fair: bool
    state: State
    breaks: str = ""


class Broker:
    """A mix under a set of rules."""

    def __init__(self, mix: Mix, rules: Rules) -> None:
        self.mix, self.rules = mix, rules
        self.world = World(mix)
        self.runs = 2 if mix.child else 1

    # ------------------------------------------------------------------------------- the task queue

    def _tasks(self, s: State) -> Iterator[Move]:
        for run, task in enumerate(s.tasks):
            node = self.world.nodes[s.logs[run]]
            if not task.kind:
                if self.rules.sweep and node.depth and not node.ended and not node.paused:
                    after = self._publish_task(s, run, CONTINUE)
                    yield Move("sweep", f"queues run {run} again", True, after)
                continue
            if task.flying:
                beats = any(
                    not c.frozen and c.slots[run].stage and c.slots[run].inc == task.inc
                    for c in s.conductors
                )
                expired = s._replace(tasks=put(s.tasks, run, task._replace(flying=0)))
                if not beats:
                    yield Move("broker", f"lease of task {run} expires", True, expired)
                elif s.faults.lapse:
                    after = expired._replace(faults=less(s.faults, lapse=1))
                    yield Move("broker", f"FAULT: lease of task {run} lapses", False, after)
                continue
            for i, c in enumerate(s.conductors):
                if not c.frozen:
                    yield self._deliver(s, run, i, task)

    def _deliver(self, s: State, run: int, i: int, task: TaskMessage) -> Move:
        """A conductor that is given what it holds lost its lease to itself, and begins again."""
        flying = s._replace(tasks=put(s.tasks, run, task._replace(flying=1, waiting=0)))
        after = self._slot(flying, i, run, Slot(READ, task.inc))
        return Move(conductor_name(i), f"is given task {run}", True, after)

    def _publish_task(self, s: State, run: int, kind: int) -> State:
        """Queue a task message; the same state if one is there."""
        if s.tasks[run].kind:
            return s
        used = {c.slots[run].inc for c in s.conductors if c.slots[run].stage}
        used |= {m.expected for m in s.net if m.kind == TASK_ACK and m.run == run}
        inc = next(n for n in range(9) if n not in used)
        waiting = int(kind == CONTINUE and self.world.nodes[s.logs[run]].paused)
        return s._replace(tasks=put(s.tasks, run, TaskMessage(kind, inc, waiting=waiting)))

    # ---------------------------------------------------------------------------------- the person

    def _person(self, s: State) -> Iterator[Move]:
        nr, stage = s.user
        if nr == len(self.mix.signals):
            return
        kind = self.mix.signals[nr]
        message = self.world.signal(0, kind, nr)
        store_now = (stage == 0) == self.rules.signal_before_continue
        nxt = (nr, 1) if stage == 0 else (nr + 1, 0)
        if store_now:
            for after, how in self._store(s, 0, message):
                yield Move("person", f"stores {kind}{how}", stage == 1, after._replace(user=nxt))
            return
        node = self.world.nodes[s.logs[0]]
        read = node.ended or self.world.messages[message].hash in node.known
        after = self._publish_task(s, 0, CONTINUE)
        if after is not s or s.tasks[0].waiting or not self.rules.signal_until_taken:
            how = "" if after is not s else ": refused, one is there"
            yield Move("person", f"queues Continue{how}", stage == 1, after._replace(user=nxt))
        elif read:
            yield Move("person", f"sees {kind} in the log", True, after._replace(user=nxt))
        elif stage == 0:
            yield Move("person", "finds a task queued", False, after._replace(user=nxt))

    def _store(self, s: State, run: int, message: int) -> Iterator[tuple[State, str]]:
        """Append to an inbox; the hint reaches every subscriber, or by a fault nobody."""
        if message in s.inboxes[run]:
            yield s, " again"
            return
        stored = s._replace(inboxes=put(s.inboxes, run, (*s.inboxes[run], message)))
        bit, after = 1 << message, stored
        for i, c in enumerate(s.conductors):
            slot = c.slots[run]
            if slot.stage in {ACT, OWN, UNSURE} and not self.world.nodes[slot.belief].ended:
                heard = slot._replace(seen=slot.seen | bit, pend=slot.pend | bit)
                after = self._slot(after, i, run, heard)
        yield after, ""
        if after is not stored and s.faults.hint:
            yield stored._replace(faults=less(s.faults, hint=1)), " (FAULT: hint lost)"

    # --------------------------------------------------------------------------------- the network

    def _network(self, s: State) -> Iterator[Move]:
        for k, m in enumerate(s.net):
            rest = s._replace(net=s.net[:k] + s.net[k + 1 :])
            if m.kind == TASK_ACK:
                if s.tasks[m.run].kind and s.tasks[m.run].inc == m.expected:
                    after = rest._replace(tasks=put(rest.tasks, m.run, NO_TASK))
                    yield Move("network", f"late ack of task {m.run} arrives", False, after)
            elif s.logs[m.run] == m.expected or not self.rules.one_exact_subject:
                after, breaks = self._accept(rest, m.run, m.expected, m.new)
                yield Move("network", f"late append to {m.run} arrives", False, after, breaks)

    def _accept(self, s: State, run: int, expected: int, new: int) -> tuple[State, str]:
        """The server takes an append; without the exact condition, wherever the log is."""
        nodes, breaks = self.world.nodes, ""
        if s.logs[run] != expected:
            fenced = self.world.epoch(s.logs[run]) > self.world.epoch(expected)
            breaks = FENCED_APPENDS if fenced else FOREIGN_APPEND
            new = self.world.graft(s.logs[run], new)
        breaks = nodes[new].wrong or breaks
        net = tuple(m for m in s.net if m.kind == TASK_ACK or m.run != run or m.expected == new)
        net = net if self.rules.one_exact_subject else s.net
        return s._replace(logs=put(s.logs, run, new), net=net), breaks

    @staticmethod
    def _removed(s: State, run: int, inc: int) -> State:
        """The server honours an ack, whoever sends it."""
        task = s.tasks[run]
        if not task.kind or task.inc != inc:
            return s
        net = tuple(m for m in s.net if (m.kind, m.run, m.expected) != (TASK_ACK, run, inc))
        return s._replace(tasks=put(s.tasks, run, NO_TASK), net=net)

    def _slot(self, s: State, i: int, run: int, slot: Slot) -> State:
        c = s.conductors[i]
        if c.slots[run] == slot:
            return s
        return s._replace(
            conductors=put(s.conductors, i, Conductor(c.frozen, put(c.slots, run, slot)))
        )


def put(items: tuple[T, ...], i: int, item: T) -> tuple[T, ...]:
    """The items with one replaced."""
    return (*items[:i], item, *items[i + 1 :])


def less(faults: Faults, **used: int) -> Faults:
    """The faults that are left after these."""
    return faults._replace(**{name: getattr(faults, name) - n for name, n in used.items()})


def bits_of(messages: tuple[int, ...]) -> int:
    """The messages as a set of bits."""
    bits = 0
    for message in messages:
        bits |= 1 << message
    return bits


def conductor_name(i: int) -> str:
    """How a trace calls a conductor."""
    return f"conductor {'AB'[i]}"


def worker_name(i: int) -> str:
    """How a trace calls a worker."""
    return f"worker {'XY'[i]}"
