"""Commands from an allow-list: what may be started, what comes back, that nothing outlives it."""

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from actors.ports import Attempt, Outcome
from actors.workers import draft, host
from actors.workers.processes.allowed import Allowed, Rule
from podium import poolcheck
from protocol.errors import InvalidData
from protocol.limits import MAX_DETAIL_CHARS

ROOT: Final = Path(__file__).resolve().parents[2]

LIMIT_S: Final = 20.0
"""Seconds after which a test that waits for something gives up."""

SH: Final = {"allow": [["sh", "-c"]]}


def ran(
    *argv: str, stdin: str | None = None, timeout_s: float = LIMIT_S, **options: Any
) -> Outcome:
    adapter = host(draft("shell", SH | options))
    return asyncio.run(adapter.run(attempt(*argv, stdin=stdin, timeout_s=timeout_s)))


def attempt(*argv: str, stdin: str | None = None, timeout_s: float = LIMIT_S) -> Attempt:
    arguments: dict[str, Any] = {"argv": list(argv)} | ({} if stdin is None else {"stdin": stdin})
    return Attempt(run="r", call="1-0", attempt=1, arguments=arguments, timeout_s=timeout_s)


def script(text: str, **options: Any) -> Outcome:
    return ran("sh", "-c", text, **options)


def worked(outcome: Outcome) -> Any:
    assert outcome.status == "OK", outcome.value
    return outcome.value


def failed(outcome: Outcome, status: str = "EXEC_ERR", fault: str = "worker") -> str:
    assert (outcome.status, outcome.fault) == (status, fault), outcome
    assert isinstance(outcome.value, str)
    assert len(outcome.value) <= MAX_DETAIL_CHARS
    return outcome.value


# ---------------------------------------------------------------------------------- the allow-list


@pytest.mark.parametrize(
    ("entry", "argv", "fits"),
    [
        ("git", ["git"], True),
        ("git", ["git", "log"], True),
        ("git", ["./git"], False),
        ("git", ["/usr/bin/git"], False),
        ("git", ["gitk"], False),
        ("/usr/bin/git", ["/usr/bin/git"], True),
        ("/usr/bin/git", ["git"], False),
        ("/usr/bin/git", ["/usr/bin/../../tmp/git"], False),
        (("git", "log"), ["git", "log", "-3"], True),
        (("git", "log"), ["git"], False),
        (("git", "log"), ["git", "-c", "core.pager=id", "log"], False),
        (("git", "log"), ["git", "logs"], False),
        (Rule(argv=("git", "show"), args="[0-9a-f]{7,40}"), ["git", "show", "abcdef0"], True),
        (Rule(argv=("git", "show"), args="[0-9a-f]{7,40}"), ["git", "show", "abcdef0\n"], False),
        (Rule(argv=("git", "show"), args="[0-9a-f]{7,40}"), ["git", "show", "-abcdef0"], False),
        (Rule(argv=("ls",), args="-l|-a"), ["ls", "-l", "-a"], True),
        (Rule(argv=("ls",), args="-l|-a"), ["ls", "-lR"], False),
        (Rule(argv=("cat",), args="[^-].*"), ["cat", "--help"], False),
        (Rule(argv=("cat",), args="[^-].*"), ["cat", "a", "b"], True),
        (Rule(argv=("cat",), most=1), ["cat", "a", "b"], False),
        (Rule(argv=("date", "-u"), most=0), ["date", "-u"], True),
        (Rule(argv=("date", "-u"), most=0), ["date", "-u", "-s", "now"], False),
    ],
)
def test_an_entry_allows_just_what_it_says(entry: Any, argv: list[str], fits: bool) -> None:
    assert Allowed([entry]).allows(argv) is fits


def test_one_entry_that_allows_is_enough() -> None:
    allowed = Allowed(["ls", ("git", "log"), ("git", "status")])
    assert allowed.allows(["git", "status"])
    assert allowed.programs == ["ls", "git"]
    assert allowed.free() == ["ls"]


