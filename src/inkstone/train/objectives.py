"""FAMILY of objectives: each returns a *sum* and a *count*, so that the loss is the same under any split of the batch."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from inkstone.base.family import Family
from inkstone.data.loader import NO_LOSS, Batch
from inkstone.nn.functional import linear_cross_entropy
from inkstone.nn.transformer import Transformer


@dataclass(frozen=True)
class Loss:
    """Summed loss in nats (differentiable), the number of targets, and how many of them were the most likely token."""

    total: Tensor
    count: Tensor
    correct: Tensor


def language_modelling(model: Transformer, batch: Batch) -> Loss:
    """Return the cross-entropy of each token given its history. Source: Radford et al. 2018, eq. 1."""
    hidden = model(batch.tokens_BT, batch.document_BT)
    targets = batch.targets_BT.flatten()
    total, correct = linear_cross_entropy(hidden.flatten(0, 1), model.head_weight, targets, model.config.logit_softcap)
    return Loss(total, (targets != NO_LOSS).sum(), correct)


OBJECTIVES: Family[Callable[[Transformer, Batch], Loss]] = Family("objective", {"lm": language_modelling})
