"""The process: socket, signals, loading, readiness, and an end that loses nothing and takes no longer than it may."""

import asyncio
import contextlib
import errno
import functools
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from types import FrameType

import uvicorn

from inkstone.base.errors import ResourceError
from inkstone.serve.app import ServerState, build_app
from inkstone.serve.config import ServeSettings
from inkstone.serve.logs import NAME
from inkstone.serve.models import ServedModel
from inkstone.serve.protocol import Connections, HttpProtocol

WATCH_SECONDS = 0.25  # how often the engines are looked at
END_SECONDS = 2.0  # for error events and last bytes, when waiting is over
LAST_RESORT_SECONDS = 4.0  # after which the process ends whatever still hangs
SWITCH_SECONDS = 0.001  # Python's 5 ms would let the engine wait for the event loop that long, every step
_BACKLOG = 1024

Loader = Callable[[], list[ServedModel]]


class Server(uvicorn.Server):
    """uvicorn without its signal handling: it would end with the signal instead of 0, and answer nobody while it drains."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals alone."""
        yield


def bind(settings: ServeSettings) -> socket.socket:
    """Return a listening socket. Raises: ResourceError when the address cannot be had."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host.strip("[]"), settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ResourceError(f"host: {settings.host!r:.80} is no address of this machine - use 127.0.0.1") from error
    listener = socket.socket(family, kind)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _explain_bind(settings, error) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address as a browser takes it."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(
    state: ServerState, listener: socket.socket, load: Loader, *, on_ready: Callable[[], None] = lambda: None,
    app: Callable | None = None,
) -> None:  # fmt: skip
    """Serve until a signal or the death of an engine. `load` runs in a thread of its own, while /health answers already.

    A first SIGTERM or Ctrl-C ends gracefully and returns; a second one ends the process at once with 128 + its number.
    Raises: what `load` raises; what an engine died of.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    process = _Process(state, listener, load, on_ready, app)
    try:
        asyncio.run(process.live())
    finally:
        process.call_off_last_resort()
    if not process.is_loaded and state.lifecycle.failure is None:
        sys.stderr.flush()
        os._exit(0)  # interrupted while a thread was loading, which could not be ended in an orderly way


