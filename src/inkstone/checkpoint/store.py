"""The checkpoint store: complete states of a run, published by rename, verified by hash, and never all lost.

`step_000123/` holds one safetensors file per group of tensors, `state.json`, the extra files of the caller (so that the folder is a
model by itself), and MANIFEST.json. What is newest is computed from the folders that verify, never from a pointer.
"""

import json
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from inkstone.base import folders
from inkstone.base.errors import CheckpointError, ConfigError, DataError, ResourceError
from inkstone.base.files import explain_os_errors
from inkstone.base.folders import OnPoint, ignore_point
from inkstone.base.log import warn
from inkstone.base.quantity import format_bytes
from inkstone.checkpoint.manifest import is_safe_name, verify_folder
from inkstone.checkpoint.publish import seal
from inkstone.checkpoint.tensors import describe_nonfinite, nonfinite_counts, read_tensors, write_tensors

CHECKPOINTS = "checkpoints"
STATE_NAME = "state.json"
SUFFIX = ".safetensors"
MIN_KEEP = 2
SPACE_FACTOR = 2.5  # of one checkpoint: the one being written beside those that are kept, and some air
Tensors = Mapping[str, Mapping[str, Tensor]]
_STEP_NAME = re.compile(r"step_(\d{6,})", re.ASCII)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A verified checkpoint: tensors by file stem, the JSON state, the manifest's facts, and the extra files' paths."""

    folder: Path
    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    manifest: dict[str, Any]
    files: dict[str, Path]


class CheckpointStore:
    """The writer of a run's checkpoints. Opening it removes what a dead process left half-written.

    Keeps the newest `keep` good checkpoints (two at least), every `keep_every`-th step (0: none), and whatever does not verify.
    `on_point` is called with the name of each point of the protocol, so that a test can die there.

    Raises: ConfigError (keep below two), ResourceError (the folder cannot be written).
    """

    def __init__(self, run: Path, keep: int = MIN_KEEP, keep_every: int = 0, *, on_point: OnPoint = ignore_point) -> None:
        if keep < MIN_KEEP or keep_every < 0:
            raise ConfigError(f"checkpoint.keep must be {MIN_KEEP} or more and keep_every 0 or more, found {keep} and {keep_every}")
        self.run, self.folder = Path(run), Path(run) / CHECKPOINTS
        self.keep, self.keep_every, self.on_point = keep, keep_every, on_point
        self._checked: dict[int, tuple[object, bool]] = {}  # step → (sizes and times of the files that were hashed, whether good)
        with explain_os_errors(str(self.folder)):
            self.folder.mkdir(parents=True, exist_ok=True)
            folders.require_writable(self.folder)
        folders.sweep(self.run)
        folders.sweep(self.folder)

    def require_space(self, num_bytes: int) -> None:
        """Refuse to start when the disk cannot hold what checkpoints of `num_bytes` will need.

        Raises: ResourceError.
        """
        require_space(self.folder, num_bytes)

    def save(
        self, step: int, tensors: Tensors, state: dict[str, Any], *, extra_files: Mapping[str, bytes] | None = None,
        manifest: Mapping[str, Any] | None = None,
    ) -> Path:  # fmt: skip
        """Publish a checkpoint of `step` and delete what retention no longer wants; return its folder.

        Raises: DataError (a weight is NaN or infinite: nothing is written), ResourceError (disk; what was there before still is).
        """
        extra_files = extra_files or {}
        target = self.folder / step_name(step)
        _check_names(tensors, extra_files)
        _refuse_nonfinite(step, tensors)
        documents = {STATE_NAME: _encode_state(state), **extra_files}
        with explain_os_errors(f"checkpoint {target}"):
            with folders.temporary_folder(target) as temporary:
                self.on_point("made_tmp")
                for stem, group in tensors.items():
                    write_tensors(temporary / f"{stem}{SUFFIX}", group)
                    self.on_point("tensor_file")
                for name, content in documents.items():
                    (temporary / name).write_bytes(content)
                seal(temporary, {"kind": "checkpoint", "step": step, **(manifest or {})}, self.on_point)
                if target.exists() and not self._is_good(step):
                    folders.move_aside(target)
                folders.swap_in(temporary, target, self.on_point)
            self._checked[step] = (_stamp(target), True)
            self._prune(step)
        return target

    def latest(self) -> LoadedCheckpoint | None:
        """Return the newest good checkpoint, or None when there is none yet; see `latest_checkpoint`."""
        loaded = latest_checkpoint(self.run)
        if loaded is not None:
            self._checked[loaded.step] = (_stamp(loaded.folder), True)
        return loaded

    def load(self, path: Path) -> LoadedCheckpoint:
        """Return the checkpoint at `path`; see `load_checkpoint`."""
        return load_checkpoint(path)

    def _prune(self, just_saved: int) -> None:
        """Delete good checkpoints beyond the newest `keep` good ones; what fails to verify is neither counted nor deleted."""
        num_good = 0
        for step, folder in reversed(checkpoint_folders(self.run)):
            is_beyond = num_good >= self.keep
            if is_beyond and (step == just_saved or (self.keep_every and step % self.keep_every == 0)):
                continue
            if self._is_good(step):
                num_good += 1
                if is_beyond:
                    folders.discard(folder, self.on_point)
                    self._checked.pop(step, None)

    def _is_good(self, step: int) -> bool:
        """Say whether a checkpoint verifies; files that were hashed before and have not changed since are not hashed again."""
        folder = self.folder / step_name(step)
        stamp = _stamp(folder)
        if step in self._checked and self._checked[step][0] == stamp:
            return self._checked[step][1]
        try:
            verify_checkpoint(folder)
            is_good = True
        except (CheckpointError, ResourceError) as error:
            warn(f"{error}\ncheckpoint {folder} does not verify; it is not counted, and never deleted")
            is_good = False
        self._checked[step] = (stamp, is_good)
        return is_good


def require_space(folder: Path, num_bytes: int) -> None:
    """Refuse a disk that cannot hold what checkpoints of `num_bytes` will need; `folder` need not be there yet.

    Raises: ResourceError.
    """
    place = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), Path())
    with explain_os_errors(str(folder)):
        free = shutil.disk_usage(place).free
    needed = int(SPACE_FACTOR * num_bytes)
    if free < needed:
        raise ResourceError(
            f"checkpoints of {format_bytes(num_bytes)} need {format_bytes(needed)} free in {folder},"
            f" found {format_bytes(free)} — free some space or choose another --out"
        )


def step_name(step: int) -> str:
    """Return the folder name of a step: 123 → `step_000123`."""
    if step < 0:
        raise ValueError(f"step must not be negative, found {step}")
    return f"step_{step:06d}"


def checkpoint_folders(run: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of everything that is named like a checkpoint, oldest first; links and other names do not count."""
    folder = Path(run) / CHECKPOINTS
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        match = _STEP_NAME.fullmatch(path.name)
        if match and path.name == step_name(int(match[1])) and not path.is_symlink() and path.is_dir():
            found.append((int(match[1]), path))
    return sorted(found)


