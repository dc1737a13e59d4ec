"""What the server is doing with its life: loading, ready, draining or dead; and how many requests are under way."""

import asyncio
from typing import Literal, TypeVar

from inkstone.serve.errors import ApiError, unavailable

Phase = Literal["loading", "ready", "draining", "dead"]
E = TypeVar("E")
_REFUSALS = {
    "loading": ("loading", "the model is still being loaded", 2),
    "draining": ("shutting_down", "the server is shutting down", 5),
    "dead": ("engine_dead", "the engine failed and the server is about to end", 5),
}


class Lifecycle:
    """The phase, which only moves forward, whichever thread or signal handler moves it. The rest belongs to the event loop's thread."""

    def __init__(self) -> None:
        self.phase: Phase = "loading"
        self.failure: BaseException | None = None  # why it is dead
        self.num_running = 0  # requests that draining waits for
        self._ended = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None  # of whoever waits for the end

    def become_ready(self) -> None:
        """Answer requests from now on, unless the end has come already."""
        if self.phase == "loading":
            self.phase = "ready"

    def drain(self) -> None:
        """Take no new requests; what runs may finish."""
        if self.phase in ("loading", "ready"):
            self._end("draining")

    def die(self, failure: BaseException) -> None:
        """The engine is gone: refuse everything and remember why."""
        if self.phase != "dead":
            self.failure = failure
            self._end("dead")

    def refusal(self) -> ApiError | None:
        """Return why a request cannot be answered now; None = it can."""
        if self.phase == "ready":
            return None
        code, message, seconds = _REFUSALS[self.phase]
        return unavailable(code, message, retry_seconds=seconds)

    async def wait_for_end(self) -> None:
        """Return as soon as the server is draining or dead."""
        self._loop = asyncio.get_running_loop()
        if self.phase in ("loading", "ready"):
            await self._ended.wait()

    async def wait_for_requests(self, seconds: float) -> bool:
        """Return whether every request under way was over in time."""
        deadline = asyncio.get_running_loop().time() + seconds
        while self.num_running:
            if asyncio.get_running_loop().time() >= deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    def _end(self, phase: Phase) -> None:
        self.phase = phase
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.set)


def in_every_phase(endpoint: E) -> E:
    """Mark a route's endpoint as one that answers while the server loads, drains or dies (a decorator)."""
    endpoint.in_every_phase = True  # type: ignore[attr-defined]
    return endpoint


def answers_in_every_phase(endpoint: object) -> bool:
    """Return whether a route's endpoint was marked so."""
    return getattr(endpoint, "in_every_phase", False)
