"""Countries, cities, a calculator and a search as workers, all offline.

They are offered by `podium.pools.offline`, and carry its name. Each is a plain function: its
parameters make the worker's schema, its docstring the description that a policy reads. Results are
small JSON objects that name their source; a `ValueError` is a failed call, and its text says how to
mend it. `search_folder` is for a search over a folder of your own.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from actors.tools import calculator as arithmetic
from actors.tools import gazetteer, library
from actors.workers.function import tool

PUBLIC: Final = "podium.pools.offline"
"""The module that offers them, which recorded runs name."""

SOURCE: Final = "GeoNames"

DOCUMENTS: Final = Path(__file__).with_name("documents")
"""The shipped documents."""

DOCUMENTS_VARIABLE: Final = "PODIUM_DOCUMENTS"
"""The environment variable that names another folder for `search`."""

MAX_JSON_INTEGER: Final = 2**63 - 1
"""The largest integer that every JSON reader of ours takes; a larger one is given as a text of
its digits."""

MAX_PASSAGES: Final = 10
"""Passages of one search. Ten paragraphs are about 2,500 tokens of a prompt."""

MAX_OTHERS: Final = 5
"""Other places of the same name that are listed."""

CountryFact = Literal[
    "population",
    "area",
    "capital",
    "continent",
    "currency",
    "neighbours",
    "calling_code",
    "internet_domain",
    "iso_code",
]

CityFact = Literal["population", "country", "timezone", "coordinates", "capital_of"]

Limit = Annotated[int, msgspec.Meta(ge=1, le=MAX_PASSAGES)]


@tool(timeout_s=20, module=PUBLIC)
def country(name: str, fact: CountryFact) -> dict[str, Any]:
    """One fact of a country: population, area, capital, continent, currency, neighbours, codes.

    Args:
        name: The country's name in English, or its two-letter ISO code.
        fact: What to look up.
    """
    found = gazetteer.find_country(name)
    result: dict[str, Any] = {"country": found.name, "fact": fact}
    match fact:
        case "population":
            result |= {"value": found.population, "unit": "people"}
        case "area":
            result |= {"value": found.area_km2, "unit": "km²"}
        case "currency":
            result |= {"value": found.currency, "code": found.currency_code}
        case "neighbours":
            every = gazetteer.countries()
            names = sorted(every[iso].name for iso in found.neighbours if iso in every)
            return result | {"value": names, "source": SOURCE}
        case "capital":
            result["value"] = found.capital
        case "continent":
            result["value"] = found.continent
        case "calling_code":
            result["value"] = f"+{found.calling_code.lstrip('+')}" if found.calling_code else ""
        case "internet_domain":
            result["value"] = found.domain
        case "iso_code":
            result["value"] = found.iso
        case _:
            raise ValueError(
                f'No fact is called "{fact}". Known are: {", ".join(_facts(CountryFact))}.'
            )
    if not result["value"]:
        raise ValueError(f"The {fact.replace('_', ' ')} of {found.name} is not in the data.")
    return result | {"source": SOURCE}


@tool(timeout_s=20, module=PUBLIC)
def city(name: str, fact: CityFact, country: str = "") -> dict[str, Any]:
    """One fact of a city: population, country, time zone, coordinates, whose capital it is.

    Of several cities with the same name it takes the largest, and says so; `country` narrows it
    down.

    Args:
        name: The city's name.
        fact: What to look up.
        country: The country it lies in, if that has to be said.
    """
    if fact == "capital_of":
        capital, home = gazetteer.capital_of(name)
        return {"city": capital.name, "fact": fact, "value": home.name, "source": SOURCE}
    found, others = gazetteer.find_city(name, country)
    home = gazetteer.countries()[found.iso]
    result: dict[str, Any] = {"city": found.name, "country": home.name, "fact": fact}
    match fact:
        case "population":
            result |= {"value": found.population, "unit": "people"}
        case "country":
            result["value"] = home.name
        case "timezone":
            result["value"] = found.timezone
        case "coordinates":
            result["value"] = {"latitude": found.latitude, "longitude": found.longitude}
        case _:
            raise ValueError(
                f'No fact is called "{fact}". Known are: {", ".join(_facts(CityFact))}.'
            )
    if not result["value"]:
        raise ValueError(f"The {fact} of {found.name} ({home.name}) is not in the data.")
    if others:
        elsewhere = ", ".join(
            f"{gazetteer.countries()[other.iso].name} ({other.population:,})"
            for other in others[:MAX_OTHERS]
        )
        more = f" and {len(others) - MAX_OTHERS} more" if len(others) > MAX_OTHERS else ""
        result["note"] = (
            f"{found.name} in {home.name} is the largest of {len(others) + 1} cities of that name; "
            f"elsewhere: {elsewhere}{more}"
        )
    return result | {"source": SOURCE}


@tool(timeout_s=10, module=PUBLIC)
def calculator(expression: str) -> dict[str, Any]:
    """The value of an arithmetic expression: + - * / // % **, parentheses and functions.

    A result of more than 18 digits is given as a text.

    Args:
        expression: Such as `round(66987244 / 547030, 2)`. Numbers without thousands separators.
    """
    value = arithmetic.calculate(expression)
    if isinstance(value, int) and abs(value) > MAX_JSON_INTEGER:
        return {"expression": expression, "value": str(value)}
    return {"expression": expression, "value": value}


@tool(timeout_s=20, module=PUBLIC)
def search(query: str, limit: Limit = 3) -> dict[str, Any]:
    """The passages of the documents that fit a query best, best first, each with its document.

    Args:
        query: A few words to look for; word forms are matched (river finds rivers).
        limit: How many passages.
    """
    return search_folder(os.environ.get(DOCUMENTS_VARIABLE) or DOCUMENTS, query, limit)


def search_folder(folder: str | Path, query: str, limit: int = 3) -> dict[str, Any]:
    """What `search` does, over the .md, .rst and .txt below ``folder``; for a tool of your own.

    The folder is no parameter of a tool: else a model could read any text on the worker's disk.
    """
    shelf = library.library(Path(folder).expanduser())
    passages = shelf.search(query, max(1, min(limit, MAX_PASSAGES)))
    return {
        "query": query,
        "passages": [passage._asdict() for passage in passages],
        "documents": shelf.documents,
    }


def _facts(facts: Any) -> tuple[str, ...]:
    return tuple(facts.__args__)
