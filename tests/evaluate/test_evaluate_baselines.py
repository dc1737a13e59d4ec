import lzma
import math
import random
import shutil
import subprocess
from collections import Counter, defaultdict

import numpy as np
import pytest

from inkstone.evaluate.baselines import ORDER, NGramModel, baselines, xz_bits_per_byte


def prose(seed: int, num_bytes: int) -> bytes:
    rng = random.Random(seed)
    words = [
        "the",
        "river",
        "stone",
        "ink",
        "dark",
        "writes",
        "slowly",
        "under",
        "a",
        "lamp",
        "墨",
        "砚台",
        "慢慢",
        "写字",
        "，",
        "。",
    ]
    text = ""
    while len(text.encode()) < num_bytes:
        text += rng.choice(words) + " "
    return text.encode()[:num_bytes]


def test_xz_counts_the_file_that_xz_makes():
    text = prose(0, 30_000)
    assert xz_bits_per_byte(text) == 8 * len(lzma.compress(text, preset=9)) / len(text)
    if shutil.which("xz"):
        packed = subprocess.run(["xz", "-9", "--stdout"], input=text, capture_output=True, check=True).stdout
        assert xz_bits_per_byte(text) == pytest.approx(8 * len(packed) / len(text), rel=0.01)


def test_xz_knows_noise_from_repetition():
    noise = random.Random(1).randbytes(20_000)
    assert xz_bits_per_byte(noise) > 8
    assert xz_bits_per_byte(b"ink" * 20_000) < 0.1


def slow_probability(train: bytes, history: bytes, byte: int, order: int) -> float:
    """Interpolated Kneser-Ney straight from its formula, with dictionaries."""
    if order == 0:
        return 1 / 256
    lower = slow_probability(train, history, byte, order - 1)
    counts = slow_counts(train, order, max_order=slow_probability.max_order)
    once, twice = list(counts.values()).count(1), list(counts.values()).count(2)
    discount = min(0.95, max(0.05, once / (once + 2 * twice) if once else 0.0))
    context = history[len(history) - order + 1 :] if order > 1 else b""
    after = {gram[-1]: n for gram, n in counts.items() if gram[:-1] == context}
    total = sum(after.values())
    if total == 0:
        return lower
    return (max(after.get(byte, 0) - discount, 0) + discount * len(after) * lower) / total


def slow_counts(train: bytes, order: int, max_order: int) -> Counter:
    if order == max_order:
        return Counter(train[i : i + order] for i in range(len(train) - order + 1))
    before = defaultdict(set)
    for gram in slow_counts(train, order + 1, max_order):
        before[gram[1:]].add(gram[0])
    return Counter({gram: len(seen) for gram, seen in before.items()})


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_equal_the_slow_formula(order):
    train, text = prose(2, 300), prose(3, 60)
    slow_probability.max_order = order
    slow = [slow_probability(train, text[:i], text[i], min(order, i + 1)) for i in range(len(text))]
    assert NGramModel(train, order=order).probabilities(text) == pytest.approx(slow, rel=1e-12)


@pytest.mark.parametrize("history", [b"", b"the river", "砚".encode(), b"\x00\xff\x00\xff\x00\xff"])
def test_probabilities_of_all_bytes_after_any_history_sum_to_one(history):
    model = NGramModel(prose(4, 5_000))
    total = sum(model.probabilities(history + bytes([byte]))[-1] for byte in range(256))
    assert total == pytest.approx(1, abs=1e-9)


def test_no_byte_is_impossible_and_the_untrained_model_costs_eight_bits():
    every = bytes(range(256))
    assert np.isfinite(NGramModel(b"aaaaaaaaaaaaaaaaaaaa").bits_per_byte(every))
    assert NGramModel(b"").bits_per_byte(every) == 8.0
    assert NGramModel(b"ab").bits_per_byte(b"x") > 0


def test_a_longer_history_helps_and_noise_cannot_be_predicted():
    train, val = prose(5, 60_000), prose(6, 5_000)
    costs = [NGramModel(train, order=order).bits_per_byte(val) for order in (1, 2, 4)]
    assert costs[0] > costs[1] > costs[2]
    noise = random.Random(7).randbytes(4_000)
    assert 7.9 < NGramModel(random.Random(8).randbytes(40_000)).bits_per_byte(noise) < 9


def test_bits_per_byte_is_the_mean_of_minus_log2():
    model, text = NGramModel(prose(9, 2_000)), prose(10, 100)
    assert model.bits_per_byte(text) == pytest.approx(-sum(math.log2(p) for p in model.probabilities(text)) / len(text))


def test_a_long_text_is_sampled_from_all_over():
    train = b"x" * 200_000 + b"y" * 200_000 + b"z" * 200_000
    model = NGramModel(train, max_train_bytes=6_000)
    assert int(model._tables[-1].counts.sum()) <= 6_000
    assert model.bits_per_byte(b"z" * 50) < 1  # the end of the text was seen
    assert model.bits_per_byte(b"x" * 50) < 1


def test_val_shorter_than_the_order_is_measured():
    assert NGramModel(prose(11, 1_000)).probabilities(b"t").shape == (1,)


def test_baselines_have_names_and_a_metric():
    found = baselines(prose(12, 3_000), prose(13, 500))
    assert list(found) == ["xz -9", f"{ORDER}-gram"]
    assert all(list(figures) == ["bits_per_byte"] for figures in found.values())


def test_empty_text_and_impossible_orders_are_refused():
    with pytest.raises(ValueError, match="found none"):
        xz_bits_per_byte(b"")
    with pytest.raises(ValueError, match="found none"):
        NGramModel(b"abc").bits_per_byte(b"")
    with pytest.raises(ValueError, match="1 to 8"):
        NGramModel(b"abc", order=9)
