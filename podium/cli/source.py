"""Where the commands that read a run find it, and how people name a moment or a call of it.

::

    RUN          an id, or the beginning of it
    RUN@57       its event 57
    RUN/2-0      its call 2-0
    RUN/2-0/1    the first attempt of that call

RUN may also be the path of a file that `podium export` wrote: no deployment is needed then.
"""

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from podium.cli.options import Common
from podium.cli.world import current
from podium.reading import Found, of_each
from protocol.errors import NotFound, Usage
from protocol.subjects import is_call, is_run
from replay.chain import archived_before

if TYPE_CHECKING:
    from podium.cli.world import Hosted
    from podium.client import Client
    from podium.log_reader import LogReader
    from protocol.actions import BlobRef
    from protocol.registry import Registry
    from replay.chain import RunLog
    from replay.log import EventLog
    from replay.verify import Verified


class Source:
    """Runs that can be read: those of the deployment, and those of files."""

    def __init__(self, common: Common, stack: AsyncExitStack) -> None:
        self._common, self._stack = common, stack
        self._deployment: Hosted | None = None
        self._files: dict[str, tuple[LogReader, str]] = {}

    async def log(self, name: str, until: int | None = None) -> "RunLog":
        """The log of the run that a name means. Raises `NotFound` or `Ambiguous`.

        All of it, or as far as that event and without the inbox, see `EventLog.read`.
        """
        if names_file(name):
            reader, run = self._file(name)
            return await reader.log(run)
        client = await self.client()
        log = await client.log(await client.find(name), until)
        if archived_before(log):
            raise NotFound(
                f"run {log.run} is archived in {log.state().archived}, which is not read here",
                hint="name that archive's folder or bucket: [archive] url in podium.toml",
            )
        return log

    async def reader(self, name: str) -> "EventLog":
        """The log in which the run that a name means stands."""
        return (self._file(name)[0] if names_file(name) else await self.client()).reader

    async def runs(self) -> list[str]:
        """Ids, sorted, of all runs that have a log, or are known to have had one."""
        host = await self._hosted()
        return sorted({*await host.client.ids(), *await host.heads()})

    async def verified(self, name: str) -> "Found[Verified]":
        """What a name means, verified; all runs of a file, as far as they can be read.

        Raises:
            NotFound, Ambiguous: It means nothing, or several.
            NotFound, InvalidData: The file or the run can't be read.
        """
        if names_file(name):
            reader, _ = self._file(name)
            return await of_each(await reader.ids(), reader.verify)
        host = await self._hosted()
        run = name if is_run(name) else await host.client.find(name)
        heads = await host.heads(run)  # before the log: it only grows
        found = await host.client.verify(run, heads.get(run))
        if not found.commits and not found.problems:
            await host.client.find(run)  # nothing of it is there: is there such a run at all?
        return Found([found], {})

    async def blob(self, ref: "BlobRef") -> bytes:
        """The bytes of a blob of a run that was read. Raises `NotFound` or `InvalidData`."""
        readers = [reader for reader, _ in self._files.values()]
        problem: NotFound | None = None
        for reader in [*readers, *([self._deployment.client] if self._deployment else [])]:
            try:
                return await reader.blob(ref)
            except NotFound as error:
                problem = error
        raise problem or NotFound(f"there is no blob {ref.sha256}", hint="read its run first")

    async def registry(self) -> "Registry":
        """What was said of the workers of the deployment that runs are read from, if any are."""
        from protocol.registry import EMPTY

        return EMPTY if self._deployment is None else await self._deployment.registry()

    def _file(self, name: str) -> "tuple[LogReader, str]":
        from podium.shelved import file_reader

        if name not in self._files:
            self._files[name] = found = file_reader((current().folder or Path()) / name)
            current().files[found[1]] = name
        return self._files[name]

    async def client(self) -> "Client":
        """Of the deployment, connected to when it is first needed."""
        return (await self._hosted()).client

    async def _hosted(self) -> "Hosted":
        """The deployment, when it is first needed."""
        if self._deployment is None:
            connecting = current().deployments.connect(self._common.load().config)
            self._deployment = await self._stack.enter_async_context(connecting)
        return self._deployment


def names_file(text: str) -> bool:
    """Whether a text that could be a run's id names an exported file instead."""
    return text.endswith(".podium")


def no_file(name: str, command: str) -> None:
    """Raise `Usage` if a name is a file's, for a command that does more than read.

    Args:
        name: The run, as it was typed.
        command: What to type when the run is here, with ``{run}`` for its id.

    Raises:
        NotFound, InvalidData: There is no such file, or it is none of ours.
    """
    if not names_file(name):
        return
    from podium.shelved import file_reader

    _, run = file_reader((current().folder or Path()) / name)
    raise Usage(
        f"{name} is a file, which is only read",
        hint=f"have its runs here, then: podium import {shlex.quote(name)} && "
        f"podium {command.format(run=run)}",
    )


@asynccontextmanager
async def source(common: Common) -> AsyncIterator[Source]:
    """What the options and the names say: the log of a deployment, or exported files."""
    async with AsyncExitStack() as stack:
        yield Source(common, stack)


def run_log(common: Common, name: str, until: int | None = None) -> "RunLog":
    """The log of the one run that a name means, see `Source.log`."""
    from replay.collector import held_off

    logs: list[RunLog] = []

    async def read() -> None:
        async with source(common) as found:
            logs.append(await found.log(name, until))

    with held_off(for_good=True):
        # Not as the result: `asyncio.run` formats that of its task, and this one may be long.
        asyncio.run(read())
    return logs[0]


class EventName(NamedTuple):
    """``RUN@57``."""

    run: str
    number: int


_CALL: Final = re.compile(r"(.+?\.podium|[^/]+)/([0-9]+-[0-9]+)(?:/([0-9]+))?")


class CallName(NamedTuple):
    """``RUN/2-0`` or ``RUN/2-0/1``."""

    run: str
    call: str
    attempt: int | None


def names_event(text: str) -> bool:
    """Whether a text that could be a run's id names an event of one instead."""
    _, found, number = text.rpartition("@")
    return bool(found) and number.isdecimal()


def event_name(text: str) -> EventName:
    """The event that a text names. Raises `Usage`."""
    run, at, number = text.rpartition("@")
    if not run or not at or not number.isdecimal() or int(number) < 1:
        run = text.partition("@")[0]
        raise Usage(
            f"{text!r} names no event",
            hint="name one as RUN@NUMBER; they are numbered by: podium timeline "
            + (shlex.quote(run) if run else "RUN"),
        )
    return EventName(run, int(number))


def moment(run: str, at: int | None) -> tuple[str, int | None]:
    """A run and the event that is meant, where ``RUN@57`` is the same as ``RUN --at 57``.

    Raises:
        Usage: They are two events.
    """
    if not names_event(run):
        return run, at
    named = event_name(run)
    if at is not None and at != named.number:
        raise Usage(f"{run} and --at {at} are two events.", hint="Name one of them.")
    return named.run, named.number


def call_name(text: str) -> CallName:
    """The call that a text names. Raises `Usage`."""
    found = _CALL.fullmatch(text)
    run, call, attempt = found.groups("") if found else ("", "", "")
    if not run or not is_call(call):
        raise Usage(
            f"{text!r} names no call",
            hint="name one as RUN/CALL, such as yspt9/2-0; `podium runs show RUN` lists them",
        )
    return CallName(run, call, int(attempt) if attempt else None)
