"""Who led to what: within a run, and over parents and children."""

from typing import Any

from hypothesis import given, settings

from protocol.actions import Report
from protocol.codec import digest, encode
from protocol.decisions import Reply
from protocol.events import RunStarted, SignalReceived
from protocol.inbox import Signal
from protocol.run import Tell, due
from protocol.subjects import child_id
from protocol.views import child_report, child_start
from replay.causality import Graph, Node, walk
from replay.chain import RunLog
from tests.logs import log_of
from tests.runs import (
    RUN,
    Driver,
    answer,
    begin,
    failure,
    inbox,
    plan,
    planned,
    play,
    started,
)
from tests.unit.test_forks import forked, joined
from tests.unit.test_run_properties import HISTORIES, STARTS, History, lived, thorough

often = settings(thorough, max_examples=40)


@often
@given(STARTS, HISTORIES)
def test_every_event_comes_of_something_before_it(start: Any, history: History) -> None:
    graph = Graph(log_of(lived(start, history)))
    for row, causes in zip(graph.timeline.rows, graph.causes, strict=True):
        assert all(1 <= each < row.number for each in causes), "no circles"
        if not isinstance(row.entry.event, RunStarted | SignalReceived):
            assert causes, row
        for each in causes:
            assert row.number in graph.effects[each - 1]
    assert sum(map(len, graph.causes)) == sum(map(len, graph.effects))


@often
@given(STARTS, HISTORIES)
def test_what_a_cause_led_to_goes_back_to_its_first_event(start: Any, history: History) -> None:
    graph = Graph(log_of(lived(start, history)))
    for row in graph.timeline.rows:
        if row.opener == row.number or row.cause == "deadline":
            continue  # of what time did, several things stand side by side
        before = {row.number}
        while before and row.opener not in before:
            before = {each for number in before for each in graph.causes[number - 1]}
        assert before, f"{row.kind} {row.number} does not go back to {row.opener}"


def number(graph: Graph, kind: str, nth: int = 0) -> int:
    """The number of the nth event of a type."""
    return [row.number for row in graph.timeline.rows if row.kind == kind][nth]


def kinds(graph: Graph, numbers: tuple[int, ...]) -> list[str]:
    """The types of events, and which call they are about."""
    rows = [graph.row(each) for each in numbers]
    return [f"{row.kind} {row.call}".strip() for row in rows]


def led_to(graph: Graph, kind: str, nth: int = 0) -> list[str]:
    """What the nth event of a type came of."""
    return kinds(graph, graph.causes[number(graph, kind, nth) - 1])


def test_a_round() -> None:
    driver = started(planned(n=1), planned(n=2, after=(0,)))
    driver.lost("1-0")
    driver.report("1-0")
    driver.report("1-1")
    driver.reply(answer())
    graph = Graph(log_of(driver))
    assert led_to(graph, "PolicyAsked") == ["RunActivated"]
    assert led_to(graph, "PolicyReplied") == ["PolicyAsked"]
    assert led_to(graph, "RoundPlanned") == ["PolicyReplied"]
    assert led_to(graph, "AttemptStarted", 0) == ["RoundPlanned"]
    assert led_to(graph, "ReportNoted") == ["AttemptStarted 1-0"]
    assert led_to(graph, "AttemptStarted", 1) == ["ReportNoted 1-0"]
    assert led_to(graph, "CallSettled", 0) == ["AttemptStarted 1-0"]
    assert led_to(graph, "AttemptStarted", 2) == ["RoundPlanned", "CallSettled 1-0"]
    assert led_to(graph, "RoundClosed") == ["CallSettled 1-0", "CallSettled 1-1"]
    assert led_to(graph, "PolicyAsked", 1) == ["RoundClosed"]
    assert led_to(graph, "AnswerGiven") == ["PolicyReplied"]
    assert led_to(graph, "RunFinished") == ["AnswerGiven"]


def test_what_people_and_time_do() -> None:
    driver = started(planned(n=1), planned(n=2))
    driver.signal("pause")
    driver.report("1-0")
    driver.signal("resume")
    driver.wait()
    graph = Graph(log_of(driver))
    assert led_to(graph, "SignalReceived") == []
    assert led_to(graph, "RunPaused") == ["SignalReceived"]
    assert led_to(graph, "RunResumed") == ["RunPaused", "SignalReceived"]
    assert led_to(graph, "CallSettled", 1) == ["AttemptStarted 1-1"], "it ran out of time"


def test_a_policy_that_can_not_be_asked() -> None:
    driver = Driver(begin())
    driver.reply(failure())
    driver.wait()
    driver.reply(Reply(text="I can't decide."))
    graph = Graph(log_of(driver))
    assert led_to(graph, "PolicyAsked", 1) == ["PolicyReplied"]
    assert led_to(graph, "DecisionRejected") == ["PolicyReplied"]
    assert led_to(graph, "PolicyAsked", 2) == ["DecisionRejected"]
    driver.activate()
    graph = Graph(log_of(driver))
    assert led_to(graph, "RunActivated", 1) == ["RunActivated"]
    assert led_to(graph, "PolicyAsked", 3) == ["RunActivated"]


