"""A run below another: it comes nearer to an end with each call, and sees what its call sees."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from actors.ports import Attempt, Outcome
from podium.client import Client
from podium.shown import event_json
from podium.words import told
from protocol.actions import Json, Pool, Spend, WorkerSpec
from protocol.budgets import Budget
from protocol.commands import Activate, Start
from protocol.decisions import Decision, Output, PlannedCall, PolicySpec, Task, View
from protocol.dialects.shared import SEEN_CHARS, task
from protocol.limits import MAX_SEEN_BYTES, MAX_TASK_BYTES
from protocol.redaction import Redactor
from protocol.run import RULES
from protocol.subjects import child_id
from protocol.views import child_start
from replay.differences import HIDDEN, tree
from replay.family import children_of
from replay.history import reports
from replay.timeline import timeline
from tests.runs import CHILD, TOOL, Driver, begin, plan, planned, settled
from tests.world import World, calls

POOL = Pool((WorkerSpec(name="self", kind="conductor", attempts=1),))
TASK = "What is asked?"


def called(arguments: dict[str, Json], rules: str = RULES) -> Driver:
    driver = Driver()
    driver.give(begin(pool=POOL, task=TASK), Activate("conductor", rules))
    driver.reply(plan(PlannedCall("self", arguments)))
    return driver


@pytest.mark.parametrize("inputs", [{}, {"inputs": {}}])
def test_a_run_of_the_very_same_task_is_refused_with_the_reason(inputs: dict[str, Json]) -> None:
    driver = called({"task": TASK, **inputs})
    assert settled(driver, "1-0") == ("PARSE_ERR", "policy")
    assert driver.state.calls["1-0"].value == (
        "self would start a run of this very task, which would do so again. Give it a part of the "
        "task, or inputs that say what is known by now, or let it see that."
    )


@pytest.mark.parametrize(
    "arguments",
    [{"task": "A part of it?"}, {"task": TASK, "inputs": {"known": 1}}],
    ids=["a part", "more known"],
)
def test_one_that_comes_nearer_is_begun(arguments: dict[str, Json]) -> None:
    assert set(called(arguments).state.open) == {"1-0"}


def seeing(rules: str = RULES) -> Driver:
    """A run that calls itself with its own task, and lets it see what was found."""
    driver = Driver()
    pool = Pool((*POOL.workers, TOOL))
    driver.give(begin(pool=pool, task=TASK), Activate("conductor", rules))
    driver.reply(plan(planned(), PlannedCall("self", {"task": TASK}, sees=(0,))))
    driver.report("1-0")
    return driver


def test_one_that_sees_what_was_found_knows_more() -> None:
    assert set(seeing().state.open) == {"1-1"}


def test_runs_of_older_rules_are_decided_as_they_were() -> None:
    assert set(called({"task": TASK}, "1").state.open) == {"1-0"}
    assert settled(seeing("2"), "1-1") == ("PARSE_ERR", "policy")


@pytest.mark.parametrize(
    ("rules", "carved"),
    [(RULES, Spend(tokens=300, cost=50, calls=31)), ("2", Spend(tokens=300))],
)
def test_what_its_reserve_does_not_say_is_a_share_of_what_is_left(
    rules: str, carved: Spend
) -> None:
    """One with tokens alone could make no call."""
    spec = msgspec.structs.replace(CHILD, reserve=Spend(tokens=300))
    budget = Budget(calls=64, tokens=1_000, cost=100)
    start = begin(pool=Pool((spec,)), budget=budget, policy=PolicySpec(name="script"))
    driver = Driver()
    driver.give(start, Activate("conductor", rules))
    driver.reply(plan(PlannedCall("child", {"task": "A part of it?"})))
    given = child_start(driver.state, "1-0", {}).budget
    assert Spend(tokens=given.tokens, cost=given.cost, calls=given.calls) == carved


# --------------------------------------------------------------------------- what its call sees

SEES = PlannedCall("child", {"task": "Which of them?"}, sees=(0, 1))


def below(*values: Json, calls: int = 2) -> Start:
    """The run that a call begins which sees so many calls, each of which has given a value."""
    driver = Driver(begin(pool=Pool((TOOL, CHILD))))
    sees = msgspec.structs.replace(SEES, sees=tuple(range(calls)))
    driver.reply(plan(*(planned(n=index) for index in range(calls)), sees))
    for index, value in enumerate(values):
        driver.report(f"1-{index}", value=value)
    return child_start(driver.state, f"1-{calls}", driver.values)


def test_a_run_below_another_is_given_what_its_call_sees() -> None:
    driver = Driver(begin(pool=Pool((TOOL, CHILD))))
    driver.reply(plan(planned(), planned(n=2), SEES))
    driver.report("1-0", value={"found": 1})
    driver.report("1-1", status="EXEC_ERR", fault="worker", value="broken")
    start = child_start(driver.state, "1-2", driver.values)
    assert start.task.sees == (
        Output("1-0", "tool", {"found": 1}),
        Output("1-1", "tool", "broken", "EXEC_ERR"),
    )
    shown = task(View(run=start.run, task=start.task, pool=start.pool))["content"]
    assert shown == (
        "Which of them?\n\n"
        "Results that are known already, of calls made before this task was given:\n\n"
        '<output of="tool">\n{"found":1}\n</output>\n\n'
        '<output of="tool" status="EXEC_ERR">\nbroken\n</output>'
    )


def test_one_whose_call_sees_nothing_is_given_its_task_alone() -> None:
    driver = Driver(begin(pool=Pool((TOOL, CHILD))))
    driver.reply(plan(PlannedCall("child", {"task": "Which of them?"})))
    start = child_start(driver.state, "1-0", driver.values)
    assert start.task == Task(text="Which of them?")
    assert b"sees" not in msgspec.json.encode(start.task), "other runs are recorded as ever"


@pytest.mark.parametrize("value", ["x" * MAX_SEEN_BYTES, "\x01" * MAX_SEEN_BYTES, [0] * 40_000])
def test_what_is_long_is_cut_for_the_task_to_fit(value: Json) -> None:
    first, second = below(value, "short").task.sees
    assert second == Output("1-1", "tool", "short")
    assert first.value.endswith("…")
    assert len(msgspec.json.encode(below(value, "short").task)) <= MAX_TASK_BYTES
    assert len(msgspec.json.encode((first, second))) <= MAX_SEEN_BYTES


def test_of_very_many_the_last_are_shown() -> None:
    many = tuple(f"1-{index}" for index in range(60))
    driver = Driver(begin(pool=Pool((TOOL, CHILD))))
    driver.reply(plan(*(planned(n=index) for index in range(60))))
    for name in many:
        driver.report(name, value="\x01" * 400)
    driver.reply(plan(PlannedCall("child", {"task": "Which?"}, earlier=many * 2)))
    seen = [each.call for each in child_start(driver.state, "2-0", driver.values).task.sees]
    assert seen == list(many[-len(seen) :])
    assert seen


def test_a_prompt_shows_as_much_of_them_as_an_agents_does() -> None:
    shown = Task(text="?", sees=tuple(Output("1-0", "tool", "x" * SEEN_CHARS) for _ in "ab"))
    text = task(View(run="r", task=shown, pool=Pool(())))["content"]
    assert text.count("x") == SEEN_CHARS


def test_a_secret_in_what_it_sees_is_hidden() -> None:
    key = "sk-proj-" + "a1B2" * 12
    hidden = Redactor().task(Task(text="?", sees=(Output("1-0", "tool", {"key": key}),)))
    assert key not in msgspec.json.encode(hidden).decode()
    assert hidden.sees[0].worker == "tool"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.close()


async def test_what_it_sees_is_recorded_and_shown_to_its_policy(world: World) -> None:
    async def search(_: Attempt) -> Outcome:
        return Outcome(value="the ship")

    def decide(view: View) -> Decision:
        if view.task.sees:
            return Decision(answer=f"of {view.task.sees[0].value}")
        if view.turns:
            return Decision(answer=str(view.turns[0].observations[1].value["answer"]))
        find = PlannedCall("search", {})
        return Decision(calls=(find, PlannedCall("child", {"task": "Whose?"}, sees=(0,))))

    world.policy(decide)
    world.pool = Pool((CHILD,))
    await world.worker(WorkerSpec(name="search"), search)
    await world.conductor()
    log = await world.ended(await world.submit(world.start()))
    assert log.state().answer == "of the ship"
    child = await world.log.read(child_id(log.run, "1-1", 1))
    assert child.state().task.sees == (Output("1-0", "search", "the ship"),)
    lines = timeline(child)
    assert told(lines.rows[0], lines, content=False) == (
        f"run {child.run} begins: Whose?; it sees 1-0 of run {log.run}"
    )
    assert event_json(lines.rows[0], lines, content=False)["task"]["sees"][0]["value"] == HIDDEN
    assert event_json(lines.rows[0], lines, content=True)["task"]["sees"][0]["value"] == "the ship"
    folded = tree(child.state(), reports(child), content=False)
    assert folded["task"]["sees"][0] == {
        "call": "1-0",
        "worker": "search",
        "value": HIDDEN,
        "status": "OK",
    }


# ------------------------------------------------------------------------------- a family of runs


def deeper(view: View) -> Decision:
    """Calls itself with another task each time, and answers with what came of that."""
    if view.turns:
        (seen,) = view.turns[0].observations
        return Decision(answer=str(seen.value["answer"] if seen.status == "OK" else seen.value))
    return calls(("child", {"task": f"{view.task.text}'"}))


async def test_it_goes_down_as_many_levels_as_its_budget_says_and_is_told_why_no_further(
    world: World,
) -> None:
    world.policy(deeper)
    world.pool = Pool((CHILD,))
    await world.conductor()
    log = await world.ended(await world.submit(world.start(budget=Budget(depth=2))))
    assert log.state().answer == (
        "child would start a run below this one, and no further level is allowed."
    )
    depths, budgets, above = [0], [log.state().budget], log
    for _ in range(2):
        (name,) = children_of(above)
        below = await world.log.read(name)
        parent = below.state().parent
        assert parent is not None
        assert (parent.run, parent.call, parent.attempt) == (above.run, "1-0", 1), "both ways"
        depths.append(below.state().depth)
        budgets.append(below.state().budget)
        above = below
    assert depths == [0, 1, 2]
    assert [budget.depth for budget in budgets] == [2, 1, 0]
    for part in ("tokens", "cost", "calls"):
        parts = [getattr(budget, part) for budget in budgets]
        assert parts == sorted(parts, reverse=True), "each a part of the one above"
        assert len(set(parts)) == 3


async def test_whoever_cancels_a_run_cancels_all_below_it(world: World) -> None:
    stopped, working = asyncio.Event(), asyncio.Event()

    async def endless(_: Attempt) -> Outcome:
        working.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            stopped.set()
        raise AssertionError

    def decide(view: View) -> Decision:
        if view.task.text.endswith("''"):
            return calls(("endless", {}))
        return deeper(view)

    world.policy(decide)
    world.pool = Pool((CHILD,))
    await world.worker(WorkerSpec(name="endless"), endless)
    await world.conductor()
    run = await world.submit(world.start())
    await working.wait()
    await Client(world.log, world.tasks, by="ada", look_s=0.1).signal(run, "cancel")
    log = await world.ended(run)
    for _ in range(2):
        (below,) = children_of(log)
        log = await world.ended(below)
        assert log.state().outcome == "cancelled"
        assert log.state().detail.startswith("by run:")
    await stopped.wait()
