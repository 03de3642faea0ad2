"""The fast lane: rollouts a minute of one core, with a policy that takes no time and with a model.

An *instant* run is three rounds of seven calls, decided by a script: what rules, log, queues and
workers cost. In a *model* run the shipped conductor plays an episode of the gym, each run another
one, by what it draws at a temperature of 1, as in practice. The same prompts, with the same limits
and as many rows, are then sampled without any run around them: what the model alone costs, and so
what the lane adds.
"""

import asyncio
import pathlib
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from actors.models.loading import load
from actors.models.question import Sampling
from actors.models.sampler import Batch, Row
from actors.models.serving import Batching
from actors.policies.conductor.card import FOLDER
from actors.ports import Adapter, Attempt, Models, Outcome, Policy
from benchmarks import report
from protocol.actions import Pool, Spend, WorkerSpec
from protocol.commands import Start
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, Task, View
from protocol.model_versions import BASE
from protocol.sampled import unpack_ids
from replay.model_folder import find
from replay.tokens import sampled
from trainer.gym.episodes import draws
from trainer.gym.play import starts
from trainer.gym.practice import ROWS, student
from trainer.gym.workers import Host
from trainer.rollouts import Ask, Ended, FastLane

TARGET: Final = report.at_least(1_000)
"""Rollouts a minute, of either kind: thousands, on the two cores that it was promised for."""

ROUNDS: Final = (3, 2, 2)
"""Calls of each round of an instant run."""

WARM_UP: Final = 16
"""Runs before time is taken."""

INSTANT_PER_S: Final = 300
MODEL_PER_S: Final = 60
"""Runs for each second that was asked for, so that a measurement takes about as long."""

NUMBER: Final = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}

POOL: Final = Pool(
    tuple(
        WorkerSpec(
            name=f"worker-{place}",
            description="Doubles a whole number, for three micro-dollars.",
            parameters=NUMBER,
            reserve=Spend(cost=3),
        )
        for place in range(6)
    )
)


