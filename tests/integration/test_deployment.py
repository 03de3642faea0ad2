"""Deployments as a command has them: its own, standing, side by side; and what they leave."""

import asyncio
import os
import signal
import socket
import time
from pathlib import Path
from typing import Final

import msgspec
import psutil
import pytest

from podium import host
from podium.host import Host
from protocol.actions import Pool, WorkerSpec
from protocol.errors import Conflict, Unreachable, Usage
from tests.integration import chaos_pool
from tests.integration.chaos import Deployment, actors, ended, eventually, kill, of_deployment
from tests.integration.chaos_load import BUDGET

POOL: Final = chaos_pool.pool(slots=4)

ORPHANS_LIMIT_S: Final = 30.0
"""Seconds for everything to end when nobody is left to end it, on a busy machine."""

AGENTS: Final = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
"""Children of the raylet."""


async def answers(there: Host, n: int) -> bool:
    """Whether a run gets through all of a deployment."""
    task = chaos_pool.task(n, rounds=1, child=True)
    run = await there.client.submit(task, POOL, chaos_pool.POLICY, BUDGET)
    async with asyncio.timeout(30):
        result = await there.client.result(run)
    return result.answer == str(chaos_pool.expected(n, rounds=1, child=True))


def kept_by_ray(deployment: Deployment) -> Path:
    """Ray's own folder of the deployment's cluster."""
    option = "--session_dir="
    (found,) = (
        text.removeprefix(option)
        for text in psutil.Process(deployment.raylet()).cmdline()
        if text.startswith(option)
    )
    return Path(found)


async def test_a_deployment_of_ones_own_works_and_leaves_nothing(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "podium", POOL)
    try:
        with deployment.marked():
            async with Host.open(deployment.config, deployment.pool) as there:
                assert await answers(there, 7)
                assert host.standing(deployment.config) is None
        await deployment.nothing_left(limit_s=10)
    finally:
        await deployment.clear()


async def test_a_standing_deployment_is_found_used_and_stopped(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "podium", POOL)
    try:
        assert host.standing(deployment.config) is None
        await deployment.up()
        record = host.standing(deployment.config)
        assert record is not None
        assert (record.pid, record.pool) == (deployment.daemon(), "chaos")
        with pytest.raises(Conflict, match=f"process {record.pid}"):
            await deployment.up()
        async with Host.open(deployment.config, deployment.pool) as there:
            assert await answers(there, 8)
        stranger = msgspec.structs.replace(POOL.workers[0], name="stranger")
        other = msgspec.structs.replace(deployment.pool, pool=Pool((stranger,)))
        with pytest.raises(Usage, match="without stranger"):
            async with Host.open(deployment.config, other):
                pass
        assert deployment.daemon() == record.pid, "whoever used it did not stop it"
        session = kept_by_ray(deployment)
        assert session.is_dir()
        assert await host.down(deployment.config)
        await deployment.nothing_left(limit_s=10)
        assert not session.exists()
        latest = session.parent / "session_latest"
        assert not latest.is_symlink() or latest.readlink() != session, (
            "Ray would put no other there"
        )
        assert host.standing(deployment.config) is None
        assert not await host.down(deployment.config)
    finally:
        await deployment.clear()


@pytest.mark.slow
async def test_a_killed_daemon_leaves_no_process_behind(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "podium", POOL)
    try:
        await deployment.up()
        left = of_deployment(deployment.folder)
        wanted = (
            "guard.py server",
            "guard.py family",
            "nats-server",
            "gcs_server",
            "raylet",
            "ray::ProgramActor",
        )
        missing = [name for name in wanted if not any(name in text for text in left.values())]
        assert not missing
        await kill(deployment.daemon())
        began = time.monotonic()
        for pid in left:
            await ended(pid, ORPHANS_LIMIT_S - (time.monotonic() - began))
        assert of_deployment(deployment.folder) == {}
        await deployment.up()
        async with deployment.connected() as there:
            assert await answers(there, 9)
        await deployment.down()
    finally:
        await deployment.clear()


