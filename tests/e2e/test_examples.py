"""The examples do what their READMEs say: with real adapters, and a real HTTP endpoint."""

import re
import shlex
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.memory_host import Shell
from tests.endpoint import Endpoint

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples"

ATLAS: Final = {
    "Which has more people, Lilliput or Blefuscu?": ("Lilliput", "500,000", "420,000"),
    "What is the area of the country where Zenda is?": ("48,000",),
    "What is the population of Ruritania divided by the area of Ruritania?": ("43.75",),
}
"""The questions of the atlas' README, and what their answers hold."""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="tester")


def questions(readme: Path) -> list[str]:
    """What its commands ask."""
    lines = re.findall(r"^podium run .*$", readme.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line)[-1] for line in lines]


@pytest.mark.parametrize("question", questions(EXAMPLES / "invented_atlas" / "README.md"))
def test_the_atlas_answers_every_question_of_its_readme(shell: Shell, question: str) -> None:
    said = shell("run", "--pool", str(EXAMPLES / "invented_atlas" / "pool.toml"), question)
    assert said.code == 0, said
    assert all(part in said.out for part in ATLAS[question]), said.out


def test_the_atlas_checks_out(shell: Shell) -> None:
    said = shell("worker", "check", str(EXAMPLES / "invented_atlas" / "pool.toml"), "--json")
    assert said.code == 0
    assert [row["worker"] for row in said.json()["rows"]] == [
        "calculator",
        "country",
        "city",
        "(policy)",
    ]


def test_a_failed_call_of_the_atlas_says_what_it_has(shell: Shell) -> None:
    pool = str(EXAMPLES / "invented_atlas" / "pool.toml")
    said = shell("run", "--pool", pool, "What is the population of Laputa?")
    assert "EXEC_ERR" in said.err
    assert "It has: Blefuscu, Erewhon, Lilliput, Ruritania." in said.err


def test_the_review_desk_works_with_an_endpoint(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = str(EXAMPLES / "review_desk" / "pool.toml")
    with Endpoint() as endpoint:
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        monkeypatch.setenv("OPENAI_API_KEY", endpoint.key)
        endpoint.say(calls=[("a", "writer", '{"subtask": "Why is the sky blue?"}')])
        endpoint.say("Air scatters blue light most.", usage=(100, 20))
        endpoint.say(
            calls=[
                ("b", "critic", '{"subtask": "Check: Air scatters blue light most."}'),
                ("c", "measure", '{"text": "Air scatters blue light most."}'),
            ]
        )
        endpoint.say("No mistakes.")
        endpoint.say("Air scatters blue light most. (5 words, checked)")
        said = shell("run", "--pool", pool, "--json", "One sentence on the sky, checked.")
    assert said.code == 0, said
    done = said.lines()[-1]["done"]
    assert done["answer"] == "Air scatters blue light most. (5 words, checked)"
    assert (done["rounds"], done["calls"]) == (2, 3)
    assert done["tokens"] == 5 * 15 + 105
    assert done["cost_usd"] > 0
    roles = [request.body["messages"][0]["content"] for request in endpoint.requests]
    assert "You write for a general reader" in roles[1]
    assert "You are an editor" in roles[3]
    assert not endpoint.errors
    (row,) = shell("runs", "show", done["run_id"], "--content", "--json").json()["rows"]
    values = {call["worker"]: call["value"] for turn in row["turns"] for call in turn["calls"]}
    assert values["measure"] == {"characters": 29, "words": 5, "sentences": 1}


def test_the_review_desk_without_a_key_or_server_fails_with_the_cure(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = str(EXAMPLES / "review_desk" / "pool.toml")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    said = shell("run", "--pool", pool, "One sentence.", "--json")
    assert said.code == 1
    assert said.json()["error"]["kind"] == "denied"
    assert "export OPENAI_API_KEY" in said.json()["error"]["hint"]
    with Endpoint() as endpoint:
        url = endpoint.url
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    said = shell("run", "--pool", pool, "One sentence.", "--json")
    assert said.code == 5
    assert said.json()["error"]["kind"] == "unreachable"
    assert shell("worker", "check", pool).code == 2


def test_the_broken_atlas_says_what_broke(shell: Shell) -> None:
    (question,) = questions(EXAMPLES / "broken_atlas" / "README.md")
    said = shell("run", "--pool", str(EXAMPLES / "broken_atlas" / "pool.toml"), question)
    assert said.code == 0, said
    assert "invalid literal for int() with base 10: '1.3 million'" in said.out
    assert "not known" not in said.out, "the country is known; it is the tool that failed"
    assert "500,000" in said.out
