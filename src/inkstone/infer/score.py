"""How likely a model finds a text: nats, perplexity and bits per byte of every token after the first."""

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inkstone.base.errors import RequestError
from inkstone.infer.prompt import check_text

if TYPE_CHECKING:
    from inkstone.nn.transformer import Transformer
    from inkstone.text.tokenizer import Tokenizer

_CHUNK = 128  # positions whose (chunk, V) float32 logits stand at once


@dataclasses.dataclass(frozen=True)
class Score:
    """`nats` is the sum of -log p over `tokens` tokens that stand for `bytes` UTF-8 bytes (the text without its first token)."""

    nats: float
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        """exp of the mean nats a token."""
        return math.exp(self.nats / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers."""
        return self.nats / math.log(2) / max(1, self.bytes)


def score_text(model: "Transformer", tokenizer: "Tokenizer", text: str) -> Score:
    """Return the score of `text`; beyond the context, windows overlap by half, so that each token has at least that much before it.

    Raises: RequestError when the text has fewer than two tokens (the first has nothing that it could be predicted from),
    or characters that the tokenizer does not have.
    """
    ids = tokenizer.encode(check_text(text, "text"))
    if tokenizer.unknown_id is not None and tokenizer.unknown_id in ids:
        raise RequestError(
            f"text: expected characters that the tokenizer has, found {tokenizer.first_unknown(text)!r} and in all "
            f"{ids.count(tokenizer.unknown_id):,} that it has not — its figures would be those of another text"
        )
    if len(ids) < 2:
        raise RequestError(f"text: expected at least two tokens to score, found {len(ids)}")
    device = next(model.parameters()).device
    ids_T = torch.tensor(ids, dtype=torch.int64, device=device)
    nats, context, done = 0.0, model.config.context, 0
    while done < len(ids) - 1:
        begin = 0 if done == 0 else max(0, done - context // 2)
        window_T = ids_T[begin : begin + context + 1]
        nats += float(_nats(model, window_T)[done - begin :].sum())
        done = begin + len(window_T) - 1
    return Score(nats=nats, tokens=len(ids) - 1, bytes=int(tokenizer.byte_lengths[ids[1:]].sum()))


@torch.inference_mode()
def _nats(model: "Transformer", ids_T: Tensor) -> Tensor:
    """Return -log p of each id but the first. Shapes: (T,) → (T - 1,) float64."""
    hidden_TD = model(ids_T[None, :-1])[0]
    pieces = []
    for at in range(0, len(hidden_TD), _CHUNK):
        logits_TV = model.logits(hidden_TD[at : at + _CHUNK])
        target_T = ids_T[1:][at : at + _CHUNK]
        pieces.append(torch.nn.functional.cross_entropy(logits_TV, target_T, reduction="none").double())
    return torch.cat(pieces)
