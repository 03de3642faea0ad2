"""A small model plays in the gym, and its versions are measured by it."""

import subprocess
import sys
from pathlib import Path

import pytest

from podium.cli import main
from podium.evaluators import evaluator_of
from protocol.model_versions import BASE
from replay.model_versions import ModelLog, publish
from trainer.gym import gate
from trainer.gym.scores import Scores
from trainer.small import Shape, make, save, train_tokenizer
from trainer.versions.gate import compare

TINY = Shape(layers=1, width=16, heads=2, kv_heads=1, feed_forward=16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model."""
    words = train_tokenizer(["population of a country", "= #1"] * 20, 400)
    return save(tmp_path_factory.mktemp("model") / "small", make(TINY, words, 1), words)


def test_a_version_has_scores_on_each_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "EPISODES", 3)
    found = gate.scores(folder, BASE)
    assert [each.set for each in found] == list(gate.SETS)
    for each in found:
        accuracy = each.get("accuracy")
        assert accuracy is not None
        assert accuracy.n == 3
        assert each.outcomes["accuracy"].keys() == {f"{each.set}/{seed}" for seed in range(3)}
    assert {row.set for row in compare(found, found).rows} == set(gate.SETS)


def test_a_model_is_measured_in_the_gym_that_it_is_made_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = train_tokenizer(["population of a country", "= #1"] * 20, 400)
    for name, sets in ((gate.WHOLE, gate.SETS), ("small", gate.SMALL_SETS)):
        made = save(tmp_path / name, make(TINY, words, 1), words, {gate.GYM: name})
        assert evaluator_of("", tmp_path, made) is gate.scores
        monkeypatch.setattr(gate, "EPISODES", 2)
        found = gate.scores(made, BASE)
        assert [each.set for each in found] == list(sets)
    for card in (None, b"{", b"[]", b'{"gym": "another"}', b'{"gym": 1}'):
        other = tmp_path / "other"
        other.mkdir(exist_ok=True)
        if card is not None:
            (other / "card.json").write_bytes(card)
        assert evaluator_of("", tmp_path, other) is None


def test_whoever_forces_a_version_waits_for_no_measuring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = train_tokenizer(["population of a country", "= #1"] * 20, 400)
    made = save(tmp_path / "made", make(TINY, words, 1), words, {gate.GYM: "small"})
    version = publish(made, lambda to: save(to, make(TINY, words, 2), words), current=False)
    asked = ["model", "promote", str(made), version.name]
    measured: list[str] = []

    def scores(folder: Path, version: str) -> list[Scores]:
        measured.append(version)
        return []

    monkeypatch.setattr(gate, "scores", scores)
    monkeypatch.chdir(tmp_path)
    assert main([*asked, "--force", "the first that was trained"]) == 0
    assert ModelLog(made).read().current == version.name
    assert measured == []
    assert main(["model", "rollback", str(made)]) == 0
    main(asked)
    assert measured == [BASE, version.name]


def test_it_plays_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gym", "play", f"local:{folder}", "--count", "2"]) == 0
    assert "seen" in capsys.readouterr().out


def test_who_plays_without_a_model_loads_no_torch() -> None:
    code = "import sys, trainer.gym.gate, trainer.gym.play; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
