"""Validation equals a slow reference token by token, for every stride, with documents, masks and bytes."""

import math

import numpy as np
import pytest
import torch

from inkstone.data.shards import open_split, write_prepared
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.train.validate import validate

torch.set_num_threads(1)
CONTEXT = 8
TEXTS = ["砚台磨墨", "ab", "", "the ink 墨", "x", "a longer document of several windows"]


class WordTokenizer:
    """Every character is an id, whatever its bytes; 0 ends a document."""

    alphabet = sorted(set("".join(TEXTS)))
    kind, vocab_size, eos_id, pad_id, fingerprint, special = "char", len(alphabet) + 1, 0, 0, "c" * 64, {"<|endoftext|>": 0}
    byte_lengths = np.array([0, *(len(letter.encode()) for letter in alphabet)], dtype=np.int32)

    def encode(self, text):
        return [1 + self.alphabet.index(letter) for letter in text]

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def save(self, folder):
        (folder / "tokenizer.json").write_text("{}")


TOKENIZER = WordTokenizer()


@pytest.fixture
def split(tmp_path):
    folder = write_prepared(tmp_path, TOKENIZER, {"val": [text for text in TEXTS if text]})
    return open_split(folder, "val")


def make(**changes):
    model = Transformer(
        ModelConfig(num_layers=2, num_heads=2, width=16, context=CONTEXT, vocab_size=TOKENIZER.vocab_size, **changes)
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1.0 if "norm.weight" in name else 0.0, 0.3, generator=generator)
    return model.eval()


@torch.no_grad()
def slow(model, ids, stride):
    """Return (nats, is right) of each token but the first, each scored alone in the one window that scores it, no documents."""
    result, start, scored = [], 0, 1
    while scored < len(ids):
        stop = min(start + CONTEXT + 1, len(ids))
        for target in range(scored, stop):
            logits = model.logits(model(torch.tensor([ids[start:target]])))[0, -1]
            result.append((float(-torch.log_softmax(logits.double(), 0)[ids[target]]), int(logits.argmax()) == ids[target]))
        scored, start = stop, start + stride
    return result


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("stride", [1, 3, CONTEXT - 1, CONTEXT])
def test_every_token_is_scored_once_as_the_slow_reference_does(split, stride, batch_size):
    model = make(logit_softcap=4.0)
    ids = split.read(0, split.num_tokens).tolist()
    expected = slow(model, ids, stride)
    found = validate(
        model, split, TOKENIZER.byte_lengths, context=CONTEXT, stride=stride, batch_size=batch_size, document_mask=False
    )
    assert found.tokens == len(expected) == split.num_tokens - 1
    assert found.nats == pytest.approx(sum(nats for nats, _ in expected), rel=1e-5)
    assert found.correct == sum(right for _, right in expected)
    assert found.num_bytes == int(TOKENIZER.byte_lengths[ids[1:]].sum())


def test_the_default_stride_is_the_context(split):
    model = make()
    first = validate(model, split, TOKENIZER.byte_lengths, context=CONTEXT, stride=0, document_mask=False)
    assert first.nats == validate(model, split, TOKENIZER.byte_lengths, context=CONTEXT, stride=CONTEXT, document_mask=False).nats


@pytest.mark.parametrize("document_mask", [False, True])
def test_the_figures_follow_from_the_sums(split, document_mask):
    found = validate(make(), split, TOKENIZER.byte_lengths, context=CONTEXT, document_mask=document_mask)
    assert found.loss == pytest.approx(found.nats / found.tokens)
    assert found.accuracy == pytest.approx(found.correct / found.tokens)
    assert found.perplexity == pytest.approx(math.exp(found.loss))
    assert found.bits_per_byte == pytest.approx(found.nats / math.log(2) / found.num_bytes)
    for total, parts in (
        (found.nats, found.window_nats),
        (found.tokens, found.window_tokens),
        (found.num_bytes, found.window_bytes),
    ):
        assert parts.sum() == pytest.approx(total)
        assert len(parts) == math.ceil((split.num_tokens - 1) / CONTEXT)


