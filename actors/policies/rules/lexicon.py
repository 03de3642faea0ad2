"""The words that the policy understands, by what they do in a question.

A phrase maps to one token or several, each a kind and a value. The longest phrase wins. A word
that is neither here nor in a name makes a question unreadable: better no answer than one to
another question.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple


class Meaning(NamedTuple):
    """What a phrase is for the grammar."""

    kind: str
    value: str = ""


PROPERTIES: Final = {
    "population": """
        population, populations, people, inhabitants, residents, persons, head count, headcount,
        population size, population sizes, population count, number of people, number of
        inhabitants, number of residents, amount of people, people count, how many people, how
        many inhabitants, how many residents, how many persons, how populous, how populated, human
        population, population figure, population figures, populace
    """,
    "area": """
        area, areas, surface, surface area, surface areas, land area, land areas, land, land mass,
        landmass, territory, how much land, how many square kilometres, how many
        square kilometers, how many km2, how many square km, how many sq km, extent
    """,
    "size": "size, sizes, how big, how large, how small",
    "density": """
        density, densities, population density, population densities, how densely populated, how
        dense, how crowded, how densely settled, how densely inhabited
    """,
    "capital": "capital, capitals, capital city, capital cities",
    "continent": "continent, continents",
    "currency": """
        currency, currencies, money, legal tender, official currency, national currency, what do
        people pay with, what do they pay with, what do you pay with, what can i pay with, what
        does one pay with
    """,
    "timezone": "timezone, timezones, time zone, time zones, time-zone",
    "coordinates": """
        coordinates, geographic coordinates, geographical coordinates, latitude and longitude,
        longitude and latitude, latitude, longitude
    """,
    "neighbours": """
        neighbours, neighbors, neighbouring countries, neighboring countries, bordering countries,
        countries bordering, countries border, country borders, borders, border, neighbour,
        neighbor, share a border with, shares a border with, share borders with, adjacent
        countries, adjacent to
    """,
    "calling_code": """
        calling code, calling codes, dialling code, dialing code, phone code, phone prefix,
        telephone code, telephone prefix, dialling prefix, international dialling code
    """,
    "internet_domain": """
        internet domain, top-level domain, top level domain, tld, country domain, internet suffix,
        web domain
    """,
    "iso_code": "iso code, iso country code, iso codes, two-letter code",
}

COMPARISONS: Final = {
    "up:size": "larger, largest, bigger, biggest, greater, greatest",
    "down:size": "smaller, smallest",
    "up:": "more, most, higher, highest",
    "down:": "fewer, fewest, less, least, lower, lowest",
    "up:population": """
        more populous, most populous, more populated, most populated, more heavily populated,
        most heavily populated, greater populated
    """,
    "down:population": "less populous, least populous, less populated, least populated",
    "up:density": """
        denser, densest, more dense, most dense, more densely populated, most densely populated,
        more crowded, most crowded, more densely settled, most densely settled
    """,
    "down:density": """
        less dense, least dense, less densely populated, least densely populated, less crowded,
        least crowded, more sparsely populated, most sparsely populated, sparsest, sparser
    """,
}

MARKERS: Final = {
    "total": """
        total, combined, sum, together, in total, altogether, taken together, add up, all
        together, in all, summed, added together, added up, put together, overall
    """,
    "average": "average, mean, on average, averages",
    "difference": "difference, gap",
    "ratio": "ratio",
    "howmuch": "how much, by how much, how many",
    "times": "how many times, by what factor, by which factor, what factor, times as",
    "percent": """
        what percentage, what percent, which percentage, percentage, percent, what share, share,
        what proportion, proportion, what fraction, what part, as a percentage, as percentage, in
        percent
    """,
    "rank": """
        rank, ranking, ranked, order, order of, in order of, ordered, sort, sorted, arrange,
        arranged, put in order, in order, line up
    """,
    "descending": """
        largest first, biggest first, highest first, greatest first, most populous first, most
        first, densest first, from largest to smallest, from biggest to smallest, from the largest
        to the smallest, from highest to lowest, from most to least populous, from most populous
        to least populous, from the most to the least populous, from the most populous to the
        least populous, from greatest to least, from the biggest to the smallest, starting with
        the largest, starting with the biggest, descending, in descending order, decreasing, in
        decreasing order, descending order
    """,
    "ascending": """
        smallest first, lowest first, least populous first, fewest first, least first, from
        smallest to largest, from smallest to biggest, from the smallest to the largest, from the
        smallest to the biggest, from lowest to highest, from least to most populous, from least
        populous to most populous, from the least to the most populous, starting with the
        smallest, ascending, in ascending order, increasing, in increasing order, ascending order
    """,
    "compare": "compare, comparison",
    "same": "same",
    "where": "where",
    "perarea": """
        per square kilometre, per square kilometer, per km2, per square km, per sq km, for each
        square kilometre, on each square kilometre, on a square kilometre, on one square
        kilometre, for every square kilometre, to each square kilometre, on each square kilometer,
        for each square kilometer, to the square kilometre, to the square kilometer
    """,
    "perhead": """
        per person, per head, per capita, per inhabitant, per resident, for each person, for each
        inhabitant, for every person, for every inhabitant
    """,
}

ARITHMETIC: Final = {
    ("op", "+"): "plus, added to",
    ("op", "-"): "minus",
    ("op", "*"): "times, multiplied by, multiplied with",
    ("op", "/"): "divided by, over",
    ("op", "%"): "modulo, mod",
    ("op", "**"): "to the power of, raised to the power of, raised to, to the power",
    ("after", "2"): "squared",
    ("after", "3"): "cubed",
    ("function", "sqrt"): "square root of, square root, sqrt, root of",
    ("function", "sum"): "sum of, sum up",
    ("function", "average"): "average of, mean of, average, mean",
    ("function", "product"): "product of",
    ("function", "max"): "maximum of, maximum, max",
    ("function", "min"): "minimum of, minimum, min",
    ("multiple", "2"): "double, twice, two times",
    ("multiple", "3"): "triple, thrice, three times",
    ("multiple", "10"): "ten times",
    ("multiple", "0.5"): "half, one half of",
    ("multiple", "(1/3)"): "a third of, one third of",
    ("multiple", "0.25"): "a quarter of, one quarter of",
    ("verb", "/"): "divide",
    ("verb", "*"): "multiply",
    ("verb", "+"): "add",
    ("verb", "-"): "subtract, deduct",
    ("scale", "1000"): "thousand",
    ("scale", "1000000"): "million",
    ("scale", "1000000000"): "billion",
    ("number", "100"): "hundred, one hundred, a hundred",
}

NOUNS: Final = {
    ("country", ""): "country, nation",
    ("country", "plural"): "countries, nations",
    ("city", ""): "city, town, metropolis",
    ("city", "plural"): "cities, towns",
}

STRUCTURE: Final = """
    of, in, on, is, are, as, its, it's, with, where, whose, which, that, has, have, called, named,
    to, containing, contains, lies, belongs, by, from, for, at, between, being
