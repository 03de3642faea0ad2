"""Which version of a model of ours answers, folded from what was said of its versions.

One version is *current*: it answers the runs that begin. A *canary* is another one that answers a
share of them instead, so that both can be compared on the same traffic. Which of the two a run gets
follows from its id alone, whoever asks and in whatever order, and its later questions go to the
version that made its last reply (see `actors.models.server`).

What is said is never taken back: a promotion that was refused is said, too, with its table.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

from protocol.actions import Count, Json
from protocol.errors import Conflict, Usage

BASE: Final = "base"
"""The version that a model's folder itself is."""

Gate: TypeAlias = Literal["passed", "forced", "none", "found"]
"""By what a version came to be current: it was not worse on the gate; somebody insisted; nobody
asked for scores; or it was current before anything was said."""

Table: TypeAlias = tuple[dict[str, Json], ...]
"""The rows of a gate's table, see `trainer.versions.gate.Row`."""


class VersionPublished(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="VersionPublished"
):
    """A version is there, whole."""

    version: str
    weights: str
    """Hash of its weights, as replies record it. In other events it is empty for `BASE`, which has
    no manifest."""
    by: str = ""
    """Who published it. Whoever saw it first has said so."""
    at: Count = 0
    """When, milliseconds since the epoch; 0 if its manifest doesn't say."""
    why: str = ""


class VersionScored(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="VersionScored"
):
    """What a version does on sets of tasks. Of one set, the last scores count."""

    version: str
    weights: str = ""
    scores: tuple[dict[str, Json], ...]
    """`trainer.gym.scores.Scores`, one for each set."""


class VersionPromoted(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="VersionPromoted"
):
    """A version answers the runs that begin from here on."""

    version: str
    weights: str = ""
    gate: Gate = "none"
    table: Table = ()
    """What it was let through on, beside the version before it."""


class PromotionRefused(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="PromotionRefused"
):
    """A version was to be promoted, and does worse than the current one. Nothing changes."""

    version: str
    weights: str = ""
    against: str
    """The current version."""
    table: Table = ()


class VersionRolledBack(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="VersionRolledBack"
):
    """The version that was current before the current one is so again."""

    version: str
    """Which is current from here on."""
    weights: str = ""
    withdrawn: str
    """Which was."""


class CanarySet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="CanarySet"):
    """A share of the runs that begin is answered by this version; begun, or its share changed."""

    version: str
    weights: str = ""
    share: float
    """More than 0, at most 1."""


class CanaryEnded(msgspec.Struct, frozen=True, kw_only=True, tag="CanaryEnded"):
    """All runs that begin get the current version."""

    version: str


