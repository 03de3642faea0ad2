"""Build a data set: read what is new, plan all of it, write what has changed.

The plan is a pure function of the facts of all runs, and the files are a function of the plan. What
was written before is kept as far as it is what the plan says, and written anew from there on. So
the same log gives the same bytes in one go, in pieces, and after a crash at any point.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing, closing, nullcontext
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from protocol.errors import UNREAD, Conflict, PodiumError
from replay.disk import raise_fault
from trainer.advantages import scheme
from trainer.datasets import formats, manifest
from trainer.datasets.chat import Chat
from trainer.datasets.facts import Facts, Score, facts
from trainer.datasets.made import Made, make
from trainer.datasets.manifest import File, Log, Manifest, Part
from trainer.datasets.parts import DATA, Folder
from trainer.datasets.plan import Planned, Unit, plan
from trainer.datasets.scoring import scorer
from trainer.datasets.sorting import Sorted
from trainer.datasets.source import Read, Source
from trainer.datasets.spec import PART_BYTES, Spec
from trainer.records import Rollout

READS_AT_ONCE: Final = 16
"""Runs, or units, that are read at the same time: enough to hide the round trips to a broker, few
enough to be held in memory."""

Progress = Callable[[str, int, int], None]
"""Told what is done: ``reading`` or ``writing``, how many of how many."""


class Built(msgspec.Struct, frozen=True):
    """What came of a build."""

    manifest: Manifest
    read: int
    """Runs that were read for their facts."""
    written: int
    """Parts that were written; 0 where nothing was new."""
    unread: dict[str, PodiumError]
    """Runs that could not be read, and why: none of them is in the data set."""


async def build(
    source: Source,
    folder: Path,
    spec: Spec,
    *,
    chat: Chat | None = None,
    fresh: bool = False,
    recheck: bool = False,
    dry_run: bool = False,
    podium: str = "",
    progress: Progress = lambda _what, _done, _of: None,
) -> Built:
    """Build a data set, or bring one up to date.

    Args:
        source: Where the runs are.
        folder: Where it goes.
        spec: What it is.
        chat: What renders messages; by default the tokenizer that the spec names.
        fresh: Whether what is in the folder is replaced, whatever it is.
        recheck: Whether runs that were read before are read again, for late rewards and labels.
        dry_run: Whether nothing is written: the manifest then has counts and no parts.
        podium: The version of Podium.
        progress: Told how far it is.

    Raises:
        Conflict: The folder holds another data set; somebody else builds in it; a run that has to
            be written again is worth something else by now; there are stale rollouts, and the spec
            wants that to be an error.
        Usage: The format has no rows of that kind; there is no such reward or scheme.
        NotFound, InvalidData: The tokenizer can't be read.
        NotFound, InvalidData, Denied, DiskFault: A run that has to be written again can't be read;
            or what is in the folder can't.
    """
    formats.module(spec)
    if chat is None and spec.tokenizer:
        chat = Chat.load(Path(spec.tokenizer), spec.template_values)
    place = Folder(folder)
    with nullcontext() if dry_run else place.held():
        before = None if fresh else manifest.read(folder)
        known_spec = recorded_spec(spec, chat)
        if before is not None:
            _same(before.spec, known_spec, folder)
        score = scorer(spec.reward, spec.progress)
        builder = _Builder(source, place, known_spec, score, chat, podium, progress)
        return await builder.build(before, recheck, dry_run)


def recorded_spec(spec: Spec, chat: Chat | None) -> Spec:
    """The spec as the manifest has it: the tokenizer by its hash, wherever its folder is."""
    hashed = f"{chat.tokenizer_hash}/{chat.template_hash}" if chat is not None else ""
    return msgspec.structs.replace(spec, tokenizer=hashed)


def _same(before: Spec, now: Spec, folder: Path) -> None:
    """Raise `Conflict` unless a folder's data set is the one that is asked for."""
    ours, theirs = msgspec.to_builtins(now), msgspec.to_builtins(before)
    if ours == theirs:
        return
    names = sorted(name for name in ours if ours[name] != theirs.get(name))
    raise Conflict(
        f"{folder} holds another data set: it differs in {', '.join(names)}",
        hint="name another folder with --out, or replace it: --fresh",
    )


class _ToWrite(NamedTuple):
    """A unit, and its rows; None where none of its runs is kept."""

    unit: Unit
    made: Made | None


class _Looked(NamedTuple):
    """The runs that were looked at, for the manifest."""

    log: Log
    redaction: dict[str, int]


