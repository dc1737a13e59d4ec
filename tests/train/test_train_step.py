"""One update: the same under any split of the batch, refused when not finite, and float16's loss scale."""

import hashlib

import pytest
import torch

from inkstone.data.loader import NO_LOSS, Batch
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.optim.config import OptimSettings
from inkstone.optim.optimizers import OPTIMIZERS, OptimizerSet
from inkstone.train import step as step_module
from inkstone.train.objectives import OBJECTIVES, Loss
from inkstone.train.step import TrainStep

torch.set_num_threads(1)
VOCAB, TIME = 13, 10


def make(kind="adamw", *, clip_norm=0.0, clip_value=0.0, objective=None):
    config = ModelConfig(num_layers=2, num_heads=2, width=16, context=TIME, vocab_size=VOCAB, init="gpt2")
    model = Transformer(config)
    optimizer = OptimizerSet(model, OptimSettings(kind=kind))
    return TrainStep(model, optimizer, objective or OBJECTIVES["lm"], clip_norm=clip_norm, clip_value=clip_value)


def batch(rows, seed=0, ignored=0.2):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB, (rows, TIME + 1), generator=generator)
    targets = ids[:, 1:].clone()
    targets[torch.rand(targets.shape, generator=generator) < ignored] = NO_LOSS
    return Batch(ids[:, :-1].contiguous(), targets, None)


def split(whole, sizes):
    parts = zip(whole.tokens_BT.split(sizes), whole.targets_BT.split(sizes), strict=True)
    return [Batch(tokens.contiguous(), targets.contiguous(), None) for tokens, targets in parts]


def digest(model):
    return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()


def gradients_of(train, batches, monkeypatch):
    seen = {}

    def keep(parameters, **_):
        seen.update({n: p.grad.clone() for n, p in train.model.named_parameters()})
        return 1.0

    monkeypatch.setattr(step_module, "clip_gradients_", keep)
    result = train(batches, 1.0)
    return result, seen


@pytest.mark.parametrize("sizes", [[4, 4], [1] * 8, [1, 7], [2, 5, 1]], ids=str)
def test_accumulated_batches_equal_one(sizes, monkeypatch):
    whole = batch(8)
    expected, expected_grads = gradients_of(make(), [whole], monkeypatch)
    found, grads = gradients_of(make(), split(whole, sizes), monkeypatch)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert (found.num_targets, found.accuracy) == (expected.num_targets, expected.accuracy)
    for name, grad in expected_grads.items():
        torch.testing.assert_close(grads[name], grad, atol=1e-7, rtol=1e-4)


def test_the_gradient_is_that_of_the_mean_over_the_counted_targets(monkeypatch):
    train, whole = make(), batch(4)
    _, grads = gradients_of(train, [whole], monkeypatch)
    model = make().model
    logits = model.logits(model(whole.tokens_BT))
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), whole.targets_BT.flatten(), ignore_index=NO_LOSS).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(grads[name], p.grad, atol=1e-7, rtol=1e-4)


def test_the_figures_are_those_of_the_model_before_the_update():
    train, whole = make(), batch(4)
    with torch.no_grad():
        loss = OBJECTIVES["lm"](train.model, whole)
    result = train([whole], 1.0)
    assert result.loss == pytest.approx(float(loss.total) / int(loss.count))
    assert result.accuracy == int(loss.correct) / int(loss.count)
    assert result.num_targets == int(loss.count) == int((whole.targets_BT >= 0).sum())
    assert result.applied


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_lower_the_loss_and_leave_no_gradient(kind):
    train, whole = make(kind), batch(4)
    first = train([whole], 1.0).loss
    for _ in range(15):
        last = train([whole], 1.0).loss
    assert last < first
    assert all(p.grad is None for p in train.model.parameters())


def test_a_step_trains_even_after_an_evaluation():
    train = make()
    train.model.eval()
    train([batch(2)], 1.0)
    assert train.model.training


def test_the_factor_reaches_the_optimizer():
    train = make()
    before = digest(train.model)
    train([batch(2)], 0.0)
    assert digest(train.model) == before
    train([batch(2)], 1.0)
    assert digest(train.model) != before


@pytest.mark.parametrize("clip", [{"clip_norm": 1e-3}, {"clip_value": 1e-5}])
def test_gradients_are_clipped_and_the_norm_before_is_told(clip):
    plain, clipped = make("sgd"), make("sgd", **clip)
    start = {name: p.detach().clone() for name, p in plain.model.named_parameters()}
    expected = plain([batch(4)], 1.0)
    found = clipped([batch(4)], 1.0)
    assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)

    def moved(train):
        return sum(float((p.detach() - start[name]).square().sum()) for name, p in train.model.named_parameters())

    assert 0 < moved(clipped) < moved(plain)


def test_batches_go_to_the_models_device(monkeypatch):
    moved = []

    def to(self, device):
        moved.append(device)
        return self

    monkeypatch.setattr(Batch, "to", to)
    train = make()
    train(split(batch(2), [1, 1]), 1.0)
    assert moved == [train.model.embed.weight.device] * 2


