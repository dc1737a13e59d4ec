"""Which models can be exported, and how those that cannot are told so. The oracle tests stand in tests/reference."""

import pytest
import torch

from inkstone.base.errors import ConfigError
from inkstone.checkpoint.architectures import ARCHITECTURES
from inkstone.checkpoint.huggingface import find_architecture, from_huggingface, huggingface_shapes, native_shapes, to_huggingface
from inkstone.nn.config import PRESETS, ModelConfig

SMALL = {"vocab_size": 30, "num_layers": 1, "num_heads": 2, "width": 8, "context": 6}
CLASSES = {"modern": "qwen3", "article": None, "gpt1": "openai-gpt"}


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_has_its_class(preset):
    architecture = find_architecture(ModelConfig(preset=preset, vocab_size=100))
    assert (architecture and architecture.model_type) == CLASSES.get(preset, "gpt2")


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"attention_gate": True}, "attention_gate is True, must be False"),
        ({"value_residual": True}, "value_residual"),
        ({"ngram_buckets": 5}, "ngram_buckets is 5, must be 0"),
        ({"logit_softcap": 30.0}, "logit_softcap"),
        ({"qk_norm": False}, "qk_norm is False, must be True"),
        ({"activation": "relu2"}, "activation is 'relu2'"),
        ({"position": "none"}, "position is 'none', must be 'rope'"),
        ({"bias": True}, "bias is True"),
        ({"preset": "gpt", "bias": False}, "GPT2LMHeadModel is closest: bias is False, must be True"),
        ({"preset": "gpt", "num_kv_heads": 1}, "num_kv_heads and head_width"),
        ({"preset": "gpt", "window": 3}, "window is 3"),
        ({"preset": "gpt1", "ffn_width": 9}, "ffn_width is 9, must be 4 x width = 32"),
        ({"preset": "gpt1", "activation": "gelu"}, "activation is 'gelu', must be 'gelu_tanh'"),
        ({"attention_gate": True, "logit_softcap": 1.0}, "attention_gate.*; logit_softcap"),
    ],
)
def test_what_cannot_be_exported_names_the_switches(changes, named):
    with pytest.raises(ConfigError, match=named):
        to_huggingface(ModelConfig(**SMALL | changes), {})


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "article"])
@pytest.mark.parametrize("tied", [True, False])
def test_rules_cover_every_tensor_of_the_model_once(preset, tied):
    config = ModelConfig(preset=preset, **SMALL | {"tie_embeddings": tied, "num_layers": 2})
    rules = list(find_architecture(config).rules(config))
    assert sorted(rule.ours for rule in rules) == sorted(native_shapes(config))
    theirs = [name for rule in rules for name in rule.theirs]
    assert len(theirs) == len(set(theirs)) and set(theirs) == set(huggingface_shapes(config))


def test_conv1d_weights_are_transposed_and_split_rows_keep_their_order():
    gpt = ModelConfig(preset="gpt", **SMALL)
    assert huggingface_shapes(gpt)["transformer.h.0.attn.c_attn.weight"] == (8, 24)
    modern = ModelConfig(**SMALL | {"num_kv_heads": 1})
    state = {name: torch.arange(torch.Size(shape).numel()).view(shape) for name, shape in native_shapes(modern).items()}
    config_json, tensors = to_huggingface(modern, state)
    qkv = state["blocks.0.attn.qkv.weight"]
    for part, rows in (("q", slice(0, 8)), ("k", slice(8, 12)), ("v", slice(12, 16))):
        assert torch.equal(tensors[f"model.layers.0.self_attn.{part}_proj.weight"], qkv[rows])
    up = state["blocks.0.mlp.up.weight"]
    assert torch.equal(tensors["model.layers.0.mlp.gate_proj.weight"], up[: modern.ffn_width])
    _, back = from_huggingface(config_json, tensors)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_an_impossible_size_allocates_nothing():
    shapes = native_shapes(ModelConfig(vocab_size=2**24, num_layers=1, num_heads=64, width=65536, context=64))
    assert shapes["embed.weight"] == (2**24, 65536)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_defaults_of_the_class_fill_absent_keys(model_type):
    preset = {"gpt2": "gpt", "openai-gpt": "gpt1", "qwen3": "modern"}[model_type]
    config = ModelConfig(
        preset=preset, **SMALL | {"head_width": 128 if preset == "modern" else 0, "tie_embeddings": preset != "modern"}
    )
    state = {name: torch.ones(shape) for name, shape in native_shapes(config).items()}
    config_json, tensors = to_huggingface(config, state)
    optional = ("tie_word_embeddings", "layer_norm_epsilon", "rms_norm_eps", "rope_parameters", "rope_theta", "head_dim", "n_inner", "dtype",
                "activation_function", "afn", "hidden_act", "attention_bias", "use_sliding_window", "layer_types", "architectures")  # fmt: skip
    lean = {key: value for key, value in config_json.items() if key not in optional}
    assert from_huggingface(lean, tensors)[0] == from_huggingface(config_json, tensors)[0]
