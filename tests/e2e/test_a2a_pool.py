"""A pool with an A2A agent, from its file to the call that is made again."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.a2a_agent import A2AServer
from tests.e2e.memory_host import Shell

KEY: Final = "k-0123456789abcdef"

POLICY: Final = '''
"""Asks an agent, answers what it asks back, and says what it says."""
import podium

class Policy:
    spec = podium.PolicySpec(name="python:MODULE:Policy")

    def decide(self, view):
        if not view.turns:
            call = podium.PlannedCall("atlas", {"subtask": "ask me"})
        else:
            (seen,) = view.turns[-1].observations
            if seen.status == "OK":
                return podium.Reply(decision=podium.Decision(answer=seen.value))
            task = seen.value.partition('"task": "')[2].partition('"')[0]
            call = podium.PlannedCall("atlas", {"subtask": "Lima", "task": task})
        return podium.Reply(decision=podium.Decision(calls=(call,)))
'''

POOL: Final = """
[pool]
policy = "python:MODULE:Policy"

[[worker]]
name = "atlas"
adapter = "a2a"
secrets = ["ATLAS"]
[worker.options]
url = "URL"
headers = { X-Key = "${secret:ATLAS}" }
"""


@pytest.fixture(scope="module")
def server() -> Iterator[A2AServer]:
    with A2AServer(key=KEY) as serving:
        yield serving


@pytest.fixture
def pool(tmp_path: Path, server: A2AServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PODIUM_SECRET_ATLAS", KEY)
    server.forget()
    module = f"atlas_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(POLICY.replace("MODULE", module))
    path = tmp_path / "pool.toml"
    path.write_text(POOL.replace("MODULE", module).replace("URL", server.url))
    yield path
    sys.modules.pop(module, None)


def test_a_policy_answers_what_the_agent_asks_back(pool: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    said = shell("run", "--pool", str(pool), "--json", "Name a capital.")
    assert said.code == 0, said
    done = said.lines()[-1]["done"]
    assert done["answer"].endswith("Your subtask:\nask me was answered")
    run = said.lines()[0]["launch"]["run_id"]
    shown = shell("timeline", run, "--content", "--json").out
    assert "Which city?" in shown
    assert KEY not in shown


def test_the_same_call_is_made_again_only_when_the_agent_may_be_asked(
    pool: Path, tmp_path: Path
) -> None:
    shell = Shell(tmp_path)
    run = shell("run", "--pool", str(pool), "--json", "Go.").lines()[0]["launch"]["run_id"]
    said = shell("reproduce", f"{run}/1-0", "--pool", str(pool))
    assert (said.code, "--live" in said.err) == (1, True)
    said = shell("reproduce", f"{run}/1-0", "--live")
    assert (said.code, "options of its own (url, headers, hosts)" in said.err) == (1, True)
    said = shell("reproduce", f"{run}/1-0", "--live", "--pool", str(pool), "--json")
    assert "Which city?" in str(said.json()["rows"][0])


def test_check_asks_for_the_card(pool: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    said = shell("worker", "check", str(pool), "--json")
    assert said.json()["rows"][0]["found"] == "atlas 7: JSONRPC 1.0, streaming"
    pool.write_text(pool.read_text().replace("[worker.options]", "[worker.options]\nskill = 'x'"))
    (row,) = (each for each in shell("worker", "check", str(pool), "--json").json()["rows"][:1])
    assert "no skill 'x'" in row["found"]
