"""Logs for tests: those of runs that were driven in memory, as a reader would have them."""

from protocol.codec import Commit, digest, encode
from protocol.commands import Inbox
from replay.chain import Head, InboxEntry, RunLog
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
