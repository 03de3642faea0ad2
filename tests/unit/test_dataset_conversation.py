"""Rollouts as messages: what is trained, what is context, and in which dialect."""

from io import BytesIO

import msgspec
import numpy as np
import pytest

from protocol.decisions import Decision, PlannedCall, PolicySpec
from tests.datasets import (
    CRASHED,
    HERMES,
    MENDED,
    ORACLE,
    REFUSED,
    RIGHT,
    SERIAL,
    Turn,
    ask,
    run_of,
    say,
)
from tests.runs import AT
from trainer.datasets import formats
from trainer.datasets.conversation import Conversation, conversations, removable, reply_message
from trainer.datasets.facts import facts
from trainer.datasets.made import Sample, make
from trainer.datasets.plan import KEPT, Unit, Verdict, plan
from trainer.datasets.scoring import scorer
from trainer.datasets.spec import Format, Preference, Sft, Spec
from trainer.fold import fold
from trainer.gym.episodes import draws
from trainer.gym.play import run
from trainer.gym.teacher import Rates, Teacher, slip_of
from trainer.records import Rollout

OPENAI = PolicySpec(name="openai:gpt-5", dialect="openai")
ENDED = AT + 10_000

NATIVE = Spec(kind="sft", dialect="openai")


def rollout_of(turns: list[Turn], policy: PolicySpec = HERMES, number: int = 1) -> Rollout:
    return fold(run_of(number, turns, policy=policy, tokens=policy.dialect == "hermes"))


def mistakes(rollout: Rollout) -> frozenset[int]:
    return frozenset(step.turn for step in rollout.steps if step.failed)


def shape(talk: Conversation) -> list[tuple[str, int]]:
    return [
        (message["role"], weight)
        for message, weight in zip(talk.messages, talk.weights, strict=True)
    ]


def samples(turns: list[Turn], spec: Spec, policy: PolicySpec = HERMES) -> list[Sample]:
    log = run_of(1, turns, policy=policy, tokens=policy.dialect == "hermes")
    rollout = fold(log)
    known = facts(rollout, 1, None, spec, scorer(spec.reward))
    unit = Unit("k", (Verdict(known, KEPT),))
    return make(unit, {rollout.run: rollout}, spec).samples


@pytest.mark.parametrize("policy", [HERMES, OPENAI, ORACLE])
def test_every_reply_of_a_good_run_is_trained(policy: PolicySpec) -> None:
    rollout = rollout_of(SERIAL, policy)
    speaker = Spec(kind="sft").speaker(policy)
    (talk,) = conversations(speaker, rollout, frozenset())
    said = [weight for role, weight in shape(talk) if role == "assistant"]
    assert said == [1, 1, 1]
    assert talk.messages[-1]["content"] == "2100000"
    assert [place.turn for place in talk.replies] == [1, 2, 3]


@pytest.mark.parametrize(
    ("story", "policy"), [(MENDED, HERMES), (REFUSED, HERMES), (MENDED, OPENAI)]
)
def test_a_mistake_is_context_and_what_mends_it_is_trained(
    story: list[Turn], policy: PolicySpec
) -> None:
    rollout = rollout_of(story, policy)
    (talk,) = conversations(policy, rollout, mistakes(rollout))
    said = [weight for role, weight in shape(talk) if role == "assistant"]
    assert said == [0, 1, 1]


def test_what_a_worker_did_wrong_is_no_mistake_of_the_policys() -> None:
    rollout = rollout_of(CRASHED)
    assert mistakes(rollout) == frozenset()
    (talk,) = conversations(HERMES, rollout, frozenset())
    assert [weight for role, weight in shape(talk) if role == "assistant"] == [1, 1, 1]


@pytest.mark.parametrize("slips", [(), ("gym-teacher-*!*",)])
def test_a_teachers_slips_are_read_and_not_imitated_if_that_is_said(slips: tuple[str, ...]) -> None:
    episodes = list(draws(range(30)))
    spec = Spec(kind="sft", dialect="compact", sft=Sft(slips=slips or msgspec.UNSET))
    kept = late = 0
    for rollout in run(
        episodes, Teacher(episodes, Rates(late=0.5, early=0, wrong_output=0), refer=True)
    ):
        known = facts(rollout, 1, None, spec, scorer(spec.reward))
        made = make(Unit("k", (Verdict(known, KEPT),)), {rollout.run: rollout}, spec)
        imitated = {turn for sample in made.samples for turn in sample.turns}
        slipped = {step.turn for step in rollout.steps if slip_of(step.version) == "late"}
        late += len(slipped)
        kept += len(slipped & imitated)
        assert rollout.steps[-1].turn in imitated
    assert late > 5
    assert kept == (0 if slips else late)


