"""Models with random weights and a made-up vocabulary, for measuring: how fast a shape is does not depend on what it says."""

import itertools
import string
from collections.abc import Iterator
from pathlib import Path

from inkstone.checkpoint.model_folder import save_model
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.bytelevel import character_of_byte
from inkstone.text.pretokenizers import pre_tokenizer_document
from inkstone.text.special import END_OF_TEXT
from inkstone.text.tokenizer import Tokenizer


def made_up_tokenizer(vocab_size: int) -> Tokenizer:
    """Return a byte-level tokenizer of exactly `vocab_size` ids, at least 257: the bytes, strings of small letters, an end of text."""
    tokens = [*sorted(character_of_byte()), *itertools.islice(_letters(), vocab_size - 257)]
    merges = [(token[:-1], token[-1]) for token in tokens[256:]]
    end = len(tokens)
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {token: index for index, token in enumerate(tokens)}, "merges": merges,
    }  # fmt: skip
    added = {"id": end, "content": END_OF_TEXT, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    document = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [added | {"special": True}], "normalizer": None,
        "pre_tokenizer": pre_tokenizer_document("gpt-2"), "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}, "model": model,
    }  # fmt: skip
    return Tokenizer(document, where="made up")


def write_made_up_model(folder: Path, config: ModelConfig, *, seed: int = 0) -> None:
    """Publish a model folder with random weights; transformers and the converters read it where the shape has a class there."""
    save_model(folder, Transformer(config, seed=seed), made_up_tokenizer(config.vocab_size))


def _letters() -> Iterator[str]:
    """Yield every string of two small letters, then of three, and so on: each is an earlier one and a letter."""
    for length in itertools.count(2):
        yield from map("".join, itertools.product(string.ascii_lowercase, repeat=length))
