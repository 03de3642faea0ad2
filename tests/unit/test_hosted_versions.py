"""Which version answers whom: canaries, runs that go on with what they began on, what is kept."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from actors.models.hosted import KEEP_S, RETRY_S
from actors.models.question import Maker, Question
from actors.models.server import PolicyServer
from actors.models.serving import Batching
from protocol import model_versions as rules
from protocol.decisions import Reply
from protocol.errors import InvalidData
from protocol.model_versions import BASE
from replay.model_folder import FOLDER, MANIFEST, find
from replay.model_versions import ModelLog, point, publish
from tests.models import model, question, save, tiny, tokenizer

LONG_S = 60.0
RUNS = tuple(f"{place:012}0" for place in range(40))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tiny(tmp_path / "tiny")
    words = tokenizer()
    for seed in (1, 2, 3):
        publish(folder, partial(write, model(words, seed), words), current=False)
    return folder


def write(made: Any, words: Any, path: Path) -> None:
    save(path, made, words)


class Clock:
    """Seconds that a test gives."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


Start = Callable[..., Awaitable[PolicyServer]]


@pytest.fixture
async def start(folder: Path) -> AsyncIterator[Start]:
    """Starts servers of the folder, and stops them."""
    started: list[PolicyServer] = []

    async def begin(versions: int = 3, clock: Clock | None = None) -> PolicyServer:
        server = PolicyServer(folder, Batching(versions=versions), monotonic=clock or Clock())
        await server.start()
        started.append(server)
        return server

    yield begin
    for server in started:
        await server.stop()


def asked(run: str = "", last: Reply | None = None) -> Question:
    """A question of a run, after its last reply."""
    maker = Maker()
    if last is not None:
        assert last.sampled is not None
        maker = Maker(last.sampled.version, last.sampled.weights)
    return msgspec.structs.replace(question(max_tokens=2), run=run, maker=maker)


async def ask(server: PolicyServer, run: str = "", last: Reply | None = None) -> Reply:
    reply = await server.ask(asked(run, last), LONG_S)
    assert reply.status == "OK", reply.error
    return reply


def made(reply: Reply) -> str:
    assert reply.sampled is not None
    return reply.sampled.version


def canary(folder: Path, version: str, share: float) -> None:
    ModelLog(folder).say(lambda there: rules.canary(there, version, share, weights=""))


def end(folder: Path) -> None:
    ModelLog(folder).say(rules.ended)


async def test_a_share_of_the_runs_is_answered_by_the_canary_and_each_by_one(
    start: Start, folder: Path
) -> None:
    server = await start()
    canary(folder, "000002", 0.3)
    await server.refresh()
    replies = {run: await ask(server, run) for run in RUNS}
    versions = ModelLog(folder).read()
    assert {run: made(reply) for run, reply in replies.items()} == {
        run: versions.answers(run) for run in RUNS
    }
    assert {made(reply) for reply in replies.values()} == {BASE, "000002"}
    assert made(await ask(server)) == BASE, "what is nobody's run is no canary's"
    assert server.stats()["canary"] == {"version": "000002", "share": 0.3}
    end(folder)
    await server.refresh()
    assert {made(await ask(server, run)) for run in RUNS} == {BASE}
    for run, reply in replies.items():
        assert made(await ask(server, run, reply)) == made(reply), "it has begun with that one"


async def test_a_run_goes_on_with_its_version_across_promotions_and_back(
    start: Start, folder: Path
) -> None:
    server = await start()
    first = await ask(server, RUNS[0])
    point(folder, "000001")
    await server.refresh()
    second = await ask(server, RUNS[0], first)
    assert (made(first), made(second)) == (BASE, BASE)
    other = await ask(server, RUNS[1])
    assert made(other) == "000001"
    ModelLog(folder).say(lambda there: rules.rolled_back(there, weights=""))
    await server.refresh()
    assert made(await ask(server, RUNS[1], other)) == "000001"
    assert made(await ask(server, RUNS[2])) == BASE


async def test_a_server_that_starts_again_loads_what_runs_have_begun_on(
    start: Start, folder: Path
) -> None:
    first = await ask(await start(), RUNS[0])
    point(folder, "000001")
    server = await start()
    assert server.stats()["loaded"] == ["000001"]
    waiting = [ask(server, run, first) for run in RUNS[:8]]
    assert {made(reply) for reply in await asyncio.gather(*waiting)} == {BASE}
    assert server.stats()["loaded"] == ["000001", BASE]


async def test_who_waits_for_a_version_while_the_server_stops_hears_so(
    start: Start, folder: Path
) -> None:
    first = await ask(await start(), RUNS[0])
    point(folder, "000001")
    server = await start()
    waiting = asyncio.create_task(server.ask(asked(RUNS[0], first), LONG_S))
    await asyncio.sleep(0)
    assert server.hosted._coming, "it has begun to load"
    await server.stop()
    assert (await waiting).status in ("EXEC_ERR", "OK"), "it may just have been sampled"


