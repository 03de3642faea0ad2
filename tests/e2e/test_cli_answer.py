"""A run asks a person, who answers from the command line."""

from pathlib import Path

import pytest

from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, View
from tests.e2e.memory_host import Shell

POOL = """
[pool]
policy = "python:tests.e2e.test_cli_answer:Asks"

[[worker]]
name = "ada"
adapter = "person"
description = "Knows where we went."
"""


class Asks:
    """Asks whatever the task is, then says what was answered."""

    spec = PolicySpec(name="python:tests.e2e.test_cli_answer:Asks")

    def decide(self, view: View) -> Reply:
        if view.turns:
            said = (seen.value for seen in view.turns[0].observations)
            return Reply(decision=Decision(answer=" and ".join(map(str, said))))
        questions = view.task.text.split("|")
        choices = {"choices": ["Lima", "Rome"]} if "or" in view.task.text else {}
        calls = (PlannedCall("ada", {"question": each.strip(), **choices}) for each in questions)
        return Reply(decision=Decision(calls=tuple(calls)))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "pool.toml").write_text(POOL)
    return Shell(tmp_path, USER="tester")


def asked(shell: Shell, task: str) -> str:
    """The id of a run that waits for a person."""
    said = shell("run", "--pool", str(shell.folder / "pool.toml"), task)
    assert said.code == 5
    (row,) = shell("runs", "--json", "--status", "paused").json()["rows"]
    run = str(row["run"])
    assert f"run {run} is paused: it waits for a person" in said.err
    assert f"podium answer {run} ANSWER" in said.err
    return run


def go_on(shell: Shell, run: str) -> str:
    said = shell("run", "--continue", run, "--pool", str(shell.folder / "pool.toml"))
    assert said.code == 0
    return said.out


def test_a_run_waits_for_an_answer_and_goes_on_with_it(shell: Shell) -> None:
    run = asked(shell, "Where to?")
    listed = shell("answer")
    assert "Where to?" in listed.out
    assert f'answer one: podium answer {run} "..."' in listed.err
    (row,) = shell("answer", "--json").json()["rows"]
    assert (row["run"], row["call"], row["who"], row["question"]) == (
        run,
        "1-0",
        "ada",
        "Where to?",
    )
    said = shell("answer", run, "Lima")
    assert said.out == f"call 1-0 of run {run} is answered\n"
    assert f"the answer waits for one (podium up, or podium run --continue {run})" in said.err
    assert shell("answer").err == "nobody is asked anything\n"
    (row,) = shell("runs", "--json").json()["rows"]
    assert (row["status"], row["waits_for"]) == ("paused", "a conductor")
    assert f"go on with it: podium run --continue {run}" in shell("runs", "show", run).err
    for more in ((), ("--call", "1-0")):
        said = shell("answer", run, "Rome", *more)
        assert said.code == 1
        assert f"call 1-0 of run {run} is answered already, by tester" in said.err
        assert f"podium run --continue {run}" in said.err
    assert go_on(shell, run) == "Lima\n"
    assert shell("answer").err == "nobody is asked anything\n"
    assert shell("answer", run, "Rome").code == 1


def test_of_several_questions_one_is_named(shell: Shell) -> None:
    run = asked(shell, "Where to? | When?")
    said = shell("answer", run, "Lima")
    assert said.code == 2
    assert "asks 2 questions: 1-0, 1-1" in said.err
    assert shell("answer", run, "Lima", "--call", "1-0").code == 0
    assert shell("answer", run, "2030", "--call", "1-1", "--parsed").code == 0
    assert go_on(shell, run) == "Lima and 2030\n"


def test_what_can_not_be_is_refused_and_loses_nothing(shell: Shell) -> None:
    run = asked(shell, "Lima or Rome?")
    said = shell("answer", run, "Oslo")
    assert said.code == 2
    assert "give one of: Lima, Rome" in said.err
    assert shell("answer", run[:5], "Lima").code == 2
    assert shell("answer", run).code == 2
    assert shell("answer", run, "{", "--parsed").code == 2
    assert shell("answer", run, "Lima", "--call", "1-7").code == 1
    assert "would be" in shell("answer", run, "Lima", "--dry-run").out
    assert len(shell("answer", "--json").json()["rows"]) == 1
    assert shell("answer", run, "Rome").code == 0
    assert go_on(shell, run) == "Rome\n"
