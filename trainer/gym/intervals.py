"""Intervals of 95 % around means of anything, the same for the same numbers on every machine.

Those of shares are `trainer.intervals`'. What the gym counts (costs, rounds) is skewed, so that the
normal distribution is none for it.
"""

from collections.abc import Sequence
from statistics import fmean
from types import ModuleType
from typing import Final

from trainer.intervals import Interval

LEVEL: Final = 0.95
RESAMPLES: Final = 2_000
"""Of a bootstrap: the ends of the interval are then good to about two digits."""

CHUNK: Final = 4_000_000
"""Numbers drawn at a time: bounds the memory to some 32 MB."""


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """A mean by the percentile bootstrap (Efron 1979). Of nothing it is 0, and so are its ends.

    Raises:
        ImportError: numpy isn't there; the text says what to install.
    """
    if not values:
        return Interval(0.0, 0.0, 0.0)
    np = _numpy()
    given = np.asarray(values, dtype=np.float64)
    rng = np.random.default_rng(seed)
    means: list[float] = []
    rows = max(1, CHUNK // len(given))
    while len(means) < RESAMPLES:
        count = min(rows, RESAMPLES - len(means))
        drawn = rng.integers(0, len(given), (count, len(given)))
        means.extend(given[drawn].mean(axis=1).tolist())
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return Interval(fmean(values), low, high)


def _numpy() -> ModuleType:
    try:
        import numpy as np
    except ModuleNotFoundError as error:
        raise ImportError("intervals need numpy: pip install 'podium[train]'") from error
    return np
