"""A policy that follows a plan from a file: the workflow by hand, as a baseline for others.

The plan is part of what a run records of its policy, so the conductor needs no file, and a replay
decides by the plan that was followed.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Final

import msgspec

from actors.policies.plan import Missing, Plan, PlanCall, check, filled, stages
from protocol.actions import Json
from protocol.decisions import Decision, Observation, PlannedCall, PolicySpec, Reply, View
from protocol.errors import InvalidData
from protocol.references import as_text
from protocol.views import LIMIT_TEXTS, short

KIND: Final = "static"
"""What stands before the first colon of its name."""

PLAN: Final = "plan"
"""The option that holds the plan."""

FAILED_SHOWN: Final = 8
"""Calls that failed, named in an answer that couldn't be given; further ones are counted."""


def read(tree: Json) -> Plan:
    """A plan from what a file holds. Raises `InvalidData`."""
    try:
        plan = msgspec.convert(tree, Plan)
    except msgspec.ValidationError as error:
        raise InvalidData(
            f"it is no plan: {error}",
            hint="a plan has [[call]] tables with id, worker, arguments, after and sees, and an "
            "answer or answer_from",
        ) from None
    check(plan)
    return plan


def spec_of(plan: Plan, name: str) -> PolicySpec:
    """What a run records of the policy that follows a plan."""
    recorded = msgspec.json.decode(msgspec.json.encode(plan))
    return PolicySpec(name=f"{KIND}:{plan.name or name}", options={PLAN: recorded})


class StaticPolicy:
    """Follows a plan.

    Args:
        spec: As `spec_of` gives it.

    Raises:
        InvalidData: It holds no plan that can be followed.
    """

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec
        self.plan = read(spec.options.get(PLAN))
        self._stages = stages(self.plan)
        self._chains = self.plan.chains()
        known = msgspec.json.encode(self.plan, order="deterministic")
        self._version = f"static-2@{sha256(known).hexdigest()[:12]}"

    def decide(self, view: View) -> Reply:
        """The calls of the next round, or the answer."""
        ids = self.plan.by_id()
        settled = {
            item.call.ref: item
            for turn in view.turns
            for item in (*turn.observations, *turn.late)
            if item.call.ref in ids
        }
        try:
            decision = self._next(view, settled)
        except Missing as error:
            decision = Decision(answer=f"The plan can't be followed: {error}.")
        return Reply(decision=decision, version=self._version)

    def _next(self, view: View, settled: dict[str, Observation]) -> Decision:
        opened = (call for turn in view.turns for call in turn.open)
        going = {call.ref: call.id for call in opened if call.ref not in settled}
        made = {*settled, *going}
        seen = self._standing(settled)
        for stage in () if view.final else self._stages:
            waiting = [
                call
                for call in stage
                if call.id not in made
                and all(name in seen and seen[name].status == "OK" for name in call.needs)
                and self._wanted(call, made, settled)
            ]
            if waiting:
                return Decision(calls=tuple(self._planned(waiting, view, seen, going)))
        return Decision(answer=self._answer(view, settled))

    def _standing(self, settled: Mapping[str, Observation]) -> dict[str, Observation]:
        """What came of each call that others may name, or of the fallback that stands for it."""
        found: dict[str, Observation] = {}
        for name, chain in self._chains.items():
            there = [settled[each] for each in chain if each in settled]
            good = (item for item in there if item.status == "OK")
            if there:
                found[name] = next(good, there[-1])
        return found

    def _wanted(self, call: PlanCall, made: set[str], settled: Mapping[str, Observation]) -> bool:
        """Whether nothing that it stands for has succeeded or goes on: a fallback comes last."""
        for chain in self._chains.values():
            if call.id in chain:
                earlier = made.intersection(chain[: chain.index(call.id)])
                return all(name in settled and settled[name].status != "OK" for name in earlier)
        return False

    def _planned(
        self,
        waiting: list[PlanCall],
        view: View,
        seen: Mapping[str, Observation],
        going: Mapping[str, str],
    ) -> Iterator[PlannedCall]:
        places = {call.id: place for place, call in enumerate(waiting)}

        def here(names: Iterable[str]) -> tuple[int, ...]:
            return tuple(
                places[each] for name in names for each in self._chains[name] if each in places
            )

        def before(name: str) -> str:
            """The call of an earlier round that stands for one, or may yet; "" for none."""
            if here([name]):
                return ""
            if name in seen and seen[name].status == "OK":
                return seen[name].call.id
            on = next((going[each] for each in self._chains[name] if each in going), "")
            return on or (seen[name].call.id if name in seen else "")

        for call in waiting:
            yield PlannedCall(
                worker=call.worker,
                arguments=filled(call.arguments, view.task, seen),
                after=here(call.after),
                sees=here(call.sees),
                earlier=tuple(filter(None, map(before, call.sees))),
                ref=call.id,
            )

    def _answer(self, view: View, settled: Mapping[str, Observation]) -> str:
        seen = self._standing(settled)
        source = self.plan.answer_from
        wanted = f"{{{source}.output}}" if source else self.plan.answer
        try:
            answer = as_text(filled(wanted, view.task, seen))
        except Missing as error:
            return self._incomplete(view, settled, str(error))
        return answer if answer.strip() else "The plan's answer is empty."

    def _incomplete(self, view: View, settled: Mapping[str, Observation], why: str) -> str:
        head = f"The plan was not finished: {LIMIT_TEXTS.get(view.limited_by, why)}."
        good = {name for name, item in self._standing(settled).items() if item.status == "OK"}
        mended = {each for name in good for each in self._chains[name]}
        failed = [
            f"- {name} ({item.call.worker}) {item.status}: {short(item.value)}"
            for name, item in settled.items()
            if item.status != "OK" and name not in mended
        ]
        more = len(failed) - FAILED_SHOWN
        rest = [f"and {more} more calls failed"] if more > 1 else failed[FAILED_SHOWN:]
        return "\n".join([head, *failed[:FAILED_SHOWN], *rest])
