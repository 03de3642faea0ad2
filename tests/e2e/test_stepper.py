"""`podium replay` as a person uses it, in a real terminal, and as a script does."""

import signal
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import synthetic
from podium.screen import keys
from tests.e2e.long_run import deployments
from tests.e2e.memory_host import Said, Shell
from tests.e2e.terminal import Terminal

EVENTS = 300
"""Of the run that is looked at: 15 rounds, with failures and second attempts."""

MADE = synthetic.run(EVENTS)
RUN, COUNT = MADE.run, MADE.events
"""How many it has in the end."""

LONG = 20_000
"""Of a long one, for keys that go a long way."""


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    open_ones: list[Terminal] = []

    def start(*arguments: str, events: int = EVENTS, **size: int) -> Terminal:
        command = ("-m", "tests.e2e.long_run", str(events), "replay", "RUN", *arguments)
        open_ones.append(Terminal(*command, **size))
        return open_ones[-1]

    yield start
    for each in open_ones:
        each.close()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path, USER="tester")
    shell.deployments = deployments(EVENTS)
    return shell


# -------------------------------------------------------------------------------- in a terminal


def restored(used: Terminal) -> bool:
    """Whether the terminal is as it was: its settings, its cursor, its first screen."""
    on, off = used.said.count("\x1b[?1049h"), used.said.count("\x1b[?1049l")
    shown = used.said.rfind("\x1b[?25h") > used.said.rfind("\x1b[?25l")
    return used.settings() == used.before and on == off == 1 and shown


def test_a_walk(terminal: Callable[..., Terminal]) -> None:
    used = terminal()
    shown = used.until(f"event 1 of {COUNT}")
    assert len(shown) == 24
    assert all(len(line) <= 80 for line in shown)
    assert shown[3].startswith("▶      1      0 ms  RunStarted")
    used.type("n")
    assert "epoch: 0 → 1" in used.until(f"event 2 of {COUNT}")
    used.type(" \x1b[C")
    used.until(f"event 4 of {COUNT}")
    used.type("p\x1b[D")
    used.until(f"event 2 of {COUNT}")
    used.type("g104\r")
    used.until(f"event 104 of {COUNT}")
    used.type("f")
    assert any("EXEC_ERR" in line and line.startswith("▶") for line in used.until("EXEC_ERR"))
    used.type("\x1b[H")
    used.until(f"event 1 of {COUNT}")
    used.type("bstatus=exec_err\r")
    used.until("breakpoints: status=EXEC_ERR")
    used.type("c")
    assert any(line.startswith("▶●") and "EXEC_ERR" in line for line in used.until("▶●"))
    used.type("b-\r")
    used.until("breakpoints: none")
    used.type("\x1b[F")
    used.until(f"event {COUNT} of {COUNT}")
    used.type("n")
    used.until("this is the last event")
    used.type("q")
    assert used.ended() == 0
    assert restored(used)
    left = used.said.partition("\x1b[?1049l")[2]
    assert f"{COUNT}" in left, "where one stood is left there"
    assert "RunFinished" in left


def test_panes_and_search(terminal: Callable[..., Terminal]) -> None:
    used = terminal()
    used.until("event 1 of")
    used.type("/22-7 no\x7f\x7f\x7f")
    used.until("search for: 22-7")
    used.type("\x1b")
    used.until("event 1 of")
    used.type("/10-3  search  ok\r")
    assert any(line.startswith("▶") and "10-3" in line for line in used.until("10-3  search  OK"))
    used.type("s")
    assert "phase: working" in used.until("state after")
    used.type("e")
    assert '  "type": "CallSettled",' in used.until('"CallSettled"')
    used.type("?")
    used.until("search; nothing and Enter")
    used.type("s\x1b[6~")
    assert "phase: working" not in used.until("calls.10-1.worker: search")
    used.type("/nothing of the kind\r")
    used.until("there is no 'nothing of the kind' after this event")
    used.type("bcolour=red\r")
    used.until("'colour=red' is no breakpoint")
    used.type("gx\r")
    used.until("'x' is no event's number")
    used.type("q")
    assert used.ended() == 0


@pytest.mark.parametrize("content", [False, True])
def test_content_is_shown_only_on_request(terminal: Callable[..., Terminal], content: bool) -> None:
    used = terminal("--at", "20", *(["--content"] if content else []))
    used.until("event 20 of")
    for key in "dse":
        used.type(key)
        used.until({"d": "changed by", "s": "state after", "e": "event 20 "}[key])
    used.type("q")
    assert used.ended() == 0
    assert ("what stands in place" in used.said) == content
    assert ("query: part 1" in used.said) == content


