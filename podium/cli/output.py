"""What every command prints: results on stdout, talk on stderr, JSON in four shapes.

=========  ===================================================================
read       ``{"as_of", "counts", "rows", "cursor", "truncated"}``, and perhaps ``"unread"``
mutation   ``{"target", "applied", "dry_run", "event_id", "detail"}``, and perhaps ``"unread"``
error      ``{"error": {"code", "kind", "message", "hint", "next"}}``
run        ``{"launch": {"run_id", "view_url", "trace_id"}}``, then ``{"done": {…}}``
=========  ===================================================================

Every write of the command line goes through here, so that nothing reaches a terminal uncleaned.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from podium.cli.world import World, current
from podium.render_text import clean, count
from protocol.errors import PodiumError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PLAIN_COLUMNS: Final = 200
"""Columns where the output is no terminal: nobody's lines are folded for a screen."""

STARTING: Final = "starting broker, Ray and workers"
"""What takes some seconds before a run begins."""

EXIT_UNREAD: Final = 1
"""Of a list that lacks runs since they can't be read: as for invalid data."""

MAX_UNREAD: Final = 20
"""Runs that can't be read that a person is told of one by one; more are counted: a damaged archive
may hold thousands."""

_COMMAND: Final = (
    r"podium (?:run|runs|up|down|status|doctor|worker|config|replay|state|timeline|causes|effects"
    r"|reproduce|fork|rerun|diff|verify|export|import|archive|trace|sim|answer|serve|mcp"
    r"|label|score|model|dataset|train|gym)\b"
)

_NEXT: Final = re.compile(
    rf"`(?P<quoted>{_COMMAND}[^`]*)`|(?:^|: )(?P<last>{_COMMAND}(?:(?!  )[^`;])*)(?:  .*)?$"
)
"""A command in a hint: in backticks, or after a colon as the last of it."""

_ID: Final = re.compile(r"(?<![\w./-])[a-z0-9]+(?![\w-]|\.\w)")
"""What may be the id of a run, and is no part of a path."""

