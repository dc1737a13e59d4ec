"""The tokenizer: text to ids and back, without losing a character and without ever making a special id out of text.

Two kinds do lose something, and say so: a character tokenizer has only its own characters (`unknown_id` stands for the others), and
one that others made may compose characters first (NFC): "e" with a combining accent comes back as "é".
"""

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from inkstone.base.errors import CheckpointError, ConfigError, DataError
from inkstone.base.files import explain_os_errors, sha256_text, write_atomic
from inkstone.base.log import warn
from inkstone.text.bytelevel import bytes_of_token, character_of_byte
from inkstone.text.pretokenizers import NONE, TRAINED, pre_tokenizer_document, pre_tokenizer_name
from inkstone.text.runs import split_long_runs
from inkstone.text.special import (
    CHARACTER_SPECIAL_TOKENS,
    EOS_NAMES,
    IM_END,
    IM_START,
    MIN_VOCAB_SIZE,
    PAD_NAMES,
    SPECIAL_TOKENS,
    UNKNOWN,
    find_special,
)
from inkstone.text.tokenizer_file import CONFIG_NAME, FILE_NAME, MAX_VOCAB_SIZE, check_config, check_document, read_object

if TYPE_CHECKING:
    import tokenizers

MAX_TOKEN_BYTES = 48  # no token longer than this: else one repeated line becomes a token, and training slows down
ENCODE_RUN_CHARACTERS = 16_384
TRAIN_RUN_CHARACTERS = 1_024
BATCH_CHARACTERS = 4_000_000  # bounds memory: the library holds every encoding of a batch
_SURROGATE = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """A byte-level BPE or character tokenizer, fixed once made.

    kind: `"bpe"` (trained here), `"char"`, or `"loaded"` (anyone else's); found from the content, not from a name.
    vocab_size: the highest id + 1. special: text → id of the special tokens. eos_id, pad_id: pad is eos where there is no pad.
    pre_tokenizer: a name of `pretokenizers.PATTERNS`, or `"none"`. fingerprint: SHA-256 of the canonical tokenizer.json.
    """

    def __init__(self, document: Mapping[str, Any], config: Mapping[str, Any] | None = None, *, where: str = FILE_NAME) -> None:
        """Build from a parsed tokenizer.json and tokenizer_config.json; `where` names them in errors.

        Raises: CheckpointError when they are not lossless, not consistent or without an end-of-text token.
        """
        config = config or {}
        check_document(document, where)
        check_config(config, where)
        self.document = {**document, "truncation": None, "padding": None}  # else long text would be cut without a word
        self.fingerprint = sha256_text(_canonical(self.document))
        self.pre_tokenizer = pre_tokenizer_name(document.get("pre_tokenizer"))
        added = {entry["content"]: entry for entry in document.get("added_tokens", [])}
        self.special: dict[str, int] = {text: entry["id"] for text, entry in added.items() if entry.get("special")}
        self._plain_added = {text: entry["id"] for text, entry in added.items() if not entry.get("special")}
        self._vocab: dict[str, int] = {**document["model"]["vocab"], **{text: entry["id"] for text, entry in added.items()}}
        self.vocab_size = max(self._vocab.values(), default=-1) + 1
        # What a character outside the vocabulary becomes; None where every character has ids of its own.
        self.unknown_id = self._vocab.get(document["model"].get("unk_token") or "") if self.pre_tokenizer == NONE else None
        self.kind = self._find_kind()
        self.eos_id, self.pad_id = self._find_ends(config, where)
        self._config = dict(config)
        self._library = _library_tokenizer(self.document, where)
        self._refuse_special_from_text(where)

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Return the tokenizer of a tokenizer.json, or of the folder that holds one (and its tokenizer_config.json).

        Raises: CheckpointError when it is missing, damaged or of an unsupported kind.
        """
        path = Path(path)
        if path.is_dir():
            path = path / FILE_NAME
        document = read_object(path)
        beside = path.with_name(CONFIG_NAME)
        return cls(document, read_object(beside) if beside.exists() else None, where=str(path))

    def save(self, folder: Path | str) -> Path:
        """Write tokenizer.json and tokenizer_config.json into `folder`, each whole or not at all; return the first's path.

        Raises: ResourceError when they cannot be written.
        """
        folder = Path(folder)
        with explain_os_errors(f"the tokenizer into {folder}"):
            for name, content in reversed(self.files().items()):
                write_atomic(folder / name, content)
        return folder / FILE_NAME

    def files(self) -> dict[str, bytes]:
        """Return what `save` writes: file name → content."""
        return {
            FILE_NAME: _canonical(self.document).encode() + b"\n",
            CONFIG_NAME: (json.dumps(self.config(), indent=1) + "\n").encode(),
        }

    def config(self) -> dict[str, Any]:
        """Return the tokenizer_config.json that other programs read: end, padding, and the chat template where there is one."""
        from inkstone.text.chat import CHAT_TEMPLATE

        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **self._config,
            "eos_token": self._text_of(self.eos_id),
            "pad_token": self._text_of(self.pad_id),
            "clean_up_tokenization_spaces": False,
        }
        if IM_START in self.special and IM_END in self.special:
            config.setdefault("chat_template", CHAT_TEMPLATE)
        return config

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; no special token is made from it, nor put before or after it.

        Raises: DataError when the text holds a lone surrogate (half a character).
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, on all cores; see `encode`."""
        pieces = [split_long_runs(text, ENCODE_RUN_CHARACTERS) for text in texts]
        flat = self._encode_pieces([piece for split in pieces for piece in split])
        if len(flat) == len(texts):
            return flat
        rest = iter(flat)
        return [[index for _ in split for index in next(rest)] for split in pieces]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; special tokens and gaps give nothing, broken UTF-8 gives U+FFFD.

        Raises: ValueError when an id is negative or not below `vocab_size`.
        """
        return b"".join([self.bytes_of(index) for index in ids]).decode("utf-8", "replace")

    def bytes_of(self, index: int) -> bytes:
        """Return the UTF-8 bytes of one id (`b""` for special tokens and gaps).

        Raises: ValueError when it is negative or not below `vocab_size`.
        """
        if not 0 <= index < self.vocab_size:
            raise ValueError(f"token id {index} is outside this tokenizer's 0..{self.vocab_size - 1}")
        return self.token_bytes[index]

    def first_unknown(self, text: str) -> str | None:
        """Return the first character of `text` that is not in the vocabulary, so that decoding would not bring it back."""
        if self.unknown_id is None:
            return None
        characters = list(dict.fromkeys(text))
        encoded = zip(characters, self.encode_batch(characters), strict=True)
        return next((character for character, ids in encoded if self.unknown_id in ids), None)

    @functools.cached_property
    def token_bytes(self) -> list[bytes]:
        """The UTF-8 bytes of every id; `b""` for special tokens and gaps. Half characters are possible."""
        of_token = str.encode if self.pre_tokenizer == NONE else bytes_of_token
        made = [b""] * self.vocab_size
        for token, index in self._vocab.items():
            if token not in self.special:
                made[index] = token.encode() if token in self._plain_added else of_token(token)
        return made

    @functools.cached_property
    def byte_lengths(self) -> np.ndarray:
        """The number of UTF-8 bytes of every id. Shapes: (V,) int32."""
        return np.array([len(token) for token in self.token_bytes], dtype=np.int32)

    def _encode_pieces(self, pieces: list[str]) -> list[list[int]]:
        made: list[list[int]] = []
        for batch in _batches(pieces, BATCH_CHARACTERS):
            try:
                # The fast form keeps no offsets: 0.50 s against 0.68 s for 1.1 MB of English and 1.8 MB of Chinese.
                encodings = self._library.encode_batch_fast(batch, add_special_tokens=False)
            except TypeError as error:
                raise _explain_surrogate(batch) or error from error
            except BaseException as error:
                if type(error).__name__ != "PanicException":  # the library's own crash is no Exception
                    raise
                raise DataError(
                    f"the tokenizer library failed on a text of {sum(map(len, batch)):,} characters: {error}"
                ) from error
            made += [encoding.ids for encoding in encodings]
        return made

    def _find_kind(self) -> Literal["bpe", "char", "loaded"]:
        if self.pre_tokenizer == NONE and not self.document["model"]["merges"]:
            return "char"
        ours = all(self.special.get(token) == index for index, token in enumerate(SPECIAL_TOKENS))
        return "bpe" if ours and self.pre_tokenizer == TRAINED else "loaded"

    def _find_ends(self, config: Mapping[str, Any], where: str) -> tuple[int, int]:
        try:
            eos = find_special("eos_token", EOS_NAMES, self.special, config)
            pad = find_special("pad_token", PAD_NAMES, self.special, config)
        except KeyError as error:
            raise CheckpointError(
                f"tokenizer {where}: its {CONFIG_NAME} names {error}, which is not one of its special tokens"
            ) from error
        if eos is None:
            raise CheckpointError(f"tokenizer {where}: no special token ends a text (looked for {', '.join(EOS_NAMES)})")
        return eos, eos if pad is None else pad

    def _text_of(self, special_id: int) -> str:
        return next(text for text, index in self.special.items() if index == special_id)

    def _refuse_special_from_text(self, where: str) -> None:
        names, reserved = list(self.special), set(self.special.values()) - {self.special.get(UNKNOWN)}
        for name, ids in zip(names, self._encode_pieces(names), strict=True):
            if reserved & set(ids):
                raise CheckpointError(
                    f"tokenizer {where}: the plain text {name!r} becomes a special token, so users could forge it"
                )


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Return a byte-level BPE tokenizer trained on `texts`: special tokens, 256 bytes, then merges by falling count.

    The same texts give the same tokenizer, on any number of threads. A text too small for `vocab_size` gives a smaller
    one and a warning. Memory grows with the distinct words: for a large corpus pass a sample (`sample.sample_texts`).

    Raises: ConfigError when `vocab_size` is out of range; DataError when the texts are empty or hold a lone surrogate.
    """
    check_vocab_size(vocab_size)
    from tokenizers import trainers

    library = _library_tokenizer(_empty_document(), "to be trained")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(character_of_byte()),
        max_token_length=MAX_TOKEN_BYTES,
        show_progress=False,
    )
    counted = _Counted(texts)
    library.train_from_iterator(counted, trainer)
    if not counted.characters:
        raise DataError("0 characters to train a tokenizer on — the input is empty")
    made = Tokenizer(json.loads(library.to_str()), where="just trained")
    if made.vocab_size < vocab_size:
        warn(f"the text is too small for a vocabulary of {vocab_size:,}: it gave {made.vocab_size:,} tokens")
    return made


