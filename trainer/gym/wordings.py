"""How things are asked: the patterns of which `questions` makes thousands of wordings.

``$1``, ``$2`` stand for a question's entities, and ``$*`` for a list of all of them.
"""

import re
from collections.abc import Mapping
from typing import Final

from trainer.gym.grammar import every

ASK: Final = (
    "[What is|What's|Tell me|Give me|Find|Find me|Look up|I need|Report|Show me|Get|Fetch|State|"
    "I want to know|I'd like|Can you tell me|Could you find|Please give me|Please find|"
    "Please look up|Do you know|Determine|Work out]"
)
"""What stands before that which is asked, with an article."""

END: Final = "[|?|.]"

NOUNS: Final[Mapping[str, str]] = {
    "country.population": "[population|number of [people|inhabitants|residents]|total population|"
    "population [count|figure|size]|head count]",
    "country.area": "[area|surface area|land area|total area|size in square kilometres|"
    "area in km2|surface in square kilometres|extent in km2]",
    "country.capital": "[capital|capital city|national capital|seat of government|"
    "name of the capital]",
    "country.continent": "[continent|part of the world|name of the continent|world region]",
    "country.currency": "[currency|official currency|money|name of the currency|legal tender]",
    "country.calling_code": "[calling code|phone code|dialling code|telephone prefix|phone prefix]",
    "country.internet_domain": "[internet domain|web domain|top level domain|domain ending|"
    "web suffix]",
    "country.iso_code": "[ISO code|two letter code|ISO abbreviation|alpha-2 code|country code]",
    "city.population": "[[city|town|urban] [population|head count|population figure]|"
    "number of [city dwellers|townspeople|people in the city]]",
    "capital.population": "[population|number of [people|inhabitants|residents]|total population|"
    "population [count|figure|size]|head count]",
    "city.country": "[country|home country|nation|name of the country]",
    "city.timezone": "[time zone|timezone|local time zone|clock zone|IANA time zone]",
}
"""What a role's value is called; the article stands before it. Of a city's people it is said that
they are a city's: who is shown places for the names could not know it else."""

ONE: Final = (
    f"[{ASK} the NOUN of THING{END}|THING: [what is its|its|give me its|find its] NOUN{END}|"
    f"[For|About] THING, [what is|give me|find|tell me|state] the NOUN{END}|"
    f"{ASK} THING's NOUN{END}|NOUN of THING{END}]"
)
"""One value of one thing."""

COUNTRY: Final = "[|||the country |the state of ]$1"
TOWN: Final = "[||the city of |the town of ]$1"
CAPITAL: Final = "[the capital of|the capital city of|the seat of government of] $1"
HOME: Final = (
    "[the country of|the country around|the country that has|the nation of|the home country of] $1"
)
HOME_CAPITAL: Final = "[the capital of|the capital city of] the [country|nation] [of|around] $1"

WIDE: Final[Mapping[str, str]] = {
    "sum": "[total|combined|summed|added up|overall]",
    "mean": "[average|mean]",
    "max": "[largest|highest|greatest|biggest]",
    "min": "[smallest|lowest|least]",
}
"""What is made of several values, by the calculator's function."""

MANY: Final = (
    f"[{ASK} the HOW NOUN of $*{END}|$*: [what is the|give me the|find the|the] HOW NOUN{END}|"
    f"[For|Of|Among] $*, [what is|give me|find|tell me|state] the HOW NOUN{END}|"
    f"HOW NOUN [of|among|across] $*{END}]"
)

EACH: Final = (
    f"[{ASK} the NOUN of each of $*{END}|$*: [what is the|give me the|list the|the] NOUN of each"
    f"{END}|[For|Of] each of $*, [give|find|tell me|state] the NOUN{END}|"
    f"[List|Name|Report] the NOUN of $*, in this order{END}|NOUN of $*, one by one{END}]"
)

ROUNDED: Final[Mapping[int, str]] = {
    1: "[, rounded to one decimal|, to one place|, to 1 decimal|, with one digit after the point]",
    2: "[, rounded to two decimals|, to two places|, to 2 decimals|, with two digits after the "
    "point]",
    3: "[, rounded to three decimals|, to three places|, to 3 decimals|, with three digits after "
    "the point]",
}

