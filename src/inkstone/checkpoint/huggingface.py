"""Exchange with Hugging Face: config.json and tensors, both ways, for the classes in `architectures`."""

import re
from collections.abc import Mapping

import pydantic
import torch
from torch import Tensor

from inkstone.base.errors import CheckpointError, ConfigError
from inkstone.base.family import nearest
from inkstone.checkpoint.architectures import ARCHITECTURES, Architecture, Json
from inkstone.checkpoint.matching import Shapes, require_match, shapes_of
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer

_REFUSED_KEYS = ("auto_map", "_attn_implementation_internal", "quantization_config", "custom_pipelines")
_BUFFERS = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)|.*\.rotary_emb\.inv_freq")  # constants in old files


def find_architecture(config: ModelConfig) -> Architecture | None:
    """Return the class that computes exactly this model, or None."""
    return next((one for one in ARCHITECTURES.rows.values() if not one.obstacles(config)), None)


def require_architecture(config: ModelConfig) -> Architecture:
    """Return the class that computes exactly this model.

    Raises: ConfigError that names the switches in the way.
    """
    architecture = find_architecture(config)
    if architecture is None:
        closest = min(
            ARCHITECTURES.rows.values(),
            key=lambda one: (len(one.obstacles(config)), one.switches["norm_place"] != config.norm_place),
        )
        obstacles = "; ".join(closest.obstacles(config))
        raise ConfigError(f"no Hugging Face class computes this model; {closest.class_name} is closest: {obstacles}")
    return architecture


def to_huggingface(config: ModelConfig, state_dict: Mapping[str, Tensor]) -> tuple[Json, dict[str, Tensor]]:
    """Return (config.json, tensors) of the Hugging Face class that computes exactly this model.

    Raises: ConfigError that names the switches in the way.
    """
    architecture = require_architecture(config)
    tensors: dict[str, Tensor] = {}
    for rule in architecture.rules(config):
        tensors |= rule.export(state_dict[rule.ours])
    dtype = str(state_dict["embed.weight"].dtype).removeprefix("torch.")
    head = {"architectures": [architecture.class_name], "model_type": architecture.model_type, "dtype": dtype}
    common = {"vocab_size": config.vocab_size, "tie_word_embeddings": config.tie_embeddings}
    return head | common | architecture.write_config(config), tensors


def read_model_config(config_json: Json) -> ModelConfig:
    """Return our config from a config.json, before anything is allocated.

    Raises: CheckpointError (unknown architecture, code in the config, a switch we do not have, impossible sizes).
    """
    refuse_code(config_json, "config.json")
    architecture = _architecture_of(config_json)
    try:
        common = {"vocab_size": config_json["vocab_size"], "tie_embeddings": _is_tied(config_json, architecture)}
        switches = {field: wanted for field, wanted in architecture.switches.items() if not isinstance(wanted, tuple)}
        return validate_config(switches | common | architecture.read_config(config_json))
    except KeyError as error:
        raise CheckpointError(f"config.json of a {architecture.model_type} model has no {error}") from error
    except TypeError as error:
        raise CheckpointError(f"config.json: a value has the wrong type ({error})") from error


def validate_config(values: Json) -> ModelConfig:
    """Return the config of a model that is read from a file.

    Raises: CheckpointError with every problem, one a line.
    """
    if not isinstance(values.get("vocab_size"), int) or values["vocab_size"] < 1:
        raise CheckpointError(f"config.json: vocab_size must be a positive number, found {values.get('vocab_size')!r:.40}")
    try:
        return ModelConfig.model_validate(values)
    except pydantic.ValidationError as error:
        found = [(".".join(map(str, one["loc"])), one) for one in error.errors()]
        lines = [f"config.json: {path + ': ' if path else ''}{one['msg']}, found {str(one['input'])[:60]}" for path, one in found]
        raise CheckpointError("\n".join(lines)) from error


def refuse_code(config_json: Json, name: str) -> None:
    """Refuse a config that asks for code of its own, or for weights that are not plain numbers.

    Raises: CheckpointError.
    """
    for key in _REFUSED_KEYS:
        if config_json.get(key):
            raise CheckpointError(f"{name} has '{key}': custom code and quantized weights are not supported — export plain weights")


def from_huggingface(config_json: Json, tensors: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Return (our config, our state dict); names and shapes must be exactly those of the class.

    Raises: CheckpointError.
    """
    config = read_model_config(config_json)
    architecture = _architecture_of(config_json)
    tensors = _normalized(tensors, architecture, config)
    require_match(huggingface_shapes(config), shapes_of(tensors), architecture.class_name)
    return config, {rule.ours: rule.load(tensors) for rule in architecture.rules(config)}


def native_shapes(config: ModelConfig) -> Shapes:
    """Return the name and shape of every tensor of this model; nothing is allocated."""
    with torch.device("meta"):
        return shapes_of(Transformer(config).state_dict())


def huggingface_shapes(config: ModelConfig) -> Shapes:
    """Return the name and shape of every tensor in the Hugging Face form of this model; nothing is allocated."""
    meta = {name: torch.empty(shape, device="meta") for name, shape in native_shapes(config).items()}
    return shapes_of(to_huggingface(config, meta)[1])


def _architecture_of(config_json: Json) -> Architecture:
    model_type = config_json.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        known = f"{nearest(str(model_type), ARCHITECTURES)} (supported: {', '.join(ARCHITECTURES)}, inkstone)"
        raise CheckpointError(f"config.json: unknown model_type {str(model_type)[:60]!r}{known}")
    architecture = ARCHITECTURES[model_type]
    named = config_json.get("architectures") or [architecture.class_name]
    if named != [architecture.class_name]:
        only = f"of {model_type} only {architecture.class_name} is supported"
        raise CheckpointError(f"config.json: architectures is {str(named)[:80]}, and {only}")
    return architecture


def _is_tied(config_json: Json, architecture: Architecture) -> bool:
    return bool(config_json.get("tie_word_embeddings", architecture.model_type != "qwen3"))  # each class's own default


def _normalized(tensors: Mapping[str, Tensor], architecture: Architecture, config: ModelConfig) -> dict[str, Tensor]:
    """Return the tensors without constants and tied copies, with the prefix that a file of the bare model lacks."""
    kept = {name: tensor for name, tensor in tensors.items() if not _BUFFERS.fullmatch(name)}
    if kept and not any(name.startswith(architecture.prefix) for name in kept):
        kept = {name if name == "lm_head.weight" else architecture.prefix + name: tensor for name, tensor in kept.items()}
    if config.tie_embeddings and "lm_head.weight" in kept:
        embedding = kept.get(next(architecture.rules(config)).theirs[0])
        if embedding is None or not torch.equal(embedding, kept["lm_head.weight"]):
            raise CheckpointError("lm_head.weight differs from the embedding, and config.json ties them (tie_word_embeddings)")
        del kept["lm_head.weight"]
    return kept
