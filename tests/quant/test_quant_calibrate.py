"""Calibration: the moments are sums by hand, the result packs to itself, and the outputs on the text are closer than without."""

import copy

import pytest
import torch

from inkstone.base.errors import ConfigError
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.quant.apply import dense_state, pack_model
from inkstone.quant.calibrate import calibrate, feed_errors, input_moments
from inkstone.quant.divergence import divergence
from inkstone.quant.schemes import SCHEMES

torch.set_num_threads(1)
INT4 = SCHEMES["int4"]


def make(**changes):
    config = ModelConfig(vocab_size=50, context=16, **{"num_layers": 2, "num_heads": 2, "width": 64} | changes)
    model = Transformer(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def drawn(rows=64, seed=0):
    return torch.randint(50, (rows, 16), generator=torch.Generator().manual_seed(seed))


def correlated(num=500, width=96):
    """Inputs of which a few directions hold most, as in trained models."""
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(width, width, generator=generator) * torch.logspace(0, -2, width)
    return torch.randn(num, width, generator=generator) @ mix.T


def rounded(matrix):
    return INT4.unpack(*INT4.pack(matrix))


def test_feeding_errors_leaves_outputs_closer_than_rounding():
    x, matrix = correlated(), torch.randn(40, 96)
    moments = (x.T @ x / len(x)).double()
    fed = feed_errors(matrix, moments, INT4)
    errors = [(x @ (other - matrix).T).square().mean() for other in (fed, rounded(matrix))]
    assert errors[0] < 0.5 * errors[1]
    assert torch.equal(rounded(fed), fed)


def test_with_inputs_that_do_not_go_together_it_is_plain_rounding():
    """No later column can make up for an earlier one, so that each is rounded by itself."""
    matrix = torch.randn(7, 64)
    assert torch.equal(feed_errors(matrix, torch.eye(64, dtype=torch.float64), INT4), rounded(matrix))
    assert torch.equal(feed_errors(matrix, torch.zeros(64, 64, dtype=torch.float64), INT4), rounded(matrix))
    assert torch.equal(feed_errors(torch.zeros(3, 32), torch.eye(32).double(), INT4), torch.zeros(3, 32))


def test_inputs_that_never_occur_do_no_harm():
    x = correlated()
    x[:, 5:40] = 0
    matrix = torch.randn(10, 96)
    fed = feed_errors(matrix, (x.T @ x / len(x)).double(), INT4)
    assert torch.isfinite(fed).all() and torch.equal(rounded(fed), fed)


@pytest.mark.parametrize("tied", [True, False])
def test_moments_are_the_mean_products_of_the_inputs(tied):
    model, rows = make(tie_embeddings=tied), [drawn(3), drawn(2, seed=1)]
    seen = []
    hook = model.blocks[1].mlp.up.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        hidden = [model(ids).flatten(0, 1) for ids in rows]
    hook.remove()
    found = input_moments(model, rows)
    for name, x in {
        "blocks.1.mlp.up": torch.cat([s.flatten(0, 1) for s in seen]),
        "embed" if tied else "head": torch.cat(hidden),
    }.items():
        by_hand = sum(torch.outer(row, row).double() for row in x) / len(x)
        assert torch.allclose(found[name], by_hand, rtol=1e-4, atol=1e-6), name
    assert len(found) == 9
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": False}, {"ffn_width": 80}])
def test_a_calibrated_model_is_closer_to_the_original(changes):
    model, text = make(**changes), [drawn()]
    plain, better = copy.deepcopy(model), copy.deepcopy(model)
    calibrate(better, "int4", text)
    kls = []
    for packed in (plain, better):
        calibrated = copy.deepcopy(packed.state_dict())
        report = pack_model(packed, "int4")
        unpacked = Transformer(model.config).eval()
        unpacked.load_state_dict(dense_state(packed))
        kls.append(divergence(model, unpacked, [drawn(seed=9)]).kl)
    assert kls[1] < 0.9 * kls[0]
    kept = [name for name in report.packed if model.head is None or name != "embed"]
    assert all(torch.equal(dense_state(packed)[f"{name}.weight"], calibrated[f"{name}.weight"]) for name in kept)
    untouched = [f"{name}.weight" for name in report.left] + ["final_norm.weight"]
    assert all(torch.equal(calibrated[name], model.state_dict()[name]) for name in untouched)


def test_what_is_so_fine_is_not_calibrated():
    with pytest.raises(ConfigError, match="int8 loses next to nothing"):
        calibrate(make(), "int8", [drawn(1)])
