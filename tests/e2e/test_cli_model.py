"""`podium model` as a person types it, on folders whose models nobody has to load."""

from pathlib import Path

import pytest

from replay.model_folder import CURRENT, FOLDER
from tests.e2e.memory_host import Shell
from tests.model_folders import model_in, published, scores

GYM = """
from tests.model_folders import scores

def evaluate(folder, version):
    return scores(0.95 if version == "000004" else 0.9)
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    model_in(tmp_path / "m")
    return Shell(tmp_path, USER="ben")


def current(shell: Shell) -> str:
    return (shell.folder / "m" / FOLDER / CURRENT).read_text().split()[0]


def test_a_version_that_does_worse_is_refused_with_the_table(shell: Shell) -> None:
    said = shell("model", "promote", "m", "3")
    assert (said.code, said.out) == (1, "")
    error, table = said.err.split("\nset ")
    assert error.startswith("error: version 000003 is not promoted: accuracy on seen is 60.0%")
    assert table.splitlines()[1].split()[:2] == ["seen", "accuracy"]
    assert "80.0% (75.8% to 83.6%) of 400  60.0% (55.1% to 64.7%) of 400" in table
    assert table.splitlines()[1].endswith("worse")
    assert current(shell) == "000001"
    error = shell("model", "promote", "m", "3", "--json").json()["error"]
    assert (error["code"], error["next"]) == ("conflict", "podium model compare m 000001 000003")
    forced = shell("model", "promote", "m", "3", "--force", "it is fast")
    assert "is current, after 000001, though accuracy on seen is 60.0%" in forced.out
    rows = shell("model", "show", "m", "3", "--json").json()["rows"]
    assert [row["what"] for row in rows] == [
        "000003 published",
        "000003 refused beside 000001",
        "000003 refused beside 000001",
        "000003 promoted by force",
    ]
    assert rows[-1]["by"] == "ben"
    assert rows[-1]["why"] == "it is fast"


def test_promoted_compared_and_rolled_back(shell: Shell) -> None:
    shell("model", "promote", "m", "2", "--why", "RL helps")
    listed = shell("model", "list", "m").out.splitlines()
    assert [line.split()[:2] for line in listed[1:4]] == [
        ["base", "0"],
        ["000001", listed[2].split()[1]],
        ["000002", "current"],
    ]
    assert "seen 90.0%" in listed[3]
    compared = shell("model", "compare", "m", "1", "current").out
    assert "+10.0% (5.1% to 14.9%)" in compared
    assert "better" in compared
    assert "set 0.8" in compared, "what they are made of"
    assert shell("model", "rollback", "m", "--dry-run").out.startswith("would be: version 000001")
    assert current(shell) == "000002"
    assert "version 000001 is current again, after 000002" in shell("model", "rollback", "m").out
    assert current(shell) == "000001"
    shown = shell("model", "show", "m").out
    assert "back to 000001 from 000002" in shown
    assert "RL helps" in shown
    about = shell("model", "show", "m", "2").out
    assert "data     set 0.9" in about
    assert "90.0% (86.7% to 92.6%) of 400" in about


def test_a_canary_has_its_share_until_it_ends(shell: Shell) -> None:
    assert shell("model", "canary", "m", "2", "--share", "0.1").code == 0
    rows = shell("model", "list", "m", "--json").json()["rows"]
    assert [row["canary"] for row in rows] == [None, None, 0.1, None, None]
    assert "canary 10%" in shell("model", "list", "m").out
    same = shell("model", "canary", "m", "2", "--share", "0.1", "--json").json()
    assert (same["applied"], same["detail"]) == (False, "nothing has changed")
    assert "000002 answers 0.5" in shell("model", "canary", "m", "2", "--share", "0.5").out
    wrong = shell("model", "canary", "m", "3", "--end")
    assert (wrong.code, "version 000003 is no canary: 000002 is" in wrong.err) == (2, True)
    assert "no canary any more" in shell("model", "canary", "m", "2", "--end").out
    assert shell("model", "canary", "m", "--end").code == 1


def test_scores_are_made_by_whoever_is_named(shell: Shell) -> None:
    (shell.folder / "my_gym.py").write_text(GYM)
    said = shell("model", "promote", "m", "4", "--evaluator", "my_gym:evaluate")
    assert said.code == 0, said
    assert current(shell) == "000004"
    assert "95.0%" in shell("model", "list", "m").out
    wrong = shell("model", "promote", "m", "2", "--evaluator", "my_gym:nothing")
    assert (wrong.code, "there is no evaluator" in wrong.err) == (2, True)
    (shell.folder / "my_broken.py").write_text("def evaluate(")
    wrong = shell("model", "promote", "m", "2", "--evaluator", "my_broken:evaluate")
    assert (wrong.code, "was never closed" in wrong.err) == (2, True)


def test_a_current_version_that_was_harmed_is_left_by_force(shell: Shell) -> None:
    (shell.folder / "m" / FOLDER / "000001" / "podium.json").write_text("{")
    refused = shell("model", "promote", "m", "2")
    assert (refused.code, "--force REASON" in refused.err) == (1, True), refused.err
    forced = ("model", "promote", "m", "2", "--force", "it is damaged")
    dry = shell(*forced, "--dry-run")
    assert "000001 has 0 sets of scores and 000002 has 1 set" in dry.out, dry.err
    done = shell(*forced)
    assert "though nothing is known of what version 000001 does" in done.out, done.err
    assert current(shell) == "000002"


def test_a_version_that_was_removed_or_harmed_is_listed_as_that(shell: Shell) -> None:
    name = published(shell.folder / "m", scores(0.5))
    (shell.folder / "m" / FOLDER / name / "podium.json").write_text("{")
    rows = shell("model", "list", "m", "--json").json()["rows"]
    assert [row["there"] for row in rows] == [True, True, True, True, True, False]
    assert "not readable" in shell("model", "list", "m").out
