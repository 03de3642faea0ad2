"""References to outputs in whole runs: reproduced, forked, exported, as their logs have them."""

import asyncio
from collections.abc import Awaitable, Callable

from actors.ports import Attempt, Outcome
from actors.secrets import Secrets
from actors.work import work_on
from podium.reproducing import prepare
from protocol.actions import BlobRef, WorkerSpec
from protocol.decisions import Reply
from protocol.events import CallSettled, Edit
from replay.chain import RunLog
from replay.formats.common import read_tree
from replay.history import entries
from replay.reproduce import tried
from replay.verify import verify_run
from tests.golden.stage import Endpoint, VirtualLoop, client, ended, story_world
from tests.golden.stories import references
from tests.unit.test_formats import atif, orchestration
from tests.world import World


class Echo:
    """The worker of the story, here."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec

    async def run(self, attempt: Attempt) -> Outcome:
        return Outcome(value={"value": attempt.arguments["text"]})

    async def close(self) -> None: ...


def after(then: Callable[[World, RunLog], Awaitable[None]]) -> None:
    """Do something once the story's first run has ended."""

    async def happen() -> None:
        async with story_world(loop) as world:
            run, _ = await references(world)
            await then(world, await world.log.read(run))

    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(happen())


async def nothing(ref: BlobRef) -> bytes:
    raise AssertionError(f"{ref} is not needed")


def test_an_attempt_is_reproduced_with_the_same_values_put_in() -> None:
    async def then(_: World, log: RunLog) -> None:
        for call in ("1-1", "2-1"):
            prepared = await prepare(log, tried(log, call), nothing)
            assert "${output:" in str(prepared.attempt.arguments)
            outcome = await work_on(prepared.attempt, Echo(prepared.spec), Secrets())
            assert prepared.recorded is not None
            assert outcome.value == prepared.recorded.value

    after(then)


def test_a_fork_that_edits_an_output_puts_the_edited_one_in() -> None:
    async def then(world: World, log: RunLog) -> None:
        settled = [e for e in entries(log) if isinstance(e.event, CallSettled)]
        at = next(e.number for e in settled if e.event.call == "1-0")  # type: ignore[union-attr]
        world.policies["small"] = Endpoint("small", [Reply(text="= #2!")], "compact")
        edit = Edit("calls.1-0.value", {"value": "ten"})
        (fork,) = await client(world).fork(log.run, at, edits=(edit,))
        assert (await ended(world, fork)).state().answer == "ten metres!"
        assert (await verify_run(world.log, fork)).outcome == "sound"

    after(then)


def test_what_is_exported_refers_and_has_the_answer_that_was_composed() -> None:
    async def then(world: World, log: RunLog) -> None:
        assert (await verify_run(world.log, log.run)).outcome == "sound"
        tree = await read_tree(world.log, log.run, blobs=True)
        found, answer = atif(tree, content=True), log.state().answer
        assert answer == (await ended(world, log.run)).state().answer
        made = [call for step in found["steps"] for call in step.get("tool_calls", ())]
        assert {"text": "${output:1-0} metres"} in [call["arguments"] for call in made]
        assert found["steps"][-1]["message"] == answer
        assert any(
            "${output:1-0}" in str(each) for each in orchestration(tree, content=True)["events"]
        )

    after(then)
