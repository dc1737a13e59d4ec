"""How likely a model finds texts: the log-probability of every token after the first, many texts at once."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from inkstone.base.errors import RequestError
from inkstone.infer.padded import padded_batches
from inkstone.infer.prompt import check_text

if TYPE_CHECKING:
    from inkstone.nn.transformer import Transformer
    from inkstone.text.tokenizer import Tokenizer

_CHUNK = 128  # positions whose (chunk, V) float32 logits stand at once


@dataclasses.dataclass(frozen=True)
class Score:
    """`nats` is the sum of -log p over `tokens` tokens that stand for `bytes` UTF-8 bytes (the text without its first token).

    `logprobs` has log p of each of these tokens: what follows a context is their end.
    """

    nats: float
    tokens: int
    bytes: int
    logprobs: tuple[float, ...] = dataclasses.field(default=(), repr=False)

    @property
    def perplexity(self) -> float:
        """exp of the mean nats a token."""
        return math.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers."""
        return self.nats / math.log(2) / max(1, self.bytes)


def score_text(model: "Transformer", tokenizer: "Tokenizer", text: str) -> Score:
    """Return the score of one text; see `score_texts`."""
    return _score(model, tokenizer, [_encode(text, tokenizer, "text")])[0]


def score_texts(model: "Transformer", tokenizer: "Tokenizer", texts: Sequence[str]) -> list[Score]:
    """Return the score of each text; beyond the context, windows overlap by half, so that each token has at least that much before it.

    Raises: RequestError when a text has fewer than two tokens (the first has nothing that it could be predicted from),
    or characters that the tokenizer does not have.
    """
    return _score(model, tokenizer, [_encode(text, tokenizer, f"texts[{i}]") for i, text in enumerate(texts)])


@torch.inference_mode()
def score_ids(model: "Transformer", id_lists: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return log p of every id but the first, of each list. Shapes: T ids give (T - 1,) float64, on the processor."""
    context = model.config.context
    made = [torch.zeros(max(0, len(ids) - 1), dtype=torch.float64) for ids in id_lists]
    windows = [(i, *window) for i, ids in enumerate(id_lists) for window in _windows(len(ids), context)]
    pieces = [id_lists[i][begin:stop] for i, begin, stop, _ in windows]
    for indices, ids_BT in padded_batches(pieces, device=next(model.parameters()).device):
        lengths = [len(pieces[index]) - 1 for index in indices]
        for index, log_p_T in zip(indices, _log_probabilities(model, ids_BT, lengths), strict=True):
            i, begin, stop, done = windows[index]
            made[i][done : stop - 1] = log_p_T[done - begin :]
    return made


def _score(model: "Transformer", tokenizer: "Tokenizer", id_lists: list[list[int]]) -> list[Score]:
    return [
        Score(
            nats=-float(log_p_T.sum()), tokens=len(log_p_T), bytes=int(tokenizer.byte_lengths[ids[1:]].sum()), logprobs=tuple(log_p_T.tolist()),
        )
        for ids, log_p_T in zip(id_lists, score_ids(model, id_lists), strict=True)
    ]  # fmt: skip


def _encode(text: str, tokenizer: "Tokenizer", name: str) -> list[int]:
    ids = tokenizer.encode(check_text(text, name))
    if tokenizer.unknown_id is not None and tokenizer.unknown_id in ids:
        raise RequestError(
            f"{name}: expected characters that the tokenizer has, found {tokenizer.first_unknown(text)!r} and in all "
            f"{ids.count(tokenizer.unknown_id):,} that it has not — its figures would be those of another text"
        )
    if len(ids) < 2:
        raise RequestError(f"{name}: expected at least two tokens to score, found {len(ids)}")
    return ids


def _windows(num_ids: int, context: int) -> Iterator[tuple[int, int, int]]:
    """Yield (begin, stop, done) of ids that are read together: those up to and with position `done` have their score already.

    >>> list(_windows(10, 4))
    [(0, 5, 0), (2, 7, 4), (4, 9, 6), (6, 10, 8)]
    """
    done = 0
    while done < num_ids - 1:
        begin = 0 if done == 0 else max(0, done - context // 2)
        stop = min(begin + context + 1, num_ids)
        yield begin, stop, done
        done = stop - 1


def _log_probabilities(model: "Transformer", ids_BT: Tensor, lengths: list[int]) -> list[Tensor]:
    """Return log p of each id but the first, of each row's first `lengths[row] + 1` ids. Shapes: (lengths[row],) float64."""
    hidden_BTD = model(ids_BT[:, :-1])
    counted_BT = torch.arange(hidden_BTD.shape[1], device=ids_BT.device) < torch.tensor(lengths, device=ids_BT.device)[:, None]
    hidden_ND, target_N = hidden_BTD[counted_BT], ids_BT[:, 1:][counted_BT]
    pieces = [
        -F.cross_entropy(model.logits(hidden_ND[at : at + _CHUNK]), target_N[at : at + _CHUNK], reduction="none").cpu().double()
        for at in range(0, len(hidden_ND), _CHUNK)
    ]
    return list(torch.cat(pieces).split(lengths))
