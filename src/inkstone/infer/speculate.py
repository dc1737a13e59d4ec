"""Guesses at what comes next, which one pass of the model checks together: the text stays the same, only sooner.

The engine draws the real token at each guessed position with that position's own random number, and keeps guesses as long as they
are what was drawn. So a guess can cost time, never a word.
"""

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from inkstone.base.errors import ConfigError
from inkstone.infer.choose import Chooser, Row
from inkstone.infer.runner import Runner
from inkstone.infer.sequence import LiveSequence

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

MAX_GUESSES = 8
FIRST_GUESSES = 2
_MAX_ROWS = 32  # of all sequences in one pass: with more, products are what takes the time, and wrong guesses slow everybody down
_FEW = 8  # unread tokens that may be rows of a decode; more are read like a prompt
_LONGEST, _SHORTEST = 4, 2  # tokens that must agree: fewer agree by chance


class Speculator(Protocol):
    """Proposes tokens; it is asked once a step, for all sequences that may speculate."""

    def propose(self, sequences: Sequence[LiveSequence], room: Sequence[int]) -> list[Sequence[int]]:
        """Return for each sequence what may follow its ids: as many tokens as it likes, of which `room` can be used."""


class PromptLookup:
    """Guesses that a run of tokens which stood in prompt or text before goes on as it did there."""

    def __init__(self, num_guesses: int = MAX_GUESSES) -> None:
        self._num_guesses = num_guesses

    def propose(self, sequences: Sequence[LiveSequence], room: Sequence[int]) -> list[Sequence[int]]:
        """Return the continuation of the newest earlier occurrence of each sequence's end."""
        return [look_up(s.ids, min(self._num_guesses, most)) for s, most in zip(sequences, room, strict=True)]


class DraftModel:
    """Guesses what a smaller model with the same tokenizer would draw with the same random numbers, so that the two often agree.

    It owns a runner, whose slot i follows the engine's slot i.
    """

    def __init__(self, runner: Runner, tokenizer: "Tokenizer", num_guesses: int = MAX_GUESSES) -> None:
        """Raises: ConfigError when the model does not have all tokens of the tokenizer."""
        if runner.vocab_size < tokenizer.vocab_size:
            raise ConfigError(
                f"the draft model has {runner.vocab_size:,} tokens and the tokenizer {tokenizer.vocab_size:,} - "
                "choose one that was trained with the same tokenizer"
            )
        self._runner, self._chooser, self._num_guesses = runner, Chooser(tokenizer), num_guesses
        self._written = [array("q") for _ in range(runner.num_slots)]  # what stands in each slot of the draft

    @torch.inference_mode()
    def propose(self, sequences: Sequence[LiveSequence], room: Sequence[int]) -> list[Sequence[int]]:
        """Return the draft's continuations, drawn for all sequences together, a token at a time."""
        guesses: list[list[int]] = [[] for _ in sequences]
        space = [
            min(self._num_guesses, most, self._runner.max_tokens - len(s.ids) + 1) for s, most in zip(sequences, room, strict=True)
        ]
        while active := [i for i, most in enumerate(space) if len(guesses[i]) < most]:
            drawn = self._draw([sequences[i] for i in active], [guesses[i] for i in active])
            for i, token in zip(active, drawn, strict=True):
                if isinstance(token, Exception):
                    space[i] = 0  # its own row failed: no further guess
                else:
                    guesses[i].append(token)
        return list(guesses)

    def _draw(self, sequences: list[LiveSequence], guesses: list[list[int]]) -> list[int | Exception]:
        """Return the draft's next token of each sequence, after reading what it has not read of ids and guesses."""
        ids, slots, positions, last = list[int](), list[int](), list[int](), list[int]()
        for sequence, guess in zip(sequences, guesses, strict=True):
            unread, start = self._catch_up(sequence.slot, sequence.ids + array("q", guess))
            ids += unread
            slots += [sequence.slot] * len(unread)
            positions += range(start, start + len(unread))
            last.append(len(ids) - 1)
        hidden_RD = self._runner.decode(ids, slots, positions)[last]
        rows = [Row(sequence, tuple(guess)) for sequence, guess in zip(sequences, guesses, strict=True)]
        return self._chooser.draw(self._runner.logits(hidden_RD), rows)

    def _catch_up(self, slot: int, ids: "array[int]") -> tuple[list[int], int]:
        """Return (the few last tokens that are still to be read, their first position) after reading those before them."""
        start = min(_num_common(self._written[slot], ids), len(ids) - 1)
        self._written[slot] = ids[:start]  # a failure below leaves no more than this
        while len(ids) - start > _FEW:
            chunk = ids[start : min(start + self._runner.chunk_tokens, len(ids) - 1)]
            self._runner.prefill(slot, chunk.tolist(), start)
            start += len(chunk)
        self._written[slot] = ids
        return ids[start:].tolist(), start


def share_room(room: Sequence[int], patience: Sequence[int]) -> list[int]:
    """Return how many guesses each sequence may make: no more than it has room and patience for, nor than the pass has rows.

    >>> share_room([100, 3, 100], [8, 8, 1])
    [8, 3, 1]
    >>> share_room([100] * 16, [8] * 16)[0]
    1
    """
    most = max(0, _MAX_ROWS // len(room) - 1)
    return [min(most, left, some) for left, some in zip(room, patience, strict=True)]


def next_patience(num_guessed: int, num_right: int) -> int:
    """Return how many guesses to make next: twice as many when all were right, else one more than were.

    >>> [next_patience(2, 2), next_patience(8, 3), next_patience(8, 0)]
    [4, 4, 1]
    """
    return 2 * num_guessed if num_right == num_guessed else num_right + 1


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


def _num_common(some: "array[int]", other: "array[int]") -> int:
    """Return how many tokens two lists begin with in common."""
    num = min(len(some), len(other))
    differs = np.nonzero(np.array(some[:num]) != np.array(other[:num]))[0]
    return int(differs[0]) if len(differs) else num
