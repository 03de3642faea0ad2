"""`podium dataset`: runs become data sets, and data sets something that a person can read."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

from cyclopts import Parameter

from podium.cli.dataset_options import ALL, PLAIN, What, Which, spec_of
from podium.cli.options import COMMON, Common
from podium.cli.output import Output, iso
from podium.cli.source import names_file
from podium.cli.world import current
from podium.render_text import count
from protocol.errors import InvalidData, Usage

if TYPE_CHECKING:
    from replay.log import EventLog
    from trainer.datasets.build import Built
    from trainer.datasets.manifest import Manifest
    from trainer.datasets.preview import Shown, Span
    from trainer.datasets.spec import Spec

PREVIEW_ROWS: Final = 3
"""Rows of a preview: a screen or two."""

CONTEXT_LINES: Final = 6
"""Lines of a message of the context that a preview shows: a job's description has forty."""

STYLES: Final = {
    "trained": "green",
    "context": "dim",
    "left out": "yellow",
    "better": "green",
    "worse": "red",
}
"""Of a span, by what becomes of it."""

MARKS: Final = {"trained": "+", "context": " ", "left out": "x", "better": "+", "worse": "-"}
"""The same where there are no colours."""


def build(
    kind: Literal["sft", "rl", "preference"],
    /,
    *files: str,
    out: Annotated[str | None, Parameter(help="Folder of the data set (datasets/KIND).")] = None,
    spec: Annotated[str | None, Parameter(help="A TOML file that says what is wanted.")] = None,
    which: Which = ALL,
    what: What = PLAIN,
    fresh: Annotated[bool, Parameter(help="Replace what is in the folder.")] = False,
    recheck: Annotated[
        bool, Parameter(help="Read all runs again, for late rewards and labels.")
    ] = False,
    dry_run: Annotated[bool, Parameter(help="Say what would be kept, and write nothing.")] = False,
    common: Common = COMMON,
) -> int:
    """Make a data set of runs, or bring one up to date with what is new.

    The same runs give the same bytes, in one go, in pieces, or after a crash. Without FILES it
    reads the deployment's log, its archive and what was imported; with them, exported runs. Ends
    with 1 if some could not be read; the data set is made without them.

    Parameters
    ----------
    kind
        sft: trajectories to imitate. rl: groups of rollouts. preference: pairs.
    files
        Files that `podium export` wrote.
    """
    _need()
    output = Output(common.json)
    here = current().folder or Path()
    asked = spec_of(kind, spec, which, what, here)
    folder = here / (out or f"datasets/{kind}")
    how = _How(fresh, recheck, dry_run)
    built = asyncio.run(_build(common, files, folder, asked, output, how))
    return _tell(output, folder, built, dry_run=dry_run)


class _How(NamedTuple):
    """Flags of a build."""

    fresh: bool
    recheck: bool
    dry_run: bool


def _need() -> None:
    """Raise `NotFound` where the extra is not installed."""
    from trainer.learner.loading import need

    need("numpy", "pyarrow")


async def _build(
    common: Common,
    files: tuple[str, ...],
    folder: Path,
    asked: "Spec",
    output: Output,
    how: "_How",
) -> "Built":
    from podium.cli.app import version
    from trainer.datasets.build import build as make
    from trainer.datasets.source import LogSource

    said: list[str] = []

    def progress(what: str, done: int, of: int) -> None:
        if what not in said:
            said.append(what)
            output.say(f"{what} {of} {'runs' if what == 'reading' else 'units'} …")

    async def made(log: "EventLog") -> "Built":
        return await make(
            LogSource(log, version()),
            folder,
            asked,
            fresh=how.fresh,
            recheck=how.recheck,
            dry_run=how.dry_run,
            podium=version(),
            progress=(lambda *_: None) if common.json else progress,
        )

    if files:
        return await made(_opened(files))
    async with current().deployments.connect(common.load().config) as host:
        return await made(host.client.reader)


