"""Which text is for training and which for validation.

"document": whole documents, chosen by their hash and the seed, so that a document stays on its side when others come and go.
"ends": the end of every document, from a line's beginning where one is near. "tail": exactly the last characters of everything.
"auto": "document" when there are enough and none is large, else "ends".
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from inkstone.base.errors import ConfigError, DataError
from inkstone.data.dedup import hash_share
from inkstone.data.spool import Content, Spool

MIN_DOCUMENTS = 50
MAX_DOCUMENT_SHARE = 0.1
_SENTENCE_ENDS = ("。", "！", "？", ". ", "! ", "? ")


@dataclass(frozen=True)
class SplitPlan:
    """Where each document goes: its first `train_chars` characters to train, the rest to val (either may be nothing).

    Shapes: train_chars, chars (documents,) int64; kept (documents,) bool. `by_line` moves a cut to the beginning of a line nearby.
    """

    mode: str
    kept: np.ndarray
    chars: np.ndarray
    train_chars: np.ndarray
    by_line: bool

    def wanted(self, split: str) -> np.ndarray:
        """Return which documents have text in "train" or "val". Shapes: (documents,) bool."""
        return self.kept & ((self.train_chars > 0) if split == "train" else (self.train_chars < self.chars))

    def part(self, number: int, content: Content, split: str) -> Iterator[Content]:
        """Yield the document's share of the split, if it has one."""
        cut = int(self.train_chars[number])
        if cut in (0, int(self.chars[number])) or not isinstance(content, str):
            yield content
            return
        if self.by_line:
            cut = _cut_near(content, cut)
        piece = content[:cut] if split == "train" else content[cut:]
        if piece:
            yield piece


def plan_split(
    chars: np.ndarray, kept: np.ndarray, table: np.ndarray, *, mode: str, val_fraction: float, seed: int, has_chats: bool
) -> SplitPlan:
    """Return the plan for documents of `chars` characters with hashes `table`, of which `kept` stay.

    Raises: DataError when there is too little text for two splits; ConfigError for a cut through chats.
    """
    count, total = int(kept.sum()), int(chars[kept].sum())
    if mode == "auto":
        many = count >= MIN_DOCUMENTS and int(chars[kept].max()) <= MAX_DOCUMENT_SHARE * total
        mode = "document" if many or has_chats else "ends"
    if has_chats and mode != "document":
        raise ConfigError(f"--split {mode} would cut through a conversation — use --split document")
    if (mode == "document" and count < 2) or total < 2:
        found = f"{count} document{'s' * (count != 1)} with {total:,} characters"
        raise DataError(f"found {found}, which cannot be divided into training and validation — give more text or another --split")
    if mode == "document":
        train = np.where(_val_documents(table, kept, val_fraction, seed), 0, chars)
    elif mode == "tail":
        cut = min(max(1, int(total * (1 - val_fraction))), total - 1)
        before = np.cumsum(np.where(kept, chars, 0)) - np.where(kept, chars, 0)
        train = np.clip(cut - before, 0, chars)
    else:
        train = np.maximum(1, (chars * (1 - val_fraction)).astype(np.int64))
    plan = SplitPlan(mode, kept, chars, train, by_line=mode == "ends")
    _require_both(plan, val_fraction)
    return plan


def read_split(spool: Spool, plan: SplitPlan, split: str) -> Iterator[Content]:
    """Yield the contents of one split, in order."""
    for number, content in spool.read(plan.wanted(split)):
        yield from plan.part(number, content, split)


def _val_documents(table: np.ndarray, kept: np.ndarray, val_fraction: float, seed: int) -> np.ndarray:
    share = np.where(kept, hash_share(table, seed), np.nan)
    chosen = kept & (share < val_fraction)
    if not chosen.any():
        chosen[np.nanargmin(share)] = True
    if (chosen == kept).all():
        chosen[np.nanargmax(share)] = False
    return chosen


def _require_both(plan: SplitPlan, val_fraction: float) -> None:
    total = int(plan.chars[plan.kept].sum())
    train = int(plan.train_chars[plan.kept].sum())
    if 0 < train < total:
        return
    empty = "validation" if train else "training"
    raise DataError(
        f"--split {plan.mode} leaves 0 of {total:,} characters ({int(plan.kept.sum()):,} documents, the longest of "
        f"{int(plan.chars[plan.kept].max()):,}) for {empty} at --val-fraction {val_fraction:g} — give more text, another --split "
        "or a larger share"
    )


def _cut_near(text: str, cut: int) -> int:
    """Return the nearest good cut: at a line's beginning, else after a sentence, else `cut` itself.

    The validation part, all after the cut, at most doubles and at least halves, so that one long line cannot turn the split over.
    """
    size = len(text) - cut
    low, high = max(1, cut - size), cut + size // 2
    before = text.rfind("\n", low - 1, cut) + 1
    if before:
        return before
    after = text.find("\n", cut, high) + 1
    if after:
        return after
    ends = [at + len(mark) for mark in _SENTENCE_ENDS if (at := text.rfind(mark, low, cut - len(mark) + 1)) >= 0]
    return max(ends, default=cut)
