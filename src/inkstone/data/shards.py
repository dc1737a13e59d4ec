"""Token shards: little-endian id files with document starts, an optional loss mask, and a manifest with checksums.

A prepared folder holds `manifest.json`, `tokenizer.json` and, for each split, `train-00000.bin` (ids), `train-00000.docs` (uint64
start of every document within the shard) and for chat `train-00000.mask` (uint8, 1 = loss). Every document ends with `eos_id`; a
document never crosses a shard.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from inkstone.base.errors import CheckpointError, ConfigError, DataError
from inkstone.base.files import explain_os_errors, fsync_folder, sha256_text, write_json

MANIFEST = "manifest.json"
FORMAT = 1
DEFAULT_SHARD_TOKENS = 1 << 26
_CHECK_BYTES = 1 << 22


class ShardWriter:
    """Writes the documents of one split as shards of at most `shard_tokens` (a longer document gets a shard of its own)."""

    def __init__(
        self, folder: Path, split: str, *, vocab_size: int, eos_id: int, with_mask: bool = False,
        shard_tokens: int = DEFAULT_SHARD_TOKENS,
    ) -> None:  # fmt: skip
        self.folder, self.split, self.eos_id, self.vocab_size = Path(folder), split, eos_id, vocab_size
        self.dtype = token_dtype(vocab_size)
        self.shard_tokens, self.with_mask = shard_tokens, with_mask
        self.num_tokens = self.num_bytes = self.num_documents = self.loss_tokens = 0
        self._shards: list[dict[str, Any]] = []
        self._open: _Shard | None = None

    def add(
        self, ids: np.ndarray | Sequence[int], num_bytes: int, mask: np.ndarray | Sequence[bool] | None = None, *,
        learn_eos: bool = False,
    ) -> None:  # fmt: skip
        """Append one document; `eos_id` is added here, in a masked split with `learn_eos` as its mask (a chat ends before it).

        Shapes: ids (N,), mask (N,) when the writer has masks. Units: `num_bytes` UTF-8 bytes of the document's text.
        Raises: ResourceError when the disk is full.
        """
        array = np.asarray(ids, dtype=np.int64)
        assert array.size == 0 or (array.min() >= 0 and array.max() < self.vocab_size), "id outside the vocabulary"
        assert self.with_mask == (mask is not None), "masks for all documents or for none"
        tokens = np.append(array, self.eos_id).astype(self.dtype)
        flags = None if mask is None else np.append(np.asarray(mask, dtype=np.uint8), np.uint8(learn_eos))
        with explain_os_errors(f"token shards in {self.folder}"):
            if self._open is not None and self._open.num_tokens + tokens.size > self.shard_tokens:
                self._close_shard()
            if self._open is None:
                self._open = _Shard(self.folder, f"{self.split}-{len(self._shards):05d}", self.with_mask)
            self._open.add(tokens, flags)
        self.num_tokens += tokens.size
        self.num_bytes += num_bytes
        self.num_documents += 1
        self.loss_tokens += int(flags.sum()) if flags is not None else tokens.size

    def close(self) -> dict[str, Any]:
        """Flush everything to disk and return the split's entry of the manifest."""
        with explain_os_errors(f"token shards in {self.folder}"):
            self._close_shard()
        return {
            "tokens": self.num_tokens, "bytes": self.num_bytes, "documents": self.num_documents, "loss_tokens": self.loss_tokens,
            "masks": self.with_mask, "shards": self._shards,
        }  # fmt: skip

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._open is not None:
            self._open.abandon()

    def _close_shard(self) -> None:
        if self._open is not None:
            shard, self._open = self._open, None
            self._shards.append(shard.close())


class _Shard:
    """The files of one shard while it is written."""

    def __init__(self, folder: Path, name: str, with_mask: bool) -> None:
        self.name, self.num_tokens, self.num_documents = name, 0, 0
        suffixes = [".bin", ".docs"] + ([".mask"] if with_mask else [])
        self.streams: dict[str, BinaryIO] = {suffix: (folder / (name + suffix)).open("wb") for suffix in suffixes}
        self.digests = {suffix: hashlib.sha256() for suffix in suffixes}

    def add(self, tokens: np.ndarray, flags: np.ndarray | None) -> None:
        self._write(".bin", tokens.tobytes())
        self._write(".docs", np.array([self.num_tokens], dtype="<u8").tobytes())
        if flags is not None:
            self._write(".mask", flags.tobytes())
        self.num_tokens += tokens.size
        self.num_documents += 1

    def close(self) -> dict[str, Any]:
        for stream in self.streams.values():
            stream.flush()
            os.fsync(stream.fileno())
            stream.close()
        entry = {"file": self.name + ".bin", "tokens": self.num_tokens, "documents": self.num_documents}
        return entry | {_digest_key(suffix): digest.hexdigest() for suffix, digest in self.digests.items()}

    def abandon(self) -> None:
        for stream in self.streams.values():
            try:
                stream.close()
            except OSError:
                continue

    def _write(self, suffix: str, data: bytes) -> None:
        self.streams[suffix].write(data)
        self.digests[suffix].update(data)


