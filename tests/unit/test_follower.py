"""The live exporter's reader: what it hands on is what an export of the whole log gives."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import tracing
from actors.tracing import variables
from podium.config import Config, Trace
from podium.tracing import follower, keeper
from podium.tracing.feed import OFFSETS, Offset, Offsets
from podium.tracing.follower import Follower, Told
from protocol import subjects
from protocol.actions import BlobRef, Report
from protocol.codec import Commit, encode
from protocol.errors import NotFound, PodiumError, Unreachable, Usage
from replay.chain import RunLog, Stored, assemble
from replay.spans import Span
from replay.trace import Projector, spans
from replay.trace_scene import MAX_CONTENT_CHARS
from tests.runs import Driver, answer, begin, plan, planned
from tests.strategies import MOVES, ROOMY, World
from tests.traces import ABOVE, log_of, reported, segments


def run_name(number: int) -> str:
    return subjects.run_id(number.to_bytes(8, "big"))


class Stream:
    """A log of all runs, in memory: several runs' messages mixed, each run's in order."""

    def __init__(self, drivers: Sequence[Driver], seed: int = 0, page: int = 7) -> None:
        self.told: list[Told] = []
        self.page_size = page
        self.reads = 0
        self.fails: list[PodiumError] = []
        """What the next reads raise."""
        self.blobs: dict[str, bytes] = {}
        queues = [self._messages(log_of(driver), driver) for driver in drivers]
        chance = random.Random(seed)
        while any(queues):
            queue = chance.choice([queue for queue in queues if queue])
            subject, data = queue.pop(0)
            self.told.append(Told(len(self.told) + 1, subject, data))

    @staticmethod
    def _messages(log: RunLog, driver: Driver) -> list[tuple[str, bytes]]:
        commits = [
            (seq, subjects.commits(log.run), encode(commit))
            for seq, commit in zip(log.seqs, log.commits, strict=True)
        ]
        inbox = [(entry.seq, subjects.inbox(log.run), encode(entry.message)) for entry in log.inbox]
        return [(subject, data) for _, subject, data in sorted(commits + inbox)]

    def add(self, more: Sequence[Told]) -> None:
        """Further messages, whatever sequence they had elsewhere."""
        self.told += [each._replace(seq=len(self.told) + n) for n, each in enumerate(more, 1)]

    async def page(self, shard: int, after: int) -> tuple[list[Told], int]:
        page = [told for told in self.told if told.seq > after][: self.page_size]
        return page, len(self.told) - (page[-1].seq if page else len(self.told))

    async def blob(self, ref: BlobRef) -> bytes:
        if self.fails:
            raise self.fails.pop(0)
        return self.blobs[ref.sha256]

    async def read(self, run: str) -> RunLog:
        if self.fails:
            raise self.fails.pop(0)
        self.reads += 1
        of = {
            kind: [Stored(t.seq, t.data) for t in self.told if t.subject.endswith(f"{run}.{kind}")]
            for kind in "ci"
        }
        return assemble(run, of["c"], of["i"])

    async def logs(self) -> list[RunLog]:
        runs = {told.subject.split(".")[2] for told in self.told}
        return [await self.read(run) for run in sorted(runs)]


class Sink:
    """Takes spans, or fails as it is told."""

    def __init__(self, fails: Sequence[bool] = ()) -> None:
        self.taken: list[Span] = []
        self._fails = itertools.chain(fails, itertools.repeat(False))

    async def take(self, some: Sequence[Span]) -> bool:
        if next(self._fails):
            return False
        self.taken += some
        return True


def by_id(some: Sequence[Span]) -> dict[str, Span]:
    found: dict[str, Span] = {}
    for span in some:
        assert found.setdefault(span.id, span) == span, "one id, one span"
    return found


histories = st.lists(st.lists(MOVES, min_size=1, max_size=3), min_size=3, max_size=12)


lives = st.lists(st.tuples(st.builds(begin, budget=ROOMY), histories), min_size=1, max_size=3)


def lived(lives: list[Any]) -> list[World]:
    """Runs as they were led."""
    drivers = []
    for number, (start, history) in enumerate(lives):
        world = World(msgspec.structs.replace(start, run=run_name(number)))
        for moves in history:
            world.happen(*moves)
        drivers.append(world)
    return drivers


@contextlib.contextmanager
def room_for(runs: int, held: int) -> Iterator[None]:
    """So many runs, and bytes of their contents, are kept in memory."""
    kept = follower.MAX_FOLLOWED, follower.MAX_HELD_BYTES
    follower.MAX_FOLLOWED, follower.MAX_HELD_BYTES = runs, held  # type: ignore[misc]
    try:
        yield
    finally:
        follower.MAX_FOLLOWED, follower.MAX_HELD_BYTES = kept  # type: ignore[misc]


@given(
    lives,
    st.integers(0, 99),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(0, 2_000),
    st.booleans(),
    st.lists(st.integers(1, 4), max_size=6),
    st.sampled_from([(500, 600_000), (4, 1_000)]),
)
def test_live_and_later_are_the_same_whatever_dies_in_between(
    lives: list[Any],
    seed: int,
    page: int,
    runs: int,
    held: int,
    content: bool,
    deaths: list[int],
    limits: tuple[int, int],
) -> None:
    stream = Stream(lived(lives), seed, page)
    project = partial(Projector, content=content)

    async def live() -> tuple[list[Span], list[Span]]:
        sink, offsets = Sink(), {0: 0}
        for pages in deaths:  # each follower does so many pages, then dies
            dying = Follower(stream, sink.take, offsets, project=project)
            told: list[Told] = []
            for _ in range(pages):
                told, _ = await stream.page(0, offsets[0])
                if told:
                    await dying._page(told)
                    offsets[0] = told[-1].seq
            if told:  # exported, and dead before it could say so
                await Follower(stream, sink.take, dict(offsets), project=project).catch_up()
        await Follower(stream, sink.take, offsets, project=project).catch_up()
        return sink.taken, spans(await stream.logs(), content=content)

    with room_for(runs, held), segments(*limits):
        taken, whole = asyncio.run(live())
    assert by_id(taken) == by_id(whole)


@given(lives, st.integers(0, 99), st.integers(0, 5_000))
def test_contents_are_kept_within_bounds(lives: list[Any], seed: int, most: int) -> None:
    stream = Stream(lived(lives), seed, page=1)
    seen: list[tuple[int, int]] = []

    async def live() -> None:
        async def look() -> None:
            seen.append((following.held, following.followed))

        project = partial(Projector, content=True)
        following = Follower(stream, Sink().take, {0: 0}, rest=look, project=project)
        await following.catch_up()

    with room_for(runs=9, held=most):
        asyncio.run(live())
    assert all(0 <= held <= most or runs == 1 for held, runs in seen)
    assert all(held == 0 for held, runs in seen if runs == 0)


def opened(number: int, **more: Any) -> Driver:
    """A run whose one call is waited for."""
    driver = Driver(msgspec.structs.replace(begin(**more), run=run_name(number)))
    driver.reply(plan(planned()))
    return driver


def story(number: int, **more: Any) -> Driver:
    driver = opened(number, **more)
    reported(driver, "1-0", 20)
    driver.reply(answer())
    return driver


async def test_the_run_that_was_quiet_longest_goes_first() -> None:
    task = "x" * 1_000
    stream = Stream([])
    for number in range(4):
        stream.add(Stream([opened(number, task=task)]).told)
    following = Follower(stream, Sink().take, {0: 0}, project=partial(Projector, content=True))
    with room_for(runs=9, held=2_900):
        await following.catch_up()
        assert following.followed == 2
        assert 2 * len(task) < following.held <= 2_900
        for number in (2, 3):
            begun = Stream([opened(number, task=task)]).told
            stream.add(Stream([story(number, task=task)]).told[len(begun) :])
        await following.catch_up()
    assert stream.reads == 0, "those that moved last were kept"
    assert (following.held, following.followed) == (0, 0)


@pytest.mark.parametrize("content", [False, True])
async def test_of_a_long_value_as_much_is_kept_as_will_be_told(content: bool) -> None:
    driver = opened(1)
    stream = Stream([driver])
    report = encode(driver.report_of("1-0", value="x" * 60_000))
    stream.add([Told(0, subjects.inbox(run_name(1)), report)])
    project = partial(Projector, content=content)
    following = Follower(stream, Sink().take, {0: 0}, project=project)
    await following.catch_up()
    assert following.followed == 1
    most = 2 * MAX_CONTENT_CHARS + 1_000  # the sign that it was cut takes two bytes, so all do
    assert (MAX_CONTENT_CHARS < following.held < most) if content else following.held == 0


class Broken(Projector):
    """Can't project a run's second commit."""

    def commit(self, commit: Commit) -> list[Span]:
        """See `Projector`."""
        done = super().commit(commit)
        if commit.n == 2:
            raise ValueError("no such worker")
        return done


@pytest.mark.parametrize("page", [1, 3, 100])
async def test_a_run_that_cannot_be_traced_is_named_and_keeps_no_other_back(
    caplog: pytest.LogCaptureFixture, page: int
) -> None:
    bad = run_name(2)
    drivers = [story(number) for number in (1, 2, 3)]
    stream = Stream(drivers, seed=5, page=page)
    sink, offsets = Sink(), {0: 0}

    def project(run: str) -> Projector:
        return Broken(run) if run == bad else Projector(run)

    following = Follower(stream, sink.take, offsets, project=project)
    await following.catch_up()
    good = spans([log for log in await stream.logs() if log.run != bad])
    assert by_id([span for span in sink.taken if bad not in repr(span)]) == by_id(good)
    assert (following.followed, offsets) == (0, {0: len(stream.told)})
    (said,) = caplog.messages
    event = sum(len(commit.events) for commit in log_of(drivers[1]).commits[:2])
    assert said == (
        f"event {bad}@{event} can't be traced: ValueError: no such worker; no more of run {bad} "
        f"is exported, all others are; this is a bug: please report it with `podium export {bad}`"
    )


class Deaf(Projector):
    """Can't take a report."""

    def report(self, known: str, report: Report) -> None:
        """See `Projector`."""
        raise KeyError(report.call)


