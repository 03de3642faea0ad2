"""`podium causes`: what led to an event, across runs; and how `podium effects` tells its own."""

import asyncio
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from podium.cli.options import Common
from podium.cli.output import Output, iso
from podium.cli.source import event_name, source
from protocol.errors import NotFound, Unreachable, Usage

if TYPE_CHECKING:
    from podium.cli.source import Source
    from replay.causality import Direction, Found, Graph, Walk

PAGE: Final = 50
"""Events of one page: a screen or two."""


@Parameter(name="*")
@dataclass(frozen=True)
class Page(Common):
    """Which of the events are told, and how."""

    at: Annotated[int | None, Parameter(help="Is written as RUN@NUMBER here.", show=False)] = None
    limit: Annotated[int, Parameter(help=f"Events of one page ({PAGE}), the nearest first.")] = PAGE
    cursor: Annotated[int, Parameter(help="Where to go on: a page's cursor.")] = 0
    content: Annotated[bool, Parameter(help="Show what agents wrote.")] = False


FIRST: Final = Page()


def causes(event: str, /, *, page: Page = FIRST) -> int:
    """What led to an event, the nearest first.

    Parameters
    ----------
    event
        RUN@NUMBER, such as yspt9@57.
    """
    return tell(event, "causes", page)


def tell(event: str, direction: "Direction", page: Page) -> int:
    """Tell what led to an event, or what it led to: a page of it.

    Args:
        event: ``RUN@NUMBER``.
        direction: Which of the two.
        page: Which part of it, and how.
    """
    from podium.render_text import count
    from replay.collector import held_off

    if page.at is not None:
        run = event.rpartition("@")[0] or event
        raise Usage(
            f"{direction} takes an event, and no --at",
            hint=f"write it in one: podium {direction} {shlex.quote(f'{run}@{page.at}')}",
        )
    limit, skipped, content = page.limit, page.cursor, page.content
    if limit < 1 or skipped < 0:
        raise Usage("--limit must be at least 1.", hint=f"Leave it out for a page of {PAGE}.")
    output = Output(page.json)
    with held_off(for_good=True):
        walked, graphs = asyncio.run(_walked(event, direction, skipped + limit, page))
    found = walked.found[skipped:]
    cursor = str(skipped + limit) if walked.more else None
    if output.as_json:
        rows = [_row(each, graphs, direction, content) for each in found]
        output.read(rows, counts={"rows": len(rows), "runs": len(graphs)}, cursor=cursor)
        return 0
    start = walked.found[0].node
    output.lines(_line(each, graphs, direction, start.run, content) for each in found)
    if cursor:
        at_least = count(walked.more, "more event")
        output.hint(f"at least {at_least}: podium {direction} {event} --cursor {cursor}")
    else:
        output.hint(f"stand there: podium replay {event.rpartition('@')[0]} --at {start.number}")
    return 0


async def _walked(
    event: str, direction: "Direction", limit: int, common: Common
) -> "tuple[Walk, dict[str, Graph]]":
    """Walk as far as is asked, and read on the way the runs that it leads into."""
    from replay.causality import Node, walk

    name = event_name(event)
    graphs: dict[str, Graph | None] = {}
    async with source(common) as runs:
        graph = await _graph(runs, name.run)
        if not 1 <= name.number <= len(graph.causes):
            raise Usage(
                f"run {graph.run} has no event {name.number}: it has {len(graph.causes)}",
                hint=f"choose one from: podium timeline {graph.run}",
            )
        graphs[graph.run] = graph
        start = Node(graph.run, name.number)
        while (walked := walk(start, direction, graphs, limit)).wanted:
            for run in sorted(walked.wanted):
                try:
                    graphs[run] = await _graph(runs, run)
                except (NotFound, Unreachable):  # of a file, the others may be nowhere
                    graphs[run] = None
    return walked, {run: graph for run, graph in graphs.items() if graph is not None}


async def _graph(runs: "Source", name: str) -> "Graph":
    from replay.causality import Graph

    return Graph(await runs.log(name))


def _row(
    found: "Found", graphs: "dict[str, Graph]", direction: "Direction", content: bool
) -> dict[str, object]:
    from podium.shown import row_json

    graph = graphs[found.node.run]
    row = graph.row(found.node.number)
    key = "came_of" if direction == "causes" else "led_to"
    return {
        **row_json(row, graph.timeline, iso(row.entry.at), content=content),
        "steps": found.steps,
        key: [str(each) for each in found.near],
    }


def _line(
    found: "Found",
    graphs: "dict[str, Graph]",
    direction: "Direction",
    home: str,
    content: bool,
) -> str:
    from podium.render_text import duration
    from podium.words import set_off, told

    graph = graphs[found.node.run]
    row = graph.row(found.node.number)
    others = [str(each.number if each.run == home else each) for each in found.near]
    by = set_off(row, graph.timeline)
    others += [by] if by and direction == "causes" else []
    near = f"  {'←' if direction == 'causes' else '→'} {', '.join(others)}" if others else ""
    name = str(found.node.number if found.node.run == home else found.node)
    since = duration(graph.timeline.since(row))
    said = told(row, graph.timeline, content=content)
    return f"{name:>6} {since:>10}  {row.kind:<16}  {said}{near}"
