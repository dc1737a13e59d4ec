"""POST /tokenize and /detokenize, and the routes of models."""

import json

import pytest
from contract_double import CONTEXT, Api, error_of, good, random_model, tokenizer

from inkstone.text.chat import render_chat


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves")
    rows = [{"step": step, "loss": 5 - step / 1000} for step in range(2500)] + [{"step": 2499, "val_loss": 2.5, "loss": None}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "lo')
    return folder


@pytest.fixture(scope="module")
def api(run_folder):
    with Api(
        random_model(card="# A model", sampling={"top_k": 5}, run_folder=run_folder), random_model("砚台-1"),
        random_model("lost", run_folder=run_folder / "gone"),
    ) as api:  # fmt: skip
        yield api


@pytest.mark.parametrize("text", ["", "The ink 墨", "<|im_start|>", "👨‍👩‍👧\n" * 3000])
def test_ids_and_back(api, text):
    reply = good(api.post("/tokenize", prompt=text, return_token_strs=True))
    assert reply["tokens"] == tokenizer().encode(text) and reply["count"] == len(reply["tokens"]) == len(reply["token_strs"])
    assert reply["max_model_len"] == CONTEXT
    assert good(api.post("/detokenize", tokens=reply["tokens"])) == {"model": "m", "prompt": text}


def test_a_conversation_is_what_a_chat_would_read(api):
    messages = [{"role": "user", "content": "Grind 墨"}]
    reply = good(api.post("/tokenize", messages=messages))
    assert reply["tokens"] == render_chat(messages, tokenizer(), add_generation_prompt=True)[0] and "token_strs" not in reply


def test_the_first_model_is_taken_where_none_is_named(api):
    assert good(api.client.post("/tokenize", json={"prompt": "x"}))["model"] == "m"
    assert good(api.post("/tokenize", model="砚台-1", prompt="x"))["model"] == "砚台-1"
    assert api.post("/tokenize", model="other", prompt="x").status_code == 404
    assert api.post("/detokenize", model="other", tokens=[]).status_code == 404


def test_what_is_neither_or_both_is_refused(api):
    for body in ({}, {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}):
        assert api.refused("/tokenize", **body)["param"] == "prompt"
    assert api.refused("/detokenize", tokens=[tokenizer().vocab_size])["param"] == "tokens"
    assert api.refused("/detokenize", tokens=[-1])["param"] == "tokens"


def test_special_tokens_have_names_but_no_text(api):
    ids = sorted(tokenizer().special.values())
    assert good(api.post("/detokenize", tokens=ids))["prompt"] == ""


def test_models_are_listed_and_shown(api):
    listed = good(api.client.get("/v1/models"))
    assert listed["object"] == "list" and [model["id"] for model in listed["data"]] == ["m", "砚台-1", "lost"]
    model = listed["data"][0]
    assert model == good(api.client.get("/v1/models/m")) | {}
    assert (model["object"], model["owned_by"], model["created"]) == ("model", "inkstone", 1_700_000_000)
    assert (model["context"], model["chat"], model["sampling"], model["card"]) == (CONTEXT, True, {"top_k": 5}, "# A model")
    assert good(api.client.get("/v1/models/砚台-1"))["id"] == "砚台-1"
    for name in ("gpt-4", "..%2f..%2fetc", "M"):
        answer = api.client.get(f"/v1/models/{name}")
        assert answer.status_code == 404 and error_of(answer)["type"] == "not_found_error"
    assert error_of(api.client.get("/v1/models/gpt-4"))["code"] == "model_not_found"


def test_curves_are_the_runs_and_no_longer_than_a_screen(api):
    curves = good(api.client.get("/v1/models/m/curves"))
    assert curves["val"] == [[2499, 2.5]]
    assert 500 < len(curves["train"]) <= 1000 and curves["train"][-1] == [2499, 5 - 2.499]
    assert all(loss == 5 - step / 1000 for step, loss in curves["train"])
    for name in ("lost", "砚台-1", "gpt-4"):
        answer = api.client.get(f"/v1/models/{name}/curves")
        assert answer.status_code == 404 and error_of(answer)["message"]
