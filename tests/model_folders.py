"""Folders with versions of a model that nobody can load, and with scores that anybody can read."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from replay.model_versions import point, publish
from trainer.gym.scores import Figure, Scores
from trainer.intervals import share

N: Final = 400
"""Episodes of each set."""


def written(text: str = "w") -> Callable[[Path], None]:
    """Writes a version whose weights are a text."""

    def write(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(text)

    return write


def scores(right: float, tasks: str = "seen") -> Scores:
    """Those of a version that is right so often."""
    found = share(round(right * N), N)
    figure = Figure(name="accuracy", value=found.value, low=found.low, high=found.high, n=N)
    return Scores(policy="p", set=tasks, figures=(figure,))


def published(folder: Path, *known: Scores, **note: str) -> str:
    """One version more; its name."""
    said = {"scores": [msgspec.to_builtins(each) for each in known]} if known else {}
    return publish(folder, written(str(known)), note={**note, **said}, current=False).name


def model_in(folder: Path) -> Path:
    """A folder with four versions.

    The first is current, the second better, the third worse; of the fourth nothing is known.
    """
    folder.mkdir()
    written("base")(folder)
    for right in (0.8, 0.9, 0.6):
        published(folder, scores(right), data=f"set {right}")
    published(folder)
    point(folder, "000001", by="ada", why="the first one")
    return folder
