"""The weights of a model folder: one safetensors file or several with an index, every name confined to the folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from inkstone.base.errors import CheckpointError, ResourceError
from inkstone.base.files import MANIFEST_NAME
from inkstone.base.log import say
from inkstone.base.quantity import format_bytes
from inkstone.checkpoint.manifest import confined, is_safe_name
from inkstone.checkpoint.matching import require_dtypes
from inkstone.checkpoint.tensors import (
    MAX_TENSORS,
    describe_nonfinite,
    nonfinite_counts,
    read_header,
    read_tensors,
    tensor_bytes,
    write_tensors,
)
from inkstone.machine import available_memory

WEIGHTS_NAME, INDEX_NAME = "model.safetensors", "model.safetensors.index.json"
PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
MAX_JSON_BYTES = 16 * 2**20


def read_weights(folder: Path, packed: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """Return every tensor of the folder, mapped from the files and not yet read.

    `packed` gives the dtype (safetensors' name) that codes and scales must have; every other tensor is a floating-point weight.

    Raises: CheckpointError (a file is missing or damaged, a weight is no number, pickle), ResourceError (memory).
    """
    placed = weight_files(folder)
    paths = {name: confined(folder, name) for name in placed}
    problems = [f"{path} is missing" for path in paths.values() if not path.is_file()]
    if problems:
        raise CheckpointError("\n".join(problems))
    _require_memory(folder, sum(path.stat().st_size for path in paths.values()))
    tensors: dict[str, Tensor] = {}
    for name, path in paths.items():
        header = read_header(path)
        _require_placed(path, set(header), placed[name])
        dtypes = {tensor: info.dtype for tensor, info in header.items()}
        for name_f64 in require_dtypes(dtypes, packed or {}, str(path))[:1]:
            say(f"{path}: {name_f64} and perhaps others are stored in float64, and are converted")
        tensors |= read_tensors(path)
    counts = nonfinite_counts(tensors)
    if counts:
        raise CheckpointError(f"the weights in {folder} hold NaN or infinite values: {describe_nonfinite(counts)}")
    return tensors


def write_weights(folder: Path, tensors: Mapping[str, Tensor], max_shard_bytes: int | None = None) -> None:
    """Write the tensors to one file, or in their order to several of at most `max_shard_bytes` (a larger tensor gets its own).

    Raises: OSError (the disk is full, …).
    """
    shards = _shards(tensors, max_shard_bytes)
    if len(shards) == 1:
        write_tensors(folder / WEIGHTS_NAME, tensors)
        return
    placed: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_tensors(folder / name, shard)
        placed |= dict.fromkeys(shard, name)
    index = {"metadata": {"total_size": tensor_bytes(tensors)}, "weight_map": placed}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def weight_files(folder: Path) -> dict[str, set[str] | None]:
    """Return each weight file's name with the tensors that the index places in it (None: no index, all of them).

    Raises: CheckpointError (no weights, only pickle files, a damaged index, a name that is not a plain file name).
    """
    if (folder / WEIGHTS_NAME).exists() or not (folder / INDEX_NAME).exists():
        if not (folder / WEIGHTS_NAME).exists():
            refuse_pickle(folder)
            raise CheckpointError(f"{folder} has no weights: expected {WEIGHTS_NAME} or {INDEX_NAME}")
        return {WEIGHTS_NAME: None}
    weight_map = read_json(folder, INDEX_NAME).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or len(weight_map) > MAX_TENSORS:
        raise CheckpointError(f"{folder / INDEX_NAME} has no usable weight_map (1 to {MAX_TENSORS:,} tensors)")
    placed: dict[str, set[str] | None] = {}
    for tensor, name in weight_map.items():
        if not is_safe_name(name) or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{folder / INDEX_NAME} places {tensor} in {str(name)[:80]!r}, which is not a plain .safetensors name;"
                " nothing outside the folder is read"
            )
        held = placed.setdefault(name, set())
        assert held is not None
        held.add(tensor)
    return placed


def refuse_pickle(path: Path) -> None:
    """Refuse a pickle file, or a folder whose weights are only there as pickle; never read one.

    Raises: CheckpointError.
    """
    found = [path] if path.suffix in PICKLE_SUFFIXES else []
    if path.is_dir():
        found = sorted(child for child in path.iterdir() if child.suffix in PICKLE_SUFFIXES)
    if found:
        raise CheckpointError(
            f"{found[0]} is in an unsafe format (a pickle can run code) and is never read"
            " — convert it to safetensors where you trust it, and give that folder"
        )


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file of the folder.

    Raises: CheckpointError (missing, too large, not an object), ResourceError (cannot be read).
    """
    path = confined(folder, name)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_JSON_BYTES:,} bytes")
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror or error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found a {type(value).__name__}")
    return value


def has_manifest(folder: Path) -> bool:
    """Say whether the folder was published by us, so that its files can be verified."""
    return (folder / MANIFEST_NAME).exists()


def _shards(tensors: Mapping[str, Tensor], max_bytes: int | None) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    room = max_bytes
    for name, tensor in tensors.items():
        size = tensor_bytes({name: tensor})
        if room is not None and max_bytes is not None:
            if size > room and shards[-1]:
                shards.append({})
                room = max_bytes
            room -= size
        shards[-1][name] = tensor
    return shards


def _require_placed(path: Path, found: set[str], expected: set[str] | None) -> None:
    if expected is not None and found != expected:
        missing, extra = sorted(expected - found), sorted(found - expected)
        counts = f"{len(missing)} tensors are missing {missing[:5]}, {len(extra)} are not listed {extra[:5]}"
        raise CheckpointError(f"{path} does not hold what {INDEX_NAME} says: {counts}")


def _require_memory(folder: Path, num_bytes: int) -> None:
    available = available_memory()
    if num_bytes > available:
        raise ResourceError(
            f"the weights in {folder} take {format_bytes(num_bytes)}, and {format_bytes(available)} of memory are free"
            " — close other programs or choose a smaller model"
        )
