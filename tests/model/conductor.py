"""The conductor's shell, move by move: delivered, activated, deciding, fenced, through."""

from collections.abc import Iterator

from tests.model.broker import (
    DEAF_TIMEOUT,
    FALSE_BELIEF,
    FENCED_ACTS,
    FENCED_APPENDS,
    Broker,
    Move,
    bits_of,
    conductor_name,
    less,
    put,
)
from tests.model.state import (
    ACKED,
    ACT,
    APPEND,
    CONTINUE,
    NO_SLOT,
    NONE,
    OWN,
    PAUSED,
    READ,
    START,
    TASK_ACK,
    UNSURE,
    ZOMBIE,
    CallMessage,
    Conductor,
    Late,
    Slot,
    State,
)
from tests.model.world import ACTIVATION, BUDGETS, DEADLINE, FIRST, NORMAL


class Conductors(Broker):
    """The moves of conductors."""

    # ------------------------------------------------------------------------------ the conductors

    def _conductor(self, s: State, i: int) -> Iterator[Move]:
        c, who = s.conductors[i], conductor_name(i)
        if c.frozen:
            yield from self._wake(s, i)
            return
        busy = any(slot.stage for slot in c.slots)
        if busy and s.faults.crash:
            gone = Conductor(0, (NO_SLOT,) * self.runs)
            after = s._replace(conductors=put(s.conductors, i, gone))
            yield Move(who, "CRASHES", False, after._replace(faults=less(s.faults, crash=1)))
        if busy and s.faults.freeze:
            after = s._replace(conductors=put(s.conductors, i, c._replace(frozen=1)))
            yield Move(who, "FREEZES", False, after._replace(faults=less(s.faults, freeze=1)))
        for run, slot in enumerate(c.slots):
            if slot.stage == NONE or slot.stage == ZOMBIE:
                continue
            if slot.stage == READ:
                yield self._read(s, i, run, slot)
            elif slot.stage == ACT:
                yield from self._activate(s, i, run, slot)
            elif slot.stage == UNSURE:
                yield from self._read_tail(s, i, run, slot)
            elif slot.stage == PAUSED:
                unread = bits_of(s.inboxes[run]) & ~slot.seen
                after = self._slot(s, i, run, NO_SLOT)
                after = self._publish_task(after, run, CONTINUE) if unread else after
                what = "queues Continue" if unread else "finds nothing new"
                yield Move(who, f"looks once more into paused run {run}, {what}", True, after)
            elif slot.stage == ACKED:
                yield from self._effects(s, i, run, slot)
            elif slot.late and self.rules.reread_after_freeze:
                if s.logs[run] == slot.belief:
                    after = self._slot(s, i, run, slot._replace(late=0))
                    yield Move(who, f"reads the tail of {run}: still its own", True, after)
                else:
                    yield from self._fence(s, i, run, "reads the tail after its freeze")
            else:
                yield from self._own(s, i, run, slot)

    def _wake(self, s: State, i: int) -> Iterator[Move]:
        slots = tuple(
            slot._replace(late=1) if slot.stage == OWN else slot for slot in s.conductors[i].slots
        )
        after = s._replace(conductors=put(s.conductors, i, Conductor(0, slots)))
        yield Move(conductor_name(i), "wakes", all(c.frozen for c in s.conductors), after)

    def _read(self, s: State, i: int, run: int, slot: Slot) -> Move:
        """Read the log and the inbox, having subscribed to the hints."""
        who, node = conductor_name(i), self.world.nodes[s.logs[run]]
        if node.ended:
            after = self._slot(s, i, run, Slot(OWN, slot.inc, s.logs[run], owner=1))
            return Move(who, f"reads that run {run} has ended", True, after)
        if not node.depth and s.tasks[run].kind == CONTINUE:
            after = self._removed(self._slot(s, i, run, NO_SLOT), run, slot.inc)
            return Move(who, f"acks the task of run {run}, which never began", True, after)
        bits = bits_of(s.inboxes[run])
        after = self._slot(s, i, run, Slot(ACT, slot.inc, s.logs[run], bits, bits))
        return Move(who, f"reads run {run}", True, after)

    def _activate(self, s: State, i: int, run: int, slot: Slot) -> Iterator[Move]:
        first = not self.world.nodes[slot.belief].depth and not s.tasks[run].again
        new = self._decided(s, run, slot, FIRST if first else ACTIVATION)
        again = 0
        for call, attempt in self.world.nodes[slot.belief].opened:
            again |= self.world.make_bit(call, attempt)
        yield from self._append(
            s,
            i,
            run,
            slot._replace(sent=new, again=again, pend=0 if first else slot.pend),
            "activates",
        )

    def _decided(self, s: State, run: int, slot: Slot, mode: int) -> int:
        """The log that the next commit gives; marked so that nobody else's commit is the same."""
        used = {m.new for m in s.net if m.kind == APPEND}
        used |= {c.slots[run].sent for c in s.conductors if c.slots[run].stage == UNSURE}
        used.add(self.world.ancestor(s.logs[run], self.world.nodes[slot.belief].depth + 1))
        messages = () if mode == ACTIVATION else self._fresh(s, run, slot)
        nonce = 0
        while True:
            new = self.world.commit(slot.belief, messages, mode, nonce)
            if new not in used:
                return new
            nonce += 1

    def _fresh(self, s: State, run: int, slot: Slot) -> tuple[int, ...]:
        """What it has heard and the log doesn't know, in the order of the inbox."""
        known = self.world.nodes[slot.belief].known
        return tuple(
            m
            for m in s.inboxes[run]
            if slot.pend >> m & 1 and self.world.messages[m].hash not in known
        )

    def _append(self, s: State, i: int, run: int, slot: Slot, what: str) -> Iterator[Move]:
        """Send ``slot.sent`` on top of ``slot.belief``; every way in which that can go."""
        who, name = conductor_name(i), f"{what} run {run}"
        unsure = slot._replace(stage=UNSURE)
        if s.logs[run] == slot.belief or not self.rules.one_exact_subject:
            after, breaks = self._accept(s, run, slot.belief, slot.sent)
            yield Move(who, name, True, self._in(after, i, run, slot), breaks)
            if s.faults.lost:
                lost = self._slot(after, i, run, unsure)
                lost = lost._replace(faults=less(s.faults, lost=1))
                yield Move(who, f"{name} (FAULT: answer lost)", False, lost, breaks)
            if s.faults.late:
                net = tuple(sorted((*s.net, Late(APPEND, run, slot.belief, slot.sent))))
                late = self._slot(s, i, run, unsure)._replace(net=net)
                late = late._replace(faults=less(s.faults, late=1))
                yield Move(who, f"{name} (FAULT: under way)", False, late)
        elif not self.rules.read_tail_after_refusal:
            moved = slot._replace(belief=s.logs[run], sent=self.world.graft(s.logs[run], slot.sent))
            after, breaks = self._accept(s, run, s.logs[run], moved.sent)
            breaks = breaks or FENCED_APPENDS
            what = f"{name}: refused, sends it again on the sequence it is told"
            yield Move(who, what, True, self._in(after, i, run, moved), breaks)
        elif s.logs[run] == slot.sent:
            yield Move(who, f"{name}: refused, it is in", True, self._in(s, i, run, slot))
        elif self._mistaken(slot, s.logs[run]):
            what = f"{name}: refused, takes the tail for its own"
            yield Move(who, what, True, self._in(s, i, run, slot), FALSE_BELIEF)
        else:
            yield from self._lost_race(s, i, run, slot, f"{name}: refused")

    def _mistaken(self, slot: Slot, tail: int) -> bool:
        """Whether it takes another commit for its own, since it doesn't compare the bytes."""
        same_place = self.world.nodes[tail].parent == slot.belief
        same_epoch = self.world.epoch(tail) == self.world.epoch(slot.sent)
        return not self.rules.retry_identical_bytes and slot.owner > 0 and same_place and same_epoch

    def _lost_race(self, s: State, i: int, run: int, slot: Slot, what: str) -> Iterator[Move]:
        """The tail is somebody else's."""
        if slot.owner or not self.rules.fence_only_after_activation:
            yield from self._fence(s, i, run, what)
        else:
            after = self._slot(s, i, run, Slot(READ, slot.inc))
            yield Move(conductor_name(i), f"{what}, will read again", True, after)

    def _in(self, s: State, i: int, run: int, slot: Slot) -> State:
        """Its commit is in: believe it."""
        node = self.world.nodes[slot.sent]
        done = Slot(OWN, slot.inc, slot.sent, slot.seen, slot.pend, slot.did, slot.again, 0, 1)
        if node.ended:  # nothing that is said to it matters any more
            done = done._replace(seen=0, pend=0)
        return self._slot(s, i, run, done)

    def _read_tail(self, s: State, i: int, run: int, slot: Slot) -> Iterator[Move]:
        who, tail, name = conductor_name(i), s.logs[run], f"reads the tail of run {run}"
        if tail == slot.sent:
            yield Move(who, f"{name}: it is in", True, self._in(s, i, run, slot))
        elif tail == slot.belief:
            if self.rules.retry_identical_bytes or not slot.owner:
                yield from self._append(s, i, run, slot, "retries on")
            else:
                bits = bits_of(s.inboxes[run])
                anew = slot._replace(stage=OWN, seen=bits, pend=bits, sent=0)
                what = f"{name}: not stored, will decide anew"
                yield Move(who, what, True, self._slot(s, i, run, anew))
        elif self._mistaken(slot, tail):
            what = f"{name}: takes it for its own"
            yield Move(who, what, True, self._in(s, i, run, slot), FALSE_BELIEF)
        else:
            yield from self._lost_race(s, i, run, slot, name)

    def _fence(self, s: State, i: int, run: int, what: str) -> Iterator[Move]:
        who, slot = conductor_name(i), s.conductors[i].slots[run]
        if self.rules.fenced_touches_nothing:
            yield Move(who, f"{what}: fenced, drops", True, self._slot(s, i, run, NO_SLOT))
            return
        acked = self._removed(self._slot(s, i, run, NO_SLOT), run, slot.inc)
        breaks = "" if acked.tasks == s.tasks else FENCED_ACTS
        yield Move(who, f"{what}: fenced, acks the task", True, acked, breaks)
        zombie = self._slot(s, i, run, Slot(ZOMBIE, slot.inc))
        yield Move(who, f"{what}: fenced, goes on beating", True, zombie)

    # ------------------------------------------------------------------------- what an owner does

    def _own(self, s: State, i: int, run: int, slot: Slot) -> Iterator[Move]:
        node, who = self.world.nodes[slot.belief], conductor_name(i)
        effects = list(self._effects(s, i, run, slot))
        yield from effects
        if node.ended or node.paused:
            pending = any(not slot.did >> e & 1 for e in node.effects)
            calm = node.ended or not slot.pend
            if calm and not (pending and self.rules.effects_before_task_ack):
                yield from self._ack_task(s, i, run, slot, pending)
            if node.ended:
                return
        if slot.pend:
            fresh = self._fresh(s, run, slot)
            if self.world.turn(slot.belief, fresh, NORMAL):
                sent = self._decided(s, run, slot, NORMAL)
                yield from self._append(
                    s, i, run, slot._replace(sent=sent, pend=0), "takes a turn of"
                )
            else:
                after = self._slot(s, i, run, slot._replace(pend=0))
                yield Move(who, f"has nothing to decide in run {run}", True, after)
        elif node.asked:
            sent = self._decided(s, run, slot, NORMAL)
            yield from self._append(s, i, run, slot._replace(sent=sent), "takes the reply of")
        bits = bits_of(s.inboxes[run])
        if bits & ~slot.seen and self.rules.look_replaces_hint:
            looked = slot._replace(seen=bits, pend=slot.pend | bits & ~slot.seen)
            after = self._slot(s, i, run, looked)
            yield Move(who, f"looks into the inbox of run {run}", True, after)
        if s.faults.timeout and node.opened:
            yield from self._time_out(s, i, run, slot)

    def _time_out(self, s: State, i: int, run: int, slot: Slot) -> Iterator[Move]:
        bits, breaks = bits_of(s.inboxes[run]), ""
        if self.rules.look_before_timeout:
            slot = slot._replace(seen=bits, pend=slot.pend | bits & ~slot.seen)
        else:
            for call, attempt in self.world.nodes[slot.belief].opened:
                for m in s.inboxes[run]:
                    if self.world.answers(m, run, call, attempt) and not slot.seen >> m & 1:
                        breaks = DEAF_TIMEOUT
        passed = s._replace(faults=less(s.faults, timeout=1))
        slot = slot._replace(sent=self._decided(s, run, slot, DEADLINE), pend=0)
        for move in self._append(passed, i, run, slot, "sees a deadline pass in"):
            yield move._replace(fair=False, breaks=move.breaks or breaks)

    def _effects(self, s: State, i: int, run: int, slot: Slot) -> Iterator[Move]:
        """Each effect that is due and not done, and each dispatch that may have been lost."""
        stale = slot.late and self.world.epoch(s.logs[run]) > self.world.epoch(slot.belief)
        breaks = FENCED_ACTS if stale else ""
        who = conductor_name(i)
        left = 0
        for effect in self.world.nodes[slot.belief].effects:
            key = self.world.effects[effect]
            if slot.did >> effect & 1:
                if key.kind == "make" and self.rules.redispatch:
                    after = self._make(s, run, slot, key.call, key.attempt, again=1)
                    if after is not s:
                        what = f"makes {key.call}.{key.attempt} of run {run} again"
                        yield Move(who, what, True, after, breaks)
                continue
            left += 1
            did = slot._replace(did=slot.did | 1 << effect)
            for after, what in self._effect(s, run, slot, effect):
                wrong = what if what in BUDGETS else breaks
                done = slot if what.startswith("stores cancel") else did
                yield Move(who, what, True, self._slot(after, i, run, done), wrong)
        if slot.stage == ACKED and not left:
            yield Move(who, "is through with the effects", True, self._slot(s, i, run, NO_SLOT))

    def _effect(self, s: State, run: int, slot: Slot, effect: int) -> Iterator[tuple[State, str]]:
        kind, call, attempt = self.world.effects[effect]
        name = f"{call}.{attempt} of run {run}"
        if kind == "make":
            again = slot.again >> effect & 1
            if again and not self.rules.redispatch:
                yield s, f"takes {name} for dispatched"
                return
            wrong = self.world.begin_child(slot.belief) if self._is_child(run) else ""
            after = self._make(s, run, slot, call, attempt, again)
            yield after, wrong or f"makes {name}"
        elif kind == "withdraw" and self._is_child(run):
            message = self.world.signal(1, "cancel", 9)
            if message not in s.inboxes[1]:
                for after, how in self._store(s, 1, message):
                    yield after, f"stores cancel for the child run{how}"
                return
            node = self.world.nodes[s.logs[1]]
            after = self._publish_task(s, 1, CONTINUE)
            read = node.ended or self.world.messages[message].hash in node.known
            settled = after is not s or s.tasks[1].waiting or read
            if settled or not self.rules.signal_until_taken:
                yield after, "queues Continue for the child run"
        elif kind == "withdraw":
            kept = tuple(c for c in s.calls if (c.run, c.attempt) != (run, attempt))
            yield s._replace(calls=kept), f"withdraws {name}"
        else:
            for after, how in self._store(s, 0, self.world.told(slot.belief)):
                yield after, f"tells the parent{how}"

    def _is_child(self, run: int) -> bool:
        return self.mix.child and run == 0

    def _make(self, s: State, run: int, slot: Slot, call: str, attempt: int, again: int) -> State:
        """Dispatch an attempt; the same state if it is in the queue already."""
        if self._is_child(run):
            return self._publish_task(s, 1, START)
        if any((c.run, c.attempt) == (run, attempt) for c in s.calls):
            return s
        held = {w.inc for w in s.workers if (w.run, w.attempt) == (run, attempt)}
        inc = next(n for n in range(9) if n not in held)
        message = CallMessage(run, attempt, inc, 0, again)
        return s._replace(calls=tuple(sorted((*s.calls, message))))

    def _ack_task(self, s: State, i: int, run: int, slot: Slot, pending: bool) -> Iterator[Move]:
        who, name = conductor_name(i), f"acks the task of run {run}"
        stale = slot.late and self.world.epoch(s.logs[run]) > self.world.epoch(slot.belief)
        breaks = FENCED_ACTS if stale else ""
        rest = slot._replace(stage=ACKED) if pending else NO_SLOT
        if self.world.nodes[slot.belief].paused and self.rules.look_after_pause:
            rest = Slot(PAUSED, 0, slot.belief, slot.seen)
        dropped = self._slot(s, i, run, rest)
        yield Move(who, name, True, self._removed(dropped, run, slot.inc), breaks)
        if s.tasks[run].inc != slot.inc or not s.tasks[run].kind:
            return
        if s.faults.lost:
            after = dropped._replace(faults=less(s.faults, lost=1))
            yield Move(who, f"{name} (FAULT: lost)", False, after, breaks)
        if s.faults.late:
            net = tuple(sorted((*s.net, Late(TASK_ACK, run, slot.inc))))
            after = dropped._replace(net=net, faults=less(s.faults, late=1))
            yield Move(who, f"{name} (FAULT: under way)", False, after, breaks)
