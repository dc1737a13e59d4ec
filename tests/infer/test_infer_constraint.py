"""Texts that follow a grammar: what finishes is valid by another library, what does not is a beginning, special tokens stay outside."""

import json
import random
import re

import jsonschema
import numpy as np
import pytest
import torch

from inkstone.base.errors import RequestError
from inkstone.infer.constraint_compile import ConstraintCompiler
from inkstone.infer.draw import draw, uniform
from inkstone.infer.prompt import stop_ids
from inkstone.infer.torch_runner import TorchRunner
from inkstone.nn.config import ModelConfig
from inkstone.nn.transformer import Transformer
from inkstone.text.tokenizer import build_char, train_bpe

torch.set_num_threads(1)
TEXTS = ['The stone 砚台 {"name": "墨", "size": [1, 2]}\n', "a b c <|im_end|> 你好 😀 true false null"] * 3
MAX_TOKENS = 120


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXTS, 320)


@pytest.fixture(scope="module")
def single_bytes():
    """A tokenizer that has nothing but the 256 bytes."""
    return train_bpe(["ab"], 264)


@pytest.fixture(scope="module")
def compiler(tokenizer):
    return ConstraintCompiler(tokenizer)


def network(tokenizer):
    shape = {"num_layers": 1, "num_heads": 2, "width": 16, "context": MAX_TOKENS + 1, "vocab_size": tokenizer.vocab_size}
    return Transformer(ModelConfig(**shape), seed=3).eval()


def follow(tokenizer, constraints, *, max_tokens=MAX_TOKENS, seed=0):
    """Return (text, whether it ended) of a tiny random model that writes all constraints' texts at once."""
    runner = TorchRunner(network(tokenizer), num_slots=len(constraints))
    newest, texts, live = [tokenizer.eos_id] * len(constraints), [[] for _ in constraints], set(range(len(constraints)))
    for position in range(max_tokens):
        if not (rows := sorted(live)):
            break
        logits_RV = runner.logits(runner.decode([newest[row] for row in rows], rows, [position] * len(rows)))
        for row, logits_V in zip(rows, logits_RV, strict=True):
            allowed_V = constraints[row].allowed()
            number = torch.tensor([uniform(seed + row, position)], dtype=torch.float64)
            newest[row] = int(draw(logits_V.masked_fill(~allowed_V, -torch.inf)[None], number))
            constraints[row].advance(newest[row])
            if newest[row] in stop_ids(tokenizer):
                live.discard(row)
            else:
                texts[row].append(newest[row])
    assert not {token for text in texts for token in text} & set(tokenizer.special.values())
    return [(tokenizer.decode(text), row not in live) for row, text in enumerate(texts)]


def ids_of_bytes(tokenizer, text):
    by_bytes = {token: index for index, token in enumerate(tokenizer.token_bytes)}
    return [by_bytes[bytes([byte])] for byte in text.encode()]


def accepts(tokenizer, constraint, text):
    """Return whether the text may be written, a byte at a time, and may end where it ends."""
    try:
        for token in ids_of_bytes(tokenizer, text):
            constraint.advance(token)
    except RequestError:
        return False
    return bool(constraint.allowed()[tokenizer.eos_id])


class Schemas:
    """Random schemas of what is promised; small texts, so that a random model comes to an end."""

    LEAVES = ("integer", "number", "string", "boolean", "null", "enum", "const", "range", "pattern", "choice")

    def __init__(self, seed):
        self.draw = random.Random(seed)

    def make(self, depth=0):
        kind = self.draw.choice(("object", "object", "array", "any_of", "ref", *self.LEAVES) if depth < 3 else self.LEAVES)
        return getattr(self, f"make_{kind}", lambda depth: {"type": kind})(depth)

    def make_string(self, depth):
        return {"type": "string", "minLength": self.draw.randint(0, 2), "maxLength": self.draw.randint(2, 9)}

    def make_enum(self, depth):
        return {"enum": self.draw.sample([1, -2.5, "墨", 'a"b\\', None, True, "😀", [1, "x"], {"k": 0}, ""], 4)}

    def make_const(self, depth):
        return {"const": self.draw.choice(["砚台", 12, {"a": [None]}, "line\nbreak"])}

    def make_range(self, depth):
        low = self.draw.randint(-500, 500)
        return {
            "type": self.draw.choice(["integer", "number"]),
            "minimum": low,
            "exclusiveMaximum": low + self.draw.randint(1, 900),
        }

    def make_pattern(self, depth):
        return {"type": "string", "pattern": self.draw.choice(["^[a-c]{1,4}$", "^(砚|墨)+$", "^\\d{3}-[A-F]?$", "^(a+)+$"])}

    def make_choice(self, depth):
        return {"type": self.draw.sample(["integer", "null", "boolean"], 2)}

    def make_array(self, depth):
        least = self.draw.randint(0, 2)
        return {"type": "array", "items": self.make(depth + 1), "minItems": least, "maxItems": least + self.draw.randint(0, 2)}

    def make_object(self, depth):
        names = self.draw.sample(["name", "大小", "a b", 'q"', "😀", "n"], self.draw.randint(0, 3))
        required = [name for name in names if self.draw.random() < 0.6]
        more = self.draw.choice([False, False, {"type": "integer"}])
        properties = {name: self.make(depth + 1) for name in names}
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": more}

    def make_any_of(self, depth):
        return {"anyOf": [self.make(depth + 1) for _ in range(2)]}

    def make_ref(self, depth):
        definition = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
                      "required": ["next"], "additionalProperties": False}  # fmt: skip
        return {"$ref": "#/$defs/node"} if depth else {"$defs": {"node": definition}, "$ref": "#/$defs/node"}


