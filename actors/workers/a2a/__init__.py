"""An agent that speaks A2A, as a worker: a subtask becomes a message, its task's end an outcome.

The official SDK carries the messages. An attempt is one message; all attempts of a run share a
context, by the run's id, so that the agent can keep a conversation. The agent goes on with its task
whoever listens: a connection that breaks is taken up again, and an attempt that is given up is
cancelled where the work is done. The SDK is loaded with the first attempt.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

import msgspec

from actors import tracing
from actors.ports import Attempt, Outcome
from actors.workers.a2a import card as a2a_card
from actors.workers.a2a.errors import blamed, passing, unfinished
from actors.workers.a2a.replies import Heard, Prices, outcome, spend
from actors.workers.agent import PARAMETERS as AGENT_PARAMETERS
from actors.workers.agent import messages
from actors.workers.options import converted
from actors.workers.outcomes import failure, redacted, unable
from actors.workers.trust import trusted
from protocol.actions import MICRO, Json, Spend, WorkerSpec
from protocol.errors import InvalidData, PodiumError
from replay.address import shown

if TYPE_CHECKING:
    import httpx
    from a2a.client import Client, ClientCallContext
    from a2a.types import SendMessageRequest, StreamResponse

logger = logging.getLogger("podium.worker")

KIND: Final = "a2a"
"""The adapter's kind: what stands before the first colon of ``WorkerSpec.adapter``."""

PARAMETERS: Final[dict[str, Json]] = {
    **AGENT_PARAMETERS,
    "properties": {
        **AGENT_PARAMETERS["properties"],
        "task": {
            "type": "string",
            "description": "Only to answer what this agent asked: the task that it named.",
        },
    },
}
"""What a call of this worker takes."""

TIMEOUT_MS: Final = 300_000
"""Milliseconds that an agent has unless the pool says otherwise: whole agents take minutes."""

CONNECT_S: Final = 10.0
"""Seconds that a connection may take. What comes after has the attempt's whole time."""

CANCEL_S: Final = 1.5
"""Seconds that the agent may take to hear that its task is given up: less than the conductor waits
for a report beyond an attempt's end."""

FIRST_LOOK_S: Final = 0.1
"""Seconds before the first look at a task, or the first try to reach an agent again."""

LAST_LOOK_S: Final = 3.0
"""Seconds that looks at a task are apart in the end: they grow by half each time."""

TRIES: Final = 8
"""Tries in a row to reach an agent that has our task: over about ten seconds, the time in which
a server starts anew."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set in the pool for a worker of this kind."""

    url: Annotated[str, msgspec.Meta(pattern="^https?://")]
    """The agent's address; its card is at ``/.well-known/agent-card.json`` below, or is this."""
    skill: str = ""
    """The id of the one of its skills that the worker is described by."""
    headers: dict[str, str] = {}
    """Sent with every request; values may hold ``${secret:NAME}``."""
    hosts: tuple[str, ...] = ()
    """Further hosts that may get the headers, where the card names one of them."""
    updates: Literal["streaming", "polling"] = "streaming"
    """How news of a task come. An agent that doesn't stream is polled."""
    conversation: Literal["run", "call"] = "run"
    """What shares a context: all calls of a run, or nothing, for an agent that takes no context of
    ours."""
    cost_usd: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """US dollars that an attempt costs, unless the agent tells its cost."""
    price_in: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """US dollars per million tokens read, if the agent tells them."""
    price_out: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """The same of tokens written."""


