"""How runs are shown: tree, lines, picture; and that no text steers a terminal."""

import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from podium.render import RunTree, summary, tree
from podium.render_diff import picture as diff_picture
from podium.render_lines import story, tree_lines
from podium.render_rich import SPINNER, run_picture, table
from podium.render_text import ago, clean, count, duration, money, one_line, value_text
from protocol.actions import Spend
from protocol.budgets import Budget
from protocol.commands import Activate
from protocol.decisions import PolicySpec, Reply
from protocol.run import RULES
from protocol.subjects import child_id
from replay.chain import RunLog
from replay.diff import ABSENT, diff
from tests.logs import log_of
from tests.runs import RUN, TOOL, Driver, answer, begin, failure, plan, planned, started
from tests.unit.test_forks import FORK, forked, joined

WIDTH = 100


def picture(run: RunTree, now: int, *, content: bool = True, height: int | None = None) -> str:
    """What a terminal of `WIDTH` columns shows, without colours."""
    stream = io.StringIO()
    console = Console(file=stream, width=WIDTH, no_color=True)
    console.print(run_picture(run, now, content=content, width=WIDTH, height=height))
    return stream.getvalue()


def test_a_finished_run() -> None:
    driver = started(planned(n=3), planned("agent", n=4))
    driver.at += 1_500
    driver.report("1-0", value={"value": 9, "n": 3, "unit": "m"})
    driver.report("1-1", status="TIMEOUT", fault="worker", value="too slow", spend=Spend(9, 1_500))
    driver.reply(answer("It is 9."), after_ms=200)
    run = tree(log_of(driver))
    assert (run.outcome, run.rounds, run.answer) == ("finished", 1, "It is 9.")
    first, second = run.turns[0].calls
    assert (first.call, first.worker, first.status, first.value["unit"]) == (
        "1-0",
        "tool",
        "OK",
        "m",
    )
    assert (second.status, second.fault, second.spent.cost) == ("TIMEOUT", "worker", 1_500)
    assert first.settled - first.began == 1_500
    assert run.turns[1].calls == []
    shown = picture(run, driver.at)
    assert f"{RUN}  What is asked?" in shown
    assert "round 1  2 calls · 1.5 s" in shown
    assert "├ ✓ tool   n: 3 → value: 9, unit: m" in shown
    assert "└ ⏱ agent  n: 4 → TIMEOUT too slow" in shown
    assert "$0.0015" in shown
    assert "✓ finished  1 round · 2 calls · 1.7 s · 9 tokens · $0.0015" in shown
    assert summary(run, driver.at) in shown
    assert story(log_of(driver), content=True) == [
        f"     0 ms  run {RUN} begins: What is asked?",
        "     0 ms  round 1: 2 calls: tool, agent",
        "    1.5 s  1-0  tool  OK  (n: 3) -> value: 9, unit: m",
        "    1.5 s  1-1  agent  TIMEOUT  9 tokens · $0.0015  (n: 4) -> too slow",
        "    1.7 s  answered",
    ]


def test_the_story_goes_on_where_it_stopped() -> None:
    driver = started()
    told = len(log_of(driver).commits)
    assert story(log_of(driver), told) == []
    driver.report("1-0")
    assert story(log_of(driver), told) == ["     0 ms  1-0  tool  OK"]


def test_content_has_to_be_asked_for() -> None:
    driver = started(planned(n=77_001))
    driver.report("1-0", value="a secret of the worker")
    driver.reply(Reply(text="what the policy thought"))
    run = tree(log_of(driver))
    without = picture(run, driver.at, content=False) + "\n".join(
        [*tree_lines(run, driver.at), *story(log_of(driver))]
    )
    with_it = picture(run, driver.at) + "\n".join(story(log_of(driver), content=True))
    for text in ("77,001", "a secret of the worker", "what the policy thought"):
        assert text not in without
        assert text in with_it


def test_what_is_under_way_shows_its_time_so_far() -> None:
    driver = started(planned(), planned("agent", after=(0,)))
    run = tree(log_of(driver))
    assert [call.status for call in run.turns[0].calls] == ["running", "waiting"]
    shown = picture(run, driver.at + 2_300)
    assert "round 1  2 calls · 2.3 s" in shown
    assert "2.3 s\n└ · agent" in shown
    assert "working  1 round · 1 call · 2.3 s" in shown


