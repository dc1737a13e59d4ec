"""The strict reader of bodies: H01-H08, H12, S-06; what the client library would hide is sent through a raw socket."""

import json
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_double import PATIENCE, error_of, exchange, read_all, request, status_of

from inkstone.serve.body import MAX_DEPTH, MAX_KEYS, parse_object
from inkstone.serve.errors import ApiError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON_VALUES), st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_plain_object_is_read_as_it_was_written(value, ensure_ascii):
    assert parse_object(json.dumps(value, ensure_ascii=ensure_ascii).encode()) == value


def nested(depth):
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


BAD = {
    "empty": b"", "not JSON": b"{", "array": b"[1]", "text": b'"x"', "number": b"1", "null": b"null", "truth": b"true",
    "two values": b"{} {}", "trailing comma": b'{"a":1,}', "single quotes": b"{'a':1}", "comment": b"{} // x",
    "NaN": b'{"a":NaN}', "Infinity": b'{"a":Infinity}', "minus Infinity": b'{"a":-Infinity}', "1e999": b'{"a":1e999}',
    "-1e999": b'{"a":[-1e999]}', "twice": b'{"a":1,"a":1}', "twice inside": b'{"b":[{"a":1,"a":2}]}', "twice, escaped": b'{"a":1,"\\u0061":2}',
    "depth 100,000": b'{"a":' + b"[" * 100_000, "depth 100,000 closed": nested(100_000), "one too deep": nested(MAX_DEPTH + 1),
    "objects too deep": b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "5,000 digits": b'{"a":' + b"9" * 5000 + b"}",
    "400 digits": b'{"a":-' + b"9" * 400 + b"}", "long fraction": b'{"a":0.' + b"1" * 5000 + b"}",
    "many keys": json.dumps(dict.fromkeys(map(str, range(MAX_KEYS + 1)))).encode(), "10^6 keys": json.dumps(dict.fromkeys(map(str, range(10**6)))).encode(),
    "Latin-1": '{"a":"é"}'.encode("latin-1"), "UTF-16": '{"a":1}'.encode("utf-16"), "BOM": b'\xef\xbb\xbf{"a":1}', "overlong": b'{"a":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"a":"\xed\xa0\x80"}', "lone surrogate": b'{"a":"\\ud800"}', "low surrogate": b'{"a":["\\uDFFF"]}',
    "surrogate in key": b'{"\\ud800":1}', "surrogates swapped": b'{"a":"\\udc00\\ud800"}', "NUL outside": b'{}\x00', "raw newline": b'{"a":"\n"}',
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_one_strict_object_is_refused(name):
    with pytest.raises(ApiError) as refused:
        parse_object(BAD[name])
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"{}", {}), (b' \n{"a":1}\t', {"a": 1}), (b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}), (b'{"a":9223372036854775807}', {"a": 2**63 - 1}),
        (b'{"a":-9223372036854775808}', {"a": -(2**63)}), (b'{"a":1e308,"b":-0.0,"c":1e-999}', {"a": 1e308, "b": -0.0, "c": 0.0}),
        (b'{"a":"\\u0000"}', {"a": "\x00"}), (b'{"a":"\\\\ud800"}', {"a": "\\ud800"}),
    ],
)  # fmt: skip
def test_the_edges_of_what_is_allowed_are_read(raw, value):
    assert parse_object(raw) == value


def test_the_depth_that_is_allowed_is_read():
    assert parse_object(nested(MAX_DEPTH))


def test_many_shallow_lists_are_not_deep():
    assert len(parse_object(json.dumps({"a": [[]] * 5000}).encode())["a"]) == 5000


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/json; charset=latin-1",
             "application/json, text/plain", "application/jsonp", "text/json"],
)  # fmt: skip
def test_other_media_types_are_415(server, kind):
    answer = exchange(server.address, request("/v1/take", b"{}", kind=kind))
    assert status_of(answer) == 415 and error_of(answer)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"']
)
def test_json_is_taken_however_it_is_spelled(server, kind):
    assert status_of(exchange(server.address, request("/v1/take", b"{}", "Connection: close", kind=kind))) == 200


