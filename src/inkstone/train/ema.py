"""An exponential moving average of the weights (Polyak averaging), kept beside them."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class WeightAverage:
    """average ← decay · average + (1 − decay) · weight after each update; early on the decay is at most (1 + t) / (10 + t)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()} if decay else {}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights."""
        if not self.decay:
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        names, weights = zip(*model.named_parameters(), strict=True)
        average: list[Tensor] = [self.average[name] for name in names]  # a loaded average stands in the file's order
        torch._foreach_lerp_(average, list(weights), 1 - decay)

    def load(self, average: dict[str, Tensor], updates: int) -> None:
        """Put back a saved average, whatever the order of its names and the device it was read to."""
        self.average = {name: average[name].to(own.device) for name, own in self.average.items()}
        self.updates = updates

    @contextlib.contextmanager
    @torch.no_grad()
    def applied_to(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged weights within the block; without averaging, its own."""
        if not self.decay:
            yield
            return
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._put(model, self.average)
        try:
            yield
        finally:
            self._put(model, own)

    @staticmethod
    def _put(model: nn.Module, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(weights[name])
