"""A question as a frame: the places and properties it names, and what to do with them.

Word order hardly matters for these questions ("Which is larger by area, Chad or Niger?", "By
area, is Chad or Niger larger?"), so a sentence is scanned once and its pieces are put into slots.
What makes that safe is that *every* token has to be accounted for, and that a frame is only read
in one way: markers that don't fit together mean no reading.
"""

from collections.abc import Iterable
from typing import Final, cast

from actors.policies.rules.entities import NUMERIC, EntityParser, size_property
from actors.policies.rules.lexer import Token
from actors.policies.rules.tree import (
    CapitalOf,
    Choose,
    CountryOf,
    CountryWithCapital,
    Entity,
    Fact,
    Holds,
    Named,
    Operation,
    Operator,
    Pick,
    Property,
    Query,
    Rank,
    Tell,
    kind_of,
)

_YES_NO: Final = frozenset({"is", "are", "do", "does", "has", "have"})
_USING: Final = frozenset({"use", "uses", "used", "using", "pay", "paid", "spend", "accepted"})
_USED: Final = frozenset({"currency", "timezone", "calling_code", "internet_domain"})
_JOINING_WORDS: Final = frozenset({"to", "from"})
_COUNTED: Final = NUMERIC | {"size", "neighbours"}
_COMPARING: Final = frozenset({"rank", "descending", "ascending"})


class Group:
    """Properties and the places that they are of: "the population and area of France and Spain"."""

    def __init__(self) -> None:
        self.properties: list[str] = []
        self.items: list[Entity] = []
        self.trailing = False
        """The properties stand behind the places."""


class Frame:
    """The slots, filled from the tokens of one sentence; `read` fills them."""

    def __init__(self) -> None:
        self.groups = [Group()]
        self.markers: set[str] = set()
        self.compare: list[str] = []
        self.than = False
        self.joined = True
        """Between each two places stands a word that joins them."""
        self.yes_no = False
        self.country_noun = False
        """It is asked which country."""
        self.which_many = False
        """It is asked which countries or cities, or which city."""
        self.using = False
        """Something is said to be used or paid with."""
        self.capital_of = False
        """The question ends with "the capital of"."""
        self.continent = ""
        self.whole_first = False
        """"What percentage of A is B": the whole is named before the part."""
        self.by_property = False
        """A property stands behind the places after "by"."""

    @property
    def items(self) -> list[Entity]:
        """All places, in order."""
        return [item for group in self.groups for item in group.items]

    @property
    def properties(self) -> list[str]:
        """All properties, in order, each once."""
        return list(dict.fromkeys(p for group in self.groups for p in group.properties))


def read(tokens: list[Token]) -> Query | None:
    """What a sentence asks, or None if there is no reading, or more than one."""
    frame = _scan(tokens)
    return _interpret(frame) if frame is not None else None


def _scan(tokens: list[Token]) -> Frame | None:
    parser, frame, i, joined = EntityParser(tokens), Frame(), 0, True
    frame.yes_no = bool(tokens) and tokens[0].value in _YES_NO and tokens[0].kind != "marker"
    while i < len(tokens):
        token = tokens[i]
        found = parser.entity(i)
        if found is not None:
            if frame.items and not joined:
                frame.joined = False
            if parser.at(i - 1).kind == "property" and i > 0 and not _surely_country(found.entity):
                return None
            _add_item(frame, found.entity, own=parser.at(found.after).kind == "possessive")
            i, joined = found.after, False
            continue
        joined = joined or token.kind in {"separator", "than"} or token.value in _JOINING_WORDS
        if not _fill(frame, parser, i):
            return None
        i += 1
    _distribute(frame)
    return frame


def _surely_country(entity: Entity) -> bool:
    """Whether "population Chad" is a hasty "population of Chad", and not "currency Sol"."""
    return not isinstance(entity, Named) or entity.kind == "country"


