"""`podium reproduce`: one call again, from a real pool file, compared with what was recorded."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from actors.workers.processes.sandbox import isolation
from protocol.actions import WorkerSpec
from protocol.secret_forms import Redaction
from tests.e2e.memory_host import Record, Said, Shell
from tests.endpoint import Endpoint

DESK: Final = '''
"""A desk: tools of which one raises on one input, and a policy that calls everything once."""
import asyncio
import json
import os
from typing import Any
import podium

@podium.tool(timeout_s=5)
def price(product: str) -> dict[str, Any]:
    """The price of a product."""
    if product == "lamp":
        return json.loads("{")
    return {"product": product, "price": 12.5}

@podium.tool
async def stock(product: str) -> int:
    """How many there are."""
    await asyncio.sleep(0)
    return {"chair": 3}[product]

@podium.tool
def key(word: str) -> str:
    """Shows what it was given."""
    return f"{word} has {len(word)} letters"

def plain(command: str) -> str:
    """No tool by itself."""
    return command.upper()

class Policy:
    spec = podium.PolicySpec(name="python:MODULE:Policy")

    def decide(self, view):
        if view.turns:
            return podium.Reply(decision=podium.Decision(answer="done"))
        named = {worker.name for worker in view.pool.workers}
        calls = [
            podium.PlannedCall("price", {"product": "chair"}),
            podium.PlannedCall("price", {"product": "lamp"}),
            podium.PlannedCall("stock", {"product": "lamp"}),
            podium.PlannedCall("price", {"item": "chair"}),
            podium.PlannedCall("key", {"word": "${secret:WORD}"}),
            podium.PlannedCall("plain", {"command": "echo"}),
            podium.PlannedCall("writer", {"subtask": "Say it."}, sees=(0, 1)),
            podium.PlannedCall("helper", {"task": "What is 2 times 3?"}),
            podium.PlannedCall("python", {"code": "print(6 * 7)"}),
        ]
        calls = tuple(call for call in calls if call.worker in named)
        return podium.Reply(decision=podium.Decision(calls=calls))
'''

POOL: Final = """
[pool]
policy = "python:MODULE:Policy"
module = "MODULE"

[[worker]]
name = "key"
secrets = ["WORD"]

[[worker]]
name = "plain"
adapter = "function:MODULE:plain"

[[worker]]
name = "helper"
adapter = "conductor"
attempts = 1
"""

AGENT: Final = """
[[worker]]
name = "writer"
adapter = "openai"
attempts = 1
[worker.options]
model = "m"
base_url = "URL"
role = "You write."
"""

CHAIR, LAMP, STOCK, MISFIT, KEY, PLAIN = (f"1-{index}" for index in range(6))


class Desk:
    """A folder with a pool, and a run of it."""

    def __init__(self, folder: Path, shell: Shell, more: str = "") -> None:
        self.shell, self.folder = shell, folder
        self.module = f"desk_{folder.name.replace('-', '_')}"
        self.file, self.pool = folder / f"{self.module}.py", folder / "pool.toml"
        self.file.write_text(DESK.replace("MODULE", self.module))
        self.pool.write_text((POOL + more).replace("MODULE", self.module))
        said = shell("run", "--pool", str(self.pool), "--depth", "0", "--json", "Do it.")
        assert said.code == 0, said
        self.run = said.lines()[0]["launch"]["run_id"]
        self.forget()

    def forget(self) -> None:
        """As in a process that has imported nothing yet."""
        sys.modules.pop(self.module, None)

    def edit(self, old: str, new: str) -> None:
        """Change the tools, as whoever mends one does."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))
        os.utime(self.file, (0, 0))  # else Python may keep what it compiled within this second
        self.forget()

    def __call__(self, call: str, *more: str, pool: bool = True) -> Said:
        """`podium reproduce`."""
        named = ["--pool", str(self.pool)] if pool else []
        return self.shell("reproduce", f"{self.run}/{call}", *named, *more)

    def row(self, call: str, *more: str) -> dict[str, Any]:
        """The row of ``--json``."""
        row: dict[str, Any] = self(call, "--json", *more).json()["rows"][0]
        return row


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("PODIUM_SECRET_WORD", "sesame-open")
    monkeypatch.delenv("PODIUM_POOL", raising=False)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, USER="tester")


@pytest.fixture
def desk(tmp_path: Path, shell: Shell) -> Desk:
    return Desk(tmp_path, shell)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with Endpoint() as endpoint:
        monkeypatch.setenv("OPENAI_API_KEY", endpoint.key)
        yield endpoint


