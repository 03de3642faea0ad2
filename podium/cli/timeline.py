"""`podium timeline`: what happened in a run, event by event, with the number of each."""

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output, iso
from podium.cli.source import run_log
from protocol.errors import Usage

if TYPE_CHECKING:
    from replay.timeline import Row, Timeline

PAGE: Final = 500
"""Events of one page: of most runs all, and no more than a reader scrolls through."""


def timeline(
    run: str,
    /,
    *,
    type_: Annotated[
        tuple[str, ...], Parameter(name="--type", help="Only events of this type; may be repeated.")
    ] = (),
    failures: Annotated[bool, Parameter(help="Only what went wrong or was stopped.")] = False,
    limit: Annotated[int, Parameter(help=f"Events of one page ({PAGE}).")] = PAGE,
    cursor: Annotated[int, Parameter(help="The event after which to go on.")] = 0,
    content: Annotated[bool, Parameter(help="Show what agents wrote.")] = False,
    common: Common = COMMON,
) -> int:
    """What happened in a run, event by event.

    Parameters
    ----------
    run
        Its id, or the beginning of it.
    """
    from podium.shown import row_json
    from podium.stepper import event_type
    from replay.timeline import timeline as timeline_of

    if limit < 1:
        raise Usage("--limit must be at least 1.", hint=f"Leave it out for a page of {PAGE}.")
    types = {event_type(each) for each in type_}
    output = Output(common.json)
    found = timeline_of(run_log(common, run))
    chosen = [
        row
        for row in found.rows
        if row.number > cursor and (not types or row.kind in types) and (row.failed or not failures)
    ]
    page = chosen[:limit]
    after = str(page[-1].number) if len(chosen) > limit else None
    counts = {"events": len(found.rows), "failures": sum(row.failed for row in found.rows)}
    if output.as_json:
        rows = [row_json(row, found, iso(row.entry.at), content=content) for row in page]
        output.read(rows, counts=counts, cursor=after)
        return 0
    output.lines(line(row, found, content=content) for row in page)
    if not page:
        output.say("no such events" if found.rows else "no events yet")
    elif after:
        output.hint(f"{len(chosen) - limit:,} more: podium timeline {run} --cursor {after}")
    else:
        telling = next((row for row in page if row.failed), page[-1])
        output.hint(f"look at one: podium replay {run} --at {telling.number}")
    return 0


def line(row: "Row", found: "Timeline", *, content: bool) -> str:
    """An event on a line: its number, when, its type, and what it says."""
    from podium.render_text import duration
    from podium.words import told

    mark = "!" if row.failed else " "
    since = duration(found.since(row))
    return f"{row.number:>6} {since:>10} {mark} {row.kind:<16}  {told(row, found, content=content)}"
