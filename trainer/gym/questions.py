"""Questions with their plans: six families, composed of wordings and of real entities.

=============  =====================================================================================
``lookup``     one value: of a country, a city, or the documents
``wide``       two to eight values that wait for nothing, each of them or what they make together
``chain``      a value of what was found: the capital's time zone, the home country's currency
``arithmetic``  one or two values, and a sum on them
``search``     a figure from the documents, and a sum on it
``code``       what a program prints, and perhaps a sum on it
=============  =====================================================================================
"""

import functools
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from actors.tools import gazetteer
from trainer.gym import wordings
from trainer.gym.facts import FACTS
from trainer.gym.grammar import draw
from trainer.gym.kinds import CITY_FACTS, COUNTRY_FACTS, ROLES, domain, is_known
from trainer.gym.plans import Need, Plan
from trainer.gym.splits import MAX_TRIES, Exhausted, Set, for_tests

MIN_CITY_POPULATION: Final = 300_000
"""People of a city that is asked for: some 1,700 have names that no other has."""

NUMERIC: Final = ("country.population", "country.area", "city.population")


class Question(NamedTuple):
    """What is asked, before anybody answers it."""

    family: str
    text: str
    entities: tuple[str, ...]
    plan: Plan
    wording: str
    """The text with places for entities: what of it may be held out."""


class Draft(NamedTuple):
    """A wording with its entities and plan."""

    pattern: str
    entities: tuple[str, ...]
    plan: Plan


@functools.cache
def countries() -> tuple[str, ...]:
    """Names of the countries that are asked for, as the data has them."""
    return tuple(sorted(c.name for c in gazetteer.countries().values() if is_known(c)))


@functools.cache
def cities() -> tuple[str, ...]:
    """Names of the cities that are asked for: no other city has the name."""
    known = {gazetteer.countries()[iso].name: iso for iso in gazetteer.countries()}
    homes = {known[name] for name in countries()}
    found = []
    for city in gazetteer.cities():
        if city.population >= MIN_CITY_POPULATION and city.iso in homes and city.timezone:
            place, others = gazetteer.find_city(city.name)
            if place == city and not others and city.name not in known:
                found.append(city.name)
    return tuple(sorted(found))


class Entities:
    """Draws entities of a set."""

    def __init__(self, drawn: Set, rng: random.Random) -> None:
        self.rng, self._of = rng, drawn

    def some(self, inventory: Sequence[str], count: int = 1) -> tuple[str, ...]:
        """So many, each another."""
        found: dict[str, None] = {}
        while len(found) < count:
            each = inventory[int(self.rng.random() * len(inventory))]
            if self._of.admits("entity", each):
                found[each] = None
        return tuple(found)

    def countries(self, count: int = 1) -> tuple[str, ...]:
        """Names of countries."""
        return self.some(countries(), count)

    def cities(self, count: int = 1) -> tuple[str, ...]:
        """Names of cities."""
        return self.some(cities(), count)

    def facts(self, count: int = 1) -> tuple[str, ...]:
        """Words that the documents have a figure for."""
        return self.some(tuple(FACTS), count)

    def things(self, role: str, count: int = 1) -> tuple[str, ...]:
        """What a role has values of."""
        return self.countries(count) if role.startswith("country.") else self.cities(count)

    def number(self, *choices: int) -> str:
        """A number that stands in a question."""
        return str(self.rng.choice(choices))

    def places(self) -> int:
        """Decimals that a result is rounded to; 0 for not at all."""
        return self.rng.choice((0, 1, 2, 2, 3))

    def program(self) -> str:
        """A program of one line."""
        return _program(self.rng)


def _worded(pattern: str, role: str = "", rounded: int = 0, how: str = "") -> str:
    """A pattern with its words put in: what is asked, of what, and how it is to be given."""
    noun = wordings.NOUNS.get(role, "")
    pattern = pattern.replace("NOUN", noun).replace("HOW", wordings.WIDE.get(how, ""))
    return pattern.replace("ROUNDED", wordings.ROUNDED.get(rounded, ""))


def _lookup(of: Entities) -> Draft:
    if of.rng.random() < 0.15:
        return Draft(wordings.SEARCH, of.facts(), Plan((Need("figure", "$1"),)))
    city = of.rng.random() < 0.3
    fact = of.rng.choice(CITY_FACTS if city else COUNTRY_FACTS)
    role = f"{'city' if city else 'country'}.{fact}"
    pattern = wordings.ONE.replace("THING", wordings.TOWN if city else wordings.COUNTRY)
    return Draft(_worded(pattern, role), of.things(role), Plan((Need(role, "$1"),)))


