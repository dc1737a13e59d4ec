"""The tokenizer of a corpus: made from a bounded sample of its training text."""

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from inkstone.base.log import say, warn
from inkstone.base.quantity import format_bytes
from inkstone.base.seeds import derive_seed
from inkstone.data.config import PrepareSettings
from inkstone.data.cutting import cut_text
from inkstone.data.encode import PIECE_CHARS
from inkstone.data.splitting import SplitPlan, read_split
from inkstone.data.spool import Spool, text_of

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

MIN_TRAINED_VOCAB = 512
BYTES_PER_VOCAB_ENTRY = 64  # with less text for each id, most merges are seen a handful of times and waste the embedding


def fit_tokenizer(spool: Spool, plan: SplitPlan, num_bytes: int, settings: PrepareSettings) -> "Tokenizer":
    """Return a tokenizer for the spooled text: of characters (all of them, validation included), or BPE from a sample of the training text.

    A vocabulary size that was not asked for is scaled down with a warning when there is little text.
    """
    from inkstone.text.tokenizer import build_char, train_bpe

    if settings.tokenizer == "char":
        return build_char(text_of(content) for _, content in spool.read(plan.kept))
    share = min(1.0, settings.sample_bytes / num_bytes)
    vocab_size, text_bytes = settings.vocab_size, int(share * num_bytes)
    small = max(MIN_TRAINED_VOCAB, text_bytes // BYTES_PER_VOCAB_ENTRY // 64 * 64)
    if "vocab_size" not in settings.model_fields_set and small < vocab_size:
        warn(
            f"{format_bytes(text_bytes)} is little text: the tokenizer gets {small:,} ids, not {vocab_size:,} (--vocab-size sets it)"
        )
        vocab_size = small
    say(f"training the tokenizer on {format_bytes(text_bytes)}")
    return train_bpe(_sample(spool, plan, share, settings), vocab_size)


def _sample(spool: Spool, plan: SplitPlan, share: float, settings: PrepareSettings) -> Iterator[str]:
    """Yield a seeded share of the training text in small pieces, at most `sample_bytes`."""
    rng = random.Random(derive_seed(settings.seed, "tokenizer sample"))  # noqa: S311 - not for secrets
    left = settings.sample_bytes
    for content in read_split(spool, plan, "train"):
        for piece in cut_text(text_of(content), PIECE_CHARS):
            if share < 1.0 and rng.random() >= share:
                continue
            left -= len(piece.encode())
            if left < 0:
                return
            yield piece
