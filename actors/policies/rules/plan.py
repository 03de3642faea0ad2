"""Query to figures: what is known from the observations, and which calls are needed next.

Evaluation is lazy in depth and eager in breadth: whatever can be asked now is asked now, in one
round, and what depends on an answer follows in a later one. The same evaluation runs in every
round over what has been observed so far, so the policy keeps no state.
"""

import builtins
import json
import math
import re
from collections import defaultdict
from typing import Any, Final

import msgspec

from actors.policies.rules.names import with_article
from actors.policies.rules.tree import (
    CapitalOf,
    CountryOf,
    CountryWithCapital,
    Entity,
    Fact,
    Named,
    Number,
    Operation,
    Operator,
    Pick,
    PlaceKind,
    Property,
    Quantity,
    kind_of,
)
from protocol.actions import Json
from protocol.decisions import Observation, PlannedCall, View

MAX_TRIES: Final = 2
"""Calls of one kind with the same arguments: a second one only after a time-out or an
infrastructure fault."""

MAX_PROBLEM_CHARS: Final = 300
"""Characters of a worker's error that go into an answer."""

CITY_ONLY: Final = frozenset({"timezone", "coordinates"})
COUNTRY_ONLY: Final = frozenset(
    {
        "area",
        "density",
        "capital",
        "continent",
        "currency",
        "neighbours",
        "calling_code",
        "internet_domain",
        "iso_code",
    }
)

SUPERLATIVES: Final = {
    "population": ("the most people", "the fewest people"),
    "area": ("the largest area", "the smallest area"),
    "density": ("the most people per km²", "the fewest people per km²"),
}
"""By property: most, least."""

_PROPOSALS: Final = re.compile(r'"([^"]{1,100})"')
_EXCEPTION: Final = re.compile(r"^(?:[\w.]*(?:Error|Exception|Unknown)\w*:\s*)+")


class Place(msgspec.Struct, frozen=True):
    """A place that has been found, or one whose name is all that is needed."""

    name: str
    kind: PlaceKind
    within: str = ""
    """The country of a city, where known."""
    aside: str = ""
    """How it was come by: "the capital of Japan"."""


class Found(msgspec.Struct, frozen=True):
    """A fact with its value."""

    place: Place
    property: Property
    value: Json
    code: str = ""
    """A currency's."""

    @builtins.property
    def number(self) -> int | float | None:
        """The value, if it is a number that can be calculated with."""
        return as_number(self.value)


