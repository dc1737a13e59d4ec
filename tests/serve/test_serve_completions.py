"""POST /v1/completions: prompts in every form, limits, log-probabilities against the model itself, stop strings, whole characters."""

import math
import threading
import time

import pytest
import torch
from contract_double import (
    CONTEXT,
    Api,
    ScriptRunner,
    error_of,
    fold_completion,
    random_model,
    random_network,
    say,
    script_model,
    serve_runner,
    tokenizer,
)

PATH = "/v1/completions"


@pytest.fixture(scope="module")
def api():
    with Api(random_model()) as api:
        yield api


@pytest.fixture
def speaker():
    """Return a function that serves a model which says a text, as long as the test lasts."""
    apis = []

    def serve(text, **options):
        apis.append(Api(script_model(text, **options)).__enter__())
        return apis[-1]

    yield serve
    for api in apis:
        api.__exit__()


def texts(reply):
    return [choice["text"] for choice in reply["choices"]]


def test_the_object_is_openais(api):
    reply = api.complete(max_tokens=4, seed=1)
    assert set(reply) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage", "timings"}
    assert reply["id"].startswith("cmpl-") and reply["object"] == "text_completion" and reply["model"] == "m"
    (choice,) = reply["choices"]
    assert set(choice) == {"index", "text", "logprobs", "finish_reason"}
    assert choice["index"] == 0 and choice["logprobs"] is None and choice["finish_reason"] in ("stop", "length")
    usage = reply["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert set(reply["timings"]) == {"first_token_seconds", "tokens_per_second"}


def test_the_same_seed_gives_the_same_text_and_another_gives_another(api):
    first, again, other = (api.complete(max_tokens=20, seed=seed) for seed in (5, 5, 6))
    assert texts(first) == texts(again) != texts(other)
    assert first["system_fingerprint"] == again["system_fingerprint"] and first["id"] != again["id"]
    assert texts(api.complete(max_tokens=20)) != texts(api.complete(max_tokens=20)), "without a seed it is a new one each time"


def test_text_and_its_ids_are_the_same_prompt(api):
    ids = tokenizer().encode("The ink 墨")
    asked = {"max_tokens": 12, "seed": 3}
    one, same = api.complete("The ink 墨", **asked), api.complete(ids, **asked)
    assert texts(one) == texts(same)
    several = api.complete(["The ink 墨", "other"], **asked)
    assert texts(several)[0] == texts(one)[0], "a prompt's text does not depend on the prompts beside it"
    assert texts(api.complete([ids, tokenizer().encode("other")], **asked)) == texts(several)
    assert several["usage"]["prompt_tokens"] == len(ids) + len(tokenizer().encode("other"))


def test_an_empty_prompt_begins_a_document(api):
    asked = {"max_tokens": 12, "seed": 3}
    assert texts(api.complete("", **asked)) == texts(api.complete([tokenizer().eos_id], **asked))
    assert api.complete("", echo=True, max_tokens=0)["choices"][0]["text"] == ""


def test_choices_come_prompt_by_prompt_and_the_first_is_what_one_alone_would_be(api):
    asked = {"max_tokens": 8, "seed": 3}
    reply = api.complete(["The", "a"], n=3, **asked)
    assert [choice["index"] for choice in reply["choices"]] == list(range(6))
    found = texts(reply)
    assert found[0] == texts(api.complete("The", **asked))[0] and found[3] == texts(api.complete("a", **asked))[0]
    assert len(set(found)) == 6 and reply["usage"]["prompt_tokens"] == 2
    assert found == texts(api.complete(["The", "a"], n=3, **asked))


def test_of_several_the_likeliest_are_returned(api):
    asked = {"max_tokens": 8, "seed": 3, "logprobs": 0}
    every = api.complete(n=5, **asked)["choices"]
    mean = {c["text"]: sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["token_logprobs"]) for c in every}
    best = api.complete(n=2, best_of=5, **asked)
    assert texts(best) == sorted(mean, key=mean.get, reverse=True)[:2]
    assert best["usage"]["completion_tokens"] == 5 * 8
    unscored = api.complete(n=2, best_of=5, max_tokens=8, seed=3)
    assert texts(unscored) == texts(best) and unscored["choices"][0]["logprobs"] is None


