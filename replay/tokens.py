"""The tokens of a run's questions, whole: prompts are recorded as what they add to one another."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
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
        if arrays is None or (each.after and each.after not in found):
            raise InvalidData(
                f"question {turn} has no tokens that could be read",
                hint="podium verify says what is damaged",
            )
        before = found[each.after].context if each.after else b""
        found[turn] = Tokens(turn, before + arrays.prompt, arrays.output, arrays.logprobs, each)
    return list(found.values())
