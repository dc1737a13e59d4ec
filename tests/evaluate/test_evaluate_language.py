"""`evaluate_language` against transformers' GPT-2 and against a loop over single tokens; its baselines read the very bytes it scores."""

import lzma
import math

import numpy as np
import pytest
import torch

from inkstone.base.errors import ConfigError, DataError
from inkstone.checkpoint.model_folder import save_model
from inkstone.data.shards import open_split, write_prepared
from inkstone.evaluate import language
from inkstone.evaluate.language import choose_stride, evaluate_language, language_baselines
from inkstone.evaluate.split_bytes import sampled_bytes, scored_bytes
from inkstone.evaluate.text_split import write_text_split
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import build_char, train_bpe

torch.set_num_threads(1)

CONTEXT = 8
TEXTS = ["The stone grinds the ink. ", "研墨", "a", "砚台与墨，and a long one that runs over several windows. " * 2, "end\n"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["The stone 砚台 and the ink 墨。\n"] * 3, 300)


@pytest.fixture(scope="module")
def split(tokenizer, tmp_path_factory):
    folder = write_prepared(tmp_path_factory.mktemp("data"), tokenizer, {"val": TEXTS, "train": ["stone and ink, 砚台。"] * 5})
    return open_split(folder, "val")


def make_model(tokenizer, preset="gpt", **changes):
    shape = {"preset": preset, "num_layers": 2, "num_heads": 2, "width": 32, "context": CONTEXT, "vocab_size": tokenizer.vocab_size}
    model = Transformer(ModelConfig(**shape | {"dropout": 0.0, "attention_dropout": 0.0} | changes), seed=3).eval()
    with torch.no_grad():  # as drawn, a tiny model is nearly uniform: any mistake in what it sees would be lost in that
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


def slow_windows(num_tokens, stride):
    """Yield (start of the window, position of the target) of every target, from the definition."""
    for target in range(1, num_tokens):
        start = 0
        while start + CONTEXT < target:  # the first window that reaches the target scores it
            start += stride
        yield start, target


@pytest.mark.parametrize("stride", [1, 3, 4, CONTEXT])
def test_every_token_but_the_first_is_scored_once_in_the_first_window_that_reaches_it(tokenizer, split, stride):
    model = make_model(tokenizer, position="rope")
    ids = split.read(0, split.num_tokens).astype(np.int64)
    nats = correct = 0
    for start, target in slow_windows(len(ids), stride):
        begin = start + max([i for i, token in enumerate(ids[start:target]) if token == tokenizer.eos_id], default=0)
        with torch.inference_mode():  # only this document: rope sees distances alone, so the window's start does not matter
            logits = model.logits(model(torch.from_numpy(ids[begin:target])[None])[:, -1])[0]
        nats -= float(logits.log_softmax(0)[ids[target]])
        correct += int(logits.argmax() == ids[target])
    found = evaluate_language(model, tokenizer, split, stride=stride, batch_size=3)
    assert found["tokens"] == len(ids) - 1
    assert found["loss"] == pytest.approx(nats / (len(ids) - 1), rel=1e-5)
    assert found["accuracy"] == pytest.approx(correct / (len(ids) - 1))
    assert found["perplexity"] == pytest.approx(math.exp(nats / (len(ids) - 1)), rel=1e-4)


@pytest.mark.parametrize("stride", [3, CONTEXT])
def test_the_loss_equals_that_of_transformers_gpt2_on_the_same_windows(tokenizer, split, stride, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = make_model(tokenizer)
    save_model(tmp_path / "hf", model, tokenizer)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "hf").eval()
    ids = torch.from_numpy(split.read(0, split.num_tokens).astype(np.int64))
    total = count = scored = start = 0
    while scored < len(ids) - 1:
        window = ids[start : start + CONTEXT + 1]
        for begin, end in segments(window.tolist(), tokenizer.eos_id):
            labels = window[begin : end + 1].clone()
            labels[: max(0, scored + 1 - start - begin)] = -100  # targets that an earlier window has scored
            inputs, places = window[begin:end][None], torch.arange(begin, end)[None]
            with torch.inference_mode():
                logits = theirs(inputs, position_ids=places).logits[0]
            kept = labels[1:] != -100
            total += (
                float(torch.nn.functional.cross_entropy(logits[kept], labels[1:][kept], reduction="sum")) if kept.any() else 0.0
            )
            count += int(kept.sum())
        scored, start = start + len(window) - 1, start + stride
    found = evaluate_language(model, tokenizer, split, stride=stride)
    assert (found["tokens"], found["windows"]) == (count, math.ceil((len(ids) - 1 - CONTEXT) / stride) + 1)
    assert found["loss"] == pytest.approx(total / count, rel=1e-5)


