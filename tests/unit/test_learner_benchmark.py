"""What the learner's benchmark compares with what, and that both have the same work."""

from pathlib import Path

import pytest

from benchmarks.learner import EXAMPLES, LONGEST, REPLY, SHORTEST, Learning, lines_of, work


def test_each_ratio_is_of_the_same_repeat_and_has_its_target() -> None:
    values = {
        "trl": [10.0, 20.0],
        "packed": [30.0, 40.0],
        "padded": [20.0, 20.0],
        "padded, sorted": [25.0, 25.0],
        "sampling": [50.0, 60.0],
        "generate": [25.0, 20.0],
    }
    found = {line.name: line.shown() for line in lines_of(values)}
    assert found["packed / trl"]["value"] == 2.5
    assert found["packed / trl"]["target"] == ">= 1"
    assert (found["packed / padded"]["value"], found["packed / padded"]["holds"]) == (1.75, True)
    assert found["packed / padded, sorted"]["target"] is None
    assert (found["sampling / generate"]["value"], found["sampling / generate"]["target"]) == (
        2.5,
        ">= 2",
    )
    assert "sampling / generate" not in {line.name for line in lines_of({"sampling": [1.0]})}


@pytest.mark.slow
def test_all_ways_to_learn_have_the_same_loss(tmp_path: Path) -> None:
    given = work(tmp_path / "model")
    lengths = [len(each.ids) for each in given.examples]
    assert len(lengths) == EXAMPLES
    assert SHORTEST <= min(lengths) < max(lengths) <= LONGEST
    assert {each.ce.sum() for each in given.examples} == {REPLY}
    learning = Learning(given)
    for each in learning.learners.values():
        assert each.evaluate(given.examples)["loss"] == pytest.approx(learning.loss, abs=1e-4)
    assert learning.rates(1).keys() == learning.learners.keys()