def random_schema(seed):
    schema = Schemas(seed).make()
    if "$ref" in json.dumps(schema) and "$defs" not in schema:
        schema["$defs"] = Schemas(0).make_ref(0)["$defs"]
    return schema


def test_every_finished_answer_to_200_schemas_is_valid(tokenizer, compiler):
    schemas = list({json.dumps(schema): schema for schema in map(random_schema, range(500))}.values())[:200]
    assert len(schemas) == 200
    finished = 0
    for first in range(0, 200, 25):
        group = schemas[first : first + 25]
        for schema, (text, ended) in zip(group, follow(tokenizer, [compiler.json_schema(schema) for schema in group]), strict=True):
            if ended:
                finished += 1
                jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    assert finished > 120


def test_answers_of_single_bytes_are_valid_too_and_whole_characters(single_bytes):
    compiler = ConstraintCompiler(single_bytes)
    schema = {"type": "object", "properties": {"墨": {"type": "string", "minLength": 3, "maxLength": 5}, "😀": {"enum": ["砚", "😀"]}},
              "required": ["墨", "😀"], "additionalProperties": False}  # fmt: skip
    for text, ended in follow(single_bytes, [compiler.json_schema(schema) for _ in range(20)]):
        assert ended and "\ufffd" not in text.replace(json.loads(text)["墨"], "")
        jsonschema.validate(json.loads(text), schema)
        text.encode()


def test_json_object_is_any_object(tokenizer, compiler):
    for text in ('{"a": [1, {"b": null}], "砚": "😀"}', "{}", '{\n  "a": 1\n}'):
        assert accepts(tokenizer, compiler.json_object(), text)
    for text in ("[1]", "3", '{"a": }', '{"a": 1', ' {"a": 1}', '{        "a": 1}', "{}\n"):
        assert not accepts(tokenizer, compiler.json_object(), text)


def test_a_key_has_one_spelling_so_that_it_cannot_be_given_twice(tokenizer, compiler):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}
    assert accepts(tokenizer, compiler.json_schema(schema), '{"a": 1,"b": "x"}')
    for second in ('"a"', '"\\u0061"'):
        assert not accepts(tokenizer, compiler.json_schema(schema), f'{{"a": 1,{second}: "x"}}')


def test_the_librarys_own_switches_in_a_schema_are_no_switches(tokenizer, compiler):
    schema = {"type": "object", "x-guidance": {"lenient": True, "whitespace_flexible": True}}
    assert not accepts(tokenizer, compiler.json_schema(schema), "{          }")
    with pytest.raises(RequestError, match="oneOf"):
        compiler.json_schema({"oneOf": [{"type": "integer"}, {"type": "number"}], "x-guidance": {"coerce_one_of": True}})


def test_an_unfinished_text_is_a_beginning_of_a_valid_one(tokenizer, compiler):
    schema = {"type": "array", "items": {"const": "墨"}, "minItems": 1_000_000}
    ((text, ended),) = follow(tokenizer, [compiler.json_schema(schema)])
    assert not ended
    assert re.fullmatch(r'\[\s{0,33}("墨"\s{0,33},\s{0,33})*("墨?)?"?\s{0,33}�*', text), text


