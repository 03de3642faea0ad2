"""Bugs, planted on purpose: what the simulator has to find.

Each takes one rule of docs/ownership.md out of the real code, and leaves everything else as it is.
"""

from typing import Final

from actors.conductor import Conductor
from actors.run_shell import RunShell
from actors.worker import Worker
from podium.sim.world import Parts
from protocol import subjects
from protocol.codec import CallMessage, Commit, digest, encode
from replay.broker import Refused, Unanswered
from replay.chain import Head
from replay.jetstream_log import JetStreamLog


class _EagerShell(RunShell):
    async def drive(self) -> None:
        await self.delivery.ack()
        await super().drive()


class AcksBeforeAppend(Conductor):
    """Takes a run's task out of the queue before anything of the run is stored."""

    shell = _EagerShell


class AcksBeforeReport(Worker):
    """Takes a call out of the queue before its report is stored."""

    async def _report(self, job, message: CallMessage):  # type: ignore[no-untyped-def]
        for delivery in job.deliveries:
            await delivery.ack()
        return await super()._report(job, message)


class NeverFenced(JetStreamLog):
    """Sends a refused commit again, on whatever the run's log ends with."""

    async def append(self, commit: Commit, after: Head) -> Head:
        data, expected = encode(commit), after.seq
        while True:
            try:
                seq = await self.broker.append(subjects.commits(commit.run), data, expected)
                return Head(commit.n, digest(data), seq, commit.epoch, commit.at)
            except (Refused, Unanswered):
                tail = await self.tail(commit.run)
                if tail is not None and tail.data == data:
                    return Head(commit.n, digest(data), tail.seq, commit.epoch, commit.at)
                expected = tail.seq if tail else 0


class _DeafShell(RunShell):
    async def _look(self) -> bool:
        return False


class NeverLooks(Conductor):
    """Believes in hints alone."""

    shell = _DeafShell


class _ForgetfulShell(RunShell):
    async def assure(self) -> None:
        self.trusted = self.host.check_beat()


class TrustsItselfAfterFreeze(Conductor):
    """Goes on after a freeze without asking whose its runs are."""

    shell = _ForgetfulShell


PLANTED: Final = {
    "ack before append": Parts(conductor=AcksBeforeAppend),
    "ack before report": Parts(worker=AcksBeforeReport),
    "missing fencing": Parts(log=NeverFenced),
    "lost hint, no look-up": Parts(conductor=NeverLooks),
    "no re-read after a freeze": Parts(conductor=TrustsItselfAfterFreeze),
}
