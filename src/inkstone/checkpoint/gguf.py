"""GGUF: the file that llama.cpp and the programs around it load, written tensor by tensor with the gguf package."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inkstone.base.errors import ConfigError, DataError
from inkstone.base.family import Family
from inkstone.checkpoint.gguf_architectures import GgufArchitecture, Metadata, find_gguf_architecture
from inkstone.checkpoint.gguf_tokenizer import tokenizer_metadata
from inkstone.checkpoint.model_folder import StoredModel
from inkstone.checkpoint.publish import publish_file

MAGIC = b"GGUF"
BLOCK = 32  # weights of a row that share a scale, in both quantized types


@dataclass(frozen=True)
class GgufType:
    """How matrices are stored, by the package's names.

    `head` is the type of the matrix that makes the logits: at four bits it would cost most of the quality, so it keeps eight.
    """

    file_type: str
    matrix: str
    head: str


GGUF_TYPES: Family[GgufType] = Family(
    "GGUF type",
    {
        "f32": GgufType("ALL_F32", "F32", "F32"),
        "f16": GgufType("MOSTLY_F16", "F16", "F16"),
        "bf16": GgufType("MOSTLY_BF16", "BF16", "BF16"),
        "q8_0": GgufType("MOSTLY_Q8_0", "Q8_0", "Q8_0"),
        "q4_0": GgufType("MOSTLY_Q4_0", "Q4_0", "Q8_0"),
    },
)
_STORED = {torch.float16: "f16", torch.bfloat16: "bf16"}


def stored_type(stored: StoredModel) -> str:
    """Return the type of `GGUF_TYPES` that loses nothing of the weights as they are stored."""
    return _STORED.get(stored.tensors["embed.weight"].dtype, "f32")


def write_gguf(path: Path, stored: StoredModel, *, type_name: str, name: str) -> int:
    """Publish a model as one GGUF file and return its number of tensors; `name` is what programs show for it.

    Vectors and position embeddings stay float32, matrices whose rows are no multiple of 32 float16 in a quantized file.

    Raises: ConfigError (no architecture or tokenizer of GGUF fits, the gguf package is missing), DataError (a weight is too large
    for the type), ResourceError (disk).
    """
    chosen = GGUF_TYPES[type_name]
    architecture = find_gguf_architecture(stored.config)
    metadata = _metadata(stored, architecture, chosen, name)
    package = _package()
    types = {theirs: _tensor_type(theirs, tensor, chosen, stored) for theirs, tensor in _tensors(stored, architecture)}

    def write(temporary: Path) -> None:
        writer = package.GGUFWriter(temporary, architecture.name)
        try:
            _write(writer, package, metadata, types, _tensors(stored, architecture))
        finally:
            writer.close()

    publish_file(path, write)
    return len(types)


def _metadata(stored: StoredModel, architecture: GgufArchitecture, chosen: GgufType, name: str) -> dict[str, Any]:
    package = _package()
    general: Metadata = {
        "general.type": "model",
        "general.name": name,
        "general.file_type": int(package.LlamaFileType[chosen.file_type]),
    }
    if chosen.matrix.startswith("Q"):
        general["general.quantization_version"] = int(package.GGML_QUANT_VERSION)
    own = {f"{architecture.name}.{key}": value for key, value in architecture.metadata(stored.config).items()}
    return general | own | tokenizer_metadata(stored.tokenizer, stored.config.vocab_size)


def _tensors(stored: StoredModel, architecture: GgufArchitecture) -> Iterator[tuple[str, Tensor]]:
    for rule in architecture.rules(stored.config):
        yield from rule.export(stored.tensors[rule.ours]).items()


def _tensor_type(name: str, tensor: Tensor, chosen: GgufType, stored: StoredModel) -> str:
    if tensor.ndim == 1 or name == "position_embd.weight":
        return "F32"
    is_head = name == ("token_embd.weight" if stored.config.tie_embeddings else "output.weight")
    wanted = chosen.head if is_head else chosen.matrix
    return "F16" if wanted.startswith("Q") and tensor.shape[-1] % BLOCK else wanted


def _write(
    writer: Any, package: ModuleType, metadata: dict[str, Any], types: dict[str, str], tensors: Iterator[tuple[str, Tensor]]
) -> None:
    """Write header, metadata and the list of tensors, then one tensor after the other, so that only one is in memory twice."""
    for key, value in metadata.items():
        _add_value(writer, key, value)
    rows = [(name, tensor, package.GGMLQuantizationType[types[name]]) for name, tensor in tensors]
    for name, tensor, kind in rows:
        block, block_bytes = package.GGML_QUANT_SIZES[kind]
        num_bytes = math.prod(tensor.shape) // block * block_bytes
        writer.add_tensor_info(name, tuple(tensor.shape), np.dtype("float32"), num_bytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor, kind in rows:
        writer.write_tensor_data(_encode(package, name, tensor, kind))


def _add_value(writer: Any, key: str, value: Any) -> None:
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, list: writer.add_array}
    add[type(value)](key, value)


def _encode(package: ModuleType, name: str, tensor: Tensor, kind: Any) -> np.ndarray:
    """Return the tensor's bytes in the type `kind`.

    Raises: DataError when a weight becomes infinite in it.
    """
    plain = tensor.detach().float().contiguous().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        encoded = package.quants.quantize(plain, kind)
        is_finite = np.isfinite(package.quants.dequantize(encoded, kind)).all()
    if not is_finite:
        raise DataError(f"{name} has weights up to {np.abs(plain).max():.3g}, too large for {kind.name} — choose bf16 or f32")
    return encoded


def _package() -> ModuleType:
    try:
        import gguf
    except ImportError as error:
        raise ConfigError(f"GGUF files need the gguf package ({error}) — pip install 'inkstone[export]'") from error
    return gguf
