"""Trackers: each row to each of them, and none of them can end a run."""

import sys
import types

import pytest

from inkstone.base.errors import ConfigError
from inkstone.report import trackers
from inkstone.report.trackers import Trackers


def account(monkeypatch, name="wandb", fail_in=()):
    """Install a made-up wandb or trackio; return what it was told."""
    told = []

    def tell(what):
        def call(*args, **how):
            told.append((what, args, how))
            if what in fail_in:
                raise RuntimeError(f"{what} is down")

        return call

    library = types.ModuleType(name)
    library.init, library.log = tell("init"), tell("log")
    monkeypatch.setitem(sys.modules, name, library)
    return told


def test_a_tracker_gets_the_figures_with_their_step(tmp_path, monkeypatch):
    told = account(monkeypatch)
    Trackers(tmp_path / "run", tensorboard=False, wandb="ink", trackio="").write({"step": 3, "loss": 1.0, "sample": {}})
    assert told == [("init", (), {"project": "ink", "name": "run"}), ("log", ({"loss": 1.0},), {"step": 3})]


def test_nothing_is_opened_before_the_first_row(tmp_path, monkeypatch):
    told = account(monkeypatch)
    Trackers(tmp_path / "run", tensorboard=True, wandb="ink", trackio="")
    assert told == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", ["init", "log"])
def test_a_tracker_that_fails_is_switched_off_with_one_warning_and_the_others_go_on(fails, tmp_path, monkeypatch, capsys):
    broken, sound = account(monkeypatch, "wandb", {fails}), account(monkeypatch, "trackio")
    writer = Trackers(tmp_path, tensorboard=False, wandb="ink", trackio="ink")
    for step in (1, 2, 3):
        writer.write({"step": step, "loss": 1.0})
    warned = capsys.readouterr().err
    assert warned.count("log.wandb is switched off") == 1 and f"{fails} is down" in warned
    assert [what for what, *_ in broken].count(fails) == 1
    assert [what for what, *_ in sound] == ["init", "log", "log", "log"]


def test_a_full_disk_switches_tensorboard_off(tmp_path, monkeypatch, capsys):
    class Full:
        def __init__(self, folder, *, resume_step):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(trackers, "TensorBoardWriter", Full)
    Trackers(tmp_path, tensorboard=True, wandb="", trackio="").write({"step": 1, "loss": 1.0})
    assert "log.tensorboard is switched off: OSError" in capsys.readouterr().err


def test_a_missing_package_is_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ConfigError, match=r"inkstone\[track\]"):
        Trackers(tmp_path, tensorboard=False, wandb="", trackio="ink")
