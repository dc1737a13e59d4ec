"""Every wrong command line ends with its exit code, a line that names the mistake, and nothing written (reliability, rows C01-C24)."""

import os
import re
import sys

import filelock
import pytest
import torch

from inkstone.base.settings import MAX_RECIPE_BYTES
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


def pretrain(data, out, *argv, recipe=None):
    config = [] if recipe is None else ["--config", str(recipe)]
    return main.run(["pretrain", "--data", str(data), "--out", str(out), *config, *TINY, *argv])


def written(out):
    """Return what stands in the folder besides the lock that kept others out."""
    return sorted(path.name for path in out.rglob("*") if not path.name.startswith(".lock")) if out.is_dir() else []


def check(code, words, capsys, out, *, expected_code=2, num_lines=None):
    captured = capsys.readouterr()
    assert code == expected_code, captured.err
    assert re.search(words, captured.err), captured.err
    assert "Traceback" not in captured.err
    assert "this is a bug" not in captured.err
    assert captured.out == ""
    assert written(out) == []
    if num_lines is not None:
        assert len(captured.err.splitlines()) == num_lines, captured.err


FLAGS = {
    "C01 typo in a setting": (["--optim.lerning-rate", "1"], r"optim\.lerning_rate: unknown setting"),
    "C01 typo near a setting": (["--train.batch-sise", "1"], r"train\.batch_sise: unknown setting.*did you mean 'batch_size'\?"),
    "C01 typo in a section": (["--trian.batch-size", "1"], r"trian: unknown setting.*did you mean 'train'\?"),
    "C01 a setting without its section": (["--batch-size", "4"], r"--batch-size.*did you mean '--(train|eval)\.batch-size'\?"),
    "C01 typo in a flag": (["--overwrit"], r"did you mean '--overwrite'\?"),
    "C02 a word for a number": (["--optim.lr", "fast"], r"optim\.lr: .*number.*found 'fast' \(--optim\.lr\)"),
    "C02 a fraction for a count": (["--train.accumulate", "1.5"], r"train\.accumulate: .*found 1\.5"),
    "C02 a number for a word": (["--train.precision", "16"], r"train\.precision: .*'bf16'.*found 16"),
    "C02 a flag without its value": (["--train.accumulate"], r"train\.accumulate: expected a number, found True"),
    "C02 a count with a wrong unit": (["--train.max-tokens", "10X"], r"train\.max_tokens: expected a count such as 10M, found '10X'"),
    "C02 a duration with a wrong unit": (["--train.max-minutes", "soon"], r"train\.max_minutes: expected a duration"),
    "C03 yaml's truth": (["--train.document-mask", "maybe"], r"train\.document_mask: .*boolean.*'maybe'"),
    "C04 width and heads": (["--model.width", "15"], r"model: width 15 is not a multiple of num_heads 2 \(nearest: \d+\)"),
    "C04 heads and key heads": (["--model.num-heads", "4", "--model.num-kv-heads", "3"], r"num_kv_heads 3 \(possible: \[1, 2, 4\]\)"),
    "C04 odd heads with rope": (["--model.width", "6"], r"head_width 3 is odd, and rope needs pairs \(nearest: 4\)"),
    "C05 no steps backwards": (["--train.max-steps", "-1"], r"train\.max_steps: .*greater than or equal to 0"),
    "C05 negative batch": (["--train.batch-size", "-4"], r"train\.batch_size: .*greater than or equal to 0"),
    "C05 no context": (["--model.context", "0"], r"model\.context: .*greater than or equal to 1"),
    "C05 lr zero": (["--optim.lr", "0"], r"optim\.lr: .*greater than 0"),
    "C05 lr negative": (["--optim.lr", "-1e-3"], r"optim\.lr: .*greater than 0"),
    "C05 lr nan": (["--optim.lr", "nan"], r"optim\.lr: .*finite"),
    "C05 lr inf": (["--optim.lr", "inf"], r"optim\.lr: .*finite"),
    "C05 lr huge": (["--optim.lr", "1e9"], r"optim\.lr: .*less than or equal to 100"),
    "C05 beta one": (["--optim.beta2", "1"], r"optim\.beta2: .*less than 1"),
    "C05 dropout one": (["--model.dropout", "1"], r"model\.dropout: .*less than 1"),
    "C05 endless number": (["--train.max-steps", "9" * 5000], r"train\.max_steps: .*finite"),
    "C03 nested beyond reason": (["--schedule.milestones", "[" * 20_000], r"schedule\.milestones: "),
    "C06 warm-up longer than the run": (["--schedule.warmup", "5"], r"schedule\.warmup: 5 steps of warm-up do not fit into a run of 2"),
    "C06 decay before the warm-up's end": (
        ["--schedule.kind", "wsd", "--schedule.warmup", "0.7", "--schedule.decay-share", "0.5"], r"warmup at most 0\.5"),
    "C06 final above the peak": (["--schedule.final", "2"], r"schedule\.final: .*less than or equal to 1"),
    "C08 stride beyond the context": (["--eval.stride", "17"], r"eval\.stride: 17 is larger than model\.context 16"),
    "C10 unknown device": (["--train.device", "gpu"], r"train\.device: 'gpu' is not a device"),
    "C10 mps": (["--train.device", "mps"], r"train\.device: 'mps' is not supported \(available here: cpu"),
    "C10 fp16 on a processor": (["--train.precision", "fp16", "--train.device", "cpu"], r"train\.precision: fp16 is for GPUs"),
    "C10 unknown precision": (["--train.precision", "fp8"], r"train\.precision: .*'fp8'"),
    "C14 no recipe": (["--config", "none.toml"], r"recipe none\.toml is missing"),
    "C14 a folder as recipe": (["--config", "/"], r"recipe / is a folder"),
    "C14 a device as recipe": (["--config", "/dev/zero"], r"recipe /dev/zero is not a regular file"),
    "C23 negative seed": (["--train.seed", "-1"], r"train\.seed: .*greater than or equal to 0"),
    "C23 fractional seed": (["--train.seed", "1.5"], r"train\.seed: .*1\.5"),
    "C23 seed beyond 63 bits": (["--train.seed", str(2**63)], r"train\.seed: .*less than 9223372036854775808"),
    "unknown preset": (["--model.preset", "gpt9"], r"unknown preset 'gpt9'; did you mean 'gpt"),
    "unknown optimizer": (["--optim.kind", "adamx"], r"optim\.kind: .*'adamw'.*found 'adamx'"),
    "keep only one checkpoint": (["--checkpoint.keep", "1"], r"checkpoint\.keep: .*greater than or equal to 2"),
    "no depth": (["--model.depth", "0"], r"model\.depth: .*greater than or equal to 1"),
}  # fmt: skip


