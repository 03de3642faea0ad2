"""A conductor's policy behind an OpenAI-compatible endpoint, in any dialect of models."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from actors.policies.options import recorded
from actors.workers.agent.chat import (
    KEY_ENV,
    URL_ENV,
    Endpoint,
    key_from,
    url_from_environment,
)
from protocol.actions import Json, Spend
from protocol.decisions import PolicySpec, Reply, View, asked
from protocol.dialects import request
from protocol.dialects.shared import cut
from protocol.errors import Denied
from protocol.exchanges import Failed

KIND: Final = "openai"
"""What stands before the first colon of its name."""

TIMEOUT_S: Final = 120.0
"""Seconds that one reply may take: long reasoning of a large model."""

PROMPT_TOKENS: Final = 32_000
"""Tokens reserved for a prompt: a long history."""

REPLY_TOKENS: Final = 8_000
"""Tokens reserved for a reply whose length is not limited."""


TAKEN: Final = frozenset(
    {"messages", "model", "n", "stream", "temperature", "tool_choice", "tools"}
)
"""Fields of a request that ``extra`` can't give: the prompt, or what has an option of its own."""


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run records of the endpoint. Never the key itself."""

    base_url: str | None = None
    """Its address; else ``OPENAI_BASE_URL``, else OpenAI's own."""
    api_key_env: str = KEY_ENV
    """The environment variable that has the key, where the conductor runs."""
    temperature: float | None = None
    max_tokens: int | None = None
    """The most that one reply may have."""
    price_in: float = 0.0
    """US dollars per million tokens read."""
    price_out: float = 0.0
    """US dollars per million tokens written."""
    extra: dict[str, Json] = {}
    """Further fields of each request, such as ``top_p`` or ``chat_template_kwargs``."""

    def __post_init__(self) -> None:
        """Refuse what would be another prompt than the run records."""
        if taken := sorted(TAKEN & self.extra.keys()):
            raise ValueError(f"extra has {', '.join(taken)}, which Podium says itself")

    @property
    def reserve(self) -> Spend:
        """The most that one reply may spend, unless it is said."""
        written = self.max_tokens or REPLY_TOKENS
        cost = PROMPT_TOKENS * self.price_in + written * self.price_out
        return Spend(tokens=PROMPT_TOKENS + written, cost=math.ceil(cost))


RESERVE: Final = Options().reserve
"""What one reply may spend by default."""


def options_of(spec: PolicySpec) -> Options:
    """The options that a run has recorded. Raises `InvalidData`."""
    return recorded(spec, Options)


class OpenAIPolicy:
    """Asks an endpoint for each decision.

    Args:
        model: The model's name, as the endpoint knows it.
        base_url: The endpoint's address; None for OpenAI's own.
        api_key: The key.
        temperature: Sampling temperature; None for the endpoint's own.
        max_tokens: The most that one reply may have; None for the endpoint's own.
        timeout_s: Seconds that one reply may take.
        reserve: The most that one reply may spend.
        price_in: US dollars per million tokens read.
        price_out: US dollars per million tokens written.
        extra: Further fields of each request, such as ``{"seed": 7}``.
        clock: Seconds that never go back, for the latency.
        spec: How it speaks, and what it may take and spend; by default it makes native tool calls.
        key_env: Where the key came from, for the errors that name the cure.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout_s: float = TIMEOUT_S,
        reserve: Spend = RESERVE,
        price_in: float = 0.0,
        price_out: float = 0.0,
        extra: Mapping[str, Json] | None = None,
        clock: Callable[[], float] = time.monotonic,
        spec: PolicySpec | None = None,
        key_env: str = KEY_ENV,
    ) -> None:
        self.spec = spec or PolicySpec(
            name=f"{KIND}:{model}",
            dialect="openai",
            reserve=reserve,
            timeout_ms=max(1, round(timeout_s * 1_000)),
        )
        self._endpoint = Endpoint(
            model,
            base_url=base_url,
            api_key=api_key,
            key_env=key_env,
            price_in=price_in,
            price_out=price_out,
        )
        self._timeout_s = self.spec.timeout_ms / 1_000
        self._max_tokens = max_tokens
        self._extra = dict(extra or {})
        if temperature is not None:
            self._extra["temperature"] = temperature
        self._clock = clock

    async def ask(self, view: View) -> Reply:
        """The model's reply to ``view``; a failure of the endpoint is a reply with its status."""
        body = request(self.spec, view)
        started = self._clock()
        said = await self._endpoint.ask(
            body.pop("messages"),
            timeout_s=self._timeout_s,
            max_tokens=self._max_tokens,
            extra={**self._extra, **body},
        )
        latency_ms = max(0, round((self._clock() - started) * 1_000))
        if isinstance(said, Failed):
            return Reply(
                status=said.status,
                error=cut(said.text),
                latency_ms=latency_ms,
                retry=said.retry,
                finish=said.finish,
            )
        return Reply(
            text=said.text or said.refusal,
            tool_calls=said.tool_calls,
            spend=said.spend,
            latency_ms=latency_ms,
            version=said.version,
            usage=said.usage,
            finish=said.finish,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()


def from_env(model: str, *, temperature: float | None = None) -> OpenAIPolicy:
    """The policy of ``--policy openai:MODEL``, with address and key from the environment.

    Raises:
        Denied: There is no key.
    """
    options = {} if temperature is None else {"temperature": temperature}
    return from_spec(msgspec.structs.replace(OpenAIPolicy(model).spec, options=options))


def from_spec(spec: PolicySpec) -> OpenAIPolicy:
    """The policy that a run has recorded, with its key from the environment.

    Raises:
        Denied: There is no key.
        InvalidData: Its options are wrong.
    """
    options = options_of(spec)
    key = key_from(options.api_key_env)
    if not key:
        raise Denied(
            f"The policy {spec.name} needs a key, and {options.api_key_env} is not set.",
            hint=f"export {options.api_key_env}=... (any text for a server of your own that needs "
            f"none, with its address in base_url or {URL_ENV}), or leave --policy out to use the "
            "rules.",
        )
    return OpenAIPolicy(
        asked(spec.name).partition(":")[2],
        base_url=options.base_url or url_from_environment(),
        api_key=key,
        key_env=options.api_key_env,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        price_in=options.price_in,
        price_out=options.price_out,
        extra=options.extra,
        spec=spec,
    )
