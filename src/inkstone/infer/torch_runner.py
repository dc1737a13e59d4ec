"""The runner that asks torch for everything: any model, any device, and the reference for the faster one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inkstone.nn.cache import KVCache, RowsCache, copy_positions, recent_tokens, slot_view

if TYPE_CHECKING:
    from inkstone.nn.transformer import Transformer

CHUNK_TOKENS = 256  # of a prompt, at a time: large enough for fast products, small enough for the others not to wait long


class TorchRunner:
    """`num_slots` caches beside a transformer; rows are equal to rounding, whatever their neighbours (torch's products decide)."""

    def __init__(
        self, network: "Transformer", *, num_slots: int, max_tokens: int | None = None, chunk_tokens: int = CHUNK_TOKENS,
        cache_dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        config = network.config
        self.network = network
        self.num_slots, self.chunk_tokens, self.vocab_size = num_slots, chunk_tokens, config.vocab_size
        self.max_tokens = min(max_tokens or config.context, config.context)
        cache = network.new_cache(num_slots, self.max_tokens, cache_dtype)
        self.store = cache.store
        self._device = self.store.device
        self._ids_SP = torch.zeros(num_slots, self.max_tokens, dtype=torch.int64, device=self._device)
        self._num_recent = config.ngram_max - 1

    @torch.inference_mode()
    def prefill(self, slot: int, ids: Sequence[int], start: int) -> Tensor:
        """Return hidden_TD of `ids`, written at the positions start … of the slot."""
        tokens_BT = torch.tensor([list(ids)], dtype=torch.int64, device=self._device)
        self._ids_SP[slot, start : start + len(ids)] = tokens_BT[0]
        recent_BN = recent_tokens(self._ids_SP, [slot], [start], self._num_recent)
        return self.network(tokens_BT, cache=KVCache.over(slot_view(self.store, slot), start, recent_BN))[0]

    @torch.inference_mode()
    def decode(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Return hidden_RD of one token a row."""
        recent_RN = self._remember(ids, slots, positions)
        slots_R, positions_R = (torch.tensor(list(x), device=self._device) for x in (slots, positions))
        cache = RowsCache(self.store, slots_R, positions_R, recent_RN, max(positions) + 1)
        return self.network(torch.tensor(list(ids), device=self._device)[:, None], cache=cache)[:, 0]

    @torch.inference_mode()
    def logits(self, hidden_RD: Tensor) -> Tensor:
        """Return float32 logits_RV."""
        return self.network.logits(hidden_RD)

    @torch.inference_mode()
    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Let the first positions of `target` hold what those of `source` hold."""
        copy_positions(self.store, source, target, num_tokens)
        self._ids_SP[target, :num_tokens] = self._ids_SP[source, :num_tokens]

    def _remember(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Keep the rows' tokens and return those before them, which the n-gram embedding reads."""
        where = (torch.tensor(list(slots), device=self._device), torch.tensor(list(positions), device=self._device))
        self._ids_SP[where] = torch.tensor(list(ids), device=self._device)
        return recent_tokens(self._ids_SP, slots, positions, self._num_recent)
