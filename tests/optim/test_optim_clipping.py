"""Clipping equals torch's, by value and by norm, and does not hide what is not finite."""

import math

import pytest
import torch

from inkstone.optim.clipping import clip_gradients_

torch.set_num_threads(1)


def parameters(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    made = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (), (2, 2))]
    for p in made[:3]:
        p.grad = torch.randn(p.shape, generator=generator) * scale
    return made


def norm_of(ps):
    return math.sqrt(sum(float(p.grad.square().sum()) for p in ps if p.grad is not None))


@pytest.mark.parametrize("max_norm", [0.0, 1e-3, 1.0, 3.0, 1e6])
@pytest.mark.parametrize("max_value", [0.0, 0.1, 100.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_clipping_equals_torch(max_norm, max_value, scale):
    ours, theirs = parameters(scale), parameters(scale)
    before = norm_of(ours)
    norm = clip_gradients_(ours, max_norm=max_norm, max_value=max_value)
    if max_value:
        torch.nn.utils.clip_grad_value_(theirs, max_value)
    if max_norm:
        torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    assert norm == pytest.approx(before, rel=1e-5)
    for found, expected in zip(ours[:3], theirs[:3], strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
    assert ours[3].grad is None


def test_a_norm_just_at_the_limit_is_left_alone():
    p = torch.nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([3.0, 4.0])
    assert clip_gradients_([p], max_norm=5.0, max_value=0.0) == 5.0
    assert p.grad.tolist() == [3.0, 4.0]


@pytest.mark.parametrize("max_norm", [0.0, 1.0])
@pytest.mark.parametrize("max_value", [0.0, 0.1])
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_what_is_not_finite_shows_in_the_norm(bad, max_value, max_norm):
    made = parameters()
    made[1].grad[2] = bad
    assert not math.isfinite(clip_gradients_(made, max_norm=max_norm, max_value=max_value))


def test_without_gradients_the_norm_is_zero():
    assert clip_gradients_([torch.nn.Parameter(torch.zeros(2))], max_norm=1.0, max_value=1.0) == 0.0
    assert clip_gradients_([], max_norm=1.0, max_value=1.0) == 0.0
