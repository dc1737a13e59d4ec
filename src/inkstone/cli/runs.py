"""`inkstone runs [DIR]`: the runs below a folder, a line each, newest first."""

import argparse
import os
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inkstone.base.errors import DataError
from inkstone.base.quantity import format_count, format_seconds
from inkstone.base.settings import Settings

MAX_DEPTH = 4
_NOT_RUNS = ("checkpoints", "best", "final", "tensorboard")  # parts of a run that may hold a config.toml of their own
_COLUMNS = ("name", "steps", "val_loss", "val_bits_per_byte", "tokens_per_second", "num_params", "stopped_by", "age_seconds")
_TITLES = ("name", "steps", "val loss", "val bpb", "tokens/s", "params", "stopped by", "age")
_LEFT = ("name", "stopped_by")


def settings_class() -> type[Settings] | None:
    """Return None: a list has no recipe."""
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder to look below."""
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="DIR", help="where to look [.]")


def run(args: argparse.Namespace, settings: Settings | None) -> dict[str, Any]:
    """Print the table and return its rows."""
    if not args.folder.is_dir():
        found = "it is a file" if args.folder.exists() else "it does not exist"
        raise DataError(f"expected a folder with runs below it at {args.folder}, but {found}")
    now = time.time()
    rows = sorted((run_row(folder, args.folder, now) for folder in find_runs(args.folder)), key=lambda row: row["age_seconds"])
    if not args.json:
        print(table(rows) if rows else f"no runs below {args.folder} (inkstone quickstart --out RUN makes one)")
    return {"runs": rows}


def find_runs(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Yield every run at or below the folder, in name order; runs inside runs too, but not their checkpoints."""
    from inkstone.report.run_data import is_run

    inside = is_run(folder)
    if inside:
        yield folder
    if depth >= MAX_DEPTH:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # a folder that may not be read holds nothing for this reader
        return
    for entry in entries:
        skipped = entry.name.startswith(".") or (inside and entry.name in _NOT_RUNS)
        if not skipped and entry.is_dir(follow_symlinks=False):
            yield from find_runs(Path(entry.path), depth + 1)


def run_row(folder: Path, root: Path, now: float) -> dict[str, Any]:
    """Return a run's figures; None where unknown. Units: `age_seconds` since its files last changed, at the time `now`."""
    from inkstone.report.run_data import RUN_FILES, read_run

    data = read_run(folder)
    changed = max((folder / name).stat().st_mtime for name in RUN_FILES if (folder / name).is_file())
    name = data.name if folder == root else folder.relative_to(root).as_posix()
    params, stopped_by = data.number("num_params"), data.summary.get("stopped_by")
    return {
        "name": name,
        "path": str(folder),
        "steps": data.steps,
        "val_loss": data.number("val_loss"),
        "val_bits_per_byte": data.number("val_bits_per_byte"),
        "tokens_per_second": data.number("tokens_per_second"),
        "num_params": None if params is None else int(params),
        "stopped_by": stopped_by if isinstance(stopped_by, str) else None,
        "age_seconds": max(0.0, round(now - changed, 1)),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows under their titles, aligned also where names are Chinese."""
    lines = [list(_TITLES), *[[_cell(name, row[name]) for name in _COLUMNS] for row in rows]]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    written = []
    for line in lines:
        cells = []
        for name, text, width in zip(_COLUMNS, line, widths, strict=True):
            space = " " * (width - _width(text))
            cells.append(text + space if name in _LEFT else space + text)
        written.append("  ".join(cells).rstrip())
    return "\n".join(written)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "age_seconds":
        return format_seconds(value) if value < 86400 else f"{value / 86400:.0f}d"
    if name in ("tokens_per_second", "num_params"):
        return format_count(value)
    if isinstance(value, float):
        return f"{value:.4f}"
    # A folder's name may hold anything; a terminal must not obey it.
    return "".join(letter if letter.isprintable() else "�" for letter in str(value))


def _width(text: str) -> int:
    """Return the terminal columns of a text: two for East Asian wide letters, none for combining marks."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