def _fill(frame: Frame, parser: EntityParser, i: int) -> bool:
    """Put token ``i`` into its slot; False if there is none for it."""
    token = parser.at(i)
    match token.kind:
        case "property":
            if not _coordinated(frame, parser, i):
                return False
            _add_property(frame, token.value)
            if frame.items and (parser.is_word(i - 1, "by", "in") or parser.is_word(i - 2, "by")):
                frame.by_property = True
            if token.value == "capital" and parser.is_word(i + 1, "of"):
                frame.capital_of = True
        case "marker":
            frame.markers.add(token.value)
            if token.value == "percent":
                frame.whole_first = not frame.items and parser.is_word(i + 1, "of")
        case "function" if token.value in {"sum", "average"}:
            frame.markers.add("total" if token.value == "sum" else "average")
        case "compare":
            frame.compare.append(token.value)
        case "than":
            frame.than = True
        case "country" | "city":
            return _noun(frame, parser, i)
        case "filler" if token.value in _USING:
            frame.using = True
        case "word" if token.value == "its":
            return False
        case "continent" if not frame.continent:
            frame.continent = token.value
        case "operator" if token.value == "-":
            pass
        case "filler" | "word" | "separator" | "possessive":
            pass
        case _:
            return False
    return True


def _add_item(frame: Frame, entity: Entity, own: bool) -> None:
    group = frame.groups[-1]
    if group.trailing and own:
        group = Group()
        frame.groups.append(group)
    group.items.append(entity)


def _noun(frame: Frame, parser: EntityParser, i: int) -> bool:
    """Take "country" or "city" where it only says what kind of place is meant, or asks which."""
    token = parser.at(i)
    if parser.is_word(i - 1, "of", "in", "by", "for"):
        return False
    asked = parser.at(i - 1).value in {"which", "what"}
    if asked and token.kind == "country" and not token.value:
        frame.country_noun = True
    elif asked:
        frame.which_many = True
    return True


def _coordinated(frame: Frame, parser: EntityParser, i: int) -> bool:
    """Whether a property is the first of its group, or joined to the one before it."""
    group = frame.groups[-1]
    starts_group = bool(group.items) and not group.trailing
    if not group.properties or starts_group:
        return True
    while i > 0 and parser.at(i - 1).kind in {"filler", "word"}:
        i -= 1
    if group.properties == ["size"]:
        group.properties.clear()
        return True
    return parser.at(i - 1).kind == "separator" or parser.at(i).value == group.properties[-1]


def _add_property(frame: Frame, name: str) -> None:
    group = frame.groups[-1]
    if group.items and group.properties and not group.trailing:
        group = Group()
        frame.groups.append(group)
    elif group.items:
        group.trailing = True
    if name not in group.properties:
        group.properties.append(name)


def _distribute(frame: Frame) -> None:
    """Read "the capitals of France and Spain" as two capitals, and so with countries of cities."""
    for group in frame.groups:
        for i in range(1, len(group.items)):
            before, item = group.items[i - 1], group.items[i]
            bare = isinstance(item, Named) and item.kind == "country"
            if isinstance(before, CapitalOf) and isinstance(before.country, Named) and bare:
                group.items[i] = CapitalOf(item)
            if isinstance(before, CountryOf) and isinstance(item, Named) and not bare:
                group.items[i] = CountryOf(item)


def _interpret(frame: Frame) -> Query | None:
    _derive_density(frame)
    markers = frame.markers - {"howmuch"} if not frame.compare else frame.markers
    if not frame.items or (frame.using and not set(frame.properties) & _USED):
        return None
    if "howmuch" in frame.markers and not set(frame.properties) <= _COUNTED:
        return None
    if frame.yes_no and (reading := _yes_no(frame, markers)) is not None:
        return reading
    if frame.continent or not (frame.joined or "percent" in markers):
        return None
    if markers == {"perhead"}:
        return _per_head(frame)
    if markers & _COMPARING:
        return _rank(frame, markers)
    if frame.compare or "compare" in markers:
        return _compare(frame, markers - {"where"})
    if markers & {"total", "average", "difference", "ratio", "percent"}:
        return _aggregate(frame, markers)
    if markers == {"where"} and not frame.properties:
        return Tell(tuple(_whereabouts(item) for item in frame.items))
    return _tell(frame) if not markers and not frame.than else None


