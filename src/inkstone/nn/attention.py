"""Attention kernels and the choice among them.

Measured on two AVX-512 cores in bfloat16: up to a few hundred positions plain batched products beat torch's fused CPU kernel several
times over; from about a thousand on the fused kernel wins. On a GPU the fused kernel is always chosen.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

BATCHED_UP_TO = 512  # positions, on a CPU
BLOCK = 128  # queries


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # the mask outlives the call, and training may use it next
def causal_bias(num_queries: int, num_keys: int, window: int, dtype: torch.dtype, device: str) -> Tensor:
    """Return (num_queries, num_keys) of 0 where a query may look and -inf elsewhere; the last query sees the last key."""
    query = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    key = torch.arange(num_keys, device=device)[None, :]
    allowed = key <= query
    if window:
        allowed &= key > query - window
    return torch.zeros(num_queries, num_keys, dtype=dtype, device=device).masked_fill_(~allowed, float("-inf"))


def document_bias(document_BT: Tensor, window: int, num_heads: int, dtype: torch.dtype) -> Tensor:
    """Return a bias broadcastable to (B, H, T, T): causal, windowed, and within one document.

    For batched products it is laid out for every head, once for all layers.
    """
    num = document_BT.shape[1]
    same = document_BT[:, :, None] == document_BT[:, None, :]
    bias = causal_bias(num, num, window, dtype, str(document_BT.device))
    masked = torch.where(same, bias, float("-inf"))[:, None]
    is_batched = document_BT.device.type == "cpu" and num <= BATCHED_UP_TO
    return masked.expand(-1, num_heads, -1, -1).contiguous() if is_batched else masked


class _BatchedAttention(torch.autograd.Function):
    """softmax(q kᵀ / √E + bias) v as plain batched products, a block of queries at a time over the keys that it can see.

    Keeps the probabilities for the way back. Two blocks do three quarters, four blocks five eighths of the full square.
    """

    @staticmethod
    def forward(ctx: Any, q_BHTE: Tensor, k_BHSE: Tensor, v_BHSE: Tensor, bias: Tensor) -> Tensor:
        batch, heads, num_queries, width = q_BHTE.shape
        num_keys = k_BHSE.shape[2]
        q, k, v = (x.reshape(batch * heads, -1, width) for x in (q_BHTE, k_BHSE, v_BHSE))
        if bias.ndim == 4:
            bias = bias.expand(batch, heads, num_queries, num_keys).reshape(batch * heads, num_queries, num_keys)
        ctx.blocks = _query_blocks(num_queries, num_keys)
        outputs, all_probs = [], []
        for rows, keys in ctx.blocks:
            scores = torch.baddbmm(bias[..., rows, keys], q[:, rows], k[:, keys].transpose(1, 2), alpha=width**-0.5)
            all_probs.append(torch.softmax(scores, dim=-1))
            outputs.append(torch.bmm(all_probs[-1], v[:, keys]))
        ctx.save_for_backward(q, k, v, *all_probs)
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)).view(q_BHTE.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHTE: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *all_probs = ctx.saved_tensors
        batch, heads, num_queries, width = grad_BHTE.shape
        grad = grad_BHTE.reshape(batch * heads, num_queries, width)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        # The last block sees every key: its products fill the gradients, those of the blocks before it are added.
        for (rows, keys), probs in zip(reversed(ctx.blocks), reversed(all_probs), strict=True):
            beta = 0 if keys.stop == k.shape[1] else 1
            grad_probs = torch.bmm(grad[:, rows], v[:, keys].transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_probs, probs, -1, probs.dtype)
            grad_v[:, keys].baddbmm_(probs.transpose(1, 2), grad[:, rows], beta=beta)
            grad_k[:, keys].baddbmm_(grad_scores.transpose(1, 2), q[:, rows], beta=beta, alpha=width**-0.5)
            grad_q[:, rows].baddbmm_(grad_scores, k[:, keys], beta=0, alpha=width**-0.5)
        shape = (batch, heads, -1, width)
        return grad_q.view(shape), grad_k.view(shape), grad_v.view(shape), None


def _query_blocks(num_queries: int, num_keys: int) -> list[tuple[slice, slice]]:
    """Return (queries, visible keys) of each block."""
    if num_queries != num_keys or num_queries < 2 * BLOCK:
        return [(slice(0, num_queries), slice(0, num_keys))]
    starts = range(0, num_queries, BLOCK)
    return [(slice(s, min(s + BLOCK, num_queries)), slice(0, min(s + BLOCK, num_keys))) for s in starts]


def attend(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, *, bias: Tensor | None, window: int = 0, dropout: float = 0.0) -> Tensor:
    """Return attention outputs of shape (B, H, T, E); the last query is aligned with the last key.

    `bias` (broadcastable to (B, H, T, S)) takes the place of the causal one and must be causal too; scores are scaled by 1/√E.
    """
    num_queries, num_keys = q_BHTE.shape[2], k_BKSE.shape[2]
    on_cpu = q_BHTE.device.type == "cpu"
    if bias is None and (window or num_queries != num_keys) and num_queries > 1:
        bias = causal_bias(num_queries, num_keys, window, q_BHTE.dtype, str(q_BHTE.device))
    if on_cpu and num_keys <= BATCHED_UP_TO and dropout == 0.0 and num_queries > 1:
        groups = q_BHTE.shape[1] // k_BKSE.shape[1]
        if groups > 1:
            k_BKSE, v_BKSE = k_BKSE.repeat_interleave(groups, 1), v_BKSE.repeat_interleave(groups, 1)
        if bias is None:
            bias = causal_bias(num_queries, num_keys, 0, q_BHTE.dtype, "cpu")
        return _BatchedAttention.apply(q_BHTE, k_BKSE, v_BKSE, bias)
    return scaled_dot_product_attention(
        q_BHTE, k_BKSE, v_BKSE, attn_mask=bias, dropout_p=dropout, is_causal=bias is None and num_queries > 1,
        enable_gqa=q_BHTE.shape[1] != k_BKSE.shape[1],
    )  # fmt: skip
