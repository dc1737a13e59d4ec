"""The cost model: published parameter counts, the built Transformer as an oracle, and memory as autograd really keeps it."""

import pytest
import torch

from inkstone.nn.config import PRESETS, ModelConfig
from inkstone.nn.cost import (
    activation_bytes_per_token,
    cache_bytes_per_token,
    flops_per_token,
    num_params,
    param_counts,
    training_memory,
    ways_to_fit,
)
from inkstone.nn.functional import linear_cross_entropy
from inkstone.nn.transformer import Transformer

torch.set_num_threads(1)
GIB = 2**30
SMALL = {"preset": "modern", "num_layers": 3, "num_heads": 4, "width": 64, "vocab_size": 257, "context": 64}
SWITCHES = [
    {},
    {"num_kv_heads": 2},
    {"num_kv_heads": 1, "head_width": 32},
    {"position": "learned", "bias": True},
    {"position": "sinusoidal", "norm": "layernorm"},
    {"position": "none", "norm": "layernorm", "bias": True, "norm_place": "post"},
    {"activation": "relu2", "qk_norm": False},
    {"activation": "gelu_tanh", "attention_gate": True, "bias": True},
    {"value_residual": True, "ngram_buckets": 100, "tie_embeddings": False},
    {"dropout": 0.2, "window": 16, "full_every": 2},
]


@pytest.mark.parametrize(
    ("preset", "vocab_size", "published"),
    [
        ("gpt1", 40478, 116_534_784),
        ("gpt2", 50257, 124_439_808),
        ("gpt2-medium", 50257, 354_823_168),
        ("gpt2-large", 50257, 774_030_080),
        ("gpt2-xl", 50257, 1_557_611_200),
    ],
)
def test_presets_have_the_published_number_of_parameters(preset, vocab_size, published):
    assert num_params(ModelConfig(preset=preset, vocab_size=vocab_size)) == published


def test_gpt3_has_its_175_billion():
    assert num_params(ModelConfig(preset="gpt3-175b", vocab_size=50257)) == pytest.approx(174.6e9, rel=1e-3)


@pytest.mark.parametrize("changes", SWITCHES, ids=str)
def test_the_count_equals_the_built_model(changes):
    config = ModelConfig(**SMALL | changes)
    model = Transformer(config)
    assert num_params(config) == sum(parameter.numel() for parameter in model.parameters())
    counts = param_counts(config)
    assert counts["embedding"] == model.embed.weight.numel()
    assert counts["feed_forward"] == sum(p.numel() for name, p in model.named_parameters() if ".mlp." in name)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_cost(preset):
    config = ModelConfig(preset=preset, vocab_size=1000)
    assert num_params(config) > 0
    assert flops_per_token(config) > 6 * (num_params(config) - param_counts(config)["position"]) * 0.9


def test_flops_are_six_a_weight_and_attention_by_hand():
    config = ModelConfig(preset="gpt2", vocab_size=50257)
    weights = 12 * 12 * 768**2 + 50257 * 768
    assert flops_per_token(config) == 6 * weights + 12 * 12 * 768 * 1024
    assert flops_per_token(config, context=256) == 6 * weights + 12 * 12 * 768 * 256
    assert flops_per_token(config, training=False) * 3 == flops_per_token(config)


def test_torch_counts_the_same_flops():
    from torch.utils.flop_counter import FlopCounterMode

    config = ModelConfig(**SMALL)
    tokens = torch.zeros(2, 64, dtype=torch.long)
    model = Transformer(config)
    with FlopCounterMode(display=False) as counter:
        model.logits(model(tokens))
    assert counter.get_total_flops() == flops_per_token(config, training=False) * tokens.numel()


def test_a_window_saves_attention_flops_in_its_layers():
    full = ModelConfig(**SMALL)
    windowed = ModelConfig(**SMALL | {"window": 16, "full_every": 3})
    assert flops_per_token(full) - flops_per_token(windowed) == 3 * 4 * 64 * (2 * 48)


