"""Each initialization draws what its formula says, the same again from the same seed."""

import math

import pytest
import torch

from inkstone.nn.config import ModelConfig
from inkstone.nn.functional import linear_cross_entropy
from inkstone.nn.init import INITIALIZATIONS
from inkstone.nn.transformer import Transformer

torch.set_num_threads(1)
LAYERS, WIDTH, FFN = 3, 96, 320
SIZES = {"num_layers": LAYERS, "width": WIDTH, "ffn_width": FFN, "num_heads": 4, "vocab_size": 500, "context": 64, "ngram_buckets": 200,
         "position": "learned", "tie_embeddings": False, "attention_gate": True, "bias": True}  # fmt: skip


def build(init, **changes):
    return Transformer(ModelConfig(init=init, **SIZES | changes), seed=3)


def expected_std(init, name):
    """The three formulas, written out name by name."""
    is_table = name in ("embed.weight", "position.weight", "head.weight")
    fan_in = FFN if name.endswith("mlp.down.weight") else WIDTH
    writes_residual = name.endswith(("attn.out.weight", "mlp.down.weight"))
    if init == "gpt2":
        return 0.02 / math.sqrt(2 * LAYERS) if writes_residual else 0.02
    if init == "modern":
        return 0.0 if writes_residual or name == "ngram.weight" else 0.02 if is_table else 1 / math.sqrt(fan_in)
    return 0.02 if is_table or name == "ngram.weight" else math.sqrt(2 / fan_in)


@pytest.mark.parametrize("init", INITIALIZATIONS)
def test_matrices_have_the_formulas_spread(init):
    model = build(init)
    matrices = {name: p.detach() for name, p in model.named_parameters() if p.ndim == 2}
    assert len(matrices) == 4 + 5 * LAYERS
    for name, weight in matrices.items():
        std = expected_std(init, name)
        assert float(weight.std()) == pytest.approx(std, rel=6 / math.sqrt(2 * weight.numel()), abs=0), name
        assert abs(float(weight.mean())) <= 6 * std / math.sqrt(weight.numel()), name


def test_the_articles_formula_is_root_two_over_the_inputs():
    weight = build("article").state_dict()["blocks.0.mlp.down.weight"]
    assert float(weight.std()) == pytest.approx((2 / FFN) ** 0.5, rel=0.02)


@pytest.mark.parametrize("init", INITIALIZATIONS)
def test_vectors_start_neutral(init):
    for name, p in build(init, value_residual=True).named_parameters():
        if p.ndim < 2:
            assert set(p.unique().tolist()) == {1.0 if name.endswith("weight") else 0.5 if name.endswith("value_mix") else 0.0}, (
                name
            )


@pytest.mark.parametrize("init", INITIALIZATIONS)
def test_a_seed_decides_every_weight(init):
    first, second = build(init).state_dict(), build(init).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = Transformer(ModelConfig(init=init, **SIZES), seed=4).state_dict()
    assert not torch.equal(first["embed.weight"], other["embed.weight"])


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_every_seed_a_run_derives_is_accepted(seed):
    Transformer(ModelConfig(num_layers=1, width=8, num_heads=1, vocab_size=5), seed=seed)


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": True}, {"norm_place": "post"}, {"norm": "layernorm"}])
@pytest.mark.parametrize("init", INITIALIZATIONS)
def test_a_fresh_model_knows_nothing(init, changes):
    model = build(init, **changes).eval()
    tokens = torch.randint(500, (4, 64), generator=torch.Generator().manual_seed(0))
    targets = torch.randint(500, (4, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        total, _ = linear_cross_entropy(model(tokens).flatten(0, 1), model.head_weight, targets.flatten())
    assert float(total) / 256 == pytest.approx(math.log(500), abs=0.15)
