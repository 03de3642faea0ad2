"""`podium runs cancel`, `pause`, `resume`, `replan`, `answer`, `extend`: what people say to a run.

Each takes one whole id, so that nothing is ended by a slip of the finger, and asks no question.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from podium.cli.options import ADDED, Common, Limits
from podium.cli.output import Output
from podium.cli.source import no_file
from podium.cli.world import current
from protocol.actions import MICRO
from protocol.budgets import Extension
from protocol.errors import NotFound, Usage
from protocol.inbox import SignalKind
from protocol.subjects import is_run

if TYPE_CHECKING:
    from podium.client import Client
    from podium.config import Config

By = Annotated[str | None, Parameter(help="Who says it; you by default.")]
DryRun = Annotated[bool, Parameter(help="Say what would be done, and do nothing.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Said(Common):
    """Options of whatever is said to a run."""

    reason: Annotated[str, Parameter(help="Why; recorded with the signal.")] = ""
    by: By = None
    dry_run: DryRun = False


SAID: Final = Said()


def cancel(run: str, /, *, said: Said = SAID) -> int:
    """End a run without an answer. What it has found stays in its log."""
    return _Signal("cancel", run, said).give("is being cancelled")


def pause(run: str, /, *, said: Said = SAID) -> int:
    """Let a run rest. It holds no place while it does."""
    return _Signal("pause", run, said).give("is being paused")


def resume(run: str, /, *, said: Said = SAID) -> int:
    """Let a paused run go on."""
    return _Signal("resume", run, said).give("goes on")


def replan(
    run: str,
    /,
    *,
    call: Annotated[str, Parameter(help="The call because of which, such as 1-0.")] = "",
    said: Said = SAID,
) -> int:
    """Have a run decide anew while calls go on, also one that waits for a person."""
    return _Signal("replan", run, said, call).give("is asked to decide anew")


def answer(run: str, /, *, said: Said = SAID) -> int:
    """Have a run answer now, with what it has."""
    return _Signal("answer", run, said).give("is asked for its answer")


def extend(
    run: str,
    /,
    *,
    added: Limits = ADDED,
    said: Said = SAID,
) -> int:
    """Let a run spend more than it was given; one that paused for it goes on."""
    values = (added.rounds, added.calls, added.tokens, added.cost, added.wall)
    if any(value is not None and value < 0 for value in values):
        raise Usage("An extension only adds.", hint="Give numbers above 0.")
    extension = Extension(
        rounds=added.rounds or 0,
        calls=added.calls or 0,
        tokens=added.tokens or 0,
        cost=round((added.cost or 0) * MICRO),
        wall_ms=round((added.wall or 0) * 1_000),
    )
    if extension == Extension():
        raise Usage(
            "extend needs something to add.",
            hint=f"podium runs extend {run} --rounds 4   (or --calls, --tokens, --cost, --wall)",
        )
    return _Signal("extend", run, said).give("may spend more", extension)


def after(output: Output, config: "Config", run: str, what: str) -> None:
    """Say how to see what comes of something that was said to a run."""
    standing = current().deployments.standing(config)
    if standing is None and not config.nats.url:
        output.hint(
            f"no deployment stands here: {what} waits for one "
            f"(podium up, or podium run --continue {run})"
        )
    else:
        output.hint(f"see what comes of it: podium runs watch {run}")


class _Signal:
    """One signal, with what the command was told."""

    def __init__(self, kind: SignalKind, run: str, said: Said, call: str = "") -> None:
        self.kind, self.run, self.said, self.call = kind, run, said, call

    def give(self, what: str, extension: Extension | None = None) -> int:
        """Give the signal, and say so."""
        output = Output(self.said.json)
        config = self.said.load().config
        event = asyncio.run(self._given(config, extension))
        detail = f"run {self.run} {what}"
        output.mutation(self.run, detail, dry_run=self.said.dry_run, event_id=event)
        if event is not None:
            after(output, config, self.run, "the signal")
        return 0

    async def _given(self, config: "Config", extension: Extension | None) -> str | None:
        no_file(self.run, "fork {run} --at end")
        async with current().deployments.connect(config) as host:
            await self._exact(host.client)
            if self.said.dry_run:
                from podium.checks import check_told

                state = await host.client.state(self.run)
                check_told(self.run, self.kind, state, self.call)
                return None
            by = self.said.by or current().user
            return await host.client.signal(
                self.run, self.kind, by, self.said.reason, extension, self.call
            )

    async def _exact(self, client: "Client") -> None:
        """Refuse anything but the whole id of a run that is there."""
        found = await client.find(self.run)
        if found != self.run:
            raise Usage(
                f"{self.kind} needs the whole id of a run.",
                hint=f"podium runs {self.kind} {found}",
            )
        if not is_run(self.run):
            raise NotFound(f"there is no run {self.run!r}", hint="list them: podium runs")
