"""What workers are called and what is said of them: hundreds of wordings for each kind.

A description is a core ("head count of a nation") in a frame ("looks up the …", "…, beta"). What
is held out is cores: a core that is kept for tests never stands in any frame that is trained on.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Final

from trainer.gym.grammar import draw, every

_LAND: Final = "[country|nation|state|land|sovereign state]"
_TOWN: Final = "[city|town|place|settlement|urban area]"

_OF: Final = "[of|for] [a|any|one]"

CORES: Final[Mapping[str, str]] = {
    "country.population": f"[population|number of [people|inhabitants|residents|citizens]|"
    f"inhabitants|total population|population [count|figure|size]|people count] {_OF} {_LAND}",
    "country.area": f"[area|surface|size|land area|surface area|total area|area in km2|extent|"
    f"square kilometres|territory size] {_OF} {_LAND}",
    "country.capital": f"[capital|capital city|seat of government|main city|national capital|"
    f"name of the capital|capital's name|chief city] {_OF} {_LAND}",
    "country.continent": f"[continent|continent name|part of the world|world region|"
    f"name of the continent|continental region|which continent] {_OF} {_LAND}",
    "country.currency": f"[currency|money|legal tender|official currency|currency name|"
    f"name of the money|national currency|coin and money] {_OF} {_LAND}",
    "country.calling_code": f"[calling code|phone code|dialling code|telephone prefix|"
    f"phone prefix|international prefix|country calling code|dial prefix] {_OF} {_LAND}",
    "country.internet_domain": f"[internet domain|web domain|top level domain|domain ending|"
    f"web suffix|internet suffix|domain suffix|site ending] {_OF} {_LAND}",
    "country.iso_code": f"[iso code|two letter code|iso abbreviation|country code|alpha-2 code|"
    f"standard code|short code|iso letters] {_OF} {_LAND}",
    "city.population": f"[population|number of [people|inhabitants|residents|citizens]|"
    f"inhabitants|total population|population [count|figure|size]|people count] {_OF} {_TOWN}",
    "city.country": f"[country|nation|home country|state|land|country name|"
    f"which country] [of|for|around] [a|any|one] {_TOWN}",
    "city.timezone": f"[time zone|timezone|clock zone|local time zone|zone of the clock|"
    f"time region|iana time zone|clock region] {_OF} {_TOWN}",
    "calculator": "[arithmetic|sums|calculations|maths|number crunching|formulas|"
    "expressions|mathematics|computing with numbers|plus minus times divide] "
    "[on|with|over|for] [numbers|figures|values|any expression|an expression|given numbers]",
    "figure": "[figure|number|measurement|quantity|numeric fact|measured value|statistic] "
    "[from|in|out of|found in] [documents|the documents|articles|the library|texts|"
    "reference texts|an encyclopedia]",
    "program": "[output|result|printout|outcome] [of|from] "
    "[code|a program|python code|a script|a snippet|python|a python program|running code]",
    "country": f"[any fact|a fact|facts|some fact|one of many facts|details|data|"
    f"population, area, capital and more|all sorts of facts|named facts] {_OF} {_LAND}",
    "city": f"[any fact|a fact|facts|some fact|one of many facts|details|data|"
    f"population, country and time zone|all sorts of facts|named facts] {_OF} {_TOWN}",
    "anything": "[any job|every job|all jobs|anything|everything|all tasks|every task|"
    "all purpose|whatever is asked|any request] "
    "[by an expert|by a large model|by a big model|by a strong agent|at a high price|"
    "done by the best|by a general agent|by a premium agent|for a high price]",
}
"""Patterns of the cores, by kind."""

UNSEEN: Final[Mapping[str, tuple[str, ...]]] = {
    "country.population": ("demographic headcount of a realm", "how populous a republic is"),
    "country.area": ("hectares spanned by a realm", "expanse of a republic"),
    "country.capital": ("metropolis governing a realm", "administrative centre of a republic"),
    "country.continent": ("landmass hosting a realm", "hemispheric bloc of a republic"),
    "country.currency": ("banknotes circulating in a realm", "monetary unit of a republic"),
    "country.calling_code": ("digits to ring a realm", "telecom trunk numeral of a republic"),
    "country.internet_domain": ("url tail of a realm", "dns label of a republic"),
    "country.iso_code": ("bigram denoting a realm", "3166 symbol of a republic"),
    "city.population": ("headcount of a municipality", "how populous a borough is"),
    "city.country": ("realm enclosing a municipality", "republic owning a borough"),
    "city.timezone": ("utc offset label of a municipality", "horological label of a borough"),
    "calculator": ("algebra engine", "abacus evaluating terms"),
    "figure": ("magnitude mined amid prose", "datum quoted by essays"),
    "program": ("interpreter executing source", "stdout after evaluation"),
    "country": ("almanac about realms", "gazetteer entries on republics"),
    "city": ("almanac about municipalities", "gazetteer entries on boroughs"),
    "anything": ("omniscient polymath", "universal solver, costly"),
}
"""Cores of words that no training set has."""

FRAME: Final = "[|||gives |finds |looks up |tells |returns |reports |knows ][|||the ]"
"""What stands before a core."""

FLAKY: Final = "[beta|may fail|experimental|unstable|not always up|best effort|on trial]"
"""What is said of most workers that fail often."""

STEADY: Final = "[|||||reliable|steady|checked|tested|official]"
"""What is said of some that don't."""

