"""What versions do for those who use them: figures of runs, by who made their replies."""

from typing import Any

import msgspec
import pytest

from protocol.actions import Spend
from protocol.decisions import PolicySpec
from protocol.inbox import Reward
from protocol.sampled import Arrays, Sampled
from replay.chain import InboxEntry, RunLog
from tests.logs import log_of
from tests.runs import RUN, Driver, answer, begin, plan, planned
from trainer.fold import fold
from trainer.versions.live import Use, figures, runs_of, use

MODEL = PolicySpec(name="local:m", options={"folder": "/models/m"})
CHECK = {"kind": "exact", "answer": "42"}


def run(*versions: str, said: tuple[Reward, ...] = (), check: Any = None) -> RunLog:
    """A run whose first reply makes a call, and whose second is its answer."""
    start = begin(policy=MODEL)
    start = msgspec.structs.replace(start, task=msgspec.structs.replace(start.task, check=check))
    driver = Driver(start)
    for version, reply in zip(versions, [plan(planned()), answer()], strict=True):
        made = Sampled(version=version, arrays=Arrays())
        driver.reply(msgspec.structs.replace(reply, sampled=made))
        if reply.decision is not None and reply.decision.calls:
            driver.report("1-0")
    log = log_of(driver)
    log.inbox += [InboxEntry(100 + place, str(place), each) for place, each in enumerate(said)]
    return log


def reward(value: float, channel: str = "accuracy") -> Reward:
    return Reward(run=RUN, channel=channel, value=value, by="ada")


def found(*versions: str, **more: Any) -> Use:
    used = use(fold(run(*versions, **more)))
    assert used is not None
    return used


def test_a_run_is_of_the_version_that_made_its_replies() -> None:
    one = found("000001", "000001")
    assert (one.versions, one.rollout.answered, one.right) == (("000001",), True, None)
    mixed = found("000001", "000002")
    assert runs_of([one, mixed]) == {"000001": 2, "000002": 1}
    assert figures([one, mixed], "000002").figures == (), "a run of two says nothing of either"


def test_a_run_of_a_policy_without_tokens_is_none() -> None:
    driver = Driver(begin())
    driver.reply(answer())
    assert use(fold(log_of(driver))) is None


@pytest.mark.parametrize(
    ("more", "right"),
    [
        ({}, None),
        ({"check": CHECK}, True),
        ({"check": {**CHECK, "answer": "43"}}, False),
        ({"check": CHECK, "said": (reward(0.0),)}, False),
        ({"said": (reward(0.0), reward(0.5))}, True),
        ({"said": (reward(1.0, "format"),)}, None),
        ({"check": {"kind": "oracle"}}, None),
    ],
)
def test_what_somebody_says_goes_before_the_check(more: Any, right: bool | None) -> None:
    assert found("1", "1", **more).right is right


def test_figures_are_of_the_runs_that_can_be_scored_and_of_those_that_were_judged() -> None:
    uses = []
    for right, cost, unscorable in (
        (True, 10, ""),
        (False, 30, ""),
        (None, 20, ""),
        (True, 99, "infrastructure"),
    ):
        each = found("1", "1")
        rollout = msgspec.structs.replace(
            each.rollout, spend=Spend(cost=cost), unscorable=unscorable
        )
        uses.append(msgspec.structs.replace(each, rollout=rollout, right=right))
    made = figures(uses, "1")
    assert made.set == "live"
    accuracy, cost_of = made.get("accuracy"), made.get("cost")
    assert accuracy is not None
    assert cost_of is not None
    assert (accuracy.value, accuracy.n) == (0.5, 2)
    assert (cost_of.value, cost_of.n) == (20.0, 3)
    assert figures(uses[:1], "1").get("cost") is None, "one run has no interval"
    assert figures([], "1").figures == ()
