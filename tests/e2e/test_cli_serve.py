"""`podium serve` as a person types it: in memory, and for real."""

import asyncio
import io
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any, Final

import openai
import pytest

from podium.cli import main, serve
from podium.cli.options import RunLimits
from podium.cli.world import World, enter
from podium.pools import OFFLINE
from protocol.actions import Pool, WorkerSpec
from protocol.registry import EMPTY, change
from tests.e2e.memory_host import MemoryDeployments, Record
from tests.e2e.test_cli_real import Typist
from tests.integration.chaos import eventually

WITHIN_S: Final = 60
QUESTION: Final[list[Any]] = [{"role": "user", "content": "How large is Chad?"}]
TOKEN: Final = "a-token-of-these-tests"

ONE: Final = Pool((WorkerSpec(name="conductor", kind="conductor", adapter="conductor"),))
TWO: Final = Pool((*ONE.workers, WorkerSpec(name="who", kind="person", adapter="person")))


class Heard(io.StringIO):
    """Stdout of a command that goes on after it has said something."""

    def __init__(self) -> None:
        super().__init__()
        self.said = threading.Event()

    def write(self, text: str) -> int:
        """See `TextIO`."""
        done = super().write(text)
        self.said.set()
        return done


def serving(folder: Path, *arguments: str, **environment: str) -> tuple[dict[str, Any], list[Any]]:
    """Serve until a visitor has asked each model; what was announced, and the completions."""
    out, said = Heard(), list[Any]()
    told: dict[str, Any] = {}

    def visit() -> None:
        try:
            assert out.said.wait(WITHIN_S)
            told.update(json.loads(out.getvalue())["serving"])
            with openai.OpenAI(base_url=told["url"], api_key=TOKEN) as client:
                for model in client.models.list():
                    said.append(client.chat.completions.create(model=model.id, messages=QUESTION))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    world = World(
        deployments=MemoryDeployments(),
        environment={"PODIUM_FOLDER": str(folder / ".podium"), **environment},
        folder=folder,
        stdout=out,
        stderr=io.StringIO(),
    )
    visitor = threading.Thread(target=visit)
    visitor.start()
    code = main(["serve", "--port", "0", "--json", *arguments], world)
    visitor.join(WITHIN_S)
    assert code == 0
    return told, said


def test_the_shipped_pool_is_a_model(tmp_path: Path) -> None:
    told, (said,) = serving(tmp_path)
    assert told["models"] == ["offline"]
    root = told["url"].removesuffix("/v1")
    assert (told["mcp"], told["a2a"]) == (f"{root}/mcp", f"{root}/a2a")
    assert told["card"] == f"{root}/.well-known/agent-card.json"
    assert said.model == "offline"
    assert "Chad" in said.choices[0].message.content


def test_several_pools_are_several_models(tmp_path: Path) -> None:
    second = tmp_path / "second.toml"
    second.write_text(Path(OFFLINE).read_text("utf-8").replace('name = "offline"', 'name = "two"'))
    told, said = serving(
        tmp_path, "--pool", str(OFFLINE), "--pool", str(second), PODIUM_SERVE_TOKENS=TOKEN
    )
    assert told["models"] == ["offline", "two"]
    assert [each.model for each in said] == ["offline", "two"]


async def test_a_model_of_a_deployments_own_pool_changes_as_that_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "FOLLOW_S", 0.01)
    deployments, registry = MemoryDeployments(), EMPTY
    deployments.up_record = Record(workers=ONE)
    enter(World(deployments=deployments, environment={}, folder=tmp_path))
    orchestras = serve.Orchestras(serve.Serving(), RunLimits())
    assert orchestras.models["test"].pool == ONE
    async with asyncio.timeout(WITHIN_S), orchestras.open():
        for pool in (ONE, TWO):
            said = change(registry, pool, at=1)
            assert said is not None
            await deployments.registry.append(said)
            registry = await deployments.registry.read()

        async def followed() -> bool:
            return orchestras.models["test"].pool == TWO

        await eventually(followed, "the model has the deployment's workers")
    assert orchestras.models["test"].earlier == (ONE,)


SLOW_POOL: Final = """
[pool]
name = "slow"
policy = "python:slow_tools:Always"
module = "slow_tools"
"""

SLOW_TOOLS: Final = '''
import asyncio
import podium

@podium.tool(timeout_s=300)
async def endless(what: str) -> str:
    """Never comes back."""
    await asyncio.Event().wait()
    return what

class Always:
    spec = podium.PolicySpec(name="python:slow_tools:Always")

    def decide(self, view: podium.View) -> podium.Reply:
        call = podium.PlannedCall("endless", {"what": view.task.text})
        return podium.Reply(decision=podium.Decision(calls=(call,)))
'''


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_deployment_is_served(tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text(SLOW_POOL)
    (tmp_path / "slow_tools.py").write_text(SLOW_TOOLS)
    typist = Typist(tmp_path)
    typist.environment["PODIUM_SERVE_TOKENS"] = TOKEN
    pools = ["--pool", str(OFFLINE), "--pool", "slow.toml"]
    process = typist.start("serve", "--port", "0", "--json", *pools)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())["serving"]
        with openai.OpenAI(base_url=told["url"], api_key=TOKEN, max_retries=20) as client:
            said = client.chat.completions.create(model="offline", messages=QUESTION)
            stream = client.chat.completions.create(model="offline", messages=QUESTION, stream=True)
            streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            assert streamed == said.choices[0].message.content
            assert "Chad" in streamed

            endless = client.chat.completions.create(model="slow", messages=QUESTION, stream=True)
            run = endless.response.headers["x-podium-run"]
            next(endless)
            endless.close()
            # As long as it is at work, the client asks again.
            with pytest.raises(openai.ConflictError, match="its client hung up"):
                client.chat.completions.retrieve(run)
        with (
            openai.OpenAI(base_url=told["url"], api_key="wrong") as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, err
    rows = typist.json("runs")["rows"]
    assert [row["status"] for row in rows] == ["cancelled", "finished", "finished"]
