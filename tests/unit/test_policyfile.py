"""The ``[policy]`` table: what is recorded of a policy, and the cure for each slip."""

from pathlib import Path

import pytest

from actors.policies import ANYWHERE, Place, make, place
from actors.policies.openai import RESERVE, OpenAIPolicy
from actors.programs import Connection, Declared, need_hosted
from podium import poolcheck, poolfile
from podium.checks import check_plan, check_start
from podium.policyfile import chosen, policy_spec
from protocol.actions import Pool, Spend, WorkerSpec
from protocol.budgets import Budget
from protocol.commands import Start
from protocol.decisions import Decision, PolicySpec, Reply, Task, View
from protocol.errors import Denied, PodiumError, TooLarge, Usage
from protocol.subjects import run_id

WORKER = '[[worker]]\nname = "python"\nadapter = "python"\n'
PLAN = 'answer_from = "a"\n[[call]]\nid = "a"\nworker = "python"\narguments = {code = "{task}"}\n'


def load(folder: Path, policy: str, *, pool: str = "", budget: str = "") -> poolfile.LoadedPool:
    path = folder / "pool.toml"
    path.write_text(f"[pool]\n{pool}\n[policy]\n{policy}\n[budget]\n{budget}\n{WORKER}")
    return poolfile.load(path)


def spec(folder: Path, policy: str) -> PolicySpec:
    loaded = load(folder, policy)
    return chosen("", loaded.policy, loaded.spec)


def test_a_model_with_everything_said(tmp_path: Path) -> None:
    made = spec(
        tmp_path,
        """name = "openai:qwen3-4b"
        dialect = "hermes"
        naming = "numbers"
        system = "You lead."
        base_url = "http://127.0.0.1:8000/v1"
        api_key_env = "QWEN_KEY"
        temperature = 0.7
        max_tokens = 2000
        extra = { top_p = 0.9 }
        price_in = 1.0
        price_out = 2.0
        timeout_s = 30
        replan_on = "failure"
        """,
    )
    assert made == PolicySpec(
        name="openai:qwen3-4b",
        dialect="hermes",
        naming="numbers",
        system="You lead.",
        reserve=Spend(tokens=34_000, cost=36_000),
        timeout_ms=30_000,
        replan_on="failure",
        options={
            "base_url": "http://127.0.0.1:8000/v1",
            "api_key_env": "QWEN_KEY",
            "temperature": 0.7,
            "max_tokens": 2000,
            "price_in": 1.0,
            "price_out": 2.0,
            "extra": {"top_p": 0.9},
        },
    )


def test_a_name_alone_is_the_short_form(tmp_path: Path) -> None:
    assert spec(tmp_path, 'name = "openai:m"') == policy_spec("openai:m")
    assert policy_spec("openai:m").reserve == RESERVE
    assert spec(tmp_path, 'name = "rules"') == policy_spec("rules")


class Own:
    """A policy of a user's own, which calls itself as it likes."""

    spec = PolicySpec(name="my planner", replan_on="failure")

    def decide(self, _: View) -> Reply:
        """Answer at once."""
        return Reply(decision=Decision(answer="42"))


@pytest.mark.parametrize("before", ["", "written:python:"])
def test_a_policy_of_ones_own_is_found_again_whatever_it_calls_itself(before: str) -> None:
    name = f"{before}python:{__name__}:Own"
    found = policy_spec(name)
    assert (found.name, found.replan_on) == (name, "failure")
    assert before or isinstance(make(found), Own)


def test_lists_show_workers_by_number_unless_told_otherwise(tmp_path: Path) -> None:
    lists = 'name = "openai:m"\ndialect = "lists"\n'
    assert spec(tmp_path, lists).naming == "numbers"
    assert spec(tmp_path, lists + 'naming = "names"').naming == "names"


def test_the_reserve_may_be_said(tmp_path: Path) -> None:
    text = 'name = "openai:m"\nreserve_tokens = 7\nreserve_cost_usd = 0.5\n'
    assert spec(tmp_path, text).reserve == Spend(tokens=7, cost=500_000)


def test_a_command_that_names_the_pools_policy_means_its_table(tmp_path: Path) -> None:
    loaded = load(tmp_path, 'name = "openai:m"\ndialect = "hermes"')
    assert chosen("openai:m", loaded.policy, loaded.spec).dialect == "hermes"
    assert chosen("openai:other", loaded.policy, loaded.spec).dialect == "openai"


