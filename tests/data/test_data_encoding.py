"""Encodings: detected, decoded in pieces, refused with an offset."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.base.errors import DataError
from inkstone.data.encoding import decode_pieces, detect_encoding

SIMPLIFIED = "我们今天去图书馆看书，明天再回来。这是一个很好的地方，大家都喜欢在这里学习中文和英文。\n" * 3
TRADITIONAL = "我們今天去圖書館看書，明天再回來。這是一個很好的地方，大家都喜歡在這裡學習中文和英文。\n" * 3
POEM = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。\n"
ENGLISH = "It was a bright cold day in April, and the clocks were striking thirteen.\n"
GERMAN = "Die Größe der Bäume überraschte müde Wanderer; schöne Grüße aus Köln.\n"


def decode(data, encoding=None, errors="strict"):
    encoding = encoding or detect_encoding(lambda: [data])
    return "".join(decode_pieces([data], encoding, errors=errors, name="a.txt"))


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("text", [SIMPLIFIED, POEM, ENGLISH, ENGLISH + SIMPLIFIED], ids=["zh", "poem", "en", "mixed"])
def test_text_is_read_back_whatever_the_encoding(text, codec):
    assert decode(text.encode(codec)) == text


@pytest.mark.parametrize("codec", ["utf-8", "big5", "gb18030", "utf-16", "utf-16-le", "utf-16-be"])
def test_traditional_text_is_read_back(codec):
    assert decode(TRADITIONAL.encode(codec)) == TRADITIONAL


def test_an_encoding_that_shows_late_in_a_large_file_is_found():
    text = ENGLISH * 5000 + SIMPLIFIED * 20
    assert decode(text.encode("gb18030")) == text


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_the_byte_order_mark_never_becomes_text(mark):
    codec = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}[mark]
    assert decode(mark + "a\ufeffb".encode(codec)) == "a\ufeffb", "only the leading one is a mark"


@pytest.mark.parametrize("text", [SIMPLIFIED, ENGLISH])
def test_one_bad_byte_in_utf8_is_named_with_its_offset(text):
    data = text.encode()
    with pytest.raises(DataError, match=rf"a.txt: byte {len(data)} \(0xff\) is not valid utf-8.*--encoding-errors replace"):
        decode(data + b"\xff" + data)
    assert decode(data + b"\xff" + data, errors="replace") == text + "\ufffd" + text


def test_a_western_8_bit_file_is_refused_but_read_when_it_is_named():
    data = GERMAN.encode("latin-1")
    with pytest.raises(DataError, match=r"0xf6.*nor does it look like GB18030, Big5 or UTF-16.*latin-1"):
        decode(data)
    assert decode(data, "latin-1") == GERMAN


def test_a_broken_gb18030_file_names_the_byte():
    data = SIMPLIFIED.encode("gb18030")
    with pytest.raises(DataError, match="is not valid gb18030"):
        decode(data + b"\xff\xff" + data)


def test_a_cut_off_character_at_the_end_is_an_error():
    with pytest.raises(DataError, match="byte 3 "):
        decode(b"abc" + "中".encode()[:2])


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.integers(1, 7), st.sampled_from(["utf-8", "gb18030", "utf-16-le"]))
def test_pieces_may_divide_characters_and_line_ends_anywhere(text, size, codec):
    data = ("x" + text).encode(codec, "ignore")
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    whole = data.decode(codec).replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(decode_pieces(pieces, codec, errors="strict", name="a")) == whole


@pytest.mark.parametrize("data", [b" \n\t\n", b"abcd", b"ab\0c", b"a\0", b"x" * 50 + b"\0" * 3 + b"y" * 51])
def test_short_files_and_stray_zeros_are_not_taken_for_utf16(data):
    assert detect_encoding(lambda: [data]) == "utf-8"


def test_an_empty_file_is_utf8():
    assert detect_encoding(list) == "utf-8" and decode(b"") == ""
