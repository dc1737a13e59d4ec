"""One request on its way from ids to text: what was drawn, what was said, and how it ended."""

from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING

from inkstone.base.log import warn
from inkstone.infer.prompt import stop_ids
from inkstone.infer.request import FinishReason, Listener, Piece, Request, TokenLogprob, Usage
from inkstone.infer.sampling import RULES
from inkstone.text.stops import StopMatcher
from inkstone.text.stream import TextStream

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

Clock = Callable[[], float]


class LiveSequence:
    """Guards the state of one sequence; it knows nothing of the runner but the number of its slot.

    `ids` are the prompt's and those drawn. Of the prompt `num_read` are in the cache; of those drawn all but the newest.
    `rules` is equal for sequences that one call can sample together.
    """

    def __init__(self, request: Request, listener: Listener, tokenizer: "Tokenizer", *, capacity: int, clock: Clock) -> None:
        """`capacity`: positions of a slot. Raises: RequestError when a stop string is empty."""
        settings = request.settings
        self.request, self.slot, self.num_read = request, -1, 0
        self.prompt_length = len(request.prompt_ids)
        self.ids = array("q", request.prompt_ids)
        self.limit = min(settings.max_tokens, capacity - self.prompt_length + 1)  # a token beyond the last position can be drawn
        self.rules = tuple(tuple(value.items()) if isinstance(value, dict) else value for value in _rule_values(request))
        self.is_cancelled = False
        self.finish: FinishReason | None = None
        self.error: Exception | None = None
        self.patience = 0  # how many guesses are made for it
        self.cached_tokens = self.proposed_tokens = self.accepted_tokens = 0
        self._ends = frozenset() if request.ignore_end else stop_ids(tokenizer)
        self._listener, self._clock = listener, clock
        self._stream, self._matcher = TextStream(tokenizer), StopMatcher(settings.stop or [])
        self._text, self._unsaid, self._unsaid_prompt = "", list[TokenLogprob](), list[TokenLogprob]()
        self.submitted_at, self.admitted_at, self.first_token_at = clock(), 0.0, 0.0  # seconds

    @property
    def num_drawn(self) -> int:
        """How many tokens were drawn, the end token included."""
        return len(self.ids) - self.prompt_length

    @property
    def num_unread(self) -> int:
        """How many tokens of the prompt are not in the cache."""
        return self.prompt_length - self.num_read

    @property
    def is_over(self) -> bool:
        """Whether nothing follows."""
        return self.finish is not None or self.error is not None

    def push(self, token: TokenLogprob) -> None:
        """Take the next token, or fail when the constraint does."""
        if self.num_drawn == 0:
            self.first_token_at = self._clock()
        self.ids.append(token.token_id)
        self._unsaid.append(token)
        if not self._advance_constraint(token.token_id):
            return
        if token.token_id in self._ends:
            self._end("stop")
            return
        piece, stopped = self._matcher.push(self._stream.push(token.token_id))
        self._text += piece
        if stopped:
            self.finish = "stop"
        elif self.num_drawn >= self.limit:
            self._end("length")

    def push_prompt(self, tokens: list[TokenLogprob]) -> None:
        """Take the log-probabilities of the prompt's next tokens."""
        self._unsaid_prompt += tokens

    def cancel(self) -> None:
        """End without what the stream still holds back."""
        self.finish = "cancelled"

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self.error = error

    def deliver(self) -> None:
        """Tell the listener what is new, if it is text, the prompt's log-probabilities, or the end; a deaf one cancels its sequence."""
        if not (self._text or self._unsaid_prompt or self.is_over):
            return
        piece = Piece(
            text=self._text, tokens=tuple(self._unsaid), prompt_tokens=tuple(self._unsaid_prompt), finish=self.finish, error=self.error,
            usage=self.usage() if self.is_over else None,
        )  # fmt: skip
        self._text, self._unsaid, self._unsaid_prompt = "", [], []
        try:
            self._listener(piece)
        except Exception as error:
            self.is_cancelled = True
            warn(f"a listener failed, so that its sequence ends: {type(error).__name__}: {error}")

    def usage(self) -> Usage:
        """Return what the sequence took until now."""
        return Usage(
            prompt_tokens=self.prompt_length, completion_tokens=self.num_drawn, cached_tokens=self.cached_tokens,
            proposed_tokens=self.proposed_tokens, accepted_tokens=self.accepted_tokens,
            queue_seconds=self.admitted_at - self.submitted_at if self.slot >= 0 else self._clock() - self.submitted_at,
            first_token_seconds=self.first_token_at - self.submitted_at if self.num_drawn else 0.0,
            total_seconds=self._clock() - self.submitted_at,
        )  # fmt: skip

    def _advance_constraint(self, token_id: int) -> bool:
        try:
            if self.request.constraint is not None:
                self.request.constraint.advance(token_id)
        except Exception as error:
            self.fail(error)
        return self.error is None

    def _end(self, reason: FinishReason) -> None:
        """End, and say what stream and matcher still hold; it may complete a stop string."""
        piece, stopped = self._matcher.push(self._stream.flush())
        self.finish = "stop" if stopped else reason
        self._text += piece if stopped else piece + self._matcher.flush()


def _rule_values(request: Request) -> list[object]:
    return [getattr(request.settings, name) for name in RULES]