class TokenSplit:
    """A read-only view of all shards of one split as one sequence of ids; nothing is loaded but what is read.

    Attributes: `num_tokens`, `num_bytes` (UTF-8 bytes of the text; `eos` counts 0), `num_documents`, `document_starts` (int64,
    global offsets, ascending), `eos_id`, `vocab_size`, `has_mask`, `fingerprint` (changes with any byte of the split).
    """

    def __init__(self, folder: Path, split: str, manifest: Mapping[str, Any]) -> None:
        entry = manifest["splits"][split]
        self.folder, self.name = Path(folder), split
        self.num_tokens, self.num_bytes, self.num_documents = int(entry["tokens"]), int(entry["bytes"]), int(entry["documents"])
        self.eos_id, self.vocab_size, self.has_mask = int(manifest["eos_id"]), int(manifest["vocab_size"]), bool(entry.get("masks"))
        self.dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
        shards = entry["shards"]
        self._shards = [np.memmap(self.folder / s["file"], dtype=self.dtype, mode="r") for s in shards]
        self._masks = [np.memmap(_beside(self.folder, s, ".mask"), dtype=np.uint8, mode="r") for s in shards if self.has_mask]
        self._offsets = np.concatenate([[0], np.cumsum([s["tokens"] for s in shards])]).astype(np.int64)
        starts = [np.fromfile(_beside(self.folder, s, ".docs"), dtype="<u8").astype(np.int64) for s in shards]
        starts = [local + offset for local, offset in zip(starts, self._offsets, strict=False)]
        self.document_starts = np.concatenate(starts) if starts else np.zeros(0, dtype=np.int64)
        self.fingerprint = sha256_text(json.dumps([manifest["tokenizer_fingerprint"], manifest["dtype"], shards], sort_keys=True))

    def __len__(self) -> int:
        return self.num_tokens

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return the ids of positions [start, stop). Shapes: (stop - start,), the shard's dtype."""
        return self._read(self._shards, start, stop, self.dtype)

    def read_mask(self, start: int, stop: int) -> np.ndarray | None:
        """Return the loss mask of positions [start, stop) as uint8, or None when the split has no mask (all tokens count)."""
        return self._read(self._masks, start, stop, np.dtype(np.uint8)) if self.has_mask else None

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Return the ids at `positions` (any shape)."""
        return self._take(self._shards, positions, self.dtype)

    def take_mask(self, positions: np.ndarray) -> np.ndarray | None:
        """Return the loss mask at `positions` (any shape), or None when the split has no mask."""
        return self._take(self._masks, positions, np.dtype(np.uint8)) if self.has_mask else None

    def _read(self, shards: list[np.memmap], start: int, stop: int, dtype: np.dtype) -> np.ndarray:
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"[{start}, {stop}) lies outside the {self.num_tokens} tokens of split '{self.name}'")
        pieces = []
        shard = int(np.searchsorted(self._offsets, start, side="right")) - 1
        while start < stop:
            offset, end = int(self._offsets[shard]), int(self._offsets[shard + 1])
            pieces.append(np.asarray(shards[shard][start - offset : min(stop, end) - offset]))
            start, shard = min(stop, end), shard + 1
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=dtype)

    def _take(self, shards: list[np.memmap], positions: np.ndarray, dtype: np.dtype) -> np.ndarray:
        if len(shards) == 1:
            return np.asarray(shards[0])[positions]
        owner = np.searchsorted(self._offsets, positions, side="right") - 1
        taken = np.empty(positions.shape, dtype=dtype)
        for shard in np.unique(owner):
            here = owner == shard
            taken[here] = np.asarray(shards[shard])[positions[here] - self._offsets[shard]]
        return taken


def token_dtype(vocab_size: int) -> np.dtype:
    """Return little-endian uint16 while every id fits, else uint32."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def load_manifest(folder: str | Path) -> dict[str, Any]:
    """Return the manifest of a prepared folder.

    Raises: ConfigError when the folder does not exist; DataError when it is not a prepared folder or of a newer format.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not folder.exists():
        parent = next((p for p in folder.absolute().parents if p.exists()), Path("/"))
        raise ConfigError(f"data folder {folder} does not exist (nearest existing folder: {parent})")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        found = f"{folder} is not a prepared data folder (no readable {MANIFEST})"
        raise DataError(f"{found} — make one with: inkstone data prepare INPUT --out {folder}") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}) — prepare the data again") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("splits"), dict):
        raise DataError(f"{path} is not a data manifest — prepare the data again")
    if manifest.get("format") != FORMAT:
        raise DataError(f"{path} has format {manifest.get('format')!r}, this version reads {FORMAT} — prepare the data again")
    return manifest


def open_split(folder: str | Path, split: str, *, tokenizer_fingerprint: str | None = None, verify: bool = True) -> TokenSplit:
    """Return a split after checking it: file sizes always; checksums and id range too when `verify`.

    Raises: DataError for missing, changed or damaged shards; CheckpointError when the data was made with another tokenizer.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    if split not in manifest["splits"]:
        raise DataError(f"{folder} has no split '{split}' (it has: {', '.join(manifest['splits']) or 'none'})")
    made_with = str(manifest.get("tokenizer_fingerprint"))
    if tokenizer_fingerprint is not None and made_with != tokenizer_fingerprint:
        raise CheckpointError(
            f"{folder} was prepared with tokenizer {made_with[:12]}, the model uses {tokenizer_fingerprint[:12]}"
            " — prepare the data again with --tokenizer pointing at the model"
        )
    problems = []
    for shard in manifest["splits"][split]["shards"]:
        problems += _shard_problems(folder, shard, manifest, split, verify)
    if problems:
        raise DataError("\n".join(f"{problem} — prepare the data again" for problem in problems))
    return TokenSplit(folder, split, manifest)


