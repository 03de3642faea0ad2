"""Promoting a version through the gate: scores are found or made, compared, and all of it is said.

From a script::

    from replay.model_versions import publish
    from trainer.versions.promoting import promote

    version = publish(folder, write, note={"data": "..."}, current=False, why="SFT + RL, seed 3")
    done = promote(folder, version.name, evaluate=evaluate, why="the table of today")
    print(done.promoted, done.why)

``evaluate(folder, version)`` gives the scores of one version on the gate's sets; it is called for
those whose scores nobody has said. Without it, scores have to stand in the version's manifest
(``note={"scores": [...]}``) or in the log (`scored`).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from protocol.errors import Conflict, InvalidData, NotFound, Usage
from protocol.model_versions import (
    BASE,
    Gate,
    PromotionRefused,
    VersionEvent,
    Versions,
    VersionScored,
    promoted,
)
from replay.model_folder import find, weights_of
from replay.model_versions import ModelLog, user
from trainer.gym.scores import Scores
from trainer.versions.gate import Compared, compare


class Evaluate(Protocol):
    """Measures a version: plays the gate's sets of tasks with it."""

    def __call__(self, folder: Path, version: str, /) -> Scores | Sequence[Scores]:
        """The scores of that version of the model in ``folder``, one for each set."""
        ...


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a promotion."""

    promoted: bool
    gate: Gate
    against: str
    """The version that was current before."""
    compared: Compared
    why: str
    """Why it was refused, or would have been; empty if nothing speaks against it."""
    versions: Versions


def scores_of(folder: Path, versions: Versions, version: str) -> list[Scores]:
    """What is known of a version: what was said of it, else what its manifest says.

    Raises:
        NotFound: There is no such version.
        InvalidData: What is kept are no scores.
    """
    manifest = find(folder, version).manifest
    noted: Any = manifest.note.get("scores", []) if manifest is not None else []
    try:
        found = {each.set: each for each in msgspec.convert(noted, list[Scores])}
        said = list(versions.scores.get(version, {}).values())
        found |= {each.set: each for each in msgspec.convert(said, list[Scores])}
    except msgspec.ValidationError as error:
        raise InvalidData(
            f"the scores of version {version} can't be read: {error}",
            hint="have it evaluated again: podium model promote FOLDER VERSION --evaluator "
            "MODULE:FUNCTION",
        ) from None
    return list(found.values())


def scores_before(folder: Path, versions: Versions, *, forced: bool) -> list[Scores] | None:
    """What is known of the current version; None if it can't be read, and another is forced.

    Raises:
        NotFound, InvalidData: It can't be read, and the gate is to compare another with it.
    """
    try:
        return scores_of(folder, versions, versions.current)
    except (NotFound, InvalidData) as error:
        if forced:
            return None
        raise type(error)(
            error.message, hint="it is current; --force REASON promotes another all the same"
        ) from None


def scored(folder: Path, version: str, scores: Iterable[Scores], *, by: str = "") -> Versions:
    """Say what a version does. Raises `NotFound`."""
    weights = weights_of(find(folder, version))
    said = tuple(msgspec.to_builtins(each) for each in scores)
    event = VersionScored(version=version, weights=weights, scores=said)
    return ModelLog(folder).say(lambda _: [event], by=by or user())


def promote(
    folder: Path,
    version: str,
    *,
    evaluate: Evaluate | None = None,
    force: str = "",
    by: str = "",
    why: str = "",
) -> Done:
    """Have a version answer the runs that begin, unless it does worse than the current one.

    Args:
        folder: The model's.
        version: Which.
        evaluate: Called for a version whose scores nobody has said; they are said then.
        force: Why it is promoted whatever the gate says; empty to go by the gate. A current version
            that can't be read is then one of which nothing is known.
        by: Who wants it; empty for the user.
        why: Why, in their words.

    Raises:
        NotFound, InvalidData: There is no such version, or its scores are none.
        Usage: It is current already, or scores are missing and nobody can make them.
        Conflict: Somebody else has changed which version is current meanwhile.
    """
    by, log = by or user(), ModelLog(folder)
    versions = log.read()
    weights = weights_of(find(folder, version))
    against = versions.current
    if version == against:
        raise Usage(f"version {version} is current already", hint=f"podium model list {folder}")
    pair = _measured(folder, log, against, version, evaluate, by=by, forced=bool(force))
    compared = compare(*pair)
    speaks = compared.why
    if pair[1] and not pair[0]:
        speaks = f"nothing is known of what version {against} does"
    gate: Gate = "passed" if not speaks else "forced" if force else "none"
    table = tuple(msgspec.to_builtins(row) for row in compared.rows)

    def decide(there: Versions) -> Sequence[VersionEvent]:
        if there.current != against:
            raise Conflict(
                f"version {there.current} is current by now, and {version} was compared with "
                f"{against}",
                hint="promote it again",
            )
        if speaks and not force:
            return [
                PromotionRefused(version=version, weights=weights, against=against, table=table)
            ]
        return promoted(there, version, weights=weights, gate=gate, table=table)

    said = log.say(decide, by=by, why=force or why or speaks)
    return Done(
        promoted=said.current == version,
        gate=gate,
        against=against,
        compared=compared,
        why=speaks,
        versions=said,
    )


def _measured(
    folder: Path,
    log: ModelLog,
    against: str,
    version: str,
    evaluate: Evaluate | None,
    *,
    by: str,
    forced: bool,
) -> tuple[list[Scores], list[Scores]]:
    """The scores of both. Made of the one that lacks a set which the other was measured on."""
    versions = log.read()
    before = scores_before(folder, versions, forced=forced)
    if before is None:
        return [], scores_of(folder, versions, version)  # nobody could measure the other
    found = {against: before, version: scores_of(folder, versions, version)}
    sets = {each.set for scores in found.values() for each in scores}
    for name, scores in found.items():
        if scores and {each.set for each in scores} == sets:
            continue
        if evaluate is not None:
            made = evaluate(folder, name)
            fresh = [made] if isinstance(made, Scores) else list(made)
            scored(folder, name, fresh, by=by)
            found[name] = scores_of(folder, log.read(), name)
        elif not scores and not forced:
            what = "the folder itself" if name == BASE else f"version {name}"
            raise Usage(
                f"nothing is known of what {what} does, and nobody is named who could measure it",
                hint="--evaluator MODULE:FUNCTION measures it; --force REASON promotes it unseen",
            )
    return found[against], found[version]
