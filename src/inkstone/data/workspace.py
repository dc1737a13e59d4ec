"""Where a prepared folder is made, and how it gets its name: hidden until it is whole."""

import os
import shutil
from pathlib import Path

from inkstone.base.errors import ConfigError
from inkstone.base.files import explain_os_errors, fsync_folder
from inkstone.data.paths import show_path
from inkstone.data.shards import MANIFEST


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse an output that exists, or that is no prepared folder and so must not be replaced. Raises: ConfigError."""
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir():
        raise ConfigError(f"--out {show_path(out)} is a file, expected a folder to make")
    if any(out.iterdir()) and not overwrite:
        raise ConfigError(f"--out {show_path(out)} already exists — choose another folder, or pass --overwrite")
    if any(out.iterdir()) and not (out / MANIFEST).is_file():
        raise ConfigError(
            f"--out {show_path(out)} is not a prepared data folder, so --overwrite does not touch it — choose another"
        )


class TemporaryFolder:
    """A hidden folder beside `out`, removed in the end; those of dead processes are removed first."""

    def __init__(self, out: Path) -> None:
        self.parent, self.prefix = out.absolute().parent, f".tmp-{out.name}-"
        self.folder = self.parent / f"{self.prefix}{os.getpid()}"

    def __enter__(self) -> Path:
        with explain_os_errors(str(self.folder.parent)):
            self.parent.mkdir(parents=True, exist_ok=True)
            for old in self.parent.iterdir():
                pid = old.name.removeprefix(self.prefix).removesuffix(".old")
                if old.name.startswith(self.prefix) and pid.isdigit() and (int(pid) == os.getpid() or not _is_alive(int(pid))):
                    shutil.rmtree(old, ignore_errors=True)
            self.folder.mkdir()
        return self.folder

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # needs no space, unlike a rename first


def publish(folder: Path, out: Path) -> None:
    """Give the finished folder its name, in place of an old one."""
    fsync_folder(folder)
    old = folder.with_name(folder.name + ".old")
    if out.is_dir() and any(out.iterdir()):
        out.rename(old)
    folder.replace(out)
    fsync_folder(out.absolute().parent)
    shutil.rmtree(old, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
