"""`inkstone pretrain --dry-run`: the plan as a table, everything checked, nothing written."""

import json

import pytest
import torch

from inkstone.cli import main
from inkstone.data.shards import write_prepared
from inkstone.text.tokenizer import build_char

torch.set_num_threads(1)
TINY = ["--model.num-layers", "1", "--model.num-heads", "2", "--model.width", "16", "--model.context", "16", "--train.max-steps", "2",
        "--train.batch-size", "2", "--train.threads", "1", "--eval.sample-tokens", "0", "--log.tensorboard", "false"]  # fmt: skip
TEXTS = ["the ink is ground on the stone 砚台磨墨 " * 8] * 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("data"), build_char(TEXTS), {"train": TEXTS, "val": TEXTS[:1]})


def pretrain(data, out, *argv):
    return main.run(["pretrain", "--data", str(data), "--out", str(out), *TINY, *argv])


def test_a_dry_run_prints_the_plan_and_its_figures(data, tmp_path, capsys):
    assert pretrain(data, tmp_path / "run", "--dry-run", "--json") == 0
    *table, figures = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in table} >= {"model", "parameters", "memory", "speed", "time", "fits"}
    assert json.loads(figures)["tokens"] == 2 * 2 * 16
    assert not (tmp_path / "run").exists()


def test_a_dry_run_with_init_plans_that_model(data, tmp_path, capsys):
    assert pretrain(data, tmp_path / "first", "--model.width", "8") == 0
    capsys.readouterr()
    assert pretrain(data, tmp_path / "run", "--dry-run", "--init", str(tmp_path / "first")) == 0
    assert "width 8," in capsys.readouterr().out


def test_a_dry_run_refuses_what_the_run_would(data, tmp_path, capsys):
    out = tmp_path / "run"
    assert pretrain(data, out) == 0
    before = sorted(path for path in out.rglob("*"))
    assert pretrain(data, out, "--optim.lr", "0.1", "--dry-run") == 2
    assert "optim.lr: was" in capsys.readouterr().err
    (out / "thesis.txt").write_text("mine")
    assert pretrain(data, out, "--dry-run", "--overwrite") == 2
    assert "holds more than a run (thesis.txt)" in capsys.readouterr().err
    (out / "thesis.txt").unlink()
    assert sorted(path for path in out.rglob("*")) == before
    (tmp_path / "file").write_text("")
    assert pretrain(data, tmp_path / "file", "--dry-run") == 2
    assert pretrain(data, tmp_path / ("x" * 300), "--dry-run") == 5