def write_prepared(
    folder: str | Path, tokenizer: Any, splits: Mapping[str, Iterable[str | Sequence[Mapping[str, str]]]], *,
    seed: int = 0, shard_tokens: int = DEFAULT_SHARD_TOKENS,
) -> Path:  # fmt: skip
    """Write texts (or chats: lists of messages) straight into a prepared folder, without cleaning or splitting."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries, kind = {}, "text"
    for name, documents in splits.items():
        documents = list(documents)
        chat = not all(isinstance(document, str) for document in documents)
        kind = "chat" if chat else kind
        with ShardWriter(
            folder, name, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id, with_mask=chat, shard_tokens=shard_tokens
        ) as writer:
            for document in documents:
                add_document(writer, tokenizer, document)
            entries[name] = writer.close()
    tokenizer.save(folder)
    total = sum(entry["documents"] for entry in entries.values())
    write_json(
        folder / MANIFEST, manifest_of(tokenizer, entries, kind=kind, seed=seed) | {"documents_in": total, "documents_out": total}
    )
    fsync_folder(folder)
    return folder


def add_document(writer: ShardWriter, tokenizer: Any, document: str | Sequence[Mapping[str, str]]) -> None:
    """Encode one text or chat and append it; where the split has masks, a plain text is learned whole."""
    if isinstance(document, str):
        text_ids = tokenizer.encode(document)
        writer.add(text_ids, len(document.encode()), [True] * len(text_ids) if writer.with_mask else None, learn_eos=True)
        return
    from inkstone.text.chat import render_chat

    ids, mask = render_chat([dict(message) for message in document], tokenizer)
    writer.add(ids, int(tokenizer.byte_lengths[np.asarray(ids, dtype=np.int64)].sum()), mask)


def manifest_of(tokenizer: Any, splits: Mapping[str, Any], *, kind: str, seed: int) -> dict[str, Any]:
    """Return the part of a manifest that the shards and the tokenizer determine."""
    return {
        "format": FORMAT, "kind": kind, "dtype": token_dtype(tokenizer.vocab_size).name, "vocab_size": tokenizer.vocab_size,
        "tokenizer": tokenizer.kind, "tokenizer_fingerprint": tokenizer.fingerprint, "eos_id": tokenizer.eos_id, "seed": seed,
        "splits": dict(splits), "sources": [], "dropped": {},
    }  # fmt: skip


def _digest_key(suffix: str) -> str:
    return {".bin": "sha256", ".docs": "docs_sha256", ".mask": "mask_sha256"}[suffix]


def _beside(folder: Path, shard: Mapping[str, Any], suffix: str) -> Path:
    return (folder / shard["file"]).with_suffix(suffix)


def _shard_problems(folder: Path, shard: Mapping[str, Any], manifest: Mapping[str, Any], split: str, verify: bool) -> list[str]:
    dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
    expected = {".bin": shard["tokens"] * dtype.itemsize, ".docs": shard["documents"] * 8}
    if manifest["splits"][split].get("masks"):
        expected[".mask"] = shard["tokens"]
    problems = []
    for suffix, size in expected.items():
        path = _beside(folder, shard, suffix)
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif path.stat().st_size != size:
            odd = f", not a whole number of {dtype.name} ids" if suffix == ".bin" and path.stat().st_size % dtype.itemsize else ""
            problems.append(f"{path} has {path.stat().st_size:,} bytes, the manifest says {size:,}{odd}")
        elif verify:
            bad_id = _first_id_outside(path, dtype, manifest["vocab_size"]) if suffix == ".bin" else None
            if bad_id is not None:
                problems.append(f"{path} has id {bad_id[1]} at offset {bad_id[0]}, the vocabulary has {manifest['vocab_size']} ids")
            elif _sha256(path) != shard[_digest_key(suffix)]:
                problems.append(f"{path} has changed since it was prepared (SHA-256 differs)")
    return problems


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_id_outside(path: Path, dtype: np.dtype, vocab_size: int) -> tuple[int, int] | None:
    ids = np.memmap(path, dtype=dtype, mode="r")
    for start in range(0, ids.size, _CHECK_BYTES):
        piece = np.asarray(ids[start : start + _CHECK_BYTES])
        if int(piece.max()) >= vocab_size:
            at = int(np.argmax(piece >= vocab_size))
            return start + at, int(piece[at])
    return None