_ADJECTIVE: Final = (
    "[amber|bold|brisk|calm|clear|cobalt|copper|crisp|dusty|early|fair|fleet|fresh|gentle|golden|"
    "grand|green|humble|ivory|keen|late|light|lucky|mellow|misty|noble|north|olive|plain|prime|"
    "quiet|rapid|red|round|silver|sly|soft|south|stone|sunny|swift|tidy|violet|warm|wild|wise]"
)
_NOUN: Final = (
    "[acorn|anchor|badger|beacon|birch|bridge|brook|canyon|cedar|comet|crane|delta|ember|falcon|"
    "fern|finch|fjord|fox|garnet|harbor|hawk|heron|hill|ibis|jade|kite|lark|lynx|maple|meadow|"
    "mole|moss|oak|orchid|otter|owl|pearl|pine|quartz|raven|reef|robin|sage|sparrow|tern|willow]"
)
_PERSON: Final = (
    "[ada|alma|boris|carla|dina|egon|fritz|gina|hugo|ines|ivan|jana|karl|lena|luis|mara|nils|nora|"
    "olga|otto|paul|petra|rosa|sven|tara|tom|ulla|vera|will|yara|zoe]"
)
_DIGIT: Final = "[1|2|3|4|5|6|7|8|9]"

NAMES: Final = (
    f"[{_ADJECTIVE}-{_NOUN}|{_NOUN}_{_DIGIT}|{_PERSON}-{_DIGIT}{_DIGIT}|{_ADJECTIVE}{_DIGIT}|"
    f"{_PERSON}_{_NOUN}]"
)
"""Names that say nothing of what a worker does."""

UNSEEN_NAMES: Final = (
    "[xylo|zephyr|bramble|cinder|dynamo|fathom|glacier|hazel|indigo|juniper]"
    "[|-[krill|lotus|mantis|nimbus|opal]][|-[one|two|three]]"
)

_LITTLE: Final = frozenset({"a", "any", "for", "of", "one", "the"})
"""Words that make no other description: "the area of one" is a twin of "area for any"."""


def core_key(core: str) -> str:
    """What of a core decides whether it is held out: its words but for the little ones."""
    return " ".join(word for word in core.split() if word not in _LITTLE)


def keys(kind: str) -> set[str]:
    """All cores of a kind, by their keys."""
    return {core_key(core) for core in every(CORES[kind])}


def wordings(kind: str) -> Iterator[str]:
    """All descriptions of a kind, without what is said of how it works."""
    cores = set(every(CORES[kind]))
    for frame in sorted(set(every(FRAME))):
        yield from (frame + core for core in sorted(cores))


def description(core: str, rng: random.Random, *, warned: bool) -> str:
    """A core in a frame.

    Args:
        core: What the worker does.
        rng: Decides the frame.
        warned: Whether it is said that the worker often fails.
    """
    said = draw(FLAKY if warned else STEADY, rng)
    text = draw(FRAME, rng) + core
    return f"{text}, {said}" if said else text
