"""Pool files: what they make, and a one-screen error with the cure for each that is wrong."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.workers import ADAPTERS
from actors.workers.agent.roles import ROLES
from podium import policyfile, poolcheck, poolfile
from podium.config import BudgetTable
from podium.pools import OFFLINE
from protocol.actions import Spend
from protocol.errors import Denied, NotFound, PodiumError, Unreachable, Usage
from tests.endpoint import Endpoint

MAX_SCREEN_LINES = 24
MAX_SCREEN_CHARS = MAX_SCREEN_LINES * 80


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Modules of one test are not those of the next."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "")
    yield
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(folder: Path, pool: str, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    path = folder / "pool.toml"
    path.write_text(pool)
    return path


TOOLS = '''
import podium

@podium.tool(timeout_s=5)
def price(product: str) -> float:
    """The price of a product."""
    return 1.0

@podium.tool
async def stock(product: str, shop: str = "all") -> int:
    """How many there are."""
    return 3

def helper() -> None:
    """No tool."""
'''

AGENT = """
[[worker]]
name = "writer"
adapter = "openai"
timeout_s = 30
[worker.options]
model = "m"
base_url = "{url}"
api_key_env = "DESK_KEY"
"""


def failure(path: Path) -> PodiumError:
    """What loading the file raises; it fits on one screen and has a cure."""
    with pytest.raises(PodiumError) as caught:
        poolfile.load(path)
    error = caught.value
    assert error.hint
    assert len(error.message) + len(error.hint) < MAX_SCREEN_CHARS
    return error


def test_the_shipped_pool_loads() -> None:
    loaded = poolfile.load(OFFLINE)
    assert loaded.policy == "conductor"
    assert {"country", "city", "calculator", "search", "python"} <= {
        worker.name for worker in loaded.pool.workers
    }


def test_tools_of_a_module_are_workers_and_tables_set_them(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [pool]
        name = "shop"
        module = "shop_tools"
        [[worker]]
        name = "stock"
        description = "Counts."
        timeout_s = 2.5
        wait_s = 10
        concurrency = 3
        replicas = 2
        attempts = 4
        reserve_cost_usd = 0.01
        [budget]
        rounds = 3
        """,
        shop_tools=TOOLS,
    )
    loaded = poolfile.load(path)
    price, stock = loaded.pool.workers
    assert (loaded.name, loaded.policy, loaded.budget) == ("shop", "rules", BudgetTable(rounds=3))
    assert (price.name, price.adapter, price.timeout_ms) == (
        "price",
        "function:shop_tools:price",
        5_000,
    )
    assert (stock.description, stock.timeout_ms, stock.wait_ms) == ("Counts.", 2_500, 10_000)
    assert (stock.concurrency, stock.replicas, stock.attempts) == (3, 2, 4)
    assert stock.reserve == Spend(cost=10_000)
    assert list(stock.parameters["properties"]) == ["product", "shop"]
    assert loaded.folder == tmp_path


def test_what_a_worker_imports_is_found_by_its_process_too(tmp_path: Path) -> None:
    import os

    path = write(tmp_path, '[pool]\nmodule = "own_tools"', own_tools=TOOLS)
    poolfile.load(path)
    assert str(tmp_path) in os.environ["PYTHONPATH"].split(os.pathsep)


def test_every_adapter(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        AGENT.format(url="http://x/v1")
        + """
        [[worker]]
        name = "sandbox"
        adapter = "python"
        [[worker]]
        name = "team"
        adapter = "conductor"
        [[worker]]
        name = "cost"
        adapter = "function:more_tools:price"
        """,
        more_tools=TOOLS,
    )
    workers = poolfile.load(path).pool.workers
    assert [(each.name, each.kind) for each in workers] == [
        ("writer", "agent"),
        ("sandbox", "tool"),
        ("team", "conductor"),
        ("cost", "tool"),
    ]
    assert workers[0].options["model"] == "m"
    assert workers[0].timeout_ms == 30_000


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[pool]\ncolour = 1", "unknown field `colour` - at `$.pool`", "name, policy, module"),
        (
            '[[worker]]\nname = "a"\nadapter = "python"\n'
            '[[worker]]\nname = "b"\nadaptor = "python"',
            "unknown field `adaptor` - at `$.worker[1]` (the worker 'b')",
            "name, adapter, description",
        ),
        (
            '[[worker]]\nname = "a"\ntimeout_s = 0',
            "`$.worker[0].timeout_s` (the worker 'a')",
            "Change",
        ),
        ("[budget]\nrounds = -1", "`$.budget.rounds`", "Change"),
        (
            '[[worker]]\nadapter = "python"',
            "field `name` - at `$.worker[0]`",
            "Add to it: name = …",
        ),
        ("[pool", "is no TOML: ", "line"),
        ('[pool]\nname = "empty"', "the pool has no workers", "[[worker]]"),
    ],
)
def test_unknown_keys_and_wrong_values(tmp_path: Path, text: str, message: str, hint: str) -> None:
    error = failure(write(tmp_path, text))
    assert isinstance(error, Usage)
    assert "pool.toml" in error.message
    assert message in error.message
    assert hint in error.hint


