"""The official Python client over a socket: sync and async, whole and streamed, everything that it can ask of us."""

import asyncio
import json
import threading
import time
from typing import Literal

import openai
import pytest
from contract_double import ScriptRunner, random_model, say, script_model, serve_runner, tokenizer
from pydantic import BaseModel
from serving_double import running, wait_until

USER = [{"role": "user", "content": "Hi"}]
SAID = "Hello 墨水, ink 👨‍👩‍👧."


class Slow(ScriptRunner):
    def __init__(self):
        super().__init__(say("ink ", ends=False), num_slots=2)

    def decode(self, ids, slots, positions):
        time.sleep(0.01)
        return super().decode(ids, slots, positions)


@pytest.fixture(scope="module")
def server():
    models = [script_model(SAID, "says"), random_model("dice"), serve_runner(Slow(), "slow", max_waiting=0)]
    with running(load=lambda: models) as server:
        wait_until(lambda: server.state.lifecycle.phase == "ready")
        server.models = {model.name: model for model in models}
        yield server


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=30) as client:
        yield client


def run_async(server, work):
    """Run `work(client)` with an asynchronous client."""

    async def main():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=30) as client:
            return await work(client)

    return asyncio.run(main())


def test_models(client):
    assert [model.id for model in client.models.list()] == ["says", "dice", "slow"]
    assert client.models.retrieve("dice").owned_by == "inkstone"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


def test_whole(server, client):
    async def ask(other):
        return await other.chat.completions.create(model="says", messages=USER)

    for reply in (client.chat.completions.create(model="says", messages=USER), run_async(server, ask)):
        assert reply.choices[0].message.content == SAID and reply.choices[0].finish_reason == "stop"
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
        assert reply.usage.prompt_tokens_details.cached_tokens >= 0
        assert reply._request_id.startswith("req_")
    text = client.completions.create(model="says", prompt="The", max_tokens=60)
    assert text.choices[0].text == SAID


def test_streamed(server, client):
    async def ask(other):
        stream = await other.chat.completions.create(model="says", messages=USER, stream=True)
        return [chunk async for chunk in stream]

    for chunks in (list(client.chat.completions.create(model="says", messages=USER, stream=True)), run_async(server, ask)):
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
        assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].choices[0].finish_reason == "stop"
    texts = client.completions.create(model="says", prompt="The", max_tokens=60, stream=True)
    assert "".join(chunk.choices[0].text for chunk in texts) == SAID


def test_usage_stands_in_the_last_chunk(client):
    *chunks, last = client.chat.completions.create(
        model="says", messages=USER, stream=True, stream_options={"include_usage": True}, n=2
    )
    assert all(chunk.usage is None for chunk in chunks) and last.choices == [] and last.usage.completion_tokens > 2


@pytest.mark.parametrize("n", [1, 3])
def test_the_streaming_helper_accumulates_what_the_whole_reply_has(server, client, n):
    asked = {
        "model": "dice", "messages": USER, "n": n, "seed": 11, "logprobs": True, "top_logprobs": 2,
        "stream_options": {"include_usage": True}, "extra_body": {"regex": "[a-z]{3,12}"},
    }  # fmt: skip
    with client.chat.completions.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()

    async def ask(other):
        async with other.chat.completions.stream(**asked) as stream:
            return await stream.get_final_completion()

    whole = client.chat.completions.create(**{k: v for k, v in asked.items() if k != "stream_options"})
    assert "content.delta" in kinds and kinds.count("content.done") == n
    for streamed in (final, run_async(server, ask)):
        assert streamed.usage.completion_tokens == whole.usage.completion_tokens
        for ours, other in zip(streamed.choices, whole.choices, strict=True):
            assert ours.message.content == other.message.content and ours.finish_reason == other.finish_reason
            assert [x.token for x in ours.logprobs.content] == [x.token for x in other.logprobs.content]


def test_text_log_probabilities(client):
    choice = client.completions.create(model="dice", prompt="The ink", echo=True, logprobs=2, max_tokens=4, seed=1).choices[0]
    assert choice.text.startswith("The ink") and choice.logprobs.token_logprobs[0] is None
    assert len(choice.logprobs.tokens) == len(choice.logprobs.top_logprobs) == len(choice.logprobs.text_offset)


class Pot(BaseModel):
    ink: bool
    size: Literal[1, 2, 3]


def test_structured_output_is_parsed(server, client):
    spaces = {str(index): -100 for index, raw in enumerate(tokenizer().token_bytes) if raw.strip() != raw}
    asked = {"model": "dice", "messages": USER, "response_format": Pot, "seed": 5, "logit_bias": spaces}

    async def ask(other):
        return await other.chat.completions.parse(**asked)

    for reply in (client.chat.completions.parse(**asked), run_async(server, ask)):
        assert isinstance(reply.choices[0].message.parsed, Pot) and reply.choices[0].finish_reason == "stop"


def test_any_object_is_json(client):
    found = client.chat.completions.create(model="dice", messages=USER, response_format={"type": "json_object"}, n=4, seed=1)
    done = [choice for choice in found.choices if choice.finish_reason == "stop"]
    assert done and all(isinstance(json.loads(choice.message.content), dict) for choice in done)


def test_our_own_fields_go_in_the_extra_body(client):
    reply = client.chat.completions.create(
        model="dice", messages=USER, extra_body={"choice": ["yes", "no"], "top_k": 5, "repetition_penalty": 1.1}
    )
    assert reply.choices[0].message.content in ("yes", "no") and reply.model_extra["timings"]["first_token_seconds"] > 0


def test_what_is_wrong_says_where(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="says", messages=USER, temperature=3)
    assert (caught.value.param, caught.value.type, caught.value.code) == ("temperature", "invalid_request_error", None)
    assert "at most 2" in caught.value.message and caught.value.request_id
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="says", messages=USER, tools=[{"type": "function", "function": {"name": "f"}}])
    assert caught.value.code == "unsupported_parameter"
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="says", prompt="x" * 5000)
    assert caught.value.code == "context_length_exceeded"


def live(server):
    stats = server.models["slow"].thread.engine.stats()
    return stats.running + stats.waiting


def test_cancelled_streams_free_their_slots(server, client):
    stream = client.chat.completions.create(model="slow", messages=USER, stream=True, n=2)
    assert next(stream).choices[0].delta.role == "assistant"
    stream.close()
    wait_until(lambda: live(server) == 0, seconds=5)

    async def leave(other):
        async with await other.chat.completions.create(model="slow", messages=USER, stream=True) as stream:
            async for _ in stream:
                break
        task = asyncio.create_task(other.chat.completions.create(model="slow", messages=USER))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_async(server, leave)
    wait_until(lambda: live(server) == 0, seconds=5)


def test_a_timeout_of_the_client_frees_the_slot(server, client):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.2).chat.completions.create(model="slow", messages=USER)
    wait_until(lambda: live(server) == 0, seconds=5)


def test_the_client_comes_again_when_there_is_room(server, client):
    busy = client.chat.completions.create(model="slow", messages=USER, stream=True, n=2)
    next(busy)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="slow", messages=USER)
    assert caught.value.code == "queue_full" and 0 < int(caught.value.response.headers["retry-after"]) <= 120
    threading.Timer(0.3, busy.close).start()
    reply = client.with_options(max_retries=3).chat.completions.create(model="slow", messages=USER, max_tokens=2)
    assert reply.choices[0].finish_reason == "length"
