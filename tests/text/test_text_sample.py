"""Samples: bounded, even, in order, and the same for the same seed."""

from hypothesis import given
from hypothesis import strategies as st

from inkstone.text.sample import cut_pieces, sample_texts


@given(st.lists(st.text(max_size=20), max_size=20), st.integers(0, 200), st.integers(0, 3))
def test_a_sample_is_a_bounded_subsequence(texts, max_bytes, seed):
    sample = sample_texts(texts, max_bytes, seed=seed)
    assert sum(len(text.encode("utf-8", "surrogatepass")) for text in sample) <= max_bytes
    rest = iter([text for text in texts if text])
    assert all(piece in rest for piece in sample)


def test_a_large_bound_keeps_everything():
    texts = ["one", "二", "x" * 50_000]
    assert "".join(sample_texts(texts, 10**6)) == "".join(texts)


def test_the_seed_decides_and_both_halves_are_drawn_alike():
    texts = [f"{i:04d}" for i in range(2000)]
    sample = sample_texts(texts, 4 * 500)
    assert sample == sample_texts(iter(texts), 4 * 500) != sample_texts(texts, 4 * 500, seed=1)
    assert len(sample) == 500 and 190 < sum(int(text) < 1000 for text in sample) < 310


@given(st.text("ab\n月", max_size=60), st.integers(1, 9))
def test_pieces_sum_to_the_text_and_keep_the_bound(text, size):
    pieces = list(cut_pieces(text, size))
    assert "".join(pieces) == text and all(0 < len(piece) <= size for piece in pieces)
    assert all(piece.endswith("\n") or "\n" not in piece for piece in pieces[:-1])
