"""An agent behind an OpenAI-compatible endpoint, as a worker: a role and a subtask, an answer.

The agent sees its role, the text of the run's task, the outputs that its call may see, and its
subtask; nothing else of the run. It may have tools of its own, which it uses in a bounded loop
within its attempt: whoever called it sees the answer, and the record beside the report has every
turn. The key is named in the options, and read from the worker's environment when it is used: it is
never in the pool, the log or an error.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

from actors.ports import Attempt, Outcome
from actors.workers.agent import judging, roles
from actors.workers.agent.chat import KEY_ENV, Endpoint, key_from, url_from_environment
from actors.workers.agent.exchanges import Asks, Uses, recorded
from actors.workers.agent.toolbox import Toolbox, ToolTable, drafted, pool_of
from actors.workers.agent.turns import Turns
from actors.workers.options import converted
from actors.workers.outcomes import failure, so_far
from protocol.actions import Json, Spend, WorkerSpec
from protocol.dialects.shared import Message, cut
from protocol.exchanges import Failed, Said
from protocol.references import as_text

KIND: Final = "openai"
"""The adapter's kind: what stands before the first colon of ``WorkerSpec.adapter``."""

_SUBTASK: Final = "What to do, completely: the agent does not see this conversation."

PARAMETERS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {"subtask": {"type": "string", "description": _SUBTASK}},
    "required": ["subtask"],
    "additionalProperties": False,
}
"""What a call of this worker takes."""

JUDGE_PARAMETERS: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "subtask": {
            "type": "string",
            "description": "The question, completely, and by what to judge answers to it.",
        },
        "answers": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The answers, word for word, as far as the call does not see them.",
        },
    },
    "required": ["subtask"],
    "additionalProperties": False,
}
"""What a call of a worker takes that gives the best answer."""

NOTHING_TO_COMPARE: Final = (
    "There is nothing to compare: let the call see calls that are OK, or give it `answers`."
)

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

TOOLS_TIMEOUT_MS: Final = 300_000
"""Milliseconds that an agent with tools has: several turns."""

MAX_TURNS: Final = 8
"""Requests in which an agent may call tools, unless its options say otherwise: most subtasks need
two or three, and what needs more is better planned by the conductor, in the open."""

MOST_TURNS: Final = 100
"""The most that options may allow: every turn's prompt holds all turns before it."""

