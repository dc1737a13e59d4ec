"""Every failure as the one object that OpenAI's clients read: {"error": {message, type, param, code}}, bounded and without internals."""

import json
from collections.abc import Mapping
from http.client import responses
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from inkstone.base.errors import RequestError
from inkstone.infer.engine import EngineClosed, QueueFull

MAX_ERROR_BYTES = 4096
MAX_ECHO_CHARACTERS = 200
MAX_RETRY_SECONDS = 120  # openai-python does not wait longer than this
_MAX_MESSAGE_CHARACTERS = 2000
_MAX_PARAM_CHARACTERS = 100

_TYPES = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error",
    500: "server_error", 503: "unavailable_error", 504: "server_error",
}  # fmt: skip
_REPEAT_IN_VAIN = (500, 501, 504)  # the official client would ask three times


class ApiError(Exception):
    """A failure with its HTTP status. `message` is shown to the caller: no path, address or secret belongs in it."""

    def __init__(
        self, status: int, message: str, *, type: str = "invalid_request_error", param: str | None = None, code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.type, self.param, self.code = status, message, type, param, code
        self.headers = dict(headers or {})


def echo(value: object) -> str:
    """Return what a caller sent as it may stand in a message: its repr, at most 200 characters."""
    text = repr(value[: MAX_ECHO_CHARACTERS + 1]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= MAX_ECHO_CHARACTERS else text[: MAX_ECHO_CHARACTERS - 1] + "…"


def error_object(error: ApiError) -> dict[str, Any]:
    """Return {"error": {message, type, param, code}} of at most 4,096 bytes as `error_bytes` writes it."""
    message = _whole_characters(error.message)[:_MAX_MESSAGE_CHARACTERS]
    param = None if error.param is None else _whole_characters(error.param)[:_MAX_PARAM_CHARACTERS]
    shown = {"error": {"message": message, "type": error.type, "param": param, "code": error.code}}
    while len(error_bytes(shown)) > MAX_ERROR_BYTES:  # control characters take six bytes each
        message = message[: len(message) // 2]
        shown["error"]["message"] = message + "…"
    return shown


def error_bytes(shown: dict[str, Any]) -> bytes:
    """Return an error object as JSON."""
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode()


def error_response(error: ApiError) -> Response:
    """Return the reply to a request that failed."""
    headers = dict(error.headers)
    if error.status in _REPEAT_IN_VAIN:
        headers.setdefault("x-should-retry", "false")
    return Response(error_bytes(error_object(error)), error.status, headers, media_type="application/json")


def to_api_error(error: BaseException) -> ApiError:
    """Return any failure as what the caller may know of it; only RequestErrors speak for themselves, a bug shows nothing."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFull):
        return overloaded(error.retry_after_seconds)
    if isinstance(error, EngineClosed):
        return unavailable("shutting_down", "the server takes no new requests: it is shutting down")
    if isinstance(error, RequestError):
        return ApiError(400, str(error))
    if isinstance(error, HTTPException):
        return _of_status(error.status_code, error.headers)
    return ApiError(500, "the server failed; its log says more under this request's id", type="server_error", code="internal_error")


def overloaded(retry_after_seconds: float) -> ApiError:
    """Return the 429 of a waiting line that is full."""
    return ApiError(
        429, "the server is busy and its waiting line is full: try again later", type="rate_limit_error", code="queue_full",
        headers=retry_after(retry_after_seconds),
    )  # fmt: skip


def unavailable(code: str, message: str, *, retry_seconds: float = 5) -> ApiError:
    """Return a 503 that may be gone when the caller asks again."""
    return ApiError(503, message, type="unavailable_error", code=code, headers=retry_after(retry_seconds))


def retry_after(seconds: float) -> dict[str, str]:
    """Return the header that says when to come back: whole seconds, 1 to 120."""
    return {"retry-after": str(int(min(max(seconds, 1), MAX_RETRY_SECONDS)))}


def _of_status(status: int, headers: Mapping[str, str] | None) -> ApiError:
    if status == 404:
        return ApiError(404, "there is nothing at this address", type="not_found_error", code="not_found")
    if status == 405:
        allowed = ", ".join(sorted((headers or {}).get("Allow", "").split(", ")))
        return ApiError(405, f"this address answers only {allowed}", code="method_not_allowed", headers={"allow": allowed})
    message = responses.get(status, "the request failed").lower()
    return ApiError(status, message, type=_TYPES.get(status, "invalid_request_error"), headers=headers)


def _whole_characters(text: str) -> str:
    """Return the text with lone surrogates, which UTF-8 cannot carry, as question marks."""
    return text.encode("utf-8", "replace").decode()
