"""`transformers serve`, a real OpenAI-compatible endpoint of others, against our clients."""

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import openai
import pytest

from actors.policies.openai import OpenAIPolicy
from actors.ports import Attempt
from actors.workers.agent import OpenAIAdapter, messages
from protocol.actions import Call, Pool, WorkerSpec
from protocol.decisions import Observation, PolicySpec, Task, Turn, View
from protocol.dialects import request
from replay.bill import bill, total
from tests.borrowed import free_port
from tests.broker import eventually
from tests.models import Conversation, taught
from tests.world import World

TASK = "a test"
SUBTASK = {"subtask": "six by seven"}
CALL = f'<tool_call>\n{{"name": "asker", "arguments": {json.dumps(SUBTASK)}}}\n</tool_call>'
ROLE = "You reckon."
POLICY = PolicySpec(name="openai:m", dialect="openai", system="Decide.")
LIMIT = 60


class Served(NamedTuple):
    """A server, and its one model."""

    url: str
    model: str


@pytest.fixture(autouse=True)
def a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none is needed")


def agent(served: Served) -> OpenAIAdapter:
    options = {"base_url": served.url, "model": served.model, "role": ROLE, "max_tokens": LIMIT}
    spec = WorkerSpec(name="asker", kind="agent", adapter="openai", options=options)
    return OpenAIAdapter(spec)


def conversations(spec: WorkerSpec) -> list[Conversation]:
    """What the model knows: to call the agent, as the agent to answer, and to say what it said."""
    begun = View(run="r", task=Task(text=TASK), pool=Pool((spec,)))
    call = Call("1-0", "asker", SUBTASK, ref="any")
    seen = Turn(observations=(Observation(call=call, status="OK", value="42"),))
    after = msgspec.structs.replace(begun, turns=(seen,))
    asked = Attempt(run="r", call="1-0", attempt=1, arguments=SUBTASK, timeout_s=1, task=TASK)
    return [
        (request(POLICY, begun), CALL),
        ({"messages": messages(ROLE, asked)}, "42"),
        (request(POLICY, after), "It is 42."),
    ]


def as_served(asked: dict[str, Any]) -> dict[str, Any]:
    """What the server gives to the template: arguments as objects."""
    made = json.loads(json.dumps(asked))
    for message in made["messages"]:
        for call in message.get("tool_calls") or []:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    return cast("dict[str, Any]", made)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """As its users start it, but for the port and a folder instead of a name on a hub."""
    folder = tmp_path_factory.mktemp("models") / "m"
    served = Served(f"http://127.0.0.1:{(port := free_port())}/v1", str(folder))
    taught(folder, [(as_served(a), reply) for a, reply in conversations(agent(served).spec)])
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder)]
    log = (folder.parent / "log").open("wb")
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        stdout=log,
        stderr=log,
    )

    def answers() -> bool:
        assert process.poll() is None, (folder.parent / "log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        eventually(answers, "transformers serve answers", 120)
        yield served
    finally:
        process.terminate()
        process.wait()
        log.close()


@contextlib.asynccontextmanager
async def policy(served: Served, **options: object) -> AsyncIterator[OpenAIPolicy]:
    given = {"base_url": served.url, "api_key": "none", "max_tokens": LIMIT, "spec": POLICY}
    made = OpenAIPolicy(served.model, **{**given, **options})  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()


async def test_a_run_of_our_policy_and_our_agent_on_it_is_billed_as_it_counts(
    served: Served,
) -> None:
    world, hosted = World(), agent(served)
    async with policy(served) as asks:
        world.policies[POLICY.name] = asks
        await world.worker(hosted.spec, hosted.run)
        await world.conductor()
        run = await world.submit(world.start(policy=POLICY.name))
        log = await world.ended(run, 60.0)
        await world.close()
    await hosted.close()
    assert log.state().answer == "It is 42."
    spent = total(bill([log])).spend
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
    read = written = 0
    for said, _ in conversations(hosted.spec):
        again = client.chat.completions.create(
            model=served.model,
            max_tokens=LIMIT,
            **said,
        )
        assert again.usage is not None
        read += again.usage.prompt_tokens
        written += again.usage.completion_tokens
    client.close()
    assert spent.tokens == read + written


async def test_its_refusals_are_failures_with_what_it_says(served: Served) -> None:
    view = View(run="r", task=Task(text=TASK), pool=Pool(()))
    async with policy(Served(served.url, "another")) as other:
        reply = await other.ask(view)
    assert reply.status == "EXEC_ERR"
    assert "HTTP 400" in reply.error
    assert "pinned to" in reply.error


async def test_what_it_does_not_know_of_is_no_harm(served: Served) -> None:
    view = View(run="r", task=Task(text=TASK), pool=Pool((agent(served).spec,)))
    extra = {"seed": 1, "top_p": 0.9, "user": "somebody"}
    async with policy(served, max_tokens=4, extra=extra) as asks:
        reply = await asks.ask(view)
    assert (reply.status, reply.finish, reply.usage.output) == ("OK", "length", 4)


async def test_it_takes_calls_out_of_a_text_so_text_dialects_see_none(served: Served) -> None:
    text = msgspec.structs.replace(POLICY, dialect="hermes")
    view = View(run="r", task=Task(text=TASK), pool=Pool((agent(served).spec,)))
    async with policy(served) as native, policy(served, spec=text) as written:
        assert [call.name for call in (await native.ask(view)).tool_calls] == ["asker"]
        reply = await written.ask(view)
    assert reply.status == "OK"
    assert "<tool_call>" not in reply.text
