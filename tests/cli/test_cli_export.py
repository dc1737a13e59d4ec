"""`inkstone export` and `inkstone import` at the command line: what is printed, what the figures hold, and what is refused with which code."""

import json

import pytest
import torch

from inkstone.checkpoint.gguf import GGUF_TYPES
from inkstone.checkpoint.model_folder import save_model
from inkstone.cli import export
from inkstone.cli.main import run
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.quant.apply import pack_model
from inkstone.text.tokenizer import train_bpe

torch.set_num_threads(1)


def make(**changes):
    tokenizer = train_bpe(["The stone 砚台 and the ink 墨。\n"] * 3, 300)
    shape = {"num_layers": 1, "num_heads": 2, "width": 32, "context": 64, "vocab_size": tokenizer.vocab_size}
    return Transformer(ModelConfig(**shape | changes), seed=3), tokenizer


@pytest.fixture
def model_run(tmp_path):
    save_model(tmp_path / "mine" / "final", *make())
    return tmp_path / "mine"


def call(capsys, *argv):
    """Return (exit code, stdout, stderr) of one command line."""
    code = run([str(word) for word in argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_choices_of_the_command_are_those_of_the_library():
    from inkstone.checkpoint.exchange import DTYPES

    assert list(export.TYPES) == list(GGUF_TYPES) and list(export.DTYPES) == list(DTYPES)


def test_a_folder_and_a_file_are_made_and_named(model_run, tmp_path, capsys):
    code, out, err = call(capsys, "export", model_run, "--to", "hf", "--out", tmp_path / "hf")
    assert (code, out) == (0, f"{tmp_path / 'hf'}\n") and "tensors as float32" in err
    code, out, err = call(capsys, "export", model_run, "--to", "gguf", "--out", tmp_path / "m.gguf", "--type", "q8_0")
    assert (code, out) == (0, f"{tmp_path / 'm.gguf'}\n") and "tensors as q8_0" in err
    assert (tmp_path / "m.gguf").read_bytes()[:4] == b"GGUF"


def test_json_figures_have_path_bytes_tensors_and_seconds(model_run, tmp_path, capsys):
    for words in (["--to", "hf"], ["--to", "gguf", "--type", "q4_0"]):
        code, out, _ = call(capsys, "export", model_run, *words, "--out", tmp_path / words[1], "--json")
        figures = json.loads(out)
        assert code == 0 and figures["path"] == str(tmp_path / words[1]) and figures["format"] == words[1]
        assert figures["bytes"] > 10_000 and figures["tensors"] >= 13 and 0 <= figures["seconds"] < 60
    assert figures["type"] == "q4_0" and figures["bytes"] == (tmp_path / "gguf").stat().st_size
    code, out, _ = call(capsys, "import", tmp_path / "hf", "--out", tmp_path / "in", "--json")
    figures = json.loads(out)
    assert code == 0 and figures["path"] == str(tmp_path / "in") and figures["architecture"] == "Qwen3ForCausalLM"
    assert figures["num_params"] > 1000 and figures["tensors"] == 13 and 0 <= figures["seconds"] < 60


@pytest.mark.parametrize("size, files", [("20KB", True), ("5k", True), ("1GB", False), ("100000000", False)])
def test_shard_sizes_are_bytes(model_run, tmp_path, capsys, size, files):
    assert call(capsys, "export", model_run, "--to", "hf", "--out", tmp_path / "hf", "--max-shard-size", size)[0] == 0
    assert (tmp_path / "hf" / "model.safetensors.index.json").exists() is files


def test_an_imported_model_is_used_like_any_other(model_run, tmp_path, capsys):
    call(capsys, "export", model_run, "--to", "hf", "--out", tmp_path / "hf", "--dtype", "fp16")
    code, out, err = call(capsys, "import", tmp_path / "hf", "--out", tmp_path / "in")
    assert (code, out) == (0, f"{tmp_path / 'in'}\n") and "float16" in err and f"inkstone generate {tmp_path / 'in'}" in err
    code, first, _ = call(capsys, "generate", tmp_path / "in", "--prompt", "墨", "--max-tokens", "8", "--seed", "5")
    assert code == 0
    assert call(capsys, "generate", tmp_path / "hf", "--prompt", "墨", "--max-tokens", "8", "--seed", "5")[1] == first
    code, _, err = call(capsys, "import", tmp_path / "hf", "--out", tmp_path / "in")
    assert code == 2 and "already exists" in err and "--overwrite" in err
    assert call(capsys, "import", tmp_path / "hf", "--out", tmp_path / "in", "--overwrite", "--chat")[0] == 0
    assert json.loads((tmp_path / "in" / "final" / "generation_config.json").read_text())["chat"] is True


@pytest.mark.parametrize(
    "words, message",
    [
        (["--to", "peft"], "no adapters to export yet"),
        (["--to", "ggfu"], "unknown format 'ggfu'; did you mean 'gguf'"),
        (["--to", "hf", "--type", "q4_0"], "--type q4_0 is for --to gguf; a Hugging Face folder has --dtype"),
        (["--to", "gguf", "--dtype", "bf16"], "--dtype bf16 is for --to hf; a GGUF file has --type"),
        (["--to", "gguf", "--max-shard-size", "1GB"], "--max-shard-size is for --to hf"),
        (["--to", "gguf", "--type", "q5_k"], "invalid choice: 'q5_k'"),
        (["--to", "hf", "--max-shard-size", "large"], "expected a size such as 500MB, found 'large'"),
        (["--to", "hf", "--max-shard-size", "0"], "at least one byte"),
        ([], "--to"),
    ],
)
def test_wrong_flags_are_refused_before_anything_is_read(tmp_path, capsys, words, message):
    code, out, err = call(capsys, "export", tmp_path / "missing", *words, "--out", tmp_path / "x")
    assert (code, out) == (2, "") and message in err and list(tmp_path.iterdir()) == []


def test_what_cannot_be_said_is_code_2_and_what_cannot_be_read_code_4(tmp_path, capsys):
    save_model(tmp_path / "gpt1", *make(preset="gpt1"))
    code, _, err = call(capsys, "export", tmp_path / "gpt1", "--to", "gguf", "--out", tmp_path / "m.gguf")
    assert code == 2 and "as GPT-1 does" in err and "--to hf" in err
    assert call(capsys, "export", tmp_path / "gpt1", "--to", "hf", "--out", tmp_path / "hf")[0] == 0
    for verb, words in (("export", ["--to", "hf"]), ("export", ["--to", "gguf"]), ("import", [])):
        code, _, err = call(capsys, verb, tmp_path / "nowhere", *words, "--out", tmp_path / "x")
        assert code == 4 and "found nothing" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpt1", "hf"]


@pytest.mark.parametrize("words", [["--to", "hf"], ["--to", "gguf"]])
def test_packed_weights_are_not_exported(tmp_path, capsys, words):
    model, tokenizer = make()
    pack_model(model, "int8")
    save_model(tmp_path / "packed", model, tokenizer)
    code, _, err = call(capsys, "export", tmp_path / "packed", *words, "--out", tmp_path / "x")
    assert code == 4 and "packed (int8)" in err and not (tmp_path / "x").exists()
    code, _, err = call(capsys, "import", tmp_path / "packed", "--out", tmp_path / "x")
    assert code == 4 and "packed (int8)" in err and not (tmp_path / "x").exists()
