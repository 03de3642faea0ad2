"""Channels and recipes: the papers' formulas against values worked out by hand."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.actions import Spend
from protocol.budgets import Budget
from protocol.errors import InvalidData, Usage
from tests.logs import log_of
from tests.trees import made, rewarded, rollout, step
from tests.unit.test_fold import sampled_run, several
from tests.unit.test_run_properties import HISTORIES, STARTS, History
from trainer.fold import fold
from trainer.records import Rollout
from trainer.rewards import (
    CHANNELS,
    PRESETS,
    Recipe,
    StepCost,
    Term,
    parl,
    preset,
    puppeteer,
    returns,
    score,
    toolorchestra,
    value,
    values,
)

RIGHT = {"kind": "exact", "answer": "42"}
WRONG = {"kind": "exact", "answer": "43"}


def reward(found: Rollout, recipe: Recipe, progress: float = 1.0) -> float | None:
    return score([found], recipe, progress)[0].reward


# ---------------------------------------------------------------------------------------- channels


def test_channels_by_hand() -> None:
    found = rollout(
        step(1, calls=(made("tool"), made("tool", "EXEC_ERR", "worker"), made("agent"))),
        step(2, rejected=True),
        step(3, calls=(made("nobody", "PARSE_ERR", "policy", attempts=0),)),
        step(4),
        check=RIGHT,
        rounds=2,
        budget=Budget(rounds=8),
        critical_steps=2,
        spend=Spend(tokens=700, cost=2_500_000),
        elapsed_ms=1_500,
    )
    assert values(found) == pytest.approx(
        {
            "accuracy": 1.0,
            "answered": 1.0,
            "parsed": 0.0,
            "format": 2 / 4,
            "diversity": 2 / 3,
            "completion": 2 / 4,
            "parallelism": 1 / 2,
            "width": 0.4,
            "efficiency": 0.75,
            "rounds": 2.0,
            "calls": 4.0,
            "critical_steps": 2.0,
            "tokens": 700.0,
            "cost": 2.5,
            "time": 1.5,
        }
    )
    assert value(found, "calls.tool") == 2.0
    assert value(found, "calls.child") == 0.0
    assert value(found, "reward.speed") is None


def test_a_fault_of_the_infrastructure_is_no_call_that_was_not_completed() -> None:
    lost = made("tool", "TIMEOUT", "infrastructure")
    assert value(rollout(step(calls=(made(), lost))), "completion") == 1.0
    assert value(rollout(step(calls=(made(), made("tool", None)))), "completion") == 1.0


def test_rewards_from_outside_take_the_place_of_channels_or_add_some() -> None:
    found = rollout(
        step(),
        check=WRONG,
        rewards=(rewarded("accuracy", 0.25), rewarded("speed", 3.0), rewarded("accuracy", 1.0)),
        head="h2",
    )
    known = values(found)
    assert (known["accuracy"], known["reward.accuracy"], known["reward.speed"]) == (1.0, 1.0, 3.0)
    early = msgspec.structs.replace(found, rewards=(rewarded("accuracy", 1.0, head="h1"),))
    assert values(early)["accuracy"] == 0.0, "it was judged before it had ended"


def test_what_was_put_together_at_a_limit_is_no_answer_of_the_policys() -> None:
    found = rollout(step(), check=RIGHT, answer="What was found: 42", answered=False)
    assert value(found, "accuracy") == 0.0


def test_what_there_is_not_is_named() -> None:
    with pytest.raises(Usage, match="no channel 'speed'"):
        score([rollout()], Recipe(terms=(Term(channel="speed"),)))
    with pytest.raises(InvalidData, match=r"run \w+: the task's check is none.*`check.answer`"):
        score([rollout(check={"kind": "number", "answer": "x"})], preset("conductor"))
    with pytest.raises(Usage, match="no preset 'best'"):
        preset("best")
    with pytest.raises(Usage, match="part of a training"):
        score([], preset("parl"), 1.5)


@several
@given(STARTS, HISTORIES)
def test_every_channel_of_any_run_is_in_its_range(start: Any, history: History) -> None:
    found = fold(log_of(sampled_run(start, history)))
    known = values(found)
    bounded = list(CHANNELS)[: list(CHANNELS).index("efficiency") + 1]
    assert all(0.0 <= known[name] <= 1.0 for name in bounded if name in known)
    assert all(math.isfinite(each) and each >= 0 for each in known.values())
    for recipe in PRESETS.values():
        (scored,) = score([found], recipe)
        assert (scored.reward is None) == bool(scored.why)
        assert scored.why == (found.unscorable or "no accuracy")


# ----------------------------------------------------------------------------------------- presets


def test_conductor_is_nothing_half_or_one() -> None:
    conductor = preset("conductor")
    assert reward(rollout(step(), check=RIGHT), conductor) == 1.0
    assert reward(rollout(step(), check=WRONG), conductor) == 0.5
    assert reward(rollout(step(rejected=True), step(2), check=RIGHT), conductor) == 0.0


def test_paramanager_adds_its_four_parts_and_pays_no_one_for_a_wrong_answer() -> None:
    paid = preset("paramanager")
    steps = (step(calls=(made("tool"), made("agent"))), step(2))
    right = rollout(*steps, check=RIGHT, rounds=2, budget=Budget(rounds=8))
    assert reward(right, paid) == pytest.approx(1.0 + 0.1 + 0.1 + 0.1 * 0.75)
    wrong = msgspec.structs.replace(right, task=rollout(check=WRONG).task)
    assert reward(wrong, paid) == pytest.approx(0.1)


def test_toolorchestra_puts_a_batch_into_its_range() -> None:
    """R = M_norm · P if the answer is right: equation 2, by hand."""

    def run(cost: int, seconds: int, tools: int, check: Any = RIGHT) -> Rollout:
        calls = tuple(made() for _ in range(tools))
        spend, time = Spend(cost=cost), 1_000 * seconds
        return rollout(step(calls=calls), check=check, spend=spend, elapsed_ms=time)

    batch = [run(100, 10, 2), run(300, 20, 0), run(200, 40, 4, WRONG)]
    wanted = toolorchestra({"accuracy": 1.0, "cost": 0.5, "time": 0.2, "calls.tool": 0.1})
    found = [each.reward for each in score(batch, wanted)]
    cheap = 1.0 + 0.5 * 1.0 + 0.2 * 1.0 + 0.1 * 0.5
    dear = 1.0 + 0.5 * 0.0 + 0.2 * (20 / 30) + 0.1 * 0.0
    assert found == pytest.approx([cheap, dear, 0.0])
    alike = [each.reward for each in score(batch[:1], wanted)]
    assert alike == [0.0], "a batch whose entries are all alike has no range"
    with pytest.raises(Usage, match="preference cost is 2"):
        toolorchestra({"cost": 2.0})


def test_toolorchestra_leaves_what_is_unscorable_out_of_the_range() -> None:
    def run(cost: int, **more: Any) -> Rollout:
        return rollout(step(), check=RIGHT, spend=Spend(cost=cost), **more)

    lost = run(10_000, unscorable="infrastructure")
    found = score([run(1), lost, run(3)], toolorchestra({"cost": 1.0}))
    assert [each.reward for each in found] == [1.0, None, 0.0]
    assert found[1].why == "infrastructure"


def test_parl_anneals_what_only_shapes() -> None:
    calls = (made("tool"), made("tool"), made("agent", "EXEC_ERR", "worker"))
    found = rollout(step(calls=calls), check=RIGHT, critical_steps=1)
    assert reward(found, parl(), 0.0) == pytest.approx(1.0 + 0.3 * 1.0 + 0.2 * 2 / 3)
    assert reward(found, parl(), 0.5) == pytest.approx(1.0 + 0.15 * 1.0 + 0.1 * 2 / 3)
    assert reward(found, parl()) == pytest.approx(1.0)
    assert reward(found, parl(critical_steps=0)) == 0.0, "beyond the budget of an episode"


def test_puppeteer_charges_each_step_more_than_the_one_before() -> None:
    """R_t = g R_(t+1) - l C_t and C_t = F log(1 + t / phi), by hand."""
    found = rollout(step(), step(2), step(3), check=RIGHT, budget=Budget(rounds=4))
    costs = [math.log(1 + t / 4) for t in (1, 2, 3)]
    assert reward(found, puppeteer()) == pytest.approx(1.0 - 0.1 * sum(costs))
    third = 1.0 - 0.2 * costs[2]
    second = 0.9 * third - 0.2 * costs[1]
    first = 0.9 * second - 0.2 * costs[0]
    how = StepCost(weight=0.2, discount=0.9)
    assert returns(found, 1.0, how) == pytest.approx((first, second, third))
    assert reward(found, puppeteer(weight=0.2, discount=0.9)) == pytest.approx(first)
    assert reward(rollout(check=RIGHT), puppeteer()) == 1.0, "no step, no cost"
    spent = step(spend=Spend(tokens=100), calls=(made(spend=Spend(tokens=50)),))
    (only,) = returns(rollout(spent), 0.0, StepCost(weight=1, factor=0.01, of="tokens", phi=1))
    assert only == pytest.approx(-1.5 * math.log(2))


# ----------------------------------------------------------------------------------------- recipes


def test_terms_are_scaled_bounded_weighted_and_guarded() -> None:
    found = rollout(step(), check=RIGHT, rounds=6, critical_steps=30)

    def one(**more: Any) -> float | None:
        return reward(found, Recipe(terms=(Term(**more),)))

    assert one(channel="rounds", weight=-0.5, per=4.0) == -0.75
    assert one(channel="rounds", per=4.0, high=1.0) == 1.0
    assert one(channel="rounds", per=-1.0, low=-2.0) == -2.0
    assert one(channel="rounds", only_if="parsed") == 6.0
    assert one(channel="rounds", only_if="width") == 0.0
    both = Recipe(terms=(Term(channel="rounds"),), base=1.0, high=3.0, low=-1.0)
    assert reward(found, both) == 3.0
    twice = Recipe(terms=(Term(channel="rounds"), Term(channel="rounds", weight=-1.0)))
    assert score([found], twice)[0].parts == {"rounds": 0.0}


def test_parts_are_what_was_added_and_nothing_where_a_gate_is_closed() -> None:
    def parts(found: Rollout, recipe: Recipe) -> dict[str, float]:
        return score([found], recipe)[0].parts

    conductor = preset("conductor")
    assert parts(rollout(step(), check=RIGHT), conductor) == {"accuracy": 0.5, "base": 0.5}
    unparsed = rollout(step(rejected=True), step(2), check=RIGHT)
    assert parts(unparsed, conductor) == {"accuracy": 0.0, "base": 0.0}
    six = rollout(step(), check=RIGHT, rounds=6)
    bounded = Recipe(terms=(Term(channel="rounds"),), base=1.0, high=3.0, limits={"rounds": 6})
    assert parts(six, bounded) == {"rounds": 6.0, "base": 1.0, "bounds": -4.0}
    beyond = msgspec.structs.replace(six, rounds=7)
    assert parts(beyond, bounded) == {"rounds": 0.0, "base": 0.0, "bounds": 0.0}
    charged = msgspec.structs.replace(bounded, steps=StepCost(weight=1.0, phi=1.0))
    assert parts(beyond, charged)["steps"] == reward(beyond, charged) == -math.log(2)


NUMBERS = st.floats(-4, 4, width=16)
BOUND = st.none() | NUMBERS
CHANNEL = st.sampled_from(["accuracy", "parsed", "rounds", "cost", "width"])
TERMS = st.builds(
    Term,
    channel=CHANNEL,
    weight=NUMBERS,
    final=BOUND,
    per=st.sampled_from([1.0, -1.0, 4.0]),
    batch=st.booleans(),
    low=BOUND,
    high=BOUND,
    only_if=st.just("") | CHANNEL,
)
RECIPES = st.builds(
    Recipe,
    terms=st.lists(TERMS, min_size=1, max_size=4).map(tuple),
    base=NUMBERS,
    only_if=st.lists(CHANNEL, max_size=2).map(tuple),
    limits=st.dictionaries(CHANNEL, st.floats(0, 4), max_size=1),
    low=BOUND,
    high=BOUND,
    steps=st.none() | st.builds(StepCost, weight=NUMBERS, discount=st.floats(0.5, 1)),
)


@given(RECIPES, st.floats(0, 1))
def test_parts_add_up_to_the_reward(recipe: Recipe, progress: float) -> None:
    batch = [
        rollout(step(), check=RIGHT, rounds=1, spend=Spend(cost=2_000_000)),
        rollout(step(calls=(made(),)), step(2), step(3), check=WRONG, rounds=3),
        rollout(step(rejected=True), step(2), check=RIGHT, rounds=2, spend=Spend(cost=500_000)),
    ]
    for each in score(batch, recipe, progress):
        assert each.reward == pytest.approx(math.fsum(each.parts.values()), abs=1e-9), each.why
    names = [each.parts.keys() for each in score(batch, recipe, progress)]
    assert all(each == names[0] for each in names), "curves of parts are means over all"


def test_a_weight_goes_in_a_line_and_stays() -> None:
    term = Term(channel="rounds", weight=1.0, final=0.0, until=0.5)
    assert [term.weight_at(at) for at in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.5, 0.0, 0.0]


def test_what_can_not_be_scored_says_why() -> None:
    assert score([rollout(step())], preset("conductor"))[0].why == "no accuracy"
    silent = rollout(check=RIGHT)
    assert score([silent], preset("conductor"))[0].why == "no parsed"
    assert score([rollout(unscorable="open")], preset("conductor"))[0].why == "open"


def test_recipes_are_plain_data() -> None:
    for recipe in PRESETS.values():
        assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe
    with pytest.raises(msgspec.ValidationError, match="per can't be 0"):
        msgspec.json.decode(b'{"terms":[{"channel":"rounds","per":0}]}', type=Recipe)
    with pytest.raises(msgspec.ValidationError, match="unknown field `wieght`"):
        msgspec.json.decode(b'{"terms":[{"channel":"rounds","wieght":1}]}', type=Recipe)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1))
def test_the_order_of_a_batch_does_not_matter(costs: list[float], progress: float) -> None:
    batch = [
        rollout(step(), check=RIGHT, run=f"r{at}", spend=Spend(cost=int(1e6 * cost)))
        for at, cost in enumerate(costs)
    ]
    for recipe in (toolorchestra(), parl()):
        found = {each.rollout: each.reward for each in score(batch, recipe, progress)}
        turned = {each.rollout: each.reward for each in score(batch[::-1], recipe, progress)}
        assert found == turned
