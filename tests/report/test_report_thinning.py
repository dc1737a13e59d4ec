import numpy as np
import pytest

from inkstone.report.thinning import nice_ticks, thin


def test_a_short_curve_is_returned_as_it_is():
    curve = thin([1, 2, 3], [3.0, 1.0, 2.0], 3)
    assert curve.x == (1, 2, 3) and curve.y == (3, 1, 2) and not curve.has_band


@pytest.mark.parametrize(("steps", "points"), [(241, 240), (10_000, 240), (1_000_000, 60), (5, 2)])
def test_thinning_keeps_ends_mean_and_extremes(steps, points):
    x = list(range(1, steps + 1))
    y = np.random.default_rng(0).normal(size=steps)
    curve = thin(x, y.tolist(), points)
    assert len(curve.x) <= points and list(curve.x) == sorted(set(curve.x))
    assert min(curve.low) == y.min() and max(curve.high) == y.max()
    assert (curve.x[-1], curve.y[-1]) == (steps, y[-1])
    assert all(low <= mean + 1e-9 and mean <= high + 1e-9 for low, mean, high in zip(curve.low, curve.y, curve.high, strict=True))


def test_the_start_keeps_its_detail():
    curve = thin(range(10_000), [0.0] * 10_000, 240)
    assert sum(x < 100 for x in curve.x) >= 40


def test_ticks_are_round_and_inside():
    assert nice_ticks(0, 1) == [0, 0.25, 0.5, 0.75, 1]
    assert nice_ticks(1.9, 8.3) == [2, 4, 6, 8]
    assert nice_ticks(0, 0.02, 3) == [0, 0.01, 0.02]
    assert nice_ticks(3, 3) == [3]
