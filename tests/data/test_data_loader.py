"""The loader's laws: exact state, every target once an epoch, the same rows for any world."""

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkstone.base.errors import CheckpointError, DataError
from inkstone.data.loader import Loader
from inkstone.data.shards import ShardWriter, manifest_of, open_split, write_prepared
from inkstone.world import World

SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PACKINGS = ["stream", "fit"]


@pytest.fixture
def split(tmp_path, byte_tokenizer):
    random = np.random.default_rng(0)
    texts = ["".join(chr(97 + c) for c in random.integers(0, 26, size=n)) for n in random.integers(1, 60, size=30)]
    return open_split(write_prepared(tmp_path / "d", byte_tokenizer, {"train": texts}, shard_tokens=300), "train")


def same(a, b):
    assert torch.equal(a.tokens_BT, b.tokens_BT) and torch.equal(a.targets_BT, b.targets_BT)
    assert (a.document_BT is None) == (b.document_BT is None)
    assert a.document_BT is None or torch.equal(a.document_BT, b.document_BT)


@SLOW
@given(before=st.integers(0, 30), batch_size=st.integers(1, 70), packing=st.sampled_from(PACKINGS))
def test_a_restored_state_gives_identical_batches(split, before, batch_size, packing):
    loader = Loader(split, batch_size=batch_size, context=16, seed=1, packing=packing)
    for _ in range(before):
        loader.next()
    state = json.loads(json.dumps(loader.state()))
    restored = Loader(split, batch_size=batch_size, context=16, seed=1, packing=packing)
    restored.load_state(state)
    for _ in range(3):
        same(loader.next(), restored.next())


@SLOW
@given(size=st.integers(1, 4), batch_size=st.integers(1, 5), packing=st.sampled_from(PACKINGS), steps=st.integers(1, 9))
def test_the_union_over_ranks_does_not_depend_on_the_world(split, size, batch_size, packing, steps):
    alone = Loader(split, batch_size=batch_size * size, context=16, seed=3, packing=packing)
    ranks = [Loader(split, batch_size=batch_size, context=16, seed=3, packing=packing, world=World(r, size)) for r in range(size)]
    for _ in range(steps):
        batches = [rank.next() for rank in ranks]
        whole = alone.next()
        assert torch.equal(torch.cat([b.tokens_BT for b in batches]), whole.tokens_BT)
        assert torch.equal(torch.cat([b.targets_BT for b in batches]), whole.targets_BT)
    assert {rank.cursor for rank in ranks} == {alone.cursor}


def slow_stream_rows(split, context, epoch, seed):
    """Every window of an epoch, written to be obviously right."""
    from inkstone.base.seeds import derive_seed

    random = np.random.Generator(np.random.PCG64(derive_seed(seed, "loader", epoch)))
    phase, total = int(random.integers(context)), split.num_tokens
    ids, openers = split.read(0, total).tolist(), {(start - 1) % total for start in split.document_starts.tolist()}
    for window in random.permutation(total // context):
        places = [(phase + int(window) * context + i) % total for i in range(context + 1)]
        tokens = [ids[p] for p in places[:-1]]
        targets = [ids[p] for p in places[1:]]
        document, documents = 0, []
        for i, place in enumerate(places[:-1]):
            document += i > 0 and place in openers
            documents.append(int(document))
        yield tokens, targets, documents


@SLOW
@given(context=st.integers(1, 80), batch_size=st.integers(1, 9), seed=st.integers(0, 3))
def test_stream_batches_equal_the_slow_reference(split, context, batch_size, seed):
    rows = [row for epoch in range(2) for row in slow_stream_rows(split, context, epoch, seed)]
    loader = Loader(split, batch_size=batch_size, context=context, seed=seed)
    assert loader.rows_per_epoch * 2 == len(rows)
    for first in range(0, min(len(rows) - batch_size, 40), batch_size):
        batch, expected = loader.next(), rows[first : first + batch_size]
        assert batch.tokens_BT.tolist() == [tokens for tokens, _, _ in expected]
        assert batch.targets_BT.tolist() == [targets for _, targets, _ in expected]
        inside = any(documents[-1] for _, _, documents in expected)
        assert (batch.document_BT is not None) == inside
        assert not inside or batch.document_BT.tolist() == [documents for _, _, documents in expected]


def test_an_epoch_uses_no_target_twice_and_the_next_one_is_in_another_order(split):
    loader = Loader(split, batch_size=1, context=16, seed=0, document_mask=False)
    first = [loader.next().tokens_BT[0].tolist() for _ in range(loader.rows_per_epoch)]
    assert (loader.epoch, loader.cursor) == (1, 0)
    second = [loader.next().tokens_BT[0].tolist() for _ in range(loader.rows_per_epoch)]
    assert first != second
    text = split.read(0, split.num_tokens).tolist() * 2
    places = [next(p for p in range(split.num_tokens) if text[p : p + 16] == row) for row in first]
    assert len({(p + i) % split.num_tokens for p in places for i in range(16)}) == 16 * len(first)


def test_fit_rows_hold_whole_documents_and_learn_every_token_but_the_first(split):
    loader = Loader(split, batch_size=1, context=64, seed=0, packing="fit")
    learned = sum(int((loader.next().targets_BT != -100).sum()) for _ in range(loader.rows_per_epoch))
    assert loader.epoch == 1 and learned == split.num_tokens - split.num_documents


def test_fit_numbers_documents_and_masks_the_filling(tmp_path, byte_tokenizer):
    split = open_split(write_prepared(tmp_path / "d", byte_tokenizer, {"train": ["abcde", "xyz"]}), "train")
    batch = Loader(split, batch_size=1, context=12, seed=0, packing="fit").next()
    assert batch.tokens_BT[0].tolist() == [*b"abcde", 256, *b"xyz", 256, 256, 256]
    assert batch.targets_BT[0].tolist() == [*b"bcde", 256, -100, *b"yz", 256, -100, -100, -100]
    assert batch.document_BT[0].tolist() == [0] * 6 + [1] * 4 + [2] * 2


@pytest.mark.parametrize("packing", PACKINGS)
def test_masked_out_tokens_are_no_targets(tmp_path, byte_tokenizer, packing):
    with ShardWriter(tmp_path, "train", vocab_size=257, eos_id=256, with_mask=True) as writer:
        writer.add([1, 2, 3, 4, 5], 5, mask=[0, 0, 1, 1, 0])
        writer.add([6, 7, 8], 3, mask=[0, 0, 0])
        entry = writer.close()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest_of(byte_tokenizer, {"train": entry}, kind="chat", seed=0)))
    loader = Loader(open_split(tmp_path, "train"), batch_size=1, context=5, seed=0, packing=packing)
    targets = [t for _ in range(loader.rows_per_epoch) for t in loader.next().targets_BT.flatten().tolist() if t != -100]
    assert sorted(set(targets)) == [3, 4]
    assert packing == "stream" or loader.rows_per_epoch == 1, "a row with nothing to learn is left out"


