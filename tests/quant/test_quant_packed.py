"""Packed modules compute what float ones with the unpacked weights compute, and whole models too."""

import pytest
import torch
from torch.nn import functional as F

from inkstone.base.errors import ConfigError
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.quant.apply import dense_state, make_room, pack_model, packed_weights, scheme_of
from inkstone.quant.packed import PackedEmbedding, PackedLinear, PackedWeight
from inkstone.quant.schemes import SCHEMES

torch.set_num_threads(1)
NAMES = list(SCHEMES)
MODELS = {
    "modern": {"depth": 1},
    "gpt, with biases and positions": {"preset": "gpt", "num_layers": 2, "num_heads": 2, "width": 32},
    "untied": {"depth": 1, "tie_embeddings": False},
    "every switch": {
        "num_layers": 2, "num_heads": 2, "width": 64, "attention_gate": True, "value_residual": True, "ngram_buckets": 50,
        "logit_softcap": 15.0, "tie_embeddings": False,
    },
    "after the sum": {"preset": "gpt1", "num_layers": 1, "num_heads": 2, "width": 32},
}  # fmt: skip


def make(kind="modern", seed=0):
    config = ModelConfig(vocab_size=70, context=16, **MODELS[kind])
    model = Transformer(config, seed=seed).eval().requires_grad_(False)
    for parameter in model.parameters():  # nothing at its neutral start
        parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def logits(model, rows=2, time=12):
    ids = torch.randint(model.config.vocab_size, (rows, time), generator=torch.Generator().manual_seed(5))
    return model.logits(model(ids))


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_packed_linear_is_a_linear_with_the_unpacked_weight(name, with_bias):
    bias = torch.nn.Parameter(torch.randn(5)) if with_bias else None
    linear = PackedLinear(name, 5, 64, bias=bias)
    linear.fill(torch.randn(5, 64))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = torch.randn(2, 3, 64, dtype=dtype)
        expected = F.linear(x, linear.dequantize(dtype), None if bias is None else bias.to(dtype))
        assert linear(x).dtype == dtype and torch.equal(linear(x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_packed_embedding_gives_rows_and_logits_of_one_matrix(name):
    embedding = PackedEmbedding(name, 9, 32)
    embedding.fill(torch.randn(9, 32))
    ids, hidden = torch.tensor([[0, 8, 8], [4, 2, 0]]), torch.randn(2, 32)
    assert torch.equal(embedding(ids), F.embedding(ids, embedding.dequantize()))
    assert torch.equal(embedding.project(hidden), hidden @ embedding.dequantize().T)
    assert embedding.rows(ids, torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", NAMES)
def test_a_packed_models_logits_are_those_of_the_unpacked_weights(name, kind):
    packed = make(kind)
    before = logits(packed)
    report = pack_model(packed, name)
    assert scheme_of(packed) == report.scheme == name and report.left == ()
    plain = Transformer(packed.config).eval().requires_grad_(False)
    plain.load_state_dict(dense_state(packed))
    assert torch.equal(logits(packed), logits(plain))
    assert torch.equal(packed.head_weight, plain.head_weight)
    assert 0 < (logits(packed) - before).abs().max() < before.abs().max() / 2
    assert scheme_of(plain) is None


@pytest.mark.parametrize("kind", MODELS)
def test_everything_but_the_matrices_stays_as_it_was(kind):
    packed, plain = make(kind), make(kind)
    report = pack_model(packed, "int4")
    assert {name for name, _ in packed_weights(packed)} == set(report.packed)
    kept = dict(packed.named_parameters())
    expected = {name: p for name, p in plain.named_parameters() if name.removesuffix(".weight") not in report.packed}
    assert kept.keys() == expected.keys() and all(torch.equal(kept[name], expected[name]) for name in kept)
    total = sum(p.numel() for p in plain.parameters())
    assert report.share_left == pytest.approx(sum(p.numel() for p in expected.values()) / total)
    assert not any("norm" in name or "position" in name or "ngram" in name for name in report.packed)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_whose_inputs_are_no_multiple_of_32_stays_and_is_named(name):
    model = Transformer(
        ModelConfig(vocab_size=50, context=8, num_layers=1, num_heads=2, width=32, ffn_width=48, tie_embeddings=False)
    )
    report = pack_model(model.eval(), name)
    assert report.left == ("blocks.0.mlp.down",)
    assert isinstance(model.blocks[0].mlp.up, PackedLinear) and not isinstance(model.blocks[0].mlp.down, PackedWeight)
    assert torch.isfinite(logits(model)).all()


@pytest.mark.parametrize("name", NAMES)
def test_room_has_the_names_shapes_and_dtypes_of_a_packed_model(name):
    packed = make("every switch")
    pack_model(packed, name)
    with torch.device("meta"):
        room = Transformer(packed.config)
        make_room(room, name)
    facts = [{key: (t.shape, t.dtype) for key, t in model.state_dict().items()} for model in (packed, room)]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("name", NAMES)
def test_casting_the_model_leaves_the_format_alone(name):
    model = make()
    pack_model(model, name)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.to(torch.float64).to(torch.bfloat16).half().float()
    for key, _ in packed_weights(model):
        for part in ("weight", "weight_scale"):
            found = model.state_dict()[f"{key}.{part}"]
            assert found.dtype == before[f"{key}.{part}"].dtype and torch.equal(found, before[f"{key}.{part}"])


def test_packing_twice_and_an_unknown_scheme_are_refused():
    model = make()
    with pytest.raises(ConfigError, match="unknown quantization scheme 'int2'"):
        pack_model(model, "int2")
    assert scheme_of(model) is None
    pack_model(model, "int8")
    with pytest.raises(ConfigError, match=r"packed already \(int8\)"):
        pack_model(model, "int4")


@pytest.mark.parametrize("name", NAMES)
def test_a_tied_head_is_one_matrix(name):
    model = make()
    pack_model(model, name)
    assert model.head is None
    assert [key for key, tensor in model.state_dict().items() if tensor.shape[0] == 70] == ["embed.weight", "embed.weight_scale"]
