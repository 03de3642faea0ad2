"""The rules of one run's log, as pure functions: what counts, and what became of an append.

A commit counts only if it chains to the last counted one; everything else on the subject is set
aside, and said so.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from protocol.codec import Commit, decode_commit, decode_message, digest
from protocol.commands import Inbox
from protocol.errors import InvalidData
from protocol.events import AnyEvent, Archived, RunActivated, RunForked
from protocol.inbox import Message
from protocol.rules import Draft
from protocol.run import fold
from protocol.state import RunState
from replay.collector import held_off

MAX_ASIDE: Final = 1_000
"""Foreign messages of one subject that a reader lists one by one; beyond that it only counts
them."""

MAX_TOGETHER: Final = 256
"""Messages that are looked at as one: each costs less, and all of them must be looked at again when
there is something to say of one."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message as the store has it."""

    seq: int
    """Where it stands. A locator, never an identity."""
    data: bytes


class Messages(NamedTuple):
    """The two subjects of a run as they stand, in stream order."""

    commits: list[Stored]
    inbox: list[Stored]


class Head(NamedTuple):
    """The end of a run's log: what the next commit has to chain to."""

    n: int = 0
    hash: str = ""
    seq: int = 0
    """Sequence of the last message on the exact subject, counted or not: the condition of the next
    append."""
    epoch: int = 0
    at: int = 0


EMPTY: Final = Head()


class InboxEntry(msgspec.Struct, frozen=True, gc=False):
    """A message of the inbox that could be read."""

    seq: int
    hash: str
    message: Message


class Aside(NamedTuple):
    """A message that doesn't count, and why."""

    seq: int
    where: Literal["commits", "inbox", "origin", "archived"]
    """``origin``: what a fork shares can't be had; ``archived``: neither, but for the reason that
    it is in an archive that was not read."""
    why: str


class RunLog(msgspec.Struct):
    """A run as its log has it."""

    run: str
    commits: list[Commit] = msgspec.field(default_factory=list)
    """From the first on; of a run whose archive can't be read here, the one that stands for it."""
    seqs: list[int] = msgspec.field(default_factory=list)
    """Where each commit stands."""
    inbox: list[InboxEntry] = msgspec.field(default_factory=list)
    head: Head = EMPTY
    inbox_seq: int = 0
    """Sequence of the last message of the inbox, readable or not."""
    aside: list[Aside] = msgspec.field(default_factory=list)
    """What doesn't count, the first `MAX_ASIDE` of each subject one by one."""
    set_aside: Counter[str] = msgspec.field(default_factory=Counter)
    """How many messages don't count, of the ``commits`` and of the ``inbox``; and
    whether the ``origin`` can't be had."""
    origin: "RunLog | None" = None
    """For a fork: the log with whose first events it begins, as `forks.attach` found it."""

    @property
    def forked(self) -> RunForked | None:
        """For a fork: the event that says so."""
        first = self.commits[0].events[0] if self.commits and self.commits[0].events else None
        return first if isinstance(first, RunForked) else None

    @property
    def shared(self) -> int:
        """How many events it shares with its origin."""
        return self.forked.origin.events if self.forked and self.origin else 0

    def events(self) -> Iterator[AnyEvent]:
        """Every event, those that a fork shares first."""
        if self.origin is not None:
            yield from islice(self.origin.events(), self.shared)
        for commit in self.commits:
            yield from commit.events

    def state(self, at: int | None = None) -> RunState:
        """The run, folded; after so many of its events, if it is said."""
        return fold(RunState(), islice(self.events(), at))

    def lineage(self) -> "Iterator[RunLog]":
        """This log, and those that it was forked from, the nearest first."""
        log: RunLog | None = self
        while log is not None:
            yield log
            log = log.origin

    def commands(self) -> list[Inbox]:
        """The inbox, as the rules take it."""
        return [Inbox(entry.hash, entry.message) for entry in self.inbox]


