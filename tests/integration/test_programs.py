"""Programs over a real broker: all of a host's workers work, or none does."""

from pathlib import Path
from typing import Final

import pytest
from nats.errors import Error as NatsError

from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.programs import Connection, Declared, start
from protocol import subjects
from protocol.actions import WorkerSpec
from replay.streams import ensure_streams
from tests.broker import r1
from tests.places import connected

GOOD: Final = WorkerSpec(name="good", adapter="python")
BAD: Final = WorkerSpec(name="of no subject", adapter="python")


async def test_where_one_worker_of_a_host_cant_start_the_others_take_nothing(
    tmp_path: Path,
) -> None:
    with r1(folder=tmp_path) as server:
        owner = await connected(server, "conductor")
        await ensure_streams(owner)
        await JetStreamQueue(owner, subjects.CALLS, lease_s=10).ensure(consumers_of(GOOD.name))
        user, password = server.credentials("worker")
        declared = Declared(
            name="host-1",
            kind="worker",
            connection=Connection(url=server.url, user=user, password=password),
            lease_s=10,
            specs=(GOOD, BAD),
        )
        with pytest.raises(NatsError):
            await start(declared)
        for stream, consumer in declared.consumers(GOOD.name):
            info = await owner.request(f"$JS.API.CONSUMER.INFO.{stream}.{consumer}")
            assert info["num_waiting"] == 0, "nobody asks for its calls"
        await owner.close()
