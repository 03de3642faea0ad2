"""Live log to archive: write, read back, commit, purge. Each step can be the last, and be repeated.

For a batch of ended runs, in this order:

1. write their messages and blobs, as far as they are not in the archive yet, and read the files
   back: their hash has to be the same;
2. write the batch's manifest, which makes all of that count;
3. read every run from the archive alone, and compare: each message, and the head that the chain
   leads to;
4. append each run's `Archived` commit, conditional as every append: a conductor that is at work on
   it is never written over;
5. remove the run's commits before that one, and what was archived of its inbox.

Whatever is cut short stands in both places, where readers see it once. The next round takes it up:
what is archived already isn't written again, and a run whose commit is in is only trimmed.
"""

import asyncio
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import file_digest
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from protocol.actions import BlobRef
from protocol.codec import decode_commit, digest
from protocol.commands import Archive
from protocol.errors import UNREAD, Fenced, InvalidData, NotFound, PodiumError
from protocol.run import step
from replay.archive.blobs import GRACE_MS, READS_AT_ONCE, free
from replay.archive.folder import damaged
from replay.archive.keeper import Keeper
from replay.archive.manifest import (
    MANIFESTS,
    NAME_CHARS,
    Manifest,
    Named,
    Part,
    Place,
    Segment,
    decode,
    encode,
)
from replay.archive.segments import Span, write_blobs, write_messages
from replay.archive.shelf import ArchiveShelf
from replay.bundle import named_blobs
from replay.chain import (
    Head,
    Messages,
    RunLog,
    Stored,
    archived_before,
    assemble,
    following,
    hash_at,
    stands_for_archived,
)
from replay.family import joined, prefixes
from replay.layered import LayeredLog
from replay.log import EventLog
from replay.scrub import KeptHead, Ledger, compare
from replay.shelf import NONE, Shelf, merged

logger = logging.getLogger("podium.archive")

BATCH_RUNS: Final = 500
"""Runs of one batch: few enough that little is repeated after a crash."""

BATCH_BYTES: Final = 128 * 2**20
"""Bytes of the messages of one batch's runs, those that are archived already included: all are held
in memory. A single run may have more."""

Done: TypeAlias = Literal["archived", "added", "copied", "skipped"]
"""``added``: what came later of a run that was archived before. ``copied``: it also stays."""


class Outcome(NamedTuple):
    """What became of a run."""

    run: str
    done: Done
    why: str = ""
    """Of a run that was skipped."""
    messages: int = 0
    """Messages that were written."""
    blobs: int = 0
    """Blobs that were written."""
    error: PodiumError | None = None
    """Of a run that was skipped since what is there of it can't be read."""

    @property
    def idle(self) -> bool:
        """Whether everything was there already."""
        return self.done == "added" and not self.messages


class Ended(NamedTuple):
    """A run that could be archived."""

    run: str
    at: int
    """When it ended, milliseconds since the epoch; 0 for one of which something is archived."""


class _Plan(NamedTuple):
    """A run as it is to be archived."""

    run: str
    live: RunLog
    """As the live log has it."""
    stored: Messages
    whole: RunLog
    """Both places together."""
    new: Messages
    """What is not in the archive yet."""
    blobs: dict[str, BlobRef]
    """The same of the blobs."""
    shared: dict[str, Messages]
    """And of what it shares with the runs that it was forked from, by run."""
    weight: int
    """Bytes of all its messages, and of what it shares."""

    @property
    def size(self) -> int:
        """Messages that are not in the archive yet."""
        return len(self.new.commits) + len(self.new.inbox)


class _Skip(Exception):
    """A run that can't be archived now; its text says why."""


