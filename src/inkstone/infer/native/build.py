"""Compiles `kernels.c` for this processor, once, into the user's cache folder; without a compiler there are no kernels."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import platformdirs

from inkstone.base.log import warn
from inkstone.machine import cpu_flags

_SOURCE = Path(__file__).with_name("kernels.c")
# No fused multiply-adds behind our back and no reordering: a row's bits must not depend on how many rows a tile has.
_FLAGS = ("-O3", "-march=native", "-fPIC", "-fno-math-errno", "-ffp-contract=off", "-Wno-psabi")
_SECONDS = 120  # a compiler that hangs must not hang the program


@functools.lru_cache(maxsize=1)
def load_kernels() -> ctypes.CDLL | None:
    """Return the compiled kernels; None, with a warning, where they cannot be had. The first call of a machine takes seconds."""
    compiler = find_compiler()
    if compiler is None:
        return None
    try:
        return _load(compiler, threads=True) or _load(compiler, threads=False)
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        warn(f"the decoding kernels could not be built, torch's are used instead: {str(detail).strip()[:300]}")
        return None


def find_compiler() -> str | None:
    """Return the path of a C compiler: $CC, else cc, gcc or clang; None where there is none."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (path := shutil.which(name)):
            return path
    return None


def _load(compiler: str, *, threads: bool) -> ctypes.CDLL | None:
    """Return the library, compiled where that has not been done; None when its threads need an OpenMP that is not there."""
    path = _library_path(compiler, threads)
    try:
        if not path.exists():
            _compile(compiler, path, threads)
        if threads and (openmp := _torch_openmp()) is not None:
            ctypes.CDLL(str(openmp), mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError):
        if threads:
            return None
        raise


def _library_path(compiler: str, threads: bool) -> Path:
    """Return where the library of this source, compiler and processor belongs."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True, timeout=_SECONDS).stdout
    parts = [_SOURCE.read_text(encoding="utf-8"), version, str(threads), *_FLAGS, *sorted(cpu_flags())]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    folder = Path(platformdirs.user_cache_dir("inkstone")) / "kernels"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:  # a read-only home
        folder = Path(tempfile.mkdtemp(prefix="inkstone-kernels-"))
    return folder / f"kernels-{key}.so"


def _compile(compiler: str, path: Path, threads: bool) -> None:
    """Write the library under its final name only when it is whole: another process may be doing the same."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        compiled, linked = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
        openmp = ["-fopenmp"] if threads else []
        # Linked without OpenMP: its symbols come from the copy inside torch. Two copies would be two teams fighting for the cores.
        link = [] if _torch_openmp() else openmp
        commands = [
            [compiler, *_FLAGS, *openmp, "-c", str(_SOURCE), "-o", str(compiled)],
            [compiler, "-shared", *link, str(compiled), "-o", str(linked), "-lm"],
        ]
        for command in commands:
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS)
        linked.replace(path)


def _torch_openmp() -> Path | None:
    import torch

    found = sorted((Path(torch.__file__).parent / "lib").glob("lib[gi]omp*.so*"))
    beside = sorted((Path(torch.__file__).parent.parent / "torch.libs").glob("lib[gi]omp*.so*"))
    return next(iter(found + beside), None)
