"""From an engine's pieces to what is new in a text. A whole reply and a stream are made by this same code: a reply is the sum of its deltas."""

import codecs
import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inkstone.infer.prompt import stop_ids
from inkstone.infer.request import Piece, TokenLogprob, Usage

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class ScoredToken:
    """A token of a reply; `logprob` is None for a prompt's first, `offset` its place in the text, in characters."""

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]
    offset: int


@dataclasses.dataclass(frozen=True)
class Delta:
    """What one piece adds to a choice."""

    text: str = ""
    tokens: tuple[ScoredToken, ...] = ()
    finish: str | None = None


def join(deltas: Sequence[Delta]) -> Delta:
    """Return what several deltas of one choice add together."""
    if len(deltas) == 1:
        return deltas[0]
    tokens = tuple(token for delta in deltas for token in delta.tokens)
    finishes = [delta.finish for delta in deltas if delta.finish is not None]
    return Delta("".join([delta.text for delta in deltas]), tokens, finishes[0] if finishes else None)


@dataclasses.dataclass(frozen=True)
class Echo:
    """A prompt that is to stand before its text."""

    text: str
    ids: tuple[int, ...]


class ChoiceText:
    """Guards the state of one choice: `push` turns a piece into what is new in the text.

    A token is told with the first character that it is part of, so that none is told that a stop string took away. `mean_logprob` is
    that of the tokens drawn so far, for which the engine must have been asked.
    """

    def __init__(self, tokenizer: "Tokenizer", *, is_scored: bool, echo: Echo | None = None, is_empty: bool = False) -> None:
        """`is_empty`: the one token that was drawn is not wanted (max_tokens 0)."""
        self._tokenizer, self._ends = tokenizer, stop_ids(tokenizer)
        self._is_scored, self._echo, self._is_empty = is_scored, echo, is_empty
        self._offsets = _Offsets(tokenizer)
        self._held: deque[tuple[int, TokenLogprob]] = deque()  # with the byte of the text at which each begins
        self._drawn_bytes = self._said_bytes = 0
        self._logprob_sum, self._num_drawn, self._newest = 0.0, 0, -1
        self.usage: Usage | None = None

    @property
    def mean_logprob(self) -> float:
        """Nats a token."""
        return self._logprob_sum / max(1, self._num_drawn)

    def push(self, piece: Piece) -> Delta:
        """Return what is new."""
        if piece.usage is not None:
            self.usage = dataclasses.replace(piece.usage, completion_tokens=0) if self._is_empty else piece.usage
        text, tokens = self._open()
        if self._is_scored:
            tokens += [self._score(token) for token in piece.prompt_tokens]
        if self._is_empty:
            return Delta(text, tuple(tokens), "length" if piece.finish else None)
        if self._is_scored and not self._num_drawn and piece.tokens:
            self._offsets.begin_text()
        self._take(piece)
        return Delta(text + piece.text, (*tokens, *self._release(piece)), piece.finish)

    def _open(self) -> tuple[str, list[ScoredToken]]:
        """Return the echo, once."""
        echo, self._echo = self._echo, None
        if echo is None:
            return "", []
        first = [ScoredToken(echo.ids[0], None, (), self._offsets.next(echo.ids[0]))] if self._is_scored else []
        return echo.text, first

    def _take(self, piece: Piece) -> None:
        for token in piece.tokens:
            self._newest = token.token_id
            self._num_drawn += 1
            self._logprob_sum += token.logprob
            if self._is_scored:
                self._held.append((self._drawn_bytes, token))
                self._drawn_bytes += len(self._tokenizer.bytes_of(token.token_id))
        if self._is_scored:
            self._said_bytes += len(piece.text.encode())

    def _release(self, piece: Piece) -> list[ScoredToken]:
        """Return the tokens of which something was said; at the end all, but for the end token and what a stop string took away."""
        was_cut = piece.finish == "stop" and self._newest not in self._ends
        is_all_said = piece.finish is not None and not was_cut
        released = []
        while self._held and (is_all_said or self._held[0][0] < self._said_bytes):
            token = self._held.popleft()[1]
            if not (piece.finish == "stop" and not self._held and token.token_id in self._ends):
                released.append(self._score(token))
        return released

    def _score(self, token: TokenLogprob) -> ScoredToken:
        return ScoredToken(token.token_id, token.logprob, token.top, self._offsets.next(token.token_id))


class _Offsets:
    """Where each token begins in the text, in whole characters."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer, self._num_characters = tokenizer, 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def next(self, token_id: int) -> int:
        begin = self._num_characters
        self._num_characters += len(self._decoder.decode(self._tokenizer.bytes_of(token_id)))
        return begin

    def begin_text(self) -> None:
        """A prompt may end inside a character, which the text behind it does not complete."""
        self._num_characters += len(self._decoder.decode(b"", final=True))
        self._decoder.reset()
