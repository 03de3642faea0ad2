"""Which runs are kept, in which order, and why the others are not."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Conflict
from trainer.datasets.facts import Facts
from trainer.datasets.plan import KEPT, RECOVERY, Unit, parting, plan
from trainer.datasets.spec import Preference, Rl, Sft, Spec

SFT = Spec(kind="sft")
RL = Spec(kind="rl")
PAIRS = Spec(kind="preference")


def fact(run: str, **more: Any) -> Facts:
    given_: dict[str, Any] = {
        "head": "h",
        "said": "",
        "redact": "",
        "key": "k",
        "began": 1_000,
        "ended": 2_000,
        "versions": ("v1",),
        "reward": 1.0,
        "accuracy": 1.0,
        "finished": True,
        "answered": True,
        "tokens": True,
        "workers": ("a",),
        "rounds": 2,
    }
    return Facts(run=run, **{**given_, **more})


def why(units: Iterable[Unit]) -> dict[str, str]:
    return {each.facts.run: each.why for unit in units for each in unit.verdicts}


def test_one_trajectory_of_a_task_is_kept_the_least_wasteful() -> None:
    units = plan([fact("a", repeats=1), fact("b", rounds=3), fact("c"), fact("d", cost=9)], SFT)
    assert why(units) == {
        "a": "another was kept",
        "b": "another was kept",
        "c": KEPT,
        "d": "another was kept",
    }


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"accuracy": 0.5}, "wrong"),
        ({"accuracy": None}, "not known whether right"),
        ({"stuck": True}, "not recovered"),
        ({"answered": False}, "no answer of the policy's"),
        ({"finished": False}, "no answer of the policy's"),
        ({"unscorable": "infrastructure"}, "unscorable: infrastructure"),
        ({"sayable": False}, "not sayable in the dialect"),
        ({"ended": 0}, "open"),
        ({"out": "label"}, "not selected: label"),
    ],
)
def test_why_a_trajectory_is_not_imitated(more: dict[str, Any], reason: str) -> None:
    assert why(plan([fact("a", **more)], SFT)) == {"a": reason}


def test_what_nobody_checked_can_be_asked_for() -> None:
    spec = Spec(kind="sft", sft=Sft(unchecked=True))
    assert why(plan([fact("a", accuracy=None)], spec)) == {"a": KEPT}


def test_among_equals_the_workers_that_are_rare_are_kept() -> None:
    tasks = [fact(f"t{n}", key=f"k{n}", ended=n, workers=("a",)) for n in range(1, 4)]
    last = [
        fact("x", key="z", ended=9, workers=("a",)),
        fact("y", key="z", ended=9, workers=("b",)),
    ]
    assert why(plan([*tasks, *last], SFT))["y"] == KEPT


def test_a_recovery_waits_until_there_is_room() -> None:
    first = fact("r", key="r", ended=1, recovers=True)
    good = [fact(f"g{n}", key=f"g{n}", ended=10 + n) for n in range(3)]
    assert why(plan([first], SFT)) == {"r": RECOVERY}
    units = list(plan([first, *good], SFT))
    assert [each.verdicts[0].facts.run for each in units] == ["g0", "g1", "g2", "r"]
    assert why(units)["r"] == KEPT


def test_a_recovery_is_preferred_where_there_is_room_for_one() -> None:
    good = [fact(f"g{n}", key=f"g{n}", ended=n + 1) for n in range(3)]
    both = [fact("r", key="z", ended=9, recovers=True), fact("s", key="z", ended=9)]
    assert why(plan([*good, *both], SFT))["r"] == KEPT


facts_of_runs = st.lists(
    st.builds(
        lambda key, began, lasts, recovers, right, worker: {
            "key": f"k{key}",
            "began": 1_000 * began,
            "ended": 1_000 * (began + lasts),
            "recovers": recovers,
            "accuracy": float(right),
            "reward": float(right),
            "workers": (worker,),
        },
        st.integers(0, 4),
        st.integers(1, 9),
        st.integers(1, 3),
        st.booleans(),
        st.booleans(),
        st.sampled_from("abc"),
    ),
    max_size=20,
).map(lambda found: [fact(f"r{n:02}", **each) for n, each in enumerate(found)])


@given(facts_of_runs, st.sampled_from([0.0, 0.3, 1.0]), st.randoms())
def test_a_plan_depends_on_no_order_and_keeps_the_share(
    runs: list[Facts], share: float, random: Any
) -> None:
    spec = Spec(kind="sft", settle_s=2, sft=Sft(recovery=share))
    units = list(plan(runs, spec))
    shuffled = runs.copy()
    random.shuffle(shuffled)
    assert list(plan(shuffled, spec)) == units
    assert sorted(why(units)) == sorted(run.run for run in runs)
    kept = recoveries = 0
    for unit in units:
        assert len(unit.kept) <= 1
        for each in unit.kept:
            kept, recoveries = kept + 1, recoveries + each.recovers
            assert recoveries <= max(share * kept, 0), "also of each beginning of it"


@given(facts_of_runs, st.integers(0, 20))
def test_what_ends_later_comes_later(runs: list[Facts], cut: int) -> None:
    """What is planned from the first runs that ended is the beginning of what all give."""
    spec = Spec(kind="sft", settle_s=0, sft=Sft(recovery=1))
    until = 1_000 * cut
    before = plan([run for run in runs if run.ended <= until], spec)
    after = plan(runs, spec)
    keys = {run.key for run in runs if run.ended > until}
    settled = [unit for unit in before if unit.key not in keys]
    assert [u for u in after if u.key not in keys] == settled or keys


def test_a_unit_is_what_settled_together() -> None:
    """Nothing at work for as long as it says, and the task's next run begins another unit."""
    runs = [
        fact("a", began=0, ended=5_000),
        fact("b", began=9_000, ended=9_500),
        fact("c", began=20_000, ended=21_000),
    ]
    spec = Spec(kind="sft", settle_s=10)
    assert [len(unit.verdicts) for unit in plan(runs, spec)] == [2, 1]
    assert [len(unit.verdicts) for unit in plan(runs, Spec(kind="sft", settle_s=11))] == [3]


