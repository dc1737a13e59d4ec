"""Packed weights in a model folder: the section in config.json that names the scheme, and what the tensors must then be."""

from collections.abc import Mapping
from typing import Any

import pydantic
import torch
from torch import Tensor

from inkstone.base.errors import CheckpointError
from inkstone.checkpoint.matching import Shapes, shapes_of
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.quant.apply import make_room, packed_weights
from inkstone.quant.config import Quantization, quantization_section
from inkstone.quant.schemes import SCHEMES

SECTION = "quantization"
_NAMES = {torch.int8: "I8", torch.uint8: "U8", torch.float32: "F32", torch.bfloat16: "BF16"}  # safetensors' names


def section_of(scheme: str) -> dict[str, Any]:
    """Return what a packed folder's config.json has beside the model."""
    return {SECTION: quantization_section(scheme)}


def read_scheme(config_json: Mapping[str, Any], *, is_native: bool) -> str | None:
    """Return the scheme that config.json names; None where the weights are in float.

    Raises: CheckpointError for a scheme or group that we do not write, or a section in a config.json that is not ours.
    """
    if SECTION not in config_json:
        return None
    if not is_native:
        raise CheckpointError(
            f"config.json has '{SECTION}': weights packed by another program are not supported — export plain weights"
        )
    try:
        return Quantization.model_validate(config_json[SECTION]).scheme
    except pydantic.ValidationError as error:
        places = [".".join(map(str, (SECTION, *one["loc"]))) for one in error.errors()]
        lines = [
            f"config.json: {place}: {one['msg'].removeprefix('Value error, ')}, found {one['input']!r:.60}"
            for place, one in zip(places, error.errors(), strict=True)
        ]
        raise CheckpointError("\n".join(lines)) from error


def packed_layout(config: ModelConfig, scheme: str) -> tuple[Shapes, dict[str, str]]:
    """Return the shape of every tensor of a packed model, and the stored dtype of its codes and scales; nothing is allocated."""
    with torch.device("meta"):
        model = Transformer(config)
        make_room(model, scheme)
    parts = {f"{name}.{part}": tensor for name, module in packed_weights(model) for part, tensor in module.named_buffers()}
    return shapes_of(model.state_dict()), {name: _NAMES[tensor.dtype] for name, tensor in parts.items()}


def require_codes(tensors: Mapping[str, Tensor], scheme: str) -> None:
    """Refuse codes that the scheme does not have. Raises: CheckpointError that names the first tensor with one."""
    row = SCHEMES[scheme]
    if row.stored_dtype != torch.int8:
        return  # every pair of nibbles is two codes
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int8 and tensor.numel() and int(tensor.min()) < row.lowest:
            raise CheckpointError(f"{name} holds the code {int(tensor.min())}; {scheme} has {row.lowest} to {row.highest}")
