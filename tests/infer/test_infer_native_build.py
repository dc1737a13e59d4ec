"""Kernels are compiled once, and never needed: without a compiler, or with a broken one, torch does the work."""

import platformdirs
import pytest
import torch
from test_infer_torch_runner import build

from inkstone.infer import runners
from inkstone.infer.native import build as native_build
from inkstone.infer.native_runner import NativeRunner
from inkstone.infer.torch_runner import TorchRunner

torch.set_num_threads(1)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    return tmp_path / "cache" / "inkstone" / "kernels"


def compiler(tmp_path, monkeypatch, script: str) -> None:
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("CC", str(path))


@pytest.mark.skipif(native_build.find_compiler() is None, reason="needs a C compiler")
def test_the_library_is_compiled_once_and_nothing_else_is_left(cache, monkeypatch):
    assert native_build.load_kernels.__wrapped__() is not None
    (library,) = cache.iterdir()
    written = library.stat().st_mtime_ns
    monkeypatch.setattr(native_build, "_compile", None)
    assert native_build.load_kernels.__wrapped__() is not None
    assert library.stat().st_mtime_ns == written


@pytest.mark.skipif(native_build.find_compiler() is None, reason="needs a C compiler")
def test_a_compiler_without_openmp_gives_one_thread(cache, tmp_path, monkeypatch):
    real = native_build.find_compiler()
    compiler(tmp_path, monkeypatch, f'case "$*" in *-fopenmp*) exit 1;; esac\nexec {real} "$@"')
    library = native_build.load_kernels.__wrapped__()
    network = build("gpt")
    runner = NativeRunner(network, library, num_slots=1)
    reference = TorchRunner(network, num_slots=1)
    torch.testing.assert_close(runner.decode([5], [0], [0]), reference.decode([5], [0], [0]), atol=3e-5, rtol=3e-5)


def test_a_broken_compiler_is_a_warning_and_torch_decodes(cache, tmp_path, monkeypatch, capsys):
    compiler(tmp_path, monkeypatch, "echo out of cheese >&2; exit 1")
    assert native_build.load_kernels.__wrapped__() is None
    assert "could not be built" in capsys.readouterr().err
    monkeypatch.setattr(runners, "load_kernels", native_build.load_kernels.__wrapped__)
    assert type(runners.make_runner(build("gpt"), num_slots=1)) is TorchRunner


def test_without_a_compiler_torch_decodes_silently(cache, monkeypatch, capsys):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert native_build.load_kernels.__wrapped__() is None
    assert capsys.readouterr().err == ""
