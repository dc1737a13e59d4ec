"""Laws over the optimizer family: every parameter in one group, a quadratic goes down, a saved state continues bit-equal."""

import pytest
import safetensors.torch
import torch
from torch import nn

from inkstone.base.errors import CheckpointError
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.optim.config import OptimSettings
from inkstone.optim.muon import Muon
from inkstone.optim.optimizers import OPTIMIZERS, OptimizerSet

torch.set_num_threads(1)
TINY = {"num_layers": 2, "num_heads": 2, "width": 8, "ffn_width": 12, "vocab_size": 11, "context": 8}
MODELS = {
    "modern": {},
    "gpt": {"preset": "gpt"},
    "post": {"preset": "gpt1"},
    "everything": {"ngram_buckets": 5, "value_residual": True, "attention_gate": True, "bias": True, "position": "learned",
                   "tie_embeddings": False, "num_kv_heads": 1},
}  # fmt: skip


class Toy(nn.Module):
    """One parameter of each sort: a table, a hidden matrix, a vector."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed = nn.Parameter(torch.randn(6, 4, generator=generator))
        self.blocks = nn.ParameterList([torch.randn(4, 5, generator=generator), torch.randn(5, generator=generator)])
        self.goal = {name: torch.randn(p.shape, generator=generator) for name, p in self.named_parameters()}

    def loss(self):
        return sum((p - self.goal[name]).square().sum() for name, p in self.named_parameters())


def model_of(name):
    return Transformer(ModelConfig(**TINY | MODELS[name]), seed=1)


def run(model, optimizer, steps, first=0):
    """Take steps with gradients that depend on the weights and the step."""
    for number in range(first, first + steps):
        optimizer.zero_grad()
        for index, p in enumerate(optimizer.parameters):
            noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(1000 * number + index))
            p.grad = p.detach() + noise
        optimizer.step(1.0 / (1 + number))


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_parameter_is_in_exactly_one_group(kind, model):
    model = model_of(model)
    optimizer = OptimizerSet(model, OptimSettings(kind=kind))
    owned = [p for one in optimizer.optimizers for group in one.param_groups for p in group["params"]]
    assert sorted(map(id, owned)) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_frozen_parameters_are_in_no_group_and_stay(kind):
    model = model_of("gpt")
    model.embed.weight.requires_grad_(False)
    before = weights(model)
    optimizer = OptimizerSet(model, OptimSettings(kind=kind))
    run(model, optimizer, 1)
    same = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert same == {"embed.weight"}


@pytest.mark.parametrize("kept", ["embed.", "blocks.0.mlp.up.weight", "final_norm."])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_model_of_which_only_one_sort_is_trained_has_an_optimizer(kind, kept):
    model = model_of("gpt")
    for name, p in model.named_parameters():
        p.requires_grad_(name.startswith(kept))
    optimizer = OptimizerSet(model, OptimSettings(kind=kind))
    before = weights(model)
    run(model, optimizer, 1)
    assert {n for n, p in model.named_parameters() if not torch.equal(p, before[n])} == {n for n in before if n.startswith(kept)}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_vectors_do_not_decay_and_matrices_do(kind, model):
    model = model_of(model)
    optimizer = OptimizerSet(model, OptimSettings(kind=kind, weight_decay=0.3))
    for one in optimizer.optimizers:
        for group in one.param_groups:
            for p in group["params"]:
                assert group["weight_decay"] == (0.3 if p.ndim == 2 else 0.0)


@pytest.mark.parametrize("model", MODELS)
def test_muon_has_the_blocks_matrices_and_nothing_else(model):
    model = model_of(model)
    first, *rest = OptimizerSet(model, OptimSettings(kind="muon", lr=0.01, matrix_lr_factor=3.0)).optimizers
    assert isinstance(first, Muon)
    assert not any(isinstance(one, Muon) for one in rest)
    (group,) = first.param_groups
    expected = {id(p) for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2}
    assert {id(p) for p in group["params"]} == expected
    assert group["lr"] == pytest.approx(0.03)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_quadratic_goes_down(kind):
    toy = Toy()
    lr = {"sgd": 0.02, "adagrad": 0.3}.get(kind, 0.05)
    optimizer = OptimizerSet(toy, OptimSettings(kind=kind, lr=lr, weight_decay=0.0, momentum=0.5))
    start = float(toy.loss().detach())
    for _ in range(100):
        optimizer.zero_grad()
        toy.loss().backward()
        optimizer.step(1.0)
    assert float(toy.loss().detach()) < 0.05 * start


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_saved_state_continues_bit_equal(kind, momentum, tmp_path):
    settings = OptimSettings(kind=kind, momentum=momentum)
    model = model_of("everything")
    optimizer = OptimizerSet(model, settings)
    run(model, optimizer, 3)
    # Through a file, because a file gives the tensors back in another order.
    safetensors.torch.save_file({key: value.contiguous() for key, value in optimizer.state_tensors().items()}, tmp_path / "o")
    other = model_of("everything")
    other.load_state_dict(weights(model))
    resumed = OptimizerSet(other, settings)
    resumed.load_state_tensors(safetensors.torch.load_file(tmp_path / "o"))
    run(model, optimizer, 3, first=3)
    run(other, resumed, 3, first=3)
    found, expected = weights(other), weights(model)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    state = optimizer.state_tensors()
    assert state.keys() == resumed.state_tensors().keys()
    assert all(torch.equal(value, resumed.state_tensors()[key]) for key, value in state.items())


def test_a_loaded_state_is_a_copy():
    model = model_of("modern")
    optimizer = OptimizerSet(model, OptimSettings(kind="adamw"))
    run(model, optimizer, 1)
    saved = {key: value.clone() for key, value in optimizer.state_tensors().items()}
    kept = {key: value.clone() for key, value in saved.items()}
    optimizer.load_state_tensors(saved)
    run(model, optimizer, 1)
    assert all(torch.equal(saved[key], kept[key]) for key in kept)


@pytest.mark.parametrize(
    ("name", "value"),
    [("blocks.9.w/exp_avg", torch.zeros(3)), ("exp_avg", torch.zeros(3)), ("embed.weight/exp_avg", torch.zeros(11, 9))],
)
def test_a_foreign_state_is_refused(name, value):
    optimizer = OptimizerSet(model_of("modern"), OptimSettings(kind="adamw"))
    with pytest.raises(CheckpointError, match="another model"):
        optimizer.load_state_tensors({name: value})


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_state_that_is_not_whole_is_refused_and_nothing_is_loaded(kind, momentum):
    settings = OptimSettings(kind=kind, momentum=momentum)
    optimizer, fresh = (OptimizerSet(model_of("modern"), settings) for _ in range(2))
    run(model_of("modern"), optimizer, 1)
    whole = optimizer.state_tensors()
    empty = fresh.state_tensors()
    assert bool(whole) is (kind != "sgd" or momentum > 0)
    for name in {key.rpartition("/")[0] for key in whole}:
        with pytest.raises(CheckpointError, match=f"'{name}' is missing"):
            fresh.load_state_tensors({key: value for key, value in whole.items() if key.rpartition("/")[0] != name})
    if kind in ("adamw", "adam", "adagrad"):
        with pytest.raises(CheckpointError, match="another kind"):
            fresh.load_state_tensors({key: value for key, value in whole.items() if not key.endswith("/step")})
    assert fresh.state_tensors().keys() == empty.keys()
    fresh.load_state_tensors(whole)
    assert fresh.state_tensors().keys() == whole.keys()


@pytest.mark.parametrize(
    ("saved", "loaded"), [("adamw", "sgd"), ("sgd", "adamw"), ("muon", "adamw"), ("adamw", "muon"), ("adagrad", "adam")]
)
def test_a_state_of_another_kind_is_refused(saved, loaded):
    model = model_of("modern")
    optimizer = OptimizerSet(model, OptimSettings(kind=saved))
    run(model, optimizer, 1)
    with pytest.raises(CheckpointError, match="another kind of optimizer"):
        OptimizerSet(model, OptimSettings(kind=loaded)).load_state_tensors(optimizer.state_tensors())


@pytest.mark.parametrize("model", MODELS)
def test_after_one_real_step_every_parameter_has_its_state(model):
    """What the refusal above takes for granted: no switch of the model leaves a parameter without a gradient."""
    model = model_of(model)
    optimizer = OptimizerSet(model, OptimSettings(kind="adamw"))
    model.logits(model(torch.arange(8).reshape(1, 8))).square().sum().backward()
    optimizer.step(1.0)
    assert {key.rpartition("/")[0] for key in optimizer.state_tensors()} == {name for name, _ in model.named_parameters()}


def test_the_factor_multiplies_each_peak_and_does_not_add_up():
    model = model_of("modern")
    optimizer = OptimizerSet(model, OptimSettings(kind="muon", lr=0.01, matrix_lr_factor=2.0))
    for factor in (0.5, 0.1, 1.0):
        optimizer.step(factor)
        assert [group["lr"] for one in optimizer.optimizers for group in one.param_groups] == pytest.approx(
            [0.02 * factor, 0.01 * factor, 0.01 * factor]
        )


def test_a_factor_of_zero_changes_nothing():
    for kind in OPTIMIZERS:
        toy = Toy()
        before = weights(toy)
        optimizer = OptimizerSet(toy, OptimSettings(kind=kind))
        toy.loss().backward()
        optimizer.step(0.0)
        assert all(torch.equal(p, before[name]) for name, p in toy.named_parameters()), kind


def slow_update(kind, weight, grad, state, number, *, lr, decay, settings):
    """The four textbook rules, in float64. Sources: Kingma and Ba 2015; Loshchilov and Hutter 2019; Duchi et al. 2011; Polyak 1964."""
    if kind != "adamw":
        grad = grad + decay * weight
    if kind == "sgd":
        state["m"] = settings.momentum * state["m"] + grad if "m" in state else grad
        return weight - lr * state["m"]
    if kind == "adagrad":
        state["v"] = state.get("v", 0.0) + grad**2
        return weight - lr * grad / (state["v"].sqrt() + settings.eps)
    state["m"] = settings.beta1 * state.get("m", 0.0) + (1 - settings.beta1) * grad
    state["v"] = settings.beta2 * state.get("v", 0.0) + (1 - settings.beta2) * grad**2
    if kind == "adamw":
        weight = weight * (1 - lr * decay)
    m, v = state["m"] / (1 - settings.beta1**number), state["v"] / (1 - settings.beta2**number)
    return weight - lr * m / (v.sqrt() + settings.eps)


@pytest.mark.parametrize("kind", ["adamw", "adam", "adagrad", "sgd"])
def test_updates_equal_the_textbook(kind):
    settings = OptimSettings(kind=kind, lr=0.03, weight_decay=0.2, beta1=0.8, beta2=0.9, momentum=0.7, eps=1e-6)
    toy = Toy()
    optimizer = OptimizerSet(toy, settings)
    expected = {name: p.detach().double() for name, p in toy.named_parameters()}
    states = {name: {} for name in expected}
    for number in range(1, 6):
        lr_factor = 1 / number
        optimizer.zero_grad()
        toy.loss().backward()
        for name, p in toy.named_parameters():
            decay = 0.2 if p.ndim == 2 else 0.0
            expected[name] = slow_update(
                kind, expected[name], p.grad.double(), states[name], number, lr=0.03 * lr_factor, decay=decay, settings=settings
            )
        optimizer.step(lr_factor)
        for name, p in toy.named_parameters():
            torch.testing.assert_close(p.detach().double(), expected[name], atol=1e-5, rtol=1e-5)
            expected[name] = p.detach().double()


def test_zero_grad_frees_every_gradient():
    toy = Toy()
    optimizer = OptimizerSet(toy, OptimSettings())
    toy.loss().backward()
    optimizer.zero_grad()
    assert all(p.grad is None for p in toy.parameters())
