"""What goes wrong, as data: a plan is drawn from a seed, and can be made smaller.

Processes are stopped at a *step*, the number of callbacks that they have run in all their lives:
every await is one. Messages are met by number, in each direction. What happens to the broker
happens at a time.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from podium.sim.client import Client
from podium.sim.server import Server
from podium.sim.wire import CONDITION, Message, Published

CONDUCTORS: Final = ("c0", "c1")
WORKERS: Final = ("w0", "w1")
CARETAKER: Final = "k"
USER: Final = "u"
SEATS: Final = (*CONDUCTORS, *WORKERS, CARETAKER, USER)
"""The processes of a simulated deployment."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all faults."""


class Crash(Fault, frozen=True, kw_only=True, tag=True):
    """A process is killed between two of its steps, and starts again later."""

    who: str
    step: int
    down_ms: int
    sent: float
    """The part of what its client has buffered that still leaves, 0 to 1."""


class Freeze(Fault, frozen=True, kw_only=True, tag=True):
    """A process stands still; it doesn't know, and the others don't wait."""

    who: str
    step: int
    ms: int


class Disconnect(Fault, frozen=True, kw_only=True, tag=True):
    """A connection breaks; what was under way on it is lost."""

    who: str
    step: int
    ms: int


class Skew(Fault, frozen=True, kw_only=True, tag=True):
    """The wall clock of a process jumps."""

    who: str
    at_ms: int
    ms: int


class Election(Fault, frozen=True, kw_only=True, tag=True):
    """Streams have no leader: nothing is stored, and only stale replicas answer."""

    at_ms: int
    ms: int
    of: Literal["log", "queues", "all"]


class Restart(Fault, frozen=True, kw_only=True, tag=True):
    """The server starts anew: connections end, what it kept in memory is gone."""

    at_ms: int
    ms: int


class Lapse(Fault, frozen=True, kw_only=True, tag=True):
    """Every lease of a queue ends though its holder lives: messages are delivered twice."""

    at_ms: int
    of: Literal["TASKS", "CALLS"]


class Hush(Fault, frozen=True, kw_only=True, tag=True):
    """Nothing that the server republishes is heard by anybody: hints are lost."""

    at_ms: int
    ms: int


class Inward(Fault, frozen=True, kw_only=True, tag=True):
    """What becomes of the n-th message that a process sends.

    ``lost``: it never arrives. ``late``: it arrives ``ms`` later than others. ``twice``: it comes
    again. ``unanswered``: it is done, and the answer is lost. ``refused``: an append is refused
    with ``code`` although its condition holds, and ``refused_stored`` although it was stored.
    ``stale``: a direct get is answered by a replica that is ``ms`` behind.
    """

    who: str
    n: int
    what: Literal["lost", "late", "twice", "unanswered", "refused", "refused_stored", "stale"]
    ms: int = 0
    code: int = 0


class Outward(Fault, frozen=True, kw_only=True, tag=True):
    """What becomes of the n-th message that is delivered to a process: answer, hint or task."""

    who: str
    n: int
    what: Literal["lost", "late", "twice"]
    ms: int = 0


AnyFault: TypeAlias = (
    Crash | Freeze | Disconnect | Skew | Election | Restart | Lapse | Hush | Inward | Outward
)

AtStep: TypeAlias = Crash | Freeze | Disconnect

AtTime: TypeAlias = Skew | Election | Restart | Lapse | Hush

REFUSALS: Final[dict[int, str]] = {
    10071: "wrong last sequence: 0",
    10164: "wrong last sequence",
    10158: "duplicate message id is in process",
    10176: "atomic publish batch is incomplete",
    10201: "batch publish contains duplicate message id",
}
"""The ways in which a server says that an append was not taken, whether it was or not."""

_IN: Final = ("lost", "late", "twice", "unanswered", "refused", "refused_stored", "stale")
_OUT: Final = ("lost", "late", "twice")