async def test_a_version_that_is_gone_or_another_s_is_not_waited_for(
    start: Start, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = await start()
    reply = await ask(server)
    assert reply.sampled is not None
    for version, weights in (("000009", "x"), ("000001", "x"), (BASE, "x")):
        sampled = msgspec.structs.replace(reply.sampled, version=version, weights=weights)
        for _ in range(2):
            again = await ask(server, RUNS[0], msgspec.structs.replace(reply, sampled=sampled))
            assert made(again) == BASE
    assert caplog.text.count("its runs go on with another version") == 1


async def test_what_is_kept_is_bounded_and_the_least_lately_asked_goes(
    start: Start, folder: Path
) -> None:
    clock = Clock()
    server = await start(2, clock)
    first = await ask(server, RUNS[0])
    begun = {BASE: first}
    for name in ("000001", "000002"):
        clock.now += 1
        point(folder, name)
        await server.refresh()
        begun[name] = await ask(server, RUNS[0])
        assert len(server.stats()["loaded"]) == 2
    assert server.stats()["loaded"] == ["000001", "000002"]
    assert made(await ask(server, RUNS[0], begun["000001"])) == "000001"
    assert made(await ask(server, RUNS[0], first)) == "000002", "there is no room for it"
    canary(folder, "000003", 0.5)
    await server.refresh()
    assert server.stats()["loaded"] == ["000002", "000003"], "who is to answer is loaded"
    one = await start(1, clock)
    canary_and_current = ["000002", "000003"]
    assert one.stats()["loaded"] == canary_and_current


async def test_what_nobody_asks_any_more_is_let_go(start: Start, folder: Path) -> None:
    clock = Clock()
    server = await start(3, clock)
    first = await ask(server, RUNS[0])
    point(folder, "000001")
    await server.refresh()
    clock.now = KEEP_S - 1
    await ask(server, RUNS[0], first)
    clock.now = KEEP_S + 1
    await server.refresh()
    assert server.stats()["loaded"] == ["000001", BASE]
    clock.now = 2 * KEEP_S
    await server.refresh()
    assert server.stats()["loaded"] == ["000001"]


async def test_a_canary_that_can_t_answer_gets_no_runs_and_the_current_one_goes_on(
    start: Start, folder: Path
) -> None:
    (find(folder, "000002").path / "model.safetensors").write_bytes(b"nothing")
    canary(folder, "000002", 1.0)
    server = await start()
    assert "000002" in server.refused
    assert made(await ask(server, RUNS[0])) == BASE
    canary(folder, "000002", 0.5)
    await server.refresh()
    assert "000002" in server.refused
    end(folder)
    await server.refresh()
    assert server.refused == ""


class Away(Protocol):
    """Sets whether a disk fails."""

    def __call__(self, name: str, fails: bool, file: str = ..., /) -> None: ...


@pytest.fixture
def away(folder: Path) -> Away:
    """Has a disk fail to read a file of a version, or lets it read it again."""

    def set_to(name: str, fails: bool, file: str = "model.safetensors") -> None:
        path = folder / FOLDER / name / file
        kept = path.with_name(".kept")
        if fails:
            path.rename(kept)
            path.symlink_to("/proc/self/mem")  # whose first byte is an error of input
        else:
            kept.replace(path)

    return set_to


@pytest.mark.parametrize("file", ["model.safetensors", MANIFEST])
async def test_what_a_disk_failed_to_read_is_tried_again_now_and_then(
    file: str, start: Start, folder: Path, away: Away, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    server = await start(clock=clock)
    point(folder, "000001")
    away("000001", True, file)
    for clock.now in (0.0, 1.0, RETRY_S, RETRY_S + 1):
        await server.refresh()
        assert "000001" in server.refused
        assert "Input/output error" in server.refused
        assert made(await ask(server)) == BASE
    assert server.counts["refused"] == 1
    assert len(caplog.records) == 1, "it is said once"
    away("000001", False, file)
    await server.refresh()
    assert made(await ask(server)) == BASE, "a try reads all of it: not every second"
    clock.now = 2 * RETRY_S
    await server.refresh()
    assert (made(await ask(server)), server.refused) == ("000001", "")
    assert server.counts["swapped"] == 1


async def test_what_is_damaged_is_not_tried_again_also_beside_what_is(
    start: Start, folder: Path, away: Away
) -> None:
    clock = Clock()
    server = await start(clock=clock)
    weights = find(folder, "000002").path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"nothing")
    away("000001", True)
    point(folder, "000001")
    canary(folder, "000002", 1.0)
    await server.refresh()
    weights.write_bytes(whole)
    away("000001", False)
    clock.now = RETRY_S
    await server.refresh()
    assert "000002" in server.refused
    assert server.stats()["loaded"] == ["000001", BASE]
    assert made(await ask(server, RUNS[0])) == "000001"
    point(folder, "000002")
    await server.refresh()
    assert made(await ask(server, RUNS[0])) == "000002", "something was said: all are tried"


async def test_what_a_run_began_on_is_tried_again_too(
    start: Start, folder: Path, away: Away
) -> None:
    point(folder, "000001")
    first = await ask(await start(), RUNS[0])
    point(folder, "000002")
    clock = Clock()
    server = await start(clock=clock)
    away("000001", True)
    assert made(await ask(server, RUNS[0], first)) == "000002"
    away("000001", False)
    assert made(await ask(server, RUNS[0], first)) == "000002"
    clock.now = RETRY_S
    assert made(await ask(server, RUNS[0], first)) == "000001"


async def test_a_server_whose_log_is_damaged_goes_on_and_says_so(
    start: Start, folder: Path
) -> None:
    server = await start()
    log = folder / "versions" / "log.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + b"[]\n")
    await server.refresh()
    assert "can't be read" in server.refused
    assert made(await ask(server, RUNS[0])) == BASE
    with pytest.raises(InvalidData):
        await PolicyServer(folder).start()
    log.write_bytes(whole)
    await server.refresh()
    assert server.refused == ""
