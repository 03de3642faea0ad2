"""`podium model`: the versions of a model of ours; which of them answers, and how that changes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from podium.cli.options import COMMON, Common
from podium.cli.output import Output
from podium.cli.world import current
from podium.render_text import count
from protocol.errors import Conflict, NotFound, Usage

if TYPE_CHECKING:
    from protocol.model_versions import VersionEvent, Versions


Folder = Annotated[str, Parameter(help="The model's folder, or local:FOLDER.")]
Named = Annotated[str, Parameter(help="A version: 000007, 7, base, or current.")]
Why = Annotated[str, Parameter(help="Why: it is recorded.")]
Evaluator = Annotated[
    str,
    Parameter(
        help="MODULE:FUNCTION that measures a version without scores; called with the folder and "
        "the version."
    ),
]
Force = Annotated[str, Parameter(help="Promote it whatever the gate says; for this reason.")]
DryRun = Annotated[bool, Parameter(help="Say what would be done, and do nothing.")]
Share = Annotated[float | None, Parameter(help="Of the runs that begin: more than 0, at most 1.")]
End = Annotated[
    bool, Parameter(help="End the canary: all runs that begin get the current version.")
]

TAKEN_UP: Final = "runs that have begun keep their version; a server takes it up within a second"


def list_(folder: str = "", /, *, common: Common = COMMON) -> int:
    """A model's versions: which answers, who published it and when, scores, and runs that used it.

    Parameters
    ----------
    folder
        The model's, or local:FOLDER; else that of the standing deployment's own policy.
    """
    from podium.cli import model_shown as view
    from podium.modelruns import uses_in
    from podium.render_rich import table
    from trainer.versions.live import runs_of

    output = Output(common.json)
    config = common.load().config
    path = folder_of(folder or _own(common))
    versions = _log(path).read()
    uses, unread = uses_in(current().deployments, config, path)
    runs = runs_of(uses)
    rows = [view.version_row(path, versions, name, runs.get(name, 0)) for name in _names(versions)]
    heads = ["version", "is", "published", "by", "runs>", "scores"]
    lines = [
        [
            row["version"],
            view.mark(row),
            row["published"] or "",
            row["by"],
            str(row["runs"]),
            view.brief(row["scores"]),
        ]
        for row in rows
    ]
    counts = {"versions": len(rows)}
    output.read(rows, table(heads, lines, wide="scores"), counts=counts, unread=unread)
    code = output.unread(unread)
    output.hint(f"all that was said of them: podium model show {folder or path}")
    return code


def show(folder: Folder, version: str = "", /, *, common: Common = COMMON) -> int:
    """All that was said of a model's versions, or one version: its data, scores and events.

    Parameters
    ----------
    folder
        The model's, or local:FOLDER.
    version
        One of them; left out, all.
    """
    from podium.cli import model_shown as view
    from podium.render_rich import table
    from replay.model_folder import find
    from trainer.versions.promoting import scores_of

    output = Output(common.json)
    path = folder_of(folder)
    log = _log(path)
    versions = log.read()
    name = _name(version, versions) if version else ""
    manifest = find(path, name).manifest if name else None
    rows = [
        view.said_row(said, event)
        for said in log.history()
        for event in said.events
        if not name or name in (event.version, getattr(event, "against", ""))
    ]
    heads = ["n>", "at", "by", "what", "why"]
    lines = [[str(r["n"]), r["at"] or "", r["by"], r["what"], r["why"]] for r in rows]
    above = view.about(manifest, scores_of(path, versions, name)) if manifest else []
    output.read(rows, *above, table(heads, lines, wide="why"))
    return 0


def compare(folder: Folder, a: Named, b: Named, /, *, common: Common = COMMON) -> int:
    """Two versions side by side: the gate's figures, what runs say, and what they are made of."""
    from podium.cli import model_shown as view
    from podium.modelruns import uses_in
    from trainer.versions.gate import compare as compared
    from trainer.versions.live import figures
    from trainer.versions.promoting import scores_of

    output = Output(common.json)
    path = folder_of(folder)
    versions = _log(path).read()
    one, other = _name(a, versions), _name(b, versions)
    pair = [scores_of(path, versions, each) for each in (one, other)]
    uses, unread = uses_in(current().deployments, common.load().config, path)
    for scores, name in zip(pair, (one, other), strict=True):
        if (live := figures(uses, name)).figures:
            scores.append(live)
    found = compared(*pair)
    made = view.made_of(path, one, other)
    output.read(
        [*view.rows_json(found), *made],
        *view.pictures(found, one, other),
        *view.made_pictures(made, one, other),
        counts={"figures": len(found.rows), "differences": len(made)},
        unread=unread,
    )
    code = output.unread(unread)
    if not found.rows:
        output.hint(f"no scores of either: podium model promote {folder} {other} --evaluator M:F")
    return code