def assemble(run: str, commits: Iterable[Stored], inbox: Iterable[Stored]) -> RunLog:
    """Read the two subjects of a run, in stream order. Nothing that stands there makes it fail."""
    log = RunLog(run)
    extend(log, commits, inbox)
    return log


def extend(log: RunLog, commits: Iterable[Stored], inbox: Iterable[Stored]) -> None:
    """Add what has come since: the messages after ``log.head.seq`` and ``log.inbox_seq``."""
    with held_off():
        _take(log, commits, _take_commits, _take_commit)
        _take(log, inbox, _take_letters, _take_letter)


def _take(
    log: RunLog,
    messages: Iterable[Stored],
    together: Callable[[RunLog, list[Stored]], bool],
    alone: Callable[[RunLog, Stored], None],
) -> None:
    """Take messages more and more at a time, as long as there is nothing to say of any of them."""
    waiting, size = iter(messages), 1
    while batch := list(islice(waiting, size)):
        if together(log, batch):
            size = min(2 * size, MAX_TOGETHER)
            continue
        for stored in batch:
            alone(log, stored)
        size = 1


def _take_letters(log: RunLog, batch: list[Stored]) -> bool:
    """Take messages of the inbox, if all of them can be read and are for this run."""
    try:
        messages = [decode_message(stored.data) for stored in batch]
    except InvalidData:
        return False
    if any(message.run != log.run for message in messages):
        return False
    for stored, message in zip(batch, messages, strict=True):
        log.inbox.append(InboxEntry(stored.seq, digest(stored.data), message))
    log.inbox_seq = max(log.inbox_seq, *(stored.seq for stored in batch))
    return True


def _take_letter(log: RunLog, stored: Stored) -> None:
    entry = read_inbox(log.run, stored)
    if isinstance(entry, Aside):
        _set_aside(log, entry)
    else:
        log.inbox.append(entry)
    log.inbox_seq = max(log.inbox_seq, stored.seq)


def _take_commits(log: RunLog, batch: list[Stored]) -> bool:
    """Take commits, if each is the next one and of the same epoch: the rules of `stranger`."""
    try:
        commits = [decode_commit(stored.data) for stored in batch]
    except InvalidData:
        return False
    head, last = log.head, commits[-1]
    hashes = [digest(stored.data) for stored in batch]
    times = [commit.at for commit in commits]
    if (
        [commit.prev for commit in commits] != [head.hash, *hashes[:-1]]
        or [commit.n for commit in commits] != [*range(head.n + 1, head.n + 1 + len(batch))]
        or [head.at, *times] != sorted([head.at, *times])
        or {commit.epoch for commit in commits} != {head.epoch}
        or {commit.run for commit in commits} != {log.run}
        or RunActivated in set(map(type, chain.from_iterable(each.events for each in commits)))
    ):
        return False
    log.commits += commits
    log.seqs += [stored.seq for stored in batch]
    log.head = Head(last.n, hashes[-1], batch[-1].seq, last.epoch, last.at)
    return True


def _take_commit(log: RunLog, stored: Stored) -> None:
    head = log.head
    try:
        commit = decode_commit(stored.data)
        if not log.commits and stands_for_archived(commit):  # the commits before it are elsewhere
            head = Head(commit.n - 1, commit.prev, 0, commit.epoch, commit.at)
        why = stranger(log.run, commit, head)
    except InvalidData as error:
        commit, why = None, error.message
    if commit is None or why:
        log.head = head._replace(seq=stored.seq)
        _set_aside(log, Aside(stored.seq, "commits", why))
        return
    log.commits.append(commit)
    log.seqs.append(stored.seq)
    log.head = Head(commit.n, digest(stored.data), stored.seq, commit.epoch, commit.at)


def following(run: str, draft: Draft, head: Head) -> Commit:
    """The commit of what was decided, as the next of a run's log."""
    return Commit(
        run=run,
        n=head.n + 1,
        epoch=draft.state.epoch,
        at=draft.at,
        causes=tuple(draft.causes),
        events=tuple(draft.events),
        prev=head.hash,
    )


