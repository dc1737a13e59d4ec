"""From logits to a token: the draw at a position is a pure function of (seed, position) and that row's logits."""

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
    mass_BV = logits_BV.softmax(1).cumsum(1, dtype=torch.float64)
    total_B1 = mass_BV[:, -1:]
    if not bool(total_B1.isfinite().all()):
        raise _not_finite()
    point_B1 = torch.minimum(uniform_B[:, None] * total_B1, total_B1.nextafter(torch.zeros_like(total_B1)))
    return torch.searchsorted(mass_BV, point_B1, right=True)[:, 0]


def draw_greedy(logits_BV: Tensor) -> Tensor:
    """Return the likeliest token of each row, of equals the first. Raises: CheckpointError when it is not finite."""
    best_B, token_B = logits_BV.max(1)
    if not bool(best_B.isfinite().all()):
        raise _not_finite()
    return token_B


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