def test_the_same_again_is_0_and_writes_nothing(desk: Desk) -> None:
    store = desk.shell.deployments.store
    before = msgspec.json.encode([list(store.messages.values()), list(store.blobs)])
    for call in (CHAIR, LAMP, STOCK):
        said = desk(call)
        assert said.code == 0, said
        assert "the same as recorded" in said.err
    assert "JSONDecodeError" in desk(LAMP).out
    assert f"podium reproduce {desk.run}/{LAMP}/1 --pool {desk.pool} --pdb" in desk(LAMP).err
    assert msgspec.json.encode([list(store.messages.values()), list(store.blobs)]) == before


def test_what_the_standing_deployment_takes_for_a_secret_is_one_here(desk: Desk) -> None:
    standing = Record(redact=Redaction(names=("price",)))
    desk.shell.deployments.up_record = standing
    sys.path.insert(0, str(desk.folder))
    said = desk(CHAIR, pool=False)
    assert "[redacted:price]" in said.out
    assert '"price":12.5' not in said.out.partition("reproduced")[2]


def test_a_mended_tool_differs_and_says_where(desk: Desk) -> None:
    desk.edit('json.loads("{")', '{"product": product, "price": 99}')
    said = desk(LAMP)
    assert said.code == 1
    assert '-  "status": "EXEC_ERR",' in said.out
    assert '+    "price": 99,' in said.out
    assert "differs from what was recorded: status, fault, value" in said.err
    desk.forget()
    row = desk.row(LAMP)
    assert (row["same"], row["differs"]) == (False, ["status", "fault", "value"])
    assert row["reproduced"] == {
        "status": "OK",
        "fault": "none",
        "value": {"price": 99, "product": "lamp"},
    }


def test_the_call_that_is_to_be_made_again_is_one_that_had_a_worker(desk: Desk) -> None:
    desk.edit('("price", {"product": "chair"})', '("price", {"item": "chair"})')
    said = desk.shell("run", "--pool", str(desk.pool), "--depth", "0", "Do it.")
    assert f"/{LAMP} " in said.err.partition("then make it again")[2].splitlines()[0]


def test_a_call_whose_worker_was_never_started_shows_the_schema_error(desk: Desk) -> None:
    said = desk(MISFIT)
    assert said.code == 0
    assert "its worker was never started" in said.out
    assert "PARSE_ERR (policy)" in said.out
    assert '"product"' in said.out
    row = desk.row(MISFIT)
    assert row["started"] is False
    assert row["recorded"]["value"] == row["schema_error"]
    assert desk(MISFIT, "--attempt", "1").code == 4


