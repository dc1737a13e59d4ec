"""Documents to ids in batches, so that long and short ones take the same memory."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from inkstone.data.cutting import cut_text

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

PIECE_CHARS = 1 << 16
BATCH_CHARS = 1 << 19  # the library keeps about 100 bytes a token until a batch is done


def encode_documents(tokenizer: "Tokenizer", texts: Iterable[str]) -> Iterator[np.ndarray]:
    """Yield the ids of each text. A text above `PIECE_CHARS` is encoded in pieces cut at line ends, which changes no character.

    Shapes: (tokens,) uint32.
    """
    batch: list[str] = []
    counts: list[int] = []
    size = 0
    for text in texts:
        pieces = cut_text(text, PIECE_CHARS)
        batch += pieces
        counts.append(len(pieces))
        size += len(text)
        if size >= BATCH_CHARS or len(batch) >= BATCH_CHARS // 64:
            yield from _encode(tokenizer, batch, counts)
            batch, counts, size = [], [], 0
    yield from _encode(tokenizer, batch, counts)


def _encode(tokenizer: "Tokenizer", batch: list[str], counts: list[int]) -> Iterator[np.ndarray]:
    ids: list[np.ndarray] = []
    first = 0
    while first < len(batch):
        stop, size = first, 0
        while stop < len(batch) and size < BATCH_CHARS:
            size += len(batch[stop])
            stop += 1
        ids += [np.array(row, dtype=np.uint32) for row in tokenizer.encode_batch(batch[first:stop])]
        first = stop
    at = 0
    for count in counts:
        yield ids[at] if count == 1 else np.concatenate(ids[at : at + count])
        at += count
