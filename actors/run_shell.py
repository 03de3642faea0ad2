"""The shell around one run: start what is due, take what came in, decide, append, fold.

A fresh run and a crashed one start the same way, by folding the log. A shell that is fenced, or not
sure, stops at once and touches nothing of the run any more: no acknowledgement, no sign of life, no
effect.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeGuard

from actors.effects import Effects
from actors.ports import EndpointPolicy, InstantPolicy, Policy
from actors.queues import Delivery
from actors.waking import at_hand
from actors.workers.outcomes import describe
from protocol.actions import Json, Report
from protocol.codec import decode_value, digest
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
from protocol.decisions import Reply, View
from protocol.dialects import speaker, to_prompt
from protocol.errors import Fenced, InvalidData, NotFound, PodiumError, TooLarge, Usage
from protocol.limits import MAX_COMMANDS_PER_TURN, MAX_DETAIL_CHARS
from protocol.rules import Draft
from protocol.run import RULES, feed, step
from protocol.state import RunState
from protocol.views import compose, view
from replay import forks
from replay.chain import EMPTY, Aside, Head, RunLog, Stored, following, read_inbox
from replay.history import reports
from replay.log import Hints

if TYPE_CHECKING:
    from actors.conductor import Conductor

logger = logging.getLogger("podium.conductor")

MAX_TAKEOVERS: Final = 8
"""Tries to write the first commit of an activation while others write, too. Then its task is left
to the lease."""

MAX_LOOK_S: Final = 60.0
"""Seconds between two looks into a quiet run's inbox, at most."""

LOST_VALUE: Final = "(the value is not in the store any more)"


