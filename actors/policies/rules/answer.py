"""Query and plan to an answer in full sentences, with the figures that it rests on."""

import json
from collections.abc import Callable
from typing import Final, TypeAlias

from actors.policies.rules import wording
from actors.policies.rules.names import fold
from actors.policies.rules.plan import Found, Place, Plan, the
from actors.policies.rules.tree import (
    Calculate,
    CapitalOf,
    Choose,
    CountryOf,
    CountryWithCapital,
    Entity,
    Fact,
    Holds,
    Named,
    Number,
    Operation,
    Pick,
    Quantity,
    Query,
    Rank,
    RunPython,
    Search,
    Tell,
)
from protocol.actions import Json

MAX_PASSAGES: Final = 3
"""Passages quoted in an answer."""

MAX_PASSAGE_CHARS: Final = 700
"""Characters of one quoted passage."""

MAX_OUTPUT_CHARS: Final = 4_000
"""Characters of a program's output in an answer: two screens."""

Answer: TypeAlias = str | None
"""None while something is awaited, or can't be had; the plan says which."""

_WORDS: Final = {"+": "+", "-": "−", "*": "×", "/": "÷", "%": "modulo", "**": "to the power of"}


def answer(plan: Plan, query: Query) -> Answer:
    """The answer, if all that it needs has been observed; else the plan says what is missing."""
    match query:
        case Tell(items=items):
            # Every item is looked at before any is missed, so that all calls go out together.
            told = [_tell(plan, item) for item in items]
            known = [sentence for sentence in told if sentence is not None]
            return " ".join(dict.fromkeys(known)) if len(known) == len(told) else None
        case Choose(facts=facts, largest=largest):
            return _choose(plan.facts(facts), largest)
        case Rank(facts=facts, descending=descending):
            return _rank(plan.facts(facts), descending)
        case Holds():
            return _holds(plan, query)
        case Calculate(expression=expression):
            result = plan.calculate(expression)
            return None if result is None else f"{expression} = {wording.exact(result)}."
        case Search(query=words):
            return _search(plan.ask("search", query=words), words)
        case RunPython(code=code):
            result = plan.ask("python", code=code)
            return None if result is None and (plan.needs or plan.problems) else _output(result)


def _tell(plan: Plan, item: Entity | Fact | Operation) -> Answer:
    match item:
        case Fact():
            found = plan.fact(item)
            if found is None:
                return None
            return (
                _density(plan, item, found)
                if item.property == "density"
                else wording.sentence(found)
            )
        case Operation():
            return _operation(plan, item)
        case CapitalOf(country=country):
            found = plan.fact(Fact(country, "capital"))
            return None if found is None else wording.sentence(found)
        case CountryOf(city=city):
            found = plan.fact(Fact(city, "country"))
            return None if found is None else wording.sentence(found)
        case CountryWithCapital():
            where = plan.place(item)
            if where is None:
                return None
            capital = where.aside.removeprefix("whose capital is ")
            return f"{capital} is the capital of {the(where)}."
        case Pick():
            return _choose(plan.facts(item.facts), item.largest)
        case Named():
            return _place(plan.place(item))


def _place(where: Place | None) -> Answer:
    return None if where is None else f"{wording.capitalised(wording.place(where))}."


def _density(plan: Plan, fact: Fact, found: Found) -> str:
    people = plan.fact(Fact(fact.entity, "population"))
    area = plan.fact(Fact(fact.entity, "area"))
    said = wording.sentence(found)
    if people is None or area is None:
        return said
    return f"{said.removesuffix('.')}: {wording.value(people)} on {wording.value(area)}."


def _choose(found: list[Found] | None, largest: bool) -> Answer:
    if found is None:
        return None
    superlative = wording.superlative(found[0].property, largest, count=len(found))
    numbers = [one.number or 0 for one in found]
    best = max(numbers) if largest else min(numbers)
    winners = [one for one in found if one.number == best]
    others = [one for one in found if one.number != best]
    if len(winners) > 1:
        names = wording.listed([wording.place(one.place) for one in winners])
        said = f"{names} are level: {wording.value(winners[0])} each"
    else:
        said = f"{wording.place(winners[0].place)} has {superlative}: {wording.bare(winners[0])}"
    rest = f"; {wording.listed([_has(one) for one in others])}" if others else ""
    return wording.capitalised(f"{said}{rest}.")


