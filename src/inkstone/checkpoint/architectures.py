"""The architectures that Hugging Face has a class for: switches, config keys and tensor names, as data.

A rule ties one of our tensors to one or several of theirs. Rotary halves, QK-norm and the order of q, k and v already agree, so no
rule permutes anything; GPT-2's `Conv1D` keeps its weights as (in, out), which is our (out, in) transposed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inkstone.base.errors import CheckpointError
from inkstone.base.family import Family
from inkstone.nn.config import ModelConfig

Json = dict[str, Any]
_GPT_ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu2": "relu2"}
_COMMON = {"attention_gate": False, "value_residual": False, "ngram_buckets": 0, "logit_softcap": 0.0}
_GPT = _COMMON | {"norm": "layernorm", "position": "learned", "bias": True, "qk_norm": False, "window": 0}
_QWEN3 = _COMMON | {
    "norm": "rmsnorm",
    "norm_place": "pre",
    "position": "rope",
    "bias": False,
    "qk_norm": True,
    "activation": "swiglu",
}


@dataclass(frozen=True)
class Rule:
    """Our tensor `ours` is their `theirs`, one above the other (`rows` each), transposed when theirs is a Conv1D."""

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    transposed: bool = False

    def export(self, tensor: Tensor) -> dict[str, Tensor]:
        """Return their tensors from ours (views where possible)."""
        parts = tensor.split(list(self.rows)) if self.rows else (tensor,)
        return {name: part.t() if self.transposed else part for name, part in zip(self.theirs, parts, strict=True)}

    def load(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return our tensor from theirs."""
        parts = [tensors[name] for name in self.theirs]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        return joined.t().contiguous() if self.transposed else joined


@dataclass(frozen=True)
class Architecture:
    """One Hugging Face class: which of our switches it has, its config keys, and its rules."""

    class_name: str
    model_type: str
    prefix: str
    switches: Mapping[str, object]  # field → the one value it must have, or a tuple of possible values
    write_config: Callable[[ModelConfig], Json]
    read_config: Callable[[Json], Json]
    rules: Callable[[ModelConfig], Iterator[Rule]]

    def obstacles(self, config: ModelConfig) -> list[str]:
        """Return the switches of `config` that the class does not have, as `bias is False, must be True`."""
        found = switch_obstacles(self.switches, config)
        heads = (config.num_kv_heads, config.head_width * config.num_heads)
        if self.model_type != "qwen3" and heads != (config.num_heads, config.width):
            found.append("num_kv_heads and head_width are set, must follow from num_heads and width")
        if self.model_type == "openai-gpt" and config.ffn_width != 4 * config.width:
            found.append(f"ffn_width is {config.ffn_width}, must be 4 x width = {4 * config.width}")
        return found


def switch_obstacles(switches: Mapping[str, object], config: ModelConfig) -> list[str]:
    """Return which fields of `config` have another value than `switches` (one value, or a tuple of possible ones) says."""
    found = []
    for field, wanted in switches.items():
        values = wanted if isinstance(wanted, tuple) else (wanted,)
        if getattr(config, field) not in values:
            found.append(f"{field} is {getattr(config, field)!r}, must be {' or '.join(map(repr, values))}")
    return found


def _require(config_json: Json, class_name: str, **neutral: object) -> None:
    """Refuse a config key that changes the computation and has another value than the one our model computes."""
    for key, wanted in neutral.items():
        found = config_json.get(key, wanted)
        if found != wanted:
            raise CheckpointError(f"config.json: {key} is {found!r:.60}, and of {class_name} only {wanted!r} is supported")


def _write_gpt2(config: ModelConfig) -> Json:
    return _write_gpt(config) | {"n_inner": config.ffn_width, "activation_function": _GPT_ACTIVATIONS[config.activation]}


def _write_openai_gpt(config: ModelConfig) -> Json:
    return _write_gpt(config) | {"afn": "gelu"}


def _write_gpt(config: ModelConfig) -> Json:
    return {
        "n_embd": config.width, "n_layer": config.num_layers, "n_head": config.num_heads, "n_positions": config.context,
        "layer_norm_epsilon": config.norm_eps, "embd_pdrop": config.dropout, "resid_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
    }  # fmt: skip


