"""A model in memory plays episodes: what it is practised on, and what it is measured by.

The weights are those of the moment at which `Practice.groups` begins.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from actors.models.loading import living
from actors.models.serving import Batching
from actors.models.stepped import Stepped
from actors.policies import local
from protocol.decisions import PolicySpec
from trainer.gym.episodes import Episode
from trainer.gym.workers import Host
from trainer.records import Rollout
from trainer.rollouts.lane import FastLane
from trainer.rollouts.source import Ask

PLACE: Final = "student"
"""What runs call the model that is held here."""

MAX_TOKENS: Final = 192
"""Of a reply: twice what the longest round takes."""

ROWS: Final = 128
"""Replies that are sampled together, and runs in flight."""


def student(
    place: str = PLACE, temperature: float = 1.0, seed: int = 0, tokens: int = MAX_TOKENS
) -> PolicySpec:
    """A small model in the dialect of slots.

    Args:
        place: The folder of its version, or what a model in memory is called.
        temperature: 0 says what it holds most likely.
        seed: Of what is drawn.
        tokens: The most that one reply may have.
    """
    options = local.Options(folder=place, temperature=temperature, max_tokens=tokens, seed=seed)
    return local.spec_of(options, dialect="slots")


class Practice:
    """Episodes played by a model in memory, in the fast lane.

    Args:
        model: A causal model of Transformers; it may be trained between two calls.
        words: Its tokenizer.
        name: Of its weights, as rollouts record it; called each time.
        seed: Of the faults of workers, and of what is drawn.
        tokens: See `student`.
    """

    def __init__(
        self,
        model: Any,
        words: Any,
        name: Callable[[], str] = lambda: "living",
        *,
        seed: int = 0,
        tokens: int = MAX_TOKENS,
    ) -> None:
        self._model, self._words, self._name = model, words, name
        self._seed, self._tokens = seed, tokens

    def groups(
        self,
        episodes: Sequence[Episode],
        members: int,
        job: str,
        temperature: float = 1.0,
        *,
        alike: bool = False,
    ) -> list[list[Rollout]]:
        """Some rollouts of each episode, in their order.

        Args:
            episodes: What is played.
            members: Rollouts of each.
            job: What ids, and so chances, follow from.
            temperature: See `student`.
            alike: Whether the workers fail alike in all rollouts of an episode, see `Host`.

        Raises:
            InvalidData: The model can't answer.
        """
        spec = student(temperature=temperature, seed=self._seed, tokens=self._tokens)
        asks = [
            Ask(
                key=f"{each.set}/{each.seed}",
                task=each.task,
                pool=each.pool,
                policy=spec,
                budget=each.budget,
                members=members,
            )
            for each in episodes
        ]
        held = living(self._model, self._words, self._name())
        models = Stepped({PLACE: held}, Batching(rows=ROWS))
        host = Host(episodes, self._seed, alike=alike)
        wanted = [start for ask in asks for start in ask.starts(job)]
        with FastLane(workers=host, models=models, at_once=ROWS) as lane:
            found = {each.run: each.rollout for each in lane.stream(wanted)}
        rollouts = [found[start.run] for start in wanted]
        return [rollouts[at : at + members] for at in range(0, len(rollouts), members)]