@pytest.mark.parametrize("row", FLAGS)
def test_a_wrong_flag_of_pretrain_is_one_line(row, data, tmp_path, capsys):
    argv, words = FLAGS[row]
    out = tmp_path / "run"
    check(pretrain(data, out, *argv), words, capsys, out, num_lines=1)


RECIPES = {
    "C01 unknown key": ("[train]\nbatch = 4\n", r"train\.batch: unknown setting \(.*bad\.toml\); did you mean 'batch_size'\?"),
    "C02 wrong type": ('[optim]\nlr = "fast"\n', r"optim\.lr: .*found 'fast' \(.*bad\.toml\)"),
    "C03 yaml": ("train:\n  batch_size: 4\n", r"bad\.toml is not valid TOML: .*line 1"),
    "C03 no": ("[train]\ndocument_mask = no\n", r"not valid TOML: .*line 2"),
    "C03 octal": ("[train]\nbatch_size = 010\n", r"not valid TOML"),
    "C03 duplicate key": ("[train]\nseed = 1\nseed = 2\n", r"not valid TOML"),
    "C03 duplicate section": ("[train]\n[train]\n", r"not valid TOML"),
    "C03 nested beyond reason": ("a = " + "[" * 100_000, r"not valid TOML"),
    "C14 binary": (bytes(range(256)), r"is not UTF-8 text|not valid TOML"),
    "C14 too large": ("# " + "x" * MAX_RECIPE_BYTES, r"is larger than 1,000,000 bytes"),
    "a value for a section": ("train = 4\n", r"train: .*found 4"),
    "extends itself": ('extends = "bad.toml"\n', r"extends itself"),
    "extends nothing": ('extends = "none.toml"\n', r"none\.toml is missing"),
}