def as_number(value: Json) -> int | float | None:
    """A finite number, or None. True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


class _Miss(Exception):
    """A call failed for good."""

    def __init__(self, text: str, unknown: bool, proposals: list[str]) -> None:
        super().__init__(text)
        self.text = text
        self.unknown = unknown
        self.proposals = proposals


def _key(worker: str, arguments: dict[str, Json]) -> str:
    return json.dumps([worker, arguments], sort_keys=True, default=str)


class Plan:
    """Evaluates against one view. Fills `needs` with calls, `problems` with what can't be had."""

    def __init__(self, view: View) -> None:
        self.needs: dict[str, PlannedCall] = {}
        """Calls to make now, by their key."""
        self.problems: dict[str, None] = {}
        """Sentences, each once, in order."""
        self.notes: dict[str, None] = {}
        """What a reader should know of the figures: which of several places, which spelling."""
        self.found: dict[str, Found] = {}
        """All facts that were found, for an answer that stays incomplete."""
        self._workers = {worker.name for worker in view.pool.workers}
        self._seen: dict[str, list[Observation]] = defaultdict(list)
        for turn in view.turns:
            for observation in turn.observations:
                call = observation.call
                self._seen[_key(call.worker, call.arguments)].append(observation)

    def ask(self, worker: str, **arguments: Json) -> Json:
        """The worker's value; None while it is awaited, or if there is a problem with it."""
        try:
            return self._call(worker, arguments)
        except _Miss as miss:
            self.problems[miss.text] = None
            return None

    def _call(self, worker: str, arguments: dict[str, Json]) -> Json:
        if worker not in self._workers:
            raise _Miss(f"The pool has no worker called {worker}.", False, [])
        key = _key(worker, arguments)
        seen = self._seen.get(key, [])
        for observation in seen:
            if observation.status == "OK":
                return observation.value
        if seen and (len(seen) >= MAX_TRIES or not _transient(seen[-1])):
            raise _failure(worker, seen[-1])
        self.needs[key] = PlannedCall(worker=worker, arguments=arguments)
        return None

    def _fields(self, worker: str, arguments: dict[str, Json]) -> dict[str, Any] | None:
        """The result of a look-up, or None while it is awaited."""
        value = self._call(worker, arguments)
        key = _key(worker, arguments)
        if value is None and key in self.needs:
            return None
        if not isinstance(value, dict) or "value" not in value:
            raise _Miss(f"The worker {worker} gave a result that has no value.", False, [])
        if isinstance(value.get("note"), str):
            self.notes[value["note"].rstrip(".") + "."] = None
        return value

    def _look_up(self, worker: str, arguments: dict[str, Json]) -> dict[str, Any] | None:
        """A look-up that mends a misspelt name if exactly one close one is proposed."""
        try:
            return self._fields(worker, arguments)
        except _Miss as miss:
            return self._mended(worker, arguments, miss)

    def _mended(
        self, worker: str, arguments: dict[str, Json], miss: _Miss
    ) -> dict[str, Any] | None:
        name = arguments.get("name")
        if not miss.unknown or len(miss.proposals) != 1 or miss.proposals[0] == name:
            raise miss
        fields = self._fields(worker, arguments | {"name": miss.proposals[0]})
        if fields is not None:
            self.notes[f'I read "{name}" as {miss.proposals[0]}.'] = None
        return fields

    def place(self, entity: Entity) -> Place | None:
        """The place that an entity means; None while it is awaited, or can't be found."""
        match entity:
            case Named(name=name, kind=kind, within=within):
                return Place(name, kind, within, f"in {within}" if within else "")
            case CapitalOf(country=country):
                found = self.fact(Fact(country, "capital"))
                if found is None:
                    return None
                home = found.place
                return Place(_text(found.value), "city", home.name, f"the capital of {the(home)}")
            case CountryOf(city=city):
                found = self.fact(Fact(city, "country"))
                if found is None:
                    return None
                return Place(_text(found.value), "country", "", f"where {found.place.name} is")
            case CountryWithCapital(capital=capital):
                return self._with_capital(capital)
            case Pick():
                return self._picked(entity)

    def _with_capital(self, capital: str) -> Place | None:
        try:
            fields = self._look_up("city", {"name": capital, "fact": "capital_of"})
        except _Miss as miss:
            self.problems[miss.text] = None
            return None
        if fields is None:
            return None
        name = _text(fields.get("city", capital))
        return Place(_text(fields["value"]), "country", "", f"whose capital is {name}")

    def _picked(self, pick: Pick) -> Place | None:
        found = self.facts(pick.facts)
        if found is None:
            return None
        numbers = [one.number or 0 for one in found]
        best = max(numbers) if pick.largest else min(numbers)
        winner = found[numbers.index(best)].place
        superlative = SUPERLATIVES[pick.facts[0].property][0 if pick.largest else 1]
        names = ", ".join(one.place.name for one in found)
        aside = f"with {superlative} of {names}"
        return Place(
            winner.name,
            kind_of(pick) if winner.kind == "either" else winner.kind,
            winner.within,
            aside,
        )

    def facts(self, facts: tuple[Fact, ...]) -> list[Found] | None:
        """All of them, as numbers; None if one is missing. All are asked for at once."""
        found = [self.fact(fact) for fact in facts]
        known = [one for one in found if one is not None]
        for one in known:
            if one.number is None:
                self.problems[f"The {one.property} of {one.place.name} came as no number."] = None
        complete = len(known) == len(facts) and all(one.number is not None for one in known)
        return known if complete else None

    def fact(self, fact: Fact) -> Found | None:
        """A property of a place; None while it is awaited, or can't be had."""
        if fact.property == "density":
            return self._density(fact.entity)
        place = self.place(fact.entity)
        if place is None:
            return None
        try:
            found = self._fact_of(place, fact.property)
        except _Miss as miss:
            self.problems[miss.text] = None
            return None
        if found is not None:
            self.found.setdefault(_key(found.place.name, {"p": found.property}), found)
        return found

    def _density(self, entity: Entity) -> Found | None:
        if isinstance(entity, Named) and entity.kind == "either":
            # Only countries have an area, and people and area have to be of one and the same place.
            entity = msgspec.structs.replace(entity, kind="country")
        # Both are asked for before either is looked at, so that they go out in one round.
        people = self.fact(Fact(entity, "population"))
        area = self.fact(Fact(entity, "area"))
        if people is None or area is None or people.number is None or area.number is None:
            return None
        value = self.calculate(f"{people.number} / {area.number}")
        return None if value is None else Found(area.place, "density", value)

    def _fact_of(self, place: Place, name: Property) -> Found | None:
        if place.kind == "country" and name in CITY_ONLY:
            text = f"The {_spaced(name)} of {the(place)} is not known: only cities have one here."
            raise _Miss(text, False, [])
        if place.kind == "country":
            if name == "country":
                return Found(place, name, place.name)
            return self._of_country(place, name)
        if name in COUNTRY_ONLY:
            return self._of_a_city_s_country(place, name)
        if place.kind == "city":
            return self._of_city(place, name)
        return self._of_either(place, name)

    def _of_country(self, place: Place, name: Property) -> Found | None:
        fields = self._look_up("country", {"name": place.name, "fact": name})
        if fields is None:
            return None
        called = _text(fields.get("country", place.name))
        return Found(
            msgspec.structs.replace(place, name=called, kind="country"),
            name,
            fields["value"],
            _text(fields.get("code", "")),
        )

    def _of_city(self, place: Place, name: Property) -> Found | None:
        arguments: dict[str, Json] = {"name": place.name, "fact": name}
        if place.within:
            arguments["country"] = place.within
        fields = self._look_up("city", arguments)
        if fields is None:
            return None
        within = _text(fields.get("country", place.within))
        called = _text(fields.get("city", place.name))
        return Found(
            msgspec.structs.replace(place, name=called, kind="city", within=within),
            name,
            fields["value"],
        )

    def _of_either(self, place: Place, name: Property) -> Found | None:
        """Ask for a city first: most names that the policy does not know are cities."""
        arguments = {"name": place.name, "fact": name}
        try:
            fields = self._fields("city", arguments)
        except _Miss as miss:
            if not miss.unknown and "city" in self._workers:
                raise
            return self._country_instead(place, name, miss)
        return self._of_city(place, name) if fields is not None else None

    def _country_instead(self, place: Place, name: Property, city: _Miss) -> Found | None:
        if name in CITY_ONLY or name == "country":
            return self._mended_place(place, name, city, None)
        try:
            self._fields("country", {"name": place.name, "fact": name})
        except _Miss as miss:
            if not miss.unknown:  # it failed otherwise: nothing is known of the name
                raise
            return self._mended_place(place, name, city, miss)
        return self._of_country(place, name)

    def _mended_place(
        self, place: Place, name: Property, city: _Miss, country: _Miss | None
    ) -> Found | None:
        """Neither a city nor a country: the one close name, if it is one."""
        towns, lands = city.proposals, country.proposals if country else []
        if len(towns) + len(lands) != 1:
            both = f'"{place.name}" is not known, neither as a city nor as a country.'
            close = [f'"{proposal}"' for proposal in (*lands, *towns)]
            text = f"{both} Did you mean {' or '.join(close)}?" if close else both
            raise _Miss(text if country else city.text, True, [])
        return self._of_country(place, name) if lands else self._of_city(place, name)

    def _of_a_city_s_country(self, place: Place, name: Property) -> Found | None:
        """What only countries have, asked of a name that is a city's, or may be: its country's."""
        if place.kind == "either":
            try:
                fields = self._fields("country", {"name": place.name, "fact": name})
            except _Miss as miss:
                if not miss.unknown:
                    raise
                unknown = miss
            else:
                return self._of_country(place, name) if fields is not None else None
            try:
                home = self._fields("city", {"name": place.name, "fact": "country"})
            except _Miss as miss:
                return self._mended_place(place, name, _Miss(miss.text, True, []), unknown)
        else:
            located = self._of_city(place, "country")
            home = {"value": located.value} if located is not None else None
        if home is None:
            return None
        if name in {"area", "density", "capital"}:
            text = f"The {name} of {place.name} is not known: it is a city, in {home['value']}."
            raise _Miss(text, False, [])
        owner = Place(_text(home["value"]), "country", "", f"where {place.name} is")
        return self._of_country(owner, name)

    def calculate(self, expression: str) -> int | float | str | None:
        """The calculator's value; a text for an integer that is too long for JSON."""
        value = self.ask("calculator", expression=expression)
        result = value.get("value") if isinstance(value, dict) else None
        number = as_number(result)
        if number is not None:
            return number
        if isinstance(result, str) and re.fullmatch(r"-?\d+", result):
            return result
        if value is not None:
            self.problems["The calculator gave a result that is no number."] = None
        return None

    def expression(self, quantity: Quantity) -> str | None:
        """The quantity as the calculator reads it; None if a figure is missing."""
        match quantity:
            case Number(text=text):
                return text
            case Fact():
                found = self.facts((quantity,))
                return None if found is None else str(found[0].number)
            case Operation(operator=operator, operands=operands):
                parts = [self.expression(operand) for operand in operands]
                known = [part for part in parts if part is not None]
                return _written(operator, known) if len(known) == len(parts) else None


