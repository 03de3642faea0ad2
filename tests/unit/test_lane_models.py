"""Models of ours in the fast lane: sampled together, recorded token by token, swapped between."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from actors.models.question import Question
from actors.models.serving import Batching
from actors.policies.local import Options, spec_of
from protocol.commands import Start
from protocol.decisions import PolicySpec, Reply
from protocol.errors import InvalidData, NotFound
from protocol.events import PolicyReplied
from replay.model_versions import publish
from replay.tokens import Tokens, tokens
from tests.models import model, recomputed, tiny, tokenizer
from tests.rollouts import as_bytes, ask, host
from trainer.rollouts import Ended, FastLane, FastSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("model"))


def spec(folder: Path, **options: object) -> PolicySpec:
    given = Options(folder=str(folder), max_tokens=6, **options)  # type: ignore[arg-type]
    return spec_of(given, dialect="lists", system="Decide.")


def asked(folder: Path, count: int = 5, **options: object) -> tuple[Start, ...]:
    return ask("double 1", members=count, policy=spec(folder, **options)).starts("job")


def opened() -> FastLane:
    return FastLane(host, batching=Batching(rows=3))


def of(ended: Ended) -> list[Tokens]:
    async def blob(_: object) -> bytes:
        raise AssertionError

    return asyncio.run(tokens(ended.log.events(), blob))


def test_the_same_seed_says_the_same_and_each_member_something_else(folder: Path) -> None:
    with opened() as lane:
        one = lane.run(asked(folder))
        assert [as_bytes(each) for each in lane.run(asked(folder))] == [*map(as_bytes, one)]
        other = lane.run(asked(folder, seed=1))
    said = [tuple(each.output_ids for each in of(ended)) for ended in one]
    assert len(set(said)) == len(said)
    assert said != [tuple(each.output_ids for each in of(ended)) for ended in other]
    replies = [event for event in one[0].log.events() if isinstance(event, PolicyReplied)]
    assert all(each.version.startswith(f"{folder.name}/base@") for each in replies if each.sampled)


def test_what_was_sampled_together_was_drawn_from_the_model(folder: Path) -> None:
    with opened() as lane:
        found = lane.run(asked(folder))
    made = model(tokenizer())
    seen = 0
    for ended in found:
        for each in of(ended):
            again = recomputed(made, each.prompt_ids, each.output_ids)
            assert each.output_logprobs == pytest.approx(again, abs=1e-4)
            seen += 1
    assert seen >= len(found)


def test_a_model_takes_no_virtual_time(folder: Path) -> None:
    with opened() as lane:
        (ended,) = lane.run(asked(folder, 1))
    replies = [event for event in ended.log.events() if isinstance(event, PolicyReplied)]
    assert {each.latency_ms for each in replies} == {0}


def test_a_version_answers_from_the_group_that_begins_next(tmp_path: Path) -> None:
    folder = tiny(tmp_path)
    source = FastSource(opened(), "job")
    source.start()
    seen: list[tuple[str, ...]] = []
    for seed in (1, 2):
        source.ask([ask("double 1", f"{seed}", members=2, policy=spec(folder))])
        (group,) = source.poll(60.0)
        seen.append(group.versions)
        assert source.version == group.versions[0]
        version = publish(folder, _writes(seed))
        source.publish(version.name)
    source.ask([ask("double 1", "3", members=2, policy=spec(folder))])
    (group,) = source.poll(60.0)
    source.stop()
    seen.append(group.versions)
    assert [len(each) for each in seen] == [1, 1, 1]
    names = [each[0].partition("/")[2].partition("@")[0] for each in seen]
    assert names == ["base", "000001", "000002"]


def _writes(seed: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        words = tokenizer()
        model(words, seed).save_pretrained(path)
        words.save_pretrained(path)

    return write


def test_a_run_goes_on_with_the_version_that_it_began_with(tmp_path: Path) -> None:
    folder = tiny(tmp_path)
    with opened() as lane:
        stream = lane.stream(asked(folder, 6))
        first = next(stream)
        lane.publish(publish(folder, _writes(1)).name)
        rest = list(stream)
    found = [{step.version for step in each.rollout.steps} for each in (first, *rest)]
    assert [len(each) for each in found] == [1] * 6
    assert found[0] == {f"{folder.name}/base@{_weights(first)[:12]}"}


def _weights(ended: Ended) -> str:
    (known,) = {step.sampled.weights for step in ended.rollout.steps if step.sampled is not None}
    return known


def test_a_version_that_cannot_answer_is_refused(tmp_path: Path) -> None:
    folder = tiny(tmp_path)
    with opened() as lane:
        lane.run(asked(folder, 1))
        with pytest.raises(InvalidData, match="'000009' is current in none"):
            lane.publish("000009")
        published = publish(folder, _writes(3))
        (published.path / "model.safetensors").write_bytes(b"not whole")
        with pytest.raises(InvalidData, match="can't answer"):
            lane.publish(published.name)
        assert lane.models.versions() == {str(folder): "base"}
        assert len(lane.run(asked(folder, 2))) == 2, "the one before goes on"


def test_a_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    with opened() as lane, pytest.raises(NotFound, match=r"no config\.json"):
        lane.run(asked(tmp_path / "nowhere"))


def test_what_is_being_sampled_can_be_dropped(folder: Path) -> None:
    with opened() as lane:
        stream = lane.stream(asked(folder, 8))
        next(stream)
        stream.close()
        assert lane.in_flight == 0
        assert len(lane.run(asked(folder, 2))) == 2


class Held:
    """Models that somebody holds: each question is answered in some steps, as its text says."""

    def __init__(self) -> None:
        self.version = "1"
        self.asked: list[tuple[int, asyncio.Future[str]]] = []
        self.most = 0

    async def ask(self, place: str, question: Question, within_s: float) -> Reply:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        steps = int(question.messages[-1]["content"].rpartition("steps=")[2][0])
        self.asked.append((steps, future))
        self.most = max(self.most, len(self.asked))
        return Reply(text=await future, version=f"{place}/{self.version}")

    def step(self) -> int:
        count = len(self.asked)
        self.asked = [(steps - 1, future) for steps, future in self.asked]
        for steps, future in self.asked:
            if not steps and not future.done():
                future.set_result(f"after {self.version}")
        self.asked = [each for each in self.asked if each[0] > 0]
        return count

    def refresh(self, name: str) -> None:
        self.version = name

    def forget(self) -> None: ...


def test_models_that_somebody_holds_are_asked_together() -> None:
    held, says = Held(), replace(spec(Path("held")), dialect="hermes")
    asks = [ask(f"say something, steps={n % 3 + 1}", f"{n}", 1, policy=says) for n in range(6)]
    with FastLane(host, models=held) as lane:
        found = lane.run(start for each in asks for start in each.starts("job"))
        assert {each.log.state().answer for each in found} == {"after 1"}
        assert held.most == 6
        lane.publish("2")
        (ended,) = lane.run(asks[0].starts("other"))
        assert ended.rollout.steps[0].version == "held/2"