class Doubles:
    """A worker that takes a tenth of a second, of virtual time."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec

    async def run(self, attempt: Attempt) -> Outcome:
        """See `Adapter`."""
        await asyncio.sleep(0.1)
        return Outcome(value=2 * attempt.arguments["n"], spend=Spend(cost=3))

    async def close(self) -> None:
        """See `Adapter`."""


class Rounds:
    """Calls as `ROUNDS` says, then answers."""

    spec = PolicySpec(name="rounds")

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        turn = len(view.turns)
        if turn == len(ROUNDS):
            return Reply(decision=Decision(answer="done"), version="1")
        names = [f"worker-{(turn + place) % 6}" for place in range(ROUNDS[turn])]
        calls = tuple(PlannedCall(name, {"n": turn}) for name in names)
        return Reply(decision=Decision(calls), version="1")


def hosted(_start: Start, spec: WorkerSpec) -> Adapter:
    """See `trainer.rollouts.cell.Hosting`."""
    return Doubles(spec)


def rounds(_spec: PolicySpec, _models: Models) -> Policy:
    """See `trainer.rollouts.lane.Policies`."""
    return Rounds()


def scripted(count: int, job: str) -> Iterable[Start]:
    """That many instant runs."""
    task = Task(text="Double it.")
    ask = Ask(key="0", task=task, pool=POOL, policy=Rounds.spec, members=count)
    return ask.starts(job)


class Taken(NamedTuple):
    """What one measurement gave."""

    per_minute: float
    read: float
    """Tokens of prompts in a second, also those that were read before."""
    written: float
    """Tokens sampled in a second."""


def measured(lane: FastLane, starts: Iterable[Start]) -> tuple[Taken, list[Ended]]:
    """Some runs of a lane, timed on the real clock."""
    wanted = list(starts)
    begun = time.perf_counter()
    found = lane.run(wanted)
    took = time.perf_counter() - begun
    usage = [
        event.usage for each in found for event in each.log.events() if hasattr(event, "usage")
    ]
    read, written = (sum(each) for each in zip(*((u.input, u.output) for u in usage), strict=True))
    return Taken(60 * len(wanted) / took, read / took, written / took), found


def alone(found: Iterable[Ended], batching: Batching) -> Taken:
    """The same questions to the same model, each after the one before it, and nothing else."""
    loaded = load(find(FOLDER, BASE), batching)
    batch, count, read = Batch(loaded, batching), 0, 0
    after: dict[int, Row] = {}
    """What is asked next, by the row before it."""
    for ended in found:
        known: dict[int, list[int]] = {}
        before: Row | None = None
        for turn, each in sampled(ended.log.events()):
            assert each.arrays is not None
            prompt = [*known.get(each.after, []), *unpack_ids(each.arrays.prompt)]
            known[turn] = [*prompt, *unpack_ids(each.arrays.output)]
            sampling = Sampling(
                temperature=each.temperature, max_tokens=each.max_tokens, seed=each.seed
            )
            row = Row(prompt, sampling, each.max_tokens, float("inf"))
            if before is None:
                batch.waiting.append(row)
            else:
                after[id(before)] = row
            before, read = row, read + len(prompt)
        count += 1
    written = 0
    begun = time.perf_counter()
    while not batch.idle:
        for row in batch.step(0.0):
            written += len(row.output)
            if (coming := after.pop(id(row), None)) is not None:
                batch.waiting.append(coming)
    took = time.perf_counter() - begun
    return Taken(60 * count / took, read / took, written / took)


def benchmark(options: report.Options, data: pathlib.Path) -> report.Report:
    """Measure instant runs, model runs, and the model alone, in turns."""
    batching = Batching(rows=ROWS, threads=1)
    model = student(str(FOLDER))
    figures: dict[str, list[Taken]] = {"instant": [], "model": [], "alone": []}
    counts = {
        name: options.runs or max(1, round(per_s * options.seconds))
        for name, per_s in (("instant", INSTANT_PER_S), ("model", MODEL_PER_S))
    }
    each = counts["model"]
    episodes = list(draws(range(WARM_UP + options.repeats * each), "train"))
    first, rest = episodes[:WARM_UP], episodes[WARM_UP:]
    with (
        FastLane(hosted, rounds) as instant,
        FastLane(Host(episodes), batching=batching, at_once=ROWS) as lane,
    ):
        measured(instant, scripted(WARM_UP, "warm"))
        measured(lane, starts(first, model, "warm"))
        for repeat in range(options.repeats):
            job = str(repeat)
            figures["instant"].append(measured(instant, scripted(counts["instant"], job))[0])
            new = rest[repeat * each : (repeat + 1) * each]  # what was read is remembered
            taken, found = measured(lane, starts(new, model, job))
            figures["model"].append(taken)
            figures["alone"].append(alone(found, batching))
    return report.Report("rollouts", _conditions(options, data, counts), _lines(figures))


def _lines(figures: dict[str, list[Taken]]) -> list[report.Line]:
    lane, alone_ = figures["model"], figures["alone"]
    share = [one.written / other.written for one, other in zip(lane, alone_, strict=True)]
    return [
        report.Line("instant policy", _of(figures["instant"], 0), "rollouts/min", TARGET),
        report.Line("the shipped conductor in the gym", _of(lane, 0), "rollouts/min", TARGET),
        report.Line("the shipped conductor, sampled", _of(lane, 2), "tokens/s"),
        report.Line("the shipped conductor, asked", _of(lane, 1), "tokens/s"),
        report.Line("model alone, sampled", _of(alone_, 2), "tokens/s"),
        report.Line("of the model alone", share, "share"),
    ]


def _of(taken: Iterable[Taken], place: int) -> list[float]:
    return [each[place] for each in taken]


def _conditions(
    options: report.Options, data: pathlib.Path, counts: dict[str, int]
) -> dict[str, Any]:
    return {**report.conditions(options, data), "runs": counts, "rows": ROWS, "threads": 1}
