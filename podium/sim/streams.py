"""What the simulated server stores: streams and their consumers, as JetStream keeps them.

Pure bookkeeping: the server (`server`) says when, and carries what comes out. It is held to the
real server's behaviour by ``tests/contract/test_sim_server.py``.
"""

import heapq
import re
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

WRONG_SEQUENCE: Final = 10071
"""The error of a condition that doesn't hold; its text names the sequence that would have."""

TOO_MANY: Final = 10077
"""The error of a stream, or of a subject, at its limit."""

NO_MESSAGE: Final = 10037


class Kept(NamedTuple):
    """A stored message."""

    seq: int
    subject: str
    data: bytes
    at: float
    """When it was stored, seconds of the server's clock."""
    headers: dict[str, str]


class No(Exception):
    """The server's no, with JetStream's error code."""

    def __init__(self, code: int, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code, self.text, self.status = code, text, status

    def body(self) -> dict[str, Any]:
        """As it stands in an answer."""
        return {"code": self.status, "err_code": self.code, "description": self.text}


class Stream:
    """One stream: its messages by subject, and by sequence.

    Args:
        config: As the JetStream API takes it (`replay.streams.definitions`).
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.name: str = config["name"]
        self.config = config
        self.subjects = [pattern(each) for each in config["subjects"]]
        self.work = config.get("retention") == "workqueue"
        self.per_subject: int = config.get("max_msgs_per_subject", -1)
        self.refuses = bool(config.get("discard_new_per_subject"))
        self.republishes = "republish" in config
        self.last_seq = 0
        self.removed = 0
        self.by_subject: dict[str, list[Kept]] = {}
        self.by_seq: dict[int, Kept] = {}
        self.consumers: dict[str, Consumer] = {}
        self.ends: list[tuple[float, int]] = []
        """When messages are dropped: a heap of times and sequences."""
        self.down_until = 0.0
        """Until when it has no leader."""
        self.staged: dict[str, list[tuple[str, bytes, int | None]]] = {}
        """Members of atomic batches that are not complete."""
        self.torn: set[str] = set()
        """Batches of which a member was lost, or came twice."""

    def last(self, subject: str) -> Kept | None:
        """The last message of a subject."""
        kept = self.by_subject.get(subject)
        return kept[-1] if kept else None

    def told(self, consumer: str) -> dict[str, Any]:
        """What a consumer has delivered."""
        found = self.consumers.get(consumer)
        if found is None:
            raise No(10014, "consumer not found", 404)
        return {"name": consumer, "delivered": {"stream_seq": found.last}}

    def check(self, subject: str, expected: int | None) -> None:
        """Raise `No` if a message can't be stored."""
        last = self.last(subject)
        there = last.seq if last else 0
        if expected is not None and expected != there:
            raise No(WRONG_SEQUENCE, f"wrong last sequence: {there}")
        if self.refuses and len(self.by_subject.get(subject, ())) >= self.per_subject > 0:
            raise No(TOO_MANY, "maximum messages per subject exceeded")

    def store(self, subject: str, data: bytes, at: float, headers: dict[str, str]) -> Kept:
        """Store a message that passed the check."""
        self.last_seq += 1
        kept = Kept(self.last_seq, subject, data, at, headers)
        there = self.by_subject.setdefault(subject, [])
        if 0 < self.per_subject <= len(there):
            self.remove(there[0].seq)
            there = self.by_subject.setdefault(subject, there)
        there.append(kept)
        self.by_seq[kept.seq] = kept
        for consumer in self.consumers.values():
            if consumer.filter.fullmatch(subject):
                consumer.ready.append(kept.seq)
        return kept

    def remove(self, seq: int) -> bool:
        """Take a message out. False if it is not there."""
        kept = self.by_seq.pop(seq, None)
        if kept is None:
            return False
        there = self.by_subject[kept.subject]
        there.remove(kept)
        if not there:
            del self.by_subject[kept.subject]
        self.removed += 1
        for consumer in self.consumers.values():
            consumer.pending.pop(seq, None)
            consumer.counts.pop(seq, None)
        return True

    def purge(self, subject: str) -> int:
        """Take out whatever stands under a subject, wildcards allowed."""
        if "*" not in subject and ">" not in subject:
            found = [kept.seq for kept in self.by_subject.get(subject, ())]
        else:
            wanted = pattern(subject)
            found = [kept.seq for kept in self.by_seq.values() if wanted.fullmatch(kept.subject)]
        for seq in found:
            self.remove(seq)
        return len(found)

    def since(self, subject: str, seq: int, until: float) -> list[Kept]:
        """The messages of a subject from a sequence on that were stored by a time."""
        if "*" in subject:
            wanted = pattern(subject)
            found = [kept for kept in self.by_seq.values() if wanted.fullmatch(kept.subject)]
        else:
            found = self.by_subject.get(subject, [])
        first = bisect_right(found, seq - 1, key=_seq) if found else 0
        if found and found[-1].at > until:
            return [kept for kept in found[first:] if kept.at <= until]
        return found[first:]

    def expire(self, now: float) -> None:
        """Drop the messages whose time to live is over."""
        while self.ends and self.ends[0][0] <= now:
            self.remove(heapq.heappop(self.ends)[1])

    def state(self) -> dict[str, Any]:
        """As ``STREAM.INFO`` has it."""
        first = min(self.by_seq, default=self.last_seq + 1 if self.last_seq else 0)
        count = len(self.by_seq)
        return {
            "messages": count,
            "first_seq": first,
            "last_seq": self.last_seq,
            "num_deleted": max(0, self.last_seq - first + 1 - count) if count else 0,
        }


def _seq(kept: Kept) -> int:
    return kept.seq


class Demand:
    """One request for messages: so many, to that subject, until then."""

    __slots__ = ("left", "reply", "until")

    def __init__(self, reply: str, left: int, until: float) -> None:
        self.reply, self.left, self.until = reply, left, until


class Consumer:
    """One durable pull consumer: what it may deliver, what is in flight, who waits.

    Args:
        name: Its name.
        subject: The subjects of the stream that it delivers.
        ack_wait_s: Seconds after which a message that is not acknowledged is delivered again.
    """

    def __init__(self, name: str, subject: str, ack_wait_s: float) -> None:
        self.name, self.filter, self.ack_wait_s = name, pattern(subject), ack_wait_s
        self.ready: deque[int] = deque()
        """Sequences that were never delivered; some may be gone."""
        self.again: deque[int] = deque()
        """Sequences to be delivered again."""
        self.pending: dict[int, float] = {}
        """In flight: sequence to when its lease ends."""
        self.counts: dict[int, int] = {}
        self.waiting: deque[Demand] = deque()
        self.delivered = 0
        self.last = 0
        """The highest sequence that was delivered."""
        self.timer_at = 0.0
        """When the next look for ended leases is due; 0 for none."""

    def next(self, stream: Stream) -> Kept | None:
        """The next message to deliver, those that come again first."""
        for queue in (self.again, self.ready):
            while queue:
                kept = stream.by_seq.get(queue.popleft())
                if kept is not None:
                    return kept
        return None

    def lapse(self, now: float) -> None:
        """Have everything delivered again whose lease has ended."""
        for seq, until in self.pending.items():
            if until <= now and seq not in self.again:
                self.again.append(seq)

    def take_demand(self, now: float, heard: Callable[[str], object]) -> Demand | None:
        """Who gets the next message: each in turn, as long as anybody hears the reply."""
        while self.waiting:
            demand = self.waiting.popleft()
            if demand.left <= 0 or demand.until <= now or not heard(demand.reply):
                continue
            demand.left -= 1
            if demand.left > 0:
                self.waiting.append(demand)
            return demand
        return None


_PATTERNS: Final[dict[str, re.Pattern[str]]] = {}


def pattern(subject: str) -> re.Pattern[str]:
    """A subject with wildcards, as a regular expression."""
    found = _PATTERNS.get(subject)
    if found is None:
        text = re.escape(subject).replace(r"\*", "[^.]+").replace(">", ".+")
        found = _PATTERNS[subject] = re.compile(text)
    return found