async def test_a_report_that_cannot_be_traced_is_named_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    driver = opened(1)
    stream = Stream([driver])
    stream.add([Told(0, subjects.inbox(run_name(1)), encode(driver.report_of("1-0")))] * 2)
    await Follower(stream, Sink().take, {0: 0}, project=Deaf).catch_up()
    (said,) = caplog.messages
    assert f"event {run_name(1)}@{len(driver.events)} can't be traced: KeyError: '1-0'" in said


async def test_a_run_that_cannot_be_read_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream([story(1), story(2)], page=1)
    begun = stream.told[0].subject.split(".")[2]
    stream.fails = [NotFound("no such archive", hint="mend it")]
    sink, offsets = Sink(), {0: stream.told[0].seq}
    await Follower(stream, sink.take, offsets).catch_up()
    (said,) = caplog.messages
    assert said == (
        f"run {begun} can't be read: no such archive; no more of run {begun} is exported, "
        "all others are; mend it"
    )
    rest = [log for log in await stream.logs() if log.run != begun]
    assert by_id(sink.taken) == by_id(spans(rest))


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_is_lost_when_the_broker_is_away_in_the_midst_of_a_page(seed: int) -> None:
    begun, *rest = Stream([story(3)]).told
    stream = Stream([], page=100)
    for part in ([begun], Stream([story(1), story(2)], seed).told, rest):
        stream.add(part)
    sink, offsets = Sink(), {0: begun.seq}
    following = Follower(stream, sink.take, offsets)
    stream.fails = [Unreachable("away")]
    with pytest.raises(Unreachable):
        await following.catch_up()
    assert (offsets, following.followed, sink.taken) == ({0: begun.seq}, 0, [])
    await following.catch_up()
    assert by_id(sink.taken) == by_id(spans(await stream.logs()))