@pytest.mark.parametrize(
    ("allow", "said"),
    [
        ([], "empty"),
        ([""], "names no program"),
        (["./run"], "relative path"),
        (["bin/run"], "relative path"),
        ([["a\0b"]], "names no program"),
        ([{"argv": ["ls"], "args": "(?=x)"}], "no pattern"),
        ([{"argv": ["ls"], "args": "("}], "no pattern"),
        ([{"argv": ["ls"], "args": "-l)|(?:-a"}], "no pattern"),
        ([{"argv": ["ls"], "most": -1}], "below 0"),
        ([{"argv": []}], "length"),
        ([{"argv": ["ls"], "arg": "x"}], "arg"),
    ],
)
def test_a_list_that_cant_be_meant_is_refused(allow: Any, said: str) -> None:
    with pytest.raises(InvalidData) as refused:
        draft("shell", {"allow": allow})
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"wall_s": 0},
        {"wall_s": float("inf")},
        {"output_bytes": 2**21},
        {"env": {"a=b": ""}},
        {"x": 1},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    allow = {} if options == {} else SH
    with pytest.raises(InvalidData, match="options of the worker"):
        draft("shell", allow | options)


def test_the_policy_is_told_what_is_allowed() -> None:
    rule = {"argv": ["git", "show"], "args": "[0-9a-f]+", "most": 1}
    spec = draft("shell", {"allow": ["ls", ["git", "log"], {"argv": ["date"], "most": 0}, rule]})
    assert spec.description.endswith("Programs: ls, git, date.")
    text = spec.parameters["properties"]["argv"]["description"]
    assert "`ls [ARG ...]`; `git log [ARG ...]`; `date`" in text
    assert "`git show [ARG matching /[0-9a-f]+/ ..., 1 at most]`" in text


@pytest.mark.parametrize("argv", [["bash", "-c", "id"], ["./sh", "-c", "id"], ["sh", "-s"]])
def test_what_is_not_allowed_names_what_is(argv: list[str]) -> None:
    said = failed(ran(*argv), "PARSE_ERR", "policy")
    assert "is not allowed. Allowed: `sh -c [ARG ...]`." in said


@pytest.mark.parametrize("argv", [[], ["a\0b"], [1], "ls", None])
def test_what_is_no_command_says_what_one_is(argv: Any) -> None:
    work = Attempt(run="r", call="1-0", attempt=1, arguments={"argv": argv}, timeout_s=1)
    said = failed(asyncio.run(host(draft("shell", SH)).run(work)), "PARSE_ERR", "policy")
    assert "a list of texts" in said


# --------------------------------------------------------------------------------- what comes back


def test_both_streams_and_the_input() -> None:
    outcome = script("cat; echo err >&2", stdin="héllo\n")
    assert worked(outcome) == {"stdout": "héllo\n", "stderr": "err\n", "exit": 0}


def test_without_an_input_it_is_empty() -> None:
    assert worked(ran("cat", allow=["cat"]))["stdout"] == ""


def test_nothing_is_expanded() -> None:
    said = worked(ran("printf", "%s|", "$HOME", "*", "`id`", "a b;id", allow=["printf"]))
    assert said["stdout"] == "$HOME|*|`id`|a b;id|"


def test_a_failure_shows_the_end_of_what_was_printed() -> None:
    said = failed(script("seq 1 100000; echo broken at last >&2; exit 3", output_bytes=10))
    assert said.startswith("sh ended with exit status 3.")
    assert "99999\n100000\n" in said
    assert said.endswith("stderr: broken at last\n")


def test_a_signal_is_named() -> None:
    assert "signal SIGKILL" in failed(script("kill -9 $$"))


def test_what_is_too_long_is_cut_between_characters() -> None:
    said = worked(script("printf 'aé%.0s' 1 2 3 4", output_bytes=8))
    assert said["stdout"] == "aéaéa"
    assert said["cut"] == "stdout: the first 8 of 12 bytes"


def test_an_absent_program_is_the_hosts_fault() -> None:
    said = failed(ran("nosuch", allow=["nosuch"]), fault="infrastructure")
    assert "not installed" in said


def test_what_is_no_program_is_never_given_to_a_shell(tmp_path: Path) -> None:
    file = tmp_path / "tool"
    file.write_text("touch ran\n")
    file.chmod(0o755)
    said = failed(ran(str(file), allow=[str(file)], folder=str(tmp_path)), fault="infrastructure")
    assert "Exec format error" in said
    assert not (tmp_path / "ran").exists()


# ----------------------------------------------------------------------------- folder, environment


def test_it_runs_in_its_folder(tmp_path: Path) -> None:
    assert worked(script("pwd", folder=str(tmp_path)))["stdout"] == f"{tmp_path}\n"


