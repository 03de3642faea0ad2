"""Checks: what an answer has to be, the numbers in a text, and checks that need somebody."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ports import Outcome
from protocol.decisions import Task
from protocol.errors import InvalidData, NotFound, Unreachable
from tests.trees import rewarded, rollout, step
from trainer.rewards import Exact, Number, check_of, judged, missing, right
from trainer.rewards.checks import read
from trainer.rewards.judging import verdict
from trainer.rewards.numbers import numbers

PARIS = Exact(answer="Paris", also=("Paris, France",), wrong=("Lyon",))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Paris", True),
        ("  paris! ", True),
        ("The capital is **Paris**.", True),
        ("PARÍS", True),
        ("Paris, France", True),
        ("Parisian", False),
        ("Lyon", False),
        ("Paris, not Lyon", True),
        ("Lyon or Paris", False),
        ("", False),
        ("word " * 30 + "Paris", False),
    ],
)
def test_an_exact_answer_may_be_written_in_many_ways(answer: str, expected: bool) -> None:
    assert right(PARIS, answer) is expected


def test_words_have_to_stand_together_and_in_order() -> None:
    check = Exact(answer="São Tomé and Príncipe")
    assert right(check, "It is SAO TOME AND PRINCIPE, in Africa.")
    assert not right(check, "Principe and Sao Tome")
    assert not right(check, "Sao Tome")
    assert right(Exact(answer="+", around=0), " + ")
    assert not right(Exact(answer="+"), "-")
    assert not right(Exact(answer="Paris", around=0), "It is Paris")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("67,391,582", [67391582.0]),
        ("67 391 582 people", [67391582.0]),
        ("67.391.582 Einwohner", [67391582.0]),
        ("67'391'582.5", [67391582.5]),
        ("1.234,56 €", [1234.56]),
        ("5,89", [5.89]),
        ("1,234", [1234.0]),
        ("0,125 and 0,5", [0.125, 0.5]),
        ("Lyon - 42", [42.0]),
        ("- 42", [42.0]),
        ("10 - 3 = 7", [10.0, 3.0, 7.0]),
        ("−3 to 4", [-3.0, 4.0]),
        ("-$5.50", [-5.5]),
        ("1.2e6, 1.2 × 10^6, 1.2·10⁶", [1.2e6, 1.2e6, 1.2e6]),
        ("67.4 million", [67.4e6]),
        ("from 3-5", [3.0, 5.0]),
        ("1, 2,3", [1.0, 2.3]),
        ("Q3, km², GPT-5, 1.2.3, 1st", []),
        ("about 5.89.", [5.89]),
        ("٣٤", [34.0]),
        ("1e999", []),
        ("none", []),
    ],
)
def test_numbers_as_people_write_them(text: str, found: list[float]) -> None:
    assert [each.value for each in numbers(text)] == found


SEPARATORS = st.sampled_from([",", " ", "\u202f", "\u00a0", "'", "_", ""])
AROUND = st.sampled_from(["", "The answer is {}.", "**{}**", "({})", "≈ {} km²", "x = {}", "${}"])


@given(
    st.integers(-(10**12), 10**12),
    st.integers(0, 999),
    SEPARATORS,
    AROUND,
    st.sampled_from(["", "-"]),
)
def test_any_number_is_found_however_it_is_grouped(
    whole: int, thousandths: int, by: str, around: str, minus: str
) -> None:
    value = abs(whole) + thousandths / 1_000
    text = minus + f"{value:,.3f}".replace(",", by)
    (found,) = numbers((around or "{}").format(text))
    assert found.value == pytest.approx(-value if minus else value, rel=1e-12)


@given(st.text(alphabet="0123456789,.-+eE×^ '%_k⁶٣\u202f", max_size=60) | st.text(max_size=60))
def test_numbers_of_any_text_are_finite_and_no_error(text: str) -> None:
    assert all(abs(each.value) < float("inf") for each in numbers(text))
    right(Number(answer=1.0), text)
    right(PARIS, text)


@pytest.mark.parametrize("part", ["111,", "1 ", "1.111", "9", "'111", "-", "1e", "111.111,", "⁶"])
def test_long_texts_take_no_longer_than_they_are(part: str) -> None:
    assert len(list(numbers(part * 200_000))) <= 20_000


@pytest.mark.parametrize(
    ("answer", "tolerance", "text", "expected"),
    [
        (5.89, 0.005, "5.9", True),
        (5.89, 0.005, "5.8", False),
        (5.89, 0.005, "France has 67 million and Belgium 11: that is 5.89", True),
        (5.89, 0.005, "5.89 (67391582 / 11555997)", True),
        (5.89, 0.005, "It (67,391,582) is about 5.89 times as much [2].", True),
        (5.89, 0.005, "5.89, 6.1 or 7", False),
        (5.89, 0.005, "(5.89)", True),
        (0.3, 0.0, "0.30000000000000004", True),
        (0, 0.01, "0.005", True),
        (0, 0.0, "1", False),
        (0.12, 0.0, "12 %", True),
        (12, 0.0, "12%", True),
        (12, 0.0, "0.12", False),
        (-4, 0.0, "minus 4", False),
        (1, 0.1, "no number", False),
    ],
)
def test_the_last_number_has_to_be_near_enough(
    answer: float, tolerance: float, text: str, expected: bool
) -> None:
    assert right(Number(answer=answer, tolerance=tolerance), text) is expected


@pytest.mark.parametrize(
    ("form", "named"),
    [
        ({"kind": "exact"}, "field `answer`"),
        ({"kind": "exact", "answer": 3}, "`check.answer`"),
        ({"kind": "exact", "answer": "a", "also": "b"}, "`check.also`"),
        ({"kind": "exact", "answer": " "}, "`check.answer`"),
        ({"kind": "number", "answer": "5"}, "`check.answer`"),
        ({"kind": "number", "answer": 5, "tolerance": -1}, "`check.tolerance`"),
        ({"kind": "number", "answer": 5, "tolerence": 1}, "`tolerence`"),
        ({"kind": "program", "code": "def"}, "`check.code`"),
        ({"kind": "judge"}, "field `worker`"),
        ({"kind": "guess"}, "`check.kind`"),
        ({"answer": "5"}, "field `kind`"),
        ([], "at `check`"),
        ("Paris", "at `check`"),
    ],
)
def test_a_check_of_a_bad_form_names_the_field(form: Any, named: str) -> None:
    with pytest.raises(InvalidData) as error:
        check_of(Task(text="?", check=form))
    assert named in error.value.message
    assert "docs/rewards.md" in error.value.hint or error.value.hint
    assert check_of(Task(text="?")) is None


def test_checks_are_written_as_they_are_read() -> None:
    for form in (
        {"kind": "exact", "answer": "Paris", "also": ["Lutetia"]},
        {"kind": "number", "answer": 5.89, "tolerance": 0.005},
        {"kind": "program", "code": "answer == '1'"},
        {"kind": "judge", "worker": "reviewer", "rubric": "be fair"},
    ):
        assert msgspec.to_builtins(read(form), str_keys=True) == form | (
            {"also": ("Lutetia",)} if "also" in form else {}
        )


# ---------------------------------------------------------------------- checks that need somebody


class Judges:
    """Say what the test says, and remember what they were asked."""

    def __init__(self, said: Outcome) -> None:
        self.said = said
        self.asked: list[tuple[str, str]] = []

    async def run_program(self, code: str) -> Outcome:
        self.asked.append(("", code))
        return self.said

    async def ask(self, worker: str, question: str) -> Outcome:
        if worker != "reviewer":
            raise NotFound(f"there is no worker {worker!r}", hint="name another")
        self.asked.append((worker, question))
        return self.said


PROGRAM = {"kind": "program", "code": "assert float(answer) > inputs['year']"}
JUDGE = {"kind": "judge", "worker": "reviewer", "answer": "42", "rubric": "Be kind."}


@pytest.mark.parametrize(
    ("said", "worth"),
    [
        (Outcome(value={"result": "True"}), 1.0),
        (Outcome(value={"result": "False"}), 0.0),
        (Outcome(value={"result": "0.5"}), 0.5),
        (Outcome(value={"result": None}), 0.0),
        (Outcome(value="1"), 1.0),
        (Outcome(status="EXEC_ERR", fault="worker", value="AssertionError"), 0.0),
        (Outcome(status="TIMEOUT", fault="worker", value="too long"), 0.0),
    ],
)
async def test_a_program_says_how_right_an_answer_is(said: Outcome, worth: float) -> None:
    found = rollout(step(), check=PROGRAM, answer="4'2\n", head="h")
    judges = Judges(said)
    reward = await judged(found, judges)
    assert reward is not None
    assert (reward.channel, reward.value, reward.by, reward.head) == (
        "accuracy",
        worth,
        "check:program",
        "h",
    )
    names: dict[str, Any] = {}
    given, _, rest = judges.asked[0][1].partition("assert")
    exec(given, names)
    assert (names["answer"], names["inputs"]) == ("4'2\n", {"year": 2026})
    assert rest.endswith("\nTrue"), "it says so when it has come to its end"


async def test_a_program_that_was_not_run_says_nothing() -> None:
    found = rollout(step(), check=PROGRAM)
    with pytest.raises(Unreachable, match="was not run: no namespaces"):
        await judged(found, Judges(Outcome(status="EXEC_ERR", fault="infrastructure",
                                           value="no namespaces")))  # fmt: skip
    with pytest.raises(InvalidData, match="gave"):
        await judged(found, Judges(Outcome(value={"result": "'maybe'"})))


async def test_a_judge_is_shown_task_and_answer_and_gives_a_score() -> None:
    found = rollout(step(), check=JUDGE, answer="It is 42.")
    judges = Judges(Outcome(value='Fine. {"score": 0} no, {"score": 0.75}'))
    reward = await judged(found, judges)
    assert reward is not None
    assert (reward.value, reward.by) == (0.75, "judge:reviewer")
    worker, question = judges.asked[0]
    assert worker == "reviewer"
    for part in ("What is asked?", "2026", "Be kind.", "It is 42.", '{"score": 1}'):
        assert part in question
    with pytest.raises(InvalidData, match="gave no score"):
        await judged(found, Judges(Outcome(value="hm")))
    with pytest.raises(Unreachable, match="gave EXEC_ERR"):
        await judged(found, Judges(Outcome(status="EXEC_ERR", fault="worker", value="x")))
    other = rollout(step(), check={"kind": "judge", "worker": "nobody"})
    with pytest.raises(NotFound, match="'nobody'"):
        await judged(other, judges)


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("Yes, it is.", 1.0),
        ("**Incorrect**: it says 41", 0.0),
        ("Right", 1.0),
        (True, 1.0),
        (0.5, 0.5),
        ("0.25", 0.25),
        ({"score": 1, "why": "so"}, 1.0),
        ({"answer": '{"score": 0}'}, 0.0),
        ("Yesterday", None),
        ('{"score": 7}', None),
        (None, None),
        ([1, 2], None),
    ],
)
def test_verdicts(said: Any, score: float | None) -> None:
    assert verdict(said) == score


async def test_what_is_missing_is_what_nobody_has_said_of_the_run_as_it_stands() -> None:
    found = rollout(step(), check=PROGRAM, head="h2")
    assert missing(found)
    said = await judged(found, Judges(Outcome(value={"result": "True"})))
    assert said is not None
    assert not missing(msgspec.structs.replace(found, rewards=(said,)))
    early = msgspec.structs.replace(found, rewards=(rewarded("accuracy", 1.0, head="h1"),))
    assert missing(early)
    for other in (
        rollout(step(), check={"kind": "exact", "answer": "42"}),
        rollout(step()),
        rollout(step(), check=PROGRAM, answered=False),
        rollout(step(), check=PROGRAM, unscorable="cancelled"),
    ):
        assert not missing(other)
        assert await judged(other, Judges(Outcome())) is None or other.unscorable
