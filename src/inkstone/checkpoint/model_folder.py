"""Model folders: a trained model with its tokenizer, in Hugging Face's layout where it has a class for the model."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inkstone.base.errors import CheckpointError, ConfigError, DataError
from inkstone.base.log import warn
from inkstone.checkpoint.huggingface import (
    find_architecture,
    from_huggingface,
    native_shapes,
    read_model_config,
    refuse_code,
    to_huggingface,
    validate_config,
)
from inkstone.checkpoint.manifest import verify_folder
from inkstone.checkpoint.matching import require_match, shapes_of
from inkstone.checkpoint.packed import packed_layout, read_scheme, require_codes, section_of
from inkstone.checkpoint.publish import publish_folder
from inkstone.checkpoint.store import STATE_NAME, checkpoint_folders, verify_checkpoint
from inkstone.checkpoint.tensors import describe_nonfinite, nonfinite_counts
from inkstone.checkpoint.weights import (
    WEIGHTS_NAME,
    has_manifest,
    read_json,
    read_weights,
    refuse_pickle,
    weight_files,
    write_weights,
)
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.quant.apply import make_room, pack_model, scheme_of
from inkstone.text.special import IM_END
from inkstone.text.tokenizer import Tokenizer

CONFIG_NAME, GENERATION_NAME = "config.json", "generation_config.json"
TOKENIZER_NAMES = ("tokenizer.json", "tokenizer_config.json")
NATIVE_TYPE = "inkstone"


@dataclass(frozen=True)
class StoredModel:
    """What a model folder holds: tensors under our names, in the dtypes they are stored in, mostly mapped from the files."""

    folder: Path
    config: ModelConfig
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer
    scheme: str | None = None  # what the matrices are packed in; None = weights in float


def save_model(folder: Path, model: Transformer, tokenizer: Tokenizer, generation: dict[str, Any] | None = None) -> None:
    """Publish a model as a folder that we, and mostly others too, can load; a folder that stands there is replaced at once.

    A packed model is saved as it is, in a folder that only we load. `generation` holds sampling defaults (temperature, top_p, …)
    for generation_config.json.

    Raises: DataError (a weight is NaN or infinite), ConfigError (the tokenizer does not fit), ResourceError (disk).
    """
    stored = StoredModel(Path(folder), model.config, _plain_state(model), tokenizer, scheme_of(model))
    save_stored(folder, stored, generation)


def save_stored(
    folder: Path, stored: StoredModel, generation: dict[str, Any] | None = None, *, max_shard_bytes: int | None = None,
    extra_files: Mapping[str, bytes] | None = None,
) -> None:  # fmt: skip
    """Publish tensors as `save_model` does a model, each in its own dtype.

    `max_shard_bytes` cuts the weights into several files with an index; None writes one. `extra_files` stand beside (a card, …).

    Raises: as `save_model`.
    """
    config, state, tokenizer = stored.config, stored.tensors, stored.tokenizer
    counts = nonfinite_counts(state)
    if counts:
        raise DataError(f"model {folder} not written: NaN or infinite values in {describe_nonfinite(counts)}")
    if tokenizer.vocab_size > config.vocab_size:
        raise ConfigError(f"the tokenizer has {tokenizer.vocab_size:,} tokens, the model's vocab_size is {config.vocab_size:,}")
    if stored.scheme is not None:
        config_json, tensors = native_config(config) | section_of(stored.scheme), state
    elif find_architecture(config):
        config_json, tensors = to_huggingface(config, state)
        config_json |= {"bos_token_id": tokenizer.eos_id, "eos_token_id": tokenizer.eos_id}
    else:
        config_json, tensors = native_config(config), state
    files = _text_files(config_json, config, tokenizer) | {GENERATION_NAME: _encode(_generation(tokenizer, generation or {}))}
    files |= extra_files or {}

    def write(temporary: Path) -> None:
        write_weights(temporary, tensors, max_shard_bytes)
        for name, content in files.items():
            (temporary / name).write_bytes(content)

    publish_folder(Path(folder), write)


def load_model(
    path: Path, *, device: str = "cpu", dtype: torch.dtype | None = None, scheme: str | None = None, packed: bool = True
) -> tuple[Transformer, Tokenizer]:
    """Return a model in evaluation mode and its tokenizer.

    `path` is a run (best, else final, else its newest checkpoint that verifies), a checkpoint, or a Hugging Face-style folder.
    `dtype` is that of parameters and arithmetic; None is float32. `scheme` (int8, int4) packs the weights on the way; a folder that
    is packed gives packed modules anyhow, and is refused without `packed`.

    Raises: CheckpointError (damaged, foreign or unsupported), ConfigError (packed in another scheme), ResourceError (memory, disk).
    """
    stored = read_model(path, packed=packed)
    if scheme is None or stored.scheme == scheme:
        return _build(stored, device, dtype or torch.float32), stored.tokenizer
    model = _build(stored, device, torch.float32)
    pack_model(model, scheme)
    model.compute_dtype = dtype or torch.float32
    return model.to(model.compute_dtype), stored.tokenizer


def read_model(path: Path, *, packed: bool = False) -> StoredModel:
    """Return what `load_model` would load, as it is stored: for programs that pass the weights on.

    Raises: as `load_model`; CheckpointError for packed weights, unless the caller can use them and says so with `packed`.
    """
    stored = _read_first_sound(path)
    if stored.scheme is not None and not packed:
        raise CheckpointError(
            f"the weights in {stored.folder} are packed ({stored.scheme}): they can be run, but not trained, converted or exported"
            " — give the model that they were made from"
        )
    return stored


def _read_first_sound(path: Path) -> StoredModel:
    candidates = list(_candidates(Path(path)))
    for folder in candidates[:-1]:
        try:
            return _read_folder(folder)
        except CheckpointError as error:
            warn(f"MODEL SKIPPED: {error}\nfalling back from {folder.name} to an older model of this run; the bad one is kept")
    return _read_folder(candidates[-1])


def native_config(config: ModelConfig) -> dict[str, Any]:
    """Return the config.json of a folder with our own tensor names."""
    return {"model_type": NATIVE_TYPE, "architectures": ["Transformer"], "model": config.model_dump(mode="json")}


def checkpoint_files(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, bytes]:
    """Return the extra files that make a checkpoint, whose `model` tensors have our own names, a model folder by itself."""
    return _text_files(native_config(config), config, tokenizer)


def _candidates(path: Path) -> Iterator[Path]:
    """Yield the folders to try, best first; at least one.

    Raises: CheckpointError when nothing there looks like a model.
    """
    if not path.is_dir():
        refuse_pickle(path)
        raise CheckpointError(f"no model at {path}: expected a folder, found {'a file' if path.exists() else 'nothing'}")
    if (path / CONFIG_NAME).exists():
        yield path
        return
    folders = [path / name for name in ("best", "final") if (path / name).is_dir()]
    folders += [folder for _, folder in reversed(checkpoint_folders(path))]
    if not folders:
        refuse_pickle(path)
        raise CheckpointError(f"no model in {path}: expected {CONFIG_NAME} (a model folder), or best, final or checkpoints (a run)")
    yield from folders


def _read_folder(folder: Path) -> StoredModel:
    _verify(folder)
    config_json = read_json(folder, CONFIG_NAME)
    refuse_code(config_json, CONFIG_NAME)
    is_native = config_json.get("model_type") == NATIVE_TYPE
    config = _read_native_config(config_json) if is_native else read_model_config(config_json)
    scheme = read_scheme(config_json, is_native=is_native)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > config.vocab_size:
        sizes = f"{tokenizer.vocab_size:,} tokens, and the model's vocab_size is {config.vocab_size:,}"
        raise CheckpointError(f"the tokenizer in {folder} has {sizes} — it belongs to another model")
    if scheme is not None:
        return StoredModel(folder, config, _read_packed(folder, config, scheme), tokenizer, scheme)
    tensors = read_weights(folder)
    if is_native:
        require_match(native_shapes(config), shapes_of(tensors), f"this model ({folder})")
    else:
        config, tensors = from_huggingface(config_json, tensors)
    return StoredModel(folder, config, tensors, tokenizer)


def _read_packed(folder: Path, config: ModelConfig, scheme: str) -> dict[str, Tensor]:
    shapes, dtypes = packed_layout(config, scheme)
    tensors = read_weights(folder, dtypes)
    require_match(shapes, shapes_of(tensors), f"this {scheme} model ({folder})")
    require_codes(tensors, scheme)
    return tensors


def _verify(folder: Path) -> None:
    """Check the hashes of the files that will be used; a folder that is not ours has no manifest."""
    if (folder / STATE_NAME).exists():
        verify_checkpoint(folder, only={CONFIG_NAME, WEIGHTS_NAME, *TOKENIZER_NAMES})
    elif has_manifest(folder):
        verify_folder(folder, only={CONFIG_NAME, *weight_files(folder), *TOKENIZER_NAMES})


def _read_native_config(config_json: dict[str, Any]) -> ModelConfig:
    values = config_json.get("model")
    if not isinstance(values, dict):
        raise CheckpointError(f"{CONFIG_NAME} of type {NATIVE_TYPE} has no 'model' section")
    return validate_config(values)


def _build(stored: StoredModel, device: str, dtype: torch.dtype) -> Transformer:
    """Return the model around copies of the tensors, so that it outlives the files; no weight is drawn first."""
    with torch.device("meta"):
        model = Transformer(stored.config, compute_dtype=dtype)
        if stored.scheme is not None:
            make_room(model, stored.scheme)
    is_cast = {name for name, _ in model.named_parameters()}  # codes and scales keep the dtypes of their scheme
    copies = {
        name: tensor.to(device=device, dtype=dtype if name in is_cast else None, copy=True)
        for name, tensor in stored.tensors.items()
    }
    model.load_state_dict(copies, strict=True, assign=True)
    return model.requires_grad_(True).eval()


def _plain_state(model: Transformer) -> dict[str, Tensor]:
    """Return the state dict without the prefix that torch.compile adds."""
    return {name.removeprefix("_orig_mod."): tensor for name, tensor in model.state_dict().items()}


def _text_files(config_json: dict[str, Any], config: ModelConfig, tokenizer: Tokenizer) -> dict[str, bytes]:
    tokenizer_files = tokenizer.files()
    about = json.loads(tokenizer_files["tokenizer_config.json"]) | {"model_max_length": config.context}
    return {CONFIG_NAME: _encode(config_json), **tokenizer_files, "tokenizer_config.json": _encode(about)}


def _generation(tokenizer: Tokenizer, given: dict[str, Any]) -> dict[str, Any]:
    ends = [tokenizer.eos_id, *([tokenizer.special[IM_END]] if IM_END in tokenizer.special else [])]
    eos = ends if len(ends) > 1 else ends[0]
    return {"do_sample": True, "eos_token_id": eos, "pad_token_id": tokenizer.pad_id, **given}


def _encode(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
