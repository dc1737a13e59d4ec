"""What `inkstone serve` loads: precision, context, draft, card, and engines that run."""

import json
import queue

import pytest
import torch

from inkstone.base.errors import CheckpointError, ConfigError
from inkstone.cli.served_models import describe_precision, load_in_precision, load_served
from inkstone.infer.config import SamplingSettings
from inkstone.infer.made_up import write_made_up_model
from inkstone.infer.request import Request
from inkstone.nn.config import ModelConfig
from inkstone.serve.config import ServeSettings
from inkstone.serve.metrics import Metrics
from inkstone.serve.models import ServedModels

torch.set_num_threads(1)
SHAPE = {"num_layers": 1, "num_heads": 2, "width": 64, "context": 48}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A model, a smaller one with its tokenizer, and one with another tokenizer."""
    root = tmp_path_factory.mktemp("served")
    write_made_up_model(root / "large", ModelConfig(**SHAPE | {"num_layers": 2}, vocab_size=300), seed=1)
    write_made_up_model(root / "small", ModelConfig(**SHAPE, vocab_size=300), seed=2)
    write_made_up_model(root / "other", ModelConfig(**SHAPE, vocab_size=310), seed=3)
    (root / "large" / "README.md").write_text("# 砚台\n" + "x" * 10**6, encoding="utf-8")
    return root


def load(*folders, draft=None, **settings):
    settings = ServeSettings(**{"parallel": 2, "precision": "fp32"} | settings)
    names = [folder.name for folder in folders]
    return load_served(folders, names, settings, device="cpu", metrics=Metrics(ServedModels()), draft=draft)


def answer(model, prompt=(1, 2, 3), num_tokens=20):
    """Return the text that a served model writes, and its usage."""
    heard = queue.Queue()
    model.submit(Request(tuple(prompt), SamplingSettings(max_tokens=num_tokens), seed=7, ignore_end=True), heard.put)
    text = ""
    while True:
        piece = heard.get(timeout=60)
        assert piece.error is None
        text += piece.text
        if piece.is_last:
            return text, piece.usage


def test_a_loaded_model_says_what_it_is_and_answers(folders):
    large, small = load(folders / "large", folders / "small", ctx_size=32)
    assert (large.name, large.context, large.is_chat_tuned, large.run_folder) == ("large", 32, False, None)
    assert large.card.startswith("# 砚台\nxxx") and len(large.card) <= 256 * 1024 and small.card == ""
    assert large.created == int((folders / "large").stat().st_mtime)
    text, usage = answer(large)
    assert usage.completion_tokens == 20 and large.model.generate is not None
    assert answer(large)[0] == text != answer(small)[0]
    for model in (large, small):
        model.thread.stop()
        assert not model.thread.is_alive


def test_a_draft_changes_no_token(folders):
    (plain,), (drafted,) = load(folders / "large"), load(folders / "large", draft=folders / "large")
    text, usage = answer(drafted)
    assert text == answer(plain)[0] and usage.proposed_tokens > 0
    plain.thread.stop()
    drafted.thread.stop()


def test_a_draft_with_another_tokenizer_is_refused(folders):
    with pytest.raises(ConfigError, match="another tokenizer"):
        load(folders / "large", draft=folders / "other")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "int4"])
def test_weights_are_in_the_precision_that_was_asked_for(folders, precision):
    assert describe_precision(load_in_precision(folders / "small", precision, device="cpu")) == precision


def test_packed_weights_are_not_unpacked(folders, tmp_path):
    from inkstone.checkpoint.model_folder import save_model

    packed = load_in_precision(folders / "small", "int8", device="cpu")
    save_model(tmp_path / "packed", packed.network, packed.tokenizer)
    assert describe_precision(load_in_precision(tmp_path / "packed", "auto", device="cpu")) == "int8"
    with pytest.raises(ConfigError, match=r"packed .*int8"):
        load_in_precision(tmp_path / "packed", "fp32", device="cpu")


def test_a_context_beyond_the_models_is_refused(folders):
    with pytest.raises(ConfigError, match="context of 48 tokens, found 49"):
        load(folders / "small", ctx_size=49)


def test_a_damaged_folder_is_a_checkpoint_error(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(CheckpointError):
        load(tmp_path)
