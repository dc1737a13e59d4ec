"""A long curve as a few hundred points that still show its early fall, its late slope and its spread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curve:
    """Points of a line and the band around it. Each point is the mean of a bucket of steps, `low` and `high` its extremes."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def has_band(self) -> bool:
        """Return whether any point stands for more than one value."""
        return self.low != self.high


def thin(steps: Sequence[int], values: Sequence[float], max_points: int) -> Curve:
    """Return at most `max_points` points; a curve that is short enough is returned as it is.

    Buckets are equal on the mean of a linear and a logarithmic axis, so that a reader of either axis sees enough points:
    of 10,000 steps in 240 points, 40 lie in the first 100 steps.
    """
    if len(steps) <= max_points:
        x, y = tuple(map(float, steps)), tuple(map(float, values))
        return Curve(x, y, y, y)
    x_N, y_N = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    offset_N = x_N - x_N[0]
    position_N = 0.5 * offset_N / offset_N[-1] + 0.5 * np.log1p(offset_N) / math.log1p(offset_N[-1])
    bucket_N = np.minimum((position_N * (max_points - 1)).astype(np.int64), max_points - 2)
    bucket_N[-1] = max_points - 1  # the last step stands alone: it is the value that the page shows at rest
    starts_P = np.flatnonzero(np.diff(bucket_N, prepend=-1))
    sizes_P = np.diff(np.append(starts_P, len(x_N)))
    return Curve(
        tuple(np.add.reduceat(x_N, starts_P) / sizes_P),
        tuple(np.add.reduceat(y_N, starts_P) / sizes_P),
        tuple(np.minimum.reduceat(y_N, starts_P)),
        tuple(np.maximum.reduceat(y_N, starts_P)),
    )


def nice_ticks(low: float, high: float, max_ticks: int = 5) -> list[float]:
    """Return round numbers inside [low, high], at steps of 1, 2, 2.5 or 5 times a power of ten.

    >>> nice_ticks(0, 600, 4)
    [0.0, 200.0, 400.0, 600.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / max(1, max_ticks - 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]
