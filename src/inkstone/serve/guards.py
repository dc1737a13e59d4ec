"""Who may ask: the right Host, no foreign web page, and the key. Decided from the headers alone, before any route runs."""

import hashlib
import hmac
from collections.abc import Collection, Iterable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from starlette.types import Scope

from inkstone.serve.config import is_loopback
from inkstone.serve.errors import ApiError, echo

Headers = list[tuple[bytes, bytes]]
E = TypeVar("E")

_CLOSE = {"connection": "close"}
_PREFLIGHT_SECONDS = "600"


def public(endpoint: E) -> E:
    """Mark a route's endpoint as open to callers without a key (a decorator). Everything else needs one where keys are set."""
    endpoint.needs_no_key = True  # type: ignore[attr-defined]
    return endpoint


def is_public(endpoint: Any) -> bool:
    """Return whether a route's endpoint is open to callers without a key."""
    return getattr(endpoint, "needs_no_key", False)


class Guard:
    """The checks of one server, as functions of a request's headers."""

    def __init__(
        self, *, is_local: bool, keys: Iterable[str] = (), origins: Collection[str] = (), public_paths: Collection[str] = (),
        max_header_bytes: int = 16 * 1024,
    ) -> None:  # fmt: skip
        self._is_local = is_local  # listens on loopback only: then the name in Host must be this machine's
        self._digests = [_digest(key.encode()) for key in keys]
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._public_paths = frozenset(public_paths)
        self._max_header_bytes = max_header_bytes

    def check(self, scope: Scope) -> None:
        """Raises: ApiError 400 for a request that two readers could understand differently, 401 without the key, 403 for a
        foreign Host or web page, 414 and 431 for too long an address or headers.
        """
        headers = scope["headers"]
        check_framing(scope)
        check_sizes(scope, self._max_header_bytes)
        self._check_host(headers)
        self._check_origin(headers)
        if self._digests and scope["path"] not in self._public_paths:
            self._check_key(headers)

    def cors_headers(self, headers: Headers) -> Headers:
        """Return what lets a configured web page read the answer; nothing for others. Never with credentials."""
        origin = _only(headers, b"origin")
        if origin is None or not self._is_configured(origin):
            return []
        return [
            (b"access-control-allow-origin", origin), (b"vary", b"Origin"),
            (b"access-control-expose-headers", b"x-request-id, retry-after"),
        ]  # fmt: skip

    def preflight_headers(self, scope: Scope) -> Headers | None:
        """Return what else to answer a browser that asks whether a configured page may call; None when it is no such question."""
        headers = scope["headers"]
        if scope["method"] != "OPTIONS" or _only(headers, b"access-control-request-method") is None:
            return None
        if not self.cors_headers(headers):
            return None
        return [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", b"authorization, content-type, x-request-id, x-stainless-arch, x-stainless-async, "
             b"x-stainless-lang, x-stainless-os, x-stainless-package-version, x-stainless-retry-count, x-stainless-runtime, "
             b"x-stainless-runtime-version, x-stainless-timeout, x-stainless-read-timeout, x-stainless-helper-method"),
            (b"access-control-max-age", _PREFLIGHT_SECONDS.encode()),
        ]  # fmt: skip

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that merely point to this machine: a web page elsewhere may have made them (DNS rebinding)."""
        if not self._is_local:
            return
        host = _only(headers, b"host")
        if host is None or not _is_own_name(host):
            shown = "none" if host is None else echo(host.decode("latin-1"))
            raise ApiError(
                403,
                f"host: expected localhost or a loopback address, found {shown}",
                type="permission_error",
                code="host_not_allowed",
            )

    def _check_origin(self, headers: Headers) -> None:
        given = [value for name, value in headers if name == b"origin"]
        if not given or (len(given) == 1 and (self._is_configured(given[0]) or _is_same_origin(given[0], headers))):
            return
        raise ApiError(
            403, f"origin: web pages of {echo(b', '.join(given).decode('latin-1'))} may not call this server (see --cors-origins)",
            type="permission_error", code="origin_not_allowed",
        )  # fmt: skip

    def _is_configured(self, origin: bytes) -> bool:
        return "*" in self._origins or origin.decode("latin-1").lower() in self._origins

    def _check_key(self, headers: Headers) -> None:
        given = _only(headers, b"authorization")
        key = given.removeprefix(b"Bearer ") if given is not None and given.startswith(b"Bearer ") else b""
        digest = _digest(key)
        matches = [hmac.compare_digest(digest, known) for known in self._digests]  # all of them: the time tells nothing
        if not any(matches):
            what = "no key was sent" if given is None else "this key is not known here"
            raise ApiError(
                401, f"{what} (expected one header 'Authorization: Bearer KEY')", type="authentication_error", code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )  # fmt: skip


def check_framing(scope: Scope) -> None:
    """Raises: ApiError 400 for a body whose length is said twice, and for protocols that are none of ours.

    A proxy in front may believe the other length, and take the rest of the body for a request of its own.
    """
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" in names and b"content-length" in names:
        raise ApiError(400, "content-length and transfer-encoding exclude each other", code="bad_request", headers=_CLOSE)
    if scope["http_version"] not in ("1.0", "1.1"):
        raise ApiError(400, "expected HTTP/1.1", code="bad_request", headers=_CLOSE)


def check_sizes(scope: Scope, max_bytes: int) -> None:
    """Raises: ApiError 414 or 431 for what arrived in one piece and so passed the protocol, which bounds only what it must keep."""
    if len(scope.get("raw_path", b"")) + len(scope["query_string"]) > max_bytes:
        raise ApiError(414, "the address is too long", code="uri_too_long", headers=_CLOSE)
    if sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"]) > max_bytes:
        raise ApiError(431, f"the headers are larger than {max_bytes:,} bytes", code="headers_too_large", headers=_CLOSE)


def _only(headers: Headers, wanted: bytes) -> bytes | None:
    """Return the header's value; None when it is not there exactly once."""
    found = [value for name, value in headers if name == wanted]
    return found[0] if len(found) == 1 else None


def _is_own_name(host: bytes) -> bool:
    try:
        name = urlsplit(b"//" + host).hostname
    except ValueError:
        return False
    text = (name or b"").decode("latin-1").rstrip(".")
    return is_loopback(text) or text.endswith(".localhost")


def _is_same_origin(origin: bytes, headers: Headers) -> bool:
    """Return whether the page came from the address that it calls; the scheme may be that of a proxy in front."""
    host = _only(headers, b"host")
    scheme, separator, rest = origin.lower().partition(b"://")
    if host is None or not separator or scheme not in (b"http", b"https"):
        return False
    default = b":80" if scheme == b"http" else b":443"
    return rest.removesuffix(default) == host.lower().removesuffix(default)


def _digest(key: bytes) -> bytes:
    """Return something of one length for keys of any, so that comparing them does not tell how long the right one is."""
    return hashlib.sha256(key).digest()
