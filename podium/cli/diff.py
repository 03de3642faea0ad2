"""`podium diff`: two runs side by side, and where they first part."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output
from podium.cli.source import source
from protocol.errors import Diverged

if TYPE_CHECKING:
    from replay.chain import RunLog
    from replay.diff import Difference


def diff(
    a: str,
    b: str,
    /,
    *,
    content: Annotated[
        bool, Parameter(help="Show what agents wrote: arguments, values, the answer.")
    ] = False,
    common: Common = COMMON,
) -> int:
    """Compare two runs: where they first differ, and in what.

    They are aligned by round, and within a round by worker and arguments. Ends with 0 if they are
    the same but for time, and with 3 if they differ.

    Parameters
    ----------
    a
        A run: its id, or the beginning of it.
    b
        The other one.
    """
    from replay.diff import diff as compare

    output = Output(common.json)

    async def read() -> "tuple[RunLog, RunLog]":
        async with source(common) as runs:
            return await runs.log(a), await runs.log(b)

    found = compare(*asyncio.run(read()))
    if output.as_json:
        every = found.all()
        counts = {
            "differences": sum(each.counts for each in every),
            "rounds": len(found.steps),
            "shared_events": found.shared,
        }
        output.read([_json(each, content) for each in every], counts=counts)
    else:
        from podium.render_diff import picture

        output.show(picture(found, content=content, width=output.console().width))
    if found.first is None:
        return 0
    if not content:
        output.hint(f"with what was said: podium diff {found.a} {found.b} --content")
    return Diverged.exit_code


def _json(found: "Difference", content: bool) -> dict[str, Any]:
    """A difference, for programs."""
    from podium.render_diff import AGENTS

    shown = content or found.what not in AGENTS
    return {
        "what": found.what,
        "round": found.round or None,
        "call_a": found.call_a or None,
        "call_b": found.call_b or None,
        "worker": found.worker or None,
        "event_a": found.event_a or None,
        "event_b": found.event_b or None,
        "counts": found.counts,
        **({"a": found.a, "b": found.b} if shown else {}),
    }
