"""Splits: exact tails, line ends, whole documents."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inkstone.base.errors import ConfigError, DataError
from inkstone.data.document import Document
from inkstone.data.splitting import _cut_near, plan_split, read_split
from inkstone.data.spool import Spool

LINES = "".join(f"line number {i}\n" for i in range(100))


def split_texts(folder, texts, mode="auto", val_fraction=0.1, seed=0):
    with Spool(folder / "spool") as spool:
        for i, text in enumerate(texts):
            spool.add(Document(text, "a", i))
        spool.close()
        kept = np.ones(len(spool), dtype=bool)
        plan = plan_split(
            spool.lengths(), kept, spool.digests.table(), mode=mode, val_fraction=val_fraction, seed=seed, has_chats=False
        )
        return plan.mode, list(read_split(spool, plan, "train")), list(read_split(spool, plan, "val"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet="ab\n中", min_size=1, max_size=12), min_size=1, max_size=8), st.floats(0.01, 0.5))
def test_tail_is_exactly_the_last_characters_of_everything(tmp_path, texts, val_fraction):
    whole = "".join(texts)
    if len(whole) < 2:
        return
    cut = min(max(1, int(len(whole) * (1 - val_fraction))), len(whole) - 1)
    _, train, val = split_texts(tmp_path, texts, "tail", val_fraction)
    assert ("".join(train), "".join(val)) == (whole[:cut], whole[cut:])


def test_tail_of_a_tenth_is_nanogpts_split(tmp_path):
    assert "".join(split_texts(tmp_path, [LINES], "tail", 0.1)[2]) == LINES[int(len(LINES) * 0.9) :]


@pytest.mark.parametrize("mode", ["auto", "ends"])
def test_one_document_is_cut_at_a_line(tmp_path, mode):
    chosen, (train,), (val,) = split_texts(tmp_path, [LINES], mode)
    assert chosen == "ends" and train + val == LINES and train.endswith("\n")
    assert abs(len(val) - len(LINES) / 10) < 20


@pytest.mark.parametrize("head", ["", "a title\n", "a title\n" * 3])
@pytest.mark.parametrize("long", ["x" * 1000, "One sentence. " * 80, "一句话。" * 250])
def test_a_long_line_does_not_turn_the_split_over(tmp_path, head, long):
    """Going back to the line's beginning would leave the title for training."""
    _, (train,), (val,) = split_texts(tmp_path, [head + long], "ends", 0.1)
    assert train + val == head + long
    assert len(val) <= 0.21 * len(head + long)
    assert train.endswith((". ", "。", "x"))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab. \n。", min_size=2, max_size=60), st.data())
def test_a_cut_leaves_text_on_both_sides_and_never_more_than_twice_the_validation_part(text, data):
    cut = data.draw(st.integers(1, len(text) - 1))
    near = _cut_near(text, cut)
    assert 0 < near < len(text) and len(text) - near <= 2 * (len(text) - cut) and len(text) - near >= (len(text) - cut) / 2
    assert near == cut or text[near - 1] in "\n。 "


def test_documents_too_short_to_cut_are_refused_with_the_arithmetic(tmp_path):
    with pytest.raises(
        DataError, match=r"leaves 0 of 3 characters \(3 documents, the longest of 1\) for validation at --val-fraction 0.1"
    ):
        split_texts(tmp_path, ["x", "y", "z"], "ends")


def test_ends_takes_a_piece_of_every_document_and_loses_nothing(tmp_path):
    texts = [LINES, "one line only, without an end", "x"]
    _, train, val = split_texts(tmp_path, texts, "ends")
    assert sorted("".join(train + val)) == sorted("".join(texts)) and len(val) == 2


def test_many_documents_are_divided_whole_and_stay_on_their_side(tmp_path):
    texts = [f"document {i}" for i in range(400)]
    mode, train, val = split_texts(tmp_path, texts)
    assert mode == "document" and sorted(train + val) == sorted(texts) and 15 < len(val) < 70
    assert set(split_texts(tmp_path, texts[::2])[2]) == set(val) & set(texts[::2])
    assert set(split_texts(tmp_path, texts, seed=1)[2]) != set(val)


@pytest.mark.parametrize(("val_fraction", "count"), [(0.0001, 1), (0.5, None)])
def test_each_side_gets_at_least_one_document(tmp_path, val_fraction, count):
    _, train, val = split_texts(tmp_path, ["a", "b"], "document", val_fraction)
    assert train and val


def test_a_giant_among_many_documents_is_not_left_to_chance(tmp_path):
    assert split_texts(tmp_path, [LINES * 10, *map(str, range(100))])[0] == "ends"


def test_too_little_text_is_refused(tmp_path):
    with pytest.raises(DataError, match="1 document with 5 characters"):
        split_texts(tmp_path, ["hello"], "document")
    with pytest.raises(DataError, match="cannot be divided"):
        split_texts(tmp_path, ["x"])


def test_a_chat_is_never_cut():
    one = np.ones(1, dtype=bool)
    with pytest.raises(ConfigError, match="would cut through a conversation"):
        plan_split(np.array([50]), one, np.zeros((1, 2), np.uint64), mode="tail", val_fraction=0.1, seed=0, has_chats=True)
