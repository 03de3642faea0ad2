"""The exporter beside a deployment, as a real process: real broker, real OTLP over HTTP.

It is killed, its backend goes away, it is told to end: what arrives in the end is what
`podium trace export` gives, with the same ids.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.programs import Connection
from podium.config import Config, RedactTable, Trace
from podium.tracing import keeper as keepers
from podium.tracing.feed import OFFSETS
from podium.tracing.keeper import Keeper
from protocol import semconv, subjects
from protocol.codec import decode_value, encode
from protocol.commands import Activate, Fork
from protocol.run import RULES
from protocol.subjects import run_id
from replay.chain import RunLog
from replay.forks import origin_at
from replay.history import entries
from replay.imported import FOLDER, export
from replay.jetstream_log import JetStreamLog
from replay.memory_log import MemoryLog, MemoryStore
from replay.spans import Span
from replay.streams import ensure_streams
from replay.trace import spans
from replay.trace_turns import in_blobs
from tests.broker import One
from tests.collector import Collector, Received
from tests.places import connected
from tests.runs import Driver
from tests.stored import put, stored_of
from tests.traces import ABOVE, log_of, story
from tests.unit.test_trace_turns import DATA, in_a_blob

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

NO_MORE = RedactTable()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as found:
        yield found


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[One]:
    """A broker of its own: the exporter reads the log of all runs."""
    found = One(tmp_path / "nats", "process")
    broker = await connected(found, "conductor")
    await ensure_streams(broker)
    await broker.close()
    yield found
    await asyncio.to_thread(found.server.close)


class Beside:
    """The exporter, kept as a daemon keeps it."""

    def __init__(
        self,
        server: One,
        collector: Collector,
        folder: Path,
        redact: RedactTable = NO_MORE,
        **more: Any,
    ) -> None:
        user, password = server.credentials("tracer")
        connection = Connection(url=server.url, user=user, password=password)
        trace = Trace(endpoint=collector.url, **more)
        self.log = folder / "deployment.log"
        config = Config(folder=str(folder), trace=trace, redact=redact)
        self.keeper = Keeper(config, self.log, lambda: connection)
        self.keeper.variables |= {"OTEL_METRIC_EXPORT_INTERVAL": "200"}
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Beside":
        await self.keeper.start()
        self._keeping = asyncio.create_task(self.keeper.keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._keeping is not None
        self._keeping.cancel()
        await self.keeper.stop()
        assert not self.keeper.pids

    def kill(self) -> None:
        (pid,) = self.keeper.pids
        os.kill(pid, signal.SIGKILL)


async def written(server: One, *drivers: Driver) -> list[RunLog]:
    """Have runs that were driven in memory stand in the broker's log; as they are there."""
    broker = await connected(server, "conductor")
    try:
        logs = [log_of(driver) for driver in drivers]
        for log in logs:
            messages = [
                *((seq, subjects.commits(log.run), encode(commit))
                  for seq, commit in zip(log.seqs, log.commits, strict=True)),
                *((each.seq, subjects.inbox(log.run), encode(each.message)) for each in log.inbox),
            ]  # fmt: skip
            for _, subject, data in sorted(messages):
                await broker.append(subject, data)
        return logs
    finally:
        await broker.close()


def same(found: list[Received], made: list[Span]) -> None:
    """What came over the wire is what was projected, whatever came twice."""
    by_id = {span.id: span for span in found}
    assert {span.id for span in made} == set(by_id)
    for span in made:
        got = by_id[span.id]
        assert (got.trace, got.parent, got.name) == (span.trace, span.parent, span.name)
        assert (got.start_ns, got.end_ns) == (span.start_ns, span.end_ns)
        assert got.attributes == span.attributes
        assert (got.error, got.message) == (bool(span.error), span.message)
        assert got.events == [each.name for each in span.happenings]
        assert got.links == [each.span for each in span.links]
        assert (got.scope, got.resource[semconv.SERVICE_NAME]) == ("podium", "podium")


def ended(found: list[Received], of: int) -> bool:
    return len({span.id for span in found}) >= of


async def test_what_ends_is_exported_live_with_its_metrics(
    server: One, collector: Collector, tmp_path: Path
) -> None:
    async with Beside(server, collector, tmp_path):
        broker = await connected(server, "worker")
        await JetStreamLog(broker).put_blob(DATA)
        await broker.close()
        logs = await written(server, *story(), in_a_blob(run_id(b"an agent's turns")))
        records = {name: decode_value(DATA) for name in in_blobs(logs[-1])}
        made = spans(logs, records=records)
        assert {"chat gpt-9", "execute_tool price"} <= {span.name for span in made}
        found = await asyncio.to_thread(collector.wait, lambda some: ended(some, len(made)))
        wanted = {semconv.RUN_DURATION, semconv.EXECUTE_TOOL_DURATION, semconv.SENT_MESSAGES}
        await asyncio.to_thread(collector.until, lambda: wanted <= collector.metrics.keys())
    same(found, made)
    assert len(found) == len(made), "each came once"
    (duration,) = collector.metrics[semconv.EXECUTE_TOOL_DURATION].histogram.data_points[:1]
    assert list(duration.explicit_bounds) == list(
        semconv.HISTOGRAMS[semconv.EXECUTE_TOOL_DURATION][2]
    )
    keys = {
        each.key
        for metric in collector.metrics.values()
        for point in [*metric.histogram.data_points, *metric.sum.data_points]
        for each in point.attributes
    }
    assert not keys & semconv.NOT_ON_METRICS


