"""The arithmetic of the transformer that torch does not have in one fast piece on every processor.

Shape letters, here and everywhere: B batch, T time, S cached time, D width, H query heads, K key heads, E head width,
F feed-forward width, V vocabulary, N = B * T.
"""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100  # a target without loss
_HASH_FACTOR = -7046029254386353131  # 2^64 / golden ratio as a signed integer (Knuth 1973, section 6.4)


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) * weight, statistics in float32, on any float dtype.

    Four passes forward and six backward; torch composes about twice as many on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        rstd = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)
        normed = x * rstd
        ctx.save_for_backward(normed, rstd, weight)
        return normed * weight.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, rstd, weight = ctx.saved_tensors
        width = grad.shape[-1]
        grad_normed = grad * weight.to(grad.dtype)
        product = grad * normed
        grad_weight = product.reshape(-1, width).sum(0, dtype=weight.dtype)
        # mean over the width of grad_normed * normed, as a matrix-vector product of what is there already
        share = torch.mv(product.reshape(-1, width), weight.to(grad.dtype) / width).view(rstd.shape)
        return grad_normed.addcmul_(normed, share, value=-1).mul_(rstd), grad_weight, None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return x scaled to unit root mean square over its last dimension, times `weight`.

    Source: Zhang and Sennrich 2019, eq. 4.
    """
    return _RMSNorm.apply(x, weight, eps)


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)  # the table outlives the call, and training may use it next
def rotary_table(num_positions: int, width: int, base: float, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor]:
    """Return (cos, sin) of shape (num_positions, width) for the half-rotation layout; sin's first half is negated."""
    frequency = base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = torch.outer(torch.arange(num_positions, dtype=torch.float64), frequency)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1).to(device, dtype), torch.cat([-sin, sin], -1).to(device, dtype)


class _Rotate(torch.autograd.Function):
    """Turns pairs (i, i + E/2) in three passes and puts heads before time on the way, where attention needs them."""

    @staticmethod
    def forward(ctx: Any, x_BTHE: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
        ctx.save_for_backward(cos_TE, sin_TE)
        return _turn(x_BTHE.transpose(1, 2), cos_TE, sin_TE)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHTE: Tensor) -> tuple[Tensor, None, None]:
        cos_TE, sin_TE = ctx.saved_tensors
        return _turn(grad_BHTE, cos_TE, -sin_TE).transpose(1, 2), None, None


