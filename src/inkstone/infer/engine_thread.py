"""The thread that drives an engine: steps while there is work, sleeps while there is none."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from inkstone.infer.engine import Engine, Ticket
from inkstone.infer.request import Listener, Request

T = TypeVar("T")
P = ParamSpec("P")


class EngineThread:
    """Guards the one thread in which `engine.step`, its listeners and what `call` was given run."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.failure: BaseException | None = None  # why the thread died

    def start(self) -> None:
        """Begin; to be called once."""
        raise NotImplementedError

    @property
    def is_alive(self) -> bool:
        """Whether requests are worked on."""
        raise NotImplementedError

    def submit(self, request: Request, listener: Listener) -> Ticket:
        """As `Engine.submit`; the listener is called in the engine's thread and must not block."""
        raise NotImplementedError

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run a function in the engine's thread, between two steps."""
        raise NotImplementedError

    def stop_accepting(self) -> None:
        """Refuse new requests and calls with EngineClosed; what was taken goes on."""
        raise NotImplementedError

    def drain(self, timeout_seconds: float) -> bool:
        """Stop accepting and wait until nothing is left; return whether that was so in time."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the thread after the running step; what is unfinished hears Piece(error=EngineClosed)."""
        raise NotImplementedError
