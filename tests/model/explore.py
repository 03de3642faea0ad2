"""Visits every state of a mix, breadth first: the first hole found has the shortest trace."""

from array import array
from collections import deque
from time import perf_counter
from typing import NamedTuple

from tests.model.broker import STUCK
from tests.model.moves import Model
from tests.model.rules import ALL, Mix, Rules
from tests.model.state import State, canonical

MAX_STATES = 5_000_000
"""States of one exploration: about 1 GB. A mix that has more is no mix of a size to be visited."""


class Found(NamedTuple):
    """What an exploration gave."""

    mix: Mix
    rules: Rules
    states: int
    transitions: int
    seconds: float
    hole: str
    """The invariant that is broken, or ""."""
    trace: tuple[str, ...]
    """The steps to it."""
    logs: int = 0

    def text(self) -> str:
        """The trace for a person."""
        steps = "\n".join(f"  {n:3}. {step}" for n, step in enumerate(self.trace, start=1))
        return f"{self.mix.name}: {self.hole or 'no hole'}\n{steps}"


class Explorer:
    """The visited states of one mix: 64-bit hashes, and how each was reached first.

    Two states with one hash would be taken for one. With a million states that happens in one of
    some forty million explorations.
    """

    def __init__(self, mix: Mix, rules: Rules = ALL, ignore: frozenset[str] = frozenset()) -> None:
        self.model = Model(mix, rules)
        self.ignore = ignore
        self.number: dict[int, int] = {}
        self.hashes = array("q")
        self.parents = array("q")
        self.sources = array("q")
        self.targets = array("q")
        self.done = bytearray()
        self.transitions = 0

    def _visit(self, state: State, parent: int) -> tuple[int, bool]:
        key = hash(state)
        found = self.number.get(key)
        if found is not None:
            return found, False
        n = self.number[key] = len(self.hashes)
        if n >= MAX_STATES:
            raise MemoryError(f"{self.model.mix.name}: more than {MAX_STATES} states")
        self.hashes.append(key)
        self.parents.append(parent)
        self.done.append(self.model.done(state))
        return n, True

    def run(self) -> Found:
        """Visit everything, or stop at the first hole."""
        began = perf_counter()
        first = canonical(self.model.start())
        self._visit(first, 0)
        queue = deque([first])
        here = -1
        while queue:
            state = queue.popleft()
            here += 1
            for move in self.model.moves(state):
                self.transitions += 1
                after = canonical(move.state)
                if move.breaks and move.breaks not in self.ignore:
                    trace = self._trace(here, hash(after), move.breaks)
                    return self._found(began, move.breaks, trace)
                n, new = self._visit(after, here)
                if new:
                    queue.append(after)
                    hole = self.model.wrong(after)
                    if hole and hole not in self.ignore:
                        return self._found(began, hole, self._trace(n))
                if move.fair and n != here:
                    self.sources.append(here)
                    self.targets.append(n)
        stuck = self._stuck() if STUCK not in self.ignore else None
        if stuck is not None:
            return self._found(began, STUCK, self._trace(stuck))
        return self._found(began, "", ())

    def _found(self, began: float, hole: str, trace: tuple[str, ...]) -> Found:
        return Found(
            self.model.mix,
            self.model.rules,
            len(self.hashes),
            self.transitions,
            perf_counter() - began,
            hole,
            trace,
            len(self.model.world.nodes),
        )

    def _stuck(self) -> int | None:
        """The first state from which no fair moves lead to the end."""
        count = len(self.hashes)
        starts = array("q", bytes(8 * (count + 2)))
        for target in self.targets:
            starts[target + 2] += 1
        for n in range(2, count + 2):
            starts[n] += starts[n - 1]
        back = array("q", bytes(8 * len(self.targets)))
        for source, target in zip(self.sources, self.targets, strict=True):
            back[starts[target + 1]] = source
            starts[target + 1] += 1
        good = bytearray(self.done)
        work = [n for n in range(count) if good[n]]
        while work:
            n = work.pop()
            for k in range(starts[n], starts[n + 1]):
                source = back[k]
                if not good[source]:
                    good[source] = 1
                    work.append(source)
        bad = good.find(0)
        return None if bad < 0 else bad

    def _trace(self, n: int, last: int | None = None, breaks: str = "") -> tuple[str, ...]:
        """The steps to a state, with the same conductor under the same name all along.

        Args:
            n: The state's number.
            last: Hash of one state more, which a move with a hole leads to.
            breaks: That hole.
        """
        path = [(last, breaks)] if last is not None else []
        while n:
            path.append((self.hashes[n], ""))
            n = self.parents[n]
        state, steps = self.model.start(), []
        for key, hole in reversed(path):
            for move in self.model.moves(state):
                if hash(canonical(move.state)) == key and (not hole or move.breaks == hole):
                    steps.append(f"{move.who} {move.what}")
                    state = move.state
                    break
            else:
                raise AssertionError("the trace can't be followed: two states have one hash")
        return tuple(steps)


def explore(mix: Mix, rules: Rules = ALL, ignore: frozenset[str] = frozenset()) -> Found:
    """Visit every state of a mix under these rules.

    Args:
        mix: The scenario and its faults.
        rules: Which rules hold.
        ignore: Holes to look past, so that a deeper one is found.
    """
    return Explorer(mix, rules, ignore).run()
