"""What others say to a run: reports of workers, signals of people, rewards and labels.

Every inbox message is one of these structs, stored under the run's inbox subject before anybody
hears of it. Its identity is the hash of its bytes, never its place in the stream.
"""

from typing import Final, Literal, TypeAlias

import msgspec

from protocol.actions import Json, Report
from protocol.budgets import Extension

SignalKind: TypeAlias = Literal["cancel", "answer", "extend", "pause", "resume", "hedge", "replan"]
"""What may be wished. ``hedge``: that a call which takes long is tried by somebody else, too;
``replan``: that the policy is asked although calls of its round go on."""


class Signal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="signal"):
    """Somebody's wish for a run. Recorded with who and why, whether or not it changes anything."""

    id: str
    """Random, so that the same wish twice is two messages; derived, when a parent signals its
    child."""
    run: str
    kind: SignalKind
    by: str
    """Who: a user's name, or ``run:<id>`` for a parent."""
    reason: str = ""
    extension: Extension = Extension()
    """For ``extend``: what is added."""
    call: str = ""
    """For ``hedge``: which. For ``replan``: because of which."""


class Reward(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="reward"):
    """A score of one channel, given during the run or long after it."""

    run: str
    channel: str
    value: float
    by: str
    head: str = ""
    """The hash of the commit up to which the run was judged."""


SET_ASIDE: Final = "set aside"
"""Key of the label by which a conductor says why a task could not be begun."""


HANDED_BACK: Final = "handed back"
"""Key of the label by which a replica says that it hands a delivery of an attempt back, and has
begun nothing of it. Its value is a `HandedBack`."""


OURS: Final = frozenset({SET_ASIDE, HANDED_BACK})
"""Keys of the labels by which Podium's own processes speak to one another: nobody's judgement."""


class HandedBack(msgspec.Struct, frozen=True):
    """What a replica has handed back."""

    call: str
    attempt: int
    delivery: int
    """Which delivery of the attempt it was, from 1."""


class Label(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="label"):
    """What a person says of a run."""

    run: str
    key: str
    value: Json
    by: str
    head: str = ""


Message: TypeAlias = Report | Signal | Reward | Label
"""Whatever may stand in an inbox."""
