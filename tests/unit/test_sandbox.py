"""Sandboxed Python: what comes back, what it can't reach, and that nothing outlives it."""

import ast
import asyncio
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from actors.ports import Attempt
from actors.workers import PythonAdapter, draft, isolation
from actors.workers.processes.sandbox import MAX_WARM
from actors.workers.processes.warden import MAX_OUTPUT_BYTES
from protocol.errors import InvalidData
from protocol.limits import MAX_DETAIL_CHARS
from tests.endpoint import Endpoint
from tests.sandboxes import LIMIT_S, attempt, ran, walls

ROOT: Final = Path(__file__).resolve().parents[2]


def value(code: str, **options: Any) -> Any:
    outcome = ran(code, **options)
    assert outcome.status == "OK", outcome.value
    return outcome.value


def error(code: str, **options: Any) -> str:
    outcome = ran(code, **options)
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker"), outcome
    assert isinstance(outcome.value, str)
    assert len(outcome.value) <= MAX_DETAIL_CHARS
    return outcome.value


def test_the_last_expression_and_what_is_printed_are_the_result() -> None:
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\nx = 6\nx * 7"
    assert value(code) == {"stdout": "out\n", "stderr": "err\n", "result": "42"}


@pytest.mark.parametrize("code", ["", "x = 1", "None", "import sys; sys.exit(0)", "# nothing"])
def test_without_an_expression_there_is_no_result(code: str) -> None:
    assert value(code)["result"] is None


def test_it_is_a_main_module_of_its_own() -> None:
    code = "class A: pass\ndef f(): return A\n__name__, f() is A, A.__module__"
    assert value(code)["result"] == "('__main__', True, '__main__')"


def test_threads_are_waited_for() -> None:
    code = "import threading\nthreading.Thread(target=lambda: print('late')).start()"
    assert value(code)["stdout"] == "late\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f():\n    return 1 / 0\nf()", "line 2, in f\n    return 1 / 0"),
        ("1 +", "SyntaxError"),
        ("\0", "null bytes"),
        ("raise SystemExit('stop')", "SystemExit: stop"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os._exit(3)", "exit status 3"),
        ("import os; os.abort()", "SIGABRT"),
        ("def f(): f()\nf()", "RecursionError"),
        ("class A:\n    def __repr__(self): raise ValueError('mine')\nA()", "ValueError: mine"),
        ("class E(Exception):\n    def __str__(self): 1 / 0\nraise E", "E"),
        ("import numpy_that_is_not_there", "ModuleNotFoundError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("x = '\ud800'", "?"),
    ],
)
def test_what_goes_wrong_in_the_code_is_told(code: str, said: str) -> None:
    if said == "?":
        assert value(code)["result"] is None
    else:
        assert said in error(code)


def test_an_error_shows_its_end_what_was_printed_and_no_path_of_the_host() -> None:
    text = error("print('so far')\nimport json\njson.loads('{')")
    assert "JSONDecodeError" in text
    assert "stdout: so far" in text
    assert "<python>/json/" in text
    assert sys.base_prefix not in text
    assert str(ROOT) not in text


def test_no_code_is_the_policys_fault() -> None:
    adapter = PythonAdapter(draft("python"))
    empty = Attempt(run="r", call="1-0", attempt=1, arguments={}, timeout_s=5)
    outcome = asyncio.run(adapter.run(empty))
    assert (outcome.status, outcome.fault) == ("PARSE_ERR", "policy")


def test_output_and_result_are_cut_and_said_to_be() -> None:
    kept = value("print('é' * 10_000)\n'x' * 10_000", output_bytes=1_000)
    assert kept["stdout"] == "é" * 500
    assert kept["result"] == "'" + "x" * 999
    assert "stdout: the first 1000 of 20001 bytes" in kept["cut"]
    assert "result: the first 1000 of 10002 characters" in kept["cut"]


