"""The generators' states survive JSON: what is drawn after a restore is what was drawn after the capture."""

import json
import random

import numpy as np
import pytest
import torch

from inkstone.base.errors import CheckpointError
from inkstone.checkpoint.state import capture_rng, restore_rng


def draws():
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.standard_normal(),
        torch.rand(()).item(),
        torch.randn(()).item(),
    ]


def test_draws_after_restore_equal_draws_after_capture():
    random.seed(3)
    np.random.seed(4)
    torch.manual_seed(5)
    draws()  # leaves half a pair of normal numbers behind in each
    state = json.loads(json.dumps(capture_rng(), allow_nan=False))
    first = [draws() for _ in range(3)]
    draws()
    restore_rng(state)
    assert [draws() for _ in range(3)] == first
    restore_rng(state)
    assert capture_rng() == state


@pytest.mark.parametrize("change", [{"python": [3, [1], None]}, {"torch": "AA=="}, {"numpy": {}}, {"numpy": None}, {"torch": 5}])
def test_a_damaged_state_is_refused(change):
    with pytest.raises(CheckpointError, match="random state"):
        restore_rng(capture_rng() | change)


def test_states_of_absent_devices_are_a_warning(capfd):
    if torch.cuda.is_available():
        pytest.skip("has CUDA devices")
    restore_rng(capture_rng() | {"cuda": ["AA=="]})
    assert "1 CUDA devices, 0 are here" in capfd.readouterr().err