async def test_killed_it_goes_on_where_it_was(
    server: One, collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "PAUSE_S", 0.05)
    above, below = story()
    async with Beside(server, collector, tmp_path, content=True, messages=True) as beside:
        first = await written(server, below)
        made = spans(first, content=True, messages=True)
        await asyncio.to_thread(collector.wait, lambda some: ended(some, len(made)))
        beside.kill()
        second = await written(server, above)
        made = spans([*first, *second], content=True, messages=True)
        found = await asyncio.to_thread(collector.wait, lambda some: ended(some, len(made)))
    same(found, made)


async def test_a_backend_that_is_away_gets_everything_later(
    server: One, collector: Collector, tmp_path: Path
) -> None:
    collector.refuse = 503
    async with Beside(server, collector, tmp_path):
        logs = await written(server, *story())
        await asyncio.to_thread(collector.until, lambda: collector.refused > 0)
    assert collector.spans == [], "told to end, it ends, and forgets nothing"
    collector.refuse = 0
    made = spans(logs)
    async with Beside(server, collector, tmp_path):
        found = await asyncio.to_thread(collector.wait, lambda some: ended(some, len(made)))
    same(found, made)


async def test_a_backend_that_hangs_does_not_keep_it_from_ending(
    server: One, collector: Collector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collector.hangs = True
    async with Beside(server, collector, tmp_path):
        logs = await written(server, *story())
        await asyncio.to_thread(collector.until, lambda: collector.hung > 0)
    assert not [said for said in caplog.messages if "killing" in said], "it ended by itself"
    said = (tmp_path / "deployment.log").read_text()
    assert "traces are not all exported: the rest follows at the next start" in said
    assert "Traceback" not in said
    collector.answer()
    made = spans(logs)
    async with Beside(server, collector, tmp_path):
        found = await asyncio.to_thread(collector.wait, lambda some: ended(some, len(made)))
    same(found, made)


async def test_a_span_that_is_refused_for_what_it_is_holds_up_no_other(
    server: One, collector: Collector, tmp_path: Path
) -> None:
    above, below = story()
    made = spans([log_of(below), log_of(above)])
    unfit = next(span for span in made if span.name.startswith("invoke_agent agent"))
    collector.unfit = unfit.name
    async with Beside(server, collector, tmp_path):
        await written(server, below, above)
        found = await asyncio.to_thread(collector.wait, lambda some: ended(some, len(made) - 1))
    same(found, [span for span in made if span.id != unfit.id])
    assert (
        f"given up: {unfit.id} of trace {unfit.trace}" in (tmp_path / "deployment.log").read_text()
    )


async def test_what_was_before_it_is_left_to_a_later_export(
    server: One, collector: Collector, tmp_path: Path
) -> None:
    before, now = story()
    await written(server, before)
    async with Beside(server, collector, tmp_path):
        made = spans(await written(server, now))
        found = await asyncio.to_thread(collector.wait, lambda some: ended(some, len(made)))
    same(found, made)
    assert (tmp_path / OFFSETS).exists()


async def test_a_fork_of_a_run_that_is_on_a_shelf_has_the_ids_of_a_later_export(
    server: One, collector: Collector, tmp_path: Path
) -> None:
    origin, _ = story()
    whole = log_of(origin)
    at = next(each.number for each in entries(whole) if each.kind == "RoundClosed")
    fork = Driver(at=origin.at)
    fork.state = whole.state(at)
    fork.give(Fork(run="0" * 13, origin=origin_at(whole, at)), Activate("conductor", RULES))
    fork.signal("cancel")
    store = MemoryStore()
    put(store, whole.run, stored_of(origin))
    (tmp_path / FOLDER).mkdir()
    path = tmp_path / FOLDER / "origin.podium"
    await export(MemoryLog(store), whole.run, path, podium="test", children=False)
    async with Beside(server, collector, tmp_path):
        (log,) = await written(server, fork)
        log.origin = whole
        made = spans([log])
        found = await asyncio.to_thread(collector.wait, lambda some: ended(some, len(made)))
    same(found, made)


async def test_what_it_logs_is_redacted(server: One, collector: Collector, tmp_path: Path) -> None:
    folder = tmp_path / "EMP-123456"
    folder.mkdir()
    (folder / OFFSETS).write_text("none")
    more = RedactTable(patterns=(r"EMP-\d{6}",))
    async with Beside(server, collector, folder, redact=more):
        pass
    said = (folder / "deployment.log").read_text()
    assert "[redacted:pattern_1]/traces.json can't be read" in said
    assert "EMP-" not in said


async def test_a_trace_that_is_not_kept_is_not_sent(
    server: One, collector: Collector, tmp_path: Path
) -> None:
    kept, dropped = story()
    start: Any = dropped.steps[0][1][0]
    quiet = Driver(msgspec.structs.replace(start, run="0" * 13, traceparent=ABOVE[:-1] + "0"))
    quiet.signal("cancel")
    async with Beside(server, collector, tmp_path):
        logs = await written(server, quiet, kept)
        made = spans(logs[1:])
        found = await asyncio.to_thread(collector.wait, lambda some: ended(some, len(made)))
    same(found, made)
