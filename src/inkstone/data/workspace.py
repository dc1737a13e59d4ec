"""Where a prepared folder is made, and how it gets its name: hidden until it is whole."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from inkstone.base.errors import ConfigError
from inkstone.base.files import explain_os_errors, fsync_folder
from inkstone.base.folders import swap_in, sweep, temporary_folder
from inkstone.data.paths import show_path
from inkstone.data.shards import MANIFEST


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse an output that exists, or that is no prepared folder and so must not be replaced.

    What dead processes left half-made for it is removed first, and an old folder that one of them had swapped out is put back.
    Raises: ConfigError.
    """
    with explain_os_errors(show_path(out)):
        sweep(out.absolute().parent, only=out.name)  # else a folder that a crash took away would look as if it had never been
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


@contextlib.contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside `out`, removed when the block fails. Raises: ResourceError when nothing can be made there."""
    target = out.absolute()
    with contextlib.ExitStack() as stack:
        with explain_os_errors(str(target.parent)):
            folder = stack.enter_context(temporary_folder(target))
        yield folder


def publish(folder: Path, out: Path) -> None:
    """Give the finished folder its name; an old one stands there until then, and comes back after a crash in between."""
    fsync_folder(folder)
    swap_in(folder, out.absolute())
