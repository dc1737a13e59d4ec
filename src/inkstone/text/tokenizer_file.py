"""Reading a tokenizer.json strictly: what the library would load silently and wrongly is refused here."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inkstone.base.errors import CheckpointError
from inkstone.text.bytelevel import character_of_byte
from inkstone.text.pretokenizers import NONE, pre_tokenizer_name

FILE_NAME = "tokenizer.json"
CONFIG_NAME = "tokenizer_config.json"
MAX_FILE_BYTES = 200_000_000
MAX_VOCAB_SIZE = 1 << 24
_MAX_LISTED = 5


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises: CheckpointError when it is missing, no regular file, too large, not UTF-8, not JSON or has a key twice.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "missing"
        raise CheckpointError(f"tokenizer file {path} is {found}")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise CheckpointError(f"tokenizer file {path} is larger than {MAX_FILE_BYTES:,} bytes")
    try:
        value = json.loads(path.read_bytes(), object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"tokenizer file {path} is truncated or not JSON ({error}) — copy it again or choose another"
        ) from error
    except OSError as error:
        raise CheckpointError(f"tokenizer file {path} cannot be read: {error.strerror or error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"tokenizer file {path} holds a JSON {type(value).__name__}, not an object")
    return value


def check_document(document: Mapping[str, Any], where: str) -> None:
    """Check that a parsed tokenizer.json is a lossless byte-pair (or character) tokenizer with one id per token.

    Gaps between ids are allowed (padded vocabularies have them): a gap decodes to nothing and is never encoded to.

    Raises: CheckpointError with one line per problem; each names `where`.
    """
    problems = _shape_problems(document)
    if not problems:
        problems = _vocabulary_problems(document) + _pipeline_problems(document)
    if problems:
        raise CheckpointError("\n".join(f"tokenizer {where}: {problem}" for problem in problems))


def check_config(config: Mapping[str, Any], where: str) -> None:
    """Check that a tokenizer_config.json asks for no code of its own.

    Raises: CheckpointError.
    """
    if config.get("auto_map"):
        raise CheckpointError(f"tokenizer {where}: it names custom code (auto_map), which is not supported — nothing of it was run")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return made


def _shape_problems(document: Mapping[str, Any]) -> list[str]:
    model, added = document.get("model"), document.get("added_tokens", [])
    if not isinstance(model, Mapping):
        return ["it has no 'model' — is it a tokenizer.json?"]
    if model.get("type", "BPE") != "BPE":
        return [f"its model is '{model.get('type')}'; only byte-pair encoding (BPE) is supported"]
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, Mapping) or not all(_is_id(value) for value in vocab.values()):
        return [f"its vocab does not give every token an id in 0..{MAX_VOCAB_SIZE - 1:,}"]
    if not isinstance(merges, list):
        return ["its merges are not a list"]
    good = isinstance(added, list) and all(isinstance(entry, Mapping) and isinstance(entry.get("content"), str) for entry in added)
    if not good or not all(_is_id(entry.get("id")) for entry in added):
        return [f"its added_tokens are not a list of objects with a content and an id in 0..{MAX_VOCAB_SIZE - 1:,}"]
    return []


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_VOCAB_SIZE


def _vocabulary_problems(document: Mapping[str, Any]) -> list[str]:
    vocab = document["model"]["vocab"]
    owner: dict[int, str] = {}
    problems = []
    for token, index in vocab.items():
        if owner.setdefault(index, token) != token:
            problems.append(f"id {index} belongs to two tokens, {owner[index]!r} and {token!r}")
    seen = set()
    for entry in document.get("added_tokens", []):
        content, index = entry["content"], entry["id"]
        if not content:
            problems.append(f"added token {index} is empty")
        if content in seen:
            problems.append(f"added token {content!r} stands there twice")
        seen.add(content)
        if vocab.get(content, index) != index:
            problems.append(f"added token {content!r} says id {index}, the vocab says {vocab[content]}")
        elif owner.setdefault(index, content) != content:
            problems.append(f"added token {content!r} says id {index}, which belongs to {owner[index]!r}")
    if len(problems) > _MAX_LISTED:
        problems[_MAX_LISTED:] = [f"… and {len(problems) - _MAX_LISTED} more such problems"]
    return problems


def _pipeline_problems(document: Mapping[str, Any]) -> list[str]:
    model = document["model"]
    try:
        name = pre_tokenizer_name(document.get("pre_tokenizer"))
    except ValueError as error:
        return [str(error)]
    problems = []
    if _step_types(document.get("normalizer"), "normalizers") - {"NFC"}:
        problems.append("its normalizer changes text by more than NFC, so text would not come back as it was")
    decoders = _step_types(document.get("decoder"), "decoders")
    if decoders - ({"Fuse"} if name == NONE else {"ByteLevel"}):
        problems.append(f"its decoder ({', '.join(sorted(decoders))}) does not fit its pre_tokenizer ({name})")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or model.get("byte_fallback"):
        problems.append("its model marks words with prefixes, suffixes or byte fallback; only byte-level BPE is supported")
    if model.get("dropout"):
        problems.append("its model drops merges at random (dropout), so the same text would not give the same ids")
    missing = [byte for byte, character in enumerate(character_of_byte()) if character not in model["vocab"]]
    if name != NONE and missing:
        problems.append(f"byte 0x{missing[0]:02x} (and {len(missing) - 1} more) has no token, so text would be lost")
    if name == NONE and (model.get("unk_token") not in model["vocab"] or model.get("fuse_unk")):
        problems.append("it has no token for unknown characters, so text would be lost without a trace")
    for entry in document.get("added_tokens", []):
        if not entry.get("special") and (entry.get("lstrip") or entry.get("rstrip")):
            problems.append(f"added token {entry['content']!r} swallows the spaces beside it, so text would be lost")
    return problems + _merge_problems(document)


def _step_types(entry: Any, inner: str) -> set[str]:
    if entry is None:
        return set()
    steps = entry.get(inner, []) if entry.get("type") == "Sequence" else [entry]
    return {str(step.get("type")) for step in steps}


def _merge_problems(document: Mapping[str, Any]) -> list[str]:
    """A special token that merges can build could be written by a user as plain text."""
    special = {entry["content"] for entry in document.get("added_tokens", []) if entry.get("special")}
    for merge in document["model"]["merges"]:
        joined = merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(map(str, merge))
        if joined in special:
            return [f"its merges build the special token {joined!r} out of plain text"]
    return []
