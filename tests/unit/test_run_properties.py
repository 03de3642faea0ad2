"""What holds for every run, whatever its policy, its workers and its people do."""

import copy
from itertools import pairwise

import msgspec
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from protocol.actions import Call, Pool, Report, Spend, WorkerSpec
from protocol.budgets import Budget
from protocol.commands import Activate, Deadline, Inbox, PolicyReply, Start
from protocol.decisions import Decision, PolicySpec, Reply
from protocol.events import (
    AnyEvent,
    AttemptStarted,
    CallSettled,
    PolicyAsked,
    PolicyReplied,
    ReportNoted,
    RoundClosed,
    RoundPlanned,
    RunStarted,
)
from protocol.references import referred
from protocol.run import RULES, Ask, Make, Wait, decide, due, evolve, fold
from protocol.state import RunState
from protocol.transitions import LEGAL
from protocol.views import child_start, compose, view
from tests.runs import POOL, Driver, answer, begin, plan, planned, play
from tests.strategies import BUDGETS, MOVES, REPLIES, ROOMY, Move, World, arbitrary

HEDGED = Pool(tuple(msgspec.structs.replace(worker, hedge=True) for worker in POOL.workers))

PEOPLE = Pool(
    tuple(
        msgspec.structs.replace(worker, kind="person") if worker.name == "agent" else worker
        for worker in HEDGED.workers
    )
)
"""The same, but the agent is somebody."""

STARTS: st.SearchStrategy[Start] = st.builds(
    lambda budget, reserve, depth, replan_on, pool: begin(
        budget=budget,
        pool=pool,
        policy=PolicySpec(name="script", reserve=reserve, replan_on=replan_on),
        depth=depth,
    ),
    budget=ROOMY | ROOMY | ROOMY | BUDGETS,
    reserve=st.builds(Spend, tokens=st.integers(0, 30), cost=st.integers(0, 10)),
    depth=st.sampled_from([0, 0, 0, 7, 8]),
    replan_on=st.sampled_from(["never", "failure"]),
    pool=st.sampled_from([POOL, HEDGED, PEOPLE]),
)

HISTORIES = st.lists(st.lists(MOVES, min_size=1, max_size=3), min_size=12, max_size=40)
"""Steps, each of several moves."""

History = list[list[Move]]

thorough = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])


def lived(start: Start, history: History) -> World:
    world = World(start)
    world.give(Activate("conductor", RULES))
    for moves in history:
        world.happen(*moves)
    return world


@thorough
@given(STARTS, HISTORIES)
def test_every_event_is_legal_and_keeps_the_rules(start: Start, history: History) -> None:
    world = lived(start, history)
    state = RunState()
    for event in world.events:
        if not isinstance(event, RunStarted):
            _check(state, event)
        assert state.phase in LEGAL[type(event)]
        state = evolve(state, event)
        _check_state(state)
    assert state == world.state


def _check(state: RunState, event: AnyEvent) -> None:
    """What each event promises of the state in which it was decided."""
    assert state.phase != "ended"
    match event:
        case AttemptStarted():
            call = state.calls[event.call]
            assert call.status is None
            spec = state.workers[call.call.worker]
            assert not call.open or (spec.hedge and event.call not in state.hedged)
            assert event.attempt == call.attempt + 1
            if not call.open and not spec.hedge:
                assert event.attempt <= spec.attempts
            assert len(state.open) + len(state.hedged) < state.budget.parallel
            assert all(state.calls[other].status is not None for other in call.call.after)
            _check_arguments(state, call.call)
            if call.call.worker == "child":
                assert state.budget.depth > 0
                assert state.depth < 8
        case CallSettled():
            assert state.calls[event.call].status is None
            assert event.report not in state.calls[event.call].noted
            assert 0 <= event.attempt <= state.calls[event.call].attempt
        case ReportNoted():
            assert event.report not in state.calls[event.call].noted
            assert 1 <= event.attempt <= state.calls[event.call].attempt
        case RoundPlanned():
            assert event.round == state.round + 1 <= state.budget.rounds
        case RoundClosed():
            assert event.round == state.round
            unsettled = [name for name in state.awaited if state.calls[name].status is None]
            assert list(event.left) == unsettled
        case PolicyAsked():
            assert event.turn == state.turn + 1
        case PolicyReplied():
            assert state.asked is not None
            assert event.turn == state.asked.turn


