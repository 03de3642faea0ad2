"""Reports as tables: for a person, for Markdown, for a program."""

from collections.abc import Sequence
from typing import Final

import msgspec

from trainer.gym.evaluate import Report
from trainer.gym.scores import SHARES, Figure, Scores

COLUMNS: Final = (
    "accuracy",
    "valid",
    "recovery",
    "rounds",
    "cost",
    "critical_steps",
    "regret_rounds",
    "regret_stop",
    "early",
    "reward",
)
"""What tables show, where it is there."""


def shown(figure: Figure | None) -> str:
    """A figure with its interval: ``92.0 [89.3, 94.1]``, shares in percent."""
    if figure is None or not figure.n:
        return "-"
    if figure.name in SHARES:
        of = [f"{100 * each:.1f}" for each in (figure.value, figure.low, figure.high)]
    else:
        digits = 0 if abs(figure.value) >= 100 else 2
        of = [f"{each:.{digits}f}" for each in (figure.value, figure.low, figure.high)]
    return f"{of[0]} [{of[1]}, {of[2]}]"


def rows(reports: Sequence[Report], *, families: bool = False) -> list[list[str]]:
    """The table's rows, its head first. What is in no figure is told where there is any."""
    every: list[tuple[str, Scores, str]] = []
    for report in reports:
        every.append(("all", report.total, str(report.unscorable)))
        if families:
            every += ((name, scores, "") for name, scores in report.families.items())
    names = [name for name in COLUMNS if any(scores.get(name) for _, scores, _ in every)]
    left = any(report.unscorable for report in reports)
    head = ["policy", "set", *(["family"] if families else []), "n"]
    found = [[*head, *(["unscorable"] if left else []), *names]]
    for family, scores, unscorable in every:
        accuracy = scores.get("accuracy")
        row = [scores.policy, scores.set, *([family] if families else [])]
        row += [str(accuracy.n if accuracy else 0), *([unscorable] if left else [])]
        found.append([*row, *(shown(scores.get(name)) for name in names)])
    return found


def as_text(reports: Sequence[Report], *, families: bool = False) -> str:
    """The reports as a table of plain text; shares in percent, all with their 95 % intervals."""
    table = rows(reports, families=families)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in table)
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(reports: Sequence[Report], *, families: bool = False) -> str:
    """The reports as a table of Markdown."""
    head, *rest = rows(reports, families=families)
    ruled = [head, ["---"] * len(head), *rest]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)


def as_json(reports: Sequence[Report]) -> bytes:
    """The reports with every figure."""
    return msgspec.json.encode(list(reports))
