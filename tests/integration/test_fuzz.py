"""A flood of bad messages on every subject, beside honest runs: nothing ends, nothing is believed.

The stranger has all the rights that the broker gives to anybody (those of a conductor). Every
message is accounted for: refused by the broker, or set aside by somebody who counts it. What no
program can tell from the truth is left out; docs/foreign-messages.md says what that is.
"""

import asyncio
import contextlib
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import psutil
import pytest
from nats.aio.msg import Msg

from actors.bus import NatsBus
from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.programs import Connection, Declared
from podium.client import Client
from protocol import subjects
from protocol.codec import decode_commit
from protocol.errors import InvalidData
from protocol.state import RunState
from replay.broker import Broker
from replay.connection import inbox
from replay.foreign import Foreign, foreign
from replay.jetstream_log import JetStreamLog
from replay.scrub import BrokerLedger, Scrubber
from replay.streams import ensure_streams
from tests import fuzz_pool
from tests.broker import One, r1
from tests.fuzzing import STORED, Aims, Fuzzer, Kind
from tests.stranger import Stranger

ROOT: Final = Path(__file__).resolve().parents[2]

SEED: Final = 20260704
LEASE_S: Final = 1.5
CHUNK: Final = 250
"""Messages said before the broker's answers are waited for."""

OPEN_ANSWERS: Final = 500
"""Answers that may be outstanding while more is said: the flood is as fast as the broker."""

HONEST_AT_ONCE: Final = 24
HONEST_MORE: Final = 24
"""Honest runs in flight when the flood begins, and begun during it."""

FLOODED: Final = 3
"""Honest runs whose commits are written to as well, for the first half of the flood."""

HOSTILE: Final = 200
"""Tasks that a conductor begins, and whose numbers, schemas and texts are bent."""

LIMIT_S: Final = 90.0
"""Seconds for what takes a few, on a busy machine."""

LOOK_S: Final = 0.1
"""Seconds between two questions to processes that can't call us."""

RSS_GROWTH_MB: Final = 150
"""MB by which an actor's memory may grow: a few hundred of the largest messages under way. The
flood of the slow test is five times as long and has the same bound."""


