"""The stepper's screen: keys in, one repainted picture out, and the terminal left as it was found.

The picture is painted over the last one, line by line and in one write, on the terminal's second
screen: nothing flickers, and what was there before is there again at the end. Whatever has come
from the keyboard is acted on before the next picture, so a key that is held down never lags.
"""

import os
import select
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from podium.render_text import clean, duration, one_line
from podium.stepper import Stepper
from protocol.errors import PodiumError
from replay.timeline import Row

ENTER: Final = "\x1b[?1049h\x1b[?25l"
"""To the second screen, without a cursor."""

LEAVE: Final = "\x1b[?25h\x1b[?1049l"

BEGIN: Final = "\x1b[?2026h\x1b[H"
"""Hold the picture until all of it is there, where the terminal can; go to the first line."""

END: Final = "\x1b[J\x1b[?2026l"

ESCAPE_S: Final = 0.05
"""Seconds within which the rest of an arrow key's bytes follow the first."""

FRAME: Final = 6
"""Lines around the list and the pane: two of title, two rules, a message, the keys."""

USUAL: Final = (80, 24)
"""Columns and lines of a terminal that doesn't say."""

MIN_LINES: Final = 3
"""Of the list and of the pane, however low the terminal."""

KEYS: Final = {
    "\x1b[A": "up",
    "\x1bOA": "up",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "\x1b[C": "right",
    "\x1bOC": "right",
    "\x1b[D": "left",
    "\x1bOD": "left",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    **dict.fromkeys(("\x1b[H", "\x1bOH", "\x1b[OH", "\x1b[1~", "\x1b[7~"), "home"),
    **dict.fromkeys(("\x1b[F", "\x1bOF", "\x1b[OF", "\x1b[4~", "\x1b[8~"), "end"),
    "\r": "enter",
    "\n": "enter",
    "\x7f": "back",
    "\x08": "back",
}
"""What the bytes of a key mean; of Home and End, as terminals, tmux and the console send them."""

PROMPTS: Final = {
    "g": "go to event: ",
    "/": "search for: ",
    "b": "breakpoint (KIND=VALUE, -KIND=VALUE, - for none): ",
}

HELP: Final = (
    "n → space   next event                    p ←        the one before",
    "g           go to an event                Home End   first, last",
    "f F         next failure, and back        c C        on to a breakpoint, and back",
    "b           breakpoint: type=CallSettled, worker=NAME, status=TIMEOUT, cause=inbox",
    "            -type=CallSettled removes one, - all of them",
    "/           search; nothing and Enter: the same again",
    "d s e       what changed, the state, the event as JSON",
    "↑ ↓ PgUp PgDn   scroll this half",
    "q           quit",
)

FOOT: Final = "n next  p back  g go to  f failure  c continue  b break  / search  d s e  ?  q"


