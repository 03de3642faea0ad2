"""ATIF 1.8: a trajectory a line, as `replay.formats.atif` makes it of the run's log.

It has no field for a reward, a loss mask or a policy's version: reward and advantage stand in
``final_metrics.extra``, and each step's version is its model's name.
"""

from typing import BinaryIO, Final

from replay.formats.common import KEY
from trainer.datasets.formats.lines import Lines
from trainer.datasets.made import Made
from trainer.datasets.spec import Spec

SUFFIX: Final = ".jsonl"
KINDS: Final = ("sft", "rl", "preference")


class Atif(Lines):
    """See `formats.Writer`."""

    def add(self, made: Made) -> None:
        """See `formats.Writer.add`."""
        for kept in made.kept:
            found = kept.trajectory
            if found is None:
                made.notes.append("no log of the run")
                continue
            metrics = found["final_metrics"]
            about = {
                **metrics["extra"][KEY],
                "reward": kept.facts.reward,
                "advantage": kept.advantage,
                "group": made.key,
            }
            self.line({**found, "final_metrics": {**metrics, "extra": {KEY: about}}})


def begin(file: BinaryIO, _spec: Spec) -> Atif:
    """See `formats`."""
    return Atif(file)
