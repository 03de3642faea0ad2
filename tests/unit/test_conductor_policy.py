"""The policy that asks the shipped model where it was trained for it, and the rules else."""

import asyncio
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import policies
from actors.policies.conductor import BY_RULES, ConductorPolicy
from actors.policies.conductor.card import FOLDER, read
from actors.policies.conductor.marking import Marked, Unmarked, in_a_row, marked
from actors.policies.conductor.network import Network
from actors.policies.conductor.policy import (
    MAX_TURNS,
    NO_NUMPY,
    Not,
    Said,
    doubt,
    worded,
)
from actors.policies.conductor.words import Words
from actors.policies.rules import RulesPolicy
from protocol.actions import Call, Json, Pool, WorkerSpec
from protocol.decisions import (
    Decision,
    Observation,
    PlannedCall,
    Rejection,
    Reply,
    Task,
    Turn,
    View,
)
from protocol.dialects import prompt_hash
from protocol.errors import InvalidData
from tests.offline_questions import FRANCE, GERMANY, QUESTIONS
from tests.offline_runs import POOL, run

KNOWN = read(FOLDER).wordings
POLICY = ConductorPolicy()
ASKED = "What is the population of France?"
TOTAL = "What is the combined population of France and Germany?"
WITHIN_S = 60.0
"""Seconds for one decision, on a busy machine."""


def view(text: str, turns: tuple[Turn, ...] = (), pool: Pool = POOL, **inputs: Json) -> View:
    return View(run="r", task=Task(text=text, inputs=inputs), pool=pool, turns=turns)


def turn(reply: Reply, values: list[Any], number: int = 1, status: Any = "OK") -> Turn:
    assert reply.decision is not None
    seen = tuple(
        Observation(
            call=Call(id=f"{number}-{at}", worker=call.worker, arguments=call.arguments),
            status=status,
            value=value,
        )
        for at, (call, value) in enumerate(zip(reply.decision.calls, values, strict=True))
    )
    return Turn(text=reply.text, observations=seen)


def fact(value: Json, name: str = "France") -> Json:
    return {"country": name, "fact": "population", "value": value, "unit": "people"}


def decided(reply: Reply) -> Decision:
    assert reply.decision is not None
    return reply.decision


# ----------------------------------------------------------------------------------------- marking


@pytest.mark.parametrize(
    ("text", "entities"),
    [
        (ASKED, ("France",)),
        ("population of france", ("France",)),
        ("Report France's currency.", ("France",)),
        ("Multiply the population of Chad by 1,000", ("Chad", "1000")),
        ("What is the area of Chad divided by 7, to 2 decimals?", ("Chad", "7")),
        ("ISO code of Norway", ("Norway",)),
        ("Average population of Trinidad and Tobago, the USA and Chad",
         ("Trinidad and Tobago", "USA", "Chad")),
        ("Find me the capital of the country of Rio de Janeiro", ("Rio de Janeiro",)),
    ],
)  # fmt: skip
def test_names_and_numbers_are_marked_in_their_order(text: str, entities: tuple[str, ...]) -> None:
    found = marked(text, KNOWN)
    assert isinstance(found, Marked)
    assert found.entities == entities
    assert [found.text.count(each) for each in entities] == [1] * len(entities)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello!",
        "Which is larger by area, Chad or Niger?",
        "Is Paris the capital of France?",
        "What is the population of France in 1990?",
        "What is the GDP of France?",
        'What is the population of "France"?',
        "What is the population of France divided by that of France?",
        "What is 17 * (3 + 4)?",
        "Run this Python: print(2 ** 10)",
        "What is the largest city of France?",
        "population of " + ", ".join(f"Xville {chr(65 + n)}town" for n in range(9)),
        "word " * 500,
    ],
    ids=lambda text: text[:40],
)
def test_what_is_worded_otherwise_is_not_taken(text: str) -> None:
    assert isinstance(marked(text, KNOWN), Unmarked)


@given(st.text(max_size=300) | st.lists(st.sampled_from(
    ["population", "of", "France", "the", "12", "1,000", ",", "'s", "São Paulo", "and", "\x1c", "²"]
), max_size=20).map(" ".join))  # fmt: skip
def test_marking_is_total_and_always_the_same(text: str) -> None:
    found = marked(text, KNOWN)
    assert found == marked(text, KNOWN)
    if isinstance(found, Marked):
        places = [found.text.index(each) for each in found.entities]
        assert places == sorted(places)
        assert in_a_row(found.text, found.entities) <= KNOWN


# ------------------------------------------------------------------------------------- its numbers


