"""Runs whose policy is a model of ours: decided, recorded token by token, recovered, forked."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safetensors.torch import load_file, save_file

from actors.models.context import Context
from actors.models.question import NOBODY, Maker, Question
from actors.models.server import Here, PolicyServer
from actors.policies import make
from actors.policies.local import LocalPolicy, Options, spec_of
from actors.ports import Attempt, Outcome
from protocol.actions import Call, Pool, WorkerSpec
from protocol.codec import Commit, encode
from protocol.commands import Continue, Fork
from protocol.decisions import Observation, PolicySpec, Reply, Task, Turn, View
from protocol.dialects import prompt_hash, request
from protocol.errors import InvalidData, Usage
from protocol.events import DecisionRejected, PolicyReplied
from protocol.limits import MAX_REJECTIONS, MAX_SAMPLED_BYTES
from protocol.model_versions import BASE, canary, ended, promoted, rolled_back
from protocol.sampled import Arrays, Sampled, unpack_floats
from protocol.subjects import run_id
from replay import model_folder
from replay.chain import RunLog, Stored, assemble
from replay.forks import origin_at
from replay.history import entries
from replay.memory_log import MemoryLog
from replay.model_versions import ModelLog, publish
from replay.tokens import Tokens, tokens
from replay.verify import verify_run
from tests.models import model, recomputed, taught, tiny, tokenizer
from tests.runs import RUN
from tests.world import World
from trainer.fold import fold

LONG_S = 60.0

DOUBLE = WorkerSpec(
    name="double",
    description="Doubles a number.",
    parameters={
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    },
)
POOL = Pool((DOUBLE,))
CALL = '<tool_call>\n{"name": "double", "arguments": {"n": 21}}\n</tool_call>'
ANSWER = "It is 42."
SYSTEM = "Decide."


def spec(folder: Path, dialect: str = "hermes", **options: object) -> PolicySpec:
    given = {"temperature": 0.0, "max_tokens": 60, **options}
    return spec_of(
        msgspec.convert({"folder": str(folder), **given}, Options), dialect=dialect, system=SYSTEM
    )


@pytest.fixture(scope="module")
def knows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that doubles 21 with the tool, and says what came of it."""
    asked = spec(Path("/any"))
    begun = View(run="r", task=Task(text="a test"), pool=POOL)
    call = Call("1-0", "double", {"n": 21})
    seen = Turn(text=CALL, observations=(Observation(call=call, status="OK", value=42),))
    shown = [begun, msgspec.structs.replace(begun, turns=(seen,))]
    requests = [request(asked, each) for each in shown]
    folder = tmp_path_factory.mktemp("models") / "doubler"
    return taught(folder, list(zip(requests, (CALL, ANSWER), strict=True)))


class Place:
    """A world, and the models that its runs ask."""

    def __init__(self) -> None:
        self.world = World()
        self.servers: dict[str, PolicyServer] = {}
        self.models = Here(self.servers)

    async def policy(self, asked: PolicySpec) -> str:
        """Host a policy's model; the policy's name."""
        folder = str(asked.options["folder"])
        if folder not in self.servers:
            self.servers[folder] = PolicyServer(Path(folder))
            await self.servers[folder].start()
        self.world.policies[asked.name] = make(asked, self.models)
        return asked.name

    async def run(self, asked: PolicySpec) -> RunLog:
        """A run to its end."""
        name = await self.policy(asked)
        run = await self.world.submit(self.world.start(policy=name))
        return await self.world.ended(run, 60.0)


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Place]:
    """A place with a conductor and the worker that doubles, until it is left."""
    place = Place()
    await place.world.worker(DOUBLE, double)
    await place.world.conductor()
    yield place
    await place.world.close()
    for server in place.servers.values():
        await server.stop()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with opened() as place:
        yield place


async def double(attempt: Attempt) -> Outcome:
    return Outcome(value=2 * attempt.arguments["n"])


async def read(log: RunLog, place: Place) -> list[Tokens]:
    return await tokens((entry.event for entry in entries(log)), place.world.log.get_blob)


def replies(log: RunLog) -> list[PolicyReplied]:
    return [entry.event for entry in entries(log) if isinstance(entry.event, PolicyReplied)]


