"""A tokenizer.json of others: what is right loads, what the library would take silently and wrongly is refused."""

import copy
import json

import pytest

from inkstone.base.errors import CheckpointError
from inkstone.text.bytelevel import bytes_of_token, character_of_byte
from inkstone.text.pretokenizers import PATTERNS, pre_tokenizer_document, pre_tokenizer_name
from inkstone.text.tokenizer import Tokenizer

GPT2_STEP = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def document(**changes):
    """A tokenizer.json as GPT-2's: bytes, three merges, one special token."""
    vocab = {character: index for index, character in enumerate(character_of_byte())}
    vocab |= {"Ġt": 256, "he": 257, "Ġthe": 258, "<|endoftext|>": 259}
    made = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [{"id": 259, "content": "<|endoftext|>", "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}],
        "pre_tokenizer": GPT2_STEP, "decoder": {**GPT2_STEP, "add_prefix_space": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "vocab": vocab, "merges": ["Ġ t", "h e", "Ġt he"]},
    }  # fmt: skip
    made.update(changes)
    return copy.deepcopy(made)


def write(folder, value, config=None):
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def added(index, content, **flags):
    return {
        "id": index,
        "content": content,
        "special": True,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
    } | flags


def test_a_gpt2_file_loads_and_is_lossless(tmp_path):
    tokenizer = Tokenizer.load(write(tmp_path, document()))
    assert tokenizer.encode(" the<|endoftext|>")[0] == 258 and 259 not in tokenizer.encode(" the<|endoftext|>")
    assert (tokenizer.kind, tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size, tokenizer.pre_tokenizer) == (
        "loaded",
        259,
        259,
        260,
        "gpt-2",
    )
    text = "the 月\u200b\n 123"
    assert tokenizer.decode([*tokenizer.encode(text), 259]) == text


@pytest.mark.parametrize("name", PATTERNS)
def test_every_known_pattern_loads_and_is_lossless(name, tmp_path):
    made = document(pre_tokenizer=pre_tokenizer_document(name), normalizer={"type": "NFC"})
    tokenizer = Tokenizer.load(write(tmp_path, made))
    assert tokenizer.pre_tokenizer == name
    text = "'LL don't 12345 月亮\u200b\ufeff\ue000!!\r\n\r\n  \tx  क्षि 👩‍👧"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("e\u0301")) == "é"  # the one exception: NFC composes characters


@pytest.mark.parametrize(
    ("config", "eos", "pad"),
    [
        ({}, 259, 259),
        ({"eos_token": "<|im_end|>"}, 261, 259),
        ({"eos_token": {"content": "<|im_end|>"}, "pad_token": "<|endoftext|>"}, 261, 259),
    ],
)
def test_the_end_of_text_is_found_and_survives_saving(config, eos, pad, tmp_path):
    tokens = [*document()["added_tokens"], added(260, "<|im_start|>"), added(261, "<|im_end|>")]
    tokenizer = Tokenizer.load(write(tmp_path, document(added_tokens=tokens), config))
    assert (tokenizer.eos_id, tokenizer.pad_id) == (eos, pad if config.get("pad_token") else eos)
    again = Tokenizer.load(tokenizer.save(tmp_path / "again"))
    assert (again.eos_id, again.pad_id, again.fingerprint) == (tokenizer.eos_id, tokenizer.pad_id, tokenizer.fingerprint)
    assert "chat_template" in again.config()


def test_truncation_and_padding_of_the_file_are_not_applied(tmp_path):
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    padding = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "!",
    }
    tokenizer = Tokenizer.load(write(tmp_path, document(truncation=truncation, padding=padding)))
    assert len(tokenizer.encode("abcdef")) == 6 and len(tokenizer.encode("ab")) == 2
    assert tokenizer.fingerprint == Tokenizer(document()).fingerprint


def test_a_template_that_adds_tokens_does_not_add_them(tmp_path):
    post = {
        "type": "TemplateProcessing", "pair": [],
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [259], "tokens": ["<|endoftext|>"]}},
    }  # fmt: skip
    assert 259 not in Tokenizer.load(write(tmp_path, document(post_processor=post))).encode("ab")


def test_gaps_in_the_ids_are_allowed_and_decode_to_nothing(tmp_path):
    tokenizer = Tokenizer.load(write(tmp_path, document(added_tokens=[*document()["added_tokens"], added(300, "<|im_end|>")])))
    assert tokenizer.vocab_size == 301 and tokenizer.decode([280, 300]) == ""


def test_plain_added_tokens_are_found_in_text_and_have_bytes(tmp_path):
    tokens = [*document()["added_tokens"], added(260, "<think 月>", special=False)]
    tokenizer = Tokenizer.load(write(tmp_path, document(added_tokens=tokens)))
    assert 260 in tokenizer.encode("a<think 月>b") and tokenizer.decode(tokenizer.encode("a<think 月>b")) == "a<think 月>b"


def model(**changes):
    return {**document()["model"], **changes}


def vocab(**changes):
    return model(vocab={**document()["model"]["vocab"], **changes})


def split(regex, **changes):
    steps = pre_tokenizer_document("qwen2")["pretokenizers"]
    return {"type": "Sequence", "pretokenizers": [{**steps[0], "pattern": {"Regex": regex}, **changes}, steps[1]]}