def test_another_size(terminal: Callable[..., Terminal]) -> None:
    used = terminal()
    used.until("event 1 of")
    used.resize(100, 40)
    shown = used.until("event 1 of")
    assert len(shown) == 40
    assert max(map(len, shown)) == 100
    used.resize(40, 10)
    assert len(used.until("event 1 of")) == 10
    used.type("q")
    assert used.ended() == 0


def test_a_terminal_that_does_not_say_its_size(terminal: Callable[..., Terminal]) -> None:
    used = terminal(columns=0, lines=0)
    shown = used.until("event 1 of")
    assert (len(shown), max(map(len, shown))) == (24, 80)
    used.type("q")
    assert used.ended() == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]
)
def test_however_it_ends_the_terminal_is_as_it_was(
    terminal: Callable[..., Terminal], number: signal.Signals, code: int
) -> None:
    used = terminal()
    used.until("event 1 of")
    assert used.settings() != used.before
    used.process.send_signal(number)
    assert used.ended() == code
    assert restored(used)


def test_ctrl_c_and_ctrl_d(terminal: Callable[..., Terminal]) -> None:
    for key, code in (("\x03", 130), ("\x04", 0)):
        used = terminal()
        used.until("event 1 of")
        used.type(key)
        assert used.ended() == code
        assert restored(used)


def test_a_terminal_that_goes_away(terminal: Callable[..., Terminal]) -> None:
    used = terminal()
    used.until("event 1 of")
    used.hang_up()
    used.process.wait(60)


def test_stopped_and_gone_on_with(terminal: Callable[..., Terminal]) -> None:
    used = terminal()
    used.until("event 1 of")
    # Nobody could take up a stopped process of a session of its own, so the kernel goes on at once.
    used.process.send_signal(signal.SIGTSTP)
    used.until("event 1 of")
    assert used.said.count("\x1b[?1049h\x1b[?25l") == 2
    assert used.said.count("\x1b[?25h\x1b[?1049l") == 1
    assert used.settings() != used.before
    used.type("n")
    used.until("event 2 of")
    used.type("q")
    assert used.ended() == 0
    assert used.settings() == used.before


def test_a_key_held_down_is_one_picture_behind_at_most(terminal: Callable[..., Terminal]) -> None:
    used = terminal(events=LONG)
    used.until("event 1 of 20,")
    before = used.said.count("\x1b[?2026h")
    used.type("n" * 500)
    used.until("event 501 of 20,")
    assert used.said.count("\x1b[?2026h") - before < 250
    used.type("\x1b[F")
    used.until("RunFinished")
    used.type("p" * 200)
    used.until("event 19,8")
    used.type("q")
    assert used.ended() == 0


def test_keys() -> None:
    typed = "n\x1b[Aé\x1b[5~\x1bOD\x1b[1;5C\x1b[99~q\x1b"
    assert list(keys(typed)) == ["n", "up", "é", "page up", "left", "q", "\x1b"]
    assert list(keys("\r\x7f ")) == ["enter", "back", " "]
    home, end = "\x1b[H\x1bOH\x1b[OH\x1b[1~\x1b[7~", "\x1b[F\x1bOF\x1b[OF\x1b[4~\x1b[8~"
    assert list(keys(f"{home}n{end}")) == ["home"] * 5 + ["n"] + ["end"] * 5


def test_the_settings_are_a_terminals() -> None:
    used = Terminal("-c", "pass")
    assert used.before[3] & termios.ICANON
    assert used.ended() == 0
    used.close()


# -------------------------------------------------------------------------------- line by line


def said_lines(said: Said) -> list[str]:
    """The lines that name an event."""
    return [line for line in said.out.splitlines() if line[:6].strip().isdecimal()]


def test_a_script(shell: Shell) -> None:
    typed = "n\nn 5\np 2\ng 25\nb type=RoundClosed\nc\nC\n/4-2  reader\nd\ns\ne\n?\n\nq\nn\n"
    said = shell("replay", RUN[:5], typed=typed)
    assert said.code == 0
    numbers = [int(line.split()[0]) for line in said_lines(said)]
    assert numbers[:5] == [1, 2, 7, 5, 25]
    assert "RoundClosed" in said_lines(said)[5]
    assert '  "type": "AttemptStarted",' in said.out
    assert "phase: working" in said.out
    assert "breakpoints: type=RoundClosed" in said.err
    assert "b KIND=VALUE" in said.err


def test_without_a_script_the_stops_are_listed_or_a_hint_is_given(shell: Shell) -> None:
    said = shell("replay", RUN)
    assert [int(line.split()[0]) for line in said_lines(said)] == [1]
    assert f"podium replay {RUN} --until {COUNT}\n" in said.err
    stops = rows(shell("replay", RUN, "--break", "status=exec_err", "--json"))
    said = shell("replay", RUN, "--break", "status=exec_err")
    found = [int(line.split()[0]) for line in said_lines(said)]
    assert found == [step["number"] for step in stops]
    assert all(" ! " in line for line in said_lines(said))
    assert not shell("replay", RUN, typed="q\n").err


