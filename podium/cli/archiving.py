"""`podium archive`: finished runs to Parquet, out of the live log, read as before."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output
from podium.cli.world import current
from podium.render_text import count
from protocol.errors import Conflict, InvalidData, NotFound, Usage
from replay.archive.folder import shown

if TYPE_CHECKING:
    from podium.config import Config
    from replay.archive.archiver import Outcome
    from replay.archive.shelf import ArchiveShelf

MAX_TOLD: Final = 20
"""Runs that were left where they are that are told one by one."""


def archive(
    run: str | None = None,
    /,
    *,
    older_than: Annotated[
        str | None, Parameter(help="Runs that ended so long ago: 12h, 30d.")
    ] = None,
    all_ended: Annotated[bool, Parameter(help="Every run that has ended.")] = False,
    to: Annotated[
        str | None, Parameter(help="URL of the archive; else the one that is configured.")
    ] = None,
    keep: Annotated[bool, Parameter(help="Leave the runs in the live log, too.")] = False,
    dry_run: Annotated[bool, Parameter(help="Say which runs, and do nothing.")] = False,
    check: Annotated[
        bool, Parameter(help="Read the whole archive instead, and compare every hash.")
    ] = False,
    common: Common = COMMON,
) -> int:
    """Move finished runs into an archive: Parquet, in a folder or an object store.

    They are read as before, from there. What is written is read back before anything is removed,
    and a command that was cut short is gone on with by giving it again. Blobs go an hour later at
    the earliest, when many runs are archived and no run in the live log names them.

    Ends with 1 if a run stays since what is there of it already can't be read.

    Parameters
    ----------
    run
        The id of one run, or the beginning of it.
    """
    output = Output(common.json)
    config = common.load().config
    if check:
        return _check(output, config, to)
    if sum((run is not None, older_than is not None, all_ended)) != 1:
        raise Usage(
            "Which runs?", hint="Name one of: a run, --older-than 30d, --all-ended. Or --check."
        )
    outcomes, freed = asyncio.run(_archive(config, run, older_than, to, keep, dry_run))
    url = shown(_url(config, to))
    skipped = [each for each in outcomes if each.done == "skipped"]
    if run is not None and skipped:
        raise Conflict(
            f"run {skipped[0].run} can't be archived: {skipped[0].why}",
            hint=f"look at it: podium runs show {skipped[0].run}",
        )
    unread = {each.run: each.error for each in skipped if each.error is not None}
    for each in [each for each in skipped if each.error is None][:MAX_TOLD]:
        output.say(f"run {each.run} stays: {each.why}")
    moved = [each for each in outcomes if each.done != "skipped" and not each.idle]
    detail = _detail(moved, len(skipped), url, keep)
    if freed:
        detail += f"; {count(freed, 'blob')} removed from the live store"
    target = outcomes[0].run if run is not None else "runs"
    output.mutation(target, detail, applied=bool(moved or freed), dry_run=dry_run, unread=unread)
    code = output.unread(unread)
    if moved and not dry_run and to is not None and to != config.archive.url:
        output.hint(f'to read them from there: [archive] url = "{to}" in podium.toml')
    return code


def _detail(moved: "list[Outcome]", skipped: int, url: str, keep: bool) -> str:
    if not moved:
        return f"nothing more to archive to {url}" + (f"; {skipped} stay" if skipped else "")
    runs = f"{len(moved)} run{'s' if len(moved) > 1 else ''}"
    text = (
        f"{runs} {'copied' if keep else 'archived'} to {url}: "
        f"{sum(each.messages for each in moved):,} messages, "
        f"{sum(each.blobs for each in moved):,} blobs"
    )
    return text + (f"; {skipped} stay" if skipped else "")


async def _archive(
    config: "Config",
    run: str | None,
    older_than: str | None,
    to: str | None,
    keep: bool,
    dry_run: bool,
) -> "tuple[list[Outcome], int]":
    """What became of each run, and how many blobs were removed."""
    from podium.config import age_ms

    before = current().now() - age_ms(older_than) if older_than is not None else None
    shelf = _shelf(config, to)
    deployments = current().deployments
    async with deployments.connect(config) as host, host.archiver(shelf) as archiver:
        if run is not None:
            runs = [await host.client.find(run)]
        else:
            runs = [each.run for each in await archiver.ended(before)]
        if dry_run:
            return await archiver.look(runs), 0
        outcomes = await archiver.archive(runs, keep=keep)
        # What is elsewhere than all readers look must not be missing here.
        frees = run is None and not keep and _url(config, to) == _url(config, None)
        return outcomes, await archiver.free() if frees else 0


def _url(config: "Config", to: str | None) -> str:
    from podium.shelved import ARCHIVE

    return to or config.archive.url or str(config.path() / ARCHIVE)


def _shelf(config: "Config", to: str | None) -> "ArchiveShelf":
    from replay.archive.folder import Folder
    from replay.archive.shelf import ArchiveShelf

    return ArchiveShelf(Folder(_url(config, to)))


def _check(output: Output, config: "Config", to: str | None) -> int:
    shelf = _shelf(config, to)
    wrong = shelf.check()
    if not wrong and not shelf.index.manifests:
        raise NotFound(
            f"there is no archive at {shelf.name}",
            hint="name its folder or bucket with --to; or make one: podium archive --all-ended",
        )
    for line in wrong[:MAX_TOLD]:
        output.say(line)
    if wrong:
        raise InvalidData(
            f"the archive {shelf.name} is damaged: {wrong[0]}"
            + (f"; {len(wrong) - 1} more" if len(wrong) > 1 else ""),
            hint="restore what is named from a copy",
        )
    index = shelf.index
    detail = (
        f"{shelf.name} is sound: runs {len(shelf.runs())}, blobs {len(index.blobs)}, "
        f"files {len(index.segments)}, batches {len(index.manifests)}"
    )
    output.mutation(shelf.name, detail, applied=False)
    return 0