def test_a_missing_file(tmp_path: Path) -> None:
    error = failure(tmp_path / "nowhere.toml")
    assert isinstance(error, NotFound)
    assert "nowhere.toml" in error.message


def test_a_missing_module(tmp_path: Path) -> None:
    error = failure(write(tmp_path, '[pool]\nmodule = "shop_tolls"'))
    assert isinstance(error, Usage)
    assert "there is no module 'shop_tolls': no shop_tolls.py beside the pool file" in error.message
    assert str(tmp_path / "shop_tolls.py") in error.hint


def test_a_module_that_needs_what_is_not_installed(tmp_path: Path) -> None:
    path = write(tmp_path, '[pool]\nmodule = "needy"', needy="import not_a_library_of_anybody")
    error = failure(path)
    assert "imports 'not_a_library_of_anybody', which is not installed" in error.message
    assert error.hint == "pip install not_a_library_of_anybody"


def test_a_module_that_breaks(tmp_path: Path) -> None:
    error = failure(write(tmp_path, '[pool]\nmodule = "broken"', broken="x = 1\ny = x / 0\n"))
    assert "ZeroDivisionError: division by zero (at broken.py:2)" in error.message
    assert "python -c 'import broken'" in error.hint


def test_a_module_that_python_finds_elsewhere(tmp_path: Path) -> None:
    error = failure(write(tmp_path, '[pool]\nmodule = "msgspec"', msgspec=TOOLS))
    assert "the module 'msgspec' is" in error.message
    assert "a name of its own" in error.hint


def test_a_missing_function(tmp_path: Path) -> None:
    table = '[[worker]]\nname = "a"\nadapter = "function:fn_tools:prise"'
    error = failure(write(tmp_path, table, fn_tools=TOOLS))
    assert "the worker 'a' (worker[0])" in error.message
    assert "has no function 'prise'" in error.message


def test_a_schema_that_is_no_schema(tmp_path: Path) -> None:
    table = '[[worker]]\nname = "a"\nadapter = "python"\n[worker.parameters]\ntype = "{}"\n{}'
    error = failure(write(tmp_path, table.format("array", "")))
    assert "the worker 'a' (worker[0])" in error.message
    assert "no JSON Schema of an object" in error.message
    assert '"type": "object"' in error.hint
    error = failure(write(tmp_path, table.format("object", 'required = "code"')))
    assert "are no JSON Schema: " in error.message
    assert "json-schema.org" in error.hint


def test_a_parameter_that_has_no_schema(tmp_path: Path) -> None:
    text = "import podium\n@podium.tool\ndef f(x: complex) -> int:\n    return 1\n"
    error = failure(write(tmp_path, '[pool]\nmodule = "odd_tools"', odd_tools=text))
    assert "Parameter 'x' of odd_tools.f has no JSON Schema" in error.message


def test_a_worker_name_used_twice(tmp_path: Path) -> None:
    table = '[[worker]]\nname = "a"\nadapter = "python"\n'
    error = failure(write(tmp_path, table + table))
    assert "the worker name 'a' is used 2 times (worker[0], worker[1])" in error.message
    assert "its own" in error.hint


def test_settings_of_a_sandbox_that_do_not_go_together(tmp_path: Path) -> None:
    table = '[[worker]]\nname = "a"\nadapter = "python"\nconcurrency = 8\n[worker.options]\n'
    error = failure(write(tmp_path, table + 'mode = "persistent"\nsessions = 4\n'))
    assert "worker 'a'" in error.message
    assert "keeps only 4 sessions" in error.message