"""
"""Words that the grammar looks at; outside of a construction they are filler."""

FILLER: Final = """
    what, who, does, do, the, a, an, both, each, these, those, following, one, ones, two, three,
    four, live, lives, living, reside, resides, residing, there, use, uses, used, using, belong,
    lie, lying, located, situated, found, part, name, please, exactly, currently, now, today,
    right now, at present, approximately, roughly, nowadays, how, me, us, tell, give, show, find,
    look up, get, want, know, like, would, i'd, i, can, could, you, let, need, calculate, compute,
    work out, determine, figure out, say, state, list, question, hi, hello, thanks, they, whats,
    what're, how's, thank you, respectively, respective, cover, covers, covering, big's, occupy,
    occupies, house, houses, home, inhabit, inhabited, actual, current, dwell, spend, pay, paid,
    accepted, official, put, place, measure, measures, comprise, count, counts, all, own, also,
    then, such, per se, when considering, considering, taking, take, looking, be, serves, serve,
    go, goes, well, and also, as well, make, so, this, group, set, terms, respect, regard,
    worth, tell me, which one, here, up, square kilometres, square kilometers, km2, i'm, looking
    for, interested, out, with regard to, in terms of, quickly, briefly, just, only
"""
"""Words that carry nothing that the grammar needs."""

SEPARATORS: Final = {
    "and": "and",
    "or": "or",
    "versus": "or",
    "vs": "or",
    "against": "or",
    "nor": "or",
}

THAN: Final = "than, compared to, compared with, as opposed to, relative to, in comparison to"

_PER_HEAD_NOUNS = ("people", "inhabitants", "residents", "persons", "population")
_AREAS = ("square kilometre", "square kilometer", "km2", "square km", "sq km")


def _phrases(text: str) -> Iterator[tuple[str, ...]]:
    for phrase in text.split(","):
        words = tuple(phrase.replace("-", " ").split())
        if words:
            yield words


def _build() -> dict[tuple[str, ...], tuple[Meaning, ...]]:
    found: dict[tuple[str, ...], tuple[Meaning, ...]] = {}
    for text, kind in ((FILLER, "filler"), (STRUCTURE, "word")):
        for words in _phrases(text):
            found[words] = (Meaning(kind, " ".join(words)),)
    for marker, text in MARKERS.items():
        found |= {words: (Meaning("marker", marker),) for words in _phrases(text)}
    for (kind, value), text in ARITHMETIC.items():
        for words in _phrases(text):
            found.setdefault(words, (Meaning(kind, value),))
    for value, text in COMPARISONS.items():
        found |= {words: (Meaning("compare", value),) for words in _phrases(text)}
    for value, text in PROPERTIES.items():
        found |= {words: (Meaning("property", value),) for words in _phrases(text)}
    for (kind, value), text in NOUNS.items():
        found |= {words: (Meaning(kind, value),) for words in _phrases(text)}
    for noun in _PER_HEAD_NOUNS:
        for area in _AREAS:
            density = (Meaning("property", "density"),)
            found[(noun, "per", *area.split())] = density
            found[("how", "many", noun, "per", *area.split())] = density
    for word, value in SEPARATORS.items():
        found[(word,)] = (Meaning("separator", value),)
    found |= {words: (Meaning("than"),) for words in _phrases(THAN)}
    more, than = Meaning("compare", "up:"), Meaning("than")
    for word in ("exceed", "exceeds", "surpass", "surpasses", "outnumber", "outnumbers"):
        found[(word,)] = (more, than)
    how_much = Meaning("marker", "howmuch")
    found["how", "many", "more"] = found["how", "much", "more"] = (how_much, more)
    found["how", "many", "fewer"] = (how_much, Meaning("compare", "down:"))
    found["how", "much", "less"] = found["how", "many", "less"] = found["how", "many", "fewer"]
    return found


PHRASES: Final = _build()
"""Folded words of a phrase, and what it means."""

LONGEST_PHRASE: Final = max(len(words) for words in PHRASES)
"""Words."""
