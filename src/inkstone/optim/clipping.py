"""Gradient clipping by value (the article's) and by global norm (Pascanu et al. 2013)."""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def clip_gradients_(parameters: Sequence[Tensor], *, max_norm: float, max_value: float) -> float:
    """Clip the gradients in place, first by value, then by norm; 0 switches either off. Return the norm before clipping by norm."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return 0.0
    if max_value:
        torch._foreach_clamp_min_(grads, -max_value)
        torch._foreach_clamp_max_(grads, max_value)
    norm = float(torch.stack(torch._foreach_norm(grads)).norm())
    if max_norm and norm > max_norm and norm != float("inf"):
        torch._foreach_mul_(grads, max_norm / (norm + 1e-6))
    return norm
