"""Probing this machine: cgroup limits of both versions, cores, and a precision that the processor's own figures support."""

import json
import os
from pathlib import Path

import psutil
import pytest

from inkstone import machine


def cgroup(tmp_path: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    (tmp_path / "self").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "fs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "fs", tmp_path / "self"


def test_the_description_is_json_and_says_what_psutil_says():
    found = json.loads(json.dumps(machine.describe()))
    assert found["logical_cores"] == psutil.cpu_count()
    assert 1 <= found["cores"] <= found["logical_cores"]
    assert 0 < found["available_memory_bytes"] <= found["memory_bytes"] <= psutil.virtual_memory().total
    assert found["cpu"]


def test_a_v2_quota_is_the_tightest_of_the_ancestors(tmp_path):
    files = {"cpu.max": "max 100000", "a/cpu.max": "150000 100000\n", "a/b/cpu.max": "400000 100000\n"}
    assert machine.cgroup_cores(*cgroup(tmp_path, "0::/a/b\n", files)) == 1.5


def test_a_v1_quota_is_read(tmp_path):
    files = {"cpu,cpuacct/box/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n"}
    assert machine.cgroup_cores(*cgroup(tmp_path, "4:cpu,cpuacct:/box\n0::/\n", files)) == 2.0


@pytest.mark.parametrize("text", ["max 100000\n", "-1\n", ""])
def test_no_quota_is_none(tmp_path, text):
    assert machine.cgroup_cores(*cgroup(tmp_path, "0::/\n", {"cpu.max": text})) is None


def test_without_cgroups_there_is_no_limit(tmp_path):
    assert machine.cgroup_cores(tmp_path / "none", tmp_path / "none") is None
    assert machine.cgroup_memory(tmp_path / "none", tmp_path / "none") == (None, 0)


def test_v2_memory_counts_the_file_cache_as_free(tmp_path):
    files = {
        "a/memory.max": "1000\n",
        "a/memory.current": "700\n",
        "a/memory.stat": "anon 500\ninactive_file 200\n",
        "memory.max": "max\n",
    }
    assert machine.cgroup_memory(*cgroup(tmp_path, "0::/a\n", files)) == (1000, 500)


def test_v1_memory_without_a_limit_is_none(tmp_path):
    files = {"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.usage_in_bytes": "700\n"}
    assert machine.cgroup_memory(*cgroup(tmp_path, "8:memory:/elsewhere\n", files)) == (None, 0)


def test_the_ancestor_with_the_least_left_counts(tmp_path):
    files = {"memory.max": "1000\n", "memory.current": "900\n", "a/memory.max": "500\n", "a/memory.current": "100\n"}
    assert machine.cgroup_memory(*cgroup(tmp_path, "0::/a\n", files)) == (1000, 900)


def test_available_memory_obeys_the_cgroup(monkeypatch):
    monkeypatch.setattr(machine, "cgroup_memory", lambda: (10_000, 4_000))
    assert machine.available_memory() == 6_000
    monkeypatch.setattr(machine, "cgroup_memory", lambda: (10_000, 14_000))
    assert machine.available_memory() == 0


def test_threads_are_the_usable_cores_shared_among_processes(monkeypatch):
    monkeypatch.setattr(machine, "_affinity", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(machine, "_physical_cores", len)
    monkeypatch.setattr(machine, "cgroup_cores", lambda: None)
    assert [machine.choose_threads(num_processes=n) for n in (1, 2, 3, 8)] == [4, 2, 1, 1]
    monkeypatch.setattr(machine, "cgroup_cores", lambda: 2.5)
    assert machine.choose_threads() == 3
    monkeypatch.setattr(machine, "cgroup_cores", lambda: 0.2)
    assert machine.choose_threads() == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is a Linux notion")
def test_cores_follow_the_affinity():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert machine.usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("flags", "speeds", "expected"),
    [
        ({"avx2"}, {"fp32": 1.0, "bf16": 9.0}, "fp32"),  # the processor cannot: emulation is never asked
        ({"avx512_bf16"}, {"fp32": 200.0, "bf16": 890.0}, "bf16"),
        ({"amx_bf16"}, {"fp32": 200.0, "bf16": 100.0}, "fp32"),  # the flag is there, the kernel is not
        (set(), {"fp32": 1.0, "bf16": 4.0}, "bf16"),
        (set(), {"fp32": 1.0, "bf16": 1.2}, "fp32"),
    ],
)
def test_the_precision_follows_flags_first_and_speed_next(monkeypatch, flags, speeds, expected):
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(machine, "product_speeds", lambda: speeds)
    assert machine.fast_precision.__wrapped__() == expected


def test_the_real_probe_measures_both_precisions():
    speeds = machine.product_speeds(size=64, rounds=1)
    assert set(speeds) == {"fp32", "bf16"}
    assert all(0 < speed < float("inf") for speed in speeds.values())
    assert machine.fast_precision() in speeds
