"""Following a plan, round by round: all that can be asked now, another worker where one failed.

A `Planner` is an instant policy. What it takes a question to mean, and its workers to be able to,
is its `reading`; the oracle's is the truth, a baseline's a guess.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from protocol.actions import Json, WorkerSpec
from protocol.decisions import Decision, Observation, PlannedCall, PolicySpec, Reply, Turn, View
from protocol.dialects import referable
from protocol.references import as_text, reference
from protocol.replies import linked
from trainer.gym.kinds import ToolError, arguments, meant, roles_of, value_of
from trainer.gym.plans import Need, Plan, filled

UNKNOWN: Final = "unknown"
"""The answer of a planner that has none."""

MAX_TRIES: Final = 8
"""Calls for one need before it is given up."""

DOUBTED_RANK: Final = 1
"""Failures that a worker which is said to fail is taken to have had already."""

DEAR_RANK: Final = 2
"""The same of one that can do all and costs ten times as much: it is asked last."""


class Reading(NamedTuple):
    """What a planner takes a question to be."""

    plan: Plan
    entities: tuple[str, ...]
    kinds: tuple[str, ...]
    """What it takes each worker of the pool to be; "" for nothing it knows."""
    doubted: tuple[bool, ...]
    """Which workers it expects to fail often."""


class Had(NamedTuple):
    """A need's output."""

    call: str
    value: Json


class Progress:
    """How far a plan has come, from what a view shows."""

    def __init__(self, view: View, reading: Reading, *, refer: bool = False) -> None:
        self.view, self.reading, self.refer = view, reading, refer
        self.known = referable(view)
        self.had: dict[int, Had] = {}
        """By the number of the need, from 1."""
        self.tries: Counter[int] = Counter()
        self.failed: Counter[tuple[int, str]] = Counter()
        """Failures by need and worker."""
        self._kinds = dict(
            zip((spec.name for spec in view.pool.workers), reading.kinds, strict=True)
        )
        seen = [(self._meaning(item), item) for turn in view.turns for item in _observed(turn)]
        for number, need in enumerate(reading.plan.needs if seen else (), 1):
            self._look(number, need, seen)

    def _meaning(self, item: Observation) -> tuple[str, str]:
        try:
            return meant(self._kinds.get(item.call.worker, ""), item.call.arguments)
        except (ToolError, KeyError):
            return "", ""

    def _look(
        self, number: int, need: Need, seen: Sequence[tuple[tuple[str, str], Observation]]
    ) -> None:
        if not self.ready(need):
            return
        wanted = {(need.role, self.text(need)), (need.role, self.text(need, refer=True))}
        for meaning, item in seen:
            if meaning not in wanted:
                continue
            self.tries[number] += 1
            if item.status == "OK" and number not in self.had:
                self.had[number] = Had(item.call.id, value_of(item.value))
            elif item.status != "OK":
                self.failed[number, item.call.worker] += 1

    def need(self, number: int) -> Need:
        """The need of a number."""
        return self.reading.plan.needs[number - 1]

    def ready(self, need: Need) -> bool:
        """Whether all is there that a need waits for."""
        return all(number in self.had for number in need.waits)

    def text(self, need: Need, *, refer: bool = False) -> str:
        """What is given for a need: with the values themselves, or with references to them."""

        def output(number: int) -> str:
            had = self.had[number]
            return reference(had.call, "output") if refer else as_text(had.value)

        return filled(need.text, self.reading.entities, output)

    @property
    def answer(self) -> str | None:
        """The answer; None while an output of it isn't there."""
        plan = self.reading.plan
        if not all(number in self.had for number in plan.finals):
            return None
        entities = self.reading.entities
        return filled(plan.answer, entities, lambda number: as_text(self.had[number].value))

    def referring(self, coming: Mapping[int, str] = {}) -> str:
        """The answer by reference; "" while an output of it neither is there nor comes.

        Args:
            coming: Ids of the calls that are about to be made, by the numbers of their needs.
        """
        plan = self.reading.plan
        calls = {number: had.call for number, had in self.had.items()} | dict(coming)
        if not all(number in calls for number in plan.finals):
            return ""
        entities = self.reading.entities
        return filled(plan.answer, entities, lambda number: reference(calls[number], "output"))

    @property
    def open(self) -> list[tuple[int, Need]]:
        """The needs that can be worked on now and are not given up, with their numbers."""
        every = enumerate(self.reading.plan.needs, 1)
        left = ((n, need) for n, need in every if n not in self.had and self.tries[n] < MAX_TRIES)
        return [(n, need) for n, need in left if self.ready(need)]

    def able(self, role: str) -> list[tuple[WorkerSpec, str, bool]]:
        """The workers that are taken to have a role, their kinds, and whether they are doubted."""
        rows = zip(self.view.pool.workers, self.reading.kinds, self.reading.doubted, strict=True)
        return [row for row in rows if role in roles_of(row[1])]

    def cheapest(self, number: int) -> tuple[WorkerSpec, str] | None:
        """Who had best do a need: the cheapest of those that have failed least at it.

        Who is doubted, or can do all, comes as late as if it had failed already. So a second worker
        goes before a second try, and a second try before one that costs ten times as much.
        """

        def rank(row: tuple[WorkerSpec, str, bool]) -> tuple[int, bool, int]:
            spec, kind, doubted = row
            failed = self.failed[number, spec.name] + DOUBTED_RANK * doubted
            return failed + DEAR_RANK * (kind == "anything"), doubted, spec.reserve.cost

        row = min(self.able(self.need(number).role), key=rank, default=None)
        return None if row is None else row[:2]

    def strongest(self, number: int) -> tuple[WorkerSpec, str] | None:
        """Who can do most of those that can do a need; of several the dearest."""

        def rank(row: tuple[WorkerSpec, str, bool]) -> tuple[int, int]:
            spec, kind, _ = row
            return len(roles_of(kind)), spec.reserve.cost

        row = max(self.able(self.need(number).role), key=rank, default=None)
        return None if row is None else row[:2]

    def call(self, need: Need, worker: WorkerSpec, kind: str) -> PlannedCall:
        """A worker's call for a need."""
        given = arguments(kind, need.role, self.text(need, refer=self.refer))
        return PlannedCall(worker=worker.name, arguments=given)


