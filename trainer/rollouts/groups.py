"""What sources have in common about groups: those that are asked for, and those that are closed."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from trainer.rollouts.source import Ask, Ended, Group, versions_of


class Series:
    """Groups that are asked for, one series behind the other, taken one by one."""

    def __init__(self) -> None:
        self._waiting: deque[Iterator[Ask]] = deque()
        self._first: Ask | None = None

    def add(self, asks: Iterable[Ask]) -> None:
        """One more series."""
        self._waiting.append(iter(asks))

    @property
    def series(self) -> int:
        """Series that are not known to be used up."""
        return len(self._waiting)

    @property
    def first(self) -> Ask | None:
        """The next group, which stays; None if there is none."""
        while self._first is None and self._waiting:
            self._first = next(self._waiting[0], None)
            if self._first is None:
                self._waiting.popleft()
        return self._first

    def next(self) -> Ask | None:
        """The next group; None if there is none."""
        found, self._first = self.first, None
        return found

    def __bool__(self) -> bool:
        return self.first is not None


def group_of(key: str, found: Mapping[str, Ended | None]) -> Group:
    """A group that is closed.

    Args:
        key: Its key.
        found: What came of its runs, by id, in the order of members; None where nothing did.
    """
    rollouts = tuple(each for each in found.values() if each is not None)
    return Group(
        key=key,
        rollouts=rollouts,
        missing=tuple(run for run, each in found.items() if each is None),
        versions=versions_of(each.rollout for each in rollouts),
    )