def saved_bytes(config: ModelConfig, batch: int, dtype: torch.dtype) -> int:
    """The bytes of all storages that autograd holds between forward and backward, parameters aside."""
    model = Transformer(config, compute_dtype=dtype).train()
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tensor.dim() > 1:
            kept[storage.data_ptr()] = storage
        return tensor

    tokens = torch.randint(config.vocab_size, (batch, config.context))
    model(tokens)  # tables that are made once are not this step's
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model(tokens).flatten(0, 1)
        loss, _ = linear_cross_entropy(hidden, model.head_weight, tokens.flatten())
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "changes", [*SWITCHES, {"context": 640}, {"context": 640, "num_kv_heads": 1}, {"attention_dropout": 0.2}], ids=str
)
def test_activations_are_what_autograd_saves(changes, dtype):
    config = ModelConfig(**SMALL | changes)
    precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
    per_token = (saved_bytes(config, 6, dtype) - saved_bytes(config, 2, dtype)) / (4 * config.context)
    assert activation_bytes_per_token(config, precision=precision) == pytest.approx(per_token, rel=0.12)


def test_optimizer_state_is_two_values_for_adamw_and_less_for_muon_and_sgd():
    config = ModelConfig(**SMALL)
    memory = {kind: training_memory(config, batch_size=1, optimizer=kind) for kind in ("adamw", "muon", "sgd")}
    assert memory["adamw"]["optimizer"] == 8 * num_params(config)
    assert memory["sgd"]["optimizer"] == 4 * num_params(config)
    in_blocks = sum(p.numel() for name, p in Transformer(config).named_parameters() if "blocks" in name and p.dim() == 2)
    assert memory["muon"]["optimizer"] == 8 * num_params(config) - 4 * in_blocks


def test_an_average_of_the_weights_costs_one_more_copy():
    config = ModelConfig(**SMALL)
    with_ema, without = (training_memory(config, batch_size=1, ema=ema)["weights"] for ema in (True, False))
    assert with_ema - without == 4 * num_params(config)


def test_activations_grow_with_the_batch_and_weights_do_not():
    config = ModelConfig(**SMALL)
    one, four = (training_memory(config, batch_size=n) for n in (1, 4))
    assert four["activations"] == 4 * one["activations"]
    assert four["weights"] == one["weights"]


def test_the_logits_of_a_large_vocabulary_never_stand_whole():
    config = ModelConfig(preset="gpt2", vocab_size=50257)
    one, many = (training_memory(config, batch_size=n)["logits"] for n in (8, 64))
    assert one == many < 8 * 1024 * 50257 * 4


def test_the_cache_of_gpt2_and_of_fewer_key_heads():
    assert cache_bytes_per_token(ModelConfig(preset="gpt2", vocab_size=1), precision="fp32") == 2 * 12 * 768 * 4
    config = ModelConfig(**SMALL | {"num_kv_heads": 2})
    cache = Transformer(config).new_cache(1, 10, torch.bfloat16)
    assert cache_bytes_per_token(config) == cache.store.nbytes // 10


@pytest.mark.parametrize(
    ("preset", "batch_size", "budget"), [("gpt2", 64, 16 * GIB), ("gpt2-xl", 8, 24 * GIB), ("gpt3-175b", 1, GIB)]
)
def test_three_ways_to_fit_are_offered(preset, batch_size, budget):
    config = ModelConfig(preset=preset, vocab_size=50257)
    assert sum(training_memory(config, batch_size=batch_size).values()) > budget
    assert len(ways_to_fit(config, budget, batch_size=batch_size)) == 3


def test_the_batch_that_is_offered_fits_and_one_more_does_not():
    config = ModelConfig(preset="gpt2", vocab_size=50257)
    option = ways_to_fit(config, 16 * GIB, batch_size=64)[0]
    rows = int(option.split("--train.batch-size ")[1].split()[0])
    sizes = [sum(training_memory(config, batch_size=n).values()) for n in (rows, rows + 1)]
    assert sizes[0] <= 16 * GIB < sizes[1]
    assert int(option.split("--train.accumulate ")[1]) * rows >= 64