def test_best_of_is_no_less_than_n_and_is_not_streamed(api):
    assert api.refused(PATH, prompt="x", n=3, best_of=2)["param"] == "best_of"
    assert api.refused(PATH, prompt="x", best_of=2, stream=True)["param"] == "best_of"
    assert len(api.complete(n=2, best_of=2, max_tokens=1)["choices"]) == 2


def log_probabilities(ids):
    """Return (T, V) of a full forward, before any rule: what every figure is held against."""
    with torch.inference_mode():
        network = random_network()
        return network.logits(network(torch.tensor([ids])))[0].float().log_softmax(-1)


def test_echoed_log_probabilities_are_the_models_own(api):
    ids = tokenizer().encode("The stone grinds 砚台")
    logprobs = api.complete(ids, echo=True, logprobs=3, max_tokens=5, temperature=0)["choices"][0]["logprobs"]
    drawn = [tokenizer().encode(token) for token in logprobs["tokens"][len(ids) :]]
    assert logprobs["token_logprobs"][0] is None and logprobs["top_logprobs"][0] is None
    log_p_TV = log_probabilities(ids)
    for at, index in enumerate(ids[1:], 1):
        assert logprobs["token_logprobs"][at] == pytest.approx(float(log_p_TV[at - 1, index]), abs=1e-4)
        best = log_p_TV[at - 1, : tokenizer().vocab_size].topk(3).values.tolist()
        told = sorted(logprobs["top_logprobs"][at].values(), reverse=True)
        assert 3 <= len(told) <= 4 and told[:3] == pytest.approx(best, abs=1e-4)
        assert logprobs["tokens"][at] in logprobs["top_logprobs"][at]
    assert len(drawn) == 5 and len({len(values) for values in logprobs.values()}) == 1