def test_a_unit_with_a_run_that_goes_on_waits() -> None:
    units = list(plan([fact("a"), fact("b", ended=0), fact("c", key="z")], SFT))
    assert why(units) == {"a": "open", "b": "open", "c": KEPT}
    assert units[-1].key == "k", "and stands at the end"


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        ([1.0, 0.0], KEPT),
        ([1.0, 1.0], "rewards alike"),
        ([1.0], "group too small"),
    ],
)
def test_groups_of_mixed_outcomes_are_kept(rewards: list[float], reason: str) -> None:
    runs = [fact(f"r{n}", reward=r, accuracy=r) for n, r in enumerate(rewards)]
    assert set(why(plan(runs, RL)).values()) == {reason}


def test_rewards_that_differ_are_not_enough_where_all_are_right() -> None:
    runs = [fact("a", reward=1.0), fact("b", reward=0.8)]
    assert set(why(plan(runs, RL)).values()) == {"outcomes alike"}
    spec = Spec(kind="rl", rl=Rl(mixed=False))
    assert set(why(plan(runs, spec)).values()) == {KEPT}
    spec = Spec(kind="rl", rl=Rl(mixed=False, min_std=0.2))
    assert set(why(plan(runs, spec)).values()) == {"rewards alike"}
    close = [fact("a", reward=1.0), fact("b", reward=0.95)]
    spec = Spec(kind="rl", rl=Rl(mixed=False, advantages="toolorchestra"))
    assert set(why(plan(close, spec)).values()) == {"rewards alike"}, "the scheme drops them"