class Deployment:
    """A broker, a conductor and a worker in processes of their own, and an eavesdropper."""

    def __init__(self, server: One, broker: Broker) -> None:
        self.server, self.broker = server, broker
        self.log = JetStreamLog(broker)
        self.bus = NatsBus(broker)
        self.tasks = JetStreamQueue(broker, subjects.TASKS, lease_s=LEASE_S)
        self.client = Client(self.log, self.tasks, randomness=random.Random(SEED).randbytes)
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.corpus: dict[Kind, list[bytes]] = {}
        self.own = broker.expect(lambda _: None, lambda: None).rpartition(".")[0]
        """Where this process's own answers come in."""
        self.answers: list[str] = []
        self.tails: dict[str, bytes] = {}
        self.honest: dict[str, int] = {}
        """Runs and their numbers."""

    async def open(self) -> None:
        """Make the streams, and start the two."""
        await ensure_streams(self.broker)
        await self.tasks.ensure(consumers_of("tasks"))
        calls = JetStreamQueue(self.broker, subjects.CALLS, lease_s=LEASE_S)
        await calls.ensure(consumers_of("grow"))
        await self.broker.client.subscribe(">", cb=self._overhear)
        (spec,) = fuzz_pool.pool().workers
        await self._start(
            "conductor",
            Declared(
                **self._common("conductor"), kind="conductor", policies=(fuzz_pool.POLICY.name,)
            ),
        )
        await self._start(
            "worker", Declared(**self._common("worker"), kind="worker", specs=(spec,))
        )

    def _common(self, name: str) -> dict[str, Any]:
        user, password = self.server.credentials("conductor")
        connection = Connection(url=self.server.url, user=user, password=password)
        return {"name": name, "connection": connection, "lease_s": LEASE_S}

    async def _start(self, name: str, declared: Declared) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-m", "tests.fuzz_pool"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd=ROOT,
        )
        self.processes[name] = process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(declared) + b"\n")
        assert await asyncio.wait_for(process.stdout.readline(), LIMIT_S) == b"ready\n"

    async def close(self) -> None:
        """End the two, by the end of their input."""
        for process in self.processes.values():
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), LIMIT_S)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    async def _overhear(self, message: Msg) -> None:
        """Collect what is really said while all is honest; later, where answers are awaited."""
        head, _, rest = message.subject.partition(".")
        kind: Kind | None = _KINDS.get(head)
        if head == "log":
            kind = "commits" if rest.endswith(".c") else "inbox"
        if head == inbox("conductor") and not message.subject.startswith(self.own):
            self.answers.append(message.subject)
            del self.answers[:-500]
        if self.recording and kind is not None:
            self.corpus.setdefault(kind, []).append(message.data)
        run, _, of = rest.partition(".")  # what was stored, not what somebody would like to store
        if kind == "hint" and of == "c" and run in self.honest and b"stranger" not in message.data:
            with contextlib.suppress(InvalidData):
                if decode_commit(message.data).run == run:
                    self.tails[run] = message.data

    recording = True

    # ------------------------------------------------------------------------------------- honest

    async def submit(self, number: int) -> str:
        """Begin an honest run."""
        run = self.client.new_run()
        self.honest[run] = number
        pool, policy = fuzz_pool.pool(), fuzz_pool.POLICY
        await self.client.submit(fuzz_pool.task(number), pool, policy, run=run)
        return run

    async def finished(self, run: str) -> float:
        """Wait for the run's right answer; when its last commit was made, seconds."""
        result = await self.client.result(run)
        assert (result.outcome, result.answer) == (
            "finished",
            fuzz_pool.expected(self.honest[run]),
        ), f"run {run}: {result}"
        return (await self.client.state(run)).ended_at / 1_000

    async def stats(self) -> dict[str, dict[str, int]]:
        """What each actor counted."""
        answers = await self.bus.ask("stats", b"", 0.5)
        rows = [msgspec.json.decode(answer) for answer in answers]
        return {row["actor"]: row["counts"] for row in rows}

    async def queued(self) -> int:
        """Tasks in the queue, or in flight."""
        info = await self.broker.request(f"$JS.API.STREAM.INFO.{subjects.TASKS}")
        return int(info["state"]["messages"])

    def rss(self) -> dict[str, int]:
        """Memory of each actor, bytes."""
        return {
            name: psutil.Process(process.pid).memory_info().rss
            for name, process in self.processes.items()
        }


_KINDS: Final[dict[str, Kind]] = {
    "tasks": "tasks",
    "calls": "calls",
    "blobs": "blobs",
    "withdraw": "withdraw",
    "hint": "hint",
}


@pytest.fixture
async def deployment() -> AsyncIterator[Deployment]:
    with r1() as server:
        user, password = server.credentials("conductor")
        broker = await Broker.connect(server.url, user=user, password=password)
        deployment = Deployment(server, broker)
        try:
            await deployment.open()
            yield deployment
        finally:
            await deployment.close()
            await broker.close()


async def eventually(holds: Callable[[], Awaitable[bool]], what: Callable[[], object]) -> None:
    """Ask until it holds."""
    deadline = time.monotonic() + LIMIT_S
    while not await holds():
        assert time.monotonic() < deadline, what()
        await asyncio.wait([asyncio.create_task(asyncio.Event().wait())], timeout=LOOK_S)


async def warm_up(deployment: Deployment) -> list[str]:
    """A few honest runs, overheard: one with a large value, one cancelled."""
    over = [await deployment.submit(number) for number in (8, 9)]
    cancelled = await deployment.submit(10)
    async for log in deployment.client.follow(cancelled):
        if log.state().open:
            await deployment.client.signal(cancelled, "cancel")
            break
    for run in over:
        await deployment.finished(run)
    await deployment.client.result(cancelled)
    deployment.recording = False
    del deployment.honest[cancelled]
    return [*over, cancelled]


