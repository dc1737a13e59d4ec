"""The loader: batches of rows from a split, with an exact state and the same rows whatever the number of processes."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from inkstone.base.errors import CheckpointError, DataError
from inkstone.base.seeds import derive_seed
from inkstone.data.packing import pack_rows
from inkstone.data.shards import TokenSplit
from inkstone.world import ALONE, World

NO_LOSS = -100
Packing = Literal["stream", "fit"]


@dataclass(frozen=True)
class Batch:
    """One process's share of a step.

    Shapes: tokens_BT int64; targets_BT int64, the next token, -100 where there is no loss; document_BT int32, numbered from 0 in
    each row, or None when no row has a document boundary inside (or the document mask is off).
    """

    tokens_BT: torch.Tensor  # noqa: N815
    targets_BT: torch.Tensor  # noqa: N815
    document_BT: torch.Tensor | None  # noqa: N815

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        document = None if self.document_BT is None else self.document_BT.to(device)
        return Batch(self.tokens_BT.to(device), self.targets_BT.to(device), document)


class Loader:
    """Rows of `context` tokens in a seeded order, epoch after epoch.

    "stream": the split is a circle, cut into `num_tokens // context` windows from a random phase in each epoch, in random order, so
    that in an epoch no target comes twice. "fit": whole documents are packed into rows by best fit (only documents longer than a
    row are cut); rests of rows are filled with `eos` without loss, and the first token of a piece is no target.
    With `document_mask`, `document_BT` tells attention where documents begin: in a stream at the `eos` before them, so that `eos`
    alone learns how a document begins.

    The state counts rows, so `batch_size` may be changed between calls and the world may have another size after a restore.
    Raises: DataError when the split is shorter than one row.
    """

    def __init__(
        self, split: TokenSplit, *, batch_size: int, context: int, seed: int, packing: Packing = "stream",
        document_mask: bool = True, world: World = ALONE,
    ) -> None:  # fmt: skip
        self.split, self.batch_size, self.context, self.seed = split, batch_size, context, seed
        self.packing, self.document_mask, self.world = packing, document_mask, world
        self.epoch = self.cursor = 0
        self._orders: dict[int, tuple[np.ndarray, int]] = {}
        self._rows: _Rows = _FitRows(split, context) if packing == "fit" else _StreamRows(split, context)
        self.rows_per_epoch = self._rows.num_rows

    def next(self) -> Batch:
        """Return this rank's next batch; ranks take neighbouring slices of the same sequence of rows."""
        batch_size, rows = self.batch_size, self.rows_per_epoch
        first = self.epoch * rows + self.cursor + self.world.rank * batch_size
        tokens, starts, loss = self._gather(np.arange(first, first + batch_size))
        self.epoch, self.cursor = divmod(self.epoch * rows + self.cursor + batch_size * self.world.size, rows)
        return self._batch(tokens, starts, loss)

    def state(self) -> dict[str, Any]:
        """Return the position as JSON-able values; `load_state` of an equal loader continues with byte-identical batches."""
        return {"epoch": self.epoch, "cursor": self.cursor} | self._identity()

    def load_state(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises: CheckpointError when the state belongs to other data or another way of cutting rows; all differences are listed.
        """
        mine = self._identity()
        wrong = [f"data position: {key} was {state.get(key)!r}, now {mine[key]!r}" for key in mine if state.get(key) != mine[key]]
        if wrong:
            raise CheckpointError(
                "\n".join(f"{line} — resume with the same data and settings, or start a new run" for line in wrong)
            )
        self.epoch, self.cursor = int(state["epoch"]), int(state["cursor"])

    def _identity(self) -> dict[str, Any]:
        return {
            "data": self.split.fingerprint, "seed": self.seed, "context": self.context, "packing": self.packing,
            "rows_per_epoch": self.rows_per_epoch,
        }  # fmt: skip

    def _order(self, epoch: int) -> tuple[np.ndarray, int]:
        """Return (permutation of the rows, phase) of an epoch; the last two epochs are kept."""
        if epoch not in self._orders:
            random = np.random.Generator(np.random.PCG64(derive_seed(self.seed, "loader", epoch)))
            phase = int(random.integers(self.context))
            self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1}
            self._orders[epoch] = (random.permutation(self.rows_per_epoch), phase)
        return self._orders[epoch]

    def _gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        epochs = indices // self.rows_per_epoch
        parts = []
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            order, phase = self._order(epoch)
            parts.append(self._rows.read(order[indices[epochs == epoch] - epoch * self.rows_per_epoch], phase))
        if len(parts) == 1:
            return parts[0]
        masks = [loss for _, _, loss in parts if loss is not None]
        return (
            np.concatenate([tokens for tokens, _, _ in parts]),
            np.concatenate([starts for _, starts, _ in parts]),
            np.concatenate(masks) if masks else None,
        )

    def _batch(self, tokens: np.ndarray, starts: np.ndarray, loss: np.ndarray | None) -> Batch:
        """Shapes: tokens (B, context + 1); starts and loss likewise, bool: begins a document / counts as a target."""
        ids = torch.from_numpy(tokens.astype(np.int64))
        targets = ids[:, 1:].clone()
        document = None
        if loss is not None:
            targets[torch.from_numpy(~loss[:, 1:])] = NO_LOSS
        if self.document_mask:
            inside = starts[:, :-1].copy()
            inside[:, 0] = False
            if inside.any():
                document = torch.from_numpy(np.cumsum(inside, axis=1, dtype=np.int32))
        return Batch(ids[:, :-1].contiguous(), targets, document)


class _StreamRows:
    """Windows of context + 1 tokens (the last one is only a target) over the split, taken as a circle."""

    def __init__(self, split: TokenSplit, context: int) -> None:
        _check_length(split, context)
        self.split, self.context = split, context
        self.num_rows = split.num_tokens // context
        starts = np.sort((split.document_starts - 1) % split.num_tokens)  # the `eos` before a document opens it
        self._starts = np.concatenate([starts, starts[starts <= 2 * context] + split.num_tokens])

    def read(self, rows: np.ndarray, phase: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return (tokens, document starts, loss or None) of the windows, each (len(rows), context + 1)."""
        begin = phase + rows.astype(np.int64) * self.context
        width = self.context + 1
        positions = (begin[:, None] + np.arange(width)) % self.split.num_tokens
        mask = self.split.take_mask(positions)
        low = np.searchsorted(self._starts, begin, side="left")
        counts = np.searchsorted(self._starts, begin + width, side="left") - low
        starts = np.zeros((len(rows), width), dtype=bool)
        found = np.repeat(low - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        owner = np.repeat(np.arange(len(rows)), counts)
        starts[owner, self._starts[found] - begin[owner]] = True
        return self.split.take(positions), starts, None if mask is None else mask.astype(bool)


class _FitRows:
    """Rows of context + 1 tokens, packed from whole documents once; pieces of one token have no target and are left out."""

    def __init__(self, split: TokenSplit, context: int) -> None:
        bounds = np.append(split.document_starts, split.num_tokens)
        packed = pack_rows(np.diff(bounds).tolist(), context + 1)
        pieces = [[(bounds[d] + start, length) for d, start, length in row if length > 1] for row in packed]
        kept = [row for row in pieces if row and _has_target(split, row)]
        if not kept:
            _check_length(split, context)
            raise DataError(f"split '{split.name}' of {split.folder} has no document with a token to learn — nothing to train on")
        self.split, self.context, self.num_rows = split, context, len(kept)
        self._first = np.concatenate([[0], np.cumsum([len(row) for row in kept])]).astype(np.int64)
        self._begin = np.array([begin for row in kept for begin, _ in row], dtype=np.int64)
        self._length = np.array([length for row in kept for _, length in row], dtype=np.int64)

    def read(self, rows: np.ndarray, phase: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return (tokens, document starts, loss) of the rows, each (len(rows), context + 1); `phase` plays no part."""
        width = self.context + 1
        tokens = np.full((len(rows), width), self.split.eos_id, dtype=self.split.dtype)
        starts, loss = np.zeros(tokens.shape, dtype=bool), np.zeros(tokens.shape, dtype=bool)
        for i, row in enumerate(rows):
            at = 0
            for piece in range(self._first[row], self._first[row + 1]):
                begin, length = int(self._begin[piece]), int(self._length[piece])
                mask = self.split.read_mask(begin, begin + length)
                tokens[i, at : at + length] = self.split.read(begin, begin + length)
                loss[i, at : at + length] = True if mask is None else mask
                starts[i, at], loss[i, at] = True, False
                at += length
            if at < width:
                starts[i, at] = True
        return tokens, starts, loss


_Rows = _StreamRows | _FitRows


def _has_target(split: TokenSplit, row: list[tuple[int, int]]) -> bool:
    if not split.has_mask:
        return True
    return any(mask is not None and mask.any() for mask in (split.read_mask(begin + 1, begin + length) for begin, length in row))


def _check_length(split: TokenSplit, context: int) -> None:
    if split.num_tokens < context + 1:
        raise DataError(
            f"split '{split.name}' of {split.folder} has {split.num_tokens:,} tokens, one row needs {context + 1:,}"
            f" (context {context:,} + 1) — give more text, a larger --val-fraction for 'val', or a smaller --model.context"
        )