class RunShell:
    """One run, while this conductor owns it."""

    def __init__(self, host: "Conductor", delivery: Delivery, message: TaskMessage) -> None:
        self.host, self.delivery = host, delivery
        self.message, self.run = message, message.run
        self.redactor = host.redactor
        """Takes out what the deployment, and what the run itself says to be a secret."""
        self.over = asyncio.Event()
        self.trusted = host.check_beat()
        """The host's suspicion at which the run's log was last seen to be ours."""
        self.state = RunState()
        self.head: Head = EMPTY
        self.values: dict[str, Json] = {}
        """Values of the reports that were read, by hash."""
        self.policy: Policy | None = None
        self._inbox_seq = -1
        """Sequence of the last message of the inbox that was read or heard of; -1 before both."""
        self._read_seq = 0
        """Sequence of the last one that was read: hints up to there are late, and those beyond
        are only believed until the next look."""
        self._heard: set[str] = set()
        """Hashes of the messages that were heard of and not yet read."""
        self._early: list[tuple[bytes, int, int]] = []
        self._pending: deque[Command] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look_s = host.options.look_s
        self._look_at = 0.0
        self._gap = False
        self._active = False
        """Whether our activation is in the log: only then does a refusal fence us."""
        self._appending = False
        self._fenced = False
        self._hints: Hints | None = None
        self._task: asyncio.Task[object] | None = None
        self.effects = Effects(self)

    # ----------------------------------------------------------------------------------------- life

    async def drive(self) -> None:
        """Own the run until it ends, pauses, or is somebody else's."""
        self._task = asyncio.current_task()
        try:
            self._hints = await self.host.log.hints(self.run, self._hinted)
            if not await self._take_over():
                return
            while True:
                await self.effects.start_due()
                if self.state.phase == "ended" or self._at_rest():
                    break
                await self._turn(await self._next())
            await self._give_back()
        except Fenced as error:
            self._note_fenced(error)
        except (InvalidData, NotFound, TooLarge, Usage) as error:
            if self._active:
                raise
            await self.host.set_aside(self.delivery, error, self.run)
        except asyncio.CancelledError:
            pass
        finally:
            await self._close()

    def abandon(self) -> None:
        """Stop, and touch nothing of the run any more."""
        if self._task is not None:
            self._task.cancel()

    def redo(self) -> None:
        """Start everything that is due again."""
        self.effects.forget()
        self._gap = True
        self._ring()

    async def reverify(self) -> None:
        """After a freeze: see whether the log still ends with our commit; stop if not."""
        suspicion = self.host.suspicion
        try:
            tail = await self.host.log.tail(self.run)
        except PodiumError:
            return
        if (tail.seq if tail else 0) <= self.head.seq:
            self.trusted = suspicion
        elif not self._appending:
            self._note_fenced(self._gone())
            self.abandon()

    async def assure(self) -> None:
        """See that the run is still ours: before anything that others could notice.

        Asks the log only if this process was away since it last saw the run to be ours.

        Raises:
            Fenced: Somebody else has written to its log.
            Unreachable: Nobody can tell.
        """
        while self.trusted != (suspicion := self.host.check_beat()):
            tail = await self.host.log.tail(self.run)
            if tail is not None and tail.seq > self.head.seq:
                raise self._gone()
            self.trusted = suspicion

    def _gone(self) -> Fenced:
        return Fenced(f"run {self.run} went on elsewhere while this process was away")

    def _note_fenced(self, error: Fenced) -> None:
        if not self._fenced:  # the heartbeat and the run itself may both notice
            self._fenced = True
            self.host.counts["fenced"] += 1
            logger.warning("fenced: %s", error)

    async def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.effects.close()
        if self._hints is not None:
            await self._hints.close()

    def _at_rest(self) -> bool:
        paused = self.state.phase == "paused" and not self.effects.asking and not self._pending
        return paused and not at_hand(self.effects.wait_until, self.host.clock())

    async def _give_back(self) -> None:
        """The run ended or paused and its effects are done: take its task out of the queue."""
        await self.assure()
        self.host.counts[self.state.outcome or self.state.phase] += 1
        await self.delivery.ack()
        if self.state.phase != "paused":
            return
        if await self._look() or self._pending:  # a signal came at the last moment
            await self.effects.queue_again()

    # ------------------------------------------------------------------------------------ take over

    async def _take_over(self) -> bool:
        """Fold the log and write the activation. False if there is nothing to own."""
        self._hide()
        match self.message:
            case Start() as start if self.delivery.delivered == 1 and await self._begin(start):
                return True
        for _ in range(MAX_TAKEOVERS):
            log = await self.host.log.read(self.run)
            self.host.counts["aside_commits"] += log.set_aside["commits"]
            self.state, self.head = await self._found(log), log.head
            self._hide()
            await self._remember(log)
            if self.state.phase == "ended":
                return True
            try:
                await self._activate(log)
            except Fenced:
                if self._active:
                    raise
                continue  # not ours yet: read again, try again
            return True
        logger.warning("run %s: others keep writing to its log; left to its lease", self.run)
        return False

    def _hide(self) -> None:
        """Take secrets out of the message, and from here on also what the run says to be one.

        Raises:
            InvalidData: It is no name or no pattern.
        """
        recorded = self.state.redact
        match self.message:
            case Start(redact=redact) | Fork(redact=redact) if redact is not None:
                recorded = (recorded or redact).union(redact)
        self.redactor = self.host.redactor.also(recorded, self.run)
        self.message = self.redactor.task_message(self.message)

    async def _begin(self, start: Start) -> bool:
        """Begin a run that nobody has tried, in one commit. False if its log isn't empty."""
        inbox = asyncio.create_task(self.host.log.inbox(self.run))
        try:
            await self._turn([start, Activate(self.host.options.name, RULES)])
        except Fenced:
            if self._active:
                raise
            return False
        finally:
            stored = await inbox
        self._inbox_seq = 0
        for message in stored:
            self._arrived(message)
        self._read_seq = self._inbox_seq
        self._hear_early()
        if self._pending:  # it may have been cancelled before it began
            await self._turn(self._taken())
        return True

    async def _found(self, log: RunLog) -> RunState:
        """The state to go on from; of a fork without a log of its own, that of its origin."""
        match self.message:
            case Fork(origin=origin) if not log.commits:
                log.origin = await forks.begin(self.host.log, self.run, origin)
                return log.origin.state(origin.events)
            case Continue() if not log.commits:
                raise NotFound(f"run {self.run} is to go on, but never began")
        if log.set_aside["origin"]:
            raise InvalidData(log.aside[-1].why)
        return log.state()

    async def _activate(self, log: RunLog) -> None:
        activate = Activate(self.host.options.name, RULES)
        commands: list[Command] = [activate]
        if not log.commits and isinstance(self.message, Start | Fork):
            commands = [self.message, activate]
        known = self._read_before()
        unread = [command for command in log.commands() if command.hash not in known]
        await self._turn(
            commands, ask=False
        )  # alone: should the run kill its host, this is what shows it
        self.effects.recovered = True
        self._pending.extend(unread)
        await self._turn(self._taken())

    def _read_before(self) -> set[str]:
        known = set(self.state.signals)
        for call in self.state.calls.values():
            known.update(call.noted)
        return known

    async def _remember(self, log: RunLog) -> None:
        for known, report in reports(log).items():
            await self._keep(known, report)
        await self.effects.context.recall(log, self.message, self.host.log)
        self._inbox_seq = self._read_seq = log.inbox_seq
        self._hear_early()

    def _hear_early(self) -> None:
        for hint in self._early:
            self._hinted(*hint)
        self._early.clear()

    async def _keep(self, known: str, report: Report) -> None:
        """Have the report's value at hand before any rule or policy may want it."""
        call = self.state.calls.get(report.call)
        if call is None or not 1 <= report.attempt <= call.attempt:
            return  # nobody asked for it
        counts = call.status is None or known in (call.report, call.late)
        if not counts and (call.status == "OK" or call.late or report.status != "OK"):
            return  # another one counts
        value = report.value
        if report.blob is not None:
            try:
                value = decode_value(await self.host.log.get_blob(report.blob))
            except (NotFound, InvalidData) as error:
                self.host.counts["lost_blobs"] += 1
                logger.error("run %s, call %s: %s", self.run, report.call, error)
                value = LOST_VALUE
        self.values[known] = value

    # ----------------------------------------------------------------------------------------- turn

    async def _turn(self, commands: list[Command], *, ask: bool = True) -> None:
        """Decide on what came in, append it as one commit, fold; again while a policy replies."""
        await self._commit(commands, ask=ask)
        while ask and self._instant(self.state):
            await self._commit([], ask=True)

    async def _commit(self, commands: list[Command], *, ask: bool) -> None:
        for command in commands:
            match command:
                case Inbox(known, Report() as report) if known not in self.values:
                    await self._keep(known, report)
        at = max(self.host.clock(), self.head.at)
        draft = step(self.state, commands, at)
        if ask:
            self._ask_at_once(draft)
        self._count_ignored(commands, draft)
        if not draft.events:
            return
        commit = following(self.run, draft, self.head)
        self._appending = True
        try:
            self.head = await self.host.log.append(commit, self.head)
        finally:
            self._appending = False
        before, self.state = self.state, draft.state
        self.effects.context.recorded(draft.events)
        self._active = True
        self.host.monitor.saw(self, before, draft.events, at)

    def _ask_at_once(self, draft: Draft) -> None:
        """Have a policy that needs no waiting reply within the same commit.

        Once: a commit has room for one reply. A rejected one is followed by the next commit.
        """
        asked = draft.state.asked
        if asked is None or not self._instant(draft.state):
            return
        shown = view(draft.state, self.values, asked.limited_by)
        policy = self._policy(draft.state)
        if asked.asker == "composer":
            reply = compose(shown)
        elif isinstance(policy, Reply):
            reply = policy
        elif _at_once(policy):
            reply = _decided(policy.decide, shown)
        else:
            return
        reply = self.redactor.reply(
            to_prompt(reply, speaker(draft.state.policy, asked.asker), shown)
        )
        feed(draft, [PolicyReply(asked.turn, reply)])

    def _instant(self, state: RunState) -> bool:
        """Whether a question is open whose reply needs no waiting."""
        if state.asked is None:
            return False
        policy = self._policy(state)
        return state.asked.asker == "composer" or isinstance(policy, Reply) or _at_once(policy)

    def _policy(self, state: RunState) -> Policy | Reply:
        if self.policy is None:
            try:
                self.policy = self.host.policies(state.policy)
            except PodiumError as error:
                return Reply(status="EXEC_ERR", error=error.whole(), retry=False)
        return self.policy

    def endpoint(self) -> EndpointPolicy | Reply:
        """The run's policy, where it has to be waited for."""
        policy = self._policy(self.state)
        if isinstance(policy, Reply) or hasattr(policy, "ask"):
            return policy  # type: ignore[return-value]
        return Reply(status="EXEC_ERR", error=f"policy {self.state.policy.name} can't be asked")

    def _count_ignored(self, commands: list[Command], draft: Draft) -> None:
        ignored = sum(isinstance(c, Inbox) for c in commands) - sum(
            cause.startswith("inbox:") for cause in draft.causes
        )
        if ignored > 0:
            self.host.counts["ignored"] += ignored

    # ----------------------------------------------------------------------------------- coming in

    def push(self, command: Command) -> None:
        """Something came in."""
        self._pending.append(command)
        self._ring()

    def _ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _taken(self) -> list[Command]:
        count = min(len(self._pending), MAX_COMMANDS_PER_TURN)
        return [self._pending.popleft() for _ in range(count)]

    async def _next(self) -> list[Command]:
        """What came in, waiting for it if need be; a deadline only after a look into the inbox."""
        while True:
            if self._gap:
                self._gap = False
                await self._look()
                await self.effects.repeat()
            if self._pending:
                self._look_s = self.host.options.look_s
                return self._taken()
            loop = asyncio.get_running_loop()
            until = loop.time() + self._look_s
            if self.effects.wait_until:
                left = (self.effects.wait_until - self.host.clock()) / 1_000
                if left <= 0:
                    await self._look()
                    taken = self._taken()
                    return taken if self._pending else [*taken, Deadline()]
                until = min(until, loop.time() + left)
            quiet_since = loop.time()
            await self._wait(until)
            if not self._pending and not self._gap and loop.time() - quiet_since >= self._look_s:
                self._look_s = min(2 * self._look_s, MAX_LOOK_S)
                self._gap = True

    async def _wait(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        if self._timer is None or self._timer.cancelled() or self._timer.when() > until:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = loop.call_at(until, self._tick)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _tick(self) -> None:
        self._timer = None
        self._ring()

    def _hinted(self, data: bytes, seq: int, before: int) -> None:
        if self._inbox_seq < 0:
            self._early.append((data, seq, before))
        elif seq > self._read_seq:
            if before == self._inbox_seq:
                self._heard.add(digest(data))
                self._arrived(Stored(seq, data))
            else:
                self._gap = True
            self._ring()

    def _arrived(self, stored: Stored) -> bool:
        """Take a message in. False if it is set aside."""
        self._inbox_seq = stored.seq
        entry = read_inbox(self.run, stored)
        if isinstance(entry, Aside):
            self.host.counts["aside_inbox"] += 1
            return False
        self._pending.append(Inbox(entry.hash, entry.message))
        return True

    async def _look(self) -> bool:
        """Read the inbox on from where we are. True if there was something."""
        found = False
        for stored in await self.host.log.inbox(self.run, self._read_seq):
            self._read_seq = max(self._read_seq, stored.seq)
            known = digest(stored.data)
            if known in self._heard:
                self._heard.remove(known)
            else:
                found |= self._arrived(stored)
        self._inbox_seq = self._read_seq
        return found


def _at_once(policy: Policy) -> TypeGuard[InstantPolicy]:
    return hasattr(policy, "decide")


def _decided(decide: Callable[[View], Reply], shown: View) -> Reply:
    """The policy's reply. One that raises would do so at every recovery: the run is paused."""
    try:
        return decide(shown)
    except Exception as error:
        logger.exception("run %s: its policy raised", shown.run)
        text = f"the policy raised {describe(error)}"[:MAX_DETAIL_CHARS]
        return Reply(status="EXEC_ERR", error=text, retry=False)
