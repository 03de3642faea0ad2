"""Kinds of workers: what each can do, and what it gives, by the tools of `actors.tools`.

A *role* is one thing to be done, such as ``country.population``; it takes one text. A *kind* is a
worker: one of a role of its own, or a general one that takes a role's name beside the text:
``country`` and ``city`` as the shipped pool has them, and ``anything``, which does all.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from actors.tools import calculator, figures, gazetteer, offline, snippets
from actors.workers.function import spec_of
from protocol.actions import Json, WorkerSpec

COUNTRY_FACTS: Final = (
    "population",
    "area",
    "capital",
    "continent",
    "currency",
    "calling_code",
    "internet_domain",
    "iso_code",
)
CITY_FACTS: Final = ("population", "country", "timezone")

ROLES: Final = (
    *(f"country.{fact}" for fact in COUNTRY_FACTS),
    *(f"city.{fact}" for fact in CITY_FACTS),
    "calculator",
    "figure",
    "program",
)

PARAMETER: Final[Mapping[str, str]] = {
    "country": "name",
    "city": "name",
    "calculator": "expression",
    "figure": "words",
    "program": "code",
}
"""What the one text of a role is called, by what its name begins with."""

JOBS: Final[Mapping[str, str]] = {role: role.replace(".", "_") for role in ROLES}
"""What ``anything`` knows each role as."""

GENERAL: Final[Mapping[str, tuple[str, ...]]] = {
    "country": tuple(role for role in ROLES if role.startswith("country.")),
    "city": tuple(role for role in ROLES if role.startswith("city.")),
    "anything": ROLES,
}
"""Kinds of several roles."""

CACHED: Final = 65_536
"""Results that are kept: each is a pure function of public data, asked for again and again."""


class ToolError(ValueError):
    """A tool could not do what it was asked; the text says why."""


def roles_of(kind: str) -> tuple[str, ...]:
    """The roles that a kind of worker has; none for one that has nothing to do in the gym."""
    return GENERAL.get(kind, (kind,) if kind in ROLES else ())


def domain(role: str) -> str:
    """What stands before the dot: what the role's text names."""
    return role.partition(".")[0]


def arguments(kind: str, role: str, text: str) -> dict[str, Json]:
    """What a worker of a kind is called with, to do a role's work on a text."""
    if kind == "anything":
        return {"job": JOBS[role], "text": text}
    if kind in GENERAL:
        return {"name": text, "fact": role.partition(".")[2]}
    return {PARAMETER[domain(role)]: text}


def parameters(kind: str) -> dict[str, Json]:
    """JSON Schema of what a worker of a kind takes."""
    if kind == "anything":
        fields = {"job": _one_of(JOBS.values()), "text": _TEXT}
    elif kind in GENERAL:
        facts = (role.partition(".")[2] for role in GENERAL[kind])
        fields = {"name": _TEXT, "fact": _one_of(facts)}
    else:
        fields = {PARAMETER[domain(kind)]: _TEXT}
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


_TEXT: Final[dict[str, Json]] = {"type": "string"}


def _one_of(words: Iterable[str]) -> dict[str, Json]:
    """One of some words. A pattern, since prompts list what an enumeration has, at length."""
    return {"type": "string", "pattern": f"^({'|'.join(words)})$"}


def meant(kind: str, given: Mapping[str, Json]) -> tuple[str, str]:
    """The role and the text that a call's arguments mean; the inverse of `arguments`.

    Raises:
        ToolError: They mean none of the kind's roles.
    """
    if kind == "anything":
        role = next((role for role, job in JOBS.items() if job == given.get("job")), "")
        text = given.get("text")
    elif kind in GENERAL:
        role, text = f"{kind}.{given.get('fact')}", given.get("name")
    else:
        role, text = kind, given.get(PARAMETER[domain(kind)])
    if role not in roles_of(kind) or not isinstance(text, str):
        raise ToolError(f"This takes {', '.join(parameters(kind)['properties'])}.")
    return role, text


def given(kind: str, arguments: Mapping[str, Json]) -> Json:
    """What a worker of a kind gives for a call. Raises `ToolError`.

    One of a single role gives the bare value, a general one an object around it, as the tools of
    the shipped pool do.
    """
    role, text = meant(kind, arguments)
    value = result(role, text)
    if kind in GENERAL:
        return {"about": text, "fact": role.rpartition(".")[2], "value": value}
    return value


def value_of(output: Json) -> Json:
    """The value in what any worker gave."""
    return output["value"] if isinstance(output, dict) and "value" in output else output


@functools.lru_cache(maxsize=CACHED)
def result(role: str, text: str) -> Json:
    """What a role's work gives for a text: a text or a number. Raises `ToolError`."""
    try:
        return _worked(role, text)
    except ValueError as error:
        raise ToolError(str(error)) from None


def _worked(role: str, text: str) -> Json:
    where, _, fact = role.partition(".")
    match where:
        case "country":
            return offline.country(text, fact)["value"]  # type: ignore[arg-type]
        case "city":
            return offline.city(text, fact)["value"]  # type: ignore[arg-type]
        case "calculator":
            return offline.calculator(text)["value"]
        case "figure":
            return figures.figure(offline.DOCUMENTS, text).value
        case _:
            return _printed(snippets.run(text))


def _printed(lines: list[str]) -> Json:
    if not lines:
        raise ToolError("The program printed nothing.")
    try:
        return calculator.calculate(lines[-1])
    except calculator.CalculatorError:
        return lines[-1]


SHIPPED: Final = ("country", "city", "calculator", "search")
"""The workers of the shipped pool that are functions."""

SHIPPED_CONCURRENCY: Final = 16
"""As its file has it, which else says nothing that the functions don't."""


@functools.cache
def shipped() -> tuple[WorkerSpec, ...]:
    """The functions of the shipped pool, as it defines them."""
    return tuple(
        msgspec.structs.replace(spec_of(getattr(offline, name)), concurrency=SHIPPED_CONCURRENCY)
        for name in SHIPPED
    )


def is_known(country: gazetteer.Country) -> bool:
    """Whether all is known of a country that the gym asks, and its capital is found by its name."""
    capital = gazetteer.capital_city(country.iso)
    if not capital or not all((country.population, country.area_km2, country.currency)):
        return False
    try:
        by_name = gazetteer.find_country(country.name).iso == country.iso
        named = gazetteer.find_city(country.capital).city == capital
    except gazetteer.Unknown:
        return False
    return by_name and named and all((country.calling_code, country.domain, capital.population))