def _check_arguments(state: RunState, call: Call) -> None:
    """The schema of the test pool, checked without a library; what is referred to is there."""
    assert call.worker in {"tool", "agent", "child"}
    named = referred(call.arguments, "output")
    if call.worker != "child":
        assert set(call.arguments) == {"n"}
        assert named or type(call.arguments["n"]) is int
    for name in named:
        assert name in call.sees
        assert state.has_output(name)


def _check_state(state: RunState) -> None:
    """What holds between any two events."""
    budget, committed = state.budget, state.committed
    assert committed.calls <= budget.calls
    assert committed.tokens <= budget.tokens
    assert committed.cost <= budget.cost
    assert state.reserved == sum(state.reserves.values(), Spend())
    assert state.round <= budget.rounds
    assert len(state.open) + len(state.hedged) <= budget.parallel
    if state.phase != "ended":
        assert set(state.open) == {name for name, call in state.calls.items() if call.open}
    for name, attempt in state.open.items():
        first, _ = state.hedged.get(name, (0, 0))
        assert first < attempt <= state.calls[name].attempt
    assert set(state.hedged) <= set(state.open)
    assert state.unsettled == sum(state.calls[name].status is None for name in state.awaited)
    assert all(state.calls[name].status is None for name in state.carried)
    assert {name for name, call in state.calls.items() if call.status is None} <= {*state.awaited}
    assert not state.strays & set(state.open.items())


@thorough
@given(STARTS, HISTORIES)
def test_commands_one_by_one_or_all_at_once(start: Start, history: History) -> None:
    world = lived(start, history)
    for before, commands, draft in world.steps:
        state, events = before, []
        for command in commands:
            one = decide(state, [command], draft.at)
            events += one
            state = fold(state, one)
        assert events == draft.events
        assert state == draft.state
        assert decide(before, commands, draft.at) == draft.events
        heard = [command for command in commands if isinstance(command, Inbox)]
        assert decide(draft.state, heard, draft.at) == []  # what is heard twice counts once


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(STARTS, HISTORIES)
def test_a_state_is_never_changed(start: Start, history: History) -> None:
    world = lived(start, history)
    for before, commands, draft in world.steps:
        kept = copy.deepcopy(before)
        decide(before, commands, draft.at)
        fold(before, draft.events)
        due(before)
        assert before == kept


@thorough
@given(STARTS, HISTORIES, HISTORIES)
def test_an_ended_run_never_moves_again(start: Start, history: History, more: History) -> None:
    world = lived(start, history)
    while world.state.phase != "ended":
        world.signal("cancel")
    ended = world.state
    for moves in more:
        assert world.happen(*moves) == []
    world.give(start, Activate("another", RULES), Deadline(), PolicyReply(ended.turn, answer()))
    assert world.state == ended
    assert not any(isinstance(effect, Ask | Make | Wait) for effect in due(ended))


@thorough
@given(STARTS, HISTORIES, st.lists(REPLIES, max_size=6))
def test_time_alone_ends_or_pauses_a_run(
    start: Start,
    history: History,
    replies: list[Reply],
) -> None:
    """No worker reports any more, the policy says what it likes, or nothing."""
    world = lived(start, history)
    replies = list(replies)
    for _ in range(200):
        state = world.state
        if state.phase == "ended":
            assert state.outcome
            return
        if state.phase == "paused":
            assert state.pause_reason
            return
        effects = due(state)
        assert due(state) == effects
        waits = [effect.until for effect in effects if isinstance(effect, Wait)]
        asks = [effect for effect in effects if isinstance(effect, Ask)]
        if asks and asks[0].asker == "composer":
            world.reply(compose(view(state, world.values, asks[0].limited_by)))
        elif asks and replies:
            world.reply(replies.pop())
        else:
            (until,) = waits
            world.at = max(world.at, until)
            world.deadline()
    raise AssertionError(f"no end: {world.state}")


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(arbitrary(AnyEvent), max_size=25))
@example([PolicyReplied(turn=0, decision=Decision(last_answers=True)), RoundPlanned(round=1)])
def test_any_events_in_any_order_can_be_folded(events: list[AnyEvent]) -> None:
    state = RunState()
    one_by_one = RunState()
    for event in events:
        one_by_one = evolve(one_by_one, event)
    assert fold(state, events) == one_by_one
    assert state == RunState()
    due(one_by_one)


