"""The fields of requests: every bound of the API's table from both sides, every wrong type, and what the errors say."""

import json
import logging

import pytest

from inkstone.infer.config import SamplingSettings
from inkstone.serve.errors import ApiError, error_bytes, error_object
from inkstone.serve.fields import MAX_PROMPTS
from inkstone.serve.schemas import (
    IGNORED,
    OPENAI_DEFAULTS,
    UNSUPPORTED,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingRequest,
    TokenizeRequest,
    parse,
    sampling_settings,
)

USER = [{"role": "user", "content": "Hello"}]
NEEDED = {CompletionRequest: {"model": "m", "prompt": "The"}, ChatRequest: {"model": "m", "messages": USER}}
BOTH = (CompletionRequest, ChatRequest)

# name: (smallest, largest, whole numbers only, whose)
NUMBERS = {
    "temperature": (0, 2, False, BOTH), "top_p": (0, 1, False, BOTH), "n": (1, 128, True, BOTH), "seed": (0, 2**63 - 1, True, BOTH),
    "presence_penalty": (-2, 2, False, BOTH), "frequency_penalty": (-2, 2, False, BOTH), "top_k": (0, 2**24, True, BOTH),
    "min_p": (0, 1, False, BOTH), "typical_p": (0, 1, False, BOTH), "repetition_penalty": (0.1, 10, False, BOTH),
    "no_repeat_ngram": (0, 1024, True, BOTH), "best_of": (1, 20, True, (CompletionRequest,)),
    "max_completion_tokens": (1, 2**20, True, (ChatRequest,)), "top_logprobs": (0, 20, True, (ChatRequest,)),
}  # fmt: skip
CASES = [(kind, name, *row[:3]) for name, row in NUMBERS.items() for kind in row[3]] + [
    (CompletionRequest, "max_tokens", 0, 2**20, True), (CompletionRequest, "logprobs", 0, 5, True),
    (ChatRequest, "max_tokens", 1, 2**20, True),
]  # fmt: skip


def refusal(kind, **body):
    with pytest.raises(ApiError) as caught:
        parse(kind, NEEDED.get(kind, {}) | body)
    assert caught.value.status == 400 and len(error_bytes(error_object(caught.value))) <= 4096
    return caught.value


def accepted(kind, **body):
    return parse(kind, NEEDED.get(kind, {}) | body)


@pytest.mark.parametrize(("kind", "name", "least", "most", "is_whole"), CASES, ids=lambda x: getattr(x, "__name__", str(x)))
def test_every_number_is_taken_up_to_its_bounds_and_refused_beyond(kind, name, least, most, is_whole):
    for good in (least, most):
        assert getattr(accepted(kind, **{name: good}), name) == good
    step = 1 if is_whole else 0.001
    for bad in (least - step, most + step, "1", True, [], {}, *([1.5] if is_whole else [])):
        error = refusal(kind, **{name: bad})
        assert error.param == name and error.message.startswith(f"{name}: expected"), error.message
    assert accepted(kind, **{name: None}) == accepted(kind), "null is the default"


def test_the_table_above_has_every_number():
    for kind in BOTH:
        schema = kind.model_json_schema()["properties"]
        found = {name for name, field in schema.items() if {"integer", "number"} & _types(field)}
        assert found == {name for tested, name, *_ in CASES if tested is kind}


def _types(field):
    return {field.get("type"), *(choice.get("type") for choice in field.get("anyOf", ()))}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(value):
    assert refusal(CompletionRequest, temperature=value).param == "temperature"


@pytest.mark.parametrize("kind", BOTH)
def test_what_is_not_said_is_as_openai_has_it_and_else_as_the_model_recommends(kind):
    recommended = {"temperature": 0.2, "top_p": 0.5, "top_k": 7, "min_p": 0.1, "max_tokens": 3}
    settings = sampling_settings(accepted(kind), recommended=recommended, max_tokens=9)
    assert (settings.temperature, settings.top_p, settings.max_tokens) == (1.0, 1.0, 9)
    assert (settings.top_k, settings.min_p) == (7, 0.1)
    assert (settings.presence_penalty, settings.frequency_penalty, settings.logit_bias, settings.stop) == (0, 0, None, None)
    asked = accepted(kind, top_k=0, min_p=0.3, temperature=0, stop="x", logit_bias={"5": -100})
    settings = sampling_settings(asked, recommended=recommended, max_tokens=9)
    assert (settings.top_k, settings.min_p, settings.temperature) == (0, 0.3, 0)
    assert (settings.stop, settings.logit_bias) == (["x"], {5: -100.0})