WIDTHS: Final = (2, 3, 4, 5, 5, 6, 6, 7, 8)
"""Values of a wide question, each as likely as any other."""


def _wide(of: Entities) -> Draft:
    count = of.rng.choice(WIDTHS)
    return _listed(of, count) if of.rng.random() < 0.5 else _aggregated(of, count)


def _listed(of: Entities, count: int) -> Draft:
    role = of.rng.choice([role for role in ROLES if domain(role) in ("country", "city")])
    needs = tuple(Need(role, f"${number}") for number in range(1, count + 1))
    plan = Plan(needs, ", ".join(f"#{number}" for number in range(1, count + 1)))
    return Draft(_worded(wordings.EACH, role), of.things(role, count), plan)


def _aggregated(of: Entities, count: int) -> Draft:
    role = of.rng.choice(NUMERIC)
    how = of.rng.choice(tuple(wordings.WIDE))
    needs = [Need(role, f"${number}") for number in range(1, count + 1)]
    every = [f"#{number}" for number in range(1, count + 1)]
    text = " + ".join(every) if how == "sum" else f"{how}({', '.join(every)})"
    plan = Plan((*needs, Need("calculator", text)))
    return Draft(_worded(wordings.MANY, role, how=how), of.things(role, count), plan)


def _chain(of: Entities) -> Draft:
    shape = of.rng.random()
    if shape < 0.4:
        role = of.rng.choice(("city.population", "city.timezone"))
        thing, entity = wordings.CAPITAL, of.countries()
        needs = (Need("country.capital", "$1"), Need(role, "#1"))
    elif shape < 0.8:
        role = f"country.{of.rng.choice(COUNTRY_FACTS)}"
        thing, entity = wordings.HOME, of.cities()
        needs = (Need("city.country", "$1"), Need(role, "#1"))
    else:
        role = of.rng.choice(("city.population", "city.timezone"))
        thing, entity = wordings.HOME_CAPITAL, of.cities()
        first = (Need("city.country", "$1"), Need("country.capital", "#1"))
        return _one_of(thing, role, entity, Plan((*first, Need(role, "#2"))))
    return _one_of(thing, role, entity, Plan(needs))


def _one_of(thing: str, role: str, entity: tuple[str, ...], plan: Plan) -> Draft:
    noun = "capital.population" if role == "city.population" else role
    return Draft(_worded(wordings.ONE.replace("THING", thing), noun), entity, plan)


def _rounded(expression: str, places: int) -> str:
    return f"round({expression}, {places})" if places else expression


def _arithmetic(of: Entities) -> Draft:
    role, places = of.rng.choice(NUMERIC), of.places()
    kind = of.rng.choice(("difference", "ratio", "percent", "density", "share", *("literal",) * 2))
    if kind == "density":
        both = (Need("country.population", "$1"), Need("country.area", "$1"))
        plan = Plan((*both, Need("calculator", _rounded("#1 / #2", places))))
        return Draft(_worded(wordings.DENSITY, rounded=places), of.countries(), plan)
    if kind == "share":
        there = (
            Need("country.population", "$1"),
            Need("country.capital", "$1"),
            Need("city.population", "#2"),
        )
        plan = Plan((*there, Need("calculator", _rounded("100 * #3 / #1", places))))
        return Draft(_worded(wordings.SHARE, rounded=places), of.countries(), plan)
    if kind == "literal":
        return _with_number(of, role, places)
    pattern, expression = {
        "difference": (wordings.DIFFERENCE, "#1 - #2"),
        "ratio": (wordings.RATIO, _rounded("#1 / #2", places)),
        "percent": (wordings.PERCENT, _rounded("100 * #1 / #2", places)),
    }[kind]
    plan = Plan((Need(role, "$1"), Need(role, "$2"), Need("calculator", expression)))
    return Draft(_worded(pattern, role, places), of.things(role, 2), plan)


def _with_number(of: Entities, role: str, places: int) -> Draft:
    pattern, expression, number = of.rng.choice(
        (
            (wordings.TIMES, "#1 * $2", of.number(2, 3, 4, 5, 10, 12, 20)),
            (wordings.PLUS, "#1 + $2", of.number(100, 250, 1000, 5000, 12345)),
            (wordings.PART, _rounded("#1 / $2", places), of.number(3, 7, 9, 11, 13, 60, 365)),
        )
    )
    plan = Plan((Need(role, "$1"), Need("calculator", expression)))
    return Draft(_worded(pattern, role, places), (*of.things(role), number), plan)


