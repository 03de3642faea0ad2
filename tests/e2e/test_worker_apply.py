"""`podium worker apply`: workers are changed, withdrawn, renamed and added while runs go."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from actors.policies import static
from podium import Host
from podium.config import Config
from protocol.actions import Pool
from protocol.budgets import Budget
from protocol.decisions import PolicySpec
from tests.integration.chaos import MARK, ROOT, of_deployment

RUNS: Final = 100
"""Runs that are going while their workers change."""

LONG: Final = "many " * 15_000
"""More than the 64 KiB that a reader of lines takes by default."""

MODULE: Final = f'''
import asyncio
from pathlib import Path

import podium

HERE = Path(__file__).parent

@podium.tool
def price() -> str:
    """The price."""
    return "old price"

@podium.tool
def stock() -> str:
    """How {LONG} there are."""
    return "old stock"

@podium.tool(concurrency={RUNS})
async def hold() -> str:
    """Waits until the test goes on."""
    while not (HERE / "go").exists():
        await asyncio.sleep(0.05)
    return "held"
'''

FILE: Final = '[pool]\nname = "desk"\nmodule = "desk"\n'

COLOUR: Final = '''
@podium.tool
def colour() -> str:
    """A colour."""
    return "red"

'''

PLAN: Final = """
answer = "{first.output}, {held.output}, {second.output}, {third.output}"
[[call]]
id = "first"
worker = "price"
[[call]]
id = "held"
worker = "WAIT"
after = ["first"]
[[call]]
id = "second"
worker = "price"
after = ["held"]
[[call]]
id = "third"
worker = "LAST"
after = ["held"]
"""


class Desk:
    """A standing deployment of a pool file, as a user at a terminal has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = Config(folder=str(folder / ".podium"))
        (folder / "desk.py").write_text(MODULE)
        (folder / "pool.toml").write_text(FILE)

    def edit(self, *edits: tuple[str, str]) -> None:
        """Replace something in the module that its tools are in."""
        text = (self.folder / "desk.py").read_text()
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        (self.folder / "desk.py").write_text(text)

    def __call__(self, *arguments: str, code: int = 0) -> Any:
        """What a command says in JSON."""
        command = [sys.executable, "-m", "podium.cli", *arguments, "--json"]
        environment = os.environ | {MARK: str(self.folder), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, "--folder", self.config.folder],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def workers(self) -> dict[str, str]:
        """The offered ones, and where their calls wait."""
        rows = self("worker", "list")["rows"]
        return {row["worker"]: row["queue"] for row in rows if row["state"] == "offered"}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """One that stands."""
    desk = Desk(tmp_path)
    desk("up", "--pool", "pool.toml")
    try:
        yield desk
    finally:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            desk("down")
        for pid in of_deployment(tmp_path):
            os.kill(pid, 9)


def planned(wait: str, last: str) -> PolicySpec:
    """A policy that calls the price, waits, and calls the price and another worker."""
    text = PLAN.replace("WAIT", wait).replace("LAST", last)
    return static.spec_of(static.read(tomllib.loads(text)), "desk")


async def begun(there: Host, pool: Pool, policy: PolicySpec, count: int) -> list[str]:
    budget = Budget(wall_ms=100_000)
    each = (there.client.submit("how much?", pool, policy, budget) for _ in range(count))
    return list(await asyncio.gather(*each))


async def held(there: Host, runs: list[str]) -> None:
    """Wait until each of them waits for the test."""
    for run in runs:
        async for log in there.client.follow(run):
            call = log.state().calls.get("1-1")
            if call is not None and call.attempt:
                break


async def test_workers_change_while_a_hundred_runs_go_and_none_breaks(desk: Desk) -> None:
    async with Host.connect(desk.config) as there:
        going = await begun(there, await there.client.offered(), planned("hold", "stock"), RUNS)
        await held(there, going)

        # The command can import the module, and the worker's process can't.
        broken = ("import podium\n", "import os, podium\nassert 'RAY_JOB_ID' not in os.environ\n")
        desk.edit(("The price.", "The price of today."), broken)
        error = desk("worker", "apply", "pool.toml", code=5)["error"]
        assert "change 3 of the workers came to nothing: worker-price@2-1" in error["message"]
        assert desk.workers() == {"price": "price", "stock": "stock", "hold": "hold"}

        desk.edit(
            (broken[1], broken[0]),
            ('"old price"', '"new price"'),
            ("@podium.tool\ndef stock", "def stock"),
            ("podium.tool(concurrency", 'podium.tool(name="wait", concurrency'),
            ("@podium.tool\ndef price", COLOUR + "@podium.tool\ndef price"),
        )
        would = desk("worker", "apply", "pool.toml", "--dry-run")
        done = desk("worker", "apply", "pool.toml")
        what = "added colour; changed price; renamed hold to wait; withdrawn stock"
        assert would["detail"] == done["detail"] == f"{what}; in another order"
        assert desk.workers() == {"colour": "colour", "price": "price@2", "wait": "hold"}

        later = await begun(there, await there.client.offered(), planned("wait", "colour"), 10)
        await held(there, later)
        (desk.folder / "go").touch()
        results = await asyncio.gather(*map(there.client.result, [*going, *later]))
        answers = [result.answer for result in results]
        assert answers[:RUNS] == ["old price, held, old price, old stock"] * RUNS
        assert answers[RUNS:] == ["new price, held, new price, red"] * 10
