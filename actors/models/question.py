"""What a model of ours is asked: messages, and how to sample the reply."""

from typing import Final

import msgspec

from protocol.actions import Json


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The distribution that tokens are drawn from. Nothing that a model's folder says of it counts.

    In this order: the logits are divided by ``temperature``, all but the ``top_k`` likeliest tokens
    are left out, then all but the likeliest that have ``top_p`` together; what is left is
    renormalised.
    """

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 for all."""
    max_tokens: int = 1_024
    """The most that is sampled."""
    seed: int = 0


class Maker(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A version that made a reply."""

    version: str = ""
    """Empty for none."""
    weights: str = ""
    """The hash of its weights: in another folder its name is another's."""


NOBODY: Final = Maker()


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question to a model."""

    messages: tuple[dict[str, str], ...]
    """The conversation, ``role`` and ``content`` of each message."""
    sampling: Sampling = Sampling()
    before: bytes = b""
    """See `SamplingPolicy.sample`."""
    run: str = ""
    """Whose question it is: which version answers its first follows from it. Empty for nobody's,
    which the current version answers."""
    maker: Maker = NOBODY
    """Of the run's last reply; it goes on with the run as long as it is there."""
    template: dict[str, Json] = {}
    """Values for the chat template besides the messages, such as ``enable_thinking``."""
