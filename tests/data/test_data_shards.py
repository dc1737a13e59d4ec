"""Shards, their manifest and the checks on opening."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkstone.base.errors import CheckpointError, ConfigError, DataError, ResourceError
from inkstone.data.shards import ShardWriter, load_manifest, manifest_of, open_split, token_dtype, write_prepared

TEXTS = ["hello world", "", "从前有座山", "x" * 40, "bye"]


@pytest.fixture
def prepared(tmp_path, byte_tokenizer):
    return write_prepared(tmp_path / "data", byte_tokenizer, {"train": TEXTS, "val": ["v"]}, shard_tokens=20)


def test_reading_gives_back_every_document_followed_by_eos(prepared, byte_tokenizer):
    split = open_split(prepared, "train")
    expected = [i for text in TEXTS for i in [*text.encode(), 256]]
    assert split.read(0, len(split)).tolist() == expected
    assert split.num_bytes == sum(len(t.encode()) for t in TEXTS)
    assert split.num_documents == len(TEXTS)
    assert split.document_starts.tolist() == [0, 12, 13, 29, 70]
    assert len(load_manifest(prepared)["splits"]["train"]["shards"]) > 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_range_and_any_positions_equal_the_concatenation(prepared, data):
    split = open_split(prepared, "train", verify=False)
    whole = np.concatenate([np.fromfile(path, dtype="<u2") for path in sorted(prepared.glob("train-*.bin"))])
    start = data.draw(st.integers(0, len(split)))
    stop = data.draw(st.integers(start, len(split)))
    assert split.read(start, stop).tolist() == whole[start:stop].tolist()
    positions = np.array(data.draw(st.lists(st.integers(0, len(split) - 1), max_size=9)), dtype=np.int64)
    assert split.take(positions).tolist() == whole[positions].tolist()


def test_reading_outside_is_refused(prepared):
    split = open_split(prepared, "val")
    with pytest.raises(IndexError):
        split.read(0, 3)


def test_an_empty_split_can_be_opened(tmp_path, byte_tokenizer):
    split = open_split(write_prepared(tmp_path / "d", byte_tokenizer, {"train": []}), "train")
    assert len(split) == 0 and split.read(0, 0).size == 0


def test_masks_are_kept_beside_the_ids(tmp_path, byte_tokenizer):
    with ShardWriter(tmp_path, "train", vocab_size=257, eos_id=256, with_mask=True, shard_tokens=4) as writer:
        writer.add([1, 2, 3], 3, mask=[False, True, True])
        writer.add([4, 5], 2, mask=[True, False])
        entry = writer.close()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest_of(byte_tokenizer, {"train": entry}, kind="chat", seed=0)))
    split = open_split(tmp_path, "train")
    assert split.read_mask(0, 7).tolist() == [0, 1, 1, 0, 1, 0, 0]
    assert split.take_mask(np.array([5, 1])).tolist() == [0, 1]
    assert entry["loss_tokens"] == 3 and len(entry["shards"]) == 2
    assert open_split(tmp_path, "train").read_mask(2, 2).tolist() == []


@pytest.mark.parametrize(("vocab_size", "name"), [(257, "uint16"), (1 << 16, "uint16"), ((1 << 16) + 1, "uint32")])
def test_dtype_is_the_smallest_that_holds_every_id(vocab_size, name):
    assert token_dtype(vocab_size).name == name


def test_fingerprint_changes_with_the_content(tmp_path, byte_tokenizer):
    one, same, other = (
        open_split(write_prepared(tmp_path / str(i), byte_tokenizer, {"train": [t]}), "train")
        for i, t in enumerate(["ab", "ab", "ac"])
    )
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_another_tokenizer_is_refused_naming_both(prepared):
    with pytest.raises(CheckpointError, match=r"ffffffffffff.*eeeeeeeeeeee"):
        open_split(prepared, "train", tokenizer_fingerprint="e" * 64)
    open_split(prepared, "train", tokenizer_fingerprint="f" * 64)


def _flip(path):
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "train-00000.bin").unlink(), "train-00000.bin is missing"),
        (lambda d: (d / "train-00001.bin").write_bytes(b"123"), "not a whole number of uint16 ids"),
        (lambda d: _flip(d / "train-00002.bin"), "has changed since it was prepared"),
        (lambda d: _flip(d / "train-00000.docs"), "has changed since it was prepared"),
        (lambda d: (d / "train-00000.bin").write_bytes(b"\xff\xff" * 13), "id 65535 at offset 0, the vocabulary has 257 ids"),
        (lambda d: (d / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda d: (d / "manifest.json").unlink(), "not a prepared data folder"),
        (lambda d: (d / "manifest.json").write_text("[]"), "not a data manifest"),
        (lambda d: (d / "manifest.json").write_text('{"splits": {}, "format": 9}'), "has format 9"),
    ],
)
def test_damage_is_named_before_training(prepared, damage, message):
    damage(prepared)
    with pytest.raises(DataError, match=message):
        open_split(prepared, "train")


def test_all_damaged_shards_are_listed_at_once(prepared):
    (prepared / "train-00000.bin").unlink()
    (prepared / "train-00001.docs").unlink()
    with pytest.raises(DataError) as caught:
        open_split(prepared, "train", verify=False)
    assert len(str(caught.value).splitlines()) == 2


def test_a_missing_folder_names_the_nearest_parent(tmp_path):
    with pytest.raises(ConfigError, match=f"nearest existing folder: {tmp_path}"):
        load_manifest(tmp_path / "no" / "such")


def test_an_unknown_split_lists_those_there_are(prepared):
    with pytest.raises(DataError, match=r"no split 'test' \(it has: train, val\)"):
        open_split(prepared, "test")


def test_a_full_disk_is_a_resource_error(tmp_path, monkeypatch):
    import inkstone.data.shards as shards

    def full(self, suffix, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards._Shard, "_write", full)
    with ShardWriter(tmp_path, "train", vocab_size=10, eos_id=0) as writer, pytest.raises(ResourceError, match="disk is full"):
        writer.add([1], 1)