def test_a_prompt_alone_can_be_scored(api):
    ids = tokenizer().encode("The stone grinds 砚台")
    reply = api.complete(ids, echo=True, logprobs=0, max_tokens=0)
    choice = reply["choices"][0]
    assert choice["text"] == "The stone grinds 砚台" and choice["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 0 and len(choice["logprobs"]["tokens"]) == len(ids)
    expected = log_probabilities(ids)[range(len(ids) - 1), ids[1:]].tolist()
    assert choice["logprobs"]["token_logprobs"][1:] == pytest.approx(expected, abs=1e-4)


def test_offsets_say_where_tokens_begin(speaker):
    reply = speaker("ink 墨👨!").complete("The 墨", echo=True, logprobs=1, max_tokens=40)
    choice = reply["choices"][0]
    assert choice["text"] == "The 墨ink 墨👨!"
    for token, offset in zip(choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"], strict=True):
        if not token.startswith("bytes:"):
            assert choice["text"][offset : offset + len(token)] == token
        else:
            assert choice["text"][offset] == "👨"


def test_impossible_tokens_have_a_number_that_json_knows(speaker):
    class Certain(ScriptRunner):
        def logits(self, hidden_RD):
            logits_RV = super().logits(hidden_RD)
            return torch.where(logits_RV == 50.0, 0.0, -torch.inf)

    with Api(serve_runner(Certain(say("ink")))) as api:
        top = api.complete(logprobs=5)["choices"][0]["logprobs"]["top_logprobs"][0]
    assert set(top.values()) == {0.0, -9999.0}


def test_without_limits_sixteen_tokens_are_drawn(api):
    assert api.complete(seed=1, logit_bias={str(tokenizer().eos_id): -100})["usage"]["completion_tokens"] == 16


def test_the_context_can_be_filled_and_not_exceeded(api):
    ids = [260] * (CONTEXT - 10)
    bias = {"logit_bias": {str(index): -100 for index in tokenizer().special.values()}, "seed": 1}
    assert api.complete(ids, max_tokens=10, **bias)["usage"]["total_tokens"] == CONTEXT
    for body in ({"prompt": ids, "max_tokens": 11}, {"prompt": [260] * (CONTEXT + 1)}, {"prompt": ids, "max_tokens": 2**20}):
        error = api.refused(PATH, **body)
        assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
        found = CONTEXT + 1 if body.get("max_tokens") != 2**20 else CONTEXT - 10 + 2**20
        assert f"{CONTEXT} tokens" in error["message"] and f"{found:,}" in error["message"]
    full = api.complete([260] * CONTEXT, **bias)
    assert full["usage"]["completion_tokens"] == 1 and full["choices"][0]["finish_reason"] == "length"


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenized(api, monkeypatch):
    def tokenize(texts):
        raise AssertionError("tokenized all of it")

    monkeypatch.setattr(tokenizer(), "encode_batch", tokenize)
    error = api.refused(PATH, prompt="墨" * 500_000)
    assert error["code"] == "context_length_exceeded" and "1,500,000 bytes" in error["message"]


def test_ids_and_biases_beyond_the_vocabulary_are_refused(api):
    size = tokenizer().vocab_size
    assert api.refused(PATH, prompt=[1, size])["param"] == "prompt"
    assert api.refused(PATH, prompt="x", logit_bias={str(size): 1})["param"] == "logit_bias"
    api.complete([size - 1], max_tokens=1, logit_bias={str(size - 1): 1})


def test_a_bias_decides_and_a_ban_holds(api):
    token = tokenizer().encode("墨")[0]
    assert api.complete(max_tokens=3, logit_bias={str(token): 100})["choices"][0]["text"] == "墨墨墨"
    only_end = api.complete(max_tokens=9, logit_bias={str(tokenizer().eos_id): 100})
    assert only_end["choices"][0] == {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}


def test_fields_that_do_not_go_together(api):
    assert api.refused(PATH, prompt="x", stream_options={"include_usage": True})["param"] == "stream_options"
    assert api.refused(PATH, prompt="x", suffix="y")["code"] == "unsupported_parameter"
    assert api.refused(PATH, prompt="x", regex="a", choice=["b"])["param"] == "regex"


def test_unknown_models_are_not_found(api):
    for name in ("gpt-4", "../../x", "M"):
        answer = api.post(PATH, model=name, prompt="x")
        error = error_of(answer)
        assert answer.status_code == 404 and error["code"] == "model_not_found" and error["param"] == "model"


def test_special_tokens_never_come_from_text(api):
    for name in tokenizer().special:
        ids = api.post("/tokenize", prompt=name).json()["tokens"]
        assert not set(ids) & set(tokenizer().special.values())
        reply = api.complete(name, max_tokens=1, echo=True)
        assert reply["choices"][0]["text"].startswith(name) and reply["usage"]["prompt_tokens"] == len(ids)


@pytest.mark.parametrize("prompt", ["\x00", "a" * 80, "\u200b\u200d", "\u202eabc", "👨‍👩‍👧", "\ufeff", "\r\n"])
def test_odd_texts_are_texts(api, prompt):
    assert api.complete(prompt, max_tokens=0, echo=True)["choices"][0]["text"] == prompt


SAID = "Hello 墨水 world 👨‍👩‍👧 end"


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        ("world", "Hello 墨水 "), ("H", ""), ("Hello", ""), ("墨", "Hello "), ("水 w", "Hello 墨"), ("👩", "Hello 墨水 world 👨\u200d"),
        (["xyz", "wor", "world", "o w"], "Hello 墨水 "), (["llo", "lo"], "He"), ("The", SAID), ("endx", SAID), (["d 👨", " 👨"], "Hello 墨水 worl"),
        ("\u200d", "Hello 墨水 world 👨"),
    ],
    ids=str,
)  # fmt: skip
def test_stop_strings_end_the_text_before_them_and_never_show_a_part(speaker, stop, text):
    api = speaker(SAID)
    asked = {"stop": stop, "max_tokens": 60, "logprobs": 0}
    choice = api.complete("The", **asked)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (text, "stop")
    streamed = api.stream_completion("The", **asked)
    assert fold_completion(streamed)[0]["text"] == text
    tokens = choice["logprobs"]["tokens"]
    assert all(offset < max(1, len(text)) for offset in choice["logprobs"]["text_offset"]), "tokens beyond the stop are not told"
    assert len(tokens) <= len(tokenizer().encode(text)) + 1


def test_a_stop_string_costs_the_tokens_that_were_drawn(speaker):
    usage = speaker("Hello world").complete(stop="world", max_tokens=60)["usage"]
    assert usage["completion_tokens"] == len(tokenizer().encode("Hello world"))


@pytest.mark.parametrize("text", ["👨‍👩‍👧", "墨水写字，砚台。", "é\u0301 ﷺ 𝔘𝔫𝔦", "\U0001f1e8\U0001f1f3"])
def test_characters_come_whole_and_none_is_lost_wherever_the_text_is_cut(speaker, text):
    api, ids = speaker(text), tokenizer().encode(text)
    for max_tokens in range(1, len(ids) + 1):
        choice = api.complete(max_tokens=max_tokens)["choices"][0]
        assert choice["text"] == tokenizer().decode(ids[:max_tokens]), max_tokens
        pieces = [c["text"] for e in api.stream_completion(max_tokens=max_tokens)[:-1] for c in e["choices"]]
        assert "".join(pieces) == choice["text"]
        assert all("\ufffd" not in piece for piece in pieces[:-1])
    assert api.complete(max_tokens=len(ids) + 1)["choices"][0] == {
        "index": 0,
        "text": text,
        "logprobs": None,
        "finish_reason": "stop",
    }


