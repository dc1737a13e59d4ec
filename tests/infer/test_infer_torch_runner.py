"""Prefill in chunks and decode in rows give the full forward's hidden states, for every kind of model."""

import pytest
import torch

from inkstone.infer.torch_runner import TorchRunner
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer

torch.set_num_threads(1)
SIZES = {"num_layers": 3, "num_heads": 4, "width": 64, "context": 48, "vocab_size": 97}
VARIANTS = {
    "gpt": {"preset": "gpt"},
    "gpt1": {"preset": "gpt1"},
    "modern": {},
    "article": {"preset": "article"},
    "grouped": {"num_kv_heads": 2},
    "window": {"window": 5, "full_every": 2},
    "extras": {"ngram_buckets": 64, "ngram_max": 3, "value_residual": True, "attention_gate": True, "logit_softcap": 15.0},
    "plain": {"position": "none", "activation": "relu2", "qk_norm": False, "bias": True, "tie_embeddings": False},
    "sines": {"position": "sinusoidal", "activation": "gelu", "norm": "layernorm"},
    "odd": {"head_width": 18, "num_heads": 3, "num_kv_heads": 3, "width": 60},
}


def build(variant: str, **changes) -> Transformer:
    config = ModelConfig.model_validate(SIZES | VARIANTS[variant] | changes)
    network = Transformer(config, seed=3).eval()
    with torch.no_grad():  # away from the symmetric start: biases, gates and mixes all matter
        generator = torch.Generator().manual_seed(1)
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return network


def forward(network: Transformer, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return network(torch.tensor([ids]))[0]


@pytest.fixture(params=VARIANTS)
def network(request):
    return build(request.param)


def test_chunks_and_rows_equal_the_full_forward(network):
    runner = TorchRunner(network, num_slots=3, chunk_tokens=8)
    texts = {0: list(range(1, 30)), 2: [5, 4, 3, 2, 1, 90, 91, 92, 13, 7, 7, 7, 8, 60]}
    wanted = {slot: forward(network, ids) for slot, ids in texts.items()}
    starts = {0: 20, 2: 6}
    for slot, start in starts.items():
        found = torch.cat([runner.prefill(slot, texts[slot][at : min(at + 8, start)], at) for at in range(0, start, 8)])
        torch.testing.assert_close(found, wanted[slot][:start], atol=2e-5, rtol=2e-5)
    for step in range(8):
        positions = [starts[2] + step, starts[0] + step]
        found = runner.decode([texts[2][positions[0]], texts[0][positions[1]]], [2, 0], positions)
        torch.testing.assert_close(found, torch.stack([wanted[2][positions[0]], wanted[0][positions[1]]]), atol=2e-5, rtol=2e-5)


def test_several_rows_of_one_slot_see_each_other_in_order(network):
    runner = TorchRunner(network, num_slots=2)
    ids = [9, 8, 7, 6, 5, 4, 3, 2, 1, 50, 51]
    wanted = forward(network, ids)
    runner.prefill(1, ids[:5], 0)
    found = runner.decode(ids[5:9], [1] * 4, [5, 6, 7, 8])
    torch.testing.assert_close(found, wanted[5:9], atol=2e-5, rtol=2e-5)


def test_a_copied_prefix_goes_on_like_its_source(network):
    runner = TorchRunner(network, num_slots=2)
    ids = [9, 8, 7, 6, 5, 4, 3, 2, 1, 50, 51]
    runner.prefill(0, ids[:8], 0)
    runner.copy(0, 1, 6)
    found = runner.prefill(1, ids[6:], 6)
    torch.testing.assert_close(found, forward(network, ids)[6:], atol=2e-5, rtol=2e-5)