def stands_for_archived(commit: Commit) -> bool:
    """Whether this is the commit with which the log of an archived run begins."""
    match commit.events:
        case (Archived(head=head),):
            return commit.n > 1 and head == commit.prev
        case _:
            return False


def stranger(run: str, commit: Commit, head: Head) -> str:
    """Why a commit doesn't chain to the head, or "" if it does."""
    if commit.run != run:
        return f"a commit of run {commit.run!r}"
    if commit.n != head.n + 1:
        return f"commit {commit.n} where {head.n + 1} is next"
    if commit.prev != head.hash:
        return f"commit {commit.n} follows {commit.prev or 'nothing'}, not {head.hash or 'nothing'}"
    if commit.at < head.at:
        return f"commit {commit.n} is older than the one before it"
    epoch, rises = head.epoch, True
    for event in commit.events:
        if isinstance(event, RunActivated):
            rises = rises and event.epoch > head.epoch
            epoch = event.epoch
    if commit.epoch != epoch or not rises:
        return f"commit {commit.n} is of epoch {commit.epoch}, and the run is in epoch {head.epoch}"
    return ""


def read_inbox(run: str, stored: Stored) -> InboxEntry | Aside:
    """One message of the inbox, or why it is none."""
    try:
        message = decode_message(stored.data)
    except InvalidData as error:
        return Aside(stored.seq, "inbox", error.message)
    if message.run != run:
        return Aside(stored.seq, "inbox", f"a message for run {message.run!r}")
    return InboxEntry(stored.seq, digest(stored.data), message)


def _set_aside(log: RunLog, aside: Aside) -> None:
    log.set_aside[aside.where] += 1
    if log.set_aside[aside.where] <= MAX_ASIDE:
        log.aside.append(aside)


def hash_at(log: RunLog, n: int) -> str:
    """The hash of a counted commit, from 1; "" for one that the log doesn't have.

    Where the log begins with an `Archived` commit, the one before that is known, too.
    """
    base = archived_before(log)
    if not max(1, base) <= n <= log.head.n:
        return ""
    return log.head.hash if n == log.head.n else log.commits[n - base].prev


def end_of(log: RunLog) -> str:
    """The hash that a judgement of the run names: of its last commit, being archived apart."""
    last = log.commits[-1] if log.commits else None
    if last is not None and all(isinstance(event, Archived) for event in last.events):
        return last.prev
    return log.head.hash


def archived_before(log: RunLog) -> int:
    """Commits that are archived and stand in this log no more."""
    return log.commits[0].n - 1 if log.commits else 0


def purged_meanwhile(commits: list[Stored]) -> bool:
    """Whether the run was archived while its commits were read: the middle is not there."""
    if len(commits) < 2:
        return False
    try:
        last = decode_commit(commits[-1].data)
    except InvalidData:
        return False
    return stands_for_archived(last) and last.n > len(commits)


def lacks_inbox(log: RunLog) -> bool:
    """Whether a commit acted on an inbox message that was not read."""
    if archived_before(log):  # what it acted on is in the archive, too
        return False
    known = {entry.hash for entry in log.inbox}
    named = (cause for commit in log.commits for cause in commit.causes)
    return any(
        cause.startswith("inbox:") and cause.removeprefix("inbox:") not in known for cause in named
    )


Verdict: TypeAlias = Literal["done", "retry", "fenced"]


def verdict(mine: bytes, after: Head, tail: Stored | None) -> Verdict:
    """What became of an append that was refused or never answered.

    Args:
        mine: The bytes that were appended.
        after: The head that they were conditional on.
        tail: The subject's last message, read from the stream's leader afterwards.

    Returns:
        ``done`` if the tail is my commit; ``retry`` (with the identical bytes: the first copy may
        still be under way) if it is my predecessor; ``fenced`` for anything else.
    """
    if tail is None:
        return "retry" if after.seq == 0 else "fenced"
    if tail.data == mine:
        return "done"
    return "retry" if tail.seq == after.seq else "fenced"
