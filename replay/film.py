"""A run at any of its events: the fold, with snapshots, so that going back costs no more than on.

A snapshot shares everything but its containers with its neighbours, and is made when the fold first
comes past, so that the first look at a long run waits for nothing.
"""

from collections import deque
from operator import itemgetter
from typing import Final

from protocol.errors import Usage
from protocol.run import fold
from protocol.state import RunState
from replay.chain import RunLog
from replay.history import Entry, entries

EVERY: Final = 2_048
"""Events from one snapshot to the next: a fold of so many takes some 5 ms. The 48 snapshots of
100,000 events with 39,000 calls take 42 MB; `benchmarks/replay_fold.py` measures both."""

RECENT: Final = 4
"""States that are kept of where one was last: a step on from them, or a look back, folds nothing
again."""

BEHIND: Final = 64
"""After a long way to a state, one so many events before it is kept too: whoever came from behind
goes on backwards."""


class Film:
    """The states of a run.

    Args:
        log: The run. What is added to it later is not seen.
        history: Its entries, if they are at hand.
    """

    def __init__(self, log: RunLog, history: list[Entry] | None = None) -> None:
        self.run = log.run
        self.history = entries(log) if history is None else history
        self._kept: dict[int, RunState] = {0: RunState()}
        self._behind = (0, self._kept[0])
        self._recent: deque[tuple[int, RunState]] = deque(maxlen=RECENT)

    def __len__(self) -> int:
        return len(self.history)

    def entry(self, number: int) -> Entry:
        """An event by its number. Raises `Usage` if there is no such event."""
        if not 1 <= number <= len(self.history):
            raise Usage(
                f"run {self.run} has no event {number}: it has {len(self.history)}",
                hint=f"choose one from: podium timeline {self.run}",
            )
        return self.history[number - 1]

    def state(self, at: int) -> RunState:
        """The state after so many events; 0 for before the first. Nobody may change it.

        Raises:
            Usage: There are not so many.
        """
        if at:
            self.entry(at)
        kept = max(n for n in self._kept if n <= at)
        near = [(kept, self._kept[kept]), self._behind, *self._recent]
        number, state = max((each for each in near if each[0] <= at), key=itemgetter(0))
        if at - number > BEHIND:
            number, state = self._behind = self._folded(number, state, at - BEHIND)
        number, state = self._folded(number, state, at)
        self._recent.append((number, state))
        return state

    def _folded(self, number: int, state: RunState, at: int) -> tuple[int, RunState]:
        while number < at:
            upto = min(at, number - number % EVERY + EVERY)
            state = fold(state, (entry.event for entry in self.history[number:upto]))
            number = upto
            if number % EVERY == 0:
                self._kept[number] = state
        return number, state
