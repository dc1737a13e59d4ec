"""Models to other programs and back: what stands at a path is written as a Hugging Face folder or a GGUF file, or becomes a run."""

import dataclasses
import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from inkstone.base.errors import CheckpointError, ConfigError
from inkstone.base.files import MANIFEST_NAME, explain_os_errors, fsync_file, fsync_folder, write_json
from inkstone.base.folders import swap_in, sweep, temporary_folder
from inkstone.base.quantity import format_count
from inkstone.checkpoint.gguf import MAGIC, stored_type, write_gguf
from inkstone.checkpoint.huggingface import find_architecture, require_architecture
from inkstone.checkpoint.model_folder import CONFIG_NAME, GENERATION_NAME, StoredModel, read_model, save_stored
from inkstone.checkpoint.store import SUFFIX
from inkstone.checkpoint.tensors import read_header
from inkstone.checkpoint.weights import read_json

CARD_NAME, NOTE_NAME = "README.md", "import.json"
MAX_CARD_BYTES = 1_000_000
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_PARTS_OF_A_RUN = ("best", "final", "checkpoints")
_STALE_KEYS = ("transformers_version", "_from_model_config")


def export_huggingface(
    source: Path, out: Path, *, dtype: str | None = None, max_shard_bytes: int | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Write the model at `source` as a folder that transformers loads, and return its figures.

    `dtype` is a name of `DTYPES`; None keeps every tensor as it is stored, bit for bit.

    Raises: ConfigError (no class computes this model, `out` is there), CheckpointError (the source is damaged), DataError (a weight
    is too large for the dtype), ResourceError (memory, disk).
    """
    check_folder(out, source, _is_model_folder, overwrite=overwrite)
    stored = read_model(source)
    architecture = require_architecture(stored.config)
    if dtype:
        stored = _cast(stored, DTYPES[dtype])
    card = _card_of(source, stored)
    extra = {} if card is None else {CARD_NAME: card}
    save_stored(out, stored, generation_of(stored), max_shard_bytes=max_shard_bytes, extra_files=extra)
    return _figures(out, stored) | {"format": "hf", "architecture": architecture.class_name, "source": str(stored.folder)}


def export_gguf(source: Path, out: Path, *, type_name: str | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Write the model at `source` as a GGUF file and return its figures; `type_name` None loses nothing.

    Raises: as `export_huggingface` and `write_gguf`.
    """
    _check_file(out, overwrite=overwrite)
    stored = read_model(source)
    chosen = type_name or stored_type(stored)
    tensors = write_gguf(out, stored, type_name=chosen, name=_name_of(source))
    return {
        "path": str(out), "bytes": out.stat().st_size, "tensors": tensors, "format": "gguf", "type": chosen,
        "source": str(stored.folder),
    }  # fmt: skip


def import_folder(source: Path, out: Path, *, is_chat: bool = False, overwrite: bool = False) -> dict[str, Any]:
    """Make a run folder of a Hugging Face-style folder and return its figures; every weight keeps its dtype and its bits.

    `is_chat` says that the model answers in ChatML. The run has `final/`, a card and a note of where it came from.

    Raises: as `load_model`; ConfigError when `out` is there.
    """
    check_folder(out, source, lambda folder: (folder / NOTE_NAME).is_file(), overwrite=overwrite)
    stored = _without_float64(read_model(source))
    generation = generation_of(stored) | ({"chat": True} if is_chat else {})
    note = _note(source, stored)
    target = out.absolute()
    with explain_os_errors(str(target)), temporary_folder(target) as temporary:
        save_stored(temporary / "final", stored, generation)
        write_json(temporary / NOTE_NAME, note)
        (temporary / CARD_NAME).write_text(_import_card(out.absolute().name, note), encoding="utf-8")
        fsync_file(temporary / CARD_NAME)
        fsync_folder(temporary)
        swap_in(temporary, target)
    return _figures(out / "final", stored) | note | {"path": str(out)}


def check_folder(out: Path, source: Path, is_ours: Callable[[Path], bool], *, overwrite: bool) -> None:
    """Refuse an output folder that is there, or that `--overwrite` must not replace. Raises: ConfigError."""
    _sweep(out)
    if source.exists() and (out.resolve() == source.resolve() or out.resolve() in source.resolve().parents):
        raise ConfigError(f"--out {out} holds the model that is read — choose another folder")
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise ConfigError(f"--out {out} is a file, expected a folder to make")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise ConfigError(f"--out {out} already exists — choose another folder, or pass --overwrite")
    if not is_ours(out) or out.name in _PARTS_OF_A_RUN:
        raise ConfigError(f"--out {out} was not made by this command, so --overwrite does not touch it — choose another folder")


def _check_file(out: Path, *, overwrite: bool) -> None:
    """Refuse an output file that is there, or that `--overwrite` must not replace. Raises: ConfigError."""
    _sweep(out)
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder, expected a file to make, as in {out / 'model.gguf'}")
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise ConfigError(f"--out {out} already exists — choose another name, or pass --overwrite")
    with explain_os_errors(str(out)):
        is_gguf = out.is_file() and out.open("rb").read(len(MAGIC)) == MAGIC
    if not is_gguf:
        raise ConfigError(f"--out {out} is no GGUF file, so --overwrite does not touch it — choose another name")


def _sweep(out: Path) -> None:
    """Remove what dead processes left half-made for `out`."""
    with explain_os_errors(str(out)):
        sweep(out.absolute().parent, only=out.name)


def _is_model_folder(folder: Path) -> bool:
    return (folder / MANIFEST_NAME).is_file() and (folder / CONFIG_NAME).is_file()


def _cast(stored: StoredModel, dtype: torch.dtype) -> StoredModel:
    tensors = {name: tensor.to(dtype) for name, tensor in stored.tensors.items()}
    return dataclasses.replace(stored, tensors=tensors)


def _without_float64(stored: StoredModel) -> StoredModel:
    tensors = {name: tensor.float() if tensor.dtype == torch.float64 else tensor for name, tensor in stored.tensors.items()}
    return dataclasses.replace(stored, tensors=tensors)


def generation_of(stored: StoredModel) -> dict[str, Any]:
    """Return the source's generation_config.json without what is stale, and without end tokens that its vocabulary lacks."""
    if not (stored.folder / GENERATION_NAME).is_file():
        return {}
    found = read_json(stored.folder, GENERATION_NAME)
    given = {key: value for key, value in found.items() if key not in _STALE_KEYS and not key.endswith("_token_id")}
    ends = found.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    if ends and all(type(index) is int and 0 <= index < stored.tokenizer.vocab_size for index in ends):
        given["eos_token_id"] = ends if len(ends) > 1 else ends[0]
    _require_json(given, stored.folder / GENERATION_NAME)
    _require_json(stored.tokenizer.config(), stored.folder / "tokenizer_config.json")
    return given


def _require_json(value: dict[str, Any], path: Path) -> None:
    """Refuse what Python reads from JSON but no JSON can say again: NaN, infinity, half a character."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise CheckpointError(f"{path} holds a value that is not JSON: {error}") from error


def _card_of(source: Path, stored: StoredModel) -> bytes | None:
    """Return the card of the model's folder or of its run, where there is one of a sensible size."""
    for folder in (stored.folder, source):
        path = folder / CARD_NAME
        if path.is_file() and path.stat().st_size <= MAX_CARD_BYTES:
            return path.read_bytes()
    return None


def _name_of(source: Path) -> str:
    folder = source.absolute()
    return folder.parent.name if folder.name in _PARTS_OF_A_RUN else folder.name


def _note(source: Path, stored: StoredModel) -> dict[str, Any]:
    architecture = find_architecture(stored.config)
    return {
        "source": str(source.absolute()),
        "architecture": architecture.class_name if architecture else "Transformer",
        "num_params": sum(tensor.numel() for tensor in stored.tensors.values()),
        "dtype": _dtypes(stored),
        "tokenizer": stored.tokenizer.fingerprint,
        "inkstone": version("inkstone"),
    }


def _import_card(name: str, note: dict[str, Any]) -> str:
    return (
        "---\npipeline_tag: text-generation\ntags:\n- inkstone\n- gpt\n---\n\n"
        f"# {name}\n\n"
        f"A {note['architecture']} with {format_count(note['num_params'])} parameters ({note['dtype']}), imported with Inkstone from\n\n"
        f"    {note['source']}\n\n"
        "It was trained by others: what it may be used for is said there.\n\n"
        '## Use\n\n```\ninkstone generate RUN --prompt "…"\n```\n\n`RUN` is this folder.\n'
    )


def _figures(folder: Path, stored: StoredModel) -> dict[str, Any]:
    files = [path for path in folder.iterdir() if path.suffix == SUFFIX]
    return {
        "path": str(folder),
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "files": len(files),
        "tensors": sum(len(read_header(path)) for path in files),
        "dtype": _dtypes(stored),
    }


def _dtypes(stored: StoredModel) -> str:
    return "/".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in stored.tensors.values()}))
