"""`podium verify`: whether logs are what was written, and whether today's code still reads them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output
from podium.cli.source import Source, source
from podium.reading import Found, of_each
from podium.render_text import count, one_line
from protocol.errors import NotFound, PodiumError, Usage

if TYPE_CHECKING:
    from replay.problems import Problem, What
    from replay.verify import Verified

AT_ONCE: Final = 8
"""Runs that are read at the same time: their logs are in memory together."""

MAX_LISTED: Final = 1_000
"""Runs with problems that are listed one by one; more are counted."""

EXIT_DAMAGED: Final = 1
"""Of logs that are damaged, can't be read, or that a newer version has to verify: as for invalid
data."""

EXIT_DIVERGED: Final = 3
"""Of logs with which the rules or the prompts disagree."""

COUNTS: Final = ("runs", "sound", "damaged", "diverged", "newer", "unread", "aside")


def verify(
    *runs: str,
    every: Annotated[bool, Parameter(name="--all", help="Verify every run there is.")] = False,
    content: Annotated[
        bool, Parameter(help="Show what differs also where an agent may have written it.")
    ] = False,
    common: Common = COMMON,
) -> int:
    """Check logs: hashes, gaps and order; then the rules and the prompts of today.

    Recorded commands have to lead to the recorded events, and the prompts
    that today's code renders have to hash as recorded. Nothing is changed.

    Ends with 0 if all is sound, with 3 if rules or prompts have diverged,
    with 1 if a log is damaged, can't be read, or was written by a newer
    version. One that can't be read keeps no other from being verified.

    Parameters
    ----------
    runs
        Ids, the beginnings of them, or exported files.
    """
    if bool(runs) == every:
        raise Usage(
            "name the runs to verify, or say --all, not both" if runs else "no run is named",
            hint="verify one, or all: podium verify --all",
        )
    output = Output(common.json)
    tally = asyncio.run(_verify(output, common, runs))
    _show(output, tally, content, every)
    _measure(output, tally)
    if any(tally.counts[name] for name in ("damaged", "newer", "unread")):
        return EXIT_DAMAGED
    return EXIT_DIVERGED if tally.counts["diverged"] else 0


class Tally:
    """What has been verified so far; of the sound runs only their number, unless few were asked."""

    def __init__(self, listed: bool) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.diverged: Counter[What] = Counter()
        self.listed: list[Verified] = []
        self.unread: dict[str, PodiumError] = {}
        self._all = listed

    def take(self, found: "Found[Verified]") -> None:
        """Some more runs, and those that can't be read."""
        for each in found.there:
            self._add(each)
        self.unread.update(found.unread)
        self.counts["runs"] += len(found.unread)
        self.counts["unread"] += len(found.unread)

    def _add(self, found: "Verified") -> None:
        self.counts["runs"] += 1
        self.counts[found.outcome] += 1
        self.counts["aside"] += sum(
            each.kind == "aside" and each.seq > 0 for each in found.problems
        )
        self.diverged.update(each.what for each in found.problems if each.kind == "diverged")
        if (self._all or found.outcome != "sound") and len(self.listed) < MAX_LISTED:
            self.listed.append(found)


async def _verify(output: Output, common: Common, names: tuple[str, ...]) -> Tally:
    tally = Tally(bool(names))
    async with source(common) as found:
        try:
            todo = list(names) or await found.runs()
        except NotFound:  # nothing was ever run here
            todo = []
        tell = output.counting(len(todo), "runs")
        async for some in _each(found, todo):
            tally.take(some)
            if len(todo) > AT_ONCE:
                tell(tally.counts["runs"])
    if names and not tally.listed:
        Found([], tally.unread).all()  # there is nothing else to be told
    return tally


async def _each(runs: Source, names: list[str]) -> "AsyncIterator[Found[Verified]]":
    """The runs, verified, in order; only a few of them in memory."""
    for start in range(0, len(names), AT_ONCE):
        found = await of_each(names[start : start + AT_ONCE], runs.verified)
        for each in found.there:
            yield each
        yield Found([], found.unread)


def _measure(output: Output, tally: Tally) -> None:
    """Send how much has diverged to where the ``OTEL_*`` variables say; changes no result."""
    from actors import tracing

    if not (tracing.wanted(output.world.environment, "metrics") and tracing.installed()):
        return
    from podium.tracing.metrics import send
    from replay.measures import divergences

    if not send(divergences(tally.diverged)):
        output.say("the metrics were not taken where OTEL_EXPORTER_OTLP_ENDPOINT says")


# ------------------------------------------------------------------------------------------- shown


