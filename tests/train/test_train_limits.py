"""How far a run is, by whichever limit is nearest, and the batch that grows with it."""

import pytest

from inkstone.train.config import TrainSettings
from inkstone.train.limits import Spent, ramped_batch_size, share_used


@pytest.mark.parametrize(
    ("limit", "spent", "share"),
    [
        ({"max_steps": 10}, {"steps": 4}, 0.4),
        ({"max_tokens": "1k"}, {"tokens": 250}, 0.25),
        ({"max_minutes": "1m30s"}, {"seconds": 45.0}, 0.5),
        ({"max_epochs": 2.0}, {"epochs": 0.5}, 0.25),
        ({"max_epochs": 0.5}, {"epochs": 0.5}, 1.0),
        ({"max_steps": 10}, {"steps": 11}, 1.1),
    ],
)
def test_each_limit_counts_its_own_unit(limit, spent, share):
    assert share_used(TrainSettings(**limit), Spent(**spent)) == (pytest.approx(share), next(iter(limit)))


def test_the_nearest_limit_decides():
    train = TrainSettings(max_steps=100, max_tokens=1000, max_minutes=1.0, max_epochs=1.0)
    assert share_used(train, Spent(steps=50, tokens=600, seconds=12.0, epochs=0.1)) == (pytest.approx(0.6), "max_tokens")
    assert share_used(train, Spent(steps=50, tokens=600, seconds=60.0, epochs=0.1)) == (pytest.approx(1.0), "max_minutes")


def test_nothing_is_used_at_the_start_or_without_a_limit():
    assert share_used(TrainSettings(max_steps=5), Spent())[0] == 0
    assert share_used(TrainSettings(), Spent(steps=10**9, tokens=10**12, seconds=1e9, epochs=1e3))[0] == 0


def test_without_a_ramp_the_batch_is_whole_from_the_start():
    assert ramped_batch_size(TrainSettings(batch_size=12), 0.0) == 12
    assert ramped_batch_size(TrainSettings(batch_size=12, ramp_from=0.5), 0.0) == 12


@pytest.mark.parametrize(
    ("share", "size"),
    [(0.0, 4), (0.1, 7), (0.2, 10), (0.3, 13), (0.38, 15), (0.399, 16), (0.4, 16), (0.9, 16), (1.0, 16), (1.5, 16)],
)
def test_the_ramp_is_linear_and_ends_at_its_share(share, size):
    assert ramped_batch_size(TrainSettings(batch_size=16, ramp_from=0.25, ramp_share=0.4), share) == size


def test_a_ramp_never_falls_and_never_reaches_zero():
    train = TrainSettings(batch_size=7, ramp_from=0.01, ramp_share=0.9)
    sizes = [ramped_batch_size(train, number / 1000) for number in range(1001)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (1, 7)