async def test_a_model_decides_a_run_and_every_token_is_in_its_log(
    place: Place, knows: Path
) -> None:
    log = await place.run(spec(knows))
    assert log.state().answer == ANSWER
    first, second = await read(log, place)
    assert [each.text for each in replies(log)] == [CALL, ANSWER]
    shown = [
        (step.view, event.prompt) for step, event in zip(fold(log).steps, replies(log), strict=True)
    ]
    assert all(prompt == prompt_hash(spec(knows), view) for view, prompt in shown)
    assert second.sampled.after == first.turn
    assert second.prompt.startswith(first.context)
    assert first.sampled.version == BASE
    assert {first.sampled.weights, second.sampled.weights} == {
        model_folder.check(model_folder.find(knows, BASE))
    }
    assert {*first.output_logprobs, *second.output_logprobs} == {0.0}, "nothing was left to chance"
    assert log.state().committed.tokens == sum(
        len(each.prompt_ids) + len(each.output_ids) for each in (first, second)
    )
    found = await verify_run(place.world.log, log.run)
    assert found.problems == ()


async def test_recorded_log_probabilities_are_those_of_the_recorded_tokens(
    place: Place, tmp_path: Path
) -> None:
    folder = tiny(tmp_path / "tiny")
    log = await place.run(spec(folder, temperature=0.9, dialect="lists", max_tokens=20))
    made = model(tokenizer())
    found = await read(log, place)
    assert len(found) >= MAX_REJECTIONS
    for each in found:
        wanted = recomputed(made, each.prompt_ids, each.output_ids, 0.9)
        assert each.output_logprobs == pytest.approx(wanted, abs=1e-4)
        assert each.sampled.temperature == 0.9


async def test_a_model_that_knows_nothing_is_told_so_and_its_run_ends(
    place: Place, tmp_path: Path
) -> None:
    log = await place.run(spec(tiny(tmp_path / "tiny"), temperature=1.0, dialect="lists"))
    state = log.state()
    refused = [e.event for e in entries(log) if isinstance(e.event, DecisionRejected)]
    assert len(refused) >= MAX_REJECTIONS
    assert (state.phase, state.final) == ("ended", "rejections")
    assert (await verify_run(place.world.log, log.run)).problems == ()
    log = await place.run(spec(tiny(tmp_path / "other", 1), max_tokens=8))
    assert log.state().outcome == "finished", "whatever it said was its answer"


async def test_runs_of_one_task_differ_and_each_can_be_sampled_again(
    place: Place, tmp_path: Path
) -> None:
    asked = spec(tiny(tmp_path / "tiny"), temperature=1.0, max_tokens=12)
    logs = [await place.run(asked), await place.run(asked)]
    assert logs[0].state().answer != logs[1].state().answer
    policy = LocalPolicy(asked, place.models)
    view = View(run=logs[0].run, task=Task(text="a test"), pool=POOL)
    again = await policy.ask(view)
    assert again.text == replies(logs[0])[0].text
    first = replies(logs[0])[0].sampled
    assert first is not None
    assert again.sampled is not None
    bare = [msgspec.structs.replace(each, arrays=None) for each in (again.sampled, first)]
    assert bare[0] == bare[1]
    made, known = again.sampled.arrays, first.arrays
    assert made is not None
    assert known is not None
    assert (made.prompt, made.output) == (known.prompt, known.output)
    # What is known of a prompt is not read again, so floats are rounded otherwise.
    wanted = unpack_floats(known.logprobs)
    assert unpack_floats(made.logprobs) == pytest.approx(wanted, abs=1e-5)


async def test_a_recovered_run_goes_on_from_the_tokens_of_its_log(
    place: Place, knows: Path
) -> None:
    await place.policy(spec(knows))
    world = place.world
    held = asyncio.Event()

    async def slow(attempt: Attempt) -> Outcome:
        await held.wait()
        return await double(attempt)

    await world.workers.pop().stop()
    await world.worker(DOUBLE, slow, "w2")
    run = await world.submit(world.start(policy=spec(knows).name))
    await world.until(run, lambda log: bool(log.state().open))
    await world.conductors.pop().stop()
    await world.conductor("c2")
    await world.until(run, lambda log: log.state().epoch == 2)
    held.set()
    log = await world.ended(run, 60.0)
    assert log.state().answer == ANSWER
    first, second = await read(log, place)
    assert second.sampled.after == first.turn


