"""The next token of each row of a batch: rows of equal rules share one call, and a row that fails fails alone."""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from inkstone.base.errors import RequestError
from inkstone.infer.draw import Sampler
from inkstone.infer.prompt import silent_ids, stop_ids
from inkstone.infer.request import TokenLogprob
from inkstone.infer.sampling import BANNED, History
from inkstone.infer.sequence import LiveSequence

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

_MAX_SAMPLERS = 256  # kept for the next step; a sampler is cheap to make, and clients may send endlessly many settings


@dataclasses.dataclass(frozen=True)
class Row:
    """A position to draw at: behind a sequence's ids and `guesses` that are assumed to follow them."""

    sequence: LiveSequence
    guesses: tuple[int, ...] = ()

    @property
    def position(self) -> int:
        """Where the drawn token will stand."""
        return len(self.sequence.ids) + len(self.guesses)


class Chooser:
    """Draws with one tokenizer: ids beyond its vocabulary and tokens that have no text and end nothing are never chosen."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._vocab_size = tokenizer.vocab_size
        self._banned = torch.tensor(silent_ids(tokenizer, stop_ids(tokenizer)), dtype=torch.int64)
        self._samplers: dict[tuple[object, ...], Sampler] = {}

    def choose(self, logits_RV: Tensor, rows: Sequence[Row]) -> list[TokenLogprob | Exception]:
        """Return each row's token with the log-probabilities that it wants, or why it has none. Changes the logits."""
        wanting = [i for i, row in enumerate(rows) if row.sequence.request.top_logprobs is not None]
        log_p_WV = logits_RV[wanting].log_softmax(1) if wanting else None
        drawn = self.draw(logits_RV, rows)
        chosen: list[TokenLogprob | Exception] = [x if isinstance(x, Exception) else TokenLogprob(x, 0.0) for x in drawn]
        if log_p_WV is not None:
            tokens = [0 if isinstance(token, Exception) else token for token in (drawn[i] for i in wanting)]
            tops = [rows[i].sequence.request.top_logprobs or 0 for i in wanting]
            for i, found in zip(wanting, self._look_up(log_p_WV, tokens, tops), strict=True):
                chosen[i] = chosen[i] if isinstance(chosen[i], Exception) else found
        return chosen

    def explain(self, logits_TV: Tensor, tokens: Sequence[int], num_top: int) -> list[TokenLogprob]:
        """Return the log-probabilities of given tokens, and at each position those of the `num_top` likeliest."""
        return self._look_up(logits_TV.log_softmax(1), tokens, [num_top] * len(tokens))

    def draw(self, logits_RV: Tensor, rows: Sequence[Row]) -> list[int | Exception]:
        """Return each row's token, or why it has none. Changes the logits."""
        logits_RV = logits_RV[:, : self._vocab_size]
        if len(self._banned):
            self._banned = self._banned.to(logits_RV.device)
            logits_RV.index_fill_(1, self._banned, BANNED)
        failed = _constrain(logits_RV, rows)
        groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for i, row in enumerate(rows):
            if i not in failed:
                groups[row.sequence.rules].append(i)
        drawn: list[int | Exception] = [failed.get(i, 0) for i in range(len(rows))]
        for rules, indices in groups.items():
            logits_GV = logits_RV if len(indices) == len(rows) else logits_RV[indices]
            group = [rows[i] for i in indices]
            for i, token in zip(indices, _draw_group(self._sampler(rules, group[0]), logits_GV, group), strict=True):
                drawn[i] = token
        return drawn

    def _sampler(self, rules: tuple[object, ...], row: Row) -> Sampler:
        if rules not in self._samplers:
            if len(self._samplers) >= _MAX_SAMPLERS:
                self._samplers.clear()
            self._samplers[rules] = Sampler(row.sequence.request.settings)
        return self._samplers[rules]

    def _look_up(self, log_p_RV: Tensor, tokens: Sequence[int], num_top: Sequence[int]) -> list[TokenLogprob]:
        log_p_RV = log_p_RV[:, : self._vocab_size]
        own_R = log_p_RV.gather(1, torch.tensor(tokens, device=log_p_RV.device)[:, None])[:, 0].tolist()
        most = min(max(num_top), self._vocab_size)
        values_RK, ids_RK = (x.tolist() for x in log_p_RV.topk(most, dim=1))
        return [
            TokenLogprob(token, own, tuple(zip(ids[:num], values[:num], strict=True)))
            for token, own, ids, values, num in zip(tokens, own_R, ids_RK, values_RK, num_top, strict=True)
        ]


def _constrain(logits_RV: Tensor, rows: Sequence[Row]) -> dict[int, Exception]:
    """Ban in place what each row's constraint does not allow; return the rows whose constraint failed."""
    failed: dict[int, Exception] = {}
    for i, row in enumerate(rows):
        constraint = row.sequence.request.constraint
        if constraint is None:
            continue
        try:
            allowed_V = constraint.allowed()[: logits_RV.shape[1]].to(logits_RV.device)
            if not bool((allowed_V & (logits_RV[i] != BANNED)).any()):
                raise RequestError("the text cannot go on in the form that was asked for: no token of the model's vocabulary fits")
            logits_RV[i].masked_fill_(~allowed_V, BANNED)
        except Exception as error:
            failed[i] = error
    return failed


def _draw_group(sampler: Sampler, logits_GV: Tensor, rows: Sequence[Row]) -> list[int | Exception]:
    """Return the tokens of rows of equal rules; where the call fails, each row is asked alone, which gives it the same token."""
    seeds, positions = [row.sequence.request.seed for row in rows], [row.position for row in rows]
    try:
        history = _history(rows if sampler.needs_history else [], logits_GV.device)
        return list(sampler(logits_GV, history, seeds, positions).tolist())
    except Exception as error:
        if len(rows) == 1:
            return [error]
        return [_draw_group(sampler, logits_GV[i, None], [row])[0] for i, row in enumerate(rows)]


def _history(rows: Sequence[Row], device: torch.device) -> History:
    """Return prompt, text and guesses of each row."""
    tokens_RS = np.zeros((len(rows), max((row.position for row in rows), default=0)), dtype=np.int64)
    for row, line_S in zip(rows, tokens_RS, strict=True):
        num = len(row.sequence.ids)
        line_S[:num] = row.sequence.ids
        line_S[num : row.position] = row.guesses
    return History(
        tokens=torch.from_numpy(tokens_RS).to(device),
        length=torch.tensor([row.position for row in rows], dtype=torch.int64, device=device),
        prompt_length=torch.tensor([row.sequence.prompt_length for row in rows], dtype=torch.int64, device=device),
    )
