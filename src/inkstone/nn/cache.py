"""The memory of past keys and values that makes generation cost one position at a time."""

from collections.abc import Sequence

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

    @classmethod
    def over(cls, store: Tensor, length: int, recent_BN: Tensor | None) -> "KVCache":
        """Return a cache whose first `length` positions are those of an existing store of the shape above."""
        cache = cls.__new__(cls)
        cache.store, cache.length, cache.recent_BN = store, length, recent_BN
        return cache

    @property
    def max_tokens(self) -> int:
        """Positions that fit."""
        return self.store.shape[4]

    def positions(self, num: int) -> slice:
        """Return where the next `num` tokens stand."""
        return slice(self.length, self.length + num)

    def bias(self, window: int, dtype: torch.dtype) -> Tensor | None:
        """Return None: all rows end at the same position, and plain causal attention is what they need."""
        return None

    def write(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Put the new positions behind `length` and return keys and values of all positions so far (views, no copy)."""
        stop = self.length + k_BKTE.shape[2]
        keys, values = self.store[layer, 0], self.store[layer, 1]
        keys[:, :, self.length : stop] = k_BKTE
        values[:, :, self.length : stop] = v_BKTE
        return keys[:, :, :stop], values[:, :, :stop]

    def advance(self, num: int, recent_BN: Tensor) -> None:
        """Count `num` new positions as filled; `recent_BN` are the tokens now before the end."""
        self.length += num
        self.recent_BN = recent_BN

    def truncate(self, length: int, recent_BN: Tensor | None = None) -> None:
        """Forget every position from `length` on; `recent_BN` are the tokens now before the end."""
        assert 0 <= length <= self.length
        self.length = length
        self.recent_BN = recent_BN


class RowsCache:
    """One new token a row, each at its own position of its own slot of a shared store; a row sees its slot up to its position.

    Shapes: store (num_layers, 2, slots, K, S, E); slots and positions (R,) int64; recent (R, N), the tokens before each row's.
    """

    def __init__(self, store: Tensor, slots_R: Tensor, positions_R: Tensor, recent_RN: Tensor, longest: int) -> None:
        self.store, self.recent_BN, self._slots_R, self._positions_R = store, recent_RN, slots_R, positions_R
        self._longest = longest
        key_S = torch.arange(longest, device=store.device)
        self._seen_RS = key_S <= positions_R[:, None]

    def positions(self, num: int) -> Tensor:
        """Return (R, 1): where each row's token stands."""
        assert num == 1
        return self._positions_R[:, None]

    def bias(self, window: int, dtype: torch.dtype) -> Tensor:
        """Return (R, 1, 1, S) of 0 where the row may look and -inf elsewhere."""
        seen_RS = self._seen_RS
        if window:
            key_S = torch.arange(self._longest, device=seen_RS.device)
            seen_RS = seen_RS & (key_S > self._positions_R[:, None] - window)
        return torch.zeros(seen_RS.shape, dtype=dtype, device=seen_RS.device).masked_fill_(~seen_RS, float("-inf"))[:, None, None]

    def write(self, layer: int, k_RK1E: Tensor, v_RK1E: Tensor) -> tuple[Tensor, Tensor]:
        """Put each row's position into its slot and return the keys and values of the rows' slots."""
        found = []
        for kind, new in ((0, k_RK1E), (1, v_RK1E)):
            kept = self.store[layer, kind]
            kept[self._slots_R, :, self._positions_R] = new[:, :, 0].to(kept.dtype)
            found.append(kept[self._slots_R, :, : self._longest])
        return found[0], found[1]

    def advance(self, num: int, recent_BN: Tensor) -> None:
        """Nothing to count: the caller gives the next positions."""


def slot_view(store: Tensor, slot: int) -> Tensor:
    """Return one slot of a store as a store of batch one; no copy."""
    return store[:, :, slot : slot + 1]


def copy_positions(store: Tensor, source: int, target: int, num: int) -> None:
    """Let the first `num` positions of slot `target` hold those of `source`."""
    store[:, :, target, :, :num] = store[:, :, source, :, :num]


def recent_tokens(ids_SP: Tensor, slots: Sequence[int], positions: Sequence[int], num: int) -> Tensor:
    """Return (R, num): the tokens before each row's position, 0 where there is none. `ids_SP` holds the tokens of every slot."""
    device = ids_SP.device
    at_RN = torch.tensor(positions, device=device)[:, None] - torch.arange(num, 0, -1, device=device)
    found = ids_SP[torch.tensor(slots, device=device)[:, None], at_RN.clamp(min=0)]
    return found * (at_RN >= 0)