async def test_a_fork_goes_on_from_the_tokens_that_it_shares(place: Place, knows: Path) -> None:
    log = await place.run(spec(knows))
    history = entries(log)
    asked = [entry.number for entry in history if entry.kind == "PolicyAsked"]
    made = Fork(run=run_id(bytes(range(8))), origin=origin_at(log, asked[1] - 1, history))
    await place.world.submit(made)  # type: ignore[arg-type]
    fork = await place.world.ended(made.run, 60.0)
    assert fork.state().answer == ANSWER
    first, second = await read(fork, place)
    assert second.sampled.after == first.turn
    own = [each for commit in fork.commits for each in commit.events]
    assert sum(isinstance(each, PolicyReplied) for each in own) == 1
    assert (await verify_run(place.world.log, made.run)).problems == ()


def versioned(knows: Path, folder: Path) -> None:
    """A folder with the model that knows, and two versions of it whose weights differ a little."""
    shutil.copytree(knows, folder)
    for place in (1, 2):

        def write(path: Path, place: int = place) -> None:
            shutil.copytree(knows, path, dirs_exist_ok=True)
            tensors = load_file(path / "model.safetensors")
            tensors["model.norm.weight"][0] += 1e-5 * place
            save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

        publish(folder, write, current=False)


async def test_runs_are_of_one_version_each_while_versions_come_go_and_share(
    knows: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    await asyncio.to_thread(versioned, knows, folder)
    place, gate, called = Place(), asyncio.Event(), list[str]()

    async def held(attempt: Attempt) -> Outcome:
        called.append(attempt.run)
        await gate.wait()
        return await double(attempt)

    await place.world.worker(msgspec.structs.replace(DOUBLE, concurrency=64), held)
    await place.world.conductor()
    name = await place.policy(spec(folder))
    server = place.servers[str(folder)]

    async def begin(count: int) -> list[str]:
        before = len(called)
        starts = [place.world.start(policy=name) for _ in range(count)]
        runs = [await place.world.submit(start) for start in starts]
        while len(called) < before + count:  # noqa: ASYNC110 - of calls, which have no event
            await asyncio.sleep(0)
        return runs

    log = ModelLog(folder)
    wanted: dict[str, str] = {}
    for said in (
        lambda _: (),
        lambda there: canary(there, "000002", 0.4, weights=""),
        lambda there: promoted(there, "000001", weights="", gate="none"),
        ended,
        lambda there: rolled_back(there, weights=""),
    ):
        versions = log.say(said)
        await server.refresh()
        wanted |= {run: versions.answers(run) for run in await begin(10)}
    gate.set()
    made: dict[str, set[str]] = {}
    for run in wanted:
        found = await place.world.ended(run, LONG_S)
        assert found.state().answer == ANSWER
        made[run] = {each.sampled.version for each in await read(found, place)}
    assert made == {run: {version} for run, version in wanted.items()}
    assert set(wanted.values()) == {BASE, "000001", "000002"}
    await place.world.close()
    await server.stop()


async def test_a_model_that_nobody_hosts_pauses_the_run(place: Place, tmp_path: Path) -> None:
    asked = spec(tmp_path / "nowhere")
    place.world.policies[asked.name] = make(asked, place.models)
    run = await place.world.submit(place.world.start(policy=asked.name))
    log = await place.world.until(run, lambda log: bool(log.state().last_error))
    assert "nobody hosts the model in" in log.state().last_error


async def test_an_answer_that_a_worker_writes_keeps_the_model_s_tokens(
    place: Place, knows: Path
) -> None:
    asked = spec(knows)
    await place.policy(asked)

    async def write(_: Attempt) -> Outcome:
        return Outcome(value="Forty-two.")

    await place.world.worker(WorkerSpec(name="scribe"), write)
    place.world.pool = Pool((DOUBLE, WorkerSpec(name="scribe")))
    written = msgspec.structs.replace(asked, name=f"written:scribe:{asked.name}")
    log = await place.run(written)
    assert log.state().outcome == "finished"
    assert len(await read(log, place)) >= 1


# ---------------------------------------------------------------------------------------- recorded


class Fixed:
    """A policy of tokens that are given."""

    def __init__(self, *given: Sampled | None) -> None:
        self.given = list(given)
        self.before: list[bytes] = []
        self.makers: list[str] = []

    async def sample(self, view: View, before: bytes, maker: Maker = NOBODY) -> Reply:
        self.before.append(before)
        self.makers.append(maker.version)
        return Reply(sampled=self.given.pop(0))


VIEW = View(run="r", task=Task(text="?"), pool=POOL)


async def test_only_what_came_into_the_log_is_gone_on_from() -> None:
    log, context = MemoryLog(), Context()
    lost = Sampled(arrays=Arrays(b"aaaa", b"bbbb"))
    kept = Sampled(arrays=Arrays(b"cccc", b"dddd"), version="000002")
    on = Sampled(after=1, arrays=Arrays(b"eeee", b"ffff"))
    policy = Fixed(lost, kept, on, on)
    await context.ask(policy, VIEW, 1, log)
    second = await context.ask(policy, VIEW, 2, log)
    context.recorded([PolicyReplied(turn=2, sampled=second.sampled)])
    third = await context.ask(policy, VIEW, 3, log)
    assert third.sampled is not None
    assert third.sampled.after == 2
    context.recorded([PolicyReplied(turn=3, sampled=third.sampled)])
    await context.ask(policy, VIEW, 4, log)
    assert policy.before == [b"", b"", b"ccccdddd", b"ccccddddeeeeffff"]
    assert policy.makers == ["", "", "000002", ""]


async def test_large_tokens_go_to_a_blob() -> None:
    log, context = MemoryLog(), Context()
    large = Arrays(bytes(MAX_SAMPLED_BYTES), b"1234")
    reply = await context.ask(Fixed(Sampled(arrays=large, top_k=3)), VIEW, 1, log)
    assert reply.sampled is not None
    assert reply.sampled.arrays is None
    assert reply.sampled.top_k == 3
    event = PolicyReplied(turn=1, sampled=reply.sampled)
    (found,) = await tokens([event], log.get_blob)
    assert found.context == large.prompt + large.output


async def test_tokens_that_are_lost_only_make_the_next_prompt_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = MemoryLog()
    large = Sampled(arrays=Arrays(bytes(MAX_SAMPLED_BYTES), b"1234"))
    reply = await Context().ask(Fixed(large), VIEW, 1, other)
    context, policy = Context(), Fixed(None)
    event = PolicyReplied(turn=1, sampled=reply.sampled)
    commit = Commit(run=RUN, n=1, epoch=0, at=1, causes=(), events=(event,), prev="")
    stored = assemble(RUN, [Stored(1, encode(commit))], [])
    await context.recall(stored, Continue(run=RUN), MemoryLog())
    await context.ask(policy, VIEW, 2, MemoryLog())
    assert policy.before == [b""]
    assert "recorded whole" in caplog.text


def test_what_can_t_be_a_local_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="can't speak the dialect 'openai'"):
        make(spec(tmp_path, "openai"), Here({}))
    with pytest.raises(InvalidData, match="options of the policy"):
        make(PolicySpec(name="local:x", dialect="hermes", options={"folder": 1}), Here({}))
    with pytest.raises(Usage, match="there is no policy 'local:x'"):
        make(PolicySpec(name="local:x", dialect="hermes"))


