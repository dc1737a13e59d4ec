"""`inkstone.Model` beyond plain text: forms, beams, scores and vectors, on a tiny model of random weights."""

import json

import jsonschema
import numpy as np
import pytest
import torch

from inkstone.api import Model
from inkstone.base.errors import RequestError
from inkstone.infer.batch import continue_greedily
from inkstone.infer.beam import BeamSettings, beam_search
from inkstone.infer.prompt import stop_ids
from inkstone.infer.runners import make_runner
from inkstone.infer.score import score_text
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import build_char, train_bpe

torch.set_num_threads(1)
SCHEMA = {"type": "object", "properties": {"墨": {"enum": ["black", "黑", "😀"]}, "n": {"type": "boolean"}}, "required": ["墨", "n"],
          "additionalProperties": False}  # fmt: skip


def tiny(tokenizer, context=128):
    shape = {"num_layers": 1, "num_heads": 2, "width": 32, "context": context, "vocab_size": tokenizer.vocab_size}
    return Model(Transformer(ModelConfig(**shape), seed=3), tokenizer)


@pytest.fixture(scope="module")
def model():
    return tiny(train_bpe(["The stone 砚台 and the ink 墨。\n"] * 3, 300))


@pytest.mark.parametrize("seed", range(5))
def test_generate_keeps_to_a_json_schema(model, seed):
    found = model.generate("墨", json_schema=SCHEMA, seed=seed, temperature=1.5, max_tokens=100)
    assert found.finish_reason == "stop"
    jsonschema.validate(json.loads(found.text), SCHEMA)
    assert "".join(model.stream("墨", json_schema=SCHEMA, seed=seed, temperature=1.5, max_tokens=100)) == found.text


def test_generate_keeps_to_choices_and_expressions_greedily_and_in_chat(model):
    assert model.generate("a", choice=["yes", "no", "也许"], temperature=0).text in {"yes", "no", "也许"}
    assert model.generate("a", regex=r"\d{4}-\d{2}", seed=1).text[4] == "-"
    assert model.chat([{"role": "user", "content": "墨?"}], choice=["好", "不好"], seed=1).text in {"好", "不好"}
    assert "".join(model.stream_chat([{"role": "user", "content": "墨?"}], regex="[ab]{3}", seed=1)).strip("ab") == ""


def test_rules_that_look_back_do_not_break_a_form(model):
    """The form wins over a rule: the repeated characters are the only ones that are left."""
    sampling = {"repetition_penalty": 10.0, "no_repeat_ngram": 1, "presence_penalty": 2.0, "top_k": 1, "seed": 2}
    assert model.generate("aaaa", regex="a{5}", **sampling).text == "aaaaa"


def test_a_form_that_takes_more_than_max_tokens_ends_as_length_with_a_beginning(model):
    found = model.generate("a", json_schema={"type": "array", "items": {"const": 1}, "minItems": 10**6}, max_tokens=9, seed=1)
    assert (found.finish_reason, found.tokens) == ("length", 9)
    assert found.text.startswith("[") and not set(found.text) - set("[1, \n")


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        ({"regex": "("}, "regex: unclosed group"), ({"json_schema": {"type": 123}}, "json_schema: type must be"), ({"choice": []}, "choice: expected"),
        ({"regex": "a", "choice": ["b"]}, "expected one form of the text, found regex and choice"),
    ],
)  # fmt: skip
def test_a_form_that_cannot_be_kept_is_refused_at_once(model, forms, expected):
    for ask in (model.generate, model.stream):
        with pytest.raises(RequestError, match=expected):
            ask("a", **forms)
    assert model.constraint() is None


def test_a_model_of_characters_chooses():
    model = tiny(build_char(["人之初，性本善。"]))
    assert model.generate("人", choice=["性本善", "善"], seed=1).text in {"性本善", "善"}
    with pytest.raises(RequestError, match="a token for every byte"):
        model.generate("人", regex="善")


def test_one_beam_is_the_greedy_text_and_more_beams_score_no_worse(model):
    (one,) = model.beam("The", num_beams=1, max_tokens=10)
    ids = continue_greedily(model.network, [model.tokenizer.encode("The")], stop_ids=set(stop_ids(model.tokenizer)), max_tokens=10)[
        0
    ]
    assert one.text == model.tokenizer.decode(ids) == model.generate("The", temperature=0, max_tokens=10).text
    found = model.beam("The", num_beams=6, num_results=6, max_tokens=10, length_penalty=0, early_stopping="never")
    assert len(found) == 6 and [beam.score for beam in found] == sorted([beam.score for beam in found], reverse=True)
    assert found[0].logprob >= one.logprob - 1e-5
    assert all(1 <= beam.tokens <= 10 for beam in found)
    with pytest.raises(RequestError, match="num_beams"):
        model.beam("The", num_beams=0)


def test_beams_write_no_silent_tokens(model):
    """Each written token has a byte of text at least, also where the model would rather say a role mark."""
    favoured = tiny(model.tokenizer)
    silent = set(model.tokenizer.special.values()) - stop_ids(model.tokenizer)
    with torch.no_grad():
        favoured.network.embed.weight[sorted(silent)] *= 20
    prompt, settings = model.tokenizer.encode("The"), BeamSettings(num_beams=4, num_results=4, max_tokens=6)
    runner = make_runner(favoured.network, num_slots=4)
    assert any(set(beam.ids) & silent for beam in beam_search(runner, prompt, settings, end_ids=stop_ids(model.tokenizer)))
    found = favoured.beam("The", num_beams=4, num_results=4, max_tokens=6)
    assert all(len(beam.text.encode()) >= beam.tokens - (beam.finish_reason == "stop") for beam in found)


def test_score_takes_one_text_or_many(model):
    one = model.score("The ink")
    assert one == score_text(model.network, model.tokenizer, "The ink")
    many = model.score(["The ink", "砚台 stone"])
    assert len(many) == 2 and many[0].nats == pytest.approx(one.nats, rel=1e-5)


def test_embed_takes_one_text_or_many_and_gives_arrays(model):
    one = model.embed("The ink")
    assert isinstance(one, np.ndarray) and (one.shape, one.dtype) == ((32,), np.float32)
    many = model.embed(["The ink", "", "砚台"], normalize=True)
    assert many.shape == (3, 32) and np.allclose(np.linalg.norm(many, axis=1), 1, atol=1e-5)
    assert np.allclose(many[0], one / np.linalg.norm(one), atol=1e-5)
