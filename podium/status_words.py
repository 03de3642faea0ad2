"""What the actors of a deployment say of themselves, in words for `podium status`. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from podium.render_text import count

COUNTED: Final[dict[str, str]] = {
    "again": "delivered again",
    "aside": "messages set aside",
    "aside_again": "of them delivered again",
    "aside_commits": "commits set aside",
    "aside_inbox": "messages of inboxes set aside",
    "broken": "errors (in the deployment's log)",
    "changed": "tools of servers changed",
    "fenced": "runs taken over by others",
    "handed_back": "handed back to others",
    "ignored": "messages that changed nothing",
    "late_answers": "late answers of the broker",
    "late_heartbeats": "late signs of life",
    "lost_blobs": "values lost from the store",
    "replaced": "runs delivered here twice",
    "strange_answers": "strange answers of the broker",
    "swapped": "versions loaded",
    "unreported": "reports not stored",
}
"""What an actor has counted, where its own word for that doesn't say it."""


def busy(said: Mapping[str, Any]) -> str:
    """What an actor is at."""
    parts: list[str] = []
    match said:
        case {"kind": "conductor", "runs": int(runs), "resting": int(resting)}:
            parts.append(f"{count(runs, 'run')} at work")
            if resting:
                parts.append(f"{resting} of them waiting for child runs")
        case {"kind": "worker", "busy": int(at_work), "slots": int(slots)}:
            parts.append(f"{at_work} of {count(slots, 'slot')} busy")
        case {"kind": "model", "version": str(version), "asked": int(asked)}:
            parts.append(f"version {version}" if version else "no version")
            match said.get("canary"):
                case {"version": str(canary), "share": float(share) | int(share)}:
                    parts.append(f"canary {canary} with {share:.0%} of the runs")
            parts.append(f"{count(asked, 'question')} at work")
            if refused := said.get("refused"):
                parts.append(f"refused: {refused}")
        case _:
            others = ("actor", "kind", "counts", "worker", "pid")
            parts += [f"{value} {key}" for key, value in said.items() if key not in others]
    if "pid" in said:
        parts.append(f"process {said['pid']}")
    return ", ".join(parts)


def did(said: Mapping[str, Any]) -> str:
    """What an actor has counted since it was started."""
    counts = said.get("counts")
    if not isinstance(counts, dict):  # somebody else's answer
        return ""
    return ", ".join(f"{n} {COUNTED.get(key, key)}" for key, n in sorted(counts.items()))
