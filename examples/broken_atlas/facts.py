"""An atlas with a mistake in it: one number of one country is written as no other is.

It is here to be debugged: `docs/debug-a-failed-run.md` finds the mistake from the log of a run that
met it, and mends it.
"""

from typing import Any, Final, Literal

import podium
from podium.pools.offline import calculator

__all__ = ["calculator", "country"]

COUNTRIES: Final[dict[str, dict[str, str]]] = {
    "lilliput": {"population": "500,000", "area": "310", "capital": "Mildendo"},
    "blefuscu": {"population": "420,000", "area": "290", "capital": "Blefusco Port"},
    "ruritania": {"population": "2,100,000", "area": "48,000", "capital": "Strelsau"},
    "erewhon": {"population": "1.3 million", "area": "96,000", "capital": "Sunchildston"},
}

UNITS: Final = {"population": "people", "area": "km²"}

Fact = Literal["population", "area", "capital"]


@podium.tool(timeout_s=5)
def country(name: str, fact: Fact) -> dict[str, Any]:
    """One fact of one invented country: population, area (km²) or capital.

    Args:
        name: The country's name.
        fact: What to look up.
    """
    written = COUNTRIES[name.strip().casefold()][fact]
    if fact not in UNITS:
        return {"country": name, "fact": fact, "value": written}
    return {"country": name, "fact": fact, "value": number(written), "unit": UNITS[fact]}


def number(written: str) -> int:
    """The number that a text of the atlas says."""
    return int(written.replace(",", ""))
