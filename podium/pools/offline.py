"""The tools of the shipped pool: countries, cities, a calculator and a search, all offline.

They are made in `actors.tools.offline`, and offered under the name of this module.
"""

from actors.tools.offline import (
    DOCUMENTS,
    DOCUMENTS_VARIABLE,
    MAX_JSON_INTEGER,
    CityFact,
    CountryFact,
    calculator,
    city,
    country,
    search,
    search_folder,
)

__all__ = [
    "DOCUMENTS",
    "DOCUMENTS_VARIABLE",
    "MAX_JSON_INTEGER",
    "CityFact",
    "CountryFact",
    "calculator",
    "city",
    "country",
    "search",
    "search_folder",
]
