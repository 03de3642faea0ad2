"""A conductor's policy behind an OpenAI-compatible endpoint, with native parallel tool calls."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from actors.workers.chat import (
    KEY_ENV,
    URL_ENV,
    Endpoint,
    Failed,
    key_from,
    url_from_environment,
)
from protocol.actions import Json, Spend
from protocol.decisions import PolicySpec, Reply, View
from protocol.dialects import openai as dialect
from protocol.dialects.openai import cut
from protocol.errors import Denied

TIMEOUT_S: Final = 120.0
"""Seconds that one reply may take: long reasoning of a large model."""

RESERVE: Final = Spend(tokens=40_000)
"""What one reply may spend unless it is said: a long history read, a long reply written."""


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
    ) -> None:
        self.spec = PolicySpec(
            name=f"openai:{model}",
            dialect="openai",
            reserve=reserve,
            timeout_ms=max(1, round(timeout_s * 1_000)),
        )
        self._endpoint = Endpoint(
            model, base_url=base_url, api_key=api_key, price_in=price_in, price_out=price_out
        )
        self._timeout_s = timeout_s
        self._max_tokens = max_tokens
        self._extra = dict(extra or {})
        if temperature is not None:
            self._extra["temperature"] = temperature
        self._clock = clock

    async def ask(self, view: View) -> Reply:
        """The model's reply to ``view``; a failure of the endpoint is a reply with its status."""
        body = dialect.request(view)
        started = self._clock()
        said = await self._endpoint.ask(
            body.pop("messages"),
            timeout_s=self._timeout_s,
            max_tokens=self._max_tokens,
            extra={**self._extra, **body},
        )
        latency_ms = max(0, round((self._clock() - started) * 1_000))
        if isinstance(said, Failed):
            return Reply(status=said.status, error=cut(said.text), latency_ms=latency_ms)
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
    key = key_from(KEY_ENV)
    if not key:
        raise Denied(
            f"The policy openai:{model} needs a key, and {KEY_ENV} is not set.",
            hint=f"export {KEY_ENV}=... (any text for a server of your own that needs none, "
            f"with its address in {URL_ENV}), or leave --policy out to use the rules.",
        )
    return OpenAIPolicy(
        model, base_url=url_from_environment(), api_key=key, temperature=temperature
    )
