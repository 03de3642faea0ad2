"""The ports of the shell: what a conductor and a worker need of the outside world.

Everything here is a protocol class. The real ones are beside the shell (`actors/`), those of the
tests in `tests/`.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, runtime_checkable

import msgspec

from actors.models.question import NOBODY, Maker, Question
from protocol.actions import NOTHING, UNKNOWN_USAGE, Fault, Json, Spend, Status, Usage, WorkerSpec
from protocol.decisions import PolicySpec, Reply, View


class InstantPolicy(Protocol):
    """A policy that decides at once, without input or output: rules, a script."""

    spec: PolicySpec

    def decide(self, view: View) -> Reply:
        """The reply to ``view``. Never raises for anything that a user or a worker wrote."""
        ...


class EndpointPolicy(Protocol):
    """A policy that has to be waited for: an endpoint, a model of ours."""

    spec: PolicySpec

    async def ask(self, view: View) -> Reply:
        """The reply to ``view``; a failure of the endpoint is a Reply with its status."""
        ...


Policy = InstantPolicy | EndpointPolicy


@runtime_checkable
class SamplingPolicy(Protocol):
    """A policy whose tokens we see: a model of ours. It is an `EndpointPolicy`, too."""

    async def sample(self, view: View, before: bytes, maker: Maker = NOBODY) -> Reply:
        """The reply to ``view``, with its tokens.

        Args:
            view: See `EndpointPolicy.ask`.
            before: Packed ids of the tokens of the run's last question and what was sampled for
                it; its prompt goes on from them where it says the same. Empty for none.
            maker: Who made the last reply that the run has recorded: it makes this one, too, as
                long as it is there.

        Returns:
            The reply, with the hash of its ``prompt`` if that is known already. Its
            ``sampled.after`` is 1 if its prompt goes on from ``before``.
        """
        ...


class Models(Protocol):
    """Models of ours, wherever they are hosted."""

    async def ask(self, place: str, question: Question, within_s: float) -> Reply:
        """The reply of the model at that place; a failure is a reply with its status.

        Cancelling it takes the question back.
        """
        ...


@runtime_checkable
class Closing(Protocol):
    """A policy that holds something, such as connections. Whoever made it closes it."""

    async def close(self) -> None:
        """Release what the policy holds. It is not asked any more."""
        ...


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter is given to work on."""

    run: str
    call: str
    attempt: int
    arguments: dict[str, Json]
    """Already checked against the worker's schema."""
    timeout_s: float
    """Seconds left; the worker's loop cancels the adapter when they are over."""
    sees: Mapping[str, Json] = {}
    """Outputs of the calls that this one may see, by call id."""
    failed: Mapping[str, Status] = {}
    """Of those calls the ones that are not OK: their output says why."""
    fill: Mapping[str, str | None] = {}
    """What is put in place of the arguments' references to outputs, by call; None for too much."""
    task: str = ""
    """The text of the run's task, for agents."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter made of an attempt."""

    status: Status = "OK"
    fault: Fault = "none"
    value: Json = None
    """The result (JSON only), or the text of the error."""
    spend: Spend = NOTHING
    record: Json = None
    """What was exchanged with a model, `exchanges.Exchange` by exchange, with the tools used in
    between: kept beside the report, so that the attempt can be reproduced."""
    usage: Usage = UNKNOWN_USAGE
    """The tokens in ``spend``, told apart, where they are known."""


class Adapter(Protocol):
    """Hosts one worker: turns an attempt into an outcome.

    ``run`` is cancelled (``asyncio.CancelledError``) at the deadline and when the call is
    withdrawn; it must then stop what it started. Any exception it lets out is an ``EXEC_ERR`` of
    the worker with the exception's type and text.
    """

    spec: WorkerSpec

    async def run(self, attempt: Attempt) -> Outcome:
        """Work on one attempt. Called concurrently, up to ``spec.concurrency`` at a time."""
        ...

    async def close(self) -> None:
        """Release what the adapter holds: sub-processes, connections."""
        ...


@runtime_checkable
class Changing(Protocol):
    """An adapter whose worker may turn into another while it is hosted: a server's tool."""

    changed: Callable[[list[WorkerSpec]], None]
    """To be set by whoever wants to know; called with all workers that are there, by bare names
    and full addresses, when its own is no more what was recorded, or others come, go or change."""


Clock = Callable[[], int]
"""Milliseconds since the epoch."""

Sleep = Callable[[float], Awaitable[None]]
"""Wait for so many seconds."""