def test_a_script_with_mistakes_goes_on(shell: Shell) -> None:
    said = shell("replay", RUN, typed="sing\ng x\nb colour=red\np\nf\n")
    assert said.code == 0
    assert "'sing' is no command" in said.err
    assert "'x' is no number" in said.err
    assert "'colour=red' is no breakpoint" in said.err
    assert "this is the first event" in said.err
    assert "EXEC_ERR" in said_lines(said)[-1]


def rows(said: Said) -> list[dict[str, Any]]:
    """The rows of a read."""
    found: list[dict[str, Any]] = said.json()["rows"]
    return found


def test_steps_as_json(shell: Shell) -> None:
    steps = rows(shell("replay", RUN, "--json", "--until", "RoundPlanned"))
    assert [step["number"] for step in steps] == [1, 2, 3, 4, 5]
    assert {"path": "epoch", "before": 0, "after": 1} in steps[1]["changed"]
    stops = rows(shell("replay", RUN, "--json", "--break", "status=exec_err"))
    assert stops
    assert {(step["type"], step["status"]) for step in stops} == {("CallSettled", "EXEC_ERR")}
    page = shell("replay", RUN, "--json", "--limit", "7").json()
    assert (page["cursor"], page["truncated"], page["counts"]["steps"]) == ("7", True, COUNT)
    more = rows(shell("replay", RUN, "--json", "--limit", "7", "--cursor", page["cursor"]))
    assert [step["number"] for step in more] == [*range(8, 15)]


def test_the_steps_of_all_pages_make_the_last_state(shell: Shell) -> None:
    steps = rows(shell("replay", RUN, "--json", "--content"))
    (shown,) = rows(shell("state", RUN, "--json", "--content"))
    last: dict[str, Any] = {}
    for step in steps:
        for change in step["changed"]:
            last[change["path"]] = change.get("after", msgspec.UNSET)
    assert last["phase"] == shown["state"]["phase"] == "ended"
    assert last["round"] == shown["state"]["round"]
    for call, known in shown["state"]["calls"].items():
        assert last[f"calls.{call}.value"] == known["value"]
        assert last[f"calls.{call}.status"] == known["status"]


def test_the_timeline_leads_to_the_first_failure(shell: Shell) -> None:
    first = rows(shell("timeline", RUN, "--failures", "--json"))[0]["number"]
    for arguments in ([], ["--failures"]):
        said = shell("timeline", RUN, *arguments)
        assert f"podium replay {RUN} --at {first}\n" in said.err
    last = rows(shell("timeline", RUN, "--type", "RoundClosed", "--json"))[-1]["number"]
    assert f"--at {last}\n" in shell("timeline", RUN, "--type", "RoundClosed").err


def test_the_timeline_by_pages_and_kinds(shell: Shell) -> None:
    found = shell("timeline", RUN, "--failures", "--json").json()
    assert found["counts"]["events"] == COUNT
    assert found["counts"]["failures"] == len(found["rows"])
    assert all(row["failed"] and row["worker"] for row in found["rows"])
    some = shell("timeline", RUN, "--type", "RoundPlanned", "--type", "roundclosed", "--limit", "3")
    assert [line.split()[3] for line in some.out.splitlines()] == [
        "RoundPlanned",
        "RoundClosed",
        "RoundPlanned",
    ]
    assert f"podium timeline {RUN} --cursor" in some.err


def test_causes_name_who_did_it(shell: Shell) -> None:
    (failed, *_) = rows(shell("timeline", RUN, "--failures", "--json"))
    said = shell("causes", failed["event"], "--limit", "4")
    first, second, third, fourth = said.out.splitlines()
    assert f"report of {failed['call']}/{failed['attempt']} by worker-" in first
    assert "AttemptStarted" in second
    assert "RoundPlanned" in third
    assert "PolicyReplied" in fourth
    assert "the policy's reply" in fourth or "reply by a-model-2026" in fourth
    assert "--cursor 4" in said.err
    back = rows(shell("causes", failed["event"], "--json", "--limit", "1000"))
    on = rows(shell("effects", f"{RUN}@1", "--json", "--limit", "1000"))
    assert back[-1]["event"] == f"{RUN}@1"
    assert len(on) == COUNT
    by_event = {row["event"]: row for row in on}
    for row in back:
        for cause in row["came_of"]:
            assert row["event"] in by_event[cause]["led_to"]


def test_a_run_without_events(shell: Shell) -> None:
    shell.deployments.store.messages.clear()
    assert shell("replay", RUN, "--json").code == 4
