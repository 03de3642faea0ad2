"""A team of shipped roles, a vote on what it says, and an answer written from the record."""

import sys
from pathlib import Path
from typing import Final

import pytest

from actors.workers.agent.roles import ROLES
from tests.e2e.memory_host import Shell
from tests.endpoint import Endpoint

POLICY: Final = '''
"""Asks three of one question, has their answers voted on and judged, and answers by the vote."""
import podium

class Policy:
    spec = podium.PolicySpec(name="python:team:Policy")

    def decide(self, view):
        if view.turns:
            (*_, vote, compared) = view.turns[0].observations
            return podium.Reply(decision=podium.Decision(answer=f"{vote.value} {compared.value}"))
        ask = [podium.PlannedCall("thinker", {"subtask": view.task.text})] * 3
        sees = (0, 1, 2)
        others = [podium.PlannedCall(name, {}, sees=sees) for name in ("majority", "cross-check")]
        return podium.Reply(decision=podium.Decision(calls=(*ask, *others)))
'''

POOL: Final = """
[pool]
policy = "written:scribe:python:team:Policy"
modules = ["podium.pools.consolidation"]

[[worker]]
name = "thinker"
adapter = "openai"
[worker.options]
model = "m"
base_url = "URL"
role = "@standard-reasoner"

[[worker]]
name = "scribe"
adapter = "openai"
[worker.options]
model = "m"
base_url = "URL"
role = "@answer-writer"
"""


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.delitem(sys.modules, "team", raising=False)
    return Shell(tmp_path, USER="tester")


def pool(folder: Path, url: str, old: str = "", new: str = "") -> str:
    (folder / "team.py").write_text(POLICY)
    path = folder / "team.toml"
    path.write_text(POOL.replace("URL", url).replace(old, new) if old else POOL.replace("URL", url))
    return str(path)


def test_a_team_answers_by_vote_and_the_writer_has_the_last_word(
    tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Endpoint() as endpoint:
        monkeypatch.setenv("OPENAI_API_KEY", endpoint.key)
        file = pool(tmp_path, endpoint.url)
        endpoint.say("6 x 7 is 42.\nResult: 42")
        endpoint.say("Result: **42.0**")
        endpoint.refuse(400, "too long")
        endpoint.say("42")
        said = shell("run", "--pool", file, "--json", "What is 6 times 7?")
        assert said.code == 0, said
        done = said.lines()[-1]["done"]
        assert (done["answer"], done["rounds"], done["calls"]) == ("42", 2, 6)
        assert not endpoint.errors
    run = done["run_id"]
    roles = [request.body["messages"][0]["content"] for request in endpoint.requests]
    assert roles == [ROLES["standard-reasoner"].prompt] * 3 + [ROLES["answer-writer"].prompt]
    shown = endpoint.requests[-1].body["messages"][1]["content"]
    assert "'votes': 2" in shown, "the policy's own answer"
    assert "EXEC_ERR: The endpoint" in shown
    for call in ("1-3", "1-4", "2-0"):
        again = shell("reproduce", f"{run}/{call}", "--pool", file)
        assert again.code == 0, again
        assert "the same as recorded" in again.err
    vote = shell("reproduce", f"{run}/1-3", "--pool", file, "--json").json()["rows"][0]
    (failed,) = vote["recorded"]["value"]["failed"]
    assert failed in ("1-0", "1-1", "1-2"), "whoever asked last"
    assert shell("verify", run).code == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('name = "scribe"', 'name = "other"', "there is not"),
        ("written:scribe", "written:majority", "can't write the answer"),
        ("written:scribe", "written:thinker:written:scribe", "there is no policy"),
    ],
)
def test_a_writer_that_can_not_write_is_refused_before_anything_starts(
    tmp_path: Path, shell: Shell, old: str, new: str, said: str
) -> None:
    with Endpoint() as endpoint:
        file = pool(tmp_path, endpoint.url, old, new)
    refused = shell("run", "--pool", file, "What is 6 times 7?")
    assert refused.code != 0
    assert said in refused.err