@pytest.mark.parametrize("pattern", [r"\d{3}-[a-f]+", "(a+)+$", "砚|墨{2,3}", "😀*end", "", r"[^\x00-\x7f]{2}", "a/b\n#c"])
def test_every_finished_text_matches_the_whole_regular_expression(tokenizer, compiler, pattern):
    texts = follow(tokenizer, [compiler.regex(pattern) for _ in range(8)])
    assert any(ended for _, ended in texts)
    assert all(re.fullmatch(pattern, text) for text, ended in texts if ended)


def test_a_regular_expression_cannot_break_out_of_its_grammar(tokenizer, compiler):
    assert accepts(tokenizer, compiler.regex('a/\nstart: "b"'), 'a/\nstart: "b"')
    assert not accepts(tokenizer, compiler.regex('a/\nstart: "b"'), "b")


CHOICES = ["a", "ab", "砚台", '😀\n"\\', "<|im_end|>", "\x00\x7f\u2028", "a"]


def test_a_choice_is_one_of_the_texts(tokenizer, compiler):
    for text in CHOICES:
        assert accepts(tokenizer, compiler.choice(CHOICES), text)
    for text in ("", "b", "abc", "砚", "😀", "a "):
        assert not accepts(tokenizer, compiler.choice(CHOICES), text)
    texts = follow(tokenizer, [compiler.choice(CHOICES) for _ in range(30)])
    assert all(ended and text in CHOICES for text, ended in texts) and len(set(texts)) > 3


def test_a_text_ends_with_an_end_token_and_only_where_it_is_complete(tokenizer, compiler):
    constraint = compiler.choice(["a", "ab"])
    ends = sorted(stop_ids(tokenizer))
    assert not constraint.allowed()[ends].any() and not constraint.is_complete
    constraint.advance(ids_of_bytes(tokenizer, "a")[0])
    assert constraint.allowed()[ends].all() and constraint.is_complete
    constraint.advance(ids_of_bytes(tokenizer, "b")[0])
    assert constraint.allowed().nonzero()[:, 0].tolist() == ends
    constraint.advance(ends[-1])
    with pytest.raises(RequestError, match="does not allow token"):
        constraint.advance(ids_of_bytes(tokenizer, "a")[0])


def test_a_mask_is_that_of_a_slow_reference(tokenizer, compiler):
    constraint, written = compiler.regex("(ab|砚台)+ (the|stone)"), b""
    draw_id = random.Random(1)
    for _ in range(6):
        expected = {i for i, token in enumerate(tokenizer.token_bytes) if token and can_go_on(written + token)}
        assert set(constraint.allowed().nonzero()[:, 0].tolist()) - stop_ids(tokenizer) <= expected
        canonical = constraint.allowed().sum() == 1  # where the bytes are forced, only the tokenizer's own cut is offered
        assert canonical or set(constraint.allowed().nonzero()[:, 0].tolist()) == expected
        token = draw_id.choice(sorted(set(constraint.allowed().nonzero()[:, 0].tolist())))
        constraint.advance(token)
        written += tokenizer.token_bytes[token]


def can_go_on(written):
    """Return whether some text of (ab|砚台)+ (the|stone) begins with `written`, by trying all short ones."""
    texts = [""]
    for _ in range(8):
        texts = [text + more for text in texts for more in ("ab", "砚台")] if len(texts) < 300 else texts
        if any((text + end).encode().startswith(written) for text in texts for end in ("", " the", " stone")):
            return True
    return False


def test_the_mask_is_a_bool_tensor_over_the_vocabulary_and_stays_until_the_next_token(tokenizer, compiler):
    constraint = compiler.regex("ab")
    allowed_V = constraint.allowed()
    assert (allowed_V.dtype, allowed_V.shape) == (torch.bool, (tokenizer.vocab_size,))
    assert constraint.allowed() is allowed_V
    with pytest.raises(RequestError, match="does not allow"):
        constraint.advance(int(np.flatnonzero(~allowed_V.numpy())[0]))


def test_a_character_tokenizer_can_choose_and_nothing_else():
    tokenizer = build_char(["人之初，性本善。"])
    compiler = ConstraintCompiler(tokenizer)
    texts = follow(tokenizer, [compiler.choice(["性本善", "人", "人之初"]) for _ in range(12)])
    assert all(ended and text in ("性本善", "人", "人之初") for text, ended in texts) and len(set(texts)) > 1
    with pytest.raises(RequestError, match=r"choice\[1\]: expected characters that the tokenizer has, found '相'"):
        compiler.choice(["性", "性相近，习相远"])
    for ask in (lambda: compiler.regex("性"), compiler.json_object):
        with pytest.raises(RequestError, match="a token for every byte"):
            ask()