def test_who_takes_a_run_up_again_has_not_taken_it_over() -> None:
    driver = started(planned(n=3))
    driver.give(Activate("conductor", RULES))
    driver.give(Activate("other", RULES))
    driver.signal("pause")
    driver.give(Activate("conductor", RULES))
    assert [line[11:] for line in story(log_of(driver)) if "taken" in line] == [
        "taken up again by conductor conductor (epoch 2)",
        "taken over by conductor other (epoch 3)",
        "taken up again by conductor conductor (epoch 4)",
    ]


def test_nothing_goes_on_in_a_run_that_has_ended() -> None:
    driver = started(planned(n=3), planned("agent", after=(0,)))
    driver.signal("cancel")
    run = tree(log_of(driver))
    assert [call.status for call in run.turns[0].calls] == ["withdrawn", "withdrawn"]
    long_after = driver.at + 3_600_000
    assert tree_lines(run, long_after)[1:] == ["  1-0  tool  withdrawn", "  1-1  agent  withdrawn"]
    shown = picture(run, long_after)
    assert "■ tool   n: 3" in shown
    assert not any(frame in shown for frame in SPINNER)
    assert "cancelled  1 round · 1 call · 0 ms" in shown
    asked = Driver(begin())
    asked.signal("cancel")
    run = tree(log_of(asked))
    assert tree_lines(run, long_after) == ["the policy had not replied"]
    assert "the policy had not replied" in picture(run, long_after)


def test_a_policy_that_is_being_asked() -> None:
    driver = Driver(begin())
    run = tree(log_of(driver))
    assert "asking the policy 3.0 s" in picture(run, driver.at + 3_000)
    driver.reply(failure(error="HTTP 429: slow down"))
    run = tree(log_of(driver))
    assert "✗ policy failed: HTTP 429: slow down" in picture(run, driver.at)
    assert "policy failed: HTTP 429: slow down" in tree_lines(run, driver.at)


def test_a_rejected_reply() -> None:
    driver = Driver(begin())
    driver.reply(Reply(text="Let me think."))
    shown = picture(tree(log_of(driver)), driver.at)
    assert "✗ reply rejected (not_a_decision): Let me think." in shown


def test_signals_pauses_and_ends_are_told_with_their_reasons() -> None:
    driver = started()
    driver.signal("pause")
    log = log_of(driver)
    assert "⏸ paused (signal)" in picture(tree(log), driver.at)
    assert "signal: pause by ada" in "\n".join(story(log))
    driver.signal("resume")
    driver.signal("cancel")
    shown = picture(tree(log_of(driver)), driver.at)
    assert "» pause by ada\n» resume by ada\n» cancel by ada\n■ cancelled" in shown


def test_an_answer_that_a_limit_forced_says_so() -> None:
    driver = Driver(begin(budget=Budget(rounds=0)))
    driver.reply(answer())
    log = log_of(driver)
    assert "! incomplete: the budget of rounds was used up" in picture(tree(log), driver.at)
    assert story(log)[-1].endswith("answered, incomplete: the budget of rounds was used up")


def test_why_a_call_failed_is_told_in_full_when_there_is_time_to_read() -> None:
    driver = started()
    reason = "The map has no such place. " * 6 + "Say which continent."
    driver.report("1-0", status="EXEC_ERR", fault="worker", value=reason)
    run = tree(log_of(driver))
    assert "Say which continent." in picture(run, driver.at)
    assert "Say which continent." not in picture(run, driver.at, height=40)
    assert "Say which continent." not in picture(run, driver.at, content=False)


def test_a_child_run_is_named() -> None:
    driver = started(planned("child"))
    (call,) = tree(log_of(driver)).turns[0].calls
    assert (call.kind, call.child) == ("conductor", child_id(RUN, "1-0", 1))
    assert call.child in picture(tree(log_of(driver)), driver.at)


def test_an_empty_log_waits_for_a_conductor() -> None:
    assert "waits for a conductor" in picture(tree(RunLog(RUN)), 0)


def test_a_tall_run_is_folded_to_the_terminal() -> None:
    driver = Driver(begin(budget=Budget(rounds=10, calls=100)))
    for number in range(1, 7):
        driver.reply(plan(*[planned()] * 6))
        for index in range(6):
            if number < 6:
                driver.report(f"{number}-{index}")
    run = tree(log_of(driver))
    whole = picture(run, driver.at)
    fitted = picture(run, driver.at, height=15)
    assert whole.count("\n") > 40
    assert fitted.count("\n") <= 15
    assert "round 5  6 calls" in fitted
    assert fitted.count("✓ tool") == 0, "the rounds that are over are folded"
    assert fitted.count(" tool ") == 6, "the one at work is shown"
    tiny = picture(run, driver.at, height=7)
    assert tiny.count("\n") <= 7
    assert "… 5 rounds before" in tiny
    assert "round 6" in tiny


