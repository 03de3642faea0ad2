"""`podium export` and `podium import`: a run as a file, and a file as runs that are read here."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec
from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output
from podium.cli.source import source
from podium.cli.world import current
from podium.render_text import count
from protocol.errors import NotFound, Usage

if TYPE_CHECKING:
    from podium.cli.source import Source
    from replay.bundle import Manifest
    from replay.formats.common import Tree
    from replay.imported import Imported

Format: TypeAlias = Literal["podium", "atif", "orchestration"]

SUFFIXES: Final[dict[str, str]] = {
    "podium": ".podium",
    "atif": ".atif.json",
    "orchestration": ".trace.json",
}
"""Of the file's name, where none is given."""

STDOUT: Final = "-"
"""Names standard output."""


def export(
    run: str,
    /,
    *,
    out: Annotated[
        str | None,
        Parameter(
            help="Where to write; - for stdout (JSON formats only).", allow_leading_hyphen=True
        ),
    ] = None,
    format: Annotated[  # noqa: A002
        Format,
        Parameter(
            help="podium: the whole log, to be imported again. atif: an agent trajectory "
            "(ATIF 1.8). orchestration: a trace of who asked whom (arXiv 2605.02801)."
        ),
    ] = "podium",
    content: Annotated[
        bool,
        Parameter(
            help="With what agents wrote: texts, arguments, values. The podium format always has "
            "it: it is the log."
        ),
    ] = False,
    children: Annotated[
        bool, Parameter(negative="--no-children", help="Take the runs below it along (default).")
    ] = True,
    common: Common = COMMON,
) -> int:
    """Write a run into one file.

    Parameters
    ----------
    run
        Its id, the beginning of it, or an exported file.
    """
    output = Output(common.json)
    if format == "podium":
        return _export_log(output, run, out, children, common)
    return _export_format(output, run, out, format, content, children, common)


def _export_log(output: Output, run: str, out: str | None, children: bool, common: Common) -> int:
    if out == STDOUT:
        raise Usage("A podium file is binary.", hint="Name a file: --out FILE")

    async def write() -> tuple[str, Path, "Manifest"]:
        from podium.cli.app import version
        from replay.imported import export as write_file

        async with source(common) as runs:
            log = await runs.log(run)
            path = _path(log.run, out, "podium")
            reader = await runs.reader(run)
            found = await write_file(reader, log.run, path, podium=version(), children=children)
            return log.run, path, found

    name, path, manifest = asyncio.run(write())
    others = len(manifest.runs) - 1
    detail = (
        f"run {name}{_and_others(others)}: "
        f"{sum(each.commits + each.inbox for each in manifest.runs.values())} messages, "
        f"{len(manifest.blobs)} blobs, {path.stat().st_size:,} bytes in {path}"
    )
    output.mutation(name, detail)
    if manifest.missing:
        output.say(f"{len(manifest.missing)} blobs are in no store any more, and not in the file")
    output.hint("it holds all that was said: look who may read it")
    output.hint(f"read it anywhere: podium runs show {path}   or: podium import {path}")
    return 0


def _export_format(
    output: Output,
    run: str,
    out: str | None,
    format_: Format,
    content: bool,
    children: bool,
    common: Common,
) -> int:
    async def read() -> "Tree":
        async with source(common) as runs:
            return await _tree(runs, run, children=children, content=content)

    tree = asyncio.run(read())
    document = _document(tree, format_, content)
    data = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    if out == STDOUT:
        output.world.stdout.write(data.decode())
        return 0
    from replay.imported import replacing

    path = _path(tree.log.run, out, format_)
    with replacing(path) as file:
        file.write(data)
    output.mutation(tree.log.run, f"run {tree.log.run}: {len(data):,} bytes in {path}")
    if not content:
        output.hint("texts and values are left out, and named by their hash: --content has them")
    return 0


def _document(tree: "Tree", format_: Format, content: bool) -> Any:
    if format_ == "atif":
        from podium.cli.app import version
        from replay.formats.atif import trajectory

        return trajectory(tree, version=version(), content=content)
    from replay.formats.orchestration import trace

    return trace(tree, content=content)


async def _tree(runs: "Source", run: str, *, children: bool, content: bool) -> "Tree":
    """A run with the runs below it, and the values of its reports that stand in blobs."""
    from replay.formats.common import read_tree

    log = await runs.log(run)
    return await read_tree(await runs.reader(run), log.run, children=children, blobs=content)


def _and_others(number: int) -> str:
    return f" and {count(number, 'other')}" if number else ""


def _path(run: str, out: str | None, format_: str) -> Path:
    folder = current().folder or Path()
    path = folder / (out or f"{run}{SUFFIXES[format_]}")
    if not path.parent.is_dir():
        raise Usage(
            f"{path} can't be written: there is no folder {path.parent}", hint="Name another --out."
        )
    return path


def import_(
    file: str,
    /,
    *,
    dry_run: Annotated[
        bool, Parameter(help="Check the file, and say what would be imported.")
    ] = False,
    common: Common = COMMON,
) -> int:
    """Have the runs of a file here, to be read as all others.

    Every hash is checked first. Importing a file again changes nothing; a run that is here and
    went another way is an error. Imported runs don't go on here: fork them for that.

    Parameters
    ----------
    file
        A file that `podium export` wrote.
    """
    output = Output(common.json)
    config = common.load().config
    path = (current().folder or Path()) / file

    async def check() -> "Imported":
        from replay.bundle import BundleShelf
        from replay.imported import check_import
        from replay.layered import LayeredLog
        from replay.shelves import Shelves

        BundleShelf(path)  # refused before any server is started
        try:
            async with current().deployments.connect(config) as host:
                return await check_import(host.client.reader, path)
        except NotFound:  # there is no deployment, and so none that has these runs
            pass
        nowhere = LayeredLog(None, Shelves(imported=str(_imported(config))).open())
        return await check_import(nowhere, path)

    found = asyncio.run(check())
    root = found.shelf.manifest.run
    others = _and_others(len(found.runs) - 1)
    if not found.fresh:
        output.mutation(root, f"run {root}{others}: here already", applied=False, dry_run=dry_run)
        return 0
    if not dry_run:
        from replay.imported import keep

        keep(found, _imported(config))
    output.mutation(root, f"run {root}{others}: imported from {file}", dry_run=dry_run)
    if not dry_run:
        output.hint(f"look at it: podium runs show {root}")
    return 0


def _imported(config: Any) -> Path:
    from replay.imported import FOLDER

    folder: Path = config.path() / FOLDER
    return folder
