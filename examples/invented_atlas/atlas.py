"""An atlas of places that only exist in books: the tools of a pool that needs no key, no network.

The rules policy asks for countries and cities by name and fact, so any data with these two tools
can be asked about in plain English. The numbers are ours; the books don't say.
"""

import asyncio
from typing import Any, Final, Literal

import podium
from podium.pools.offline import calculator

__all__ = ["calculator", "city", "country"]

COUNTRIES: Final[dict[str, dict[str, Any]]] = {
    "lilliput": {
        "name": "Lilliput",
        "population": 500_000,
        "area": 310,
        "capital": "Mildendo",
        "continent": "Indian Ocean",
        "currency": "sprug",
    },
    "blefuscu": {
        "name": "Blefuscu",
        "population": 420_000,
        "area": 290,
        "capital": "Blefusco Port",
        "continent": "Indian Ocean",
        "currency": "sprug",
    },
    "ruritania": {
        "name": "Ruritania",
        "population": 2_100_000,
        "area": 48_000,
        "capital": "Strelsau",
        "continent": "Europe",
        "currency": "krone",
    },
    "erewhon": {
        "name": "Erewhon",
        "population": 1_300_000,
        "area": 96_000,
        "capital": "Sunchildston",
        "continent": "Oceania",
        "currency": "musical banknote",
    },
}

CITIES: Final[dict[str, dict[str, Any]]] = {
    "mildendo": {"name": "Mildendo", "population": 90_000, "country": "Lilliput"},
    "strelsau": {"name": "Strelsau", "population": 310_000, "country": "Ruritania"},
    "zenda": {"name": "Zenda", "population": 12_000, "country": "Ruritania"},
    "sunchildston": {"name": "Sunchildston", "population": 64_000, "country": "Erewhon"},
}

CountryFact = Literal["population", "area", "capital", "continent", "currency"]
CityFact = Literal["population", "country", "capital_of"]


@podium.tool(timeout_s=5)
def country(name: str, fact: CountryFact) -> dict[str, Any]:
    """One fact of one invented country: population, area (km²), capital, continent, currency.

    Args:
        name: The country's name.
        fact: What to look up.
    """
    found = COUNTRIES.get(name.strip().casefold())
    if found is None:
        known = ", ".join(sorted(each["name"] for each in COUNTRIES.values()))
        raise ValueError(f"No country is called {name!r} in this atlas. It has: {known}.")
    units = {"population": {"unit": "people"}, "area": {"unit": "km²"}}
    return {"country": found["name"], "fact": fact, "value": found[fact], **units.get(fact, {})}


@podium.tool(timeout_s=5, concurrency=8)
async def city(name: str, fact: CityFact) -> dict[str, Any]:
    """One fact of one invented city: population, country, or the country it is the capital of.

    Args:
        name: The city's name.
        fact: What to look up.
    """
    await asyncio.sleep(0.2)  # the map room is upstairs; other calls go on meanwhile
    found = CITIES.get(name.strip().casefold())
    if found is None:
        known = ", ".join(sorted(each["name"] for each in CITIES.values()))
        raise ValueError(f"No city is called {name!r} in this atlas. It has: {known}.")
    if fact == "capital_of":
        home = COUNTRIES[found["country"].casefold()]
        if home["capital"] != found["name"]:
            raise ValueError(f"{found['name']} is no capital; it lies in {home['name']}.")
        return {"city": found["name"], "fact": fact, "value": home["name"]}
    unit = {"unit": "people"} if fact == "population" else {}
    return {"city": found["name"], "fact": fact, "value": found[fact], **unit}
