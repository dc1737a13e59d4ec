"""Loss, accuracy and bits per byte of a split, window by window."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from inkstone.data.loader import NO_LOSS
from inkstone.data.shards import TokenSplit
from inkstone.nn.functional import token_losses
from inkstone.nn.transformer import Transformer


@dataclass(frozen=True)
class Validation:
    """Sums over the scored tokens, and the same by window for intervals.

    Shapes: `window_nats`, `window_tokens`, `window_correct`, `window_bytes` (W,) float64 / int64.
    """

    nats: float
    tokens: int
    correct: int
    num_bytes: int
    window_nats: np.ndarray
    window_tokens: np.ndarray
    window_correct: np.ndarray
    window_bytes: np.ndarray

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood, nats a token."""
        return self.nats / self.tokens

    @property
    def accuracy(self) -> float:
        """Share of tokens that were the most likely one."""
        return self.correct / self.tokens

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_byte(self) -> float:
        """Bits to code one byte of the text with this model; comparable between tokenizers."""
        return self.nats / math.log(2) / max(self.num_bytes, 1)


@torch.inference_mode()
def validate(
    model: Transformer, split: TokenSplit, byte_lengths: np.ndarray, *, context: int, stride: int = 0, batch_size: int = 16,
    max_tokens: int = 0, document_mask: bool = True,
) -> Validation:  # fmt: skip
    """Score every token of the split once (all but the very first, which has no history).

    Windows of `context` advance by `stride` (0: by the context); in an overlap only the new tokens are scored, so each of them is seen
    with at least `context - stride` tokens of history. `byte_lengths` gives the UTF-8 bytes of each id.
    """
    was_training = model.training
    model.eval()
    device = model.embed.weight.device
    rows = list(_windows(split, context, stride or context, max_tokens))
    nats, tokens, correct, num_bytes = [], [], [], []
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        ids, targets, documents = _batch(split, chunk, context, document_mask)
        hidden = model(torch.from_numpy(ids).to(device), None if documents is None else torch.from_numpy(documents).to(device))
        losses, right = token_losses(
            hidden.flatten(0, 1), model.head_weight, torch.from_numpy(targets).flatten().to(device), model.config.logit_softcap
        )
        scored = targets != NO_LOSS
        nats.append(losses.view(targets.shape).sum(1, dtype=torch.float64).cpu().numpy())
        tokens.append(scored.sum(1))
        num_bytes.append(np.where(scored, byte_lengths[np.maximum(targets, 0)], 0).sum(1))
        correct.append(right.view(targets.shape).sum(1).cpu().numpy())
    model.train(was_training)
    by_window = [np.concatenate(parts) for parts in (nats, tokens, correct, num_bytes)]
    sums = [window.sum() for window in by_window]
    return Validation(float(sums[0]), int(sums[1]), int(sums[2]), int(sums[3]), *by_window)


def _windows(split: TokenSplit, context: int, stride: int, max_tokens: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first position, first scored target, end of targets) of each window."""
    last = min(split.num_tokens, max_tokens + 1) if max_tokens else split.num_tokens
    scored, start = 1, 0
    while scored < last:
        stop = min(start + context + 1, last)
        yield start, scored, stop
        scored, start = stop, start + stride


def _batch(
    split: TokenSplit, rows: list[tuple[int, int, int]], context: int, document_mask: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return (ids, targets, documents or None), each (len(rows), context), padded on the right."""
    ids = np.full((len(rows), context), split.eos_id, dtype=np.int64)
    targets = np.full((len(rows), context), NO_LOSS, dtype=np.int64)
    documents = np.zeros((len(rows), context), dtype=np.int32)
    for i, (start, scored, stop) in enumerate(rows):
        window = split.read(start, stop).astype(np.int64)
        num = len(window) - 1
        ids[i, :num], targets[i, :num] = window[:-1], window[1:]
        targets[i, : scored - start - 1] = NO_LOSS
        mask = split.read_mask(start + 1, stop)
        if mask is not None:
            targets[i, :num][mask == 0] = NO_LOSS
        documents[i] = np.cumsum(ids[i] == split.eos_id)
    several = document_mask and (documents != documents[:, :1]).any()
    return ids, targets, documents if several else None
