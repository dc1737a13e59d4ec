"""Many requests at once: each step reads a piece of a prompt and draws one token for every sequence that is ready."""

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inkstone.base.errors import RequestError, ResourceError
from inkstone.base.log import warn
from inkstone.infer.admission import may_wait, retry_after_seconds, share_prefill, waiting_for_others
from inkstone.infer.choose import Chooser, Row
from inkstone.infer.prefix import SlotTable
from inkstone.infer.prompt import check_length
from inkstone.infer.request import Listener, Request, TokenLogprob
from inkstone.infer.runner import Runner
from inkstone.infer.sequence import LiveSequence
from inkstone.infer.speculate import FIRST_GUESSES, Speculator, next_patience, share_room

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

MAX_WAITING = 64
_EXPLAINED_ROWS = 64  # positions of a prompt whose (rows, V) log-probabilities stand at once
_NEWEST_SHARE = 0.1  # of the newest sequence in the running mean of how long one takes


class QueueFull(ResourceError):  # noqa: N818
    """The waiting line is as long as it may be; after `retry_after_seconds` there may be room."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class EngineClosed(ResourceError):  # noqa: N818
    """The engine takes no requests (any more): it is draining, was stopped, or failed."""


@dataclasses.dataclass(frozen=True)
class Totals:
    """What sequences that are over took; of the `prompt_tokens`, the `reused_tokens` were not computed."""

    steps: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    completion_tokens: int = 0
    proposed_tokens: int = 0
    accepted_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0


@dataclasses.dataclass(frozen=True)
class EngineStats(Totals):
    """What an engine does now: `running` sequences in slots, `waiting` ones without, `cached_tokens` that a new prompt could reuse."""

    running: int = 0
    waiting: int = 0
    slots: int = 0
    free_slots: int = 0
    max_waiting: int = 0
    cached_tokens: int = 0


class Ticket:
    """What `submit` gives: the way to cancel."""

    def __init__(self, sequence: LiveSequence) -> None:
        self._sequence = sequence

    def cancel(self) -> None:
        """End the sequence at the next step; its listener then hears finish="cancelled". Thread-safe, may be repeated."""
        self._sequence.is_cancelled = True


@dataclasses.dataclass(frozen=True)
class _Turn:
    """What one sequence draws in a step: a token at each row; `hidden` (R, D) where a prefill has computed it already."""

    sequence: LiveSequence
    rows: Sequence[Row]
    hidden: Tensor | None = None


class Engine:
    """Sequences that share one runner, each of which gets the tokens that it would get alone.

    `submit`, tickets and `stats` are thread-safe; steps from several threads take turns.
    """

    def __init__(
        self,
        runner: Runner,
        tokenizer: "Tokenizer",
        *,
        max_waiting: int = MAX_WAITING,
        speculator: Speculator | None = None,
        reuses_prefixes: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.runner, self.tokenizer, self.max_waiting = runner, tokenizer, max_waiting
        self._speculator, self._clock = speculator, clock
        self._chooser = Chooser(tokenizer)
        self._slots = SlotTable(runner, reuses=reuses_prefixes)
        self._waiting: deque[LiveSequence] = deque()
        self._reading: deque[LiveSequence] = deque()  # have a slot, and a prompt that is not yet read: next in turn first
        self._drawing: list[LiveSequence] = []  # have drawn a token, and draw the next
        self._totals = Totals()
        self._seconds_each = 1.0  # that a sequence holds a slot: a running mean
        self._closed: str | None = None  # why no requests are taken
        self._stepping, self._lining_up = threading.Lock(), threading.Lock()

    @property
    def has_work(self) -> bool:
        """Whether a step would do something."""
        return bool(self._waiting or self._reading or self._drawing)

    def submit(self, request: Request, listener: Listener) -> Ticket:
        """Put a request in line; the listener is called in the stepping thread, and must not block or call the engine.

        Raises: RequestError for what cannot be answered, QueueFull, EngineClosed.
        """
        self.check(request)
        sequence = LiveSequence(request, listener, self.tokenizer, capacity=self.runner.max_tokens, clock=self._clock)
        sequence.patience = FIRST_GUESSES
        with self._lining_up:
            if self._closed is not None:
                raise EngineClosed(f"{self._closed} - send the request again later")
            num_waiting = len(self._waiting)
            if not may_wait(num_waiting=num_waiting, num_free=self._slots.num_free, max_waiting=self.max_waiting):
                seconds = retry_after_seconds(
                    num_waiting=num_waiting + 1, num_slots=self.runner.num_slots, seconds_each=self._seconds_each
                )
                raise QueueFull(f"{num_waiting} requests are waiting already - try again in {seconds} s", seconds)
            self._waiting.append(sequence)
        return Ticket(sequence)

    def step(self) -> bool:
        """Do one step: cancellations, admission, some prefill, one token for every row. Return False when there was nothing to do."""
        with self._stepping, torch.inference_mode():
            self._drop_cancelled()
            self._admit()
            if not (self._reading or self._drawing):
                return False
            self._totals = dataclasses.replace(self._totals, steps=self._totals.steps + 1)
            self._draw([*self._plan_decode(), *self._prefill()])
            self._settle()
            return True

    def stats(self) -> EngineStats:
        """Return the figures of this moment. Thread-safe."""
        free = self._slots.num_free
        return EngineStats(
            **dataclasses.asdict(self._totals), running=self.runner.num_slots - free, waiting=len(self._waiting),
            slots=self.runner.num_slots, free_slots=free, max_waiting=self.max_waiting, cached_tokens=self._slots.num_cached,
        )  # fmt: skip

    def stop_accepting(self, reason: str = "the engine is shutting down") -> None:
        """Refuse new requests with EngineClosed; those that were taken go on. Thread-safe."""
        with self._lining_up:
            self._closed = reason

    def abort(self, error: Exception) -> None:
        """Refuse new requests, and end everything that is live or waiting with Piece(error=error)."""
        self.stop_accepting(str(error))
        with self._stepping:
            for sequence in self._all():
                sequence.fail(error)
            self._settle()

    def check(self, request: Request) -> None:
        """Raises: RequestError for what cannot be answered."""
        ids, bias = request.prompt_ids, request.settings.logit_bias
        if not ids:
            raise RequestError("prompt: expected at least one token, found none")
        check_length(list(ids), self.runner.max_tokens)
        if min(ids) < 0 or max(ids) >= self.runner.vocab_size:
            raise RequestError(f"prompt: expected ids from 0 to {self.runner.vocab_size - 1:,}, found {min(ids)} to {max(ids)}")
        if bias and max(bias) >= self.tokenizer.vocab_size:
            raise RequestError(f"logit_bias: expected ids from 0 to {self.tokenizer.vocab_size - 1:,}, found {max(bias)}")
        if request.top_logprobs is not None and request.top_logprobs < 0:
            raise RequestError(f"top_logprobs: expected 0 or more, found {request.top_logprobs}")

    def _drop_cancelled(self) -> None:
        cancelled = [sequence for sequence in self._all() if sequence.is_cancelled]
        for sequence in cancelled:
            sequence.cancel()
        if cancelled:
            self._settle()

    def _all(self) -> list[LiveSequence]:
        with self._lining_up:
            return [*self._drawing, *self._reading, *self._waiting]

    def _admit(self) -> None:
        """Give free slots to those who wait, in the order of their coming."""
        while self._waiting:
            sequence = self._waiting[0]
            try:
                taken = self._slots.take(sequence.request.prompt_ids, reuses=not sequence.request.prompt_logprobs)
            except Exception as error:  # the copy failed; the slot is free again
                sequence.fail(error)
                self._settle()
                continue
            if taken is None:
                return
            sequence.slot, sequence.num_read = taken
            sequence.cached_tokens, sequence.admitted_at = taken[1], self._clock()
            self._reading.append(sequence)
            self._waiting.popleft()

    def _prefill(self) -> list[_Turn]:
        """Read some of the prompts, a chunk each; return the turns of those that are through."""
        turns = []
        for sequence in self._next_readers():
            self._reading.remove(sequence)
            self._reading.append(sequence)
            try:
                hidden_TD = self._read_chunk(sequence)
            except Exception as error:
                sequence.fail(error)
                self._slots.forget(sequence.slot)
                continue
            if sequence.num_unread == 0:
                turns.append(_Turn(sequence, [Row(sequence)], hidden_TD[-1:].clone()))  # the runner may use its memory again
        return turns

    def _next_readers(self) -> list[LiveSequence]:
        line, chunk = list(self._reading), self.runner.chunk_tokens
        if self._slots.reuses and len(line) > 1:
            waits = waiting_for_others([(s.request.prompt_ids, s.num_read) for s in line], chunk)
            line = [s for s, is_waiting in zip(line, waits, strict=True) if not is_waiting or s.request.prompt_logprobs]
        served = share_prefill([s.num_unread for s in line], chunk_tokens=chunk, budget_tokens=chunk)
        return [line[i] for i in served]

    def _read_chunk(self, sequence: LiveSequence) -> Tensor:
        """Prefill the next chunk of a prompt, behind what others have read of it in the meantime, and return its hidden_TD."""
        request, chunk = sequence.request, self.runner.chunk_tokens
        have = min(sequence.num_read, (sequence.prompt_length - 1) // chunk * chunk)  # less when a step was interrupted behind it
        if not request.prompt_logprobs:
            extended = self._slots.extend(sequence.slot, request.prompt_ids, have)
            sequence.cached_tokens += extended - have
            have = extended
        ids = request.prompt_ids[have : have + chunk]
        hidden_TD = self.runner.prefill(sequence.slot, ids, have)
        if request.prompt_logprobs:
            sequence.push_prompt(
                self._explain(hidden_TD, request.prompt_ids[have + 1 : have + 1 + len(ids)], request.top_logprobs or 0)
            )
        self._slots.wrote(sequence.slot, ids, have)
        sequence.num_read = have + len(ids)
        return hidden_TD

    def _explain(self, hidden_TD: Tensor, targets: Sequence[int], num_top: int) -> list[TokenLogprob]:
        """Return the log-probabilities of the tokens that follow a chunk's positions."""
        found: list[TokenLogprob] = []
        for at in range(0, len(targets), _EXPLAINED_ROWS):
            some = targets[at : at + _EXPLAINED_ROWS]
            found += self._chooser.explain(self.runner.logits(hidden_TD[at : at + len(some)]), some, num_top)
        return found

    def _plan_decode(self) -> list[_Turn]:
        """Return the turns of the sequences that have drawn before, with guesses at what they will draw."""
        guesses = self._guess([s for s in self._drawing if s.request.constraint is None])
        turns = []
        for sequence in self._drawing:
            guess = guesses.get(sequence, ())
            sequence.proposed_tokens += len(guess)
            turns.append(_Turn(sequence, [Row(sequence, guess[:i]) for i in range(len(guess) + 1)]))
        return turns

    def _guess(self, sequences: list[LiveSequence]) -> dict[LiveSequence, tuple[int, ...]]:
        """Return what each sequence may draw next; no more than it could take, the token after the last guess included."""
        if self._speculator is None or not sequences:
            return {}
        left = [sequence.limit - sequence.num_drawn - 1 for sequence in sequences]
        room = share_room(left, [sequence.patience for sequence in sequences])
        try:
            proposed = self._speculator.propose(sequences, room)
        except Exception as error:  # a guess is never needed
            warn(f"speculation is switched off, since it failed: {type(error).__name__}: {error}")
            self._speculator = None
            return {}
        return {sequence: tuple(guess[:most]) for sequence, guess, most in zip(sequences, proposed, room, strict=True)}

    def _draw(self, turns: list[_Turn]) -> None:
        """Let every turn's sequence take its tokens; where the batch fails, each is tried alone, which gives it the same ones."""
        if not turns:
            return
        try:
            chosen = self._forward(turns)
        except Exception as error:
            if len(turns) == 1:
                turns[0].sequence.fail(error)
                self._slots.forget(turns[0].sequence.slot)
            else:
                for turn in turns:
                    self._draw([turn])
            return
        at = 0
        for turn in turns:
            _accept(turn, chosen[at : at + len(turn.rows)])
            at += len(turn.rows)

    def _forward(self, turns: list[_Turn]) -> list[TokenLogprob | Exception]:
        """Return what every row of the turns, in order, draws."""
        rows = [row for turn in turns for row in turn.rows]
        behind = [row for turn in turns for row in turn.rows if turn.hidden is None]
        given = [turn.hidden for turn in turns if turn.hidden is not None]
        if behind:
            newest = [row.guesses[-1] if row.guesses else row.sequence.ids[-1] for row in behind]
            given.insert(0, self.runner.decode(newest, [row.sequence.slot for row in behind], [row.position - 1 for row in behind]))
        hidden_RD = given[0] if len(given) == 1 else torch.cat(given)
        return self._chooser.choose(self.runner.logits(hidden_RD), rows)

    def _settle(self) -> None:
        """Tell the listeners what is new, and sort the sequences by what they do next; those that are over leave their slots."""
        live = [*self._drawing, *self._reading]
        over = [sequence for sequence in self._all() if sequence.is_over]
        for sequence in live:
            if not sequence.is_over:
                sequence.deliver()
        self._drawing = [s for s in live if s.num_drawn and not s.is_over]
        self._reading = deque(s for s in self._reading if not s.num_drawn and not s.is_over)
        if over:
            self._retire(over)

    def _retire(self, over: list[LiveSequence]) -> None:
        """Free the slots first, so that who hears of an end finds the place free."""
        with self._lining_up:
            self._waiting = deque(s for s in self._waiting if not s.is_over)
        for sequence in over:
            if sequence.slot >= 0:
                self._slots.release(sequence.slot)
                self._seconds_each += _NEWEST_SHARE * (self._clock() - sequence.admitted_at - self._seconds_each)
            self._count(sequence)
            sequence.deliver()

    def _count(self, sequence: LiveSequence) -> None:
        old = self._totals
        was_cancelled = sequence.error is None and sequence.finish == "cancelled"
        self._totals = Totals(
            steps=old.steps,
            prompt_tokens=old.prompt_tokens + (sequence.prompt_length if sequence.slot >= 0 else 0),
            reused_tokens=old.reused_tokens + sequence.cached_tokens,
            completion_tokens=old.completion_tokens + sequence.num_drawn,
            proposed_tokens=old.proposed_tokens + sequence.proposed_tokens,
            accepted_tokens=old.accepted_tokens + sequence.accepted_tokens,
            finished=old.finished + (sequence.error is None and not was_cancelled),
            cancelled=old.cancelled + was_cancelled,
            failed=old.failed + (sequence.error is not None),
        )


def _accept(turn: _Turn, chosen: Sequence[TokenLogprob | Exception]) -> None:
    """Push drawn tokens as long as they are what was guessed; the first that is not is still right, those behind it are not."""
    sequence, guess, num_right = turn.sequence, turn.rows[-1].guesses, 0
    for i, token in enumerate(chosen):
        if isinstance(token, Exception):
            sequence.fail(token)
            break
        sequence.push(token)
        if sequence.is_over or i == len(guess) or token.token_id != guess[i]:
            break
        num_right += 1
    if guess:
        sequence.accepted_tokens += num_right
        sequence.patience = next_patience(len(guess), num_right)
