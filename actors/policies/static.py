"""A policy that follows a plan from a file: the workflow by hand, as a baseline for others.

The plan is part of what a run records of its policy, so the conductor needs no file, and a replay
decides by the plan that was followed.
"""

from hashlib import sha256
from typing import Final

import msgspec

from actors.policies.plan import Missing, Plan, check, filled, stages
from protocol.actions import Json
from protocol.decisions import Decision, Observation, PlannedCall, PolicySpec, Reply, View
from protocol.errors import InvalidData
from protocol.views import LIMIT_TEXTS, as_text, short

KIND: Final = "static"
"""What stands before the first colon of its name."""

PLAN: Final = "plan"
"""The option that holds the plan."""

FAILED_SHOWN: Final = 8
"""Calls that failed, named in an answer that couldn't be given."""


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
        known = msgspec.json.encode(self.plan, order="deterministic")
        self._version = f"static-1@{sha256(known).hexdigest()[:12]}"

    def decide(self, view: View) -> Reply:
        """The calls of the next round, or the answer."""
        ids = self.plan.by_id()
        seen = {
            item.call.ref: item
            for turn in view.turns
            for item in (*turn.observations, *turn.late)
            if item.call.ref in ids
        }
        try:
            decision = self._next(view, seen)
        except Missing as error:
            decision = Decision(answer=f"The plan can't be followed: {error}.")
        return Reply(decision=decision, version=self._version)

    def _next(self, view: View, seen: dict[str, Observation]) -> Decision:
        made = {*seen, *(call.ref for turn in view.turns for call in turn.open)}
        for stage in () if view.final else self._stages:
            waiting = [
                call
                for call in stage
                if call.id not in made
                and all(name in seen and seen[name].status == "OK" for name in call.needs)
            ]
            if waiting:
                places = {call.id: place for place, call in enumerate(waiting)}
                return Decision(
                    calls=tuple(
                        PlannedCall(
                            worker=call.worker,
                            arguments=filled(call.arguments, view.task, seen),
                            after=tuple(places[name] for name in call.after if name in places),
                            sees=tuple(places[name] for name in call.sees if name in places),
                            earlier=tuple(seen[name].call.id for name in call.sees if name in seen),
                            ref=call.id,
                        )
                        for call in waiting
                    )
                )
        return Decision(answer=self._answer(view, seen))

    def _answer(self, view: View, seen: dict[str, Observation]) -> str:
        source = self.plan.answer_from
        wanted = f"{{{source}.output}}" if source else self.plan.answer
        try:
            answer = as_text(filled(wanted, view.task, seen))
        except Missing as error:
            return self._incomplete(view, seen, str(error))
        return answer if answer.strip() else "The plan's answer is empty."

    def _incomplete(self, view: View, seen: dict[str, Observation], why: str) -> str:
        head = f"The plan was not finished: {LIMIT_TEXTS.get(view.limited_by, why)}."
        failed = [
            f"- {name} ({item.call.worker}) {item.status}: {short(item.value)}"
            for name, item in seen.items()
            if item.status != "OK"
        ]
        return "\n".join([head, *failed[:FAILED_SHOWN]])