class _Builder:
    def __init__(
        self,
        source: Source,
        folder: Folder,
        spec: Spec,
        score: Score,
        chat: Chat | None,
        podium: str,
        progress: Progress,
    ) -> None:
        self._source, self._folder, self._spec = source, folder, spec
        self._score, self._chat = score, chat
        self._scheme = scheme(spec.rl.advantages)
        self._podium, self._progress = podium, progress
        self._suffix: str = formats.module(spec).SUFFIX
        self._read = 0
        self._unread: dict[str, PodiumError] = {}

    async def build(self, before: Manifest | None, recheck: bool, dry_run: bool) -> Built:
        """See `build`."""
        every = await self._facts(None if recheck else before)
        looked = _looked(every)
        units = plan(every, self._spec)
        if dry_run:
            return Built(self._would(looked, units), self._read, 0, self._unread)
        kept, done = _agreeing(self._folder, before, units)
        parts = list(kept)
        async with aclosing(self._parts(units, done, len(kept))) as writing:
            async for part in writing:
                parts.append(part)
                self._folder.commit(self._manifest(parts, looked, complete=False))
        found = self._manifest(parts, looked, complete=True)
        if found != before or len(parts) > len(kept):
            self._folder.commit(found)
        self._folder.sweep(found)
        return Built(found, self._read, len(parts) - len(kept), self._unread)

    # ------------------------------------------------------------------------------- first pass

    async def _facts(self, before: Manifest | None) -> Sorted[Facts]:
        """The facts of all runs, by run; those that ended and are known are not read again."""
        known, found = Sorted(Facts, 1), Sorted(Facts, 1)
        for part in before.parts if before else ():
            for _, verdicts in self._folder.ledger(part.ledger):
                for each in verdicts:
                    if each.facts.ended:
                        known.add((each.facts.run,), each.facts)
        fresh = list(_without(await self._source.runs(), known, found))
        for begin in range(0, len(fresh), READS_AT_ONCE):
            self._progress("reading", begin, len(fresh))
            some = fresh[begin : begin + READS_AT_ONCE]
            for read in await asyncio.gather(*(self._one(run) for run in some)):
                if read is not None:
                    found.add((read.run,), read)
        return found

    async def _one(self, run: str) -> Facts | None:
        try:
            read = await self._source.read(run)
            if read is None:
                return None
            found = facts(read.rollout, read.ended, read.redact, self._spec, self._score)
        except UNREAD as error:
            self._unread[run] = error
            return None
        self._read += 1
        return found

    # ------------------------------------------------------------------------------ second pass

    async def _parts(self, units: Planned, done: int, number: int) -> AsyncGenerator[Part, None]:
        """Write the units from one on, part by part."""
        async with aclosing(self._ahead(islice(units, done, None))) as ahead:
            while done < len(units):
                part = await self._part(len(units), done, number, ahead)
                done, number = done + part.units, number + 1
                yield part

    async def _ahead(self, units: Iterator[Unit]) -> AsyncGenerator[_ToWrite, None]:
        """What is to be written of each unit; the next ones are read meanwhile."""
        waiting: deque[tuple[Unit, asyncio.Task[Made | None]]] = deque()
        try:
            for unit in units:
                waiting.append((unit, asyncio.create_task(self._made(unit))))
                if len(waiting) >= READS_AT_ONCE:
                    first, task = waiting.popleft()
                    yield _ToWrite(first, await task)
            while waiting:
                first, task = waiting.popleft()
                yield _ToWrite(first, await task)
        finally:
            for _, task in waiting:
                task.cancel()

    async def _made(self, unit: Unit) -> Made | None:
        if not unit.kept:
            return None
        rollouts: dict[str, Rollout] = {}
        parts: dict[str, dict[str, float]] = {}
        for each in unit.kept:
            read = await self._again(each.run)
            if read is None or read.rollout.head != each.head:
                raise Conflict(
                    f"run {each.run} has changed since it was looked at",
                    hint="build again with --recheck",
                )
            scored = self._score(read.rollout)
            if (scored.reward, scored.accuracy) != (each.reward, each.accuracy):
                raise Conflict(
                    f"run {each.run} is worth something else since it was looked at",
                    hint="build again with --recheck",
                )
            rollouts[each.run], parts[each.run] = read.rollout, scored.parts
        made = make(unit, rollouts, self._spec, self._chat, self._scheme, parts)
        if self._spec.format == "atif":
            made.kept = [
                replace(kept, trajectory=await self._source.trajectory(kept.rollout.run))
                for kept in made.kept
            ]
        return made

    async def _again(self, run: str) -> Read | None:
        """A run whose facts are known. One that can't be read any more is not lost in silence."""
        try:
            return await self._source.read(run)
        except UNREAD as error:
            raise type(error)(
                f"run {run} has to be written again and can't be read: {error.whole()}",
                hint="restore it, or build again without it: --recheck",
            ) from None

    async def _part(self, of: int, begin: int, number: int, ahead: AsyncIterator[_ToWrite]) -> Part:
        """Write one part; it ends with the unit that fills it."""
        tally = _Tally()
        some: list[Unit] = []
        full = False
        with self._folder.begin(DATA, number, self._suffix) as draft:
            with closing(formats.writer(draft.file, self._spec)) as writer:
                while begin + len(some) < of and not full:
                    self._progress("writing", begin + len(some), of)
                    unit, made = await anext(ahead)
                    if made is not None:
                        writer.add(made)
                    tally.take(unit, made)
                    some.append(unit)
                    largest = max(writer.rows, tally.runs)
                    full = largest >= self._spec.part_rows or writer.bytes >= PART_BYTES
            data = draft.finish(writer.rows)
        ledger = self._folder.write_ledger(number, [(unit.key, unit.verdicts) for unit in some])
        return tally.part(data, ledger, full=full, units=len(some))

    # ---------------------------------------------------------------------------------- manifest

    def _manifest(self, parts: list[Part], looked: _Looked, *, complete: bool) -> Manifest:
        return Manifest(
            format=manifest.FORMAT,
            complete=complete,
            spec=self._spec,
            log=looked.log,
            versions=_total(part.versions for part in parts),
            tokenizers=_total(part.tokenizers for part in parts),
            redaction=looked.redaction,
            verdicts=_total(part.verdicts for part in parts),
            notes=_total(part.notes for part in parts),
            rows=sum(part.data.rows for part in parts),
            tokens=sum(part.tokens for part in parts),
            trained=sum(part.trained for part in parts),
            parts=tuple(parts),
            made_with={"podium": self._podium, "pyarrow": pa.__version__},
        )

    def _would(self, looked: _Looked, units: Planned) -> Manifest:
        tally = _Tally()
        for unit in units:
            tally.take(unit, None)
        return msgspec.structs.replace(
            self._manifest([], looked, complete=False),
            verdicts=dict(sorted(tally.verdicts.items())),
            versions=dict(sorted(tally.versions.items())),
        )


