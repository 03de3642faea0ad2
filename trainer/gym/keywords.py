"""Reading questions and descriptions by hand-written keywords: what one writes without a model.

It knows the gym's families, and words that one would think of; not the wordings that the gym is
composed of. It is what a trained conductor has to beat.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from protocol.actions import WorkerSpec
from protocol.decisions import View
from trainer.gym.kinds import GENERAL
from trainer.gym.planners import Planner, Progress, Reading
from trainer.gym.plans import Need, Plan

RULES: Final = "gym-rules"
ROUTER: Final = "gym-router"

_FACTS: Final[Mapping[str, str]] = {
    "calling_code": r"(calling|phone|dial\w*|telephone|international)\s(code|prefix)",
    "internet_domain": r"(web|internet|top.level|domain)\s?(domain|ending|suffix)?",
    "iso_code": r"\biso\b|two.letter|alpha-2|country code|short code",
    "timezone": r"time\s?zone|clock",
    "currency": r"currency|money|legal tender",
    "continent": r"continent|part of the world|region",
    "area": r"\barea|surface|\bsize\b|extent|square k",
    "population": r"population|people|inhabitants|residents|head ?count|citizens|townspeople|"
    r"dwellers",
    "capital": r"capital|seat of government",
}
"""Words by which a fact is known, the most telling first."""

_TOWN: Final = re.compile(r"\b(city|town|urban|settlement|place|townspeople|dwellers)\b")
_LAND: Final = re.compile(r"\b(country|nation|state|land)\b")
_DOUBT: Final = re.compile(r"beta|may fail|experiment|unstable|not always|best effort|trial")

_AGGREGATES: Final[Sequence[tuple[str, str]]] = (
    (r"\b(total|combined|sum\w*|added|overall|together)\b", "sum"),
    (r"\b(average|mean)\b", "mean"),
    (r"\b(largest|highest|greatest|biggest|most)\b", "max"),
    (r"\b(smallest|lowest|least|fewest)\b", "min"),
)
_PLACES: Final[Mapping[str, str]] = {
    "one": "1",
    "two": "2",
    "three": "3",
    "1": "1",
    "2": "2",
    "3": "3",
}
_ROUNDED: Final = re.compile(
    r"(?:to|with) (one|two|three|1|2|3) (?:decimals?|places?|digits?)", re.IGNORECASE
)
_HAS_PLACE: Final = re.compile(r"\bcapital( city)? of|seat of government of")
_EACH: Final = re.compile(r"\beach\b|one by one|in this order")
_HOME: Final = re.compile(r"\b(country|nation)( of| around| that has)")


def kind_of(spec: WorkerSpec) -> str:
    """What kind of worker a description is taken to be of; "" for none that is known."""
    text = spec.description.casefold()
    if spec.name in ("country", "city", "calculator") and spec.adapter:
        return spec.name  # of the shipped pool
    fields = set(spec.parameters.get("properties", {}))
    if {"name", "fact"} <= fields:
        return "city" if _TOWN.search(text) else "country"
    if "job" in fields:
        return "anything"
    by_field = {"expression": "calculator", "words": "figure", "code": "program"}
    for field, kind in by_field.items():
        if field in fields:
            return kind
    place = "city" if _TOWN.search(text) and "main city" not in text else "country"
    known = {role.partition(".")[2] for role in GENERAL[place]}
    for fact, pattern in _FACTS.items():
        if fact in known and re.search(pattern, text):
            return f"{place}.{fact}"
    return "city.country" if place == "city" and _LAND.search(text) else ""


def plan_of(text: str, entities: Sequence[str]) -> Plan | None:
    """The plan that a question is taken to ask for; None if no rule reads it."""
    plain = text
    for number, entity in enumerate(entities, 1):
        plain = plain.replace(entity, f"<{number}>")
    plain = plain.casefold()
    numbers = [n for n, each in enumerate(entities, 1) if each.isdecimal()]
    things = [n for n in range(1, len(entities) + 1) if n not in numbers]
    if not things:
        return None
    first = entities[things[0] - 1]
    if "(" in first:
        return _calculated([Need("program", f"${n}") for n in things], plain, numbers)
    if " of " in first or " in " in first or first[0].islower():
        return _calculated([Need("figure", f"${n}") for n in things], plain, numbers)
    return _about_places(plain, things, numbers)


def _about_places(plain: str, things: list[int], numbers: list[int]) -> Plan | None:
    if re.search(r"density|crowded|square kilometre of|per (square|km)", plain):
        there = [Need("country.population", f"${things[0]}"), Need("country.area", f"${things[0]}")]
        return Plan((*there, Need("calculator", _rounded("#1 / #2", plain))))
    if "in its capital" in plain:
        there = [
            Need("country.population", f"${things[0]}"),
            Need("country.capital", f"${things[0]}"),
            Need("city.population", "#2"),
        ]
        return Plan((*there, Need("calculator", _rounded("100 * #3 / #1", plain))))
    needs: list[Need] = []
    rest, given, town = plain, "", bool(_TOWN.search(plain))
    if _HAS_PLACE.search(rest) and re.search(r"of the (country|nation)|<\d>", rest):
        return _through_capital(rest, things)
    if _HOME.search(rest):
        needs, given = [Need("city.country", f"${things[0]}")], "#1"
        rest, town = _HOME.sub("", rest), False
    fact = next((fact for fact, words in _FACTS.items() if re.search(words, rest)), "")
    if not fact and re.search(r"country|nation", rest):
        fact, town = "country", True
    if not fact:
        return None
    role = f"{'city' if town or fact == 'timezone' else 'country'}.{fact}"
    if needs:
        return Plan((*needs, Need(role, given)))
    return _calculated([Need(role, f"${n}") for n in things], plain, numbers)


def _through_capital(plain: str, things: list[int]) -> Plan | None:
    needs = [Need("country.capital", f"${things[0]}")]
    if _HOME.search(plain):
        needs = [Need("city.country", f"${things[0]}"), Need("country.capital", "#1")]
    rest = _HAS_PLACE.sub("", plain)
    for fact in ("timezone", "population"):
        if re.search(_FACTS[fact], rest):
            return Plan((*needs, Need(f"city.{fact}", f"#{len(needs)}")))
    return Plan(tuple(needs))


def _rounded(expression: str, plain: str) -> str:
    match = _ROUNDED.search(plain)
    return f"round({expression}, {_PLACES[match[1].casefold()]})" if match else expression


def _calculated(needs: list[Need], plain: str, numbers: list[int]) -> Plan:
    """The plan of some values and what is made of them."""
    every = [f"#{n}" for n in range(1, len(needs) + 1)]
    left, right = every[0], f"${numbers[0]}" if numbers else every[-1]
    expression = ""
    if len(needs) > 1 and _EACH.search(plain):
        return Plan(tuple(needs), ", ".join(every))
    if len(needs) > 1 or numbers:
        if re.search(r"percent", plain):
            expression = f"100 * {left} / {right}"
        elif re.search(r"divide|\bover\b|\bratio|split|equal parts|how many times", plain):
            expression = f"{left} / {right}"
        elif re.search(r"times|multipl", plain):
            expression = f"{left} * {right}"
        elif re.search(r"minus|than that|less|subtract|take the|difference", plain):
            expression = f"{left} - {right}"
        elif re.search(r"plus|\badd\b|more than", plain):
            expression = f"{left} + {right}"
        else:
            how = next((how for words, how in _AGGREGATES if re.search(words, plain)), "sum")
            expression = " + ".join(every) if how == "sum" else f"{how}({', '.join(every)})"
    if not expression:
        return Plan(tuple(needs))
    return Plan((*needs, Need("calculator", _rounded(expression, plain))))


class Rules(Planner):
    """Hand-written rules: keywords for questions and workers, another worker after a failure."""

    def __init__(self, name: str = RULES) -> None:
        super().__init__(name)

    def reading(self, view: View) -> Reading | None:
        """What the keywords say."""
        listed = view.task.inputs.get("entities", ())
        entities = tuple(str(each) for each in listed)
        plan = plan_of(view.task.text, entities)
        if plan is None:
            return None
        workers = view.pool.workers
        doubted = tuple(bool(_DOUBT.search(spec.description)) for spec in workers)
        return Reading(plan, entities, tuple(map(kind_of, workers)), doubted)


class Router(Rules):
    """A static router: reads as the rules do, sends each call once, and looks at no status."""

    def __init__(self) -> None:
        super().__init__(ROUTER)

    def choose(self, progress: Progress, number: int) -> tuple[WorkerSpec, str] | None:
        """The first worker that is taken to do it, and nobody after a failure."""
        able = progress.able(progress.need(number).role)
        failed = any(progress.failed[number, spec.name] for spec, _, _ in able)
        return None if failed or not able else able[0][:2]
