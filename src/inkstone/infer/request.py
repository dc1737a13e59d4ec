"""What is asked of the engine and what comes back: one sequence, no threads, no sockets."""

import dataclasses
from collections.abc import Callable
from typing import Literal, Protocol

from torch import Tensor

from inkstone.infer.config import SamplingSettings

FinishReason = Literal["stop", "length", "cancelled"]


@dataclasses.dataclass(frozen=True)
class TokenLogprob:
    """A token with its log-probability in nats under the model's own distribution: temperature 1, before any sampling rule.

    `top` holds the likeliest tokens at that position as (id, nats), best first; empty where none were asked for.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Constraint(Protocol):
    """What a text must look like, a token at a time; one object belongs to one sequence."""

    def allowed(self) -> Tensor:
        """Return (V,) bool of the tokens that may come next. Not empty: where the text may end, an end token is among them."""

    def advance(self, token_id: int) -> None:
        """Remember that this token was drawn."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One sequence to continue. `prompt_ids` has 1 to `context` tokens; `seed` decides every draw together with the position.

    `top_logprobs`: None = no log-probabilities, k = those of the drawn token and of the k likeliest. `prompt_logprobs` asks for those
    of the prompt's tokens too (all but the first), before the first piece. `ignore_end` goes on behind an end token (for benchmarks).
    """

    prompt_ids: tuple[int, ...]
    settings: SamplingSettings
    seed: int
    top_logprobs: int | None = None
    prompt_logprobs: bool = False
    constraint: Constraint | None = None
    ignore_end: bool = False


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a sequence took. `cached_tokens` of the prompt were in the cache already; `accepted` of `proposed` guesses were right.

    `completion_tokens` counts what was drawn, the end token included. Units: tokens; seconds from the submission.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    proposed_tokens: int = 0
    accepted_tokens: int = 0
    queue_seconds: float = 0.0  # until it got a slot
    first_token_seconds: float = 0.0
    total_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Piece:
    """What a listener hears: whole characters, never the beginning of a stop string.

    `tokens` are the tokens drawn since the piece before (whose text may still be held back); with log-probabilities where asked for,
    else with 0. The last piece has `finish`, or `error` when the sequence failed, and `usage`.
    """

    text: str = ""
    tokens: tuple[TokenLogprob, ...] = ()
    prompt_tokens: tuple[TokenLogprob, ...] = ()
    finish: FinishReason | None = None
    error: Exception | None = None
    usage: Usage | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or self.error is not None


Listener = Callable[[Piece], None]
