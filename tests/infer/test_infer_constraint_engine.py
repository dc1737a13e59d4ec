"""Constraints inside the engine: each sequence keeps its own form, beside others with none, and one that fails fails alone."""

import json
import re

import jsonschema
import pytest
import torch

from inkstone.base.errors import RequestError
from inkstone.infer.config import SamplingSettings
from inkstone.infer.constraint_compile import ConstraintCompiler
from inkstone.infer.engine import Engine
from inkstone.infer.request import Request
from inkstone.infer.torch_runner import TorchRunner
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import train_bpe

torch.set_num_threads(1)
SCHEMA = {"type": "object", "properties": {"墨": {"enum": ["黑", "😀"]}}, "required": ["墨"], "additionalProperties": False}


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(["The stone 砚台 and the ink 墨。\n"] * 3, 300)


@pytest.fixture(scope="module")
def compiler(tokenizer):
    return ConstraintCompiler(tokenizer)


def answer(tokenizer, constraints, *, max_tokens=60, **sampling):
    """Return the pieces of all requests, which share one engine, each with the seed of its place."""
    shape = {"num_layers": 1, "num_heads": 2, "width": 16, "context": 96, "vocab_size": tokenizer.vocab_size + 5}
    runner = TorchRunner(Transformer(ModelConfig(**shape), seed=3).eval(), num_slots=4, chunk_tokens=4)
    engine, heard = Engine(runner, tokenizer), [[] for _ in constraints]
    settings = SamplingSettings(**({"max_tokens": max_tokens, "temperature": 1.5, "top_p": 1.0} | sampling))
    prompt = tuple(tokenizer.encode("The ink"))
    for seed, constraint in enumerate(constraints):
        engine.submit(Request(prompt_ids=prompt, settings=settings, seed=seed, constraint=constraint), heard[seed].append)
    while engine.step():
        pass
    return ["".join(piece.text for piece in pieces) for pieces in heard], [pieces[-1] for pieces in heard]


def test_each_sequence_keeps_its_own_form_beside_free_ones(tokenizer, compiler):
    forms = [
        compiler.json_schema(SCHEMA),
        None,
        compiler.regex("[ab]{3}"),
        compiler.choice(["砚", "墨"]),
        None,
        compiler.json_schema(SCHEMA),
    ]
    texts, last = answer(tokenizer, forms)
    assert all(last[i].finish == "stop" for i in (0, 2, 3, 5))
    jsonschema.validate(json.loads(texts[0]), SCHEMA)
    jsonschema.validate(json.loads(texts[5]), SCHEMA)
    assert re.fullmatch("[ab]{3}", texts[2]) and texts[3] in {"砚", "墨"}
    free, _ = answer(tokenizer, [None] * 6)
    assert (texts[1], texts[4]) == (free[1], free[4])


@pytest.mark.parametrize(
    "sampling", [{"temperature": 0.0}, {"top_k": 1}, {"min_p": 1.0}, {"repetition_penalty": 10.0, "no_repeat_ngram": 1}], ids=str
)
def test_no_sampling_rule_leads_out_of_a_form(tokenizer, compiler, sampling):
    texts, last = answer(tokenizer, [compiler.regex("(ab){2}c"), compiler.json_schema(SCHEMA)], **sampling)
    assert texts[0] == "ababc" and last[0].finish == "stop"
    jsonschema.validate(json.loads(texts[1]), SCHEMA)


def test_a_form_longer_than_max_tokens_ends_as_length_with_a_beginning(tokenizer, compiler):
    texts, last = answer(tokenizer, [compiler.regex("(ab){5000}")], max_tokens=9)
    assert last[0].finish == "length" and last[0].usage.completion_tokens == 9
    assert texts[0] != "ab" * 5000 and ("ab" * 5000).startswith(texts[0])


class Failing:
    """Allows everything twice, then fails."""

    def __init__(self, tokenizer):
        self.allowed_V, self.left = torch.ones(tokenizer.vocab_size, dtype=torch.bool), 2
        self.allowed_V[tokenizer.eos_id] = False

    def allowed(self):
        self.left -= 1
        if self.left < 0:
            raise RequestError("the grammar cannot go on: too many states")
        return self.allowed_V

    def advance(self, token_id):
        pass


def test_a_form_that_fails_ends_its_own_sequence_only(tokenizer, compiler):
    texts, last = answer(tokenizer, [Failing(tokenizer), compiler.json_schema(SCHEMA), None])
    assert isinstance(last[0].error, RequestError) and "too many states" in str(last[0].error)
    alone, _ = answer(tokenizer, [None, compiler.json_schema(SCHEMA), None])
    assert texts[1:] == alone[1:] and last[1].finish == "stop"
