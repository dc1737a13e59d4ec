"""`inkstone bench`: every part gives the figures that it says, of a model that is given or of a preset, and no figure without work."""

import json

import pytest
import torch

from inkstone.cli import bench, main
from inkstone.infer.made_up import write_made_up_model
from inkstone.nn.config import ModelConfig
from inkstone.nn.cost import flops_per_token, num_params

torch.set_num_threads(1)
CONFIG = ModelConfig(preset="gpt2", num_layers=1, num_heads=2, width=32, context=48, vocab_size=300)
SHORT = ["--minutes", "0.002"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "model"
    write_made_up_model(folder, CONFIG)
    return folder


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setattr("inkstone.machine.choose_threads", lambda **_: 1)
    monkeypatch.setattr("inkstone.infer.speed.BANDWIDTH_BYTES", 2**22)


def measure(capsys, *argv):
    assert main.run(["bench", *map(str, argv), *SHORT, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_training_is_a_share_of_the_products(capsys, model):
    found = measure(capsys, "train", model, "--profile")
    assert (found["what"], found["num_params"], found["threads"]) == ("train", num_params(CONFIG), 1)
    assert found["mfu"] == pytest.approx(found["tokens_per_second"] * flops_per_token(CONFIG) / found["product_flops_per_second"])
    shares = [share for _, share, _ in found["top_costs"]]
    assert shares == sorted(shares, reverse=True) and 0 < sum(shares) < 1.001
    assert all(name and calls >= 1 for name, _, calls in found["top_costs"])


def test_decoding_has_a_row_for_each_precision(capsys, model):
    found = measure(capsys, "decode", model)
    rows = {row["precision"]: row for row in found["precisions"]}
    assert list(rows) == ["fp32", "bf16", "int8", "int4"]
    for row in rows.values():
        assert row["decode_1"] > 0 and row["decode_8"] > 0 and row["prefill"] > 0 and row["rounds"] >= 1
        assert row["bandwidth_share"] == pytest.approx(row["decode_1"] * row["bytes_per_step"] / found["memory_bytes_per_second"])
    assert (
        rows["fp32"]["bytes_per_step"]
        > rows["bf16"]["bytes_per_step"]
        > rows["int8"]["bytes_per_step"]
        > rows["int4"]["bytes_per_step"]
    )


def test_one_precision_can_be_asked_for(capsys, model):
    found = measure(capsys, "decode", model, "--precision", "int8")
    assert [row["precision"] for row in found["precisions"]] == ["int8"]


def test_serving_answers_every_stream_whole(capsys, model, monkeypatch):
    monkeypatch.setattr(bench, "STREAMS", (1, 3))
    found = measure(capsys, "serve", model, "--precision", "fp32")
    prompt, new = bench._lengths(CONFIG.context)
    assert [(row["streams"], row["failed"], row["tokens"]) for row in found["loads"]] == [(1, 0, new), (3, 0, 3 * new)]
    assert prompt + new <= CONFIG.context and found["rounds"] >= 1


def test_tokenizing_with_the_models_tokenizer_or_a_new_one(capsys, model, monkeypatch):
    monkeypatch.setattr(bench, "TEXT_BYTES", 100_000)
    own = measure(capsys, "data", model)
    assert own["vocab_size"] == 300 and own["training_bytes_per_second"] is None and own["bytes_per_second"] > 0
    new = measure(capsys, "data")
    assert new["training_bytes_per_second"] > 0 and new["bytes_per_token"] > own["bytes_per_token"]


def test_a_preset_gets_random_weights_that_are_gone_afterwards(capsys, monkeypatch):
    seen = []

    def look(folder, precision, *_, **__):
        seen.append(folder)
        assert (folder / "config.json").exists()
        return {"decode_1": 1.0, "decode_8": 1.0, "prefill": 1.0, "bandwidth_share": 0.0}

    monkeypatch.setattr(bench, "_decode_row", look)
    measure(capsys, "decode", "--preset", "article", "--precision", "fp32")
    assert len(seen) == 1 and not seen[0].exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["decode", "--preset", "gpt5"], "unknown preset 'gpt5'"),
        (["decode", "somewhere", "--preset", "gpt2"], "expected RUN or a preset"),
        (["decode", "--minutes", "0"], "up to 60 minutes"),
        (["decode", "--minutes", "soon"], "expected a duration"),
        (["dance"], "invalid choice: 'dance'"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, argv, words):
    assert main.run(["bench", *argv]) == 2
    assert words in capsys.readouterr().err
