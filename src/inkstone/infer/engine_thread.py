"""The thread that drives an engine: steps while there is work, sleeps while there is none."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

from inkstone.infer.engine import Engine, EngineClosed, Ticket
from inkstone.infer.request import Listener, Request

T = TypeVar("T")
P = ParamSpec("P")


class EngineThread:
    """Guards the one thread in which `engine.step`, its listeners and what `call` was given run."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.failure: BaseException | None = None  # why the thread died
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()  # guards what follows, and wakes the thread and those who drain
        self._is_accepting, self._is_stopping, self._is_busy = True, False, False
        self._thread = threading.Thread(target=self._run, name="inkstone-engine", daemon=True)

    def start(self) -> None:
        """Begin; to be called once."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether requests are worked on."""
        return self._thread.is_alive() and self.failure is None and not self._is_stopping

    def submit(self, request: Request, listener: Listener) -> Ticket:
        """As `Engine.submit`; the listener is called in the engine's thread and must not block."""
        ticket = self.engine.submit(request, listener)
        self._wake()
        return ticket

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run a function in the engine's thread, between two steps. Raises: EngineClosed."""
        future: Future[T] = Future()
        with self._changed:
            if not self._is_accepting:
                raise EngineClosed("the engine is shutting down - send the request again later")
            self._calls.append((future, lambda: function(*args, **kwargs)))
            self._changed.notify_all()
        return future

    def stop_accepting(self) -> None:
        """Refuse new requests and calls with EngineClosed; what was taken goes on."""
        self.engine.stop_accepting()
        with self._changed:
            self._is_accepting = False

    def drain(self, timeout_seconds: float) -> bool:
        """Stop accepting and wait until nothing is left; return whether that was so in time."""
        self.stop_accepting()
        with self._changed:
            return self._changed.wait_for(lambda: not (self._is_busy or self._has_work()), timeout_seconds)

    def stop(self) -> None:
        """End the thread after the running step; what is unfinished hears Piece(error=EngineClosed). May be repeated."""
        self.stop_accepting()
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _has_work(self) -> bool:
        return bool(self._calls) or self.engine.has_work

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._call_one()
                self.engine.step()
        except BaseException as error:  # a bug, or the device is gone: whoever watches `failure` ends the process
            self.failure = error
        finally:
            self._close()

    def _wait_for_work(self) -> bool:
        """Sleep until there is something to do; return False when the thread is to end."""
        with self._changed:
            self._is_busy = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_stopping or self._has_work())
            self._is_busy = not self._is_stopping
            return self._is_busy

    def _call_one(self) -> None:
        """Run one of the waiting calls, so that many of them cannot hold up the sequences."""
        if not self._calls:
            return
        future, function = self._calls.popleft()
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)

    def _close(self) -> None:
        reason = "the engine has failed" if self.failure is not None else "the engine was stopped"
        error = EngineClosed(f"{reason} before the text was finished")
        self.stop_accepting()
        self.engine.abort(error)
        with self._changed:
            while self._calls:
                future, _ = self._calls.popleft()
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
            self._is_busy = False
            self._changed.notify_all()
