"""What must hold of every source file: imports point down, help stays light, nothing is pickled, importing does nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import inkstone

SOURCE = Path(inkstone.__file__).parent
FILES = sorted(path for path in SOURCE.rglob("*.py"))
# A package imports only from lower rows; equal numbers do not import each other.
ROWS = {"base": 0, "text": 1, "nn": 1, "world": 1, "machine": 1, "data": 2, "tasks": 2, "optim": 2, "quant": 2, "checkpoint": 3, "assemble": 4,
        "train": 5, "infer": 5, "api": 7, "evaluate": 6, "report": 6, "serve": 6, "cli": 7}  # fmt: skip
SHELL = {"api", "cli"}  # the two faces of the same functions, for programs and for terminals
TORCH_FREE = [
    "base", "text", "nn.config", "nn.cost", "optim.config", "optim.schedule_config", "optim.schedules", "train.config", "train.limits",
    "train.journal", "data.config", "data.prepare", "data.sources", "data.shards", "infer.config", "machine", "cli",
]  # fmt: skip
FORBIDDEN = {"pickle", "cPickle", "dill", "shelve", "marshal", "joblib"}


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(name):
    """`inkstone.nn.config.ModelConfig` → `nn`; None outside of inkstone."""
    parts = name.split(".")
    return parts[1] if parts[0] == "inkstone" and len(parts) > 1 and parts[1] in ROWS else None


def ids(path):
    return str(path.relative_to(SOURCE))


def test_every_package_has_its_row():
    found = {entry.stem for entry in SOURCE.iterdir() if (entry.is_dir() and entry.name != "__pycache__") or entry.suffix == ".py"}
    assert found - {"__init__", "__main__"} == set(ROWS)


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_imports_only_point_down(path):
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own not in ROWS:
        return
    for name in imports(ast.walk(tree(path))):
        other = package(name)
        inside = other is None or other == own or {own, other} == SHELL
        assert inside or ROWS[other] < ROWS[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_nothing_is_pickled_and_no_weights_are_read_by_torch(path):
    source = tree(path)
    assert not FORBIDDEN & {name.split(".")[0] for name in imports(ast.walk(source))}
    calls = {ast.unparse(node.func) for node in ast.walk(source) if isinstance(node, ast.Call)}
    assert not calls & {"torch.load", "torch.save", "np.load", "numpy.load", "eval", "exec"}


def test_a_special_token_has_one_definition():
    from inkstone.text.special import SPECIAL_TOKENS

    said = {
        ids(path): sorted({n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant) and n.value in SPECIAL_TOKENS})
        for path in FILES
    }
    assert {path: names for path, names in said.items() if names} == {"text/special.py": sorted(SPECIAL_TOKENS)}


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_a_module_has_a_docstring_and_ends_before_it_is_too_long(path):
    assert ast.get_docstring(tree(path))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_importing_everything_that_help_needs_imports_no_torch():
    modules = []
    for name in TORCH_FREE:
        path = SOURCE / name.replace(".", "/")
        inner = path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]
        modules += [
            "inkstone." + ".".join(file.relative_to(SOURCE).with_suffix("").parts) for file in inner if file.stem != "__init__"
        ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_touches_nothing(tmp_path):
    modules = [
        "inkstone." + ".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in FILES if not path.stem.startswith("__")
    ]
    code = (
        "import importlib, os, sys\n"
        "wrote = []\n"
        "def hook(event, args):\n"
        "    if event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+') and '__pycache__' not in str(args[0]):\n"
        "        wrote.append(args[0])\n"
        "    if event in ('os.mkdir', 'socket.connect', 'subprocess.Popen'):\n"
        "        wrote.append((event, args))\n"
        "import torch, pydantic, tokenizers, rich, safetensors, psutil, filelock\n"
        "sys.addaudithook(hook)\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "wrote = [w for w in wrote if w != os.devnull and '__pycache__' not in str(w)]\n"
        "assert not wrote, wrote\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []
