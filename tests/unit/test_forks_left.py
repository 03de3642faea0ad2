"""Forks of runs whose calls went on when their round was over, or came late."""

from actors.attempts import call_message
from protocol.codec import decode_call
from protocol.decisions import PolicySpec
from protocol.run import Make, due
from protocol.views import view
from replay.forks import again_from, failure
from tests.logs import log_of
from tests.runs import Driver, answer, plan, planned, started
from tests.unit.test_forks import edited, forked

EAGER = PolicySpec(name="script", replan_on="failure")


def left_behind() -> Driver:
    """A run whose first round was closed while its second call went on, which fails in the next."""
    driver = started(planned(n=1), planned(n=2), policy=EAGER)
    driver.report("1-0", status="EXEC_ERR", fault="worker")
    driver.reply(plan(planned(n=1), planned(n=3)))
    driver.report("2-0")
    driver.report("1-1", status="EXEC_ERR", fault="worker")
    return driver


def test_a_call_that_was_left_and_failed_is_made_again() -> None:
    driver = left_behind()
    driver.reply(answer())
    found = failure(log_of(driver))
    assert found is not None
    assert found.reopened == ("1-1",)
    fork = forked(log_of(driver), found.at, reopened=found.reopened)
    assert [e for e in due(fork.state) if isinstance(e, Make)] == [Make("2-1", 1), Make("1-1", 2)]
    assert fork.state.carried == ("1-1",)
    fork.report("1-1", value="at last")
    fork.report("2-1")
    shown = view(fork.state, fork.values).turns
    assert [(seen.call.id, seen.status) for seen in shown[-1].late] == [("1-1", "OK")]


def test_what_saw_a_call_of_an_earlier_round_is_made_again_with_it() -> None:
    driver = started(planned(n=1), planned(n=2), policy=EAGER)
    driver.report("1-0", status="EXEC_ERR", fault="worker")
    driver.reply(plan(planned(n=3, earlier=("1-1",))))
    driver.report("1-1")
    driver.report("2-0")
    found = again_from(log_of(driver), "1-1")
    assert found.reopened == ("1-1", "2-0")
    fork = forked(log_of(driver), found.at, reopened=found.reopened)
    assert [e for e in due(fork.state) if isinstance(e, Make)] == [Make("1-1", 2)]


def test_a_call_that_was_left_and_that_nobody_asked_about_is_no_failure() -> None:
    driver = started(planned(n=1), planned(n=2))
    driver.report("1-0")
    driver.signal("replan", "1-1")
    driver.report("1-1", status="EXEC_ERR", fault="worker")
    driver.reply(answer())
    assert driver.state.outcome == "finished"
    assert failure(log_of(driver)) is None


def test_an_edit_of_an_observation_counts_more_than_what_came_late() -> None:
    driver = started(planned())
    driver.wait()
    driver.report("1-0", attempt=1, value="at last")
    state = edited(driver.state, "calls.1-0.value", "edited")
    driver.state = edited(state, "calls.1-0.status", "OK")
    driver.reply(plan(planned("agent", earlier=("1-0",))))
    message = decode_call(call_message(driver.state, driver.values, "2-0", 1))
    assert message.sees == {"1-0": "edited"}
    driver.report("2-0")
    (first, second) = view(driver.state, driver.values).turns
    assert [seen.value for seen in (*first.observations, *second.late)] == ["edited", "edited"]
