"""An imperfect teacher: the oracle with slips at given rates, from which it recovers, and habits.

A reply that is a slip says so in its version, ``gym-teacher-1!wrong-worker``, so that training can
keep it in the context and leave it out of the loss: what came of it and how it was mended is worth
learning, the slip is not. A habit is marked alike: it costs more than it has to, and is seldom
wrong.
"""

import random
from collections.abc import Callable, Iterable
from typing import Final, Literal, TypeAlias

import msgspec

from protocol.actions import Json
from protocol.decisions import Decision, PlannedCall, Reply, View
from protocol.references import as_text, filled, reference, referred
from protocol.replies import linked
from trainer.gym.episodes import Episode
from trainer.gym.kinds import arguments, roles_of
from trainer.gym.oracle import Oracle
from trainer.gym.planners import UNKNOWN, Progress
from trainer.gym.workers import by_chance

TEACHER: Final = "gym-teacher"
VERSION: Final = "gym-teacher-1"
MARK: Final = "!"
"""What stands between the version and the slip."""

Slip: TypeAlias = Literal[
    "wrong-worker", "malformed", "wrong-output", "superfluous", "early", "late", "dear", "serial"
]


class Rates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a decision is a slip or habit of each kind, from 0 to 1; slips together at most 1.

    That holds also where ``again`` stands in place of the first three.
    """

    wrong_worker: float = 0.06
    """A call, or each of its round, goes to a worker of another role."""
    malformed: float = 0.04
    """A call, or each of its round, lacks an argument."""
    wrong_output: float = 0.04
    """A call, or the answer, refers to another output than to one that it needs."""
    again: float = 0.6
    """What these three come to where the decision before was a mistake: who is lost stays so for a
    while."""
    superfluous: float = 0.04
    """A round has a call that nothing needs."""
    early: float = 0.02
    """An answer is given before it is known."""
    late: float = 0.04
    """A further call is made although the answer is known."""
    dear: float = 0.0
    """A round is given to the workers that can do most and cost most. This habit and the next are
    drawn apart from the slips, which may come on top."""
    serial: float = 0.0
    """Of the calls that could be made at once, the first one is."""


SLOPPY: Final = Rates(
    wrong_worker=0.15,
    malformed=0.1,
    wrong_output=0.08,
    superfluous=0.12,
    early=0.08,
    late=0.15,
    dear=0.6,
    serial=0.6,
)
"""A bad teacher's. Who imitates its slips does well where it says what is most likely, for each is
rare; who imitates its habits does not. They are those of large models that were only told what to
do: to prefer the strongest tool (ToolOrchestra) and to ask one at a time (PARL's serial collapse).
"""


def slip_of(version: str) -> str:
    """Which slip or habit a reply of that version shows, the last one of several.

    "" for none, and for the replies of any other policy.
    """
    return version.partition(MARK)[2] if version.startswith(VERSION) else ""


class Teacher(Oracle):
    """The oracle, with slips and habits.

    Args:
        episodes: Those that it knows.
        rates: How often it slips, and follows a habit.
        seed: Which decisions are slips follows from it, the run and the turn.
        refer: See `Planner`.
        ahead: See `Planner`.
    """

    def __init__(
        self,
        episodes: Iterable[Episode],
        rates: Rates | None = None,
        *,
        seed: int = 0,
        refer: bool = False,
        ahead: bool = False,
    ) -> None:
        super().__init__(episodes, refer=refer, ahead=ahead, name=TEACHER)
        self._rates, self._seed = rates or Rates(), seed

    def decide(self, view: View) -> Reply:
        """See `actors.ports.InstantPolicy`."""
        reading = self.reading(view)
        if reading is None:
            return Reply(decision=self.decision(view), version=VERSION)
        progress = Progress(view, reading, refer=self.refer)
        decision = self.decided(progress)
        if view.final:
            return Reply(decision=decision, version=VERSION)
        rng = random.Random(f"{self._seed}/{view.run}/{view.task.text}/{len(view.turns)}")
        mark = ""
        slip = self._slip(decision, progress, rng.random())
        for each in (*self._habits(rng), *((slip,) if slip else ())):
            changed = _SLIPS[each](decision, progress, rng)
            if changed is not None:
                decision, mark = changed, f"{MARK}{each}"
        return Reply(decision=decision, version=f"{VERSION}{mark}")

    def _habits(self, rng: random.Random) -> list[Slip]:
        habits: tuple[tuple[Slip, float], ...] = (
            ("dear", self._rates.dear),
            ("serial", self._rates.serial),
        )
        return [habit for habit, rate in habits if rate and rng.random() < rate]

    def _slip(self, decision: Decision, progress: Progress, drawn: float) -> Slip | None:
        rates = self._rates
        lost: list[tuple[Slip, float]] = [("wrong-output", rates.wrong_output)]
        rest: list[tuple[Slip, float]] = [("late", rates.late)]
        if decision.calls:
            lost += [("wrong-worker", rates.wrong_worker), ("malformed", rates.malformed)]
            rest = [("superfluous", rates.superfluous), ("early", rates.early)]
        elif progress.answer is None:
            return None
        if _erred(progress.view) and (total := sum(rate for _, rate in lost)):
            lost = [(slip, rate * max(1.0, rates.again / total)) for slip, rate in lost]
        for slip, rate in (*lost, *rest):
            if drawn < rate:
                return slip
            drawn -= rate
        return None


def _erred(view: View) -> bool:
    """Whether the decision before was one that could not be followed, or not by who was asked."""
    if not view.turns:
        return False
    turn = view.turns[-1]
    return turn.rejection is not None or any(
        each.status != "OK" and not by_chance(each.status, each.value) for each in turn.observations
    )


def _other(
    progress: Progress, rng: random.Random, avoided: str = ""
) -> Callable[[str], PlannedCall] | None:
    """What asks a worker that has not the avoided role for a text; None if there is none."""
    every = zip(progress.view.pool.workers, progress.reading.kinds, strict=True)
    others = [
        (spec, kind) for spec, kind in every if roles_of(kind) and avoided not in roles_of(kind)
    ]
    if not others:
        return None
    spec, kind = rng.choice(others)
    role = rng.choice(roles_of(kind))
    return lambda text: PlannedCall(spec.name, arguments(kind, role, text))


def _aside(progress: Progress, rng: random.Random) -> PlannedCall | None:
    """A well-formed call that no need asks for."""
    asking = _other(progress, rng)
    return None if asking is None else asking(rng.choice(progress.reading.entities))


def _struck(decision: Decision, rng: random.Random) -> range:
    """Which calls of a round slip: one, or all of them. Who mistakes one may mistake each alike."""
    if rng.random() < 0.5:
        return range(len(decision.calls))
    index = rng.randrange(len(decision.calls))
    return range(index, index + 1)


def _wrong_worker(decision: Decision, progress: Progress, rng: random.Random) -> Decision | None:
    struck = _struck(decision, rng)
    needs = [need for _, need in progress.open]
    asking = _other(progress, rng, needs[struck.start].role)
    if asking is None:
        return None
    calls = list(decision.calls)
    for index in struck:
        calls[index] = asking(progress.text(needs[index], refer=progress.refer))
    return linked(Decision(calls=tuple(calls)), progress.known)


def _malformed(decision: Decision, progress: Progress, rng: random.Random) -> Decision:
    calls = list(decision.calls)
    extra = {"query": "?"} if rng.random() < 0.5 else {}
    for index in _struck(decision, rng):
        given = dict(calls[index].arguments)
        given.pop(rng.choice(list(given)))
        calls[index] = PlannedCall(calls[index].worker, given | extra)
    return linked(Decision(calls=tuple(calls)), progress.known)


def _wrong_output(decision: Decision, progress: Progress, rng: random.Random) -> Decision | None:
    """A reference leads elsewhere: of an answer only to where no output is, for it would end."""
    values: list[Json] = [each.arguments for each in decision.calls] or [decision.answers]
    meant = [name for name in referred(values, "output") if name in progress.known.calls]
    good = {had.call for had in progress.had.values()}
    others = [each for each in progress.known.calls if decision.calls or each not in good]
    if not meant or not (found := [each for each in others if each not in meant]):
        return None
    struck, other = rng.choice(meant), rng.choice(found)

    def put(name: str) -> str:
        return reference(other if name == struck else name, "output")

    if not decision.calls:
        return Decision(answers=filled(decision.answers, output=put))
    calls = (
        PlannedCall(each.worker, filled(each.arguments, output=put)) for each in decision.calls
    )
    return linked(Decision(calls=tuple(calls)), progress.known)


def _superfluous(decision: Decision, progress: Progress, rng: random.Random) -> Decision | None:
    other = _aside(progress, rng)
    return None if other is None else Decision(calls=(*decision.calls, other))


def _early(_: Decision, progress: Progress, rng: random.Random) -> Decision:
    known = [as_text(had.value) for had in progress.had.values()]
    return Decision(answer=rng.choice([*known, *progress.reading.entities, UNKNOWN]))


def _late(_: Decision, progress: Progress, rng: random.Random) -> Decision | None:
    other = _aside(progress, rng)
    return None if other is None else Decision(calls=(other,))


def _dear(decision: Decision, progress: Progress, _: random.Random) -> Decision | None:
    chosen = [(need, progress.strongest(number)) for number, need in progress.open]
    calls = tuple(progress.call(need, *found) for need, found in chosen if found)
    if not decision.calls or [each.worker for each in calls] == [
        each.worker for each in decision.calls
    ]:
        return None
    return linked(Decision(calls=calls), progress.known)


def _serial(decision: Decision, _: Progress, __: random.Random) -> Decision | None:
    if len(decision.calls) < 2:
        return None
    return Decision(calls=decision.calls[:1])


_SLIPS: Final = {
    "wrong-worker": _wrong_worker,
    "malformed": _malformed,
    "wrong-output": _wrong_output,
    "superfluous": _superfluous,
    "early": _early,
    "late": _late,
    "dear": _dear,
    "serial": _serial,
}