def test_lines_never_get_wider_than_the_terminal() -> None:
    driver = started(planned(n=int("9" * 60)), planned("agent"), task="What? " * 100)
    driver.report("1-0", value={"text": "word " * 500})
    driver.report("1-1", status="EXEC_ERR", fault="worker", value="broken " * 300)
    shown = picture(tree(log_of(driver)), driver.at)
    assert max(map(len, shown.splitlines())) <= WIDTH
    assert "n: 999" in shown
    assert "text: word word" in shown


# ------------------------------------------------------------------------- safety


EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202eevil\u2066\r\x08[bold red]markup[/]"


def test_nothing_that_others_write_steers_the_terminal() -> None:
    driver = started(planned(), task=EVIL)
    driver.report("1-0", value={EVIL: EVIL})
    driver.signal("pause")
    driver.signal("resume")
    driver.reply(failure(error=EVIL))
    log = log_of(driver)
    run = tree(log)
    shown = picture(run, driver.at) + "\n".join(
        [*story(log, content=True), *tree_lines(run, driver.at, content=True)]
    )
    stream = io.StringIO()
    Console(file=stream, width=WIDTH, no_color=True).print(table(["a", "b"], [[EVIL, "x"]]))
    shown += stream.getvalue()
    assert "[bold red]markup[/]" in shown, "markup is text"
    for character in "\x1b\x07\x9b\u202e\u2066\r\x08":
        assert character not in shown


