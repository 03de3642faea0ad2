"""A model of ours in a pool file or a flag: what is recorded of it, hosted, and refused."""

import asyncio
from pathlib import Path

import pytest

from actors import policies
from actors.models.serving import Batching
from actors.policies.local import options_of
from actors.programs import need_hosted
from podium import poolcheck, poolfile
from podium.config import Config
from podium.daemon import Asked
from podium.declared import actors_of
from podium.policyfile import chosen, hosted, policy_spec
from protocol.actions import Pool, Spend
from protocol.decisions import PolicySpec
from protocol.errors import Denied, NotFound, Usage
from tests.unit.test_policyfile import declared, load, spec


def test_a_model_with_everything_said(tmp_path: Path) -> None:
    made = spec(
        tmp_path,
        """name = "local:models/small"
        dialect = "lists"
        system = "You lead."
        temperature = 0.7
        top_p = 0.9
        top_k = 40
        seed = 3
        max_tokens = 200
        timeout_s = 30
        template = { enable_thinking = false }
        batching = { rows = 8, device = "cpu", dtype = "bfloat16" }
        """,
    )
    options = options_of(made)
    assert (made.name, made.dialect, made.naming) == ("local:small", "lists", "numbers")
    assert (made.system, made.timeout_ms) == ("You lead.", 30_000)
    assert made.reserve == Spend(tokens=16_200)
    assert options.folder == str(tmp_path / "models" / "small")
    assert (options.temperature, options.top_p, options.top_k, options.seed) == (0.7, 0.9, 40, 3)
    assert options.template == {"enable_thinking": False}
    assert options.batching == Batching(rows=8, device="cpu", dtype="bfloat16")


def test_a_model_is_named_in_the_pool_by_its_folder_alone(tmp_path: Path) -> None:
    path = tmp_path / "pool.toml"
    path.write_text('[pool]\npolicy = "local:small"\n[[worker]]\nname = "p"\nadapter = "python"\n')
    loaded = poolfile.load(path)
    assert loaded.policy == "local:small"
    assert loaded.spec is not None
    assert (loaded.spec.dialect, loaded.spec.options) == (
        "hermes",
        {"folder": str(tmp_path / "small")},
    )
    assert chosen("", loaded.policy, loaded.spec) is loaded.spec
    assert policy_spec("written:scribe:local:a/small").name == "written:scribe:local:small"


def test_a_flag_s_folder_is_where_the_command_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = policy_spec("local:../small")
    assert options_of(made).folder == str(tmp_path.parent / "small")
    assert hosted("local:../small", "rules", None) == (made,)
    assert hosted("", "rules", None) == hosted("openai:m", "rules", None) == ()
    assert hosted("local:small", "local:small", made) == ()


@pytest.mark.parametrize(
    ("table", "wrong"),
    [
        ('name = "local:m"\ndialect = "openai"', "no native tool calls"),
        ('name = "local:m"\nbase_url = "http://x"', "base_url is nothing of the policy"),
        ('name = "local:m"\nbatching = { rows = 0 }', "batching: Expected `int` >= 1"),
        ('name = "local:m"\nbatching = { row = 1 }', "batching: unknown: row"),
        ('name = "openai:m"\ntop_p = 0.5', "top_p is nothing of the policy"),
        ('name = "rules"\nseed = 1', "seed is nothing of the policy"),
        ('name = "local:"', "there is no policy"),
        ('name = "local:m"\ntop_p = 0', "Expected `float` > 0"),
        ('name = "written:python:local:m"\ndialect = "lists"', "has a worker write the answer"),
    ],
)
def test_slips_are_named(tmp_path: Path, table: str, wrong: str) -> None:
    with pytest.raises(Usage) as caught:
        load(tmp_path, table)
    assert wrong in caught.value.message


def ours(folder: str, **options: object) -> PolicySpec:
    return PolicySpec(name="local:m", dialect="hermes", options={"folder": folder, **options})


def test_a_conductor_asks_only_models_that_its_deployment_hosts() -> None:
    need_hosted(declared(ours("/mine")), ours("/mine", temperature=0.2))
    with pytest.raises(Denied) as caught:
        need_hosted(declared(ours("/mine")), ours("/etc"))
    assert "does not ask policy 'local:m' in /etc" in caught.value.message
    assert str(policies.place(ours("/mine"))) == "in /mine"


def test_each_folder_has_one_process_with_a_conductor_s_rights() -> None:
    from actors.programs import Connection

    asked = Asked(
        config=Config(),
        pool_name="p",
        pool=Pool(()),
        spec=ours("/a", batching={"rows": 4}),
        endpoints=(ours("/b"), ours("/a"), PolicySpec(name="openai:m", dialect="openai")),
        tied=True,
    )
    made = actors_of(asked, [], lambda role: Connection(url=f"nats://{role}"), {})
    assert [each.name for each in made] == ["conductor-1", "model-1", "model-2"]
    assert {each.connection.url for each in made} == {"nats://conductor"}
    assert [each.endpoints[0].options for each in made[1:]] == [
        {"folder": "/a", "batching": {"rows": 4}},
        {"folder": "/b"},
    ]
    assert len(made[0].endpoints) == 4


def test_a_folder_without_a_model_is_told_before_anything_starts(tmp_path: Path) -> None:
    loaded = load(tmp_path, 'name = "local:none"')
    with pytest.raises(NotFound, match=r"no config\.json"):
        asyncio.run(poolcheck.preflight(loaded, loaded.policy))
    *_, found = asyncio.run(poolcheck.check(tmp_path / "pool.toml"))
    assert (found.worker, found.state) == ("(policy)", "failed")
    assert "no config.json" in found.found
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "config.json").write_text("{}")
    asyncio.run(poolcheck.preflight(loaded, loaded.policy))
    *_, found = asyncio.run(poolcheck.check(tmp_path / "pool.toml"))
    assert found.state == "failed", "but there is no weight in it"
    assert "has no weights" in found.found
