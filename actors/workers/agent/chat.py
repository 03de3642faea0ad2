"""One request to an OpenAI-compatible endpoint: what it said, or which kind of failure it was.

Shared by the agent (a worker) and the policy. The `openai` package is loaded with the first
request: it takes half a second. Its own retries are off, since attempts are counted and recorded.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from actors import tracing
from actors.workers.outcomes import clean, redacted
from actors.workers.trust import trusted
from protocol.actions import UNKNOWN_USAGE, Fault, Json, Spend, Usage
from protocol.decisions import NO_ROOM, ToolCall
from protocol.exchanges import Failed, Said

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI
    from openai.types.chat import ChatCompletion

KEY_ENV: Final = "OPENAI_API_KEY"
"""The environment variable that has the key, if no other is named."""

URL_ENV: Final = "OPENAI_BASE_URL"
"""The environment variable that has the endpoint's address, if none is given."""

OPENAI_HOST: Final = "api.openai.com"

ERROR_CHARS: Final = 600
"""Characters kept of an endpoint's error: its first lines say it all, the rest may be a page."""

_TOO_LONG: Final = re.compile(
    r"context[ _](length|window|size)|prompt is too long|maximum number of tokens", re.IGNORECASE
)
"""What endpoints say of a conversation that is longer than the model takes: OpenAI, vLLM, SGLang
and llama.cpp by the first, Anthropic by the second, Gemini by the third."""

MAX_TOKENS: Final = 1_000_000_000
"""Tokens of one request that are believed; an endpoint that claims more miscounts."""


