"""The whole system rebuilt on a fresh Ray cluster, from the data folder of the broker alone."""

import shutil
from pathlib import Path

import pytest

from replay.jetstream_log import JetStreamLog
from tests.integration import chaos_pool
from tests.integration.chaos import Deployment, of_deployment
from tests.integration.chaos_check import Found, check
from tests.integration.chaos_load import Load, Witness

RUNS = 16


@pytest.mark.slow
async def test_unfinished_runs_finish_on_a_fresh_cluster_from_the_data_folder_alone(
    tmp_path: Path,
) -> None:
    pool = chaos_pool.pool(slots=16)
    second_folder = tmp_path / "second"
    second_folder.mkdir(mode=0o700)
    first = Deployment(tmp_path / "first", pool)
    second = Deployment(second_folder, pool)
    try:
        await first.up()
        async with first.connected() as host:
            witness = Witness()
            await witness.listen(host)
            load = Load(host, witness, pool, rounds=(12,))
            await load.begin(RUNS)
            await witness.moments(60, 60)
            sessions = ray_sessions(first)
            await first.clear()
            assert not witness.ended, "every run is in flight"
        assert sessions
        for session in sessions:
            shutil.rmtree(session)
        shutil.move(first.folder / "nats", second_folder / "nats")
        shutil.rmtree(first.folder)

        await second.up()
        async with second.connected() as host:
            witness = Witness()
            await witness.listen(host)
            load.witness, load.host = witness, host
            await load.all_ended(60)
            found = Found()
            for asked in load.asked.values():
                await check(JetStreamLog(host.broker), asked.run, asked.answer, found)
            assert found.activations > found.runs, "they went on; they did not begin again"
        await second.down()
    finally:
        await first.clear()
        await second.clear()


def ray_sessions(deployment: Deployment) -> set[Path]:
    """Where the deployment's Ray cluster keeps what it has."""
    marks = (cmd for cmd in of_deployment(deployment.folder).values() if "--log_dir=" in cmd)
    return {Path(cmd.partition("--log_dir=")[2].split()[0]).parent for cmd in marks}
