"""The tokenizer's part of a GGUF file: tokens with their kinds, merges, and the name of the pre-tokenizer as llama.cpp has it."""

from inkstone.base.errors import ConfigError
from inkstone.base.log import warn
from inkstone.checkpoint.gguf_architectures import Metadata
from inkstone.text.pretokenizers import NONE
from inkstone.text.special import IM_END
from inkstone.text.tokenizer import Tokenizer

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # tokenizer.ggml.token_type
# (our name, whether a whole word that is a token is taken without merging) → llama.cpp's name for exactly that.
_NAMES = {
    ("deepseek-v3", False): "deepseek-v3",
    ("qwen2", False): "qwen2",
    ("gpt-2", False): "gpt-2",
    ("llama-bpe", True): "llama-bpe",
    ("llama-bpe", False): "dbrx",
}


def tokenizer_metadata(tokenizer: Tokenizer, vocab_size: int) -> Metadata:
    """Return the metadata of a byte-level tokenizer, its vocabulary padded to the model's `vocab_size`.

    Text gets the same ids as here: no space or beginning mark is added, and special tokens are never made of plain text.

    Raises: ConfigError for a tokenizer that GGUF has no form for.
    """
    _require_bytes(tokenizer)
    tokens, kinds = _tokens(tokenizer, vocab_size)
    metadata: Metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _pre_tokenizer(tokenizer),
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": _merges(tokenizer),
        "tokenizer.ggml.bos_token_id": tokenizer.eos_id,  # an empty prompt begins with it
        "tokenizer.ggml.eos_token_id": tokenizer.eos_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_id,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }
    if IM_END in tokenizer.special:
        metadata["tokenizer.ggml.eot_token_id"] = tokenizer.special[IM_END]
    template = tokenizer.config().get("chat_template")
    return metadata | ({"tokenizer.chat_template": template} if isinstance(template, str) else {})


def _require_bytes(tokenizer: Tokenizer) -> None:
    if tokenizer.pre_tokenizer == NONE:
        raise ConfigError(
            "a GGUF file has no form for a character tokenizer — export --to hf, or train with a byte-level tokenizer"
        )
    if tokenizer.document.get("normalizer"):
        warn("the tokenizer composes characters first (NFC), and llama.cpp does not: text that is not NFC gets other ids there")


def _pre_tokenizer(tokenizer: Tokenizer) -> str:
    takes_whole_words = bool(tokenizer.document["model"].get("ignore_merges"))
    name = _NAMES.get((tokenizer.pre_tokenizer, takes_whole_words))
    if name is None:
        raise ConfigError(
            f"the tokenizer takes whole words without merging (ignore_merges), and llama.cpp does not with {tokenizer.pre_tokenizer}:"
            " the ids would differ — export --to hf"
        )
    return name


def _tokens(tokenizer: Tokenizer, vocab_size: int) -> tuple[list[str], list[int]]:
    """Return every token's text and kind; a gap gets a name with a space, which the byte-level alphabet does not have."""
    tokens = [f"[unused {index}]" for index in range(vocab_size)]
    kinds = [UNUSED] * vocab_size
    for token, index in tokenizer.document["model"]["vocab"].items():
        tokens[index], kinds[index] = token, NORMAL
    for entry in tokenizer.document.get("added_tokens", []):
        tokens[entry["id"]], kinds[entry["id"]] = entry["content"], CONTROL if entry.get("special") else USER_DEFINED
    return tokens, kinds


def _merges(tokenizer: Tokenizer) -> list[str]:
    merges = tokenizer.document["model"]["merges"]
    if not merges:
        raise ConfigError("the tokenizer has no merges, and llama.cpp loads no such vocabulary — export --to hf")
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
