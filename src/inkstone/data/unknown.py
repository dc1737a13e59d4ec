"""Characters that a tokenizer does not have: how many of a split's tokens stand for one, whose text is lost."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from inkstone.data.shards import TokenSplit
    from inkstone.text.tokenizer import Tokenizer

_CHUNK_TOKENS = 1 << 20


def count_unknown(split: "TokenSplit", tokenizer: "Tokenizer") -> tuple[int, int]:
    """Return how many tokens stand for an unknown character, and the place of the first (-1: there is none)."""
    unknown = tokenizer.unknown_id
    count, first = 0, -1
    if unknown is None:
        return count, first
    for begin in range(0, split.num_tokens, _CHUNK_TOKENS):
        found = np.flatnonzero(split.read(begin, min(begin + _CHUNK_TOKENS, split.num_tokens)) == unknown)
        if found.size and first < 0:
            first = begin + int(found[0])
        count += int(found.size)
    return count, first