def test_what_is_printed_is_cut_between_characters_and_a_failure_shows_its_end() -> None:
    code = "print('é' * 9)\nprint('the end')\n"
    assert value(code, output_bytes=3)["stdout"] == "é"
    assert "the end" in error(code + "1 / 0", output_bytes=300)
    assert error(code + "import os; os._exit(3)", output_bytes=3).endswith("the end\n")


def test_a_result_and_both_streams_can_be_as_large_as_their_limit() -> None:
    code = "import sys\nfor each in (sys.stdout, sys.stderr): each.buffer.write(bytes(2**20))\n"
    kept = value(code + "'\N{GRINNING FACE}' * 2**20", output_bytes=MAX_OUTPUT_BYTES)
    assert kept["stdout"] == kept["stderr"] == "\0" * MAX_OUTPUT_BYTES
    assert kept["result"] == "'" + "\N{GRINNING FACE}" * (MAX_OUTPUT_BYTES - 1)


def test_output_without_end_does_not_fill_the_worker() -> None:
    outcome = ran("while True: print('x' * 1000)", wall_s=0.5, output_bytes=1_000)
    assert outcome.status == "TIMEOUT"
    assert len(outcome.value) <= MAX_DETAIL_CHARS


def test_time_is_bounded_and_what_was_printed_is_kept() -> None:
    outcome = ran("print('begun')\nimport signal\nsignal.pause()", wall_s=0.5)
    assert (outcome.status, outcome.fault) == ("TIMEOUT", "worker")
    assert "0.5 seconds" in outcome.value
    assert "begun" in outcome.value


def test_the_attempts_deadline_comes_first() -> None:
    assert ran("while True: pass", timeout_s=0.8).status == "TIMEOUT"


def test_cpu_is_bounded() -> None:
    outcome = ran("while True: pass", cpu_s=1)
    assert outcome.status == "TIMEOUT"
    assert "1 seconds of CPU" in outcome.value


def test_memory_of_one_process_is_bounded() -> None:
    assert "MemoryError" in error("x = bytearray(10**9)", memory_mb=256)


def test_limits_that_no_interpreter_has_are_not_taken_for_a_hosts_missing_wall() -> None:
    outcome = ran("1", memory_mb=10**13)
    assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")
    assert "its interpreter was not ready: OverflowError" in outcome.value
    assert "can't isolate" not in outcome.value


FORKS: Final = """
import os, signal
for _ in range(6):
    if os.fork() == 0:
        x = bytearray(50 << 20)
        signal.pause()
signal.pause()
"""


def test_memory_of_all_processes_together_is_bounded() -> None:
    assert "more than 128 MiB" in error(FORKS, memory_mb=128)


def test_files_are_bounded() -> None:
    assert "Too many open files" in error("x = [open('/dev/null') for _ in range(999)]")
    assert "File too large" in error("open('x', 'wb').write(b'x' * (2 << 20))", tmp_mb=1)


@walls
def test_all_files_together_are_bounded() -> None:
    code = "for n in range(9): open(f'{n}', 'wb').write(b'x' * (1 << 19))"
    assert "No space left" in error(code, tmp_mb=1)
    assert "No space left" in error("for n in range(9_999): open(f'{n}', 'w').close()", files=16)


@walls
def test_processes_are_bounded() -> None:
    code = "import os, signal\nwhile True:\n    if os.fork() == 0: signal.pause()"
    assert "BlockingIOError" in error(code, processes=8)


@walls
def test_nothing_of_the_workers_environment_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-SECRET")
    seen = value("import os, sys\nprint(dict(os.environ), sys.argv, sys.orig_argv)")["stdout"]
    assert "SECRET" not in seen
    assert "'HOME': '/tmp'" in seen


