"""Muon: momentum whose matrix update is replaced by the nearest orthogonal matrix.

Source: Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/); scale of the update from Liu et al. 2025 (arXiv 2502.16982,
section 2.2), so that one learning rate serves Muon and AdamW alike; iteration coefficients from Amsel et al. 2025 (arXiv 2505.16932).
Matrices of one shape are updated together in one batched product.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from inkstone import machine

# Optimal odd polynomials for singular values in [1e-3, 1], one a step, with the paper's safety factor; the last repeats.
_COEFFICIENTS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
UPDATE_RMS = 0.2  # root mean square of an update before the learning rate, as AdamW's typically is


def orthogonalize(batch_GRC: Tensor, num_iterations: int) -> Tensor:
    """Return, for each of G matrices of R x C, approximately U Vᵀ of its singular value decomposition.

    Works in bfloat16, or in float32 where a processor multiplies that faster; singular values end in about [0.9, 1.1].
    """
    is_slow = batch_GRC.device.type == "cpu" and machine.fast_precision() == "fp32"
    x = batch_GRC.float() if is_slow else batch_GRC.bfloat16()
    is_tall = x.shape[1] > x.shape[2]
    if is_tall:
        x = x.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) * 1.02 + 1e-6)
    for step in range(num_iterations):
        a, b, c = _COEFFICIENTS[min(step, len(_COEFFICIENTS) - 1)]
        gram = torch.bmm(x, x.transpose(1, 2))
        poly = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, poly, x, beta=a)
    return x.transpose(1, 2) if is_tall else x


class Muon(torch.optim.Optimizer):
    """Muon over two-dimensional parameters.

    A parameter's optional attribute `row_parts` (sizes that add up to its rows) says that it is several matrices stacked, each of which
    is orthogonalized on its own: queries, keys and values are.
    """

    def __init__(self, params: Iterable[Any], *, lr: float, momentum: float, weight_decay: float, num_iterations: int) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "num_iterations": num_iterations})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for param in group["params"]:
                if param.grad is None:
                    continue
                for part, update in zip(_parts(param, param), _parts(param, self._momentum(param, group["momentum"])), strict=True):
                    by_shape.setdefault(part.shape, []).append((part, update))
            for shape, pairs in by_shape.items():
                directions = orthogonalize(torch.stack([update for _, update in pairs]), group["num_iterations"])
                scale = group["lr"] * UPDATE_RMS * max(shape) ** 0.5
                for (part, _), direction in zip(pairs, directions, strict=True):
                    part.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-scale)

    def _momentum(self, param: Tensor, momentum: float) -> Tensor:
        """Return the Nesterov look-ahead of the updated momentum buffer."""
        assert param.grad is not None
        state = self.state[param]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param)
        buffer = state["momentum_buffer"].lerp_(param.grad, 1 - momentum)
        return torch.lerp(param.grad, buffer, momentum)


def _parts(param: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    sizes = getattr(param, "row_parts", None)
    return (value,) if sizes is None else value.split(list(sizes))
