"""Budgets: what is short of what, and what an extension adds."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.actions import MAX_COUNT, NOTHING, Spend
from protocol.budgets import Budget, Extension, extended, short_of
from tests.strategies import BUDGETS, arbitrary

SPENDS = st.builds(
    Spend, tokens=st.integers(0, 700), cost=st.integers(0, 400), calls=st.integers(0, 10)
)


@pytest.mark.parametrize(
    ("committed", "need", "kept", "limit"),
    [
        (NOTHING, Spend(tokens=100, cost=10, calls=2), NOTHING, ""),
        (Spend(calls=2), Spend(calls=1), NOTHING, "calls"),
        (Spend(tokens=60), Spend(tokens=41), NOTHING, "tokens"),
        (Spend(tokens=60), Spend(tokens=40), Spend(tokens=1), "tokens"),
        (Spend(cost=6), Spend(cost=4), Spend(cost=1), "cost"),
        (Spend(calls=2), NOTHING, Spend(calls=9), ""),
        (Spend(calls=3), NOTHING, NOTHING, "calls"),
    ],
)
def test_the_first_limit_is_named(committed: Spend, need: Spend, kept: Spend, limit: str) -> None:
    assert short_of(Budget(calls=2, tokens=100, cost=10), committed, need, kept) == limit


@given(BUDGETS, SPENDS, SPENDS, SPENDS)
def test_what_is_not_short_leaves_what_is_kept(
    budget: Budget, committed: Spend, need: Spend, kept: Spend
) -> None:
    after = committed + need
    fits = (
        after.calls <= budget.calls
        and after.tokens + kept.tokens <= budget.tokens
        and after.cost + kept.cost <= budget.cost
    )
    assert (short_of(budget, committed, need, kept) == "") == fits


@given(BUDGETS, arbitrary(Extension))
def test_an_extension_only_adds_and_what_it_gives_can_be_recorded(
    budget: Budget, by: Extension
) -> None:
    more = extended(budget, by)
    assert msgspec.json.decode(msgspec.json.encode(more), type=Budget) == more
    for field in Extension.__struct_fields__:
        before, after = getattr(budget, field), getattr(more, field)
        assert after == min(before + getattr(by, field), MAX_COUNT)
    assert (more.parallel, more.depth, more.on_limit) == (
        budget.parallel,
        budget.depth,
        budget.on_limit,
    )


@pytest.mark.parametrize("field", Extension.__struct_fields__)
def test_nothing_is_taken_away(field: str) -> None:
    with pytest.raises(ValueError, match="an extension only adds"):
        Extension(**{field: -1})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(f'{{"{field}": -1}}', type=Extension)


@given(SPENDS, SPENDS)
def test_spends_add_up_and_come_apart(one: Spend, two: Spend) -> None:
    assert one + two - two == one
    assert one + two == two + one
    assert one + NOTHING == one