class Network:
    """Meets messages as a plan says.

    Args:
        plan: The faults; those of processes and of the broker are somebody else's.
    """

    def __init__(self, plan: Iterable[AnyFault]) -> None:
        self._in: dict[tuple[str, int], Inward] = {}
        self._out: dict[tuple[str, int], Outward] = {}
        for fault in plan:
            if isinstance(fault, Inward):
                self._in[fault.who, fault.n] = fault
            elif isinstance(fault, Outward):
                self._out[fault.who, fault.n] = fault
        self.said: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self.met: list[AnyFault] = []
        """The faults that came to something."""

    def inward(self, server: Server, client: Client, said: Published) -> None:
        """See `server.Network`."""
        who = client.life.name
        n = self.said[who] = self.said.get(who, 0) + 1
        fault = self._in.get((who, n))
        if fault is None:
            server.take(client, said)
            return
        self.met.append(fault)
        later = server.loop.now + fault.ms / 1_000
        match fault.what:
            case "lost":
                pass
            case "late":
                server.loop.post(later, None, server.take, client, said)
            case "twice":
                server.take(client, said)
                server.loop.post(later, None, server.take, client, said)
            case "unanswered":
                server.take(client, said, True)
            case "stale":
                server.take(client, said, False, fault.ms / 1_000)
            case "refused" | "refused_stored":
                if said.subject.startswith("log.") and CONDITION in (said.headers or ()):
                    if fault.what == "refused_stored":
                        server.take(client, said, True)
                    server.refuse(client, said, fault.code, REFUSALS[fault.code])
                else:  # nothing that a server would refuse: the answer is lost
                    server.take(client, said, True)

    def outward(self, client: Client, message: Message) -> tuple[float, ...]:
        """See `server.Network`."""
        who = client.life.name
        n = self.told[who] = self.told.get(who, 0) + 1
        fault = self._out.get((who, n))
        if fault is None or (fault.what == "twice" and message.reply):
            return (0.0,)  # no server delivers a task twice and counts it once
        self.met.append(fault)
        match fault.what:
            case "lost":
                return ()
            case "late":
                return (fault.ms / 1_000,)
            case _:
                return (0.0, fault.ms / 1_000)


# ------------------------------------------------------------------------------------------ drawing


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """How much goes wrong in one history: the mean numbers."""

    conductor_crashes: float = 20.0
    worker_crashes: float = 14.0
    other_crashes: float = 1.5
    """Kills of each process: conductors, workers, the caretaker and the user."""
    freezes: float = 1.5
    disconnects: float = 1.0
    messages: float = 10.0
    """Faults of single messages."""
    broker: float = 1.5
    """Elections, restarts, lapses, lost hints."""
    skews: float = 1.0


CRASHES: Final = Mix()
"""Processes die, again and again; the rest is as usual."""

NETWORK: Final = Mix(
    conductor_crashes=2, worker_crashes=1, disconnects=4, messages=60, broker=4, skews=2
)
"""Messages are lost, late, doubled and refused; the broker stumbles."""

FREEZES: Final = Mix(conductor_crashes=2, worker_crashes=2, freezes=12, messages=10, broker=2)
"""Processes stand still, and don't know."""

MIXES: Final = {"crashes": (CRASHES, 8), "network": (NETWORK, 1), "freezes": (FREEZES, 1)}
"""How much goes wrong in a history, and how often that is drawn."""


def draw(chance: random.Random, mix: Mix | None = None) -> list[AnyFault]:
    """A plan."""
    if mix is None:
        mixes, weights = zip(*MIXES.values(), strict=True)
        (mix,) = chance.choices(mixes, weights)
    plan: list[AnyFault] = []
    for who in SEATS:
        mean = {"c": mix.conductor_crashes, "w": mix.worker_crashes}.get(who[0], mix.other_crashes)
        plan += _crashes(chance, who, mean)
    for _ in range(_about(chance, mix.freezes)):
        who, step = chance.choice((*CONDUCTORS, *WORKERS)), _far(chance, 2_000)
        plan.append(Freeze(who=who, step=step, ms=_far(chance, 20_000)))
    for _ in range(_about(chance, mix.disconnects)):
        who, step = chance.choice(SEATS), _far(chance, 2_000)
        plan.append(Disconnect(who=who, step=step, ms=_far(chance, 8_000)))
    plan += [_message(chance) for _ in range(_about(chance, mix.messages))]
    plan += [_of_broker(chance) for _ in range(_about(chance, mix.broker))]
    for _ in range(_about(chance, mix.skews)):
        ms = chance.choice((-1, 1)) * _far(chance, 600_000)
        plan.append(Skew(who=chance.choice(SEATS), at_ms=_far(chance, 60_000), ms=ms))
    return plan


