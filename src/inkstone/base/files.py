"""Files that are either whole or not there: write beside, flush, rename, flush the folder."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inkstone.base.errors import ResourceError

MANIFEST_NAME = "MANIFEST.json"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def explain_os_errors(what: str) -> Iterator[None]:
    """Turn an OSError of the block into a ResourceError that names `what` and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise ResourceError(
                f"the disk is full while writing {what} — free some space and run the same command again"
            ) from error
        raise ResourceError(f"cannot write {what}: {error.strerror or error}") from error


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make a file's bytes durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace `path` by `content`; a crash at any point leaves the old file or the new one, never a part."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".tmp-{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as indented JSON; NaN and infinity are refused."""
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_text(text: str) -> str:
    """Return the hex SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def remove_folder(folder: Path) -> None:
    """Un-publish a folder by renaming it, then delete it; a reader never sees half of it."""
    if not folder.exists():
        return
    trash = Path(tempfile.mkdtemp(prefix=".trash-", dir=folder.parent))
    folder.replace(trash / folder.name)
    shutil.rmtree(trash, ignore_errors=True)
