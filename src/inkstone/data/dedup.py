"""Exact deduplication by 128-bit hashes: 16 bytes a document, sorted instead of kept in a set (which takes five times as much)."""

from array import array

import numpy as np
import xxhash

from inkstone.base.seeds import derive_seed

_HALF = (1 << 64) - 1


class Digests:
    """The hashes of all documents, in order."""

    def __init__(self) -> None:
        self._words = array("Q")

    def add(self, content: bytes) -> None:
        """Hash one document's content (xxh3-128)."""
        value = xxhash.xxh3_128_intdigest(content)
        self._words.append(value >> 64)
        self._words.append(value & _HALF)

    def __len__(self) -> int:
        return len(self._words) // 2

    def table(self) -> np.ndarray:
        """Return the hashes. Shapes: (documents, 2) uint64."""
        return np.array(self._words, dtype=np.uint64).reshape(-1, 2)


def first_rows(table: np.ndarray) -> np.ndarray:
    """Return for each row the number of the first row with its value. Shapes: (N, 2) uint64 → (N,) int64.

    >>> first_rows(np.array([[7, 1], [7, 2], [7, 1]], dtype=np.uint64)).tolist()
    [0, 1, 0]
    """
    order = np.lexsort((table[:, 1], table[:, 0]))  # stable, so that equal rows keep their order
    ranked = table[order]
    new = np.ones(len(table), dtype=bool)
    new[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    first = np.empty(len(table), dtype=np.int64)
    first[order] = order[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return first


def hash_share(table: np.ndarray, seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each row that depends on its value and the seed only. Shapes: (N, 2) uint64 → (N,) float64."""
    x = table[:, 0] ^ np.uint64(derive_seed(seed, "split"))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # the finalizer of splitmix64
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x ^ (x >> np.uint64(31))).astype(np.float64) / 2.0**64
