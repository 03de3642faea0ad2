"""`podium label` and `podium score`: what people say of runs, and what runs are worth."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import workers
from podium.judging import HostedJudges
from protocol.actions import WorkerSpec
from protocol.errors import NotFound
from tests.e2e.memory_host import Shell

AREA = '{"kind": "number", "answer": 1284000}'
PROGRAM = '{"kind": "program", "code": "assert \\"1,284,000\\" in answer"}'
POOL = """
[pool]
modules = ["judges"]
"""
MODULE = '''
import podium

@podium.tool
def reviewer(question: str) -> str:
    """Judges."""
    return 'So it is. {"score": 0.75}'

@podium.tool
def silent(question: str) -> str:
    """Says nothing of it."""
    return "hm"
'''


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="ada")


def asked(shell: Shell, check: str = AREA) -> str:
    """A run with a check; its id."""
    said = shell("run", "--json", "--check", check, "How large is Chad?")
    run: str = said.lines()[0]["launch"]["run_id"]
    return run


def row(shell: Shell, run: str, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = shell("score", run, "--json", *more).json()["rows"][0]
    return found


def test_a_run_is_scored_and_scored_again_by_another_recipe(shell: Shell) -> None:
    run = asked(shell)
    found = row(shell, run, "--preset", "conductor")
    assert (found["reward"], found["channels"]["accuracy"]) == (1.0, 1.0)
    (shell.folder / "mine.toml").write_text(
        'base = 1.0\n[[terms]]\nchannel = "rounds"\nweight = -0.25\n'
    )
    assert row(shell, run, "--recipe", "mine.toml")["reward"] == 0.75
    (shell.folder / "bad.toml").write_text('[[terms]]\nchanel = "rounds"\n')
    said = shell("score", run, "--recipe", "bad.toml")
    assert said.code == 2
    assert "unknown field `chanel`" in said.err
    assert "right" in shell("score", run).out


def test_what_is_annealed_says_where_it_was_scored(shell: Shell) -> None:
    run = asked(shell)
    said = "scored as where 1 of a training is done: --progress 0 to 1"
    assert said in shell("score", run, "--preset", "parl").err
    early = shell("score", run, "--preset", "parl", "--progress", "0.25")
    assert "as where 0.25 of a training is done" in early.err
    assert "of a training" not in shell("score", run).err


def test_what_is_said_of_a_run_is_shown_and_counts(shell: Shell) -> None:
    run = asked(shell)
    assert shell("label", run, "tone", "friendly").code == 0
    assert shell("label", run, "stars", "4", "--parsed", "--by", "bob").code == 0
    assert shell("label", run, "--reward", "accuracy=0", "--reward", "speed=0.5").code == 0
    found = row(shell, run)
    assert found["channels"]["accuracy"] == 0.0
    assert found["channels"]["reward.speed"] == 0.5
    shown = shell("runs", "show", run, "--json").json()["rows"][0]
    assert [(each["key"], each["value"], each["by"]) for each in shown["labels"]] == [
        ("tone", "friendly", "ada"),
        ("stars", 4, "bob"),
    ]
    heads = {each["head"] for each in [*shown["labels"], *shown["rewards"]]}
    assert len(heads) == 1
    assert heads != {None}
    text = shell("runs", "show", run)
    assert "label stars = 4, by bob" in text.out
    assert "reward speed = 0.5, by ada" in shell("runs", "show", run, terminal=True).out
    assert shell("verify", run).code == 0, "the head that is judged is one of its log's"


def test_an_archived_run_is_scored_and_labelled_as_before(shell: Shell) -> None:
    run = asked(shell)
    before = row(shell, run)
    shell("label", run, "--reward", "early=1")
    assert shell("archive", run).code == 0
    assert row(shell, run)["group"] == before["group"]
    assert shell("label", run, "--reward", "accuracy=0.5", "--reward", "late=2").code == 0
    found = row(shell, run)["channels"]
    assert (found["accuracy"], found["reward.early"], found["reward.late"]) == (0.5, 1.0, 2.0)


def test_a_program_is_run_once_and_what_it_says_is_kept(shell: Shell) -> None:
    run = asked(shell, PROGRAM)
    said = shell("score", run)
    assert "no accuracy" in said.out
    assert f"podium score {run} --judge" in said.err
    assert row(shell, run, "--judge")["channels"]["accuracy"] == 1.0
    assert row(shell, run, "--judge")["channels"]["accuracy"] == 1.0
    shown = shell("runs", "show", run, "--json").json()["rows"][0]
    assert [each["by"] for each in shown["rewards"]] == ["check:program"]


def test_a_judge_is_a_worker_of_ones_own_pool(shell: Shell) -> None:
    (shell.folder / "judges.py").write_text(MODULE)
    pool = shell.folder / "judges.toml"
    pool.write_text(POOL)
    run = asked(shell, '{"kind": "judge", "worker": "reviewer"}')
    said = shell("score", run, "--judge")
    assert said.code == 1
    assert "no worker 'reviewer'" in said.err
    found = row(shell, run, "--judge", "--pool", str(pool))
    assert found["channels"]["accuracy"] == 0.75
    other = asked(shell, '{"kind": "judge", "worker": "silent"}')
    said = shell("score", run, other, "--judge", "--pool", str(pool))
    assert said.code == 1
    assert "gave no score" in said.err
    assert "0.75" in said.out, "the others are scored all the same"


def test_only_a_whole_id_is_labelled(shell: Shell) -> None:
    run = asked(shell)
    said = shell("label", run[:6], "good", "yes")
    assert said.code == 2
    assert f"podium label {run}" in said.err


async def test_a_judge_has_to_take_a_text() -> None:
    spec = WorkerSpec(name="odd", adapter="python", parameters={"type": "object"})
    judges = HostedJudges([spec, workers.draft("python")])
    with pytest.raises(NotFound, match="takes no text"):
        await judges.ask("odd", "?")
    said = await judges.ask("python", "6 * 7")
    assert said.value["result"] == "42"
    await judges.close()


async def test_a_worker_of_the_sandbox_s_name_runs_no_program() -> None:
    spec = msgspec.structs.replace(
        workers.draft("function:actors.tools.offline:calculator"), name="python"
    )
    judges = HostedJudges([spec])
    assert (await judges.ask("python", "6 * 7")).value["value"] == 42
    assert (await judges.run_program("6 * 8")).value["result"] == "48"
    await judges.close()
