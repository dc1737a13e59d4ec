"""The fused arithmetic equals torch's own, its gradients too, at every chunk's edge."""

import cmath

import pytest
import torch
from torch.nn import functional as F

from inkstone.nn.functional import IGNORED, drop, linear_cross_entropy, rms_norm, rotary_table, rotate, token_losses

torch.set_num_threads(1)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(found, expected, atol=1e-5, rtol=1e-5):
    torch.testing.assert_close(found, expected, atol=atol, rtol=rtol)


# rms_norm


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 6), (2, 3, 2, 4), (1, 1), (3, 1)])
def test_rms_norm_has_the_right_gradients(shape):
    x, weight = (
        normal(*shape, dtype=torch.float64).requires_grad_(),
        normal(shape[-1], seed=1, dtype=torch.float64).requires_grad_(),
    )
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-3), (x, weight))


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.06)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_rms_norm_equals_torch(dtype, atol, scale):
    results = []
    for norm in (lambda x, w: rms_norm(x, w, 1e-6), lambda x, w: F.rms_norm(x, x.shape[-1:], w.to(x.dtype), 1e-6)):
        x, weight = (normal(4, 5, 16, dtype=dtype) * scale).requires_grad_(), normal(16, seed=1).requires_grad_()
        weight = weight.to(torch.promote_types(dtype, torch.float32)).detach().requires_grad_()
        out = norm(x, weight)
        assert out.dtype == dtype
        out.backward(normal(4, 5, 16, seed=2, dtype=dtype))
        results.append((out, x.grad * scale, weight.grad))
    for found, expected in zip(*results, strict=True):
        close(found, expected, atol=atol, rtol=0.02 if dtype == torch.bfloat16 else 1e-4)


def test_rms_norm_of_transposed_input_equals_that_of_a_copy():
    x, weight = normal(3, 4, 8).transpose(0, 1), normal(8, seed=1)
    assert torch.equal(rms_norm(x, weight, 1e-6), rms_norm(x.contiguous(), weight, 1e-6))


def test_rms_norm_of_zeros_is_zero_with_finite_gradient():
    x = torch.zeros(2, 4, requires_grad=True)
    rms_norm(x, torch.ones(4), 1e-6).sum().backward()
    assert torch.isfinite(x.grad).all()


# rotate


