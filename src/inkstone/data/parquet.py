"""Parquet files, a batch of rows at a time; needs the extra `data`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inkstone.base.errors import ConfigError, DataError
from inkstone.data.records import RecordError, missing_field

MAGIC = b"PAR1"
_BATCH_ROWS = 256
_FIELD_SETS = (("text",), ("messages",), ("prompt", "completion"), ("instruction", "input", "output"), ("instruction", "output"))


def read_parquet(path: Path, name: str, text_field: str | None) -> Iterator[tuple[str, Any]]:
    """Yield (place, row as an object) with only the needed columns; binary columns are read as UTF-8.

    Raises: DataError when the file is damaged or has no usable column; ConfigError when pyarrow is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigError('reading Parquet needs the extra "data": pip install "inkstone[data]"') from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            columns = _columns(file.schema_arrow, name, text_field)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}: row {number}", _decoded(row)
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name}: damaged Parquet file, after row {number} ({reason}) — copy or write it again") from error


def _columns(schema: Any, name: str, text_field: str | None) -> list[str]:
    sets: Sequence[tuple[str, ...]] = _FIELD_SETS if text_field is None else ((text_field,),)
    chosen = next((fields for fields in sets if all(field in schema.names for field in fields)), None)
    if chosen is None:
        raise DataError(f"{name}: {missing_field(text_field or 'text', schema.names)}")
    wrong = [
        f"{name}: column '{f}' has type {schema.field(f).type}, expected strings" for f in chosen if not _is_text(schema.field(f))
    ]
    if wrong:
        raise DataError("\n".join(wrong))
    return list(chosen)


def _is_text(field: Any) -> bool:
    import pyarrow.types as types

    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary, types.is_null)
    return field.name == "messages" or any(test(kind) for test in tests)


def _decoded(row: dict[str, Any]) -> dict[str, Any] | RecordError:
    try:
        return {key: value.decode("utf-8") if isinstance(value, bytes) else value for key, value in row.items()}
    except UnicodeDecodeError as error:
        return RecordError(f"binary column is not UTF-8 (byte {error.start})")
