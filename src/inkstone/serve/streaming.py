"""Replies as they go out: a stream of server-sent events, or one object at the end. Both end what they have begun when nobody listens.

Order of a stream: a chunk with the role for each choice from 0 up, the pieces of text, the end of each choice, the usage where it was
asked for, `[DONE]`. After a failure comes an error object and no `[DONE]`: it never looks like a whole text.
"""

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from inkstone.infer.request import Piece
from inkstone.serve.deltas import Delta, join
from inkstone.serve.errors import ApiError, error_bytes, error_object, to_api_error
from inkstone.serve.logs import NAME
from inkstone.serve.sequences import Sequences, Watch

if TYPE_CHECKING:
    from inkstone.serve.generation import Plan

PING_SECONDS = 15.0
PATIENCE_SECONDS = 1.0  # so long a failure can still become a status; then the headers go out, for clients wait for them
_PING = b": ping\n\n"
_DONE = b"data: [DONE]\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"),
]  # fmt: skip
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_MARK = "\x00text\x00"  # stands where the text goes in a template
_LINE_ENDS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})  # some clients' lines end there, too


def encode_text(text: str) -> bytes:
    """Return a JSON string that stays on one line for everybody."""
    written = _ENCODER.encode(text)
    return (written if text.isascii() else written.translate(_LINE_ENDS)).encode()


def encode_event(data: Mapping[str, Any]) -> bytes:
    """Return one event."""
    written = _ENCODER.encode(data)
    return b"data: " + (written if written.isascii() else written.translate(_LINE_ENDS)).encode() + b"\n\n"


class WholeReply:
    """The answer as one object; an ASGI application."""

    def __init__(self, plan: "Plan", sequences: Sequences, *, seconds: float) -> None:
        self._plan, self._sequences, self._seconds = plan, sequences, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer. Raises: ApiError when a sequence fails or time is up; ClientDisconnect."""
        texts, deltas = self._plan.begin(), [list[Delta]() for _ in self._plan.requests]
        async with Watch(self._sequences, receive):
            try:
                async with asyncio.timeout(self._seconds):
                    while self._sequences.num_live:
                        for index, piece in await self._sequences.listen():
                            deltas[index].append(texts.push(index, piece))
            except TimeoutError:
                raise out_of_time(self._seconds) from None
        form = self._plan.form
        choices = []
        for place, index in enumerate(texts.choose()):
            whole = join(deltas[index])
            choices.append(form.choice(place, whole, texts.logprobs(whole)))
        reply = {
            **self._plan.head,
            "object": form.reply_kind,
            "choices": choices,
            "usage": texts.usage(),
            "timings": texts.timings(),
        }
        await JSONResponse(reply)(scope, receive, send)


class StreamedReply:
    """The answer as it comes; an ASGI application."""

    def __init__(self, plan: "Plan", sequences: Sequences, *, seconds: float, includes_usage: bool) -> None:
        self._plan, self._sequences, self._seconds = plan, sequences, seconds
        self._texts = plan.begin()
        self._writer = ChunkWriter(plan, includes_usage=includes_usage)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream. Raises: ApiError when something fails before it has begun; ClientDisconnect."""
        async with Watch(self._sequences, receive):
            deadline = asyncio.get_running_loop().time() + self._seconds
            block = await self._hear(min(PATIENCE_SECONDS, self._seconds), deadline)
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send(_body(self._writer.opening() + block))
            try:
                while self._sequences.num_live:
                    await send(_body(await self._hear(PING_SECONDS, deadline) or _PING))
                last = self._writer.closing(self._texts) + _DONE
            except ClientDisconnect:
                raise
            except Exception as error:
                last = _explain(error)
            await send({"type": "http.response.body", "body": last})

    async def _hear(self, seconds: float, deadline: float) -> bytes:
        """Return the events of what comes within some seconds; nothing came = nothing. Raises: ApiError."""
        until = min(asyncio.get_running_loop().time() + seconds, deadline)
        try:
            async with asyncio.timeout_at(until):
                heard = await self._sequences.listen()
        except TimeoutError:
            if asyncio.get_running_loop().time() >= deadline:
                raise out_of_time(self._seconds) from None
            return b""
        return self._writer.events(self._texts, heard)


class ChunkWriter:
    """Writes events; what is the same in all chunks of one choice is written once."""

    def __init__(self, plan: "Plan", *, includes_usage: bool) -> None:
        self._plan, self._includes_usage = plan, includes_usage
        self._templates: dict[int, tuple[bytes, bytes]] = {}
        self._head = {**plan.head, "object": plan.form.chunk_kind}
        self._num_open = len(plan.requests)

    def opening(self) -> bytes:
        """Return the chunks that introduce the choices, in order."""
        choices = [self._plan.form.opening(index) for index in range(len(self._plan.requests))]
        return b"".join([self._chunk(choice) for choice in choices if choice is not None])

    def events(self, texts: Any, heard: Iterable[tuple[int, Piece]]) -> bytes:
        """Return the events of what was heard; pieces of one choice that came together go into one."""
        deltas: dict[int, list[Delta]] = {}
        for index, piece in heard:
            deltas.setdefault(index, []).append(texts.push(index, piece))
        return b"".join([self._event(texts, index, join(some)) for index, some in deltas.items()])

    def closing(self, texts: Any) -> bytes:
        """Return the chunk with the usage, where it was asked for."""
        if not self._includes_usage:
            return b""
        return encode_event({**self._head, "choices": [], "usage": texts.usage(), "timings": texts.timings()})

    def _event(self, texts: Any, index: int, delta: Delta) -> bytes:
        if not delta.tokens and delta.finish is None:
            if not delta.text:
                return b""
            before, after = self._template(index)
            return before + encode_text(delta.text) + after
        choices = self._plan.form.pieces(index, delta, texts.logprobs(delta) if delta.tokens else None)
        self._num_open -= delta.finish is not None
        is_last = self._num_open == 0 and not self._includes_usage
        extra = {"timings": texts.timings()} if is_last and delta.finish is not None else {}
        return b"".join([self._chunk(choice, extra if choice is choices[-1] else {}) for choice in choices])

    def _chunk(self, choice: dict[str, Any], extra: Mapping[str, Any] | None = None) -> bytes:
        usage = {"usage": None} if self._includes_usage else {}
        return encode_event({**self._head, "choices": [choice], **usage, **(extra or {})})

    def _template(self, index: int) -> tuple[bytes, bytes]:
        """Return what stands before and behind the text in a chunk that has nothing else."""
        if index not in self._templates:
            whole = self._chunk(self._plan.form.pieces(index, Delta(_MARK), None)[0])
            before, after = whole.split(encode_text(_MARK))
            self._templates[index] = (before, after)
        return self._templates[index]


def out_of_time(seconds: float) -> ApiError:
    """Return the 504 of a request that took too long."""
    return ApiError(504, f"the request was not done within {seconds:g} seconds", type="server_error", code="deadline_exceeded")


def _explain(error: Exception) -> bytes:
    """Return the event of a failure; a bug is logged, for no status tells of it."""
    shown = to_api_error(error)
    if shown.status == 500 and not isinstance(error, ApiError):
        logging.getLogger(NAME).error("a stream failed", exc_info=error)
    return b"data: " + error_bytes(error_object(shown)) + b"\n\n"


def _body(block: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": block, "more_body": True}
