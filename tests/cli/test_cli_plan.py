"""`inkstone plan`: figures with the keys of the house, from a config alone, with data, and with real steps."""

import json
import subprocess
import sys

import pytest

from inkstone.cli import main

KEYS = {"num_params", "flops_per_token", "memory_bytes", "tokens_per_second", "seconds", "fits"}
TINY = [
    "--model.num-layers",
    "1",
    "--model.num-heads",
    "2",
    "--model.width",
    "16",
    "--model.context",
    "8",
    "--model.vocab-size",
    "64",
]


def plan(capsys, *argv: str) -> dict:
    assert main.run(["plan", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def manifest(folder, vocab_size: int = 300, tokens: int = 10_000):
    folder.mkdir()
    values = {"format": 1, "vocab_size": vocab_size, "splits": {"train": {"tokens": tokens}, "val": {"tokens": 100}}}
    (folder / "manifest.json").write_text(json.dumps(values))
    return folder


def test_a_preset_is_planned_with_its_published_vocabulary(capsys):
    found = plan(capsys, "--model.preset", "gpt2", "--seconds", "0")
    assert set(found) >= KEYS
    assert found["num_params"] == 124_439_808
    assert found["measured"] is False
    assert found["memory_bytes"] == sum(found["memory_by_part"].values())


def test_real_steps_are_timed(capsys):
    found = plan(capsys, *TINY, "--seconds", "0.5", "--train.max-steps", "50", "--train.threads", "1")
    assert found["measured"] is True
    assert found["tokens"] == 50 * 16 * 8
    assert found["seconds"] == pytest.approx(found["tokens"] / found["tokens_per_second"])


def test_the_first_limit_ends_the_run(capsys):
    many = plan(capsys, *TINY, "--seconds", "0", "--train.max-tokens", "1M", "--train.max-steps", "10")
    assert many["tokens"] == 10 * 16 * 8
    timed = plan(capsys, *TINY, "--seconds", "0", "--train.max-minutes", "2")
    assert timed["seconds"] == pytest.approx(120)
    assert plan(capsys, *TINY, "--seconds", "0")["seconds"] == pytest.approx(600)


def test_the_data_gives_vocabulary_and_epochs(capsys, tmp_path):
    data = manifest(tmp_path / "data")
    flags = [*TINY[:-2], "--seconds", "0", "--data", str(data)]
    found = plan(capsys, *flags, "--train.max-epochs", "2")
    assert (found["vocab_size"], found["tokens"], found["epochs"]) == (300, 20_000, 2.0)


def test_epochs_without_data_are_a_config_error(capsys):
    assert main.run(["plan", *TINY, "--train.max-epochs", "2", "--seconds", "0"]) == 2
    assert "--data" in capsys.readouterr().err


def test_a_vocabulary_smaller_than_the_tokenizer_is_a_config_error(capsys, tmp_path):
    data = manifest(tmp_path / "data")
    assert main.run(["plan", *TINY, "--seconds", "0", "--data", str(data)]) == 2
    assert "model.vocab_size" in capsys.readouterr().err


def test_missing_data_is_named(capsys, tmp_path):
    assert main.run(["plan", "--data", str(tmp_path / "none"), "--seconds", "0"]) == 2
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["-1", "nan", "1e9", "soon"])
def test_a_senseless_time_is_a_config_error(seconds, capsys):
    assert main.run(["plan", *TINY, f"--seconds={seconds}"]) == 2
    assert "--seconds" in capsys.readouterr().err


def test_what_cannot_fit_says_no_with_three_ways_and_exits_0(capsys):
    assert main.run(["plan", "--model.preset", "gpt3-175b", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[-1])["fits"] is False
    assert sum(line.strip().startswith("choose ") for line in lines) == 3


def test_batch_size_0_takes_the_largest_that_fits(capsys):
    assert plan(capsys, *TINY, "--train.batch-size", "0", "--seconds", "0")["batch_size"] == 64


def test_help_does_not_import_torch():
    code = "import sys; from inkstone.cli.main import run; run(['plan', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_the_plan_has_the_precision_of_the_device(capsys, monkeypatch):
    import torch

    from inkstone import assemble
    from inkstone.train import fit

    monkeypatch.setattr(assemble, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(assemble, "choose_precision", lambda name, device: "fp16" if device.type == "cuda" else "fp32")
    monkeypatch.setattr(fit, "available_memory", lambda device: 2**40)
    found = plan(capsys, *TINY, "--seconds", "0")
    assert (found["precision"], found["available_memory_bytes"]) == ("fp16", 2**40)


def test_an_impossible_device_is_refused(capsys):
    assert main.run(["plan", *TINY, "--seconds", "0", "--train.device", "cuda:99"]) == 5
    assert main.run(["plan", *TINY, "--seconds", "0", "--train.device", "cpu", "--train.precision", "fp16"]) == 2
