"""Every attention kernel equals a softmax over a mask that is written out, forward and backward, at every block's edge."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from inkstone.nn.attention import BATCHED_UP_TO, attend, causal_bias, document_bias

torch.set_num_threads(1)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def may_look(num_queries, num_keys, window):
    """Query i stands at position num_keys - num_queries + i."""
    rows = []
    for i in range(num_queries):
        at = num_keys - num_queries + i
        rows.append([key <= at and (window == 0 or key > at - window) for key in range(num_keys)])
    return torch.tensor(rows)


def reference(q, k, v, allowed):
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q @ k.transpose(2, 3)) / q.shape[-1] ** 0.5
    return torch.softmax(scores.masked_fill(~allowed, float("-inf")), -1) @ v


def check(num_queries, num_keys, *, heads=2, kv_heads=2, window=0, documents=None, width=8, batch=2):
    """Compare `attend` with the reference and with torch's own kernel, values and gradients."""
    inputs = [
        normal(batch, heads, num_queries, width),
        normal(batch, kv_heads, num_keys, width, seed=1),
        normal(batch, kv_heads, num_keys, width, seed=2),
    ]
    weight = normal(batch, heads, num_queries, width, seed=3)
    allowed = may_look(num_queries, num_keys, window)
    bias = None
    if documents is not None:
        allowed = (allowed & (documents[:, :, None] == documents[:, None, :]))[:, None]
        bias = document_bias(documents, window, heads, torch.float32)
    kernels = (
        lambda q, k, v: attend(q, k, v, bias=bias, window=window),
        lambda q, k, v: reference(q, k, v, allowed),
        lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=True),
    )
    results = []
    for kernel in kernels:
        leaves = [x.clone().requires_grad_() for x in inputs]
        out = kernel(*leaves)
        (out * weight).sum().backward()
        results.append([out.detach(), *(x.grad for x in leaves)])
    for other in results[1:]:
        for found, expected in zip(results[0], other, strict=True):
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("num", [1, 2, 63, 64, 65, 127, 128, 129, 300])
def test_causal_attention_equals_the_reference(num, kv_heads):
    check(num, num, heads=4, kv_heads=kv_heads, batch=1)


@pytest.mark.parametrize("num", [BATCHED_UP_TO, BATCHED_UP_TO + 1])
def test_both_kernels_agree_where_one_takes_over(num):
    check(num, num, heads=2, kv_heads=1, batch=1)


@pytest.mark.parametrize("window", [1, 2, 63, 64, 65, 100, 1000])
@pytest.mark.parametrize("num", [64, 129, 200])
def test_windows_equal_the_reference(num, window):
    check(num, num, heads=2, kv_heads=1, window=window, batch=1)


@pytest.mark.parametrize("num_keys", [1, 7, 600])
def test_one_query_over_cached_keys_equals_the_reference(num_keys):
    check(1, num_keys, heads=2, kv_heads=1)


@pytest.mark.parametrize("window", [0, 3, 70])
@pytest.mark.parametrize(("num_queries", "num_keys"), [(2, 3), (5, 100), (64, 128), (65, 129), (128, 256), (130, 131), (3, 600)])
def test_later_queries_over_cached_keys_equal_the_reference(num_queries, num_keys, window):
    check(num_queries, num_keys, heads=2, kv_heads=1, window=window, batch=1)


@pytest.mark.parametrize("window", [0, 4, 80])
@pytest.mark.parametrize("num", [5, 64, 129, 600])
def test_documents_equal_the_reference(num, window):
    bounds = torch.randint(0, 9, (2, num), generator=torch.Generator().manual_seed(5)) == 0
    check(num, num, heads=2, kv_heads=1, window=window, documents=bounds.cumsum(1).int())


def test_the_order_of_batch_rows_and_heads_is_kept():
    q, k, v = (normal(3, 4, 130, 8, seed=s) for s in range(3))
    whole = attend(q, k, v, bias=None)
    for b in range(3):
        for h in range(4):
            alone = attend(q[b : b + 1, h : h + 1], k[b : b + 1, h : h + 1], v[b : b + 1, h : h + 1], bias=None)
            torch.testing.assert_close(whole[b, h], alone[0, 0], atol=1e-6, rtol=1e-5)


def test_strided_inputs_equal_contiguous_ones():
    q, k, v = (normal(2, 130, 3, 8, seed=s).transpose(1, 2) for s in range(3))
    torch.testing.assert_close(attend(q, k, v, bias=None), attend(q.contiguous(), k.contiguous(), v.contiguous(), bias=None))


def test_bfloat16_is_close_to_float32():
    q, k, v = (normal(1, 2, 130, 16, seed=s) for s in range(3))
    found = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), bias=None)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), attend(q, k, v, bias=None), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("num", [20, 200])
def test_scores_beyond_what_can_be_exponentiated_stay_finite(num):
    q, k, v = (normal(1, 1, num, 8, seed=s).requires_grad_() for s in range(3))
    out = attend(q * 1e3, k * 1e3, v, bias=None)
    out.sum().backward()
    assert all(torch.isfinite(x).all() for x in (out, q.grad, k.grad, v.grad))


def test_dropped_attention_weights_are_gone_and_the_rest_scaled():
    torch.manual_seed(1)
    q, k, v = torch.zeros(1, 1, 40, 8), torch.zeros(1, 1, 40, 8), torch.eye(40)[None, None]
    weights = attend(q, k, v, bias=None, dropout=0.5)[0, 0]
    expected = torch.tril(torch.ones(40, 40)) / torch.arange(1, 41)[:, None]
    kept = weights != 0
    torch.testing.assert_close(weights[kept], 2 * expected[kept])
    assert not kept.triu(1).any()
    assert 0.4 < kept.tril().sum() / 820 < 0.6


def test_the_mask_lets_the_last_query_see_the_last_key():
    for window in (0, 1, 2, 9):
        found = causal_bias(3, 5, window, torch.float32, "cpu")
        assert torch.equal(found == 0, may_look(3, 5, window))
        assert torch.isinf(found[found != 0]).all()
