"""`podium fork`, `rerun` and `diff`, over a deployment in memory."""

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.memory_host import Record, Shell

ASKED = "Which is larger by area, Chad or Peru?"

ATLAS = '''
import podium

AREAS = {"Chad": 1_284_000, "Mali": 1_240_192}
HOLD = None

@podium.tool(attempts=1)
async def country(name: str, fact: str) -> dict:
    """One fact of a country."""
    if HOLD:
        await HOLD()
    return {"country": name, "fact": fact, "value": AREAS[name], "unit": "km²"}

@podium.tool(name="invented", attempts=1)
def other(name: str, fact: str) -> dict:
    """One fact of a country, made up."""
    return {"country": name, "fact": fact, "value": 7, "unit": "km²"}
'''


class Atlas:
    """A pool with a tool that knows too few countries, and a shell in its folder."""

    def __init__(self, folder: Path, module: str) -> None:
        self.folder, self.module = folder, module
        (folder / f"{module}.py").write_text(ATLAS)
        self.pool = folder / "pool.toml"
        self.pool.write_text(f'[pool]\nmodule = "{module}"\n')
        self.shell = Shell(folder, USER="tester")

    def run(self) -> str:
        """A run that could not answer."""
        lines = self.shell("run", "--pool", str(self.pool), "--json", ASKED).lines()
        assert "can't answer this in full" in lines[1]["done"]["answer"]
        run: str = lines[0]["launch"]["run_id"]
        return run

    def mend(self) -> None:
        """Have the tool know Peru, too."""
        importlib.import_module(self.module).AREAS["Peru"] = 1_285_216

    def done(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What came of a fork."""
        said = self.shell(*arguments, "--json")
        assert said.code == code, said
        done: dict[str, Any] = said.lines()[-1]["done"]
        return done


@pytest.fixture
def atlas(tmp_path: Path) -> Iterator[Atlas]:
    module = f"atlas_{tmp_path.name}".replace("-", "_")
    yield Atlas(tmp_path, module)
    sys.modules.pop(module, None)


def test_a_rerun_says_what_failed_and_reuses_the_rest(atlas: Atlas) -> None:
    run = atlas.run()
    said = atlas.shell("rerun", run, "--dry-run")
    assert said.out.splitlines() == [
        "would be: round 1: country (1-1) failed: KeyError: 'Peru' "
        f"(at {atlas.module}.py:12); made again, 1 result reused",
        f"fork of {run}@9: makes country (1-1)",
    ]
    assert len(atlas.shell("runs", "--json").json()["rows"]) == 1, "nothing was begun"
    again = atlas.done("rerun", run)
    assert "can't answer" in again["answer"]
    atlas.mend()
    said = atlas.shell("rerun", run)
    assert said.out == "Peru has the larger area: 1,285,216 km²; Chad has 1,284,000.\n"
    assert "1-0" not in said.err.split("begins", 1)[1], "what succeeded is not made again"
    assert "round 1: country (1-1) failed: KeyError: 'Peru'" in said.err


def test_a_run_in_which_a_call_failed_says_where_to_look(atlas: Atlas) -> None:
    said = atlas.shell("run", "--pool", str(atlas.pool), ASKED)
    run = atlas.shell("runs", "--json").json()["rows"][0]["run"]
    named = f" --pool {atlas.pool}"
    for shown, pool in ((said, named), (atlas.shell("runs", "show", run), "")):
        assert f"what failed: podium timeline {run} --failures\n" in shown.err
        assert f"podium reproduce {run}/1-1{pool}   or: podium rerun {run}{pool}\n" in shown.err
    atlas.mend()
    mended = atlas.done("rerun", run)["run_id"]
    assert "what failed" not in atlas.shell("runs", "show", mended).err


def test_a_fork_is_listed_shown_and_watched_as_one(atlas: Atlas) -> None:
    run = atlas.run()
    atlas.mend()
    fork = atlas.done("rerun", run[:6], "--reason", "knows Peru")["run_id"]
    rows = {row["run"]: row for row in atlas.shell("runs", "--json").json()["rows"]}
    assert rows[fork]["forked_from"] == f"{run}@9"
    assert rows[run]["forked_from"] is None
    assert f"{run}@9" in atlas.shell("runs").out
    shown = atlas.shell("runs", "show", fork).out
    assert f"forked from {run}@9: knows Peru" in shown
    assert "1-0" in shown
    (row,) = atlas.shell("runs", "show", fork, "--json").json()["rows"]
    assert row["forked_from"] == f"{run}@9"
    watched = atlas.shell("runs", "watch", fork).out
    assert watched.splitlines()[0].endswith(f"begins, forked from {run}@9: knows Peru")
    assert "1-0" not in watched
    commits = atlas.shell("runs", "watch", fork, "--json").lines()[:-1]
    assert [each["commit"]["n"] for each in commits] == [*range(1, len(commits) + 1)]


def test_several_forks_are_compared_in_a_table(atlas: Atlas) -> None:
    run = atlas.run()
    atlas.mend()
    said = atlas.shell("rerun", run, "--times", "3")
    assert said.code == 0
    heads, *rows = said.out.splitlines()
    assert heads.split() == ["run", "status", "rounds", "attempts", "took", "answer"]
    assert len(rows) == 3
    assert all("finished" in row and "Peru has the larger area" in row for row in rows)
    first, second = (row.split()[0] for row in rows[:2])
    assert f"podium diff {first} {second}" in said.err
    assert atlas.shell("diff", first, second).code == 0


def test_forks_that_pause_end_with_5_and_say_how_to_go_on(atlas: Atlas) -> None:
    run = atlas.run()
    change = ("--set", "budget.on_limit=pause", "--set", "budget.rounds=0")
    said = atlas.shell("fork", f"{run}@2", *change, "--times", "2")
    assert said.code == 5
    assert said.out.count("paused") == 2
    assert said.err.count("podium runs extend") == 2
    assert atlas.shell("fork", f"{run}@2", *change).code == 5


def test_a_fork_of_a_run_at_its_limit_may_go_on(atlas: Atlas) -> None:
    said = atlas.shell("run", "--pool", str(atlas.pool), "--rounds", "0", "--json", ASKED)
    run = said.lines()[0]["launch"]["run_id"]
    assert said.lines()[1]["done"]["limited_by"] == "rounds"
    atlas.mend()
    done = atlas.done("fork", run, "--at", "end", "--set", "budget.rounds=3")
    assert "Peru has the larger area" in done["answer"]


def test_an_instruction_and_an_observation_are_replaced(atlas: Atlas) -> None:
    run = atlas.run()
    value = '{"country": "Peru", "fact": "area", "value": 5, "unit": "km²"}'
    told = ("--set", f"calls.1-1.value={value}", "--set", "calls.1-1.status=OK")
    done = atlas.done("fork", run, "--at", "end", *told)
    assert done["answer"] == "Chad has the larger area: 1,284,000 km²; Peru has 5."
    fork = atlas.done("fork", run, "--at", "1-1", "--set", "calls.1-1.arguments.name=Mali")
    (row,) = atlas.shell("runs", "show", fork["run_id"], "--content", "--json").json()["rows"]
    assert row["turns"][0]["calls"][1]["arguments"]["name"] == "Mali"
    assert "(name: Mali, fact: area)" in atlas.shell("timeline", fork["run_id"], "--content").out
    for path, says in (
        ("calls.1-1.value=5", "has not settled"),
        ("calls.7-0.value=5", "there are: 1-0, 1-1"),
        ("colour=red", "what can are task.text"),
        ("task.text", "it sets nothing"),
        ("task.text= ", "The task has no text"),
    ):
        said = atlas.shell("fork", run, "--at", "1-1", "--set", path, "--json")
        assert said.code == 2
        assert says in said.json()["error"]["message"]


def test_a_text_that_looks_like_json_is_a_text_where_one_is_needed(atlas: Atlas) -> None:
    run = atlas.run()
    said = atlas.shell("fork", f"{run}@2", "--set", "task.text=2026", "--json")
    fork = said.lines()[0]["launch"]["run_id"]
    (row,) = atlas.shell("runs", "show", fork, "--json").json()["rows"]
    assert row["task"] == "2026"


@pytest.mark.parametrize("source", ["invented", "$POOL:invented", "$OTHER"])
def test_another_worker_takes_its_place(atlas: Atlas, source: str) -> None:
    run = atlas.run()
    other = atlas.folder / "other.toml"
    adapter = f"function:{atlas.module}:other"
    other.write_text(f'[[worker]]\nname = "country"\nadapter = "{adapter}"\n')
    source = source.replace("$POOL", str(atlas.pool)).replace("$OTHER", str(other))
    done = atlas.done("rerun", run, "--worker", f"country={source}")
    assert done["answer"] == "Chad has the larger area: 1,284,000 km²; Peru has 7."


def test_what_another_worker_takes_is_said_and_has_to_fit(atlas: Atlas) -> None:
    code = atlas.folder / f"{atlas.module}.py"
    greet = '@podium.tool\ndef greet(whom: str) -> str:\n    """Says hello."""\n    return whom\n'
    code.write_text(ATLAS + greet)
    run = atlas.run()
    said = atlas.shell("fork", run, "--at", "2", "--worker", "country=greet", "--dry-run")
    assert said.code == 0
    assert "country takes (whom) in the fork, in place of (name, fact)" in said.out
    for command in (("fork", run, "--at", "1-1"), ("rerun", run)):
        for dry in ((), ("--dry-run",)):
            said = atlas.shell(*command, "--worker", "country=greet", *dry)
            assert said.code == 2
            assert "can't be made: country takes other parameters in the fork" in said.err
            assert "'whom' is required" in said.err


def test_a_worker_that_is_nowhere(atlas: Atlas) -> None:
    run = atlas.run()
    for given, says in (
        ("country=nobody", "the run's pool has no worker 'nobody'"),
        (f"country={atlas.pool}:nobody", "has no worker 'nobody'"),
        ("country", "it names no worker"),
    ):
        said = atlas.shell("fork", run, "--at", "3", "--worker", given, "--json")
        assert says in said.json()["error"]["message"]
        assert "There are: country" in said.json()["error"]["hint"] or given == "country"
    said = atlas.shell("fork", run, "--at", "3", "--worker", "country=no.toml")
    assert said.code == 4
    assert "Correct its path: --worker country=no.toml" in said.err


def test_another_policy(atlas: Atlas) -> None:
    run = atlas.run()
    done = atlas.done(
        "fork", f"{run}@2", "--policy", "python:tests.e2e.test_cli_forks:Curt", "--reason", "curt"
    )
    assert done["answer"] == "Perhaps."
    assert atlas.shell("fork", f"{run}@2", "--policy", "nobody").code == 2


class Curt:
    """A policy that answers at once."""

    @property
    def spec(self) -> Any:
        """See `InstantPolicy`."""
        from protocol.decisions import PolicySpec

        return PolicySpec(name="python:tests.e2e.test_cli_forks:Curt")

    def decide(self, _view: Any) -> Any:
        """See `InstantPolicy`."""
        from protocol.decisions import Decision, Reply

        return Reply(decision=Decision(answer="Perhaps."))


def test_a_standing_deployment_has_to_host_the_workers_as_they_are(atlas: Atlas) -> None:
    run = atlas.run()
    assert atlas.shell("up", "--pool", str(atlas.pool)).code == 0
    said = atlas.shell("rerun", run)
    assert said.code == 0
    assert "when they were started; after a change" in said.err
    assert atlas.shell("rerun", run, "--worker", "country=invented").code == 0, "hosted already"
    other = ["--set", "workers.country.timeout_ms=7000"]
    error = atlas.shell("fork", run, "--at", "3", *other, "--json").json()["error"]
    assert "with another definition of country" in error["message"]
    assert error["next"] == "podium down"
    atlas.shell.deployments.up_record = Record(pool="other")
    said = atlas.shell("fork", run, "--at", "3", "--detach", "--json")
    assert "without country, invented" in said.json()["error"]["message"]


def test_a_pool_file_that_a_standing_deployment_does_not_host_is_refused(atlas: Atlas) -> None:
    run = atlas.run()
    atlas.pool = atlas.pool.rename(atlas.folder / "a pool.toml")
    assert atlas.shell("up", "--pool", str(atlas.pool)).code == 0
    assert atlas.shell("rerun", run, "--pool", str(atlas.pool)).code == 0
    atlas.pool.write_text(
        f'[pool]\nmodule = "{atlas.module}"\n[[worker]]\nname = "more"\n'
        f'adapter = "function:{atlas.module}:country"\n'
    )
    for command in (["rerun", run], ["fork", run, "--at", "3"]):
        error = atlas.shell(*command, "--pool", str(atlas.pool), "--json").json()["error"]
        assert error["kind"] == "usage"
        assert "without more" in error["message"]
        assert error["next"] == f"podium worker apply '{atlas.pool}'"
        assert atlas.shell(*command).code == 0


def test_a_policy_without_a_key_is_refused_before_anything_is_begun(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    run = atlas.run()
    asked = ["fork", run, "--at", "3", "--policy", "openai:gpt-5"]
    said = atlas.shell(*asked)
    assert said.code == 1
    assert said.err.count("OPENAI_API_KEY is not set") == 1
    assert len(atlas.shell("runs", "--json").json()["rows"]) == 1
    assert atlas.shell("up", "--pool", str(atlas.pool)).code == 0
    said = atlas.shell(*asked)
    assert "OPENAI_API_KEY is not set. export" in said.err, "the deployment has its own keys"


def test_a_detached_fork_is_queued(atlas: Atlas) -> None:
    run = atlas.run()
    assert atlas.shell("up", "--pool", str(atlas.pool)).code == 0
    said = atlas.shell("rerun", run, "--detach", "--times", "2")
    assert said.code == 0
    assert sorted(said.out.split()) == sorted(atlas.shell.deployments.queued())


def test_functions_that_are_gone_need_their_pool_file(atlas: Atlas) -> None:
    run = atlas.run()
    (atlas.folder / f"{atlas.module}.py").unlink()
    del sys.modules[atlas.module]
    error = atlas.shell("rerun", run, "--json").json()["error"]
    assert "worker 'country'" in error["message"]
    assert error["next"] == f"podium rerun {run} --pool FILE"


def test_an_interrupted_fork_goes_on(atlas: Atlas) -> None:
    run = atlas.run()
    module: Any = importlib.import_module(atlas.module)

    async def hold() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    module.HOLD = hold
    said = atlas.shell("rerun", run)
    assert said.code == 130
    assert "nothing of it is lost" in said.err
    module.HOLD = None
    atlas.mend()
    (row,) = [r for r in atlas.shell("runs", "--json").json()["rows"] if r["forked_from"]]
    assert f"podium run --continue {row['run']}" in said.err
    assert row["status"] == "working"
    said = atlas.shell("run", "--continue", row["run"])
    assert "Peru has the larger area" in said.out


def test_two_runs_are_compared(atlas: Atlas) -> None:
    run = atlas.run()
    atlas.mend()
    fork = atlas.done("rerun", run)["run_id"]
    said = atlas.shell("diff", run, fork)
    assert said.code == 3
    first, shared, *_ = said.out.splitlines()
    assert first == (
        "first difference: round 1, call 1-1 (country): its status: EXEC_ERR (event 9) against OK "
        "(event 13)"
    )
    assert shared == "they share 9 events"
    assert "KeyError" not in said.out, "content has to be asked for"
    assert f"podium diff {run} {fork} --content" in said.err
    assert "KeyError: 'Peru'" in atlas.shell("diff", run, fork, "--content").out
    read = atlas.shell("diff", run, fork, "--json").json()
    assert read["counts"]["shared_events"] == 9
    assert (read["rows"][0]["what"], read["rows"][0]["b"]) == ("status", "OK")
    assert "a" not in next(row for row in read["rows"] if row["what"] == "value")
    again = atlas.done("rerun", run)["run_id"]
    assert atlas.shell("diff", fork, again).out.startswith("no difference")
    assert atlas.shell("diff", fork, again).code == 0


def test_a_run_whose_child_failed_names_the_child(atlas: Atlas) -> None:
    (atlas.folder / "team.toml").write_text(
        f'[pool]\nmodule = "{atlas.module}"\npolicy = "python:tests.e2e.test_cli_forks:Delegate"\n'
        '[[worker]]\nname = "team"\nadapter = "conductor"\n'
    )
    pool = str(atlas.folder / "team.toml")
    run = atlas.shell("run", "--pool", pool, "--json", ASKED).lines()[0]["launch"]["run_id"]
    error = atlas.shell("rerun", run, "--pool", pool, "--json").json()["error"]
    rows = atlas.shell("runs", "--json").json()["rows"]
    (child,) = [row["run"] for row in rows if row["parent"] == run]
    assert error["next"] == f"podium rerun {child}"
    heads, *lines = atlas.shell("runs").out.splitlines()
    assert "child of" in heads
    assert [run in line.split()[1:] for line in lines] == [row["run"] == child for row in rows]
    again = atlas.done("rerun", child, "--pool", pool)
    assert again["answer"] == "1 failed"
    assert atlas.shell("diff", run, child, "--json").code == 3


class Delegate(Curt):
    """A policy that has a child run ask for what the tool doesn't know."""

    @property
    def spec(self) -> Any:
        """See `InstantPolicy`."""
        from protocol.decisions import PolicySpec

        return PolicySpec(name="python:tests.e2e.test_cli_forks:Delegate")

    def decide(self, view: Any) -> Any:
        """See `InstantPolicy`."""
        from protocol.decisions import Decision, PlannedCall, Reply

        if view.turns:
            failed = sum(seen.status != "OK" for seen in view.turns[-1].observations)
            return Reply(decision=Decision(answer=f"{failed} failed"))
        call = PlannedCall("team", {"task": "below"})
        if view.task.text == "below":
            call = PlannedCall("country", {"name": "Peru", "fact": "area"})
        return Reply(decision=Decision(calls=(call,)))