class Shards(Stream):
    """A log in two shards, of which the first is written whenever it is read."""

    async def page(self, shard: int, after: int) -> tuple[list[Told], int]:
        """See `Feed`."""
        if shard == 1:
            return await super().page(shard, after)
        return [Told(after + 1, "elsewhere", b"")], 1


async def test_a_shard_that_is_written_all_the_time_keeps_no_other_waiting() -> None:
    stream = Shards([story(1)], page=2)
    sink, behind = Sink(), []

    async def rest() -> None:
        behind.append(following.behind)
        if following.offsets[1] == len(stream.told):
            raise asyncio.CancelledError

    following = Follower(stream, sink.take, {0: 0, 1: 0}, rest=rest)
    with pytest.raises(asyncio.CancelledError):
        await following.catch_up()
    assert by_id(sink.taken) == by_id(spans(await stream.logs()))
    assert behind == [1, 4, 4, 2, 2, 1], "after each page, of both"


async def test_each_span_is_handed_on_once_and_no_run_is_kept_longer_than_it_lasts() -> None:
    stream = Stream([story(1), story(2)])
    sink, offsets = Sink(), {0: 0}
    following = Follower(stream, sink.take, offsets)
    assert await following.catch_up() == len(stream.told)
    assert await following.catch_up() == 0
    assert len(sink.taken) == len(by_id(sink.taken)) == 2 * 4
    assert stream.reads == 0, "a run that is followed from its beginning is not read again"
    assert following.followed == 0
    assert offsets == {0: len(stream.told)}


