"""Following a run: live in a terminal, line by line elsewhere, as JSON lines for programs."""

import asyncio
import math
import shlex
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from podium.cli.interrupts import Interrupts
from podium.cli.output import Output, iso
from podium.render import deciders, tree
from podium.render_lines import story
from podium.render_text import clean, one_line
from podium.resting import paused

if TYPE_CHECKING:
    from rich.live import Live

    from podium.client import Client
    from podium.render import RunTree
    from replay.chain import RunLog

FAILED: Final = ("PARSE_ERR", "EXEC_ERR", "TIMEOUT")
"""How a call settles that failed."""

BELOW_S: Final = 5.0
"""Seconds between two looks at what the runs below ask people. Each reads all that are at work; a
person takes longer than that."""

PICTURE_S: Final = 0.1
"""Seconds between two pictures: a spinner that turns smoothly."""


class Follower:
    """Shows a run until it ends, pauses, or the user has seen enough.

    Args:
        client: Reads the run.
        output: Where it is shown.
        content: Whether to show what agents wrote.
        result: Whether the story itself is the command's result, on stdout, with every commit in
            JSON; else it is talk.
    """

    def __init__(
        self, client: "Client", output: Output, *, content: bool, result: bool = False
    ) -> None:
        self.client, self.output = client, output
        self.content, self.result = content, result
        self._told = 0
        self._asked: set[tuple[str, str]] = set()
        """Runs below and their calls, of which was said that they ask a person."""
        self._live: Live | None = None

    async def follow(self, run: str, interrupts: Interrupts) -> "RunTree | None":
        """Show the run; its tree when it has ended or paused, None when interrupted."""
        if self.output.lively():
            from rich.live import Live

            console = self.output.console(err=True)
            self._live = Live(console=console, transient=True, auto_refresh=False)
            self._live.start()
            interrupts.before = self._leave_standing
        try:
            log = await interrupts.unless(self._to_the_end(run))
        finally:
            interrupts.before = lambda: None
            if self._live is not None:
                self._live.stop()
        if log is None:
            return None
        if self._live is not None:
            self._draw(log, None)
        return tree(log)

    def _leave_standing(self) -> None:
        """End the live picture, and keep the last one on the screen."""
        if self._live is not None:
            self._live.transient = False
            self._live.stop()
            self._live = None

    async def _to_the_end(self, run: str) -> "RunLog | None":
        last: RunLog | None = None
        loop = asyncio.get_running_loop()
        look = math.inf if self.output.as_json else loop.time() + BELOW_S
        async with aclosing(self.client.follow(run)) as logs:
            upcoming = asyncio.create_task(_next(logs))
            try:
                while True:
                    patience = PICTURE_S if self._live is not None and last else BELOW_S
                    done, _ = await asyncio.wait({upcoming}, timeout=patience)
                    if done:
                        log = upcoming.result()
                        if log is None:
                            return last
                        last = log
                        self._tell(log)
                        if paused(log):
                            return log
                        upcoming = asyncio.create_task(_next(logs))
                    if last is not None and loop.time() >= look:
                        await self._tell_below(last)
                        look = loop.time() + BELOW_S
                    if last is not None and self._live is not None:
                        self._draw(last, self._live)
            finally:
                upcoming.cancel()
                await asyncio.wait({upcoming})

    def _tell(self, log: "RunLog") -> None:
        if self.output.as_json:
            if self.result:
                for commit in log.commits[self._told :]:
                    names = [type(event).__name__ for event in commit.events]
                    told = {
                        "run_id": log.run,
                        "n": commit.n,
                        "at": iso(commit.at),
                        "causes": commit.causes,
                        "events": names,
                    }
                    self.output.json({"commit": told})
        elif self._live is None:
            for line in story(log, self._told, content=self.content):
                (self.output.text if self.result else self.output.say)(line)
        self._told = len(log.commits)

    async def _tell_below(self, log: "RunLog") -> None:
        """Say which runs below ask a person: the story of this one goes on only with the answer."""
        for asked in await self.client.asked_below(log):
            if (asked.run, asked.call) in self._asked:
                continue
            self._asked.add((asked.run, asked.call))
            line = f"{one_line(asked.who)} is asked by run {asked.run}, below this one: "
            line += f"podium answer   then: podium answer {asked.run} ANSWER"
            if self._live is not None:
                self._live.console.print(clean(line), markup=False, highlight=False)
            else:
                self.output.say(line)

    def _draw(self, log: "RunLog", live: "Live | None") -> None:
        from podium.render_rich import run_picture

        console = live.console if live else self.output.console(err=not self.result)
        picture = run_picture(
            tree(log),
            self.output.world.now(),
            content=self.content,
            width=console.width,
            height=console.height if live else None,
            own=True,
        )
        if live is not None:
            live.update(picture, refresh=True)
        else:
            console.print(picture)


def done(run: "RunTree") -> dict[str, Any]:
    """What `{"done": …}` says of a run."""
    return {
        "run_id": run.run,
        "outcome": run.outcome or run.phase,
        "answer": run.answer if run.outcome == "finished" else None,
        "limited_by": run.limited_by or None,
        "decided_by": deciders(run),
        "detail": run.detail or None,
        "rounds": run.rounds,
        "calls": run.spent.calls,
        "tokens": run.spent.tokens,
        "cost_usd": run.spent.cost / 1e6,
        "took_ms": max(0, (run.ended or run.last) - run.started),
    }


def failure_hints(output: Output, run: "RunTree", pool: str = "") -> None:
    """What to do about the first call that failed, if one did; with the pool file that is named."""
    calls = [call for turn in run.turns for call in turn.calls if call.status in FAILED]
    calls.sort(key=lambda call: not call.attempts)  # of those that had a worker, if any had one
    first = next(iter(calls), None)
    if first is not None:
        failed = first.call
        if first.child:
            output.hint(f"the run that was to answer it: podium runs show {first.child}")
        output.hint(f"what failed: podium timeline {run.run} --failures")
        named = f" --pool {shlex.quote(pool)}" if pool else ""
        again = f"podium reproduce {run.run}/{failed}{named}   or: podium rerun {run.run}{named}"
        output.hint(f"then make it again: {again}")


async def _next(logs: "AsyncIterator[RunLog]") -> "RunLog | None":
    return await anext(logs, None)
