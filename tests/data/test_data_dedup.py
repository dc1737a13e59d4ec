"""Exact deduplication and the hash that splits."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.data.dedup import Digests, first_rows, hash_share


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=2), max_size=40))
def test_first_rows_equal_a_dictionary(contents):
    digests = Digests()
    for content in contents:
        digests.add(content)
    seen: dict[bytes, int] = {}
    assert first_rows(digests.table()).tolist() == [seen.setdefault(content, i) for i, content in enumerate(contents)]


def test_equal_high_halves_with_different_low_halves_are_different():
    table = np.array([[5, 1], [5, 2], [5, 1], [4, 2]], dtype=np.uint64)
    assert first_rows(table).tolist() == [0, 1, 0, 3]


def test_shares_are_even_and_depend_on_value_and_seed_only():
    digests = Digests()
    for i in range(4000):
        digests.add(b"%d" % i)
    table = digests.table()
    share = hash_share(table, 0)
    assert np.array_equal(hash_share(table[::-1], 0), share[::-1]) and not np.array_equal(hash_share(table, 1), share)
    assert np.all(np.abs(np.histogram(share, bins=10, range=(0, 1))[0] - 400) < 80)