@pytest.mark.parametrize("row", RECIPES)
def test_a_wrong_recipe_is_named(row, data, tmp_path, capsys):
    content, words = RECIPES[row]
    path = tmp_path / "bad.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    out = tmp_path / "run"
    code = main.run(["pretrain", "--data", str(data), "--out", str(out), "--config", str(path)])
    check(code, words, capsys, out, num_lines=1)


def test_all_mistakes_of_recipe_and_flags_are_named_at_once(data, tmp_path, capsys):
    path = tmp_path / "bad.toml"
    path.write_text('[train]\nbatch = 4\nseed = -1\n[optim]\nlr = "fast"\n')
    out = tmp_path / "run"
    code = pretrain(data, out, "--model.width", "15", "--schedule.kind", "cosin", recipe=path)
    check(code, "model: width 15", capsys, out, num_lines=5)


def test_a_number_in_exponent_form_is_a_number(data, tmp_path):
    (tmp_path / "good.toml").write_text("[optim]\nlr = 1e-3\n")
    out = tmp_path / "run"
    assert pretrain(data, out, "--optim.eps", "1e-9", "--dry-run", recipe=tmp_path / "good.toml") == 0
    assert written(out) == []


OTHER = {
    "C10 cuda without a GPU": (["--train.device", "cuda"], 5, r"train\.device: 'cuda' is not here \(available: cpu\)"),
    "C10 a GPU too many": (["--train.device", "cuda:99"], 5, r"train\.device: 'cuda:99' is not here \(available: cpu"),
    "C11 more memory than there is": (
        ["--model.width", "65536", "--model.num-layers", "1000"],
        5,
        r"needs about .*TiB.* — choose .*; or .*; or ",
    ),
    "vocabulary smaller than the tokenizer's": (
        ["--model.vocab-size", "3"],
        4,
        r"model\.vocab_size is 3, the data's tokenizer has",
    ),
    "weights of nothing": (["--init", "none"], 4, r"none"),
}


@pytest.mark.parametrize("row", OTHER)
def test_what_this_machine_or_data_cannot_do_has_its_own_code(row, data, tmp_path, capsys):
    argv, code, words = OTHER[row]
    if argv[-1] == "cuda" and torch.cuda.is_available():
        pytest.skip("a GPU is here")
    out = tmp_path / "run"
    check(pretrain(data, out, *argv), words, capsys, out, expected_code=code)


def test_a_context_longer_than_the_data_is_a_data_error(data, tmp_path, capsys):
    out = tmp_path / "run"
    check(pretrain(data, out, "--model.context", "5000"), r"one row needs 5,001", capsys, out, expected_code=3)


@pytest.mark.parametrize("missing", ["--data", "--out"])
def test_a_missing_folder_argument_is_named(missing, data, tmp_path, capsys):
    argv = {"--data": str(data), "--out": str(tmp_path / "run")}
    del argv[missing]
    check(main.run(["pretrain", *[word for pair in argv.items() for word in pair]]), missing, capsys, tmp_path / "run", num_lines=1)


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "broken"])
def test_data_that_is_none_is_refused(kind, tmp_path, capsys):
    folder = tmp_path / "data"
    if kind == "file":
        folder.write_text("x")
    elif kind != "missing":
        folder.mkdir()
        if kind == "broken":
            (folder / "manifest.json").write_text("{")
    check(pretrain(folder, tmp_path / "run"), str(folder), capsys, tmp_path / "run", expected_code=2 if kind == "missing" else 3)