def test_without_the_document_mask_every_next_token_is_a_target(split):
    batch = Loader(split, batch_size=8, context=64, seed=0, document_mask=False).next()
    assert batch.document_BT is None and not (batch.targets_BT == -100).any()
    assert torch.equal(batch.tokens_BT[:, 1:], batch.targets_BT[:, :-1])


def test_types_and_shapes(split):
    batch = Loader(split, batch_size=4, context=64, seed=0).next()
    assert batch.tokens_BT.dtype == batch.targets_BT.dtype == torch.int64 and batch.document_BT.dtype == torch.int32
    assert batch.tokens_BT.shape == batch.targets_BT.shape == batch.document_BT.shape == (4, 64)


def test_the_batch_size_may_change_between_calls(split):
    ramped, flat = (Loader(split, batch_size=n, context=16, seed=0) for n in (2, 6))
    parts = [ramped.next()]
    ramped.batch_size = 4
    parts.append(ramped.next())
    assert torch.equal(torch.cat([p.tokens_BT for p in parts]), flat.next().tokens_BT)


@pytest.mark.parametrize("change", [{"seed": 2}, {"context": 8}, {"packing": "fit"}])
def test_a_state_of_another_order_is_refused(split, change):
    plain = {"batch_size": 2, "context": 16, "seed": 1, "packing": "stream"}
    with pytest.raises(CheckpointError, match=next(iter(change))):
        Loader(split, **(plain | change)).load_state(Loader(split, **plain).state())


def test_a_state_of_other_data_is_refused(split, tmp_path, byte_tokenizer):
    other = open_split(write_prepared(tmp_path / "o", byte_tokenizer, {"train": ["z" * 2000]}), "train")
    with pytest.raises(CheckpointError, match="data position: data was"):
        Loader(split, batch_size=1, context=16, seed=0).load_state(Loader(other, batch_size=1, context=16, seed=0).state())


@pytest.mark.parametrize("length", [0, 7])
def test_a_split_shorter_than_a_row_says_the_arithmetic(tmp_path, byte_tokenizer, length):
    texts = ["a" * length] if length else []
    split = open_split(write_prepared(tmp_path / "d", byte_tokenizer, {"train": texts}), "train")
    with pytest.raises(DataError, match=r"has \d+ tokens, one row needs 9 \(context 8 \+ 1\)"):
        Loader(split, batch_size=1, context=8, seed=0)


def test_a_split_of_exactly_one_row_works(tmp_path, byte_tokenizer):
    split = open_split(write_prepared(tmp_path / "d", byte_tokenizer, {"train": ["abcdefgh"]}), "train")
    loader = Loader(split, batch_size=3, context=8, seed=0)
    assert loader.rows_per_epoch == 1
    loader.next()
    assert (loader.epoch, loader.cursor) == (3, 0)