VersionEvent: TypeAlias = (
    VersionPublished
    | VersionScored
    | VersionPromoted
    | PromotionRefused
    | VersionRolledBack
    | CanarySet
    | CanaryEnded
)


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the log: all of its events, or none."""

    n: Count
    """From 1, without gaps."""
    at: Count
    """Milliseconds since the epoch."""
    by: str = ""
    why: str = ""
    events: tuple[VersionEvent, ...]


class Known(NamedTuple):
    """A published version."""

    weights: str
    by: str
    at: int


class Canary(NamedTuple):
    """A version that answers a share of the runs that begin."""

    version: str
    share: float
    since: int
    """When it was begun, milliseconds since the epoch."""


class Versions(NamedTuple):
    """What was said so far. Nothing of it is ever changed in place."""

    n: int = 0
    current: str = BASE
    before: tuple[str, ...] = ()
    """What was current before, the last of it last: where rolling back goes."""
    since: int = 0
    """When the current one came to be so, milliseconds since the epoch; 0 for ever."""
    canary: Canary | None = None
    known: Mapping[str, Known] = {}
    """By name, in the order in which they were said to be there."""
    chosen: int = 0
    """The last change that says who answers. Saying the same again is another change."""
    scores: Mapping[str, Mapping[str, dict[str, Json]]] = {}
    """What a version does, as far as it was said: by its name, then by the set of tasks."""

    def answers(self, run: str) -> str:
        """The version that answers the first question of a run; "" for whoever is no run."""
        canary = self.canary
        if canary is not None and run and taken(canary.version, run) < canary.share:
            return canary.version
        return self.current


EMPTY: Final = Versions()


def taken(version: str, run: str) -> float:
    """Where a run stands among all runs, from 0 to less than 1, as that version's canary sees it.

    A larger share keeps the runs of a smaller one, and another canary gets other runs.
    """
    known = sha256(f"{version}/{run}".encode()).digest()
    return int.from_bytes(known[:6], "big") / 2**48


def folded(versions: Versions, said: Iterable[Said]) -> Versions:
    """The versions after these changes, too. Total: what fits nothing before it is nothing."""
    for each in said:
        for event in each.events:
            versions = _after(versions, event, each)
        versions = versions._replace(n=each.n)
    return versions


def _after(versions: Versions, event: VersionEvent, said: Said) -> Versions:
    match event:
        case VersionPublished(version=name, weights=weights, by=by, at=at):
            known = Known(weights, by, at or said.at)
            return versions._replace(known={**versions.known, name: known})
        case VersionScored(version=name, scores=scores):
            fresh = {str(each.get("set", "")): each for each in scores}
            found = {**versions.scores.get(name, {}), **fresh}
            return versions._replace(scores={**versions.scores, name: found})
        case VersionPromoted(version=name):
            before = (*versions.before, versions.current)
            before = before if name != versions.current else versions.before
            return _current(versions._replace(before=before), name, said)
        case VersionRolledBack(version=name):
            return _current(versions._replace(before=versions.before[:-1]), name, said)
        case CanarySet(version=name, share=share):
            canary = versions.canary
            same = canary is not None and canary.version == name
            since = canary.since if canary is not None and same else said.at
            return versions._replace(canary=Canary(name, share, since), chosen=said.n)
        case CanaryEnded():
            return versions._replace(canary=None, chosen=said.n)
        case PromotionRefused():
            return versions


def _current(versions: Versions, name: str, said: Said) -> Versions:
    canary = versions.canary
    if canary is not None and canary.version == name:
        canary = None
    since = versions.since if name == versions.current else said.at
    return versions._replace(current=name, since=since, canary=canary, chosen=said.n)


# ------------------------------------------------------------------------------------------- to say


def promoted(
    versions: Versions, version: str, *, weights: str, gate: Gate, table: Table = ()
) -> list[VersionEvent]:
    """What makes a version the current one; a canary that it was has ended."""
    events: list[VersionEvent] = []
    if versions.canary is not None and versions.canary.version == version:
        events.append(CanaryEnded(version=version))
    return [*events, VersionPromoted(version=version, weights=weights, gate=gate, table=table)]


def back(versions: Versions) -> str:
    """Where rolling back goes. Raises `Conflict` if nothing was current before."""
    if not versions.before:
        raise Conflict(
            f"version {versions.current} is current, and none was before it",
            hint="podium model promote FOLDER VERSION says which is to be",
        )
    return versions.before[-1]


def rolled_back(versions: Versions, *, weights: str) -> list[VersionEvent]:
    """What makes the version before the current one again. Raises as `back`."""
    to = back(versions)
    event = VersionRolledBack(version=to, weights=weights, withdrawn=versions.current)
    if versions.canary is not None and versions.canary.version == to:
        return [CanaryEnded(version=to), event]
    return [event]


def canary(versions: Versions, version: str, share: float, *, weights: str) -> list[VersionEvent]:
    """What gives a version a share of the runs; none if it has it already.

    Raises:
        Usage: That is no share, or the version is the current one.
        Conflict: Another version is the canary.
    """
    if not 0 < share <= 1:
        raise Usage(
            f"a share of {share:g} is none: it is more than 0 and at most 1",
            hint="--share 0.1 for a tenth of the runs; --end for none",
        )
    if version == versions.current:
        raise Usage(
            f"version {version} is current: it answers every run that begins",
            hint="name another: podium model list FOLDER",
        )
    there = versions.canary
    if there is not None and there.version != version:
        raise Conflict(
            f"version {there.version} is the canary, with {there.share:.0%} of the runs",
            hint="end it first: podium model canary FOLDER --end",
        )
    if there is not None and there.share == share:
        return []
    return [CanarySet(version=version, weights=weights, share=share)]


def ended(versions: Versions) -> list[VersionEvent]:
    """What ends the canary. Raises `Conflict` if there is none."""
    if versions.canary is None:
        raise Conflict("no version is a canary", hint="podium model canary FOLDER VERSION --share")
    return [CanaryEnded(version=versions.canary.version)]
