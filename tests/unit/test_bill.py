"""The bill: all that was paid for, whether or not it counted, and nothing twice."""

from typing import Any

import msgspec

from protocol.actions import NOTHING, Pool, Report, Spend, Usage
from protocol.budgets import Budget
from protocol.decisions import Reply
from replay.bill import POLICY, Item, bill, total
from replay.chain import RunLog
from tests.runs import AGENT, CHILD, TOOL, Driver, answer, begin, plan, planned, play, started
from tests.traces import log_of


def items(*logs: RunLog) -> dict[str, Item]:
    return {item.who: item for item in bill(logs)}


def said(reply: Reply, read: int, written: int) -> Reply:
    spend = Spend(tokens=read + written, cost=1)
    return msgspec.structs.replace(reply, spend=spend, usage=Usage(read, written), latency_ms=100)


def test_the_policy_and_each_worker_have_a_line() -> None:
    driver = Driver(begin())
    driver.reply(said(plan(planned("agent"), planned()), 8, 2))
    driver.report("1-0", spend=Spend(tokens=30, cost=5))
    driver.report("1-1")
    driver.reply(said(answer(), 7, 3))
    found = items(log_of(driver))
    assert list(found) == [POLICY, "tool", "agent"]
    assert found[POLICY] == Item(POLICY, "policy", 2, Spend(tokens=20, cost=2), Usage(15, 5), 200)
    assert found["agent"].spend == Spend(tokens=30, cost=5)
    assert (found["tool"].times, found["tool"].spend) == (1, NOTHING)
    assert total(found.values()).spend == Spend(tokens=50, cost=7)


def test_what_did_not_count_is_paid_for_too() -> None:
    driver = started(planned("agent"))
    driver.lost("1-0", spend=Spend(tokens=10))
    driver.report("1-0", attempt=2, spend=Spend(tokens=20))
    driver.report("1-0", attempt=1, value="late", spend=Spend(tokens=5))
    driver.reply(answer())
    found = items(log_of(driver))
    assert (found["agent"].times, found["agent"].spend.tokens) == (3, 35)


def test_what_nobody_asked_for_is_not() -> None:
    driver = started(planned("agent"))
    driver.report("1-0", attempt=7, spend=Spend(tokens=10))
    driver.report("9-9", attempt=1, spend=Spend(tokens=10))
    assert list(items(log_of(driver))) == [POLICY]


def test_the_bill_of_a_family_has_no_child_twice() -> None:
    """Whatever a child spends stands on its own lines; its call's report is the sum of them."""

    def policy(view: Any) -> Reply:
        if view.turns:
            return said(answer(), 5, 5)
        child = view.task.text.startswith("{")
        return said(plan(planned("agent" if child else "child")), 5, 5)

    def work(driver: Driver, call: str) -> Report:
        return driver.report_of(call, spend=Spend(tokens=40, cost=4))

    pool = Pool((TOOL, AGENT, CHILD))
    budget = Budget(tokens=10_000, cost=1_000, calls=50, depth=2)
    *below, root = (
        log_of(driver) for driver in play(begin(pool=pool, budget=budget), policy, work)
    )
    assert len(below) == 1
    alone, whole = items(root), items(root, *below)
    assert set(alone) == {POLICY, "child"}
    assert set(whole) == {POLICY, "agent"}
    assert total(alone.values()).spend.tokens == total(whole.values()).spend.tokens == 80
    assert total(alone.values()).spend.cost == total(whole.values()).spend.cost
