"""A conductor's policy that is a model of ours: a folder of Transformers, see `actors.models`."""

from hashlib import sha256
from typing import Final, cast

import msgspec

from actors.models.question import NOBODY, Maker, Question, Sampling
from actors.models.serving import Batching
from actors.policies.options import recorded
from actors.ports import Models
from protocol.actions import Json, Spend
from protocol.decisions import Dialect, PolicySpec, Reply, View
from protocol.dialects import request, request_hash
from protocol.errors import InvalidData

KIND: Final = "local"
"""What stands before the first colon of its name."""

TIMEOUT_S: Final = 120.0
"""Seconds that one reply may take, the wait for its place in a batch included."""

WORD_S: Final = 5.0
"""Seconds of these that are left for the server's word that nothing came of it: it says what that
took, where a time-out here is billed as all that was reserved."""

DIALECTS: Final[tuple[Dialect, ...]] = ("hermes", "lists", "compact", "slots")
"""Those that are text."""

PROMPT_TOKENS: Final = 16_000
"""Tokens reserved for a prompt: a long history, for the context of a small model."""

MAX_TOKENS: Final = 1_024
"""Tokens sampled for one reply if nothing is said: a decision with some thought before it."""


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run records of the model, besides how it speaks."""

    folder: str
    """Where it is, absolute, on the machine that hosts it."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = MAX_TOKENS
    """The most that one reply may have."""
    seed: int = 0
    """Each question's own seed is derived from it, the run and the prompt."""
    template: dict[str, Json] = {}
    """Values for the chat template, such as ``enable_thinking``."""
    batching: Batching = Batching()
    """Of whoever hosts it; the first policy of a folder says it for all."""

    @property
    def reserve(self) -> Spend:
        """The most that one reply may spend, unless it is said."""
        return Spend(tokens=PROMPT_TOKENS + self.max_tokens)


def options_of(spec: PolicySpec) -> Options:
    """The options that a run has recorded. Raises `InvalidData`."""
    return recorded(spec, Options)


def spec_of(options: Options, **said: object) -> PolicySpec:
    """What a run records of a model in a folder.

    Args:
        options: See `Options`.
        said: Other fields of the description, such as ``dialect``.
    """
    name = options.folder.rstrip("/").rpartition("/")[2]
    spec = PolicySpec(
        name=f"{KIND}:{name}",
        dialect="hermes",
        reserve=options.reserve,
        timeout_ms=round(TIMEOUT_S * 1_000),
        options=msgspec.to_builtins(options),
    )
    return msgspec.structs.replace(spec, **said)


class LocalPolicy:
    """Asks a model of ours.

    Args:
        spec: As `spec_of` gives it.
        models: Where the model is hosted.

    Raises:
        InvalidData: Its options are wrong, or it speaks a dialect that has no text.
    """

    def __init__(self, spec: PolicySpec, models: Models) -> None:
        if spec.dialect not in DIALECTS:
            raise InvalidData(
                f"the policy {spec.name!r} can't speak the dialect {spec.dialect!r}",
                hint=f"a local model writes text: dialect = {' or '.join(map(repr, DIALECTS))}",
            )
        self.spec = spec
        self.options = options_of(spec)
        self._models = models

    async def ask(self, view: View) -> Reply:
        """See `EndpointPolicy.ask`."""
        return await self.sample(view, b"")

    async def sample(self, view: View, before: bytes, maker: Maker = NOBODY) -> Reply:
        """See `SamplingPolicy.sample`."""
        said = self.options
        asked = request(self.spec, view)
        shown = request_hash(asked)
        messages = cast("list[dict[str, str]]", asked["messages"])
        question = Question(
            messages=tuple(messages),
            sampling=Sampling(
                temperature=said.temperature,
                top_p=said.top_p,
                top_k=said.top_k,
                max_tokens=said.max_tokens,
                seed=_seed(said.seed, view.run, shown),
            ),
            before=before,
            run=view.run,
            maker=maker,
            template=said.template,
        )
        timeout_s = self.spec.timeout_ms / 1_000
        within_s = max(timeout_s / 2, timeout_s - WORD_S)
        reply = await self._models.ask(said.folder, question, within_s)
        return msgspec.structs.replace(reply, prompt=shown)


def _seed(seed: int, run: str, prompt: str) -> int:
    """The seed of one question: rollouts of one task differ, and none depends on its batch."""
    known = sha256(f"{seed}/{run}/{prompt}".encode()).digest()
    return int.from_bytes(known[:6], "big")