EOS = document()["added_tokens"]
BAD = {
    "T04 empty": ("", "truncated or not JSON"),
    "T04 truncated": (json.dumps(document())[:-40], "truncated or not JSON"),
    "T04 not an object": ("[]", "not an object"),
    "T04 no model": ({"version": "1.0"}, "no 'model'"),
    "T04 deep": ("[" * 200_000, "truncated or not JSON"),
    "T04 key twice": (json.dumps(document()).replace('"he": 257', '"he": 257, "he": 1'), "stands twice"),
    "T05 merge of unknown tokens": (document(model=model(merges=["Ġ t", "qq zz"])), "tokenizer "),
    "T06 duplicate id": (document(model=vocab(extra=257)), "id 257 belongs to two tokens"),
    "T07 added id differs from the vocab": (document(added_tokens=[added(258, "<|endoftext|>")]), "says id 258, the vocab says 259"),
    "T07 added id is another token's": (document(added_tokens=[*EOS, added(5, "<|im_end|>")]), "says id 5, which belongs to"),
    "T03 added twice": (document(added_tokens=EOS * 2), "stands there twice"),
    "T03 added empty": (document(added_tokens=[*EOS, added(270, "")]), "is empty"),
    "T08 negative id": (document(model=vocab(extra=-1)), "does not give every token an id"),
    "T08 id is no number": (document(model=vocab(extra="7")), "does not give every token an id"),
    "T08 id too large": (document(added_tokens=[*EOS, added(2**31, "x")]), "added_tokens"),
    "T09 catastrophic regex": (document(pre_tokenizer=split("(a|aa)+$")), "none of the known ones"),
    "T09 losing split": (document(pre_tokenizer=split(PATTERNS["qwen2"][0], behavior="Removed")), "keeps every character"),
    "T09 normalizer regex": (document(normalizer={"type": "Replace", "pattern": {"Regex": "(a|aa)+$"}, "content": ""}), "more than NFC"),
    "prefix space": (document(pre_tokenizer={**GPT2_STEP, "add_prefix_space": True}), "adds a space"),
    "metaspace": (document(pre_tokenizer={"type": "Metaspace"}), "not byte-level"),
    "lowercase": (document(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}), "more than NFC"),
    "wrong decoder": (document(decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}), "does not fit"),
    "missing byte": (document(model=model(vocab={k: v for k, v in document()["model"]["vocab"].items() if k != "Ā"})), "byte 0x00"),
    "dropout": (document(model=model(dropout=0.5)), "dropout"),
    "unigram": (document(model={"type": "Unigram", "vocab": []}), "only byte-pair encoding"),
    "stripping token": (document(added_tokens=[*EOS, added(260, "<x>", special=False, lstrip=True)]), "swallows the spaces"),
    "special out of merges": (document(added_tokens=[*EOS, added(258, "Ġthe")]), "out of plain text"),
    "special out of whole words": (document(model=vocab(abc=260) | {"ignore_merges": True}, added_tokens=[*EOS, added(260, "abc")]), "could forge it"),
    "no character for the unknown": (document(pre_tokenizer=None, decoder=None, model={"type": "BPE", "vocab": {"a": 0}, "merges": []}), "unknown characters"),
    "T12 no end": (document(added_tokens=[added(259, "<|endoftext|>", special=False)]), "no special token ends a text"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_tokenizer_file_is_refused_with_its_name_and_reason(name, tmp_path):
    value, reason = BAD[name]
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.load(write(tmp_path, value))
    assert reason in str(caught.value) and str(tmp_path / "tokenizer.json") in str(caught.value)


def test_independent_problems_are_reported_together(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.load(write(tmp_path, document(model=vocab(extra=257) | {"dropout": 0.1}, normalizer={"type": "Lowercase"})))
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("config", "reason"),
    [({"auto_map": {"AutoTokenizer": ["x.Y", None]}}, "custom code"), ({"eos_token": "<end>"}, "names '<end>'")],
)
def test_a_bad_tokenizer_config_is_refused(config, reason, tmp_path):
    with pytest.raises(CheckpointError, match=reason):
        Tokenizer.load(write(tmp_path, document(), config))


def test_a_missing_file_or_a_folder_without_one_is_refused(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere.json"):
        with pytest.raises(CheckpointError, match="is missing"):
            Tokenizer.load(place)


def test_pattern_names_are_told_apart():
    assert {name: pre_tokenizer_name(pre_tokenizer_document(name)) for name in PATTERNS} == {name: name for name in PATTERNS}
    assert pre_tokenizer_name(None) == "none" and pre_tokenizer_name(GPT2_STEP) == "gpt-2"
    with pytest.raises(ValueError):
        pre_tokenizer_name({"type": "Sequence", "pretokenizers": []})


def test_the_byte_alphabet_is_the_library_s():
    from tokenizers.pre_tokenizers import ByteLevel

    assert sorted(character_of_byte()) == sorted(ByteLevel.alphabet())
    for text in ("a b\n", "月\u200b", "\x00\x7f\x80\xad\xff"):
        pieces = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
        assert b"".join(bytes_of_token(piece) for piece, _ in pieces) == text.encode()
