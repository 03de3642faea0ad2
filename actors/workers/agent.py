"""An agent behind an OpenAI-compatible endpoint, as a worker: a role and a subtask, an answer.

The agent sees its role, the text of the run's task, the outputs that its call may see, and its
subtask; nothing else of the run. The key is named in the options, and read from the worker's
environment when it is used: it is never in the pool, the log or an error.
"""

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from actors.ports import Attempt, Outcome
from actors.workers.chat import KEY_ENV, Endpoint, Failed, Said, key_from, url_from_environment
from actors.workers.exchanges import Asks, Exchange, parts
from actors.workers.outcomes import failure
from protocol.actions import Json, Spend, WorkerSpec
from protocol.dialects.openai import Message, cut
from protocol.errors import InvalidData

KIND: Final = "openai"
"""The adapter's kind: what stands before the first colon of ``WorkerSpec.adapter``."""

PARAMETERS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "subtask": {
            "type": "string",
            "description": "What to do, completely: the agent does not see this conversation.",
        }
    },
    "required": ["subtask"],
    "additionalProperties": False,
}
"""What a call of this worker takes."""

DESCRIPTION: Final = "A general agent: answers a question or does a subtask given as text."

ROLE: Final = (
    "You are a member of a team. You are given one subtask of a larger task; do exactly that, and "
    "reply with its result as plain text, short and complete. If it can't be done, say why."
)
"""The role of an agent whose options give none."""

SEEN_CHARS: Final = 48_000
"""Characters of other calls' outputs in one prompt, shared by them: about 12,000 tokens."""


PROMPT_TOKENS: Final = 24_000
"""Tokens reserved for a prompt: outputs it sees, a subtask at its limit, a task, a role."""

REPLY_TOKENS: Final = 8_192
"""Tokens reserved for a reply whose length is not limited."""

TIMEOUT_MS: Final = 120_000
"""Milliseconds that an agent has unless the pool says otherwise: long reasoning."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set in the pool for a worker of this kind."""

    model: str
    """The model's name, as the endpoint knows it."""
    base_url: str | None = None
    """The endpoint's address; else ``OPENAI_BASE_URL``, else OpenAI's own."""
    api_key_env: str = KEY_ENV
    """The environment variable that has the key, where the worker runs. Never the key itself."""
    role: str = ROLE
    """The system prompt."""
    temperature: float | None = None
    max_tokens: int | None = None
    """The most that one reply may have."""
    price_in: float = 0.0
    """US dollars per million tokens read."""
    price_out: float = 0.0
    """US dollars per million tokens written."""


class OpenAIAdapter:
    """Hosts an agent.

    Args:
        spec: Its worker; ``spec.options`` are `Options`.

    Raises:
        InvalidData: An option is missing, unknown or of the wrong type.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.options = _options(spec.options, spec.name)
        self.endpoint: Asks = Endpoint(
            self.options.model,
            base_url=self.options.base_url or url_from_environment(),
            api_key=key_from(self.options.api_key_env),
            key_env=self.options.api_key_env,
            price_in=self.options.price_in,
            price_out=self.options.price_out,
        )

    @staticmethod
    def draft(adapter: str, options: Mapping[str, Json]) -> WorkerSpec:
        """An agent with these options, and what it may spend estimated from them."""
        made = _options(options, adapter)
        written = made.max_tokens or REPLY_TOKENS
        return WorkerSpec(
            name="agent",
            kind="agent",
            description=DESCRIPTION,
            parameters=PARAMETERS,
            adapter=adapter,
            options=dict(options),
            reserve=Spend(
                tokens=PROMPT_TOKENS + written,
                cost=math.ceil(PROMPT_TOKENS * made.price_in + written * made.price_out),
            ),
            timeout_ms=TIMEOUT_MS,
        )

    async def run(self, attempt: Attempt) -> Outcome:
        """Ask the agent once. Its text is the value."""
        extra: dict[str, Json] = (
            {} if self.options.temperature is None else {"temperature": self.options.temperature}
        )
        prompt, most = messages(self.options.role, attempt), self.options.max_tokens
        said = await self.endpoint.ask(
            prompt, timeout_s=attempt.timeout_s, max_tokens=most, extra=extra
        )
        if isinstance(said, Failed):
            outcome = failure(said.status, said.fault, said.text)
        else:
            outcome = _outcome(said)
        exchange = Exchange(parts(self.endpoint.model, prompt, most, extra), said)
        return msgspec.structs.replace(outcome, record=msgspec.to_builtins([exchange]))

    async def close(self) -> None:
        """Close the connections."""
        await self.endpoint.close()


def messages(role: str, attempt: Attempt) -> list[Message]:
    """The agent's prompt: its role, what it may see, its subtask."""
    parts = []
    if attempt.task:
        parts.append(f"The task of the whole team, for context only:\n{attempt.task}")
    limit = SEEN_CHARS // max(1, len(attempt.sees))
    for call, value in attempt.sees.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        parts.append(f'<output of="{call}">\n{cut(text, limit)}\n</output>')
    subtask = attempt.arguments.get("subtask")
    if not isinstance(subtask, str):  # a pool may give an agent a schema of its own
        subtask = msgspec.json.encode(attempt.arguments, order="deterministic").decode()
    parts.append(f"Your subtask:\n{subtask}" if parts else subtask)
    return [
        {"role": "system", "content": role},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def _options(options: Mapping[str, Json], whose: str) -> Options:
    try:
        return msgspec.convert(options, Options)
    except msgspec.ValidationError as error:
        raise InvalidData(
            f"The options of the worker {whose!r} are wrong: {error}.",
            hint=f"Options of an {KIND} worker: {', '.join(Options.__struct_fields__)}.",
        ) from error


def _outcome(said: Said) -> Outcome:
    if said.finish == "content_filter" or (said.refusal and not said.text.strip()):
        why = said.refusal or "the endpoint's content filter stopped it"
        return failure("EXEC_ERR", "worker", f"The agent did not answer: {why}.", said.spend)
    if not said.text.strip():
        why = "it used up its tokens" if said.finish == "length" else "its reply was empty"
        return failure("EXEC_ERR", "worker", f"The agent did not answer: {why}.", said.spend)
    return Outcome(value=said.text, spend=said.spend, usage=said.usage)
