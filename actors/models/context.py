"""The tokens that a run's log ends with, in the memory of whoever drives the run.

A prompt is recorded as what it adds to them, and a model goes on from them, so it reads what it
typed as it typed it. They are an aid, rebuilt from the log: without them a prompt is recorded
whole.
"""

import logging
from collections.abc import Iterable
from itertools import islice

import msgspec

from actors.models.question import NOBODY, Maker
from actors.ports import SamplingPolicy
from protocol.commands import Fork, TaskMessage
from protocol.decisions import Reply, View
from protocol.errors import InvalidData, NotFound
from protocol.events import AnyEvent
from protocol.limits import MAX_SAMPLED_BYTES
from replay.chain import RunLog
from replay.log import EventLog
from replay.tokens import encode, sampled, tokens

logger = logging.getLogger("podium.conductor")


class Context:
    """The tokens of the last recorded question of one run."""

    def __init__(self) -> None:
        self._turn = 0
        self._ids = b""
        self._maker = NOBODY
        """Of the last reply that the run itself has recorded: what a fork shares was another's."""
        self._asked: dict[int, bytes] = {}
        """Tokens of replies that may or may not come into the log."""

    async def recall(self, run: RunLog, message: TaskMessage, log: EventLog) -> None:
        """Know what a run's log has recorded.

        Args:
            run: As read, with its origin if it is a fork.
            message: What is to be done: a fork that has no log yet begins with its origin's.
            log: Where blobs are.
        """
        self.recorded(event for commit in run.commits for event in commit.events)
        events = run.events()
        if isinstance(message, Fork) and not run.commits and run.origin is not None:
            events = islice(run.origin.events(), message.origin.events)
        try:
            found = await tokens(events, log.get_blob)
        except (NotFound, InvalidData) as error:
            logger.warning("the next prompt will be recorded whole: %s", error)
            return
        if found:
            self._turn, self._ids = found[-1].turn, found[-1].context

    def recorded(self, events: Iterable[AnyEvent]) -> None:
        """These events are in the log."""
        for turn, found in sampled(events):
            self._maker = Maker(found.version, found.weights)
            if turn in self._asked:
                self._turn, self._ids = turn, self._asked[turn]
            self._asked.clear()

    async def ask(self, policy: SamplingPolicy, view: View, turn: int, log: EventLog) -> Reply:
        """The reply, as it can be recorded: its prompt as what it adds, large arrays in a blob.

        Args:
            policy: Who is asked.
            view: What it is shown.
            turn: Number of the question.
            log: Where blobs go.
        """
        after, before = self._turn, self._ids
        reply = await policy.sample(view, before, self._maker)
        if reply.sampled is None or reply.sampled.arrays is None:
            return reply
        found, arrays = reply.sampled, reply.sampled.arrays
        goes_on = bool(found.after)
        self._asked[turn] = (before if goes_on else b"") + arrays.prompt + arrays.output
        kept = msgspec.structs.replace(found, after=after if goes_on else 0)
        if arrays.size > MAX_SAMPLED_BYTES:
            blob = await log.put_blob(encode(arrays))
            kept = msgspec.structs.replace(kept, arrays=None, blob=blob)
        return msgspec.structs.replace(reply, sampled=kept)
