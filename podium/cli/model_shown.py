"""What `podium model` shows: versions, what was said of them, two of them side by side."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from podium.cli.output import iso
from podium.render_rich import table
from protocol import model_versions as said_of
from protocol.errors import InvalidData, NotFound
from replay.model_folder import find
from trainer.versions.gate import RIGHT, shown
from trainer.versions.promoting import scores_of

if TYPE_CHECKING:
    from protocol.model_versions import Said, VersionEvent, Versions
    from replay.model_folder import Manifest
    from trainer.gym.scores import Figure, Scores
    from trainer.versions.gate import Compared, Row


def version_row(path: Path, versions: "Versions", name: str, runs: int) -> dict[str, Any]:
    """A version, as a row of the list."""
    known = versions.known.get(name)
    canary = versions.canary
    there = True
    scores: list[Scores] = []
    try:
        scores = scores_of(path, versions, name)
    except (InvalidData, NotFound):
        there = False
    return {
        "version": name,
        "current": name == versions.current,
        "canary": canary.share if canary is not None and canary.version == name else None,
        "there": there,
        "published": iso(known.at) if known else None,
        "by": known.by if known else "",
        "weights": known.weights if known else "",
        "runs": runs,
        "scores": [
            {key: value for key, value in msgspec.to_builtins(each).items() if key != "outcomes"}
            for each in scores
        ],
    }


def mark(row: dict[str, Any]) -> str:
    """What a version is: the one that answers, a canary, nothing."""
    if not row["there"]:
        return "not readable"
    if row["canary"] is not None:
        return f"canary {row['canary']:.0%}"
    return "current" if row["current"] else ""


def brief(scores: Iterable[dict[str, Any]]) -> str:
    """How often it is right, on each set."""
    return ", ".join(
        f"{each['set']} {shown(figure['value'], RIGHT)}"
        for each in scores
        for figure in each["figures"]
        if figure["name"] == RIGHT
    )


def said_row(said: "Said", event: "VersionEvent") -> dict[str, Any]:
    """An event, as a row of what was said."""
    by, why = said.by, said.why
    if isinstance(event, said_of.VersionPublished):
        by, why = event.by or by, event.why or why
    return {
        "n": said.n,
        "at": iso(said.at),
        "by": by,
        "what": in_words(event),
        "why": why,
        "event": msgspec.to_builtins(event),
    }


def in_words(event: "VersionEvent") -> str:
    """An event in words."""
    match event:
        case said_of.VersionPublished(version=name):
            return f"{name} published"
        case said_of.VersionScored(version=name, scores=scores):
            return f"{name} measured on {', '.join(str(each.get('set')) for each in scores)}"
        case said_of.VersionPromoted(version=name, gate="forced"):
            return f"{name} promoted by force"
        case said_of.VersionPromoted(version=name, gate="passed"):
            return f"{name} promoted"
        case said_of.VersionPromoted(version=name):
            return f"{name} promoted without a gate"
        case said_of.PromotionRefused(version=name, against=against):
            return f"{name} refused beside {against}"
        case said_of.VersionRolledBack(version=name, withdrawn=withdrawn):
            return f"back to {name} from {withdrawn}"
        case said_of.CanarySet(version=name, share=share):
            return f"{name} answers {share:.3g} of the runs that begin"
        case said_of.CanaryEnded(version=name):
            return f"{name} is no canary any more"


def pictures(found: "Compared", one: str, other: str) -> list[Any]:
    """Two versions, figure by figure; nothing if they have none."""
    if not found.rows:
        return []
    heads = ["set", "figure", f"{one}>", f"{other}>", "difference>", "verdict"]
    return [table(heads, [_cells(row) for row in found.rows])]


def _cells(row: "Row") -> list[str]:
    change = ""
    if row.current is not None and row.candidate is not None:
        change = f"{_signed(row.change, row.figure)} ({_between(row.low, row.high, row.figure)})"
    return [
        row.set,
        row.figure,
        _figure(row.current),
        _figure(row.candidate),
        change + (" paired" if row.paired else ""),
        "" if row.verdict == "shown" else row.verdict,
    ]


def _figure(figure: "Figure | None") -> str:
    if figure is None:
        return "-"
    between = _between(figure.low, figure.high, figure.name)
    return f"{shown(figure.value, figure.name)} ({between}) of {figure.n}"


def _between(low: float, high: float, name: str) -> str:
    return f"{shown(low, name)} to {shown(high, name)}"


def _signed(value: float, name: str) -> str:
    return f"+{shown(value, name)}" if value > 0 else shown(value, name)


def about(manifest: "Manifest", scores: "Iterable[Scores]") -> list[Any]:
    """What a version is made of, and what it does."""
    note = {key: value for key, value in manifest.note.items() if key != "scores"}
    found: list[Any] = []
    if note:
        lines = [[key, flat(value)] for key, value in sorted(note.items())]
        found.append(table(["made of", ""], lines))
    rows = [[each.set, figure.name, _figure(figure)] for each in scores for figure in each.figures]
    return [*found, table(["set", "figure", "value>"], rows)] if rows else found


def rows_json(found: "Compared") -> list[dict[str, Any]]:
    """The same for programs."""
    return [msgspec.to_builtins(row) for row in found.rows]


def made_of(path: Path, one: str, other: str) -> list[dict[str, Any]]:
    """What the manifests of two versions say differently: data, steps, files."""
    manifests = [find(path, name).manifest for name in (one, other)]
    first, second = (_note(each, files=None not in manifests) for each in manifests)
    return [
        {"made": key, "first": first.get(key), "second": second.get(key)}
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key)
    ]


def _note(manifest: "Manifest | None", *, files: bool) -> dict[str, Any]:
    """What a manifest says a version is made of; nothing of one that nobody has published."""
    if manifest is None:
        return {}
    note = {key: value for key, value in manifest.note.items() if key != "scores"}
    known = manifest.files if files else {}
    return {**note, **{f"file {name}": digest[:12] for name, digest in known.items()}}


def made_pictures(made: list[dict[str, Any]], one: str, other: str) -> list[Any]:
    """What they are made of, as a table; nothing if it is the same."""
    if not made:
        return []
    lines = [[row["made"], flat(row["first"]), flat(row["second"])] for row in made]
    return [table(["made of", one, other], lines)]


def flat(value: Any) -> str:
    """A value of a note, on one line."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