class Archiver:
    """Moves runs into an archive.

    Args:
        log: The live log, on a connection with a conductor's rights.
        ledger: Its kept heads: a log that was cut is not archived as if it were whole.
        keeper: What removes messages.
        shelf: The archive.
        clock: Milliseconds since the epoch.
        others: Where else a run may be that another was forked from: what a fork shares is taken
            from there into the archive.
    """

    def __init__(
        self,
        log: EventLog,
        ledger: Ledger,
        keeper: Keeper,
        shelf: ArchiveShelf,
        clock: Callable[[], int],
        others: Sequence[Shelf] = (),
    ) -> None:
        self.log, self.ledger, self.keeper, self.shelf = log, ledger, keeper, shelf
        self.all = LayeredLog(log, [shelf, *others])
        self._clock = clock

    # --------------------------------------------------------------------------------------- which

    async def ended(self, before: int | None = None) -> list[Ended]:
        """The runs that could be archived, the oldest first. Reads every run.

        Args:
            before: Only those that ended before, milliseconds since the epoch; None for all.
        """
        spoken_to = await self.keeper.spoken_to()
        gate = asyncio.Semaphore(READS_AT_ONCE)

        async def one(run: str) -> Ended | None:
            async with gate:
                log = await self.log.read(run)
                if log.set_aside["origin"]:
                    with suppress(*UNREAD):  # it stays, and whoever archives it is told why
                        log = await self.all.read(run)
            if not log.commits or log.state().phase != "ended":
                return None
            if log.commits[0].n > 1:
                return Ended(run, 0) if run in spoken_to else None
            at = log.state().ended_at
            return Ended(run, at) if before is None or at < before else None

        found = await asyncio.gather(*(one(run) for run in await self.log.runs()))
        return sorted((each for each in found if each), key=lambda each: (each.at, each.run))

    # --------------------------------------------------------------------------------------- batch

    async def archive(self, runs: Sequence[str], *, keep: bool = False) -> list[Outcome]:
        """Archive runs, batch by batch.

        Args:
            runs: Their ids.
            keep: Whether they also stay where they are.

        Raises:
            InvalidData: What was written could not be read back; nothing was removed.
            Unreachable, Denied, Busy: Either side does not answer; doing it again goes on.
        """
        await asyncio.to_thread(self.shelf.refresh)
        kept = {run: each.head for run, each in (await self.ledger.kept()).items()}
        outcomes: list[Outcome] = []
        batch: list[_Plan] = []
        size = 0
        for run in runs:
            plan = await self._plan(run, kept.get(run))
            if isinstance(plan, Outcome):
                outcomes.append(plan)
                continue
            batch.append(plan)
            size += plan.weight
            if len(batch) >= BATCH_RUNS or size >= BATCH_BYTES:
                outcomes += await self._archive(batch, keep)
                batch, size = [], 0
        if batch:
            outcomes += await self._archive(batch, keep)
        return outcomes

    async def look(self, runs: Sequence[str]) -> list[Outcome]:
        """What `archive` would do, without doing it."""
        await asyncio.to_thread(self.shelf.refresh)
        kept = {run: each.head for run, each in (await self.ledger.kept()).items()}
        found: list[Outcome] = []
        for run in runs:
            plan = await self._plan(run, kept.get(run))
            if isinstance(plan, Outcome):
                found.append(plan)
                continue
            done: Done = "added" if plan.whole.state().archived else "archived"
            found.append(Outcome(run, done, "", plan.size, len(plan.blobs)))
        return found

    async def free(self) -> int:
        """Remove blobs that only archived runs name; how many went. See `replay.archive.blobs`."""
        return await free(self.log, self.all, self.keeper, self.shelf, self._clock() - GRACE_MS)

    async def _plan(self, run: str, kept: KeptHead | None) -> _Plan | Outcome:
        """Read a run and see that it may be archived; else it is skipped."""
        try:
            return await self._read(run, kept)
        except _Skip as skip:
            return Outcome(run, "skipped", str(skip))
        except UNREAD as error:  # a damaged file keeps no other run from being archived
            return Outcome(run, "skipped", error.message, error=error)

    async def _read(self, run: str, kept: KeptHead | None) -> _Plan:
        stored = await self.log.stored(run)
        live = assemble(run, *stored)
        if not live.commits:
            raise _Skip("it has no commits here")
        for finding in compare(live, kept):
            if finding.kind != "foreign":
                raise _Skip(f"its log is {finding.kind}: {finding.detail}")
        there = await self._there(run)
        both = merged([there, stored])
        whole = await joined(self.all, run, both)
        if archived_before(whole):
            raise _Skip(f"it is archived already, elsewhere: {live.state().archived}")
        if whole.set_aside["origin"]:
            why = f"what it shares can't be had: {whole.aside[-1].why}"
            raise NotFound(why, hint=f"see what is wrong: podium verify {run}")
        if whole.state().phase != "ended":
            raise _Skip("it has not ended")
        tail = await self.log.tail(run)
        if tail is None or tail.seq != live.head.seq:
            raise _Skip("somebody is writing to it")
        if await self.keeper.queued(run):
            raise _Skip("a conductor has it, or will get it")
        new = _missing(stored, there)
        named = named_blobs(whole)
        shared: dict[str, Messages] = {}
        weight = _bytes(both)
        for origin, part in (await prefixes(self.all, whole)).items():
            weight += _bytes(part)
            named |= named_blobs(assemble(origin, *part))
            shared[origin] = _missing(part, await self._there(origin))
        known = self.shelf.index.blobs.keys() | self.shelf.index.lost
        blobs = {sha: ref for sha, ref in named.items() if sha not in known}
        return _Plan(run, live, stored, whole, new, blobs, shared, weight)

    async def _there(self, run: str) -> Messages:
        return await asyncio.to_thread(self.shelf.get, run) if self.shelf.has(run) else NONE

    async def _archive(self, batch: list[_Plan], keep: bool) -> list[Outcome]:
        await self._write(batch)
        for plan in batch:
            await self._read_back(plan)
        return [await self._finish(plan, keep) for plan in batch]

    # --------------------------------------------------------------------------------------- write

    async def _write(self, batch: list[_Plan]) -> None:
        """Segments, then the manifest; nothing where there is nothing that isn't there."""
        new = {plan.run: plan.new for plan in batch if plan.new.commits or plan.new.inbox}
        shared = _shared(batch)
        named = {sha: ref for plan in batch for sha, ref in plan.blobs.items()}
        new |= shared
        if not new and not named:
            return
        with tempfile.TemporaryDirectory(prefix="podium-archive-") as name:
            work = Path(name)
            segments: list[Segment] = []
            runs: dict[str, Part] = {}
            if new:
                path = work / "messages"
                spans, rows = await asyncio.to_thread(write_messages, path, new)
                segments.append(await asyncio.to_thread(self._put, path, "segments", rows))
                whole = {plan.run: plan.whole for plan in batch}
                for run in new:
                    log = whole.get(run) or await self.all.read(run)
                    runs[run] = _part(segments[0].name, spans[run], new[run], log, run in shared)
            places, lost = await self._write_blobs(work, named, segments)
            manifest = Manifest(
                at=self._clock(),
                previous=self.shelf.index.heads(),
                segments=tuple(segments),
                runs=runs,
                blobs=places,
                lost=tuple(lost),
            )
            for segment in segments:
                await asyncio.to_thread(self._compare, segment)
            self.shelf.add(await asyncio.to_thread(self._put_manifest, work, manifest))

    async def _write_blobs(
        self, work: Path, named: dict[str, BlobRef], segments: list[Segment]
    ) -> tuple[dict[str, Place], list[str]]:
        """Fetch the blobs, one by one, and write their table."""
        lost: list[str] = []
        here: list[str] = []
        for sha in sorted(named):
            try:
                data = await self.all.get_blob(named[sha])
            except (NotFound, InvalidData) as error:
                logger.error("archived without a blob: %s", error.message)
                lost.append(sha)
                continue
            (work / sha).write_bytes(data)
            here.append(sha)
        if not here:
            return {}, lost

        def blobs() -> Iterator[tuple[str, bytes]]:
            for sha in here:
                yield sha, (work / sha).read_bytes()

        path = work / "blobs"
        groups, rows = await asyncio.to_thread(write_blobs, path, blobs())
        segments.append(await asyncio.to_thread(self._put, path, "blobs", rows))
        name = segments[-1].name
        return {sha: Place(name, groups[sha], named[sha].size) for sha in here}, lost

    def _put(self, path: Path, below: str, rows: int) -> Segment:
        """Put a file into the archive, under its hash."""
        with path.open("rb") as file:
            known = file_digest(file, "sha256").hexdigest()
        name = f"{below}/{known[:NAME_CHARS]}.parquet"
        self.shelf.folder.put(name, path)
        return Segment(name=name, sha256=known, size=path.stat().st_size, rows=rows)

    def _compare(self, segment: Segment) -> None:
        """See that a segment stands there as it was written."""
        with self.shelf.folder.open(segment.name) as file:
            known = file_digest(file, "sha256").hexdigest()
        if known != segment.sha256:
            where = self.shelf.folder.url_of(segment.name)
            raise damaged(where, "it was read back with other bytes than were written")

    def _put_manifest(self, work: Path, manifest: Manifest) -> Named:
        folder = self.shelf.folder
        name, data = encode(manifest, folder.names(MANIFESTS))
        path = work / "manifest"
        path.write_bytes(data)
        folder.put(f"{MANIFESTS}/{name}", path)
        return decode(name, folder.read(f"{MANIFESTS}/{name}"), folder.url)

    async def _read_back(self, plan: _Plan) -> None:
        """See that the archive alone has all that the live log has of a run."""
        there = await asyncio.to_thread(self.shelf.get, plan.run)
        missing = _missing(plan.stored, there)
        expected = _archived_head(plan.whole)
        log = await joined(LayeredLog(None, [self.shelf]), plan.run, there)
        head = log.head
        if log.set_aside["origin"]:
            raise damaged(self.shelf.name, log.aside[-1].why)
        if missing.commits or missing.inbox or (head.n, head.hash) != (expected.n, expected.hash):
            raise damaged(
                self.shelf.name,
                f"run {plan.run} was read back as far as commit {head.n} ({head.hash}), with "
                f"{len(missing.commits)} commits and {len(missing.inbox)} inbox messages less; "
                f"it has {expected.n} ({expected.hash})",
            )

    # -------------------------------------------------------------------------------------- finish

    async def _finish(self, plan: _Plan, keep: bool) -> Outcome:
        """Commit that the run is archived, and remove what is."""
        before = bool(plan.whole.state().archived)
        if keep:
            return Outcome(plan.run, "copied", "", plan.size, len(plan.blobs))
        seq = plan.live.seqs[-1]
        if not before:
            try:
                seq = (await self._append(plan)).seq
            except Fenced:
                return Outcome(plan.run, "skipped", "somebody is writing to it")
        await self.keeper.trim(plan.run, "c", seq)
        if plan.stored.inbox:
            await self.keeper.trim(plan.run, "i", plan.stored.inbox[-1].seq + 1)
        return Outcome(plan.run, "added" if before else "archived", "", plan.size, len(plan.blobs))

    async def _append(self, plan: _Plan) -> Head:
        """The run's last commit, by the rules as every other one."""
        log = plan.live
        where = f"{MANIFESTS}/{self.shelf.index.holder(plan.run)}"
        command = Archive(self.shelf.folder.url_of(where), log.head.hash)
        at = max(self._clock(), log.head.at)
        draft = step(plan.whole.state(), [command], at)
        return await self.log.append(following(plan.run, draft, log.head), log.head)


