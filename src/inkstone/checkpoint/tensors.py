"""Tensor files: safetensors in and out, with every check that must come before a weight is used."""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from inkstone.base.errors import CheckpointError, ResourceError

MAX_TENSORS = 65_536
MAX_HEADER_BYTES = 16 * 2**20
SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class TensorInfo:
    """What a file's header says of one tensor; `dtype` is safetensors' name of it, as in "F32"."""

    shape: tuple[int, ...]
    dtype: str


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors to one safetensors file, readable like any other file. It is not flushed to the disk here.

    Raises: OSError (the disk is full, …).
    """
    try:
        save_file(_separate(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error), str(path)) from error
    path.chmod(0o644)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return name → shape and dtype without reading a weight.

    Raises: CheckpointError (not a safetensors file, duplicate names, too many tensors), ResourceError (cannot be read).
    """
    try:
        with path.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
            if not 2 <= length <= MAX_HEADER_BYTES:
                size = path.stat().st_size
                raise CheckpointError(
                    f"{path} ({size:,} bytes) is not a safetensors file, or its header is over {MAX_HEADER_BYTES:,} bytes"
                )
            header = json.loads(stream.read(length), object_pairs_hook=_without_duplicates)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a valid safetensors file: {error}") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path} is not a valid safetensors file: its header is a JSON {type(header).__name__}")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise CheckpointError(f"{path} holds {len(header):,} tensors; at most {MAX_TENSORS:,} are read")
    try:
        return {name: TensorInfo(tuple(entry["shape"]), str(entry["dtype"])) for name, entry in header.items()}
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is not a valid safetensors file: an entry has no shape or dtype") from error


def read_tensors(path: Path, *, device: str = "cpu", mmap: bool = True) -> dict[str, Tensor]:
    """Return every tensor of a safetensors file.

    With `mmap` they are views of the file that are read when touched; do not truncate the file while they live.

    Raises: CheckpointError (see `read_header`), ResourceError (cannot be read).
    """
    read_header(path)
    try:
        tensors = load_file(path, device=device)
        return tensors if mmap else {name: tensor.clone() for name, tensor in tensors.items()}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a valid safetensors file: {error}") from error
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror or error}") from error


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes the tensors take in a file, headers aside."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def nonfinite_counts(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return name → number of NaN and infinite elements, for the tensors that have any."""
    return {name: _count_nonfinite(tensor) for name, tensor in tensors.items() if not _is_finite(tensor)}


def describe_nonfinite(counts: Mapping[str, int]) -> str:
    """Return a short list such as `a (3 elements), b (1 element), and 2 more`."""
    shown = [f"{name} ({count:,} element{'s' if count > 1 else ''})" for name, count in list(counts.items())[:SHOWN_PROBLEMS]]
    return ", ".join(shown) + (f", and {len(counts) - len(shown)} more" if len(counts) > len(shown) else "")


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.numel() == 0 or tensor.is_meta:
        return True
    low, high = torch.aminmax(
        tensor.detach() if tensor.element_size() > 1 else tensor.detach().float()
    )  # no copy; NaN spreads into both
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _count_nonfinite(tensor: Tensor) -> int:
    return int((~torch.isfinite(tensor.detach().float())).sum())


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return CPU tensors that are contiguous and share no memory, which is what the format can hold."""
    separate, seen = {}, set()
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        place = plain.untyped_storage().data_ptr()
        if plain.numel() and (place in seen or plain.untyped_storage().nbytes() != plain.numel() * plain.element_size()):
            plain = plain.clone()
            place = plain.untyped_storage().data_ptr()
        seen.add(place)
        separate[name] = plain
    return separate


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs as a dict; the safetensors library would silently take the last of two tensors of one name."""
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1}) if len(names) < MAX_TENSORS else []
        raise ValueError(f"it names a tensor twice: {', '.join(twice[:SHOWN_PROBLEMS])}")
    return values