def segments(window, eos):
    """Return [begin, end) of the inputs of every document in a window; an end-of-text begins the document after it."""
    begins = [0] + [i for i in range(1, len(window) - 1) if window[i] == eos]
    return list(zip(begins, [*begins[1:], len(window) - 1], strict=True))


def test_a_split_of_one_document_has_the_loss_that_transformers_reports(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = make_model(tokenizer, context=64)
    save_model(tmp_path / "hf", model, tokenizer)
    split = open_split(write_prepared(tmp_path / "data", tokenizer, {"val": ["The stone grinds 墨."]}), "val")
    ids = torch.from_numpy(split.read(0, split.num_tokens).astype(np.int64))[None]
    with torch.inference_mode():
        loss = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "hf").eval()(ids, labels=ids).loss
    assert evaluate_language(model, tokenizer, split)["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_the_document_mask_can_be_switched_off(tokenizer, split):
    model = make_model(tokenizer)
    masked, whole = (evaluate_language(model, tokenizer, split, document_mask=mask)["loss"] for mask in (True, False))
    assert masked != pytest.approx(whole, rel=1e-6)


def test_figures_by_byte_count_the_bytes_of_the_text(tokenizer, split):
    found = evaluate_language(make_model(tokenizer), tokenizer, split)
    first = tokenizer.byte_lengths[split.read(0, 1)[0]]
    assert found["bytes"] == sum(len(text.encode()) for text in TEXTS) - first
    nats = found["loss"] * found["tokens"]
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / found["bytes"])
    assert found["perplexity_per_byte"] == pytest.approx(2 ** found["bits_per_byte"])


def test_every_headline_lies_in_its_interval_and_the_interval_is_the_same_each_time(tokenizer, split):
    model = make_model(tokenizer)
    found, again = (evaluate_language(model, tokenizer, split) for _ in range(2))
    assert found == again
    assert set(found["metrics"]) == {"loss", "perplexity", "perplexity_per_byte", "bits_per_byte", "accuracy"}
    for name, limits in found["metrics"].items():
        assert limits["value"] == found[name]
        assert limits["low"] <= limits["value"] <= limits["high"]
        assert limits["low"] < limits["high"] or (name == "accuracy" and limits["value"] == 0)  # no hit: nothing to resample


@pytest.mark.parametrize("max_tokens", [1, 7, 8, 9, 1000])
def test_max_tokens_scores_the_first_tokens_and_their_bytes(tokenizer, split, max_tokens):
    found = evaluate_language(make_model(tokenizer), tokenizer, split, max_tokens=max_tokens)
    assert found["tokens"] == min(max_tokens, split.num_tokens - 1)
    assert found["bytes"] == len(scored_bytes(split, tokenizer, max_tokens=max_tokens))


def test_a_loss_mask_limits_the_figures_and_the_bytes_to_the_answers(tokenizer, tmp_path):
    chats = [[{"role": "user", "content": "墨?"}, {"role": "assistant", "content": "A stone, 砚台."}]] * 2
    split = open_split(write_prepared(tmp_path, tokenizer, {"val": chats}), "val")
    found = evaluate_language(make_model(tokenizer), tokenizer, split)
    assert scored_bytes(split, tokenizer) == "A stone, 砚台.".encode() * 2
    assert found["bytes"] == len(scored_bytes(split, tokenizer))
    assert found["tokens"] == int(split.read_mask(0, split.num_tokens).sum())


def test_the_scored_bytes_are_the_text_less_its_first_token(tokenizer, split):
    first = tokenizer.byte_lengths[split.read(0, 1)[0]]
    assert scored_bytes(split, tokenizer) == "".join(TEXTS).encode()[first:]


@pytest.mark.parametrize("most", [64, 100, 900])
def test_a_large_split_is_sampled_evenly(tokenizer, tmp_path, most):
    text = "".join(letter * 1000 for letter in "!#$")
    split = open_split(write_prepared(tmp_path, tokenizer, {"train": [text]}), "train")
    sample = sampled_bytes(split, tokenizer, most)
    assert most / 2 < len(sample) <= most
    assert sample == bytes(sorted(sample))  # in the order of the text
    assert all(abs(sample.count(letter) - len(sample) / 3) <= max(1, len(sample) / 50) for letter in b"!#$")
    assert sampled_bytes(split, tokenizer, 3000) == text.encode()