@pytest.mark.parametrize("kind", BOTH)
def test_every_sampling_rule_is_a_field(kind):
    for name, field in SamplingSettings.model_fields.items():
        assert name in kind.model_fields
        if name not in OPENAI_DEFAULTS and name not in ("stop", "logit_bias", "max_tokens", "seed"):
            assert field.description in kind.model_fields[name].description


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("a", ["a"]), ("", [""]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]]),
        (["x"] * MAX_PROMPTS, ["x"] * MAX_PROMPTS), ([0] * 100_000, [[0] * 100_000]),
    ],
    ids=str,
)  # fmt: skip
def test_prompts_come_in_four_forms(given, read):
    assert accepted(CompletionRequest, prompt=given).prompt == read


@pytest.mark.parametrize(
    "given",
    [
        [], [[]], [[1], []], [-1], [2**31], [2**40], [1.0], [1.5], [True], [1, "a"], ["a", 1], [["a"]], [None], {}, 5, 1.5, True,
        [[1], [True]], [[1], "a"], [[[1]]], ["x"] * (MAX_PROMPTS + 1), [[1]] * (MAX_PROMPTS + 1), [{}] * 10**5,
    ],
    ids=lambda x: str(x)[:20],
)  # fmt: skip
def test_other_prompts_are_refused(given):
    assert refusal(CompletionRequest, prompt=given).param == "prompt"


@pytest.mark.parametrize("kind", [CompletionRequest, ChatRequest, EmbeddingRequest, DetokenizeRequest])
def test_what_is_needed_is_asked_for_by_name(kind):
    with pytest.raises(ApiError) as caught:
        parse(kind, {})
    assert "this field is required" in caught.value.message and caught.value.param in kind.model_fields


@pytest.mark.parametrize("model", ["", 1, None, [], "x" * 1001])
def test_a_model_is_a_name(model):
    assert refusal(CompletionRequest, model=model).param == "model"


@pytest.mark.parametrize(("given", "read"), [("a", ["a"]), (["a"] * 4, ["a"] * 4), ([], []), (["a" * 256], ["a" * 256])])
def test_stop_strings_that_are_taken(given, read):
    assert accepted(ChatRequest, stop=given).stop == read


@pytest.mark.parametrize("given", ["", ["a"] * 5, [""], ["a", ""], 5, [5], {}, True, "a" * 257, "a" * 10_000, [["a"]]])
def test_stop_strings_that_are_refused(given):
    assert refusal(ChatRequest, stop=given).param == "stop"


@pytest.mark.parametrize("given", [{"0": 0}, {"5": -100, "6": 100}, {"7": 1.5}, {}, {str(i): 1 for i in range(1024)}])
def test_biases_that_are_taken(given):
    assert accepted(CompletionRequest, logit_bias=given).logit_bias == {int(key): value for key, value in given.items()}


@pytest.mark.parametrize(
    "given",
    [
        {"a": 1}, {"-1": 1}, {"1.0": 1}, {"": 1}, {" 1": 1}, {"01": 1}, {"١": 1}, {"1": 100.1}, {"1": -101}, {"1": "1"}, {"1": None},
        {"1": True}, {"1": []}, [], "x", 5, {str(i): 1 for i in range(1025)}, {"9" * 30: 1}, {str(2**31): 1}, {"1": float("nan")},
    ],
    ids=lambda x: str(x)[:20],
)  # fmt: skip
def test_biases_that_are_refused(given):
    assert refusal(CompletionRequest, logit_bias=given).param == "logit_bias"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"stream": "yes"}, "stream"), ({"stream": 1}, "stream"), ({"stream_options": 5}, "stream_options"),
        ({"stream_options": {"include_usage": "x"}}, "stream_options.include_usage"),
        ({"response_format": {"type": "sound"}}, "response_format.type"), ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"), ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 123}}},
         "response_format.json_schema.schema"),
        ({"regex": 5}, "regex"), ({"regex": ""}, "regex"), ({"choice": "a"}, "choice"), ({"choice": []}, "choice"),
        ({"choice": ["a", ""]}, "choice.1"), ({"choice": [1]}, "choice.0"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", BOTH)
def test_other_fields_that_are_refused(kind, body, param):
    assert refusal(kind, **body).param == param


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"), ("string", "messages"), ([], "messages"), ([123], "messages.0"), ([{}], "messages.0.role"),
        ([{"role": 123, "content": "x"}], "messages.0.role"), (USER * 2 + [{"role": "hacker", "content": "x"}], "messages.2.role"),
        ([{"role": "user", "content": 123}], "messages.0.content"), ([{"role": "user", "content": None}], "messages.0.content"),
        ([{"role": "user", "content": {}}], "messages.0.content"), ([{"role": "user", "content": []}], "messages.0.content"),
        ([{"role": "user"}], "messages.0.content"), ([{"role": "tool", "content": "x"}], "messages.0.role"),
        ([{"role": "function", "content": "x"}], "messages.0.role"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "messages.0.content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages.0.content"),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], "messages.0.content"),
        ([{"role": "user", "content": ["x"]}], "messages.0.content"),
        ([{"role": "assistant", "content": "x", "tool_calls": [{}]}], "messages.0.tool_calls"),
        ([{"role": "assistant", "content": "x", "function_call": {}}], "messages.0.function_call"),
        ([USER[0]] * 10_001, "messages"),
    ],
    ids=lambda x: str(x)[:40],
)  # fmt: skip
def test_messages_that_are_refused(messages, param):
    assert refusal(ChatRequest, messages=messages).param == param


