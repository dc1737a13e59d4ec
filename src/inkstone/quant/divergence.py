"""How far one model's next-token distributions are from another's, over the same text."""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from inkstone.nn.transformer import Transformer

_CHUNK = 128  # positions whose two (chunk, V) float64 log-probabilities stand at once


@dataclasses.dataclass(frozen=True)
class Divergence:
    """Means over `tokens` positions: `kl` is KL(model || other) in nats, `agreement` the share with the same likeliest token."""

    kl: float
    agreement: float
    tokens: int


@torch.inference_mode()
def divergence(model: Transformer, other: Transformer, rows: Iterable[Tensor]) -> Divergence:
    """Return how far `other` is from `model`, both in evaluation mode, at every position of every row of ids (B, T) int64."""
    kl, same, tokens = 0.0, 0, 0
    for ids_BT in rows:
        hidden, others = model(ids_BT).flatten(0, 1), other(ids_BT).flatten(0, 1)
        for one, two in zip(hidden.split(_CHUNK), others.split(_CHUNK), strict=True):
            logp, logq = (m.logits(h).double().log_softmax(-1) for m, h in ((model, one), (other, two)))
            kl += float((logp.exp() * (logp - logq)).sum())
            same += int((logp.argmax(-1) == logq.argmax(-1)).sum())
        tokens += ids_BT.numel()
    return Divergence(kl / max(1, tokens), same / max(1, tokens), tokens)
