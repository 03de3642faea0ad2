"""The worker: takes attempts from its queue, works on them, writes reports to inboxes.

A report is stored before its call is taken out of the queue, so a worker that dies in between makes
the attempt again: whoever gets a call that may have been made before first looks for its report.
"""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Literal

import msgspec

from actors import tracing
from actors.admission import admit_call
from actors.attempts import attempt_of
from actors.ports import Adapter, Changing, Clock, Outcome
from actors.queues import Bus, Delivery, Puller, Queue
from actors.secrets import Secrets
from actors.tracing import Trace
from actors.work import presentable, record_of, work_on
from actors.workers.outcomes import so_far
from protocol import inbox, subjects
from protocol.actions import NOTHING, BlobRef, Json, Report, Spend, WorkerSpec
from protocol.codec import CallMessage, decode_withdrawal, encode
from protocol.errors import InvalidData, NotFound, PodiumError
from protocol.inbox import HandedBack, Label
from protocol.limits import MAX_INLINE_BYTES, MAX_RECORD_BYTES
from protocol.traces import TRACEPARENT, attempt_context, carried
from replay.chain import InboxEntry, read_inbox
from replay.log import EventLog

logger = logging.getLogger("podium.worker")

MAX_DELIVERIES: Final = 3
"""Deliveries of one attempt before it is taken to kill its worker, and reported as failed."""

MAX_HANDED_BACK: Final = 5
"""Deliveries of an attempt of which a replica hands back those that others had better have. Then it
takes what nobody else has taken: they are busy, or gone."""

WITHDRAWN: Final = "Withdrawn: nobody waited for it any more."
"""What is reported of an attempt that was stopped, beside what it has cost."""

BEATS_PER_LEASE: Final = 3
"""Signs of life per lease: two may be lost."""


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker's replica works."""

    replica: str = "worker"
    """Its name, as reports carry it."""
    lease_s: float = 10.0
    """Seconds after which the server gives an attempt to another replica; the same as the call
    consumers'."""
    hand_back_s: float = 0.01
    """Seconds until an attempt is delivered again that was handed back; doubles with each time, so
    that another replica has a third of a second to take it."""


Stage = Literal["", "waiting", "working", "reporting"]
"""How far an attempt has come here: it waits for a place, it is worked on, its report is about to
be stored. Empty until it is known that nobody else has made it."""


class _Job:
    """An attempt that is worked on, for every delivery of it that has come here."""

    def __init__(self, delivery: Delivery, secrets: Secrets) -> None:
        self.deliveries, self.secrets = [delivery], secrets
        self.delivered = delivery.delivered
        self.handed_back = 0
        """Deliveries before this one that were handed back untouched."""
        self.task: asyncio.Task[None] | None = None
        self.withdrawn = False
        self.stage: Stage = ""
        self.started = 0.0
        """When the work began, seconds of the monotonic clock."""

    @property
    def taken(self) -> int:
        """Times that somebody took it to work on, this time included."""
        return self.delivered - self.handed_back


def _trace(job: _Job, message: CallMessage) -> Trace:
    """What whoever traces within a call hangs it under, and the baggage beside it."""
    above = job.deliveries[0].header(TRACEPARENT)
    context = attempt_context(message.run, message.call, message.attempt, above)
    return context, carried(message.run, message.policy_version)


def _lost(text: str, spend: Spend) -> Outcome:
    return Outcome(status="EXEC_ERR", fault="infrastructure", value=text, spend=spend)


def _deliveries(value: Json, message: CallMessage) -> set[int]:
    """The delivery of an attempt that a label says was handed back; none if it says another's."""
    try:
        known = msgspec.convert(value, HandedBack)
    except msgspec.ValidationError:  # somebody else's label
        return set()
    same = (known.call, known.attempt) == (message.call, message.attempt)
    return {known.delivery} if same else set()


