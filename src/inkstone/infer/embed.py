"""Texts as vectors: the mean of a model's last hidden states over a text's tokens."""

from collections.abc import Sequence
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


@torch.inference_mode()
def embed(network: "Transformer", id_lists: Sequence[Sequence[int]], *, normalize: bool = False) -> Tensor:
    """Return one vector for each list of ids: the mean of the hidden states after the final norm, over all of its tokens.

    A list longer than the context is read in windows of the context, one after the other; each token counts the same.
    `normalize` scales each vector to length 1, so that products are cosines.
    Shapes: N lists give (N, D) float32, on the processor. Raises: RequestError when a list is empty.
    """
    for i, ids in enumerate(id_lists):
        if not ids:
            raise RequestError(f"texts[{i}]: expected at least one token, found none")
    context = network.config.context
    windows = [(i, ids[at : at + context]) for i, ids in enumerate(id_lists) for at in range(0, len(ids), context)]
    sum_ND = torch.zeros(len(id_lists), network.config.width, dtype=torch.float64)
    for indices, ids_BT in padded_batches([ids for _, ids in windows], device=next(network.parameters()).device):
        sum_BD = _sum_hidden(network, ids_BT, [len(windows[index][1]) for index in indices])
        sum_ND.index_add_(0, torch.tensor([windows[index][0] for index in indices]), sum_BD)
    mean_ND = sum_ND / torch.tensor([len(ids) for ids in id_lists], dtype=torch.float64)[:, None]
    return (F.normalize(mean_ND, dim=1) if normalize else mean_ND).float()


def embed_texts(
    network: "Transformer", tokenizer: "Tokenizer", texts: Sequence[str], *, normalize: bool = False
) -> Tensor:  # fmt: skip
    """Return one vector for each text; an empty text is the one token `<|endoftext|>`. Shapes: (N, D) float32. Raises: RequestError."""
    checked = [check_text(text, f"texts[{i}]") for i, text in enumerate(texts)]
    return embed(network, [ids or [tokenizer.eos_id] for ids in tokenizer.encode_batch(checked)], normalize=normalize)


def _sum_hidden(network: "Transformer", ids_BT: Tensor, lengths: list[int]) -> Tensor:
    hidden_BTD = network(ids_BT)
    counted_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < torch.tensor(lengths, device=ids_BT.device)[:, None]
    return (hidden_BTD.float() * counted_BT[..., None]).sum(1).cpu().double()
