"""Intervals of 95 % around shares and means, the same for the same numbers on every machine."""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean
from types import ModuleType
from typing import Final, NamedTuple

LEVEL: Final = 0.95
RESAMPLES: Final = 2_000
"""Of a bootstrap: the ends of the interval are then good to about two digits."""

CHUNK: Final = 4_000_000
"""Numbers drawn at a time: bounds the memory to some 32 MB."""

_Z: Final = NormalDist().inv_cdf(0.5 + LEVEL / 2)


class Interval(NamedTuple):
    """A value, and what it lies between."""

    value: float
    low: float
    high: float


def wilson(hits: int, n: int) -> Interval:
    """A share by Wilson's score interval (1927), which is right for shares near 0 and 1, too.

    Of nothing it is 0, between 0 and 1.
    """
    if not n:
        return Interval(0.0, 0.0, 1.0)
    share, z2 = hits / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half))


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
