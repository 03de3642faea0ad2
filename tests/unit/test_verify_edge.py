"""Verification from a log: blobs are fetched, what a fork shares is read, heads are known."""

from typing import Any

import pytest

from protocol.errors import NotFound
from replay.chain import Stored
from replay.damage import Known
from replay.log import EventLog
from replay.memory_log import MemoryLog, MemoryStore
from replay.verify import Verified, verify_run
from tests.golden.store import LOGS, Golden, goldens
from tests.logs import log_of, messages_of
from tests.runs import answer, planned, started
from tests.unit.test_forks import forked

ALL = {golden.manifest.story: golden for golden in goldens(LOGS)}


def store_of(golden: Golden) -> MemoryStore:
    """The runs of a golden log, in a store."""
    store = MemoryStore()
    for run in golden.runs:
        messages = golden.messages(run)
        store.messages[run, "c"], store.messages[run, "i"] = messages
    for path in golden.folder.glob("blobs/*"):
        store.blobs[path.name] = path.read_bytes()
    return store


def what(found: Verified) -> list[str]:
    return [each.what for each in found.problems]


@pytest.mark.parametrize("story", ALL)
async def test_golden_logs_verify_from_a_store(story: str) -> None:
    golden = ALL[story]
    log: EventLog = MemoryLog(store_of(golden))
    for run in golden.runs:
        found = await verify_run(log, run)
        assert found.problems == ()
        assert found.decided == found.commits > 0


async def test_a_blob_that_is_gone_or_changed_is_named() -> None:
    golden = ALL["blobs"]
    (run,) = golden.runs
    store = store_of(golden)
    (sha,) = store.blobs
    store.blobs[sha] = store.blobs[sha].replace(b"long", b"lung", 1)
    found = await verify_run(MemoryLog(store), run)
    assert what(found) == ["blob_changed"]
    assert sha in found.problems[0].found
    assert found.decided == found.commits
    assert found.prompts == 1  # the other one shows the value
    del store.blobs[sha]
    found = await verify_run(MemoryLog(store), run)
    assert (what(found), found.outcome) == (["blob_removed"], "damaged")


async def test_a_fork_is_verified_with_what_it_shares() -> None:
    golden = ALL["forked"]
    origin, rerun, _, lazy = golden.runs
    store = store_of(golden)
    shared = len(store.messages[origin, "c"])
    for damaged in (store.messages[origin, "c"][:1], [Stored(1, b"noise")], []):
        store.messages[origin, "c"] = damaged
        for run in (rerun, lazy):
            found = await verify_run(MemoryLog(store), run)
            assert what(found)[0] == "origin"
            assert origin in found.problems[0].found or rerun in found.problems[0].found
            assert found.decided == 0
    assert shared > 1


async def test_damage_behind_what_a_fork_shares_is_none_of_its_own() -> None:
    driver = started(planned(n=1))
    shared = len(driver.events)
    driver.report("1-0", value=1)
    driver.reply(answer())
    log, store = log_of(driver), MemoryStore()
    fork = log_of(forked(log, shared))
    for each in (log, fork):
        store.messages[each.run, "c"], store.messages[each.run, "i"] = messages_of(each)
    last = store.messages[log.run, "c"][-1]
    store.messages[log.run, "c"][-1] = Stored(last.seq, last.data[:-5])
    assert (await verify_run(MemoryLog(store), fork.run)).outcome == "sound"
    found = await verify_run(MemoryLog(store), log.run, Known(log.head.n, log.head.hash))
    assert what(found) == ["unreadable"]


async def test_a_run_whose_shard_is_gone_is_cut() -> None:
    class Shardless(MemoryLog):
        async def stored(self, run: str, least: int = 0) -> Any:
            raise NotFound(f"run {run} would be in shard 0, and there is none")

    found = await verify_run(Shardless(), "0" * 13, Known(3, "f" * 32))
    assert what(found) == ["cut"]
    with pytest.raises(NotFound):
        await verify_run(Shardless(), "0" * 13)
