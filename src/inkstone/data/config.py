"""What `data prepare` can be told. No torch, no numpy: help pages read it."""

from typing import Literal

import pydantic

from inkstone.base.quantity import parse_count
from inkstone.base.settings import Settings, setting
from inkstone.text.special import MIN_VOCAB_SIZE

Format = Literal["auto", "text", "jsonl", "json", "csv", "tsv", "parquet"]
Split = Literal["auto", "document", "ends", "tail"]


class PrepareSettings(Settings):
    """How inputs are read, cleaned, split and tokenized."""

    vocab_size: int = setting(
        4096, "ids of the tokenizer that is trained (scaled down for small corpora unless given)", ge=MIN_VOCAB_SIZE, le=1_000_000
    )
    tokenizer: str | None = setting(None, "'char', or a tokenizer.json, run or model folder; default: train byte-level BPE")
    val_fraction: float = setting(0.05, "share of the text that becomes the validation split", gt=0, le=0.5)
    split: Split = setting(
        "auto", "document: whole documents; ends: the end of each; tail: the exact last characters; auto: by their number"
    )
    seed: int = setting(0, "root of every random choice", ge=0, lt=2**63)
    format: Format = setting("auto", "how to read the inputs; auto: by content, then by file name")
    text_field: str | None = setting(
        None, "field or column with the text (default: text, messages, prompt/completion, instruction/output)"
    )
    encoding: str = setting(
        "auto", "auto (BOM, UTF-8, then GB18030, Big5, UTF-16 by their common characters), or a codec such as latin-1"
    )
    encoding_errors: Literal["strict", "replace"] = setting("strict", "replace: undecodable bytes become U+FFFD")
    on_bad_line: Literal["error", "skip"] = setting("error", "skip: count broken records instead of stopping, up to max-bad-share")
    max_bad_share: float = setting(
        0.001, "most of a file's records that may be skipped (a small file: up to 10, at most a tenth)", ge=0, le=1
    )
    max_record_bytes: int = setting(1 << 26, "longest line, field or record", ge=1024)
    max_document_chars: int = setting(1 << 22, "longer texts are cut at paragraph or line ends", ge=16)
    max_expansion: int = setting(200, "a compressed file that grows more than this many times is refused", ge=2)
    dedup: bool = setting(True, "drop exact copies of a document")
    allow_overlap: bool = setting(False, "go on when more than 1 % of the --val-input documents are in the training text")
    sample_bytes: int = setting(
        1 << 23, "text the tokenizer is trained on, at most (a random share of the training split)", ge=1024
    )
    shard_tokens: int = setting(1 << 26, "tokens in a shard, at most", ge=16)

    @pydantic.field_validator("vocab_size", "max_record_bytes", "max_document_chars", "sample_bytes", "shard_tokens", mode="before")
    @classmethod
    def _count(cls, value: object) -> object:
        return parse_count(value) if isinstance(value, str) else value

    @pydantic.field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        import codecs

        try:
            text = value == "auto" or codecs.lookup(value)._is_text_encoding
        except LookupError:
            text = False
        if not text:
            raise ValueError(f"expected auto or a text codec such as utf-8, gb18030, big5, utf-16 or latin-1, found '{value}'")
        return value
