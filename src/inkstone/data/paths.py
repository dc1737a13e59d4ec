"""From INPUT arguments to the files they mean: folders walked in order, duplicates dropped, anything but regular files refused."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from inkstone.base.errors import ConfigError, DataError
from inkstone.base.log import warn

STDIN = "-"
BUILTIN = "builtin:"
SUFFIXES = (".txt", ".text", ".md", ".markdown", ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSED = (".gz", ".zst")


def show_path(path: str | Path) -> str:
    """Return the path on one line: control characters and bytes that are not UTF-8 are escaped."""
    text = os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def expand_inputs(inputs: Sequence[str | Path], *, exclude: Path | None = None) -> list[str | Path]:
    """Return files (Path) and names that are no files (`-`, `builtin:…`, as str), in order and each once.

    A folder stands for its files with a known suffix, recursively, sorted by path; left out are hidden ones, those below
    `exclude`, and a .json file that is no array (it is a description more often than data).
    Raises: ConfigError for a path that is missing or not a regular file; DataError for a folder without matching files.
    """
    found: list[str | Path] = []
    seen: dict[object, str] = {}
    skipped: list[str] = []
    for name in inputs:
        for item in _expand(name, exclude):
            key: object = item
            if isinstance(item, Path):
                status = item.stat()
                key = (status.st_dev, status.st_ino)
            if key in seen:
                skipped.append(f"{show_path(item)} (the same as {seen[key]})")
                continue
            seen[key] = show_path(item)
            found.append(item)
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        warn(f"read only once: {'; '.join(skipped[:3])}{more}")
    return found


def _expand(name: str | Path, exclude: Path | None) -> Iterator[str | Path]:
    if isinstance(name, str) and (name == STDIN or name.startswith(BUILTIN)):
        yield name
        return
    path = Path(name)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        parent = next((p for p in path.absolute().parents if p.exists()), Path("/"))
        hint = " — a dangling symbolic link" if path.is_symlink() else f" (nearest existing folder: {show_path(parent)})"
        raise ConfigError(f"input {show_path(path)} does not exist{hint}") from error
    except PermissionError as error:
        raise DataError(f"{show_path(path)}: {error.strerror} — change its permissions or leave it out") from error
    except (OSError, ValueError) as error:
        raise DataError(f"input {show_path(path)}: {error.strerror if isinstance(error, OSError) else error}") from error
    if stat.S_ISREG(mode):
        yield path
    elif stat.S_ISDIR(mode):
        yield from _walk(path, exclude)
    else:
        raise ConfigError(
            f"input {show_path(path)} is {_kind(mode)}, expected a regular file or a folder — pipe it in and use '-' to read stdin"
        )


def _walk(folder: Path, exclude: Path | None) -> Iterator[Path]:
    count = 0
    visited: set[tuple[int, int]] = set()
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in visited:
            warn(f"{show_path(here)} is a symbolic link back to a folder already read; skipped")
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        inside = [Path(here, name) for name in folders if not name.startswith(".")]
        folders[:] = sorted(p.name for p in inside if exclude is None or p.resolve() != exclude.resolve())
        for name in sorted(files):
            path = Path(here, name)
            if not name.startswith(".") and data_suffix(path) in SUFFIXES and path.is_file() and _is_data(path):
                count += 1
                yield path
    if not count:
        patterns = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        raise DataError(
            f"folder {show_path(folder)} has no files that match {patterns} (also with .gz, .zst) — name files directly"
        )


def _is_data(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return True
    try:
        with path.open("rb") as stream:
            array = stream.read(64).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except OSError:
        return True  # reading it says what is wrong
    if not array:
        warn(f"{show_path(path)} is left out: a .json file in a folder is read only when it is an array of records")
    return array


def data_suffix(path: Path) -> str:
    """Return the suffix that tells the format, in lower case: `.jsonl` for `a.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _refuse(error: OSError) -> None:
    raise DataError(f"folder {show_path(error.filename)}: {error.strerror} — change its permissions or leave it out") from error


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a pipe (FIFO)"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"