def test_two_functions_of_one_name(tmp_path: Path) -> None:
    path = write(tmp_path, '[pool]\nmodules = ["one", "two"]', one=TOOLS, two=TOOLS)
    error = failure(path)
    assert "two functions are the worker 'price'" in error.message


def test_a_name_that_is_none(tmp_path: Path) -> None:
    error = failure(write(tmp_path, '[[worker]]\nname = "my tool"\nadapter = "python"'))
    assert "'my tool' is no name" in error.message


def test_a_worker_with_nothing_behind_it(tmp_path: Path) -> None:
    error = failure(write(tmp_path, '[[worker]]\nname = "a"'))
    assert "it has no adapter" in error.message
    error = failure(write(tmp_path, '[[worker]]\nname = "a"\nadapter = "telepathy"'))
    assert "there is no adapter 'telepathy'" in error.message
    assert all(kind in error.hint for kind in {*ADAPTERS, "conductor"})


def test_a_wrong_option(tmp_path: Path) -> None:
    path = write(tmp_path, AGENT.format(url="http://x/v1") + 'modle = "x"')
    error = failure(path)
    assert "the worker 'writer' (worker[0])" in error.message
    assert "modle" in error.message
    assert "model" in error.hint


@pytest.mark.parametrize("name", ["chance", "openai:", "python:nowhere:policy"])
def test_a_policy_that_there_is_not(name: str) -> None:
    with pytest.raises(PodiumError) as caught:
        policyfile.policy_spec(name)
    assert name in caught.value.message
    assert caught.value.hint


def test_policies() -> None:
    assert policyfile.policy_spec("rules").dialect == "decision"
    assert policyfile.policy_spec("openai:some-model").dialect == "openai"


# ------------------------------------------------------------------------- trying workers out


def preflight(path: Path, policy: str = "rules") -> None:
    asyncio.run(poolcheck.preflight(poolfile.load(path), policy))


def test_a_key_that_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DESK_KEY", raising=False)
    path = write(tmp_path, AGENT.format(url="http://127.0.0.1:1/v1"))
    with pytest.raises(Denied) as caught:
        preflight(path)
    assert "The worker 'writer' needs a key, and DESK_KEY is not set." in caught.value.message
    assert "export DESK_KEY=..." in caught.value.hint


def test_an_endpoint_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_KEY", "sk-test")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    path = write(tmp_path, AGENT.format(url=url))
    with pytest.raises(Unreachable) as caught:
        preflight(path)
    assert f"The worker 'writer' uses the endpoint {url}, which refuses" in caught.value.message
    assert "base_url" in caught.value.hint


def test_the_policy_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    path = write(tmp_path, '[[worker]]\nname = "a"\nadapter = "python"')
    with pytest.raises(Denied, match="The policy openai:m needs a key"):
        preflight(path, "openai:m")
    preflight(path, "rules")


def found(path: Path) -> dict[str, poolcheck.Finding]:
    return {each.worker: each for each in asyncio.run(poolcheck.check(path))}


def test_the_tools_of_an_agent_are_recorded_and_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESK_KEY", "sk-test")
    more = """role = "@critical-reviewer"
tools = [
    "function:clerk_tools:price",
    { adapter = "function:clerk_tools:stock", name = "count", timeout_s = 2 },
]
"""
    with Endpoint() as endpoint:
        path = write(tmp_path, AGENT.format(url=endpoint.url) + more, clerk_tools=TOOLS)
        (spec,) = poolfile.load(path).pool.workers
        assert spec.options["role"] == ROLES["critical-reviewer"].prompt
        price, count = spec.options["tools"]
        assert price["parameters"]["required"] == ["product"]
        assert (count["name"], count["timeout_s"]) == ("count", 2)
        endpoint.say("ok", model="m-2")
        assert found(path)["writer"].found == "m-2 answers; tools: price, count"
    path = write(tmp_path, AGENT.format(url="http://x") + more.replace(":stock", ":gone"))
    assert "has no function 'gone'" in failure(path).message


