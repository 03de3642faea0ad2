"""`podium replay`: step through a run.

In a terminal, keys and a screen; elsewhere the same commands, one a line, from stdin; with
``--until`` or ``--json`` no commands at all, but the steps themselves.
"""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output, iso
from podium.cli.source import moment, run_log
from protocol.errors import NotFound, PodiumError, Usage

if TYPE_CHECKING:
    from podium.stepper import Stepper
    from replay.timeline import Row

PAGE: Final = 1_000
"""Steps of one page: each says what changed, so a page is a second's work and a megabyte."""

HELP: Final = """\
n [COUNT]     next event                  p [COUNT]     the one before
g NUMBER      go to an event              f, F          next failure, the one before
c, C          on to a breakpoint, back    / TEXT        search
b KIND=VALUE  add a breakpoint by type, worker, status or cause; b -KIND=VALUE removes it, b - all
d  s  e       what changed, the state, the event as JSON
q             quit"""
"""What stdin takes."""


def replay(
    run: str,
    /,
    *,
    at: Annotated[int | None, Parameter(help="The event to begin at (1).")] = None,
    until: Annotated[
        str, Parameter(help="List the steps up to this event, a number or a type, and end.")
    ] = "",
    breaks: Annotated[
        tuple[str, ...],
        Parameter(
            name="--break", help="KIND=VALUE, by type, worker, status or cause; may be repeated."
        ),
    ] = (),
    limit: Annotated[int, Parameter(help=f"Steps of one page ({PAGE:,}).")] = PAGE,
    cursor: Annotated[int, Parameter(help="The event after which to go on.")] = 0,
    content: Annotated[bool, Parameter(help="Show what agents wrote.")] = False,
    common: Common = COMMON,
) -> int:
    """Step through a run, forward and back.

    Parameters
    ----------
    run
        Its id, or the beginning of it; RUN@57 is the same as RUN --at 57.
    """
    from podium.stepper import Stepper
    from replay.collector import held_off

    if limit < 1:
        raise Usage("--limit must be at least 1.", hint=f"Leave it out for a page of {PAGE:,}.")
    output = Output(common.json)
    run, at = moment(run, at)
    log = run_log(common, run)
    with held_off(for_good=True):
        stepper = Stepper(log, content=content)
    for each in breaks:
        stepper.change_breakpoints(each)
    stepper.at = stepper.film.entry(1 if at is None else at).number
    if until or output.as_json:
        _list(stepper, output, until, limit, cursor)
    elif _is_screen(output):
        _screen(stepper, output)
    else:
        _piped(stepper, output, run, limit, cursor)
    return 0


# -------------------------------------------------------------------------------- the steps


def _list(stepper: "Stepper", output: Output, until: str, limit: int, cursor: int) -> None:
    """Every step from where one stands; with breakpoints, only those at which one stops."""
    from podium.shown import change_json, row_json

    rows = stepper.timeline.rows[max(stepper.at - 1, cursor) : _end(stepper, until)]
    if stepper.breakpoints:
        rows = [row for row in rows if stepper.stops(row)]
    page = rows[:limit]
    after = str(page[-1].number) if len(rows) > limit else None
    if output.as_json:
        shown = []
        for row in page:
            stepper.at = row.number
            found = row_json(row, stepper.timeline, iso(row.entry.at), content=stepper.content)
            shown.append({**found, "changed": [change_json(each) for each in stepper.changed()]})
        output.read(shown, counts={"events": len(stepper), "steps": len(rows)}, cursor=after)
        return
    for row in page:
        stepper.at = row.number
        _tell(stepper, output)
    if after:
        output.hint(f"{len(rows) - limit:,} more: add --cursor {after}")


def _end(stepper: "Stepper", until: str) -> int:
    """The number of the last step."""
    from podium.stepper import event_type

    if not until:
        return len(stepper)
    if until.isdecimal():
        return stepper.film.entry(int(until)).number
    wanted = event_type(until)
    for row in stepper.timeline.rows[stepper.at - 1 :]:
        if row.kind == wanted:
            return row.number
    raise NotFound(
        f"run {stepper.run} has no {wanted} from event {stepper.at} on",
        hint=f"what there is: podium timeline {stepper.run}",
    )


# -------------------------------------------------------------------------------- a screen


def _is_screen(output: Output) -> bool:
    world = output.world
    both = world.stdin.isatty() and world.stdout.isatty()
    return both and world.environment.get("TERM", "dumb") != "dumb"


def _screen(stepper: "Stepper", output: Output) -> None:
    from podium.screen import Screen, View

    world = output.world
    colours = not world.environment.get("NO_COLOR")
    Screen(View(stepper), world.stdin, world.stdout, colours=colours).run()
    _tell(stepper, output)


# -------------------------------------------------------------------------------- line by line


def _piped(stepper: "Stepper", output: Output, run: str, limit: int, cursor: int) -> None:
    """Obey what comes from stdin; where nothing does, list where the breakpoints stop."""
    lines = iter(output.world.stdin)
    if first := next(lines, ""):
        _obey(stepper, output, chain([first], lines))
    elif stepper.breakpoints:
        _list(stepper, output, "", limit, cursor)
    else:
        _tell(stepper, output)
        output.hint("commands, one a line, come from stdin: ? lists them")
        output.hint(f"all steps: podium replay {run} --until {len(stepper)}")


def _obey(stepper: "Stepper", output: Output, lines: Iterable[str]) -> None:
    _tell(stepper, output)
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if line.startswith("/"):
            word, rest = "/", line[1:]
        if word in ("q", "quit"):
            return
        try:
            _do(stepper, output, word, rest.strip())
        except PodiumError as error:
            output.say(f"{error.message}: {error.hint}")


def _do(stepper: "Stepper", output: Output, word: str, rest: str) -> None:
    match word:
        case "":
            pass
        case "n" | "next":
            _go(stepper, output, lambda: stepper.step(_number(rest or "1")))
        case "p" | "back":
            _go(stepper, output, lambda: stepper.step(-_number(rest or "1")))
        case "g" | "go":
            _go(stepper, output, lambda: stepper.go(_number(rest)))
        case "f" | "F":
            _go(stepper, output, lambda: stepper.failure(1 if word == "f" else -1))
        case "c" | "C":
            _go(stepper, output, lambda: stepper.to_breakpoint(1 if word == "c" else -1))
        case "/":
            _go(stepper, output, lambda: stepper.search(rest))
        case "b":
            output.say(stepper.change_breakpoints(rest))
        case "d":
            output.lines(stepper.changed_lines())
        case "s":
            output.lines(stepper.state_lines())
        case "e":
            output.lines(stepper.event_lines())
        case "?" | "help":
            output.say(HELP)
        case _:
            raise Usage(f"{word!r} is no command", hint="? lists them")


def _number(text: str) -> int:
    if not text.isdecimal():
        raise Usage(f"{text!r} is no number", hint="give one, such as g 57")
    return int(text)


def _go(stepper: "Stepper", output: Output, walk: Callable[[], str]) -> None:
    before = stepper.at
    if message := walk():
        output.say(message)
    if stepper.at != before:
        _tell(stepper, output)


def _tell(stepper: "Stepper", output: Output) -> None:
    """The event at which one stands, and what it changed."""
    from podium.cli.timeline import line

    row: Row = stepper.row
    output.lines([line(row, stepper.timeline, content=stepper.content)])
    output.lines(f"{'':>17} {each}" for each in stepper.changed_lines())