def _written(operator: Operator, parts: list[str]) -> str:
    match operator:
        case "sum":
            return " + ".join(parts)
        case "average":
            return f"({' + '.join(parts)}) / {len(parts)}"
        case "difference":
            return f"abs({parts[0]} - {parts[1]})"
        case "percent":
            return f"100 * ({parts[0]}) / ({parts[1]})"
        case "sqrt" | "min" | "max":
            return f"{operator}({', '.join(parts)})"
    # A compound operand keeps its own parentheses, a number needs none.
    inner = [part if re.fullmatch(r"[\d.]+", part) else f"({part})" for part in parts]
    return f" {operator} ".join(inner)


def _transient(observation: Observation) -> bool:
    return observation.status == "TIMEOUT" or observation.fault == "infrastructure"


def _failure(worker: str, observation: Observation) -> _Miss:
    text = " ".join(str(observation.value or "").split())
    text = _EXCEPTION.sub("", text)[:MAX_PROBLEM_CHARS]
    if observation.status == "TIMEOUT":
        text = f"The worker {worker} did not answer in time."
    elif observation.fault == "infrastructure":
        text = f"The worker {worker} could not be reached: {text or 'no reason was given'}"
    else:
        text = text or f"The worker {worker} failed and gave no reason."
    _, said, proposed = text.partition("Did you mean ")
    proposals = list(dict.fromkeys(_PROPOSALS.findall(proposed))) if said else []
    unknown = observation.status == "EXEC_ERR" and bool(
        proposals or re.match(r"No (?:city|country)\b", text)
    )
    return _Miss(text if text[-1] in ".?!" else f"{text}.", unknown, proposals)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _spaced(name: str) -> str:
    return {"timezone": "time zone"}.get(name, name.replace("_", " "))


def the(place: Place) -> str:
    """A place's name inside a sentence."""
    return with_article(place.name) if place.kind == "country" else place.name
