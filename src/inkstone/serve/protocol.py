"""HTTP/1.1 on one connection: uvicorn's protocol, with the deadlines, bounds and error objects that it lacks.

Written against uvicorn 0.34 to 0.54; what is overridden are the callbacks of asyncio and four methods of `H11Protocol`.
"""

import asyncio
import logging
import secrets
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from inkstone.serve.config import ServeSettings
from inkstone.serve.errors import ApiError, error_bytes, error_object, unavailable
from inkstone.serve.logs import NAME
from inkstone.serve.metrics import Metrics

EOF_GRACE_SECONDS = 0.4  # a caller that sends no more may still read; one that went away looks the same, and holds a slot
LINGER_SECONDS = 1.0  # time to take in what a refused caller still sends, so that it gets to read why
_SEND_BUFFER_BYTES = 256 * 1024  # what a slow reader may leave in the kernel


@dataclass
class Connections:
    """What all connections of a server share. `idle` holds those between two requests, the longest resting first."""

    settings: ServeSettings
    metrics: Metrics
    limit: int
    idle: dict["HttpProtocol", None] = field(default_factory=dict)

    def record_refusal(self, status: int, request_id: str) -> None:
        """Count and log bytes that were no request."""
        self.metrics.observe_request("other", "none", status, 0.0)
        logging.getLogger(NAME).info("invalid request %d id=%s", status, request_id)


class HttpProtocol(H11Protocol):
    """One connection. It ends when headers take too long, when it rests too long, and when its answer is not read."""

    def __init__(self, shared: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._shared, self._settings = shared, shared.settings
        self._request_timer: asyncio.TimerHandle | None = None  # until the headers of a request are there
        self._write_timer: asyncio.TimerHandle | None = None
        self._num_skipped = 0  # bytes of bodies that nobody wanted
        self._is_half_closed = False
        self.is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many connections and none of them is idle."""
        _configure(transport.get_extra_info("socket"), self._settings.write_seconds)
        super().connection_made(PatientTransport(transport, self))  # type: ignore[arg-type]
        if len(self.connections) > self._shared.limit and not self._make_room():
            self._refuse(unavailable("too_many_connections", "the server has as many connections as it may"))
            return
        self._rest()
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything."""
        self._shared.idle.pop(self, None)
        self._stop_request_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; what is left of an unwanted body is counted and thrown away."""
        self._shared.idle.pop(self, None)
        if self.transport.is_closing() or (self._is_between_requests and self.conn.their_state is h11.SEND_BODY):
            self._num_skipped += len(data)
            if self._num_skipped > self._settings.max_body_bytes:
                self.transport.abort()
        if self.transport.is_closing():
            return
        if self._request_timer is None and self._is_between_requests:
            self._await_request()
        super().data_received(data)
        if not self._is_between_requests:
            self._stop_request_timer()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Let an answer that is nearly done go out; then take the caller for gone."""
        if self._is_between_requests or self.transport.is_closing():
            return False
        self._is_half_closed = True
        self.loop.call_later(EOF_GRACE_SECONDS, self.transport.abort)
        return True

    def pause_writing(self) -> None:
        """The caller reads too slowly: wait, but not for ever."""
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._settings.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller has caught up."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def on_response_complete(self) -> None:
        """Rest until the next request, whose beginning may be here already."""
        super().on_response_complete()
        if self.transport.is_closing() or not self._is_between_requests:
            return
        if self._is_half_closed:
            self.transport.close()
        elif self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]:
            self._await_request()
        else:
            self._rest()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that rested too long, whether or not its last answer was read."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        """Say why these bytes are no request, where an answer can still begin; `msg` is uvicorn's word for all of them."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE) or self.transport.is_closing():
            self.transport.abort()
            return
        hint = getattr(sys.exception(), "error_status_hint", 400)  # called while h11's error is being handled
        if hint != 431:
            self._refuse(ApiError(400, "this is not a valid HTTP/1.1 request", code="bad_request"))
        elif b"\n" not in self.conn.trailing_data[0]:
            self._refuse(ApiError(414, "the address is too long", code="uri_too_long"))
        else:
            limit = self._settings.max_header_bytes
            self._refuse(ApiError(431, f"the headers are larger than {limit:,} bytes", code="headers_too_large"))

    @property
    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _rest(self) -> None:
        self._shared.idle[self] = None

    def _make_room(self) -> bool:
        """Close the connection that rested longest; return whether there was one."""
        oldest = next(iter(self._shared.idle), None)
        if oldest is None:
            return False
        del self._shared.idle[oldest]
        oldest.transport.abort()
        return True

    def _await_request(self) -> None:
        self._stop_request_timer()
        self._request_timer = self.loop.call_later(self._settings.header_seconds, self.transport.abort)

    def _stop_request_timer(self) -> None:
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _refuse(self, error: ApiError) -> None:
        """Answer with an error object outside of any request, and close."""
        request_id = f"req_{secrets.token_hex(12)}"
        self._shared.record_refusal(error.status, request_id)
        content = error_bytes(error_object(error))
        headers = {
            **error.headers, "content-type": "application/json", "content-length": str(len(content)), "connection": "close",
            "x-request-id": request_id, "x-content-type-options": "nosniff",
        }  # fmt: skip
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.is_refused = True
        self.transport.write(f"HTTP/1.1 {error.status} Refused\r\n{head}\r\n".encode() + content)
        self.transport.close()


class PatientTransport:
    """A transport whose `close` reads on for a moment where the caller still sends.

    Closing with bytes unread resets the connection, and the caller loses the answer that says why.
    """

    def __init__(self, transport: asyncio.Transport, protocol: HttpProtocol) -> None:
        self._transport, self._protocol = transport, protocol
        self._is_lingering = False
        self.write = transport.write  # looked up for each piece of a stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Return whether nothing more is to be written."""
        return self._is_lingering or self._transport.is_closing()

    def close(self) -> None:
        """Send what is written and end, after the caller's last bytes or a moment."""
        if self.is_closing():
            return
        protocol = self._protocol
        is_sending = protocol.is_refused or protocol.conn.their_state in (h11.SEND_BODY, h11.ERROR)
        if is_sending and self._transport.can_write_eof():
            self._is_lingering = True
            protocol.flow.resume_reading()
            self._transport.write_eof()
            protocol.loop.call_later(LINGER_SECONDS, self._transport.abort)
        else:
            self._transport.close()


def _configure(connection: socket.socket | None, write_seconds: float) -> None:
    """Bound what waits in the kernel for a caller that does not read, or is gone without a word."""
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * write_seconds))
