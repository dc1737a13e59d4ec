"""The runner for processors: rows are decoded by the kernels of `native/`, prompts in torch's large products."""

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inkstone.infer.native.plan import blocks_program, head_program
from inkstone.infer.torch_runner import CHUNK_TOKENS, TorchRunner

if TYPE_CHECKING:
    from inkstone.nn.transformer import Transformer

MAX_ROWS = 64  # of one call of the kernels; more rows are several calls
FEW_TOKENS = 8  # of a prompt: up to here the kernels beat products that first have to unpack every weight


class NativeRunner(TorchRunner):
    """Rows are equal to the bit, whatever their neighbours and however many threads: each output is one sum in a fixed order."""

    def __init__(
        self, network: "Transformer", library: ctypes.CDLL, *, num_slots: int, max_tokens: int | None = None,
        chunk_tokens: int = CHUNK_TOKENS, cache_dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(network, num_slots=num_slots, max_tokens=max_tokens, chunk_tokens=chunk_tokens, cache_dtype=cache_dtype)
        threads = torch.get_num_threads()
        max_rows = min(MAX_ROWS, max(num_slots, FEW_TOKENS))
        self._max_rows = max_rows
        self._blocks, self._input_RD, self._hidden_RD = blocks_program(
            library, network, self.store, max_rows=max_rows, num_threads=threads
        )
        self._head, self._head_input_RD, self._logits_RV = head_program(library, network, max_rows=max_rows, num_threads=threads)

    def prefill(self, slot: int, ids: Sequence[int], start: int) -> Tensor:
        """Return hidden_TD of `ids`, written at the positions start … of the slot."""
        if len(ids) <= FEW_TOKENS:
            return self.decode(ids, [slot] * len(ids), range(start, start + len(ids)))
        return super().prefill(slot, ids, start)

    @torch.inference_mode()
    def decode(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Return hidden_RD of one token a row."""
        parts = []
        for at in range(0, len(ids), self._max_rows):
            part = slice(at, at + self._max_rows)
            parts.append(self._decode(ids[part], slots[part], positions[part]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    @torch.inference_mode()
    def logits(self, hidden_RD: Tensor) -> Tensor:
        """Return float32 logits_RV."""
        parts = []
        for hidden in hidden_RD.split(self._max_rows):
            self._head_input_RD[: len(hidden)] = hidden
            self._head.run(len(hidden))
            parts.append(self._logits_RV[: len(hidden)].clone())
        logits_RV = parts[0] if len(parts) == 1 else torch.cat(parts)
        cap = self.network.config.logit_softcap
        return cap * torch.tanh(logits_RV / cap) if cap else logits_RV

    def _decode(self, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        recent_RN = self._remember(ids, slots, positions)
        history_RS = torch.cat([recent_RN, torch.tensor([list(ids)]).T], dim=1)
        positions_R1 = torch.tensor([list(positions)]).T
        self._input_RD[: len(ids)] = self.network.embed_tokens(history_RS, positions_R1, dtype=torch.float32)[:, 0]
        self._blocks.run(len(ids), slots, positions)
        return self._hidden_RD[: len(ids)].clone()
