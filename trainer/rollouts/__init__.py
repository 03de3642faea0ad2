"""Where rollouts come from: a log that is there, live actors, or the fast lane in this process.

::

    source     `RolloutSource`, the port: groups are asked for, and given when they are closed
    logged     `LogSource`: the groups of a log, of a deployment, an archive, or imported files
    live       `LiveSource`: a standing deployment runs them; a killed trainer finds its own again
    fast       `FastSource`: the fast lane runs them
    lane       `FastLane`: the real rules, conductor and workers in this thread, on virtual time
    cell       one rollout of it, with a clock of its own
    models     models of it, sampled a token of all runs at a time
    processes  `FastLanes`: the same on all cores

All give `Ended` runs: the log, what it refers to, and the `trainer.records.Rollout` that they make.
Only hosting a model loads torch.
"""

from trainer.rollouts.fast import FastSource
from trainer.rollouts.lane import FastLane
from trainer.rollouts.live import LiveSource
from trainer.rollouts.logged import LogSource, Position
from trainer.rollouts.processes import FastLanes
from trainer.rollouts.source import (
    Ask,
    AskingSource,
    Ended,
    Group,
    Health,
    RolloutSource,
    run_of,
)

__all__ = [
    "Ask",
    "AskingSource",
    "Ended",
    "FastLane",
    "FastLanes",
    "FastSource",
    "Group",
    "Health",
    "LiveSource",
    "LogSource",
    "Position",
    "RolloutSource",
    "run_of",
]
