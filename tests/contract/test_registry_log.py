"""The registry's log, in memory and on a real server: what one says the other reads, in order."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TypeAlias

import pytest

from protocol import registry as rules
from protocol.actions import Pool, WorkerSpec
from protocol.errors import Conflict, InvalidData, TooLarge, Unreachable
from protocol.registry import EMPTY, Change
from protocol.subjects import REGISTRY
from replay.registry_log import JetStreamRegistry, MemoryRegistry, RegistryLog
from replay.streams import ensure_streams
from tests.broker import One, r1
from tests.places import connected

Opened: TypeAlias = Callable[[], Awaitable[RegistryLog]]
"""Another view of the same log."""


@pytest.fixture(scope="module")
def server() -> Iterator[One]:
    with r1() as server:
        yield server


@pytest.fixture(params=["memory", "jetstream"])
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Opened]:
    if request.param == "memory":
        memory = MemoryRegistry()

        async def same() -> RegistryLog:
            return memory

        yield same
        return
    server: One = request.getfixturevalue("server")
    async with contextlib.AsyncExitStack() as stack:
        owner = await connected(server, "conductor")
        stack.push_async_callback(owner.close)
        await ensure_streams(owner)
        with contextlib.suppress(Exception):
            await owner.request("$JS.API.STREAM.PURGE.WORKERS")

        async def another() -> RegistryLog:
            broker = await connected(server, "conductor")
            stack.push_async_callback(broker.close)
            return JetStreamRegistry(broker)

        yield another


def said(log: rules.Registry, *names: str) -> Change:
    pool = Pool(tuple(WorkerSpec(name=name) for name in names))
    found = rules.change(log, pool, at=1, by="me")
    assert found is not None
    return found


async def test_what_is_said_is_read_by_all(opened: Opened) -> None:
    one, other = await opened(), await opened()
    assert await one.read() == EMPTY
    after = await one.append(said(EMPTY, "a", "b"))
    assert after.pending is not None
    assert await other.read() == after
    settled = await other.append(rules.verdict(after, "", at=2))
    assert [spec.name for spec in settled.offered] == ["a", "b"]
    assert await one.read() == settled
    assert await (await opened()).read() == settled


async def test_who_has_not_read_the_last_word_says_nothing(opened: Opened) -> None:
    one, other = await opened(), await opened()
    first = said(await one.read(), "a")
    second = said(await other.read(), "b")
    after = await one.append(first)
    with pytest.raises(Conflict, match="somebody else has changed them"):
        await other.append(second)
    assert await other.read() == after


@pytest.mark.parametrize("opened", ["jetstream"], indirect=True)
async def test_more_than_a_message_holds_is_refused_and_changes_nothing(opened: Opened) -> None:
    one = await opened()
    assert isinstance(one, JetStreamRegistry)
    wide = tuple(WorkerSpec(name=f"w{n}", description=50_000 * "x") for n in range(12))
    change = rules.change(await one.read(), Pool(wide), at=1)
    assert change is not None
    with pytest.raises(TooLarge, match="change 1 of the workers has too much"):
        await one.append(change)
    assert await (await opened()).read() == EMPTY


@pytest.mark.parametrize("opened", ["jetstream"], indirect=True)
async def test_what_was_taken_though_nobody_heard_so_is_no_conflict(opened: Opened) -> None:
    one = await opened()
    assert isinstance(one, JetStreamRegistry)
    other = JetStreamRegistry(one._broker)
    change = said(await one.read(), "a")
    assert await other.read() == EMPTY
    after = await one.append(change)
    assert await other.append(change) == after


async def test_a_message_that_is_none_is_named(server: One) -> None:
    owner = await connected(server, "conductor")
    try:
        await ensure_streams(owner)
        await owner.append(REGISTRY, b"{}")
        with pytest.raises(InvalidData, match=r"message \d+ of the registry"):
            await JetStreamRegistry(owner).read()
    finally:
        await owner.request("$JS.API.STREAM.PURGE.WORKERS")
        await owner.close()


async def test_a_deployment_without_one_has_an_empty_one_that_nobody_can_change(
    server: One,
) -> None:
    owner = await connected(server, "conductor")
    try:
        with contextlib.suppress(Exception):
            await owner.request("$JS.API.STREAM.DELETE.WORKERS")
        log = JetStreamRegistry(owner)
        assert await log.read() == EMPTY
        with pytest.raises(Unreachable, match="keeps no registry of workers"):
            await log.append(said(EMPTY, "a"))
    finally:
        await owner.close()
