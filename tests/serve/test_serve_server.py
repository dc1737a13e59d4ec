"""One connection and many: deadlines, bounds and broken HTTP (S-04 to S-07, H07-H09, H25-H27), through raw sockets."""

import contextlib
import socket
import threading

import httpx
import psutil
import pytest
from serving_double import PATIENCE, error_of, exchange, read_all, request, running, status_of, wait_until

from inkstone.base.errors import ResourceError
from inkstone.serve.config import ServeSettings
from inkstone.serve.server import bind, url_of


def connect(server):
    return socket.create_connection(server.address, timeout=PATIENCE)


def is_answered(server):
    return httpx.get(f"{server.url}/health", timeout=PATIENCE).status_code == 200


def trickle(connection, data, stop):
    """Send a byte at a time until it is all sent, the server closes, or `stop`."""
    with contextlib.suppress(OSError):
        for byte in data:
            if stop.wait(0.05):
                return
            connection.sendall(bytes([byte]))


def test_a_silent_connection_is_closed(server):
    with connect(server) as connection:
        assert read_all(connection) == b""


def test_headers_that_trickle_are_cut(server):
    stop = threading.Event()
    with connect(server) as connection:
        sender = threading.Thread(target=trickle, args=(connection, b"GET / HTTP/1.1\r\nX: " + b"y" * 2000, stop))
        sender.start()
        assert read_all(connection) == b""
        stop.set()
        sender.join()


def test_a_second_request_that_trickles_on_a_used_connection_is_cut(server):
    stop = threading.Event()
    with connect(server) as connection:
        connection.sendall(request("/health", method="GET") + b"GET /hea")
        sender = threading.Thread(target=trickle, args=(connection, b"lth" * 1000, stop))
        sender.start()
        assert read_all(connection).count(b"HTTP/1.1 ") == 1
        stop.set()
        sender.join()


def test_line_breaks_between_requests_do_not_keep_a_connection(server):
    stop = threading.Event()
    with connect(server) as connection:
        connection.sendall(request("/health", method="GET"))
        sender = threading.Thread(target=trickle, args=(connection, b"\r\n" * 1000, stop))
        sender.start()
        assert read_all(connection).count(b"HTTP/1.1 200") == 1
        stop.set()
        sender.join()


def test_a_connection_that_rests_after_its_answer_is_closed(server):
    with connect(server) as connection:
        connection.sendall(request("/health", method="GET"))
        assert status_of(read_all(connection)) == 200


def test_many_slow_callers_do_not_keep_an_honest_one_waiting(server):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(server)) for _ in range(300)]
        for connection in slow:
            connection.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        assert is_answered(server)
        assert all(read_all(connection) == b"" for connection in slow)
    wait_until(lambda: server.state.lifecycle.num_running == 0)


def test_the_body_of_a_refused_request_is_skipped_and_the_connection_used_again():
    with running(idle_seconds=60, header_seconds=60) as server, connect(server) as connection:
        connection.sendall(request("/nothing", b"", "Content-Length: 3000"))
        answers = b""
        while not answers.endswith(b"}}"):  # the answer is out before the body comes
            answers += connection.recv(1000)
        connection.sendall(b"x" * 3000 + request("/health", b"", "Connection: close", method="GET"))
        answers += read_all(connection)
    assert answers.count(b"HTTP/1.1 404") == answers.count(b"HTTP/1.1 200") == 1


def test_an_endless_body_of_a_refused_request_is_cut(server):
    with connect(server) as connection:
        connection.sendall(request("/nothing", b"", "Content-Length: 1000000000"))
        with pytest.raises(OSError):
            while True:
                connection.sendall(b"x" * 65536)


def test_requests_in_a_row_are_answered_in_order(server):
    bodies = [b'{"n":%d}' % n for n in range(20)]
    data = b"".join(request("/v1/take", body) for body in bodies[:-1]) + request("/v1/take", bodies[-1], "Connection: close")
    answers = exchange(server.address, data)
    assert [answers.index(body) for body in bodies] == sorted(answers.index(body) for body in bodies)


@pytest.mark.parametrize("size", [5000, 64_000, 1_000_000])
def test_long_headers_are_431(server, size):
    answer = exchange(server.address, request("/health", b"", "X: " + "y" * size, method="GET"))
    assert status_of(answer) == 431 and error_of(answer)["code"] == "headers_too_large"


def test_ten_thousand_headers_are_431(server):
    assert status_of(exchange(server.address, request("/health", b"", *(f"X{n}: y" for n in range(10_000)), method="GET"))) == 431


@pytest.mark.parametrize("size", [5000, 1_000_000])
def test_a_long_address_is_414(server, size):
    for path in ("/" + "a" * size, "/health?" + "a" * size):
        answer = exchange(server.address, request(path, method="GET"))
        assert status_of(answer) == 414 and error_of(answer)["code"] == "uri_too_long"