def test_bytes_that_are_no_characters_become_the_mark_for_that(speaker):
    raw = [tokenizer().encode("墨")[0], *(tokenizer()._vocab[token] for token in ("Ã", "a"))]
    assert "\ufffda" in speaker(raw).complete(max_tokens=9)["choices"][0]["text"]


def test_an_end_at_once_is_an_empty_text(speaker):
    reply = speaker("").complete(logprobs=1)
    assert reply["choices"][0]["text"] == "" and reply["choices"][0]["finish_reason"] == "stop"
    assert reply["choices"][0]["logprobs"]["tokens"] == [] and reply["usage"]["completion_tokens"] == 1


def test_the_text_has_the_form_that_was_asked_for(api):
    assert api.complete(choice=["yes", "no"], max_tokens=9)["choices"][0]["text"] in ("yes", "no")
    found = texts(api.complete(regex="[ab]{4}", n=4, seed=1, max_tokens=9))
    assert all(set(text) <= {"a", "b"} and len(text) == 4 for text in found) and len(set(found)) > 1
    for body, param in (({"regex": "("}, "regex"), ({"response_format": {"type": "json_schema", "json_schema": {
        "schema": {"type": 123}}}}, "response_format"), ({"regex": "a{1,99999999}"}, "regex")):  # fmt: skip
        assert api.refused(PATH, prompt="x", **body)["param"] == param


class Gate(ScriptRunner):
    """Says a text, but waits for `go` before every prompt."""

    def __init__(self, text, **options):
        super().__init__(say(text), **options)
        self.go = threading.Event()

    def prefill(self, slot, ids, start):
        assert self.go.wait(20)
        return super().prefill(slot, ids, start)


def test_who_finds_the_line_full_is_told_at_once_when_to_come_again():
    gate = Gate("ink", num_slots=2)
    model = serve_runner(gate, max_waiting=1)
    with Api(model) as api:
        assert api.refused(PATH, prompt="x", n=4)["param"] == "n", "that many could never be taken"
        waiting = [threading.Thread(target=api.complete) for _ in range(3)]
        for thread in waiting:
            thread.start()
        deadline = time.monotonic() + 10
        while model.thread.engine.stats().waiting + model.thread.engine.stats().running < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        for body in ({"prompt": "x"}, {"prompt": "x", "stream": True}, {"prompt": ["x", "y"]}):
            answer = api.post(PATH, **body)
            error = error_of(answer)
            assert (answer.status_code, error["code"], error["type"]) == (429, "queue_full", "rate_limit_error")
            assert 0 < int(answer.headers["retry-after"]) <= 120
        gate.go.set()
        for thread in waiting:
            thread.join(10)
        assert api.complete()["choices"][0]["text"] == "ink"


def test_a_request_that_takes_too_long_is_given_up_and_its_slot_is_free_again():
    gate = Gate("ink", num_slots=1)
    model = serve_runner(gate)
    with Api(model, timeout=0.2) as api:
        for stream in (False, True):
            answer = api.post(PATH, prompt="x", stream=stream)
            assert answer.status_code == 504 and error_of(answer)["code"] == "deadline_exceeded"
            assert answer.headers["x-should-retry"] == "false"
        gate.go.set()
        assert api.complete()["choices"][0]["text"] == "ink"
        assert model.thread.engine.stats().free_slots == 1


def test_a_failure_of_one_text_is_a_500_and_the_next_request_is_answered():
    runner = ScriptRunner(lambda ids: math.nan if 260 in ids else tokenizer().eos_id)
    with Api(serve_runner(runner)) as api:
        for body in ({"prompt": [260]}, {"prompt": [260], "stream": True}, {"prompt": [[261], [260]]}):
            answer = api.post(PATH, **body)
            assert answer.status_code == 500 and error_of(answer)["code"] == "engine_error"
        assert api.complete([261])["choices"][0]["finish_reason"] == "stop"
        assert api.models[0].thread.engine.stats().running == 0
