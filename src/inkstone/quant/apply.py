"""Packing a whole model: its matrices give way to packed ones, everything else stays as it is."""

import dataclasses
from collections.abc import Iterator

from torch import Tensor, nn

from inkstone.base.errors import ConfigError
from inkstone.nn.layers import Embedding, Linear
from inkstone.nn.transformer import Transformer
from inkstone.quant.config import GROUP
from inkstone.quant.packed import PackedEmbedding, PackedLinear, PackedWeight


@dataclasses.dataclass(frozen=True)
class PackReport:
    """What `pack_model` did. `packed` and `left` name matrices; `left` are those whose inputs are no multiple of 32.

    `share_left` is the share of the model's weights (vectors and tables included) that is still in float.
    """

    scheme: str
    packed: tuple[str, ...]
    left: tuple[str, ...]
    share_left: float


def pack_model(network: Transformer, scheme: str) -> PackReport:
    """Pack every linear layer, the embedding and the head of `network` in place; a tied embedding is one matrix for both.

    Norms, biases, position and n-gram tables stay in float.

    Raises: ConfigError for an unknown scheme, or when the model is packed already.
    """
    if scheme_of(network) is not None:
        raise ConfigError(f"the model is packed already ({scheme_of(network)}) — quantize the model that it was made from")
    total = sum(parameter.numel() for parameter in network.parameters())
    left = [name for name, module in matrices(network) if not fits(module)]
    packed = []
    for name, module in list(matrices(network)):
        if fits(module):
            new = _empty(module, scheme)
            new.fill(module.weight)
            network.set_submodule(name, new)
            packed.append(name)
    remaining = sum(parameter.numel() for parameter in network.parameters())
    return PackReport(scheme, tuple(packed), tuple(left), remaining / total)


def make_room(network: Transformer, scheme: str) -> None:
    """Put empty packed modules where `pack_model` would put filled ones, for a state dict to be loaded into. Raises: ConfigError."""
    for name, module in list(matrices(network)):
        if fits(module):
            network.set_submodule(name, _empty(module, scheme))


def matrices(network: Transformer) -> Iterator[tuple[str, Linear | Embedding]]:
    """Yield the name and module of every float matrix that a scheme is for."""
    for name, module in network.named_modules():
        if isinstance(module, Linear | Embedding):
            yield name, module


def fits(module: Linear | Embedding) -> bool:
    """Return whether a matrix is packed, or left because its inputs are no multiple of 32."""
    return module.weight.shape[1] % GROUP == 0


def packed_weights(network: nn.Module) -> Iterator[tuple[str, PackedWeight]]:
    """Yield the name and module of every packed matrix."""
    for name, module in network.named_modules():
        if isinstance(module, PackedWeight):
            yield name, module


def scheme_of(network: nn.Module) -> str | None:
    """Return the scheme that the model is packed in; None for a model in float."""
    return next((module.scheme for _, module in packed_weights(network)), None)


def dense_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with every packed matrix unpacked to float32: that of a plain model of the same config."""
    state = network.state_dict()
    for name, module in packed_weights(network):
        state[f"{name}.weight"] = module.dequantize()
        del state[f"{name}.weight_scale"]
    return state


def _empty(module: Linear | Embedding, scheme: str) -> PackedWeight:
    num_out, num_in = module.weight.shape
    device = module.weight.device
    if isinstance(module, Linear):
        return PackedLinear(scheme, num_out, num_in, bias=module.bias, device=device)
    return PackedEmbedding(scheme, num_out, num_in, device=device)
