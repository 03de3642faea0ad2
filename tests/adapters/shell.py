"""A command from an allow-list."""

import asyncio
import os
from pathlib import Path
from typing import Final

import psutil

from actors.ports import Outcome
from actors.workers import draft, host
from protocol.actions import Json, Spend
from tests.adapters.case import LARGE, LIMIT_S, together


class ShellCase:
    """Commands of a real `sh`, which the list allows."""

    spend = Spend()
    parties = 3

    SCRIPTS: Final = {
        "ok": "printf ok",
        "fail": "echo no such thing >&2; exit 7",
        "wait": "setsid sleep 1000 & echo > started; wait",
        "meet": "touch $$; while [ $(ls | wc -l) -lt 4 ]; do :; done",
        "large": f"head -c {LARGE} /dev/zero | tr '\\0' x; echo",
        "span": 'printf %s "$TRACEPARENT"',
        "not text": r"printf '\377\376'",
    }

    def __init__(self, folder: str) -> None:
        self.value: Json = {"stdout": "ok", "stderr": "", "exit": 0}
        self.fifo = Path(folder, "started")
        os.mkfifo(self.fifo)
        self.adapter = host(draft("shell", {"allow": [["sh", "-c"]], "folder": folder}))
        self.before = set(psutil.Process().children(recursive=True))
        self.seen: set[psutil.Process] = set()

    def ask(self, what: str) -> dict[str, Json]:
        return {"argv": ["sh", "-c", self.SCRIPTS[what]]}

    def span(self, outcome: Outcome) -> str:
        return str(outcome.value["stdout"])

    async def started(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            await asyncio.to_thread(self.fifo.read_text)
        self.seen = set(psutil.Process().children(recursive=True)) - self.before
        assert len(self.seen) >= 3  # the warden, the shell, and what left its session

    async def stopped(self) -> bool:
        return not any(process.is_running() for process in self.seen)

    async def meet(self) -> list[Outcome]:
        return await together(self)