class Endpoint:
    """An endpoint and a model, with the key and the prices.

    Args:
        model: The model's name, as the endpoint knows it.
        base_url: Its address; None for OpenAI's own.
        api_key: The key; empty is an infrastructure fault at the first request.
        key_env: Where the key came from, for the errors that name the cure.
        price_in: US dollars per million tokens read, which is micro-dollars per token.
        price_out: The same for tokens written.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None,
        api_key: str,
        key_env: str = KEY_ENV,
        price_in: float = 0.0,
        price_out: float = 0.0,
    ) -> None:
        self.model = model
        self.base_url = base_url
        self._key = api_key
        self._key_env = key_env
        self._prices = (price_in, price_out)
        self._client: AsyncOpenAI | None = None

    async def ask(
        self,
        messages: list[dict[str, Any]],
        *,
        timeout_s: float,
        max_tokens: int | None = None,
        extra: Mapping[str, Json] | None = None,
    ) -> Said | Failed:
        """One chat completion.

        Args:
            messages: The conversation.
            timeout_s: Seconds for all of it, however slowly the endpoint sends.
            max_tokens: The most that the model may write.
            extra: Further fields of the request: tools, temperature.

        Returns:
            What was said, or the failure. Only cancellation is an exception.
        """
        if self._client is None:
            await asyncio.to_thread(_loaded)
        import openai

        if not self._key:
            text = f"There is no key: {self._cure()}"
            return self._failed("infrastructure", text, retry=False)
        body = dict(extra or {})
        if max_tokens is not None:
            body[self._limit_field()] = max_tokens
        try:
            async with asyncio.timeout(timeout_s):
                with tracing.outside():
                    completion = await self._connected().chat.completions.create(
                        model=self.model,
                        messages=messages,  # type: ignore[arg-type]
                        timeout=timeout_s,
                        extra_body=body,
                        extra_headers=tracing.passed_on(),
                    )
                return self._said(completion)
        except (TimeoutError, openai.APITimeoutError):
            text = f"{self._where()} did not answer within {timeout_s:g} seconds."
            return Failed(status="TIMEOUT", fault="worker", text=text)
        except openai.APIStatusError as error:
            return self._refused(error.status_code, _refusal(error))
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            text = f"{self._where()} can't be reached: {type(cause).__name__}: {cause}. Check "
            return self._failed(
                "infrastructure", text + f"the address and the network ({URL_ENV})."
            )
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, LookupError) as error:
            text = f"{self._where()} sent no chat completion: {type(error).__name__}: {error}. "
            return self._failed("infrastructure", text + "Is it an OpenAI-compatible endpoint?")

    async def close(self) -> None:
        """Close the connections. The next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _connected(self) -> "AsyncOpenAI":
        if self._client is None:
            import openai

            self._client = openai.AsyncOpenAI(
                api_key=self._key,
                base_url=self.base_url or f"https://{OPENAI_HOST}/v1",
                max_retries=0,
                http_client=openai.DefaultAsyncHttpxClient(verify=trusted()),
            )
        return self._client

    def _limit_field(self) -> str:
        """OpenAI's newer models refuse the field that others know it by."""
        host = urlsplit(self.base_url).hostname if self.base_url else OPENAI_HOST
        return "max_completion_tokens" if host == OPENAI_HOST else "max_tokens"

    def _said(self, completion: "ChatCompletion") -> Said:
        """Take what we know of a completion. Endpoints leave fields out, whatever the types say."""
        choice = completion.choices[0]
        message = choice.message
        calls = tuple(
            ToolCall(
                id=_text(call.id),
                name=_text(call.function.name),
                arguments=_text(call.function.arguments),
            )
            for call in message.tool_calls or ()
            if call.type == "function"
        )
        usage = _usage(completion)
        fingerprint = _text(getattr(completion, "system_fingerprint", None))
        version = _text(completion.model) or self.model
        return Said(
            text=_text(message.content),
            tool_calls=calls,
            finish=_text(choice.finish_reason),
            refusal=_text(getattr(message, "refusal", None)),
            spend=self._spend(usage),
            usage=usage,
            version=f"{version}@{fingerprint}" if fingerprint else version,
        )

    def _spend(self, usage: Usage) -> Spend:
        cost = usage.input * self._prices[0] + usage.output * self._prices[1]
        return Spend(tokens=usage.input + usage.output, cost=round(cost))

    def _refused(self, code: int, message: str) -> Failed:
        said = redacted(message)[:ERROR_CHARS]
        text = f"{self._where()} refused with HTTP {code}: {said}"
        if code in (408, 409, 429) or code >= 500:
            return self._failed("infrastructure", f"{text}. It may work later.")
        if code in (401, 403):
            return self._failed("infrastructure", f"{text}. {self._cure()}", retry=False)
        if code == 404:
            text += f". Check the model's name and the address ({URL_ENV})."
            return self._failed("infrastructure", text, retry=False)
        full = _TOO_LONG.search(message) is not None
        return self._failed("worker", text, retry=False, finish=NO_ROOM if full else "")

    def _failed(self, fault: Fault, text: str, *, retry: bool = True, finish: str = "") -> Failed:
        if self._key:
            text = text.replace(self._key, "[key]")
        return Failed(status="EXEC_ERR", fault=fault, text=clean(text), retry=retry, finish=finish)

    def _cure(self) -> str:
        return f"set {self._key_env} to a valid key where this runs."

    def _where(self) -> str:
        return f"The endpoint {self.base_url or OPENAI_HOST} (model {self.model})"


def _refusal(error: "APIStatusError") -> str:
    """What an endpoint says of its refusal. Some have no message in OpenAI's form."""
    body = error.body
    if isinstance(body, Mapping):
        if isinstance(body.get("message"), str):
            return error.message
        body = body.get("detail", body)
    return f"{error.message}: {body}" if body else error.message


def _loaded() -> None:
    """Load what a client needs: half a second, in which a worker gives signs of life."""
    import openai  # noqa: F401

    trusted()


def _usage(completion: "ChatCompletion") -> Usage:
    said = completion.usage
    if said is None:
        return UNKNOWN_USAGE
    counts = (said.prompt_tokens, said.completion_tokens)
    return Usage(*(min(MAX_TOKENS, max(0, count or 0)) for count in counts))


def _text(value: object) -> str:
    return clean(value) if isinstance(value, str) else ""


def key_from(name: str) -> str:
    """The key in an environment variable; empty if there is none. Read only where it is used."""
    return os.environ.get(name, "").strip()


def url_from_environment() -> str | None:
    """The endpoint's address in the environment; None for OpenAI's own."""
    return os.environ.get(URL_ENV, "").strip() or None