def test_its_folder_may_be_named_from_the_pool_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "papers").mkdir()
    outcome = script("pwd", folder="papers", output_bytes=1)
    assert "can't be entered: No such file" in failed(outcome, fault="infrastructure")
    monkeypatch.syspath_prepend(str(tmp_path))  # as loading the pool file does
    assert worked(script("pwd", folder="papers"))["stdout"] == f"{tmp_path / 'papers'}\n"


def test_without_a_folder_it_has_an_empty_one_that_is_removed() -> None:
    folder = Path(worked(script("ls -A; touch x; pwd"))["stdout"].strip())
    assert folder.is_absolute()
    assert not folder.exists()


@pytest.mark.parametrize("folder", ["/nosuch/gone", "nosuch", "~nosuch/gone"])
def test_a_missing_folder_is_the_hosts_fault(folder: str) -> None:
    outcome = script("pwd", folder=folder, output_bytes=1)
    assert "can't be entered: No such file" in failed(outcome, fault="infrastructure")


def test_it_sees_nothing_of_the_environment_but_what_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PODIUM_SECRET_KEY", "do-not-tell")
    monkeypatch.setenv("LANG", "C.UTF-8")
    printed = worked(ran("env", allow=["env"], env={"MODE": "test", "LANG": "C"}))["stdout"]
    seen = dict(line.split("=", 1) for line in printed.splitlines())
    assert seen.keys() <= {"PATH", "HOME", "LANG", "MODE"}
    assert (seen["MODE"], seen["LANG"]) == ("test", "C")


def test_it_holds_no_file_of_the_workers() -> None:
    with open(os.devnull) as kept:
        os.set_inheritable(kept.fileno(), True)
        assert worked(ran("ls", "/proc/self/fd", allow=["ls"]))["stdout"].split() == [*"0123"]


def test_a_program_in_the_folder_is_not_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted"
    planted.write_text("#!/bin/sh\necho got in\n")
    planted.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f".::{os.environ['PATH']}")
    said = failed(ran("planted", allow=["planted"], folder=str(tmp_path)), fault="infrastructure")
    assert "not installed" in said


def test_it_gains_no_privileges() -> None:
    assert "NoNewPrivs:\t1" in worked(ran("cat", "/proc/self/status", allow=["cat"]))["stdout"]


# ------------------------------------------------------------------------------------------ limits


HOLDS: Final = "(head -c 40m /dev/zero; exec sleep 99) | tail -c 40m"
"""Holds 40 MiB and waits."""


@pytest.mark.parametrize(
    ("text", "options", "status", "said"),
    [
        ("sleep 100", {"wall_s": 0.3}, "TIMEOUT", "after 0.3 seconds"),
        ("while :; do :; done", {"cpu_s": 1}, "TIMEOUT", "1 seconds of CPU"),
        ("exec head -c 2000000 /dev/zero > f", {"file_mb": 1}, "EXEC_ERR", "more than 1 MiB"),
        ("for i in 1 2 3 4 5 6; do sleep 99 & done; wait", {"processes": 5}, "EXEC_ERR", "5 proc"),
        ("dd if=/dev/zero of=/dev/null bs=90M count=1", {"memory_mb": 50}, "EXEC_ERR", "exhausted"),
        (f"{HOLDS} & {HOLDS} & {HOLDS}", {"memory_mb": 60}, "EXEC_ERR", "more than 60 MiB"),
    ],
)
def test_it_is_held_to_its_limits(
    text: str, options: dict[str, Any], status: str, said: str
) -> None:
    assert said in failed(script(text, **options), status)


def test_the_attempts_own_time_counts_as_well() -> None:
    said = failed(script("sleep 100", timeout_s=0.5), "TIMEOUT")
    assert re.search(r"stopped after 0(\.\d+)? seconds", said), (
        "what the start took is no more there"
    )


def test_however_late_it_is_started_it_has_no_more_than_the_attempts_time() -> None:
    said = failed(script("echo begun; sleep 100", timeout_s=0.0), "TIMEOUT")
    assert "stopped after 0 seconds" in said


# --------------------------------------------------------------------------------- nothing is left


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


LEAVES: Final = "setsid sh -c 'setsid sleep 1000 > /dev/null & echo $!' "
"""Starts a process with neither parent nor session of ours, and prints its id."""


