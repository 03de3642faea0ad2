"""Correction: where the model errs, the teacher's reply is learned in the place of its own."""

from pathlib import Path

import msgspec

from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, View
from protocol.dialects import referable, render
from tests.unit.test_conductor import PLAN, made
from trainer.conductor import practising, stages, teaching
from trainer.conductor.correcting import FROM, MOST, Correcting, corrected
from trainer.conductor.plan import Correction
from trainer.datasets.chat import Chat
from trainer.datasets.conversation import Conversation
from trainer.gym.episodes import draws
from trainer.gym.oracle import Oracle, Spoken
from trainer.gym.play import run
from trainer.gym.teacher import Rates, Teacher, slip_of
from trainer.learner.learner import Learner
from trainer.learner.options import Objective, Options, Steps
from trainer.learner.sinks import lines

__all__ = ["made"]

STUDENT = PolicySpec(name="student", dialect="slots")


def imitated(talk: Conversation) -> dict[int, str]:
    """What is trained, by the question that it answers."""
    return {
        place.turn: talk.messages[place.message]["content"]
        for place in talk.replies
        if place.trained
    }


def test_who_never_errs_is_taught_what_it_said() -> None:
    episodes = list(draws(range(8), "train"))
    for rollout in run(episodes, Spoken(Oracle(episodes, refer=True), STUDENT)):
        (talk,), wrong = corrected(rollout, Oracle(episodes, refer=True))
        assert wrong == 0
        assert imitated(talk) == {step.turn: step.text for step in rollout.steps}


def test_each_slip_is_context_and_the_teachers_reply_stands_in_its_place() -> None:
    episodes = list(draws(range(40), "train"))
    clumsy = Teacher(episodes, Rates(wrong_worker=0.3, early=0.05), refer=True)
    oracle = Oracle(episodes, refer=True)
    seen = most = 0
    for rollout in run(episodes, Spoken(clumsy, STUDENT)):
        better = {
            step.turn: render(
                STUDENT,
                oracle.decision(step.view),
                rollout.pool,
                referable(step.view),
            ).text
            for step in rollout.steps
        }
        slips = [step.turn for step in rollout.steps if step.text != better[step.turn]]
        assert set(slips) <= {step.turn for step in rollout.steps if slip_of(step.version)}
        talks, wrong = corrected(rollout, oracle)
        assert wrong == len(slips)
        told = [pair for talk in talks for pair in imitated(talk).items()]
        assert sorted(told) == sorted(
            (turn, said)
            for turn, said in better.items()
            if turn not in slips or turn in slips[:MOST] or turn in slips[-MOST:]
        )
        seen, most = seen + len(slips), max(most, len(slips))
    assert seen > 10
    assert most > 1


def test_who_has_only_an_answer_left_is_taught_to_give_it() -> None:
    (episode,) = draws([3], "train", ["lookup"])
    aside = PlannedCall(episode.pool.workers[0].name, {"nothing": "of the kind"})

    class Stubborn:
        spec = STUDENT

        def decide(self, _: View) -> Reply:
            return Reply(decision=Decision(calls=(aside,)))

    oracle = Oracle([episode], refer=True)
    (rollout,) = run([episode], Spoken(Stubborn(), STUDENT))
    last = [step for step in rollout.steps if step.view.final]
    assert last
    assert len(rollout.steps) - len(last) > MOST, "it has gone wrong for long"
    talks, _ = corrected(rollout, oracle)
    told = dict(pair for talk in talks for pair in imitated(talk).items())
    every = [step.turn for step in rollout.steps]
    assert sorted(told) == [*every[:MOST], *every[-MOST:]]
    assert all(told[step.turn].startswith("= ") for step in last)


def test_a_step_plays_by_the_weights_as_they_are(made: Path) -> None:
    plan = msgspec.structs.replace(PLAN, correction=Correction(steps=2, episodes=4))
    learner = Learner.open(
        made / "base",
        Options(objective=Objective(per="token"), steps=Steps(rate=0.01, warmup=1)),
        device="cpu",
    )
    chat = Chat.load(made / "base")
    source = Correcting(plan, learner.model, learner.tokenizer, chat)
    fed = source(0)
    assert fed.values["accuracy"] == 0
    assert fed.values["corrected"] == 1, "an untrained model says nothing that a teacher would"
    assert {chat.decode(each.ids[each.ce > 0])[-7:] for each in fed.examples} == {"<|end|>"}
    again = source(0)
    assert [each.ids.tolist() for each in again.examples] == [
        each.ids.tolist() for each in fed.examples
    ]
    learner.step(fed.examples)
    other = source(0)
    assert [each.ids.tolist() for each in other.examples] != [
        each.ids.tolist() for each in fed.examples
    ]


def test_a_stage_of_it_goes_on(made: Path, tmp_path: Path) -> None:
    plan = msgspec.structs.replace(PLAN, correction=Correction(steps=2, episodes=2, warmup=1))
    folder = stages.correction(tmp_path / "correction", plan, made / "base")
    told = lines(tmp_path / "correction" / stages.METRICS)
    assert [line["step"] for line in told] == [1, 2]
    assert all(line["stage"] == "correction" for line in told)
    assert (folder / "model.safetensors").is_file()
    assert stages.correction(tmp_path / "correction", plan, made / "base") == folder


def test_its_episodes_are_nobody_elses() -> None:
    of_all_seeds = 100 * teaching.SEEDS
    assert of_all_seeds <= practising.FROM
    assert practising.FROM + of_all_seeds <= FROM
