"""What a question means: a small tree. `parse` builds it, `plan` evaluates it."""

from typing import Literal, TypeAlias

import msgspec

Property: TypeAlias = Literal[
    "population",
    "area",
    "density",
    "capital",
    "continent",
    "currency",
    "country",
    "timezone",
    "coordinates",
    "neighbours",
    "calling_code",
    "internet_domain",
    "iso_code",
]
"""What can be asked of a place. Density is computed from two of them."""

PlaceKind: TypeAlias = Literal["country", "city", "either"]
"""``either``: only the workers can tell which of the two a name is."""


class Named(msgspec.Struct, frozen=True, tag=True):
    """A place by its name."""

    name: str
    kind: PlaceKind = "either"
    within: str = ""
    """The country that the question puts it in, as in "Birmingham in the United States"."""


class CapitalOf(msgspec.Struct, frozen=True, tag=True):
    """The capital of a country."""

    country: "Entity"


class CountryOf(msgspec.Struct, frozen=True, tag=True):
    """The country in which a city lies."""

    city: "Entity"


class CountryWithCapital(msgspec.Struct, frozen=True, tag=True):
    """The country whose capital has this name."""

    capital: str


class Pick(msgspec.Struct, frozen=True, tag=True):
    """The one of several places that has the most, or the least, of something."""

    facts: "tuple[Fact, ...]"
    largest: bool


Entity: TypeAlias = Named | CapitalOf | CountryOf | CountryWithCapital | Pick
"""A place, however it is named."""


class Fact(msgspec.Struct, frozen=True, tag=True):
    """One property of one place."""

    entity: Entity
    property: Property


class Number(msgspec.Struct, frozen=True, tag=True):
    """A number as the question has it."""

    text: str


Operator: TypeAlias = Literal[
    "+", "-", "*", "/", "%", "**", "sum", "average", "difference", "percent", "sqrt", "min", "max"
]
"""``difference`` has no sign; ``percent`` is the first as a percentage of the second."""


class Operation(msgspec.Struct, frozen=True, tag=True):
    """Arithmetic, done by the calculator."""

    operator: Operator
    operands: "tuple[Quantity, ...]"


Quantity: TypeAlias = Fact | Number | Operation
"""Whatever is a number."""


class Tell(msgspec.Struct, frozen=True, tag=True):
    """Say what these are."""

    items: tuple[Entity | Fact | Operation, ...]


class Choose(msgspec.Struct, frozen=True, tag=True):
    """Say which has the most, or the least."""

    facts: tuple[Fact, ...]
    largest: bool


class Rank(msgspec.Struct, frozen=True, tag=True):
    """Put them in order."""

    facts: tuple[Fact, ...]
    descending: bool


class Holds(msgspec.Struct, frozen=True, tag=True):
    """Say whether it is so."""

    left: Fact
    relation: Literal[">", "<", "="]
    right: Fact | str
    """A text is compared as a name."""


class Calculate(msgspec.Struct, frozen=True, tag=True):
    """An expression, as the question has it."""

    expression: str


class Search(msgspec.Struct, frozen=True, tag=True):
    """Look into the documents."""

    query: str


class RunPython(msgspec.Struct, frozen=True, tag=True):
    """Run code that the question brings."""

    code: str


Query: TypeAlias = Tell | Choose | Rank | Holds | Calculate | Search | RunPython
"""The whole of a question, or of one sentence of it."""


def kind_of(entity: Entity) -> PlaceKind:
    """What sort of place an entity is, as far as the question tells."""
    match entity:
        case Named(kind=kind):
            return kind
        case CapitalOf():
            return "city"
        case CountryOf() | CountryWithCapital():
            return "country"
        case Pick(facts=facts):
            kinds = {kind_of(fact.entity) for fact in facts}
            return kinds.pop() if len(kinds) == 1 else "either"
