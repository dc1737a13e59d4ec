"""A file's bytes, decompressed, in pieces of bounded size. gzip and Zstandard are known by their first bytes, not by the name."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from inkstone.base.errors import ConfigError, DataError, ResourceError
from inkstone.data.paths import show_path

PIECE_BYTES = 1 << 20
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ZSTD_FEED_BYTES = 2048  # one compressed byte can stand for thousands, so little is fed at a time
_ZSTD_WINDOW_BYTES = 1 << 27
_FREE_BYTES = 1 << 24  # the expansion ratio is only judged beyond this size: tiny files of spaces compress extremely well


def read_pieces(path: Path, *, max_expansion: int) -> Iterator[bytes]:
    """Yield the file's bytes, decompressed where it is compressed.

    Raises: DataError when the file cannot be read, is cut off or damaged, is not what its suffix says, or expands more than
    `max_expansion` times.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(4)
            stream.seek(0)
            yield from _pieces(path, stream, head, max_expansion)
    except PermissionError as error:
        raise DataError(f"{show_path(path)}: {error.strerror} — change its permissions or leave it out") from error
    except OSError as error:
        raise ResourceError(f"{show_path(path)} cannot be read: {error.strerror or error}") from error


def is_compressed(head: bytes) -> bool:
    """Say whether a file that begins with `head` is gzip or Zstandard."""
    return head.startswith((_GZIP, _ZSTD))


def _pieces(path: Path, stream: BinaryIO, head: bytes, max_expansion: int) -> Iterator[bytes]:
    if head.startswith(_GZIP):
        pieces = _gunzip(path, stream)
    elif head.startswith(_ZSTD):
        pieces = _unzstd(path, stream)
    else:
        if path.suffix.lower() in (".gz", ".zst") and head:
            raise DataError(f"{show_path(path)} is not a {path.suffix[1:]} file (it begins with {head.hex(' ')}) — rename it")
        while piece := stream.read(PIECE_BYTES):
            yield piece
        return
    expanded = 0
    for piece in pieces:
        expanded += len(piece)
        if expanded > _FREE_BYTES and expanded > max_expansion * stream.tell():
            raise DataError(
                f"{show_path(path)} expands more than {max_expansion} times ({expanded:,} bytes from {stream.tell():,})"
                " — raise --max-expansion if it is meant to"
            )
        yield piece


def _gunzip(path: Path, stream: BinaryIO) -> Iterator[bytes]:
    engine, data = zlib.decompressobj(wbits=31), b""
    while True:
        data = data or stream.read(1 << 16)
        if engine.eof:
            data = data.lstrip(b"\0")  # gzip allows padding between members
            if not data:
                if stream.peek(1) if hasattr(stream, "peek") else False:
                    continue
                return
            engine = zlib.decompressobj(wbits=31)
        elif not data:
            raise _truncated(path, stream)
        try:
            piece = engine.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            raise DataError(f"{show_path(path)}: damaged gzip data near byte {stream.tell():,} ({error})") from error
        data = engine.unused_data if engine.eof else engine.unconsumed_tail
        if piece:
            yield piece


def _unzstd(path: Path, stream: BinaryIO) -> Iterator[bytes]:
    zstandard = _zstandard()
    make = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj
    engine, data = make(), b""
    while True:
        data = data or stream.read(_ZSTD_FEED_BYTES)
        if engine.eof:
            if not data:
                return
            engine = make()
        elif not data:
            raise _truncated(path, stream)
        try:
            piece = engine.decompress(data)
        except zstandard.ZstdError as error:
            raise DataError(f"{show_path(path)}: damaged zst data near byte {stream.tell():,} ({error})") from error
        data = engine.unused_data if engine.eof else b""
        for start in range(0, len(piece), PIECE_BYTES):
            yield piece[start : start + PIECE_BYTES]


def _truncated(path: Path, stream: BinaryIO) -> DataError:
    return DataError(
        f"{show_path(path)}: truncated at byte {stream.tell():,} (compressed data ends too early) — copy the file again"
    )


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ConfigError('reading .zst needs the extra "data": pip install "inkstone[data]"') from error
    return zstandard