class Flood:
    """The flood, and what is known of it."""

    def __init__(self, deployment: Deployment, stranger: Stranger, fuzzer: Fuzzer) -> None:
        self.deployment, self.stranger, self.fuzzer = deployment, stranger, fuzzer
        self.said: Counter[str] = Counter()
        """Messages by tag."""
        self.heads: set[bytes] = set()
        """Subjects of kept heads: a second message there replaces the first."""

    async def pour(self, count: int) -> None:
        """Say so many messages, as fast as the broker answers."""
        left = count
        while left > 0:
            for said in self.fuzzer.say(min(CHUNK, left)):
                self.said[said.tag] += 1
                if said.kind == "heads":
                    self.heads.add(said.subject)
                if said.kind in STORED:
                    self.stranger.tell(said.tag, said.subject, said.data, said.headers)
                else:
                    self.stranger.say(said.subject, said.data, said.headers)
            left -= CHUNK
            await self.stranger.settled(OPEN_ANSWERS)


async def flood(deployment: Deployment, count: int) -> dict[str, Any]:
    """Honest runs within a flood of so many messages. Returns what was measured."""
    over = await warm_up(deployment)
    begun = [await deployment.submit(number) for number in range(HONEST_AT_ONCE)]
    flooded = begun[:FLOODED]
    aims = Aims(begun, list(flooded), over, "grow", deployment.answers)
    fuzzer = Fuzzer(SEED, deployment.corpus, aims)
    fuzzer.tails = deployment.tails
    rss = deployment.rss()
    started = time.monotonic()
    async with Stranger.connect(deployment.server) as stranger:
        poured = Flood(deployment, stranger, fuzzer)
        steps = 2 * HONEST_MORE
        stopped = 0.0
        for step in range(steps):
            await poured.pour(count * (step + 1) // steps - count * step // steps)
            if step % 2:
                begun.append(await deployment.submit(1_000 + step))
            if step == HONEST_MORE:
                stopped = time.time()
                aims.flooded.clear()  # type: ignore[attr-defined]
        await stranger.settled()
    took = time.monotonic() - started
    async with asyncio.timeout(LIMIT_S):
        ended = {run: await deployment.finished(run) for run in begun}
    return {
        "took": took,
        "rate": count / took,
        "flood": poured,
        "delay": max(ended[run] for run in flooded) - stopped,
        "rss": {name: (now - rss[name]) / 1e6 for name, now in deployment.rss().items()},
    }


async def check(deployment: Deployment, measured: dict[str, Any]) -> None:
    """Every message is accounted for, and all goes on."""
    poured: Flood = measured["flood"]
    said, accepted, refused = poured.said, poured.stranger.accepted, poured.stranger.refused
    last: dict[str, dict[str, int]] = {}

    async def taken() -> bool:
        last.update(await deployment.stats())
        return (
            last["conductor"].get("aside", 0) >= accepted["tasks"]
            and last["worker"].get("aside", 0) >= accepted["calls"] + said["withdraw"]
        )

    await eventually(taken, lambda: (last, accepted, said))
    found = await foreign(deployment.log)
    report(measured, last, found)
    for tag in ("commits", "inbox", "nowhere", "tasks", "calls", "undeliverable", "blobs", "heads"):
        assert accepted[tag] + refused[tag] == said[tag], tag
    assert refused["broker"] == said["hint"]
    twice = last["conductor"]["aside"] - accepted["tasks"]
    assert 0 <= twice <= last["conductor"].get("aside_again", 0), "once, unless a lease ended"
    assert last["worker"]["aside"] == accepted["calls"] + said["withdraw"]
    assert found.commits == accepted["commits"]
    assert found.inbox == accepted["inbox"]
    assert found.nowhere == accepted["nowhere"]
    assert found.calls == accepted["undeliverable"]
    assert found.blobs == accepted["blobs"]
    assert found.heads == len(poured.heads)
    assert found.tasks == 0
    assert not any(counts.get("broken") or counts.get("unreported") for counts in last.values())
    assert all(process.returncode is None for process in deployment.processes.values())
    assert max(measured["rss"].values()) < RSS_GROWTH_MB
    async with asyncio.timeout(LIMIT_S):
        await deployment.finished(await deployment.submit(5_000))


def report(measured: dict[str, Any], stats: dict[str, dict[str, int]], found: Foreign) -> None:
    """Print the table of docs/foreign-messages.md (`pytest -s`)."""
    poured: Flood = measured["flood"]
    sys.stdout.write(f"\nsaid {poured.said.total()} in {measured['took']:.1f} s\n")
    for tag in sorted(poured.said):
        counts = (poured.said, poured.stranger.accepted, poured.stranger.refused)
        sys.stdout.write(f"{tag:14}" + "".join(f"{each[tag]:9}" for each in counts) + "\n")
    rest = {k: v for k, v in measured.items() if k != "flood"}
    sys.stdout.write(f"broker refused {poured.stranger.refused['broker']}\n{stats}\n{rest}\n")
    sys.stdout.write(f"{msgspec.structs.replace(found, runs={})}\n")


async def test_honest_runs_finish_within_a_flood(deployment: Deployment) -> None:
    await check(deployment, await flood(deployment, 20_000))


@pytest.mark.slow
async def test_honest_runs_finish_within_a_great_flood(deployment: Deployment) -> None:
    await check(deployment, await flood(deployment, 100_000))


async def test_a_run_goes_on_between_messages_on_its_commits(deployment: Deployment) -> None:
    """Each one fences the conductor; after a lease it takes over again, and gets a bit further."""
    runs = [await deployment.submit(number) for number in range(FLOODED)]
    states: dict[str, RunState] = {}
    async with Stranger.connect(deployment.server) as stranger, asyncio.timeout(LIMIT_S):
        while not states or not all(
            state.epoch > 1 or state.phase == "ended" for state in states.values()
        ):
            for run in runs:
                stranger.tell("drip", subjects.commits(run).encode(), b"drip")
            await stranger.settled()
            states = {run: await deployment.client.state(run) for run in runs}
    stopped = time.time()
    ended = [await deployment.finished(run) for run in runs]
    assert (await foreign(deployment.log)).commits == stranger.accepted["drip"] > 0
    sys.stdout.write(f"\n{stranger.accepted}; over {max(ended) - stopped:.1f} s after the last\n")


async def test_well_formed_tasks_of_a_stranger_end_or_pause(deployment: Deployment) -> None:
    await warm_up(deployment)
    aims = Aims([], [], [], "grow", [])
    tasks = Fuzzer(SEED, deployment.corpus, aims).hostile_tasks(HOSTILE)
    async with Stranger.connect(deployment.server) as stranger:
        for run, data in tasks.items():
            stranger.tell("tasks", subjects.task("normal", run).encode(), data)
        await stranger.settled()
    await deployment.finished(await deployment.submit(1))

    async def over() -> bool:
        return not await deployment.queued()

    await eventually(over, lambda: "tasks are left in the queue")
    phases = Counter([(await deployment.client.state(run)).phase for run in tasks])
    assert set(phases) <= {"ended", "paused"}, phases
    assert not any(counts.get("broken") for counts in (await deployment.stats()).values())


async def test_the_scrubber_reads_on_through_a_flood(deployment: Deployment) -> None:
    measured = await flood(deployment, 1_000)
    findings = await Scrubber(deployment.log, BrokerLedger(deployment.log), keep=False).scrub()
    assert {each.kind for each in findings} == {"foreign"}
    assert measured["flood"].said["commits"] > 0