def test_without_the_mistake_it_is_as_if_it_had_never_been() -> None:
    for story in (MENDED, REFUSED):
        rollout, plain = rollout_of(story), rollout_of(RIGHT)
        assert removable(rollout, mistakes(rollout))
        (talk,) = conversations(HERMES, rollout, mistakes(rollout), clean=True)
        (good,) = conversations(HERMES, plain, frozenset())
        assert talk.messages == good.messages
        assert talk.weights == good.weights


def test_a_mistake_of_which_something_came_cannot_be_left_out() -> None:
    half: list[Turn] = [
        (
            ask(("country", {"city": "Paris"}), ("population", {"town": "Paris"})),
            [("OK", "none", "France")],
        ),
        (ask(("population", {"city": "Paris"})), [("OK", "none", 2_100_000)]),
        (say("2100000"), []),
    ]
    rollout = rollout_of(half)
    assert mistakes(rollout) == {1}
    assert not removable(rollout, mistakes(rollout))
    clean = Spec(kind="sft", sft=Sft(views="clean"))
    assert samples(half, clean) == []


def test_an_oracle_teaches_a_model_that_speaks_another_dialect() -> None:
    rollout = rollout_of(RIGHT, ORACLE)
    spec = Spec(kind="sft", dialect="hermes")
    (talk,) = conversations(spec.speaker(ORACLE), rollout, frozenset())
    (own,) = conversations(HERMES, rollout_of(RIGHT), frozenset())
    assert talk.messages == own.messages
    (native,) = conversations(NATIVE.speaker(ORACLE), rollout, frozenset())
    call = native.messages[2]["tool_calls"][0]["function"]
    assert call == {"name": "population", "arguments": '{"city":"Paris"}'}
    assert [tool["function"]["name"] for tool in native.tools] == ["population", "country", "adder"]


def test_a_decision_that_a_dialect_cannot_say_is_found_out() -> None:
    waits = ask(("country", {"city": "Paris"}), ("population", {"city": "Paris"}))
    second = waits.calls[1]
    from msgspec.structs import replace

    planned = replace(waits, calls=(waits.calls[0], replace(second, after=(0,))))
    story: list[Turn] = [(planned, [("OK", "none", "France")])]
    log = run_of(1, [*story, (say("2100000"), [])], policy=ORACLE, tokens=False, ends=False)
    rollout = fold(log)
    assert reply_message(NATIVE.speaker(ORACLE), rollout, rollout.steps[0]) is None
    assert not facts(rollout, 1, None, NATIVE, scorer("accuracy")).sayable


def test_recorded_tokens_have_no_loss_on_a_mistake() -> None:
    (sample,) = samples(REFUSED, Spec(kind="sft"))
    text = bytes(sample.ids[sample.ce > 0].tolist()).decode()
    assert text == (
        '<tool_call>\n{"name": "population", "arguments": {"city":"Paris"}}\n</tool_call>\0'
        "2100000\0"
    )
    assert sample.recovery
    assert b"{broken" in bytes(sample.ids.tolist())
    assert sample.turns == (2, 3)
    assert np.array_equal(sample.mask, sample.ce)


def test_what_a_fork_shares_is_context() -> None:
    rollout = rollout_of(SERIAL)
    shared = [msgspec.structs.replace(each, own=False) for each in rollout.steps[:2]]
    fork = msgspec.structs.replace(rollout, steps=(*shared, rollout.steps[2]))
    for policy in (HERMES, OPENAI):
        (talk,) = conversations(policy, fork, frozenset())
        assert [place.trained for place in talk.replies] == [False, False, True]
    assert not conversations(
        HERMES, msgspec.structs.replace(fork, steps=tuple(shared)), frozenset()
    )


@pytest.mark.parametrize("format_", ["openai", "verl", "trl"])
def test_a_conversation_of_several_rows_of_tokens_is_told_once(format_: Format) -> None:
    rollout = rollout_of(SERIAL)
    *before, last = rollout.steps
    assert last.sampled is not None
    sampled = msgspec.structs.replace(last.sampled, version="000002")
    parted = msgspec.structs.replace(
        rollout, steps=(*before, msgspec.structs.replace(last, sampled=sampled))
    )
    spec = Spec(kind="sft", format=format_, layout="chat" if format_ == "trl" else "auto")
    known = facts(parted, 1, None, spec, scorer(spec.reward))
    found = make(Unit("k", (Verdict(known, KEPT),)), {parted.run: parted}, spec)
    assert [each.turns for each in found.samples] == [(1, 2), (3,)]
    file = BytesIO()
    writer = formats.module(spec).begin(file, spec)
    writer.add(found)
    assert writer.rows == 1


