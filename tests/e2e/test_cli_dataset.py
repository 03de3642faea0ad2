"""`podium dataset`, as a person types it, over runs that happened and runs in files."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.datasets import fixed
from tests.e2e.memory_host import Shell
from tests.logs import messages_of
from tests.models import tiny


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """With a deployment in whose log some runs are."""
    found = Shell(tmp_path)
    for log in fixed():
        commits, inbox = messages_of(log)
        store = found.deployments.store
        store.messages[log.run, "c"] += commits
        store.messages[log.run, "i"] += inbox
    return found


def rows_of(shell: Shell, *arguments: str) -> list[Any]:
    said = shell("dataset", "preview", *arguments, "--json")
    assert said.code == 0, said.err
    rows: list[Any] = said.json()["rows"]
    return rows


def test_from_runs_to_a_data_set_that_can_be_read(shell: Shell) -> None:
    built = shell("dataset", "build", "sft", "--out", "mine")
    assert built.code == 0, built.err
    assert built.out.startswith(f"{shell.folder / 'mine'}: ")
    assert "left out: wrong" in built.err
    again = shell("dataset", "build", "sft", "--out", "mine", "--json").json()
    assert again["applied"] is False
    shown = shell("dataset", "show", "mine")
    assert shown.code == 0, shown.err
    assert "sft as parquet" in shown.out
    assert "digest" in shown.out
    seen = shell("dataset", "preview", "mine", "--rows", "9")
    assert "[assistant, trained]\n+ 2100000\n" in seen.out
    assert "more: --full shows all" in seen.out
    assert "\x1b[" not in seen.out
    assert "\x1b[32m" in shell("dataset", "preview", "mine", terminal=True).out


def test_a_preview_tells_what_is_in_the_loss(shell: Shell) -> None:
    assert shell("dataset", "build", "sft", "--out", "mine", "--recovery", "1").code == 0
    rows = rows_of(shell, "mine", "--rows", "99")
    (mended,) = [row for row in rows if any(s["loss"] == "left out" for s in row["spans"])][:1]
    assert mended["about"]["recovery"] is True
    losses = [span["loss"] for span in mended["spans"] if span["role"] == "assistant"]
    assert losses == ["left out", "trained", "trained"]
    assert any(span.get("statuses") == ["OK"] for span in mended["spans"])


def test_with_a_tokenizer_the_tokens_themselves_are_shown(shell: Shell) -> None:
    tiny(shell.folder / "model")
    for format_ in ("parquet", "trl", "prime-rl"):
        options = ("--format", format_, "--tokenizer", "model", "--out", format_)
        assert shell("dataset", "build", "sft", *options).code == 0
        (row,) = rows_of(shell, format_, "--rows", "1", "--tokenizer", "model")
        trained = [span for span in row["spans"] if span["loss"] == "trained"]
        assert trained[-1]["text"] == "2100000<|im_end|>"
        assert all(span["tokens"] > 0 for span in row["spans"])


@pytest.mark.parametrize("format_", ["parquet", "trl", "verl", "verifiers", "openai", "atif"])
def test_every_format_can_be_read(shell: Shell, format_: str) -> None:
    kind = "rl" if format_ == "verifiers" else "sft"
    assert shell("dataset", "build", kind, "--format", format_, "--out", "d").code == 0
    assert rows_of(shell, "d")
    for kind in ("preference",) if format_ in ("parquet", "trl", "openai") else ():
        assert shell("dataset", "build", kind, "--format", format_, "--out", "p").code == 0
        (row,) = rows_of(shell, "p", "--rows", "1")
        assert {"better", "worse"} <= {span["loss"] for span in row["spans"]}


def test_a_file_says_what_is_wanted_and_flags_say_more(shell: Shell) -> None:
    spec = shell.folder / "mine.toml"
    spec.write_text('reward = "paramanager"\n[select]\nlabels = ["good"]\n[sft]\nrecovery = 0.5\n')
    options = ("--spec", "mine.toml", "--since", "2023-01-01")
    assert shell("dataset", "build", "sft", *options).code == 0
    shown = shell("dataset", "show", "datasets/sft").out
    for asked in ("since = 2023-01-01", "labels = good", "reward = paramanager", "= 0.5"):
        assert asked in shown
    assert "not selected: label 10" in shown


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("rewards = 1", "unknown field `rewards`", "reward"),
        ("[sft]\nrecover = 1", "at `$.sft`", "recovery"),
        ("[sft]\nrecovery = 2", "at `$.sft.recovery`", "Change that value"),
        ("[select]\nsince = 'soon'", "select.since: 'soon' is no time", "2026-11-26"),
        ("kind = 'rl'", "of kind 'rl', and 'sft' is asked for", "podium dataset build rl"),
        ("sft =", "can't be read", "Mend the line"),
    ],
)
def test_a_file_that_is_wrong_is_told_where(shell: Shell, text: str, said: str, hint: str) -> None:
    (shell.folder / "mine.toml").write_text(text)
    found = shell("dataset", "build", "sft", "--spec", "mine.toml")
    assert found.code == 2
    assert said in found.err
    assert hint in found.err


def test_exported_runs_need_no_deployment(shell: Shell) -> None:
    run = fixed()[0].run
    assert shell("export", run, "--out", "one.podium").code == 0
    alone = Shell(shell.folder / "elsewhere")
    alone.folder.mkdir()
    built = alone("dataset", "build", "sft", "../one.podium")
    assert built.code == 0, built.err
    (row,) = rows_of(alone, "datasets/sft")
    assert row["row"] == f"{run}/0"
    wrong = alone("dataset", "build", "sft", "one.txt")
    assert wrong.code == 2
    assert "one.txt is no exported run" in wrong.err


def test_damage_and_what_is_none_are_named(shell: Shell) -> None:
    assert shell("dataset", "build", "sft").code == 0
    data = next((shell.folder / "datasets/sft/data").iterdir())
    data.write_bytes(data.read_bytes()[:-1])
    assert "has changed" in shell("dataset", "show", "datasets/sft").err
    assert "can't be read" in shell("dataset", "preview", "datasets/sft").err
    assert shell("dataset", "show", "nowhere").code == 4
    assert shell("dataset", "preview", "nowhere").code == 4
    other = shell("dataset", "build", "sft", "--views", "clean")
    assert "holds another data set" in other.err
    assert "--fresh" in other.err
    (shell.folder / "x.txt").write_text("x")
    assert "no file of a data set" in shell("dataset", "preview", "x.txt").err


def test_json_is_one_line_with_the_manifest_on_the_disk(shell: Shell) -> None:
    said = shell("dataset", "build", "rl", "--json").json()
    assert said["applied"] is True
    found = shell("dataset", "show", "datasets/rl", "--json").json()
    manifest = msgspec.json.decode((shell.folder / "datasets/rl/manifest.json").read_bytes())
    assert found["counts"]["rows"] == manifest["rows"] > 0