def test_check_asks_the_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_KEY", "sk-test")
    with Endpoint() as endpoint:
        path = write(tmp_path, AGENT.format(url=endpoint.url))
        endpoint.say("ok", model="m-2")
        assert found(path)["writer"] == poolcheck.Finding(
            worker="writer", adapter="openai", state="ok", found="m-2 answers"
        )
        endpoint.refuse(404, "no such model")
        finding = found(path)["writer"]
        assert finding.state == "failed"
        assert "no such model" in finding.found
        monkeypatch.setenv("DESK_KEY", "sk-wrong")
        finding = found(path)["writer"]
        assert finding.state == "failed"
        assert "DESK_KEY" in finding.found
        assert "sk-wrong" not in finding.found


def test_check_names_all_that_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DESK_KEY", raising=False)
    path = write(
        tmp_path,
        '[pool]\nmodule = "good_tools"\npolicy = "chance"\n'
        '[[worker]]\nname = "ghost"\nadapter = "function:good_tools:ghost"\n'
        + AGENT.format(url="http://127.0.0.1:1/v1"),
        good_tools=TOOLS,
    )
    findings = found(path)
    assert {name: each.state for name, each in findings.items()} == {
        "ghost": "failed",
        "price": "ok",
        "stock": "ok",
        "writer": "failed",
        "(policy)": "failed",
    }
    assert findings["price"].found == "imported, 1 parameter"
    assert findings["writer"].found == "needs a key, and DESK_KEY is not set."


def test_check_of_names_used_twice_is_one_finding(tmp_path: Path) -> None:
    table = '[[worker]]\nname = "a"\nadapter = "python"\n'
    (finding,) = asyncio.run(poolcheck.check(write(tmp_path, table + table)))
    assert "used 2 times" in finding.found


def agent_with(options: str, more: str = "") -> str:
    table = f'[[worker]]\nname = "a"\nadapter = "openai"\n{more}\n'
    return f'{table}[worker.options]\nmodel = "m"\n{options}\n'


def test_secrets_are_declared_and_referred_to(tmp_path: Path) -> None:
    url = 'base_url = "https://u:${secret:DB}@h/v1"'
    loaded = poolfile.load(write(tmp_path, agent_with(url, 'secrets = ["DB"]')))
    assert loaded.pool.workers[0].secrets == ("DB",)
    with pytest.raises(Denied, match="the secret DB, which has no value here"):
        asyncio.run(poolcheck.preflight(loaded, "rules"))
    finding = asyncio.run(poolcheck.check(loaded.path))[0]
    assert finding.hint.startswith("export PODIUM_SECRET_DB=")


def test_check_says_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODIUM_SECRET_DB", "tok-123456789")
    table = '[[worker]]\nname = "a"\nadapter = "a2a"\ndescription = "x"\nsecrets = ["DB"]\n'
    options = '[worker.options]\nurl = "http://127.0.0.1:9/${secret:DB}"\n'
    finding = found(write(tmp_path, table + options))["a"]
    assert finding.found.startswith("The A2A agent at http://127.0.0.1:9/${secret:DB} can't be")


@pytest.mark.parametrize(
    ("pool", "says", "cure"),
    [
        (agent_with('role = "${secret:DB}"'), "refer to the secret 'DB'", 'secrets = ["DB"]'),
        (agent_with("", 'secrets = ["a b"]'), "no secret's name", "letters, digits"),
        (agent_with('base_url = "https://u:pw@h"'), "'base_url' holds a secret", "${secret:NAME}"),
        (
            "[redact]\nnames = ['role']\n" + agent_with('role = "You write."'),
            "'role' holds a secret",
            "${secret:NAME}",
        ),
        ("[redact]\npatterns = ['(']\n", "redact.patterns[0]", "regular|re module"),
        ("[redact]\nnames = ['-']\n", "redact.names[0]", "words"),
    ],
)
def test_a_pool_holds_no_secret(tmp_path: Path, pool: str, says: str, cure: str) -> None:
    with pytest.raises(Usage) as raised:
        poolfile.load(write(tmp_path, pool))
    assert says in raised.value.message
    assert any(word in raised.value.hint for word in cure.split("|"))


@pytest.mark.parametrize("adapter", ["person", "conductor"])
def test_those_that_nobody_hosts_have_no_options(tmp_path: Path, adapter: str) -> None:
    table = f'[[worker]]\nname = "x"\nadapter = "{adapter}"\n[worker.options]\nurl = "y"\n'
    finding = found(write(tmp_path, table))["x"]
    assert finding.state == "failed"
    assert "has no options: url" in finding.found
