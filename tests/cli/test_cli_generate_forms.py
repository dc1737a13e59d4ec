"""`inkstone generate` with a form and with beams: flags, outputs, and what is refused with exit code 2."""

import json

import jsonschema
import pytest
import torch

import inkstone
from inkstone.checkpoint.model_folder import save_model
from inkstone.cli.main import run
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import train_bpe

torch.set_num_threads(1)
SCHEMA = {"type": "object", "properties": {"墨": {"type": "boolean"}}, "required": ["墨"], "additionalProperties": False}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms") / "final"
    tokenizer = train_bpe(["The stone 砚台 and the ink 墨。\n"] * 3, 300)
    shape = {"num_layers": 1, "num_heads": 2, "width": 32, "context": 64, "vocab_size": tokenizer.vocab_size}
    save_model(folder, Transformer(ModelConfig(**shape), seed=3), tokenizer)
    return folder


@pytest.fixture
def schema(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA, ensure_ascii=False), encoding="utf-8")
    return path


def generate(capsys, *argv):
    code = run(["generate", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_schema_of_a_file_is_kept(model_folder, capsys, schema):
    code, out, err = generate(capsys, model_folder, "--prompt", "墨", "--json-schema", schema, "--seed", "1")
    assert code == 0 and "ended by stop" in err
    jsonschema.validate(json.loads(out), SCHEMA)


def test_expressions_and_choices_are_kept(model_folder, capsys):
    code, out, _ = generate(capsys, model_folder, "--prompt", "墨", "--regex", "[ab]{3}", "--json", "--seed", "1")
    assert code == 0 and json.loads(out)["text"].strip("ab") == "" and len(json.loads(out)["text"]) == 3
    code, out, _ = generate(capsys, model_folder, "--prompt", "墨", "--choice", "砚台", "--choice", "yes", "--seed", "1")
    assert code == 0 and out.rstrip("\n") in {"砚台", "yes"}


def test_beams_give_the_text_of_the_python_call(model_folder, capsys):
    (expected,) = inkstone.load(model_folder).beam("The", num_beams=3, max_tokens=8)
    code, out, err = generate(capsys, model_folder, "--prompt", "The", "--beams", "3", "--max-tokens", "8")
    assert (code, out) == (0, expected.text + "\n") and "score" in err
    code, out, _ = generate(capsys, model_folder, "--prompt", "The", "--beams", "3", "--max-tokens", "8", "--json")
    assert json.loads(out)["text"] == expected.text and json.loads(out)["score"] == pytest.approx(expected.score)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--regex", "("], "regex: unclosed group"), (["--choice", ""], "choice[0]: expected text"), (["--json-schema", "absent.json"], "cannot read absent.json"),
        (["--beams", "0"], "num_beams: expected 1 to"), (["--beams", "2", "--temperature", "1", "--seed", "1"], "no use for seed, temperature"),
    ],
)  # fmt: skip
def test_forms_that_cannot_be_kept_exit_2_with_a_line(model_folder, capsys, argv, expected):
    code, out, err = generate(capsys, model_folder, "--prompt", "x", *argv)
    assert (code, out) == (2, "") and err.startswith("error: ") and expected in err and len(err.splitlines()) == 1


def test_a_schema_file_that_is_no_json_is_named(model_folder, capsys, tmp_path):
    path = tmp_path / "bad.json"
    for content in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        code, _, err = generate(capsys, model_folder, "--prompt", "x", "--json-schema", path)
        assert code == 2 and "bad.json" in err and len(err.splitlines()) == 1
    path.write_text("[1]")
    code, _, err = generate(capsys, model_folder, "--prompt", "x", "--json-schema", path)
    assert code == 2 and "json_schema: expected an object, found list" in err


def test_one_form_at_a_time(model_folder, capsys):
    code, _, err = generate(capsys, model_folder, "--prompt", "x", "--regex", "a", "--beams", "2")
    assert code == 2 and "not allowed with" in err