def test_secrets_are_resolved_here_too_and_shown_nowhere(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = desk(KEY)
    assert said.code == 0, said
    assert "${secret:WORD} has 11 letters" in said.out
    assert "sesame" not in said.out + said.err
    monkeypatch.delenv("PODIUM_SECRET_WORD")
    said = desk(KEY)
    assert said.code == 1
    assert "set PODIUM_SECRET_WORD" in said.out


def test_what_is_not_there_is_4(desk: Desk) -> None:
    assert desk("7-7").code == 4
    assert "its calls are: 1-0, 1-1" in desk("7-7").err
    assert desk(CHAIR, "--attempt", "3").code == 4
    assert desk(f"{CHAIR}/3").code == 4
    assert desk(f"{CHAIR}/1", "--attempt", "2").code == 2
    assert desk(f"{CHAIR}/1").code == 0


def elsewhere(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that knows nothing of the folder yet."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(desk.folder)])
    desk.forget()


def test_a_function_out_of_reach_says_how_to_name_its_pool(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(desk, monkeypatch)
    said = desk(CHAIR, pool=False)
    assert said.code == 4
    assert f"podium reproduce {desk.run}/{CHAIR}/1 --pool FILE" in said.err
    assert desk.shell("export", desk.run, "--out", "a.podium").code == 0
    said = desk.shell("reproduce", f"a.podium/{CHAIR}")
    assert f"podium reproduce a.podium/{CHAIR}/1 --pool FILE" in said.err


def test_what_stands_says_where_its_modules_are(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert desk.shell("up", "--pool", str(desk.pool)).code == 0
    elsewhere(desk, monkeypatch)
    again = desk.shell("run", "--depth", "0", "--json", "Do it again.")
    assert again.code == 0, "its policy is a module beside the pool file"
    elsewhere(desk, monkeypatch)
    assert desk(CHAIR, pool=False).code == 0


def test_what_stood_is_found_again_without_its_pool_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (
        ["up", "--pool", str(desk.pool)],
        ["worker", "apply", str(desk.pool)],
        ["down"],
    ):
        assert desk.shell(*command).code == 0
    elsewhere(desk, monkeypatch)
    assert desk(CHAIR, pool=False).code == 0
    elsewhere(desk, monkeypatch)
    assert desk.shell("fork", desk.run, "--at", CHAIR, "--dry-run").code == 0


def test_what_a_log_names_is_not_called_unless_it_is_a_tool(desk: Desk) -> None:
    assert desk(CHAIR, pool=False).code == 0, "a marked tool that can be imported"
    said = desk(PLAIN, pool=False)
    assert said.code == 1
    assert "is no @podium.tool" in said.err
    assert desk(PLAIN).code == 0, "a pool of one's own names it"


def test_a_conductors_call_is_a_run_of_its_own(desk: Desk) -> None:
    said = desk("1-6")
    assert "its worker was never started" in said.out, "no depth was left"
    deep = desk.shell("run", "--pool", str(desk.pool), "--json", "Do it.").lines()[0]
    run = deep["launch"]["run_id"]
    said = desk.shell("reproduce", f"{run}/1-6", "--pool", str(desk.pool))
    assert said.code == 2
    assert "is a run of its own" in said.err
    assert "podium runs show" in said.err


def with_agent(folder: Path, shell: Shell, endpoint: Endpoint, text: str) -> Desk:
    endpoint.say(text)
    return Desk(folder, shell, AGENT.replace("URL", endpoint.url))


@pytest.mark.parametrize("text", ["Said.", "word " * 2_000], ids=["inline", "blob"])
def test_an_agent_gets_its_recorded_reply(
    tmp_path: Path, shell: Shell, endpoint: Endpoint, text: str
) -> None:
    desk = with_agent(tmp_path, shell, endpoint, text)
    said = desk("1-6")
    assert said.code == 0, said
    assert len(endpoint.requests) == 1, "nobody is asked"
    assert "the same as recorded" in said.err
    row = desk.row("1-6")
    assert row["recorded"]["value"] == text
    assert row["prompts"] == []


def test_a_prompt_that_has_changed_is_named(
    tmp_path: Path, shell: Shell, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = with_agent(tmp_path, shell, endpoint, "Said.")
    monkeypatch.setattr("actors.workers.agent.SEEN_CHARS", 8)
    said = desk("1-6")
    assert said.code == 1
    assert "the prompt differs from the recorded one at request 1, messages[1]" in said.out
    assert desk.row("1-6")["same"] is False


def test_a_secret_in_a_prompt_is_no_difference(
    tmp_path: Path, shell: Shell, endpoint: Endpoint
) -> None:
    endpoint.say("Said.")
    more = AGENT.replace("URL", endpoint.url).replace("You write.", "You know ${secret:WORD}.")
    desk = Desk(tmp_path, shell, more.replace("attempts = 1", 'attempts = 1\nsecrets = ["WORD"]'))
    assert "sesame-open" in str(endpoint.requests), "the model is told"
    said = desk("1-6")
    assert said.code == 0, said
    assert "the same as recorded" in said.err


def test_an_agent_can_be_asked_live(tmp_path: Path, shell: Shell, endpoint: Endpoint) -> None:
    desk = with_agent(tmp_path, shell, endpoint, "Said.")
    endpoint.say("Said otherwise.")
    said = desk("1-6", "--live")
    assert said.code == 1
    assert "Said otherwise." in said.out
    assert endpoint.requests[0].body["messages"] == endpoint.requests[1].body["messages"]
    said = desk("1-6", "--live", pool=False)
    assert said.code == 1
    assert "recorded with options of its own (base_url, api_key_env)" in said.err
    assert len(endpoint.requests) == 2, "a log sends no key anywhere"


def test_no_debugger_where_there_is_no_function(
    tmp_path: Path, shell: Shell, endpoint: Endpoint
) -> None:
    desk = with_agent(tmp_path, shell, endpoint, "Said.")
    assert desk("1-6", "--pdb").code == 2
    assert desk(CHAIR, "--pdb", "--json").code == 2


def with_tools(folder: Path, shell: Shell, endpoint: Endpoint) -> Desk:
    endpoint.say(calls=[("a", "price", '{"product": "chair"}')])
    endpoint.say("12.50 euros.")
    tools = f'tools = ["function:desk_{folder.name.replace("-", "_")}:price"]'
    return Desk(folder, shell, AGENT.replace("URL", endpoint.url) + tools)


def test_an_agent_gets_the_recorded_results_of_its_tools_or_live_ones(
    tmp_path: Path, shell: Shell, endpoint: Endpoint
) -> None:
    desk = with_tools(tmp_path, shell, endpoint)
    desk.edit('"price": 12.5', '"price": 13')
    said = desk("1-6")
    assert said.code == 0, said
    assert "the same as recorded" in said.err
    assert 'turn 1      price {"product": "chair"} -> OK: {' in said.out
    first, last = desk.row("1-6")["turns"]
    assert (first["calls"][0]["value"]["price"], last["text"]) == (12.5, "12.50 euros.")
    desk.forget()
    said = desk("1-6", "--live-tools")
    assert said.code == 1
    assert "the prompt differs from the recorded one at request 2, messages[3]" in said.out
    assert len(endpoint.requests) == 2, "the model is asked nothing"
    endpoint.say(calls=[("a", "price", '{"product": "chair"}')])
    endpoint.say("13 euros.")
    desk.forget()
    said = desk("1-6", "--live")
    assert '"price":13' in endpoint.requests[-1].body["messages"][-1]["content"]
    assert "13 euros." in said.out


def test_the_tools_that_a_log_names_are_used_only_if_they_are_trusted(
    tmp_path: Path, shell: Shell, endpoint: Endpoint
) -> None:
    endpoint.say("Nothing.")
    tools = f'tools = ["function:desk_{tmp_path.name.replace("-", "_")}:plain"]'
    desk = Desk(tmp_path, shell, AGENT.replace("URL", endpoint.url) + tools)
    assert desk("1-6", pool=False).code == 0, "nothing of it is hosted"
    said = desk("1-6", "--live-tools", pool=False)
    assert said.code == 1
    assert "is no @podium.tool" in said.err
    assert desk("1-6", "--live-tools").code == 0, "a pool of one's own names it"


@pytest.mark.skipif(isolation().level != "namespaces", reason="this host can't isolate code")
def test_sandboxed_code_runs_again(tmp_path: Path, shell: Shell) -> None:
    desk = Desk(tmp_path, shell, '[[worker]]\nname = "python"\nadapter = "python"\n')
    row = desk.row("1-7")
    assert row["same"] is True
    assert "42" in str(row["reproduced"]["value"])


def test_code_without_walls_needs_a_pool_of_ones_own(tmp_path: Path, shell: Shell) -> None:
    options = '[worker.options]\nisolation = "process"\n'
    desk = Desk(tmp_path, shell, f'[[worker]]\nname = "python"\nadapter = "python"\n{options}')
    assert "options of its own (isolation)" in desk("1-7", pool=False).err
    assert desk("1-7").code == 0


def test_workers_are_trusted_by_what_they_may_do() -> None:
    from podium.reproducing import untrusted

    agent = WorkerSpec(name="a", adapter="openai", options={"model": "m", "base_url": "http://x"})
    assert untrusted(agent, (), live=False) == ""
    assert untrusted(agent, (agent,), live=True) == ""
    other = WorkerSpec(name="a", adapter="openai", options={"model": "m", "base_url": "http://y"})
    assert "base_url" in untrusted(agent, (other,), live=True)
    command = WorkerSpec(name="c", adapter="shell", options={"commands": [["rm"]]})
    assert "commands" in untrusted(command, (agent,), live=False)
    assert untrusted(command, (command,), live=False) == ""
    bare = WorkerSpec(name="b", adapter="unheard-of")
    assert "options of its own" in untrusted(bare, (agent,), live=False)
    tool = {"tools": ["function:os:system"]}
    deep = {"tools": [{"adapter": "openai", "options": tool}]}
    for options in (tool, deep):
        spec = WorkerSpec(name="a", adapter="openai", options={"model": "m", **options})
        assert untrusted(spec, (), live=False) == ""
        assert "no @podium.tool" in untrusted(spec, (), live=False, tools=True)
        assert untrusted(spec, (spec,), live=False, tools=True) == ""
    assert "no @podium.tool" in untrusted(
        WorkerSpec(name="f", adapter="function:os:system"), (agent,), live=False
    )


def test_a_servers_tool_may_be_any_command() -> None:
    from podium.reproducing import untrusted

    tool = WorkerSpec(name="t", adapter="mcp:x", options={"command": "rm", "args": ["-r", "/"]})
    listing = WorkerSpec(name="t", adapter="mcp:x", options={"command": "ls"})
    assert untrusted(tool, (tool,), live=False) == ""
    assert "options of its own (command" in untrusted(tool, (listing,), live=False)
    assert "options of its own (command" in untrusted(tool, (), live=False)