def promote(
    folder: Folder,
    version: Named,
    /,
    *,
    why: Why = "",
    evaluator: Evaluator = "",
    force: Force = "",
    dry_run: DryRun = False,
    common: Common = COMMON,
) -> int:
    """Have a version answer the runs that begin, unless it does worse than the current one.

    Both are compared on the gate's sets of tasks: by scores that are known, or that the evaluator
    makes. One that does worse is refused, with the table.
    """
    from podium.cli import model_shown as view
    from podium.evaluators import evaluator_of
    from trainer.versions.promoting import promote as promoted
    from trainer.versions.promoting import scores_before, scores_of

    output = Output(common.json)
    path = folder_of(folder)
    versions = _log(path).read()
    name = _name(version, versions)
    unseen = force and not evaluator  # who forces it, and names nobody, waits for no measuring
    evaluate = None if unseen else evaluator_of(evaluator, current().folder or Path.cwd(), path)
    if dry_run:
        before = scores_before(path, versions, forced=bool(force)) or []
        sets = {versions.current: before, name: scores_of(path, versions, name)}
        known = " and ".join(
            f"{each} has {count(len(scores), 'set')} of scores" for each, scores in sets.items()
        )
        output.mutation(str(path), f"{name} beside {versions.current}: {known}", dry_run=True)
        return 0
    done = promoted(path, name, evaluate=evaluate, force=force, by=current().user, why=why)
    pictures = [] if output.as_json else view.pictures(done.compared, done.against, name)
    if not done.promoted:
        refusal = Conflict(
            f"version {name} is not promoted: {done.why}",
            hint="--force REASON promotes it all the same, and that is recorded; more of both: "
            f"podium model compare {folder} {done.against} {name}",
        )
        output.error(refusal)
        output.show(*pictures, err=True)
        return refusal.exit_code
    output.show(*pictures, err=True)
    forced = f", though {done.why}" if done.gate == "forced" and done.why else ""
    output.mutation(
        str(path),
        f"version {name} is current, after {done.against}{forced}",
        event_id=str(done.versions.n),
    )
    output.hint(TAKEN_UP)
    return 0


def rollback(
    folder: Folder, /, *, why: Why = "", dry_run: DryRun = False, common: Common = COMMON
) -> int:
    """Have the version answer again that was current before the current one."""
    from protocol.model_versions import back, rolled_back
    from replay.model_folder import find, weights_of

    output = Output(common.json)
    path = folder_of(folder)
    log = _log(path)
    before = log.read()
    to = back(before)
    weights = weights_of(find(path, to))
    detail = f"version {to} is current again, after {before.current}"
    if dry_run:
        output.mutation(str(path), detail, dry_run=True)
        return 0

    def decide(there: "Versions") -> "Sequence[VersionEvent]":
        if (there.current, back(there)) != (before.current, to):
            raise Conflict(f"version {there.current} is current by now", hint="look, and try again")
        return rolled_back(there, weights=weights)

    versions = log.say(decide, by=current().user, why=why)
    output.mutation(str(path), detail, event_id=str(versions.n))
    output.hint(TAKEN_UP)
    return 0


def canary(
    folder: Folder,
    version: str = "",
    /,
    *,
    share: Share = None,
    end: End = False,
    why: Why = "",
    dry_run: DryRun = False,
    common: Common = COMMON,
) -> int:
    """Have another version answer a share of the runs that begin; change that share, or end it.

    Parameters
    ----------
    folder
        The model's, or local:FOLDER.
    version
        Which; not needed to end it, and has to be the canary if it is given.
    """
    from podium.cli import model_shown as view
    from protocol.model_versions import canary as set_to
    from protocol.model_versions import ended
    from replay.model_folder import find, weights_of

    output = Output(common.json)
    path = folder_of(folder)
    log = _log(path)
    versions = log.read()
    if end == (share is not None) or (not end and not version):
        raise Usage(
            "Say which version gets which share, or that the canary is to end.",
            hint=f"podium model canary {folder} VERSION --share 0.1, or podium model canary "
            f"{folder} --end",
        )
    name = _name(version, versions) if version else ""
    weights = "" if end else weights_of(find(path, name))

    def decide(there: "Versions") -> "Sequence[VersionEvent]":
        if not end:
            return set_to(there, name, share or 0.0, weights=weights)
        if name and there.canary is not None and there.canary.version != name:
            raise Usage(
                f"version {name} is no canary: {there.canary.version} is",
                hint=f"podium model canary {folder} {there.canary.version} --end",
            )
        return ended(there)

    if not (events := decide(versions)):
        output.mutation(str(path), "nothing has changed", applied=False, dry_run=dry_run)
        return 0
    detail = "; ".join(map(view.in_words, events))
    if dry_run:
        output.mutation(str(path), detail, dry_run=True)
        return 0
    versions = log.say(decide, by=current().user, why=why)
    output.mutation(str(path), detail, event_id=str(versions.n))
    if not end:
        output.hint(f"see how it does: podium model compare {folder} {versions.current} {name}")
    return 0


# ------------------------------------------------------------------------------------------ to find


def folder_of(name: str) -> Path:
    """The folder that is meant. Raises `NotFound` if it holds no model."""
    from replay.model_folder import find

    path = Path(name.removeprefix("local:")).expanduser()
    path = Path(os.path.normpath((current().folder or Path.cwd()).absolute() / path))
    find(path, "base")
    return path


def _own(common: Common) -> str:
    """The model of the standing deployment's own policy."""
    standing = current().deployments.standing(common.load().config)
    spec = standing.spec if standing is not None else None
    if spec is None or not (folder := spec.options.get("folder")):
        raise Usage(
            "Say which model: its folder.", hint="podium model list FOLDER   (as in local:FOLDER)"
        )
    return str(folder)


def _log(path: Path) -> Any:
    from replay.model_versions import ModelLog

    return ModelLog(path)


def _names(versions: "Versions") -> list[str]:
    return ["base", *sorted(versions.known)]


def _name(text: str, versions: "Versions") -> str:
    """The version that is meant. Raises `NotFound` if there is none of that name."""
    name = versions.current if text == "current" else text
    name = f"{int(name):06}" if name.isascii() and name.isdigit() else name
    if name not in _names(versions):
        last = ", ".join(_names(versions)[-3:])
        raise NotFound(f"there is no version {text!r}", hint=f"the latest are {last}")
    return name