def test_what_is_unscorable_is_in_no_group() -> None:
    runs = [
        fact("a"),
        fact("b", reward=0.0, accuracy=0.0),
        fact("c", reward=None, unscorable="infrastructure"),
        fact("d", tokens=False),
        fact("e", reward=None),
        fact("f", unfit="drawn at temperature 0"),
    ]
    assert why(plan(runs, RL)) == {
        "a": KEPT,
        "b": KEPT,
        "c": "unscorable: infrastructure",
        "d": "no tokens",
        "e": "no reward",
        "f": "drawn at temperature 0",
    }


def versions(*names: str) -> list[Facts]:
    return [
        fact(f"{name}{n}", key=name, began=place + 1, versions=(name,), reward=n, accuracy=n)
        for place, name in enumerate(names)
        for n in (0.0, 1.0)
    ]


def test_old_weights_are_no_data_for_policy_gradients() -> None:
    runs = versions("v1", "v2", "v3")
    found = why(plan(runs, RL))
    assert {name for name, each in found.items() if each == KEPT} == {"v30.0", "v31.0"}
    assert found["v10.0"] == "stale"
    lagging = why(plan(runs, Spec(kind="rl", rl=Rl(lag=1))))
    assert sum(each == KEPT for each in lagging.values()) == 4
    kept = why(plan(runs, Spec(kind="rl", rl=Rl(stale="keep"))))
    assert set(kept.values()) == {KEPT}
    with pytest.raises(Conflict, match="more than 0 behind 'v3'"):
        plan(runs, Spec(kind="rl", rl=Rl(stale="error")))


def test_versions_count_by_model_as_runs_last_began_with_them() -> None:
    runs = [
        *versions("v1", "v2"),
        fact("none", key="z", began=7, versions=("rules-1",), tokens=False),
        fact("theirs", key="z", began=8, versions=("v9",), model="other"),
    ]
    found = why(plan(runs, RL))
    assert (found["v10.0"], found["v20.0"]) == ("stale", KEPT)
    assert found["theirs"] != "stale"
    back = [fact(f"again{n}", key="v1", began=3, versions=("v1",), reward=n) for n in (0.0, 1.0)]
    found = why(plan([*runs, *back], RL))
    assert (found["v10.0"], found["v20.0"], found["again0.0"]) == (KEPT, "stale", KEPT)
    with pytest.raises(Conflict, match=r"more than 0 behind 'v2': v1;") as caught:
        plan(runs, Spec(kind="rl", rl=Rl(stale="error")))
    assert "--policy-version v2;" in caught.value.hint


def test_two_runs_part_where_they_say_something_else() -> None:
    one = fact("a", asked=("p", "q"), replied=("x", "y"))
    assert parting(one, fact("b", asked=("p", "q"), replied=("x", "z"))) == 1
    assert parting(one, fact("b", asked=("p", "q"), replied=("w", "y"))) == 0
    assert parting(one, fact("b", asked=("o", "q"), replied=("x", "y"))) is None
    assert parting(one, fact("b", asked=("p", "r"), replied=("x", "y"))) is None
    assert parting(one, one) is None


def test_pairs_share_what_they_can_and_no_run_is_in_two() -> None:
    runs = [
        fact("a", reward=1.0, asked=("p", "q"), replied=("x", "good")),
        fact("b", reward=0.0, asked=("p", "q"), replied=("x", "bad")),
        fact("c", reward=0.2, asked=("p",), replied=("other",)),
        fact("d", reward=0.25, asked=("p",), replied=("still other",)),
    ]
    (unit,) = plan(runs, PAIRS)
    assert [(pair.better, pair.worse, pair.parts) for pair in unit.pairs] == [("a", "b", 1)]
    wide = Spec(kind="preference", preference=Preference(margin=0.0))
    (unit,) = plan(runs, wide)
    assert [(pair.better, pair.worse) for pair in unit.pairs] == [("a", "b"), ("d", "c")]
