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


@functools.lru_cache(maxsize=16)
def causal_bias(num_queries: int, num_keys: int, window: int, dtype: torch.dtype, device: str) -> Tensor:
    """Return (num_queries, num_keys) of 0 where a query may look and -inf elsewhere; the last query sees the last key."""
    query = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    key = torch.arange(num_keys, device=device)[None, :]
    allowed = key <= query
    if window:
        allowed &= key > query - window
    return torch.zeros(num_queries, num_keys, dtype=dtype, device=device).masked_fill_(~allowed, float("-inf"))


def document_bias(document_BT: Tensor, window: int, dtype: torch.dtype) -> Tensor:
    """Return (B, 1, T, T): causal, windowed, and within one document."""
    num = document_BT.shape[1]
    same = document_BT[:, :, None] == document_BT[:, None, :]
    bias = causal_bias(num, num, window, dtype, str(document_BT.device))
    return torch.where(same, bias, float("-inf"))[:, None]


class _BatchedAttention(torch.autograd.Function):
    """softmax(q kᵀ + bias) v as plain batched products; keeps only the probabilities for the way back."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        scores = torch.matmul(q, k.transpose(-1, -2))
        scores += bias
        probs = torch.softmax(scores, dim=-1)
        ctx.save_for_backward(q, k, v, probs)
        return torch.matmul(probs, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, probs = ctx.saved_tensors
        grad_v = torch.matmul(probs.transpose(-1, -2), grad)
        grad_probs = torch.matmul(grad, v.transpose(-1, -2))
        grad_scores = torch._softmax_backward_data(grad_probs, probs, -1, probs.dtype)
        return torch.matmul(grad_scores, k), torch.matmul(grad_scores.transpose(-1, -2), q), grad_v, None


def attend(q_BHTE: Tensor, k_BKSE: Tensor, v_BKSE: Tensor, *, bias: Tensor | None, window: int = 0, dropout: float = 0.0) -> Tensor:
    """Return attention outputs of shape (B, H, T, E); the last query is aligned with the last key.

    `bias` (broadcastable to (B, H, T, S)) replaces the causal mask when it is given; scores are scaled by 1/√E.
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
        return _BatchedAttention.apply(q_BHTE * q_BHTE.shape[-1] ** -0.5, k_BKSE, v_BKSE, bias)
    return scaled_dot_product_attention(
        q_BHTE, k_BKSE, v_BKSE, attn_mask=bias, dropout_p=dropout, is_causal=bias is None and num_queries > 1,
        enable_gqa=q_BHTE.shape[1] != k_BKSE.shape[1],
    )  # fmt: skip
