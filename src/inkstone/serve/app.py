"""The web application: the routes, and around them the one place where requests are refused, named, counted and logged.

A file in `serve/routes` with a function `routes()`, and its name in `_GROUPS`, is all that a new group of addresses needs.
"""

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inkstone.serve.config import ServeSettings, is_loopback
from inkstone.serve.errors import error_response, to_api_error
from inkstone.serve.guards import Guard, Headers, is_public
from inkstone.serve.lifecycle import Lifecycle, answers_in_every_phase
from inkstone.serve.logs import NAME, escape
from inkstone.serve.metrics import Metrics
from inkstone.serve.models import ServedModels
from inkstone.serve.routes import chat, completions, embeddings, health, models, openapi, page, tokenize

_GROUPS = (health, models, completions, chat, embeddings, tokenize, openapi)
CALLER_LEFT = 499  # in logs and metrics only: nobody is there to read it
_METHODS = ("GET", "HEAD", "POST", "OPTIONS")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MUST_PASS = (asyncio.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit)


@dataclass
class ServerState:
    """What routes find under `request.app.state`, by these names (the keys excepted)."""

    settings: ServeSettings
    keys: tuple[str, ...] = ()  # as `load_keys` returns them
    has_page: bool = True
    models: ServedModels = field(default_factory=ServedModels)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.models)


def build_app(state: ServerState, routes: Sequence[Route] | None = None) -> Starlette:
    """Return the application; `routes` None = those of every module in `serve/routes`."""
    routes = find_routes(has_page=state.has_page) if routes is None else routes
    public_paths = {route.path for route in routes if is_public(route.endpoint)}
    settings = state.settings
    guard = Guard(
        is_local=is_loopback(settings.host), keys=state.keys, origins=settings.cors_origins or (),
        public_paths=public_paths | ({"/metrics"} if settings.public_metrics else set()), max_header_bytes=settings.max_header_bytes,
    )  # fmt: skip
    app = Starlette(
        routes=routes, middleware=[Middleware(Envelope, state=state, guard=guard, routes=routes)],
        exception_handlers={HTTPException: _explain_status},
    )  # fmt: skip
    app.router.redirect_slashes = False  # a redirected POST loses its body
    app.state.settings, app.state.models = settings, state.models
    app.state.lifecycle, app.state.metrics = state.lifecycle, state.metrics
    return app


def find_routes(*, has_page: bool = True) -> list[Route]:
    """Return the routes of every group, and those of the page where there is to be one."""
    return [route for group in (*_GROUPS, *([page] if has_page else [])) for route in group.routes()]


def request_id(request: Request) -> str:
    """Return the name of a request, which its answer and the log carry too."""
    return request.scope["state"]["request_id"]


async def _explain_status(_: Request, error: Exception) -> Response:
    return error_response(to_api_error(error))


class Envelope:
    """What every request passes through on its way in and out: pure ASGI, and next to nothing for each piece of a stream."""

    def __init__(self, app: ASGIApp, *, state: ServerState, guard: Guard, routes: Sequence[Route]) -> None:
        self._app, self._guard = app, guard
        self._lifecycle, self._metrics = state.lifecycle, state.metrics
        self._log = logging.getLogger(NAME)
        self._paths: dict[object, str] = {route.endpoint: route.path for route in routes}
        self._always = {route.path for route in routes if answers_in_every_phase(route.endpoint)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whatever is raised inside becomes an error object, or cuts an answer that has begun."""
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        answer = _Answer(send, _choose_id(scope), self._guard.cors_headers(scope["headers"]))
        scope.setdefault("state", {})["request_id"] = answer.request_id
        is_counted = scope["path"] not in self._always
        self._lifecycle.num_running += is_counted
        try:
            await self._respond(scope, receive, answer, is_counted)
        except ClientDisconnect:
            pass
        except _MUST_PASS:
            raise
        except BaseException as error:  # a panic of a Rust library is no Exception
            await self._fail(scope, receive, answer, error)
        finally:
            self._lifecycle.num_running -= is_counted
            self._record(scope, answer, time.perf_counter() - started, is_logged=is_counted)

    async def _respond(self, scope: Scope, receive: Receive, answer: "_Answer", is_counted: bool) -> None:
        preflight = self._guard.preflight_headers(scope)
        if preflight is not None:
            await answer.send({"type": "http.response.start", "status": 204, "headers": preflight})
            await answer.send({"type": "http.response.body"})
            return
        self._guard.check(scope)
        refusal = self._lifecycle.refusal() if is_counted else None
        if refusal is not None:
            raise refusal
        await self._app(scope, receive, answer.send)

    async def _fail(self, scope: Scope, receive: Receive, answer: "_Answer", error: BaseException) -> None:
        shown = to_api_error(error)
        if shown.code == "shutting_down" and self._lifecycle.phase == "dead":
            shown = self._lifecycle.refusal() or shown
        if shown.status == 500:
            self._log.error("request %s failed", answer.request_id, exc_info=error)
        if not answer.status:  # else the connection is cut: a short answer must not look like a whole one
            await error_response(shown)(scope, receive, answer.send)

    def _record(self, scope: Scope, answer: "_Answer", seconds: float, *, is_logged: bool) -> None:
        status = answer.status if answer.is_whole else CALLER_LEFT
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.observe_request(method, self._paths.get(scope.get("endpoint"), "none"), status, seconds)
        if is_logged:
            caller = (scope.get("client") or ("?",))[0]
            self._log.info(
                "%s %s %d %.3fs id=%s from=%s", method, escape(scope["path"]), status, seconds, answer.request_id, caller
            )


class _Answer:
    """The way out of one request: adds our headers, and remembers how far the answer got."""

    __slots__ = ("_send", "extra", "is_whole", "request_id", "status")

    def __init__(self, send: Send, request_id: str, cors: Headers) -> None:
        self._send, self.request_id = send, request_id
        self.extra = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff"), *cors]
        self.status, self.is_whole = 0, False

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self.extra]
        elif not message.get("more_body", False):
            self.is_whole = True
        return self._send(message)


def _choose_id(scope: Scope) -> str:
    """Return the id that the caller chose, where it is harmless, else a new one."""
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"]
    return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else f"req_{secrets.token_hex(12)}"
