"""The gate: a version that does worse is found, one that is as good is let through."""

import random
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trainer.gym.scores import Figure, Scores
from trainer.intervals import Interval, difference, mean, paired, share
from trainer.versions.gate import MIN_ROLLOUTS, RIGHT, Verdict, compare

N = 400
EPISODES = tuple(f"seen-{place}" for place in range(100_000))


def of(name: str, values: Sequence[float]) -> Figure:
    found = share(round(sum(values)), len(values)) if name == RIGHT else mean(values)
    return Figure(name=name, value=found.value, low=found.low, high=found.high, n=len(values))


def scores(tasks: str = "seen", *, pairs: bool = False, **values: Sequence[float]) -> Scores:
    kept = {name: dict(zip(EPISODES, each, strict=False)) for name, each in values.items()}
    kept = kept if pairs else {}
    figures = tuple(of(name, each) for name, each in values.items())
    return Scores(policy="p", set=tasks, seed=1, figures=figures, outcomes=kept)


def right(share: float, n: int = N) -> list[float]:
    return [float(place < share * n) for place in range(n)]


def spread(middle: float, n: int = N) -> list[float]:
    chance = random.Random(n)
    return [middle + chance.gauss(0, middle / 4) for _ in range(n)]


def verdicts(current: Scores, candidate: Scores) -> dict[str, Verdict]:
    return {row.figure: row.verdict for row in compare([current], [candidate]).rows}


def test_what_is_clearly_worse_is_refused_and_said_in_words() -> None:
    found = compare([scores(accuracy=right(0.9))], [scores(accuracy=right(0.8))])
    assert [row.verdict for row in found.rows] == ["worse"]
    assert found.why == "accuracy on seen is 80.0%, and 90.0% before"
    back = compare([scores(accuracy=right(0.8))], [scores(accuracy=right(0.9))])
    assert (back.why, back.rows[0].verdict) == ("", "better")


def test_what_chance_may_have_made_is_let_through() -> None:
    assert verdicts(scores(accuracy=right(0.9)), scores(accuracy=right(0.88)))["accuracy"] == "even"


def test_pairs_find_what_two_intervals_do_not() -> None:
    before, after = right(0.90), right(0.87)  # wrong wherever it was, and in 3 % more
    alone = verdicts(scores(accuracy=before), scores(accuracy=after))
    pairs = compare([scores(pairs=True, accuracy=before)], [scores(pairs=True, accuracy=after)])
    assert alone["accuracy"] == "even"
    assert (pairs.rows[0].verdict, pairs.rows[0].paired) == ("worse", True)
    elsewhere = {RIGHT: {f"other-{place}": value for place, value in enumerate(after)}}
    other = Scores(policy="p", set="seen", figures=(of(RIGHT, after),), outcomes=elsewhere)
    assert not compare([scores(pairs=True, accuracy=before)], [other]).rows[0].paired


def test_a_loss_within_the_margin_is_let_through_however_sure_it_is() -> None:
    before, after = right(0.9, 40_000), right(0.895, 40_000)
    found = verdicts(scores(pairs=True, accuracy=before), scores(pairs=True, accuracy=after))
    assert found["accuracy"] == "even"


def test_more_may_be_spent_only_for_being_right_more_often() -> None:
    cheap, dear = spread(10.0), spread(12.0)
    same = verdicts(scores(accuracy=right(0.8), cost=cheap), scores(accuracy=right(0.8), cost=dear))
    assert same == {"accuracy": "even", "cost": "worse"}
    more = verdicts(scores(accuracy=right(0.8), cost=cheap), scores(accuracy=right(0.9), cost=dear))
    assert more == {"accuracy": "better", "cost": "excused"}
    little = verdicts(
        scores(accuracy=right(0.8), cost=cheap),
        scores(accuracy=right(0.8), cost=[1.02 * each for each in cheap]),
    )
    assert little["cost"] == "even"


def test_what_was_not_measured_speaks_against_it() -> None:
    current = [scores(accuracy=right(0.8)), scores("unseen", accuracy=right(0.7))]
    found = compare(current, current[:1])
    assert found.why == "accuracy on unseen was not measured"
    shown = compare([scores(accuracy=right(0.8), stops=spread(1))], current[:1])
    assert shown.why == "", "it is no figure of the gate"
    more = compare(current[:1], current)
    assert (more.why, more.rows[-1].verdict) == ("", "shown")


def test_nothing_is_known_by_too_few() -> None:
    few = MIN_ROLLOUTS - 1
    found = compare([scores(accuracy=right(0.9))], [scores(accuracy=right(0.9, few))])
    assert found.rows[0].verdict == "too few"
    assert "too few rollouts" in found.why
    assert compare([], []).why == "nothing is known of its accuracy"


def test_what_only_the_candidate_was_measured_on_says_nothing_of_the_two() -> None:
    few = scores(accuracy=right(0.9, MIN_ROLLOUTS - 1))
    worse = [scores(accuracy=right(0.2, MIN_ROLLOUTS - 1)), scores("more", accuracy=right(0.2))]
    assert "too few rollouts" in compare([few], worse).why
    unlike = compare([scores(rounds=spread(2))], [scores(rounds=spread(2), accuracy=right(0.9))])
    assert unlike.why == "nothing is known of the current version's accuracy"


@given(st.integers(0, 60), st.integers(1, 60))
@example(0, 13)
def test_an_interval_of_a_share_holds_it_and_lies_within_0_and_1(yes: int, more: int) -> None:
    found = share(yes, yes + more)
    assert 0 <= found.low <= found.value <= found.high <= 1
    opposite = share(more, yes + more)
    assert found.low == pytest.approx(1 - opposite.high, abs=1e-12)


def test_intervals_are_those_of_the_literature() -> None:
    # Newcombe 1998, table II, (a): 56/70 less 48/80, by method 10.
    found = difference(share(56, 70), share(48, 80))
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    # Wilson: 81 of 263, as in Newcombe's companion paper.
    assert share(81, 263) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)


def test_an_interval_holds_what_is_true_about_95_times_of_100() -> None:
    chance = random.Random(3)
    held = 0
    for _ in range(400):
        pairs = [(chance.gauss(1.0, 1), chance.gauss(0.5, 1)) for _ in range(60)]
        found = paired(*zip(*pairs, strict=True))
        held += found.low <= 0.5 <= found.high
        assert found.value == pytest.approx(statistics.fmean(a - b for a, b in pairs))
    assert 0.92 <= held / 400 <= 0.98


def test_means_of_less_than_two_have_no_interval() -> None:
    with pytest.raises(ValueError, match="1 values have no interval"):
        mean([1.0])
    assert share(0, 0) == Interval(0.0, 0.0, 1.0)