# C12, C13, R-20: the run's folder


OUTS = {"a file": 2, "below a file": 5, "too long": 5, "a NUL": 5, "not empty": 2}


@pytest.mark.parametrize("kind", OUTS)
def test_a_folder_that_cannot_be_a_run_is_refused(kind, data, tmp_path, capsys):
    out = tmp_path / "run"
    if kind == "a file":
        out.write_text("mine")
    elif kind == "below a file":
        (tmp_path / "file").write_text("mine")
        out = tmp_path / "file" / "run"
    elif kind == "too long":
        out = tmp_path / ("x" * 300)
    elif kind == "a NUL":
        out = tmp_path / "a\0b"
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    for more in ([], ["--overwrite"]) if kind == "not empty" else ([],):
        code = pretrain(data, out, *more)
        captured = capsys.readouterr()
        assert code == OUTS[kind], captured.err
        assert "Traceback" not in captured.err
        assert captured.out == ""
    kept = {"a file": out, "below a file": tmp_path / "file", "not empty": out / "thesis.txt"}.get(kind)
    assert kept is None or kept.read_text() == "mine"


def test_a_folder_that_another_process_uses_is_refused(data, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    with filelock.FileLock(out / ".lock"):
        check(pretrain(data, out), r"is in use by process", capsys, out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_refused(data, tmp_path, capsys):
    (tmp_path / "closed").mkdir(mode=0o500)
    out = tmp_path / "closed" / "run"
    check(pretrain(data, out), r"cannot use", capsys, out, expected_code=5)


# C22: extras


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_that_is_not_installed_names_its_extra(name, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "run"
    check(pretrain(data, out, f"--log.{name}", "project"), r"pip install 'inkstone\[track\]'", capsys, out)


# C24: homes and clocks


def test_a_run_needs_neither_a_home_nor_the_right_time(data, tmp_path, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("time.time", lambda: 0.0)
    out = tmp_path / "run"
    assert pretrain(data, out) == 0
    assert "summary.json" in written(out)


# The other verbs


VERBS = {
    "prepare: no input": (["data", "prepare", "--out", "OUT"], r"INPUT"),
    "prepare: share beyond one": (
        ["data", "prepare", "none.txt", "--out", "OUT", "--val-fraction", "2"],
        r"val_fraction: .*less than or equal to 0\.5",
    ),
    "prepare: unknown encoding": (
        ["data", "prepare", "none.txt", "--out", "OUT", "--encoding", "klingon"],
        r"encoding: expected auto or a text codec",
    ),
    "prepare: typo": (["data", "prepare", "none.txt", "--out", "OUT", "--vocab-sise", "10"], r"did you mean '--vocab-size'\?"),
    "generate: typo": (["generate", "OUT", "--prompt", "a", "--temprature", "1"], r"did you mean '--temperature'\?"),
    "generate: hot beyond reason": (["generate", "OUT", "--prompt", "a", "--temperature", "nan"], r"temperature: .*finite"),
    "generate: no tokens": (["generate", "OUT", "--prompt", "a", "--max-tokens", "-1"], r"max_tokens: .*greater than or equal to"),
    "plan: typo": (["plan", "--model.dpeth", "4"], r"model\.dpeth: unknown setting.*did you mean 'depth'\?"),
    "plan: two kinds of size": (["plan", "--model.preset", "gpt2", "--model.depth", "4"], r"depth sizes only the preset 'modern'"),
}


@pytest.mark.parametrize("row", VERBS)
def test_a_wrong_flag_of_another_verb_is_one_line(row, tmp_path, capsys):
    argv, words = VERBS[row]
    out = tmp_path / "out"
    check(main.run([str(out) if word == "OUT" else word for word in argv]), words, capsys, out, num_lines=1)
