"""All that can happen next, and when a run is where it should be."""

from collections.abc import Iterator

from tests.model.broker import UNTOLD, Move, less, put, worker_name
from tests.model.conductor import Conductors
from tests.model.state import (
    ACKED_FIRST,
    GIVE_UP,
    IDLE,
    LOOK,
    LOOK_LOST,
    NO_SLOT,
    NO_TASK,
    REPORTED,
    START,
    TAKEN,
    WORK,
    Conductor,
    State,
    TaskMessage,
    Worker,
)
from tests.model.world import CALL


class Model(Conductors):
    """A mix under a set of rules: its first state, its moves, its end."""

    def start(self) -> State:
        """A root run has been submitted; nothing else has happened."""
        n = self.runs
        return State(
            logs=self.world.roots[:n],
            inboxes=((),) * n,
            tasks=(TaskMessage(START, 0, 0),) + (NO_TASK,) * (n - 1),
            calls=(),
            conductors=(Conductor(0, (NO_SLOT,) * n),) * self.mix.conductors,
            workers=(IDLE,) * self.mix.workers,
            net=(),
            user=(0, 0),
            faults=self.mix.faults,
        )

    def done(self, s: State) -> bool:
        """Whether every submission came to its end, or waits for a person on purpose."""
        if s.calls or s.user[1] or any(task.kind for task in s.tasks):
            return False
        for run, log in enumerate(s.logs):
            node = self.world.nodes[log]
            if not (node.ended or node.paused or (run and not node.depth)):
                return False
            if node.paused and not run:
                wishes = enumerate(self.mix.signals[: s.user[0]])
                given = [self.world.signal(0, kind, nr) for nr, kind in wishes]
                if not all(self.world.messages[m].hash in node.known for m in given):
                    return False
        return True

    def wrong(self, s: State) -> str:
        """The invariant of states, not of moves, that is broken, or ""."""
        for run, log in enumerate(s.logs):
            node = self.world.nodes[log]
            if not node.ended or s.tasks[run].kind or self.runs == 1:
                continue
            if any(c.slots[run].stage for c in s.conductors):
                continue
            if run and self.world.told(log) not in s.inboxes[0]:
                return UNTOLD
            leaves = any(self.world.effects[e].kind == "withdraw" for e in node.effects)
            cancel = self.world.signal(1, "cancel", 9)
            lives = not self.world.nodes[s.logs[1]].ended
            if not run and leaves and lives and cancel not in s.inboxes[1]:
                return UNTOLD
        return ""

    def moves(self, s: State) -> Iterator[Move]:
        """All that can happen in a state."""
        yield from self._tasks(s)
        yield from self._person(s)
        yield from self._network(s)
        for i in range(len(s.conductors)):
            yield from self._conductor(s, i)
        yield from self._calls(s)
        for i in range(len(s.workers)):
            yield from self._worker(s, i)

    # ----------------------------------------------------------------------------- the call queue

    def _calls(self, s: State) -> Iterator[Move]:
        for k, call in enumerate(s.calls):
            name = f"call {call.attempt} of run {call.run}"
            others = s.calls[:k] + s.calls[k + 1 :]
            if s.faults.gone and not call.flying:
                after = s._replace(calls=others, faults=less(s.faults, gone=1))
                yield Move("broker", f"FAULT: {name} vanishes", False, after)
            if call.flying:
                held = any(
                    not w.frozen and (w.run, w.attempt, w.inc) == (call.run, call.attempt, call.inc)
                    for w in s.workers
                )
                if not held:
                    back = call._replace(flying=0, again=2)
                    after = s._replace(calls=tuple(sorted((*others, back))))
                    yield Move("broker", f"lease of {name} expires", True, after)
                continue
            taken = s._replace(calls=tuple(sorted((*others, call._replace(flying=1)))))
            for i, w in enumerate(s.workers):
                if w == IDLE:
                    asks = call.again or self.rules.costly_work_looks_first
                    looks = asks and self.rules.worker_looks_for_own_report
                    stage = (LOOK_LOST if call.again == 2 else LOOK) if looks else WORK
                    if not self.rules.report_before_ack and stage == WORK:
                        stage = TAKEN
                    mine = Worker(0, call.run, call.attempt, call.inc, stage)
                    after = taken._replace(workers=put(s.workers, i, mine))
                    yield Move(worker_name(i), f"is given {name}", True, after)

    def _worker(self, s: State, i: int) -> Iterator[Move]:
        w, who = s.workers[i], worker_name(i)
        if w.frozen:
            after = s._replace(workers=put(s.workers, i, w._replace(frozen=0)))
            yield Move(who, "wakes", all(x.frozen for x in s.workers), after)
            return
        if w == IDLE:
            return
        if s.faults.worker_crash:
            after = s._replace(workers=put(s.workers, i, IDLE))
            yield Move(who, "CRASHES", False, after._replace(faults=less(s.faults, worker_crash=1)))
        if s.faults.worker_freeze:
            after = s._replace(workers=put(s.workers, i, w._replace(frozen=1)))
            after = after._replace(faults=less(s.faults, worker_freeze=1))
            yield Move(who, "FREEZES", False, after)
        name = f"{CALL}.{w.attempt} of run {w.run}"
        if w.stage in {LOOK, LOOK_LOST}:
            there = any(self.world.answers(m, w.run, CALL, w.attempt) for m in s.inboxes[w.run])
            work = WORK if self.rules.report_before_ack else TAKEN
            if w.stage == LOOK_LOST and self.rules.costly_work_once:
                work = GIVE_UP
            stage = REPORTED if there else work
            after = s._replace(workers=put(s.workers, i, w._replace(stage=stage)))
            found = "finds" if there else "finds no"
            yield Move(who, f"{found} report of {name}", True, after)
        elif w.stage == GIVE_UP:
            reported = s._replace(workers=put(s.workers, i, w._replace(stage=REPORTED)))
            report = self.world.report(w.run, CALL, w.attempt, True, 0)
            for after, how in self._store(reported, w.run, report):
                what = f"reports that {name} was lost{how}"
                yield Move(who, what, True, after)
        elif w.stage == WORK:
            yield from self._reports(s, i, w, name)
        else:  # acknowledge: at the end, or before the work where the rule was taken out
            first = w.stage == TAKEN
            mine = w._replace(stage=WORK) if first else IDLE
            key = (w.run, w.attempt, w.inc)
            kept = tuple(c for c in s.calls if (c.run, c.attempt, c.inc) != key)
            after = s._replace(calls=kept, workers=put(s.workers, i, mine))
            yield Move(who, f"acks the call {name}", True, after)

    def _reports(self, s: State, i: int, w: Worker, name: str) -> Iterator[Move]:
        """Work, and store the report. The same bytes once more would change nothing: not shown."""
        stage = REPORTED if self.rules.report_before_ack else ACKED_FIRST
        mine = IDLE if stage == ACKED_FIRST else w._replace(stage=stage)
        serial = sum(self.world.answers(m, w.run, CALL, w.attempt) for m in s.inboxes[w.run]) + 1
        worked = s._replace(workers=put(s.workers, i, mine))
        report = self.world.report(w.run, CALL, w.attempt, False, serial)
        for after, how in self._store(worked, w.run, report):
            yield Move(worker_name(i), f"stores the report of {name}{how}", True, after)
        if s.faults.infra:
            worked = worked._replace(faults=less(s.faults, infra=1))
            report = self.world.report(w.run, CALL, w.attempt, True, serial)
            for after, how in self._store(worked, w.run, report):
                what = f"stores a fault of {name}{how}"
                yield Move(worker_name(i), what, False, after)
