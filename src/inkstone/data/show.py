"""Documents of a prepared split as text again."""

from typing import TYPE_CHECKING

import numpy as np

from inkstone.data.shards import TokenSplit

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

_SHOWN_TOKENS = 200


def sample_documents(split: TokenSplit, tokenizer: "Tokenizer", count: int) -> list[str]:
    """Return the beginnings of `count` documents, evenly spread over the split; a cut one ends in an ellipsis."""
    ends = np.append(split.document_starts[1:], split.num_tokens)
    chosen = np.unique(np.linspace(0, split.num_documents - 1, min(count, split.num_documents), dtype=np.int64))
    texts = []
    for number in chosen if split.num_documents else []:
        start, end = int(split.document_starts[number]), int(ends[number]) - 1
        stop = min(end, start + _SHOWN_TOKENS)
        text = tokenizer.decode(split.read(start, stop).tolist()).rstrip("\ufffd")
        texts.append(text if stop == end else text + "…")
    return texts
