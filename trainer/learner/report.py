"""Curves of a training, from its files of metrics: one HTML or SVG file that needs nothing else.

Several trainings lie over one another, such as one with SFT first and one without. Panels are those
of the papers: the reward and its parts, turns, how diverse the workers are that are called, which
they are at the beginning and at the end; then what the learner itself was like. What no training
has is left out.
"""

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from protocol.errors import NotFound, Usage
from replay.disk import fault
from trainer.learner.loading import need
from trainer.learner.sinks import lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS: Final = "reward/"
"""What the names of a reward's parts begin with."""

WORKERS: Final = "workers"

POINTS: Final = 60
"""Of a smooth curve: each is the mean of the steps around it."""

EDGE: Final = 0.1
"""Share of the steps that count as the beginning, or as the end."""

COLUMNS: Final = 3
PANEL: Final = (4.2, 2.9)
"""Inches of one panel."""

TITLES: Final[dict[str, str]] = {
    "reward": "reward",
    "accuracy": "accuracy",
    "turns": "turns of a rollout",
    "critical_steps": "critical steps of a rollout",
    "cost_usd": "cost of a rollout, $",
    "diversity": "diversity: workers as evenly used",
    "parallel": "calls of a round",
    "valid": "valid decisions",
    "nll": "negative log-likelihood, nats a token",
    "entropy": "entropy, nats a token",
    "kl_behaviour": "divergence from the behaviour, nats",
    "ref_kl": "divergence from the reference, nats",
    "ratio": "mean ratio",
    "clip_frac": "share of ratios cut",
    "masked_frac": "share of tokens masked",
    "ess_frac": "effective sample size, share",
    "grad_norm": "norm of the gradient",
}
"""The panels, in their order, and what stands above each."""


class Series(NamedTuple):
    """One training."""

    name: str
    steps: list[dict[str, Any]]
    """Its metrics; ``at`` counts over its stages."""


def draw(files: Mapping[str, Sequence[Path]], out: Path, *, title: str = "") -> Path:
    """Draw trainings.

    Args:
        files: The files of metrics of each training, by its name, in the order of its stages.
        out: Ends with ``.html`` or ``.svg``. The same metrics give the same bytes.
        title: Stands above all.

    Raises:
        NotFound: One of the files has no metrics, or the extra is not installed.
        Usage: ``out`` ends otherwise, or is no file in a folder.
        Denied, DiskFault: It can't be written.
    """
    if out.suffix not in {".html", ".svg"}:
        raise Usage(f"{out} is neither .html nor .svg", hint="name one of these")
    if out.is_dir() or not out.parent.is_dir():
        raise Usage(f"{out} can't be written", hint="name a file, in a folder that is there")
    told = {name: [(path, lines(path)) for path in paths] for name, paths in files.items()}
    empty = [str(path) for stages in told.values() for path, found in stages if not found]
    if empty or not any(told.values()):
        raise NotFound(
            f"there are no metrics in {', '.join(empty) or 'no file'}",
            hint="name a file or folder of a training, or train first",
        )
    trainings = [_series(name, [found for _, found in stages]) for name, stages in told.items()]
    svg = _svg(trainings)
    text = svg if out.suffix == ".svg" else _page(svg, trainings, title or "Training")
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise fault(f"{out} can't be written", error) from None
    return out


def _series(name: str, told: Sequence[Sequence[Mapping[str, Any]]]) -> Series:
    """A training. A stage lies behind the one before, whether its steps count on or begin anew."""
    steps: list[dict[str, Any]] = []
    begin = 0
    for found in told:
        stage = None
        for line in found:
            if line.get("stage", "") != stage:
                stage = line.get("stage", "")
                if steps and line["step"] <= steps[-1]["step"]:
                    begin = steps[-1]["at"]
            steps.append({**line, "at": begin + line["step"]})
    return Series(name, steps)


def _shown(trainings: Sequence[Series]) -> dict[str, str]:
    """The panels with something in them, and their titles."""
    found = {
        name
        for each in trainings
        for line in each.steps
        for name, value in line.items()
        if isinstance(value, int | float)
    }
    parts = {name: f"reward: {name.removeprefix(PARTS)}" for name in sorted(found) if PARTS in name}
    shown = {"reward": TITLES["reward"], **parts, **TITLES}
    return {name: title for name, title in shown.items() if name in found}


