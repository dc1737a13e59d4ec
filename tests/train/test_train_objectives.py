"""Objectives give a sum and a count, so that batches add up, whatever the objective."""

import pytest
import torch
from torch.nn import functional as F

from inkstone.data.loader import NO_LOSS, Batch
from inkstone.nn.config import ModelConfig
from inkstone.nn.functional import IGNORED
from inkstone.nn.transformer import Transformer
from inkstone.train.config import ObjectiveSettings
from inkstone.train.objectives import OBJECTIVES

torch.set_num_threads(1)
VOCAB, TIME = 17, 9


def make(**changes):
    return Transformer(
        ModelConfig(num_layers=1, num_heads=2, width=12, context=TIME, vocab_size=VOCAB, init="gpt2", **changes)
    ).eval()


def batch(rows=6, seed=0, documents=False):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(VOCAB, (rows, TIME + 1), generator=generator)
    targets = ids[:, 1:].clone()
    targets[torch.rand(targets.shape, generator=generator) < 0.3] = NO_LOSS
    numbers = (torch.rand(targets.shape, generator=generator) < 0.3).cumsum(1).int() if documents else None
    return Batch(ids[:, :-1].contiguous(), targets, numbers)


def rows_of(whole, rows):
    documents = None if whole.document_BT is None else whole.document_BT[rows]
    return Batch(whole.tokens_BT[rows], whole.targets_BT[rows], documents)


def test_the_settings_know_the_family():
    assert set(OBJECTIVES) == {ObjectiveSettings().kind}
    assert NO_LOSS == IGNORED


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("cut", [1, 3, 5])
@pytest.mark.parametrize("kind", OBJECTIVES)
def test_concatenated_batches_add_sums_and_counts(kind, cut, documents):
    model, whole = make(), batch(documents=documents)
    parts = [OBJECTIVES[kind](model, rows_of(whole, slice(*ends))) for ends in ((0, cut), (cut, 6))]
    loss = OBJECTIVES[kind](model, whole)
    assert int(loss.count) == sum(int(part.count) for part in parts)
    assert int(loss.correct) == sum(int(part.correct) for part in parts)
    torch.testing.assert_close(loss.total, parts[0].total + parts[1].total)


@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_language_modelling_is_the_cross_entropy_of_the_next_token(softcap):
    model, whole = make(logit_softcap=softcap), batch(documents=True)
    loss = OBJECTIVES["lm"](model, whole)
    logits = model.logits(model(whole.tokens_BT, whole.document_BT)).flatten(0, 1)
    targets = whole.targets_BT.flatten()
    torch.testing.assert_close(loss.total, F.cross_entropy(logits, targets, ignore_index=NO_LOSS, reduction="sum"))
    assert int(loss.count) == int((targets != NO_LOSS).sum())
    assert int(loss.correct) == int((logits.argmax(-1) == targets).sum())


def test_documents_reach_the_model():
    model, whole = make(), batch(documents=True)
    without = Batch(whole.tokens_BT, whole.targets_BT, None)
    assert not torch.equal(OBJECTIVES["lm"](model, whole).total, OBJECTIVES["lm"](model, without).total)
