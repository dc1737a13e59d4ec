"""`inkstone data prepare` and `data show` as users call them: figures, cards, and every kind of bad input."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from inkstone.cli.main import run

LINES = [json.dumps({"text": f"document {i} about the cat and the dog\n"}) for i in range(80)]


def prepare(*words):
    return run(["data", "prepare", *map(str, words)])


@pytest.fixture
def prepared(tmp_path):
    (tmp_path / "in.jsonl").write_text("\n".join([*LINES, LINES[0]]))
    assert prepare(tmp_path / "in.jsonl", "--out", tmp_path / "data", "--vocab-size", 300) == 0
    return tmp_path / "data"


def write(name, data):
    def make(folder):
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        return [folder / name]

    return make


def fifo(folder):
    os.mkfifo(folder / "pipe")
    return [folder / "pipe"]


def table(**columns):
    def make(folder):
        pq.write_table(pa.table(columns), folder / "a.parquet")
        return [folder / "a.parquet"]

    return make


def unreadable(folder):
    (folder / "a.txt").write_text("secret")
    (folder / "a.txt").chmod(0)
    if os.access(folder / "a.txt", os.R_OK):
        pytest.skip("root reads everything")
    return [folder / "a.txt"]


def loop(folder):
    (folder / "self").symlink_to(folder / "self")
    return [folder / "self"]


def chat(*messages):
    return write("a.jsonl", json.dumps({"messages": list(messages)}))


PACKED = gzip.compress("\n".join(LINES).encode())
USER, ASSISTANT = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
BAD = {
    "D01 missing path": (lambda f: [f / "no" / "such.txt"], 2, "no/such.txt does not exist (nearest existing folder: "),
    "D02 folder without matching files": (lambda f: [f], 3, "has no files that match *.txt *.text *.md"),
    "D03 empty file": (write("a.txt", ""), 3, "0 documents with text in"),
    "D03 only white space": (write("a.txt", " \n\t\n"), 3, "0 documents with text in"),
    "D03 empty jsonl": (write("a.jsonl", "\n\n"), 3, "0 documents with text in"),
    "D04 broken line": (write("a.jsonl", f'{LINES[0]}\n{{"text": oops}}\n{LINES[1]}\n'), 3, "a.jsonl:2:10: not valid JSON"),
    "D05 torn last line": (write("a.jsonl", f'{LINES[0]}\n{{"text": "cut o'), 3, "a.jsonl:2:10: not valid JSON"),
    "D05 says so": (write("a.jsonl", f'{LINES[0]}\n{{"text": "cut o'), 3, "the last line looks truncated"),
    "D06 torn array": (write("a.json", '[{"text": "a"},\n {"text": "b'), 3, "a.json:2:10: not a valid JSON array"),
    "D06 array with a hole": (write("a.json", '[{"text": "a"},\n {"text": x}' + " " * 99), 3, "a.json:2:11: not a valid JSON array"),
    "D07 wrong field": (write("a.jsonl", '{"body": "x", "id": 3}'), 3, "a.jsonl:1: no field 'text'; fields are: body, id (choose one with --text-field)"),
    "D07 wrong column": (write("a.csv", "id,body\n1,x\n"), 3, "a.csv:2: no field 'text'; fields are: id, body"),
    "D08 null": (write("a.jsonl", f'{LINES[0]}\n{{"text": null}}'), 3, "a.jsonl:2: field 'text' is null, expected a string"),
    "D08 number": (write("a.jsonl", '{"text": 7}'), 3, "a.jsonl:1: field 'text' is a number"),
    "D08 list": (write("a.jsonl", '{"text": ["a"]}'), 3, "a.jsonl:1: field 'text' is a list"),
    "D08 not an object": (write("a.jsonl", f"{LINES[0]}\n17"), 3, "a.jsonl:2: expected an object or a string, found a number"),
    "D09 invalid UTF-8": (write("a.txt", b"abc \xff def " * 9), 3, "a.txt: byte 4 (0xff) is not valid utf-8"),
    "D10 broken UTF-16": (write("a.txt", b"\xff\xfea\0b\0\x00\xd8c\0"), 3, "is not valid utf-16-le"),
    "D11 deep nesting": (write("a.jsonl", "[" * 10 + "{" * 5), 3, "a.jsonl:1:"),
    "D12 endless line": (write("a.jsonl", '{"text": "' + "x" * 5000), 3, "a.jsonl:1: the line is longer than 2,000 characters"),
    "D14 cut gzip": (write("a.jsonl.gz", PACKED[:-20]), 3, f"truncated at byte {len(PACKED) - 20:,}"),
    "D14 cut zst": (write("a.zst", zstandard.compress(b"abc" * 999)[:-3]), 3, "truncated at byte"),
    "D14 wrong suffix": (write("a.txt.gz", "plain text"), 3, "is not a gz file"),
    "D14 bomb": (write("a.txt.gz", gzip.compress(b"\n" * 60_000_000)), 3, "expands more than 200 times"),
    "D15 no text column": (table(body=["a"], n=[1]), 3, "a.parquet: no field 'text'; fields are: body, n"),
    "D15 wrong type": (table(text=[1, 2]), 3, "a.parquet: column 'text' has type int64, expected strings"),
    "D15 corrupt footer": (write("a.parquet", b"PAR1" + bytes(99) + b"PAR1"), 3, "a.parquet: damaged Parquet file"),
    "D15 not parquet": (write("a.parquet", b"hello"), 3, "a.parquet: damaged Parquet file"),
    "D16 open quote": (write("a.csv", 'id,text\n1,ok\n2,"never closed\nand on\n'), 3, "a.csv:3: not valid CSV"),
    "D16 stray quote": (write("a.csv", 'id,text\n1,"a"b\n'), 3, "a.csv:2: not valid CSV"),
    "D16 huge field": (write("a.csv", "id,text\n1,ok\n2,'" + "x" * 3000), 3, "a.csv:3: not valid CSV"),
    "D16 ragged row": (write("a.csv", "id,text\n1,a,b\n"), 3, "a.csv:2: the row has 3 fields, the header has 2"),
    "D17 link loop": (loop, 3, "Too many levels of symbolic links"),
    "D22 unknown role": (chat(USER, {"role": "bot", "content": "x"}), 3, "a.jsonl:1: messages[1].role: expected one of"),
    "D22 empty": (chat(), 3, "a.jsonl:1: messages: expected a list of at least one message"),
    "D22 assistant first": (chat(ASSISTANT, USER), 3, "messages[0].role: expected 'user'"),
    "D22 no assistant": (chat(USER), 3, "no turn of the assistant"),
    "D22 content": (chat(USER, {"role": "assistant", "content": ["x"]}), 3, "messages[1].content: expected a string, found a list"),
    "D26 permission": (unreadable, 3, "Permission denied"),
    "D29 strange name": (write("a\nb.jsonl", "{"), 3, "a\\nb.jsonl:1:2: not valid JSON"),
    "D30 pipe": (fifo, 2, "is a pipe (FIFO), expected a regular file"),
    "D30 device": (lambda f: ["/dev/zero"], 2, "/dev/zero is a device, expected a regular file"),
    "unknown corpus": (lambda f: ["builtin:microworl"], 2, "did you mean 'microworld'"),
    "one tiny document": (write("a.txt", "x"), 3, "cannot be divided into training and validation"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_and_leaves_nothing(tmp_path, capsys, case):
    make, code, message = BAD[case]
    (tmp_path / "in").mkdir()
    inputs = make(tmp_path / "in")
    capsys.readouterr()
    limits = ["--max-record-bytes", "2000"] if "endless" in case or "huge" in case else []
    assert prepare(*inputs, "--out", tmp_path / "data", *limits) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0] and "this is a bug" not in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("name", "data", "flags", "documents"),
    [
        ("D04 skip", "\n".join([*LINES, "{oops"]), ["--on-bad-line=skip"], 80),
        ("D06 array", json.dumps([json.loads(line) for line in LINES]), [], 80),
        ("D07 named field", "\n".join(line.replace("text", "body") for line in LINES), ["--text-field", "body"], 80),
        ("D09 replace", b"abc \xff def\n" * 50, ["--encoding-errors", "replace"], 1),
        ("D09 named encoding", "größer\n".encode("latin-1") * 50, ["--encoding", "latin-1"], 1),
        ("D11 surrogates and controls", "\n".join([*LINES, r'{"text": "a\ud800b\u0000c\u0007"}']), [], 81),
        ("D25 special text", "\n".join([*LINES, '{"text": "<|endoftext|>"}']), [], 81),
    ],
)
def test_what_can_be_mended_is(tmp_path, capsys, name, data, flags, documents):
    path = tmp_path / ("in.txt" if isinstance(data, bytes) else "in.jsonl")
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    assert prepare(path, "--out", tmp_path / "data", "--vocab-size", "300", "--json", *flags) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["documents_out"] == documents
    assert figures.keys() >= {
        "documents_in", "documents_out", "dropped", "tokens", "bytes", "seconds", "peak_memory_bytes", "tokenizer", "vocab_size",
    }  # fmt: skip
    assert sum(figures["dropped"].values()) == figures["documents_in"] - documents


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--val-fraction", "2"], "val_fraction: Input should be less than or equal to 0.5, found 2 (--val-fraction)"),
        (["--encoding", "klingon"], "encoding: expected auto or a text codec"),
        (["--on-bad-line", "ignore"], "on_bad_line"),
        (["--vocab-sise", "300"], "unrecognized arguments: --vocab-sise"),
        (["--split", "tail", "--format", "jsonl", "--vocab-size", "0"], "vocab_size"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_read(tmp_path, capsys, flags, message):
    assert prepare(tmp_path / "missing.txt", "--out", tmp_path / "data", *flags) == 2
    assert message in capsys.readouterr().err


def test_an_existing_folder_is_refused_then_replaced(prepared, tmp_path, capsys):
    assert prepare(tmp_path / "in.jsonl", "--out", prepared) == 2
    assert "already exists" in capsys.readouterr().err
    assert prepare(tmp_path / "in.jsonl", "--out", prepared, "--overwrite", "--vocab-size", "310") == 0
    assert json.loads((prepared / "manifest.json").read_text())["vocab_size"] == 310


def test_dry_run_lists_and_makes_nothing(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("x" * 2048)
    assert prepare(tmp_path, "--out", tmp_path / "data", "--dry-run") == 0
    assert "2.0 KiB" in capsys.readouterr().out and not (tmp_path / "data").exists()


def test_a_file_whose_name_begins_with_a_dash_is_read_after_two(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x.jsonl").write_text("\n".join(LINES))
    assert prepare("--out", "data", "--vocab-size", "300", "--", "-x.jsonl") == 0


def test_stdin_is_prepared(tmp_path):
    words = [sys.executable, "-m", "inkstone", "data", "prepare", "-", "--out", str(tmp_path / "data"), "--vocab-size", "300"]
    done = subprocess.run(words, input="\n".join(LINES), text=True, capture_output=True)
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "data")


def test_show_prints_counts_samples_and_what_was_dropped(prepared, capsys):
    capsys.readouterr()
    assert run(["data", "show", str(prepared), "--samples", "2", "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "duplicate: 1" in shown and "about the cat and the dog" in shown and shown.count("--- train, sample") == 2
    assert run(["data", "show", str(prepared), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["dropped"] == {"duplicate": 1} and len(figures["samples"]["train"]) == 3


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (lambda d: (d / "train-00000.bin").unlink(), 3, "train-00000.bin is missing"),
        (lambda d: (d / "train-00000.bin").write_bytes(b"123"), 3, "not a whole number of uint16 ids"),
        (lambda d: np.full(9, 9, "<u2").tofile(d / "train-00000.docs"), 3, "the manifest says"),
        (lambda d: (d / "manifest.json").unlink(), 3, "is not a prepared data folder"),
        (lambda d: (d / "tokenizer.json").write_text("{"), 4, "tokenizer.json"),
    ],
)
def test_show_names_damage(prepared, capsys, damage, code, message):
    damage(prepared)
    assert run(["data", "show", str(prepared)]) == code
    assert message in capsys.readouterr().err


def test_show_of_a_missing_folder_names_the_nearest_parent(tmp_path, capsys):
    assert run(["data", "show", str(tmp_path / "x")]) == 2
    assert f"nearest existing folder: {tmp_path}" in capsys.readouterr().err
    assert run(["data", "show", str(tmp_path / "x"), "--samples", "-1"]) == 2