def _derive_density(frame: Frame) -> None:
    """Read "people ... per square kilometre" as the density, wherever its halves stand."""
    for group in frame.groups:
        if "perarea" in frame.markers and group.properties == ["population"]:
            group.properties[:] = ["density"]
            frame.markers -= {"perarea", "total", "average"}
        if group.properties == ["density"]:
            frame.markers -= {"average"}


def _whereabouts(item: Entity) -> Entity | Fact:
    return Fact(item, "continent") if kind_of(item) == "country" else CountryOf(item)


def _facts(frame: Frame) -> tuple[Fact, ...] | None:
    """The numbers that are to be compared or added up: every place with its property."""
    found: list[Fact] = []
    implied = {value.partition(":")[2] for value in frame.compare} - {""}
    stated = set(frame.properties)
    if "size" in stated or "size" in implied:
        size = size_property(frame.items)
        stated = {size if name == "size" else name for name in stated}
        implied = {size if name == "size" else name for name in implied}
        # "A larger population": the adjective says which way, the noun says what.
        implied = implied - {size} if stated else implied
    every = stated | implied
    if len(every) != 1 or not every <= NUMERIC:
        return None
    chosen = cast(Property, every.pop())
    for item in frame.items:
        found.append(Fact(item, chosen))
    return tuple(found)


def _direction(frame: Frame) -> bool | None:
    """True for the most, False for the least, None if both or neither is asked for."""
    directions = {value.partition(":")[0] for value in frame.compare}
    return directions == {"up"} if len(directions) == 1 else None


def _compare(frame: Frame, markers: set[str]) -> Query | None:
    items = frame.items
    if len(items) == 1 and isinstance(items[0], Pick):
        return None
    facts = _facts(frame)
    if facts is None or len(facts) < 2:
        return None
    up = True if markers == {"compare"} and not frame.compare else _direction(frame)
    if up is None:
        return None
    ordered = facts if up else facts[::-1]
    if markers == {"times"} and len(facts) == 2:
        return Tell((Operation("/", ordered),))
    if markers in ({"howmuch"}, {"difference"}) and len(facts) == 2:
        return Tell((Operation("-", ordered),))
    if markers - {"compare"}:
        return None
    if frame.than:
        return (
            Holds(facts[0], ">" if up else "<", facts[1])
            if frame.yes_no and len(facts) == 2
            else None
        )
    return Choose(facts, up)


def _rank(frame: Frame, markers: set[str]) -> Query | None:
    if markers - _COMPARING or frame.than:
        return None
    descending = "ascending" not in markers
    if frame.compare:
        descending = frame.compare[0].startswith("up")
    facts = _facts(frame)
    if facts is None and not frame.properties:
        return None
    return Rank(facts, descending) if facts and len(facts) > 1 else None


def _aggregate(frame: Frame, markers: set[str]) -> Query | None:
    facts = _facts(frame)
    if facts is None or len(markers) != 1 or frame.than:
        return None
    marker = next(iter(markers))
    if len(facts) == 1:
        return Tell(facts) if marker == "total" else None
    if marker in {"total", "average"}:
        operator: Operator = "sum" if marker == "total" else "average"
        return Tell((Operation(operator, facts),))
    if len(facts) != 2:
        return None
    if marker == "percent":
        return Tell((Operation("percent", facts[::-1] if frame.whole_first else facts),))
    return Tell((Operation("difference" if marker == "difference" else "/", facts),))


