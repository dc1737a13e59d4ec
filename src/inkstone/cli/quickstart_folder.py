"""The folder of `inkstone quickstart`: what it was begun with, whether the same command goes on, and how long all of it took."""

import json
import time
from pathlib import Path
from typing import Any

import pydantic

from inkstone.base.errors import ConfigError
from inkstone.base.files import explain_os_errors, remove_folder, write_json
from inkstone.base.settings import Settings
from inkstone.data.paths import show_path

NOTE, SUMMARY, LOCK = "quickstart.json", "summary.json", ".lock"
RESULTS = (SUMMARY, "final", "report.html")
MAX_SHOWN = 5  # of the files that changed


class Note(Settings):
    """What stands in `quickstart.json`. Units: files {path: [bytes, modification time in ns]}, seconds over all invocations."""

    inputs: list[str]
    minutes: float
    files: dict[str, tuple[int, int]]
    seconds: float = 0.0
    finished: bool = False


def describe_command(inputs: list[str], items: list[str | Path], minutes: float) -> Note:
    """Return the note of a command whose inputs were expanded to `items`. Raises: ResourceError when a file cannot be looked at."""
    files = {}
    for path in (item for item in items if isinstance(item, Path)):
        with explain_os_errors(show_path(path)):
            status = path.stat()
        files[show_path(path.absolute())] = (status.st_size, status.st_mtime_ns)
    return Note(inputs=[show_path(item) for item in inputs], minutes=minutes, files=files)


def refuse_foreign(out: Path) -> None:
    """Raise ConfigError when `out` holds something that quickstart did not make; it is then not touched."""
    with explain_os_errors(str(out)):
        foreign = out.is_dir() and not (out / NOTE).exists() and any(_entries(out))
    if foreign:
        raise ConfigError(f"--out {show_path(out)} is not empty and was not made by quickstart — choose another folder")


class QuickstartFolder:
    """Guards `quickstart.json`: a folder goes on only with the command and the files that it was begun with.

    The folder must be locked by the caller. A command that failed before the text was prepared binds nothing.
    """

    def __init__(self, out: Path, wanted: Note, *, overwrite: bool = False) -> None:
        """Go on with `out`, or begin it. Raises: ConfigError that names what differs; ResourceError when it cannot be written."""
        self.out = out
        self._began = time.monotonic()
        with explain_os_errors(str(out)):
            if overwrite:
                _clear(out)
            self.note = self._begun(wanted) or wanted
            self.mark()

    @property
    def seconds(self) -> float:
        """What all invocations took; one that was killed counts up to its last mark."""
        return self.note.seconds + time.monotonic() - self._began

    def mark(self, *, finished: bool = False) -> None:
        """Write down the time that was spent, and whether everything is done. Raises: ResourceError."""
        self.note = self.note.model_copy(update={"finished": finished or self.note.finished})
        with explain_os_errors(str(self.out / NOTE)):
            write_json(self.out / NOTE, self.note.model_dump(mode="json") | {"seconds": self.seconds})

    def finished_summary(self) -> dict[str, Any] | None:
        """Return the figures of a quickstart that is complete, else None."""
        if not self.note.finished or not all((self.out / name).exists() for name in RESULTS):
            return None
        try:
            summary = json.loads((self.out / SUMMARY).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None  # it is measured again
        return summary if isinstance(summary, dict) and "val_bits_per_byte" in summary else None

    def _begun(self, wanted: Note) -> Note | None:
        found = _read_note(self.out / NOTE)
        if found is None or not (self.out / "parts" / "data").exists():
            return None
        changes = _changes(found, wanted)
        if changes:
            advice = "repeat that command with the same files, choose another --out, or start anew with --overwrite"
            raise ConfigError("\n".join([*changes, f"{show_path(self.out)} was begun otherwise — {advice}"]))
        return found


def _read_note(path: Path) -> Note | None:
    if not path.exists():
        return None
    try:
        return Note.model_validate_json(path.read_bytes())
    except (pydantic.ValidationError, IsADirectoryError) as error:
        raise ConfigError(f"{show_path(path)} is damaged — start anew with --overwrite, or choose another --out") from error


def _changes(old: Note, new: Note) -> list[str]:
    changes = [
        f"{name}: was {getattr(old, name)}, now {getattr(new, name)}"
        for name in ("inputs", "minutes")
        if getattr(old, name) != getattr(new, name)
    ]
    if old.inputs != new.inputs:
        return changes
    for path in sorted(old.files.keys() | new.files.keys()):
        before, after = old.files.get(path), new.files.get(path)
        if before is None or after is None:
            changes.append(f"{path} {'was not there then' if before is None else 'is no longer there'}")
        elif before[0] != after[0]:
            changes.append(f"{path} has changed: it had {before[0]:,} bytes, now {after[0]:,}")
        elif before != after:
            changes.append(f"{path} has changed: it was written again since then")
    more = len(changes) - MAX_SHOWN
    return changes if more <= 0 else [*changes[:MAX_SHOWN], f"… and {more:,} more"]


def _entries(out: Path) -> list[Path]:
    return [path for path in sorted(out.iterdir()) if not path.name.startswith(LOCK)]


def _clear(out: Path) -> None:
    """Remove everything but the lock, the note last, so that a half-cleared folder is still known as ours."""
    for path in sorted(_entries(out), key=lambda path: path.name == NOTE):
        remove_folder(path) if path.is_dir() and not path.is_symlink() else path.unlink()
