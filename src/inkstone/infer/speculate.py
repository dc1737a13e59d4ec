"""Guesses at what comes next, which one pass of the model checks together: the text stays the same, only sooner.

The engine draws the real token at each guessed position with that position's own random number, and keeps guesses as long as they
are what was drawn. So a guess can cost time, never a word.
"""

from array import array
from collections.abc import Sequence
from typing import Protocol

from inkstone.infer.sequence import LiveSequence

NUM_GUESSES = 8
_LONGEST, _SHORTEST = 4, 2  # tokens that must agree: fewer agree by chance


class Speculator(Protocol):
    """Proposes tokens; it is asked once a step, for all sequences that may speculate."""

    def propose(self, sequences: Sequence[LiveSequence], room: Sequence[int]) -> list[Sequence[int]]:
        """Return for each sequence what may follow its ids: as many tokens as it likes, of which `room` can be used."""


class PromptLookup:
    """Guesses that a run of tokens which stood in prompt or text before goes on as it did there."""

    def __init__(self, num_guesses: int = NUM_GUESSES) -> None:
        self._num_guesses = num_guesses

    def propose(self, sequences: Sequence[LiveSequence], room: Sequence[int]) -> list[Sequence[int]]:
        """Return the continuation of the newest earlier occurrence of each sequence's end."""
        return [look_up(s.ids, min(self._num_guesses, most)) for s, most in zip(sequences, room, strict=True)]


def look_up(ids: "array[int]", num: int, *, longest: int = _LONGEST, shortest: int = _SHORTEST) -> list[int]:
    """Return the `num` tokens that followed the last `longest` ids where these stood before; shorter runs serve where those did not.

    Where fewer followed, the text repeats itself with that period, and so does the guess. Nothing where even `shortest` is new.

    >>> look_up(array("q", [1, 2, 3, 4, 5, 1, 2]), 3)
    [3, 4, 5]
    >>> look_up(array("q", [7, 7, 7]), 4)
    [7, 7, 7, 7]
    """
    if num <= 0:
        return []
    text = ids.tobytes()
    for size in range(min(longest, len(ids) - 1), shortest - 1, -1):
        start = _find_last(text, text[-size * ids.itemsize :], ids.itemsize)
        if start >= 0:
            period = ids[start + size :].tolist()
            return [period[i % len(period)] for i in range(num)]
    return []


def _find_last(text: bytes, end: bytes, width: int) -> int:
    """Return the index, in items of `width` bytes, of the last occurrence of `end` before the one that ends the text, or -1."""
    at = len(text) - 1
    while (at := text.rfind(end, 0, at)) >= 0:
        if at % width == 0:
            return at // width
        at += len(end) - 1
    return -1
