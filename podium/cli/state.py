"""`podium state`: a run as it stood after an event."""

from typing import Annotated, Final

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output, iso
from podium.cli.source import moment, names_event, run_log
from podium.render_text import one_line
from protocol.errors import NotFound, Usage

SOME: Final = 12
"""Names that an error lists of what there is."""


def state(
    run: str,
    /,
    *,
    at: Annotated[
        str | None,
        Parameter(
            help="The event after which: its number; a call (2-0), for the event before it is "
            "made; or end, where a fork goes on. The last event by default."
        ),
    ] = None,
    path: Annotated[str, Parameter(help="Only a part of it, such as calls.1-0.")] = "",
    content: Annotated[bool, Parameter(help="Show what agents wrote.")] = False,
    common: Common = COMMON,
) -> int:
    """A run as it stood after an event.

    Parameters
    ----------
    run
        Its id, or the beginning of it; RUN@57 is the same as RUN --at 57.
    """
    from podium.shown import lines, state_lines
    from replay import forks
    from replay.differences import part, tree
    from replay.film import Film
    from replay.history import reports

    output = Output(common.json)
    named = at if at is not None and not at.isdecimal() else None
    if named is not None and names_event(run):
        raise Usage(f"{run} and --at {at} are two events.", hint="Name one of them.")
    run, event = moment(run, None if at is None or named is not None else int(at))
    log = run_log(common, run, until=None if content or named is not None else event)
    film = Film(log)
    number = len(film) if event is None else event
    if named is not None:
        number = forks.moment(log, named)
    entry = film.entry(number)
    found, known = film.state(number), reports(log)
    if not output.as_json and not path:
        output.lines(state_lines(found, known, content=content))
        output.hint(f"all of it: podium state {run} --at {number} --json")
        return 0
    try:
        if path:
            shown = part(found, path, known, content=content)
        else:
            shown = tree(found, known, content=content)
    except LookupError as error:
        raise _nothing_there(log.run, number, path, error) from None
    if output.as_json:
        row = {"run": log.run, "number": number, "at": iso(entry.at), "path": path or None}
        output.read([{**row, "state": shown}], counts={"events": number})
    else:
        output.lines(lines(shown, path))
    return 0


def _nothing_there(run: str, number: int, path: str, error: LookupError) -> NotFound:
    above, missing, there = error.args
    names = ", ".join(one_line(name) for name in there[:SOME]) or "nothing"
    more = ", …" if len(there) > SOME else ""
    return NotFound(
        f"run {run} has no {path!r} at event {number}: there is no {missing!r} in {above or 'it'}",
        hint=f"there is: {names}{more}",
    )
