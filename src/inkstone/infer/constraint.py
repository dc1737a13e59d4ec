"""Text that follows a grammar: which tokens may come next, as a mask that `llguidance` computes (about 50 us a token)."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inkstone.base.errors import RequestError

if TYPE_CHECKING:
    import llguidance

MAX_REASON_CHARACTERS = 300


class GrammarConstraint:
    """One sequence inside a grammar (the `Constraint` of infer/request.py); not thread-safe, like its sequence.

    The end tokens are allowed exactly where the grammar is complete, other special tokens never. V is the tokenizer's `vocab_size`.
    """

    def __init__(self, matcher: "llguidance.LLMatcher", vocab_size: int) -> None:
        self._matcher, self._vocab_size = matcher, vocab_size
        self._allowed_V: Tensor | None = None

    def allowed(self) -> Tensor:
        """Return (V,) bool of the tokens that may come next, on the processor; the same tensor until the next token.

        Raises: RequestError when the grammar became too complex to go on, or no token can go on.
        """
        if self._allowed_V is None:
            with explain_panic():
                bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            # Asked afterwards, because on an error the mask is that of a complete text, and nothing is raised.
            if self._matcher.is_error():
                raise RequestError(f"the grammar cannot go on: {reason_of(self._matcher.get_error())}")
            allowed_V = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
            self._allowed_V = torch.from_numpy(allowed_V)
        return self._allowed_V

    def advance(self, token_id: int) -> None:
        """Remember that this token was drawn. Raises: RequestError when it was not allowed."""
        self._allowed_V = None
        with explain_panic():
            is_taken = self._matcher.consume_token(token_id)
        if not is_taken:
            raise RequestError(f"the grammar does not allow token {token_id}: {reason_of(self._matcher.get_error())}")

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return self._matcher.is_accepting()


def reason_of(message: str) -> str:
    """Return the library's reason in one line: the rest of a message is its source excerpt or backtrace."""
    lines = [line.strip() for line in message.splitlines() if line.strip() and not line.startswith("<")]
    causes = [line for line in lines if line.startswith("error:")]
    reason = causes[-1].removeprefix("error:").strip() if causes else "".join(lines[:1])
    if reason.startswith("NoExtension"):
        reason = "no text can satisfy it"
    return reason[:MAX_REASON_CHARACTERS] or "no token may follow"


@contextlib.contextmanager
def explain_panic() -> Iterator[None]:
    """Raises: RequestError for the library's own crash, which is no Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RequestError(f"the grammar cannot be used: its library failed: {reason_of(str(error))}") from error