class View:
    """What the keys do, and what is to be seen. Pure but for the stepper that it holds."""

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.pane = "d"
        self.scroll = 0
        self.message = ""
        self.prompt = ""
        """The key whose prompt is open."""
        self.typed = ""
        self.over = False

    # ------------------------------------------------------------------ keys

    def press(self, key: str) -> None:
        """Do what a key says: a character, or one of the names in `KEYS`."""
        self.message = ""
        if self.prompt:
            self._type(key)
            return
        stepper = self.stepper
        moves: dict[str, Callable[[], str]] = {
            **dict.fromkeys(("n", " ", "right"), lambda: stepper.step(1)),
            **dict.fromkeys(("p", "left"), lambda: stepper.step(-1)),
            "f": stepper.failure,
            "F": lambda: stepper.failure(-1),
            "c": stepper.to_breakpoint,
            "C": lambda: stepper.to_breakpoint(-1),
            "home": lambda: stepper.go(1),
            "end": lambda: stepper.go(len(stepper)),
        }
        match key:
            case "q" | "\x04":
                self.over = True
            case "d" | "s" | "e" | "?":
                self.pane, self.scroll = ("d" if key == self.pane else key), 0
            case "up" | "down" | "page up" | "page down":
                far = {"up": -1, "down": 1, "page up": -10, "page down": 10}
                self.scroll = max(0, self.scroll + far[key])
            case _ if key in PROMPTS:
                self.prompt, self.typed = key, ""
                self.message = stepper.change_breakpoints("") if key == "b" else ""
            case _ if key in moves:
                self.scroll = 0
                self.message = moves[key]()

    def _type(self, key: str) -> None:
        match key:
            case "enter":
                prompt, self.prompt = self.prompt, ""
                self.message = self._answered(prompt, self.typed.strip())
            case "\x1b" | "\x04":
                self.prompt = ""
            case "back":
                self.typed = self.typed[:-1]
            case _ if len(key) == 1 and key.isprintable():
                self.typed += key

    def _answered(self, prompt: str, typed: str) -> str:
        stepper = self.stepper
        self.scroll = 0
        try:
            match prompt:
                case "/":
                    return stepper.search(typed)
                case "b":
                    return stepper.change_breakpoints(typed)
                case _ if typed.isdecimal():
                    return stepper.go(int(typed))
                case _:
                    return f"{typed!r} is no event's number" if typed else ""
        except PodiumError as error:
            return f"{error.message}: {error.hint}"

    # ------------------------------------------------------------------ the picture

    def picture(self, width: int, height: int) -> list[Text]:
        """So many lines, each of so many columns at most."""
        room = max(2 * MIN_LINES, height - FRAME)
        above = max(MIN_LINES, room // 2)
        lines = [*self._head(width), _rule(width, "")]
        lines += self._list(above)
        lines.append(_rule(width, self._pane_title()))
        lines += self._pane(room - above)
        lines.append(Text(f"{PROMPTS[self.prompt]}{self.typed}▏" if self.prompt else self.message))
        lines.append(Text(FOOT, style="dim"))
        for line in lines:
            line.truncate(width, overflow="ellipsis")
        return lines[:height]

    def _head(self, width: int) -> list[Text]:
        stepper = self.stepper
        place = f"event {stepper.at:,} of {len(stepper):,}"
        task = one_line(stepper.state.task.text)
        left = Text.assemble((stepper.run, "bold cyan"), "  ", (task, "bold"))
        left.truncate(max(1, width - len(place) - 2), overflow="ellipsis", pad=True)
        breaks = ", ".join(map(str, stepper.breakpoints))
        status = Text(stepper.status())
        if breaks:
            status.append(f"  ● {one_line(breaks)}", style="magenta")
        return [Text.assemble(left, "  ", (place, "bold")), status]

    def _list(self, height: int) -> list[Text]:
        stepper = self.stepper
        first = min(stepper.at - height // 2, len(stepper) - height + 1)
        first = max(1, first)
        rows = stepper.timeline.rows[first - 1 : first - 1 + height]
        shown = [self._row(row) for row in rows]
        return shown + [Text("")] * (height - len(shown))

    def _row(self, row: Row) -> Text:
        stepper = self.stepper
        here = row.number == stepper.at
        mark = "▶" if here else " "
        stop = "●" if stepper.breakpoints and stepper.stops(row) else " "
        since = duration(stepper.timeline.since(row))
        style = "reverse" if here else ""
        line = Text(f"{mark}{stop}{row.number:>6,} {since:>9}  ", style=style)
        line.append(stepper.line(row), style="red" if row.failed else "")
        return line

    def _pane_title(self) -> str:
        row = self.stepper.row
        titles = {
            "d": f"changed by {row.number:,} {row.kind}",
            "s": f"state after {row.number:,}",
            "e": f"event {row.number:,}",
            "?": "keys",
        }
        return titles[self.pane]

    def _pane(self, height: int) -> list[Text]:
        stepper = self.stepper
        panes: dict[str, Callable[[], list[str]]] = {
            "d": stepper.changed_lines,
            "s": stepper.state_lines,
            "e": stepper.event_lines,
            "?": lambda: list(HELP),
        }
        lines = panes[self.pane]()
        self.scroll = min(self.scroll, max(0, len(lines) - height))
        shown = lines[self.scroll : self.scroll + height]
        below = len(lines) - self.scroll - len(shown)
        if below:
            shown[-1] = f"… {below + 1:,} more lines: ↓"
        return [Text(clean(line)) for line in shown] + [Text("")] * (height - len(shown))


def _rule(width: int, title: str) -> Text:
    line = Text(f"── {title} " if title else "", style="dim")
    line.append("─" * max(0, width - line.cell_len))
    return line


class Screen:
    """A view in a terminal.

    Args:
        view: What is shown.
        keyboard: The terminal from which keys come.
        stream: The terminal on which it is painted.
        colours: Whether it may be in colour.
    """

    def __init__(self, view: View, keyboard: TextIO, stream: TextIO, *, colours: bool) -> None:
        self.view, self._stream = view, stream
        self._keys, self._out = keyboard.fileno(), stream.fileno()
        self._colours = colours
        self._before: list[object] = []
        self._stopping = False

    def run(self) -> None:
        """Until the user has seen enough. The terminal is as it was, however this ends."""
        with self._wakes() as woken, self._taken_over():
            while not self.view.over:
                self._paint()
                ready, _, _ = select.select([self._keys, woken], [], [])
                if woken in ready:
                    os.read(woken, 1024)
                if self._stopping:
                    self._stop()
                    continue
                if self._keys in ready:
                    self._read()

    def _read(self) -> None:
        try:
            data = os.read(self._keys, 1024)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            self.view.over = True
        text = data.decode("utf-8", "ignore")
        if text.endswith("\x1b") and select.select([self._keys], [], [], ESCAPE_S)[0]:
            text += os.read(self._keys, 1024).decode("utf-8", "ignore")
        for key in keys(text):
            if self.view.over:
                return
            self.view.press(key)

    def _paint(self) -> None:
        size = os.get_terminal_size(self._out)
        width, height = size.columns or USUAL[0], size.lines or USUAL[1]
        console = Console(
            file=self._stream,
            width=width,
            no_color=not self._colours,
            force_terminal=True,
            highlight=False,
            markup=False,
            emoji=False,
        )
        with console.capture() as captured:
            lines = self.view.picture(width, height)
            for line in lines:
                console.print(line, end="\x1b[K\n", no_wrap=True, overflow="crop")
        # Without the last line feed: it would scroll a full screen.
        self._stream.write(BEGIN + captured.get().removesuffix("\n") + END)
        self._stream.flush()

    # ------------------------------------------------------------------ the terminal

    @contextmanager
    def _taken_over(self) -> Iterator[None]:
        self._enter()
        try:
            yield
        finally:
            self._leave()

    def _enter(self) -> None:
        self._before = termios.tcgetattr(self._keys)
        tty.setcbreak(self._keys)
        self._stream.write(ENTER)
        self._stream.flush()

    def _leave(self) -> None:
        with suppress(termios.error, OSError):  # it may be gone
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]
            self._stream.write(LEAVE)
            self._stream.flush()

    @contextmanager
    def _wakes(self) -> Iterator[int]:
        """A descriptor that can be read after each signal.

        While it is open, none of them leaves the terminal changed: neither those that end the
        process nor the one that stops it.
        """
        woken, wakes = os.pipe()
        os.set_blocking(wakes, False)
        old_wakeup = signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        ours = {
            signal.SIGWINCH: _nothing,
            signal.SIGTERM: _end,
            signal.SIGHUP: _end,
            signal.SIGTSTP: self._ask_to_stop,
        }
        old = {number: signal.signal(number, handler) for number, handler in ours.items()}
        try:
            yield woken
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_wakeup)
            os.close(woken)
            os.close(wakes)

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _stop(self) -> None:
        """Let the shell have the terminal, until it gives it back."""
        self._stopping = False
        self._leave()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # stops here, and goes on when the shell says so
        signal.signal(signal.SIGTSTP, ours)
        self._enter()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A signal whose only use is to wake up."""


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def keys(text: str) -> Iterator[str]:
    """What was typed, key by key: a character, or a name of `KEYS`. Of others nothing is left."""
    while text:
        found = next((each for each in KEYS if text.startswith(each)), "")
        if found:
            yield KEYS[found]
            text = text[len(found) :]
        elif text[0] == "\x1b" and text[1:2] in ("[", "O"):
            rest = text[2:].lstrip("0123456789;")
            text = rest[1:]
        else:
            yield text[0]
            text = text[1:]