def check_vocab_size(vocab_size: int) -> None:
    """Raises: ConfigError when no byte-level tokenizer can have so few or so many ids."""
    if not MIN_VOCAB_SIZE <= vocab_size <= MAX_VOCAB_SIZE:
        raise ConfigError(
            f"vocab_size is {vocab_size:,}; it must be from {MIN_VOCAB_SIZE} (256 bytes and "
            f"{len(SPECIAL_TOKENS)} special tokens) to {MAX_VOCAB_SIZE:,}"
        )


def build_char(texts: Iterable[str]) -> Tokenizer:
    """Return a tokenizer of single characters: those of `texts` in code point order, then <|endoftext|> and <|unk|>.

    A character that `texts` does not have becomes <|unk|>, so unlike bytes it is lost. For comparisons with other work.

    Raises: DataError when the texts are empty or hold a lone surrogate.
    """
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    if not characters:
        raise DataError("0 characters to build a tokenizer from — the input is empty")
    if surrogate := _explain_surrogate(characters):
        raise surrogate
    vocab = {token: index for index, token in enumerate([*sorted(characters), *CHARACTER_SPECIAL_TOKENS])}
    document = _empty_document()
    document["model"].update(vocab=vocab, unk_token=UNKNOWN)
    document["added_tokens"] = [_added_token(vocab[token], token) for token in CHARACTER_SPECIAL_TOKENS]
    document.update(pre_tokenizer=None, decoder={"type": "Fuse"})
    return Tokenizer(document, where="of characters")


