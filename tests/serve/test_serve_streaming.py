"""Streams: the order of their events, equal to whole replies, never ending well after a failure, and given up when nobody listens."""

import json
import math
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from contract_double import (
    CONTEXT,
    Api,
    DiceRunner,
    ScriptRunner,
    error_of,
    events_of,
    fold_chat,
    fold_completion,
    say,
    serve_runner,
    tokenizer,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving_double import running, wait_until

from inkstone.serve import streaming

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
USER = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def api():
    with Api(serve_runner(DiceRunner())) as api:
        yield api


def test_the_headers_are_those_of_a_live_stream(api):
    answer = api.post(CHAT, messages=USER, stream=True, max_tokens=2)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache" and answer.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in answer.headers and answer.headers["x-request-id"]


@pytest.mark.parametrize("n", [1, 3])
def test_a_chats_events_come_in_order(api, n):
    events = api.stream_chat(n=n, seed=1, max_tokens=9, stream_options={"include_usage": True})
    chunks = events[:-1]
    assert events[-1] == "[DONE]" and len({(c["id"], c["created"], c["model"], c["system_fingerprint"]) for c in chunks}) == 1
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    for index in range(n):
        first = chunks[index]["choices"][0]
        assert first == {
            "index": index, "delta": {"role": "assistant", "content": "", "refusal": None}, "logprobs": None, "finish_reason": None,
        }  # fmt: skip
    last = chunks[-1]
    assert last["choices"] == [] and last["usage"]["total_tokens"] > 0 and set(last["timings"])
    assert all(c["usage"] is None and len(c["choices"]) == 1 and "timings" not in c for c in chunks[:-1])
    found = fold_chat(events)
    assert set(found) == set(range(n)) and all(whole["finish"] in ("stop", "length") for whole in found.values())


def test_without_being_asked_for_there_is_no_usage_and_the_times_come_with_the_end(api):
    for events in (api.stream_chat(n=2, max_tokens=3), api.stream_completion(n=2, max_tokens=3)):
        assert all("usage" not in c and c["choices"] for c in events[:-1])
        assert [("timings" in c) for c in events[:-1]] == [False] * (len(events) - 2) + [True]


def test_chunks_of_texts_have_the_shape_of_the_whole(api):
    events = api.stream_completion(["The", "a"], n=2, seed=1, max_tokens=9, logprobs=1, stream_options={"include_usage": True})
    for chunk in events[:-2]:
        assert chunk["object"] == "text_completion"
        assert set(chunk["choices"][0]) == {"index", "text", "logprobs", "finish_reason"}
    assert events[-2]["choices"] == [] and set(fold_completion(events)) == {0, 1, 2, 3}


PROMPTS = st.text(st.characters(codec="utf-8") | st.sampled_from("墨砚台研👨‍👩‍👧 the ink.\n"), max_size=8)
STOPS = st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from("aeiou 墨\ufffd"), min_size=1, max_size=2), max_size=4)
ASKED = st.fixed_dictionaries(
    {"seed": st.integers(0, 2**63 - 1), "max_tokens": st.integers(1, 24), "n": st.integers(1, 4)},
    optional={
        "stop": STOPS, "temperature": st.sampled_from([0, 0.5, 1, 2]), "top_k": st.integers(0, 40), "top_p": st.floats(0, 1),
        "presence_penalty": st.floats(-2, 2), "repetition_penalty": st.floats(0.5, 2), "regex": st.sampled_from(["[a-z墨]{1,6}", "(ink)+"]),
    },
)  # fmt: skip
MANY = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def same_usage(one, other):
    return all(one[name] == other[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens"))


@MANY
@given(prompt=PROMPTS, asked=ASKED, logprobs=st.none() | st.integers(0, 5), echo=st.booleans())
def test_a_streamed_text_is_the_whole_text(api, prompt, asked, logprobs, echo):
    asked = {**asked, "logprobs": logprobs, "echo": echo}
    whole = api.complete(prompt, **asked)
    events = api.stream_completion(prompt, stream_options={"include_usage": True}, **asked)
    found = fold_completion(events)
    for choice in whole["choices"]:
        streamed = found[choice["index"]]
        assert (streamed["text"], streamed["finish"]) == (choice["text"], choice["finish_reason"])
        assert (streamed["logprobs"] or None) == _unless_empty(choice["logprobs"])
        for stop in asked.get("stop", []):
            assert stop not in choice["text"].removeprefix(prompt if echo else "")
    assert same_usage(whole["usage"], events[-2]["usage"])


def _unless_empty(logprobs):
    return logprobs if logprobs and logprobs["tokens"] else None


@MANY
@given(prompt=PROMPTS, asked=ASKED, logprobs=st.none() | st.integers(0, 20))
def test_a_streamed_answer_is_the_whole_answer(api, prompt, asked, logprobs):
    if logprobs is not None:
        asked = {**asked, "logprobs": True, "top_logprobs": logprobs}
    whole = api.chat(prompt, **asked)
    events = api.stream_chat(prompt, stream_options={"include_usage": True}, **asked)
    found = fold_chat(events)
    for choice in whole["choices"]:
        streamed = found[choice["index"]]
        assert (streamed["text"], streamed["finish"]) == (choice["message"]["content"], choice["finish_reason"])
        assert streamed["logprobs"] == (choice["logprobs"] or {"content": []})["content"]
    assert same_usage(whole["usage"], events[-2]["usage"])


@pytest.mark.parametrize("text", ["a\u2028b\u2029c\x85d", 'quote " back \\ slash \x00 \x1f', "墨\r\n\n砚", "\u202e\ufeff"])
def test_every_event_is_one_line_for_every_client(text):
    with Api(serve_runner(ScriptRunner(say(text)))) as api:
        for path, prompt in ((CHAT, {"messages": USER}), (TEXT, {"prompt": "x", "logprobs": 1}), (TEXT, {"prompt": "x"})):
            content = api.post(path, stream=True, max_tokens=60, **prompt).content
            lines = content.decode().splitlines()
            assert all(line == "" or line.startswith("data: ") for line in lines)
            events = events_of(content)
            fold = fold_chat if path == CHAT else fold_completion
            assert fold(events)[0]["text"] == text


class Breaking(ScriptRunner):
    """Fails with NaN once it has said `text` to a prompt that holds 260."""

    def __init__(self, text, **options):
        super().__init__(say(text), **options)

    def _state(self, slot):
        drawn = len(self.slots[slot]) - 1
        if self.slots[slot][0] == 260:
            return [math.nan if drawn >= 4 else float(self.follow.ids[drawn])]
        return super()._state(slot)


def test_after_a_failure_comes_an_error_object_and_no_end(api, monkeypatch):
    monkeypatch.setattr(streaming, "PATIENCE_SECONDS", 0.0)
    model = serve_runner(Breaking("ink and more"))
    with Api(model) as broken:
        events = broken.stream_completion([260], max_tokens=20)
        assert set(events[-1]) == {"error"} and set(events[-1]["error"]) == {"message", "type", "param", "code"}
        assert (events[-1]["error"]["type"], events[-1]["error"]["code"]) == ("server_error", "engine_error")
        assert "[DONE]" not in events and all(c["choices"][0]["finish_reason"] is None for c in events[:-1])
        assert fold_completion([*broken.stream_completion([261], max_tokens=20)])[0]["text"] == "ink and more"
        assert model.thread.engine.stats().running == 0


class Slow(ScriptRunner):
    """Says a text endlessly, a token every `seconds`; keeps count."""

    def __init__(self, seconds=0.01, num_slots=4, **options):
        super().__init__(say("ink 墨 ", ends=False), num_slots=num_slots, **options)
        self.seconds = seconds
        self.go = threading.Event()
        self.go.set()

    def prefill(self, slot, ids, start):
        assert self.go.wait(20)
        return super().prefill(slot, ids, start)

    def decode(self, ids, slots, positions):
        time.sleep(self.seconds)
        return super().decode(ids, slots, positions)


def test_while_there_is_nothing_to_say_comments_keep_the_connection(monkeypatch):
    monkeypatch.setattr(streaming, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(streaming, "PING_SECONDS", 0.05)
    runner = Slow(seconds=0)
    runner.go.clear()
    threading.Timer(0.5, runner.go.set).start()
    with Api(serve_runner(runner)) as api:
        content = api.post(CHAT, messages=USER, stream=True, max_tokens=3).content
        assert content.startswith(b"data: ") and b"\n\n: ping\n\n: ping\n\n" in content
        assert fold_chat(events_of(content))[0]["finish"] == "length"


def test_a_stream_that_takes_too_long_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(streaming, "PATIENCE_SECONDS", 0.01)
    model = serve_runner(Slow())
    with Api(model, timeout=0.3) as api:
        events = api.stream_chat()
        assert events[-1]["error"]["code"] == "deadline_exceeded"
        answer = api.post(CHAT, messages=USER)
        assert answer.status_code == 504 and error_of(answer)["code"] == "deadline_exceeded"
        wait_until(lambda: model.thread.engine.stats().free_slots == 4)


def ask_raw(address, path, body):
    """Send a request and return its open connection."""
    raw = json.dumps({"model": "m"} | body).encode()
    connection = socket.create_connection(address, timeout=10)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    connection.sendall(head.encode() + raw)
    return connection


@pytest.fixture
def slow_server():
    runner = Slow()
    model = serve_runner(runner)
    with running(load=lambda: [model], timeout=600) as server:
        wait_until(lambda: server.state.lifecycle.phase == "ready")
        server.runner, server.engine = runner, model.thread.engine
        yield server


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("moment", ["in line", "before the first token", "between tokens"])
def test_who_leaves_gives_back_every_slot(slow_server, stream, moment):
    engine, runner = slow_server.engine, slow_server.runner
    body = {"messages": USER, "n": 3, "stream": stream}
    if moment == "before the first token":
        runner.go.clear()
    others = [ask_raw(slow_server.address, CHAT, {"messages": USER, "n": 4})] if moment == "in line" else []
    if others:
        wait_until(lambda: engine.stats().running == 4)
    connection = ask_raw(slow_server.address, CHAT, body)
    wait_until(lambda: engine.stats().waiting + engine.stats().running == (7 if others else 3))
    if moment == "between tokens" and stream:
        while b'"content":"i' not in connection.recv(65536):
            pass
    connection.close()
    if moment == "before the first token":
        time.sleep(0.1)
        runner.go.set()
    wait_until(lambda: engine.stats().waiting + engine.stats().running == (4 if others else 0), seconds=5)
    assert engine.stats().cancelled == 3
    for other in others:
        other.close()
    wait_until(lambda: engine.stats().free_slots == 4)


def test_a_hundred_disconnects_leave_no_slot_taken(slow_server):
    engine = slow_server.engine
    for i in range(100):
        connection = ask_raw(
            slow_server.address, (CHAT, TEXT)[i % 2], {"messages": USER, "prompt": "x", "stream": i % 3 > 0, "max_tokens": 50}
        )
        if i % 5 == 1 and i % 3:
            connection.recv(64)
        connection.close()
    wait_until(lambda: engine.stats().waiting + engine.stats().running == 0)
    answer = ask_raw(slow_server.address, TEXT, {"prompt": "x", "max_tokens": 2})
    assert b"200 OK" in answer.recv(65536)
    assert engine.stats().free_slots == 4
    answer.close()


def test_one_wake_of_the_loop_carries_all_that_waits():
    """The engine's thread pays for one call_soon_threadsafe a step, not one a token."""
    from inkstone.infer.request import Piece
    from inkstone.serve.sequences import Mailbox

    wakes, heard = [], []
    loop = SimpleNamespace(call_soon_threadsafe=wakes.append)
    box = SimpleNamespace(hear=lambda index, piece: heard.append((index, piece.text)))
    mailbox = Mailbox(loop)
    for i in range(8):
        mailbox.put(box, i, Piece(text=str(i)))
    assert len(wakes) == 1
    wakes.pop()()
    assert heard == [(i, str(i)) for i in range(8)]
    mailbox.put(box, 0, Piece(text="later"))
    assert len(wakes) == 1


def test_a_full_context_ends_a_stream(api):
    events = api.stream_completion([260] * (CONTEXT - 4), logit_bias={str(index): -100 for index in tokenizer().special.values()})
    assert fold_completion(events)[0]["finish"] == "length"
