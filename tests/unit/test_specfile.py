"""The spec of a data set from a file and flags; `test_training` has that of a training."""

from pathlib import Path

import pytest

from protocol.errors import Usage
from trainer.datasets.spec import load


def test_flags_stand_over_the_file_and_nothing_is_everything(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('reward = "cost"\n[sft]\nrecovery = 0.1\nviews = "both"\n')
    found = load(file, {"sft.recovery": 0.2, "select.labels": ["a"], "max_tokens": None})
    assert (found.reward, found.sft.recovery, found.sft.views) == ("cost", 0.2, "both")
    assert found.select.labels == ("a",)
    assert load(kind="rl").kind == "rl"


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        (
            "rewards = 1",
            "mine.toml: Object contains unknown field `rewards`",
            "reward, progress, settle_s",
        ),
        ("[select]\nlabel = []", "unknown field `label` - at `$.select`", "labels"),
        ("[sft]\nrecovery = 2", "at `$.sft.recovery`", "Change that value"),
        ("[select]\nsince = 'now'", "select.since: 'now' is no time", "2026-11-26"),
        ("kind = 'rl'", "describes a data set of kind 'rl'", "podium dataset build rl --spec"),
        ("kind =", "can't be read", "Mend the line"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(
    tmp_path: Path, text: str, said: str, hint: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(Usage) as told:
        load(file)
    assert said in told.value.message
    assert hint in told.value.hint


def test_a_flag_that_is_wrong_is_named() -> None:
    with pytest.raises(Usage, match=r"the flag for sft\.recovery"):
        load(flags={"reward": "cost", "sft.recovery": -1})
