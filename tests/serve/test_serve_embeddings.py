"""POST /v1/embeddings: vectors against the model's own hidden states, in both spellings, beside texts that are being written."""

import base64
import threading

import numpy as np
import openai
import pytest
import torch
from contract_double import CONTEXT, Api, error_of, good, random_model, random_network, tokenizer
from serving_double import running, wait_until

PATH = "/v1/embeddings"


@pytest.fixture(scope="module")
def api():
    with Api(random_model()) as api:
        yield api


def mean_hidden(ids):
    with torch.inference_mode():
        return random_network()(torch.tensor([ids]))[0].mean(0).tolist()


def test_a_vector_is_the_mean_of_the_last_hidden_states(api):
    texts = ["The ink", "砚台", "a" * 60]
    reply = good(api.post(PATH, input=texts))
    assert set(reply) == {"object", "data", "model", "usage"} and reply["object"] == "list" and reply["model"] == "m"
    for index, (text, row) in enumerate(zip(texts, reply["data"], strict=True)):
        assert (row["object"], row["index"]) == ("embedding", index)
        assert row["embedding"] == pytest.approx(mean_hidden(tokenizer().encode(text)), abs=1e-5)
    num_tokens = sum(len(tokenizer().encode(text)) for text in texts)
    assert reply["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}


def test_inputs_come_in_four_forms_and_many_at_once(api):
    ids = tokenizer().encode("The ink")
    expected = mean_hidden(ids)
    for given, count in (("The ink", 1), (["The ink"], 1), (ids, 1), ([ids, ids], 2), ([ids] * 700, 700)):
        data = good(api.post(PATH, input=given))["data"]
        assert len(data) == count
        for row in data:
            assert row["embedding"] == pytest.approx(expected, abs=1e-5)


def test_base64_is_the_same_in_fewer_bytes(api):
    plain = good(api.post(PATH, input="The ink"))["data"][0]["embedding"]
    packed = good(api.post(PATH, input="The ink", encoding_format="base64"))["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), dtype="<f4").tolist() == plain


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"), ({"input": []}, "input"), ({"input": [[]]}, "input"), ({"input": ["a", ""]}, "input"),
        ({"input": [10**6]}, "input"), ({"input": "x", "dimensions": 8}, "dimensions"), ({"input": 5}, "input"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format"), ({}, "input"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_refused(api, body, param):
    assert api.refused(PATH, **body)["param"] == param


def test_inputs_beyond_the_context_are_refused_with_both_numbers(api):
    error = api.refused(PATH, input=[[261] * CONTEXT, [261] * (CONTEXT + 1)])
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    assert f"{CONTEXT} tokens" in error["message"] and f"{CONTEXT + 1} tokens" in error["message"]
    answer = api.post(PATH, model="other", input="x")
    assert answer.status_code == 404 and error_of(answer)["code"] == "model_not_found"


def test_no_more_requests_wait_than_may_and_none_for_ever():
    model = random_model(max_waiting=0)
    go = threading.Event()
    model.thread.call(go.wait, 20)  # the engine is busy with something else
    with Api(model, timeout=0.5) as api:
        first = []
        waiting = threading.Thread(target=lambda: first.append(api.post(PATH, input="x")))
        waiting.start()
        wait_until(lambda: getattr(api.app.state, "num_embedding", {}).get("m"))
        answer = api.post(PATH, input="x")
        assert answer.status_code == 429 and error_of(answer)["code"] == "queue_full" and answer.headers["retry-after"]
        waiting.join(10)
        assert first[0].status_code == 504 and error_of(first[0])["code"] == "deadline_exceeded"
        go.set()
        assert len(good(api.post(PATH, input="x"))["data"]) == 1


def test_the_official_client_reads_both_spellings():
    with running(load=lambda: [random_model()]) as server:
        wait_until(lambda: server.state.lifecycle.phase == "ready")
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            default = client.embeddings.create(model="m", input=["The ink", "墨"])  # asks for base64
            plain = client.embeddings.create(model="m", input=["The ink", "墨"], encoding_format="float")
    assert [row.embedding for row in default.data] == [row.embedding for row in plain.data]
    assert default.data[1].embedding == pytest.approx(mean_hidden(tokenizer().encode("墨")), abs=1e-5)
