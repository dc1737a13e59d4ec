import math

import numpy as np
import pytest

from inkstone.evaluate.intervals import MAX_BLOCKS, Interval, bootstrap_ratio, proportion_interval


def test_ratio_is_the_ratio_of_sums_not_the_mean_of_ratios():
    assert bootstrap_ratio([1, 30], [1, 10], seed=0).value == pytest.approx(31 / 11)


def test_same_seed_same_interval_and_other_seed_another():
    random = np.random.default_rng(0)
    nats, size = random.gamma(4, 1, 200), random.integers(50, 90, 200)
    first = bootstrap_ratio(nats, size, seed=3)
    assert first == bootstrap_ratio(nats, size, seed=3)
    assert first != bootstrap_ratio(nats, size, seed=4)
    assert first.low < first.value < first.high


@pytest.mark.parametrize("windows", [60, MAX_BLOCKS * 2 + 5])
def test_interval_holds_the_truth_about_as_often_as_it_says(windows):
    random = np.random.default_rng(1)
    held = 0
    for trial in range(100):
        size = random.integers(80, 120, windows).astype(float)
        nats = random.normal(1.5, 0.4, windows) * size
        found = bootstrap_ratio(nats, size, seed=trial, resamples=100)
        held += found.low <= 1.5 <= found.high
    assert 84 <= held <= 100


def test_interval_narrows_with_the_square_root_of_the_windows():
    random = np.random.default_rng(2)
    widths = []
    for windows in (100, 10_000):
        found = bootstrap_ratio(random.normal(2, 0.5, windows), np.ones(windows), seed=0, resamples=400)
        widths.append(found.high - found.low)
    assert 7 < widths[0] / widths[1] < 14


def test_one_window_has_an_interval_without_width():
    assert bootstrap_ratio([3.0], [2.0], seed=0) == Interval(1.5, 1.5, 1.5)


def test_windows_without_bytes_are_allowed_but_not_only_those():
    assert bootstrap_ratio([1.0, 2.0, 0.0], [1.0, 1.0, 0.0], seed=0).value == 1.5
    with pytest.raises(ValueError, match="not all of them 0"):
        bootstrap_ratio([1.0], [0.0], seed=0)


@pytest.mark.parametrize(("top", "bottom"), [([], []), ([1], [1, 2]), ([math.nan], [1]), ([1, 1], [2, -1])])
def test_sums_that_cannot_be_are_refused(top, bottom):
    with pytest.raises(ValueError, match="expected"):
        bootstrap_ratio(top, bottom, seed=0)


def test_scaling_turns_nats_into_bits_and_keeps_low_below_high():
    assert Interval(1.0, 0.5, 2.0).scaled(2) == Interval(2.0, 1.0, 4.0)
    assert Interval(1.0, 0.5, 2.0).scaled(-1) == Interval(-1.0, -2.0, -0.5)


def test_wilson_interval_equals_published_values():
    found = proportion_interval(81, 263)  # Newcombe 1998, table I
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    found = proportion_interval(0, 20)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0, 0.1611)


def test_all_right_is_still_not_certain():
    found = proportion_interval(50, 50)
    assert found.value == found.high == 1.0
    assert 0.92 < found.low < 0.94


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 3), (4, 3)])
def test_impossible_proportions_are_refused(successes, trials):
    with pytest.raises(ValueError, match="successes"):
        proportion_interval(successes, trials)
