"""The divergence of two models against sums written out position by position."""

import math

import pytest
import torch

from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.quant import divergence as module
from inkstone.quant.divergence import divergence

torch.set_num_threads(1)


def make(noise=0.0):
    config = ModelConfig(vocab_size=20, context=8, num_layers=1, num_heads=2, width=32, tie_embeddings=False)
    model = Transformer(config).eval()
    model.head.weight.data *= 20
    model.head.weight.data += noise * torch.randn(20, 32, generator=torch.Generator().manual_seed(1))
    return model.requires_grad_(False)


def drawn(rows, time, seed=0):
    return torch.randint(20, (rows, time), generator=torch.Generator().manual_seed(seed))


def by_hand(one, other, rows):
    kl, same, tokens = 0.0, 0, 0
    for row in (row for ids in rows for row in ids):
        p, q = (torch.softmax(model.logits(model(row[None]))[0].double(), -1) for model in (one, other))
        for at in range(len(row)):
            kl += sum(float(p[at, v]) * math.log(float(p[at, v]) / float(q[at, v])) for v in range(20))
            same += int(p[at].argmax() == q[at].argmax())
            tokens += 1
    return kl / tokens, same / tokens, tokens


@pytest.mark.parametrize("chunk", [1, 3, 128])
def test_it_is_the_mean_over_every_position_of_every_batch(monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    one, other, rows = make(), make(0.1), [drawn(3, 8), drawn(1, 8, 1), drawn(2, 5, 2)]
    kl, same, tokens = by_hand(one, other, rows)
    found = divergence(one, other, rows)
    assert (found.kl, found.agreement, found.tokens) == (pytest.approx(kl, rel=1e-5), pytest.approx(same), tokens)
    assert 0 < found.agreement < 1 and found.kl > 0.01


def test_a_model_does_not_differ_from_itself_and_nothing_is_no_difference():
    model = make()
    assert divergence(model, model, [drawn(2, 8)]) == module.Divergence(0.0, 1.0, 16)
    assert divergence(model, make(0.1), []).tokens == 0
