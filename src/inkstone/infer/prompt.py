"""A prompt's way to token ids, refused early and with numbers where it cannot be used."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from inkstone.base.errors import RequestError
from inkstone.text.special import IM_END

if TYPE_CHECKING:
    from inkstone.text.tokenizer import Tokenizer

MAX_UTF8_BYTES = 4  # of one character, and so of a token that stands for an unknown one


def check_text(text: object, name: str = "prompt") -> str:
    """Return the text. Raises: RequestError when it is not text, or has half a surrogate pair (not a Unicode character)."""
    if not isinstance(text, str):
        raise RequestError(f"{name}: expected text, found {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        found = f"U+{ord(text[error.start]):04X} at character {error.start}"
        raise RequestError(f"{name}: expected Unicode text, found the lone surrogate {found} — is the input UTF-8?") from error
    return text


def encode_prompt(text: str, tokenizer: "Tokenizer", context: int) -> list[int]:
    """Return the ids of a prompt of at most `context` tokens; an empty prompt is the one token `<|endoftext|>`.

    Raises: RequestError with the numbers when it is too long, before tokenizing where its size alone says so.
    """
    num_bytes = len(check_text(text).encode())
    longest = max(MAX_UTF8_BYTES, int(tokenizer.byte_lengths.max()))
    if tokenizer.kind != "loaded" and num_bytes > context * longest:
        raise RequestError(
            f"prompt: expected at most {context:,} tokens (the model's context), found {num_bytes:,} bytes, "
            f"which are at least {-(-num_bytes // longest):,} tokens — shorten it, or train a model with a longer context"
        )
    ids = tokenizer.encode(text) or [tokenizer.eos_id]
    check_length(ids, context)
    return ids


def check_length(ids: list[int], context: int) -> None:
    """Raises: RequestError when a prompt is longer than the model's context."""
    if len(ids) > context:
        raise RequestError(
            f"prompt: expected at most {context:,} tokens (the model's context), found {len(ids):,} — "
            f"shorten it by {len(ids) - context:,}, or train a model with a longer context"
        )


def stop_ids(tokenizer: "Tokenizer") -> frozenset[int]:
    """Return the tokens that end a text: `<|endoftext|>` and, where it exists, `<|im_end|>`."""
    return frozenset({tokenizer.eos_id, tokenizer.special.get(IM_END, tokenizer.eos_id)})


def silent_ids(tokenizer: "Tokenizer", ends: Iterable[int]) -> list[int]:
    """Return the special tokens that have no text and end nothing (padding, role marks): they are never drawn."""
    return sorted(set(tokenizer.special.values()) - set(ends))