def test_what_it_leaves_behind_is_killed_when_it_ends() -> None:
    pid = int(worked(script(LEAVES))["stdout"])
    assert not alive(pid)


def test_what_ignores_signals_is_killed_too() -> None:
    text = "trap '' TERM HUP INT; (trap '' TERM HUP; sleep 1000) & echo $!; exec sleep 1000"
    said = failed(script(text, wall_s=0.5), "TIMEOUT")
    assert not alive(int(said.rpartition(":")[2]))


async def told(fifo: Path) -> int:
    """The process id that somebody will write there."""
    os.mkfifo(fifo)
    async with asyncio.timeout(LIMIT_S):
        return int(await asyncio.to_thread(fifo.read_text))


async def test_withdrawn_it_takes_everything_with_it(tmp_path: Path) -> None:
    adapter = host(draft("shell", SH | {"folder": str(tmp_path)}))
    text = LEAVES + "> pid; exec sleep 1000"
    telling = asyncio.create_task(told(tmp_path / "pid"))
    working = asyncio.create_task(adapter.run(attempt("sh", "-c", text)))
    pid = await telling
    assert alive(pid)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert not alive(pid)


async def test_the_program_dies_with_its_warden(tmp_path: Path) -> None:
    adapter = host(draft("shell", SH | {"folder": str(tmp_path)}))
    working = asyncio.create_task(
        adapter.run(attempt("sh", "-c", "echo $$ > pid; exec sleep 1000"))
    )
    pid = await told(tmp_path / "pid")
    program = psutil.Process(pid)
    warden = program.parent()
    assert warden is not None
    warden.send_signal(signal.SIGKILL)
    said = failed(await working, fault="infrastructure")
    assert "ended without a word" in said
    assert await asyncio.to_thread(lambda: not psutil.wait_procs([program], LIMIT_S)[1])


FORKED: Final = """
import asyncio, os, signal, sys
from pathlib import Path
from actors.ports import Attempt
from actors.workers import draft, host

async def main():
    adapter = host(draft("shell", {"allow": ["sh"], "folder": sys.argv[1]}))
    arguments = {"argv": ["sh", "-c", "echo $$ > pid; exec sleep 1000"]}
    made = Attempt(run="r", call="c", attempt=1, arguments=arguments, timeout_s=1000)
    working = asyncio.create_task(adapter.run(made))
    program = int(await asyncio.to_thread(Path(sys.argv[1], "pid").read_text))
    if not (copy := os.fork()):
        signal.pause()
    print(program, copy, flush=True)
    await working

asyncio.run(main())
"""
"""A worker that is forked while a command runs: the copy holds the warden's lifeline, too."""


def test_the_program_dies_with_its_worker_though_a_copy_of_that_lives(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        program, copy = map(psutil.Process, map(int, worker.stdout.readline().split()))
        try:
            worker.kill()
            assert not psutil.wait_procs([program], LIMIT_S)[1]
            assert copy.is_running()
        finally:
            copy.kill()


def test_a_set_user_id_program_is_like_any_other(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make one of another user's")
    tool = tmp_path / "tool"
    tool.write_bytes(Path("/usr/bin/id").read_bytes())
    os.chown(tool, 65534, 65534)
    tool.chmod(0o755 | stat.S_ISUID)
    assert worked(ran(str(tool), "-u", allow=[str(tool)]))["stdout"] == f"{os.geteuid()}\n"


# ------------------------------------------------------------------------------- in a pool file


@pytest.mark.parametrize(
    ("options", "state", "said"),
    [
        ('allow = [["sh", "-c"]]', "ok", "every command is installed"),
        ('allow = ["/bin/sh", ["ls"]]', "warning", "whatever it is told to: /bin/sh"),
        ('allow = ["nosuch", "ls"]', "failed", "not installed: nosuch"),
        ('allow = ["ls"]\nfolder = "/nosuch"', "failed", "no such folder: /nosuch"),
        ('allow = ["./run"]', "failed", "relative path"),
    ],
)
def test_worker_check_says_what_it_lacks(
    tmp_path: Path, options: str, state: str, said: str
) -> None:
    path = tmp_path / "pool.toml"
    table = '[[worker]]\nname = "commands"\nadapter = "shell"\n[worker.options]\n'
    path.write_text(table + options)
    (finding,) = asyncio.run(poolcheck.check(path))
    assert (finding.worker, finding.state) == ("commands", state)
    assert said in finding.found