def test_its_logits_are_the_librarys() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="float32").eval()
    network = Network(FOLDER)
    ids = np.random.default_rng(5).integers(5, 1_500, 90).tolist()
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(network.logits(ids), expected, atol=1e-4)
    kept: Any = [None] * len(network._weights)
    parts = [network.logits(ids[a:b], kept) for a, b in ((0, 60), (60, 61), (61, 90))]
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-4)


def test_it_writes_what_the_library_writes() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="float32").eval()
    network, words = Network(FOLDER), Words(FOLDER)
    prompt = words.prompt([{"role": "user", "content": "@1 the area of a country\nArea of $1?"}])
    said = network.write(prompt, 40)
    made = model.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False)
    assert list(said.ids) == [each for each in made[0, len(prompt) :].tolist() if each != 1]
    assert len(said.logprobs) == len(said.ids) + said.ended


_SPELLED = st.sampled_from(
    ["@1", "#12", "#123", "$1", " OK", "FINAL", "XFINAL", "<|end|>", "é", "\uff11", "²", "一", "'s",
     "\x1c", "\u2028", "  ", "\n", "_", "n't", "123", "\U0001f600", "e\u0301"]
)  # fmt: skip


_KNOWN = st.text(st.characters(exclude_categories=["Cn", "Cs"]), max_size=60)
"""Without what this Python's Unicode doesn't know, and a later one may: the library has its own."""


@settings(max_examples=200)
@given(_KNOWN | st.lists(_SPELLED | _KNOWN.map(lambda text: text[:4]), max_size=12).map("".join))
def test_texts_are_cut_as_the_library_cuts_them(text: str) -> None:
    assert words().ids(text) == cut_by_the_library(text)


def words() -> Words:
    return POLICY._model[1]


_LIBRARY: list[Any] = []


def cut_by_the_library(text: str) -> list[int]:
    from tokenizers import Tokenizer

    if not _LIBRARY:
        _LIBRARY.append(Tokenizer.from_file(str(FOLDER / "tokenizer.json")))
    for token in words().control:
        text = text.replace(token, f"{token[:1]} {token[1:]}")
    ids: list[int] = _LIBRARY[0].encode(text, add_special_tokens=False).ids
    return ids


def test_conversations_are_written_as_the_models_template_has_them() -> None:
    from transformers import AutoTokenizer

    talk = [
        {"role": "system", "content": " @1 the area of a country"},
        {"role": "user", "content": "Area of $1?\n"},
        {"role": "assistant", "content": "@1 $1"},
        {"role": "user", "content": "#1 OK 12 <|end|>"},
    ]
    library = AutoTokenizer.from_pretrained(FOLDER)
    plain = [{**each, "content": each["content"].replace("<|end|>", "< |end|>")} for each in talk]
    made = library.apply_chat_template(plain, add_generation_prompt=True, return_dict=False)
    assert words().prompt(talk) == made


@given(st.text(max_size=60))
def test_what_is_cut_spells_the_same(text: str) -> None:
    plain = text.encode("utf-8", "replace").decode()
    if not any(token in plain for token in words().control):
        assert words().text(words().ids(plain)) == plain


def test_without_room_for_a_reply_there_is_none() -> None:
    network = Network(FOLDER)
    said = network.write([5] * network.context, 40)
    assert said == ((), (), False)


def test_without_numpy_the_rules_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    reply = ConductorPolicy().reply(view(ASKED))
    assert reply.text.startswith(f"{BY_RULES}{NO_NUMPY}")
    assert reply.decision == RulesPolicy().decide(view(ASKED)).decision


def test_a_folder_that_is_none_is_refused(tmp_path: Any) -> None:
    for what in (Network, Words, read):
        with pytest.raises(InvalidData):
            what(tmp_path)
    reply = ConductorPolicy(tmp_path).reply(view(ASKED))
    assert reply.text.startswith(f"{BY_RULES}the card in ")
    assert reply.version == "rules-1"


# -------------------------------------------------------------------------------------- who decides


async def test_the_model_decides_what_it_was_trained_on() -> None:
    reply = await POLICY.ask(view(ASKED))
    assert reply.version.startswith("conductor-2@")
    assert reply.version == POLICY.version
    [call] = decided(reply).calls
    assert (call.worker, call.arguments) == ("country", {"name": "France", "fact": "population"})
    assert reply == POLICY.reply(view(ASKED))


async def test_it_takes_no_thread_that_others_wait_for() -> None:
    loop, free = asyncio.get_running_loop(), threading.Event()
    with ThreadPoolExecutor(1) as others:
        loop.set_default_executor(others)
        held = loop.run_in_executor(None, free.wait)
        try:
            async with asyncio.timeout(WITHIN_S):
                reply = await POLICY.ask(view(ASKED))
        finally:
            free.set()
            await held
    assert reply.version == POLICY.version