async def test_nothing_is_read_on_while_a_backend_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "RETRY_S", 0.001)
    stream = Stream([story(1)], page=2)
    sink, done = Sink(fails=[True, True, True]), []
    offsets = {0: 0}
    seen: list[tuple[int, int]] = []

    async def take(some: Sequence[Span]) -> bool:
        seen.append((offsets[0], len(some)))
        return await sink.take(some)

    await Follower(stream, take, offsets, lambda: done.append(offsets[0])).catch_up()
    assert seen[0] == seen[1] == seen[2] == seen[3], "the same spans, and nothing read on"
    assert done == [2, 4, 5]
    assert by_id(sink.taken) == by_id(spans(await stream.logs()))


async def test_a_trace_that_its_beginner_does_not_keep_is_not_sent() -> None:
    stream = Stream([story(1, traceparent=ABOVE[:-1] + "0")])
    sink = Sink()
    await Follower(stream, sink.take, {0: 0}).catch_up()
    assert sink.taken == []


async def test_what_strangers_write_is_passed_over() -> None:
    stream = Stream([story(1)])
    run = run_name(1)
    noise = [
        (f"log.0.{run}.c", b"noise"),
        (f"log.0.{run}.i", b"noise"),
        (f"log.0.{run}.c", stream.told[0].data),
        ("log.0.nobody.c", b"{}"),
        ("elsewhere", b""),
    ]
    mixed = [each for told in stream.told for each in [*noise, (told.subject, told.data)]]
    clean = spans(await stream.logs())
    stream.told = [Told(seq, *each) for seq, each in enumerate(mixed, 1)]
    sink = Sink()
    await Follower(stream, sink.take, {0: 0}).catch_up()
    assert by_id(sink.taken) == by_id(clean)


def test_offsets_outlive_the_process_and_not_the_stream(tmp_path: Path) -> None:
    ends = {0: Offset("monday", 40), 1: Offset("monday", 7)}
    offsets = Offsets(tmp_path)
    offsets.load(ends)
    assert offsets.seqs == {0: 40, 1: 7}, "what was before is for `podium trace export`"
    offsets.seqs[0] = 41
    offsets.store()
    again = Offsets(tmp_path)
    again.load({0: Offset("monday", 90), 1: Offset("tuesday", 3), 2: Offset("tuesday", 5)})
    assert again.seqs == {0: 41, 1: 0, 2: 0}
    (tmp_path / OFFSETS).write_text("{")
    again.load(ends)
    assert again.seqs == {0: 40, 1: 7}


def test_who_asks_for_traces_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SERVICE_NAME": "mine", "HOME": "/"}
    assert keeper.variables(Config(), {}) == {}
    assert keeper.variables(Config(), asked) == variables(asked)
    assert "HOME" not in variables(asked)
    assert keeper.variables(Config(trace=Trace(enabled=False)), asked) == {}
    named = Config(trace=Trace(endpoint="http://y"))
    assert keeper.variables(named, asked)["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://y"
    monkeypatch.setattr(tracing, "installed", lambda: False)
    assert keeper.variables(Config(), asked) == {}
    with pytest.raises(Usage, match="not installed"):
        keeper.variables(named, {})