def _search(of: Entities) -> Draft:
    places = of.places()
    kind = of.rng.choice(("times", "plus", "part", "ratio"))
    if kind == "ratio":
        needs = (Need("figure", "$1"), Need("figure", "$2"))
        plan = Plan((*needs, Need("calculator", _rounded("#1 / #2", places))))
        return Draft(_worded(wordings.SEARCH_RATIO, rounded=places), of.facts(2), plan)
    pattern, expression, number = {
        "times": (wordings.SEARCH_TIMES, "#1 * $2", of.number(2, 3, 4, 5, 10, 12, 20)),
        "plus": (wordings.SEARCH_PLUS, "#1 + $2", of.number(100, 250, 1000, 5000, 12345)),
        "part": (
            wordings.SEARCH_PART,
            _rounded("#1 / $2", places),
            of.number(3, 7, 9, 11, 13, 60, 365),
        ),
    }[kind]
    plan = Plan((Need("figure", "$1"), Need("calculator", expression)))
    return Draft(_worded(pattern, rounded=places), (*of.facts(), number), plan)


def _code(of: Entities) -> Draft:
    run, program = Need("program", "$1"), of.program()
    kind = of.rng.random()
    if kind < 0.5:
        return Draft(wordings.CODE, (program,), Plan((run,)))
    if kind < 0.75:
        number = of.number(100, 250, 1000, 5000, 12345)
        plan = Plan((run, Need("calculator", "#1 + $2")))
        return Draft(wordings.CODE_PLUS, (program, number), plan)
    plan = Plan((run, Need("calculator", "#1 * $2")))
    return Draft(wordings.CODE_TIMES, (program, of.number(3, 4, 5, 7, 11)), plan)


_CONDITIONS: Final = ("i % 2 == 0", "i % 3 == 1", "i % 5 != 0", "i > 9", "i * i < 200")
_TERMS: Final = ("i", "i * i", "2 * i + 1", "i ** 3", "i % 7")


def _program(rng: random.Random) -> str:
    start = rng.randrange(1, 10)
    stop = start + rng.randrange(5, 40)
    term, condition = rng.choice(_TERMS), rng.choice(_CONDITIONS)
    of = f"[{term} for i in range({start}, {stop}) if {condition}]"
    return rng.choice((f"print(sum({of}))", f"print(len({of}))", f"print(max([1] + {of}))"))


FAMILIES: Final[Mapping[str, Callable[[Entities], Draft]]] = {
    "lookup": _lookup,
    "wide": _wide,
    "chain": _chain,
    "arithmetic": _arithmetic,
    "search": _search,
    "code": _code,
}

_PLACE: Final = re.compile(r"\$([\d*])")


def question(family: str, drawn: Set, rng: random.Random) -> Question:
    """A question of a family, as a set may ask it. Raises `Exhausted`."""
    of = Entities(drawn, rng)
    for _ in range(MAX_TRIES):
        draft = FAMILIES[family](of)
        wording = draw(draft.pattern, rng)
        wording = wording[:1].upper() + wording[1:]
        if not drawn.admits("question", wordings.wording_key(wording)):
            continue
        said = _said(wording, draft.entities)
        if for_tests(said) == drawn.tested and _marked(said, draft.entities):
            entities, plan = _in_order(said, draft.entities, draft.plan)
            return Question(family, said, entities, plan, wording)
    raise Exhausted(f"the set {drawn.name!r} has no question of the family {family!r}")


def _said(wording: str, entities: Sequence[str]) -> str:
    listed = entities[0]
    if len(entities) > 1:
        listed = f"{', '.join(entities[:-1])} and {entities[-1]}"
    return _PLACE.sub(
        lambda match: listed if match[1] == "*" else entities[int(match[1]) - 1], wording
    )


def _marked(text: str, entities: Sequence[str]) -> bool:
    """Whether each entity stands in the text just once, so that it can be told where it stands."""
    return all(text.count(entity) == 1 for entity in entities)


def _in_order(text: str, entities: Sequence[str], plan: Plan) -> tuple[tuple[str, ...], Plan]:
    """The entities as they come in the text, and the plan by those numbers."""
    order = sorted(range(len(entities)), key=lambda index: text.index(entities[index]))
    place = {str(old + 1): str(new + 1) for new, old in enumerate(order)}
    needs = tuple(
        Need(need.role, _PLACE.sub(lambda match: f"${place[match[1]]}", need.text))
        for need in plan.needs
    )
    return tuple(entities[index] for index in order), Plan(needs, plan.listed)