def test_a_batch_on_a_device_has_all_its_parts_there():
    one = batch(2)
    for documents in (None, torch.zeros(2, TIME, dtype=torch.int32)):
        there = Batch(one.tokens_BT, one.targets_BT, documents).to(torch.device("meta"))
        parts = [there.tokens_BT, there.targets_BT, *([] if documents is None else [there.document_BT])]
        assert all(part.device.type == "meta" for part in parts)
        assert (there.document_BT is None) is (documents is None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_step_on_a_gpu_is_the_step_on_a_processor():
    here, there = make(), make()
    there.model.cuda()
    there.optimizer = OptimizerSet(there.model, OptimSettings(kind="adamw"))
    for seed in range(3):
        assert there([batch(2, seed)], 1.0).loss == pytest.approx(here([batch(2, seed)], 1.0).loss, rel=1e-4)


# What is not finite (reliability R-14)


def spoiled_loss(value):
    def objective(model, one):
        loss = OBJECTIVES["lm"](model, one)
        return Loss(loss.total + value, loss.count, loss.correct)

    return objective


def spoil_gradient(train, value):
    weight = train.model.blocks[1].mlp.up.weight

    def spoil(grad):
        grad = grad.clone()
        grad[0, 0] = value
        return grad

    weight.register_hook(spoil)


@pytest.mark.parametrize("clip", [{}, {"clip_norm": 1.0}, {"clip_value": 0.1}, {"clip_norm": 1.0, "clip_value": 0.1}], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["loss", "gradient", "weight"])
def test_what_is_not_finite_is_refused_and_changes_nothing(where, value, clip):
    train = make(objective=spoiled_loss(value) if where == "loss" else None, **clip)
    if where == "gradient":
        spoil_gradient(train, value)
    if where == "weight":
        with torch.no_grad():
            train.model.blocks[0].mlp.up.weight[0, 0] = value
    before, state = digest(train.model), dict(train.optimizer.state_tensors())
    result = train([batch(2)], 1.0)
    assert result.refused and not result.applied
    assert digest(train.model) == before
    assert train.optimizer.state_tensors().keys() == state.keys()
    assert all(p.grad is None for p in train.model.parameters())


def test_one_bad_batch_among_several_refuses_the_whole_update():
    calls = []

    def objective(model, one):
        calls.append(1)
        return spoiled_loss(float("nan") if len(calls) == 2 else 0.0)(model, one)

    train = make(objective=objective)
    before = digest(train.model)
    assert not train(split(batch(3), [1, 1, 1]), 1.0).applied
    assert digest(train.model) == before


def test_after_a_refused_step_training_goes_on_as_if_it_had_not_been():
    train, clean = make(), make()
    train.objective = spoiled_loss(float("nan"))
    train([batch(2)], 1.0)
    train.objective = OBJECTIVES["lm"]
    for seed in (1, 2):
        train([batch(2, seed)], 1.0)
        clean([batch(2, seed)], 1.0)
    assert digest(train.model) == digest(clean.model)


def test_a_batch_without_targets_changes_nothing():
    train = make()
    before = digest(train.model)
    result = train([batch(2, ignored=1.1)], 1.0)
    assert (result.num_targets, result.loss, result.applied, result.refused) == (0, 0.0, False, False)
    assert digest(train.model) == before


# float16


def test_only_float16_scales_its_loss():
    assert make().loss_scale == 1.0
    config = ModelConfig(num_layers=1, num_heads=1, width=8, context=4, vocab_size=5)
    model = Transformer(config, compute_dtype=torch.float16)
    train = TrainStep(model, OptimizerSet(model, OptimSettings()), OBJECTIVES["lm"], clip_norm=0.0, clip_value=0.0)
    assert train.loss_scale == 2.0**14


class Float16InName(Transformer):
    """A model that says float16 and computes in float32, so that a processor can run it exactly."""

    def forward(self, *args, **kwargs):
        self.compute_dtype = torch.float32
        try:
            return super().forward(*args, **kwargs)
        finally:
            self.compute_dtype = torch.float16


def make_scaled(**how):
    train = make(**how)
    train.model.__class__ = Float16InName
    train.model.compute_dtype = torch.float16
    train.loss_scale = 2.0**14
    return train


def test_the_scale_is_taken_out_again():
    results = [train([batch(4)], 1.0) for train in (make(), make_scaled())]
    assert results[1].loss == results[0].loss
    assert results[1].grad_norm == pytest.approx(results[0].grad_norm, rel=1e-5)
    plain, scaled = make(), make_scaled()
    for seed in range(3):
        plain([batch(4, seed)], 1.0)
        scaled([batch(4, seed)], 1.0)
    for found, expected in zip(scaled.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("clip", [{}, {"clip_value": 0.1}])
def test_the_scale_halves_after_an_overflow_but_not_below_one(clip):
    train = make_scaled(**clip)
    spoil_gradient(train, float("inf"))
    train.good_steps = 500
    result = train([batch(2)], 1.0)
    assert not result.applied and not result.refused  # a smaller scale may do
    assert (train.loss_scale, train.good_steps) == (2.0**13, 0)
    train.loss_scale = 1.0
    assert train([batch(2)], 1.0).refused
    assert train.loss_scale == 1.0


def test_the_scale_doubles_after_a_thousand_good_steps():
    train = make_scaled()
    train.good_steps = 998
    train([batch(2)], 1.0)
    assert (train.loss_scale, train.good_steps) == (2.0**14, 999)
    train([batch(2)], 1.0)
    assert train.loss_scale == 2.0**15
    train([batch(2)], 1.0)
    assert train.loss_scale == 2.0**15
