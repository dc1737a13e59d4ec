"""Gradient clipping by value (the article's) and by global norm (Pascanu et al. 2013)."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def clip_gradients_(parameters: Sequence[Tensor], *, max_norm: float, max_value: float) -> float:
    """Clip the gradients in place, first by value, then by norm; 0 switches either off.

    Return the norm before any clipping: an infinite entry that is clipped to `max_value` must still be seen.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return 0.0
    norm = clipped = _norm(grads)
    if max_value:
        torch._foreach_clamp_min_(grads, -max_value)
        torch._foreach_clamp_max_(grads, max_value)
        clipped = _norm(grads) if max_norm else norm
    if max_norm and clipped > max_norm and clipped != float("inf"):
        torch._foreach_mul_(grads, max_norm / (clipped + 1e-6))
    return norm


def _norm(grads: list[Tensor]) -> float:
    return float(torch.stack(torch._foreach_norm(grads)).norm())
