"""What this machine is and what is fast on it: cores, memory, devices, precision. torch is imported only where it is asked for."""

import ctypes
import functools
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any, Literal

import psutil

Precision = Literal["bf16", "fp32"]
_BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # the last is Arm's name
_BF16_GAIN = 1.3  # bf16 must beat fp32 by this in matrix products: everything between the products gains nothing from it
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_UNLIMITED_BYTES = 1 << 60  # cgroup v1 writes a number near 2^63 for "no limit"


def describe() -> dict[str, Any]:
    """Return what this machine is, as JSON-able values.

    Units: bytes for memory, cores for cgroup_cores (may be fractional; None: no limit).
    """
    import torch

    memory = psutil.virtual_memory()
    return {
        "cpu": cpu_name(),
        "physical_cores": psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        "logical_cores": psutil.cpu_count() or 1,
        "affinity_cores": len(_affinity()),
        "cgroup_cores": cgroup_cores(),
        "cores": usable_cores(),
        "memory_bytes": min(memory.total, cgroup_memory()[0] or memory.total),
        "available_memory_bytes": available_memory(),
        "cgroup_memory_bytes": cgroup_memory()[0],
        "bf16_flags": [flag for flag in _BF16_FLAGS if flag in cpu_flags()],
        "cuda": _cuda_devices(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def available_memory() -> int:
    """Return the bytes that this process can still take: the machine's, or less where a cgroup says so."""
    available = psutil.virtual_memory().available
    limit, used = cgroup_memory()
    return available if limit is None else max(0, min(available, limit - used))


def usable_cores() -> int:
    """Return the physical cores that this process may use: its affinity without hyper-threads, at most its cgroup's quota."""
    cores = _physical_cores(_affinity())
    quota = cgroup_cores()
    return cores if quota is None else max(1, min(cores, int(quota + 0.5)))


def busy_cores() -> float:
    """Return how many cores' worth of work waited or ran here in the last minute, all programs together."""
    return psutil.getloadavg()[0]


def choose_threads(*, num_processes: int = 1) -> int:
    """Return how many threads one of `num_processes` equal processes on this machine should use for its matrix products."""
    return max(1, usable_cores() // num_processes)


@functools.lru_cache(maxsize=1)
def fast_precision() -> Precision:
    """Return "bf16" where this processor multiplies bf16 matrices clearly faster than fp32, else "fp32".

    The flags decide where they can; else both are timed (0.1 s or less, once a process).
    """
    flags = cpu_flags()
    if flags and flags.isdisjoint(_BF16_FLAGS):
        return "fp32"
    speeds = product_speeds()
    return "bf16" if speeds["bf16"] > _BF16_GAIN * speeds["fp32"] else "fp32"


def product_speeds(*, size: int = 512, rounds: int = 5) -> dict[Precision, float]:
    """Return the best of `rounds` interleaved square matrix products in each precision, in FLOP/s of one core.

    One thread and its own CPU time, so that the answer is the same beside busy neighbours.
    """
    import torch

    kinds: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
    factors = {name: torch.ones(size, size, dtype=kind) for name, kind in kinds.items()}
    best = dict.fromkeys(kinds, float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for done in range(rounds + 1):
                for name, matrix in factors.items():
                    start = time.thread_time()
                    matrix @ matrix
                    if done:  # the first round prepares kernels and pages
                        best[name] = min(best[name], max(time.thread_time() - start, 1e-9))
    finally:
        torch.set_num_threads(threads)
    return {name: 2.0 * size**3 / seconds for name, seconds in best.items()}


def cpu_name() -> str:
    """Return the processor's name as its maker gives it."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Return the instruction-set flags of the first processor; empty where the system does not tell."""
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def cgroup_cores(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the CPU quota of this process's cgroup in cores, the tightest of its ancestors; None: no limit."""
    quotas = []
    for folder in _cgroup_folders(root, membership, "cpu"):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def cgroup_memory(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> tuple[int | None, int]:
    """Return (limit, used) in bytes of the cgroup with the least left, this process's or an ancestor; (None, 0): no limit.

    Pages of the file cache count as free: the kernel gives them back before it kills.
    """
    tightest: tuple[int | None, int] = (None, 0)
    for folder in _cgroup_folders(root, membership, "memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        if limit is None or limit >= _UNLIMITED_BYTES:
            continue
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
        cached = _statistic(folder / "memory.stat", ("inactive_file", "total_inactive_file"))
        used = max(0, used - cached)
        if tightest[0] is None or limit - used < tightest[0] - tightest[1]:
            tightest = (limit, used)
    return tightest


def _cgroup_folders(root: Path, membership: Path, controller: str) -> list[Path]:
    """Return this process's cgroup folders for a controller (v2 and v1), from its own up to the mount."""
    folders: list[Path] = []
    for line in _read(membership).splitlines():
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if names and controller not in names.split(","):
            continue
        mounts = [root / names, root / controller] if names else [root, root / "unified"]
        parts = [part for part in path.split("/") if part and part != ".."]
        for mount in mounts:
            folders += [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _affinity() -> set[int]:
    if sys.platform == "linux":
        return os.sched_getaffinity(0)
    return set(range(psutil.cpu_count() or 1))


def _physical_cores(cpus: set[int]) -> int:
    """Return how many physical cores these logical processors belong to."""
    siblings = {_read(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")) or str(cpu) for cpu in cpus}
    if sys.platform != "linux":
        return max(1, psutil.cpu_count(logical=False) or len(cpus))
    return max(1, len(siblings))


def _cuda_devices() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    rows = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [{"name": row.name, "memory_bytes": row.total_memory, "capability": f"{row.major}.{row.minor}"} for row in rows]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _statistic(path: Path, names: tuple[str, ...]) -> int:
    rows = dict(line.split(maxsplit=1) for line in _read(path).splitlines() if " " in line)
    return max((int(rows[name]) for name in names if rows.get(name, "").isdigit()), default=0)


def keep_freed_memory() -> None:
    """Let glibc keep the memory that tensors free, instead of giving it back and asking for it again at the next step.

    Measured on a 10M-parameter model: a training step spends 8 to 13 % of its time on page faults without this. Elsewhere than on
    Linux with glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
