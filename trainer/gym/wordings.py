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
    f"[{ASK} the [population density|density of [people|the population]|crowdedness|"
    f"[people|inhabitants|residents] per [square kilometre|km2]] [of|in] $1ROUNDED{END}|"
    f"[How many people live on|People on] a square kilometre of $1ROUNDED{END}|"
    f"How [densely populated|crowded] is $1, in people per square kilometreROUNDED{END}]"
)
SHARE: Final = (
    f"[[What share|What percentage|How many percent] of the [people|inhabitants|population] of $1 "
    f"[live|reside] in [its|the] capitalROUNDED{END}|"
    f"{ASK} the [share|percentage] of [the people of $1|$1's people] who [live|reside] in "
    f"[its|the] capitalROUNDED{END}]"
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

SAID: Final = "[the figure for|the documented|the value of|the number given for] "
"""What stands before words to search for. Who is shown places for entities could not tell such
words from a number else."""

SEARCH: Final = (
    f"[{ASK} [||the |{SAID}|what the documents say of ]$1{END}|"
    f"[Search|Look in|Check] the documents[: | for | for the ]$1{END}|"
    f"[According to|By|Going by] the documents, [what is|give me|find] [|the ]$1{END}|"
    f"[Which figure|What] do the documents [give|have|state] for [|the ]$1{END}|"
    f"$1[, as documented|, by the documents|: what do the documents say]{END}]"
)
IT: Final = "[|it |that |the figure |the result ]"
SEARCH_TIMES: Final = (
    f"[{ASK} $2 times [||the |{SAID}]$1{END}|{ASK} {SAID}$1 [times|multiplied by] $2{END}|"
    f"[Search for|Look up|Find] [||the |{SAID}]$1 and multiply {IT}by $2{END}|"
    f"[Multiply] [||the |{SAID}]$1 by $2{END}|{ASK} [|the ]$1, times $2{END}|"
    f"$1: [what is it times $2|what is $2 times that|multiply it by $2]{END}]"
)
SEARCH_PLUS: Final = (
    f"[{ASK} [||the |{SAID}]$1 plus $2{END}|"
    f"[Search for|Look up|Find] [||the |{SAID}]$1 and add $2[| to it| to that| to the figure]{END}|"
    f"[Add] $2 to [||the |{SAID}]$1{END}|{ASK} $2 more than [||the |{SAID}]$1{END}|"
    f"$1: [what is it plus $2|what is $2 more than that|add $2 to it]{END}]"
)
SEARCH_PART: Final = (
    f"[{ASK} [||the |{SAID}]$1 divided by $2ROUNDED{END}|"
    f"[Search for|Look up|Find] [||the |{SAID}]$1 and divide {IT}by $2ROUNDED{END}|"
    f"[Divide] [||the |{SAID}]$1 by $2ROUNDED{END}|"
    f"{ASK} one of $2 equal parts of [||the |{SAID}]$1ROUNDED{END}|"
    f"$1: [what is it divided by $2|divide it by $2]ROUNDED{END}]"
)
SEARCH_RATIO: Final = (
    f"[{ASK} [||the |{SAID}]$1 [divided by|over] {SAID}$2ROUNDED{END}|"
    f"[Divide] [||the |{SAID}]$1 by {SAID}$2ROUNDED{END}|"
    f"[Search for|Look up|Find] [|the ]$1 and divide {IT}by {SAID}$2ROUNDED{END}|"
    f"{ASK} the ratio of [||the |{SAID}]$1 to [||the |{SAID}]$2ROUNDED{END}]"
)

CODE: Final = (
    f"[{ASK} the [output|result|printout] of: $1|[Run|Execute|Evaluate] [this|this code|"
    "this program|the program|this Python]: $1|What does [this|this code|this program|"
    "this Python] [print|give|output]: $1|[Output|Result] of [running|executing] $1|"
    "Run $1 and [give|tell] me [the output|what it prints]|What is printed by $1]"
)
CODE_PLUS: Final = (
    "[[Run|Execute|Evaluate] [this|this code|the program|this Python]: $1[ and|, then] add $2"
    "[| to it| to the output| to the result]|"
    f"{ASK} the [output|result|printout] of $1 plus $2|"
    "[Add] $2 to [what this|what this code|what the program] [prints|gives]: $1]"
)
CODE_TIMES: Final = (
    "[[Run|Execute|Evaluate] [this|this code|the program|this Python]: $1[ and|, then] multiply "
    "[|it |the output |the result ]by $2|"
    f"{ASK} the [output|result|printout] of $1 times $2|"
    "[Multiply] by $2 what [this|this code|the program] [prints|gives]: $1]"
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
