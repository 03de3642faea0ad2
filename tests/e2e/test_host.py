"""A connection to a deployment: what it takes from the broker, and what it refuses to attach to."""

from pathlib import Path

import msgspec
import pytest

from podium import host
from podium.config import BudgetTable, Config, Nats, RedactTable
from podium.daemon import LOCK, RECORD, Record, connection, only_one
from podium.host import Host
from podium.poolfile import LoadedPool
from protocol import subjects
from protocol.actions import Pool, WorkerSpec
from protocol.decisions import PolicySpec
from protocol.errors import PodiumError, Unreachable, Usage
from protocol.redaction import Redactor
from replay.scrub import KeptHead
from replay.streams import definitions, ensure_streams
from tests.broker import r1

TOOL = WorkerSpec(name="tool", adapter="function:shop:price", options={"sizes": (1, 2)})
SAYS = msgspec.structs.replace(TOOL, description="Log in with password=Hunter2345x first.")
RECORDED = Redactor().pool(Pool((SAYS,))).workers[0]
"""The same as runs record it."""


def loaded(*workers: WorkerSpec) -> LoadedPool:
    """A pool as it is read from a file."""
    return LoadedPool(
        path=Path("shop.toml"),
        name="shop",
        pool=Pool(workers),
        policy="rules",
        budget=BudgetTable(),
    )


async def test_a_user_may_look_for_cut_logs(tmp_path: Path) -> None:
    config = Config(folder=str(tmp_path))
    with r1(folder=tmp_path / "nats") as there:
        broker = await connection(config, there.server, "conductor").open("test")
        await ensure_streams(broker)
        run = subjects.run_id(bytes(8))
        await broker.append(
            subjects.head(run), msgspec.json.encode(KeptHead(run=run, n=3, hash="0" * 64))
        )
        await broker.close()
        async with Host.connect(config) as found:
            (finding,) = await found.findings()
    assert (finding.run, finding.kind) == (run, "cut")


async def test_an_error_shows_no_password() -> None:
    config = Config(nats=Nats(url="nats://anna:s3cret@127.0.0.1:1"))
    with pytest.raises(Unreachable, match=r"answers at nats://127\.0\.0\.1:1$") as caught:
        async with Host.connect(config):
            pass
    assert "s3cret" not in str(caught.value) + caught.value.hint


async def test_new_runs_go_to_the_shards_that_are_there(tmp_path: Path) -> None:
    config = Config(folder=str(tmp_path), shards=8)
    with r1(folder=tmp_path / "nats") as there:
        broker = await connection(config, there.server, "conductor").open("test")
        await ensure_streams(broker, shards=2)
        await broker.close()
        async with Host.connect(config) as found:
            runs = [found.client.new_run() for _ in range(100)]
    assert {subjects.shard(run) for run in runs} == {0, 1}


async def test_the_key_of_a_model_is_in_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "gateway/of/ours")
    config = Config(folder=str(tmp_path))
    with r1(folder=tmp_path / "nats") as there:
        broker = await connection(config, there.server, "conductor").open("test")
        await ensure_streams(broker)
        async with Host.connect(config) as found:
            run = await found.client.submit(
                "use gateway/of/ours", Pool((TOOL,)), PolicySpec(name="rules")
            )
        task = await broker.last(subjects.TASKS, subjects.task("normal", run))
        await broker.close()
    assert task is not None
    assert b"use [redacted:OPENAI_API_KEY]" in task.data
    assert b"gateway" not in task.data


def test_the_number_of_shards_is_named_by_its_key() -> None:
    with pytest.raises(Usage) as caught:
        definitions(0, 1)
    assert "nats." not in caught.value.hint
    assert "shards" in caught.value.hint


@pytest.mark.parametrize(
    ("pool", "differs"),
    [
        (loaded(TOOL), ""),
        (loaded(SAYS), ""),
        (loaded(RECORDED), ""),
        (loaded(WorkerSpec(name="other")), "without other"),
        (
            loaded(msgspec.structs.replace(TOOL, adapter="function:shop:price2")),
            "with another definition of tool",
        ),
        (
            loaded(msgspec.structs.replace(TOOL, timeout_ms=1), WorkerSpec(name="x")),
            "without x and with another definition of tool",
        ),
    ],
)
async def test_a_deployment_of_other_workers_is_not_used(
    tmp_path: Path, pool: LoadedPool, differs: str
) -> None:
    config = Config(folder=str(tmp_path))
    there = Pool((RECORDED if "password" in pool.pool.workers[0].description else TOOL,))
    record = Record(
        pid=1, url="nats://x", pool="shop", workers=there, since=1, durability="process"
    )
    with only_one(tmp_path):
        (tmp_path / RECORD).write_bytes(msgspec.json.encode(record))
        assert host.standing(config) is not None
        message = f"hosts pool 'shop', {differs}" if differs else "there is no deployment in"
        with pytest.raises(PodiumError, match=message) as caught:
            async with Host.open(config, pool):
                pass
    withdraws = "--folder .podium-" in caught.value.hint and "withdraw tool" in caught.value.hint
    assert withdraws == (differs == "without other")
    assert (tmp_path / LOCK).exists()


async def test_a_pool_that_would_be_hosted_otherwise_than_recorded_is_refused(
    tmp_path: Path,
) -> None:
    config = Config(folder=str(tmp_path), redact=RedactTable(names=("sizes",)))
    says = "the worker 'tool': its option 'sizes' holds a secret"
    with pytest.raises(Usage, match=says):
        await host.up(config, loaded(TOOL))
    with pytest.raises(Usage, match=says):
        async with Host.open(config, loaded(TOOL)):
            pass
