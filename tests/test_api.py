"""`inkstone.pretrain`: the command's run from Python, and settings that are wrong."""

import json
import subprocess
import sys

import pytest
import torch

import inkstone
from inkstone import api
from inkstone.base.errors import CheckpointError, ConfigError, DataError
from inkstone.cli.main import run
from inkstone.data.shards import write_prepared
from inkstone.text.tokenizer import train_bpe
from inkstone.train.config import PretrainSettings

torch.set_num_threads(1)

MODEL = {"num_layers": 1, "num_heads": 2, "width": 16, "context": 16}
TRAIN = {"max_steps": 3, "batch_size": 2, "threads": 1, "precision": "fp32"}
REST = {"eval": {"sample_tokens": 4}, "log": {"tensorboard": False}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    texts = ["The stone grinds the ink, 砚台研墨。\n"] * 20
    return write_prepared(tmp_path_factory.mktemp("api") / "data", train_bpe(texts, 300), {"train": texts, "val": texts[:2]})


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows if "grad_norm" in row]


def test_pretrain_makes_the_run_that_the_command_makes(data, tmp_path, capsys):
    figures = inkstone.pretrain(data=data, out=tmp_path / "python", model=MODEL, train=TRAIN, **REST)
    flags = [f"--model.{name}={value}" for name, value in MODEL.items()] + [
        f"--train.{name}={value}" for name, value in TRAIN.items()
    ]
    rest = ["--eval.sample-tokens=4", "--log.tensorboard=false", "--json"]
    assert run(["pretrain", "--data", str(data), "--out", str(tmp_path / "command"), *flags, *rest]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) == set(told) and figures["steps"] == 3
    assert losses(tmp_path / "python") == losses(tmp_path / "command")
    assert (tmp_path / "python" / "config.toml").read_text() == (tmp_path / "command" / "config.toml").read_text()
    assert {"report.html", "README.md", "best", "final"} <= {path.name for path in (tmp_path / "python").iterdir()}
    assert any("sample" in line for line in (tmp_path / "python" / "metrics.jsonl").read_text().splitlines())


def test_the_run_loads_and_generates(data, tmp_path):
    inkstone.pretrain(data=str(data), out=str(tmp_path / "run"), model=MODEL, train=TRAIN, **REST)
    model = inkstone.load(tmp_path / "run")
    assert model.generate("砚", max_tokens=4, seed=1).tokens <= 4


def test_bf16_weights_are_multiplied_in_what_is_fast_here(data, tmp_path, monkeypatch):
    inkstone.pretrain(data=str(data), out=str(tmp_path / "run"), model=MODEL, train=TRAIN, **REST)
    monkeypatch.setattr("inkstone.api.fast_precision", lambda: "fp32")
    network = inkstone.load(tmp_path / "run", dtype=torch.bfloat16).network
    assert (network.embed.weight.dtype, network.compute_dtype) == (torch.bfloat16, torch.float32)


def test_the_same_call_goes_on_and_overwrite_starts_anew(data, tmp_path):
    first = inkstone.pretrain(data=data, out=tmp_path / "run", model=MODEL, train=TRAIN, **REST)
    longer = inkstone.pretrain(data=data, out=tmp_path / "run", model=MODEL, train=TRAIN | {"max_steps": 5}, **REST)
    assert (first["steps"], longer["steps"], len(losses(tmp_path / "run"))) == (3, 5, 5)
    again = inkstone.pretrain(data=data, out=tmp_path / "run", model=MODEL, train=TRAIN, overwrite=True, **REST)
    assert (again["steps"], len(losses(tmp_path / "run"))) == (3, 3)


def test_init_starts_from_another_runs_weights(data, tmp_path):
    inkstone.pretrain(data=data, out=tmp_path / "first", model=MODEL, train=TRAIN, **REST)
    inkstone.pretrain(data=data, out=tmp_path / "second", train=TRAIN, init=tmp_path / "first" / "final", **REST)
    assert losses(tmp_path / "second")[0][1] < losses(tmp_path / "first")[0][1]


def test_every_wrong_setting_is_named_before_anything_is_touched(tmp_path):
    with pytest.raises(ConfigError) as failure:
        inkstone.pretrain(
            data=tmp_path / "absent",
            out=tmp_path / "run",
            model={"dpeth": 4},
            train={"max_steps": -1},
            optim={"kind": "madam"},
            trian={},
        )
    lines = str(failure.value).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == ["model.dpeth", "optim.kind", "train.max_steps", "trian"]
    assert "did you mean 'depth'" in str(failure.value) and "did you mean 'train'" in str(failure.value)
    assert "found -1" in str(failure.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"model": 5}, "model: "), ({"model": {"preset": "gpt9"}}, "model: unknown preset 'gpt9'"),
        ({"model": {"depth": 1, "context": 8}, "eval": {"stride": 9}}, "eval.stride: 9 is larger than model.context 8"),
        ({"train": {"max_tokens": "many"}}, "train.max_tokens: expected a count"),
    ],
)  # fmt: skip
def test_a_section_that_does_not_fit_together_is_one_line(data, tmp_path, sections, expected):
    with pytest.raises(ConfigError) as failure:
        inkstone.pretrain(data=data, out=tmp_path / "run", **sections)
    assert str(failure.value).startswith(expected) and len(str(failure.value).splitlines()) == 1


def test_settings_may_be_given_as_objects(data):
    train = PretrainSettings(train=TRAIN).train
    assert api.pretrain_settings({"train": train, "model": MODEL}).train == train


def test_a_folder_without_data_or_with_another_tokenizer_is_refused(data, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="does not exist"):
        inkstone.pretrain(data=tmp_path / "absent", out=tmp_path / "run", model=MODEL, train=TRAIN, **REST)
    with pytest.raises(DataError, match="not a prepared data folder"):
        inkstone.pretrain(data=tmp_path / "empty", out=tmp_path / "run", model=MODEL, train=TRAIN, **REST)
    with pytest.raises(CheckpointError):
        inkstone.pretrain(data=data, out=tmp_path / "run", model=MODEL, train=TRAIN, init=tmp_path / "empty", **REST)


def test_importing_the_package_does_not_import_torch():
    code = "import inkstone, sys; assert 'torch' not in sys.modules; inkstone.pretrain; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