DIFFERENCE: Final = (
    f"[{ASK} the NOUN of $1 minus that of $2{END}|"
    f"[By how much|How much] is the NOUN of $1 [larger|greater|more] than that of $2{END}|"
    f"{ASK} the NOUN of $1 less the NOUN of $2{END}|"
    f"[Subtract|Take] the NOUN of $2 from that of $1{END}]"
)
RATIO: Final = (
    f"[{ASK} the NOUN of $1 [divided by|over] that of $2ROUNDED{END}|"
    f"How many times the NOUN of $2 is [that|the NOUN] of $1ROUNDED{END}|"
    f"{ASK} the ratio of the NOUN of $1 to that of $2ROUNDED{END}|"
    f"[Divide] the NOUN of $1 by that of $2ROUNDED{END}]"
)
PERCENT: Final = (
    f"[{ASK} the NOUN of $1 as a percentage of that of $2ROUNDED{END}|"
    f"[What|How many] percent of the NOUN of $2 is that of $1ROUNDED{END}|"
    f"{ASK} the percentage of the NOUN of $2 that $1 hasROUNDED{END}]"
)
DENSITY: Final = (
    f"[{ASK} the [population density|people per square kilometre|density of people|"
    f"inhabitants per km2|crowdedness] [of|in] $1ROUNDED{END}|"
    f"[How many people live on|People on] a square kilometre of $1ROUNDED{END}]"
)
SHARE: Final = (
    f"[What share|What percentage|How many percent] of the [people|inhabitants] of $1 "
    f"[live|lives] in its capitalROUNDED{END}"
)
TIMES: Final = (
    f"[{ASK} $2 times the NOUN of $1{END}|{ASK} the NOUN of $1 times $2{END}|"
    f"[Multiply] the NOUN of $1 by $2{END}]"
)
PLUS: Final = (
    f"[{ASK} the NOUN of $1 plus $2{END}|[Add] $2 to the NOUN of $1{END}|"
    f"{ASK} $2 more than the NOUN of $1{END}]"
)
PART: Final = (
    f"[{ASK} the NOUN of $1 divided by $2ROUNDED{END}|[Divide|Split] the NOUN of $1 by $2ROUNDED"
    f"{END}|{ASK} one of $2 equal parts of the NOUN of $1ROUNDED{END}]"
)

LOOKED_FOR: Final = "[|the figure for |the documented |the |what the documents say of ]$1"
SEARCH: Final = (
    f"[{ASK} {LOOKED_FOR}{END}|[Search|Look in] the documents[:|for|for the] $1{END}|"
    f"[According to|By] the documents, what is the $1{END}]"
)
SEARCH_TIMES: Final = (
    f"[{ASK} $2 times [|the ]$1{END}|[Search|Look up] $1 and multiply by $2{END}|"
    f"[Multiply] [|the ]$1 by $2{END}|{ASK} [|the ]$1, times $2{END}]"
)
SEARCH_PLUS: Final = (
    f"[{ASK} [|the ]$1 plus $2{END}|[Search|Look up] $1 and add $2{END}|"
    f"[Add] $2 to [|the ]$1{END}|{ASK} $2 more than [|the ]$1{END}]"
)
SEARCH_PART: Final = (
    f"[{ASK} [|the ]$1 divided by $2ROUNDED{END}|[Search|Look up] $1 and divide by $2ROUNDED{END}|"
    f"[Divide] [|the ]$1 by $2ROUNDED{END}]"
)
SECOND: Final = "[the figure for|the documented|the value of] $2"
SEARCH_RATIO: Final = (
    f"[{ASK} [|the ]$1 divided by {SECOND}ROUNDED{END}|[Divide] [|the ]$1 by {SECOND}ROUNDED"
    f"{END}|{ASK} the ratio of $1 to $2ROUNDED{END}]"
)
"""Who is shown places for entities could not know else whether the second is a number."""

CODE: Final = (
    f"[{ASK} the [output|result|printout] of: $1|[Run|Execute|Evaluate] [this|this code|"
    "this program|the program|this Python]: $1|What does [this|this code|this program|"
    "this Python] [print|give|output]: $1|[Output|Result] of [running|executing] $1]"
)
CODE_PLUS: Final = (
    "[[Run|Execute|Evaluate] [this|this code|the program]: $1 and add $2|"
    f"{ASK} the [output|result] of $1 plus $2|[Add] $2 to [what|whatever] this prints: $1]"
)
CODE_TIMES: Final = (
    "[[Run|Execute|Evaluate] [this|this code|the program]: $1 and multiply by $2|"
    f"{ASK} the [output|result] of $1 times $2|[Multiply] by $2 what this prints: $1]"
)

_WORD: Final = re.compile(r"\$[\d*]|[\w-]+")

_ASKING: Final = frozenset(word for said in every(ASK) for word in _WORD.findall(said.casefold()))

_LITTLE: Final = _ASKING | {
    *("a", "an", "the", "its", "it", "that", "each", "are", "is", "s", "list", "name"),
    *("about", "across", "among", "by", "for", "from", "in", "of"),
}
"""Words without which wordings are twins: both are held out, or neither is."""

_ROUNDINGS: Final = sorted(
    {said for pattern in ROUNDED.values() for said in every(pattern)}, key=len, reverse=True
)


def wording_key(wording: str) -> str:
    """What of a wording decides whether it is held out: its words, in their order.

    Verbs of asking, how it is to be rounded, little words, marks and capitals are no part of it.

    Args:
        wording: A text with places for entities.
    """
    for said in _ROUNDINGS:
        wording = wording.replace(said, "")
    words = _WORD.findall(wording.casefold())
    return " ".join(word for word in words if word not in _LITTLE)