def test_text_parts_are_joined_and_nulls_beside_them_do_no_harm():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "墨"}]
    message = {"role": "user", "content": parts, "name": "Mira", "tool_calls": None, "function_call": None}
    asked = accepted(ChatRequest, messages=[message])
    assert asked.messages[0].content == "a墨"


@pytest.mark.parametrize("kind", BOTH)
def test_fields_whose_meaning_cannot_be_given_are_refused_by_name(kind):
    given = {
        "tools": [{"type": "function"}] * 129, "tool_choice": "auto", "functions": [{"name": "f"}], "function_call": "auto",
        "audio": {"voice": "x"}, "modalities": ["text", "audio"], "prediction": {"type": "content"}, "web_search_options": {},
        "chat_template": "{{ x }}", "chat_template_kwargs": {"messages": 1}, "suffix": "the end", "dimensions": 3,
    }  # fmt: skip
    assert given.keys() == UNSUPPORTED.keys()
    for name, value in given.items():
        error = refusal(kind, **{name: value})
        assert (error.param, error.code) == (name, "unsupported_parameter")
        for neutral in UNSUPPORTED[name]:
            accepted(kind, **{name: neutral})


def test_embeddings_of_other_sizes_are_refused():
    assert refusal(EmbeddingRequest, model="m", input="x", dimensions=3).code == "unsupported_parameter"
    assert refusal(EmbeddingRequest, model="m", input="").param == "input"
    assert refusal(EmbeddingRequest, model="m", input=["a", ""]).param == "input"
    assert refusal(EmbeddingRequest, model="m", input="x", encoding_format="int8").param == "encoding_format"


@pytest.mark.parametrize("tokens", ["x", [1.5], [True], [-1], None, 5])
def test_tokens_are_ids(tokens):
    assert refusal(DetokenizeRequest, tokens=tokens).param == "tokens"
    assert accepted(DetokenizeRequest, tokens=[]).tokens == []
    assert accepted(TokenizeRequest, prompt="").prompt == ""


def test_unknown_fields_are_ignored_and_told_once(caplog):
    name = "new_field\r\n\x1b[31m" + "x" * 1000
    with caplog.at_level(logging.INFO, "inkstone.serve"):
        for _ in range(3):
            accepted(ChatRequest, **{name: 1, **dict.fromkeys(IGNORED, "x")})
    assert len(caplog.records) == 1
    told = caplog.records[0].getMessage()
    assert "new_field" in told and told.isprintable() and len(told) < 400


def test_thousands_of_problems_are_counted_not_listed():
    error = refusal(ChatRequest, messages=[1] * 5000)
    assert error.message.splitlines()[-1] == "… and 4,990 more" and len(error.message.splitlines()) == 11


def test_what_was_found_is_shown_in_bounds_and_braces_are_only_braces():
    for value in ("{problem} {0} %s", "\x00" * 10**5, "墨" * 10**5, {"a": "b" * 10**6}, ["x"] * 10**5):
        error = refusal(CompletionRequest, n=value, stop={"{x}": value}, response_format={"type": value})
        assert len(json.dumps(error_object(error))) < 8192


def test_several_problems_are_told_together():
    error = refusal(CompletionRequest, temperature=3, n=0, prompt=[], stop="")
    assert {line.split(":")[0] for line in error.message.splitlines()} == {"temperature", "n", "prompt", "stop"}
