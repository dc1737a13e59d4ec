"""The seam between the engine, which decides, and the model, which computes: a runner owns the weights and the cache slots."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Runner(Protocol):
    """A model with `num_slots` caches of `max_tokens` positions each. Not thread-safe: one thread drives it.

    What a row gets does not depend on the other rows of a call. Prefilling is exact to the bit as long as chunks begin at the same
    positions: the engine cuts prompts at multiples of `chunk_tokens`, and reuses another prompt's positions only in whole chunks.
    Shape letters: R rows of one call, T positions, D width, V vocabulary.
    """

    num_slots: int
    max_tokens: int
    chunk_tokens: int
    vocab_size: int

    def prefill(self, slot: int, ids: Sequence[int], start: int) -> Tensor:
        """Write `ids` at the positions start … of a slot, whose earlier positions are filled, and return their hidden_TD."""

    def decode(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Write one token a row at its slot and position and return hidden_RD; a row sees its slot up to and with its position.

        A slot may have several rows at consecutive positions, in order (speculation).
        """

    def logits(self, hidden_RD: Tensor) -> Tensor:
        """Return float32 logits_RV of hidden states."""

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Let the first positions of `target` hold what those of `source` hold."""
