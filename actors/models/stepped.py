"""Models of this process that are driven by whoever asks them: no thread, no clock, no broker.

::

    models = Stepped({"small": living(model, tokenizer)})
    policy = LocalPolicy(spec_of(Options(folder="small"), dialect="slots"), models)
    while …:                       # as long as runs are at work: they ask, and each `ask` waits
        models.step()              # one token for every row
        await asyncio.sleep(0)     # whoever has been answered goes on, and may ask again

For rollouts in virtual time: what is sampled depends on the questions alone, and nothing happens
between two steps. Questions of one model share a batch, as in `server`.
"""

import asyncio
from collections.abc import Mapping
from math import inf
from pathlib import PurePosixPath
from typing import Final

from actors.models.loading import Loaded
from actors.models.question import Question
from actors.models.replies import Asked, begun, ended, failed
from actors.models.sampler import Batch, Row
from actors.models.serving import Batching
from protocol.decisions import Reply

WIDE: Final = Batching(rows=256)
"""Rollouts have many runs at work, and none of them waits for a person."""


class Stepped:
    """`Models` whose steps somebody makes.

    Args:
        models: The versions that answer, by the folder that policies name.
        batching: How many rows a step has.
    """

    def __init__(self, models: Mapping[str, Loaded], batching: Batching = WIDE) -> None:
        self._batches = {place: Batch(loaded, batching) for place, loaded in models.items()}
        self._waits: dict[Row, tuple[Asked, asyncio.Future[Asked]]] = {}
        self.steps = 0
        """Steps made so far, of all models."""
        self.sampled = 0
        """Tokens sampled so far, of replies that have ended."""

    @property
    def idle(self) -> bool:
        """Whether nobody waits for a reply."""
        return all(batch.idle for batch in self._batches.values())

    async def ask(self, place: str, question: Question, within_s: float) -> Reply:
        """See `Models.ask`; the time limit doesn't count, since no time passes."""
        del within_s
        batch = self._batches.get(place)
        if batch is None:
            return failed(f"nobody has the model {place!r} here")
        asked = begun(batch.loaded, question, inf)
        if isinstance(asked, Reply):
            return asked
        future: asyncio.Future[Asked] = asyncio.get_running_loop().create_future()
        self._waits[asked.row] = asked, future
        batch.waiting.append(asked.row)
        try:
            await future
        except asyncio.CancelledError:
            asked.row.deadline = -inf  # it leaves in the next step
            raise
        return ended(batch.loaded, asked, PurePosixPath(place).name, 0.0)

    def step(self) -> int:
        """Sample one token for every row; how many replies have ended, or rows are at work."""
        count = 0
        for batch in self._batches.values():
            if batch.idle:
                continue
            self.steps += 1
            try:
                gone = batch.step(0.0)
            except Exception as error:
                gone = batch.fail(f"{type(error).__name__}: {error}")
            count += len(gone) + len(batch.working) + len(batch.waiting)
            for row in gone:
                self.sampled += len(row.output)
                asked, future = self._waits.pop(row)
                if not future.done():
                    future.set_result(asked)
        return count

    def forget(self) -> None:
        """See `Loaded.forget`."""
        for batch in self._batches.values():
            batch.loaded.forget()

    def refresh(self, name: str, weights: str = "") -> None:
        """The weights of all models were changed in place: they are another version.

        Args:
            name: Of the version, as it is recorded with what is sampled from now on.
            weights: Their hash, if it is known.

        Raises:
            RuntimeError: A reply is being sampled.
        """
        if not self.idle:
            raise RuntimeError("weights were changed while replies are sampled from them")
        for batch in self._batches.values():
            batch.loaded.refresh(name, weights)
