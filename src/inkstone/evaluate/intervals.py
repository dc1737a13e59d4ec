"""How far a figure would move on other text of the same kind: intervals for ratios of sums and for proportions."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

MAX_BLOCKS = 4096  # more windows are joined with their neighbours first, so that the cost is bounded


@dataclass(frozen=True)
class Interval:
    """A figure with the limits of its confidence interval, in the figure's own unit."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Interval":
        """Return the interval in another unit: nats to bits is `scaled(1 / math.log(2))`."""
        low, high = sorted((self.low * factor, self.high * factor))
        return Interval(self.value * factor, low, high)


def bootstrap_ratio(
    numerators: npt.ArrayLike, denominators: npt.ArrayLike, *, seed: int, resamples: int = 1000, confidence: float = 0.95
) -> Interval:
    """Return sum(numerators) / sum(denominators) with its percentile bootstrap interval over the windows.

    Windows are drawn with replacement, both of their sums together. Above `MAX_BLOCKS` windows, runs of neighbours are drawn as
    one: neighbours are alike, so this also keeps the interval from being too narrow. The same arguments give the same interval.

    Shapes: both (N,). Units: the ratio of the arguments' units, e.g. nats per byte.
    Raises: ValueError for no windows, unequal lengths, a negative or non-finite entry below the line, or nothing below the line.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """
    top_N, bottom_N = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if top_N.ndim != 1 or top_N.shape != bottom_N.shape or len(top_N) == 0:
        raise ValueError(
            f"expected two equally long, non-empty lists of window sums, found shapes {top_N.shape} and {bottom_N.shape}"
        )
    if not np.isfinite(top_N).all() or not np.isfinite(bottom_N).all() or (bottom_N < 0).any() or bottom_N.sum() == 0:
        raise ValueError("expected finite sums with denominators of at least 0, not all of them 0")
    value = float(top_N.sum() / bottom_N.sum())
    top_N, bottom_N = _blocks(top_N), _blocks(bottom_N)
    random = np.random.default_rng(seed)
    ratios = []
    for _ in range(resamples):
        drawn_N = random.integers(len(top_N), size=len(top_N))
        below = bottom_N[drawn_N].sum()
        if below > 0:
            ratios.append(top_N[drawn_N].sum() / below)
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail]) if ratios else (value, value)
    return Interval(value, min(float(low), value), max(float(high), value))


def proportion_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Return successes / trials with its Wilson score interval.

    A bootstrap of 50 right answers out of 50 is always 50 out of 50; this interval then still says how sure that is: [0.93, 1].

    Raises: ValueError for no trials or successes outside [0, trials].
    Source: Wilson 1927; Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion (2001).
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"expected 0 ≤ successes ≤ trials and trials > 0, found {successes} of {trials}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    spread = 1 + z * z / trials
    middle = (share + z * z / (2 * trials)) / spread
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials)) / spread
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def _blocks(sums_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if len(sums_N) <= MAX_BLOCKS:
        return sums_N
    starts_M = np.arange(MAX_BLOCKS) * len(sums_N) // MAX_BLOCKS
    return np.add.reduceat(sums_N, starts_M)
