"""The text of a split as bytes again, for what measures bytes: compressors and n-gram models."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from inkstone.data.shards import TokenSplit
    from inkstone.text.tokenizer import Tokenizer

NUM_PIECES = 64
_CHUNK_TOKENS = 1 << 20


def scored_bytes(split: "TokenSplit", tokenizer: "Tokenizer", *, max_tokens: int = 0) -> bytes:
    """Return the bytes of the targets that validation scores: all but the first token, less those that a loss mask leaves out."""
    last = min(split.num_tokens, max_tokens + 1) if max_tokens else split.num_tokens
    return _bytes_between(split, tokenizer, 1, max(1, last))


def sampled_bytes(split: "TokenSplit", tokenizer: "Tokenizer", most: int) -> bytes:
    """Return the split's bytes, or about `most` of them as even pieces from all over it, without reading the rest."""
    if split.num_bytes <= most:
        return _bytes_between(split, tokenizer, 0, split.num_tokens)
    size = max(1, int(split.num_tokens * most / split.num_bytes) // NUM_PIECES)
    starts = [piece * (split.num_tokens - size) // (NUM_PIECES - 1) for piece in range(NUM_PIECES)]
    return b"".join(_bytes_between(split, tokenizer, start, start + size) for start in starts)[:most]


def _bytes_between(split: "TokenSplit", tokenizer: "Tokenizer", start: int, stop: int) -> bytes:
    of_id = np.array(tokenizer.token_bytes, dtype=object)
    pieces = []
    for begin in range(start, min(stop, split.num_tokens), _CHUNK_TOKENS):
        end = min(begin + _CHUNK_TOKENS, stop, split.num_tokens)
        ids, mask = split.read(begin, end), split.read_mask(begin, end)
        pieces.append(b"".join(of_id[ids if mask is None else ids[mask != 0]].tolist()))
    return b"".join(pieces)