def test_a_learner_takes_rows_as_they_are() -> None:
    (sample,) = samples(RIGHT, Spec(kind="sft"))
    example = sample.example()
    assert example.ce.sum() == sample.mask.sum() > 0
    assert example.pg.sum() == 0
    spec = Spec(kind="rl")
    logs = [run_of(1, RIGHT), run_of(2, REFUSED, rewards={"accuracy": 0.0})]
    rollouts = {log.run: fold(log) for log in logs}
    known = [facts(each, ENDED, None, spec, scorer("accuracy")) for each in rollouts.values()]
    (unit,) = plan(known, spec)
    good, bad = make(unit, rollouts, spec).samples
    assert good.advantage is not None
    assert bad.advantage is not None
    assert good.advantage > 0 > bad.advantage
    assert good.advantage == pytest.approx(-bad.advantage)
    trained = bad.example()
    assert trained.pg.sum() == trained.pg[bad.mask > 0].sum() == bad.mask.sum()
    assert set(trained.advantages.tolist()) == {np.float32(bad.advantage)}
    assert b"{broken" in bytes(bad.ids[bad.mask > 0].tolist()), "a mistake is trained against"


@pytest.mark.parametrize(
    ("compared", "size"), [(Preference(), 1), (Preference(completion="rest"), 3)]
)
def test_a_pair_is_two_replies_to_one_prompt(compared: Preference, size: int) -> None:
    spec = Spec(kind="preference", preference=compared)
    logs = [run_of(1, RIGHT), run_of(2, [(say("no idea"), [])])]
    rollouts = {log.run: fold(log) for log in logs}
    known = [facts(each, ENDED, None, spec, scorer("accuracy")) for each in rollouts.values()]
    (unit,) = plan(known, spec)
    (pair,) = make(unit, rollouts, spec).pairs
    assert [message["role"] for message in pair.prompt] == ["system", "user"]
    assert len(pair.chosen) == size
    assert pair.rejected == [{"role": "assistant", "content": "no idea"}]
    assert (pair.reward_chosen, pair.reward_rejected) == (1.0, 0.0)


def test_ids_that_a_server_gives_calls_make_no_two_replies_of_one() -> None:
    """Two runs ask for the same, under other ids, and part at what they say then."""
    spec = Spec(kind="preference")

    def asked(ref: str, answer: str) -> list[Turn]:
        call = PlannedCall("population", {"city": "Paris"}, ref=ref)
        return [(Decision(calls=(call,)), [("OK", "none", 2_100_000)]), (say(answer), [])]

    logs = [
        run_of(number, asked(ref, answer), policy=OPENAI, tokens=False)
        for number, (ref, answer) in enumerate([("call_a", "2100000"), ("call_b", "no idea")], 1)
    ]
    rollouts = {log.run: fold(log) for log in logs}
    known = [facts(each, ENDED, None, spec, scorer("accuracy")) for each in rollouts.values()]
    (unit,) = plan(known, spec)
    (pair,) = make(unit, rollouts, spec).pairs
    assert pair.chosen == [{"role": "assistant", "content": "2100000"}]
    assert pair.rejected == [{"role": "assistant", "content": "no idea"}]
    assert [message["role"] for message in pair.prompt] == ["system", "user", "assistant", "tool"]


def test_what_a_clean_view_points_at_is_numbered_as_it_shows_it() -> None:
    """The compact dialect counts calls, and one that is left out is not among them."""
    compact = PolicySpec(name="local:small", dialect="compact")
    turns: list[Turn] = [
        ("@9 Paris", []),
        ("@1 Paris", [("OK", "none", 2_100_000)]),
        ("= #2", []),
    ]
    own = fold(run_of(1, turns, policy=compact, tokens=False))
    wrong = mistakes(own)
    assert len(wrong) == 1
    (full,) = conversations(compact, own, wrong)
    assert [each["content"] for each in full.messages if each["role"] == "assistant"] == [
        "@9 Paris",
        "@1 Paris",
        "= #2",
    ]
    (clean,) = conversations(compact, own, wrong, clean=True)
    assert [each["content"] for each in clean.messages[2:]] == [
        "@1 Paris",
        "#1 OK 2100000",
        "= #1",
    ]