def _turn(x_BHTE: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
    half = x_BHTE.shape[-1] // 2
    out = torch.empty(x_BHTE.shape, dtype=x_BHTE.dtype, device=x_BHTE.device)
    torch.mul(x_BHTE, cos_TE, out=out)
    out[..., :half].addcmul_(x_BHTE[..., half:], sin_TE[..., :half])
    out[..., half:].addcmul_(x_BHTE[..., :half], sin_TE[..., half:])
    return out


def rotate(x_BTHE: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
    """Return queries or keys turned by their positions, of shape (B, H, T, E), in the half-rotation layout of Llama and Qwen.

    Source: Su et al. 2021, eq. 34, with the pairs (i, i + E/2).
    """
    return _Rotate.apply(x_BTHE, cos_TE, sin_TE)


def ngram_rows(history_BS: Tensor, document_BT: Tensor | None, *, longest: int, buckets: int, vocab_size: int) -> Tensor:
    """Return the embedding rows (N, G) of the n-grams that end at each position, n = 2 … longest, G = longest - 1.

    `history_BS` holds the T tokens with G tokens before them (0 where there is none). An n-gram does not reach into an earlier
    document. Lengths whose n-grams all fit have a row each; longer ones share rows by a multiplicative hash.

    Source: Huang et al. 2025 (arXiv 2501.16975), section 3.2, with added instead of split tables.
    """
    num_before = longest - 1
    time = history_BS.shape[1] - num_before
    code = history_BS[:, num_before:]
    rows = []
    for back in range(1, longest):
        earlier = history_BS[:, num_before - back : num_before - back + time]
        if document_BT is not None and back < time:
            same = document_BT[:, back:] == document_BT[:, :-back]
            earlier = torch.cat([earlier[:, :back], earlier[:, back:] * same], dim=1)
        code = code * vocab_size + earlier  # wraps for long n-grams, which is as good a hash
        hashed = (code * _HASH_FACTOR >> 31) % buckets if vocab_size ** (back + 1) > buckets else code
        rows.append(hashed + (back - 1) * buckets)
    return torch.stack(rows, dim=-1).view(-1, num_before)


def drop(x: Tensor, probability: float, training: bool) -> Tensor:
    """Return x with a share of its elements zeroed and the others scaled up; the share is a multiple of 1/256.

    Eight byte-wide draws come from one 64-bit draw: measured three to five times faster than a Bernoulli draw per element on a CPU.
    """
    threshold = min(round(probability * 256), 255)
    if not training or threshold == 0:
        return x
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(torch.iinfo(torch.int64).min, None)
    kept = (words.view(torch.uint8)[: x.numel()].view(x.shape) >= threshold).to(x.dtype)
    return x * kept.mul_(256 / (256 - threshold))


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of softmax(cap(hidden @ weight.T)), a chunk of rows at a time, gradients made on the way."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, softcap: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        weight = weight_VD.to(hidden_ND.dtype)
        need_grad = any(ctx.needs_input_grad[:2])
        grad_hidden = torch.empty_like(hidden_ND) if need_grad else None
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if need_grad else None
        loss = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        correct = torch.zeros((), dtype=torch.int64, device=hidden_ND.device)
        for start in range(0, len(hidden_ND), chunk):
            rows = slice(start, start + chunk)
            hidden, targets = hidden_ND[rows], targets_N[rows]
            counted = targets != IGNORED
            index = targets.clamp(min=0)[:, None]
            raw = (hidden @ weight.T).float()
            capped = softcap * torch.tanh(raw / softcap) if softcap else raw
            logp = torch.log_softmax(capped, dim=-1)
            loss -= (logp.gather(1, index)[:, 0] * counted).sum()
            correct += ((logp.argmax(-1) == targets) & counted).sum()
            if not need_grad:
                continue
            grad = logp.exp_()
            grad.scatter_add_(1, index, torch.full_like(index, -1, dtype=grad.dtype))
            grad *= counted[:, None]
            if softcap:
                grad *= 1 - (capped / softcap).square()
            grad = grad.to(hidden.dtype)
            torch.mm(grad, weight, out=grad_hidden[rows])  # type: ignore[index]
            grad_weight += grad.T @ hidden  # type: ignore[operator]
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad_loss.to(grad_hidden.dtype), grad_weight * grad_loss, None, None, None


def linear_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, softcap: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return (summed cross-entropy in nats, number of targets that are the argmax) without ever holding all logits.

    Targets equal to IGNORED count for nothing. At most 16 M logits stand at a time.
    """
    chunk = max(64, min(len(hidden_ND), 2**24 // len(weight_VD)))
    return _LinearCrossEntropy.apply(hidden_ND, weight_VD, targets_N, softcap, chunk)


@torch.no_grad()
def token_losses(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, softcap: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return (cross-entropy of each target in nats, whether it is the argmax), both (N,); ignored targets give 0 and False."""
    chunk = max(64, 2**24 // len(weight_VD))
    weight = weight_VD.to(hidden_ND.dtype)
    nats, correct = [], []
    for hidden, targets in zip(hidden_ND.split(chunk), targets_N.split(chunk), strict=True):
        logits = (hidden @ weight.T).float()
        if softcap:
            logits = softcap * torch.tanh(logits / softcap)
        nats.append(torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none"))
        correct.append(logits.argmax(-1) == targets)
    return torch.cat(nats), torch.cat(correct)
