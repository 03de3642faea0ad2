"""What servers of others offer to a pool file: asked once each, however many of its tables name it.

A table whose address names a part (``mcp:TOOL``) is that worker; one whose address is the kind
alone (``mcp``) becomes a worker for each that is offered, all with the rest of what it says.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeAlias

import msgspec

from protocol.actions import Json, Pool, WorkerSpec
from protocol.errors import PodiumError, Usage
from protocol.limits import MAX_WORKER_NAME_CHARS, NAME_PATTERN
from protocol.redaction import Redactor

SHOWN: Final = 40
"""Names that an error tells: all that most servers have."""

MAX_ASKED: Final = 8
"""Servers that are asked at a time: each may be a program that loads for seconds."""

_Key: TypeAlias = tuple[str, bytes]
"""The kind of an adapter, and its options."""

_Answer: TypeAlias = list[WorkerSpec] | PodiumError
"""What a server offers, or why it can't be told."""


def discovers(adapter: str) -> bool:
    """Whether all that a server offers has to be known for a worker of this address.

    One that names its part, and shares no session, is described by its adapter alone.
    """
    from actors.workers import discovering, sharing

    named = bool(adapter.partition(":")[2])
    return discovering(adapter) is not None and (not named or sharing(adapter) is not None)


class Offers:
    """What was asked of servers so far.

    Args:
        redactor: What no error may say.
        secrets: Folder or file with the secrets that workers declare, besides the environment.
    """

    def __init__(self, redactor: Redactor, secrets: str) -> None:
        self._redactor, self._secrets = redactor, secrets
        self._found: dict[_Key, _Answer] = {}
        self._hosts: dict[_Key, str] = {}

    def one(self, asked: WorkerSpec) -> WorkerSpec:
        """The worker that an address names, as its server describes it."""
        there = self.all_of(asked)
        found = next((spec for spec in there if spec.adapter == asked.adapter), None)
        if found is None:
            kind, _, part = asked.adapter.partition(":")
            raise Usage(
                f"its server offers no {part!r}",
                hint=f'It offers: {_told(there)}. adapter = "{kind}" takes all of it.',
            )
        return msgspec.structs.replace(found, options=asked.options)  # without secrets

    def each(self, asked: WorkerSpec, only: tuple[str, ...]) -> dict[str, WorkerSpec]:
        """A worker for each that a server offers, or only for some, by what it will be called."""
        there = self.all_of(asked)
        known = {name for spec in there for name in _names(spec)}
        if unknown := [name for name in only if name not in known]:
            raise Usage(
                f"only: its server offers no {unknown[0]!r}", hint=f"It offers: {_told(there)}."
            )
        found: dict[str, WorkerSpec] = {}
        for spec in there:
            if only and not _names(spec) & set(only):
                continue
            name = fitting(asked.name, spec.name)
            if name in found:
                raise Usage(
                    f"{found[name].adapter} and {spec.adapter} would both be the worker {name!r}",
                    hint=f'Name one of them in a table of its own: adapter = "{spec.adapter}", '
                    "and the others with only = [...].",
                )
            found[name] = msgspec.structs.replace(spec, options=asked.options)
        if not found:
            raise Usage("its server offers nothing", hint="Look at it: has it any tools?")
        return found

    def host(self, table: str, adapter: str, options: Mapping[str, Json]) -> str:
        """The process for a worker, if it shares a session: named after the first that does."""
        from actors.workers import sharing

        kind = sharing(adapter)
        if kind is None:
            return ""
        key = adapter.partition(":")[0], kind.shared(options)
        return self._hosts.setdefault(key, table)

    def ask(self, all_asked: Iterable[WorkerSpec]) -> None:
        """Ask all these servers at the same time: each may take seconds to start."""
        questions: dict[_Key, Callable[[], _Answer]] = {}
        for asked in all_asked:
            with contextlib.suppress(PodiumError):  # said when it is asked for itself
                key, question = self._question(asked)
                if key not in self._found:
                    questions[key] = question
        if questions:
            with ThreadPoolExecutor(min(len(questions), MAX_ASKED), "offers") as threads:
                answers = threads.map(lambda question: question(), questions.values())
                self._found.update(zip(questions, answers, strict=True))

    def all_of(self, asked: WorkerSpec) -> list[WorkerSpec]:
        """All that a server offers, or the error that it gave: nobody waits for it twice."""
        key, question = self._question(asked)
        if key not in self._found:
            self._found[key] = question()
        found = self._found[key]
        if isinstance(found, PodiumError):
            raise found
        return found

    def _question(self, asked: WorkerSpec) -> tuple[_Key, Callable[[], _Answer]]:
        """What to ask a server, and how to. Raises what is wrong with the secrets for it."""
        from actors.secrets import Secrets

        known = Secrets.of(asked, self._redactor, self._secrets)
        options = known.options(asked).options
        kind = asked.adapter.partition(":")[0]
        key = kind, msgspec.json.encode(options, order="deterministic")
        return key, partial(_ask, asked.adapter, options, known.redactor)


def rediscovered(
    pool: Pool, tables: Mapping[str, str], offers: Offers
) -> tuple[Pool, dict[str, str]]:
    """A pool with the workers of servers as those offer them by now, and their tables.

    A tool that is gone is no worker any more; one that is added is a worker of the table that takes
    all. Workers of a server that can't be asked stay as they are.

    Args:
        pool: The pool.
        tables: The tables that take all that a server offers, by the names of their workers.
        offers: What was asked.
    """
    found: dict[str, WorkerSpec] = {}
    taking: dict[str, str] = {}
    for spec in pool.workers:
        table = tables.get(spec.name, "")
        try:
            there = offers.all_of(spec) if discovers(spec.adapter) else ()
        except PodiumError:
            there = ()
        if not there:
            found[spec.name], taking[spec.name] = spec, table
            continue
        for each in there:
            name = fitting(table, each.name) if table else spec.name
            if each.adapter == spec.adapter:
                found[name] = _as_offered(spec, each, described=bool(table))
            elif table and name not in pool.by_name():
                found.setdefault(name, _as_offered(spec, each, described=True, name=name))
            else:
                continue
            taking[name] = table
    return Pool(tuple(found.values())), taking


def _as_offered(
    spec: WorkerSpec, there: WorkerSpec, *, described: bool, name: str = ""
) -> WorkerSpec:
    return msgspec.structs.replace(
        spec,
        name=name or spec.name,
        adapter=there.adapter,
        queue="" if name else spec.queue,
        parameters=there.parameters,
        description=there.description if described else spec.description,
    )


def _ask(adapter: str, options: dict[str, Json], redactor: Redactor) -> _Answer:
    from actors.workers import discovering
    from actors.workers.outcomes import leaving

    kind = discovering(adapter)
    assert kind is not None
    token = leaving.set(redactor)
    try:
        return kind.discover(adapter, options)
    except PodiumError as error:
        return type(error)(redactor.text(error.message), hint=redactor.text(error.hint))
    finally:
        leaving.reset(token)


def fitting(table: str, part: str) -> str:
    """``TABLE_PART``, made fit for a worker: other characters are ``_``, the end is cut."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{table}_{part}")[:MAX_WORKER_NAME_CHARS]
    assert re.fullmatch(NAME_PATTERN, name), name
    return name


def _names(spec: WorkerSpec) -> set[str]:
    """What a pool file may call one that is offered: its bare name, or as its address does."""
    return {spec.name, spec.adapter.partition(":")[2]}


def _told(offered: list[WorkerSpec]) -> str:
    names = [spec.name for spec in offered]
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (", ".join(names[:SHOWN]) or "nothing") + more