def _observed(turn: Turn) -> tuple[Observation, ...]:
    return (*turn.observations, *turn.late)


class Planner:
    """Follows its reading of a question. An `actors.ports.InstantPolicy`.

    Args:
        name: How it is known.
        refer: Whether its calls and its answer refer to outputs rather than copy their values.
        ahead: Whether it says with the last calls which of their outputs are the answer, so that
            it is asked again only where one fails. It refers to them, in any case.
        parallel: Calls of one round, at most.
    """

    version = "gym-1"

    def __init__(
        self, name: str, *, refer: bool = False, ahead: bool = False, parallel: int = 16
    ) -> None:
        self.spec = PolicySpec(name=name)
        self.refer, self.ahead, self.parallel = refer, ahead, parallel

    def reading(self, view: View) -> Reading | None:
        """What it takes the question to be; None if it can't read it."""
        raise NotImplementedError

    def choose(self, progress: Progress, number: int) -> tuple[WorkerSpec, str] | None:
        """Who does the need of a number, and as what kind; None if nobody can."""
        return progress.cheapest(number)

    def decide(self, view: View) -> Reply:
        """See `actors.ports.InstantPolicy`."""
        return Reply(decision=self.decision(view), version=self.version)

    def decision(self, view: View) -> Decision:
        """The calls that can be made now, or the answer."""
        reading = self.reading(view)
        if reading is None:
            return Decision(answer=UNKNOWN)
        return self.decided(Progress(view, reading, refer=self.refer))

    def decided(self, progress: Progress) -> Decision:
        """The calls that can be made, or the answer, where a plan has come so far."""
        if progress.answer is not None:
            if self.refer or self.ahead:
                return Decision(answers=progress.referring())
            return Decision(answer=progress.answer)
        made = {} if progress.view.final else self.calls(progress)
        if not made:
            return Decision(answer=self.fallback(progress))
        numbers = list(made)[: self.parallel]
        coming = {number: f"{progress.known.round}-{i}" for i, number in enumerate(numbers)}
        calls = tuple(made[number] for number in numbers)
        answers = progress.referring(coming) if self.ahead else ""
        return linked(Decision(calls=calls, answers=answers), progress.known)

    def calls(self, progress: Progress) -> dict[int, PlannedCall]:
        """The calls that can be made now, by the numbers of their needs."""
        found = {}
        for number, need in progress.open:
            chosen = self.choose(progress, number)
            if chosen is not None:
                found[number] = progress.call(need, *chosen)
        return found

    def fallback(self, progress: Progress) -> str:
        """The answer where the real one can't be had."""
        last = max(progress.had, default=0)
        return as_text(progress.had[last].value) if last else UNKNOWN
