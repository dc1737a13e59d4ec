"""Laws of the tokenizers made here: nothing is lost, nothing becomes special, the same text gives the same file."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inkstone.base.errors import ConfigError, DataError
from inkstone.text.runs import split_long_runs
from inkstone.text.special import SPECIAL_TOKENS
from inkstone.text.tokenizer import ENCODE_RUN_CHARACTERS, MIN_VOCAB_SIZE, Tokenizer, build_char, train_bpe

TEXTS = [
    "The cat sat on the mat. The dog sat too, 1234 times!\n",
    "床前明月光,疑是地上霜。举头望明月,低头思故乡。\n",
    "def f(x):\n    return x\n",
] * 3
BPE = train_bpe(TEXTS, 340)
CHAR = build_char(TEXTS)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TRAPS = [
    "", " ", "\u200b", "\ufeff", "a\ufeffb\u200b\u200bc", "\ue000\U000f0000\U0010ffff", "e" + "\u0301" * 50, "👩‍👩‍👧‍👦🏳️‍🌈", "\x00\x01\x7f\x85",
    "\r\n\r\n \t\n x", "مرحبا بالعالم", "שלום 123", "क्षि ๑๒๓ ไทย", "½²Ⅷ①", "가나다 カタカナ ひらがな", "\u2028\u2029\u00a0\u3000", "'S 'LL don't",
    "<|endoftext|>", "a<|im_end|>\n<|im_start|>system\nb", "\U000e0001", "𠀀㐀﨎々〇", "ſ ß İ",
]  # fmt: skip


def every_character(step: int) -> str:
    return "".join(chr(c) for c in range(0, 0x110000, step) if not 0xD800 <= c < 0xE000)


@settings(max_examples=400, deadline=None)
@given(ANY_TEXT)
def test_bpe_returns_any_unicode_text(text):
    assert BPE.decode(BPE.encode(text)) == text


@pytest.mark.parametrize("text", TRAPS)
def test_bpe_returns_texts_that_other_patterns_lose(text):
    assert BPE.decode(BPE.encode(text)) == text
    assert BPE.decode(BPE.encode(f"cat {text} 月{text}1{text}!")) == f"cat {text} 月{text}1{text}!"


def test_bpe_returns_every_character_of_unicode():
    text = every_character(1)
    assert BPE.decode(BPE.encode(text)) == text
    spaced = " ".join(every_character(19))
    assert BPE.decode(BPE.encode(spaced)) == spaced


@given(st.text(st.sampled_from(sorted({*"".join(TEXTS)}))))
def test_char_returns_text_of_its_characters(text):
    assert CHAR.decode(CHAR.encode(text)) == text
    assert len(CHAR.encode(text)) == len(text)


@pytest.mark.parametrize("tokenizer", [BPE, CHAR], ids=["bpe", "char"])
def test_user_text_never_becomes_a_special_token(tokenizer):
    reserved = {index for token, index in tokenizer.special.items() if token != "<|unk|>"}
    for token in SPECIAL_TOKENS:
        for text in (token, f"a {token}b", token * 3, f"\n{token}\n"):
            assert not reserved & set(tokenizer.encode(text))
            assert not reserved & {i for ids in tokenizer.encode_batch([text, text]) for i in ids}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(ANY_TEXT, st.sampled_from(SPECIAL_TOKENS)), max_size=6).map("".join))
def test_bpe_never_makes_a_special_id_from_mixtures(text):
    assert all(index >= len(SPECIAL_TOKENS) for index in BPE.encode(text))


def test_special_tokens_of_bpe_are_the_first_ids():
    assert [BPE.special[token] for token in SPECIAL_TOKENS] == list(range(8))
    assert (BPE.eos_id, BPE.pad_id, BPE.kind, BPE.pre_tokenizer) == (0, 1, "bpe", "deepseek-v3")
    assert BPE.vocab_size == 340


def test_char_has_its_specials_after_the_characters():
    tokenizer = build_char(["hello", "w"])
    assert [tokenizer.encode(c)[0] for c in "ehlow"] == [0, 1, 2, 3, 4]
    assert tokenizer.special == {"<|endoftext|>": 5, "<|unk|>": 6}
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.pad_id, tokenizer.kind) == (7, 5, 5, "char")
    assert tokenizer.encode("he!") == [1, 0, 6]


def test_encode_batch_equals_encode():
    texts = ["", *TEXTS, "x" * 40_000, "月" * 40_000]
    assert BPE.encode_batch(texts) == [BPE.encode(text) for text in texts]
    assert BPE.encode_batch([]) == []


@pytest.mark.parametrize("tokenizer", [BPE, CHAR], ids=["bpe", "char"])
def test_token_bytes_are_the_exact_bytes_of_a_text(tokenizer):
    text = "".join(TEXTS)
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.token_bytes[i] for i in ids) == text.encode()
    assert tokenizer.byte_lengths[ids].sum() == len(text.encode())
    assert tokenizer.byte_lengths.dtype == np.int32 and tokenizer.byte_lengths.shape == (tokenizer.vocab_size,)
    assert all(tokenizer.token_bytes[i] == b"" for i in tokenizer.special.values())


def test_decode_equals_the_library_also_for_broken_utf8():
    rng = np.random.default_rng(0)
    for _ in range(50):
        ids = rng.integers(8, BPE.vocab_size, 30).tolist()
        assert BPE.decode(ids) == BPE._library.decode(ids)


@pytest.mark.parametrize("bad", [-1, 340, 10**9])
def test_decode_of_an_id_outside_the_vocabulary_is_a_value_error(bad):
    with pytest.raises(ValueError, match=r"outside this tokenizer's 0\.\.339"):
        BPE.decode([8, bad])


@pytest.mark.parametrize("make", [BPE.encode, CHAR.encode, lambda t: train_bpe([t], 300), lambda t: build_char([t])])
def test_a_lone_surrogate_is_a_data_error_that_says_where(make):
    with pytest.raises(DataError, match=r"lone surrogate U\+D800"):
        make("ab\ud800c")


@pytest.mark.parametrize("size", [0, -1, MIN_VOCAB_SIZE - 1, 2**24 + 1])
def test_impossible_vocabulary_sizes_are_config_errors(size):
    with pytest.raises(ConfigError, match="vocab_size"):
        train_bpe(TEXTS, size)


def test_the_first_unknown_character_is_found_where_there_can_be_one():
    known = build_char(["ab月"])
    assert (known.first_unknown("a月x台x"), known.first_unknown("ba月"), known.first_unknown("")) == ("x", None, None)
    assert known.unknown_id == known.special["<|unk|>"]
    assert train_bpe(TEXTS, MIN_VOCAB_SIZE).unknown_id is None and train_bpe(TEXTS, MIN_VOCAB_SIZE).first_unknown("台") is None


def test_the_smallest_vocabulary_is_bytes_alone():
    tokenizer = train_bpe(TEXTS, MIN_VOCAB_SIZE)
    assert len(tokenizer.encode("月a")) == 4 and tokenizer.decode(tokenizer.encode("月a")) == "月a"


def test_a_text_too_small_for_the_vocabulary_warns_and_gives_what_it_has(capsys):
    assert train_bpe(["abab"], 1000).vocab_size < 270
    assert "too small for a vocabulary of 1,000" in capsys.readouterr().err


@pytest.mark.parametrize("make", [lambda texts: train_bpe(texts, 300), build_char])
@pytest.mark.parametrize("texts", [[], [""]])
def test_training_on_nothing_is_a_data_error(make, texts):
    with pytest.raises(DataError, match="0 characters"):
        make(texts)


def test_training_is_the_same_on_any_number_of_threads(tmp_path):
    script = (
        "import hashlib, sys\n"
        "from inkstone.text.tokenizer import train_bpe\n"
        "texts = [f'word{i % 97} 词{chr(0x4e00 + i * 7 % 900)}{chr(0x4e00 + i * 13 % 700)} {i}\\n' for i in range(4000)]\n"
        f"train_bpe(texts, 1500).save({str(tmp_path)!r} + '/' + sys.argv[1])\n"
    )
    for name, environment in {
        "one": {"RAYON_NUM_THREADS": "1"},
        "five": {"RAYON_NUM_THREADS": "5"},
        "off": {"TOKENIZERS_PARALLELISM": "0"},
    }.items():
        subprocess.run([sys.executable, "-c", script, name], check=True, env={**os.environ, **environment})
    files = {(tmp_path / name / "tokenizer.json").read_bytes() for name in ("one", "five", "off")}
    assert len(files) == 1


@pytest.mark.parametrize("unit", ["a", "月", " ", "\n", "1", "!", "e\u0301", "\u200b", " a", "😀"])
def test_a_million_of_one_character_comes_back(unit):
    text = unit * (1_000_000 // len(unit.encode()))
    assert BPE.decode(BPE.encode(text)) == text


def test_training_on_one_long_run_has_no_long_token():
    tokenizer = train_bpe(["月" * 300_000 + "a" * 300_000], 600)
    assert 0 < tokenizer.byte_lengths.max() <= 48
    assert len(tokenizer.encode("a" * 1000)) < 100


@settings(max_examples=300, deadline=None)
@given(st.text("ab \n月", max_size=60), st.integers(2, 12))
@example("aaaaaaa bbb", 2)
def test_pieces_of_long_runs_sum_to_the_text_and_are_short(text, limit):
    pieces = split_long_runs(text, limit)
    assert "".join(pieces) == text
    assert max((len(run) for piece in pieces for run in re.findall(r"\S+|\s+", piece)), default=0) < 2 * limit


def test_ordinary_text_is_not_cut():
    text = "word " * 50_000
    assert split_long_runs(text, ENCODE_RUN_CHARACTERS) == [text]


def test_save_and_load_keep_everything(tmp_path):
    for tokenizer in (BPE, CHAR):
        path = tokenizer.save(tmp_path / tokenizer.kind)
        for place in (path, path.parent, str(path)):
            loaded = Tokenizer.load(place)
            assert loaded.fingerprint == tokenizer.fingerprint and len(loaded.fingerprint) == 64
            assert (loaded.kind, loaded.special, loaded.eos_id, loaded.pad_id, loaded.vocab_size) == (
                tokenizer.kind, tokenizer.special, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size,
            )  # fmt: skip
            assert loaded.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0]) and loaded.files() == tokenizer.files()
    assert BPE.fingerprint != CHAR.fingerprint != train_bpe(TEXTS, 341).fingerprint


def test_merges_never_cross_digits_and_han_runs_of_the_pattern():
    tokenizer = train_bpe(["月12345月abc 的的的cat"] * 50, 500)
    pieces = [tokenizer.token_bytes[i].decode() for i in tokenizer.encode("月12345月abc 的的的cat")]
    assert pieces == ["月", "123", "45", "月", "abc", " ", "的的的", "cat"]


def test_importing_the_text_layer_imports_neither_torch_nor_the_library():
    modules = [f"inkstone.text.{name}" for name in ("tokenizer", "chat", "stream", "stops", "languages", "sample")]
    script = f"import sys, {', '.join(modules)}; sys.exit(any(name in sys.modules for name in ('torch', 'tokenizers')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
