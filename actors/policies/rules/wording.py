"""Figures in words: numbers with separators and units, facts as sentences."""

import re
from typing import Final

from actors.policies.rules.names import with_article
from actors.policies.rules.plan import SUPERLATIVES, Found, Place, as_number, the
from protocol.actions import Json

UNITS: Final = {"population": "people", "area": "km²", "density": "people per km²"}

COMPARATIVES: Final = {
    "population": ("more people", "fewer people"),
    "area": ("a larger area", "a smaller area"),
    "density": ("more people per km²", "fewer people per km²"),
}
"""By property: more, less."""

MAX_VALUE_CHARS: Final = 200
"""Characters of a value that is no number: a worker's text must not swamp an answer."""

MAX_DIGITS_SHOWN: Final = 60
"""Digits of a long integer that are shown."""

_DIGITS: Final = re.compile(r"-?[0-9]{1,4000}")
"""An integer as the calculator gives a long one; Python reads no more than 4,300 digits."""

_NAMES: Final = {
    "calling_code": "international calling code",
    "internet_domain": "internet domain",
    "iso_code": "ISO code",
    "timezone": "time zone",
    "density": "population density",
}


def property_name(name: str) -> str:
    """A property as it stands in a sentence."""
    return _NAMES.get(name, name.replace("_", " "))


def superlative(name: str, largest: bool, count: int) -> str:
    """The most of several, or the more of two."""
    if count > 2:
        return SUPERLATIVES[name][0 if largest else 1]
    return COMPARATIVES[name][0 if largest else 1].replace("a ", "the ", 1)


def number(value: Json) -> str:
    """A number with thousands separators; fractions to two places, below one to three digits."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        long = len(value) > MAX_DIGITS_SHOWN
        shown = f"{value[:MAX_DIGITS_SHOWN]}… ({len(value)} digits)"
        return shown if long else f"{int(value):,}"
    plain = as_number(value)
    if plain is None:
        return text(value)
    if isinstance(plain, int):
        return f"{plain:,}"
    if plain.is_integer() and abs(plain) < 1e15:
        return f"{int(plain):,}"
    return f"{plain:,.2f}" if abs(plain) >= 1 else f"{plain:.3g}"


def is_rounded(value: Json) -> bool:
    """Whether `number` shows less than there is."""
    plain = as_number(value)
    return isinstance(plain, float) and float(number(plain).replace(",", "")) != plain


def exact(value: Json) -> str:
    """A number to 12 significant digits, for sums that the user wrote out."""
    plain = as_number(value)
    if isinstance(plain, float) and not plain.is_integer():
        return f"{plain:,.12g}"
    return number(value)


def text(value: Json) -> str:
    """Any other value, cut to a sentence's length."""
    shown = value if isinstance(value, str) else str(value)
    return shown if len(shown) <= MAX_VALUE_CHARS else f"{shown[:MAX_VALUE_CHARS]}…"


def listed(names: list[str]) -> str:
    """Names in a row: "A", "A and B", "A, B and C"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def place(where: Place) -> str:
    """A place, and how it was come by: "Tokyo (the capital of Japan)"."""
    return f"{the(where)} ({where.aside})" if where.aside else the(where)


def capitalised(sentence: str) -> str:
    """With a capital first letter, and the others as they are."""
    return sentence[:1].upper() + sentence[1:]


def bare(found: Found) -> str:
    """A value after words that already say "people"."""
    return value(found) if found.property == "area" else number(found.value)


def value(found: Found) -> str:
    """A fact's value with its unit."""
    unit = UNITS.get(found.property)
    return f"{number(found.value)} {unit}" if unit else text(found.value)


def figure(found: Found) -> str:
    """A place and its number, as in a list: "France (66,987,244)"."""
    if found.place.aside:
        return f"{the(found.place)} ({found.place.aside}; {number(found.value)})"
    return f"{the(found.place)} ({number(found.value)})"


def described(found: Found) -> str:
    """A fact inside a sum: "the area of Canada (9,984,670 km²)"."""
    where = the(found.place)
    aside = f"{found.place.aside}; " if found.place.aside else ""
    return f"the {property_name(found.property)} of {where} ({aside}{value(found)})"


def sentence(found: Found) -> str:
    """One fact, in full."""
    where = place(found.place)
    match found.property:
        case "continent":
            said = f"{where} is in {text(found.value)}."
        case "country":
            said = f"{where} is in {with_article(text(found.value))}."
        case "currency":
            code = f" ({found.code})" if found.code else ""
            said = f"the currency of {where} is the {text(found.value)}{code}."
        case "coordinates":
            said = f"{where} lies at {_coordinates(found.value)}."
        case "neighbours":
            said = _neighbours(where, found.value)
        case "density":
            about = "about " if is_rounded(found.value) else ""
            said = f"{where} has {about}{value(found)}."
        case _:
            said = f"the {property_name(found.property)} of {where} is {value(found)}."
    return capitalised(said)


def _coordinates(found: Json) -> str:
    if isinstance(found, dict):
        latitude, longitude = as_number(found.get("latitude")), as_number(found.get("longitude"))
        if latitude is not None and longitude is not None:
            north = f"{abs(latitude):.2f}° {'N' if latitude >= 0 else 'S'}"
            return f"{north}, {abs(longitude):.2f}° {'E' if longitude >= 0 else 'W'}"
    return text(found)


def _neighbours(where: str, found: Json) -> str:
    names = [text(name) for name in found] if isinstance(found, list) else [text(found)]
    if not names:
        return f"{where} has no neighbours on land."
    count = "one neighbour" if len(names) == 1 else f"{len(names)} neighbours"
    return f"{where} has {count} on land: {listed([with_article(name) for name in names])}."