class Worker:
    """Plain Python over ports; `ray_actors` gives it a process.

    Args:
        adapter: What does the work.
        log: The event log, for reports.
        calls: The call queue.
        bus: For what need not be stored.
        clock: Milliseconds since the epoch.
        options: See `WorkerOptions`.
        secrets: Those that it may be given; by default none, and well-known ones are redacted.
        monotonic: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        *,
        adapter: Adapter,
        log: EventLog,
        calls: Queue,
        bus: Bus,
        clock: Clock,
        options: WorkerOptions,
        secrets: Secrets | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.secrets = secrets or Secrets()
        self.adapter, self.spec = adapter, adapter.spec
        self.log, self.calls, self.bus = log, calls, bus
        self.clock, self.options, self.monotonic = clock, options, monotonic
        self.counts: Counter[str] = Counter()
        """What happened so far, by status, and ``aside``, ``withdrawn``, ``again``, ``changed``,
        ``handed_back``."""
        self.taken = 0
        """Call messages taken so far."""
        self.offers: tuple[WorkerSpec, ...] = ()
        """All that its server offers, since that is no more what is hosted; see `Changing`."""
        if isinstance(adapter, Changing):
            adapter.changed = self._changed
        self._slots = asyncio.Semaphore(self.spec.concurrency)
        self._working: dict[tuple[str, str, int], _Job] = {}
        self._held: dict[int, Delivery] = {}
        self._puller: Puller | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begin to take calls."""
        self._spawn(self._heartbeat())
        await self.bus.listen("stats", self._stats)
        await self.bus.listen(subjects.withdraw(self.spec.place), self._withdrawn)
        names = [f"calls-{self.spec.place}-{priority}" for priority in subjects.PRIORITIES]
        self._puller = await self.calls.pull(names, self._capacity, self._delivered)

    async def stop(self) -> None:
        """Hand back what was not finished: another replica makes it at once."""
        if self._puller is not None:
            await self._puller.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for delivery in list(self._held.values()):
            await delivery.nak()
        await self.adapter.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ------------------------------------------------------------------------------------ coming in

    def _capacity(self, _: str) -> int:
        return self.spec.concurrency - len(self._held)

    def _delivered(self, delivery: Delivery) -> None:
        self.taken += 1
        try:
            message = admit_call(delivery.subject, delivery.data)
            secrets = self.secrets.also(message.redact, message.run)
        except InvalidData as error:
            self.counts["aside"] += 1
            logger.warning("set aside: %s", error)
            self._spawn(delivery.ack())
            return
        key = (message.run, message.call, message.attempt)
        self._held[id(delivery)] = delivery
        job = self._working.get(key)
        if job is not None:  # this replica is at it already: its report will answer for both
            job.deliveries.append(delivery)
            return
        job = self._working[key] = _Job(delivery, secrets)
        job.task = self._spawn(self._work(job, message))

    async def _withdrawn(self, data: bytes) -> None:
        try:
            w = decode_withdrawal(data)
        except InvalidData:
            self.counts["aside"] += 1
            return
        job = self._working.get((w.run, w.call, w.attempt))
        if job is not None and job.task is not None and not job.withdrawn:
            self.counts["withdrawn"] += 1
            job.withdrawn = True
            if job.stage != "reporting":  # else its report says what it has cost
                job.task.cancel()

    # ----------------------------------------------------------------------------------------- work

    async def _work(self, job: "_Job", message: CallMessage) -> None:
        done, delay_s = True, 0.0
        try:
            if self._is_for_others(job, message):
                await self._say_handed_back(job, message)
                delay_s = self.options.hand_back_s * 2 ** (job.delivered - 1)
            else:
                await self._make(job, message)
        except asyncio.CancelledError:
            if not job.withdrawn:
                raise  # stopping: `stop` hands the delivery back
            await self._say_withdrawn(job, message)
        except NotFound as error:  # there is no such run, and no log to report to
            self.counts["aside"] += 1
            logger.warning("set aside: %s", error)
        except PodiumError as error:  # not reported: the lease ends, and it comes again
            done = False
            self.counts["unreported"] += 1
            logger.warning("run %s, call %s: not reported: %s", message.run, message.call, error)
        except Exception:
            done = False
            self.counts["broken"] += 1
            logger.exception("run %s, call %s: not reported", message.run, message.call)
        del self._working[message.run, message.call, message.attempt]
        for delivery in job.deliveries:
            self._held.pop(id(delivery), None)
            if delay_s:
                await delivery.nak(delay_s)
            elif done:
                await delivery.ack()
        if self._puller is not None:
            self._puller.want()

    async def _make(self, job: "_Job", message: CallMessage) -> None:
        """Work on the attempt, and report."""
        costly = self.spec.reserve != NOTHING
        look = costly or message.again or job.delivered > 1
        if look and await self._reported(job, message):
            return
        report = await self._report(job, message)
        await self.log.post(message.run, encode(report))
        self.counts[report.status] += 1

    async def _reported(self, job: "_Job", message: CallMessage) -> bool:
        """Whether the attempt's report is in the inbox already; if not, who had handed it back."""
        self.counts["again"] += 1
        handed_back: set[int] = set()
        # What costs is not done twice for a replica's lag, and nothing is given up for it.
        fresh = self.spec.reserve != NOTHING or job.delivered > MAX_DELIVERIES
        for stored in await self.log.inbox(message.run, fresh=fresh):
            entry = read_inbox(message.run, stored)
            match entry.message if isinstance(entry, InboxEntry) else None:
                case Report(call=message.call, attempt=message.attempt):
                    return True
                case Label(key=inbox.HANDED_BACK, value=value) if not message.again:
                    handed_back |= _deliveries(value, message)
        job.handed_back = len(handed_back & set(range(1, job.delivered)))
        return False

    def _is_for_others(self, job: "_Job", message: CallMessage) -> bool:
        """Whether another replica had better have it: this one is at an earlier attempt of it.

        Whatever makes that one slow may be here. One that was queued again stays: its deliveries
        are counted anew, and what was said of those before would be taken for said of them.
        """
        return (
            message.attempt > 1
            and not message.again
            and self.spec.replicas > 1
            and job.delivered <= MAX_HANDED_BACK
            and any(
                (run, call) == (message.run, message.call) and not other.withdrawn
                for (run, call, attempt), other in self._working.items()
                if attempt < message.attempt
            )
        )

    async def _say_handed_back(self, job: "_Job", message: CallMessage) -> None:
        """Have whoever is given it next know that nobody has begun it: it may cost money."""
        value = HandedBack(message.call, message.attempt, job.delivered)
        label = Label(
            run=message.run,
            key=inbox.HANDED_BACK,
            value=msgspec.to_builtins(value),
            by=self.options.replica,
        )
        await self.log.post(message.run, encode(label))
        self.counts["handed_back"] += 1

    async def _say_withdrawn(self, job: "_Job", message: CallMessage) -> None:
        """Report what an attempt has spent that nobody waits for any more: it is billed."""
        if self.spec.reserve == NOTHING or job.stage not in ("waiting", "working"):
            return
        known = so_far.get()
        spent = Outcome(spend=self.spec.reserve if job.stage == "working" else NOTHING)
        if job.stage == "working" and known is not None:
            spent = known()
        outcome = msgspec.structs.replace(
            spent, status="EXEC_ERR", fault="infrastructure", value=WITHDRAWN
        )
        try:
            report = await self._told(job, message, outcome)
            await self.log.post(message.run, encode(report))
        except PodiumError as error:  # its whole reserve stays spoken for
            logger.warning("run %s, call %s: not billed: %s", message.run, message.call, error)

    async def _report(self, job: "_Job", message: CallMessage) -> Report:
        job.started = self.monotonic()
        if job.taken > 1 and self.spec.reserve != NOTHING:
            text = "Whoever took this attempt before is gone. It may have spent what was reserved."
            outcome = _lost(text, self.spec.reserve)  # never pay twice for one reservation
        elif job.taken > MAX_DELIVERIES:
            text = f"{MAX_DELIVERIES} replicas took this attempt and none came back with a report."
            outcome = _lost(text, NOTHING)
        else:
            job.stage = "waiting"
            async with self._slots:
                job.stage, job.started = "working", self.monotonic()
                with tracing.under(partial(_trace, job, message)):
                    outcome = await work_on(attempt_of(message), self.adapter, job.secrets)
        job.stage = "reporting"
        return await self._told(job, message, outcome)

    async def _told(self, job: "_Job", message: CallMessage, outcome: Outcome) -> Report:
        """The report of an outcome; what is large of it is stored."""
        outcome, value, blob = await self._stored(outcome, job.secrets)
        record, record_blob = await self._recorded(outcome, job.secrets)
        return Report(
            run=message.run,
            call=message.call,
            attempt=message.attempt,
            status=outcome.status,
            fault=outcome.fault,
            value=value,
            blob=blob,
            spend=outcome.spend,
            latency_ms=round((self.monotonic() - job.started) * 1_000),
            by=self.options.replica,
            record=record,
            record_blob=record_blob,
            usage=outcome.usage,
            deliveries=job.taken,
        )

    async def _stored(
        self, outcome: Outcome, secrets: Secrets
    ) -> tuple[Outcome, Json, BlobRef | None]:
        """The value as the report carries it: inline, or by reference when it is large."""
        outcome, data = await presentable(outcome, self.spec, secrets.redactor)
        if len(data) <= MAX_INLINE_BYTES:
            return outcome, outcome.value, None
        return outcome, None, await self.log.put_blob(data)

    async def _recorded(self, outcome: Outcome, secrets: Secrets) -> tuple[Json, BlobRef | None]:
        """What was exchanged with a model, as the report carries it."""
        data = record_of(outcome, secrets.redactor)
        if len(data) <= MAX_RECORD_BYTES:
            return (msgspec.json.decode(data) if data else None), None
        return None, await self.log.put_blob(data)

    def _changed(self, there: list[WorkerSpec]) -> None:
        self.counts["changed"] += 1
        self.offers = tuple(there)
        found = next((each for each in there if each.adapter == self.spec.adapter), None)
        how = "is there as recorded, but others have come, gone or changed"
        if found is None:
            how = "is gone"
        elif found.parameters != self.spec.parameters:
            how = "takes other parameters than were recorded"
        logger.warning("worker %s: %s %s", self.spec.name, self.spec.adapter, how)

    # ------------------------------------------------------------------------------------- liveness

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self.options.lease_s / BEATS_PER_LEASE)
            for delivery in list(self._held.values()):
                await delivery.progress()

    @property
    def busy(self) -> int:
        """Deliveries in hand."""
        return len(self._held)

    def health(self) -> tuple[int, int]:
        """Progress so far, and how many attempts more it could take."""
        return self.taken, self._capacity("")

    async def _stats(self, _: bytes) -> bytes:
        return msgspec.json.encode(
            {
                "actor": self.options.replica,
                "kind": "worker",
                "worker": self.spec.name,
                "pid": os.getpid(),
                "busy": self.busy,
                "slots": self.spec.concurrency,
                "counts": dict(self.counts),
            }
        )
