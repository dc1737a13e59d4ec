"""One update: gradients of the summed loss over the counted targets, clipped, refused when not finite, applied."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from inkstone.data.loader import Batch
from inkstone.nn.transformer import Transformer
from inkstone.optim.clipping import clip_gradients_
from inkstone.optim.optimizers import OptimizerSet
from inkstone.train.objectives import Loss

GROW_SCALE_AFTER = 1000  # good steps, fp16


@dataclass(frozen=True)
class StepResult:
    """Mean loss (nats a target), share of targets predicted, gradient norm before clipping, and what became of the update.

    `applied` is false for a batch without targets too; `refused` says that loss or gradient was not finite, and that no smaller loss
    scale is left to try.
    """

    loss: float
    accuracy: float
    grad_norm: float
    num_targets: int
    applied: bool
    refused: bool = False


class TrainStep:
    """Turns batches into updates of a model.

    In float16 the loss is scaled up so that small gradients survive; the scale halves after an overflow and doubles after a thousand
    good steps (Micikevicius et al. 2018, section 3.2).
    """

    def __init__(
        self,
        model: Transformer,
        optimizer: OptimizerSet,
        objective: Callable[[Transformer, Batch], Loss],
        *,
        clip_norm: float,
        clip_value: float,
    ) -> None:
        self.model, self.optimizer, self.objective = model, optimizer, objective
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.loss_scale = 2.0**14 if model.compute_dtype == torch.float16 else 1.0
        self.good_steps = 0

    def __call__(self, batches: Sequence[Batch], lr_factor: float) -> StepResult:
        """Apply one update from the batches, which count as one; they may lie on another device than the model."""
        self.model.train()
        device = self.model.embed.weight.device
        count = sum(int((batch.targets_BT >= 0).sum()) for batch in batches)
        total, correct = 0.0, 0
        for batch in batches:
            loss = self.objective(self.model, batch.to(device))
            (loss.total * (self.loss_scale / max(count, 1))).backward()
            total += float(loss.total.detach())
            correct += int(loss.correct)
        if self.loss_scale != 1.0:
            torch._foreach_mul_([p.grad for p in self.optimizer.parameters if p.grad is not None], 1 / self.loss_scale)
        norm = clip_gradients_(self.optimizer.parameters, max_norm=self.clip_norm, max_value=self.clip_value)
        is_finite = math.isfinite(norm) and math.isfinite(total)
        applied, refused = is_finite and count > 0, not is_finite and self.loss_scale == 1.0
        if applied:
            self.optimizer.step(lr_factor)
        self.optimizer.zero_grad()
        self._adapt_scale(applied)
        return StepResult(total / max(count, 1), correct / max(count, 1), norm, count, applied, refused)

    def _adapt_scale(self, applied: bool) -> None:
        if self.model.compute_dtype != torch.float16:
            return
        self.good_steps = self.good_steps + 1 if applied else 0
        if not applied:
            self.loss_scale = max(self.loss_scale / 2, 1.0)
        elif self.good_steps % GROW_SCALE_AFTER == 0:
            self.loss_scale *= 2