def _read_gpt2(config_json: Json) -> Json:
    neutral = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False}
    _require(config_json, "GPT2LMHeadModel", **neutral)
    named = config_json.get("activation_function", "gelu_new")
    ours = {theirs: ours for ours, theirs in _GPT_ACTIVATIONS.items()} | {"gelu_pytorch_tanh": "gelu_tanh"}
    if named not in ours:
        raise CheckpointError(f"config.json: activation_function is {named!r:.60} (supported: {', '.join(ours)})")
    return {"preset": "gpt", **_read_gpt(config_json), "activation": ours[named], "ffn_width": config_json.get("n_inner") or 0}


def _read_openai_gpt(config_json: Json) -> Json:
    _require(config_json, "OpenAIGPTLMHeadModel", afn="gelu")
    return {"preset": "gpt1", **_read_gpt(config_json), "activation": "gelu_tanh", "ffn_width": 0}


def _read_gpt(config_json: Json) -> Json:
    return {
        "width": config_json["n_embd"], "num_layers": config_json["n_layer"], "num_heads": config_json["n_head"],
        "context": config_json["n_positions"], "norm_eps": config_json.get("layer_norm_epsilon", 1e-5),
        "dropout": config_json.get("resid_pdrop", 0.1), "attention_dropout": config_json.get("attn_pdrop", 0.1),
    }  # fmt: skip


def _write_qwen3(config: ModelConfig) -> Json:
    windows = [config.layer_window(layer) for layer in range(config.num_layers)]
    return {
        "hidden_size": config.width, "intermediate_size": config.ffn_width, "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads, "num_key_value_heads": config.num_kv_heads, "head_dim": config.head_width,
        "max_position_embeddings": config.context, "rms_norm_eps": config.norm_eps, "hidden_act": "silu", "attention_bias": False,
        "attention_dropout": config.attention_dropout, "rope_theta": config.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_base},
        "use_sliding_window": bool(config.window), "sliding_window": config.window or None,
        "layer_types": ["sliding_attention" if window else "full_attention" for window in windows],
    }  # fmt: skip


def _read_qwen3(config_json: Json) -> Json:
    _require(config_json, "Qwen3ForCausalLM", hidden_act="silu", attention_bias=False, rope_scaling=None)
    rope = config_json.get("rope_parameters") or {"rope_theta": config_json.get("rope_theta", 10000.0)}
    if not isinstance(rope, dict) or rope.get("rope_type", "default") != "default":
        raise CheckpointError(f"config.json: rope_parameters is {rope!r:.80}, and only rope_type 'default' is supported")
    return {
        "preset": "modern", "width": config_json["hidden_size"], "ffn_width": config_json["intermediate_size"],
        "num_layers": config_json["num_hidden_layers"], "num_heads": config_json["num_attention_heads"],
        "num_kv_heads": config_json.get("num_key_value_heads") or 0, "head_width": config_json.get("head_dim", 128) or 0,
        "context": config_json["max_position_embeddings"], "norm_eps": config_json.get("rms_norm_eps", 1e-6),
        "rope_base": rope.get("rope_theta", 10000.0), "attention_dropout": config_json.get("attention_dropout", 0.0),
        **_read_windows(config_json),
    }  # fmt: skip


def _read_windows(config_json: Json) -> Json:
    """Return window and full_every; only "every n-th layer is full" can be said here."""
    num_layers, kinds = config_json["num_hidden_layers"], config_json.get("layer_types")
    if not config_json.get("use_sliding_window"):
        if kinds and set(kinds) != {"full_attention"}:
            raise CheckpointError("config.json: layer_types has other layers than full_attention, and use_sliding_window is off")
        return {"window": 0, "full_every": 0}
    if not isinstance(kinds, list) or len(kinds) != num_layers:
        raise CheckpointError("config.json: use_sliding_window needs layer_types, one for each layer")
    full = [layer for layer, kind in enumerate(kinds) if kind == "full_attention"]
    full_every = full[0] + 1 if full else 0
    if full != [layer for layer in range(num_layers) if full_every and (layer + 1) % full_every == 0]:
        raise CheckpointError("config.json: layer_types must be full_attention at every n-th layer, or nowhere")
    return {"window": config_json.get("sliding_window") or 0, "full_every": full_every}


