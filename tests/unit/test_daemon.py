"""What a daemon does by itself, apart from Ray."""

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any

import pytest

from actors import descendants
from actors.embedded import NatsServer
from podium import cluster, daemon
from podium.config import Config
from podium.daemon import Asked, Daemon, only_one
from protocol import subjects
from protocol.actions import Pool, WorkerSpec
from protocol.errors import Conflict, Unreachable
from replay.registry_log import JetStreamRegistry

WITHIN_S = 20


def asked(folder: Path) -> Asked:
    """A daemon of one worker."""
    pool = Pool((WorkerSpec(name="tool"),))
    return Asked(config=Config(folder=str(folder)), pool_name="shop", pool=pool, tied=True)


def test_who_finds_the_folder_taken_is_told_what_to_do(tmp_path: Path) -> None:
    with (
        only_one(tmp_path),
        pytest.raises(Conflict, match="a deployment is running") as caught,
        only_one(tmp_path),
    ):
        pass
    for cure in ("wait for it", "--folder", "`podium up` first"):
        assert cure in caught.value.hint


class Refusing(Daemon):
    """A daemon whose first tries to prepare the broker fail."""

    def __init__(self, asked: Asked, refusals: int) -> None:
        super().__init__(asked)
        self.refusals = refusals
        self.prepared = asyncio.Event()

    async def _prepare(self) -> None:
        if self.refusals:
            self.refusals -= 1
            raise Unreachable("no leader yet")
        await super()._prepare()
        self.prepared.set()


async def test_a_broker_that_is_back_is_prepared_until_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "PREPARE_PAUSE_S", 0.01)
    tried = Refusing(asked(tmp_path), refusals=0)
    await tried._start_broker()
    assert tried.server is not None
    await tried._prepare()
    assert tried.broker is not None
    await tried.roster.begin(JetStreamRegistry(tried.broker), tried.asked.pool, "", {})
    await tried.broker.request(f"$JS.API.STREAM.DELETE.{subjects.CALLS}")  # it was in memory
    tried.refusals = 3
    tried.prepared.clear()
    keeping = asyncio.create_task(tried._keep_prepared())
    try:
        tried.reconnected.set()  # once: nobody says it again
        async with asyncio.timeout(WITHIN_S):
            await tried.prepared.wait()
        info = await tried.broker.request(f"$JS.API.STREAM.INFO.{subjects.CALLS}")
        assert info["state"]["consumer_count"] == 2
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        if tried.broker is not None:
            await tried.broker.close()
        await asyncio.to_thread(tried.server.stop)


async def test_a_broker_that_is_starting_is_not_ended_with_a_clusters_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    began, cleared = threading.Event(), threading.Event()

    def start(*_: Any) -> None:
        began.set()
        cleared.wait(0.2)  # whoever does not wait for this one clears now
        order.append("started")

    def kill(but: Any) -> int:
        order.append("cleared")
        cleared.set()
        return 0

    monkeypatch.setattr(NatsServer, "start", start)
    monkeypatch.setattr(descendants, "kill", kill)
    monkeypatch.setattr(cluster, "READY_S", 0.0)
    tried = Daemon(asked(tmp_path))
    starting = asyncio.create_task(tried._start_broker())
    async with asyncio.timeout(WITHIN_S):
        await asyncio.to_thread(began.wait)
        with contextlib.suppress(Unreachable):
            await tried._start_cluster()
        await starting
    tried.cluster.kill()
    await tried.cluster.stop()
    assert order == ["started", "cleared"]
