"""Streaming equals decoding: whole characters at once, nothing lost, nothing added."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inkstone.text.stream import TextStream
from inkstone.text.tokenizer import build_char, train_bpe

TOKENIZER = train_bpe(["the cat 月亮 sat 猫猫\n"] * 5, 290)
BYTES = {token[0]: index for index, token in enumerate(TOKENIZER.token_bytes) if len(token) == 1}
IDS = st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=40)
UTF8_BYTES = st.text(st.characters(exclude_categories=["Cs"])).map(lambda text: [BYTES[b] for b in text.encode()])


@settings(max_examples=500, deadline=None)
@given(st.one_of(IDS, UTF8_BYTES, UTF8_BYTES.map(lambda ids: ids[:-1])))
@example([BYTES[0xE6], 2, BYTES[0x9C], BYTES[0x88]])
@example([BYTES[0xF0], BYTES[0x9F], BYTES[0xE6]])
@example([])
def test_pieces_and_flush_sum_to_decode(ids):
    stream = TextStream(TOKENIZER)
    assert "".join([*map(stream.push, ids), stream.flush()]) == TOKENIZER.decode(ids)
    assert stream.flush() == ""


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_valid_text_never_shows_half_a_character(text):
    stream = TextStream(TOKENIZER)
    pieces = [stream.push(BYTES[b]) for b in text.encode()]
    assert "".join(pieces) == text and stream.flush() == ""
    assert all(len(piece) <= 1 for piece in pieces)


def test_a_character_comes_with_its_last_byte():
    stream = TextStream(TOKENIZER)
    assert [stream.push(BYTES[b]) for b in "月".encode()] == ["", "", "月"]


def test_a_cut_character_is_flushed_once_and_the_stream_is_new_again():
    stream = TextStream(TOKENIZER)
    assert stream.push(BYTES[0xE6]) == "" and stream.flush() == "\ufffd" and stream.push(BYTES[0x61]) == "a"


def test_an_id_outside_the_vocabulary_is_a_value_error_and_changes_nothing():
    stream = TextStream(TOKENIZER)
    stream.push(BYTES[0xC3])
    for bad in (-1, TOKENIZER.vocab_size):
        with pytest.raises(ValueError, match="outside"):
            stream.push(bad)
    assert stream.push(BYTES[0xA9]) == "é"


def test_characters_stream_too():
    tokenizer = build_char(["猫月a"])
    stream = TextStream(tokenizer)
    assert [stream.push(i) for i in tokenizer.encode("月a猫")] == ["月", "a", "猫"]
