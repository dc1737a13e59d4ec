"""Folders that change at once: written under a hidden name beside their place, exchanged by a rename, cleaned up after a crash.

A process may die between any two steps: under the name stands the old folder or the new one, and `sweep` removes or puts back the rest.
"""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from inkstone.base.files import fsync_folder
from inkstone.base.log import warn

OnPoint = Callable[[str], None]
_TEMPORARY = re.compile(r"\.tmp-(.+)-(\d+)-[0-9a-f]{8}", re.ASCII)
_SWAPPED_OUT = re.compile(r"\.old-(.+)-(\d+)-[0-9a-f]{8}", re.ASCII)
_TRASH = re.compile(r"\.trash-(.+)-(\d+)-[0-9a-f]{8}", re.ASCII)
_KINDS = (_TEMPORARY, _SWAPPED_OUT, _TRASH)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def ignore_point(point: str) -> None:
    """Do nothing at a point of the protocol; tests pass a function that dies there."""


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a new `.tmp-` folder beside `target`; what is left of it is removed when the block fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target, "tmp")
    temporary.mkdir()
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def swap_in(temporary: Path, target: Path, on_point: OnPoint = ignore_point) -> None:
    """Rename a sealed folder to `target`; a folder that stands there is exchanged in one step where the system can."""
    on_point("before_rename")
    swapped_out = None
    if target.exists() or target.is_symlink():
        swapped_out = temporary
        if target.is_symlink() or not _exchange(temporary, target):
            swapped_out = _beside(target, "old")  # `sweep` puts it back if we die before the next line
            target.rename(swapped_out)
            try:
                temporary.rename(target)
            except OSError:
                swapped_out.rename(target)
                raise
    else:
        temporary.rename(target)
    fsync_folder(target.parent)
    on_point("after_rename")
    if swapped_out is not None:
        discard(swapped_out, target=target)


def discard(folder: Path, on_point: OnPoint = ignore_point, *, target: Path | None = None) -> None:
    """Un-publish a folder by renaming it, then delete it; a failure is a warning. `target` is the name that it stood for."""
    try:
        trash = _beside(target or folder, "trash")
        trash.mkdir(mode=0o700)
        folder.rename(trash / folder.name)
        fsync_folder(folder.parent)
        on_point("pruning")
        shutil.rmtree(trash)
    except OSError as error:
        warn(f"could not delete {folder}: {error.strerror or error}")


def move_aside(folder: Path) -> None:
    """Take a damaged folder out of the way under a name that nobody loads; it is never deleted."""
    aside = folder.parent / f"damaged-{folder.name}-{secrets.token_hex(4)}"
    folder.rename(aside)
    warn(f"the damaged {folder.name} was moved to {aside}")


def require_writable(folder: Path) -> None:
    """Raise PermissionError when no file can be made in `folder`."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def sweep(folder: Path, only: str | None = None) -> None:
    """Remove what dead processes left half-written or half-deleted in `folder`; put back what one of them had swapped out.

    `only` is the name of the one folder whose leftovers are meant, where `folder` is not ours alone.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if only is not None and not any((found := kind.fullmatch(path.name)) and found[1] == only for kind in _KINDS):
            continue
        temporary, swapped_out = _TEMPORARY.fullmatch(path.name), _SWAPPED_OUT.fullmatch(path.name)
        try:
            if swapped_out and not _is_alive(int(swapped_out[2])):
                missing = not (folder / swapped_out[1]).exists()
                path.rename(folder / swapped_out[1]) if missing else shutil.rmtree(path)
            elif path.name.startswith(".trash-") or (temporary and not _is_alive(int(temporary[2]))):
                shutil.rmtree(path)
        except OSError as error:
            warn(f"could not clean up {path}: {error.strerror or error}")


def _beside(target: Path, kind: str) -> Path:
    return target.parent / f".{kind}-{target.name}-{os.getpid()}-{secrets.token_hex(4)}"


def _is_alive(pid: int) -> bool:
    """Say whether another process has this id. Our own id is a dead one's: in a container every start gets the same."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders' names in one step; False where the system or the file system has no such call."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    return bool(call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)