def test_a_plan_stands_beside_the_pool_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "look.toml").write_text(PLAN)
    plan = {
        "answer_from": "a",
        "call": [{"id": "a", "worker": "python", "arguments": {"code": "{task}"}}],
    }
    assert spec(tmp_path, 'name = "static:look.toml"') == PolicySpec(
        name="static:look", options={"plan": plan}
    )
    path = tmp_path / "short.toml"
    path.write_text(f'[pool]\npolicy = "static:look.toml"\n{WORKER}')
    assert poolfile.load(path).policy == "static:look"
    monkeypatch.chdir(tmp_path)
    assert policy_spec("static:look.toml").options == {"plan": plan}


def test_a_plan_may_be_json(tmp_path: Path) -> None:
    (tmp_path / "look.json").write_text(
        '{"name": "first", "answer": "{a.output}", "call": [{"id": "a", "worker": "python"}]}'
    )
    assert spec(tmp_path, 'name = "static:look.json"').name == "static:first"


def test_serial_is_one_call_at_a_time(tmp_path: Path) -> None:
    loaded = load(tmp_path, 'name = "rules"\nserial = true', budget="rounds = 3")
    assert loaded.budget.over(Budget()) == Budget(parallel=1, rounds=3)
    assert loaded.spec is None


def test_a_worker_may_write_the_answers_of_a_model_that_is_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scribe = '[[worker]]\nname = "scribe"\nadapter = "openai"\n[worker.options]\nmodel = "m"\n'
    path = tmp_path / "pool.toml"
    path.write_text(
        '[policy]\nname = "written:scribe:openai:m"\ndialect = "hermes"\napi_key_env = "MY_KEY"\n'
        + scribe
    )
    described = poolfile.load(path).spec
    assert described is not None
    assert (described.name, described.dialect) == ("written:scribe:openai:m", "hermes")
    assert place(described) == Place(None, "MY_KEY")
    monkeypatch.setenv("MY_KEY", "k")
    assert make(described).spec == described
    path.write_text('[policy]\nname = "written:scribe:openai:m"\ndialect = "lists"\n' + scribe)
    with pytest.raises(Usage) as caught:
        poolfile.load(path)
    assert "the last step does" in caught.value.message
    path.write_text(f'[policy]\nname = "written:nobody:openai:m"\n{scribe}')
    with pytest.raises(Usage) as caught:
        poolfile.load(path)
    assert "'nobody'" in caught.value.message


@pytest.mark.parametrize(
    ("policy", "why", "cure"),
    [
        ('nam = "rules"', "nam", "name"),
        ("", "name", ""),
        ('name = "chance"', "there is no policy 'chance'", "static:FILE"),
        ('name = "openai:"', "there is no policy 'openai:'", "openai:MODEL"),
        ('name = "chance"', "there is no policy 'chance'", "written:WORKER:"),
        ('name = "rules"\ndialect = "hermes"', "dialect is nothing of the policy 'rules'", "MODEL"),
        ('name = "static:gone.toml"', "gone.toml can't be read", "path"),
        ('name = "static:odd.toml"', "is no TOML", "Mend"),
        ('name = "static:odd.json"', "is no JSON", "Mend"),
        ('name = "static:empty.toml"', "it is no plan", "[[call]]"),
        ('name = "openai:m"\ndialect = "latin"', "latin", ""),
        ('name = "openai:m"\ntemperature = -1', "temperature", ""),
        ('name = "openai:m"\nextra = { tools = [] }', "extra has tools", "Take it out"),
        ('name = "openai:m"\nmax_tokens = 0', "max_tokens", ""),
        ('name = "openai:m"\nbase_url = "http://a:hunter2pass@h/v1"', "secret", "api_key_env"),
        ('name = "openai:m"\nsystem = "Key: sk-abcdefghijklmnopqrstuvwxyz123456"', "secret", "key"),
    ],
)
def test_what_is_wrong_with_a_table(tmp_path: Path, policy: str, why: str, cure: str) -> None:
    (tmp_path / "odd.toml").write_text("[[call")
    (tmp_path / "odd.json").write_text("[" * 30_000)
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(Usage) as caught:
        load(tmp_path, policy)
    assert str(tmp_path / "pool.toml") in caught.value.message
    assert why in caught.value.message
    assert cure in caught.value.hint


def test_a_policy_named_twice(tmp_path: Path) -> None:
    with pytest.raises(Usage) as caught:
        load(tmp_path, 'name = "rules"', pool='policy = "openai:m"')
    assert "named twice" in caught.value.message


def test_a_serial_policy_with_a_parallel_budget(tmp_path: Path) -> None:
    with pytest.raises(Usage) as caught:
        load(tmp_path, 'name = "rules"\nserial = true', budget="parallel = 4")
    assert "serial = true" in caught.value.message


def test_a_plan_beyond_the_limit(tmp_path: Path) -> None:
    (tmp_path / "long.toml").write_text(PLAN + "# " + "x" * 40_000)
    with pytest.raises(Usage) as caught:
        load(tmp_path, 'name = "static:long.toml"')
    assert "at most 32768" in caught.value.message


def test_a_policy_has_to_fit_into_the_first_commit(tmp_path: Path) -> None:
    pool = load(tmp_path, 'name = "rules"').pool
    policy = PolicySpec(name="rules", options={"x": "y" * 50_000})
    start = Start(
        run=run_id(bytes(8)), task=Task(text="?"), pool=pool, policy=policy, budget=Budget()
    )
    with pytest.raises(TooLarge) as caught:
        check_start(start)
    assert "the policy has" in caught.value.message


def test_a_plan_for_a_worker_that_there_is_not(tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text(PLAN.replace('"python"', '"nobody"'))
    loaded = load(tmp_path, 'name = "static:odd.toml"')
    assert loaded.spec is not None
    with pytest.raises(Usage) as caught:
        check_plan(loaded.spec, loaded.pool)
    assert "calls 'nobody'" in caught.value.message
    assert "The pool has: python." in caught.value.hint
    below = WorkerSpec(name="nobody", kind="conductor")
    with pytest.raises(Usage) as caught:
        check_plan(loaded.spec, Pool((below,)))
    assert "would follow the same plan" in caught.value.message


# ------------------------------------------------------------------------------------ the conductor


def declared(*endpoints: PolicySpec) -> Declared:
    return Declared(
        name="c",
        kind="conductor",
        connection=Connection(url="nats://127.0.0.1:1"),
        lease_s=10,
        endpoints=endpoints,
    )


def elsewhere(**options: str) -> PolicySpec:
    return PolicySpec(name="openai:m", dialect="openai", options=dict(options))


def test_a_conductor_sends_keys_only_where_its_deployment_says() -> None:
    mine = elsewhere(base_url="http://mine/v1", api_key_env="MY_KEY")
    need_hosted(declared(), elsewhere())
    need_hosted(declared(), policy_spec("rules"))
    need_hosted(declared(mine), mine)
    need_hosted(declared(mine), elsewhere())
    for other in (
        elsewhere(base_url="http://evil/v1"),
        elsewhere(api_key_env="PODIUM_SECRET_X"),
        elsewhere(base_url="http://evil/v1", api_key_env="MY_KEY"),
        elsewhere(base_url="http://mine/v1"),
    ):
        with pytest.raises(Denied) as caught:
            need_hosted(declared(mine), other)
        assert "start the deployment again" in caught.value.hint
        assert "with the key in" in caught.value.message


def test_where_a_policys_model_is() -> None:
    assert place(policy_spec("rules")) is None
    assert place(policy_spec("openai:m")) == ANYWHERE
    assert place(elsewhere(base_url="http://mine/v1")) == Place("http://mine/v1", "OPENAI_API_KEY")


def test_the_recorded_policy_is_made_with_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = spec(tmp_path, 'name = "openai:m"\napi_key_env = "MY_KEY"\nbase_url = "http://h/v1"')
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(Denied) as denied:
        make(recorded)
    assert "export MY_KEY" in denied.value.hint
    monkeypatch.setenv("MY_KEY", "k")
    made = make(recorded)
    assert isinstance(made, OpenAIPolicy)
    assert made.spec == recorded


def test_recorded_options_that_are_none() -> None:
    with pytest.raises(PodiumError) as caught:
        make(PolicySpec(name="openai:m", options={"temperature": "hot"}))
    assert "its options are" in caught.value.hint
    with pytest.raises(PodiumError):
        make(PolicySpec(name="static:x"))


def test_worker_check_tries_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    monkeypatch.delenv("MY_KEY", raising=False)
    load(tmp_path, 'name = "openai:m"\napi_key_env = "MY_KEY"')
    *_, found = asyncio.run(poolcheck.check(tmp_path / "pool.toml"))
    assert (found.worker, found.state) == ("(policy)", "failed")
    assert "MY_KEY" in found.found
    loaded = poolfile.load(tmp_path / "pool.toml")
    with pytest.raises(Denied):
        asyncio.run(poolcheck.preflight(loaded, loaded.policy))


def test_worker_check_looks_for_the_workers_of_a_plan(tmp_path: Path) -> None:
    import asyncio

    (tmp_path / "look.toml").write_text(PLAN.replace('"python"', '"absent"'))
    load(tmp_path, 'name = "static:look.toml"')
    *_, found = asyncio.run(poolcheck.check(tmp_path / "pool.toml"))
    assert (found.worker, found.state) == ("(policy)", "failed")
    assert "calls 'absent', which is no worker of the pool" in found.found