def test_marks_that_a_task_brings_are_taken() -> None:
    said = POLICY.said(view("Head count of Freedonia", entities=["Freedonia"]))
    assert isinstance(said, Said)
    assert said.decision.calls[0].arguments["name"] == "Freedonia"


def test_its_answer_is_worded_by_the_rules_where_they_agree() -> None:
    first = POLICY.reply(view(ASKED))
    after = view(ASKED, (turn(first, [fact(FRANCE)]),))
    assert decided(POLICY.reply(after)).answer == f"The population of France is {FRANCE:,} people."
    assert decided(POLICY.reply(after, plain=True)).answers == "${output:1-0}"


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (view("Which is larger by area, Chad or Niger?"), "nothing that was learned is worded so"),
        (view(ASKED, year=2020), "the task brings data of its own"),
        (view(ASKED, pool=Pool(POOL.workers[:2])), "the pool lacks workers"),
        (
            view(ASKED, pool=Pool(tuple(
                msgspec.structs.replace(each, description="does what it likes")
                for each in POOL.workers
            ))),
            "the pool lacks workers",
        ),
    ],
)  # fmt: skip
def test_else_the_rules_decide_and_it_says_why(shown: View, why: str) -> None:
    reply = POLICY.reply(shown)
    rules = RulesPolicy().decide(shown)
    assert reply.decision == rules.decision
    assert reply.version == rules.version
    assert reply.text.startswith(f"{BY_RULES}{why}")


def test_workers_that_it_does_not_know_are_not_shown_to_it() -> None:
    more = Pool((WorkerSpec(name="python"), *POOL.workers, WorkerSpec(name="mine")))
    assert POLICY.said(view(ASKED, pool=more)) == POLICY.said(view(ASKED))


def test_a_model_that_is_never_sure_leaves_all_to_the_rules() -> None:
    said = ConductorPolicy(threshold=0.1).said(view(ASKED))
    assert said == Not("the model is not sure")


# ------------------------------------------------------------------------------------- in mid-run


def test_the_rules_go_on_with_what_the_model_has_found() -> None:
    first = POLICY.reply(view(TOTAL))
    assert first.version == POLICY.version
    odd = msgspec.structs.replace(turn(first, [fact(FRANCE), fact(GERMANY, "Germany")]), text="")
    reply = POLICY.reply(view(TOTAL, (odd,)))
    assert reply.text.startswith(f"{BY_RULES}the model has given up before")
    [call] = decided(reply).calls
    assert call.worker == "calculator"
    assert call.arguments == {"expression": f"{FRANCE} + {GERMANY}"}


@pytest.mark.parametrize("status", ["EXEC_ERR", "TIMEOUT"])
def test_what_a_worker_refuses_goes_to_the_rules(status: str) -> None:
    first = POLICY.reply(view(ASKED))
    whether_sure_or_not = ConductorPolicy(threshold=-9.0)
    reply = whether_sure_or_not.reply(view(ASKED, (turn(first, ["no"], status=status),)))
    assert ("a worker has refused" in reply.text) == (status == "EXEC_ERR")


def test_a_refused_reply_ends_the_models_turn() -> None:
    refused = Turn(text="@1 $1", rejection=Rejection("malformed", "line 1"))
    assert POLICY.reply(view(ASKED, (refused,))).version == "rules-1"


def test_where_an_answer_is_wanted_it_makes_no_calls() -> None:
    last = msgspec.structs.replace(view(ASKED), final=True)
    reply = POLICY.reply(last)
    assert isinstance(POLICY.said(last), Not)
    assert not decided(reply).calls
    assert reply.decision == RulesPolicy().decide(last).decision


def found(*calls: tuple[str, Json], number: int = 1) -> tuple[Turn, ...]:
    """A turn in which expressions were worked out."""
    seen = tuple(
        Observation(
            call=Call(
                id=f"{number}-{at}", worker="calculator", arguments={"expression": expression}
            ),
            status="OK",
            value=value,
        )
        for at, (expression, value) in enumerate(calls)
    )
    return (Turn(observations=seen),)


@pytest.mark.parametrize(
    ("marks", "expression", "left"),
    [
        (["7", "1"], "7 * 2", "1"),
        (["7", "2"], "7 * 12", "2"),
        (["7", "2"], "7 * 2.5", "2"),
        (["7", "1"], "7 * 1", ""),
        (["7", "1"], "7*1, 3", ""),
    ],
)
def test_what_is_marked_has_to_be_asked_about(marks: list[str], expression: str, left: str) -> None:
    calls = (("${output:0-1} + " + expression, 14),)
    shown = view("", found(*calls), entities=list(marks))
    why = doubt(Decision(answers="${output:1-0}"), shown)
    assert why == (f"the model leaves out {left}" if left else "")