def _crashes(chance: random.Random, who: str, mean: float) -> list[AnyFault]:
    """Kills of one process; many soon after the one before, while it recovers."""
    found: list[AnyFault] = []
    step = 0
    for _ in range(_about(chance, mean)):
        step += _far(chance, chance.choice((20, 60, 250)))
        down = _far(chance, 5_000) if chance.random() < 0.2 else _far(chance, 200)
        found.append(Crash(who=who, step=step, down_ms=down, sent=round(chance.random(), 2)))
    return found


def _message(chance: random.Random) -> AnyFault:
    who = chance.choice(SEATS)
    n, ms = _far(chance, 400), _far(chance, 6_000)
    if chance.random() < 0.4:
        return Outward(who=who, n=n, what=chance.choice(_OUT), ms=ms)
    code = chance.choice(tuple(REFUSALS))
    return Inward(who=who, n=n, what=chance.choice(_IN), ms=ms, code=code)


def _of_broker(chance: random.Random) -> AnyFault:
    at, ms = _far(chance, 60_000), _far(chance, 9_000)
    kind = chance.randrange(6)
    if kind == 0:
        return Restart(at_ms=at, ms=ms)
    if kind == 1:
        return Lapse(at_ms=at, of=chance.choice(("TASKS", "CALLS")))
    if kind <= 3:
        return Hush(at_ms=at, ms=ms)
    return Election(at_ms=at, ms=ms, of=chance.choice(("log", "queues", "all")))


def _about(chance: random.Random, mean: float) -> int:
    """A number around a mean, often none where the mean is small."""
    return int(2 * mean * chance.random() + chance.random()) if mean else 0


def _far(chance: random.Random, most: int) -> int:
    """From 1 to ``most``, small numbers as likely as large ones are."""
    far: float = most ** chance.random()
    return max(1, round(far))


def told(fault: AnyFault) -> str:
    """A fault in words."""
    match fault:
        case Crash():
            return f"{fault.who} is killed at its step {fault.step}, back after {fault.down_ms} ms"
        case Freeze():
            return f"{fault.who} is frozen at its step {fault.step} for {fault.ms} ms"
        case Disconnect():
            return f"{fault.who} loses its connection at step {fault.step} for {fault.ms} ms"
        case Skew():
            return f"the clock of {fault.who} jumps by {fault.ms} ms at {fault.at_ms} ms"
        case Election():
            return f"no leader ({fault.of}) at {fault.at_ms} ms, for {fault.ms} ms"
        case Restart():
            return f"the server restarts at {fault.at_ms} ms, for {fault.ms} ms"
        case Hush():
            return f"hints are lost at {fault.at_ms} ms, for {fault.ms} ms"
        case Lapse():
            return f"all leases of {fault.of} end at {fault.at_ms} ms"
        case Inward():
            more = f", code {fault.code}" if fault.what.startswith("refused") else ""
            return f"message {fault.n} of {fault.who}: {fault.what} ({fault.ms} ms{more})"
        case Outward():
            return f"message {fault.n} to {fault.who}: {fault.what} ({fault.ms} ms)"


def kind(fault: AnyFault) -> str:
    """A fault's kind, as it is counted."""
    if isinstance(fault, Inward | Outward):
        return f"message {fault.what.removesuffix('_stored')}"
    return type(fault).__name__.lower()


def of_seat(plan: Sequence[AnyFault], who: str) -> list[AtStep]:
    """What stops one process, in order."""
    found = [f for f in plan if isinstance(f, Crash | Freeze | Disconnect) and f.who == who]
    return sorted(found, key=lambda fault: fault.step)
