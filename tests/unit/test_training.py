"""Trainings: what they are asked to be, what they go on with, and what they publish."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.actions import Pool
from protocol.budgets import Budget
from protocol.decisions import PolicySpec
from protocol.errors import Conflict, InvalidData, NotFound, Usage
from replay.model_folder import names
from replay.model_versions import ModelLog, point
from tests.learners import ragged
from trainer.advantages import scheme
from trainer.gym import small
from trainer.gym.gate import player
from trainer.gym.workers import Host
from trainer.learner.sinks import lines
from trainer.reinforcing import batch
from trainer.rollouts import FastLane, FastSource
from trainer.rollouts.source import Ask
from trainer.small import Shape
from trainer.training.begin import begin, gym_texts
from trainer.training.job import Job, held, read
from trainer.training.live import policy_of
from trainer.training.rows import Rows
from trainer.training.run import Outcome, Shell, from_actors
from trainer.training.spec import TO_THE_END, Spec, load
from trainer.training.tasks import FROM, Asked, Gym, Listed

STEPS = 3
TIMED = {"wait_s", "step_s", "tokens_per_s"}
QUIET = Shell(progress=False)


def test_kinds_have_their_own_defaults_and_flags_stand_over_the_file(tmp_path: Path) -> None:
    sft, rl = load("sft"), load("rl")
    assert (sft.objective.per, rl.objective.per) == ("token", "rollout")
    assert sft.optimizer.rate > rl.optimizer.rate
    file = tmp_path / "mine.toml"
    file.write_text('steps = 9\n[optimizer]\nschedule = "cosine"\nrate = 0.1\n[lora]\nrank = 4\n')
    found = load("sft", file, {"optimizer.rate": 0.2, "steps": None})
    assert (found.steps, found.optimizer.rate, found.optimizer.schedule) == (9, 0.2, "cosine")
    assert found.lora is not None
    assert found.optimizer.total == TO_THE_END
    assert found.options(9).steps.total == 10, "the schedule ends with the training"
    assert (found.every(live=True), found.every(live=False)) == (1, 100)


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("step = 1", "unknown field `step`", "steps"),
        ("[optimizer]\nspeed = 1", "at `$.optimizer`", "rate"),
        ("[live]\ngroup = 1", "at `$.live`", "groups"),
        ("[lora]\nrang = 1", "at `$.lora`", "rank"),
        ("[live]\nmembers = 1", "at `$.live.members`", "Change that value"),
        ("[live]\nreward = 'luck'", "there is no reward 'luck'", "accuracy"),
        ("[live]\nadvantages = 'ppo'", "there are no advantages 'ppo'", "dr_grpo"),
        ("[[live.reward.terms]]\nchannel = 'acuracy'", "no channel 'acuracy'", "accuracy"),
        ("[objective]\nper = 'constant'", "per = 'constant' and tokens go together", "both"),
        ("kind = 'rl'", "of kind 'rl', and 'sft' is asked for", "podium train rl"),
        ("seed = -1", "at `$.seed`", "Change that value"),
        ("ref_kl = 0.1", "mine.toml: ref_kl is of reinforcement", "leave it out"),
        ("steps =", "can't be read", "Mend the line"),
    ],
)
def test_a_file_that_is_wrong_is_told_where(
    tmp_path: Path, text: str, said: str, hint: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(Usage) as told:
        load("sft", file)
    assert said in told.value.message
    assert hint in told.value.hint


def test_rows_come_once_an_epoch_and_groups_stay_together() -> None:
    units = [tuple(ragged([4] * (number % 3 + 1), seed=number)) for number in range(7)]
    source = Rows(units, 3, seed=1)
    assert source.steps(2) == 5
    seen = [id(each) for step in range(7) for each in source(step).examples]
    every = [id(each) for unit in units for each in unit]
    assert sorted(seen) == sorted(every * 3)
    one = [id(each) for each in source(0).examples]
    whole = [[id(each) for each in unit] for unit in units if id(unit[0]) in one]
    assert sorted(one) == sorted(each for unit in whole for each in unit)
    assert [id(each) for each in Rows(units, 3, seed=1)(0).examples] == one


def test_tasks_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    check = {"kind": "exact", "answer": "42"}
    path.write_text(
        "".join(json.dumps({"text": f"{n}?", "check": check}) + "\n\n" for n in range(5))
    )
    tasks = Listed(path, small.pool(), Budget(rounds=3))
    asked = [each for step in range(5) for each in tasks(step, 2, 0)]
    assert sorted(each.task.text for each in asked) == sorted([f"{n}?" for n in range(5)] * 2)
    assert asked[0].budget.rounds == 3
    assert tasks(1, 2, 0) == asked[2:4]
    for line, said in [
        ('{"text": "?"}', "missing required field `check`"),
        ('{"text": "?", "check": {"kind": "exact"}}', "answer"),
        ('{"text": "?", "check": {"kind": "judge", "worker": "w"}}', "read off the answer"),
        ('{"text": "?", "check": null}', "read off the answer"),
        ('{"task": "?", "check": 1}', "unknown field `task`"),
        ("{", "tasks.jsonl:1"),
        ("", "has no tasks"),
    ]:
        path.write_text(line)
        with pytest.raises(InvalidData, match=r"tasks\.jsonl") as told:
            Listed(path, Pool(()), Budget())
        assert said in told.value.message
    with pytest.raises(NotFound):
        Listed(tmp_path / "none", Pool(()), Budget())


def test_the_gyms_episodes_are_fresh_in_each_step_and_of_no_test() -> None:
    gym = Gym("small")
    asked = [each.task.text for step in range(3) for each in gym(step, 4, 7)]
    assert gym(1, 4, 7)[0].task.text == asked[4]
    assert gym(0, 4, 8)[0].task.text != asked[0]
    assert all(spec.queue for spec in gym(0, 1, 0)[0].pool.workers)
    for wrong in (("seen", ()), ("train", ("none",)), ("small", ("wide",))):
        with pytest.raises(Usage):
            Gym(*wrong)


# -------------------------------------------------------------------------------------------- live


class Small:
    """Tasks of the gym in small, for workers that are here."""

    def __init__(self) -> None:
        self.described: dict[str, Any] = {"gym": "small, here"}

    def __call__(self, step: int, count: int, seed: int) -> list[Asked]:
        """See `Tasks`."""
        return [Asked(each.task, each.pool, each.budget) for each in drawn(step, count)]


def drawn(step: int, count: int) -> list[Any]:
    return [small.draw(FROM + step * count + place) for place in range(count)]


@pytest.fixture(scope="module")
def spec() -> Spec:
    flags = {
        "steps": STEPS,
        "device": "cpu",
        "threads": 1,
        "optimizer.rate": 0.01,
        "live.groups": 2,
        "live.members": 3,
        "live.reward": "tokens",
    }
    return load("rl", flags=flags)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shape = Shape(layers=1, width=32, heads=2, kv_heads=1, feed_forward=64, context=512)
    assert begin(folder, gym_texts("small", 60), shape, 400, 0) > 10_000
    return folder


def asked(model: Path, spec: Spec) -> PolicySpec:
    return policy_of(player(model), spec)


def practise(folder: Path, model: Path, spec: Spec, shell: Shell = QUIET) -> Outcome:
    """A live training in the fast lane."""
    policy = asked(model, spec)
    job = Job.begin(folder, model, "base", Small().described, spec, policy=policy)
    episodes = [each for step in range(STEPS) for each in drawn(step, spec.live.groups)]
    source = FastSource(FastLane(workers=Host(episodes, 0)), job.made.id)
    try:
        return from_actors(job, source, Small(), policy, shell)
    finally:
        source.stop()


def untimed(folder: Path) -> list[dict[str, Any]]:
    told = lines(folder / "metrics.jsonl")
    return [{name: line[name] for name in line.keys() - TIMED} for line in told]


def test_each_step_publishes_and_is_played_by_what_it_has_published(
    tmp_path: Path, model: Path, spec: Spec
) -> None:
    done = practise(tmp_path / "once", model, spec)
    told = untimed(tmp_path / "once")
    assert [line["version"] for line in told] == ["base", "000001", "000002"]
    assert {line["stale"] for line in told} == {0.0}
    ratios = [line["ratio"] for line in told if "ratio" in line]
    assert ratios == pytest.approx([1.0] * len(ratios), abs=1e-3), "they are fresh"
    assert done.version is not None
    assert done.version.name == ModelLog(model).read().current == "000003"
    note = done.version.manifest.note if done.version.manifest else {}
    assert (note["steps"], note["from"], note["kind"]) == (STEPS, "base", "rl")
    again = practise(tmp_path / "again", model, spec)
    assert untimed(tmp_path / "again") == told
    assert again.version == done.version, "the same weights, to the bit, are published once"
    assert names(model) == ["000001", "000002", "000003"]
    assert practise(tmp_path / "again", model, spec).begun_at == STEPS


def test_one_that_is_done_takes_nothing_back_that_was_said_since(
    tmp_path: Path, model: Path
) -> None:
    flags = {"steps": 1, "device": "cpu", "threads": 1, "optimizer.rate": 0.01}
    live = {"live.groups": 1, "live.members": 2, "live.reward": "tokens"}
    spec = load("rl", flags=flags | live)
    assert practise(tmp_path / "t", model, spec).version
    assert ModelLog(model).read().current == "000001"
    point(model, "base", why="it does harm")
    done = practise(tmp_path / "t", model, spec)
    assert (done.begun_at, done.version and done.version.name) == (1, "000001")
    assert ModelLog(model).read().current == "base"
    practise(tmp_path / "t", model, spec, msgspec.structs.replace(QUIET, current=True))
    assert ModelLog(model).read().current == "000001", "who says --current wants it"


class Unchecked(Small):
    """The same, of which nobody can say whether it was done."""

    def __call__(self, step: int, count: int, seed: int) -> list[Asked]:
        """See `Tasks`."""
        asked = super().__call__(step, count, seed)
        return [
            each._replace(task=msgspec.structs.replace(each.task, check=None)) for each in asked
        ]


class Noting(FastSource):
    """Notes what it is asked for."""

    def ask(self, asks: Iterable[Ask]) -> None:
        """See `AskingSource`."""
        self.keys = [each.key for each in asks]
        super().ask(asks)


def test_a_step_whose_runs_say_nothing_asks_for_others_the_next_time(
    tmp_path: Path, model: Path
) -> None:
    flags = {"steps": 1, "device": "cpu", "live.groups": 2, "live.members": 2}
    spec = load("rl", flags=flags)
    keys: list[list[str]] = []

    def practised(tasks: Small, *, fresh: bool = False) -> None:
        job = Job.begin(tmp_path / "t", model, "base", tasks.described, spec, fresh=fresh)
        episodes = drawn(0, 2)
        source = Noting(FastLane(workers=Host(episodes, 0)), job.made.id)
        try:
            from_actors(job, source, tasks, asked(model, spec), QUIET)
        finally:
            source.stop()
            keys.append(source.keys)

    for fresh in (False, False, True):
        with pytest.raises(InvalidData, match=r"step 1: none of 4 rollouts.*no accuracy") as told:
            practised(Unchecked(), fresh=fresh)
        assert "give the same command" in told.value.hint
    practised(Small())
    assert keys == [
        ["0/0", "0/1"],
        *([f"0/{place}/again-{time}" for place in range(2)] for time in (1, 2, 3)),
    ]


def test_one_that_ends_between_publishing_and_its_checkpoint_publishes_nothing_twice(
    tmp_path: Path, model: Path, spec: Spec
) -> None:
    policy = asked(model, spec)
    job = Job.begin(tmp_path / "t", model, "", Small().described, spec, policy=policy)
    episodes = [each for step in range(STEPS) for each in drawn(step, spec.live.groups)]
    lane = FastLane(workers=Host(episodes, 0))
    source = FastSource(lane, job.made.id)

    def broken(name: str) -> None:
        if name == "000002":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        from_actors(job, source, Small(), policy, QUIET, ready=broken)
    source.stop()
    assert names(model) == ["000001", "000002"]
    assert practise(tmp_path / "t", model, spec).begun_at == 2
    assert names(model) == ["000001", "000002", "000003"]
    assert [line["version"] for line in untimed(tmp_path / "t")] == ["base", "000001", "000002"]


def test_a_reward_is_annealed_over_the_steps_that_there_are(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.training.run.LIVE_STEPS", STEPS)  # as many as if none are said
    recipe: dict[str, Any] = {"base": 1.0, "terms": [{"channel": "accuracy", "weight": 0.0}]}
    recipe["terms"] += [{"channel": "tokens", "weight": 0.0, "final": 3.0}]
    flags = {"device": "cpu", "threads": 1, "optimizer.rate": 0.01, "live.reward": recipe}
    spec = load("rl", flags=flags | {"live.groups": 1, "live.members": 2})
    practise(tmp_path / "t", model, spec)
    told = untimed(tmp_path / "t")
    assert [line["step"] for line in told] == [1, 2, 3]
    assert told[0]["reward"] == 1.0, "it weighs nothing at the beginning"
    assert abs(told[1]["reward"] - 1.0) < abs(told[2]["reward"] - 1.0)


def test_one_that_goes_on_between_two_versions_has_its_own_answer(
    tmp_path: Path, model: Path
) -> None:
    flags = {"steps": 4, "device": "cpu", "threads": 1, "optimizer.rate": 0.01}
    live = {"live.groups": 1, "live.members": 2, "live.publish_every": 2, "live.reward": "tokens"}
    spec = load("rl", flags=flags | live)
    job = Job.begin(tmp_path / "t", model, "", Small().described, spec)
    lane = FastLane(workers=Host([drawn(step, 1)[0] for step in range(4)], 0))
    source = FastSource(lane, job.made.id)

    class Ending(Small):
        def __call__(self, step: int, count: int, seed: int) -> list[Asked]:
            if step == 3:
                raise KeyboardInterrupt
            return super().__call__(step, count, seed)

    with pytest.raises(KeyboardInterrupt):
        from_actors(job, source, Ending(), asked(model, spec), QUIET)
    source.stop()
    assert ModelLog(model).read().current == "000001", "of step 2"
    point(model, "base", why="somebody wanted to see it")
    answering: list[tuple[str, str]] = []
    again = FastSource(lane, job.made.id)
    from_actors(
        job,
        again,
        Small(),
        asked(model, spec),
        QUIET,
        ready=lambda name: answering.append((name, ModelLog(model).read().current)),
    )
    again.stop()
    assert answering == [("000001", "000001")]
    assert [line["version"] for line in untimed(tmp_path / "t")] == ["base"] * 2 + ["000001"] * 2


def test_another_training_in_its_folder_is_refused_and_says_in_what(
    tmp_path: Path, model: Path, spec: Spec
) -> None:
    folder = tmp_path / "t"
    job = Job.begin(folder, model, "", {"gym": "small"}, spec)
    assert read(folder) == job.made
    assert Job.begin(folder, model, "base", {"gym": "small"}, spec).made.id == job.made.id
    assert Job.begin(folder, model, "", {"gym": "none"}, spec).made.id != job.made.id
    job = Job.begin(folder, model, "", {"gym": "small"}, spec)
    job.metrics.write_text("")  # a step was begun
    other = load("rl", flags={"seed": 5})
    with pytest.raises(Conflict, match=r"spec.seed is 5, and was 0") as told:
        Job.begin(folder, model, "", {"gym": "train"}, other)
    assert "data.gym is train, and was small" in told.value.message
    assert "--fresh" in told.value.hint
    assert Job.begin(folder, model, "", {}, other, fresh=True).made.id != job.made.id
    assert not job.metrics.exists()
    (folder / "training.json").write_text("{")
    with pytest.raises(InvalidData):
        read(folder)
    job.metrics.write_text("")
    with pytest.raises(NotFound):
        Job.begin(folder, model, "000009", {}, spec, fresh=True)
    assert job.metrics.exists(), "nothing is removed for a training that can't begin"
    with pytest.raises(NotFound):
        Job.begin(tmp_path / "u", model, "000009", {}, spec)


def test_one_at_a_time_trains_in_a_folder(tmp_path: Path) -> None:
    with held(tmp_path / "new" / "t"):
        with pytest.raises(Conflict, match=r"somebody else trains in .*/new/t") as told:
            held(tmp_path / "new" / "t").__enter__()
        assert "--out" in told.value.hint
        with held(tmp_path / "other"):
            pass
    with held(tmp_path / "new" / "t"):
        pass


@pytest.mark.parametrize("taken", ["file", "file/t"])
def test_a_file_is_no_trainings_folder(tmp_path: Path, taken: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Usage, match="can't be a training's folder: there is a file"):
        held(tmp_path / taken).__enter__()


def test_another_policy_is_another_training(tmp_path: Path, model: Path, spec: Spec) -> None:
    policy = asked(model, spec)

    def begun(**options: Any) -> Job:
        other = msgspec.structs.replace(policy, options={**policy.options, **options})
        return Job.begin(tmp_path / "t", model, "base", {}, spec, policy=other)

    job = begun()
    job.metrics.write_text("")  # a step was begun
    for changed in ({"max_tokens": 7}, {"top_k": 3}, {"template": {"thinking": True}}):
        with pytest.raises(Conflict, match=f"policy.options.{next(iter(changed))}"):
            begun(**changed)
    spoken = msgspec.structs.replace(policy, dialect="lists", system="Be brief.")
    with pytest.raises(Conflict, match=r"policy.dialect is lists, and was slots, policy.system"):
        Job.begin(tmp_path / "t", model, "base", {}, spec, policy=spoken)
    assert begun(batching={"rows": 2}).made.id == job.made.id, "its server's own affair"


def test_what_nothing_could_be_learned_of_is_refused_before_it_is_asked(model: Path) -> None:
    hosted = player(model)
    refusing = load("rl")
    applying = load("rl", flags={"objective.truncated": "apply"})
    for cut in ({"top_p": 0.9}, {"top_k": 5}):
        policy = msgspec.structs.replace(hosted, options={**hosted.options, **cut})
        with pytest.raises(Usage, match=f"{next(iter(cut))} {next(iter(cut.values()))}") as told:
            policy_of(policy, refusing)
        assert "truncated = 'apply'" in told.value.hint
        assert policy_of(policy, applying).options["temperature"] == 1.0


def test_nothing_that_can_be_scored_ends_it_with_the_reason() -> None:
    with pytest.raises(InvalidData, match="no run has ended in time"):
        batch([], load("rl").live.recipe, scheme("grpo"))


def test_an_untrained_model_is_made_whole_or_not_at_all(tmp_path: Path, model: Path) -> None:
    shape = Shape(layers=1, width=32, heads=2, kv_heads=1, feed_forward=64)
    (tmp_path / "file").write_text("")
    for taken in (model, tmp_path / "file"):
        with pytest.raises(Conflict):
            begin(taken, ["x"], shape, 400, 0)
    with pytest.raises(Usage, match="file is a file"):
        begin(tmp_path / "file" / "x" / "y", ["x"], shape, 400, 0)
    for wrong in ({"heads": 0}, {"kv_heads": 0}, {"layers": 0}, {"context": -1}):
        with pytest.raises(Usage, match="at least 1"):
            begin(tmp_path / "other", ["x"], replace(shape, **wrong), 400, 0)
    for texts, size, error in ((["x"], 10, Usage), ([], 400, InvalidData)):
        with pytest.raises(error):
            begin(tmp_path / "other", texts, shape, size, 0)
    assert not (tmp_path / "other").exists()
    with pytest.raises(Usage):
        list(gym_texts("seen", 1))
