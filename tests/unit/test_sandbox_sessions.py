"""Sessions: what calls of a run leave for the next, what others see of it, and when it is lost."""

import asyncio
import os
from pathlib import Path
from typing import Any, Final

import psutil
import pytest
from opentelemetry import trace

from actors import tracing
from actors.ports import Outcome
from actors.workers import PythonAdapter, draft
from protocol.errors import InvalidData
from protocol.traces import Context
from tests.sandboxes import LIMIT_S, WHOLE, attempt, families, locked_in, sandbox, walls

NEW: Final = "new: this call began without variables and files of any before"

CONTEXT: Final = Context("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


def sessions(**options: Any) -> Any:
    return sandbox(mode="persistent", **{"warm": 0, **options})


async def told(adapter: PythonAdapter, code: str, run: str = "r") -> Outcome:
    return await adapter.run(attempt(code, run=run))


async def value(adapter: PythonAdapter, code: str, run: str = "r") -> Any:
    outcome = await told(adapter, code, run)
    assert outcome.status == "OK", outcome.value
    return outcome.value


async def result(adapter: PythonAdapter, code: str, run: str = "r") -> Any:
    return (await value(adapter, code, run))["result"]


@pytest.mark.parametrize("level", ["process", pytest.param("namespaces", marks=walls)])
async def test_variables_functions_and_files_are_kept(level: str) -> None:
    async with sessions(isolation=level) as adapter:
        first = await value(adapter, "import math\nx = 6\nopen('kept', 'w').write('7')")
        assert first["session"] == NEW
        assert await result(adapter, "def times(y): return x * int(math.floor(y))") is None
        second = await value(adapter, "times(float(open('kept').read()))")
        assert second["result"] == "42"
        assert second["session"] == "kept: it has had 2 calls before"


async def test_what_is_printed_belongs_to_its_call() -> None:
    async with sessions() as adapter:
        assert (await value(adapter, "print('one')"))["stdout"] == "one\n"
        assert (await value(adapter, "print('two')"))["stdout"] == "two\n"


async def test_calls_of_a_run_come_one_at_a_time_and_in_order() -> None:
    async with sessions() as adapter:
        code = "seen = globals().get('seen', []) + [{}]\nseen"
        outcomes = await asyncio.gather(*(told(adapter, code.format(n)) for n in range(6)))
        seen = [str(outcome.value["result"]) for outcome in outcomes]
        assert seen == [str(list(range(n + 1))) for n in range(6)]


async def test_what_the_code_raises_loses_nothing() -> None:
    async with sessions() as adapter:
        await value(adapter, "x = 6\ndef f():\n    return 1 / 0")
        for code, said in (("f()", "return 1 / 0"), ("import sys; sys.exit(3)", "SystemExit: 3")):
            outcome = await told(adapter, code)
            assert (outcome.status, outcome.fault) == ("EXEC_ERR", "worker")
            assert said in outcome.value
            assert "session: kept" in outcome.value
            assert "gone" not in outcome.value
        assert await result(adapter, "x * 7") == "42"


FORKS: Final = """
import os, signal
for _ in range(6):
    if os.fork() == 0:
        x = bytearray(50 << 20)
        signal.pause()
signal.pause()
"""

IGNORING: Final = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"


@pytest.mark.parametrize(
    ("code", "limits", "status", "why"),
    [
        ("import signal\nsignal.pause()", {"wall_s": 0.5}, "TIMEOUT", "a call took too long"),
        (IGNORING, {"cpu_s": 1}, "TIMEOUT", "a call used too much CPU"),
        (FORKS, {"memory_mb": 128}, "EXEC_ERR", "a call used too much memory"),
        ("import os; os._exit(3)", {}, "EXEC_ERR", "its interpreter ended"),
        ("import os; os.kill(os.getpid(), 9)", {}, "EXEC_ERR", "its interpreter ended"),
    ],
)
async def test_a_session_that_is_lost_is_said_to_be_by_this_call_and_by_the_next(
    code: str, limits: dict[str, Any], status: str, why: str
) -> None:
    async with sessions(**limits) as adapter:
        await value(adapter, "x = 1")
        outcome = await told(adapter, code)
        assert (outcome.status, outcome.fault) == (status, "worker")
        assert "it is gone, with its variables and files: the next call has none" in outcome.value
        after = await value(adapter, "'x' in globals()")
        assert after["result"] == "False"
        assert after["session"].startswith(f"lost: {why}, so this call began without")
        assert (await value(adapter, "1"))["session"].startswith("kept: it has had 1 call")


async def test_code_that_ends_its_interpreter_well_is_told_as_well() -> None:
    async with sessions() as adapter:
        assert "it is gone" in (await value(adapter, "import os; os._exit(0)"))["session"]


async def test_cpu_is_counted_for_each_call() -> None:
    code = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    async with sessions(cpu_s=1) as adapter:
        for _ in range(2):
            await value(adapter, code)
        assert (await value(adapter, "1"))["session"] == "kept: it has had 2 calls before"


async def test_withdrawn_a_call_takes_the_session_along() -> None:
    before = set(psutil.Process().children())
    async with sessions() as adapter:
        await value(adapter, "x = 1")
        working = asyncio.create_task(told(adapter, "import os, signal\nos.fork()\nsignal.pause()"))
        async with asyncio.timeout(LIMIT_S):
            while not any(len(family) > WHOLE for family in families(before)):
                await asyncio.sleep(0)
                assert not working.done()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert families(before) == []
        assert (await value(adapter, "1"))["session"].startswith("lost: a call was withdrawn")


async def test_a_session_that_was_killed_between_calls_is_begun_again() -> None:
    before = set(psutil.Process().children())
    async with sessions() as adapter:
        await value(adapter, "x = 1")
        ((warden, *_),) = families(before)
        warden.kill()
        await value(adapter, "1", run="meanwhile the loop hears of it")
        assert (await value(adapter, "1"))["session"].startswith("lost: its process was killed")


async def test_unused_it_is_ended_and_the_next_call_hears_of_it() -> None:
    before = set(psutil.Process().children())
    async with sessions(idle_s=0.1) as adapter:
        await value(adapter, "x = 1")
        await locked_in(0, before)
        after = await value(adapter, "1")
        assert after["session"].startswith("lost: nobody used it for 0.1 seconds")


async def test_only_so_many_runs_have_one_and_the_idlest_gives_way() -> None:
    before = set(psutil.Process().children())
    async with sandbox(mode="persistent", warm=0, sessions=4) as adapter:
        for run in "abcd":
            await value(adapter, "x = 1", run=run)
        assert await result(adapter, "x", run="a") == "1"
        assert (await value(adapter, "1", run="e"))["session"] == NEW
        assert len(families(before)) == 4
        assert await result(adapter, "x", run="a") == "1"
        lost = await value(adapter, "1", run="b")
        assert lost["session"].startswith("lost: its place was needed for another run")


async def test_idle_is_what_has_ended_its_call_not_what_has_begun_it_first(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = f"open({str(fifo)!r}).readline()"
    held = os.open(fifo, os.O_RDWR)  # so that writing needs no reader
    async with sessions(sessions=4, isolation="process") as adapter:
        first = asyncio.create_task(value(adapter, code, run="a"))
        await asyncio.sleep(0)
        for run in "bcd":
            await value(adapter, "x = 1", run=run)
        os.write(held, b"go on\n")
        await first
        await value(adapter, "1", run="e")
        assert (await value(adapter, "1", run="a"))["session"].startswith("kept")
    os.close(held)


async def test_with_all_of_them_at_work_another_run_is_refused_for_now() -> None:
    async with sessions(sessions=4) as adapter:
        runs = [told(adapter, "import signal\nsignal.pause()", run=run) for run in "abcd"]
        working = [asyncio.create_task(run) for run in runs]
        await asyncio.sleep(0)
        outcome = await told(adapter, "1", run="e")
        assert (outcome.status, outcome.fault) == ("EXEC_ERR", "infrastructure")
        assert "All 4 sessions are at work" in outcome.value
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


@pytest.mark.parametrize(
    ("sessions", "fields", "said"),
    [
        (3, {}, "works on 4 calls at a time and keeps only 3 sessions"),
        (16, {"hedge": True}, "which a hedged call would change twice"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    sessions: int, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidData, match=said):
        PythonAdapter(draft("python", {"mode": "persistent", "sessions": sessions}, **fields))


async def test_a_call_that_never_gets_its_turn_harms_nothing() -> None:
    async with sessions() as adapter:
        first = asyncio.create_task(told(adapter, "x = 1"))
        await asyncio.sleep(0)
        outcome = await adapter.run(attempt("x = 2", timeout_s=0))
        assert (outcome.status, outcome.fault) == ("TIMEOUT", "worker")
        assert "was not run" in outcome.value
        assert (await first).status == "OK"
        assert await result(adapter, "x") == "1"


COUNTING: Final = """
import os, threading, time
def count():
    global counted
    while True: counted += 1
counted = 0
threading.Thread(target=count, daemon=True).start()
if os.fork() == 0:
    while True: pass
"""


@pytest.mark.parametrize("level", ["process", pytest.param("namespaces", marks=walls)])
async def test_between_calls_nothing_of_it_works(level: str) -> None:
    before = set(psutil.Process().children())
    async with sessions(isolation=level) as adapter:
        await value(adapter, COUNTING)
        (family,) = families(before)
        states = {process.pid: process.status() for process in family[-2:]}
        assert set(states.values()) == {psutil.STATUS_STOPPED}, states
        code = "first = counted\nwhile counted == first: time.sleep(0)\ncounted > first"
        assert await result(adapter, code) == "True", "its thread goes on with the next call"


RESTLESS: Final = """
import os, signal
for _ in range(4):
    if os.fork() == 0:
        while True: os.kill(-1, signal.SIGCONT)
"""


@walls
async def test_processes_that_wake_each_other_are_stopped_or_ended() -> None:
    before = set(psutil.Process().children())
    async with sessions() as adapter:
        outcome = await value(adapter, RESTLESS)
        for family in families(before):
            states = {process.status() for process in family[2:]}
            assert states == {psutil.STATUS_STOPPED}, outcome
        assert (await value(adapter, "6 * 7"))["result"] == "42"


async def test_another_worker_knows_nothing_of_it_and_says_so() -> None:
    async with sessions() as adapter:
        await value(adapter, "x = 1")
        replica = PythonAdapter(adapter.spec)
        after = await value(replica, "'x' in globals()")
        await replica.close()
        assert (after["result"], after["session"]) == ("False", NEW)


async def test_a_calls_own_variables_go_with_it() -> None:
    code = "import os; os.environ.get('TRACEPARENT')"
    async with sessions() as adapter:
        trace.get_current_span()  # whoever has OpenTelemetry loaded has spans
        with tracing.under(lambda: (CONTEXT, {})):
            assert await result(adapter, code) == repr(CONTEXT.traceparent)
        assert await result(adapter, code) is None


FORGED: Final = """
import os
for fd in range(3, 64):
    try: os.write(fd, b'{"n": %d, "result": "7"}\\n')
    except OSError: pass
"""


async def test_a_forged_result_harms_only_its_own_run() -> None:
    async with sessions() as adapter:
        await value(adapter, "x = 1", run="other")
        for n in (1, 2, 3):
            outcome = await told(adapter, FORGED % n)
            assert (outcome.status, outcome.fault) in (("OK", "none"), ("EXEC_ERR", "worker"))
        assert await result(adapter, "x", run="other") == "1"
        after = await told(adapter, "6 * 7")
        assert after.fault in ("none", "worker")


SHOWN: Final = """
import os, socket, time
secret = 'of run a'
open('/tmp/secret', 'w').write(secret)
server = socket.socket(socket.AF_UNIX)
server.bind('\\0podium-secret')
server.listen()
os.fork() or time.sleep(99)
"""

LOOKED: Final = """
import os, socket
def connected():
    try: socket.socket(socket.AF_UNIX).connect('\\0podium-secret')
    except ConnectionRefusedError: return False
    return True
def alive(pid):
    try: os.kill(pid, 0)
    except ProcessLookupError: return False
    return True
os.listdir('/tmp'), 'secret' in globals(), connected(), [n for n in range(4, 999) if alive(n)]
"""


@walls
async def test_two_runs_see_nothing_of_each_other() -> None:
    async with sessions() as adapter:
        await value(adapter, SHOWN, run="a")
        assert await result(adapter, LOOKED, run="b") == "([], False, False, [])"
        assert await result(adapter, "secret", run="a") == "'of run a'"


def there(folder: str) -> bool:
    return Path(folder.strip("'")).exists()


async def test_without_walls_it_leaves_no_folder() -> None:
    async with sessions(isolation="process") as adapter:
        folder = await result(adapter, "import os\nos.getcwd()")
        assert there(folder)
    assert not there(folder)