def _has(found: Found) -> str:
    return f"{wording.place(found.place)} has {wording.number(found.value)}"


def _rank(found: list[Found] | None, descending: bool) -> Answer:
    if found is None:
        return None
    ordered = sorted(found, key=lambda one: one.number or 0, reverse=descending)
    lines = [
        f"{i}. {wording.place(one.place)}: {wording.value(one)}" for i, one in enumerate(ordered, 1)
    ]
    way = "largest first" if descending else "smallest first"
    name = wording.property_name(ordered[0].property)
    return f"By {name}, {way}:\n" + "\n".join(lines)


def _holds(plan: Plan, query: Holds) -> Answer:
    if query.relation == "=":
        return _equal(plan, query)
    assert isinstance(query.right, Fact)
    found = plan.facts((query.left, query.right))
    if found is None:
        return None
    left, right = found
    more, fewer = wording.COMPARATIVES[left.property]
    first, second = left.number or 0, right.number or 0
    holds = first > second if query.relation == ">" else first < second
    if first == second:
        both = f"{wording.place(left.place)} and {wording.place(right.place)}"
        name = wording.property_name(left.property)
        return f"No: {both} have the same {name}, {wording.value(left)}."
    relation = more if first > second else fewer
    return (
        f"{'Yes' if holds else 'No'}: {wording.place(left.place)} has {relation} "
        f"({wording.number(left.value)}) than {wording.place(right.place)} "
        f"({wording.number(right.value)})."
    )


def _equal(plan: Plan, query: Holds) -> Answer:
    left = plan.fact(query.left)
    if isinstance(query.right, str):
        if left is None:
            return None
        same = fold(str(left.value)) == fold(query.right)
        return f"{'Yes' if same else 'No'}: {_lowered(wording.sentence(left))}"
    right = plan.fact(query.right)
    if left is None or right is None:
        return None
    same = (left.value, left.code) == (right.value, right.code)
    both = f"{_lowered(wording.sentence(left))} {wording.sentence(right)}"
    return f"{'Yes' if same else 'No'}: {both}"


def _lowered(sentence: str) -> str:
    return f"the{sentence[3:]}" if sentence.startswith("The ") else sentence


def _operation(plan: Plan, operation: Operation) -> Answer:
    expression = plan.expression(operation)
    if expression is None:
        return None
    result = plan.calculate(expression)
    if result is None:
        return None
    facts = [plan.fact(one) for one in operation.operands if isinstance(one, Fact)]
    found = [one for one in facts if one is not None]
    plain = len(found) == len(operation.operands) and len({one.property for one in found}) == 1
    about = "about " if wording.is_rounded(result) else ""
    if plain and operation.operator in _SENTENCES:
        shown = f"{about}{wording.number(result)}"
        return wording.capitalised(_SENTENCES[operation.operator](found, shown, result))
    figures = _described(plan, operation, top=True)
    if not _has_facts(operation):
        return f"{wording.capitalised(figures)} = {wording.exact(result)}."
    unit = f" {_unit(found)}" if plain and operation.operator not in {"/", "percent"} else ""
    ending = f"{wording.number(result)}{unit}."
    return f"{wording.capitalised(figures)} is {about}{ending}"


def _unit(found: list[Found]) -> str:
    return wording.UNITS.get(found[0].property, "")


def _amount(found: list[Found], shown: str) -> str:
    return f"{shown} {_unit(found)}"


def _of_all(words: str) -> "_Sentence":
    """How a sum over all figures is said, in words for its name and for them."""

    def said(found: list[Found], shown: str, _: Json) -> str:
        figures = wording.listed([wording.figure(one) for one in found])
        name = wording.property_name(found[0].property)
        return f"{words.format(name=name, figures=figures)} is {_amount(found, shown)}."

    return said


