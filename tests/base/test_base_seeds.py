"""Named seed streams are fixed, independent and fit every generator."""

import itertools

from inkstone.base.seeds import derive_seed


def test_a_stream_is_the_same_on_every_machine():
    assert derive_seed(1, "init") == 5267816590608909949


def test_seeds_and_names_give_different_streams():
    seeds = [
        derive_seed(seed, *names) for seed in (0, 1, 2**62) for names in ([], ["init"], ["loader", 0], ["loader", 1], ["dropout"])
    ]
    assert len(set(seeds)) == len(seeds)


def test_a_seed_fits_in_63_bits():
    assert all(0 <= derive_seed(seed, name) < 2**63 for seed, name in itertools.product(range(50), "ab"))
