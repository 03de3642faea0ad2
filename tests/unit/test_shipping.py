"""Making the model that is shipped: what is written, how sure it has to be, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.policies.conductor import card
from actors.policies.conductor.network import Network
from protocol.errors import Conflict, NotFound
from trainer.conductor import shipping, stages
from trainer.conductor.exam import Exam
from trainer.conductor.plan import Plan, Rl, load
from trainer.gym import typed
from trainer.gym.typed import Played
from trainer.small import CARD, Shape

PLAN = Plan(
    shape=Shape(layers=1, width=16, heads=2, kv_heads=1, feed_forward=16),
    vocabulary=400,
    texts=10,
    rl=Rl(steps=0),
    reply_tokens=24,
)


TOY = """
vocabulary = 400
texts = 10
families = ["lookup", "wide"]
reply_tokens = 24
device = "cpu"

[shape]
layers = 1
width = 16
heads = 2
kv_heads = 1
feed_forward = 16

[sft]
steps = 3
episodes = 2
warmup = 1

[correction]
steps = 2
episodes = 2

[rl]
steps = 0
"""


def played(sure: float, right: bool, *, mine: bool = True) -> Played:
    return Played(family="lookup", mine=mine, sure=sure, right=right)


def test_the_threshold_is_the_laxest_that_is_right_often_enough() -> None:
    good = [played(-0.01, True)] * 90
    assert typed.threshold(good) == typed.THRESHOLDS[0]
    assert typed.threshold([*good, *[played(-0.06, False)] * 9]) == -0.05
    assert typed.threshold([*good, *[played(-0.06, False, mine=False)] * 9]) == typed.THRESHOLDS[0]
    assert typed.threshold([played(-9.0, False)] * 9) == typed.THRESHOLDS[-1], "it decides nothing"
    assert typed.threshold([]) == typed.THRESHOLDS[-1]
    assert typed.threshold([*good, played(-0.001, False)]) is None


def test_only_what_it_decides_is_counted_as_right() -> None:
    given = [
        played(-0.1, True),
        played(-0.9, True),
        played(-0.1, False),
        played(0, True, mine=False),
    ]
    assert typed.summary(given, -0.5) == {"lookup": {"asked": 4, "taken": 2, "right": 1}}


def test_typed_questions_are_of_the_shipped_pool_and_bring_no_marks() -> None:
    found = typed.typed(range(8), "held-out-questions")
    assert found
    assert all(each.task.inputs == {} for each in found)
    assert {tuple(spec.name for spec in each.pool.workers) for each in found} == {typed.WORKERS}


@pytest.mark.parametrize(("steps", "points"), [(3, 3), (50, 50), (99, 50), (101, 34)])
def test_the_curves_of_a_card_are_thinned_out(tmp_path: Path, steps: int, points: int) -> None:
    (tmp_path / "sft").mkdir()
    rows = [msgspec.json.encode({"step": step}) for step in range(steps)]
    (tmp_path / "sft" / stages.METRICS).write_bytes(b"\n".join(rows) + b"\n")
    found = shipping.curves(tmp_path)
    assert list(found) == ["sft"]
    assert len(found["sft"]) == points <= shipping.CURVE_POINTS
    assert found["sft"][0] == {"step": 0}


def test_what_is_shipped_is_made_by_the_plan_that_is_measured() -> None:
    plan = load(shipping.PLAN)
    assert plan == Plan(seed=plan.seed, rl=Rl(steps=0))
    told = card.told(card.FOLDER)
    assert msgspec.convert(told["plan"], Plan) == plan
    assert told["data"]["corrected"] == plan.correction.steps * plan.correction.episodes
    taught = told["data"]["lessons"] + told["data"]["drilled"]
    assert taught == plan.sft.steps * plan.sft.episodes


def test_the_shipped_card_is_of_the_shipped_pool_and_weights() -> None:
    import hashlib

    known = card.read(card.FOLDER)
    assert known.pool == typed.pool_text()
    assert known.workers == typed.WORKERS
    weights = (card.FOLDER / shipping.WEIGHTS).read_bytes()
    assert known.weights == hashlib.sha256(weights).hexdigest()
    assert set(typed.wordings(range(60))) <= known.wordings


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stages.base(tmp_path_factory.mktemp("made"), PLAN)


def put(made: Path, to: Path, draft: Path, **more: Any) -> Path:
    return shipping.put(made, PLAN, to, draft=draft, **{"asked": 30, "seeds": 2, **more})


@pytest.mark.slow
def test_a_model_is_written_with_its_card(untrained: Path, tmp_path: Path) -> None:
    to = put(untrained, tmp_path / "shipped", tmp_path / "draft", count=2)
    assert {each.name for each in to.iterdir()} == {
        *shipping.FILES,
        shipping.WEIGHTS,
        CARD,
        shipping.WORDINGS,
    }
    assert card.read(to).wordings == set(typed.wordings(range(30)))
    told = card.told(to)
    assert {each["set"] for each in told["exam"]} == {"seen", "held-out-questions", "unseen-pools"}
    assert msgspec.convert(told["plan"], Plan) == PLAN
    assert Network(to).parameters == Network(untrained).parameters


@pytest.mark.slow
def test_one_that_is_right_less_often_than_it_has_to_be_is_refused(tmp_path: Path) -> None:
    to = tmp_path / "shipped"
    with pytest.raises(Conflict, match=r"fewer than 101\.0% are right"):
        put(card.FOLDER, to, tmp_path / "draft", count=2, asked=3_000, seeds=12, target=1.01)
    assert not to.exists()
    assert put(card.FOLDER, to, tmp_path / "draft", count=2, asked=3_000, seeds=12) == to


def test_where_no_model_is_nothing_is_shipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere, to = tmp_path / "nowhere", tmp_path / "shipped"
    assert shipping.main([f"--model={nowhere}", f"--to={to}"]) == NotFound.exit_code
    assert f"{nowhere} has no config.json" in capsys.readouterr().err
    assert not to.exists()


@pytest.mark.slow
def test_one_of_another_gym_is_compared_where_nothing_is_held_out(
    untrained: Path, tmp_path: Path
) -> None:
    to = put(untrained, tmp_path / "shipped", tmp_path / "draft", count=2)
    gym = shipping.gym_of(PLAN)
    assert card.told(to)["gym"] == gym
    exam = Exam(PLAN, 1)
    reports = exam.model(to, "candidate")

    def sets(of: str) -> set[str]:
        return {row.set for row in shipping.compared(exam, to, reports, of).rows}

    assert sets(gym) == {"seen", "held-out-questions", "unseen-pools"}
    assert sets("another") == {"seen"}


@pytest.mark.slow
def test_one_that_does_worse_is_refused_with_the_table(untrained: Path, tmp_path: Path) -> None:
    to = shutil.copytree(card.FOLDER, tmp_path / "shipped")
    before = {each.name: each.read_bytes() for each in to.iterdir()}
    with pytest.raises(Conflict, match=r"(?s)the shipped model stays.*verdict\n.* worse"):
        put(untrained, to, tmp_path / "draft", count=50)
    assert {each.name: each.read_bytes() for each in to.iterdir()} == before


@pytest.mark.slow
def test_the_command_goes_from_a_plan_to_a_shipped_model_and_stops_where_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `make conductor` does, with a toy's plan and few questions."""

    def few(made: Path, plan: Plan, to: Path, **more: Any) -> Path:
        return whole(made, plan, to, **{**more, "asked": 30, "seeds": 2})

    whole = shipping.put
    monkeypatch.setattr(shipping, "put", few)
    plan, work, to = (tmp_path / name for name in ("plan.toml", "work", "shipped"))
    plan.write_text(TOY)
    given = [f"--plan={plan}", f"--work={work}", f"--to={to}", "--count=2"]
    assert shipping.main(given) == 0
    assert f"written to {to}" in capsys.readouterr().err
    told = card.told(to)
    steps = {stage: [line["step"] for line in rows] for stage, rows in told["curves"].items()}
    assert steps == {"sft": [1, 2, 3], "correction": [1, 2]}
    assert msgspec.convert(told["plan"], Plan) == load(plan)
    assert (told["data"]["lessons"] + told["data"]["drilled"], told["data"]["corrected"]) == (6, 4)
    assert told["data"]["drilled"] > 0
    assert Network(to).parameters == Network(work / "correction" / stages.MODEL).parameters
    before = {each.name: each.read_bytes() for each in to.iterdir()}

    def refused(*said: str) -> str:
        assert shipping.main([*given, *said]) == Conflict.exit_code
        assert {each.name: each.read_bytes() for each in to.iterdir()} == before
        return capsys.readouterr().err

    assert "the shipped model stays, since its accuracy is known of too few" in refused()
    plan.write_text(f"seed = 1\n{TOY}")
    assert "holds a conductor of another plan" in refused()
