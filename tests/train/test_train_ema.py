"""The average of the weights: its formula, its place in the model, and what a resume gives back."""

import pytest
import torch
from torch import nn

from inkstone.train.ema import WeightAverage

torch.set_num_threads(1)


class Three(nn.Module):
    """Names that do not stand in alphabetical order, with shapes that could be mistaken for one another."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.z = nn.Parameter(torch.randn(2, 3, generator=generator))
        self.a = nn.Parameter(torch.randn(2, 3, generator=generator))
        self.m = nn.Parameter(torch.randn(4, generator=generator))


def change(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator))


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.999])
def test_the_average_follows_its_formula(decay):
    model = Three()
    average, expected = WeightAverage(model, decay), weights(model)
    for number in range(1, 8):
        change(model, number)
        average.update(model)
        now = min(decay, (1 + number) / (10 + number))
        expected = {
            name: now * value + (1 - now) * p.detach()
            for (name, value), p in zip(expected.items(), model.parameters(), strict=True)
        }
        for name, value in expected.items():
            torch.testing.assert_close(average.average[name], value)


def test_the_model_has_the_average_within_the_block_and_its_own_weights_after():
    model = Three()
    average = WeightAverage(model, 0.5)
    change(model, 1)
    average.update(model)
    own = weights(model)
    with average.applied_to(model):
        assert all(torch.equal(p, average.average[name]) for name, p in model.named_parameters())
        assert not torch.equal(model.z, own["z"])
    assert all(torch.equal(p, own[name]) for name, p in model.named_parameters())


def test_the_models_own_weights_come_back_after_an_error():
    model = Three()
    average = WeightAverage(model, 0.5)
    change(model, 1)
    own = weights(model)
    with pytest.raises(KeyError), average.applied_to(model):
        raise KeyError
    assert all(torch.equal(p, own[name]) for name, p in model.named_parameters())


def test_an_average_that_comes_from_a_file_in_another_order_continues_bit_equal():
    model = Three()
    average = WeightAverage(model, 0.9)
    change(model, 1)
    average.update(model)
    resumed = WeightAverage(model, 0.9)
    resumed.average = {name: average.average[name].clone() for name in sorted(average.average)}
    resumed.updates = average.updates
    change(model, 2)
    average.update(model)
    resumed.update(model)
    assert all(torch.equal(resumed.average[name], value) for name, value in average.average.items())


def test_a_loaded_average_goes_to_the_models_device():
    model = Three().to("meta")
    average = WeightAverage(model, 0.9)
    average.load({name: torch.zeros(p.shape) for name, p in model.named_parameters()}, 1)
    assert {value.device.type for value in average.average.values()} == {"meta"}


def test_without_a_decay_there_is_no_average():
    model = Three()
    average, own = WeightAverage(model, 0.0), weights(model)
    average.update(model)
    with average.applied_to(model):
        assert all(torch.equal(p, own[name]) for name, p in model.named_parameters())
    assert average.average == {}
