"""The run's folder: what --overwrite may remove, and when."""

import json

import pytest
import torch

from inkstone.base.errors import CheckpointError, ConfigError, DataError, InkstoneError, ResourceError
from inkstone.checkpoint import store
from inkstone.data.shards import write_prepared
from inkstone.text.tokenizer import build_char
from inkstone.train import run as run_module
from inkstone.train.config import PretrainSettings
from inkstone.train.folder import check_resume, clear, refuse_quickstart, require_clearable
from inkstone.train.run import check, pretrain

torch.set_num_threads(1)
TEXTS = ["the ink is ground on the stone 砚台磨墨 " * 8] * 4
RUN = ["config.toml", "metrics.jsonl", "metrics.superseded.jsonl", "summary.json", "machine.json", "data.json", "figures.json",
       "nonfinite.json", "report.html", "README.md"]  # fmt: skip
FOLDERS = ["checkpoints/step_000001", "best", "final", "tensorboard", ".tmp-best-1-00000000", ".trash-x"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data"), build_char(TEXTS), {"train": TEXTS, "val": TEXTS[:1]})


def settings(**sections):
    model = {"num_layers": 1, "num_heads": 2, "width": 16, "context": 16} | sections.pop("model", {})
    train = {"max_steps": 2, "batch_size": 2, "threads": 1, "precision": "fp32"} | sections.pop("train", {})
    return PretrainSettings(model=model, train=train, **sections)


def make_run(folder, names=RUN, folders=FOLDERS):
    for name in folders:
        (folder / name).mkdir(parents=True)
        (folder / name / "file").write_text("x")
    for name in [*names, ".lock", ".lock.owner"]:
        (folder / name).write_text("")
    return folder


def entries(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_a_run_writes_is_removed_and_the_lock_stays(tmp_path):
    require_clearable(make_run(tmp_path))
    clear(tmp_path)
    assert entries(tmp_path) == [".lock", ".lock.owner"]


def test_an_empty_or_absent_folder_may_be_overwritten(tmp_path):
    require_clearable(tmp_path)
    require_clearable(tmp_path / "none")


@pytest.mark.parametrize("foreign", ["thesis.txt", "data", "metrics.csv", "model.py", "best.txt", ".git", "checkpoints.old"])
def test_a_run_with_anything_else_in_it_is_left_alone(foreign, tmp_path):
    (make_run(tmp_path) / foreign).write_text("mine")
    with pytest.raises(ConfigError, match=f"holds more than a run .*{foreign}"):
        require_clearable(tmp_path)
    clear(tmp_path)  # and even when asked to, it takes nothing that is not a run's
    assert (tmp_path / foreign).read_text() == "mine"


@pytest.mark.parametrize(
    ("names", "folders"),
    [(["config.toml"], []), (["metrics.jsonl"], ["checkpoints"]), (["README.md"], []), (["config.toml", "README.md"], ["final"])],
)
def test_what_is_no_run_is_left_alone(names, folders, tmp_path):
    make_run(tmp_path, names, folders)
    with pytest.raises(ConfigError, match="is not a run"):
        require_clearable(tmp_path)


@pytest.mark.parametrize("name", ["quickstart.json", "parts"])
def test_a_quickstart_folder_is_refused_and_called_that(name, tmp_path, data):
    out = make_run(tmp_path)
    (out / name).mkdir()
    before = entries(out)
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=f"made by inkstone quickstart .it holds {name}.*choose another --out"):
            pretrain(settings(), data=data, out=out, overwrite=overwrite)
    assert entries(out) == before
    refuse_quickstart(tmp_path / "none", "x")


def test_a_run_that_was_cleared_by_half_can_be_cleared_again(tmp_path, monkeypatch):
    make_run(tmp_path)
    monkeypatch.setattr("inkstone.train.folder.remove_folder", lambda path: (_ for _ in ()).throw(OSError(5, "broken")))
    with pytest.raises(ResourceError):
        clear(tmp_path)
    monkeypatch.undo()
    require_clearable(tmp_path)


# Nothing is removed before everything that can be refused was checked


def refused_by(name, monkeypatch, tmp_path, data):
    """Return (settings, keywords, error) of an overwriting command that must be refused."""
    more = {"data": data}
    if name == "context":
        return settings(model={"context": 5000}), more, DataError
    if name == "vocabulary":
        return settings(model={"vocab_size": 3}), more, CheckpointError
    if name == "memory":
        return settings(model={"width": 65536, "num_layers": 1000}), more, ResourceError
    if name == "device":
        return settings(train={"device": "cuda:99"}), more, ResourceError
    if name == "init":
        return settings(), more | {"init": tmp_path / "none"}, CheckpointError
    if name == "space":
        monkeypatch.setattr(store.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
        return settings(), more, ResourceError
    if name == "compiler":
        monkeypatch.setenv("CXX", "no-such-compiler")
        return settings(train={"compile": True}), more, ConfigError
    damaged = tmp_path / "damaged"
    write_prepared(damaged, build_char(TEXTS), {"train": TEXTS, "val": TEXTS[:1]})
    shard = next(damaged.glob("train-*.bin"))
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    return settings(), {"data": damaged}, InkstoneError


REFUSALS = ["context", "vocabulary", "memory", "device", "init", "space", "compiler", "data"]


@pytest.mark.parametrize("name", REFUSALS)
def test_a_command_that_is_refused_leaves_the_old_run(name, data, tmp_path, monkeypatch):
    out = tmp_path / "run"
    pretrain(settings(), data=data, out=out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and not path.name.startswith(".lock")}
    given, how, error = refused_by(name, monkeypatch, tmp_path, data)
    with pytest.raises(error):
        pretrain(given, out=out, overwrite=True, **how)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and not path.name.startswith(".lock")} == before


def test_overwrite_starts_anew_whatever_the_old_run_was(data, tmp_path):
    out = tmp_path / "run"
    pretrain(settings(), data=data, out=out)
    (out / "config.toml").write_text("not = [toml")
    figures = pretrain(settings(model={"width": 8}, train={"max_steps": 3}), data=data, out=out, overwrite=True)
    assert figures["steps"] == 3
    assert json.loads((out / "summary.json").read_text()) == figures
    assert [path.name for path in sorted((out / "checkpoints").iterdir())] == ["step_000003"]


def test_a_signal_before_the_old_run_is_removed_leaves_it(data, tmp_path, monkeypatch):
    import os
    import signal

    from inkstone.base.errors import Interrupted

    out = tmp_path / "run"
    pretrain(settings(), data=data, out=out)
    build = run_module._build
    monkeypatch.setattr(run_module, "_build", lambda *args: os.kill(os.getpid(), signal.SIGTERM) or build(*args))
    with pytest.raises(Interrupted, match="left as it is"):
        pretrain(settings(), data=data, out=out, overwrite=True)
    assert (out / "summary.json").exists()


# A dry run checks the same and writes nothing


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", [name for name in REFUSALS if name != "compiler"])
def test_a_dry_run_refuses_the_same_and_writes_nothing(name, overwrite, data, tmp_path, monkeypatch):
    given, how, error = refused_by(name, monkeypatch, tmp_path, data)
    with pytest.raises(error):
        check(given, out=tmp_path / "run", overwrite=overwrite, **how)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_compares_with_the_run_that_is_there(data, tmp_path):
    out = tmp_path / "run"
    pretrain(settings(), data=data, out=out)
    before = entries(out)
    longer = settings(train={"max_steps": 9, "precision": "auto", "batch_size": 0})
    assert check(longer, data=data, out=out).train.batch_size == 2
    with pytest.raises(ConfigError, match=r"optim\.lr"):
        check(settings(optim={"lr": 0.1}), data=data, out=out)
    assert check(settings(optim={"lr": 0.1}), data=data, out=out, overwrite=True).optim.lr == 0.1
    assert entries(out) == before


def test_a_dry_run_with_init_has_the_architecture_of_that_model(data, tmp_path):
    pretrain(settings(model={"width": 8}), data=data, out=tmp_path / "first")
    assert check(settings(), data=data, out=tmp_path / "run", init=tmp_path / "first").model.width == 8
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_none_of_ours_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not empty and not a run \(thesis.txt\)"):
        check_resume(tmp_path, settings())
