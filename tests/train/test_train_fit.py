"""Fitting into memory is decided before anything is allocated, with three ways out."""

import pytest

from inkstone.base.errors import ResourceError
from inkstone.nn.config import ModelConfig
from inkstone.train.fit import largest_batch, memory_need, require_fit

GIB = 2**30
GPT2 = ModelConfig(preset="gpt2", vocab_size=50257)
HOW = {"precision": "fp32", "optimizer": "adamw"}


def test_a_run_that_fits_is_let_through():
    require_fit(GPT2, 256 * GIB, batch_size=8, **HOW)


def test_a_run_that_does_not_fit_names_the_estimate_and_three_options():
    with pytest.raises(ResourceError) as caught:
        require_fit(GPT2, 16 * GIB, batch_size=64, **HOW)
    message = str(caught.value)
    assert caught.value.exit_code == 5
    assert "16.0 GiB are free" in message
    assert message.count("; or ") == 2
    assert "\n" not in message


def test_gpt3_is_refused_without_being_built():
    with pytest.raises(ResourceError, match="175B parameters"):
        require_fit(ModelConfig(preset="gpt3-175b", vocab_size=50257), 16 * GIB, batch_size=1, **HOW)


@pytest.mark.parametrize("available", [8 * GIB, 32 * GIB])
def test_the_largest_batch_fits_and_the_next_does_not(available):
    rows = largest_batch(GPT2, available, **HOW, most=4096)
    assert memory_need(GPT2, available, batch_size=rows, **HOW).fits
    assert not memory_need(GPT2, available, batch_size=2 * rows, **HOW).fits


def test_the_largest_batch_is_bounded_on_both_sides():
    assert largest_batch(GPT2, GIB, **HOW) == 1
    assert largest_batch(ModelConfig(depth=1, vocab_size=100), 64 * GIB, **HOW, most=32) == 32
