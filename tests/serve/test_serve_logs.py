"""What goes into the log (S-23): one line an event, no prompts, no keys, nothing that a terminal would obey."""

import logging

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving_double import exchange, request, running

from inkstone.serve.logs import MAX_LINE_CHARACTERS, NAME, OneLine, escape

KEY = "sk-very-secret-key"


@pytest.fixture
def lines():
    """The server's log, formatted as it goes to stderr."""
    found, formatter = [], OneLine([KEY, "plain-key"])

    class Keep(logging.Handler):
        def emit(self, record):
            found.append(formatter.format(record))

    handler, log = Keep(), logging.getLogger(NAME)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield found
    log.removeHandler(handler)


def make_record(message, *args, error=None):
    return logging.LogRecord(NAME, logging.INFO, "", 0, message, args, (type(error), error, error.__traceback__) if error else None)


@given(st.text(max_size=500))
def test_a_record_is_one_printable_line(text):
    line = OneLine().format(make_record("%s", text))
    assert line.isprintable() and len(line.splitlines()) == 1


def test_long_records_are_cut():
    assert len(OneLine().format(make_record("x" * 10**6))) <= MAX_LINE_CHARACTERS
    assert len(escape("x" * 10**6)) == 200


def test_escapes_can_be_told_from_text():
    assert escape("a\r\nb\x1b[31m\u202e\ud800") == "a\\r\\nb\\x1b[31m\\u202e\\ud800"
    assert escape("砚台 ok") == "砚台 ok"


@pytest.mark.parametrize("text", [KEY, f"Bearer {KEY}", "bearer abcdef", "sk-otherkey123456", "x=plain-key&y"])
def test_keys_are_blotted_out(text):
    line = OneLine([KEY, "plain-key"]).format(make_record("found %s here", text))
    assert "***" in line and not any(secret in line for secret in (KEY, "abcdef", "otherkey", "plain-key"))


def fail(message):
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


def test_of_an_exception_only_its_kind_and_place_are_told_unless_asked():
    error = fail("the prompt was: my secret\nlife")
    line = OneLine().format(make_record("request failed", error=error))
    assert "ValueError" in line and "test_serve_logs.py" in line and "secret" not in line
    line = OneLine(is_debug=True).format(make_record("request failed", error=error))
    assert "my secret\\nlife" in line and len(line.splitlines()) == 1


def test_what_callers_send_does_not_reach_the_log_and_every_request_is_one_line(lines):
    with running(keys=[KEY]) as server:
        key = {"authorization": f"Bearer {KEY}"}
        httpx.post(f"{server.url}/v1/take?api_key={KEY}&q=hidden", json={"prompt": "my secret life"}, headers=key)
        httpx.get(f"{server.url}/v1/raise/bug", headers=key)
        httpx.get(f"{server.url}/v1/x%0d%0ainjected%1b[31m", headers=key)
        httpx.get(f"{server.url}/{'y' * 3000}", headers={"authorization": "Bearer wrong-key-here"})
        exchange(server.address, request("/health", b"", "X-Request-Id: a b", "User-Agent: <secret agent>", method="GET"))
        exchange(server.address, b"\x16\x03\x01 secret bytes\r\n\r\n")
    text = "\n".join(lines)
    assert not any(word in text for word in ("secret", KEY, "wrong-key", "hidden", "\x1b", "\ninjected", "Traceback"))
    assert all(line.isprintable() and len(line) < 600 for line in lines)
    assert sum("POST /v1/take 200" in line for line in lines) == 1
    assert sum("RuntimeError at serving_double.py" in line for line in lines) == 1
    assert sum("invalid request 400" in line for line in lines) == 1
    assert not any("/health" in line for line in lines)
