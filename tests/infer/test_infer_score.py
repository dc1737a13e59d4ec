"""The score of a text against a slow sum over whole forwards."""

import math

import pytest
import torch

from inkstone.base.errors import RequestError
from inkstone.infer.score import score_text
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import build_char, train_bpe

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pair():
    tokenizer = train_bpe(["hello 你好"], 270)
    shape = {"num_layers": 1, "num_heads": 2, "width": 16, "context": 16, "vocab_size": tokenizer.vocab_size}
    return Transformer(ModelConfig(**shape), seed=2).eval(), tokenizer


def test_a_text_within_the_context_scores_its_log_likelihood(pair):
    model, tokenizer = pair
    ids = tokenizer.encode("say 你好")
    with torch.inference_mode():
        log_p = model.logits(model(torch.tensor([ids])))[0].log_softmax(1)
    expected = -sum(float(log_p[t, ids[t + 1]]) for t in range(len(ids) - 1))
    score = score_text(model, tokenizer, "say 你好")
    assert math.isclose(score.nats, expected, rel_tol=1e-5)
    assert (score.tokens, score.bytes) == (len(ids) - 1, len("say 你好".encode()) - len(tokenizer.token_bytes[ids[0]]))
    assert math.isclose(score.bits_per_byte, expected / math.log(2) / score.bytes, rel_tol=1e-5)
    assert math.isclose(score.perplexity, math.exp(expected / score.tokens), rel_tol=1e-5)


@pytest.mark.parametrize("length", [15, 16, 17, 18, 24, 25, 100])
def test_beyond_the_context_each_token_is_scored_once_with_half_a_context_before_it(pair, length):
    model, tokenizer = pair
    text = "".join("0!2#4%6&8(9"[i % 11] for i in range(length))
    ids = tokenizer.encode(text)
    assert len(ids) == length
    expected, done = 0.0, 0
    while done < length - 1:  # the same windows, written out one position at a time
        begin = 0 if done == 0 else done - 8
        for t in range(done, min(begin + 16, length - 1)):
            with torch.inference_mode():
                log_p = model.logits(model(torch.tensor([ids[begin : t + 1]]))[:, -1])[0].log_softmax(0)
            expected -= float(log_p[ids[t + 1]])
        done = min(begin + 16, length - 1)
    score = score_text(model, tokenizer, text)
    assert score.tokens == length - 1
    assert math.isclose(score.nats, expected, rel_tol=1e-4)


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_of_fewer_than_two_tokens_has_no_score(pair, text):
    with pytest.raises(RequestError, match="at least two tokens"):
        score_text(*pair, text)


def test_characters_that_the_tokenizer_lacks_are_refused_with_the_first_and_their_number():
    tokenizer = build_char(["abc"])
    model = Transformer(
        ModelConfig(num_layers=1, num_heads=2, width=16, context=16, vocab_size=tokenizer.vocab_size), seed=2
    ).eval()
    assert score_text(model, tokenizer, "abc").tokens == 2
    with pytest.raises(RequestError, match=r"found '砚' and in all 3 that it has not"):
        score_text(model, tokenizer, "ab砚台c砚")
