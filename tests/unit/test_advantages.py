"""Groups to advantages: once a rollout, whatever is unscorable left out."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Usage
from tests.trees import rollout, step
from trainer.advantages import PRESETS, Scheme, advantages, scheme
from trainer.rows import rows


class Worth(NamedTuple):
    group: str
    reward: float | None


def of(rewards: Sequence[float | None], how: Scheme, group: str = "g") -> list[float | None]:
    return [each.value for each in advantages([Worth(group, r) for r in rewards], how)]


def test_a_rollout_counts_once_however_many_rows_it_has() -> None:
    """Rewards 1, 0, 0, 0 and rows 1, 1, 1, 5: 1.732 and -0.577, not 2.645 and -0.378."""
    lone = rollout(step(1, [1], [2]))
    many = rollout(*(step(turn, [turn], [9]) for turn in range(1, 6)))
    made = [rows(each) for each in (lone, lone, lone, many)]
    assert [len(each) for each in made] == [1, 1, 1, 5]
    found = of([1.0, 0.0, 0.0, 0.0], Scheme())
    assert found == pytest.approx([1.7320508, -0.5773503, -0.5773503, -0.5773503])


def test_presets_by_hand() -> None:
    rewards: list[float | None] = [1.0, 0.0, 0.0, 0.0]
    assert of(rewards, scheme("grpo")) == pytest.approx([0.75 / 0.5001] + [-0.25 / 0.5001] * 3)
    assert of(rewards, scheme("dr_grpo")) == [0.75, -0.25, -0.25, -0.25]
    assert of(rewards, scheme("rloo")) == pytest.approx([1.0] + [-1 / 3] * 3)
    assert of(rewards, scheme("reinforce")) == rewards
    assert of([10.0] + [0.0] * 31, scheme("toolorchestra"))[0] == 3.0, "clipped"
    with pytest.raises(Usage, match="no advantages 'ppo'"):
        scheme("ppo")


def test_groups_that_hardly_differ_are_dropped_as_toolorchestra_does() -> None:
    close = advantages([Worth("g", r) for r in (0.5, 0.55, 0.6)], scheme("toolorchestra"))
    assert all(each.flat and each.value == 0.0 and not each.trains for each in close)
    assert not any(each.flat for each in advantages([Worth("g", r) for r in (0, 1)], Scheme()))


def test_any_scheme_may_be_told_from_which_deviation_a_group_says_something() -> None:
    cents = [Worth("cents", r) for r in (1.0, 0.98)]
    mixed = [Worth("mixed", r) for r in (1.0, 0.0)]
    found = advantages([*cents, *mixed], scheme("dr_grpo", 0.2))
    assert [each.value for each in found] == [0.0, 0.0, 0.5, -0.5]
    assert scheme("dr_grpo", 0.2).min_std == 0.2
    assert scheme("toolorchestra", 0.05) == scheme("toolorchestra"), "which says more"


def test_what_is_unscorable_is_in_no_baseline() -> None:
    found = advantages([Worth("g", r) for r in (1.0, None, 0.0)], Scheme(scale="none"))
    assert [each.value for each in found] == [0.5, None, -0.5]
    assert (found[1].size, found[1].trains) == (2, False)
    alone = advantages([Worth("g", None), Worth("h", 1.0)], Scheme())
    assert [each.value for each in alone] == [None, 0.0]
    assert alone[1].flat, "nothing to compare it with"


def test_a_group_that_is_all_alike_is_flat_and_never_divided_by_nothing() -> None:
    for how in PRESETS.values():
        found = advantages([Worth("g", 0.1 + 0.2), Worth("g", 0.1 + 0.2)], how)
        assert [each.flat for each in found] == [how.center == "group"] * 2
        assert {each.value for each in found} <= {0.0, 0.1 + 0.2}


def test_the_mean_of_the_batch() -> None:
    given = [Worth("a", 1.0), Worth("a", 1.0), Worth("b", 0.0), Worth("b", 0.0)]
    found = advantages(given, Scheme(center="batch", scale="std"))
    assert [each.value for each in found] == [1.0, 1.0, -1.0, -1.0]


GROUPS = st.lists(
    st.builds(Worth, st.sampled_from("abc"), st.none() | st.floats(-10, 10, allow_subnormal=False)),
    max_size=20,
)


@given(GROUPS, st.sampled_from(sorted(PRESETS)), st.randoms())
def test_the_order_of_the_rollouts_does_not_matter(
    given: list[Worth], name: str, dice: object
) -> None:
    order = list(range(len(given)))
    dice.shuffle(order)  # type: ignore[attr-defined]
    found = advantages(given, scheme(name))
    again = advantages([given[at] for at in order], scheme(name))
    assert [found[at] for at in order] == again


@given(GROUPS)
def test_advantages_of_a_group_add_up_to_nothing(given: list[Worth]) -> None:
    found = advantages(given, Scheme(scale="none"))
    for name in "abc":
        own = [a.value for w, a in zip(given, found, strict=True) if w.group == name]
        assert sum(each for each in own if each is not None) == pytest.approx(0.0, abs=1e-9)
    assert [a.value is None for a in found] == [w.reward is None for w in given]
