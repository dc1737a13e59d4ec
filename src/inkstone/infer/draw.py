"""From logits to a token: the draw at a position is a pure function of (seed, position) and that row's logits."""

import numpy as np
import torch
from torch import Tensor

from inkstone.base.errors import CheckpointError
from inkstone.base.seeds import derive_seed
from inkstone.infer.config import SamplingSettings
from inkstone.infer.sampling import RULES, History, active_rules


def uniform(seed: int, position: int) -> float:
    """Return the number in [0, 1) that decides the token at `position`: no generator, so no neighbour can shift it."""
    return (derive_seed(seed, "draw", position) >> 10) / 2**53


def draw(logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Return one token a row by inverting its cumulative distribution.

    Shapes: logits (B, V), uniform (B,) float64 in [0, 1); returns (B,) int64. A token of probability 0 is never drawn.
    Raises: CheckpointError when a row has NaN, +inf, or nothing but -inf.

    >>> draw(torch.tensor([0.1, 0.2, 0.7]).log()[None], torch.tensor([0.25], dtype=torch.float64))
    tensor([1])
    """
    if logits_BV.device.type == "cpu":
        tokens = [_draw_row(row_V, point) for row_V, point in zip(logits_BV, uniform_B.tolist(), strict=True)]
        return torch.tensor(tokens, dtype=torch.int64)
    mass_BV = logits_BV.softmax(1).cumsum(1, dtype=torch.float64)
    total_B1 = mass_BV[:, -1:]
    if not bool(total_B1.isfinite().all()):
        raise _not_finite()
    point_B1 = torch.minimum(uniform_B[:, None] * total_B1, total_B1.nextafter(torch.zeros_like(total_B1)))
    return torch.searchsorted(mass_BV, point_B1, right=True)[:, 0]


def _draw_row(logits_V: Tensor, uniform: float) -> int:
    """Return one row's token. After a cut few tokens are left: the rest need not be summed over, which is most of a draw's time."""
    left_K = np.flatnonzero(logits_V.numpy() != -np.inf)
    mass_K = logits_V[torch.from_numpy(left_K)].softmax(0).cumsum(0, dtype=torch.float64).numpy()
    if not (len(mass_K) and np.isfinite(mass_K[-1])):
        raise _not_finite()
    point = min(uniform * mass_K[-1], np.nextafter(mass_K[-1], 0))
    return int(left_K[np.searchsorted(mass_K, point, side="right")])


def draw_greedy(logits_BV: Tensor) -> Tensor:
    """Return the likeliest token of each row, of equals the first. Raises: CheckpointError when it is not finite."""
    token_B = _first_largest(logits_BV)
    best_B = logits_BV.gather(1, token_B[:, None])
    if not bool(best_B.isfinite().all()):
        raise _not_finite()
    return token_B


def _first_largest(logits_BV: Tensor) -> Tensor:
    """Return the index of each row's largest value, NaN being the largest; numpy's vector code takes a tenth of torch's time."""
    if logits_BV.device.type != "cpu":
        return logits_BV.argmax(1)
    return torch.from_numpy(logits_BV.numpy().argmax(1))


class Sampler:
    """Settings turned into the shortest list of rules; holds no state between draws.

    The engine of many requests makes one for each group of rows with equal settings.
    """

    def __init__(self, settings: SamplingSettings) -> None:
        self._rules = active_rules(settings)
        self.needs_history = any(RULES[name].reads_history for name in RULES if getattr(settings, name) != RULES[name].neutral)
        self._is_greedy = settings.temperature == 0
        if self._is_greedy:
            self._rules = self._rules[:-1]  # the temperature itself: the greedy draw is that rule

    def __call__(self, logits_BV: Tensor, history: History, seeds: list[int], positions: list[int]) -> Tensor:
        """Return the next token of each row. Shapes: logits (B, V) float32; a seed and a position a row; returns (B,) int64."""
        for rule, value in self._rules:
            logits_BV = rule(logits_BV, value, history)
        if self._is_greedy:
            return draw_greedy(logits_BV)
        numbers = [uniform(seed, position) for seed, position in zip(seeds, positions, strict=True)]
        return draw(logits_BV, torch.tensor(numbers, dtype=torch.float64, device=logits_BV.device))


def _not_finite() -> CheckpointError:
    return CheckpointError(
        "expected finite scores for the next token, found NaN or infinity: the model's weights are damaged or its precision "
        "overflows — choose another checkpoint, or load it in float32"
    )
