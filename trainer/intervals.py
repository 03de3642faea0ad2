"""95 % intervals of shares and means, and of differences between two.

All are the same for the same numbers on every machine. Only `bootstrap` needs numpy.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from types import ModuleType
from typing import Final, NamedTuple

LEVEL: Final = 0.95

RESAMPLES: Final = 2_000
"""Of a bootstrap: the ends of the interval are then good to about two digits."""

CHUNK: Final = 4_000_000
"""Numbers drawn at a time: bounds the memory to some 32 MB."""

Z: Final = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Standard deviations to each side that 95 % lie within."""

T: Final = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""The same by Student's t, for 1, 2, … degrees of freedom; beyond them, the last is wide enough."""


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


def share(yes: int, n: int) -> Interval:
    """A share of ``n``, by Wilson's score interval. Without any, all is possible."""
    if n == 0:
        return Interval(0.0, 0.0, 1.0)
    p = yes / n
    middle = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    # It holds the share itself, but for what rounding takes from it at 0 and 1.
    return Interval(p, min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half)))


def mean(values: Sequence[float]) -> Interval:
    """A mean, by the normal distribution: of a few dozen values, and of two at least.

    Raises:
        ValueError: There are fewer: one value says nothing of how far others are.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no interval")
    middle = fmean(values)
    half = Z * stdev(values) / math.sqrt(len(values))
    return Interval(middle, middle - half, middle + half)


def across(values: Sequence[float]) -> Interval:
    """A mean of few values, such as one for each seed, by Student's t.

    Raises:
        ValueError: There are fewer than two.
    """
    middle, low, high = mean(values)
    wider = T[min(len(values) - 1, len(T)) - 1] / Z
    return Interval(middle, middle - (middle - low) * wider, middle + (high - middle) * wider)


def bootstrap(values: Sequence[float], seed: int = 0) -> Interval:
    """A mean by the percentile bootstrap (Efron 1979), for what is skewed: costs, rounds.

    Of nothing it is 0, and so are its ends.

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


def difference(of: Interval, less: Interval) -> Interval:
    """The difference of two independent estimates, from their intervals.

    For shares it is Newcombe's hybrid score interval (1998, method 10), for means what they give
    by themselves.
    """
    value = of.value - less.value
    down = math.hypot(of.value - of.low, less.high - less.value)
    up = math.hypot(of.high - of.value, less.value - less.low)
    return Interval(value, value - down, value + up)


def paired(of: Sequence[float], less: Sequence[float]) -> Interval:
    """The mean difference of pairs. Raises `ValueError` if they are none, or fewer than two."""
    return mean([one - other for one, other in zip(of, less, strict=True)])


def _numpy() -> ModuleType:
    try:
        import numpy as np
    except ModuleNotFoundError as error:
        raise ImportError("intervals need numpy: pip install 'podium[train]'") from error
    return np