def _opened(files: tuple[str, ...]) -> "EventLog":
    """The runs of exported files, as one log."""
    from replay.bundle import BundleShelf
    from replay.layered import LayeredLog

    for name in files:
        if not names_file(name):
            raise Usage(
                f"{name} is no exported run", hint="name files that end with .podium, or none"
            )
    here = current().folder or Path()
    return LayeredLog(None, [BundleShelf(here / name) for name in files])


def _tell(output: Output, folder: Path, built: "Built", *, dry_run: bool) -> int:
    """Show what came of a build; the exit code."""
    found = built.manifest
    kept = found.verdicts.get("kept", 0)
    detail = (
        f"{folder}: {_size(found)}, {count(len(found.parts), 'part')} "
        f"({built.written} written), {count(found.log.runs, 'run')} ({built.read} read)"
    )
    if dry_run:
        detail = f"{folder}: {count(kept, 'run')} of {found.log.runs:,} kept"
    applied = bool(built.written)
    output.mutation(str(folder), detail, applied=applied, dry_run=dry_run, unread=built.unread)
    for why, number in [*found.verdicts.items(), *found.notes.items()]:
        if why != "kept":
            output.hint(f"{number:>7,} left out: {why}")
    code = output.unread(built.unread)
    if found.rows:
        output.hint(f"look at it: podium dataset preview {folder}")
    return code


def _size(found: "Manifest") -> str:
    text = count(found.rows, "row")
    if found.tokens:
        text += f", {found.tokens:,} tokens ({found.trained:,} trained)"
    return text


# ------------------------------------------------------------------------------------------- show


def show(folder: str, /, *, common: Common = COMMON) -> int:
    """Show what a data set is made of, and compare every hash.

    Parameters
    ----------
    folder
        Of the data set.
    """
    _need()
    from podium.render_rich import table
    from trainer.datasets import manifest

    output = Output(common.json)
    path = (current().folder or Path()) / folder
    found = manifest.must_read(path)
    wrong = manifest.check(path, found)
    rows = [
        {
            "part": part.data.name,
            "rows": part.data.rows,
            "tokens": part.tokens,
            "trained": part.trained,
            "bytes": part.data.size,
            "units": part.units,
            "runs": part.ledger.rows,
            "full": part.full,
            "sha256": part.data.sha256,
        }
        for part in found.parts
    ]
    if output.as_json:
        output.read(rows, counts={"parts": len(rows), "rows": found.rows, "wrong": len(wrong)})
    else:
        for line in _facts(found):
            output.text(line)
        heads = ["part", "rows>", "tokens>", "trained>", "bytes>", "runs>", "sha256"]
        names = ("part", "rows", "tokens", "trained", "bytes", "runs", "sha256")
        cells = [[_cell(row[name]) for name in names] for row in rows]
        output.show(table(heads, cells, wide="part"))
    if wrong:
        raise InvalidData(
            f"{folder} is damaged: {wrong[0]}" + (f"; {len(wrong) - 1} more" if wrong[1:] else ""),
            hint="build it anew: podium dataset build KIND --fresh",
        )
    if not found.complete:
        output.hint("it is not complete: the build was cut short; give it again to go on")
    return 0


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)[:40]


def _facts(found: "Manifest") -> list[str]:
    import msgspec

    spec = found.spec
    plain = type(spec)(kind=spec.kind)
    ours, defaults = msgspec.to_builtins(spec), msgspec.to_builtins(plain)
    chosen = _chosen(ours, defaults)
    lines = [
        f"{spec.kind} as {spec.format}: {_size(found)}",
        f"digest      {found.digest}",
        f"log         {found.log.runs:,} runs, {found.log.events:,} events, "
        f"{iso(found.log.first)} to {iso(found.log.last)}, {found.log.open} open, "
        f"heads {found.log.heads[:16]}",
        f"asked for   {', '.join(chosen) or 'everything'}",
        f"versions    {_counts(found.versions)}",
        f"tokenizers  {_counts(found.tokenizers)}",
        f"redaction   {_counts(found.redaction)}",
        f"runs        {_counts(found.verdicts)}",
    ]
    if found.notes:
        lines.append(f"not made    {_counts(found.notes)}")
    return lines


