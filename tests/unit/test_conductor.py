"""Making a conductor: batches follow from the plan and the step, and every stage goes on."""

from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from protocol.errors import Conflict, InvalidData
from trainer.advantages import scheme
from trainer.conductor import correcting, practising, results, stages, study, teaching
from trainer.conductor.exam import Exam
from trainer.conductor.plan import Correction, Plan, Rl, Sft, load
from trainer.conductor.teaching import Teaching, batch_of, early, examples, examples_of, lesson
from trainer.datasets.chat import Chat
from trainer.gym.episodes import draws
from trainer.gym.evaluate import Report
from trainer.gym.oracle import Oracle, Strongest
from trainer.gym.play import run
from trainer.gym.scores import Figure, Scores
from trainer.intervals import across, share
from trainer.learner.example import Example
from trainer.learner.sinks import lines
from trainer.reinforcing import batch
from trainer.small import Shape
from trainer.training import tasks

PLAN = Plan(
    shape=Shape(layers=1, width=32, heads=2, kv_heads=1, feed_forward=32),
    vocabulary=512,
    texts=60,
    families=("lookup", "wide"),
    sft=Sft(steps=4, episodes=6, warmup=1),
    rl=Rl(steps=2, groups=2, members=2),
    reply_tokens=6,
    device="cpu",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the untrained model of the plan."""
    folder = tmp_path_factory.mktemp("conductor")
    stages.begin(folder, PLAN)
    stages.base(folder, PLAN)
    return folder


def alike(one: list[Example], other: list[Example]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.ce, b.ce)
        for a, b in zip(one, other, strict=True)
    )


def test_a_batch_follows_from_the_plan_and_the_step(made: Path) -> None:
    chat = Chat.load(made / "base")
    first, again, second = (examples_of(PLAN, step, chat) for step in (0, 0, 1))
    assert alike(first, again)
    assert not alike(first, second)
    with Teaching(PLAN, made / "base", processes=0) as here:
        assert alike(list(here(1).examples), second)


def test_slips_are_read_and_not_imitated(made: Path) -> None:
    chat = Chat.load(made / "base")
    plan = msgspec.structs.replace(
        PLAN, rates=msgspec.structs.replace(PLAN.rates, wrong_worker=0.9)
    )
    slipped = [each for each in lesson(plan, range(12)) if each[2]]
    assert slipped, "nine decisions of ten go to a worker of another role"
    for each in examples(plan, range(12), chat):
        written = chat.decode(each.ids[each.ce > 0])
        assert written.endswith("<|end|>")
    total = sum(len(rollout.steps) for _, rollout, _ in slipped)
    slips = sum(len(turns) for _, _, turns in slipped)
    imitated = sum(
        chat.decode(each.ids[each.ce > 0]).count("<|end|>")
        for each in examples(plan, range(12), chat)
    )
    played = sum(len(rollout.steps) for _, rollout, _ in lesson(plan, range(12)))
    assert imitated == played - slips
    assert slips < total


def test_what_is_read_counts_as_the_plan_says(made: Path) -> None:
    chat = Chat.load(made / "base")
    (one,) = examples(PLAN, range(1), chat, 0.25)
    first = int(np.argmax(one.ce == 1))
    assert one.ce[0] == 0, "nothing stands before the first token"
    assert (one.ce[1:first] == np.float32(0.25)).all()
    assert set(np.unique(one.ce[first:])) <= {np.float32(0), np.float32(1)}
    left = [early(PLAN, step) for step in range(PLAN.sft.steps)]
    assert left == sorted(left, reverse=True)
    assert (left[0], left[-1]) == (1, 0)
    begun = {float(part) for each in examples_of(PLAN, 0, chat) for part in each.ce}
    assert begun == {0.0, float(np.float32(PLAN.sft.context)), 1.0}


def test_stages_go_on_and_end_alike(made: Path, tmp_path: Path) -> None:
    sft = stages.sft(tmp_path / "sft", PLAN, made / "base", processes=0)
    assert [line["step"] for line in lines(tmp_path / "sft" / stages.METRICS)] == [1, 2, 3, 4]
    assert stages.sft(tmp_path / "sft", PLAN, made / "base", processes=0) == sft, "it is done"
    rl = stages.rl(tmp_path / "rl", PLAN, sft)
    told = lines(tmp_path / "rl" / stages.METRICS)
    assert [line["step"] for line in told] == [1, 2]
    assert all(line["rollouts"] == 4 for line in told)
    assert (rl / "model.safetensors").is_file()


def test_a_stage_of_no_steps_is_the_model_that_it_begins_with(made: Path, tmp_path: Path) -> None:
    idle = msgspec.structs.replace(
        PLAN, sft=Sft(steps=0), correction=Correction(steps=0), rl=Rl(steps=0)
    )
    base = made / "base"
    assert stages.sft(tmp_path / "sft", idle, base, processes=0) == base
    assert stages.correction(tmp_path / "correction", idle, base) == base
    assert stages.rl(tmp_path / "rl", idle, base) == base
    assert not list(tmp_path.iterdir()), "nothing is made"


def test_another_plan_needs_another_folder(made: Path) -> None:
    stages.begin(made, PLAN)
    with pytest.raises(Conflict, match="another plan"):
        stages.begin(made, msgspec.structs.replace(PLAN, seed=1))


def test_practice_reinforces_what_was_better_than_its_group() -> None:
    episodes = list(draws(range(4), "train", ("lookup",)))
    right = run(episodes, Oracle(episodes), job="right")
    wrong = [
        msgspec.structs.replace(each, answer="nothing of the kind", run=f"{each.run}-wrong")
        for each in right
    ]
    fed = batch([*right, *wrong], PLAN.rl.reward, scheme(PLAN.rl.scheme))
    assert fed.values["accuracy"] == 0.5
    assert fed.values["flat"] == 0
    assert not fed.examples, "an oracle's tokens are not known"


def test_practice_is_about_right_and_wrong_and_not_about_cents() -> None:
    episodes = list(draws(range(4), "train", ("lookup",)))
    cheap = run(episodes, Oracle(episodes), job="cheap")
    seven = [
        msgspec.structs.replace(each, run=f"{each.run}-{number}")
        for number in range(7)
        for each in cheap
    ]
    dear = [
        msgspec.structs.replace(each, group=like.group)
        for each, like in zip(run(episodes, Strongest(episodes), job="dear"), cheap, strict=True)
    ]
    wrong = [msgspec.structs.replace(each, answer="nothing of the kind") for each in dear]
    told, all_of_it = scheme(PLAN.rl.scheme, PLAN.rl.min_std), scheme(PLAN.rl.scheme)
    flat = [
        batch([*seven, *eighth], PLAN.rl.reward, how).values["flat"]
        for eighth, how in ((dear, told), (wrong, told), (dear, all_of_it))
    ]
    assert flat[:2] == [1, 0]
    assert flat[2] != 1, "there are cents between them"


def test_no_stage_draws_the_episodes_of_another() -> None:
    every = [0, teaching.TEXTS_FROM, practising.FROM, correcting.FROM, tasks.FROM]
    assert all(later - one >= 100 * teaching.SEEDS for one, later in pairwise(every))


def test_an_exam_is_the_same_for_everybody(made: Path) -> None:
    exam = Exam(PLAN, 12, ("seen",))
    (oracle,), (strongest,) = exam.baseline("oracle"), exam.baseline("strongest")
    assert oracle.total.outcomes["accuracy"].keys() == strongest.total.outcomes["accuracy"].keys()
    spent = [report.total.get("cost") for report in (oracle, strongest)]
    assert spent[0] is not None
    assert spent[1] is not None
    assert spent[0].value < spent[1].value
    (untrained,) = exam.model(made / "base", "untrained")
    accuracy = untrained.total.get("accuracy")
    assert accuracy is not None
    assert accuracy.value == 0


def test_what_comes_after_a_teaching_are_lessons_that_it_did_not_have() -> None:
    further = study.more(PLAN, 3)
    after_that = study.more(further, 2)
    stages_ = ((PLAN, PLAN.sft.steps), (further, 3), (after_that, 2))
    given = [
        seed for plan, steps in stages_ for step in range(steps) for seed in batch_of(plan, step)
    ]
    assert len(given) == len(set(given)) == (PLAN.sft.steps + 5) * PLAN.sft.episodes
    assert further.sft.matrix_rate == PLAN.correction.matrix_rate


def test_a_bad_teacher_is_imitated_in_its_slips(made: Path) -> None:
    bad = study.badly(PLAN, study.LENGTHS)
    assert bad.sft.steps < PLAN.sft.steps
    chat = Chat.load(made / "base")
    marked = msgspec.structs.replace(bad, sft=PLAN.sft)
    trained, known = (
        sum(
            chat.decode(each.ids[each.ce > 0]).count("<|end|>")
            for each in examples(plan, range(12), chat)
        )
        for plan in (bad, marked)
    )
    slips = sum(len(turns) for _, _, turns in lesson(marked, range(12)))
    assert slips
    # Of the slips, those can't be said that are no decision.
    assert known < trained <= known + slips


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, results.Study]:
    """A study of one seed, as small as it can be."""
    folder = tmp_path_factory.mktemp("study")
    plan = msgspec.structs.replace(
        PLAN,
        sft=Sft(steps=2, episodes=2, warmup=1),
        rl=Rl(steps=1, groups=2, members=2),
        correction=Correction(steps=1, episodes=2),
    )
    said: list[str] = []
    found = study.study(folder, plan, (0,), 2, sets=("seen",), processes=0, say=said.append)
    assert "seed 0: SFT" in said
    return folder, plan, found


def test_a_study_goes_on_and_shows_every_variant(
    studied: tuple[Path, Plan, results.Study],
) -> None:
    folder, plan, found = studied
    assert set(results.TRAINED) < set(found.variants)
    table = results.as_markdown(found)
    assert all(f"| {name} |" in table for name in found.variants)
    assert f"**{results.DRAWN}**" in table
    gain = results.gained(found, results.SFT_RL, results.SFT, [results.DRAWN])
    assert gain is not None
    assert gain.seeds is None, "of one seed nothing is known of others"
    taught_on = list(lines(folder / "seed-0" / "longer" / stages.METRICS))
    assert len(taught_on) == round(plan.rl.steps * study.LENGTHS.as_long)
    again = study.study(folder, plan, (0,), 2, sets=("seen",), processes=0)
    assert results.as_markdown(again) == table
    for count, sets in ((3, ("seen",)), (2, ("seen", "unseen-pools"))):
        with pytest.raises(Conflict, match="measured in another exam"):
            study.study(folder, plan, (0,), count, sets=sets, processes=0)


def test_what_a_stage_gains_is_known_by_as_many_trainings_as_there_are(
    studied: tuple[Path, Plan, results.Study],
) -> None:
    """Thousands of pairs tell these very models apart, and three trainings little of a fourth."""
    _, _, one = studied

    def outcomes(result: results.Result, gain: float) -> results.Result:
        def made(report: Report) -> Report:
            each = {f"seen/{number}": number % 2 + gain for number in range(500)}
            total = msgspec.structs.replace(report.total, outcomes={"reward": each})
            return msgspec.structs.replace(report, total=total)

        return msgspec.structs.replace(result, reports=tuple(map(made, result.reports)))

    (taught,), (practised,) = one.of(results.SFT), one.of(results.SFT_RL)
    every = [
        msgspec.structs.replace(outcomes(result, gain), seed=seed)
        for seed, more in enumerate((0.01, 0.0, 0.05))
        for result, gain in ((taught, 0.0), (practised, more))
    ]
    found = msgspec.structs.replace(one, results=results.ordered(every))
    gain = results.gained(found, results.SFT_RL, results.SFT, ["seen"])
    assert gain is not None
    assert gain.seeds is not None
    assert gain.pairs.value == pytest.approx(gain.seeds.value) == pytest.approx(0.02)
    assert gain.pairs.low > 0
    assert gain.seeds.low < 0
    assert "| +0.0200 (+0.0" in results.as_markdown(found)


def test_seeds_of_several_studies_are_one_table(
    studied: tuple[Path, Plan, results.Study],
) -> None:
    _, plan, first = studied
    second = msgspec.structs.replace(
        first,
        results=tuple(
            msgspec.structs.replace(each, seed=1) if each.variant in results.TRAINED else each
            for each in first.results
        ),
    )
    assert second.comparable(first)
    both = results.joined(first, [second, first.only(0)])
    assert both.seeds == [0, 1]
    assert [each.seed for each in both.of(results.SFT_RL)] == [0, 1]
    assert len(both.of("oracle")) == 1
    assert both.only(0).results == first.results
    for other in (
        msgspec.structs.replace(first, plan=msgspec.structs.replace(plan, tokens=17)),
        msgspec.structs.replace(first, lengths=results.Lengths(spoiled=3)),
        msgspec.structs.replace(first, results=tuple(map(_cheaper, first.results))),
    ):
        assert not other.comparable(first)


def _cheaper(result: results.Result) -> results.Result:
    """What a baseline does in a gym of other prices."""

    def halved(figure: Figure) -> Figure:
        value = figure.value / 2 if figure.name == "cost" else figure.value
        return msgspec.structs.replace(figure, value=value)

    def told(scores: Scores) -> Scores:
        return msgspec.structs.replace(scores, figures=tuple(map(halved, scores.figures)))

    if result.variant != "serial":
        return result
    reports = (msgspec.structs.replace(r, total=told(r.total)) for r in result.reports)
    return msgspec.structs.replace(result, reports=tuple(reports))


def test_what_is_gained_needs_no_other_outcomes(
    studied: tuple[Path, Plan, results.Study],
) -> None:
    _, _, found = studied
    slim = found.slim()
    assert len(msgspec.json.encode(slim)) < len(msgspec.json.encode(found))
    assert results.as_markdown(slim) == results.as_markdown(found)
    one, other = slim.of(results.CORRECTED)[0], slim.of("strongest")[0]
    whole = found.of(results.CORRECTED)[0], found.of("strongest")[0]
    assert results.cost_beside(one, other, "seen") == results.cost_beside(*whole, "seen")


def test_seeds_that_differ_make_a_wide_interval() -> None:
    middle, low, high = across([0.9, 0.92, 0.94])
    assert middle == pytest.approx(0.92)
    # 4.303 standard errors of 0.02 / sqrt(3), as tables of Student's t have it.
    assert (high - middle, middle - low) == pytest.approx((0.04969, 0.04969), abs=1e-4)


def test_an_interval_over_seeds_holds_nothing_that_cannot_be() -> None:
    def one(seed: int, accuracy: float, cost: float, reward: float) -> results.Result:
        told = {"accuracy": accuracy, "cost": cost, "reward": reward}
        figures = tuple(
            Figure(name=name, value=value, low=value, high=value, n=300)
            for name, value in told.items()
        )
        report = Report(
            total=Scores(policy="student", set="seen", figures=figures), families={}, unscorable=0
        )
        return results.Result(variant=results.SFT, seed=seed, reports=(report,))

    found = [one(0, 0.99, 100.0, 0.01), one(1, 0.7, 9_000.0, 1.0)]
    ends = {}
    for name in ("accuracy", "cost", "reward"):
        known = results.over_seeds(found, "seen", name)
        assert known is not None
        ends[name] = known[1:]
    assert ends["accuracy"] == (0.0, 1.0)
    assert ends["cost"][0] == 0.0
    assert ends["cost"][1] == pytest.approx(4_550 + 12.706 * 4_450, rel=1e-3)
    assert ends["reward"][0] < 0.0 < 1.0 < ends["reward"][1]


def test_seeds_that_are_all_wrong_say_no_more_than_their_episodes() -> None:
    figure = Figure(name="accuracy", value=0.0, low=0.0, high=0.01, n=300)
    total = Scores(policy="student", set="seen", figures=(figure,))
    report = Report(total=total, families={}, unscorable=0)
    found = [results.Result(variant=results.SFT, seed=seed, reports=(report,)) for seed in (0, 1)]
    assert results.over_seeds(found, "seen", "accuracy") == share(0, 300)


def test_costs_are_compared_where_both_are_right() -> None:
    def spending(right: list[float], cost: list[float]) -> results.Result:
        told = {"accuracy": right, "cost": cost}
        outcomes = {
            name: {f"seen/{place}": value for place, value in enumerate(values)}
            for name, values in told.items()
        }
        total = Scores(policy="student", set="seen", figures=(), outcomes=outcomes)
        report = Report(total=total, families={}, unscorable=0)
        return results.Result(variant=results.SFT, seed=0, reports=(report,))

    one = spending([1, 1, 0, 1], [10, 20, 1, 4])
    other = spending([1, 1, 1, 0], [100, 50, 80, 9])
    assert results.cost_beside(one, other, "seen") == pytest.approx(30 / 150)
    assert results.cost_beside(one, spending([0] * 4, [1] * 4), "seen") is None
    assert results.cost_beside(one, other, "unseen-pools") is None


def test_a_plan_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('seed = 3\nfamilies = ["lookup"]\n[sft]\nsteps = 7\n')
    assert load(path) == Plan(seed=3, families=("lookup",), sft=Sft(steps=7))
    path.write_text("[sft]\nstep = 7\n")
    with pytest.raises(InvalidData, match="step"):
        load(path)