def _svg(trainings: Sequence[Series]) -> str:
    need("matplotlib")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    panels = _shown(trainings)
    spread = [each for each in trainings if any(line.get(WORKERS) for line in each.steps)]
    count = len(panels) + len(spread)
    rows = -(-count // COLUMNS)
    # Text stays text, and no part of the file is by chance or by the clock.
    how: dict[Any, Any] = {"svg.hashsalt": "podium", "svg.fonttype": "none", "font.size": 8}
    with mpl.rc_context(how):
        figure = Figure(figsize=(PANEL[0] * COLUMNS, PANEL[1] * rows), layout="constrained")
        axes = [figure.add_subplot(rows, COLUMNS, place + 1) for place in range(count)]
        for axis, (name, title) in zip(axes, panels.items(), strict=False):
            _curves(axis, trainings, name, title)
        for axis, each in zip(axes[len(panels) :], spread, strict=True):
            _bars(axis, each)
        return _text(figure)


def _text(figure: "Figure") -> str:
    made = io.StringIO()
    figure.savefig(made, format="svg", metadata={"Date": None, "Creator": None})
    return made.getvalue()


def _curves(axis: "Axes", trainings: Sequence[Series], name: str, title: str) -> None:
    for number, each in enumerate(trainings):
        points = [
            (line["at"], float(line[name]))
            for line in each.steps
            if isinstance(line.get(name), int | float)
        ]
        if not points:
            continue
        colour = f"C{number}"
        axis.plot(*zip(*points, strict=True), color=colour, alpha=0.2, linewidth=0.7)
        axis.plot(*zip(*_smooth(points), strict=True), color=colour, label=each.name)
    axis.set_title(title)
    axis.set_xlabel("step")
    axis.grid(visible=True, alpha=0.3)
    if len(trainings) > 1:
        axis.legend(frameon=False)


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means of neighbours, at most `POINTS` of them."""
    size = max(1, -(-len(points) // POINTS))
    found = []
    for begin in range(0, len(points), size):
        some = points[begin : begin + size]
        found.append(
            (sum(at for at, _ in some) / len(some), sum(value for _, value in some) / len(some))
        )
    return found


def _bars(axis: "Axes", each: Series) -> None:
    """Which workers are called, at the beginning and at the end."""
    told = [line[WORKERS] for line in each.steps if line.get(WORKERS)]
    size = max(1, int(len(told) * EDGE))
    before, after = _mean(told[:size]), _mean(told[-size:])
    names = sorted(before.keys() | after.keys())
    places = range(len(names))
    for shift, what, shares in ((-0.2, "before", before), (0.2, "after", after)):
        heights = [shares.get(name, 0.0) for name in names]
        axis.bar([place + shift for place in places], heights, width=0.4, label=what)
    axis.set_xticks(list(places), names, rotation=30, ha="right")
    axis.set_title(f"workers that are called: {each.name}")
    axis.legend(frameon=False)


def _mean(shares: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = sorted({name for each in shares for name in each})
    return {name: sum(each.get(name, 0.0) for each in shares) / len(shares) for name in names}


def _page(svg: str, trainings: Sequence[Series], title: str) -> str:
    """The curves, and below them where each began and ended."""
    rows = []
    for each in trainings:
        for name, said in _shown([each]).items():
            values = [
                float(at) for line in each.steps if isinstance(at := line.get(name), int | float)
            ]
            size = max(1, int(len(values) * EDGE))
            first, last = (sum(some) / size for some in (values[:size], values[-size:]))
            cells = (each.name, said, f"{first:.4g}", f"{last:.4g}", str(len(values)))
            rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    heads = "".join(f"<th>{each}</th>" for each in ("training", "", "before", "after", "steps"))
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    drawn = svg[svg.index("<svg") :]
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>\n<style>body{{font-family:sans-serif;margin:2em}}"
        "svg{max-width:100%;height:auto}td,th{padding:.1em .8em;text-align:left}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{drawn}\n"
        f"<table><tr>{heads}</tr>\n{body}\n</table></body></html>\n"
    )