def test_a_model_that_knows_nothing_needs_log_v_nats_and_bytes_count_as_utf8(split):
    model = make()
    with torch.no_grad():
        model.embed.weight.zero_()
    found = validate(model, split, TOKENIZER.byte_lengths, context=CONTEXT)
    first = len(TEXTS[0][0].encode())
    assert found.loss == pytest.approx(math.log(TOKENIZER.vocab_size), rel=1e-5)
    assert found.num_bytes + first == sum(len(text.encode()) for text in TEXTS) == split.num_bytes


@pytest.mark.parametrize("stride", [0, 3])
def test_with_the_document_mask_other_documents_are_not_seen(split, stride):
    """The window's figures for a document's tokens stay when the letters of the documents before it change."""
    model, ids = make(), split.read(0, split.num_tokens)
    last = int(split.document_starts[-1])
    how = {"context": CONTEXT, "stride": stride, "batch_size": 1}

    class Changed:
        num_tokens, eos_id = split.num_tokens, split.eos_id

        def read(self, start, stop):
            other = np.where((np.arange(len(ids)) < last) & (ids != self.eos_id), 1 + ids % (TOKENIZER.vocab_size - 1), ids)
            return other[start:stop]

        def read_mask(self, start, stop):
            return (np.arange(start, stop) > last).astype(np.uint8)

    class Same(Changed):
        def read(self, start, stop):
            return ids[start:stop]

    same, changed = (validate(model, s(), TOKENIZER.byte_lengths, document_mask=True, **how).nats for s in (Same, Changed))
    assert same == pytest.approx(changed, abs=1e-6)
    same, changed = (validate(model, s(), TOKENIZER.byte_lengths, document_mask=False, **how).nats for s in (Same, Changed))
    assert abs(same - changed) > 1e-3


@pytest.mark.parametrize(
    ("max_tokens", "scored"), [(0, None), (1, 1), (CONTEXT, CONTEXT), (CONTEXT + 1, CONTEXT + 1), (10**9, None)]
)
@pytest.mark.parametrize("stride", [0, 3])
def test_no_more_than_the_asked_tokens_are_scored(split, max_tokens, scored, stride):
    found = validate(make(), split, TOKENIZER.byte_lengths, context=CONTEXT, stride=stride, max_tokens=max_tokens)
    assert found.tokens == (split.num_tokens - 1 if scored is None else scored)


def test_only_what_the_mask_counts_is_scored(split):
    model, ids = make(), split.read(0, split.num_tokens)
    keep = np.random.default_rng(0).random(len(ids)) < 0.5

    class Masked:
        num_tokens, eos_id = split.num_tokens, split.eos_id

        def read(self, start, stop):
            return ids[start:stop]

        def read_mask(self, start, stop):
            return keep[start:stop].astype(np.uint8)

    found = validate(model, Masked(), TOKENIZER.byte_lengths, context=CONTEXT, document_mask=False)
    expected = slow(model, ids.tolist(), CONTEXT)
    assert found.tokens == keep[1:].sum()
    assert found.nats == pytest.approx(sum(nats for (nats, _), kept in zip(expected, keep[1:], strict=True) if kept), rel=1e-5)
    assert found.num_bytes == TOKENIZER.byte_lengths[ids[1:][keep[1:]]].sum()


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_evaluated_without_dropout_and_left_as_it_was(split, training):
    model = make(dropout=0.5).train(training)
    first = validate(model, split, TOKENIZER.byte_lengths, context=CONTEXT)
    assert validate(model, split, TOKENIZER.byte_lengths, context=CONTEXT).nats == first.nats
    assert model.training is training
    assert all(p.grad is None for p in model.parameters())


def test_a_perplexity_beyond_every_float_is_still_a_number(split):
    found = validate(make(), split, TOKENIZER.byte_lengths, context=CONTEXT)
    assert math.isfinite(type(found)(1e6, 1, 1, 0, *(found.window_nats,) * 4).perplexity)
