"""Logs for tests: those of runs that were driven in memory, as a reader would have them."""

from collections.abc import Iterable

import msgspec

from protocol.codec import Commit, digest, encode
from protocol.commands import Inbox
from replay.chain import Head, InboxEntry, Messages, RunLog, Stored, assemble
from tests.runs import Driver


def log_of(driver: Driver) -> RunLog:
    """The driver's run as a log."""
    log = RunLog(driver.state.run)
    for _, commands, draft in driver.steps:
        for command in commands:
            if isinstance(command, Inbox):
                seq = len(log.inbox) + 1
                log.inbox.append(InboxEntry(seq, command.hash, command.message))
        if not draft.events:
            continue
        commit = Commit(
            run=log.run,
            n=log.head.n + 1,
            epoch=draft.state.epoch,
            at=draft.at,
            causes=tuple(draft.causes),
            events=tuple(draft.events),
            prev=log.head.hash,
        )
        log.commits.append(commit)
        log.head = Head(commit.n, digest(encode(commit)), commit.n, commit.epoch, commit.at)
    return log


def messages_of(log: RunLog) -> Messages:
    """The bytes of a log, as a store would have them: commits and inbox on one stream."""
    inbox = [Stored(10 * entry.seq, encode(entry.message)) for entry in log.inbox]
    commits = [Stored(10 * commit.n + 5, encode(commit)) for commit in log.commits]
    return Messages(commits, inbox)


def chained(commits: Iterable[Commit]) -> list[Commit]:
    """The commits, each made to follow the one before: for a log that is altered consistently."""
    found: list[Commit] = []
    prev = ""
    for n, commit in enumerate(commits, 1):
        found.append(msgspec.structs.replace(commit, n=n, prev=prev))
        prev = digest(encode(found[-1]))
    return found


def relinked(log: RunLog, commits: Iterable[Commit]) -> RunLog:
    """The log with other commits, chained anew."""
    return assemble(log.run, *messages_of(RunLog(log.run, chained(commits), inbox=log.inbox)))
