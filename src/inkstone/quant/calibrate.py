"""Calibration: a matrix is moved to packable numbers column by column, and what a column loses is made up for by those after it.

What counts is the error of a layer's outputs on real inputs, so the second moments of the inputs on some text decide how.

Source: Frantar et al. 2022 (arXiv 2210.17323), algorithm 1, in the order of the columns; a group's scale is chosen when it is reached.
Differs: the moments are those of the unpacked model, taken in one pass. Measured on 2 layers of width 128 after 734k tokens of
WikiText-2: int4 alone costs 0.94 % perplexity and 6.8e-3 nats of divergence, with this 0.49 % and 4.3e-3; weighing the errors by the
inputs' mean squares alone, without feedback, 0.82 % and 6.7e-3.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from inkstone.base.errors import ConfigError
from inkstone.nn.layers import Linear
from inkstone.nn.transformer import Transformer
from inkstone.quant.apply import fits, matrices
from inkstone.quant.schemes import SCHEMES, Scheme

_DAMPING = 0.01  # of the mean square of an input, added to each: as in the paper's code, so that rare inputs do not run away


@torch.no_grad()
def calibrate(network: Transformer, scheme: str, rows: Iterable[Tensor]) -> None:
    """Move the matrices that `pack_model` would pack to numbers that it keeps exactly, such that the outputs on `rows` change least.

    `rows` are batches of ids (B, T). An embedding that is not tied has no inputs and stays as it is.

    Raises: ConfigError for a scheme whose codes are so fine that nothing is to be won.
    """
    row = SCHEMES[scheme]
    if not row.group:
        raise ConfigError(f"{scheme} loses next to nothing without calibration, and is not calibrated — leave it out, or use int4")
    moments = input_moments(network, rows)
    for name, module in list(matrices(network)):
        if name in moments and fits(module):
            module.weight.copy_(feed_errors(module.weight, moments.pop(name), row))


@torch.inference_mode()
def input_moments(network: Transformer, rows: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return E[x x^T] (I, I) in float64 of the inputs x of each linear layer and of the head (a tied one is called `embed`)."""
    sums: dict[str, Tensor] = {}
    num_tokens = 0

    def add(name: str, x: Tensor) -> None:
        flat = x.flatten(0, -2).float()
        sums[name] = sums.get(name, 0) + (flat.T @ flat).double()

    layers = [(name, module) for name, module in matrices(network) if isinstance(module, Linear)]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs[0])) for name, layer in layers]
    try:
        for ids_BT in rows:
            add("embed" if network.head is None else "head", network(ids_BT))
            num_tokens += ids_BT.numel()
    finally:
        for hook in hooks:
            hook.remove()
    return {name: total / num_tokens for name, total in sums.items()}


def feed_errors(matrix_OI: Tensor, moments_II: Tensor, scheme: Scheme) -> Tensor:
    """Return the matrix on the scheme's grid, in its dtype, with the error of each column fed to the columns after it."""
    work_OI = matrix_OI.double()
    factor_II = _inverse_factor(moments_II)
    for first in range(0, work_OI.shape[1], scheme.group):
        group = slice(first, first + scheme.group)
        scale_O1 = scheme.scale_of(work_OI[:, None, group].float())
        errors_ON = torch.empty_like(work_OI[:, group])
        for column in range(group.start, group.stop):
            exact_O = work_OI[:, column].clone()
            kept_O = scheme.codes(exact_O.float()[:, None, None], scale_O1)[:, 0, 0].double() * scale_O1[:, 0]
            error_O = (exact_O - kept_O) / factor_II[column, column]
            work_OI[:, column + 1 : group.stop] -= torch.outer(error_O, factor_II[column, column + 1 : group.stop])
            work_OI[:, column], errors_ON[:, column - first] = kept_O, error_O
        work_OI[:, group.stop :] -= errors_ON @ factor_II[group, group.stop :]
    return work_OI.to(matrix_OI.dtype)


def _inverse_factor(moments_II: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of the damped moments."""
    mean = float(moments_II.diagonal().mean())
    damped = moments_II + torch.eye(len(moments_II)).to(moments_II) * (_DAMPING * mean or 1.0)
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
