"""The command as a person types it: real processes, real Ray, NATS and log, in an empty folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

COMMAND: Final = [sys.executable, "-m", "podium.cli"]
ROOT: Final = Path(__file__).resolve().parents[2]
WITHIN_S: Final = 150
"""Seconds for one command on a busy machine; an idle one takes about ten."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SLOW_TOOL: Final = '''
import asyncio
from pathlib import Path
import podium

@podium.tool(timeout_s=300)
async def country(name: str, fact: str) -> dict:
    """One fact of a country."""
    while not Path(__file__).with_name("go").exists():
        await asyncio.sleep(0.1)
    return {"country": name, "fact": fact, "value": 7, "unit": "km²"}
'''


WHERE: Final = '''
import podium

@podium.tool
def bread() -> str:
    """Where it is."""
    return "bread of NAME"
'''

BAKERY: Final = """
[pool]
module = "bakery"
policy = "python:thinker:Thinker"
[[worker]]
name = "papers"
adapter = "shell"
[worker.options]
allow = ["ls"]
folder = "papers"
"""

THINKER: Final = """
import podium

class Thinker:
    spec = podium.PolicySpec(name="python:thinker:Thinker")

    def decide(self, view: podium.View) -> podium.Reply:
        seen = {item.call.id: item.value for turn in view.turns for item in turn.observations}
        listed = podium.PlannedCall("papers", {"argv": ["ls"]})
        decision = podium.Decision(calls=(podium.PlannedCall("bread", {}), listed))
        if seen:
            bread, papers = seen["1-0"], seen["1-1"]
            decided = bakery.bread().split()[-1]
            answer = f"decided {decided}, {bread}, papers of {papers['stdout'].strip()}"
            decision = podium.Decision(answer=answer)
        return podium.Reply(decision=decision, version="1")
"""


class Typist:
    """Types commands in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self.environment = {**kept, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A command under way."""
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """A command's stdout and stderr."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=WITHIN_S)
        assert process.returncode == code, f"{arguments}: {process.returncode}\n{out}\n{err}"
        return out, err

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The last line of a command's JSON."""
        return json.loads(self(*arguments, "--json", code=code)[0].splitlines()[-1])


@pytest.fixture
def typist(tmp_path: Path) -> Iterator[Typist]:
    typist = Typist(tmp_path)
    yield typist
    typist("down")


def test_an_empty_folder(typist: Typist) -> None:
    assert typist("runs")[1].startswith("no runs yet")
    out, err = typist("run", "Which is larger by population, Germany or France?")
    assert "Germany" in out
    assert "round 1: 2 calls: country, country" in err
    (row,) = typist.json("runs")["rows"]
    assert row["status"] == "finished"
    (shown,) = typist.json("runs", "show", row["run"][:5], "--content")["rows"]
    assert shown["answer"] == out.strip()
    (verified,) = typist.json("verify", row["run"][:5])["rows"]
    assert (verified["outcome"], verified["prompts"]) == ("sound", 2)
    assert typist("verify", "--all")[0] == "1 run: 1 sound\n"
    assert typist.json("status")["rows"] == [], "nothing is left standing"
    checks = {each["check"]: each for each in typist.json("doctor")["rows"]}
    assert checks["durability"]["found"] == "process"
    assert checks["set aside"]["found"] == "nothing"


def test_a_standing_deployment(typist: Typist) -> None:
    typist("up")
    assert typist.json("up", code=1)["error"]["kind"] == "conflict"
    out, _ = typist("run", "How many people live in Chad?")
    assert "Chad" in out
    run = typist.json("run", "--detach", "How large is Peru?")["launch"]["run_id"]
    assert typist.json("runs", "watch", run)["done"]["outcome"] == "finished"
    assert "0 runs at work" in typist("status")[0]
    kinds = [row["kind"] for row in typist.json("status")["rows"]]
    assert kinds.count("conductor") == 1
    assert kinds.count("worker") == 5
    assert typist.json("down")["applied"]
    assert typist.json("status")["rows"] == []
    assert len(typist.json("runs")["rows"]) == 2, "the log outlives the deployment"


def test_an_interrupted_run_goes_on(typist: Typist, tmp_path: Path) -> None:
    (tmp_path / "slow_tool.py").write_text(SLOW_TOOL)
    (tmp_path / "pool.toml").write_text('[pool]\nmodule = "slow_tool"')
    process = typist.start("run", "--pool", "pool.toml", "What is the area of Chad?")
    assert process.stderr is not None
    assert any("round 1: 1 call: country" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WITHIN_S)
    assert (process.returncode, out) == (130, "")
    assert "nothing of it is lost" in err
    (row,) = typist.json("runs")["rows"]
    assert (row["status"], row["waits_for"]) == ("working", "country")
    (tmp_path / "go").touch()
    out, _ = typist("run", "--pool", "pool.toml", "--continue", row["run"])
    assert "7 km²" in out


def test_what_lies_beside_the_pool_file_goes_before_the_working_folder(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name / "papers").mkdir(parents=True)
        (tmp_path / name / "papers" / name).touch()
        (tmp_path / name / "bakery.py").write_text(WHERE.replace("NAME", name))
    (tmp_path / "there" / "pool.toml").write_text(BAKERY)
    (tmp_path / "there" / "thinker.py").write_text("import bakery\n" + THINKER)
    typist, pool = Typist(tmp_path / "here"), str(tmp_path / "there" / "pool.toml")
    try:
        out, _ = typist("run", "--pool", pool, "Where is all of it?")
        assert out == "decided there, bread of there, papers of there\n"
    finally:
        typist("down")


def test_a_tool_that_fails_is_mended_and_the_run_made_again(typist: Typist, tmp_path: Path) -> None:
    for name in ("facts.py", "pool.toml"):
        shutil.copy(ROOT / "examples" / "broken_atlas" / name, tmp_path)
    asked = ("run", "--pool", "pool.toml", "Which has more people, Lilliput or Erewhon?")
    assert "can't answer this in full" in typist(*asked)[0]
    (row,) = typist.json("runs")["rows"]
    run = row["run"]

    atlas = tmp_path / "facts.py"
    mended = atlas.read_text().replace('"1.3 million"', '"1,300,000"')
    atlas.write_text(mended)
    out, err = typist("rerun", run, "--pool", "pool.toml")
    assert out == "Erewhon has more people: 1,300,000; Lilliput has 500,000.\n"
    assert "round 1: country (1-1) failed: ValueError" in err
    assert "1 result reused" in err
    assert "  1-0  " not in err, "what succeeded is not made again"
    fork = next(row for row in typist.json("runs")["rows"] if row["forked_from"])
    compared = typist.json("diff", run, fork["run"], code=3)
    first = compared["rows"][0]
    assert (first["call_a"], first["what"], first["a"], first["b"]) == (
        "1-1",
        "status",
        "EXEC_ERR",
        "OK",
    )
    (shown,) = typist.json("runs", "show", run)["rows"]
    assert shown["turns"][0]["calls"][1]["status"] == "EXEC_ERR", "the run stays as it was"

    typist("up", "--pool", "pool.toml")
    queued = typist("fork", run, "--at", "1-1", "--times", "2", "--detach")[0].split()
    for each in queued:
        assert (
            "Erewhon has more" in typist.json("runs", "watch", each, "--content")["done"]["answer"]
        )
    assert typist("diff", *queued)[0].startswith("no difference")
    other = typist.json("rerun", run, "--worker", "country=calculator", code=2)["error"]
    assert "country takes other parameters in the fork" in other["message"]