def _show(output: Output, tally: Tally, content: bool, every: bool) -> None:
    if output.as_json:
        rows = [row(each, content) for each in tally.listed]
        output.read(rows, counts=tally.counts, unread=tally.unread)
        return
    if not tally.counts["runs"]:
        output.say("no runs yet")
        output.hint('begin one: podium run "…"')
        return
    from podium.render_rich import table

    if tally.listed:
        lines = [_line(each) for each in tally.listed]
        heads = ["run", "is", "commits>", "events>", "decided again>", "prompts>", "problems>"]
        output.show(table(heads, lines))
    for each in tally.listed:
        for problem in each.problems:
            for line in words(problem, content):
                output.text(line)
        if each.more:
            output.text(f"\nrun {each.run}: {count(each.more, 'more problem')}")
    output.unread(tally.unread)
    if every:
        output.text(f"{'' if not tally.listed else chr(10)}{summary(tally.counts)}")
    told = tally.counts["sound"] + tally.counts["unread"] + len(tally.listed)
    hidden = tally.counts["runs"] - told
    if every and hidden > 0:
        output.hint(f"{count(hidden, 'more run')} with problems, not listed")
    if not content and any(p.values for each in tally.listed for p in each.problems):
        output.hint("with the values that differ: add --content")


def _line(found: "Verified") -> list[str]:
    numbers = (found.commits, found.events, found.decided, found.prompts)
    problems = len(found.problems) + found.more
    return [found.run, found.outcome, *(f"{each:,}" for each in numbers), f"{problems:,}"]


def summary(counts: dict[str, int]) -> str:
    """How many runs are what."""
    parts = [f"{counts[name]:,} {name}" for name in COUNTS[1:-1] if counts[name]]
    aside = f"; {count(counts['aside'], 'message')} set aside" if counts["aside"] else ""
    return f"{count(counts['runs'], 'run')}: {', '.join(parts) or 'nothing to verify'}{aside}"


TITLES: Final = {
    "flipped": "a bit is flipped",
    "changed": "changed in the store",
    "unreadable": "can't be read",
    "removed": "removed",
    "out_of_order": "in another order",
    "cut": "cut off",
    "rewritten": "written anew",
    "order": "against the order of time or of conductors",
    "inbox_removed": "removed",
    "inbox_changed": "changed in the store",
    "judged": "judges a log that isn't there",
    "blob_removed": "removed",
    "blob_changed": "changed in the store",
    "origin": "not to be had",
    "rules": "the rules decide otherwise",
    "state": "folds to another state",
    "prompt": "rendered otherwise",
    "unknown_event": "written by a newer version",
    "unknown_message": "written by a newer version",
    "duplicate": "set aside: a copy",
    "stale_writer": "set aside: of a conductor that had lost the run",
    "foreign": "set aside: a stranger's",
    "archived": "in the archive",
}
"""What is wrong, for a person."""


def words(problem: "Problem", content: bool = False) -> Iterator[str]:
    """A problem as a person reads it."""
    at = f", at {problem.seq} of the stream" if problem.seq else ""
    yield ""
    yield f"run {problem.run}, {one_line(problem.where)}{at}: {TITLES[problem.what]}"
    expected, found = problem.expected, problem.found
    if content and problem.values is not None:
        path = expected.partition(" = ")[0]
        expected, found = (f"{path} = {_value(each)}" for each in problem.values)
    for name, text in (
        ("expected", expected),
        ("found", found),
        ("function", problem.function),
        ("cause", problem.cause),
        ("likely", problem.likely),
    ):
        if text:
            yield f"  {name:<9} {one_line(text)}"
    if problem.follows:
        what = "prompt" if problem.what == "prompt" else "event"
        yield f"  {'follows':<9} {count(problem.follows, f'further {what}')}"


def _value(value: Any) -> str:
    from podium.render_text import value_text

    return value_text(value)


def row(found: "Verified", content: bool) -> dict[str, Any]:
    """A verified run, for programs."""
    return {
        "run": found.run,
        "outcome": found.outcome,
        "commits": found.commits,
        "events": found.events,
        "decided": found.decided,
        "prompts": found.prompts,
        "problems": [_problem_json(each, content) for each in found.problems],
        "more": found.more,
    }


def _problem_json(problem: "Problem", content: bool) -> dict[str, Any]:
    return {
        "kind": problem.kind,
        "what": problem.what,
        "where": problem.where,
        "event": f"{problem.run}@{problem.event}" if problem.event else None,
        "commit": problem.commit or None,
        "seq": problem.seq or None,
        "expected": problem.expected,
        "found": problem.found,
        "function": problem.function or None,
        "cause": problem.cause or None,
        "likely": problem.likely,
        "follows": problem.follows,
        **({"values": problem.values} if content else {}),
    }
