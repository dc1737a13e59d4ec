"""`inkstone quantize` on a tiny run: the figures, the folder that other verbs take, and what is refused before any work."""

import json
import math
import shutil

import pytest
import torch

from inkstone.api import Model, load
from inkstone.assemble import build_model
from inkstone.cli.main import run
from inkstone.cli.quantize import BUILTIN
from inkstone.cli.quantize_card import table_rows
from inkstone.data.shards import write_prepared
from inkstone.quant.apply import dense_state, scheme_of
from inkstone.quant.schemes import SCHEMES
from inkstone.text.tokenizer import train_bpe

torch.set_num_threads(1)
KEYS = {
    "scheme", "bytes_before", "bytes_after", "perplexity_before", "perplexity_after", "kl", "agreement",
    "tokens_per_second_before", "tokens_per_second_after",
}  # fmt: skip
TRAIN = ["The stone grinds the ink, 砚台研墨。\n"] * 30
VAL = ["The ink and the stone. ", "墨与砚台。", "Grind, then write: 研墨写字。\n"]
TINY = [
    "--model.num-layers=1", "--model.num-heads=2", "--model.width=32", "--model.context=16", "--train.max-steps=3", "--train.threads=1",
    "--train.batch-size=2", "--train.precision=fp32", "--eval.sample-tokens=4", "--log.tensorboard=false", "--optim.kind=adamw",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder beside the data that it was trained on."""
    folder = tmp_path_factory.mktemp("quantize")
    write_prepared(folder / "data", train_bpe(TRAIN, 300), {"train": TRAIN, "val": VAL})
    assert run(["pretrain", "--data", str(folder / "data"), "--out", str(folder / "run"), *TINY]) == 0
    return folder


@pytest.fixture(scope="module", params=list(SCHEMES))
def packed(request, trained):
    """(folder with run, data and packed model; the packed model's folder; scheme)."""
    out = trained / request.param
    assert run(["quantize", str(trained / "run"), "--scheme", request.param, "--out", str(out)]) == 0
    return trained, out, request.param


def call(capsys, *argv):
    """Return (exit code, stdout, stderr) of one command line."""
    capsys.readouterr()
    code = run([*map(str, argv)])
    return code, *capsys.readouterr()


def figures(capsys, *argv):
    code, out, err = call(capsys, *argv, "--json")
    assert code == 0, err
    return json.loads(out.splitlines()[-1])


def test_json_has_the_promised_figures(trained, tmp_path, capsys):
    found = figures(capsys, "quantize", trained / "run", "--scheme", "int8", "--out", tmp_path / "q")
    assert set(found) >= KEYS and all(math.isfinite(found[key]) for key in KEYS - {"scheme"})
    assert found["scheme"] == "int8" and found["left"] == []
    assert 3 < found["bytes_before"] / found["bytes_after"] < 4
    assert 0 <= found["kl"] < 0.01 and 0.9 < found["agreement"] <= 1
    assert found["perplexity_after"] == pytest.approx(found["perplexity_before"], rel=0.01)
    assert found["data"] == f"{trained / 'data'} (val)"


def test_perplexities_are_those_that_evaluate_gives(packed, tmp_path, capsys):
    folder, out, scheme = packed
    found = figures(capsys, "quantize", folder / "run", "--scheme", scheme, "--out", tmp_path / "q", "--max-tokens", 0)
    data = ("--data", folder / "data", "--no-baselines", "--precision", "fp32")
    for when, model in (("before", folder / "run"), ("after", out)):
        assert found[f"perplexity_{when}"] == pytest.approx(figures(capsys, "evaluate", model, *data)["perplexity"], rel=1e-6)


def test_the_packed_folder_generates_and_scores_like_its_unpacked_weights(packed, capsys):
    _, out, scheme = packed
    model = load(out, dtype=torch.float32)
    assert scheme_of(model.network) == scheme
    text = figures(capsys, "generate", out, "--prompt", "The ink", "--max-tokens", 6, "--temperature", 0)["text"]
    assert text == load(out).generate("The ink", max_tokens=6, temperature=0).text
    plain = Model(build_model(model.network.config, weights=dense_state(model.network)), model.tokenizer)
    assert model.score(VAL[0]).nats == pytest.approx(plain.score(VAL[0]).nats, rel=1e-4)


def test_the_card_has_the_figures_and_no_path(packed):
    folder, out, scheme = packed
    card = (out / "README.md").read_text()
    assert f"`run` with its weights in {scheme}" in card and str(folder / "run") not in card
    assert [line.split("|")[1].strip() for line in card.splitlines() if line.startswith("| ")][1:] == [
        "weights", "perplexity", "tokens/s", "divergence", "agreement",
    ]  # fmt: skip


def test_a_table_goes_to_stdout_and_the_folder_is_its_last_line(trained, tmp_path, capsys):
    code, out, err = call(capsys, "quantize", trained / "run", "--scheme", "int4", "--out", tmp_path / "q")
    assert code == 0, err
    assert out.splitlines()[-1] == str(tmp_path / "q")
    assert "perplexity" in out and "stay in float" in out and "measuring both on" in err


def test_rows_show_the_change(trained):
    values = dict.fromkeys(KEYS, 2.0) | {"bytes_before": 400, "bytes_after": 100, "perplexity_after": 2.1}
    rows = {row[0]: row for row in table_rows(values)}
    assert rows["weights"][3] == "4.00 times smaller" and rows["perplexity"][3] == "+5.00%"


def test_without_the_runs_data_a_built_in_text_is_measured_and_named(trained, tmp_path, capsys):
    shutil.copytree(trained / "run" / "final", tmp_path / "alone")
    argv = ("quantize", tmp_path / "alone", "--scheme", "int8", "--out", tmp_path / "q", "--max-tokens", 200, "--json")
    code, out, err = call(capsys, *argv)
    assert code == 0, err
    assert "not here: measuring on builtin:microworld" in err
    found = json.loads(out.splitlines()[-1])
    assert found["data"] == BUILTIN and found["tokens"] == 200


def test_any_text_can_be_measured(trained, tmp_path, capsys):
    (tmp_path / "some.txt").write_text("The ink is ground on the stone.")
    found = figures(
        capsys, "quantize", trained / "run", "--scheme", "int8", "--out", tmp_path / "q", "--data", tmp_path / "some.txt"
    )
    assert found["data"] == str(tmp_path / "some.txt")


def test_the_models_recommendations_go_with_it(trained, tmp_path, capsys):
    shutil.copytree(trained / "run" / "final", tmp_path / "m")
    (tmp_path / "m" / "MANIFEST.json").unlink()
    path = tmp_path / "m" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"temperature": 0.5, "chat": True}))
    figures(capsys, "quantize", tmp_path / "m", "--scheme", "int8", "--out", tmp_path / "q", "--data", trained / "data")
    model = load(tmp_path / "q")
    assert model.sampling["temperature"] == 0.5 and model.is_chat_tuned


