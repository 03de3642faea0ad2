"""Policies as a person names them: a plan, a model in each dialect; each run verifies."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.codec import decode_commit
from protocol.events import RunStarted
from tests.e2e.memory_host import Shell
from tests.endpoint import Endpoint

PLAN = """
answer = "{first.output.value} has {size.output.value} {size.output.unit}."

[[call]]
id = "first"
worker = "country"
arguments = { name = "{inputs.of}", fact = "capital" }

[[call]]
id = "size"
worker = "city"
arguments = { name = "{first.output.value}", fact = "population" }
"""

POOL = """
[pool]
module = "desk"

[policy]
name = "openai:m"
base_url = "{url}"
api_key_env = "DESK_KEY"
{more}
"""

DESK = '''
import podium

@podium.tool
def capital(country: str) -> str:
    """Capital, by name of a country."""
    return {"Peru": "Lima", "Chad": "N'Djamena"}[country]

@podium.tool
def join(words: str) -> str:
    """Joins words."""
    return words.upper()
'''


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="tester")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with Endpoint() as serving:
        monkeypatch.setenv("DESK_KEY", serving.key)
        yield serving
        assert serving.errors == []


def pool(folder: Path, url: str, more: str, name: str) -> str:
    """A pool file whose module has a name of its own in each test."""
    (folder / f"{name}.py").write_text(DESK)
    path = folder / "pool.toml"
    path.write_text(POOL.format(url=url, more=more).replace('"desk"', f'"{name}"'))
    return str(path)


def done(shell: Shell, *arguments: str) -> dict[str, Any]:
    """The end of a run that finishes and verifies."""
    said = shell("run", "--json", *arguments)
    assert said.code == 0, said
    ended: dict[str, Any] = said.lines()[-1]["done"]
    verified = shell("verify", ended["run_id"])
    assert verified.code == 0, verified
    return ended


def test_a_plan(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "capital.toml").write_text(PLAN)
    ended = done(
        shell, "--policy", "static:capital.toml", "--inputs", '{"of": "France"}', "How large?"
    )
    assert ended["answer"].startswith("Paris has ")
    assert (ended["rounds"], ended["calls"]) == (2, 2)
    for given in ((), ("--inputs", '{"off": "France"}')):
        said = shell("run", "--policy", "static:capital.toml", *given, "How large?")
        assert said.code == 2
        assert "can't be followed: {inputs.of}: there is no 'of'" in said.err
        assert "Give it with --inputs" in said.err
    assert len(shell("runs", "--json").json()["rows"]) == 1
    (tmp_path / "capital.toml").unlink()
    forked = shell(
        "fork", ended["run_id"], "--at", "3", "--set", 'task.inputs.of="Italy"', "--json"
    )
    assert forked.code == 0, forked
    assert forked.lines()[-1]["done"]["answer"].startswith("Rome has "), "the run has the plan"


def test_hermes_by_number(shell: Shell, tmp_path: Path, endpoint: Endpoint) -> None:
    more = 'dialect = "hermes"\nnaming = "numbers"\nsystem = "You lead."\n'
    more += "temperature = 0.5\nextra = { top_p = 0.9 }"
    file = pool(tmp_path, endpoint.url, more, "desk_of_hermes")
    asks = '<think>Two.</think>\n<tool_call>\n{"name": "worker_1", "arguments": {"country": "%s"}}'
    both = f"{asks % 'Peru'}\n</tool_call>\n{(asks % 'Chad').partition('</think>')[2]}"
    endpoint.say("<tool_call>{capital}</tool_call>")
    endpoint.say(both)
    endpoint.say("<think>Done.</think>\n\nLima and N'Djamena.")
    ended = done(shell, "--pool", file, "Two capitals?")
    assert ended["answer"] == "Lima and N'Djamena."
    assert (ended["rounds"], ended["calls"]) == (1, 2)
    first, second, third = (request.body for request in endpoint.requests)
    assert first["messages"][0]["content"].startswith("You lead.")
    assert "tools" not in first
    assert (first["temperature"], first["top_p"]) == (0.5, 0.9)
    assert "malformed" in second["messages"][-1]["content"]
    assert third["messages"][-2]["content"] == both
    assert third["messages"][-1]["content"].count("<tool_response>") == 2
    assert '"capital"' not in str(third)
    (row,) = shell("runs", "show", ended["run_id"], "--json").json()["rows"]
    assert {call["worker"] for turn in row["turns"] for call in turn["calls"]} == {"capital"}


def test_lists(shell: Shell, tmp_path: Path, endpoint: Endpoint) -> None:
    file = pool(tmp_path, endpoint.url, 'dialect = "lists"', "desk_of_lists")
    endpoint.say(
        "Look, then say it.\nmodel_id = [1, 2]\nsubtasks = ['Peru', 'lima']\n"
        "access_list = [[], ['all']]"
    )
    ended = done(shell, "--pool", file, "The capital of Peru, loudly?")
    assert ended["answer"] == "LIMA"
    assert len(endpoint.requests) == 1, "nobody is asked for the answer"
    run = ended["run_id"]
    for command in (
        ("timeline", run),
        ("causes", f"{run}@11"),
        ("state", run),
        ("trace", "export", run),
    ):
        assert shell(*command).code == 0, command
    again = shell("diff", ended["run_id"], ended["run_id"])
    assert again.code == 0, again


def test_lists_that_fail_are_planned_again_and_accepted(
    shell: Shell, tmp_path: Path, endpoint: Endpoint
) -> None:
    file = pool(tmp_path, endpoint.url, 'dialect = "lists"', "desk_of_accepting")
    endpoint.say("model_id = [1, 1]\nsubtasks = ['Peru', 'Atlantis']\naccess_list = [[], []]")
    endpoint.say("Good enough.\nmodel_id = []\nsubtasks = []\naccess_list = []")
    ended = done(shell, "--pool", file, "A capital?")
    assert ended["answer"] == "Lima"
    assert '"status":"EXEC_ERR"' in endpoint.requests[1].body["messages"][-1]["content"]
    exported = shell(
        "export", ended["run_id"], "--format", "atif", "--out", str(tmp_path / "a.json")
    )
    assert exported.code == 0, exported


def test_native_calls_by_number(shell: Shell, tmp_path: Path, endpoint: Endpoint) -> None:
    file = pool(tmp_path, endpoint.url, 'naming = "numbers"', "desk_of_numbers")
    calls = [("a", "worker_1", '{"country": "Peru"}'), ("b", "worker_9", "{}")]
    endpoint.say("Look.", calls=calls)
    endpoint.say("Lima")
    ended = done(shell, "--pool", file, "A capital?")
    assert ended["answer"] == "Lima"
    results = [
        message["content"]
        for message in endpoint.requests[1].body["messages"]
        if message["role"] == "tool"
    ]
    assert "There is no worker 'worker_9'. There are: worker_1, worker_2." in results[1]


def test_serial_is_recorded_as_the_budget(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "serial.toml"
    path.write_text(
        '[policy]\nname = "rules"\nserial = true\n[[worker]]\nname = "python"\nadapter = "python"\n'
    )
    said = shell("run", "--pool", str(path), "--json", "Run this Python: print(2 ** 10)")
    run = said.lines()[-1]["done"]["run_id"]
    start = decode_commit(shell.deployments.store.messages[run, "c"][0].data).events[0]
    assert isinstance(start, RunStarted)
    assert start.budget.parallel == 1
