"""Texts of different lengths in one batch: filled up on the right, where causal attention lets nothing look from."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

BATCH_TOKENS = 4_096  # with those that fill up; bounds memory


def padded_batches(
    id_lists: Sequence[Sequence[int]], *, device: torch.device, max_tokens: int = BATCH_TOKENS
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield (indices, ids_BT) until every list was in one batch, longest first, so that rows of a batch are of similar length.

    A batch has at most `max_tokens` positions, and one row at least. What fills up is id 0.
    """
    order = sorted(range(len(id_lists)), key=lambda i: len(id_lists[i]), reverse=True)
    at = 0
    while at < len(order):
        longest = len(id_lists[order[at]])
        indices = order[at : at + max(1, max_tokens // max(1, longest))]
        rows = [[*id_lists[i], *[0] * (longest - len(id_lists[i]))] for i in indices]
        yield indices, torch.tensor(rows, dtype=torch.int64, device=device)
        at += len(indices)