def _minus(found: list[Found], shown: str, result: Json) -> str:
    left, right = found
    below = isinstance(result, int | float) and result < 0
    amount = shown.replace("-", "", 1)
    if left.property == "area":
        more = f"is {amount} km² {'smaller' if below else 'larger'} than"
    else:
        more = f"has {amount} {'fewer' if below else 'more'} {_unit(found)} than"
    return f"{wording.figure(left)} {more} {wording.figure(right)}."


def _ratio(found: list[Found], shown: str, _: Json) -> str:
    left, right = found
    name = wording.property_name(left.property)
    return f"the {name} of {wording.figure(left)} is {shown} times that of {wording.figure(right)}."


def _percent(found: list[Found], shown: str, _: Json) -> str:
    left, right = found
    name = wording.property_name(left.property)
    return f"the {name} of {wording.figure(left)} is {shown} % of that of {wording.figure(right)}."


_Sentence: TypeAlias = Callable[[list[Found], str, Json], str]

_SENTENCES: Final[dict[str, _Sentence]] = {
    "sum": _of_all("the total {name} of {figures}"),
    "average": _of_all("the average {name} of {figures}"),
    "difference": _of_all("the difference in {name} between {figures}"),
    "-": _minus,
    "/": _ratio,
    "percent": _percent,
}
"""How the usual sums over one property are said; any other is written out."""


def _has_facts(quantity: Quantity) -> bool:
    if isinstance(quantity, Operation):
        return any(_has_facts(operand) for operand in quantity.operands)
    return isinstance(quantity, Fact)


def _described(plan: Plan, quantity: Quantity, top: bool = False) -> str:
    """A quantity written out, with the figures in it."""
    match quantity:
        case Number(text=text):
            return text
        case Fact():
            found = plan.fact(quantity)
            return "?" if found is None else wording.described(found)
        case Operation(operator=operator, operands=operands):
            parts = [_described(plan, operand) for operand in operands]
            if operator in _WORDS:
                said = f" {_WORDS[operator]} ".join(parts)
                return said if top else f"({said})"
            if operator == "percent":
                return f"{parts[0]} as a percentage of {parts[1]}"
            names = {"sqrt": "square root", "min": "minimum", "max": "maximum"}
            of = "between" if operator == "difference" else "of"
            return f"the {names.get(operator, operator)} {of} {wording.listed(parts)}"


def _search(result: Json, words: str) -> Answer:
    if result is None:
        return None
    passages = result.get("passages") if isinstance(result, dict) else None
    if not isinstance(passages, list):
        return f"The search gave a result that can't be read: {wording.text(result)}"
    if not passages:
        count = result.get("documents")
        among = f"the {count} documents" if isinstance(count, int) else "the documents"
        return f'Nothing in {among} mentions "{words}".'
    lines = [f"{i}. {_passage(passage)}" for i, passage in enumerate(passages[:MAX_PASSAGES], 1)]
    return f'The documents say of "{words}", best match first:\n' + "\n".join(lines)


def _passage(passage: Json) -> str:
    if not isinstance(passage, dict):
        return wording.text(passage)
    body = " ".join(str(passage.get("text", "")).split())
    body = body if len(body) <= MAX_PASSAGE_CHARS else f"{body[:MAX_PASSAGE_CHARS]}…"
    return f"{body} ({passage.get('document', 'unnamed document')})"


def _output(result: Json) -> str:
    """What the code gave, whatever shape its worker reports."""
    if isinstance(result, dict):
        shown = {key: value for key, value in result.items() if value not in (None, "", [], False)}
        if list(shown) == ["result"]:
            return _output(shown["result"])
        streams = [str(shown.pop("stdout")).rstrip("\n")] if "stdout" in shown else []
        for key, value in shown.items():
            said = value if isinstance(value, str) else json.dumps(value, default=str)
            streams.append(f"{key}: {said}")
        text = "\n".join(streams)
    else:
        text = result if isinstance(result, str) else json.dumps(result, default=str)
    text = text.rstrip()
    if not text:
        return "The code ran and printed nothing."
    cut = f"{text[:MAX_OUTPUT_CHARS]}…" if len(text) > MAX_OUTPUT_CHARS else text
    return f"The code gave:\n{cut}" if "\n" in cut else f"The code gave: {cut}"
