"""The configuration: layers, origins, and errors that name the place."""

from pathlib import Path
from typing import Any

import pytest

from podium.config import BudgetTable, Config, load
from podium.daemon import connection
from protocol.budgets import Budget
from protocol.errors import NotFound, Usage

ROLES = ("conductor", "worker", "client", "system")


def test_each_layer_overrides_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "podium.toml").write_text(
        'policy = "rules"\nlease_s = 20\n[nats]\nurl = "nats://file"\n[budget]\nrounds = 3\n'
    )
    environment = {"PODIUM_NATS__URL": "nats://env", "PODIUM_BUDGET__COST_USD": "0.5"}
    loaded = load(
        tmp_path, environment, {"nats.url": "nats://flag", "pool": None, "ray.address": ""}
    )
    assert loaded.config.nats.url == "nats://flag"
    assert loaded.config.budget == BudgetTable(rounds=3, cost_usd=0.5)
    assert loaded.config.lease_s == 20
    assert loaded.config.durability == "process"
    origins = loaded.origins
    assert origins["nats.url"] == "flag"
    assert origins["budget.cost_usd"] == "PODIUM_BUDGET__COST_USD"
    assert origins["budget.rounds"] == str(tmp_path / "podium.toml")
    assert origins["durability"] == origins["pool"] == origins["ray.address"] == "default"


def test_without_anything_there_are_defaults(tmp_path: Path) -> None:
    assert load(tmp_path, {}).config == Config()


def test_the_file_can_be_named(tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("shards = 4")
    assert load(tmp_path, {"PODIUM_CONFIG": str(other)}).config.shards == 4
    with pytest.raises(NotFound, match=r"no such\.toml"):
        load(tmp_path, {"PODIUM_CONFIG": str(tmp_path / "no such.toml")})


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("colour = 1", "unknown field `colour`", "nats, ray, budget"),
        ('[nats]\nurk = "x"', "unknown field `urk` - at `$.nats`", "url, credentials"),
        ("shards = 0", "Expected `int` >= 1 - at `$.shards`", "Change that value"),
        ('shards = "2"', "got `str` - at `$.shards`", "Change that value"),
        ('durability = "hope"', "'hope' - at `$.durability`", "Change that value"),
        ("lease_s = 1.9", "Expected `float` >= 2.0 - at `$.lease_s`", "Change that value"),
        ("lease_s = 30.0", "Expected `float` <= 20.0 - at `$.lease_s`", "Change that value"),
        ("[nats", "podium.toml can't be read: ", "line"),
    ],
)
def test_a_wrong_file_is_told_by_its_place(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    (tmp_path / "podium.toml").write_text(text)
    with pytest.raises(Usage) as caught:
        load(tmp_path, {})
    assert "podium.toml" in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PODIUM_NATS__URK": "x"}, "PODIUM_NATS__URK: Object contains unknown field `urk`"),
        ({"PODIUM_COLOUR": "x"}, "PODIUM_COLOUR: Object contains unknown field `colour`"),
        ({"PODIUM_SHARDS": "many"}, "PODIUM_SHARDS: Expected `int`, got `str`"),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(Usage) as caught:
        load(tmp_path, environment)
    assert message in caught.value.message


def test_a_variable_of_a_tool_is_no_configuration(tmp_path: Path) -> None:
    assert load(tmp_path, {"PODIUM_DOCUMENTS": "/books"}).config == Config()


@pytest.mark.parametrize(("path", "value"), [("shards", "x"), ("durability", "hope")])
def test_a_wrong_flag_is_told(tmp_path: Path, path: str, value: Any) -> None:
    with pytest.raises(Usage, match=f"flag for {path}"):
        load(tmp_path, {}, {path: value})


def test_a_budget_keeps_what_is_not_given() -> None:
    given = BudgetTable(rounds=2, cost_usd=0.25, wall_s=1.5, on_limit="pause")
    budget = given.over(Budget(calls=7))
    assert (budget.rounds, budget.calls, budget.cost) == (2, 7, 250_000)
    assert (budget.wall_ms, budget.on_limit, budget.tokens) == (1_500, "pause", Budget().tokens)


def test_each_role_has_its_own_credentials_or_the_common_ones(tmp_path: Path) -> None:
    (tmp_path / "podium.toml").write_text(
        '[nats]\nurl = "nats://x"\ncredentials = "c"\nclient_credentials = "u"\n'
        'system_credentials = "s"\n'
    )
    config = load(tmp_path, {}).config
    used = {role: connection(config, None, role).credentials for role in ROLES}
    assert used == {"conductor": "c", "worker": "c", "client": "u", "system": "s"}


def test_a_pattern_that_is_none_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "podium.toml").write_text("[redact]\npatterns = ['ok+', '(']\n")
    with pytest.raises(Usage, match=r"podium.toml: redact.patterns\[1\]: '\(' is no regular"):
        load(tmp_path, {})


def test_variables_that_hold_secrets_configure_nothing(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"PODIUM_SECRET_DB": "x", "PODIUM_SECRETS__PATH": "here"})
    assert loaded.config.secrets.path == "here"
    assert "x" not in str(loaded)