@pytest.mark.parametrize("isolation", ["process", pytest.param("namespaces", marks=walls)])
def test_nothing_of_ours_can_be_imported(isolation: str) -> None:
    assert "ModuleNotFoundError" in error(
        "import actors.workers.processes.family", isolation=isolation
    )
    assert "ModuleNotFoundError" in error("import family", isolation=isolation)


@walls
def test_no_file_of_the_host_is_seen() -> None:
    code = f"import os\n[os.path.exists(p) for p in ('/proc', '/sys', '/var', {str(ROOT)!r})]"
    assert value(code)["result"] == "[False, False, False, False]"
    assert value("open('/etc/passwd').read().count(':x:')")["result"] == "1"


@walls
@pytest.mark.parametrize("path", ["/x", "/usr/x", "/etc/passwd", "/dev/x", sys.base_prefix + "/x"])
def test_nothing_but_tmp_can_be_written(path: str) -> None:
    text = error(f"open({path!r}, 'w')")
    assert "Read-only file system" in text or "Permission denied" in text


@walls
def test_tmp_is_private_and_new_each_time() -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp"):
        code = "import os\nfound = os.listdir('/tmp')\nopen('/tmp/mine', 'w').close()\nfound"
        assert value(code)["result"] == "[]"
        assert value(code)["result"] == "[]"


@walls
def test_there_is_no_network_not_even_the_hosts_own() -> None:
    with Endpoint() as endpoint:
        code = f"import urllib.request\nurllib.request.urlopen({endpoint.url!r}, timeout=5)"
        assert "Network is unreachable" in error(code)
        assert endpoint.requests == []


@walls
@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import socket; socket.socket(40, socket.SOCK_STREAM)",
        "import os; os.memfd_create('x')",
        "import os; os.setgroups([0])",
        "import os; os.chroot('/tmp')",
        "import os; os.setpriority(os.PRIO_PROCESS, 0, -5)",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "import os; os.mknod('/tmp/x', 0o60600, os.makedev(8, 0))",
    ],
)
def test_doors_into_the_kernel_are_shut(code: str) -> None:
    text = error(code)
    assert "PermissionError" in text or "not allowed to raise" in text


@walls
@pytest.mark.parametrize(
    "call",
    [
        "unshare(0x10000000)",
        "unshare(0x20000)",
        "mount(0, b'/', 0, 0x1020, 0)",
        "ptrace(16, 1, 0, 0)",
        "syscall(425, 1, 0)",
        "setns(0, 0)",
        "umount2(b'/tmp', 2)",
    ],
)
def test_system_calls_that_plain_code_never_needs_are_denied(call: str) -> None:
    code = f"import ctypes\nc = ctypes.CDLL(None, use_errno=True)\nc.{call}, ctypes.get_errno()"
    assert value(code)["result"] == "(-1, 1)"


@walls
def test_programs_of_the_system_can_be_used() -> None:
    code = "import subprocess\nsubprocess.run(['id', '-u'], capture_output=True).returncode"
    assert value(code)["result"] == "0"
    assert "result" in value("import multiprocessing.pool as p\np.ThreadPool(2).map(abs, [-1])")


@pytest.mark.parametrize(
    "text", ['{"result": 7}', '{"result": "a"}', "[]", "{", "null", "9" * 5_000]
)
def test_code_that_writes_over_its_result_harms_only_itself(text: str) -> None:
    code = (
        "import os\n"
        "for fd in range(3, 64):\n"
        "    try: os.write(fd, "
        f"{text!r}.encode())\n"
        "    except OSError: pass\n"
        "os._exit(0)"
    )
    outcome = ran(code)
    assert outcome.status in ("OK", "EXEC_ERR")
    assert outcome.fault in ("none", "worker")


DAEMON: Final = """
import os, signal
if os.fork() == 0:
    os.setsid()
    if (pid := os.fork()) == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True: signal.pause()
    print(pid, flush=True)
    os._exit(0)
os.wait()
"""