def test_two_content_types_are_415(server):
    assert status_of(exchange(server.address, request("/v1/take", b"{}", "Content-Type: text/plain"))) == 415


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "zstd"])
def test_compressed_bodies_are_415_and_never_unpacked(server, encoding):
    assert status_of(exchange(server.address, request("/v1/take", b"\x1f\x8b", f"Content-Encoding: {encoding}"))) == 415


@pytest.mark.parametrize("declared", [4097, 2**30, 10**30])
def test_a_declared_body_over_the_limit_is_413_before_it_comes(server, declared):
    answer = exchange(server.address, request("/v1/take", b"", f"Content-Length: {declared}"))
    assert status_of(answer) in ((413,) if declared < 10**20 else (400, 413))
    assert b"connection: close" in answer.lower()


def test_a_body_at_the_limit_is_read_and_one_byte_more_is_not(server):
    whole = b'{"a":"' + b"x" * (4096 - 8) + b'"}'
    assert status_of(exchange(server.address, request("/v1/take", whole, "Connection: close"))) == 200
    assert status_of(exchange(server.address, request("/v1/take", whole + b" "))) == 413


def test_an_endless_body_without_length_is_cut_and_the_caller_reads_why(server):
    head = request("/v1/take", b"", "Transfer-Encoding: chunked")
    with socket.create_connection(server.address, timeout=PATIENCE) as connection:
        connection.sendall(head)
        sent, answer = 0, []
        reader = threading.Thread(target=lambda: answer.append(read_all(connection)))
        reader.start()
        try:
            while reader.is_alive():
                connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                sent += 4096
        except OSError:
            pass
        reader.join(PATIENCE)
    assert status_of(answer[0]) == 413 and error_of(answer[0])["code"] == "request_too_large"


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: -1"], ["Content-Length: 2", "Content-Length: 3"], ["Content-Length: 2", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked, chunked"], ["Transfer-Encoding: gzip"], ["Content-Length: 0x2"], ["Content-Length: +2"],
        ["Content-Length: 2,3"], ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    ],
)  # fmt: skip
def test_a_length_that_can_be_read_in_two_ways_is_400_and_closes(server, headers):
    answer = exchange(server.address, request("/v1/take", b"{}\r\n0\r\n\r\n", *headers))
    assert status_of(answer) == 400 and answer.count(b"HTTP/1.1 4") == 1 and b"HTTP/1.1 200" not in answer
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("body", [b"zz\r\n{}\r\n0\r\n\r\n", b"-2\r\n{}\r\n0\r\n\r\n", b"2{}\r\n0\r\n\r\n", b"1" * 100 + b"\r\n"])
def test_a_bad_chunk_is_400_and_closes(server, body):
    answer = exchange(server.address, request("/v1/take", body, "Transfer-Encoding: chunked"))
    assert status_of(answer) == 400 and answer.count(b"HTTP/1.1 4") == 1 and b"HTTP/1.1 200" not in answer


def test_a_chunked_body_is_read(server):
    body = b'5\r\n{"a":\r\n3\r\n12}\r\n0\r\n\r\n'
    answer = exchange(server.address, request("/v1/take", body, "Transfer-Encoding: chunked", "Connection: close"))
    assert status_of(answer) == 200 and answer.endswith(b'{"a":12}')


def test_a_body_that_trickles_is_408(server):
    stop = threading.Event()
    with socket.create_connection(server.address, timeout=PATIENCE) as connection:
        connection.sendall(request("/v1/take", b"{", "Content-Length: 4000"))

        def trickle():
            while not stop.wait(0.05):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

        sender = threading.Thread(target=trickle)
        sender.start()
        answer = read_all(connection)
        stop.set()
        sender.join()
    assert status_of(answer) == 408 and error_of(answer)["code"] == "body_timeout"


def test_a_caller_that_closed_its_half_still_gets_the_answer(server):
    with socket.create_connection(server.address, timeout=PATIENCE) as connection:
        connection.sendall(request("/v1/stream?n=5&seconds=0.02", method="GET"))
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection).count(b"data:") == 6


def test_expect_100_continue_is_followed(server):
    with socket.create_connection(server.address, timeout=PATIENCE) as connection:
        connection.sendall(request("/v1/take", b"", "Content-Length: 2", "Expect: 100-continue", "Connection: close"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert status_of(read_all(connection)) == 200