async def test_the_hash_of_what_was_shown_is_ours_where_no_model_of_ours_is_asked(
    place: Place,
) -> None:
    class Saying:
        spec = PolicySpec(name="saying", dialect="hermes")

        async def ask(self, view: View) -> Reply:
            return Reply(text=ANSWER, prompt="what it likes")

    place.world.policies["saying"] = Saying()
    log = await place.world.ended(
        await place.world.submit(place.world.start(policy="saying")), 60.0
    )
    (said,) = replies(log)
    (step,) = fold(log).steps
    assert said.prompt == prompt_hash(log.state().policy, step.view)


async def test_a_question_has_the_sampling_that_was_recorded(tmp_path: Path) -> None:
    asked: list[Question] = []

    class Listening:
        async def ask(self, place: str, question: Question, within_s: float) -> Reply:
            asked.append(question)
            assert (place, within_s) == (str(tmp_path), 115.0)
            return Reply(text="hi")

    options: dict[str, Any] = {
        "temperature": 0.3,
        "top_p": 0.8,
        "top_k": 7,
        "max_tokens": 9,
        "seed": 5,
    }
    for seed in (5, 6):
        policy = LocalPolicy(spec(tmp_path, **options | {"seed": seed}), Listening())
        await policy.ask(VIEW)
        await policy.ask(msgspec.structs.replace(VIEW, run="s"))
    said = asked[0].sampling
    assert (said.temperature, said.top_p, said.top_k, said.max_tokens) == (0.3, 0.8, 7, 9)
    assert len({each.sampling.seed for each in asked}) == 4
    assert max(each.sampling.seed for each in asked) < 2**53