class _Counted:
    """The texts for the trainer: long runs cut, characters counted, a lone surrogate explained."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = texts
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            if not text.isascii() and (surrogate := _explain_surrogate([text])):
                raise surrogate
            self.characters += len(text)
            yield from split_long_runs(text, TRAIN_RUN_CHARACTERS)


def _empty_document() -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer_document(TRAINED),
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": {}, "merges": [],
        },
    }  # fmt: skip


def _added_token(index: int, content: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": content, **flags}


def _library_tokenizer(document: Mapping[str, Any], where: str) -> "tokenizers.Tokenizer":
    import tokenizers

    try:
        library = tokenizers.Tokenizer.from_str(_canonical(document))
    except Exception as error:  # the library raises bare Exception for whatever it does not like
        raise CheckpointError(f"tokenizer {where}: {error}") from error
    library.encode_special_tokens = True  # text that looks like a special token stays text
    return library


def _canonical(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _batches(texts: list[str], max_characters: int) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > max_characters:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch


def _explain_surrogate(texts: Iterable[str]) -> DataError | None:
    for text in texts:
        if found := _SURROGATE.search(text):
            return DataError(
                f"the text holds a lone surrogate U+{ord(found[0]):04X} at character {found.start():,}: half a character, not text"
                " — remove it, or replace it by U+FFFD"
            )
    return None
