"""Muon: updates are nearly orthogonal, stacked matrices are updated apart, and the momentum is what a slow reference says."""

import pytest
import torch

from inkstone.optim import muon
from inkstone.optim.muon import UPDATE_RMS, Muon, orthogonalize

torch.set_num_threads(1)
HOW = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2, "num_iterations": 5}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def exactly_orthogonal(batch_GRC, num_iterations):
    """U Vᵀ by a singular value decomposition."""
    u, _, vt = torch.linalg.svd(batch_GRC, full_matrices=False)
    return u @ vt


def parameter(*shape, seed=0, parts=None):
    p = torch.nn.Parameter(normal(*shape, seed=seed))
    if parts:
        p.row_parts = parts
    return p


def step(optimizer, *parameters, seed):
    for number, p in enumerate(parameters):
        p.grad = normal(*p.shape, seed=100 * seed + number)
    optimizer.step()


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8), (1, 16), (16, 1), (48, 50), (1, 1)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_every_singular_value_ends_near_one(shape, scale):
    out = orthogonalize(normal(3, *shape) * scale, 5).float()
    values = torch.linalg.svdvals(out)
    assert values.min() > 0.6
    assert values.max() < 1.2


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8)])
def test_the_direction_is_that_of_the_decomposition(shape):
    matrices = normal(4, *shape)
    found, expected = orthogonalize(matrices, 7).float(), exactly_orthogonal(matrices, 0)
    cosine = (found * expected).sum((1, 2)) / (found.norm(dim=(1, 2)) * expected.norm(dim=(1, 2)))
    assert cosine.min() > 0.99


def test_matrices_of_a_batch_do_not_meet():
    matrices = normal(3, 8, 12)
    together = orthogonalize(matrices, 5)
    for number in range(3):
        torch.testing.assert_close(together[number], orthogonalize(matrices[number : number + 1], 5)[0], atol=0.02, rtol=0.02)


def test_a_zero_gradient_gives_a_finite_update():
    assert not orthogonalize(torch.zeros(1, 4, 6), 5).any()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("parts", [None, (6, 3, 3)])
def test_steps_equal_the_slow_reference(momentum, parts, monkeypatch):
    monkeypatch.setattr(muon, "orthogonalize", exactly_orthogonal)
    p = parameter(12, 8, parts=parts)
    weight, buffer = p.detach().clone(), torch.zeros(12, 8)
    optimizer = Muon([p], **HOW | {"momentum": momentum})
    for number in range(4):
        step(optimizer, p, seed=number)
        grad = normal(12, 8, seed=100 * number)
        buffer = momentum * buffer + (1 - momentum) * grad
        look_ahead = (1 - momentum) * grad + momentum * buffer
        pieces = []
        for piece in look_ahead.split(list(parts or [12])):
            u, _, vt = torch.linalg.svd(piece, full_matrices=False)
            pieces.append(u @ vt * UPDATE_RMS * max(piece.shape) ** 0.5)
        weight = weight * (1 - 0.1 * 0.2) - 0.1 * torch.cat(pieces)
        torch.testing.assert_close(p.detach(), weight, atol=1e-5, rtol=1e-5)


def test_stacked_matrices_are_updated_as_if_apart():
    stacked = parameter(12, 8, parts=(8, 4))
    apart = [torch.nn.Parameter(piece.clone()) for piece in stacked.detach().split([8, 4])]
    first, second = Muon([stacked], **HOW), Muon(apart, **HOW)
    for number in range(3):
        grad = normal(12, 8, seed=number)
        stacked.grad, apart[0].grad, apart[1].grad = grad, grad[:8], grad[8:]
        first.step()
        second.step()
    torch.testing.assert_close(stacked.detach(), torch.cat([p.detach() for p in apart]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(64, 64), (16, 64), (64, 16)])
def test_an_update_has_the_size_of_adamws(shape):
    p = parameter(*shape)
    before = p.detach().clone()
    optimizer = Muon([p], **HOW | {"weight_decay": 0.0})
    step(optimizer, p, seed=1)
    assert float((p.detach() - before).square().mean().sqrt()) == pytest.approx(0.1 * UPDATE_RMS, rel=0.25)


def test_parameters_without_a_gradient_stay():
    first, second = parameter(4, 4), parameter(4, 4, seed=1)
    before = second.detach().clone()
    optimizer = Muon([first, second], **HOW)
    first.grad = normal(4, 4)
    optimizer.step()
    assert torch.equal(second, before)
    assert second not in optimizer.state
