"""The live exporter's reader: what it hands on is what an export of the whole log gives."""

import asyncio
import itertools
import random
from collections.abc import Sequence
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
from protocol.codec import encode
from protocol.errors import Usage
from replay.chain import RunLog, Stored, assemble
from replay.spans import Span
from replay.trace import spans
from tests.runs import Driver, answer, begin, started
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

    async def page(self, shard: int, after: int) -> tuple[list[Told], int]:
        page = [told for told in self.told if told.seq > after][: self.page_size]
        return page, len(self.told) - (page[-1].seq if page else len(self.told))

    async def read(self, run: str) -> RunLog:
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


@given(
    st.lists(st.tuples(st.builds(begin, budget=ROOMY), histories), min_size=1, max_size=3),
    st.integers(0, 99),
    st.integers(1, 9),
    st.integers(1, 3),
    st.lists(st.integers(1, 4), max_size=6),
    st.sampled_from([(500, 600_000), (4, 1_000)]),
)
def test_live_and_later_are_the_same_whatever_dies_in_between(
    lives: list[Any],
    seed: int,
    page: int,
    memory: int,
    deaths: list[int],
    limits: tuple[int, int],
) -> None:
    drivers = []
    for number, (start, history) in enumerate(lives):
        world = World(msgspec.structs.replace(start, run=run_name(number)))
        for moves in history:
            world.happen(*moves)
        drivers.append(world)
    stream = Stream(drivers, seed, page)

    async def live() -> tuple[list[Span], list[Span]]:
        follower.MAX_FOLLOWED, kept = memory, follower.MAX_FOLLOWED  # type: ignore[misc]
        try:
            sink, offsets = Sink(), {0: 0}
            for pages in deaths:  # each follower does so many pages, then dies
                dying = Follower(stream, sink.take, offsets)
                told: list[Told] = []
                for _ in range(pages):
                    told, _ = await stream.page(0, offsets[0])
                    if told:
                        await dying._page(told)
                        offsets[0] = told[-1].seq
                if told:  # exported, and dead before it could say so
                    await Follower(stream, sink.take, dict(offsets)).catch_up()
            await Follower(stream, sink.take, offsets).catch_up()
            return sink.taken, spans(await stream.logs())
        finally:
            follower.MAX_FOLLOWED = kept  # type: ignore[misc]

    with segments(*limits):
        taken, whole = asyncio.run(live())
    assert by_id(taken) == by_id(whole)


def story(number: int, **more: Any) -> Driver:
    driver = Driver(msgspec.structs.replace(begin(**more), run=run_name(number)))
    driver.reply(started().steps[1][1][0].reply)  # type: ignore[union-attr]
    reported(driver, "1-0", 20)
    driver.reply(answer())
    return driver


async def test_each_span_is_handed_on_once_and_no_run_is_kept_longer_than_it_lasts() -> None:
    stream = Stream([story(1), story(2)])
    sink, offsets = Sink(), {0: 0}
    following = Follower(stream, sink.take, offsets)
    assert await following.catch_up() == len(stream.told)
    assert await following.catch_up() == 0
    assert len(sink.taken) == len(by_id(sink.taken)) == 2 * 4
    assert stream.reads == 0, "a run that is followed from its beginning is not read again"
    assert not following._runs
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
