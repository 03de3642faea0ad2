"""Sandboxed Python."""

import asyncio
from typing import Final

import psutil

from actors.ports import Outcome
from actors.workers import draft, host, isolation
from protocol.actions import Json, Spend
from tests.adapters.case import LARGE, LIMIT_S, attempt


class SandboxCase:
    """Sandboxed Python."""

    spend = Spend()
    parties = 3

    CODE: Final = {
        "ok": "'ok'",
        "fail": "raise ValueError('no such thing')",
        "wait": "import signal\nwhile True: signal.pause()",
        "meet": "import signal\nwhile True: signal.pause()",
        "large": f"print('x' * {LARGE})",
        "span": "import os; print(os.environ['TRACEPARENT'], end='')",
        "not text": r"import sys; sys.stdout.buffer.write(b'\xff\xfe')",
    }

    def __init__(self) -> None:
        self.value: Json = {"stdout": "", "stderr": "", "result": "'ok'"}
        self.adapter = host(draft("python", {"isolation": isolation().level}))
        self.before = set(psutil.Process().children(recursive=True))
        self.seen: list[psutil.Process] = []

    def ask(self, what: str) -> dict[str, Json]:
        return {"code": self.CODE[what]}

    def span(self, outcome: Outcome) -> str:
        return str(outcome.value["stdout"])

    async def started(self) -> None:
        await self._processes(1)

    async def stopped(self) -> bool:
        return not any(process.is_running() for process in self.seen)

    async def meet(self) -> list[Outcome]:
        """They can't see each other, but all of them can be seen from here."""
        works = [
            asyncio.create_task(self.adapter.run(attempt(self.ask("meet"))))
            for _ in range(self.parties)
        ]
        await self._processes(self.parties)
        for work in works:
            work.cancel()
        ended = await asyncio.gather(*works, return_exceptions=True)
        assert await self.stopped()
        return [Outcome() for end in ended if isinstance(end, asyncio.CancelledError)]

    async def _processes(self, attempts: int) -> None:
        """Wait until each attempt has its supervisor, its init if it is isolated, and its code."""
        each = 3 if isolation().level == "namespaces" else 2
        async with asyncio.timeout(LIMIT_S):
            while len(self.seen) < attempts * each:
                await asyncio.sleep(0)
                now = set(psutil.Process().children(recursive=True))
                self.seen = list(now - self.before)
