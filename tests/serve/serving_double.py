"""A server around an engine that only pretends: its shell is real, down to sockets and signals. Run as a program, it is a process of its own."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
import time
from types import SimpleNamespace

from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from inkstone.infer.engine import EngineClosed, EngineStats
from inkstone.infer.request import Piece, Usage
from inkstone.serve.app import ServerState, build_app, find_routes
from inkstone.serve.body import read_json
from inkstone.serve.config import ServeSettings
from inkstone.serve.errors import error_bytes, error_object, to_api_error
from inkstone.serve.models import ServedModel
from inkstone.serve.server import bind, run_server

QUICK = {"port": 0, "header_seconds": 0.5, "body_seconds": 0.5, "idle_seconds": 0.05, "write_seconds": 0.6, "grace_seconds": 5.0}

PATIENCE = 60.0  # seconds after which a test gives up on a server that should have done something long before


class FakeThread:
    """An engine thread that sends `num_pieces` letters to each listener, one every `seconds`."""

    def __init__(self):
        self.failure, self.is_alive = None, True
        self.num_running = 0
        self._ending = threading.Event()
        self.engine = SimpleNamespace(stats=lambda: EngineStats(running=self.num_running, slots=8, finished=3, prompt_tokens=7))

    def submit(self, request, listener):
        worker = threading.Thread(target=self._work, args=(*request, listener), daemon=True)
        worker.start()
        return SimpleNamespace(cancel=lambda: None)

    def _work(self, num_pieces, seconds, listener):
        self.num_running += 1
        for _ in range(num_pieces):
            if self._ending.wait(seconds):
                listener(Piece(error=EngineClosed("stopped"), usage=Usage(1, 1)))
                break
            listener(Piece(text="x"))
        else:
            listener(
                Piece(finish="length", usage=Usage(1, num_pieces, first_token_seconds=seconds, total_seconds=seconds * num_pieces))
            )
        self.num_running -= 1

    def stop(self):
        self._ending.set()

    def die(self, failure):
        self.failure, self.is_alive = failure, False
        self._ending.set()


def fake_model(name="fake", thread=None, observe=None):
    return ServedModel(
        name=name,
        created=1,
        tokenizer=None,
        context=64,
        thread=thread or FakeThread(),
        is_chat_tuned=False,
        model=None,
        observe=observe,
    )


def fake_routes():
    """A route for everything that a handler can do."""

    async def take(request):
        return JSONResponse(await read_json(request))

    async def raise_it(request):
        raise RAISED[request.path_params["what"]]

    async def break_off(request):
        async def pieces():
            yield b"half of"
            raise RuntimeError("in the middle")

        return StreamingResponse(pieces())

    async def stream(request):
        query = request.query_params
        return StreamingResponse(
            _events(request, int(query.get("n", 5)), float(query.get("seconds", 0.01))), media_type="text/event-stream"
        )

    async def flood(request):
        async def pieces():
            for _ in range(int(request.query_params["n"])):
                yield b"x" * 65536

        return StreamingResponse(pieces())

    async def die(request):
        request.app.state.models.get("fake").thread.die(RuntimeError("the device is gone"))
        return JSONResponse({})

    return [
        Route("/v1/take", take, methods=["POST"]), Route("/v1/raise/{what}", raise_it), Route("/v1/break", break_off),
        Route("/v1/stream", stream), Route("/v1/flood", flood), Route("/v1/die", die),
    ]  # fmt: skip


class Panic(BaseException):
    """As a Rust library raises it."""


RAISED = {
    "bug": RuntimeError("/srv/hidden/secret.py at 0x7f0012345678"),
    "panic": Panic("index out of bounds"),
}


async def _events(request, num_pieces, seconds):
    loop, pieces = asyncio.get_running_loop(), asyncio.Queue()
    model = request.app.state.models.get("fake")
    model.submit((num_pieces, seconds), lambda piece: loop.call_soon_threadsafe(pieces.put_nowait, piece))
    while True:
        piece = await pieces.get()
        if piece.error is not None:
            yield b"data: " + error_bytes(error_object(to_api_error(piece.error))) + b"\n\n"
            return
        if piece.finish is not None:
            yield b"data: [DONE]\n\n"
            return
        yield f"data: {json.dumps({'text': piece.text})}\n\n".encode()


def fake_state(keys=(), **settings):
    return ServerState(ServeSettings(**(QUICK | settings)), keys=tuple(keys), has_page=False)


def fake_app(state):
    return build_app(state, [*find_routes(has_page=False), *fake_routes()])


@contextlib.contextmanager
def running(keys=(), load=None, **settings):
    """A server in a thread of this process; yields (host, port) and its state."""
    state = fake_state(keys, **settings)
    listener = bind(state.settings)
    model = fake_model(observe=state.metrics.observe_sequence)
    failure = []

    def work():
        try:
            run_server(state, listener, load or (lambda: [model]), app=fake_app(state))
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=work)
    address = listener.getsockname()[:2]
    thread.start()
    try:
        wait_until(lambda: state.lifecycle.phase != "loading" or load is not None)
        yield SimpleNamespace(address=address, url=f"http://{address[0]}:{address[1]}", state=state, model=model, failure=failure)
    finally:
        state.lifecycle.drain()
        thread.join(10)
        assert not thread.is_alive(), "the server did not end"


def wait_until(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not come true"
        time.sleep(0.01)


def exchange(address, data):
    """Send bytes on a socket of their own and return all that comes back until the server closes."""
    with socket.create_connection(address, timeout=PATIENCE) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        return read_all(connection)


def read_all(connection):
    """Return what comes until the server closes or resets; TimeoutError when it does neither."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            found += piece
    return found


def request(path="/v1/take", body=b"", *headers, method="POST", host="localhost", kind="application/json"):
    """Return the bytes of a request with a length, unless the headers speak of one themselves."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *([f"Content-Type: {kind}"] if kind else []), *headers]
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def status_of(answer):
    return int(answer.split(b" ", 2)[1])


def error_of(answer):
    """Return the error inside an answer's bytes."""
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]


def main():
    """Serve in this process until a signal: `python serving_double.py '{"settings": {...}, "load_seconds": 0}'`."""
    from inkstone.serve.logs import log_to_stderr

    given = json.loads(sys.argv[1])
    log_to_stderr()
    state = fake_state(**given.get("settings", {}))
    listener = bind(state.settings)
    print(listener.getsockname()[1], flush=True)

    def load():
        time.sleep(given.get("load_seconds", 0))
        return [fake_model()]

    run_server(state, listener, load, on_ready=lambda: print("ready", flush=True), app=fake_app(state))
    print("ended", os.getpid(), flush=True)


if __name__ == "__main__":
    main()
