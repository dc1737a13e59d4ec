"""Loading, ready, draining, dead (S-10, S-11, H32): with real processes and real signals."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from serving_double import PATIENCE, read_all, request, running, status_of, wait_until

from inkstone.base.errors import CheckpointError
from inkstone.serve.errors import ApiError
from inkstone.serve.lifecycle import Lifecycle

PROGRAM = Path(__file__).with_name("serving_double.py")


@contextlib.contextmanager
def process(*, settings=None, wait=True, **given):
    """A server in a process of its own; it is killed at the end if it is still there."""
    argument = json.dumps({"settings": settings or {}, **given})
    server = subprocess.Popen([sys.executable, str(PROGRAM), argument], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline())
        if wait:
            assert server.stdout.readline() == "ready\n"
        yield SimpleNamespace(process=server, address=("127.0.0.1", port), url=f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.communicate()


class Stream:
    """A stream that is being read in a thread; `answer` is all of it once it is over."""

    def __init__(self, server, num_pieces, seconds=0.05):
        self.connection = socket.create_connection(server.address, timeout=PATIENCE)
        self.connection.sendall(request(f"/v1/stream?n={num_pieces}&seconds={seconds}", method="GET"))
        self.answer = self.connection.recv(10_000)
        while b"data:" not in self.answer:
            self.answer += self.connection.recv(10_000)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        self.answer += read_all(self.connection)

    def finish(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.answer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_streams_finish_refuses_what_is_new_and_ends_with_0(number):
    with process() as server:
        streams = [Stream(server, 30) for _ in range(8)]
        server.process.send_signal(number)
        wait_until(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
        refused = httpx.post(f"{server.url}/v1/take", json={})
        assert refused.status_code == 503 and 0 < int(refused.headers["retry-after"]) <= 120
        assert refused.json()["error"]["code"] == "shutting_down"
        assert httpx.get(f"{server.url}/health").status_code == 200
        for stream in streams:
            answer = stream.finish()
            assert answer.count(b"data: {") == 30 and b"[DONE]" in answer and answer.endswith(b"0\r\n\r\n")
        assert server.process.wait(PATIENCE) == 0
        assert "ended" in server.process.stdout.read()
        assert "Traceback" not in server.process.stderr.read()


def test_streams_that_outlast_the_grace_get_an_error_and_never_look_whole():
    with process(settings={"grace_seconds": 0.3}) as server:
        stream = Stream(server, 10_000)
        server.process.send_signal(signal.SIGTERM)
        answer = stream.finish()
        assert b'"code":"shutting_down"' in answer and b"[DONE]" not in answer
        assert server.process.wait(PATIENCE) == 0


def test_a_second_signal_ends_at_once():
    with process(settings={"grace_seconds": 600}) as server:
        stream = Stream(server, 10_000)
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: httpx.get(f"{server.url}/ready").status_code == 503)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE) == 130
        assert b"[DONE]" not in stream.finish()


def test_an_idle_server_ends_with_0_and_nothing_to_say():
    with process() as server, httpx.Client() as client:
        assert client.get(f"{server.url}/health").status_code == 200  # a connection that rests must not delay the end
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0
        assert server.process.stderr.read() == ""


def test_health_answers_while_the_model_is_loaded_and_ready_says_when_it_is():
    with process(wait=False, load_seconds=1.5) as server:
        assert httpx.get(f"{server.url}/health").status_code == 200
        answer = httpx.get(f"{server.url}/ready")
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "loading" and "retry-after" in answer.headers
        assert httpx.post(f"{server.url}/v1/take", json={}).status_code == 503
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        wait_until(lambda: httpx.get(f"{server.url}/ready").status_code == 200)
        assert httpx.post(f"{server.url}/v1/take", json={}).status_code == 200


def test_a_signal_while_loading_ends_with_0():
    with process(wait=False, load_seconds=600) as server:
        wait_until(lambda: httpx.get(f"{server.url}/health").status_code == 200)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0


def test_a_dead_engine_ends_the_process_with_an_error_and_its_streams_too():
    with process() as server:
        stream = Stream(server, 10_000)
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{server.url}/v1/die")
        answer = stream.finish()
        assert b'"error"' in answer and b"[DONE]" not in answer
        assert server.process.wait(PATIENCE) not in (0, None)
        assert "the device is gone" in server.process.stderr.read()


def test_a_dead_engine_is_not_ready_any_more_and_its_failure_is_raised():
    with running(grace_seconds=0) as server:
        holding = Stream(server, 10_000)
        server.model.thread.failure, server.model.thread.is_alive = ValueError("the device is gone"), False
        wait_until(lambda: server.state.lifecycle.phase == "dead")
        with contextlib.suppress(httpx.HTTPError):  # the process may be gone already
            answer = httpx.get(f"{server.url}/ready")
            assert answer.status_code == 503 and answer.json()["error"]["code"] == "engine_dead"
        holding.finish()
    assert [str(error) for error in server.failure] == ["the device is gone"]


def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_error():
    def load():
        raise CheckpointError("the weights are damaged")

    with running(load=load) as server:
        wait_until(lambda: server.failure)
    assert isinstance(server.failure[0], CheckpointError)


def test_no_phase_goes_back():
    lifecycle = Lifecycle()
    assert lifecycle.refusal().code == "loading"
    lifecycle.become_ready()
    assert lifecycle.refusal() is None
    lifecycle.drain()
    lifecycle.become_ready()
    assert lifecycle.phase == "draining" and isinstance(lifecycle.refusal(), ApiError)
    lifecycle.die(RuntimeError("x"))
    lifecycle.drain()
    lifecycle.die(RuntimeError("y"))
    assert lifecycle.phase == "dead" and str(lifecycle.failure) == "x" and lifecycle.refusal().code == "engine_dead"


def test_the_server_opens_no_connection_of_its_own():
    called = []

    def watch(event, arguments):
        if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname") and threading.current_thread() is not me:
            called.append((event, arguments))

    me = threading.current_thread()
    sys.addaudithook(watch)
    with running() as server, socket.create_connection(server.address, timeout=PATIENCE) as connection:
        connection.sendall(
            request("/v1/take", b'{"url": "http://192.0.2.1/"}') + request("/v1/stream?n=3", b"", "Connection: close", method="GET")
        )
        assert status_of(read_all(connection)) == 200
    assert called == []
