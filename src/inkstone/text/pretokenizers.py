"""The pre-tokenizers that are known to be lossless and fast: how a text is cut before byte pairs are merged.

A `Split` regex decides over time and stack of every later encode, and a hostile one brings the process down, so a
tokenizer.json may only name these. The names are llama.cpp's, so that a GGUF file can say which one it needs.
"""

from collections.abc import Mapping
from typing import Any

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS: dict[str, tuple[str, ...]] = {
    # Groups of up to three digits; runs of Han and kana; then words with marks, punctuation, line ends and spaces.
    "deepseek-v3": (
        r"\p{N}{1,3}",
        "[一-龥\u3040-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "qwen2": (_CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _TAIL,),
    "llama-bpe": (_CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _TAIL,),
    "gpt-2": (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",),
}
TRAINED = "deepseek-v3"
NONE = "none"


def pre_tokenizer_document(name: str) -> dict[str, Any]:
    """Return the `pre_tokenizer` entry of a tokenizer.json for a name of `PATTERNS`."""
    splits = [{"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in PATTERNS[name]]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*splits, byte_level]}


def pre_tokenizer_name(entry: Mapping[str, Any] | None) -> str:
    """Return which of `PATTERNS` (or `"none"`) a tokenizer.json's `pre_tokenizer` entry is.

    Raises: ValueError that says what is not allowed.
    """
    if entry is None:
        return NONE
    parts = entry.get("pretokenizers") if entry.get("type") == "Sequence" else [entry]
    if not isinstance(parts, list) or not parts or not all(isinstance(part, Mapping) for part in parts):
        raise ValueError("its pre_tokenizer is not a list of steps")
    *splits, last = parts
    if last.get("type") != "ByteLevel":
        raise ValueError(f"its pre_tokenizer is '{last.get('type')}', not byte-level")
    if last.get("add_prefix_space", True):
        raise ValueError("its pre_tokenizer adds a space before every text, so text would not come back as it was")
    patterns = tuple(_pattern(split) for split in splits)
    own_regex = last.get("use_regex", True)
    if own_regex and not patterns:
        return "gpt-2"
    for name, known in PATTERNS.items():
        if patterns == known and not own_regex:
            return name
    raise ValueError(f"its pre_tokenizer pattern is none of the known ones ({', '.join(PATTERNS)}); an unknown regex is not run")


def _pattern(split: Mapping[str, Any]) -> str:
    pattern = split.get("pattern")
    regex = pattern.get("Regex") if isinstance(pattern, Mapping) else None
    if split.get("type") != "Split" or not isinstance(regex, str):
        raise ValueError(f"its pre_tokenizer step '{split.get('type')}' is not a Split by a regex")
    if split.get("behavior") != "Isolated" or split.get("invert"):
        raise ValueError("its pre_tokenizer Split is not of the kind that keeps every character (behavior Isolated, not inverted)")
    return regex
