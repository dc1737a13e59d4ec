"""Folders that are whole or not there: write beside, flush, seal with a manifest, rename into place, flush the parent.

The order is the promise: every file is on the disk before the manifest names it, the manifest before the rename, the rename before
anything old is removed. A process may die between any two steps.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inkstone.base.files import MANIFEST_NAME, explain_os_errors, fsync_file, fsync_folder
from inkstone.base.folders import OnPoint, ignore_point, swap_in, temporary_folder
from inkstone.checkpoint.manifest import build_manifest


def publish_folder(target: Path, write: Callable[[Path], None], on_point: OnPoint = ignore_point) -> None:
    """Let `write` fill a new folder and put it in the place of `target`; the old one is there until the new one is.

    Raises: ResourceError (the disk is full, …); the old folder is then untouched.
    """
    with explain_os_errors(str(target)), temporary_folder(target) as temporary:
        on_point("made_tmp")
        write(temporary)
        seal(temporary, {"kind": "model"}, on_point)
        swap_in(temporary, target, on_point)


def seal(folder: Path, facts: dict[str, Any], on_point: OnPoint = ignore_point) -> None:
    """Make the files of `folder` durable, then its manifest, then its entries."""
    on_point("before_fsync")
    for path in sorted(folder.iterdir()):
        fsync_file(path)
    on_point("before_manifest")
    manifest = build_manifest(folder, facts)
    with (folder / MANIFEST_NAME).open("xb") as stream:
        stream.write(manifest)
        stream.flush()
        os.fsync(stream.fileno())
    fsync_folder(folder)


def publish_file(target: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file and put it in the place of `target`, whole or not at all; an old one is there until the new one is.

    Raises: ResourceError (the disk is full, …).
    """
    target = target.absolute()
    with explain_os_errors(str(target)), temporary_folder(target) as temporary:
        path = temporary / target.name
        write(path)
        fsync_file(path)
        path.replace(target)
        fsync_folder(target.parent)
        temporary.rmdir()
