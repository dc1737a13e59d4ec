"""`inkstone tokenizer train|report` from files to figures, and what they refuse."""

import json

import pytest

from inkstone.cli.main import run
from inkstone.text.tokenizer import Tokenizer

EN = "The cat sat on the mat and looked at the moon.\n" * 40
ZH = "床前明月光,疑是地上霜。举头望明月,低头思故乡。\n" * 40


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "en.txt").write_text(EN)
    (tmp_path / "zh.txt").write_text(ZH)
    return tmp_path


def figures(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def train(folder, *flags):
    return run(["tokenizer", "train", str(folder / "en.txt"), str(folder / "zh.txt"), "--out", str(folder / "tok"), *flags])


def test_train_writes_a_tokenizer_that_loads(folder, capsys):
    assert train(folder, "--vocab-size", "300", "--json") == 0
    made = figures(capsys)
    tokenizer = Tokenizer.load(folder / "tok")
    assert (made["vocab_size"], made["fingerprint"], made["kind"]) == (300, tokenizer.fingerprint, "bpe")
    assert made["bytes"] == len((EN + ZH).encode()) and made["sample_bytes"] == made["bytes"]
    assert tokenizer.decode(tokenizer.encode(EN + ZH)) == EN + ZH


def test_a_sample_bounds_what_is_trained_on(folder, capsys):
    (folder / "en.txt").write_text(EN * 50)
    assert train(folder, "--vocab-size", "270", "--sample-bytes", "50k", "--json") == 0
    assert 0 < figures(capsys)["sample_bytes"] <= 50_000


def test_characters_into_a_file(folder, capsys):
    out = folder / "new" / "chars.json"
    assert run(["tokenizer", "train", str(folder / "zh.txt"), "--kind", "char", "--out", str(out)]) == 0
    assert Tokenizer.load(out).vocab_size == len(set(ZH)) + 2
    assert [path.name for path in out.parent.iterdir()] == ["chars.json"]


def test_nothing_is_overwritten_unless_asked(folder, capsys):
    assert train(folder, "--vocab-size", "300") == 0
    before = (folder / "tok" / "tokenizer.json").read_bytes()
    assert train(folder, "--vocab-size", "290") == 2
    assert "--overwrite" in capsys.readouterr().err and (folder / "tok" / "tokenizer.json").read_bytes() == before
    assert train(folder, "--vocab-size", "290", "--overwrite") == 0
    assert Tokenizer.load(folder / "tok").vocab_size == 290


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--vocab-size", "0"], 2, "vocab_size is 0"),
        (["--vocab-size", "263"], 2, "it must be from 264"),
        (["--vocab-size", "many"], 2, "expected a count"),
        (["--vocab-size", "300", "--kind", "char"], 2, "says nothing to --kind char"),
        (["--kind", "words"], 2, "invalid choice"),
        (["--out", "en.txt/x"], 5, "cannot write"),
    ],
)
def test_bad_flags_are_one_clear_line(flags, code, words, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert train(folder, *flags) == code
    captured = capsys.readouterr()
    assert words in captured.err and "Traceback" not in captured.err and not (folder / "tok").exists()


def test_an_impossible_vocabulary_is_refused_before_anything_is_read(folder, capsys):
    assert run(["tokenizer", "train", str(folder / "absent.txt"), "--out", str(folder / "tok"), "--vocab-size", "263"]) == 2
    assert "it must be from 264" in capsys.readouterr().err


def test_an_empty_input_is_a_data_error(folder, capsys):
    (folder / "en.txt").write_text("")
    (folder / "zh.txt").write_text("")
    assert train(folder) == 3
    assert run(["tokenizer", "report", str(folder / "en.txt")]) == 3


def test_report_counts_languages_and_sources_exactly(folder, capsys):
    assert train(folder, "--vocab-size", "320") == 0
    capsys.readouterr()
    inputs = [str(folder / "en.txt"), str(folder / "zh.txt")]
    assert run(["tokenizer", "report", *inputs, "--tokenizer", str(folder / "tok"), "--json"]) == 0
    out = capsys.readouterr().out
    made = json.loads(out.splitlines()[-1])
    rows = {row["language"]: row for row in made["rows"]}
    assert (rows["en"]["bytes"], rows["zh"]["bytes"]) == (len(EN.encode()), len(ZH.encode()))
    assert made["exact"] is True and len(made["sources"]) == 2 and "bytes per token" in out


def test_report_without_a_tokenizer_trains_one_and_says_so(folder, capsys):
    assert run(["tokenizer", "report", str(folder / "en.txt"), "--vocab-size", "280", "--json"]) == 0
    captured = capsys.readouterr()
    assert "training one" in captured.err and json.loads(captured.out.splitlines()[-1])["vocab_size"] == 280


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["en.txt", "--tokenizer", "nowhere"], 2, "does not exist"),
        (["en.txt", "--tokenizer", "en.txt"], 4, "not JSON"),
        (["en.txt", "--tokenizer", "en.txt", "--vocab-size", "300"], 2, "one of the two"),
        (["-"], 2, "stdin can be read only once"),
    ],
)
def test_report_refuses_what_it_cannot_do(flags, code, words, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert run(["tokenizer", "report", *flags]) == code
    assert words in capsys.readouterr().err
