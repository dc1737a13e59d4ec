"""Packing: which pieces of which documents lie in which row, from their lengths alone."""

from bisect import bisect_left, insort
from collections.abc import Sequence

Piece = tuple[int, int, int]


def pack_rows(lengths: Sequence[int], capacity: int) -> list[list[Piece]]:
    """Return rows of (document, start, length) pieces, each row at most `capacity` long, every token in exactly one piece.

    A document longer than a row is cut into full rows and a rest; whole documents and rests are placed longest first into the row
    with the least sufficient space (best fit). Deterministic; documents of length 0 are in no row. Units: tokens.

    >>> pack_rows([3, 5, 2], capacity=5)
    [[(1, 0, 5)], [(0, 0, 3), (2, 0, 2)]]
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, found {capacity}")
    rows: list[list[Piece]] = []
    rests: list[Piece] = []
    for document, length in enumerate(lengths):
        full = length // capacity
        rows += [[(document, i * capacity, capacity)] for i in range(full)]
        if length % capacity:
            rests.append((document, full * capacity, length % capacity))
    rests.sort(key=lambda piece: (-piece[2], piece[0]))
    return rows + _best_fit(rests, capacity)


def _best_fit(pieces: list[Piece], capacity: int) -> list[list[Piece]]:
    """Place pieces in their order; `spaces` lists the distinct free spaces, `by_space` the rows that have each of them."""
    rows: list[list[Piece]] = []
    spaces: list[int] = []
    by_space: dict[int, list[int]] = {}
    for piece in pieces:
        at = bisect_left(spaces, piece[2])
        if at == len(spaces):
            row, space = len(rows), capacity
            rows.append([])
        else:
            space = spaces[at]
            row = by_space[space].pop()
            if not by_space[space]:
                del by_space[space], spaces[at]
        rows[row].append(piece)
        left = space - piece[2]
        if left:
            if left not in by_space:
                insort(spaces, left)
            by_space.setdefault(left, []).append(row)
    return rows
