"""Scores of many texts at once against scores of one, against transformers' loss, and used as lm-eval uses a model."""

import math

import pytest
import torch

from inkstone.base.errors import RequestError
from inkstone.checkpoint.model_folder import save_model
from inkstone.infer import padded
from inkstone.infer.padded import padded_batches
from inkstone.infer.score import score_ids, score_text, score_texts
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import train_bpe

torch.set_num_threads(1)
TEXTS = ["The stone 砚台 and the ink 墨。", "ab", "中文 and English", "0!2#4%6&8(9" * 4, "😀😀", "The"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["hello 你好"], 270)


def network(tokenizer, **shape):
    base = {"num_layers": 2, "num_heads": 2, "width": 16, "context": 16, "vocab_size": tokenizer.vocab_size}
    model = Transformer(ModelConfig(**(base | shape)), seed=2)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm.weight" in name else 0.0, 0.2, generator=generator)
    return model.eval()


MODELS = {
    "modern": {},
    "gpt": {"preset": "gpt"},
    "window": {"window": 3},
    "ngram": {"ngram_buckets": 32},
    "sinusoidal": {"position": "sinusoidal"},
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_tokens", [1, 40, 4096])
def test_many_texts_score_as_each_alone(tokenizer, monkeypatch, name, batch_tokens):
    monkeypatch.setattr(padded_batches, "__kwdefaults__", {"max_tokens": batch_tokens})
    model = network(tokenizer, **MODELS[name])
    together = score_texts(model, tokenizer, TEXTS)
    for text, score in zip(TEXTS, together, strict=True):
        alone = score_text(model, tokenizer, text)
        assert (score.tokens, score.bytes) == (alone.tokens, alone.bytes) and math.isclose(score.nats, alone.nats, rel_tol=1e-5)
        assert score.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert len(score.logprobs) == score.tokens and math.isclose(-sum(score.logprobs), score.nats, rel_tol=1e-9)


def test_scores_are_the_loss_of_transformers(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = network(tokenizer, preset="gpt", context=64)
    save_model(tmp_path / "m", model, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", attn_implementation="eager").eval()
    for text, score in zip(TEXTS, score_texts(model, tokenizer, TEXTS), strict=True):
        ids = torch.tensor([tokenizer.encode(text)])
        with torch.no_grad():
            loss = float(theirs(ids, labels=ids).loss)
        assert math.isclose(score.nats / score.tokens, loss, rel_tol=1e-4)


def test_every_position_is_scored_once_whatever_the_length(tokenizer):
    model = network(tokenizer)
    lists = [[(7 * i + n) % tokenizer.vocab_size for i in range(n)] for n in range(60)]
    scored = score_ids(model, lists)
    assert [len(log_p_T) for log_p_T in scored] == [max(0, n - 1) for n in range(60)]
    assert all(bool((log_p_T < 0).all()) for log_p_T in scored)
    for n in (2, 16, 17):  # within one window, against the whole forward
        log_p_TV = model.logits(model(torch.tensor([lists[n][:-1]])))[0].log_softmax(1)
        expected = log_p_TV.gather(1, torch.tensor(lists[n][1:])[:, None])[:, 0].double()
        torch.testing.assert_close(scored[n], expected, atol=1e-5, rtol=0)


def test_a_text_that_cannot_be_scored_is_named_by_its_place(tokenizer):
    with pytest.raises(RequestError, match=r"texts\[1\]: expected at least two tokens to score, found 0"):
        score_texts(network(tokenizer), tokenizer, ["ab", "", "cd"])
    with pytest.raises(RequestError, match=r"texts\[0\]: expected text, found int"):
        score_texts(network(tokenizer), tokenizer, [3])
    assert score_texts(network(tokenizer), tokenizer, []) == []


def log_likelihoods(model, tokenizer, pairs):
    """Return log p of each continuation behind its context, as lm-eval asks: an empty context is the end of a document."""
    lists, starts = [], []
    for context, continuation in pairs:
        before = tokenizer.encode(context) or [tokenizer.eos_id]
        lists.append(before + tokenizer.encode(continuation))
        starts.append(len(before) - 1)
    return [float(log_p_T[start:].sum()) for log_p_T, start in zip(score_ids(model, lists), starts, strict=True)]


def test_continuations_can_be_compared_as_lm_eval_does(tokenizer):
    model = network(tokenizer, context=32)
    pairs = [("The ink is", " black"), ("The ink is", " 墨"), ("", "ab"), ("砚", "台")]
    for (context, continuation), found in zip(pairs, log_likelihoods(model, tokenizer, pairs), strict=True):
        before, after = tokenizer.encode(context) or [tokenizer.eos_id], tokenizer.encode(continuation)
        expected = 0.0
        for n, token in enumerate(after):  # a forward for each token
            with torch.inference_mode():
                hidden_BTD = model(torch.tensor([before + after[:n]]))
                expected += float(model.logits(hidden_BTD[:, -1])[0].log_softmax(0)[token])
        assert math.isclose(found, expected, rel_tol=1e-4)
    # The probabilities of all continuations of one token sum to one.
    everything = score_ids(model, [[5, token] for token in range(tokenizer.vocab_size)])
    assert sum(math.exp(float(log_p_T)) for log_p_T in everything) == pytest.approx(1, abs=1e-4)


def test_batches_hold_every_list_once_and_no_more_than_allowed():
    lists = [list(range(1, n + 1)) for n in (3, 1, 0, 7, 7, 2, 12, 1)]
    seen = []
    for indices, ids_BT in padded_batches(lists, device=torch.device("cpu"), max_tokens=10):
        assert ids_BT.numel() <= 10 or len(indices) == 1
        for i, row_T in zip(indices, ids_BT.tolist(), strict=True):
            assert row_T == lists[i] + [0] * (len(row_T) - len(lists[i]))
        seen += indices
    assert sorted(seen) == list(range(len(lists)))
    assert padded.BATCH_TOKENS >= 1024
