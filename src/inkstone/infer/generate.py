"""One request from prompt to text: prefill, then a token at a time with the cache, streamed as whole characters."""

import dataclasses
import secrets
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch

from inkstone.infer.config import SamplingSettings
from inkstone.infer.draw import Sampler
from inkstone.infer.prompt import check_length, silent_ids, stop_ids
from inkstone.infer.sampling import BANNED, History
from inkstone.text.stops import StopMatcher
from inkstone.text.stream import TextStream

if TYPE_CHECKING:
    from inkstone.nn.transformer import Transformer
    from inkstone.text.tokenizer import Tokenizer

FinishReason = Literal["stop", "length", "cancelled"]
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


class Decoder:
    """One sequence inside a model: `next_id` returns the token at the next position, as long as `is_full` is false.

    The draw depends on (seed, position) and the logits alone, so that other sequences could share the batch.
    """

    def __init__(
        self,
        model: "Transformer",
        prompt_ids: list[int],
        settings: SamplingSettings,
        *,
        seed: int,
        vocab_size: int,
        banned: list[int],
    ) -> None:
        context = model.config.context
        check_length(prompt_ids, context)
        device = next(model.parameters()).device
        capacity = min(context, len(prompt_ids) + settings.max_tokens)
        self._model, self._seed, self._capacity, self._vocab_size = model, seed, capacity, vocab_size
        self._sample = Sampler(settings)
        self._banned = torch.tensor(banned, dtype=torch.int64, device=device)
        self._cache = model.new_cache(1, capacity)
        self._unread_BT = torch.tensor([prompt_ids], dtype=torch.int64, device=device)  # drawn or given, not yet in the cache
        self._history = History(
            tokens=torch.zeros(1, capacity + 1, dtype=torch.int64, device=device),
            length=torch.full((1,), len(prompt_ids), dtype=torch.int64, device=device),
            prompt_length=torch.full((1,), len(prompt_ids), dtype=torch.int64, device=device),
        )
        self._history.tokens[0, : len(prompt_ids)] = self._unread_BT[0]
        self._length = len(prompt_ids)

    @property
    def is_full(self) -> bool:
        """Whether the newest token no longer fits into the context, so that nothing can follow it."""
        return self._length > self._capacity

    @torch.inference_mode()
    def next_id(self) -> int:
        """Return the next token and remember it. Raises: CheckpointError when the logits are not finite."""
        hidden_BTD = self._model(self._unread_BT, cache=self._cache)
        logits_BV = self._model.logits(hidden_BTD[:, -1])[:, : self._vocab_size]
        if len(self._banned):
            logits_BV.index_fill_(1, self._banned, BANNED)
        token_B = self._sample(logits_BV, self._history, [self._seed], [self._length])
        self._unread_BT = token_B[:, None]
        if self._sample.needs_history:
            self._history.tokens[:, self._length] = token_B
            self._history.length.add_(1)
        self._length += 1
        return int(token_B)


class Reply:
    """The text that follows a prompt: iterate to get it piece by piece, then ask `result`.

    Pieces are whole characters, and never the beginning of a stop string; together they are `result().text`.
    """

    def __init__(self, model: "Transformer", tokenizer: "Tokenizer", prompt_ids: list[int], settings: SamplingSettings) -> None:
        self.seed = secrets.randbits(_SEED_BITS) if settings.seed is None else settings.seed
        self._ends = stop_ids(tokenizer)
        self._decoder = Decoder(
            model, prompt_ids, settings, seed=self.seed, vocab_size=tokenizer.vocab_size, banned=silent_ids(tokenizer, self._ends),
        )  # fmt: skip
        self._prompt_tokens, self._max_tokens = len(prompt_ids), settings.max_tokens
        self._stream, self._matcher = TextStream(tokenizer), StopMatcher(settings.stop or [])
        self._pieces: list[str] = []
        self._tokens = 0
        self._started = self._first_at = self._newest_at = 0.0  # seconds
        self._finish: FinishReason = "cancelled"
        self._iterator = self._draw_pieces()

    def __iter__(self) -> Iterator[str]:
        """Return the pieces; leaving early is a cancellation, and `result` then holds what was yielded."""
        return self._iterator

    def result(self) -> Generation:
        """Return the text so far, with its figures."""
        if self._tokens > 1:
            num_timed, seconds = self._tokens - 1, self._newest_at - self._first_at
        else:
            num_timed, seconds = self._tokens, self._newest_at - self._started
        return Generation(
            text="".join(self._pieces), tokens=self._tokens, finish_reason=self._finish, prompt_tokens=self._prompt_tokens,
            tokens_per_second=num_timed / seconds if seconds > 0 else 0.0, seed=self.seed,
        )  # fmt: skip

    def finish(self) -> Generation:
        """Draw whatever remains and return the whole. Raises: CheckpointError when the model's scores are not finite."""
        for _ in self:
            pass
        return self.result()

    def _draw_pieces(self) -> Iterator[str]:
        self._started = time.perf_counter()
        for piece in self._follow():
            if piece:
                self._pieces.append(piece)
                yield piece

    def _next_id(self) -> int:
        token = self._decoder.next_id()
        self._tokens += 1
        self._newest_at = time.perf_counter()
        if self._tokens == 1:
            self._first_at = self._newest_at
        return token

    def _follow(self) -> Iterator[str]:
        """Yield the text of one token after the other; empty where a character or a stop string may still be completed."""
        while self._tokens < self._max_tokens and not self._decoder.is_full:
            token = self._next_id()
            if token in self._ends:
                self._finish = "stop"
                break
            piece, stopped = self._matcher.push(self._stream.push(token))
            if stopped:
                self._finish = "stop"
                yield piece
                return
            yield piece
        else:
            self._finish = "length"
        yield self._held_back()

    def _held_back(self) -> str:
        """Return what the stream and the matcher still hold; it may complete a stop string."""
        piece, stopped = self._matcher.push(self._stream.flush())
        if stopped:
            self._finish = "stop"
            return piece
        return piece + self._matcher.flush()
