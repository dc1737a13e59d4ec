"""The sequences of one request: submitted together, heard in one place, cancelled together when nobody listens any more."""

import asyncio
import dataclasses
import functools
import logging
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from inkstone.base.errors import RequestError
from inkstone.infer.admission import may_wait, retry_after_seconds
from inkstone.infer.engine import EngineClosed
from inkstone.infer.request import Piece
from inkstone.serve.errors import ApiError, overloaded, to_api_error
from inkstone.serve.logs import NAME

if TYPE_CHECKING:
    from inkstone.infer.engine import Ticket
    from inkstone.infer.request import Request
    from inkstone.serve.models import ServedModel


class Mailbox:
    """The way of pieces from the engines' threads to the event loop. The first of a burst wakes the loop, the others ride along."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Sequences, int, Piece]] = deque()
        self._is_announced = False

    @classmethod
    def of(cls, app: Starlette) -> "Mailbox":
        """Return the one of an application; the first request makes it."""
        loop = asyncio.get_running_loop()
        mailbox = getattr(app.state, "mailbox", None)
        if mailbox is None or mailbox._loop is not loop:
            mailbox = app.state.mailbox = cls(loop)
        return mailbox

    def put(self, to: "Sequences", index: int, piece: Piece) -> None:
        """Hand a piece over. Called in an engine's thread."""
        self._waiting.append((to, index, piece))
        if not self._is_announced:
            self._is_announced = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_announced = False  # first: what comes from now on announces itself again
        while self._waiting:
            to, index, piece = self._waiting.popleft()
            to.hear(index, piece)


class Sequences:
    """Guards what is live of one request. All but `Mailbox.put` belongs to the event loop."""

    def __init__(self, model: "ServedModel", requests: Sequence["Request"], mailbox: Mailbox) -> None:
        """Submit all of them or none. Raises: ApiError 429 or 503, RequestError."""
        self._heard: list[tuple[int, Piece]] = []
        self._changed = asyncio.Event()
        self._has_left = False
        self._model = model
        self.num_live = len(requests)  # whose end was not yet returned by `listen`
        self._tickets: list[Ticket] = []
        try:
            for index, request in enumerate(requests):
                self._tickets.append(model.submit(request, functools.partial(mailbox.put, self, index)))
        except Exception:
            self.cancel()
            raise

    def hear(self, index: int, piece: Piece) -> None:
        """Take a piece of one sequence."""
        self._heard.append((index, piece))
        self._changed.set()

    def leave(self) -> None:
        """The caller went away: whoever waits for pieces gets ClientDisconnect."""
        self._has_left = True
        self._changed.set()

    def cancel(self) -> None:
        """End what is live at the engine's next step."""
        for ticket in self._tickets:
            ticket.cancel()

    async def listen(self) -> list[tuple[int, Piece]]:
        """Wait, and return all pieces that have come, in order, each with the index of its sequence.

        Raises: ClientDisconnect; ApiError when one of the sequences failed.
        """
        await self._changed.wait()
        self._changed.clear()
        if self._has_left:
            raise ClientDisconnect
        heard, self._heard = self._heard, []
        for _, piece in heard:
            self.num_live -= piece.is_last
            if piece.error is not None:
                raise explain_failure(piece.error, self._model)
            if piece.finish == "cancelled":
                raise ApiError(500, "the text was cancelled by the server", type="server_error", code="engine_error")
        return heard


@dataclasses.dataclass
class Watch:
    """Tells sequences when their caller goes away, for as long as a `with` block lasts; at its end they are cancelled."""

    sequences: Sequences
    receive: Receive

    async def __aenter__(self) -> "Watch":
        self._task = asyncio.create_task(wait_until_gone(self.receive, self.sequences.leave))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        if self.sequences.num_live:
            self.sequences.cancel()


async def wait_until_gone(receive: Receive, then: Any) -> None:
    """Call `then` when the caller has closed the connection. A body that was read is followed by nothing else."""
    while (await receive())["type"] != "http.disconnect":
        pass
    then()


def check_room(model: "ServedModel", num_sequences: int, *, param: str = "n") -> None:
    """Refuse what could never be taken, or cannot be taken now, before any work is done for it.

    Raises: ApiError 400, 429.
    """
    stats = model.thread.engine.stats()
    most = stats.slots + stats.max_waiting
    if num_sequences > most:
        raise ApiError(
            400,
            f"{param}: the request asks for {num_sequences:,} texts, and this server takes at most {most:,} at once",
            param=param,
        )
    if not may_wait(num_waiting=stats.waiting + num_sequences - 1, num_free=stats.free_slots, max_waiting=stats.max_waiting):
        raise overloaded(retry_after_seconds(num_waiting=stats.waiting + 1, num_slots=stats.slots, seconds_each=1.0))


def explain_failure(error: Exception, model: "ServedModel") -> ApiError:
    """Return what the caller is told of a sequence that failed; the log is told more."""
    if isinstance(error, RequestError | EngineClosed | ApiError):
        return to_api_error(error)
    logging.getLogger(NAME).error("model %s failed at one sequence", model.name, exc_info=error)
    return ApiError(500, "the engine failed at this request", type="server_error", code="engine_error")
