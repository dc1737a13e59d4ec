"""One text from prompt to end, streamed as whole characters: a request to an engine, told as an iterator."""

import dataclasses
import secrets
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from inkstone.infer.config import SamplingSettings
from inkstone.infer.engine import Engine
from inkstone.infer.prompt import check_length
from inkstone.infer.request import Constraint, FinishReason, Piece, Request
from inkstone.infer.runners import make_runner

if TYPE_CHECKING:
    from inkstone.nn.transformer import Transformer
    from inkstone.text.tokenizer import Tokenizer

_SEED_BITS = 31  # of a seed that nobody gave: short enough to type again


@dataclasses.dataclass(frozen=True)
class Generation:
    """A finished text.

    `tokens` counts what was drawn, the end token included; `tokens_per_second` is the decoding rate, without the prefill.
    `finish_reason`: "stop" (end token or stop string), "length" (max_tokens, or the context is full), "cancelled" (by the caller).
    """

    text: str
    tokens: int
    finish_reason: FinishReason
    prompt_tokens: int
    tokens_per_second: float
    seed: int


class Reply:
    """The text that follows a prompt: iterate to get it piece by piece, then ask `result`.

    Pieces are whole characters, and never the beginning of a stop string; together they are `result().text`.
    """

    def __init__(
        self, model: "Transformer", tokenizer: "Tokenizer", prompt_ids: list[int], settings: SamplingSettings, *,
        engine: Engine | None = None, constraint: Constraint | None = None,
    ) -> None:  # fmt: skip
        """`engine`: one that serves this model already; None makes one for this reply alone. Raises: RequestError."""
        check_length(prompt_ids, model.config.context)
        engine = engine or make_engine(model, tokenizer, num_tokens=len(prompt_ids) + settings.max_tokens)
        self.seed = secrets.randbits(_SEED_BITS) if settings.seed is None else settings.seed
        self._request = Request(prompt_ids=tuple(prompt_ids), settings=settings, seed=self.seed, constraint=constraint)
        engine.check(self._request)
        self._told = _Told()
        self._iterator = _follow(engine, self._request, self._told)

    def __iter__(self) -> Iterator[str]:
        """Return the pieces; leaving early is a cancellation, and `result` then holds what was yielded."""
        return self._iterator

    def result(self) -> Generation:
        """Return the text so far, with its figures."""
        told = self._told
        return Generation(
            text="".join(told.pieces), tokens=told.tokens, finish_reason=told.finish, prompt_tokens=len(self._request.prompt_ids),
            tokens_per_second=told.tokens_per_second, seed=self.seed,
        )  # fmt: skip

    def finish(self) -> Generation:
        """Draw whatever remains and return the whole. Raises: CheckpointError when the model's scores are not finite."""
        for _ in self:
            pass
        return self.result()


@dataclasses.dataclass
class _Told:
    """What was heard of a text until now."""

    pieces: list[str] = dataclasses.field(default_factory=list)
    tokens: int = 0
    finish: FinishReason = "cancelled"
    started: float = 0.0  # seconds, as what follows
    first_at: float = 0.0
    newest_at: float = 0.0
    first_tokens: int = 0

    def note(self, piece: Piece) -> None:
        """Take over what a piece says."""
        self.newest_at = time.perf_counter()
        if self.tokens == 0:
            self.first_at, self.first_tokens = self.newest_at, len(piece.tokens)
        self.tokens += len(piece.tokens)
        self.finish = piece.finish or "cancelled"
        if piece.text:
            self.pieces.append(piece.text)

    @property
    def tokens_per_second(self) -> float:
        """The rate behind the first piece, or that of all where there was but one."""
        num, seconds = self.tokens - self.first_tokens, self.newest_at - self.first_at
        if num == 0:
            num, seconds = self.tokens, self.newest_at - self.started
        return num / seconds if seconds > 0 else 0.0


def _follow(engine: Engine, request: Request, told: _Told) -> Iterator[str]:
    """Yield the text of one request. It knows no Reply, so that one that nobody holds any more ends at once and frees its slot."""
    heard: deque[Piece] = deque()
    told.started = time.perf_counter()
    ticket = engine.submit(request, heard.append)
    try:
        while True:
            while not heard:
                engine.step()
            piece = heard.popleft()
            told.note(piece)
            if piece.text:
                yield piece.text
            if piece.error is not None:
                raise piece.error
            if piece.is_last:
                return
    finally:
        ticket.cancel()


def make_engine(model: "Transformer", tokenizer: "Tokenizer", *, num_tokens: int, num_slots: int = 1) -> Engine:
    """Return an engine whose sequences may have `num_tokens` tokens, prompt and text, as far as the model's context allows."""
    runner = make_runner(model, num_slots=num_slots, max_tokens=min(model.config.context, num_tokens))
    return Engine(runner, tokenizer, max_waiting=2**20)
