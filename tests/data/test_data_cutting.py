"""Cutting streams of text."""

from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.data.cutting import cut_text, iter_lines, split_documents

TEXT = st.text(alphabet="ab 。.\n\f中", max_size=120)


def pieces_of(text, size):
    return [text[i : i + size] for i in range(0, len(text), size)]


@settings(max_examples=150, deadline=None)
@given(TEXT, st.integers(1, 40), st.integers(1, 50))
def test_cut_pieces_are_small_and_concatenate_to_the_text(text, limit, _):
    pieces = cut_text(text, limit)
    assert "".join(pieces) == text and all(len(piece) <= limit for piece in pieces)


@settings(max_examples=150, deadline=None)
@given(TEXT, st.integers(1, 40), st.integers(1, 50))
def test_documents_do_not_depend_on_how_the_text_arrives(text, limit, size):
    expected = [piece for part in text.split("\f") for piece in cut_text(part, limit)]
    assert list(split_documents(pieces_of(text, size), limit)) == expected


@settings(max_examples=100, deadline=None)
@given(TEXT, st.integers(1, 50))
def test_lines_equal_splitting_the_whole_text(text, size):
    lines = [line for _, line, _ in iter_lines(pieces_of(text, size), 1000)]
    assert "".join(lines) == text and all("\n" not in line[:-1] for line in lines)


def test_numbers_count_from_one_and_only_line_feeds_end_lines():
    assert list(iter_lines(["a\u2028b\n", "\nc"], 10)) == [(1, "a\u2028b\n", True), (2, "\n", True), (3, "c", True)]


def test_a_long_line_is_given_up_before_it_is_held_whole():
    def endless():
        for _ in range(10):
            yield "x" * 10
        raise AssertionError("read on past the limit")

    assert list(iter_lines(endless(), 25)) == [(1, "x" * 30, False)]


def test_paragraph_ends_are_preferred_to_line_ends_and_those_to_spaces():
    assert cut_text("aaaa bb\nb\n\nccc", 13)[0] == "aaaa bb\nb\n\n"
    assert cut_text("aaaa bbb\nccc ddd", 13)[0] == "aaaa bbb\n"
    assert cut_text("x" * 30, 13)[0] == "x" * 13