@thorough
@given(STARTS, HISTORIES)
def test_a_childs_budget_is_carved_from_its_parents(start: Start, history: History) -> None:
    world = lived(start, history)
    for before, _, draft in world.steps:
        state = before
        for event in draft.events:
            state = evolve(state, event)
            if not isinstance(event, AttemptStarted):
                continue
            if state.calls[event.call].call.worker != "child":
                continue
            child = child_start(state, event.call, {})
            assert child.budget.tokens <= event.reserve.tokens
            assert child.budget.cost <= event.reserve.cost
            assert child.budget.calls <= event.reserve.calls
            assert child.budget.depth == state.budget.depth - 1
            assert child.budget.wall_ms <= max(0, state.wall_deadline - draft.at)
            assert child.depth == state.depth + 1


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(
    ROOMY | BUDGETS, st.lists(st.sampled_from(["tool", "agent", "child"]), min_size=1, max_size=4)
)
def test_a_tree_of_runs_stays_within_the_roots_budget(budget: Budget, wanted: list[str]) -> None:
    """A greedy policy, in every run: the same calls again until it has to answer."""
    budget = msgspec.structs.replace(budget, on_limit="answer", depth=min(budget.depth, 2))

    def policy(shown: object) -> Reply:
        if getattr(shown, "final", True):
            return answer(spend=Spend(tokens=5, cost=1))
        return plan(*[planned(name) for name in wanted], spend=Spend(tokens=5, cost=1))

    def work(driver: Driver, call: str) -> Report | None:
        spec = driver.state.workers[driver.state.calls[call].call.worker]
        silent = len(driver.events) % 5 == 0
        return None if silent else driver.report_of(call, spend=spec.reserve)

    family = play(begin(budget=budget), policy, work)
    root = family[-1].state
    assert root.phase == "ended"
    attempts = sum(isinstance(e, AttemptStarted) for run in family for e in run.events)
    assert attempts <= budget.calls
    replied = [e.spend for run in family for e in run.events if isinstance(e, PolicyReplied)]
    worked = [
        e.spend
        for run in family
        for e in run.events
        if isinstance(e, CallSettled | ReportNoted)
        and run.state.calls[e.call].call.worker != "child"
    ]
    total = sum([*replied, *worked], Spend())
    assert total.tokens <= budget.tokens
    assert total.cost <= budget.cost
    assert all(run.state.depth <= budget.depth for run in family)


@given(st.integers(2, 30))
def test_the_cost_of_a_step_does_not_grow_with_the_rounds(rounds: int) -> None:
    """Events of a round are the same however many came before: deltas only."""
    driver = Driver(begin(budget=Budget(rounds=100, calls=1_000)))
    sizes = []
    for number in range(1, rounds + 1):
        before = len(driver.events)
        driver.reply(plan(planned(), planned()))
        driver.report(f"{number}-0")
        driver.report(f"{number}-1")
        sizes.append(sum(len(msgspec.json.encode(e)) for e in driver.events[before:]))
    assert all(abs(b - a) <= 10 for a, b in pairwise(sizes))


def test_the_pool_of_these_tests_is_what_they_take_it_for() -> None:
    assert [worker.name for worker in POOL.workers] == ["tool", "agent", "child"]
    assert isinstance(POOL, Pool)
    assert POOL.get("child") == WorkerSpec(name="child", kind="conductor", attempts=1)