class _Tally:
    """What is counted of a part."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.tokenizers: Counter[str] = Counter()
        self.runs = self.tokens = self.trained = 0

    def take(self, unit: Unit, made: Made | None) -> None:
        """A unit, and what was written of it."""
        self.runs += len(unit.verdicts)
        self.verdicts.update(each.why for each in unit.verdicts)
        for each in unit.kept:
            self.versions.update(each.versions)
        if made is None:
            return
        self.notes.update(made.notes)
        for sample in made.samples:
            self.tokens += len(sample.ids)
            self.trained += int(np.count_nonzero(sample.mask))
            if len(sample.ids):
                self.tokenizers[f"{sample.tokenizer}/{sample.template}"] += 1

    def part(self, data: File, ledger: File, *, full: bool, units: int) -> Part:
        """The part's line in the manifest."""
        return Part(
            data=data,
            ledger=ledger,
            full=full,
            units=units,
            tokens=self.tokens,
            trained=self.trained,
            versions=dict(sorted(self.versions.items())),
            tokenizers=dict(sorted(self.tokenizers.items())),
            verdicts=dict(sorted(self.verdicts.items())),
            notes=dict(sorted(self.notes.items())),
        )


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for each in counts:
        found.update(each)
    return dict(sorted(found.items()))


def _without(runs: Iterable[str], known: Sorted[Facts], found: Sorted[Facts]) -> Iterator[str]:
    """Those of some runs, sorted, that are not known; the others' facts go to what is found."""
    facts = iter(known)
    ahead = next(facts, None)
    for run in runs:
        while ahead is not None and ahead.run < run:
            ahead = next(facts, None)
        if ahead is not None and ahead.run == run:
            found.add((run,), ahead)
        else:
            yield run


def _looked(every: Iterable[Facts]) -> _Looked:
    """What the manifest says of the runs that were looked at, given by run."""
    heads = sha256()
    redaction: Counter[str] = Counter()
    runs = first = last = events = goes_on = 0
    for each in every:
        heads.update(f"{each.run} {each.head} {each.said}\n".encode())
        redaction[each.redact or "none"] += 1
        first = min(first, each.began) if runs else each.began
        last = max(last, each.ended)
        runs, events, goes_on = runs + 1, events + each.events, goes_on + (not each.ended)
    log = Log(
        runs=runs, first=first, last=last, heads=heads.hexdigest(), events=events, open=goes_on
    )
    return _Looked(log, dict(sorted(redaction.items())))


def _agreeing(folder: Folder, before: Manifest | None, units: Planned) -> tuple[list[Part], int]:
    """The parts that are what the plan says, and how many units they hold."""
    kept: list[Part] = []
    done = 0
    planned = iter(units)
    for part in before.parts if before else ():
        end = done + part.units
        said = [(unit.key, unit.verdicts) for unit in islice(planned, part.units)]
        if said != folder.ledger(part.ledger) or not (part.full or end == len(units)):
            break
        if not all(_there(folder.path, file) for file in (part.data, part.ledger)):
            break
        kept.append(part)
        done = end
    return kept, done


def _there(folder: Path, file: File) -> bool:
    try:
        return (folder / file.name).stat().st_size == file.size
    except OSError as error:
        raise_fault(folder / file.name, error)
        return False
