"""The policy itself: a pure function from what is seen to the next decision."""

from typing import Final, NamedTuple

from actors.policies.rules.answer import answer
from actors.policies.rules.parse import parse
from actors.policies.rules.plan import Plan
from actors.policies.rules.wording import sentence
from protocol.decisions import Decision, PlannedCall, PolicySpec, Reply, View
from protocol.limits import MAX_ROUND_CALLS

VERSION: Final = "rules-1"
"""Which rules decided. Changes whenever the same view may get another decision."""

MAX_CALL_TURNS: Final = 5
"""Turns that may make calls; the next one answers with what there is. The longest plan takes
four, a retry one."""

CANNOT_PARSE: Final = "I can't plan this question offline."
"""How the answer begins when a question is outside what the rules can read."""

FAMILIES: Final = (
    ("one look-up", "What is the population of France?"),
    ("several compared", "Which is larger by area, Chad or Niger?"),
    ("several added up", "What is the total population of Norway, Sweden and Denmark?"),
    ("a chain of look-ups", "What is the population of the capital of Japan?"),
    ("arithmetic on figures", "What is the population of France divided by that of Belgium?"),
    ("plain arithmetic", "What is 17 * (3 + 4)?"),
    ("a search", "Search the documents for the longest river"),
    ("code", "Run this Python: print(2 ** 10)"),
)
"""What the rules can read, each with an example."""


class RulesPolicy:
    """Plans questions by a grammar: deterministic, without state and without a model."""

    spec: PolicySpec = PolicySpec(name="rules", dialect="decision")

    def decide(self, view: View) -> Reply:
        """Calls for all that can be asked now, or the answer. Never raises, never guesses."""
        if (evaluated := _evaluated(view)) is None:
            return _reply(Decision(answer=_cannot_parse()))
        plan, told, whole = evaluated
        if plan.needs and not view.final and len(view.turns) < MAX_CALL_TURNS:
            calls = tuple(plan.needs.values())[:MAX_ROUND_CALLS]
            return _reply(Decision(calls=calls), _intent(calls))
        if whole:
            return _reply(Decision(answer=_with_notes("\n\n".join(told), plan)))
        return _reply(Decision(answer=_incomplete(view, plan, told)))


class Reading(NamedTuple):
    """What the rules make of a question, as far as it has come."""

    answer: str | None
    """None while something is awaited, or can't be had."""
    needs: tuple[PlannedCall, ...]
    """What would be asked now."""
    problems: tuple[str, ...]
    """What can't be had, in sentences."""


def reading(view: View) -> Reading | None:
    """What the rules make of a question; None if they can't read it."""
    if (evaluated := _evaluated(view)) is None:
        return None
    plan, told, whole = evaluated
    said = _with_notes("\n\n".join(told), plan) if whole and not plan.needs else None
    return Reading(said, tuple(plan.needs.values()), tuple(plan.problems))


def _evaluated(view: View) -> tuple[Plan, list[str], bool] | None:
    """The plan, its answers so far, and whether these are all; None for what can't be read."""
    parsed = parse(view.task.text)
    if parsed is None:
        return None
    queries = parsed if isinstance(parsed, tuple) else (parsed,)
    plan = Plan(view)
    told = [text for query in queries if (text := answer(plan, query)) is not None]
    return plan, told, len(told) == len(queries)


def _reply(decision: Decision, text: str = "") -> Reply:
    return Reply(text=text, decision=decision, version=VERSION)


def _intent(calls: tuple[PlannedCall, ...]) -> str:
    """The round in a line, for whoever watches."""
    workers = dict.fromkeys(call.worker for call in calls)
    counts = [f"{sum(call.worker == name for call in calls)} {name}" for name in workers]
    return f"Asking {', '.join(counts)}."


def _cannot_parse() -> str:
    examples = "\n".join(f"- {family}: {example}" for family, example in FAMILIES)
    return (
        f"{CANNOT_PARSE} What I can do, with an example each:\n{examples}\n"
        "For other questions use a model: --policy openai:MODEL."
    )


def _with_notes(text: str, plan: Plan) -> str:
    return f"{text}\n(Note: {' '.join(plan.notes)})" if plan.notes else text


def _incomplete(view: View, plan: Plan, told: list[str]) -> str:
    """What was found and what was not, when the question can't be answered in full."""
    parts = list(told)
    if plan.problems:
        parts.append(f"I can't answer this{' in full' if told or plan.found else ''}: ")
        parts[-1] += " ".join(plan.problems)
    if plan.needs:
        missing = f"{len(plan.needs)} look-up{'s' if len(plan.needs) > 1 else ''} still to make"
        parts.append(f"This is incomplete, because {_reason(view)}; there was at least {missing}.")
    elif not plan.problems:
        parts.append("I can't answer this: the results that came back don't fit together.")
    unsaid = [sentence(found) for found in plan.found.values()]
    unsaid = [text for text in unsaid if not any(text in part for part in parts)]
    if unsaid:
        parts.append(f"What was found: {' '.join(unsaid)}")
    return _with_notes("\n".join(parts), plan)


def _reason(view: View) -> str:
    if view.limited_by:
        return f"the run's budget is used up ({view.limited_by})"
    return "the answer was asked for now" if view.final else "too many rounds were needed"
