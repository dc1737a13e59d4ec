"""FAMILY formats: from a file to its records, a few at a time. A record that cannot be read is yielded as a `RecordError`."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inkstone.base.errors import DataError
from inkstone.base.family import Family
from inkstone.data.config import PrepareSettings
from inkstone.data.cutting import iter_lines, split_documents
from inkstone.data.encoding import decode_pieces, detect_encoding
from inkstone.data.expand import is_compressed, read_pieces
from inkstone.data.parquet import MAGIC, read_parquet
from inkstone.data.paths import data_suffix
from inkstone.data.records import RecordError

MAX_CSV_FIELD_CHARS = 1 << 23
_SUFFIX_FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip
Record = tuple[str, Any]


@dataclass(frozen=True)
class Source:
    """One file to read: `name` is shown, `path` is opened (they differ for stdin)."""

    name: str
    path: Path
    settings: PrepareSettings

    def text(self) -> Iterator[str]:
        """Yield the decompressed, decoded text in pieces, line ends as `\\n`."""
        encoding = self.settings.encoding
        if encoding == "auto":
            encoding = detect_encoding(self.pieces)
        yield from decode_pieces(self.pieces(), encoding, errors=self.settings.encoding_errors, name=self.name)

    def pieces(self) -> Iterator[bytes]:
        """Yield the decompressed bytes."""
        return read_pieces(self.path, max_expansion=self.settings.max_expansion)


def choose_format(source: Source) -> str:
    """Return the name of the source's format: as set, else by its first bytes, else by its suffix; what is unknown is text."""
    if source.settings.format != "auto":
        return source.settings.format
    head = b"".join(_take(source.pieces(), 1 << 16))
    if head.startswith(MAGIC):
        return "parquet"
    if source.name == "stdin":
        return "json" if _looks_like_json(head) else "text"
    return _SUFFIX_FORMATS.get(data_suffix(source.path), "text")


def read_text(source: Source) -> Iterator[Record]:
    """Yield the documents of a text file (see `split_documents`)."""
    for text in split_documents(source.text(), source.settings.max_document_chars):
        yield source.name, text


def read_lines(source: Source) -> Iterator[Record]:
    """Yield the objects of a JSONL file; a file that is one JSON array is read as one."""
    first, pieces = _peek(source.text())
    if first == "[":
        yield from _read_array(source, pieces)
        return
    for number, line, whole in iter_lines(pieces, source.settings.max_record_bytes):
        if not whole:
            limit = source.settings.max_record_bytes
            raise DataError(
                f"{source.name}:{number}: the line is longer than {limit:,} characters — raise --max-record-bytes or split it"
            )
        if line.isspace():
            continue
        try:
            yield f"{source.name}:{number}", json.loads(line)
        except json.JSONDecodeError as error:
            torn = "; the last line looks truncated" if not line.endswith("\n") else ""
            yield f"{source.name}:{number}:{error.colno}", RecordError(f"not valid JSON ({error.msg}){torn}")
        except (ValueError, RecursionError) as error:
            yield f"{source.name}:{number}:1", RecordError(f"not usable JSON ({error})")


def read_table(source: Source, delimiter: str) -> Iterator[Record]:
    """Yield the rows of a CSV or TSV file with a header line, as objects."""
    csv.field_size_limit(min(MAX_CSV_FIELD_CHARS, source.settings.max_record_bytes))
    lines = (line for _, line, _ in iter_lines(source.text(), source.settings.max_record_bytes))
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        where = f"{source.name}:{rows.line_num + 1}"
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield (
                where,
                RecordError(f"not valid CSV in the record that begins here and is read up to line {rows.line_num} ({error})"),
            )
            continue
        if header is None:
            header = row
        elif row:
            ok = len(row) == len(header)
            problem = f"the row has {len(row)} fields, the header has {len(header)}"
            yield where, dict(zip(header, row, strict=True)) if ok else RecordError(problem)


FORMATS: Family[Callable[[Source], Iterator[Record]]] = Family(
    "format",
    {
        "text": read_text,
        "jsonl": read_lines,
        "json": read_lines,
        "csv": lambda source: read_table(source, ","),
        "tsv": lambda source: read_table(source, "\t"),
        "parquet": lambda source: read_parquet(source.path, source.name, source.settings.text_field),
    },
)


def _read_array(source: Source, pieces: Iterator[str]) -> Iterator[Record]:
    """Yield the elements of a JSON array, holding one at a time; damage stops the reading, as no line tells where to go on."""
    decode = json.JSONDecoder().raw_decode
    text, at, line, ended = "", 0, 1, False
    opened = False
    while True:
        start, at = at, _skip(text, at, "[ \n\t\r" if not opened else ", \n\t\r")
        opened = opened or "[" in text[start:at]
        line += text.count("\n", start, at)
        if at < len(text) and text[at] == "]":
            return
        try:
            value, end = decode(text, at)
        except (ValueError, RecursionError) as error:
            held = len(text) - at
            if ended or held > source.settings.max_record_bytes or _is_broken(error, len(text)):
                raise _array_error(source, error, text, at, line, ended) from error
            more = "".join(_take(pieces, max(held, 1)))
            ended, text, at = not more, text[at:] + more, 0
            continue
        yield f"{source.name}:{line}", value
        line += text.count("\n", at, end)
        at = end


def _is_broken(error: Exception, size: int) -> bool:
    """Say whether more text could not mend the error: it lies before the end and is not about an open string."""
    return isinstance(error, json.JSONDecodeError) and error.pos < size - 16 and not error.msg.startswith("Unterminated")


def _array_error(source: Source, error: Exception, text: str, at: int, line: int, ended: bool) -> DataError:
    place, message = f"{source.name}:{line}:1", str(error)
    if isinstance(error, json.JSONDecodeError):
        place = f"{source.name}:{line + text.count(chr(10), at, error.pos)}:{error.colno}"
        message = error.msg
    torn = "; the file looks truncated" if ended else ""
    return DataError(
        f"{place}: not a valid JSON array ({message}){torn} — mend it; one record a line (JSONL) can be read past damage"
    )


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


def _peek(pieces: Iterator[str]) -> tuple[str, Iterator[str]]:
    """Return (first character that is not blank, the same pieces)."""
    held: list[str] = []
    for piece in pieces:
        held.append(piece)
        if piece.strip():
            break
    return "".join(held).lstrip()[:1], _chain(held, pieces)


def _chain(held: list[str], pieces: Iterator[str]) -> Iterator[str]:
    yield from held
    yield from pieces


def _take(pieces: Iterable[Any], size: int) -> Iterator[Any]:
    """Yield pieces until they are `size` long together."""
    for piece in pieces:
        yield piece
        size -= len(piece)
        if size <= 0:
            return


def _looks_like_json(head: bytes) -> bool:
    text = head.decode("utf-8", "replace").lstrip("\ufeff").lstrip()
    if not text.startswith(("{", "[")) or is_compressed(head):
        return False
    try:
        return isinstance(json.JSONDecoder().raw_decode(text[text.startswith("[") :].lstrip())[0], dict | str)
    except ValueError:
        return False