def test_fifty_megabytes_of_headers_leave_no_trace_in_memory(server):
    process, piece = psutil.Process(), b"X: " + b"y" * 65000 + b"\r\n"
    before = process.memory_info().rss
    with connect(server) as connection, contextlib.suppress(OSError):
        connection.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(800):
            connection.sendall(piece)
    assert process.memory_info().rss - before < 16_000_000
    assert is_answered(server)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\r\n", b"GET / HTTP/0.9\r\n\r\n", b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nX : a\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n",
        b"\x00" * 100, b"GET / HTTP/1.1\r\nHost: localhost\r\n: empty\r\n\r\n",
        b"GET \xff HTTP/1.1\r\nHost: localhost\r\n\r\n", b"G\xe9T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_is_400_or_closed_and_told_once(server, data):
    with connect(server) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert answer == b"" or (
        status_of(answer) == 400 and answer.count(b"HTTP/1.1 400") == 1 and b"connection: close" in answer.lower()
    )
    assert is_answered(server)


def test_an_upgrade_is_ignored(server):
    answer = exchange(server.address, request("/health", b"", "Upgrade: websocket", "Connection: Upgrade, close", method="GET"))
    assert status_of(answer) == 200


def test_a_reader_that_stops_reading_is_cut_and_its_request_ends(server):
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        connection.connect(server.address)
        connection.sendall(request("/v1/flood?n=2000", method="GET"))
        wait_until(lambda: server.state.lifecycle.num_running == 1)
        assert is_answered(server)
        wait_until(lambda: server.state.lifecycle.num_running == 0)


def test_a_slow_reader_does_not_hold_up_another(server):
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(server.address)
        slow.sendall(request("/v1/flood?n=2000", method="GET"))
        assert httpx.get(f"{server.url}/v1/stream?n=20").text.count("data:") == 21
    wait_until(lambda: server.state.lifecycle.num_running == 0)


@pytest.mark.parametrize("moment", ["headers", "body", "waiting", "stream"])
def test_a_caller_that_leaves_ends_its_request(server, moment):
    data = {
        "headers": b"GET / HT", "body": request("/v1/take", b"{", "Content-Length: 100"), "waiting": request("/v1/stream?n=1&seconds=60", method="GET"),
        "stream": request("/v1/stream?n=6000&seconds=0.01", method="GET"),
    }[moment]  # fmt: skip
    for _ in range(5):
        with connect(server) as connection:
            connection.sendall(data)
            if moment == "stream":
                connection.recv(1000)
            elif moment != "headers":
                wait_until(lambda: server.state.lifecycle.num_running > 0)
    wait_until(lambda: server.state.lifecycle.num_running == 0)


def ask_health(connection):
    """Ask once on a connection that stays open, and read all of the answer."""
    connection.sendall(request("/health", method="GET"))
    answer = b""
    while not answer.endswith(b'{"status":"ok"}'):
        answer += connection.recv(1000) or b"closed"
        assert not answer.endswith(b"closed")


def test_the_connection_that_rested_longest_makes_room():
    with running(max_connections=3, idle_seconds=60, header_seconds=60) as server, contextlib.ExitStack() as stack:
        resting = [stack.enter_context(connect(server)) for _ in range(3)]
        for connection in resting:
            ask_health(connection)
        ask_health(stack.enter_context(connect(server)))
        assert read_all(resting[0]) == b""
        ask_health(resting[1])


def test_where_every_connection_works_one_more_is_503():
    with running(max_connections=2) as server, contextlib.ExitStack() as stack:
        for _ in range(2):
            busy = stack.enter_context(connect(server))
            busy.sendall(request("/v1/stream?n=6000&seconds=0.01", method="GET"))
            assert busy.recv(1000)
        answer = exchange(server.address, request("/health", method="GET"))
        assert status_of(answer) == 503 and error_of(answer)["code"] == "too_many_connections" and b"retry-after: " in answer


# The socket


def test_a_port_in_use_is_a_resource_error_that_names_a_free_one():
    with bind(ServeSettings(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ResourceError, match=rf"port {port} of 127\.0\.0\.1 is in use .* --port [1-9]\d+"):
            bind(ServeSettings(port=port))


@pytest.mark.parametrize("host", ["no.such.host.invalid", "256.1.1.1", "192.0.2.1", "", "x" * 300, "a\x00b"])
def test_an_address_that_is_not_ours_is_a_resource_error(host):
    with pytest.raises(ResourceError, match=r"127\.0\.0\.1"):
        bind(ServeSettings(host=host, port=0))


@pytest.mark.parametrize(
    ("host", "start"),
    [("127.0.0.1", "http://127.0.0.1:"), ("localhost", "http://"), ("::1", "http://[::1]:"), ("[::1]", "http://[::1]:")],
)
def test_the_url_is_one_that_a_browser_takes(host, start):
    if ":" in host and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with bind(ServeSettings(host=host, port=0)) as listener:
        assert url_of(listener).startswith(start) and httpx.URL(url_of(listener)).port


def test_a_server_on_every_address_is_shown_as_one_that_can_be_opened():
    with bind(ServeSettings(host="0.0.0.0", port=0)) as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")