def _bytes(messages: Messages) -> int:
    return sum(len(each.data) for part in messages for each in part)


def _shared(batch: Iterable[_Plan]) -> dict[str, Messages]:
    """What the forks of a batch share with runs that are not in it."""
    found: dict[str, Messages] = {}
    plans = list(batch)
    inside = {plan.run for plan in plans}
    for plan in plans:
        for origin, part in plan.shared.items():
            if origin not in inside and (part.commits or part.inbox):
                found[origin] = merged([found[origin], part]) if origin in found else part
    return found


def _part(segment: str, span: Span, new: Messages, whole: RunLog, prefix: bool) -> Part:
    head = Head()
    if new.commits:
        head = _last(new, whole) if prefix else _archived_head(whole)
    seqs = [each.seq for each in (*new.commits, *new.inbox)]
    return Part(
        segment=segment,
        first=span.first,
        last=span.last,
        commits=len(new.commits),
        inbox=len(new.inbox),
        n=head.n,
        hash=head.hash,
        seqs=(min(seqs), max(seqs)),
        prefix=prefix,
    )


def _last(new: Messages, whole: RunLog) -> Head:
    """The last of some commits of a run."""
    n = max(decode_commit(each.data).n for each in new.commits)
    return Head(n, hash_at(whole, n))


def _archived_head(log: RunLog) -> Head:
    """The last commit that belongs into the archive: not the one that says that it is there."""
    last = log.commits[-1]
    if stands_for_archived(last):
        return Head(last.n - 1, last.prev)
    return Head(log.head.n, log.head.hash)


def _missing(stored: Messages, there: Messages) -> Messages:
    """The messages that are not in the archive and belong there."""
    commits = {digest(each.data) for each in there.commits}
    inbox = {(each.seq, digest(each.data)) for each in there.inbox}
    return merged(
        [
            Messages(
                [
                    each
                    for each in stored.commits
                    if digest(each.data) not in commits and not _says_archived(each)
                ],
                [each for each in stored.inbox if (each.seq, digest(each.data)) not in inbox],
            )
        ]
    )


def _says_archived(stored: Stored) -> bool:
    try:
        return stands_for_archived(decode_commit(stored.data))
    except InvalidData:
        return False