async def test_a_killed_driver_and_daemon_leave_no_process_behind(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "podium", POOL)
    try:
        await deployment.up()
        async with Host.open(deployment.config, deployment.pool) as there:
            gone = asyncio.create_task(there.gone())
            left = of_deployment(deployment.folder)
            cluster = deployment.cluster()
            assert not gone.done()
            await kill(deployment.daemon())
            await kill(cluster)
            began = time.monotonic()
            await asyncio.wait_for(gone, ORPHANS_LIMIT_S)
        for pid in left:
            await ended(pid, ORPHANS_LIMIT_S - (time.monotonic() - began))
        assert of_deployment(deployment.folder) == {}
    finally:
        await deployment.clear()


@pytest.mark.slow
async def test_rays_agents_end_in_time_though_its_control_store_died_first(tmp_path: Path) -> None:
    """They would tell it for a minute that their raylet is dead."""
    deployment = Deployment(tmp_path / "podium", POOL)
    try:
        await deployment.up()

        async def there() -> bool:
            return set(of_deployment(deployment.folder).values()) >= AGENTS

        await eventually(there, "Ray's agents")
        left = of_deployment(deployment.folder)
        watching = (deployment.daemon(), deployment.cluster())
        dying = (deployment.gcs_server(), deployment.raylet(), *watching)
        assert all(dying)
        for pid in watching:  # else they end the rest of Ray themselves
            os.kill(pid, signal.SIGSTOP)
        for pid in dying:
            await kill(pid)
        began = time.monotonic()
        for pid in left:
            await ended(pid, ORPHANS_LIMIT_S - (time.monotonic() - began))
        assert of_deployment(deployment.folder) == {}
    finally:
        await deployment.clear()


@pytest.mark.slow
async def test_two_deployments_stand_side_by_side(tmp_path: Path) -> None:
    left, right = Deployment(tmp_path / "left", POOL), Deployment(tmp_path / "right", POOL)
    try:
        await left.up()
        await right.up()
        async with left.connected() as one, right.connected() as two:
            assert all(await asyncio.gather(answers(one, 10), answers(two, 11)))
            pids = [{said["pid"] for said in (await actors(each)).values()} for each in (one, two)]
            assert not pids[0] & pids[1]
        await left.down()
        async with right.connected() as two:
            assert await answers(two, 12)
        await right.down()
    finally:
        await left.clear()
        await right.clear()


async def test_a_worker_that_cannot_be_imported_is_named_with_the_reason(tmp_path: Path) -> None:
    broken = WorkerSpec(name="broken", adapter="function:no_such_module:f")
    deployment = Deployment(tmp_path / "podium", Pool((*POOL.workers, broken)))
    try:
        began = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            await deployment.up()
        assert "worker-broken-1: There is no module 'no_such_module'" in caught.value.message
        assert time.monotonic() - began < 60
        assert "deployment.log" in caught.value.hint
        assert "worker-broken-1" in deployment.said()
        await deployment.nothing_left(limit_s=10)
    finally:
        await deployment.clear()


@pytest.mark.slow
async def test_a_broker_that_has_lost_its_port_is_found_on_another(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path / "podium", POOL)
    try:
        await deployment.up()
        record = host.standing(deployment.config)
        assert record is not None
        os.kill(record.pid, signal.SIGSTOP)  # else it starts the broker before the port is taken
        await kill(deployment.server())
        with socket.create_server(("127.0.0.1", int(record.url.rpartition(":")[2]))):
            os.kill(record.pid, signal.SIGCONT)

            async def moved() -> bool:
                there = host.standing(deployment.config)
                return there is not None and there.url != record.url

            await eventually(moved, "the broker stands elsewhere, and its actors with it")
            async with deployment.connected() as there:
                assert await answers(there, 13)
            await deployment.down()
    finally:
        await deployment.clear()