def test_a_folder_that_is_there_is_kept_without_overwrite_and_replaced_with_it(packed, tmp_path, capsys):
    folder, out, scheme = packed
    shutil.copytree(out, tmp_path / "q")
    argv = ("quantize", folder / "run", "--scheme", scheme, "--out", tmp_path / "q", "--max-tokens", 40)
    before = (tmp_path / "q" / "README.md").read_bytes()
    code, _, err = call(capsys, *argv)
    assert code == 2 and "already exists" in err
    assert (tmp_path / "q" / "README.md").read_bytes() == before
    assert call(capsys, *argv, "--overwrite")[0] == 0
    assert "40 tokens" in (tmp_path / "q" / "README.md").read_text()


def test_overwrite_never_touches_what_this_command_did_not_make(trained, tmp_path, capsys):
    shutil.copytree(trained / "run", tmp_path / "other")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    for out in (tmp_path / "other", tmp_path / "other" / "final", tmp_path / "notes", trained / "run"):
        code, _, err = call(capsys, "quantize", trained / "run", "--scheme", "int8", "--out", out, "--overwrite")
        assert code == 2 and "--out" in err, err
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine" and (tmp_path / "other" / "config.toml").exists()


def test_a_failure_leaves_nothing_behind(trained, tmp_path, capsys):
    code, _, err = call(
        capsys, "quantize", trained / "run", "--scheme", "int8", "--out", tmp_path / "q", "--data", tmp_path / "none"
    )
    assert code == 2 and str(tmp_path / "none") in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["{run}", "--out", "{out}"], 2, "--scheme"),
        (["{run}", "--scheme", "int5", "--out", "{out}"], 2, "int8"),
        (["{run}", "--scheme", "int8"], 2, "--out"),
        (["{out}/none", "--scheme", "int8", "--out", "{out}"], 4, "no model at"),
        (["{run}", "--scheme", "int8", "--out", "{out}", "--device", "warp"], 2, "expected one of cpu"),
        (["{run}", "--scheme", "int8", "--out", "{out}", "--max-tokens", "some"], 2, "--max-tokens"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(trained, tmp_path, capsys, argv, code, words):
    filled = [word.format(run=trained / "run", out=tmp_path / "q") for word in argv]
    found, _, err = call(capsys, "quantize", *filled)
    assert (found, words in err) == (code, True), err


def test_int4_can_be_calibrated_and_says_so(trained, tmp_path, capsys):
    argv = ("quantize", trained / "run", "--calibrate", trained / "data", "--max-tokens", 40)
    found = figures(capsys, *argv, "--scheme", "int4", "--out", tmp_path / "q")
    assert found["calibrated_on"] == str(trained / "data")
    assert "- calibrated on a text" in (tmp_path / "q" / "README.md").read_text()
    code, _, err = call(capsys, *argv, "--scheme", "int8", "--out", tmp_path / "r")
    assert code == 2 and "int8 loses next to nothing" in err


def test_packed_weights_are_neither_packed_again_nor_trained(packed, tmp_path, capsys):
    folder, out, scheme = packed
    code, _, err = call(capsys, "quantize", out, "--scheme", "int8", "--out", tmp_path / "q")
    assert code == 4 and f"packed ({scheme})" in err and "made from" in err
    code, _, err = call(capsys, "pretrain", "--data", folder / "data", "--out", tmp_path / "run", "--init", out, *TINY)
    assert code == 4 and f"packed ({scheme})" in err and "not trained" in err
