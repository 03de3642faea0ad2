"""Call trees for the trainer's tests: runs whose replies have tokens, and rollouts by hand."""

from typing import Any, Final

import msgspec

from protocol.actions import NOTHING, Call, Json, Spend
from protocol.commands import Command, PolicyReply
from protocol.decisions import PolicySpec, Rejection, Task, View
from protocol.events import PolicyReplied
from protocol.inbox import Reward
from protocol.sampled import Arrays, Sampled, pack_floats, pack_ids, unpack_ids
from tests.runs import POOL, RUN, Driver
from tests.strategies import Move, World
from trainer.records import Made, Rollout, Step

VERSIONS: Final = ("v1", "v1", "v1", "v2")


class Sampling(World):
    """A run to which moves happen, and whose policy's replies have tokens.

    Their numbers come of the moves: some prompts go on from an earlier question, some begin anew;
    some replies are empty, some add nothing; now and then the weights or the temperature change.
    """

    @property
    def known(self) -> dict[int, tuple[int, ...]]:
        """The whole context of each question whose tokens were recorded."""
        found: dict[int, tuple[int, ...]] = {}
        for event in self.events:
            if isinstance(event, PolicyReplied) and event.sampled and event.sampled.arrays:
                ids = event.sampled.arrays.prompt + event.sampled.arrays.output
                before = found.get(event.sampled.after, ())
                found[event.turn] = (*before, *unpack_ids(ids))
        return found

    def _reply(self, move: Move) -> list[Command]:
        said = super()._reply(move)
        asked = self.state.asked
        if asked is None or asked.asker != "policy" or not isinstance(said[0], PolicyReply):
            return said
        number = move.which
        if said[0].reply.status != "OK" or number % 11 == 10:
            return said
        earlier = list(self.known)
        after = earlier[-1 - number % min(2, len(earlier))] if earlier and number % 5 else 0
        delta = tuple(range(100 * asked.turn, 100 * asked.turn + number % 4))
        output = tuple(range(5_000 + 10 * asked.turn, 5_000 + 10 * asked.turn + number % 6))
        arrays = Arrays(pack_ids(delta), pack_ids(output), pack_floats([-0.5] * len(output)))
        sampled = Sampled(
            after=after,
            arrays=arrays,
            temperature=0.7 if number % 13 == 12 else 1.0,
            version=VERSIONS[number % len(VERSIONS)],
        )
        reply = msgspec.structs.replace(said[0].reply, sampled=sampled)
        return [msgspec.structs.replace(said[0], reply=reply)]


def drawn(
    output: list[int], delta: list[int], *, after: int = 0, logprobs: int | None = None, **more: Any
) -> Sampled:
    """The tokens of one reply."""
    count = len(output) if logprobs is None else logprobs
    arrays = Arrays(pack_ids(delta), pack_ids(output), pack_floats([-1.0] * count))
    return Sampled(after=after, arrays=arrays, **more)


def step(
    turn: int = 1,
    prompt: list[int] | None = None,
    output: list[int] | None = None,
    *,
    calls: tuple[Made, ...] = (),
    rejected: bool = False,
    spend: Spend = NOTHING,
    own: bool = True,
    **how: Any,
) -> Step:
    """A step of a rollout, with tokens where some are given."""
    ids = output or []
    return Step(
        turn=turn,
        own=own,
        view=View(run=RUN, task=Task(text="?"), pool=POOL),
        rejection=Rejection("malformed", "it is none") if rejected else None,
        calls=calls,
        prompt=pack_ids(prompt or []),
        output=pack_ids(ids),
        logprobs=pack_floats([-0.25 * (at + 1) for at in range(len(ids))]),
        sampled=None if prompt is None else Sampled(**how),
        spend=spend,
    )


def made(worker: str = "tool", status: Any = "OK", fault: Any = "none", **more: Any) -> Made:
    """A call and what came of it."""
    number = more.pop("number", 0)
    call = Call(f"1-{number}", worker, {"n": 1})
    return Made(call=call, status=status, fault=fault, **{"attempts": 1, **more})


def rollout(
    *steps: Step, check: Json = None, answer: str = "42", run: str = RUN, **more: Any
) -> Rollout:
    """A rollout that ended with an answer, unless it is said otherwise."""
    given: dict[str, Any] = {"group": "g", "outcome": "finished", "answered": True, **more}
    return Rollout(
        run=run,
        task=Task(text="What is asked?", inputs={"year": 2026}, check=check),
        pool=POOL,
        policy=PolicySpec(name="script"),
        steps=steps,
        answer=answer,
        **given,
    )


def rewarded(channel: str, value: float, head: str = "") -> Reward:
    """A reward from outside."""
    return Reward(run=RUN, channel=channel, value=value, by="ada", head=head)


__all__ = ["Driver", "Sampling", "drawn", "made", "rewarded", "rollout", "step"]