COUNTED = PlannedCall("country", {"name": "France", "fact": "population"})


@pytest.mark.parametrize(
    ("decision", "why"),
    [
        (Decision(calls=(COUNTED,)), ""),
        (Decision(calls=(COUNTED,), answers="${output:1-0}"), "the model answers before it has"),
        (Decision(calls=(PlannedCall("nobody", {}),)), "the model asks for what no worker does"),
        (Decision(calls=(PlannedCall("city", {}),)), "the model asks for what no worker does"),
        (Decision(calls=(PlannedCall("calculator", {"expression": "1 + 1"}),)), "the model asks a"),
        (Decision(answer="Rather many."), "the model's answer is no output"),
        (Decision(answers="${output:1-0}"), "the model leaves out what call 1-1 gave"),
        (Decision(answers="${output:1-0}${output:1-1}"), "the model leaves out France"),
    ],
)
def test_what_does_not_hold_together_is_not_followed(decision: Decision, why: str) -> None:
    shown = view("", found(("1 + 1", 2), ("1 + 2", 3)), entities=["France"])
    assert doubt(decision, shown).startswith(why)
    assert bool(doubt(decision, shown)) == bool(why)


def test_the_rules_word_no_value_that_only_stands_within_theirs() -> None:
    first = POLICY.reply(view(ASKED))
    shown = view(ASKED, (turn(first, [fact(1_234)]), *found(("1 + 1", 234), number=2)))
    whole, part = Decision(answers="${output:1-0}"), Decision(answers="${output:2-0}")
    assert worded(whole, shown).answer == "The population of France is 1,234 people."
    assert worded(part, shown) == part


def test_it_never_goes_on_for_ever() -> None:
    first = POLICY.reply(view(ASKED))
    many = tuple(turn(first, ["late"], number, "TIMEOUT") for number in range(1, MAX_TURNS + 3))
    assert POLICY.said(view(ASKED, many)) == Not("the model found no end")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([ASKED, TOTAL, "x", "@1 $1", "= #1", ""]), max_size=3), st.booleans()
)
def test_a_reply_is_always_a_decision(texts: list[str], final: bool) -> None:
    shown = view(ASKED, tuple(Turn(text=text) for text in texts))
    reply = POLICY.reply(msgspec.structs.replace(shown, final=final))
    assert reply.decision is not None


def test_it_is_shown_the_view_that_the_log_gives() -> None:
    first, again = view(ASKED), view(ASKED)
    assert prompt_hash(POLICY.spec, first) == prompt_hash(POLICY.spec, again)
    assert policies.find("conductor").spec == POLICY.spec


# ------------------------------------------------------------------------------------- whole runs


def test_whole_runs_answer_in_sentences_by_either() -> None:
    mine, rules = run([TOTAL, "How big is Peru?"], POLICY)
    assert f"{FRANCE + GERMANY:,}" in mine.answer
    assert {step.version for step in mine.steps} == {POLICY.version}
    assert {step.version for step in rules.steps} == {"rules-1"}
    assert "1,285,220" in rules.answer


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("What is the population of the capital of Costa Rica?", "335,007"),
        ("What is the time zone of the capital of Seychelles?", "Indian/Mahe"),
        ("What percentage of the people of Costa Rica live in its capital?", "can't plan"),
        ("What percentage of the people of France live in its capital, to two places?", "3.19"),
        ("What is the time zone of India?", "only cities have one"),
        ("What is the country of Mexico?", "can't plan"),
        ("What is the population of the city of Luxembourg?", "76,684"),
        (
            "What is the population of France and Germany?",
            f"{FRANCE:,} people. The population of G",
        ),
        (
            "For France and Spain, what is the population?",
            f"{FRANCE:,} people. The population of S",
        ),
        ("What is the population density of Chad and Mali?", "15.39 people per km²"),
    ],
)
def test_the_rules_decide_where_they_know_better(text: str, part: str) -> None:
    (found,) = run([text], POLICY)
    assert part in found.answer


@pytest.mark.slow
def test_it_answers_every_question_of_the_rules_as_rightly_as_they_do() -> None:
    texts = [text for text, _, _ in QUESTIONS]
    both = zip(QUESTIONS, run(texts, POLICY), run(texts, RulesPolicy()), strict=True)
    mine = 0
    for (text, _, parts), one, other in both:
        for part in parts:
            if part in other.answer:
                figures = re.findall(r"\d[\d,]*(?:\.\d+)?", part)
                said = figures[-1].replace(",", "") if figures else part
                assert said in one.answer.replace(",", ""), text
        mine += {step.version for step in one.steps} == {POLICY.version}
    assert mine >= 10