def test_baselines_pack_the_scored_bytes_and_learn_from_the_training_split(tokenizer, split):
    train = open_split(split.folder, "train")
    found = language_baselines(tokenizer, split, train)
    text = scored_bytes(split, tokenizer)
    packed = lzma.compress(text, preset=9, check=lzma.CHECK_CRC64)
    assert found["xz -9"]["bits_per_byte"] == pytest.approx(8 * len(packed) / len(text))
    assert set(found) == {"xz -9", "6-gram"}
    known = language_baselines(tokenizer, split, split)["6-gram"]["bits_per_byte"]
    assert known < found["6-gram"]["bits_per_byte"]  # a model of the very text knows it better
    assert set(language_baselines(tokenizer, split, None)) == {"xz -9"}


def test_a_baseline_that_saw_a_part_of_the_training_text_says_how_much(tokenizer, split, monkeypatch):
    train = open_split(split.folder, "train")
    assert "train_bytes" not in language_baselines(tokenizer, split, train)["6-gram"]
    monkeypatch.setattr(language, "MAX_TRAIN_BYTES", train.num_bytes - 1)
    assert language_baselines(tokenizer, split, train)["6-gram"]["train_bytes"] == train.num_bytes - 1


def test_a_stride_of_zero_is_half_the_context():
    assert [choose_stride(0, context) for context in (1, 2, 9)] == [1, 1, 4]
    assert [choose_stride(stride, 8) for stride in (1, 8)] == [1, 8]


@pytest.mark.parametrize("stride", [-1, 9])
def test_a_stride_that_would_skip_tokens_is_refused(tokenizer, split, stride):
    with pytest.raises(ConfigError, match=f"expected 1 to 8.*found {stride}"):
        evaluate_language(make_model(tokenizer), tokenizer, split, stride=stride)


def test_a_split_with_nothing_to_score_is_a_data_error(tokenizer, tmp_path):
    one = open_split(write_prepared(tmp_path / "one", tokenizer, {"val": [""]}), "val")
    ends = open_split(write_prepared(tmp_path / "ends", tokenizer, {"val": ["", ""]}), "val")
    for split, words in ((one, "has 1 tokens"), (ends, "no text to score")):
        with pytest.raises(DataError, match=words):
            evaluate_language(make_model(tokenizer), tokenizer, split)


def test_a_loss_that_is_not_finite_is_a_data_error(tokenizer, split):
    model = make_model(tokenizer)
    with torch.no_grad():
        model.embed.weight.fill_(float("inf"))
    with pytest.raises(DataError, match="the loss on split 'val' is nan"):
        evaluate_language(model, tokenizer, split)


def test_text_is_tokenized_like_a_prepared_split(tokenizer, split, tmp_path):
    path = tmp_path / "val.jsonl"
    path.write_text("".join(f'{{"text": {text!r}}}\n'.replace("'", '"') for text in TEXTS), encoding="utf-8")
    (tmp_path / "shards").mkdir()
    made = write_text_split([path], tmp_path / "shards", tokenizer)
    assert np.array_equal(made.read(0, made.num_tokens), split.read(0, split.num_tokens))
    model = make_model(tokenizer)
    assert evaluate_language(model, tokenizer, made) == evaluate_language(model, tokenizer, split)


def test_text_without_a_letter_is_a_data_error(tokenizer, tmp_path):
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(DataError, match="nothing to evaluate"):
        write_text_split([tmp_path / "empty.txt"], tmp_path, tokenizer)


def test_characters_that_the_tokenizer_lacks_are_refused(tmp_path):
    """Their bytes would count, and the cost of telling them apart would not."""
    characters = build_char(["abc\n"])
    shape = {"num_layers": 1, "num_heads": 2, "width": 16, "context": 8, "vocab_size": characters.vocab_size}
    model = Transformer(ModelConfig(**shape), seed=1).eval()
    folder = write_prepared(tmp_path / "data", characters, {"val": ["abc"] * 4, "odd": ["abc", "a砚台"]})
    assert evaluate_language(model, characters, open_split(folder, "val"))["tokens"] > 0
    with pytest.raises(DataError, match=r"split 'odd' has 2 characters that the tokenizer does not know \(the first at token 5\)"):
        evaluate_language(model, characters, open_split(folder, "odd"))
    (tmp_path / "in.txt").write_text("abc砚b台")
    (tmp_path / "text").mkdir()
    with pytest.raises(DataError, match=r"in\.txt: the tokenizer does not know '砚' \(U\+781A\), and 2 characters in all"):
        write_text_split([tmp_path / "in.txt"], tmp_path / "text", characters)