@given(st.text())
def test_a_clean_text_holds_no_control_but_newlines(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert all(c == "\n" or c.isprintable() or c.isspace() or ord(c) > 0x9F for c in cleaned)
    assert "\n" not in one_line(text)


@given(st.text(min_size=1), st.integers(0, 50))
def test_one_line_keeps_to_its_limit(text: str, limit: int) -> None:
    assert len(one_line(text, limit)) <= max(limit, 1)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_every_value_is_one_line(value: Any) -> None:
    assert "\n" not in value_text(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        (66_987_244, "66,987,244"),
        (1999, "1999"),
        (0.1 + 0.2, "0.3"),
        (True, "true"),
        (None, "null"),
        (["a", 1], "[a, 1]"),
        ({"unit": "km", "value": 3}, "value: 3, unit: km"),
        ({"stdout": "one\n", "stderr": "", "exit": 0}, 'stdout: one, stderr: "", exit: 0'),
        ({"a": {"b": [1, {}]}}, 'a: {"b":[1,{}]}'),
    ],
)
def test_values(value: Any, text: str) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.0 s"),
        (59_900, "59.9 s"),
        (59_960, "1 min 00 s"),
        (3_599_000, "59 min 59 s"),
        (3_600_000, "1 h 00 min"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_durations(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


def test_small_words() -> None:
    assert [money(0), money(1), money(1_500), money(2_340_000)] == [
        "$0",
        "$0.000001",
        "$0.0015",
        "$2.34",
    ]
    assert [count(1, "run"), count(2, "run")] == ["1 run", "2 runs"]
    assert [ago(47_900), ago(61_000), ago(7_300_000)] == ["47 s ago", "1 min ago", "2 h ago"]


def test_a_workers_name_that_a_model_made_up_steers_no_terminal() -> None:
    driver = started(planned("\x1b[2J\x1b[31mgone\nforged  OK"))
    driver.at += 1_000
    log = log_of(driver)
    shown = [*story(log, content=True), *tree_lines(tree(log), driver.at, content=True)]
    shown += picture(tree(log), driver.at).splitlines()
    named = [line for line in shown if "[2J[31mgone forged OK" in line]
    assert len(named) >= 3
    assert not [line for line in shown if "\x1b" in line or "\n" in line]


def test_a_fork_shows_what_is_its_own_and_where_the_rest_is_from() -> None:
    driver = started(planned(n=1))
    driver.report("1-0", value=1)
    driver.reply(plan(planned(n=2), planned(n=3), planned("child")))
    driver.at += 700
    driver.report("2-0", value="the origin's")
    driver.report("2-1", status="EXEC_ERR", fault="worker", value="broken")
    log = log_of(driver)
    at = len(driver.events)
    fork = forked(log, at, reopened=("2-1",), reason="mended")
    run = tree(joined(fork, log))
    assert (run.forked_from, run.reason) == (f"{RUN}@{at}", "mended")
    assert [turn.shared for turn in run.turns] == [True, False]
    first, again, child = run.turns[1].calls
    assert (first.shared, again.shared, child.shared) == (True, False, False)
    assert first.settled - first.began == 700
    assert again.began == child.began == fork.at, "what is under way began with the fork"
    assert child.child == child_id(FORK, "2-2", 1)
    fork.at += 40
    fork.report("2-1", value=3)
    fork.report("2-2", value={"answer": "yes"})
    fork.reply(answer("3"))
    run = tree(joined(fork, log))
    assert run.turns[1].calls[1].settled - run.turns[1].calls[1].began == 40
    whole = picture(run, fork.at)
    assert f"forked from {RUN}@{at}, with 1 round of it: mended" in whole
    assert "round 1" in whole
    assert "round 2  3 calls · 40 ms" in whole
    stream = io.StringIO()
    own = run_picture(run, fork.at, content=True, width=WIDTH, own=True)
    Console(file=stream, width=WIDTH, no_color=True).print(own)
    assert "round 1" not in stream.getvalue()
    assert story(joined(fork, log))[0] == (
        f"     0 ms  run {FORK} begins, forked from {RUN}@{at}, with 1 round of it: mended"
    )


def test_a_child_run_that_a_fork_shares_is_its_origins() -> None:
    driver = started(planned("child"))
    driver.report("1-0", value={"answer": "yes"})
    log = log_of(driver)
    fork = forked(log, len(driver.events))
    (call,) = tree(joined(fork, log)).turns[0].calls
    assert call.child == child_id(RUN, "1-0", 1)


def beside(a: Any, b: Any, *, width: int, content: bool = True) -> str:
    """Two runs as a terminal of so many columns shows them."""
    stream = io.StringIO()
    found = diff(log_of(a), log_of(b))
    console = Console(file=stream, width=width, no_color=True)
    console.print(diff_picture(found, content=content, width=width))
    return stream.getvalue()


def test_what_two_pools_and_policies_differ_in_is_told_place_by_place() -> None:
    base = started(planned(n=1))
    longer = msgspec.structs.replace(TOOL, wait_ms=9, hedge=True)
    pool = type(base.state.pool)((longer, *base.state.pool.workers[1:-1]))
    other = started(planned(n=1), pool=pool, policy=PolicySpec(name="another"))
    lines = [line.split() for line in beside(base, other, width=140).splitlines()]
    assert ["≠", "pool", "tool.wait_ms", f"{TOOL.wait_ms:,}", "9"] in lines
    gone = base.state.pool.workers[-1]
    assert ["≠", "pool", gone.name, gone.kind, ABSENT] in lines
    assert ["≠", "policy", "name", base.state.policy.name, "another"] in lines
    (first,) = (line for line in beside(base, other, width=200).splitlines() if "first" in line)
    assert "{" not in first
    assert first.endswith("more of the pool")
    assert "pool" in beside(base, other, width=80)


def test_two_runs_side_by_side_or_one_below_the_other() -> None:
    def run(value: Any) -> Driver:
        driver = started(planned(n=1), planned("agent", n=2))
        driver.report("1-0", value=1)
        driver.report("1-1", value=value)
        driver.reply(answer("yes"))
        return driver

    evil = run("\x1b[2J[bold]x[/]")
    wide = beside(run("old"), evil, width=120)
    assert "first difference: round 1, call 1-1 (agent): its value: old" in wide
    assert "=    1-0 tool" in wide
    assert "≠    1-1 agent" in wide
    assert [line.split() for line in wide.splitlines() if line.startswith("       value")] == [
        ["value", "old", "[2J[bold]x[/]"]
    ]
    narrow = beside(run("old"), evil, width=80)
    assert "      A  old\n      B  [2J[bold]x[/]\n" in narrow
    assert "=   1-0 tool  OK\n" in narrow
    assert "\x1b" not in wide + narrow
    hidden = beside(run("old"), evil, width=120, content=False)
    assert "old" not in hidden
    assert "its value (event 9 against event 9)" in hidden
    assert "no difference\n" in beside(run("old"), run("old"), width=120)
    other = started(planned(n=1))
    assert "not settled" in beside(run("old"), other, width=120)
    assert "(none)" in beside(run("old"), other, width=120)