def verify_checkpoint(folder: Path, only: Collection[str] | None = None) -> dict[str, Any]:
    """Return the manifest of a checkpoint after checking every file's hash (or that of the files in `only`).

    Raises: CheckpointError (what is wrong with which file), ResourceError (cannot be read).
    """
    manifest = verify_folder(folder, only)
    match = _STEP_NAME.fullmatch(folder.name)
    if manifest.get("kind") != "checkpoint" or not isinstance(manifest.get("step"), int) or STATE_NAME not in manifest["files"]:
        raise CheckpointError(f"{folder} is not a checkpoint: its manifest has another kind, or no step or state")
    if match and int(match[1]) != manifest["step"]:
        raise CheckpointError(f"{folder} is named for another step than its manifest says ({manifest['step']}) — was it renamed?")
    return manifest


def load_checkpoint(folder: Path, *, mmap: bool = False) -> LoadedCheckpoint:
    """Return a checkpoint after verifying it; with `mmap` its tensors are read from the file when touched.

    Raises: CheckpointError (damaged, or holds a NaN or infinite weight), ResourceError (cannot be read).
    """
    folder = Path(folder)
    manifest = verify_checkpoint(folder)
    tensors = {}
    for name in manifest["files"]:
        if name.endswith(SUFFIX):
            tensors[name.removesuffix(SUFFIX)] = read_tensors(folder / name, mmap=mmap)
            counts = nonfinite_counts(tensors[name.removesuffix(SUFFIX)])
            if counts:
                raise CheckpointError(f"{folder / name} holds NaN or infinite values: {describe_nonfinite(counts)}")
    try:
        state = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / STATE_NAME} cannot be read: {error}") from error
    files = {name: folder / name for name in manifest["files"] if name != STATE_NAME and not name.endswith(SUFFIX)}
    return LoadedCheckpoint(folder, manifest["step"], tensors, state, manifest, files)


def latest_checkpoint(run: Path, *, mmap: bool = False) -> LoadedCheckpoint | None:
    """Return the newest checkpoint of a run that verifies, with a loud warning for each newer one that does not; None without any.

    Raises: CheckpointError when there are checkpoints and none is good.
    """
    problems = []
    for _, folder in reversed(checkpoint_folders(run)):
        try:
            loaded = load_checkpoint(folder, mmap=mmap)
        except CheckpointError as error:
            problems.append(str(error))
            warn(f"CHECKPOINT SKIPPED: {error}\nfalling back to the checkpoint before {folder.name}; the bad one is kept")
        else:
            return loaded
    if problems:
        raise CheckpointError(
            "\n".join([f"none of the {len(problems)} checkpoints in {run} is good — nothing to go on from", *problems])
        )
    return None


def _check_names(tensors: Tensors, extra_files: Mapping[str, bytes]) -> None:
    names = [f"{stem}{SUFFIX}" for stem in tensors] + list(extra_files) + [STATE_NAME]
    bad = [name for name in names if not is_safe_name(name)] + [name for name in extra_files if name.endswith(SUFFIX)]
    if bad or len({name.lower() for name in names}) < len(names) or "manifest.json" in [name.lower() for name in names]:
        raise ValueError(f"checkpoint files need plain, different names, found {names}")


def _refuse_nonfinite(step: int, tensors: Tensors) -> None:
    counts = {f"{stem}/{name}": count for stem, group in tensors.items() for name, count in nonfinite_counts(group).items()}
    if counts:
        raise DataError(
            f"checkpoint of step {step} not written: NaN or infinite values in {describe_nonfinite(counts)}"
            " — the last good checkpoint is untouched; lower optim.lr or look at the data of the last steps"
        )


def _encode_state(state: dict[str, Any]) -> bytes:
    return (json.dumps(state, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogatepass")


def _stamp(folder: Path) -> object:
    """Return what changes when a file of the folder is written to."""
    try:
        return sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir())
    except OSError:
        return None
