"""The batch size that is found doubles while it pays and fits, and measuring leaves the model alone."""

import pytest
import torch

from inkstone.nn.transformer import Transformer
from inkstone.train import batch_size
from inkstone.train.batch_size import find_batch_size
from inkstone.train.config import PretrainSettings

torch.set_num_threads(1)
MODEL = {"num_layers": 1, "num_heads": 2, "width": 8, "context": 8, "vocab_size": 11}


@pytest.fixture
def settings():
    return PretrainSettings(model=MODEL, train={"batch_size": 0})


@pytest.mark.parametrize(
    ("speeds", "found"),
    [
        ([100, 190, 300, 310], 4),
        ([100, 104], 1),
        ([100, 105.1, 105.2], 2),
        ([100, 50, 1000], 1),
        ([2.0**n for n in range(20)], batch_size.LARGEST),
    ],
)
def test_the_size_doubles_while_a_token_becomes_cheaper(settings, speeds, found, monkeypatch):
    given = iter(speeds)
    monkeypatch.setattr(batch_size, "_tokens_per_second", lambda *_: next(given))
    monkeypatch.setattr(batch_size, "_fits", lambda *_: True)
    assert find_batch_size(Transformer(settings.model), settings) == found


def test_what_does_not_fit_is_not_tried(settings, monkeypatch):
    tried = []
    monkeypatch.setattr(batch_size, "_tokens_per_second", lambda model, settings, size: tried.append(size) or float(size))
    monkeypatch.setattr(batch_size.machine, "available_memory", lambda: 3_000_000)
    found = find_batch_size(Transformer(settings.model), settings)
    assert tried[-1] == found < batch_size.LARGEST
    monkeypatch.setattr(batch_size.machine, "available_memory", lambda: 0)
    assert find_batch_size(Transformer(settings.model), settings) == 1


def test_a_device_that_is_full_ends_the_search(settings, monkeypatch):
    def speed(model, settings, size):
        if size == 8:
            raise torch.OutOfMemoryError
        return float(size)

    monkeypatch.setattr(batch_size, "_tokens_per_second", speed)
    monkeypatch.setattr(batch_size, "_fits", lambda *_: True)
    assert find_batch_size(Transformer(settings.model), settings) == 4


def test_measuring_changes_neither_weights_nor_gradients_nor_random_numbers(settings, monkeypatch):
    monkeypatch.setattr(batch_size, "LARGEST", 4)
    model = Transformer(settings.model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    assert find_batch_size(model, settings) in (1, 2, 4)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in model.named_parameters())