class A2AAdapter:
    """Hosts an agent.

    Args:
        spec: Its worker; ``spec.options`` are `Options`.

    Raises:
        InvalidData: An option is missing, unknown or of the wrong type.
        Usage: The SDK is not installed.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.options = _options(spec.options, spec.name)
        a2a_card.need_sdk()
        self._prices = Prices(self.options.cost_usd, self.options.price_in, self.options.price_out)
        self._http: httpx.AsyncClient | None = None
        self._agent: Client | None = None
        self._streams, self._is = False, ""
        self._connecting = asyncio.Lock()

    @staticmethod
    def draft(adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """An agent with these options, but for its description: that is in its card."""
        made = _options(options, adapter)
        return WorkerSpec(
            name="agent",
            kind="agent",
            parameters=PARAMETERS,
            adapter=adapter,
            options=dict(options),
            reserve=Spend(cost=math.ceil(made.cost_usd * MICRO)),
            timeout_ms=TIMEOUT_MS,
        )

    @staticmethod
    def described(spec: WorkerSpec) -> WorkerSpec:
        """The worker with its card's description. Asks the agent; raises as `a2a_card.fetch_now`.

        Raises:
            NotFound: The agent has no such skill.
            InvalidData: It speaks nothing that is spoken here.
        """
        a2a_card.need_sdk()
        options = _options(spec.options, spec.name)
        card = a2a_card.fetch_now(options.url, options.headers)
        a2a_card.usable(card, options.url, tuple(options.headers), options.hosts)
        text = a2a_card.description(card, options.skill)
        return msgspec.structs.replace(spec, description=text)

    async def run(self, attempt: Attempt) -> Outcome:
        """Send the subtask; the outcome is what becomes of it."""
        heard = Heard()
        with tracing.outside():  # what the agent is told of us is the span alone
            try:
                agent = await self._connected()
                await self._spoken(agent, attempt, heard)
            except PodiumError as error:
                return unable(error)
            except Exception as error:
                return self._failed(error, attempt, heard)
        return outcome(heard, self._prices)

    async def close(self) -> None:
        """Close the connections."""
        http, self._http, self._agent = self._http, None, None
        if http is not None:
            await http.aclose()

    async def check(self) -> str:
        """What the agent is, in words. Raises what keeps it from being asked."""
        with tracing.outside():
            await self._connected()
        return self._is

    # ---------------------------------------------------------------------------------- connection

    async def _connected(self) -> "Client":
        """The SDK's client, made from the agent's card when it is first needed."""
        async with self._connecting:
            if self._agent is None:
                self._agent = await self._connect()
            return self._agent

    async def _connect(self) -> "Client":
        await asyncio.to_thread(_loaded)  # a quarter of a second of CPU
        import httpx
        from a2a.client import ClientConfig, ClientFactory

        options = self.options
        if self._http is None:
            self._http = httpx.AsyncClient(
                headers=options.headers,
                timeout=httpx.Timeout(None, connect=CONNECT_S),
                limits=httpx.Limits(max_connections=None),
                verify=trusted(),
            )
        card = await a2a_card.fetch(self._http, options.url)
        card = a2a_card.usable(card, options.url, tuple(options.headers), options.hosts)
        self._streams = options.updates == "streaming" and card.capabilities.streaming
        (spoken,) = card.supported_interfaces
        how = "streaming" if self._streams else "polling"
        named = f"{card.name} {card.version}".strip()
        self._is = f"{named}: {spoken.protocol_binding} {spoken.protocol_version}, {how}"
        config = ClientConfig(
            streaming=self._streams,
            polling=not self._streams,
            httpx_client=self._http,
            supported_protocol_bindings=list(a2a_card.BINDINGS),
        )
        return ClientFactory(config).create(card)

    # -------------------------------------------------------------------------------- conversation

    async def _spoken(self, agent: "Client", attempt: Attempt, heard: Heard) -> None:
        """Have a conversation; one that is not brought to an end is given up at both sides."""
        begun = asyncio.Event()
        talk = asyncio.create_task(self._talk(agent, attempt, heard, begun))
        try:
            await asyncio.shield(talk)
        finally:
            try:
                async with asyncio.timeout(CANCEL_S):
                    # A message that is sent begins a task, which can be cancelled by name only.
                    await _either(talk, begun)
                    await self._give_up(agent, heard)
            except TimeoutError:
                logger.info("%s was not told in time that it is given up", self.spec.name)
            finally:
                talk.cancel()
                await asyncio.gather(talk, return_exceptions=True)

    async def _talk(
        self, agent: "Client", attempt: Attempt, heard: Heard, begun: asyncio.Event
    ) -> None:
        """Send the message, and listen until its task is settled."""
        request = _request(attempt, self.options)
        sent = agent.send_message(request, context=_context())
        try:
            await _listen(sent, heard, begun)
        except Exception as error:
            if not (heard.task and passing(error)):
                raise
            text = "the task %s of %s is taken up again: %s"
            logger.info(text, heard.task, self.spec.name, redacted(str(error)))
        if not heard.settled:
            await self._follow(agent, heard)

    async def _follow(self, agent: "Client", heard: Heard) -> None:
        """Look at a task until it is settled.

        What a stream says here only tells when to look: one that begins in the middle has gaps.
        """
        from a2a.types import GetTaskRequest, SubscribeToTaskRequest

        if not heard.task:
            raise unfinished("the agent began no task, gave no reply, and closed the connection")
        lost, wait_s, asked = 0, FIRST_LOOK_S, GetTaskRequest(id=heard.task)
        while True:
            try:
                heard.take(await agent.get_task(asked, context=_context()))
                lost = 0
                if self._streams and not heard.settled:
                    told, more = Heard(), SubscribeToTaskRequest(id=heard.task)
                    await _listen(agent.subscribe(more, context=_context()), told)
                    if told.settled:
                        heard.take(await agent.get_task(asked, context=_context()))
                if heard.settled:
                    return
            except Exception as error:
                lost += 1
                if lost > TRIES or not passing(error):
                    raise
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, LAST_LOOK_S)

    async def _give_up(self, agent: "Client", heard: Heard) -> None:
        """Have the agent stop, if it is still at work."""
        from a2a.types import CancelTaskRequest

        if not heard.open:
            return
        try:
            await agent.cancel_task(CancelTaskRequest(id=heard.task), context=_context())
        except Exception as error:  # it ended just so, can't be cancelled, or is gone
            text = "the task %s of %s was not cancelled: %s: %s"
            said = redacted(str(error))
            logger.info(text, heard.task, self.spec.name, type(error).__name__, said)

    def _failed(self, error: Exception, attempt: Attempt, heard: Heard) -> Outcome:
        status, fault, text = blamed(error, _answers(attempt))
        if fault == "infrastructure":
            self._agent = None  # the card may have changed
        where = f"The A2A agent at {shown(self.options.url)}"
        if heard.task:
            where += f" (task {heard.task})"
        return failure(status, fault, f"{where} {text}", spend(heard, self._prices))


async def _listen(
    events: "AsyncIterator[StreamResponse]", heard: Heard, begun: asyncio.Event | None = None
) -> None:
    """Take in what is said until it settles the task, or the stream ends.

    Args:
        events: The stream.
        heard: Takes it in.
        begun: Set when the task has a name.
    """
    # The SDK's streams are generators, whatever its types say: left, one has to be closed.
    async with aclosing(cast(Any, events)):
        async for event in events:
            heard.hear(event)
            if heard.task and begun is not None:
                begun.set()
            if heard.settled:
                return


async def _either(talk: asyncio.Task[None], begun: asyncio.Event) -> None:
    """Wait until the conversation is over, or has begun."""
    beginning = asyncio.create_task(begun.wait())
    try:
        await asyncio.wait((talk, beginning), return_when=asyncio.FIRST_COMPLETED)
    finally:
        beginning.cancel()


def _request(attempt: Attempt, options: Options) -> "SendMessageRequest":
    """The subtask as a message. Its id is the attempt's: the agent can tell one sent again."""
    from a2a.types import Message, Part, Role, SendMessageRequest

    prompt = messages("", attempt)[-1]["content"]
    return SendMessageRequest(
        message=Message(
            message_id=f"{attempt.run}/{attempt.call}/{attempt.attempt}",
            context_id=attempt.run if options.conversation == "run" else "",
            task_id=_answers(attempt),
            role=Role.ROLE_USER,
            parts=[Part(text=prompt)],
        )
    )


def _answers(attempt: Attempt) -> str:
    """The task whose question an attempt answers; "" if it answers none.

    A pool may give an agent a schema of its own, in which ``task`` is something else.
    """
    named = attempt.arguments.get("task") if "subtask" in attempt.arguments else None
    return named if isinstance(named, str) else ""


def _loaded() -> None:
    """Load the SDK, and whom connections trust. Blocks."""
    import a2a.client  # noqa: F401

    trusted()


def _context() -> "ClientCallContext":
    """What goes with one request: the span that is current."""
    from a2a.client import ClientCallContext

    return ClientCallContext(service_parameters=tracing.passed_on())


def _options(options: Mapping[str, Json], whose: str) -> Options:
    made = converted(options, Options, KIND, whose)
    for name, value in made.headers.items():
        if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()):
            raise InvalidData(
                f"The header {name!r} of the worker {whose!r} can't be sent: it has letters that "
                "no header may have.",
                hint="A header is one line of ASCII.",
            )
    return made
