"""The tokens of a run's questions, whole: prompts are recorded as what they add to one another."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from protocol.actions import BlobRef
from protocol.errors import InvalidData
from protocol.events import AnyEvent, PolicyReplied
from protocol.sampled import Arrays, Sampled, unpack_floats, unpack_ids

Fetch = Callable[[BlobRef], Awaitable[bytes]]
"""The bytes of a blob."""


class Tokens(NamedTuple):
    """One question, token by token."""

    turn: int
    prompt: bytes
    """Ids of the whole prompt, packed as in `protocol.sampled`."""
    output: bytes
    logprobs: bytes
    sampled: Sampled
    """How they were drawn, as recorded."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """Ids of the whole prompt."""
        return unpack_ids(self.prompt)

    @property
    def output_ids(self) -> tuple[int, ...]:
        """Ids of what was sampled."""
        return unpack_ids(self.output)

    @property
    def output_logprobs(self) -> tuple[float, ...]:
        """Their log-probabilities, see `Arrays.logprobs`."""
        return unpack_floats(self.logprobs)

    @property
    def context(self) -> bytes:
        """Ids of prompt and output: what the next prompt may begin with."""
        return self.prompt + self.output


def encode(arrays: Arrays) -> bytes:
    """The bytes of a blob that holds them."""
    return msgspec.json.encode(arrays)


def decode(data: bytes) -> Arrays:
    """What a blob holds. Raises `InvalidData`."""
    try:
        return msgspec.json.decode(data, type=Arrays)
    except msgspec.MsgspecError as error:
        raise InvalidData(
            f"{len(data)} bytes are no tokens: {error}", hint="podium verify says what is damaged"
        ) from None


def sampled(events: Iterable[AnyEvent]) -> Iterator[tuple[int, Sampled]]:
    """The replies that have tokens, by turn, in their order."""
    for event in events:
        if isinstance(event, PolicyReplied) and event.sampled is not None:
            yield event.turn, event.sampled


async def tokens(events: Iterable[AnyEvent], fetch: Fetch) -> list[Tokens]:
    """The questions of a run whose replies have tokens, in their order.

    Args:
        events: Of the run, those that a fork shares included; see `history.entries`.
        fetch: Where blobs are read.

    Raises:
        NotFound: A blob is not there any more.
        InvalidData: What is recorded doesn't fit together; the message says which question.
    """
    found: dict[int, Tokens] = {}
    for turn, each in sampled(events):
        arrays = each.arrays if each.blob is None else decode(await fetch(each.blob))
        found[turn] = whole(turn, each, arrays, found)
    return list(found.values())


def whole(turn: int, said: Sampled, arrays: Arrays | None, earlier: Mapping[int, Tokens]) -> Tokens:
    """One question's tokens, its prompt whole.

    Args:
        turn: The question.
        said: What is recorded of its reply.
        arrays: Its numbers, wherever they stand.
        earlier: The questions before it that have tokens, by turn.

    Raises:
        InvalidData: There are no numbers, or not those of the question that it goes on from.
    """
    if arrays is None or (said.after and said.after not in earlier):
        raise InvalidData(
            f"question {turn} has no tokens that could be read",
            hint="podium verify says what is damaged",
        )
    before = earlier[said.after].context if said.after else b""
    return Tokens(turn, before + arrays.prompt, arrays.output, arrays.logprobs, said)
