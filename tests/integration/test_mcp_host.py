"""The tools of one server in one process: they share its session, as a browser's have to."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import psutil
import pytest

import podium
from actors.jetstream_queue import JetStreamQueue, consumers_of
from actors.programs import Connection, Declared, placed, start
from podium import poolfile
from podium.client import Client
from podium.config import Config
from protocol import subjects
from protocol.actions import Pool, WorkerSpec
from replay.jetstream_log import JetStreamLog
from replay.streams import ensure_streams
from tests.broker import One, r1
from tests.integration.browsing import POLICY
from tests.places import connected

ROOT: Final = Path(__file__).resolve().parent.parent.parent

LIMIT_S: Final = 60.0

FILE: Final = f"""
[pool]
name = "browsing"
policy = "{POLICY.name}"
[[worker]]
name = "browser"
adapter = "mcp"
only = ["go", "where"]
[worker.options]
command = "{sys.executable}"
args = ["-m", "tests.mcp_server"]
cwd = "{ROOT}"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "browsing.toml"
    path.write_text(FILE)
    return path


@contextlib.asynccontextmanager
async def deployment(server: One, pool: Pool) -> AsyncIterator[Client]:
    """A conductor and what hosts a pool, in this loop."""
    owner = await connected(server, "conductor")
    await ensure_streams(owner)
    tasks = JetStreamQueue(owner, subjects.TASKS, lease_s=10)
    await tasks.ensure(consumers_of("tasks"))
    calls = JetStreamQueue(owner, subjects.CALLS, lease_s=10)
    for spec in pool.workers:
        await calls.ensure(consumers_of(spec.name))
    declared = [_declared(server, "conductor-1", ())]
    declared += [_declared(server, name, specs) for name, specs in placed(pool).items()]
    programs = [await start(each) for each in declared]
    try:
        yield Client(JetStreamLog(owner), tasks)
        for each, program in zip(declared, programs, strict=True):
            health = await program.health()
            assert set(health.queues) == {spec.name for spec in each.specs} or not each.specs
            assert all(pulled.progress for pulled in health.queues.values())
    finally:
        for program in programs:
            await program.stop()
        await owner.close()


def _declared(server: One, name: str, specs: tuple[WorkerSpec, ...]) -> Declared:
    user, password = server.credentials("worker" if specs else "conductor")
    return Declared(
        name=name,
        kind="worker" if specs else "conductor",
        connection=Connection(url=server.url, user=user, password=password),
        lease_s=10,
        policies=(POLICY.name,),
        specs=specs,
    )


async def test_what_one_tool_does_the_other_sees(file: Path, tmp_path: Path) -> None:
    pool = (await asyncio.to_thread(poolfile.load, file)).pool
    assert list(placed(pool)) == ["host-browser-1"]
    before = set(psutil.Process().children())
    with r1(folder=tmp_path / "nats") as server:
        async with deployment(server, pool) as client:
            started = set(psutil.Process().children()) - before
            run = await client.submit("home", pool, POLICY)
            async with asyncio.timeout(LIMIT_S):
                result = await client.result(run)
            assert result.answer == "[{'result': 1}, {'result': ['home']}]"
            left = set(psutil.Process().children()) - before - started
            assert len(left) == 1, "one server for both"
        assert not any(process.is_running() for process in left)


@pytest.mark.slow
def test_and_so_in_a_deployment(file: Path, tmp_path: Path) -> None:
    config = Config(folder=str(tmp_path / "deployment"))
    result = podium.run("home", pool=file, config=config)
    assert result.answer == "[{'result': 1}, {'result': ['home']}]"