def _gpt_rules(config: ModelConfig, *, embedding: str, position: str) -> Iterator[Rule]:
    yield Rule("embed.weight", (f"transformer.{embedding}.weight",))
    yield Rule("position.weight", (f"transformer.{position}.weight",))
    parts = {"attn_norm": "ln_1", "attn.qkv": "attn.c_attn", "attn.out": "attn.c_proj", "mlp_norm": "ln_2", "mlp.up": "mlp.c_fc",
             "mlp.down": "mlp.c_proj"}  # fmt: skip
    for layer in range(config.num_layers):
        for ours, theirs in parts.items():
            prefix = f"transformer.h.{layer}.{theirs}"
            yield Rule(f"blocks.{layer}.{ours}.weight", (f"{prefix}.weight",), transposed="norm" not in ours)
            yield Rule(f"blocks.{layer}.{ours}.bias", (f"{prefix}.bias",))
    if config.norm_place == "pre":
        yield Rule("final_norm.weight", ("transformer.ln_f.weight",))
        yield Rule("final_norm.bias", ("transformer.ln_f.bias",))
    if not config.tie_embeddings:
        yield Rule("head.weight", ("lm_head.weight",))


def _gpt2_rules(config: ModelConfig) -> Iterator[Rule]:
    return _gpt_rules(config, embedding="wte", position="wpe")


def _openai_gpt_rules(config: ModelConfig) -> Iterator[Rule]:
    return _gpt_rules(config, embedding="tokens_embed", position="positions_embed")


def _qwen3_rules(config: ModelConfig) -> Iterator[Rule]:
    q_rows, kv_rows = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    yield Rule("embed.weight", ("model.embed_tokens.weight",))
    for layer in range(config.num_layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        qkv = tuple(f"{theirs}.self_attn.{part}_proj.weight" for part in "qkv")
        yield Rule(f"{ours}.attn_norm.weight", (f"{theirs}.input_layernorm.weight",))
        yield Rule(f"{ours}.attn.qkv.weight", qkv, rows=(q_rows, kv_rows, kv_rows))
        yield Rule(f"{ours}.attn.q_norm.weight", (f"{theirs}.self_attn.q_norm.weight",))
        yield Rule(f"{ours}.attn.k_norm.weight", (f"{theirs}.self_attn.k_norm.weight",))
        yield Rule(f"{ours}.attn.out.weight", (f"{theirs}.self_attn.o_proj.weight",))
        yield Rule(f"{ours}.mlp_norm.weight", (f"{theirs}.post_attention_layernorm.weight",))
        gate_up = (f"{theirs}.mlp.gate_proj.weight", f"{theirs}.mlp.up_proj.weight")
        yield Rule(f"{ours}.mlp.up.weight", gate_up, rows=(config.ffn_width, config.ffn_width))
        yield Rule(f"{ours}.mlp.down.weight", (f"{theirs}.mlp.down_proj.weight",))
    yield Rule("final_norm.weight", ("model.norm.weight",))
    if not config.tie_embeddings:
        yield Rule("head.weight", ("lm_head.weight",))


ARCHITECTURES: Family[Architecture] = Family(
    "architecture",
    {
        "gpt2": Architecture(
            "GPT2LMHeadModel", "gpt2", "transformer.", _GPT | {"norm_place": "pre", "activation": tuple(_GPT_ACTIVATIONS)},
            _write_gpt2, _read_gpt2, _gpt2_rules,
        ),
        "openai-gpt": Architecture(
            "OpenAIGPTLMHeadModel", "openai-gpt", "transformer.", _GPT | {"norm_place": "post", "activation": "gelu_tanh"},
            _write_openai_gpt, _read_openai_gpt, _openai_gpt_rules,
        ),
        "qwen3": Architecture(
            "Qwen3ForCausalLM", "qwen3", "model.",
            _QWEN3 | {"activation": "swiglu"}, _write_qwen3, _read_qwen3, _qwen3_rules,
        ),
    },
)  # fmt: skip
