"""Measuring: the loads are what they say, every token is counted once, and rates follow from the times."""

import pytest
import torch

from inkstone.infer.engine import Engine
from inkstone.infer.made_up import made_up_tokenizer
from inkstone.infer.speed import Load, Timing, bytes_per_step, greedy_request, memory_bandwidth, random_prompts, time_engine
from inkstone.infer.torch_runner import TorchRunner
from inkstone.nn.config import ModelConfig
from inkstone.nn.cost import cache_bytes_per_token, num_params
from inkstone.nn.transformer import Transformer
from inkstone.quant.apply import pack_model

torch.set_num_threads(1)
CONFIG = ModelConfig(preset="gpt2", num_layers=2, num_heads=2, width=32, context=64, vocab_size=300)


@pytest.fixture(scope="module")
def network():
    return Transformer(CONFIG, seed=1).eval().requires_grad_(False)


def test_prompts_are_the_same_for_a_seed_and_others_for_another():
    load = Load(streams=3, prompt_tokens=5, new_tokens=1)
    prompts = random_prompts(load, 300, 1)
    assert [len(prompt) for prompt in prompts] == [5, 5, 5]
    assert random_prompts(load, 300, 1) == prompts != random_prompts(load, 300, 2)


def test_rates_follow_from_the_times():
    timing = Timing(Load(2, 10, 4), first_seconds=0.5, total_seconds=2.0, late_tokens=6, tokens=((1, 2, 3, 4), (5, 6, 7, 8)))
    assert (timing.prefill_rate, timing.decode_rate, timing.total_rate) == (40, 4, 4)


@pytest.mark.parametrize("load", [Load(1, 6, 9), Load(4, 6, 9), Load(1, 40, 1), Load(5, 6, 3)])
def test_a_timed_engine_draws_what_a_plain_loop_draws_and_every_token_counts(network, load):
    engine = Engine(TorchRunner(network, num_slots=4), made_up_tokenizer(300))
    timing = time_engine(engine, load, seed=2)
    for prompt, drawn in zip(random_prompts(load, 300, 2), timing.tokens, strict=True):
        ids = list(prompt)
        for _ in range(load.new_tokens):
            ids.append(int(network.logits(network(torch.tensor([ids])))[0, -1].argmax()))
        assert tuple(ids[len(prompt) :]) == drawn
    assert 0 < timing.first_seconds <= timing.total_seconds
    assert 0 <= timing.late_tokens <= load.streams * (load.new_tokens - 1)
    assert engine.stats().reused_tokens == 0


def test_an_end_token_ends_nothing(network):
    prompt = random_prompts(Load(1, 4, 1), 300, 0)[0]
    request = greedy_request(prompt, 5)
    assert request.ignore_end and request.settings.temperature == 0 and request.settings.max_tokens == 5


def test_a_sequence_that_fails_is_an_error_and_no_figure(network):
    broken = Transformer(CONFIG, seed=1).eval().requires_grad_(False)
    broken.final_norm.weight.fill_(float("nan"))
    with pytest.raises(Exception, match="finite"):
        time_engine(Engine(TorchRunner(broken, num_slots=1), made_up_tokenizer(300)), Load(1, 4, 4), seed=0)


def test_a_step_reads_every_weight_but_the_positions_and_half_the_new_tokens(network):
    load = Load(streams=3, prompt_tokens=10, new_tokens=8)
    weights = 4 * (num_params(CONFIG) - CONFIG.context * CONFIG.width)
    assert bytes_per_step(network, load) == weights + 3 * 14 * cache_bytes_per_token(CONFIG, precision="fp32")


def test_packed_weights_are_fewer_bytes():
    sizes = {}
    for scheme in ("fp32", "int8", "int4"):
        packed = Transformer(CONFIG, seed=1)
        if scheme != "fp32":
            pack_model(packed, scheme)
        sizes[scheme] = bytes_per_step(packed, Load(0, 0, 0))
    assert sizes["fp32"] > 3 * sizes["int8"] > 4 * sizes["int4"]


def test_the_bandwidth_is_a_rate(monkeypatch):
    monkeypatch.setattr("inkstone.infer.speed.BANDWIDTH_BYTES", 2**20)
    assert 1e6 < memory_bandwidth() < 1e13