def _per_head(frame: Frame) -> Query | None:
    """As in "How much land is there per person in Canada?"."""
    if frame.properties != ["area"] or len(frame.items) != 1 or frame.compare or frame.than:
        return None
    item = frame.items[0]
    return Tell((Operation("/", (Fact(item, "area"), Fact(item, "population"))),))


def _yes_no(frame: Frame, markers: set[str]) -> Query | None:
    items, properties = frame.items, frame.properties
    if markers == {"same"} and len(items) == 2 and len(properties) == 1 and not frame.compare:
        first, second = (Fact(item, cast(Property, properties[0])) for item in items)
        known = properties[0] in {"continent", "currency", "timezone", "country", "capital"}
        return Holds(first, "=", second) if known else None
    if markers == {"same"} and len(items) == 2 and frame.country_noun and not properties:
        return Holds(Fact(items[0], "country"), "=", Fact(items[1], "country"))
    if markers or frame.compare or properties:
        return None
    if frame.continent and len(items) == 1:
        return Holds(Fact(items[0], "continent"), "=", frame.continent)
    if len(items) == 1 and isinstance(items[0], Named) and items[0].within:
        bare = Named(items[0].name, "city")
        return Holds(Fact(bare, "country"), "=", items[0].within)
    if len(items) == 2 and not frame.continent:
        return _is_capital(items)
    return None


def _is_capital(items: list[Entity]) -> Query | None:
    for one, other in (items, items[::-1]):
        if isinstance(one, CapitalOf) and isinstance(other, Named):
            return Holds(Fact(one.country, "capital"), "=", other.name)
    return None


def _tell(frame: Frame) -> Query | None:
    items = frame.items
    if not _asks_of_these(frame):
        return None
    if len(items) == 1 and isinstance(items[0], Pick) and frame.by_property:
        return _rechosen(items[0], frame.properties)
    told: list[Entity | Fact | Operation] = []
    for group in frame.groups:
        told += _told(frame, group, group.properties or _borrowed(frame, group))
    # A bare name asks nothing, and one thing that can't be told makes the whole unreadable.
    if not told or any(isinstance(entry, Named) for entry in told):
        return None
    return Tell(tuple(told))


def _asks_of_these(frame: Frame) -> bool:
    """Whether it asks about the places it names, and not for places that have what they have."""
    properties = set(frame.properties)
    derived = not any(isinstance(item, Named) for item in frame.items)
    if frame.which_many:
        return properties == {"neighbours"} or (derived and not properties)
    return not frame.country_noun or properties <= {"capital", "neighbours"}


def _borrowed(frame: Frame, group: Group) -> list[str]:
    """The properties of the group before, for "the area of Chad and France's"."""
    index = frame.groups.index(group)
    return frame.groups[index - 1].properties if index else []


def _told(frame: Frame, group: Group, properties: Iterable[str]) -> list[Entity | Fact | Operation]:
    told: list[Entity | Fact | Operation] = []
    names = list(properties)
    picked = any(isinstance(item, Pick) for item in group.items)
    if not names and frame.country_noun and not picked:
        cities = [item for item in group.items if kind_of(item) != "country"]
        return [CountryOf(item) for item in cities] if len(cities) == len(group.items) else []
    for item in group.items:
        if not names:
            told.append(item)
        for name in names:
            told.append(_one(frame, item, name))
    return told


def _one(frame: Frame, item: Entity, name: str) -> Entity | Fact:
    reverse = frame.country_noun or frame.capital_of
    if name == "capital":
        if reverse and isinstance(item, Named) and item.kind != "country":
            return CountryWithCapital(item.name)
        return CapitalOf(item)
    if name == "size":
        return Fact(item, size_property([item]))
    return Fact(item, cast(Property, name))


def _rechosen(pick: Pick, properties: list[str]) -> Query | None:
    if len(properties) != 1 or properties[0] not in NUMERIC:
        return None
    chosen = cast(Property, properties[0])
    return Choose(tuple(Fact(fact.entity, chosen) for fact in pick.facts), pick.largest)
