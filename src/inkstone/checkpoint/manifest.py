"""MANIFEST.json: what a published folder holds, with the size and SHA-256 of every file, so that damage is seen before use."""

import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from inkstone.base.errors import CheckpointError, ResourceError
from inkstone.base.files import MANIFEST_NAME, sha256_file

FORMAT = 1
RESERVED = ("format", "files", "sha256")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def build_manifest(folder: Path, facts: dict[str, Any]) -> bytes:
    """Return the bytes of the manifest over every file now in `folder`; `facts` (step, kind, …) stand beside the list.

    Raises: ValueError when a fact has a reserved name, or the folder holds something else than plain files.
    """
    taken = sorted(set(facts) & set(RESERVED))
    if taken:
        raise ValueError(f"manifest facts may not be named {', '.join(taken)}")
    files = {}
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file() or not is_safe_name(path.name):
            raise ValueError(f"{path} is not a plain file, and only plain files can be published")
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    return _encode({"format": FORMAT, **facts, "files": files})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of `folder`; its own checksum must hold, and no byte may differ from what `build_manifest` writes.

    Raises: CheckpointError (missing, damaged, newer format), ResourceError (cannot be read).
    """
    path = folder / MANIFEST_NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} has no {MANIFEST_NAME}: it was never completed, or a file was removed") from error
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        manifest = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: it is not valid JSON ({error})") from error
    if not isinstance(manifest, dict) or not _lists_files(manifest.get("files")):
        raise CheckpointError(f"{path} is damaged: it lists no files with their sizes and hashes")
    if isinstance(manifest.get("format"), int) and manifest["format"] > FORMAT:
        raise CheckpointError(
            f"{path} has format {manifest['format']}; formats up to {FORMAT} are read here — get a newer inkstone"
        )
    expected = manifest.pop("sha256", None)
    if _encode(manifest) != raw:
        found = _digest(manifest)
        raise CheckpointError(f"{path} is damaged: its SHA-256 is {found[:16]}…, expected {str(expected)[:16]}…")
    return manifest


def verify_folder(folder: Path, only: Collection[str] | None = None) -> dict[str, Any]:
    """Return the manifest of `folder` after checking the size and hash of its files (of those in `only`, when given).

    Raises: CheckpointError that lists every bad file with what was expected and found, ResourceError (cannot be read).
    """
    manifest = read_manifest(folder)
    problems = []
    for name, entry in manifest["files"].items():
        if only is None or name in only:
            problems += _problems_of(folder, name, entry)
    if problems:
        raise CheckpointError("\n".join(problems))
    return manifest


def is_safe_name(name: object) -> bool:
    """Say whether `name` is a plain file name: no folder, no `..`, nothing hidden, no control characters."""
    return isinstance(name, str) and _SAFE_NAME.fullmatch(name) is not None


def confined(folder: Path, name: str) -> Path:
    """Return folder / name when that is really inside the folder.

    Raises: CheckpointError when the name is a path, or a link leads out of the folder.
    """
    if not is_safe_name(name):
        raise CheckpointError(f"{folder} refers to {name!r}, which is not a plain file name — nothing outside the folder is read")
    path = folder / name
    try:
        inside = path.resolve().parent == folder.resolve()
    except (OSError, RuntimeError):
        inside = False
    if not inside:
        raise CheckpointError(f"{path} is a link that leads out of the folder — use a copy made with cp -rL")
    return path


def _lists_files(files: Any) -> bool:
    return isinstance(files, dict) and all(map(_is_entry, files.values()))


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("bytes"), int) and isinstance(entry.get("sha256"), str)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _problems_of(folder: Path, name: str, entry: dict[str, Any]) -> list[str]:
    path = confined(folder, name)
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            return [f"{path} is damaged: it has {size:,} bytes, expected {entry['bytes']:,}"]
        found = sha256_file(path)
    except FileNotFoundError:
        return [f"{path} is missing, expected {entry['bytes']:,} bytes with SHA-256 {entry['sha256'][:16]}…"]
    except IsADirectoryError:
        return [f"{path} is a folder, expected a file"]
    except OSError as error:
        raise ResourceError(f"cannot read {path}: {error.strerror or error}") from error
    if found != entry["sha256"]:
        return [f"{path} is damaged: its SHA-256 is {found[:16]}…, expected {entry['sha256'][:16]}…"]
    return []


def _encode(manifest: dict[str, Any]) -> bytes:
    whole = manifest | {"sha256": _digest(manifest)}
    return (json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogatepass")


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