def slow_rotation(x, base, offset=0):
    """Pair (i, i + E/2) as a complex number, turned by position * base^(-2i/E)."""
    batch, time, heads, width = x.shape
    out = torch.empty_like(x)
    for t in range(time):
        for i in range(width // 2):
            turn = cmath.exp(1j * (t + offset) * base ** (-2 * i / width))
            for b in range(batch):
                for h in range(heads):
                    turned = complex(x[b, t, h, i], x[b, t, h, i + width // 2]) * turn
                    out[b, t, h, i], out[b, t, h, i + width // 2] = turned.real, turned.imag
    return out


@pytest.mark.parametrize("width", [2, 6, 8])
@pytest.mark.parametrize("base", [10.0, 10000.0])
def test_rotation_is_a_complex_product(width, base):
    x = normal(2, 5, 3, width, dtype=torch.float64)
    cos, sin = rotary_table(9, width, base, torch.float64, "cpu")
    close(rotate(x, cos[:5], sin[:5]).transpose(1, 2), slow_rotation(x, base), atol=1e-12)
    close(rotate(x, cos[4:], sin[4:]).transpose(1, 2), slow_rotation(x, base, offset=4), atol=1e-12)


def test_a_rotated_product_depends_on_the_distance_alone():
    q, k = normal(8, dtype=torch.float64), normal(8, seed=1, dtype=torch.float64)
    cos, sin = rotary_table(30, 8, 100.0, torch.float64, "cpu")
    turned_q, turned_k = (rotate(x.expand(1, 30, 1, 8), cos, sin)[0, 0] for x in (q, k))
    products = turned_q @ turned_k.T
    for distance in range(-5, 6):
        diagonal = products.diagonal(distance)
        close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-10)


# drop


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1000])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_what_is_not_dropped_is_scaled_by_the_share_that_stays(size, probability):
    torch.manual_seed(1)
    out = drop(torch.ones(size, 3), probability, training=True)
    kept = 1 - round(probability * 256) / 256
    assert set(out.unique().tolist()) <= {0.0, torch.tensor(1 / kept).item()}


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_dropped_share_is_the_asked_one(probability):
    torch.manual_seed(1)
    num = 200_000
    share = (drop(torch.ones(num), probability, training=True) == 0).double().mean()
    assert abs(share - round(probability * 256) / 256) < 5 * (probability * (1 - probability) / num) ** 0.5


def test_nothing_is_dropped_outside_training_or_at_zero():
    x = normal(10)
    assert drop(x, 0.5, training=False) is x
    assert drop(x, 0.0, training=True) is x


def test_the_gradient_is_dropped_where_the_value_is():
    torch.manual_seed(1)
    x = torch.ones(1000, requires_grad=True)
    out = drop(x, 0.3, training=True)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_drops_differ_between_calls_and_repeat_under_a_seed():
    x = torch.ones(1000)
    torch.manual_seed(1)
    first, second = drop(x, 0.5, training=True), drop(x, 0.5, training=True)
    torch.manual_seed(1)
    assert torch.equal(first, drop(x, 0.5, training=True))
    assert not torch.equal(first, second)


# linear_cross_entropy and token_losses


def torch_loss(hidden, weight, targets, softcap):
    logits = hidden @ weight.T
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    losses = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    return losses, (logits.argmax(-1) == targets)


def case(num, vocab, width=8, ignored=()):
    hidden, weight = normal(num, width), normal(vocab, width, seed=1)
    targets = torch.randint(vocab, (num,), generator=torch.Generator().manual_seed(2))
    targets[list(ignored)] = IGNORED
    return hidden, weight, targets


def check_loss(hidden, weight, targets, softcap, scale=1.0):
    ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    theirs = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    total, correct = linear_cross_entropy(*ours, targets, softcap)
    losses, right = torch_loss(*theirs, targets, softcap)
    (total * scale).backward()
    (losses.sum() * scale).backward()
    close(total.detach(), losses.sum().detach(), rtol=1e-4)
    assert int(correct) == int(right.sum())
    for found, expected in zip(ours, theirs, strict=True):
        close(found.grad, expected.grad, rtol=1e-3)


@pytest.mark.parametrize("softcap", [0.0, 2.0, 30.0])
@pytest.mark.parametrize("num", [1, 2, 63, 64, 65, 128, 130])
def test_the_loss_and_its_gradients_equal_torch(num, softcap):
    check_loss(*case(num, 37), softcap)


@pytest.mark.parametrize("num", [63, 64, 65])
def test_the_loss_is_the_same_at_the_edges_of_a_chunk(num):
    check_loss(*case(num, 2**18, width=2, ignored=[0, num - 1]), 5.0)


@pytest.mark.parametrize("ignored", [[0], [69], range(64), range(64, 70), range(1, 70, 2)])
def test_ignored_targets_have_no_loss_and_no_gradient(ignored):
    hidden, weight, targets = case(70, 11, ignored=ignored)
    check_loss(hidden, weight, targets, 0.0)
    hidden = hidden.requires_grad_()
    linear_cross_entropy(hidden, weight, targets)[0].backward()
    assert not hidden.grad[list(ignored)].any()


def test_a_loss_without_any_target_is_zero():
    hidden, weight, targets = case(5, 11, ignored=range(5))
    hidden = hidden.requires_grad_()
    total, correct = linear_cross_entropy(hidden, weight, targets)
    total.backward()
    assert (float(total.detach()), int(correct), bool(hidden.grad.any())) == (0.0, 0, False)


def test_the_gradient_follows_the_scale_of_what_is_minimized():
    check_loss(*case(20, 11), 0.0, scale=1 / 20)


def test_the_loss_without_gradients_is_the_same():
    arguments = case(70, 11, ignored=[3])
    with torch.no_grad():
        total, correct = linear_cross_entropy(*arguments)
    hidden = arguments[0].clone().requires_grad_()
    again, correct_again = linear_cross_entropy(hidden, *arguments[1:])
    assert (float(total), int(correct)) == (float(again.detach()), int(correct_again))


def test_logits_too_large_to_exponentiate_give_a_finite_loss():
    hidden, weight, targets = case(10, 11)
    check_loss(hidden * 1e3, weight, targets, 0.0)


def test_in_bfloat16_the_loss_is_summed_in_float32():
    hidden, weight, targets = case(500, 37)
    total, _ = linear_cross_entropy(hidden.bfloat16(), weight, targets)
    assert total.dtype == torch.float32
    close(total, torch_loss(hidden, weight, targets, 0.0)[0].sum(), rtol=0.01)


@pytest.mark.parametrize("softcap", [0.0, 3.0])
@pytest.mark.parametrize("vocab", [37, 2**18])
def test_token_losses_equal_torch_token_by_token(vocab, softcap):
    hidden, weight, targets = case(65, vocab, width=2, ignored=[0, 64])
    losses, right = token_losses(hidden, weight, targets, softcap)
    expected, expected_right = torch_loss(hidden, weight, targets, softcap)
    close(losses, expected, rtol=1e-4)
    assert torch.equal(right, expected_right)
    assert losses[0] == losses[64] == 0
    assert not right[0]
