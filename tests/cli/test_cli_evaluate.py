"""`inkstone evaluate` on a tiny run: its own split, other data, plain text, the run's page, and what is refused."""

import io
import json
import shutil
import subprocess
import sys

import pytest
import torch

from inkstone.cli.evaluated_run import find_run
from inkstone.cli.main import run
from inkstone.data.shards import write_prepared
from inkstone.report.figures import baseline_figure
from inkstone.text.tokenizer import Tokenizer, train_bpe

torch.set_num_threads(1)

KEYS = {"loss", "perplexity", "perplexity_per_byte", "bits_per_byte", "accuracy", "tokens", "bytes"}
TRAIN = ["The stone grinds the ink, 砚台研墨。\n"] * 30
VAL = ["The ink and the stone. ", "墨与砚台。", "Grind, then write: 研墨写字。\n"]
TINY = [
    "--model.num-layers=1", "--model.num-heads=2", "--model.width=16", "--model.context=16", "--train.max-steps=3", "--train.threads=1",
    "--train.batch-size=2", "--train.precision=fp32", "--eval.stride=8", "--eval.sample-tokens=4", "--log.tensorboard=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder beside the data that it was trained on."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_prepared(folder / "data", train_bpe(TRAIN, 300), {"train": TRAIN, "val": VAL})
    assert run(["pretrain", "--data", str(folder / "data"), "--out", str(folder / "run"), *TINY]) == 0
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """A copy whose files a test may change; its run still names the original data folder."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path


def evaluate(capsys, *argv):
    """Return (exit code, stdout, stderr) of one command line."""
    capsys.readouterr()
    code = run(["evaluate", *map(str, argv)])
    return code, *capsys.readouterr()


def figures(capsys, *argv):
    code, out, err = evaluate(capsys, *argv, "--json")
    assert code == 0, err
    return json.loads(out)


def test_json_has_the_promised_keys_and_every_headline_its_interval(folder, capsys):
    found = figures(capsys, folder / "run")
    assert set(found) >= KEYS
    assert set(found["metrics"]) == KEYS - {"tokens", "bytes"}
    assert all(limits["low"] <= found[name] <= limits["high"] for name, limits in found["metrics"].items())
    assert {name: set(values) for name, values in found["baselines"].items()} == {
        "xz -9": {"bits_per_byte"},
        "6-gram": {"bits_per_byte"},
    }
    assert (found["context"], found["stride"]) == (16, 8)


def test_the_runs_own_split_gives_what_training_measured(folder, capsys):
    found = figures(capsys, folder / "run" / "final", "--no-baselines")
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "val_loss" in row][-1]
    assert last["step"] == 3
    for name in ("loss", "accuracy", "bits_per_byte", "perplexity"):
        assert found[name] == pytest.approx(last[f"val_{name}"], rel=1e-6)
    assert "baselines" not in found


def test_a_table_goes_to_stdout_and_the_rest_to_stderr(folder, capsys):
    code, out, err = evaluate(capsys, folder / "run")
    assert code == 0
    for word in ("loss", "perplexity", "bits per byte", "accuracy", "xz -9", "6-gram", "95 % interval"):
        assert word in out
    assert "scoring" in err and "scoring" not in out
    assert max(map(len, out.splitlines()[1:])) <= 80


def test_the_figure_is_on_the_runs_page_once_beside_what_was_there(folder, capsys):
    other = {"title": "Questions", "rows": [{"name": "zh", "value": 0.5}]}
    old = baseline_figure(9.0, {"xz -9": {"bits_per_byte": 8.0}})
    (folder / "run" / "figures.json").write_text(json.dumps([other, old]))
    for _ in range(2):
        found = figures(capsys, folder / "run")
    entries = json.loads((folder / "run" / "figures.json").read_text())
    assert entries[1:] == [other]
    own = next(row for row in entries[0]["rows"] if row["kind"] == "model")
    assert own["value"] == found["bits_per_byte"] and own["low"] < own["value"] < own["high"]
    assert {row["name"]: row["value"] for row in entries[0]["rows"] if row["kind"] == "baseline"} == {
        name: values["bits_per_byte"] for name, values in found["baselines"].items()
    }
    page = (folder / "run" / "report.html").read_text()
    assert "xz -9" in page and "Questions" in page


@pytest.mark.parametrize("argv", [["--no-baselines"], ["--max-tokens", "10"], ["--split", "train"]])
def test_only_a_whole_validation_split_with_baselines_changes_the_page(folder, capsys, argv):
    before = (folder / "run" / "report.html").read_bytes()
    figures(capsys, folder / "run", *argv)
    assert not (folder / "run" / "figures.json").exists()
    assert (folder / "run" / "report.html").read_bytes() == before


def test_a_chat_model_does_not_take_the_place_of_what_it_was_tuned_from(folder, capsys):
    for name in ("best", "final"):
        path = folder / "run" / name / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chat": True}))
    code, _, err = evaluate(capsys, folder / "run")
    assert code == 0 and "before its tuning for chat" in err
    assert not (folder / "run" / "figures.json").exists()


def test_a_checkpoint_knows_its_runs_data_but_does_not_speak_for_the_run(folder, capsys):
    (checkpoint,) = list((folder / "run" / "checkpoints").glob("step_*"))[-1:]
    found = figures(capsys, checkpoint)
    assert found["split"] == "val" and "6-gram" in found["baselines"]
    assert not (folder / "run" / "figures.json").exists()
    assert find_run(checkpoint) == find_run(folder / "run" / "best") == folder / "run"
    assert find_run(folder / "run" / "checkpoints") is None


def test_the_training_split_is_not_its_own_n_gram_baseline(folder, capsys):
    assert set(figures(capsys, folder / "run", "--split", "train")["baselines"]) == {"xz -9"}


def test_plain_text_is_tokenized_with_the_runs_tokenizer(folder, capsys, trained):
    path = folder / "val.txt"
    path.write_text("墨与砚台。\nThe ink.\n", encoding="gb18030")
    found = figures(capsys, folder / "run", "--data", path)
    ids = Tokenizer.load(trained / "data").encode("墨与砚台。\nThe ink.\n")
    assert (found["tokens"], found["split"]) == (len(ids), "text")  # less the first, and one that ends the text
    assert "6-gram" in found["baselines"]
    assert not (folder / "run" / "figures.json").exists()


def test_text_comes_from_stdin_too(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("砚台 and ink".encode())))
    found = figures(capsys, folder / "run", "--data", "-", "--no-baselines")
    assert (found["data"], found["bytes"] > 8) == ("stdin", True)


def test_data_prepared_anew_is_no_longer_the_runs_own(folder, capsys, trained):
    data = folder / "data"
    write_prepared(data, Tokenizer.load(trained / "data"), {"train": TRAIN, "val": [*VAL, "more 墨"]})
    facts = json.loads((folder / "run" / "data.json").read_text())
    (folder / "run" / "data.json").write_text(json.dumps(facts | {"folder": str(data)}))
    code, _, err = evaluate(capsys, folder / "run")
    assert code == 0 and "prepared anew" in err
    assert not (folder / "run" / "figures.json").exists()


def test_other_data_needs_the_models_tokenizer(folder, capsys):
    write_prepared(folder / "other", train_bpe(["quite other text"], 270), {"train": TRAIN, "val": VAL})
    code, out, err = evaluate(capsys, folder / "run", "--data", folder / "other")
    assert (code, out) == (4, "") and "prepare the data again" in err


def test_a_model_folder_of_no_run_needs_data(folder, capsys, trained):
    shutil.copytree(folder / "run" / "final", folder / "model")
    code, out, err = evaluate(capsys, folder / "model")
    assert (code, out) == (2, "") and "give --data" in err
    assert figures(capsys, folder / "model", "--data", trained / "data", "--no-baselines")["tokens"] > 0
    (folder / "a.txt").write_text("The ink. " * 5)
    assert set(figures(capsys, folder / "model", "--data", folder / "a.txt")["baselines"]) == {"xz -9"}


@pytest.mark.parametrize(
    ("argv", "code", "expected"),
    [
        (["--stride", "17"], 2, "--stride: expected 1 to 16"), (["--split", "test"], 3, "has no split 'test'"),
        (["--max-tokens", "a few"], 2, "expected a count such as 10M"), (["--batch-size", "0"], 2, "--batch-size: expected 1"),
        (["--data", "absent.txt"], 2, "does not exist"), (["--strid", "8"], 2, "did you mean"),
        (["--device", "cuda:99"], 2, "device: expected one of cpu"), (["--precision", "fp8"], 2, "--precision"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line_and_the_right_exit_code(folder, capsys, argv, code, expected):
    actual, out, err = evaluate(capsys, folder / "run", *argv)
    assert (actual, out) == (code, "")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and expected in lines[0]


def test_a_split_of_plain_text_is_refused(folder, capsys):
    (folder / "a.txt").write_text("ink")
    code, _, err = evaluate(capsys, folder / "run", "--data", folder / "a.txt", "--split", "val")
    assert code == 2 and "has no splits" in err


def test_data_that_is_gone_is_named(folder, capsys):
    facts = json.loads((folder / "run" / "data.json").read_text())
    (folder / "run" / "data.json").write_text(json.dumps(facts | {"folder": str(folder / "gone")}))
    code, _, err = evaluate(capsys, folder / "run")
    assert code == 2 and f"no longer at {folder / 'gone'}" in err


def test_no_model_exits_4(tmp_path, capsys):
    code, _, err = evaluate(capsys, tmp_path / "absent")
    assert code == 4 and "absent" in err


def test_help_does_not_import_torch():
    code = "import sys; from inkstone.cli.main import run; run(['evaluate', '--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
