"""Packing rows from lengths."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.data.packing import pack_rows


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=40), st.integers(1, 17))
def test_every_token_lies_in_exactly_one_row_and_no_row_overflows(lengths, capacity):
    rows = pack_rows(lengths, capacity)
    seen = sorted((d, start + i) for row in rows for d, start, length in row for i in range(length))
    assert seen == [(d, i) for d, n in enumerate(lengths) for i in range(n)]
    assert all(0 < sum(length for _, _, length in row) <= capacity for row in rows)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=40), st.integers(1, 17))
def test_only_documents_longer_than_a_row_are_cut(lengths, capacity):
    pieces = [piece for row in pack_rows(lengths, capacity) for piece in row]
    for document, length in enumerate(lengths):
        assert sum(d == document for d, _, _ in pieces) == -(-length // capacity)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 12), max_size=40), st.integers(12, 17))
def test_equals_the_slow_best_fit(lengths, capacity):
    rows: list[list[int]] = []
    for document in sorted(range(len(lengths)), key=lambda d: (-lengths[d], d)):
        fitting = [r for r in rows if capacity - sum(lengths[d] for d in r) >= lengths[document]]
        best = min(fitting, key=lambda r: capacity - sum(lengths[d] for d in r), default=None)
        if best is None:
            best = []
            rows.append(best)
        best.append(document)
    assert sorted(sum(length for _, _, length in row) for row in pack_rows(lengths, capacity)) == sorted(
        sum(lengths[d] for d in r) for r in rows
    )


def test_worked_example_full_over_and_zero():
    assert pack_rows([3, 5, 2, 0], 5) == [[(1, 0, 5)], [(0, 0, 3), (2, 0, 2)]]
    assert pack_rows([6], 5) == [[(0, 0, 5)], [(0, 5, 1)]]
    assert pack_rows([], 5) == []
    with pytest.raises(ValueError, match="at least 1"):
        pack_rows([1], 0)
