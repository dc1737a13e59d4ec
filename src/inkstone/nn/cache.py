"""The memory of past keys and values that makes generation cost one position at a time."""

import torch
from torch import Tensor


class KVCache:
    """Keys and values of every layer for up to `max_tokens` positions, allocated once.

    Shapes: (num_layers, 2, B, K, S, E). `length` is the number of positions that are filled in every row.
    """

    def __init__(self, *, num_layers: int, batch_size: int, num_kv_heads: int, max_tokens: int, head_width: int,
                 dtype: torch.dtype, device: torch.device) -> None:  # fmt: skip
        self.store = torch.zeros(num_layers, 2, batch_size, num_kv_heads, max_tokens, head_width, dtype=dtype, device=device)
        self.recent_BN: Tensor | None = None  # the last tokens, for the n-gram embedding of the next position
        self.length = 0

    @property
    def max_tokens(self) -> int:
        """Positions that fit."""
        return self.store.shape[4]

    def write(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Put the new positions behind `length` and return keys and values of all positions so far (views, no copy)."""
        stop = self.length + k_BKTE.shape[2]
        keys, values = self.store[layer, 0], self.store[layer, 1]
        keys[:, :, self.length : stop] = k_BKTE
        values[:, :, self.length : stop] = v_BKTE
        return keys[:, :, :stop], values[:, :, :stop]

    def truncate(self, length: int, recent_BN: Tensor | None = None) -> None:
        """Forget every position from `length` on; `recent_BN` are the tokens now before the end."""
        assert 0 <= length <= self.length
        self.length = length
        self.recent_BN = recent_BN
