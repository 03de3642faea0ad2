"""Sandboxed Python: each call in a sandbox of its own, in a warm one, or all of a run in one."""

import asyncio
from typing import Final

import msgspec
import psutil

from actors.ports import Adapter, Outcome
from actors.workers import PythonAdapter, draft, isolation
from protocol.actions import Json, Spend
from tests.adapters.case import LARGE, LIMIT_S, attempt
from tests.sandboxes import WHOLE, families

WAIT: Final = "import os, signal\nos.fork()\nwhile True: signal.pause()"
"""Code that is seen to work from outside: it has a child."""


class SandboxCase:
    """Sandboxed Python, with these options."""

    spend = Spend()
    parties = 3

    CODE: Final = {
        "ok": "'ok'",
        "fail": "raise ValueError('no such thing')",
        "wait": WAIT,
        "meet": WAIT,
        "large": f"print('x' * {LARGE})",
        "span": "import os; print(os.environ['TRACEPARENT'], end='')",
        "not text": r"import sys; sys.stdout.buffer.write(b'\xff\xfe')",
    }

    def __init__(self, **options: Json) -> None:
        self.value: Json = {"stdout": "", "stderr": "", "result": "'ok'"}
        spec = draft("python", {"isolation": isolation().level, **options})
        self.python = PythonAdapter(spec)
        self.adapter: Adapter = self.python
        self.before = set(psutil.Process().children())
        self.seen: list[psutil.Process] = []

    def ask(self, what: str) -> dict[str, Json]:
        return {"code": self.CODE[what]}

    def span(self, outcome: Outcome) -> str:
        return str(outcome.value["stdout"])

    async def started(self) -> None:
        await self._at_work(1)

    async def stopped(self) -> bool:
        return not any(process.is_running() for process in self.seen)

    async def meet(self) -> list[Outcome]:
        """They can't see each other, but all of them can be seen from here."""
        made = attempt(self.ask("meet"))
        works = [
            asyncio.create_task(self.adapter.run(msgspec.structs.replace(made, run=f"r{number}")))
            for number in range(self.parties)
        ]
        await self._at_work(self.parties)
        for work in works:
            work.cancel()
        ended = await asyncio.gather(*works, return_exceptions=True)
        assert await self.stopped()
        return [Outcome() for end in ended if isinstance(end, asyncio.CancelledError)]

    async def _at_work(self, attempts: int) -> None:
        """Wait for so many with a warden, an init if it is isolated, the code, and its child.

        A warm one has no child yet.
        """
        whole = WHOLE + 1
        async with asyncio.timeout(LIMIT_S):
            while len(self.seen) < attempts * whole:
                await asyncio.sleep(0)
                at_work = [each for each in families(self.before) if len(each) >= whole]
                self.seen = [process for family in at_work for process in family]


class SessionCase(SandboxCase):
    """Sandboxed Python, all calls of a run in one."""

    def __init__(self) -> None:
        super().__init__(mode="persistent")
        self.asked = 0

    def ask(self, what: str) -> dict[str, Json]:
        began = "new: this call began without variables and files of any before"
        if self.asked:
            began = f"kept: it has had {self.asked} call before"
        self.value = {"stdout": "", "stderr": "", "result": "'ok'", "session": began}
        self.asked += 1
        return super().ask(what)