def _chosen(ours: dict[str, Any], defaults: dict[str, Any], above: str = "") -> list[str]:
    """What of a spec is not as it is by default."""
    found: list[str] = []
    for name, value in ours.items():
        if isinstance(value, dict) and isinstance(defaults.get(name), dict):
            found += _chosen(value, defaults[name], f"{above}{name}.")
        elif value != defaults.get(name) and name not in ("kind", "format"):
            shown = " or ".join(map(str, value)) if isinstance(value, tuple | list) else value
            found.append(f"{above}{name} = {shown}")
    return found


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name or 'unknown'} {number:,}" for name, number in counts.items()) or "none"


# ----------------------------------------------------------------------------------------- preview


def preview(
    path: str,
    /,
    *,
    rows: Annotated[int, Parameter(help=f"How many ({PREVIEW_ROWS}).")] = PREVIEW_ROWS,
    full: Annotated[bool, Parameter(help="All of a long context, too.")] = False,
    skip: Annotated[int, Parameter(help="Rows that are passed over.")] = 0,
    run: Annotated[str, Parameter(help="Only rows of this run.")] = "",
    tokenizer: Annotated[
        str | None, Parameter(help="Folder of a tokenizer: shows the tokens themselves.")
    ] = None,
    common: Common = COMMON,
) -> int:
    """Show rows as a person reads them, with what is in the loss in colour.

    Parameters
    ----------
    path
        A data set's folder, or one of its files.
    """
    _need()
    if rows < 1 or skip < 0:
        raise Usage("There is nothing to show.", hint="Give --rows of at least 1, --skip of 0.")
    from trainer.datasets.chat import Chat
    from trainer.datasets.preview import files
    from trainer.datasets.preview import preview as read

    output = Output(common.json)
    here = current().folder or Path()
    chat = Chat.load(here / tokenizer) if tokenizer else None
    found = read(files(here / path), chat=chat, skip=skip, limit=rows + 1, run=run)
    more, found = len(found) > rows, found[:rows]
    if output.as_json:
        output.read(found, cursor=str(skip + rows) if more else None)
        return 0
    for each in found:
        output.show(_picture(each, output, full))
    if more:
        output.hint(f"more: podium dataset preview {path} --skip {skip + rows}")
    if not found:
        output.say("no such row")
    return 0


def _picture(shown: "Shown", output: Output, full: bool) -> Any:
    from rich.text import Text

    from podium.render_text import clean

    about = ", ".join(f"{name} {_short(value)}" for name, value in shown.about.items())
    picture = Text()
    picture.append(clean(f"{shown.row}  {about}\n"), style="bold")
    coloured = output.console().is_terminal and not output.console().no_color
    for span in shown.spans:
        picture.append(_head(span), style=f"bold {STYLES[span.loss]}")
        lines = clean(span.text).split("\n")
        if not full and span.loss == "context" and len(lines) > CONTEXT_LINES + 1:
            left = len(lines) - CONTEXT_LINES
            lines = [*lines[:CONTEXT_LINES], f"… {count(left, 'line')} more: --full shows all"]
        for line in lines:
            mark = "" if coloured else f"{MARKS[span.loss]} "
            picture.append(f"{mark}{line}\n", style=STYLES[span.loss])
    return picture


def _head(span: "Span") -> str:
    parts = [span.role or "tokens", span.loss]
    if span.tokens:
        parts.append(count(span.tokens, "token"))
    if span.statuses:
        parts.append(" ".join(span.statuses))
    return f"[{', '.join(parts)}]\n"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
