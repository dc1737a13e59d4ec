"""The run's metrics.jsonl: one JSON object a line, repaired after a crash so that every step stands there exactly once."""

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

from inkstone.base.files import explain_os_errors, write_atomic

METRICS = "metrics.jsonl"
SUPERSEDED = "metrics.superseded.jsonl"


class Journal:
    """Appends rows; opening it at a step first moves away what a lost life of the run wrote beyond that step.

    Rows of evaluations are kept up to `evaluated_step`, all others up to `resume_step`: the checkpoint of a step may have been made
    before that step was evaluated. Both are -1 when there is no checkpoint.
    """

    def __init__(self, run: Path, *, resume_step: int, evaluated_step: int | None = None) -> None:
        self.path = run / METRICS
        with explain_os_errors(str(self.path)):
            _repair(run, resume_step, resume_step if evaluated_step is None else evaluated_step)
            self._stream = self.path.open("ab", buffering=0)

    def write(self, row: dict[str, Any]) -> None:
        """Append one row and hand it to the operating system, so that a kill of this process cannot lose it.

        Raises: ResourceError; the file is then as it was.
        """
        # A lone surrogate of a sample is written as JSON's own escape for it.
        line = (json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", errors="backslashreplace")
        with explain_os_errors(str(self.path)):
            begin = self._stream.seek(0, os.SEEK_END)
            try:
                while line:
                    line = line[self._stream.write(line) :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._stream.truncate(begin)
                raise

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as it is written: a figure that is not finite becomes None, because JSON has no word for it."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def read_rows(run: Path) -> list[dict[str, Any]]:
    """Return the rows that are whole; a torn last line is left out."""
    path = run / METRICS
    rows = []
    # Not splitlines: a sample may hold U+2028 and the like, which JSON leaves as they are.
    for line in path.read_bytes().decode("utf-8", errors="replace").split("\n") if path.exists() else []:
        row = _parse(line)
        if row is not None:
            rows.append(row)
    return rows


def _repair(run: Path, resume_step: int, evaluated_step: int) -> None:
    path = run / METRICS
    if not path.exists():
        return
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    kept: list[str] = []
    moved: list[str] = []
    for line in filter(None, lines):
        row = _parse(line)
        last = evaluated_step if row is not None and ("val_loss" in row or "sample" in row) else resume_step
        (kept if row is not None and row["step"] <= last else moved).append(line)
    if moved or lines[-1]:
        with (run / SUPERSEDED).open("a", encoding="utf-8") as stream:
            stream.writelines(line + "\n" for line in moved)
        write_atomic(path, "".join(line + "\n" for line in kept))


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
