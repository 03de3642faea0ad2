"""Damage to a real store: whatever the server then makes of it, `verify` names what was done.

A nats-server has a checksum of its own for each message. One whose bytes were changed on the disk
is held back as if it weren't there; and a server that starts again after a crash reads its files
anew and gives up everything from such a message on.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import pytest

from actors.embedded import Role
from protocol import subjects
from protocol.codec import digest, encode
from replay.broker import Broker
from replay.chain import Head
from replay.damage import Known
from replay.jetstream_log import JetStreamLog
from replay.scrub import BrokerLedger, Scrubber
from replay.streams import definitions
from replay.verify import Verified, verify_run
from tests.broker import One, r1
from tests.places import connected
from tests.unit.test_damage import LOG

COUNT: Final = len(LOG.commits)
STREAM: Final = subjects.log_stream(0)

T = TypeVar("T")


@pytest.fixture
def server() -> Iterator[One]:
    """One server, whose log lets single messages be deleted; the run stands in it."""
    with r1() as server:
        asyncio.run(_with_broker(server, _fill))
        yield server


async def _with_broker(
    server: One, work: Callable[[Broker], Awaitable[T]], role: Role = "conductor"
) -> T:
    broker = await connected(server, role)
    try:
        return await work(broker)
    finally:
        await broker.close()


async def _fill(broker: Broker) -> None:
    for config in definitions(1, 1):
        changed = {**config, "deny_delete": False} if config["name"] == STREAM else config
        await broker.request(f"$JS.API.STREAM.CREATE.{config['name']}", changed)
    log, head = JetStreamLog(broker), Head()
    for entry in LOG.inbox:
        await log.post(LOG.run, encode(entry.message))
    for commit in LOG.commits:
        head = await log.append(commit, head)
    await Scrubber(log, BrokerLedger(log)).scrub()  # which keeps its head


def verified(server: One, *, kept: bool = True) -> Verified:
    async def look(broker: Broker) -> Verified:
        log = JetStreamLog(broker)
        heads = await BrokerLedger(log).kept(LOG.run) if kept else {}
        head = heads[LOG.run].head if heads else None
        return await verify_run(log, LOG.run, Known(head.n, head.hash) if head else None)

    return asyncio.run(_with_broker(server, look, "client"))


def flip(server: One, data: bytes, at: int = 40) -> None:
    """Flip a bit of a message in the server's file."""
    (block,) = Path(server.folder).glob(f"store/**/{STREAM}/msgs/*.blk")
    place = block.read_bytes().index(data) + at
    file = os.open(block, os.O_RDWR)
    try:
        os.pwrite(file, bytes([os.pread(file, 1, place)[0] ^ 4]), place)
    finally:
        os.close(file)


def named(found: Verified) -> list[tuple[str, int]]:
    return [(each.what, each.commit) for each in found.problems]


def test_what_nobody_has_damaged_is_sound(server: One) -> None:
    assert verified(server).outcome == "sound"
    server.server.stop()
    server.restart()
    found = verified(server)
    assert (found.outcome, found.commits, found.decided) == ("sound", COUNT, COUNT)


@pytest.mark.parametrize("n", [1, 4, COUNT - 1])
def test_a_bit_flipped_in_the_file_of_a_stopped_server(server: One, n: int) -> None:
    server.server.stop()
    flip(server, encode(LOG.commits[n - 1]))
    server.restart()
    for kept in (True, False):
        found = verified(server, kept=kept)
        assert named(found) == [("removed", n)]
        assert "because its own checksum fails" in found.problems[0].likely
        assert found.decided == n - 1


def test_a_bit_flipped_in_the_last_commit(server: One) -> None:
    server.server.stop()
    flip(server, encode(LOG.commits[-1]))
    server.restart()
    assert named(verified(server)) == [("cut", COUNT)]


def test_a_bit_flipped_and_a_server_that_crashed(server: One) -> None:
    server.kill()
    flip(server, encode(LOG.commits[3]))
    server.restart()
    found = verified(server)
    assert named(found) == [("cut", 4)]
    assert found.problems[0].where == f"commits 4 to {COUNT}"
    assert "started again after a crash" in found.problems[0].likely


def test_a_bit_flipped_in_the_inbox(server: One) -> None:
    report = encode(LOG.inbox[1].message)
    server.server.stop()
    flip(server, report, len(report) - 9)
    server.restart()
    (problem,) = verified(server).problems
    assert (problem.what, problem.where) == ("inbox_removed", f"inbox message {digest(report)}")
    assert problem.expected.startswith("the report of call 1-0, attempt 2, on which commit")


@pytest.mark.parametrize("n", [1, 5, COUNT])
def test_a_message_that_is_deleted(server: One, n: int) -> None:
    async def delete(broker: Broker) -> None:
        seqs = (await JetStreamLog(broker).read(LOG.run)).seqs
        await broker.request(f"$JS.API.STREAM.MSG.DELETE.{STREAM}", {"seq": seqs[n - 1]})

    asyncio.run(_with_broker(server, delete))
    found = verified(server)
    assert named(found) == [("cut" if n == COUNT else "removed", n)]


def test_two_messages_that_are_written_in_each_others_place(server: One) -> None:
    async def swap(broker: Broker) -> None:
        subject = subjects.commits(LOG.run)
        await broker.request(f"$JS.API.STREAM.PURGE.{STREAM}", {"filter": subject})
        order = [*range(COUNT)]
        order[2], order[6] = order[6], order[2]
        for each in order:
            await broker.append(subject, encode(LOG.commits[each]))

    asyncio.run(_with_broker(server, swap))
    (problem,) = verified(server).problems
    assert (problem.what, problem.where) == ("out_of_order", "commits 3 and 7")


def test_a_message_that_is_written_anew_with_another_content(server: One) -> None:
    async def forge(broker: Broker) -> None:
        subject = subjects.commits(LOG.run)
        await broker.request(f"$JS.API.STREAM.PURGE.{STREAM}", {"filter": subject})
        for n, commit in enumerate(LOG.commits, 1):
            data = encode(commit)
            await broker.append(subject, data.replace(b'"tool"', b'"fool"') if n == 2 else data)

    asyncio.run(_with_broker(server, forge))
    (problem,) = verified(server, kept=False).problems
    assert (problem.kind, problem.what, problem.commit) == ("damaged", "changed", 2)
