"""The run's metrics.jsonl: one JSON object a line, repaired after a crash so that every step stands there exactly once."""

import json
import math
from pathlib import Path
from typing import Any

from inkstone.base.files import explain_os_errors, write_atomic

METRICS = "metrics.jsonl"
SUPERSEDED = "metrics.superseded.jsonl"


class Journal:
    """Appends rows; opening it at a step first moves away what a lost life of the run wrote beyond that step."""

    def __init__(self, run: Path, *, resume_step: int) -> None:
        self.path = run / METRICS
        with explain_os_errors(str(self.path)):
            _repair(run, resume_step)
            # A lone surrogate of a sample is written as JSON's own escape for it.
            self._stream = self.path.open("a", encoding="utf-8", errors="backslashreplace")

    def write(self, row: dict[str, Any]) -> None:
        """Append one row and hand it to the operating system, so that a kill of this process cannot lose it.

        A figure that is not finite becomes null: JSON has no word for it.
        """
        plain = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
        with explain_os_errors(str(self.path)):
            self._stream.write(json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


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


def _repair(run: Path, resume_step: int) -> None:
    path = run / METRICS
    if not path.exists():
        return
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    kept: list[str] = []
    moved: list[str] = []
    for line in filter(None, lines):
        row = _parse(line)
        (kept if row is not None and row["step"] <= resume_step else moved).append(line)
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
