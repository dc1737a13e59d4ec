"""FAMILY sources: from INPUT arguments to documents, whatever they are: files, folders, stdin or a built-in corpus."""

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inkstone.base.errors import ConfigError, DataError
from inkstone.base.family import Family
from inkstone.base.files import explain_os_errors
from inkstone.base.quantity import parse_count
from inkstone.data.config import PrepareSettings
from inkstone.data.cutting import cut_text
from inkstone.data.document import Document
from inkstone.data.formats import FORMATS, Source, choose_format
from inkstone.data.paths import BUILTIN, STDIN, expand_inputs, show_path
from inkstone.data.records import RecordError, read_record

DEFAULT_MICROWORLD_BYTES = 4_000_000
SAMPLES_KEPT = 3
_SAMPLE_CHARS = 80


@dataclass
class ReadReport:
    """What was read and what was left out, filled while documents are read.

    `documents` counts records read, the skipped ones included; `dropped` counts by reason, with a few `samples` each; `sources` has
    one row an input: name, format, documents.
    """

    documents: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, reason: str, where: str, text: str = "") -> None:
        """Count one record that is left out."""
        self.dropped[reason] += 1
        kept = self.samples.setdefault(reason, [])
        if len(kept) < SAMPLES_KEPT:
            shown = show_path(text[:_SAMPLE_CHARS])
            kept.append(f"{where}: {shown}" if shown else where)


def read_documents(
    inputs: Sequence[str | Path], settings: PrepareSettings | None = None, *, report: ReadReport | None = None,
    exclude: Path | None = None,
) -> Iterator[Document]:  # fmt: skip
    """Yield the documents of all inputs in order, uncleaned, in bounded memory; `index` counts within each input.

    An input is a file, a folder, `-` (stdin), or a built-in corpus: `builtin:microworld[=BYTES]`, `builtin:stdlib[=BYTES]`.
    Raises: ConfigError and DataError as the bad-input rows of the documentation say.
    """
    settings = settings or PrepareSettings()
    report = ReadReport() if report is None else report
    for item in expand_inputs(inputs, exclude=exclude):
        if isinstance(item, Path):
            yield from _read_file(Source(show_path(item), item, settings), report)
        elif item == STDIN:
            yield from _read_stdin(settings, report)
        else:
            yield from _read_builtin(item, settings, report)


def _read_file(source: Source, report: ReadReport) -> Iterator[Document]:
    settings = source.settings
    name = choose_format(source)
    row: dict[str, Any] = {"name": source.name, "format": name, "documents": 0}
    report.sources.append(row)
    index = records = bad = 0
    first_bad = ""
    for where, record in FORMATS[name](source):
        records += 1
        report.documents += 1
        try:
            if isinstance(record, RecordError):
                raise record
            text, messages = read_record(record, settings.text_field)
        except RecordError as error:
            if settings.on_bad_line == "error":
                raise DataError(f"{where}: {error} — mend it, or pass --on-bad-line skip") from error
            bad, first_bad = bad + 1, first_bad or f"{where}: {error}"
            report.drop("bad record", f"{where}: {error}")
            continue
        pieces = [text] if messages is not None else cut_text(text, settings.max_document_chars)
        report.documents += len(pieces) - 1
        for piece in pieces:
            yield Document(piece, source.name, index, messages)
            index += 1
            row["documents"] = index
    if bad > allowed_bad(records, settings.max_bad_share):
        raise DataError(f"{source.name}: {bad:,} of {records:,} records are bad, more than may be skipped; the first: {first_bad}")


def allowed_bad(records: int, share: float) -> float:
    """Return how many records may be skipped: `share` of them; in a small file up to 10 but at most a tenth; one in any case.

    >>> allowed_bad(3, 0.001), allowed_bad(60, 0.001), allowed_bad(1_000_000, 0.001)
    (1, 6, 1000.0)
    """
    return max(1, min(10, records // 10), share * records) if share else 0


def _read_stdin(settings: PrepareSettings, report: ReadReport) -> Iterator[Document]:
    """Copy stdin to a temporary file first: its encoding can only be told from the whole."""
    with tempfile.TemporaryDirectory(prefix="inkstone-stdin-") as folder:
        path = Path(folder, "stdin")
        with explain_os_errors("a temporary copy of stdin"), path.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream, 1 << 20)
        yield from _read_file(Source("stdin", path, settings), report)


def _microworld(size: int | None, settings: PrepareSettings) -> Iterator[Document]:
    from inkstone.data.corpora.microworld import Microworld

    return Microworld(settings.seed).documents(DEFAULT_MICROWORLD_BYTES if size is None else size)


def _stdlib(size: int | None, settings: PrepareSettings) -> Iterator[Document]:
    from inkstone.data.corpora.stdlib import stdlib_documents

    return stdlib_documents(size, seed=settings.seed)


BUILTINS = Family("built-in corpus", {"microworld": _microworld, "stdlib": _stdlib})


def _read_builtin(item: str, settings: PrepareSettings, report: ReadReport) -> Iterator[Document]:
    name, given, size = item.removeprefix(BUILTIN).partition("=")
    try:
        num_bytes = parse_count(size) if given else None
    except ValueError as error:
        raise ConfigError(f"input {item}: {error} (bytes)") from error
    row: dict[str, Any] = {"name": item, "format": "builtin", "documents": 0}
    corpus = BUILTINS[name](num_bytes, settings)
    report.sources.append(row)
    for document in corpus:
        report.documents += 1
        row["documents"] += 1
        yield document