class _Process:
    def __init__(
        self, state: ServerState, listener: socket.socket, load: Loader, on_ready: Callable[[], None], app: Callable | None
    ) -> None:
        self._state, self._lifecycle, self._listener = state, state.lifecycle, listener
        self._load, self._on_ready = load, on_ready
        self._server = Server(_uvicorn_config(state, build_app(state) if app is None else app))
        self._log = logging.getLogger(NAME)
        self._last_resort: threading.Timer | None = None
        self.is_loaded = False

    async def live(self) -> None:
        """Load, serve, end."""
        with self._signals():
            serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
            working = [asyncio.create_task(work) for work in (self._become_ready(), self._watch())]
            ending = asyncio.create_task(self._lifecycle.wait_for_end())
            await asyncio.wait([serving, ending], return_when=asyncio.FIRST_COMPLETED)
            for task in (*working, ending):
                task.cancel()
            await self._finish_requests()
            self._server.should_exit = True
            await serving
        if self._lifecycle.failure is not None:
            raise _as_exception(self._lifecycle.failure)

    async def _become_ready(self) -> None:
        try:
            models = await _in_daemon_thread(self._load)
        except Exception as error:
            self._lifecycle.die(error)
            return
        self.is_loaded = True
        for model in models:
            self._state.models.add(model)
        self._lifecycle.become_ready()
        if self._lifecycle.phase == "ready":
            self._on_ready()

    async def _watch(self) -> None:
        """Notice an engine that died: the process then ends, so that whoever supervises it starts another."""
        while True:
            for model in self._state.models.all():
                if not model.thread.is_alive:
                    self._log.error("the engine of model %s died", model.name, exc_info=model.thread.failure)
                    self._lifecycle.die(model.thread.failure or RuntimeError("the engine's thread ended"))
                    return
            await asyncio.sleep(WATCH_SECONDS)

    async def _finish_requests(self) -> None:
        """Wait for running answers, then end those that are left: their callers get an error, never a text that looks whole."""
        grace = self._state.settings.grace_seconds if self._lifecycle.phase == "draining" else 0.0
        if self._lifecycle.num_running:
            self._log.info("%s: %d requests are running", self._lifecycle.phase, self._lifecycle.num_running)
        self._last_resort = _exit_later(grace + LAST_RESORT_SECONDS, 0 if self._lifecycle.phase == "draining" else 1)
        await self._lifecycle.wait_for_requests(grace)
        stopping = [asyncio.create_task(_in_daemon_thread(model.thread.stop)) for model in self._state.models.all()]
        if stopping:
            await asyncio.wait(stopping, timeout=END_SECONDS / 2)
        await self._lifecycle.wait_for_requests(END_SECONDS)

    def call_off_last_resort(self) -> None:
        """Let the process go on: its orderly end has come."""
        if self._last_resort is not None:
            self._last_resort.cancel()

    @contextlib.contextmanager
    def _signals(self) -> Generator[None, None, None]:
        """Drain on the first signal, leave on the second. Handlers of `signal` run even while the loop is busy."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        seen: list[int] = []

        def handle(number: int, _: FrameType | None) -> None:
            seen.append(number)
            if len(seen) > 1:
                os._exit(128 + number)
            self._lifecycle.drain()

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _uvicorn_config(state: ServerState, app: Callable) -> uvicorn.Config:
    settings = state.settings
    return uvicorn.Config(
        app, http=functools.partial(HttpProtocol, Connections(settings, state.metrics, _most_connections(settings))),  # type: ignore[arg-type]
        loop="asyncio", ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False, server_header=False,
        h11_max_incomplete_event_size=settings.max_header_bytes, timeout_keep_alive=settings.idle_seconds,  # type: ignore[arg-type]
        timeout_graceful_shutdown=1,
    )  # fmt: skip


def _most_connections(settings: ServeSettings) -> int:
    """Return how many connections there may be: as set, and no more than leave files for everything else."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return settings.max_connections
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return settings.max_connections if soft < 0 else max(min(settings.max_connections, soft * 3 // 4 - 16), 1)


async def _in_daemon_thread(function: Callable) -> list[ServedModel]:
    """Return what the function returns; an end of the process does not wait for it, as it would for an executor's thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future = loop.create_future()

    def settle(set_it: Callable, value: object) -> None:
        if not future.done():
            set_it(value)

    def run() -> None:
        try:
            result = function()
        except BaseException as error:
            outcome = (future.set_exception, _as_exception(error))
        else:
            outcome = (future.set_result, result)
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="inkstone-serve", daemon=True).start()
    return await future


def _exit_later(seconds: float, code: int) -> threading.Timer:
    """End the process when its orderly end has not come in time, whatever it hangs on."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()
    return timer


def _as_exception(error: BaseException) -> Exception:
    """Return the error, or a RuntimeError for what is no Exception (a panic of a Rust library)."""
    return error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")


def _explain_bind(settings: ServeSettings, error: OSError) -> ResourceError:
    where = f"port {settings.port} of {settings.host}"
    if error.errno == errno.EADDRINUSE:
        return ResourceError(f"port: {where} is in use - stop the other program, or use --port {_free_port(settings.host)}")
    if error.errno == errno.EACCES:
        return ResourceError(f"port: {where} is not allowed for this user - use one above 1023, such as --port 8000")
    return ResourceError(f"host: cannot listen on {where}: {error.strerror or error} - use --host 127.0.0.1")


def _free_port(host: str) -> int:
    """Return a port that was free a moment ago."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe, contextlib.suppress(OSError):
        probe.bind((host.strip("[]"), 0))
        return probe.getsockname()[1]
    return 0
