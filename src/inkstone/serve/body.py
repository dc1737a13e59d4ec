"""The one reader of request bodies: a JSON object in time, in bounds, in UTF-8, and meaning one thing only."""

import asyncio
import json
import math
import re
from typing import Any

from starlette.requests import ClientDisconnect, Request

from inkstone.serve.errors import ApiError, echo

MAX_DEPTH = 64
MAX_KEYS = 10_000  # in one object
MAX_INTEGER_CHARACTERS = 20  # of an int64 with its sign
MAX_FLOAT_CHARACTERS = 400
_CLOSE = {"connection": "close"}  # what was not read cannot be skipped cheaply
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


async def read_json(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request carries.

    Raises: ApiError 400 for what is not one strict JSON object, 408 when the body takes too long, 413 when it is too large, 415 when
    it says to be something else; ClientDisconnect when the caller went away.
    """
    check_media_type(request)
    settings = request.app.state.settings
    raw = await read_body(request, max_bytes=settings.max_body_bytes, seconds=settings.body_seconds)
    return parse_object(raw)


def check_media_type(request: Request) -> None:
    """Raises: ApiError 415 unless the body is plain JSON: what a web page can send without asking (text/plain, forms) is none."""
    encodings = [value.strip().lower() for value in request.headers.getlist("content-encoding")]
    if any(value not in ("", "identity") for value in encodings):
        raise ApiError(415, f"content-encoding {echo(', '.join(encodings))} is not supported: send the JSON as it is",
                       code="unsupported_media_type", headers=_CLOSE)  # fmt: skip
    kinds = request.headers.getlist("content-type")
    kind, _, parameters = (kinds[0] if len(kinds) == 1 else "").partition(";")
    name, _, charset = parameters.strip().partition("=")
    is_utf8 = name.strip().lower() != "charset" or charset.strip().strip('"').lower() in ("utf-8", "utf8")
    if kind.strip().lower() != "application/json" or not is_utf8:
        raise ApiError(415, f"content-type: expected application/json in UTF-8, found {echo(', '.join(kinds))}",
                       code="unsupported_media_type", headers=_CLOSE)  # fmt: skip


async def read_body(request: Request, *, max_bytes: int, seconds: float) -> bytes:
    """Return the body; never holds more than the limit and one piece from the socket. Raises: as `read_json`."""
    declared = request.headers.get("content-length")
    if declared is not None and (not declared.isdecimal() or int(declared) > max_bytes):
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(seconds):
            return await _receive_all(request, max_bytes)
    except TimeoutError:
        raise ApiError(
            408, f"the body did not arrive within {seconds:g} seconds", code="body_timeout", headers=_CLOSE
        ) from None  # fmt: skip


async def _receive_all(request: Request, max_bytes: int) -> bytes:
    pieces, size = [], 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(413, f"the body is larger than {max_bytes:,} bytes", code="request_too_large", headers=_CLOSE)


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return the object that the bytes are. Raises: ApiError 400 with code invalid_json."""
    try:
        text = raw.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        raise _invalid(f"the body is not UTF-8 (byte {error.start})") from None
    try:
        found = _DECODER.decode(text)
    except _Refused as error:
        raise _invalid(str(error)) from None
    except json.JSONDecodeError as error:
        raise _invalid(f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(found, dict):
        raise _invalid(f"the body must be a JSON object, found {_KINDS.get(type(found), 'null')}")
    _check_depth(found, text)
    if _ESCAPED_SURROGATE.search(text):
        _check_characters(found)
    return found


_KINDS = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a truth value"}


class _Refused(ValueError):  # noqa: N818
    """JSON that the grammar allows and we do not."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_KEYS:
        raise _Refused(f"an object has {len(pairs):,} keys, at most {MAX_KEYS:,} are allowed")
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"the key {echo(twice)} stands twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > MAX_INTEGER_CHARACTERS:
        raise _Refused(f"an integer has {len(text):,} characters, at most {MAX_INTEGER_CHARACTERS} are allowed")
    return int(text)


def _real(text: str) -> float:
    value = float(text) if len(text) <= MAX_FLOAT_CHARACTERS else math.inf
    if math.isinf(value):
        raise _Refused(f"the number {echo(text)} is out of range")
    return value


def _no_constant(text: str) -> float:
    raise _Refused(f"{text} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_int=_integer, parse_float=_real, parse_constant=_no_constant, strict=True
)


def _check_depth(found: dict[str, Any], text: str) -> None:
    """Raises: ApiError when something lies too deep; most bodies have too few brackets for that."""
    if text.count("{") + text.count("[") <= MAX_DEPTH:
        return
    level: list[Any] = [found]
    for _ in range(MAX_DEPTH):
        level = [
            inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]  # fmt: skip
        if not level:
            return
    raise _too_deep()


def _check_characters(found: Any) -> None:
    """Raises: ApiError for half a character, which cannot be written in UTF-8 nor tokenized."""
    try:
        json.dumps(found, ensure_ascii=False).encode("utf-8", "strict")
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise _invalid(f"the text holds half a character (the lone surrogate U+{ord(half):04X})") from None


def _too_deep() -> ApiError:
    return _invalid(f"the body is nested deeper than {MAX_DEPTH} levels")


def _invalid(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_json")
