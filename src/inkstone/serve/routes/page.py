"""The web page: a table of files from the package, read once. A path is looked up, never opened."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import inkstone.serve
from inkstone.base.errors import InkstoneError
from inkstone.serve.guards import public
from inkstone.serve.lifecycle import in_every_phase

_POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' data:", "connect-src 'self'",
    "manifest-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
))  # fmt: skip
_HEADERS = {
    "content-security-policy": _POLICY, "x-frame-options": "DENY", "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin", "cache-control": "no-cache",
}  # fmt: skip
_TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".json": "application/json", ".webmanifest": "application/manifest+json", ".svg": "image/svg+xml", ".png": "image/png",
    ".ico": "image/x-icon",
}  # fmt: skip
Endpoint = Callable[[Request], Awaitable[Response]]


def routes(folder: Path | None = None) -> list[Route]:
    """Return one route a file, and `/` for index.html; `folder` None = the package's own.

    Raises: InkstoneError when the page is not there.
    """
    folder = Path(inkstone.serve.__path__[0]) / "page" if folder is None else folder
    if not (folder / "index.html").is_file():
        raise InkstoneError("the web page is missing from this installation - install inkstone again, or serve with --no-ui")
    files = sorted(path for path in folder.rglob("*") if path.suffix in _TYPES and path.is_file())
    found = [Route("/" + path.relative_to(folder).as_posix(), _answer_with(path)) for path in files]
    return [Route("/", _answer_with(folder / "index.html")), *found]


def _answer_with(path: Path) -> Endpoint:
    content, kind = path.read_bytes(), _TYPES[path.suffix]
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'

    @public
    @in_every_phase
    async def answer(request: Request) -> Response:
        headers = {**_HEADERS, "etag": tag}
        if request.headers.get("if-none-match", "") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers={**headers, "content-type": kind})

    return answer
