"""Every failure is one bounded object without internals (S-22), in every place where one can arise."""

import json
import socket

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_double import PATIENCE, error_of, exchange, read_all, request, status_of
from starlette.exceptions import HTTPException

from inkstone.base.errors import CheckpointError, RequestError, ResourceError
from inkstone.infer.engine import EngineClosed, QueueFull
from inkstone.serve.errors import ApiError, echo, error_bytes, error_object, error_response, to_api_error

INTERNALS = ("/srv/hidden", "0x7f00", "Traceback", "site-packages", "RuntimeError", "index out of bounds")


@pytest.mark.parametrize(
    ("raised", "status", "kind", "code"),
    [
        (RequestError("temperature is too high"), 400, "invalid_request_error", None),
        (QueueFull("full", 7), 429, "rate_limit_error", "queue_full"),
        (EngineClosed("closed"), 503, "unavailable_error", "shutting_down"),
        (HTTPException(404), 404, "not_found_error", "not_found"),
        (HTTPException(418), 418, "invalid_request_error", None),
        (ResourceError("/srv/hidden is full"), 500, "server_error", "internal_error"),
        (CheckpointError("/srv/hidden is damaged"), 500, "server_error", "internal_error"),
        (ZeroDivisionError("0x7f0012345678"), 500, "server_error", "internal_error"),
        (MemoryError(), 500, "server_error", "internal_error"),
    ],
)
def test_each_kind_of_failure_has_its_status_type_and_code(raised, status, kind, code):
    error = to_api_error(raised)
    assert (error.status, error.type, error.code) == (status, kind, code)
    assert not any(word in error.message for word in INTERNALS)


@given(st.text(max_size=9000), st.text(max_size=300), st.sampled_from(["", "\x00", "\ud800", "😀", '"\\']))
@settings(max_examples=60, deadline=None)
def test_an_error_object_is_valid_json_of_at_most_4_kilobytes(message, param, unit):
    content = error_bytes(error_object(ApiError(400, message + unit * 9000, param=param, code="x")))
    assert len(content) <= 4096
    assert set(json.loads(content.decode("utf-8", "strict"))["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("value", ["x" * 10**6, "\x00" * 1000, ["y" * 10**5], {"k": "v" * 10**5}, b"z" * 10**5, 10**200])
def test_what_a_caller_sent_is_echoed_in_at_most_200_characters(value):
    assert len(echo(value)) <= 200


@pytest.mark.parametrize(("wanted", "said"), [(-5, "1"), (0.2, "1"), (7, "7"), (10**9, "120")])
def test_retry_after_is_between_1_and_120_seconds(wanted, said):
    assert to_api_error(QueueFull("full", wanted)).headers["retry-after"] == said


@pytest.mark.parametrize(("status", "said"), [(500, "false"), (504, "false"), (503, None), (429, None), (400, None)])
def test_only_failures_that_would_repeat_tell_the_client_not_to_retry(status, said):
    assert error_response(ApiError(status, "x")).headers.get("x-should-retry") == said


@pytest.mark.parametrize("what", ["bug", "panic"])
def test_a_bug_shows_nothing_of_itself_and_the_server_lives_on(server, what):
    answer = httpx.get(f"{server.url}/v1/raise/{what}")
    assert answer.status_code == 500 and answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"] | {"message": ""} == {
        "message": "", "type": "server_error", "param": None, "code": "internal_error"
    }  # fmt: skip
    assert not any(word in answer.text for word in INTERNALS)
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_an_answer_that_fails_in_the_middle_is_cut_and_does_not_look_whole(server):
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{server.url}/v1/break")
    assert not exchange(server.address, request("/v1/break", method="GET")).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("/nothing", method="GET"), 404), (request("/health", method="POST"), 405), (request("/v1/take", b"x"), 400),
        (request("/v1/take", b"x" * 5000), 413), (request("/v1/take", b"{}", kind="text/plain"), 415),
        (request("/health", b"", "X: " + "y" * 9000, method="GET"), 431), (request("/v1/raise/bug", method="GET"), 500),
        (request("/h?" + "y" * 9000, method="GET"), 414), (b"nonsense\r\n\r\n", 400),
        (request("/health", host="evil.example", method="GET"), 403),
    ],
)  # fmt: skip
def test_every_status_carries_the_same_object_and_an_id(server, data, status):
    answer = exchange(server.address, data)
    assert status_of(answer) == status
    assert set(error_of(answer)) == {"message", "type", "param", "code"}
    head = answer.split(b"\r\n\r\n")[0].lower()
    assert b"\r\nx-request-id: req_" in head and b"\r\ncontent-type: application/json" in head and b"nosniff" in head


def test_the_object_is_json_whatever_the_caller_says_it_accepts(server):
    answer = httpx.get(f"{server.url}/nothing", headers={"accept": "text/html"})
    assert answer.headers["content-type"] == "application/json" and answer.json()["error"]["code"] == "not_found"


def test_the_next_request_on_a_connection_is_answered_after_a_failure(server):
    with socket.create_connection(server.address, timeout=PATIENCE) as connection:
        connection.sendall(request("/v1/take", b"[]") + request("/v1/take", b'{"a": 1}'))
        answers = read_all(connection)
    assert status_of(answers) == 400 and answers.endswith(b'{"a":1}') and answers.count(b"HTTP/1.1 200 OK") == 1
