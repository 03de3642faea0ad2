"""What holds of every dialect: totality, canonical prompts, workers by number."""

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from protocol.actions import Pool, WorkerSpec
from protocol.decisions import Decision, Dialect, Naming, PlannedCall, Rejection, Reply, Turn, View
from protocol.dialects import parse, prompt, prompt_hash, render, request
from protocol.limits import MAX_REPLY_BYTES
from tests.words import (
    ARGUMENTS,
    CALLS,
    LOOKUP,
    POOL,
    REPLIES,
    TEXT,
    plans,
    policy,
    seen,
    view,
)

MODELS: tuple[Dialect, ...] = ("openai", "hermes", "lists")
NAMINGS: tuple[Naming, ...] = ("names", "numbers")

REFERRED = st.builds(
    lambda call, ref: PlannedCall(call.worker, call.arguments, ref=ref), CALLS, TEXT
)

each = pytest.mark.parametrize("dialect", MODELS)
each_naming = pytest.mark.parametrize("naming", NAMINGS)


@each
@each_naming
@given(reply=REPLIES)
def test_any_reply_is_a_decision_or_a_rejection(
    dialect: Dialect, naming: Naming, reply: Reply
) -> None:
    parsed = parse(policy(dialect, naming), reply, POOL)
    assert isinstance(parsed, Decision | Rejection)
    assert msgspec.json.decode(msgspec.json.encode(parsed), type=type(parsed)) == parsed
    if isinstance(parsed, Decision):
        assert (bool(parsed.calls), parsed.answer is not None, parsed.accepts).count(True) == 1


@each
@each_naming
@given(reply=REPLIES)
def test_what_was_parsed_is_parsed_again_from_its_rendering(
    dialect: Dialect, naming: Naming, reply: Reply
) -> None:
    spec = policy(dialect, naming)
    parsed = parse(spec, reply, POOL)
    if isinstance(parsed, Decision) and not (parsed.answer and "<" in parsed.answer):
        assert parse(spec, render(spec, parsed, POOL), POOL) == parsed


@pytest.mark.parametrize("dialect", ["openai", "hermes"])
@each_naming
@given(
    decision=st.one_of(
        st.builds(Decision, calls=st.lists(REFERRED, min_size=1, max_size=4).map(tuple)),
        st.builds(
            Decision, answer=TEXT.filter(lambda text: bool(text.strip()) and "<" not in text)
        ),
    )
)
def test_calls_and_answers_survive(dialect: Dialect, naming: Naming, decision: Decision) -> None:
    spec = policy(dialect, naming)
    assert parse(spec, render(spec, decision, POOL), POOL) == decision


@each_naming
@given(decision=plans() | st.just(Decision(last_answers=True)))
@example(decision=Decision(calls=(PlannedCall("table", {"": ""}),), last_answers=True))
def test_plans_survive(naming: Naming, decision: Decision) -> None:
    spec = policy("lists", naming)
    assert parse(spec, render(spec, decision, POOL), POOL) == decision


@each
@each_naming
@given(worker=st.sampled_from(POOL.workers), arguments=ARGUMENTS)
def test_a_round_is_shown_alike_after_its_bytes_were_read(
    dialect: Dialect, naming: Naming, worker: WorkerSpec, arguments: dict[str, object]
) -> None:
    turn = Turn("I think.", (seen("1-0", worker.name, {"b": 1, "a": 2}, arguments=arguments),))
    shown = view(turn)
    again = msgspec.json.decode(msgspec.json.encode(shown), type=View)
    spec = policy(dialect, naming)
    assert prompt(spec, shown) == prompt(spec, again)
    assert prompt_hash(spec, shown) != prompt_hash(spec, view())


@each
def test_a_reply_beyond_the_limit_is_rejected_with_the_cure(dialect: Dialect) -> None:
    parsed = parse(policy(dialect), Reply(text="x" * (MAX_REPLY_BYTES + 1)), POOL)
    assert isinstance(parsed, Rejection)
    assert parsed.reason == "too_large"
    assert "Make fewer calls" in parsed.detail


@pytest.mark.parametrize("dialect", ["hermes", "lists"])
def test_a_text_and_its_calls_have_to_fit_into_the_log_together(dialect: Dialect) -> None:
    calls = (PlannedCall("gpt-5_expert", {"subtask": "x" * (MAX_REPLY_BYTES * 2 // 3)}),)
    spec = policy(dialect)
    parsed = parse(spec, render(spec, Decision(calls=calls), POOL), POOL)
    assert isinstance(parsed, Rejection)
    assert parsed.reason == "too_large"


@each
def test_a_job_of_ones_own_stands_in_place_of_the_dialects(dialect: Dialect) -> None:
    told = request(policy(dialect, system="You are Ada's conductor."), view())["messages"][0]
    usual = request(policy(dialect), view())["messages"][0]
    assert told["role"] == "system"
    assert told["content"].startswith("You are Ada's conductor.")
    assert "You are the conductor of a run" in usual["content"]
    assert "You are the conductor of a run" not in told["content"]


# ------------------------------------------------------------------------------ workers by number


@each
def test_numbered_workers_have_neither_names_nor_models(dialect: Dialect) -> None:
    turn = Turn(observations=(seen("1-0", "lookup"), seen("1-1", "gpt-5_expert")))
    shown = prompt(policy(dialect, "numbers"), view(turn)).decode().lower()
    assert "gpt-5" not in shown
    assert "lookup" not in shown
    assert "gpt-5_expert" in prompt(policy(dialect), view(turn)).decode()


@pytest.mark.parametrize(("dialect", "name"), [("openai", "worker_2"), ("hermes", "worker_2")])
def test_a_number_is_the_workers_place_in_the_pool(dialect: Dialect, name: str) -> None:
    spec = policy(dialect, "numbers")
    alias = Decision(calls=(PlannedCall(name, {}),))
    said = render(policy(dialect), alias, POOL)
    assert parse(spec, said, POOL) == Decision(calls=(PlannedCall("gpt-5_expert", {}),))
    assert parse(policy(dialect), said, POOL) == alias


def test_a_number_of_no_worker_stays_what_it_is() -> None:
    said = render(policy("hermes"), Decision(calls=(PlannedCall("worker_9", {}),)), POOL)
    parsed = parse(policy("hermes", "numbers"), said, POOL)
    assert parsed == Decision(calls=(PlannedCall("worker_9", {}),))


def test_a_worker_that_is_named_like_another_ones_number() -> None:
    pool = Pool((WorkerSpec(name="worker_2"), WorkerSpec(name="worker_1"), LOOKUP))
    spec = policy("openai", "numbers")
    for worker in pool.workers:
        decision = Decision(calls=(PlannedCall(worker.name, {}),))
        assert parse(spec, render(spec, decision, pool), pool) == decision
    first = Decision(calls=(PlannedCall("worker_1", {}),))
    parsed = parse(spec, render(policy("openai"), first, pool), pool)
    assert parsed == Decision(calls=(PlannedCall("worker_2", {}),))


def test_a_description_keeps_words_that_only_contain_the_name() -> None:
    worker = WorkerSpec(name="sum", description="A sum, SUM or summary; sums? The sum.")
    body = request(policy("openai", "numbers"), view(pool=Pool((worker,))))
    described = body["tools"][0]["function"]["description"]
    assert described == "A worker_1, worker_1 or summary; sums? The worker_1."