_STEERING: Final = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that JSON lets through and a terminal might obey."""


class Output:
    """Where one command prints.

    Args:
        as_json: Whether stdout gets JSON instead of text.
        world: Whose streams.
    """

    def __init__(self, as_json: bool = False, world: World | None = None) -> None:
        self.as_json = as_json
        self.world = world or current()

    # ------------------------------------------------------------------ to people

    def console(self, *, err: bool = False) -> "Console":
        """A rich console on stdout or stderr; without colours where it is no terminal."""
        from rich.console import Console

        stream = self.world.stderr if err else self.world.stdout
        terminal = stream.isatty()
        colours = terminal and not self.world.environment.get("NO_COLOR")
        return Console(
            file=stream,
            width=None if terminal else PLAIN_COLUMNS,
            no_color=not colours,
            force_terminal=terminal,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def lively(self) -> bool:
        """Whether a person looks at stderr in a terminal that can redraw."""
        return (
            self.world.stderr.isatty()
            and self.world.environment.get("TERM") != "dumb"
            and not self.as_json
        )

    def say(self, text: str) -> None:
        """A line of talk."""
        self.world.stderr.write(clean(text) + "\n")
        self.world.stderr.flush()

    def working(self, what: str, *, takes: bool) -> Callable[[], None]:
        """Say what is being done; gives what ends that.

        Args:
            what: In words.
            takes: Whether it takes seconds, so that it is said in a line where no picture moves.
        """
        if self.lively():
            status = self.console(err=True).status(f"{what} …")
            status.start()
            return status.stop
        if takes and not self.as_json:
            self.say(f"{what} …")
        return lambda: None

    def counting(self, total: int, what: str) -> Callable[[int], None]:
        """What tells how many of many are done: in place, or a line at each tenth of them.

        Args:
            total: How many there are.
            what: In words, such as ``runs``.
        """
        lively, told = self.lively(), 0

        def tell(done: int) -> None:
            nonlocal told
            tenth = 10 * done // max(1, total)
            if lively:
                text = f"{done:,} of {total:,} {what}" if done < total else ""
                self.world.stderr.write(f"\r\x1b[2K{text}")
                self.world.stderr.flush()
            elif told < tenth < 10 and not self.as_json:
                self.say(f"{done:,} of {total:,} {what}")
            told = tenth

        return tell

    def hint(self, text: str) -> None:
        """What could be done next."""
        if not self.as_json:
            self.say(self._as_typed(text))

    def _as_typed(self, hint: str) -> str:
        """A hint whose commands name a file, where its run was read from one: there, they work."""
        files = self.world.files
        talk, command, rest = hint.partition("podium ")
        return (
            talk
            + command
            + _ID.sub(lambda m: shlex.quote(files[m[0]]) if m[0] in files else m[0], rest)
        )

    def text(self, text: str) -> None:
        """A result, as text."""
        self.world.stdout.write(clean(text) + "\n")
        self.world.stdout.flush()

    def answer(self, text: str) -> None:
        """An answer: folded between words in a terminal, as it is elsewhere."""
        if not self.world.stdout.isatty():
            self.text(text)
            return
        from rich.text import Text

        self.show(Text(clean(text)))

    def show(self, *pictures: "RenderableType", err: bool = False) -> None:
        """Results, as rich lays them out."""
        console = self.console(err=err)
        if console.is_terminal:
            for picture in pictures:
                console.print(picture)
            return
        with console.capture() as captured:
            for picture in pictures:
                console.print(picture)
        for line in captured.get().splitlines():  # tables are padded with blanks
            console.file.write(line.rstrip() + "\n")
        console.file.flush()

    def lines(self, lines: Iterable[str]) -> None:
        """Results, a line each: cut at the edge of a terminal, whole elsewhere."""
        if not self.world.stdout.isatty():
            self.world.stdout.writelines(f"{clean(line)}\n" for line in lines)
            self.world.stdout.flush()
            return
        from rich.text import Text

        console = self.console()
        for line in lines:
            console.print(Text(clean(line)), no_wrap=True, overflow="ellipsis")

    def cures(self, hints: Iterable[tuple[str, str]]) -> None:
        """What to do about each of several things; said once where it is the same for some."""
        by_hint: dict[str, list[str]] = {}
        for what, hint in hints:
            if hint:
                by_hint.setdefault(hint, []).append(what)
        for hint, whats in by_hint.items():
            self.hint(f"{', '.join(whats)}: {hint}")

    def unread(self, runs: Mapping[str, PodiumError]) -> int:
        """Say which runs a list lacks since they can't be read, and why; the exit code."""
        if not self.as_json:
            for run, error in list(runs.items())[:MAX_UNREAD]:
                self.say(f"run {run} can't be read: {self._as_typed(error.whole())}")
            if len(runs) > MAX_UNREAD:
                self.say(f"{count(len(runs) - MAX_UNREAD, 'more run')} can't be read")
        return EXIT_UNREAD if runs else 0

    # ------------------------------------------------------------------ to programs

    def json(self, value: Any) -> None:
        """One JSON value on a line."""
        data = msgspec.json.encode(value).decode()
        self.world.stdout.write(_STEERING.sub(lambda m: f"\\u{ord(m[0]):04x}", data) + "\n")
        self.world.stdout.flush()

    def read(
        self,
        rows: Sequence[Any],
        *picture: "RenderableType",
        counts: dict[str, int] | None = None,
        cursor: str | None = None,
        unread: Mapping[str, PodiumError] | None = None,
    ) -> None:
        """The result of a command that reads.

        Args:
            rows: For programs.
            picture: The same, for people.
            counts: How many rows there are of which kind.
            cursor: Where the next page begins; None when this is the last.
            unread: Runs that it lacks since they can't be read; people are told by `unread`.
        """
        if self.as_json:
            self.json(
                {
                    "as_of": iso(self.world.now()),
                    "counts": counts if counts is not None else {"rows": len(rows)},
                    "rows": rows,
                    "cursor": cursor,
                    "truncated": cursor is not None,
                    **self._lacking(unread),
                }
            )
        else:
            self.show(*picture)

    def _lacking(self, unread: Mapping[str, PodiumError] | None) -> dict[str, Any]:
        rows = [
            {"run": run, "error": self._error_json(each)} for run, each in (unread or {}).items()
        ]
        return {"unread": rows} if rows else {}

    def mutation(
        self,
        target: str,
        detail: str,
        *,
        applied: bool = True,
        dry_run: bool = False,
        event_id: str | None = None,
        unread: Mapping[str, PodiumError] | None = None,
    ) -> None:
        """The result of a command that changes something; `unread` as for `read`."""
        if self.as_json:
            self.json(
                {
                    "target": target,
                    "applied": applied and not dry_run,
                    "dry_run": dry_run,
                    "event_id": event_id,
                    "detail": detail,
                    **self._lacking(unread),
                }
            )
        else:
            self.text(f"{'would be: ' if dry_run else ''}{detail}")

    def error(self, error: PodiumError) -> None:
        """What went wrong, and the cure."""
        if self.as_json:
            self.json({"error": self._error_json(error)})
            return
        hint = self._as_typed(error.hint)
        from rich.text import Text

        shown = Text("error: ", style="bold red")
        shown.append(clean(error.message), style="not bold default")
        lines = [shown]
        if hint:
            cure = Text("  try: ", style="bold")
            cure.append(clean(hint).replace("\n", "\n       "), style="not bold")
            lines.append(cure)
        console = self.console(err=True)
        for line in lines:
            console.print(line, soft_wrap=not self.world.stderr.isatty())

    def _error_json(self, error: PodiumError) -> dict[str, Any]:
        hint = self._as_typed(error.hint)
        found = _NEXT.search(hint)
        return {
            "code": _code(error),
            "kind": error.kind,
            "message": error.message,
            "hint": hint,
            "next": found["quoted"] or found["last"] if found else None,
        }


def _code(error: PodiumError) -> str:
    """``TooLarge`` → ``too_large``."""
    name = type(error).__name__.lstrip("_")
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def iso(milliseconds: int) -> str | None:
    """A time in ISO 8601, UTC; None for never."""
    if not milliseconds:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
