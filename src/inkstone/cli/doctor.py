"""`inkstone doctor`: versions, devices, what is fast here, what is wrong and what to do."""

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from inkstone.base.errors import ResourceError
from inkstone.base.quantity import format_bytes
from inkstone.base.settings import Settings

GIB = 2**30
TORCH_VERSION = (2, 13)
PROBE_BYTES = 16 * 2**20
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
EXTRAS = {
    "pyarrow": ("data", "parquet files"),
    "zstandard": ("data", "zst files"),
    "wandb": ("track", "logging to Weights & Biases"),
    "trackio": ("track", "logging to trackio"),
    "transformers": ("dev", "comparing with Hugging Face's models"),
}


@dataclass(frozen=True)
class Check:
    """One finding; `advice` says what to do and is empty where there is nothing to do."""

    name: str
    status: Literal["pass", "warn", "fail"]
    found: str
    advice: str = ""


def settings_class() -> type[Settings] | None:
    """This verb has no settings."""
    return None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `inkstone doctor`."""
    parser.add_argument(
        "--folder", type=Path, default=Path(), metavar="DIR", help="where runs will be written [the current folder]"
    )


def run(args: argparse.Namespace, settings: Settings | None) -> dict[str, Any]:
    """Print every check and return them; a failed one exits with 5.

    Raises: ResourceError that names the failed checks.
    """
    checks = examine(args.folder)
    for check in checks:
        print(f"{check.status:<5} {check.name:<12} {check.found}")
        if check.advice:
            print(f"{'':<18} do: {check.advice}")
    failed = [check.name for check in checks if check.status == "fail"]
    figures: dict[str, Any] = {"ok": not failed, "checks": [asdict(check) for check in checks]}
    if failed and args.json:
        print(json.dumps(figures, ensure_ascii=False))
    if failed:
        raise ResourceError(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)} — do what stands below each")
    return figures


def examine(folder: Path) -> list[Check]:
    """Return every check of this machine; `folder` is where runs will be written."""
    parts: list[Callable[[], Iterator[Check]]] = [
        _versions, _processor, _thread_variables, _memory, lambda: _disk(folder), _terminal, _extras, _compiler,
    ]  # fmt: skip
    return [check for part in parts for check in part()]


def _versions() -> Iterator[Check]:
    python = ".".join(str(part) for part in sys.version_info[:3])
    yield Check("python", "pass" if sys.version_info >= (3, 11) else "fail", python)
    yield Check("inkstone", "pass", importlib.metadata.version("inkstone"))
    missing = [name for name in _required() if not _installed(name)]
    if missing:
        yield Check("libraries", "fail", f"missing: {', '.join(missing)}", "install inkstone again: pip install inkstone")
    torch = _installed("torch")
    if torch is None:
        return
    wanted = ".".join(map(str, TORCH_VERSION))
    found = tuple(int(part) for part in torch.split("+")[0].split(".")[:2])
    advice = "" if found == TORCH_VERSION else f"install the tested version: pip install 'torch=={wanted}.*'"
    yield Check("torch", "warn" if advice else "pass", torch, advice)


def _processor() -> Iterator[Check]:
    if _installed("torch") is None:
        return
    from inkstone import machine

    found = machine.describe()
    quota = "" if found["cgroup_cores"] is None else f", {found['cgroup_cores']:g} allowed by the container"
    yield Check("processor", "pass", f"{found['cpu']}, {found['cores']} of {found['physical_cores']} physical cores{quota}")
    speeds = machine.product_speeds()
    figures = ", ".join(f"{name} {speed / 1e9:.0f}" for name, speed in speeds.items())
    yield Check("precision", "pass", f"{machine.fast_precision()} is fast here (matrix products, GFLOP/s a core: {figures})")
    yield Check("threads", "pass", f"{machine.choose_threads()} will be used")
    names = [f"{device['name']} with {format_bytes(device['memory_bytes'])}" for device in found["cuda"]]
    yield Check("devices", "pass", ", ".join(names) or "no GPU that this torch can use; work runs on the processor")


def _thread_variables() -> Iterator[Check]:
    for name in THREAD_VARIABLES:
        value = os.environ.get(name)
        if value is not None and not re.fullmatch(r"[1-9][0-9]*(,[1-9][0-9]*)*", value):
            yield Check(name, "fail", f"'{value}' is not a number of threads", f"unset {name}, or set it to 1 or more")


def _memory() -> Iterator[Check]:
    from inkstone.machine import available_memory

    free = available_memory()
    advice = "close other programs, or choose small models (inkstone plan says what fits)"
    status: Literal["pass", "warn", "fail"] = "fail" if free < GIB // 4 else "warn" if free < 2 * GIB else "pass"
    yield Check("memory", status, f"{format_bytes(free)} free", "" if status == "pass" else advice)


def _disk(folder: Path) -> Iterator[Check]:
    if not folder.is_dir():
        yield Check("disk", "fail", f"{folder} is not a folder", "name an existing one with --folder")
        return
    try:
        free = shutil.disk_usage(folder).free
        speed = _write_speed(folder) if free > 4 * PROBE_BYTES else 0.0
    except OSError as error:
        yield Check("disk", "fail", f"cannot write in {folder.resolve()}: {error.strerror}", "choose another with --folder")
        return
    found = f"{format_bytes(free)} free in {folder.resolve()}, writes {format_bytes(speed)}/s"
    if free < GIB // 4:
        yield Check("disk", "fail", found, "free some space, or choose another folder with --folder")
    elif free < 2 * GIB:
        yield Check("disk", "warn", found, "free some space: checkpoints take 12 bytes and more for each parameter")
    elif speed < 20e6:
        yield Check("disk", "warn", found, "checkpoints will be slow here; choose a local disk, or a larger --checkpoint.every")
    else:
        yield Check("disk", "pass", found)


def _write_speed(folder: Path) -> float:
    """Return bytes a second of one small file that is written and flushed to the disk, then removed."""
    with tempfile.TemporaryFile(dir=folder) as file:
        block = os.urandom(PROBE_BYTES)
        start = time.perf_counter()
        file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return PROBE_BYTES / max(time.perf_counter() - start, 1e-9)


def _terminal() -> Iterator[Check]:
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "").replace("_", "")
    kind = f"{shutil.get_terminal_size().columns} columns" if sys.stdout.isatty() else "not a terminal: plain lines"
    if encoding == "utf8":
        yield Check("terminal", "pass", f"utf-8, {kind}")
    else:
        advice = "set LANG=C.UTF-8 (or PYTHONUTF8=1) to see Chinese"
        yield Check("terminal", "warn", f"{sys.stdout.encoding}, {kind}: other characters become '?'", advice)


def _extras() -> Iterator[Check]:
    for name, (extra, purpose) in EXTRAS.items():
        version = _installed(name)
        advice = "" if version else f"for {purpose}: pip install 'inkstone[{extra}]'"
        yield Check(name, "pass", version or "not installed (optional)", advice)


def _compiler() -> Iterator[Check]:
    from inkstone.infer.native.build import find_compiler

    path = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
    yield Check("compiler", "pass", path or "none (optional: torch.compile needs one)")
    path = find_compiler()
    missing = "no C compiler: on a processor torch decodes, several times slower - install gcc or clang"
    yield Check("decoding kernels", "pass" if path else "warn", f"compiled with {path}" if path else missing)


def _required() -> list[str]:
    """Return the names of the libraries that inkstone always needs, as its own metadata says."""
    lines = importlib.metadata.requires("inkstone") or []
    return [re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line]


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
