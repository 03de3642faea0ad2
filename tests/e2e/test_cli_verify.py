"""`podium verify` as a person types it: a sound run, damage, a divergence, all runs at once."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol import semconv
from protocol.actions import Spend
from protocol.codec import decode_commit
from protocol.events import RunStarted
from replay.chain import Messages, Stored, assemble
from replay.scrub import KeptHead
from tests.collector import Collector
from tests.e2e.memory_host import Shell
from tests.logs import chained, messages_of


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="tester")


def commits(shell: Shell, run: str) -> list[Stored]:
    return shell.deployments.store.messages[run, "c"]


def altered(shell: Shell, run: str, at: int, old: bytes, new: bytes) -> None:
    """Replace something in a commit where it stands."""
    stored = commits(shell, run)
    assert old in stored[at].data
    stored[at] = Stored(stored[at].seq, stored[at].data.replace(old, new, 1))


def diverged(shell: Shell, run: str) -> None:
    """Have a run stand there as if other rules had decided it: every hash is right."""
    store = shell.deployments.store.messages
    log = assemble(run, store[run, "c"], store[run, "i"])
    start = log.commits[0].events[0]
    assert isinstance(start, RunStarted)
    policy = msgspec.structs.replace(start.policy, reserve=Spend(tokens=7))
    first = msgspec.structs.replace(
        log.commits[0],
        events=(msgspec.structs.replace(start, policy=policy), *log.commits[0].events[1:]),
    )
    log.commits = chained([first, *log.commits[1:]])
    store[run, "c"] = messages_of(log).commits


@pytest.mark.parametrize("status", [0, 400])
def test_what_diverges_is_counted_where_the_standard_variable_says(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    run = shell.begin()
    diverged(shell, run)
    with Collector() as collector:
        collector.refuse = status
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        shell.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        said = shell("verify", run)
        assert said.code == 3, "whether anybody takes the metrics or not"
        assert ("the metrics were not taken" in said.err) is bool(status)
        if not status:
            counted = collector.metrics[semconv.REPLAY_DIVERGENCES].sum
            assert counted.is_monotonic
            by_what = {
                point.attributes[0].value.string_value: point.as_int or point.as_double
                for point in counted.data_points
            }
            assert by_what["rules"] >= 1
            assert by_what["prompt"] == 0


def test_a_sound_run(shell: Shell) -> None:
    run = shell.begin()
    said = shell("verify", run[:6])
    assert said.code == 0
    assert "sound" in said.out
    (row,) = shell("verify", run, "--json").json()["rows"]
    assert (row["outcome"], row["problems"], row["more"]) == ("sound", [], 0)
    assert row["decided"] == row["commits"] > 1
    assert row["prompts"] >= 2
    assert row["events"] > row["commits"]


def test_a_flipped_bit_is_told_to_a_person_and_to_a_program(shell: Shell) -> None:
    run = shell.begin()
    altered(shell, run, 0, b'"RunStarted"', b'"RunWalked"')
    said = shell("verify", run)
    assert said.code == 1
    assert f"run {run}, commit 1" in said.out
    assert "flipped" not in said.out  # that was more than a bit
    altered(shell, run, 0, b'"RunWalked"', b'"RunStartee"')
    said = shell("verify", run)
    assert "a bit is flipped" in said.out
    assert "('e' for 'd')" in said.out
    read = shell("verify", run, "--json").json()
    assert read["counts"] == {
        "runs": 1,
        "sound": 0,
        "damaged": 1,
        "diverged": 0,
        "newer": 0,
        "unread": 0,
        "aside": 0,
    }
    (problem,) = read["rows"][0]["problems"]
    assert (problem["kind"], problem["what"], problem["commit"]) == ("damaged", "flipped", 1)


def test_a_run_that_is_gone_is_known_by_its_kept_head(shell: Shell) -> None:
    run = shell.begin()
    log = assemble(run, commits(shell, run), [])
    head = KeptHead(run=run, n=log.head.n, hash=log.head.hash)
    assert asyncio.run(shell.deployments.ledger.keep(head, 0))
    del shell.deployments.store.messages[run, "c"]
    del shell.deployments.store.messages[run, "i"]
    for arguments in (["verify", run], ["verify", "--all"]):
        said = shell(*arguments)
        assert said.code == 1
        assert f"commits 1 to {log.head.n}: cut off" in said.out


def test_a_divergence_ends_with_3_and_names_the_rule(shell: Shell) -> None:
    run = shell.begin()
    diverged(shell, run)
    said = shell("verify", run)
    assert said.code == 3
    assert "the rules decide otherwise" in said.out
    assert "PolicyAsked.reserve.tokens = 0" in said.out
    assert "PolicyAsked.reserve.tokens = 7" in said.out
    assert "protocol.rules.ask" in said.out
    problems: list[dict[str, Any]] = shell("verify", run, "--json").json()["rows"][0]["problems"]
    assert problems[0]["event"].startswith(f"{run}@")
    assert problems[0]["function"] == "protocol.rules.ask"
    assert "values" not in problems[0]
    told = shell("verify", run, "--json", "--content").json()["rows"][0]["problems"]
    assert told[0]["values"] == [0, 7]


def test_all_runs_at_once_list_only_what_is_wrong(shell: Shell) -> None:
    runs = [shell.begin() for _ in range(10)]
    assert shell("verify", "--all").out == "10 runs: 10 sound\n"
    diverged(shell, runs[3])
    said = shell("verify", "--all")
    assert said.code == 3
    assert said.out.endswith("\n\n10 runs: 9 sound, 1 diverged\n")
    assert runs[4] not in said.out
    altered(shell, runs[7], 0, b'"n":1', b'"n":7')
    shell.deployments.store.messages[runs[8], "c"].append(Stored(10**6, b"noise"))
    said = shell("verify", "--all", terminal=True)
    assert said.code == 1
    assert "10 runs: 8 sound, 1 damaged, 1 diverged; 1 message set aside" in said.out
    assert "9 of 10 runs" in said.err
    read = shell("verify", "--all", "--json").json()
    assert {row["run"] for row in read["rows"]} == {runs[3], runs[7]}


def test_several_runs_are_named(shell: Shell) -> None:
    one, other = shell.begin(), shell.begin()
    read = shell("verify", one, other, "--json").json()
    assert [row["run"] for row in read["rows"]] == [one, other]
    assert shell("verify", one, "--all").code == 2


def test_nothing_is_changed(shell: Shell) -> None:
    run = shell.begin()
    before = Messages(list(commits(shell, run)), [])
    shell("verify", run)
    assert commits(shell, run) == before.commits
    assert all(decode_commit(each.data).run == run for each in before.commits)
