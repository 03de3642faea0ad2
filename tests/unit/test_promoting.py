"""Promoting through the gate: scores found or made, the worse refused, and all of it said."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import Conflict, InvalidData, NotFound, Usage
from protocol.model_versions import BASE, PromotionRefused, VersionPromoted
from replay.model_versions import ModelLog, point, publish
from tests.model_folders import published, scores, written
from trainer.gym.scores import Scores
from trainer.versions.promoting import promote, scored, scores_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    written("base")(tmp_path)
    return tmp_path


class Gym:
    """An evaluator that remembers what it was asked."""

    def __init__(self, **right: float) -> None:
        self.right, self.asked = right, list[str]()

    def __call__(self, folder: Path, version: str, /) -> Sequence[Scores]:
        self.asked.append(version)
        return [scores(self.right[f"v{version}"])]


def last(folder: Path) -> Any:
    return ModelLog(folder).history()[-1]


def test_what_is_better_by_its_manifest_is_promoted(folder: Path) -> None:
    first, second = published(folder, scores(0.8)), published(folder, scores(0.9))
    point(folder, first)
    done = promote(folder, second, by="ada", why="RL helps")
    assert (done.promoted, done.gate, done.against, done.why) == (True, "passed", first, "")
    (event,) = last(folder).events
    assert isinstance(event, VersionPromoted)
    assert (last(folder).by, last(folder).why, event.gate) == ("ada", "RL helps", "passed")
    assert [(row["figure"], row["verdict"]) for row in event.table] == [("accuracy", "better")]
    assert event.weights


def test_what_is_worse_is_refused_and_that_is_said_with_its_table(folder: Path) -> None:
    first, second = published(folder, scores(0.9)), published(folder, scores(0.8))
    point(folder, first)
    done = promote(folder, second)
    assert not done.promoted
    assert done.why == "accuracy on seen is 80.0%, and 90.0% before"
    (event,) = last(folder).events
    assert isinstance(event, PromotionRefused)
    assert (event.version, event.against, last(folder).why) == (second, first, done.why)
    assert event.table[0]["verdict"] == "worse"
    assert ModelLog(folder).read().current == first
    forced = promote(folder, second, force="we need its speed")
    assert (forced.promoted, forced.gate) == (True, "forced")
    assert last(folder).why == "we need its speed"


def test_scores_that_nobody_has_said_are_made_and_said(folder: Path) -> None:
    first = published(folder)
    gym = Gym(vbase=0.5, v000001=0.9, v000002=0.4)
    done = promote(folder, first, evaluate=gym)
    assert (done.promoted, done.gate, gym.asked) == (True, "passed", [BASE, first])
    assert ModelLog(folder).read().scores[BASE]["seen"]["figures"]
    second = published(folder)
    assert not promote(folder, second, evaluate=gym).promoted
    assert gym.asked == [BASE, first, second], "what is known is not made again"


def test_without_scores_and_without_anybody_to_make_them(folder: Path) -> None:
    first = published(folder)
    with pytest.raises(Usage, match="nothing is known of what the folder itself does"):
        promote(folder, first)
    scored(folder, BASE, [scores(0.5)])
    with pytest.raises(Usage, match="nothing is known of what version 000001 does"):
        promote(folder, first)
    done = promote(folder, first, force="it is the first one")
    assert (done.promoted, done.gate) == (True, "forced")
    with pytest.raises(Usage, match="is current already"):
        promote(folder, first)


def test_a_set_that_only_the_current_one_has_was_not_measured(folder: Path) -> None:
    first = published(folder, scores(0.8), scores(0.8, "unseen"))
    second = published(folder, scores(0.9))
    point(folder, first)
    assert promote(folder, second).why == "accuracy on unseen was not measured"


def test_who_was_passed_by_another_promotion_is_told(folder: Path) -> None:
    first, second = published(folder, scores(0.9)), published(folder, scores(0.9))

    class Slow(Gym):
        def __call__(self, folder: Path, version: str, /) -> Sequence[Scores]:
            point(folder, first)
            return super().__call__(folder, version)

    with pytest.raises(Conflict, match=f"{first} is current by now"):
        promote(folder, second, evaluate=Slow(vbase=0.5))
    assert ModelLog(folder).read().current == first


def removed(version: Path) -> None:
    shutil.rmtree(version)


def torn(version: Path) -> None:
    (version / "podium.json").write_text("{")


@pytest.mark.parametrize("harm", [removed, torn])
def test_a_current_version_that_cannot_be_read_is_left_by_force(
    folder: Path, harm: Callable[[Path], None]
) -> None:
    first, second = published(folder, scores(0.9)), published(folder, scores(0.95))
    point(folder, first)
    harm(folder / "versions" / first)
    with pytest.raises((NotFound, InvalidData)) as told:
        promote(folder, second)
    assert "--force" in told.value.hint
    gym = Gym(v000002=0.95)
    done = promote(folder, second, evaluate=gym, force=f"{first} is damaged")
    assert (done.promoted, done.gate, gym.asked) == (True, "forced", [])
    assert done.why == f"nothing is known of what version {first} does"


def harmed(folder: Path) -> None:
    publish(folder, written("w"), note={"scores": [{"set": 1}]}, current=False)


def misspelt(folder: Path) -> None:
    publish(folder, written("w"), note={"scores": "good"}, current=False)


@pytest.mark.parametrize("harm", [harmed, misspelt])
def test_scores_that_are_none_are_named(folder: Path, harm: Callable[[Path], None]) -> None:
    harm(folder)
    with pytest.raises(InvalidData, match="the scores of version 000001 can't be read"):
        scores_of(folder, ModelLog(folder).read(), "000001")
