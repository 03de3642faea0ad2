"""What a command says while it follows a run."""

import asyncio
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podium.cli import follow
from podium.cli.follow import Follower, failure_hints
from podium.cli.interrupts import Interrupts
from podium.cli.output import Output
from podium.cli.world import World as Shell
from podium.cli.world import enter
from podium.client import Client
from podium.render import tree
from podium.render_lines import story
from podium.unhosted import unhosted
from protocol.actions import Pool, WorkerSpec
from protocol.budgets import Budget
from protocol.commands import Deadline
from protocol.decisions import Decision, PlannedCall, View
from protocol.subjects import child_id
from tests.e2e.memory_host import MemoryDeployments
from tests.logs import log_of
from tests.runs import Driver, begin, plan
from tests.world import World, calls

TEAM = WorkerSpec(name="team", kind="conductor", adapter="conductor", attempts=1)


class Heard(io.StringIO):
    """A stream of which is heard when a line with a text in it comes."""

    def __init__(self, awaited: str) -> None:
        super().__init__()
        self.awaited, self.came = awaited, asyncio.Event()

    def write(self, text: str) -> int:
        """See `io.StringIO`."""
        if self.awaited in text:
            self.came.set()
        return super().write(text)


def output_to(folder: Path, err: io.StringIO) -> Output:
    enter(
        Shell(
            deployments=MemoryDeployments(),
            environment={},
            folder=folder,
            stdout=io.StringIO(),
            stderr=err,
            stdin=io.StringIO(),
        )
    )
    return Output(False)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.close()


async def test_a_question_of_a_run_below_is_told(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decide(view: View) -> Decision:
        if view.turns:
            value = view.turns[0].observations[0].value
            return Decision(answer=str(value["answer"] if isinstance(value, dict) else value))
        deeper = {"all": "some", "some": "one"}.get(view.task.text)
        if deeper:
            return calls(("team", {"task": deeper}))
        return calls(("ada", {"question": "Which one?"}))

    monkeypatch.setattr(follow, "BELOW_S", 0.02)
    ada = unhosted("ada", "person")
    assert ada is not None
    world.policy(decide)
    world.pool = Pool((TEAM, ada))
    await world.conductor()
    client = Client(world.log, world.tasks, by="ada", look_s=0.1)
    run = await client.submit("all", world.pool, world.start().policy)
    below = child_id(child_id(run, "1-0", 1), "1-0", 1)
    err = Heard(f"podium answer {below} ANSWER")
    output = output_to(tmp_path, err)
    following = asyncio.create_task(
        Follower(client, output, content=True).follow(run, Interrupts(output))
    )
    async with asyncio.timeout(10):
        await err.came.wait()
    await client.answer(below, "1-0", "this one")
    shown = await following
    assert shown is not None
    assert shown.answer == "this one"
    assert err.getvalue().count(f"ada is asked by run {below}, below this one") == 1


def test_a_run_below_that_did_not_answer_in_time_is_named(tmp_path: Path) -> None:
    driver = Driver(begin(pool=Pool((TEAM,)), budget=Budget(wall_ms=86_400_000)))
    driver.reply(plan(PlannedCall("team", {"task": "the half of it"})))
    driver.give(Deadline(), after_ms=driver.state.calls["1-0"].deadline - driver.at)
    log = log_of(driver)
    below = child_id(log.run, "1-0", 1)
    assert re.search(rf"1-0  team  TIMEOUT of run {below}\b", "\n".join(story(log)))
    err = io.StringIO()
    failure_hints(output_to(tmp_path, err), tree(log))
    assert f"podium runs show {below}" in err.getvalue()
