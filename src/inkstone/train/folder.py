"""The run as a folder: held by one process, told from other folders, compared with a new command, and cleared only of its own files."""

import contextlib
import json
import os
import platform
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import filelock

from inkstone.base.errors import ConfigError, ResourceError
from inkstone.base.files import explain_os_errors, remove_folder
from inkstone.base.settings import resolve, to_toml
from inkstone.train.config import FREE_TO_CHANGE, PretrainSettings
from inkstone.train.journal import METRICS

CONFIG, SUMMARY, LOCK, CHECKPOINTS = "config.toml", "summary.json", ".lock", "checkpoints"
# What a run, its pages and the writes that a kill broke off leave in the folder.
_OWN = (
    CONFIG, SUMMARY, "metrics*.jsonl", "machine.json", "data.json", "figures.json", "nonfinite.json", "report.html", "README.md",
    CHECKPOINTS, "best", "final", "tensorboard", ".tmp-*", ".trash-*", ".old-*",
)  # fmt: skip
_OF_QUICKSTART = ("quickstart.json", "parts")


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the run folder for this process.

    Raises: ConfigError when another process has it, or `out` is a file; ResourceError when it cannot be written.
    """
    try:
        require_no_file(out)
        out.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(out / LOCK)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        owner = (out / f"{LOCK}.owner").read_text() if (out / f"{LOCK}.owner").exists() else "unknown"
        raise ConfigError(f"{out} is in use by process {owner} — wait for it, or choose another --out") from None
    except (OSError, ValueError) as error:
        raise ResourceError(f"cannot use {str(out)!r} as a run folder: {getattr(error, 'strerror', None) or error}") from error
    try:
        with explain_os_errors(str(out)):
            (out / f"{LOCK}.owner").write_text(f"{os.getpid()} on {platform.node()}")
        yield
    finally:
        lock.release()


def require_no_file(out: Path) -> None:
    """Raise ConfigError when `out` is a file."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; a run is a folder")


def require_clearable(out: Path) -> None:
    """Refuse to overwrite anything but a run with nothing else in it; an empty folder is fine.

    Raises: ConfigError.
    """
    names = _names(out)
    refuse_quickstart(out, "--overwrite of pretrain")
    foreign = [name for name in names if not any(fnmatchcase(name, own) for own in _OWN)]
    if foreign:
        raise ConfigError(f"--overwrite: {out} holds more than a run ({', '.join(foreign[:5])}); it is left as it is")
    if names and (CONFIG not in names or not {METRICS, CHECKPOINTS} & set(names)):
        raise ConfigError(
            f"--overwrite: {out} is not a run (a run has {CONFIG}, and {METRICS} or {CHECKPOINTS}/); it is left as it is"
        )


def clear(out: Path) -> None:
    """Remove what a run writes, what tells that it is one last; `require_clearable` said that there is nothing else.

    Raises: ResourceError.
    """
    names = [name for name in _names(out) if any(fnmatchcase(name, own) for own in _OWN)]
    with explain_os_errors(str(out)):
        for name in sorted(names, key=lambda name: (name == CONFIG, name == METRICS)):
            path = out / name
            remove_folder(path) if path.is_dir() else path.unlink()


def refuse_quickstart(out: Path, what: str) -> None:
    """Raise ConfigError when quickstart made the folder: it holds two runs, their data and the note by which quickstart goes on."""
    found = [name for name in _names(out) if name in _OF_QUICKSTART]
    if found:
        raise ConfigError(
            f"{what}: {out} was made by inkstone quickstart (it holds {found[0]}); it is left as it is — choose another --out"
        )


def finished_figures(out: Path, settings: PretrainSettings) -> dict[str, Any] | None:
    """Return the figures of a run that is complete under these settings."""
    if not (out / SUMMARY).exists() or not (out / CONFIG).exists():
        return None
    if to_toml(resolve(PretrainSettings, recipe=out / CONFIG)) != to_toml(settings):
        return None
    return json.loads((out / SUMMARY).read_text(encoding="utf-8"))


def check_resume(out: Path, settings: PretrainSettings) -> None:
    """Refuse a folder of another kind, and a resume whose settings would have made another run; all differences at once."""
    names = _names(out)
    if not names:
        return
    if CONFIG not in names:
        raise ConfigError(f"--out {out} is not empty and not a run ({', '.join(names[:5])}) — choose another folder")
    old, new = (_leaves(s.model_dump()) for s in (resolve(PretrainSettings, recipe=out / CONFIG), settings))
    changed = [
        f"{key}: was {old[key]}, now {new[key]}" for key in old if old[key] != new[key] and not key.startswith(FREE_TO_CHANGE)
    ]
    if changed:
        raise ConfigError(
            "\n".join([*changed, f"{out} was begun with other settings — repeat them, or start anew with --overwrite"])
        )


def _names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if not path.name.startswith(LOCK)) if out.is_dir() else []


def _leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
