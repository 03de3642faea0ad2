"""A real server on a real port, over a deployment in memory, with a scripted policy."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2
import openai

from actors.jetstream_queue import consumers_of
from actors.memory_queue import MemoryQueue
from actors.ports import Attempt, Outcome
from podium.client import Client
from podium.serve.app import make
from podium.serve.models import Model
from podium.serve.offered import offered
from podium.serve.runs import Runs
from podium.serve.server import listen, root_of, serve, url_of
from protocol.actions import Pool, Spend, Usage, WorkerSpec
from protocol.budgets import Budget
from protocol.decisions import Decision, PolicySpec, Reply, View
from protocol.errors import Unreachable
from replay.chain import RunLog
from tests.world import World, calls

TOKEN: Final = "a-token-of-these-tests"

TOOL: Final = WorkerSpec(name="tool", timeout_ms=30_000)

SUB: Final = WorkerSpec(name="sub", kind="conductor", adapter="conductor")

WITHIN_S: Final = 20

ANSWER: Final = "It is done. " * 60


class Priced:
    """A policy that says what its replies cost."""

    def __init__(self, decide: Callable[[View], Decision]) -> None:
        self.spec = PolicySpec(name="priced", reserve=Spend(tokens=100))
        self._decide = decide

    def decide(self, view: View) -> Reply:
        """See `InstantPolicy`."""
        return Reply(
            decision=self._decide(view),
            spend=Spend(tokens=30, cost=7),
            usage=Usage(input=20, output=10),
            version="priced-1",
        )


def once(view: View) -> Decision:
    """One call, then an answer."""
    return Decision(answer=ANSWER) if view.turns or view.final else calls(("tool", {}))


class Gate:
    """A worker that says when it is at work, and is done when it is let go."""

    def __init__(self) -> None:
        self.at_work = asyncio.Event()
        self.go = asyncio.Event()

    async def work(self, attempt: Attempt) -> Outcome:
        """See `Work`."""
        self.at_work.set()
        await self.go.wait()
        return Outcome(value=attempt.arguments)


class Doubtful(MemoryQueue):
    """Takes messages, and does not say so."""

    async def put(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> bool:
        """See `Queue`."""
        await super().put(subject, data, headers)
        raise Unreachable("the queue did not answer", hint="ask again")


class Served:
    """What a test has of a server that is up."""

    def __init__(self, world: World, client: Client, runs: Runs, url: str) -> None:
        self.world, self.client, self.runs, self.url = world, client, runs, url
        self.stop = asyncio.Event()
        self.serving: asyncio.Task[None] | None = None
        self.clients: list[openai.AsyncOpenAI] = []

    def ask(self, **options: Any) -> openai.AsyncOpenAI:
        """The official client."""
        client = openai.AsyncOpenAI(**{"base_url": self.url, "api_key": TOKEN, **options})
        self.clients.append(client)
        return client

    def http(self) -> httpx2.AsyncClient:
        """A plain one."""
        root = self.url.removesuffix("/v1")
        headers = {"authorization": f"Bearer {TOKEN}"}
        return httpx2.AsyncClient(base_url=root, headers=headers, timeout=WITHIN_S)

    async def only_run(self) -> str:
        """The id of the run that there is."""
        (run,) = await self.client.ids()
        return run

    def queued(self) -> str:
        """The id of the only run in the queue."""
        (subject,) = self.world.tasks.items
        return subject.rpartition(".")[2]

    async def ended(self) -> RunLog:
        """The only run, when it has ended."""
        return await self.world.ended(await self.only_run())

    async def end(self) -> None:
        """Stop the server, and wait for it."""
        self.stop.set()
        if self.serving is not None:
            await self.serving


@asynccontextmanager
async def served(
    *,
    decide: Callable[[View], Decision] = once,
    gate: Gate | None = None,
    budget: Budget | None = None,
    tokens: Sequence[str] = (TOKEN,),
    grace_s: float = 0.0,
    conductor: bool = True,
    doubtful: bool = False,
    **options: Any,
) -> AsyncIterator[Served]:
    """A server; its model is called ``orchestra``."""
    gate = gate or _open()
    world = World(lease_s=10.0)  # however busy the machine is, the conductor keeps its runs
    if doubtful:
        world.tasks = Doubtful(consumers_of("tasks"), world.lease_s)
    world.policies["priced"] = Priced(decide)
    await world.worker(TOOL, gate.work)
    if conductor:
        await world.conductor()
    client = Client(world.log, world.tasks, by="serve", look_s=0.2)
    spec = world.policies["priced"].spec
    model = Model("orchestra", Pool((TOOL, SUB)), spec, budget or Budget())
    runs = Runs(client, {"orchestra": model}, **options)
    there = listen("127.0.0.1", 0)
    found = Served(world, client, runs, url_of(there))
    routes, beside = offered(runs, root_of(there), tokens=bool(tokens))
    app = make(runs, tokens=tokens, routes=routes)
    found.serving = asyncio.create_task(
        serve(app, runs, there, found.stop, beside=beside, grace_s=grace_s)
    )
    try:
        async with asyncio.timeout(4 * WITHIN_S):
            yield found
            await found.end()
    finally:
        gate.go.set()
        for each in found.clients:
            await each.close()
        found.serving.cancel()
        await asyncio.wait({found.serving})
        await world.close()


def _open() -> Gate:
    gate = Gate()
    gate.go.set()
    return gate
