"""Warm sandboxes: ready before a call comes, used once, and gone with their worker."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import psutil
import pytest

from actors.workers import PythonAdapter, draft, isolation
from tests.sandboxes import LIMIT_S, attempt, families, sandbox, walls, warm

ROOT: Final = Path(__file__).resolve().parents[2]

LOOK: Final = "import os, random\nfound = os.listdir('.'), 'mine' in globals()\nmine = 1\n"
LEAVE: Final = "open('mine', 'w').close()\nfound, random.random(), hash('a')"


@pytest.fixture
def before() -> set[psutil.Process]:
    return set(psutil.Process().children())


def there(folder: str) -> bool:
    return Path(folder).exists()


async def test_none_is_made_before_the_first_call(before: set[psutil.Process]) -> None:
    adapter = PythonAdapter(draft("python"))
    assert set(psutil.Process().children()) == before
    await adapter.close()


async def test_a_call_takes_one_that_waits_and_another_is_made(before: set[psutil.Process]) -> None:
    async with sandbox(warm=1) as adapter:
        assert (await adapter.run(attempt("1"))).status == "OK"
        await warm(adapter, 1)
        ((waiting, *_),) = families(before)
        handle = os.pidfd_open(waiting.pid)
        assert (await adapter.run(attempt("1"))).status == "OK"
        assert select.select([handle], [], [], 0)[0], "it was not the one that waited"
        os.close(handle)
        await warm(adapter, 1)
        ((other, *_),) = families(before)
        assert other != waiting


async def test_each_is_used_once_and_no_two_are_alike() -> None:
    async with sandbox(warm=2) as adapter:
        seen = []
        for _ in range(5):
            outcome = await adapter.run(attempt(LOOK + LEAVE))
            seen.append(str(outcome.value["result"]))
            await warm(adapter, 2)
        assert all(each.startswith("(([], False), ") for each in seen), seen
        assert len(set(seen)) == len(seen), "two had the same random numbers"


async def test_no_more_wait_than_are_asked_for(before: set[psutil.Process]) -> None:
    async with sandbox(warm=2) as adapter:
        for _ in range(3):
            await adapter.run(attempt("1"))
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})  # no more are made
        assert len(families(before)) == 2


async def test_one_that_was_killed_is_not_used(before: set[psutil.Process]) -> None:
    async with sandbox(warm=1) as adapter:
        await adapter.run(attempt("1"))
        await warm(adapter, 1)
        ((waiting, *_),) = families(before)
        waiting.kill()
        await warm(adapter, 0)
        assert (await adapter.run(attempt("6 * 7"))).value["result"] == "42"


@pytest.mark.parametrize("calls", [1, 2])
async def test_closed_while_one_is_made_it_leaves_none(calls: int) -> None:
    async with sandbox(warm=3) as adapter:
        for _ in range(calls):
            await adapter.run(attempt("1"))


async def test_without_walls_it_leaves_no_folder() -> None:
    async with sandbox(warm=1, isolation="process") as adapter:
        first = await adapter.run(attempt("import os\nos.getcwd()"))
        second = await adapter.run(attempt("import os\nos.getcwd()"))
    folders = {outcome.value["result"].strip("'") for outcome in (first, second)}
    assert len(folders) == 2
    assert not any(map(there, folders))


WORKER: Final = """
import asyncio, os, sys
from actors.ports import Attempt
from actors.workers import draft, host
from tests.sandboxes import warm

async def main():
    adapter = host(draft("python", {"isolation": sys.argv[1], "warm": 2, "mode": sys.argv[2]}))
    for run in "ab":
        made = dict(call="c", attempt=1, arguments={"code": "1"}, timeout_s=60)
        await adapter.run(Attempt(run=run, **made))
    await warm(adapter, 2)
    if os.fork():
        print(os.getpid(), flush=True)
        await asyncio.Event().wait()
    sys.stdin.buffer.read()  # a copy, which holds all files that the worker held
    os._exit(0)

asyncio.run(main())
"""


@walls
@pytest.mark.parametrize("mode", ["ephemeral", "persistent"])
def test_nothing_that_waits_outlives_a_worker_that_is_killed(mode: str) -> None:
    """Neither warm ones nor sessions, even if a copy of the worker holds their lifelines."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, isolation().level, mode],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert int(worker.stdout.readline()) == worker.pid
        family = psutil.Process(worker.pid).children(recursive=True)
        waiting = [each for each in family if "sandbox_child" in "".join(each.cmdline())]
        assert len(waiting) >= 6
        handles = [os.pidfd_open(process.pid) for process in waiting]
        os.kill(worker.pid, signal.SIGKILL)
        for handle in handles:
            assert select.select([handle], [], [], LIMIT_S)[0], "a process lives on"
            os.close(handle)
