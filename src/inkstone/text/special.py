"""The special tokens, and how the end of a text is found in a tokenizer that others made."""

from collections.abc import Mapping
from typing import Any

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
IM_START = "<|im_start|>"
IM_END = "<|im_end|>"
UNKNOWN = "<|unk|>"
# A byte-level tokenizer trained here has them as ids 0..7; <|start|>, <|delimiter|> and <|extract|> are GPT-1's task marks.
SPECIAL_TOKENS = (END_OF_TEXT, PAD, IM_START, IM_END, "<|start|>", "<|delimiter|>", "<|extract|>", UNKNOWN)
MIN_VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)  # of a byte-level tokenizer: every byte has an id
# A character tokenizer has these two after its characters.
CHARACTER_SPECIAL_TOKENS = (END_OF_TEXT, UNKNOWN)

EOS_NAMES = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<｜end▁of▁sentence｜>", "[EOS]", IM_END, "<|eot_id|>")
PAD_NAMES = (PAD, "<pad>", "[PAD]", "<｜▁pad▁｜>", "<|finetune_right_pad_id|>")


def find_special(key: str, names: tuple[str, ...], special: Mapping[str, int], config: Mapping[str, Any]) -> int | None:
    """Return the id that `config[key]` names, else that of the first of `names` that exists, else `None`.

    `config` is a tokenizer_config.json; its entry is a string or an object with `content`.

    Raises: KeyError with the token's text when the config names a token that is no special token.

    >>> find_special("eos_token", ("</s>",), {"</s>": 2, "<end>": 5}, {"eos_token": {"content": "<end>"}})
    5
    """
    named = config.get(key)
    if isinstance(named, Mapping):
        named = named.get("content")
    if isinstance(named, str):
        return special[named]
    return next((special[name] for name in names if name in special), None)
