"""Whether a run's log is what was written, and whether today's code still reads it the same way.

::

    damage         hashes, gaps, order, fencing: from the bytes of the commits
    inbox_damage   what the commits name and the inbox no longer has
    blobs, origin  what stands elsewhere
    divergence     the rules and the prompts of today, on what is sound

Nothing here writes anything, and a damaged log makes nothing fail: that is what it is for.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from protocol.actions import Json
from protocol.codec import decode_commit, decode_value
from protocol.errors import InvalidData, NotFound
from replay.chain import Aside, Messages, RunLog
from replay.damage import MAX_NAMED, RESTORE, Decode, Known, damage
from replay.divergence import Prompts, decisions
from replay.family import joined
from replay.history import reports
from replay.inbox_damage import inbox_damage
from replay.log import EventLog
from replay.problems import Problem

Outcome: TypeAlias = Literal["sound", "damaged", "diverged", "newer"]
"""The worst of what was found; messages that were set aside leave a run sound."""


class LostBlob(NamedTuple):
    """A value that can't be had."""

    missing: bool
    """True if it isn't there, False if it isn't what it was."""
    why: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the verification of one run."""

    run: str
    commits: int
    """Commits that count."""
    events: int
    decided: int
    """Commits that were decided again."""
    prompts: int
    """Prompts that were rendered again."""
    problems: tuple[Problem, ...]
    """In the order of the log; the first ``damage.MAX_NAMED``."""
    more: int = 0
    """How many more there are."""

    @property
    def outcome(self) -> Outcome:
        """See `Outcome`."""
        kinds = {each.kind for each in self.problems}
        order: tuple[Outcome, ...] = ("damaged", "diverged", "newer")
        return next((each for each in order if each in kinds), "sound")


def verify(
    log: RunLog,
    messages: Messages,
    *,
    values: Mapping[str, Json],
    lost: Mapping[str, LostBlob] | None = None,
    kept: Known | None = None,
    prompts: Prompts | None = None,
    decode: Decode = decode_commit,
) -> Verified:
    """All that is wrong with a run. Pure.

    Args:
        log: The run as a reader has it; of a fork, with its origin.
        messages: The same, as the bytes that stand in the store.
        values: Of its reports, by hash, those in blobs included.
        lost: What is known of the values that can't be had, by the hash of the report.
        kept: The head that the run once had, if that is known from elsewhere.
        prompts: Prompts that were kept, by hash: then a divergence of one says where.
        decode: How bytes become a commit.
    """
    found = damage(log.run, messages, kept, decode)
    problems = [*found.problems, *inbox_damage(log.run, found, messages.inbox)]
    problems += [_blob(log.run, known, each) for known, each in (lost or {}).items()]
    unattached = [each for each in log.aside if each.where in ("origin", "archived")]
    problems += [_origin(log.run, each) for each in unattached]
    if found.archived:
        problems.append(_archived(log.run, found.archived))
    sound = 0 if unattached or found.archived else found.sound
    undone = ("inbox_removed", "inbox_changed", "unknown_message")
    skip = {each.commit for each in problems if each.what in undone}
    again = decisions(log, values, sound=sound, skip=skip, prompts=prompts)
    problems += again.problems
    problems.sort(key=lambda each: each.kind == "aside")
    return Verified(
        run=log.run,
        commits=log.head.n,
        events=sum(len(commit.events) for commit in log.commits),
        decided=again.commits,
        prompts=again.prompts,
        problems=tuple(problems[:MAX_NAMED]),
        more=max(0, len(problems) - MAX_NAMED),
    )


def _blob(run: str, known: str, lost: LostBlob) -> Problem:
    return Problem(
        run=run,
        kind="damaged",
        what="blob_removed" if lost.missing else "blob_changed",
        where=f"the value of report {known}",
        expected="the blob that it names",
        found=lost.why,
        likely=f"its blob was removed from the store or changed in it; {RESTORE}",
    )


def _origin(run: str, aside: Aside) -> Problem:
    archived = aside.where == "archived"
    return Problem(
        run=run,
        kind="aside" if archived else "damaged",
        what="archived" if archived else "origin",
        where="what the fork shares",
        expected="the events with which it begins, in the log that it was forked from",
        found=aside.why,
        likely="this archive is not read here, so the fork could not be decided again"
        if archived
        else "that log was damaged, cut or removed, not this one: verify it, too; without it "
        "this one can't be decided again",
    )


def _archived(run: str, where: str) -> Problem:
    return Problem(
        run=run,
        kind="aside",
        what="archived",
        where="all but its end",
        expected="the run from its first commit on",
        found=f"the commit that stands for what is archived in {where}",
        likely="this archive is not read here, so only the end could be checked",
    )


# ----------------------------------------------------------------------------------------- the edge


async def verify_run(log: EventLog, run: str, kept: Known | None = None) -> Verified:
    """Read a run and verify it.

    Args:
        log: Where it stands.
        run: Its id.
        kept: A head that it is known to have had *before* this is called.

    Raises:
        NotFound: The log has no place for such a run, and never had as far as is known. One that
            was never begun has no commits, and no problem.
        Unreachable: No answer in time.
    """
    try:
        messages = await log.stored(run, kept.n if kept else 0)
    except NotFound:
        if kept is None:
            raise
        messages = Messages([], [])  # its whole shard is gone

    whole = await joined(log, run, messages)
    values, lost = await values_of(log, whole)
    return verify(whole, messages, values=values, lost=lost, kept=kept)


async def values_of(log: EventLog, whole: RunLog) -> tuple[dict[str, Json], dict[str, LostBlob]]:
    """The values of a run's reports, by hash, and those that can't be had though they count."""
    state = whole.state()
    counted = {known for call in state.calls.values() for known in (*call.noted, call.report)}
    values: dict[str, Json] = {}
    lost: dict[str, LostBlob] = {}
    for known, report in reports(whole).items():
        if report.blob is None:
            values[known] = report.value
        elif known in counted:
            try:
                values[known] = decode_value(await log.get_blob(report.blob))
            except (NotFound, InvalidData) as error:
                lost[known] = LostBlob(isinstance(error, NotFound), error.message)
    return values, lost


__all__ = [
    "Known",
    "LostBlob",
    "Outcome",
    "Problem",
    "Verified",
    "values_of",
    "verify",
    "verify_run",
]