def test_a_daemon_that_the_code_leaves_behind_is_killed() -> None:
    pid = int(value(DAEMON, isolation="process")["stdout"])
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("level", ["namespaces", "process"])
async def test_withdrawn_it_takes_its_daemons_along(level: str) -> None:
    if level == "namespaces" and isolation().level == "process":
        pytest.skip(isolation().reason)
    before = set(psutil.Process().children(recursive=True))
    adapter = PythonAdapter(draft("python", {"isolation": level, "warm": 0}))
    working = asyncio.create_task(adapter.run(attempt(DAEMON + "signal.pause()")))
    family: set[psutil.Process] = set()
    async with asyncio.timeout(LIMIT_S):
        while len(family) < (4 if level == "namespaces" else 3):
            await asyncio.sleep(0)
            family = set(psutil.Process().children(recursive=True)) - before
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert not any(process.is_running() for process in family)


def test_limits_without_walls_leave_no_folder_behind() -> None:
    kept = value("open('x', 'w').close()\nimport os\nos.getcwd()", isolation="process")
    folder = Path(ast.literal_eval(kept["result"]))
    assert folder.name.startswith("podium-sandbox-")
    assert not folder.exists()


WORKER: Final = """
import asyncio, sys
from actors.ports import Attempt
from actors.workers import draft, host
code = "import signal\\nwhile True: signal.pause()"
adapter = host(draft("python", {"isolation": sys.argv[1], "warm": 0}))
made = Attempt(run="r", call="c", attempt=1, arguments={"code": code}, timeout_s=60)
asyncio.run(adapter.run(made))
"""


@pytest.mark.parametrize("victim", ["worker", "warden"])
@walls
def test_nothing_outlives_a_worker_or_a_warden_that_is_killed(victim: str) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER, isolation().level], cwd=ROOT) as worker:
        family: list[psutil.Process] = []
        while len(family) < 3:
            assert worker.poll() is None
            family = psutil.Process(worker.pid).children(recursive=True)
        handles = [os.pidfd_open(process.pid) for process in family]
        os.kill(worker.pid if victim == "worker" else family[0].pid, signal.SIGKILL)
        for handle in handles:
            assert select.select([handle], [], [], LIMIT_S)[0], "a process lives on"
            os.close(handle)
        worker.kill()


REFUSED: Final = """
import asyncio, sys
from actors.ports import Attempt
from actors.workers import draft, host, isolation
print(isolation().level, isolation().reason)
for level in ("namespaces", "process"):
    adapter = host(draft("python", {"isolation": level, "warm": 0}))
    made = Attempt(run="r", call="c", attempt=1, arguments={"code": "6 * 7"}, timeout_s=20)
    print(asyncio.run(adapter.run(made)))
"""


@walls
@pytest.mark.skipif(shutil.which("unshare") is None, reason="util-linux is not installed")
def test_a_host_that_can_not_isolate_is_refused_with_the_reason_and_the_way_out() -> None:
    script = f'echo 0 > /proc/sys/user/max_user_namespaces && exec "{sys.executable}" -c "$0"'
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", script, REFUSED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    level, refused, allowed = done.stdout.splitlines()
    assert level.startswith("process namespaces of users")
    assert "status='EXEC_ERR'" in refused
    assert "fault='infrastructure'" in refused
    assert 'isolation = "process"' in refused
    assert "'result': '42'" in allowed


@pytest.mark.parametrize(
    "options",
    [
        {"wall": 5},
        {"wall_s": 0},
        {"memory_mb": -1},
        {"isolation": "none"},
        {"cpu_s": "many"},
        {"output_bytes": MAX_OUTPUT_BYTES + 1},
        {"warm": MAX_WARM + 1},
        {"mode": "shared"},
        {"wall_s": float("inf")},
    ],
)
def test_wrong_options_are_refused_with_those_there_are(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidData) as refused:
        draft("python", options)
    assert next(iter(options)) in refused.value.message
    assert "wall_s" in refused.value.hint