def test_a_fork_comes_of_the_event_that_it_shares_last() -> None:
    driver = started(planned(n=1))
    driver.report("1-0", status="EXEC_ERR", fault="worker")
    log = log_of(driver)
    at = next(n for n, e in enumerate(driver.events, 1) if type(e).__name__ == "CallSettled")
    fork = forked(log, at, reopened=("1-0",))
    graph = Graph(joined(fork, log))
    assert led_to(graph, "RunForked") == ["CallSettled 1-0"]
    assert led_to(graph, "AttemptStarted", 1) == ["RunForked"]
    assert led_to(graph, "RunActivated", 1) == ["RunForked"]


# -------------------------------------------------------------------------------- parents, children


def tree_of_runs() -> dict[str, Graph]:
    """A parent that has a child do something, and answers."""
    asked: dict[str, int] = {}

    def policy(view: Any) -> Reply:
        asked[view.run] = asked.get(view.run, 0) + 1
        if asked[view.run] > 1:
            return answer()
        return plan(planned("child" if view.run == RUN else "tool"))

    def work(driver: Driver, call: str) -> Report:
        return driver.report_of(call)

    family = play(begin(), policy, work)
    return {driver.state.run: Graph(log_of(driver)) for driver in family}


def test_parents_and_children_are_one() -> None:
    graphs = tree_of_runs()
    child = child_id(RUN, "1-0", 1)
    assert set(graphs) == {RUN, child}
    above, below = graphs[RUN], graphs[child]
    end = Node(RUN, number(above, "RunFinished"))
    back = {each.node: each for each in walk(end, "causes", graphs, 1_000).found}
    on = {each.node: each for each in walk(Node(RUN, 1), "effects", graphs, 1_000).found}
    for graph in (above, below):
        for row in graph.timeline.rows:
            assert Node(graph.run, row.number) in on, row
    settled = Node(RUN, number(above, "CallSettled"))
    finished = Node(child, number(below, "RunFinished"))
    begun = Node(RUN, number(above, "AttemptStarted"))
    assert finished in back[settled].near
    assert back[Node(child, 1)].near == (begun,)
    assert settled in on[finished].near
    assert Node(child, 1) in on[begun].near
    for node, each in back.items():
        for cause in each.near:
            assert node in on[cause].near, "each way is the inverse of the other"


def test_what_is_not_known_is_asked_for() -> None:
    graphs = tree_of_runs()
    child = child_id(RUN, "1-0", 1)
    above = graphs[RUN]
    end = Node(RUN, len(above.causes))
    alone = walk(end, "causes", {RUN: above}, 1_000)
    assert alone.wanted == {child}
    lost = walk(end, "causes", {RUN: above, child: None}, 1_000)
    assert lost.wanted == frozenset()
    assert {each.node.run for each in lost.found} == {RUN}
    some = walk(end, "causes", graphs, 3)
    assert len(some.found) == 3
    assert some.more >= 1
    assert [each.steps for each in some.found] == [0, 1, 2]


def test_a_child_that_nobody_waits_for_is_cancelled_by_what_gave_it_up() -> None:
    parent = started(planned("child"))
    below = Driver(child_start(parent.state, "1-0", {}))
    parent.signal("answer")
    wish = Signal(id="1", run=below.state.run, kind="cancel", by=f"run:{RUN}")
    below.give(inbox(wish))
    graphs = {RUN: Graph(log_of(parent)), below.state.run: Graph(log_of(below))}
    received = Node(below.state.run, number(graphs[below.state.run], "SignalReceived"))
    (_, cause, *_) = walk(received, "causes", graphs, 10).found
    assert cause.node == Node(RUN, number(graphs[RUN], "CallSettled"))
    on = walk(cause.node, "effects", graphs, 10).found
    assert received in on[0].near
    assert due(below.state) == [Tell()]
    late = child_report(below.state)
    parent.give(inbox(late))
    graphs[RUN] = Graph(log_of(parent))
    noted = Node(RUN, number(graphs[RUN], "ReportNoted"))
    assert (
        Node(below.state.run, number(graphs[below.state.run], "RunCancelled"))
        in walk(noted, "causes", graphs, 10).found[0].near
    )


def test_a_message_that_is_not_in_the_log_leads_nowhere() -> None:
    driver = started(planned("child"))
    report = driver.report_of("1-0")
    driver.give(inbox(report))
    log = log_of(driver)
    bare = RunLog(log.run, commits=log.commits, head=log.head)
    assert digest(encode(report)) not in Graph(bare).timeline.messages
    assert Graph(bare).links == {}
