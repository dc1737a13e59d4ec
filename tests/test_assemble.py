"""The one place where a model is put together: its device, precision and compilation."""

import shutil

import pytest
import torch

from inkstone import assemble
from inkstone.assemble import build_model, require_compiler
from inkstone.base.errors import ConfigError
from inkstone.nn.config import ModelConfig

torch.set_num_threads(1)
CONFIG = ModelConfig(num_layers=1, num_heads=1, width=8, context=4, vocab_size=5)


@pytest.mark.parametrize("compile", [False, True])
def test_only_a_model_that_is_to_be_compiled_is(compile, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    model = build_model(CONFIG, compile=compile)
    assert compiled == ([model] if compile else [])


def test_without_a_compiler_it_is_refused_before_anything_is_built(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(assemble, "Transformer", None)
    with pytest.raises(ConfigError, match=r"train.compile needs a C\+\+ compiler, 'no-such-compiler' is not here"):
        build_model(CONFIG, compile=True)


def test_a_gpu_needs_triton(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(assemble.importlib.util, "find_spec", lambda name: None)
    require_compiler(torch.device("cpu"))
    with pytest.raises(ConfigError, match="triton"):
        require_compiler(torch.device("cuda"))
