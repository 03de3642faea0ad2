"""Rollouts of a log that is there: of a deployment, an archive, imported files.

Groups are found, not asked for: runs of one task with one pool, one policy and one version of it.
A first look at a log reads each run's first event, and runs are read whole when their group's turn
comes, so that memory holds one group, however long the log is.
"""

import logging
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from time import monotonic, time_ns
from typing import Final

import msgspec

from protocol.codec import HASH_CHARS
from protocol.errors import UNREAD
from protocol.state import RunState
from replay.chain import RunLog
from trainer.rollouts.beside import Beside, Connect
from trainer.rollouts.groups import group_of
from trainer.rollouts.reading import Reader, with_all
from trainer.rollouts.source import TIMEOUT_S, Ended, Group, Health, last_version

logger = logging.getLogger("podium.rollouts")

_encode: Final = msgspec.json.Encoder(order="deterministic").encode

Wanted = Callable[[RunState], bool]
"""Whether a run is wanted, by what is known when it begins: its task, pool, policy and start."""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far a log has been read: what a source goes on from that was stopped.

    Run ids say nothing of when a run began, and a log grows at any of them: so it is a set.
    """

    given: tuple[str, ...] = ()
    """Runs that were given, sorted."""


class _Found(msgspec.Struct, frozen=True):
    """A group that a look has found."""

    key: str
    began: int
    runs: tuple[str, ...]


def every_root(state: RunState) -> bool:
    """All runs but those that answer another's call: these are given below it."""
    return state.parent is None


class LogSource:
    """Gives the groups of a log, the oldest first; what comes later, when all before was given.

    A group with a run that goes on waits for the next look, unless that run began too long ago.

    Args:
        connect: Opens what reads the log, see `beside.Connect`.
        position: Where another source has stopped.
        wanted: Which runs.
        timeout_s: Seconds from a run's beginning after which its group is given without it.
        clock: Milliseconds since the epoch.
    """

    def __init__(
        self,
        connect: Connect[Reader],
        *,
        position: Position | None = None,
        wanted: Wanted = every_root,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], int] = lambda: time_ns() // 1_000_000,
    ) -> None:
        self._beside = Beside(connect)
        self._wanted, self._timeout_s, self._clock = wanted, timeout_s, clock
        self._given = set((position or Position()).given)
        self._unwanted: set[str] = set()
        self._unread: set[str] = set()
        self._found: deque[_Found] = deque()
        self._health = Health()
        self._version = ""
        self._done = False

    def start(self) -> None:
        """See `RolloutSource.start`."""
        self._beside.start()

    def poll(self, timeout_s: float) -> list[Group]:
        """See `RolloutSource.poll`."""
        until = monotonic() + timeout_s
        if not self._found:
            self._found.extend(self._beside.do(self._look))
        groups: list[Group] = []
        while self._found and not groups and monotonic() < until:
            groups = self._beside.do(_Read(self._found.popleft(), self._is_late))
            for group in groups:
                self._given.update(each.run for each in group.rollouts)
                self._health = self._health.plus(group)
                replied = (each.rollout for each in group.rollouts)
                self._version = last_version(replied, self._version)
        self._done = not groups and not self._found
        return groups

    @property
    def done(self) -> bool:
        """See `RolloutSource.done`: the last look has found nothing that is to be given."""
        return self._done

    @property
    def position(self) -> Position:
        """How far it has come: all that was given by `poll`."""
        return Position(given=tuple(sorted(self._given)))

    def publish(self, version: str) -> None:
        """See `RolloutSource.publish`: what is in the log was made by others."""

    @property
    def version(self) -> str:
        """See `RolloutSource.version`."""
        return self._version

    def health(self) -> Health:
        """See `RolloutSource.health`."""
        return msgspec.structs.replace(self._health, waiting=len(self._found))

    def stop(self) -> None:
        """See `RolloutSource.stop`."""
        self._beside.stop()

    def _is_late(self, state: RunState) -> bool:
        return self._clock() - state.started_at > self._timeout_s * 1_000

    async def _look(self, reader: Reader) -> list[_Found]:
        """The groups of all runs that have not been given."""
        found: dict[str, list[tuple[int, str]]] = {}
        for run in await reader.ids():
            if run in self._given or run in self._unwanted:
                continue
            state = await self._begun(reader, run)
            if state is None or state.phase == "new":
                continue
            if not self._wanted(state):
                self._unwanted.add(run)
                continue
            found.setdefault(key_of(state), []).append((state.started_at, run))
        groups = [
            _Found(key, min(runs)[0], tuple(run for _, run in sorted(runs)))
            for key, runs in found.items()
        ]
        return sorted(groups, key=lambda each: (each.began, each.key))

    async def _begun(self, reader: Reader, run: str) -> RunState | None:
        """A run as it began; None for one that can't be read, which is said once."""
        try:
            log = await reader.log(run, until=1)
            if log.forked is not None:
                log = await reader.log(run)
            return log.state()
        except UNREAD as error:
            if run not in self._unread:
                logger.warning("run %s is left out: %s", run, error)
            self._unread.add(run)
            return None


class _Read:
    """Reads a group's runs, and tells them apart by version."""

    def __init__(self, found: _Found, late: Callable[[RunState], bool]) -> None:
        self._found, self._late = found, late

    async def __call__(self, reader: Reader) -> list[Group]:
        logs: list[RunLog] = []
        missing: list[str] = []
        for run in self._found.runs:
            try:
                logs.append(await reader.log(run))
            except UNREAD as error:  # whoever looks for damage is told more
                logger.warning("run %s is left out: %s", run, error)
                missing.append(run)
        states = [log.state() for log in logs]
        if any(not _is_over(state) and not self._late(state) for state in states):
            return []
        groups: dict[str, dict[str, Ended | None]] = {}
        for log, state in zip(logs, states, strict=True):
            each = await self._ended(reader, log) if _is_over(state) else None
            if each is None:
                missing.append(log.run)
            else:
                groups.setdefault(each.rollout.group, {})[log.run] = each
        return [
            msgspec.structs.replace(group_of(key, found), missing=tuple(missing))
            for key, found in groups.items()
        ]

    @staticmethod
    async def _ended(reader: Reader, log: RunLog) -> Ended | None:
        try:
            return await with_all(reader, log)
        except UNREAD as error:  # whoever looks for damage is told more
            logger.warning("left out: %s", error)
            return None


def _is_over(state: RunState) -> bool:
    return state.phase == "ended"


def key_of(state: RunState) -> str:
    """A hash of what the runs of a group have in common, but for the policy's version."""
    fork = state.origin and (state.origin.run, state.origin.events)
    of = [state.task, state.pool, state.policy, state.budget, fork]
    return sha256(_encode(of)).hexdigest()[:HASH_CHARS]
