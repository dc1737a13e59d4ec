"""Many requests at once: each step reads a piece of a prompt and draws one token for every sequence that is ready."""

import dataclasses
from typing import TYPE_CHECKING

from inkstone.base.errors import ResourceError
from inkstone.infer.request import Listener, Request
from inkstone.infer.runner import Runner

if TYPE_CHECKING:
    from inkstone.infer.speculate import Speculator
    from inkstone.text.tokenizer import Tokenizer


class QueueFull(ResourceError):  # noqa: N818
    """The waiting line is as long as it may be; after `retry_after_seconds` there may be room."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class EngineClosed(ResourceError):  # noqa: N818
    """The engine takes no requests (any more): it is draining, was stopped, or failed."""


@dataclasses.dataclass(frozen=True)
class EngineStats:
    """What the engine does now, and what it has done since it was made.

    Now: `running` sequences in slots, `waiting` ones without, `cached_tokens` positions that a new prompt could reuse.
    In all: `prompt_tokens` of which `reused_tokens` were not computed, `completion_tokens`, guesses, sequences by their end.
    """

    running: int
    waiting: int
    slots: int
    free_slots: int
    max_waiting: int
    cached_tokens: int
    steps: int
    prompt_tokens: int
    reused_tokens: int
    completion_tokens: int
    proposed_tokens: int
    accepted_tokens: int
    finished: int
    cancelled: int
    failed: int


class Ticket:
    """What `submit` gives: the way to cancel."""

    def cancel(self) -> None:
        """End the sequence at the next step; its listener then hears finish="cancelled". Thread-safe, may be repeated."""
        raise NotImplementedError


class Engine:
    """Sequences that share one runner. `step` may be called from any thread, one at a time."""

    def __init__(
        self, runner: Runner, tokenizer: "Tokenizer", *, max_waiting: int = 64, speculator: "Speculator | None" = None
    ) -> None:
        raise NotImplementedError

    def submit(self, request: Request, listener: Listener) -> Ticket:
        """Put a request in line. Thread-safe. Raises: RequestError, QueueFull, EngineClosed."""
        raise NotImplementedError

    def step(self) -> bool:
        """Do one step: cancellations, admission, some prefill, one decode of all live rows. Return False when there was nothing to do."""
        raise NotImplementedError

    def stats(self) -> EngineStats:
        """Return the figures of this moment. Thread-safe."""
        raise NotImplementedError

    def stop_accepting(self) -> None:
        """Refuse new requests with EngineClosed; those that were taken go on. Thread-safe."""
        raise NotImplementedError

    def abort(self, reason: Exception) -> None:
        """Refuse new requests, and end everything that is live or waiting with Piece(error=reason)."""
        raise NotImplementedError