PARALLEL: Final = 8
"""Tools at work at a time for one attempt, unless its options say otherwise."""


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be set in the pool for a worker of this kind."""

    model: str
    """The model's name, as the endpoint knows it."""
    base_url: str | None = None
    """The endpoint's address; else ``OPENAI_BASE_URL``, else OpenAI's own."""
    api_key_env: str = KEY_ENV
    """The environment variable that has the key, where the worker runs. Never the key itself."""
    role: str = ROLE
    """The system prompt; or the name of one of ours, such as ``@critical-reviewer``."""
    temperature: float | None = None
    max_tokens: int | None = None
    """The most that one reply may have."""
    price_in: float = 0.0
    """US dollars per million tokens read."""
    price_out: float = 0.0
    """US dollars per million tokens written."""
    tools: tuple[str | ToolTable, ...] = ()
    """Tools of its own, by address or as tables."""
    max_turns: Annotated[int, msgspec.Meta(ge=1, le=MOST_TURNS)] = MAX_TURNS
    """Requests in which it may call them; one more asks for the answer."""
    parallel: Annotated[int, msgspec.Meta(ge=1, le=MOST_TURNS)] = PARALLEL
    """Tools at work at a time for one attempt."""
    gives: Literal["text", "best"] = "text"
    """What the value of a call is: the text of its answer; or the best of the answers that it was
    shown, by the scores in its text."""


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
        self.tools = pool_of(self.options.tools, f"the worker {spec.name!r}")
        self.toolbox: Uses = Toolbox(self.tools, self.options.parallel)
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
        """An agent with these options, and what it may spend estimated from them.

        Its options have the text of its role and all that is known of its tools, so that whoever
        reads them later needs nothing of ours.
        """
        made = _options(options, adapter)
        role = roles.named(str(options.get("role", "")))
        tools = [drafted(tool) for tool in made.tools]
        pool = pool_of(tuple(tools), adapter)
        written = made.max_tokens or REPLY_TOKENS
        requests = made.max_turns + 1 if tools else 1
        reserve = Spend(
            tokens=requests * (PROMPT_TOKENS + written),
            cost=math.ceil(requests * (PROMPT_TOKENS * made.price_in + written * made.price_out)),
        )
        for tool in pool.workers:  # each of them once a turn
            tokens, cost = tool.reserve.tokens, tool.reserve.cost
            reserve += Spend(tokens=made.max_turns * tokens, cost=made.max_turns * cost)
        known: dict[str, Json] = dict(options) | {"role": made.role}
        if tools:
            known["tools"] = msgspec.to_builtins(tools)
        if made.gives != "text":
            known["gives"] = made.gives
        return WorkerSpec(
            name="agent",
            kind="agent",
            description=role.description if role is not None else DESCRIPTION,
            parameters=PARAMETERS if made.gives == "text" else JUDGE_PARAMETERS,
            adapter=adapter,
            options=known,
            reserve=reserve,
            timeout_ms=TOOLS_TIMEOUT_MS if tools else TIMEOUT_MS,
        )

    async def run(self, attempt: Attempt) -> Outcome:
        """Have the agent work until it answers. Its text is the value, or what its text decides."""
        answers = judging.candidates(attempt)
        if self.options.gives == "best" and not answers:
            outcome = failure("PARSE_ERR", "policy", NOTHING_TO_COMPARE)
            return msgspec.structs.replace(outcome, record=[])
        turns = Turns(
            self.endpoint,
            self.toolbox,
            self.tools,
            attempt,
            max_turns=self.options.max_turns,
            max_tokens=self.options.max_tokens,
            temperature=self.options.temperature,
            reserve=self.spec.reserve,
        )
        so_far.set(lambda: turns.so_far)
        said = await turns.run(messages(self.options.role, attempt))
        if isinstance(said, Failed):
            outcome = failure(said.status, said.fault, said.text)
        elif (why := _unanswered(said)) != "":
            outcome = failure("EXEC_ERR", "worker", f"The agent did not answer: {turns.late}{why}.")
        elif self.options.gives == "best":
            outcome = _judged(judging.best(said.text, answers))
        else:
            outcome = Outcome(value=said.text)
        return msgspec.structs.replace(
            outcome,
            spend=turns.spend,
            usage=turns.usage,
            record=recorded(turns.exchanges),
        )

    async def close(self) -> None:
        """Close the connections, and what the tools hold."""
        await self.toolbox.close()
        await self.endpoint.close()


def messages(role: str, attempt: Attempt) -> list[Message]:
    """The agent's prompt: its role, what it may see, its subtask."""
    parts = []
    if attempt.task:
        parts.append(f"The task of the whole team, for context only:\n{attempt.task}")
    shown = {**attempt.sees, **judging.given(attempt)}
    limit = SEEN_CHARS // max(1, len(shown))
    for call, value in shown.items():
        status = f' status="{attempt.failed[call]}"' if call in attempt.failed else ""
        parts.append(f'<output of="{call}"{status}>\n{cut(as_text(value), limit)}\n</output>')
    subtask = attempt.arguments.get("subtask")
    if not isinstance(subtask, str):  # a pool may give an agent a schema of its own
        subtask = msgspec.json.encode(attempt.arguments, order="deterministic").decode()
    parts.append(f"Your subtask:\n{subtask}" if parts else subtask)
    return [
        {"role": "system", "content": role},
        {"role": "user", "content": "\n\n".join(parts)},
    ]


def _options(options: Mapping[str, Json], whose: str) -> Options:
    made = converted(options, Options, KIND, whose)
    role = roles.named(made.role)
    if role is None:
        return made
    gives = role.gives if "gives" not in options else made.gives
    return msgspec.structs.replace(made, role=role.prompt, gives=gives)


def _judged(judged: judging.Judged | str) -> Outcome:
    if isinstance(judged, str):
        text = f"The reviewer's reply decides nothing: {judged}."
        return failure("EXEC_ERR", "worker", text)
    return Outcome(value=msgspec.to_builtins(judged))


def _unanswered(said: Said) -> str:
    """Why a reply is no answer; or ""."""
    if said.finish == "content_filter" or (said.refusal and not said.text.strip()):
        return said.refusal or "the endpoint's content filter stopped it"
    if not said.text.strip():
        return "it used up its tokens" if said.finish == "length" else "its reply was empty"
    return ""
