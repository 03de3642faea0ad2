"""What versions do for those who use them: figures of runs, by who made their replies."""

from typing import Any

import msgspec
import pytest

from protocol.decisions import PolicySpec
from protocol.inbox import Label, Reward
from protocol.sampled import Sampled
from replay.chain import InboxEntry, RunLog
from tests.logs import log_of
from tests.runs import RUN, Driver, answer, begin, plan, planned
from trainer.live import Use, figures, runs_of, use

MODEL = PolicySpec(name="local:m", options={"folder": "/models/m"})


def run(*versions: str, said: tuple[Any, ...] = ()) -> RunLog:
    """A run whose first reply makes a call, and whose second is its answer."""
    driver = Driver(begin(policy=MODEL))
    replies = [plan(planned()), answer()]
    for version, reply in zip(versions, replies, strict=True):
        driver.reply(msgspec.structs.replace(reply, sampled=Sampled(version=version)))
        if reply.decision is not None and reply.decision.calls:
            driver.report("1-0")
    log = log_of(driver)
    log.inbox += [InboxEntry(100 + place, str(place), each) for place, each in enumerate(said)]
    return log


def label(value: Any, key: str = "right") -> Label:
    return Label(run=RUN, key=key, value=value, by="ada")


def reward(value: float, channel: str = "accuracy") -> Reward:
    return Reward(run=RUN, channel=channel, value=value, by="a check")


def found(*versions: str, said: tuple[Any, ...] = ()) -> Use:
    used = use(run(*versions, said=said))
    assert used is not None
    return used


def test_a_run_is_of_the_version_that_made_its_replies() -> None:
    one = found("000001", "000001")
    assert (one.versions, one.ended, one.answered, one.rounds) == (("000001",), True, True, 1)
    assert one.folder == "/models/m"
    mixed = found("000001", "000002")
    assert runs_of([one, mixed]) == {"000001": 2, "000002": 1}
    assert figures([one, mixed], "000002").figures == (), "a run of two says nothing of either"


def test_a_run_of_a_policy_without_tokens_is_none() -> None:
    driver = Driver(begin())
    driver.reply(answer())
    assert use(log_of(driver)) is None


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ((), None),
        ((label(True),), True),
        ((label(True), label(False)), False),
        ((reward(1.0), label(False)), False),
        ((label(True), reward(0.0)), True),
        ((reward(0.0), reward(0.5)), True),
        ((reward(0.2),), False),
        ((reward(1.0, "format"), label(True, "nice"), label("yes")), None),
    ],
)
def test_a_person_s_word_goes_before_a_reward(said: tuple[Any, ...], right: bool | None) -> None:
    assert found("1", "1", said=said).right is right


def test_figures_are_of_the_runs_that_ended_and_were_judged() -> None:
    uses = [
        msgspec.structs.replace(found("1", "1"), right=right, cost=cost, ended=ended)
        for right, cost, ended in (
            (True, 10, True),
            (False, 30, True),
            (None, 20, True),
            (True, 99, False),
        )
    ]
    made = figures(uses, "1")
    assert made.set == "live"
    accuracy, cost = made.get("accuracy"), made.get("cost")
    assert accuracy is not None
    assert cost is not None
    assert (accuracy.value, accuracy.n) == (0.5, 2)
    assert (cost.value, cost.n) == (20.0, 3)
    assert figures(uses[:1], "1").get("cost") is None, "one run has no interval"
    assert figures([], "1").figures == ()
