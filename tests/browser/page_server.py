"""A small server for tests of the page: the page's files under its real policy, and answers that follow a script.

Each POST takes the next `Reply` of `server.script`, or the default one; what was asked stays in `server.asked`.
"""

import dataclasses
import json
import math
import threading
import time
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Literal

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
CHAT = {
    "id": "quickstart", "object": "model", "created": 1_795_000_000, "owned_by": "inkstone", "context": 1024, "chat": True,
    "sampling": {"max_tokens": 256, "temperature": 0.8, "top_k": 50, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.1},
    "card": "---\nlanguage: en\n---\n# quickstart\n\nA small model of **two languages**, made by `inkstone quickstart`.\n\n"
            "| | |\n|---|---:|\n| Parameters | 4.31M |\n| Bits per byte | 1.126 |\n\n## Limits\n\nIt invents facts. Check what it says.\n",
}  # fmt: skip
BASE = {**CHAT, "id": "stories-base", "chat": False, "card": "", "sampling": {"max_tokens": 64, "temperature": 1.0}}
WORDS = ["An", " ink", "stone", " is", " a", " stone", " for", " grinding", " ink", "."]


@dataclasses.dataclass
class Reply:
    """One scripted answer. `end`: "done", "error" (an error event), "cut" (the connection breaks) or "hang" (nothing more comes)."""

    text: str | Iterable[str] = "".join(WORDS)
    delay_seconds: float = 0.0
    end: Literal["done", "error", "cut", "hang"] = "done"
    finish: str = "stop"
    status: int = 200
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    message: str = "the test said so"
    code: str | None = None

    def pieces(self) -> list[str]:
        """Return the text in pieces: as given, or word by word."""
        if not isinstance(self.text, str):
            return list(self.text)
        words = self.text.split(" ")
        return [words[0], *(f" {word}" for word in words[1:])]


class PageServer(ThreadingHTTPServer):
    """Serves one page on a free port. `models` and `curves` are what it tells; `key`, when set, is asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reset()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def reset(self) -> None:
        """Go back to two models, no key and an empty script."""
        steps = range(1, 601, 4)
        self.models: list[dict[str, Any]] = [CHAT, BASE]
        self.curves: dict[str, Any] | None = {
            "train": [[step, 1.9 + 6 * math.exp(-step / 60) + 0.05 * math.sin(step)] for step in steps],
            "val": [[step, 1.95 + 6 * math.exp(-step / 60)] for step in range(50, 601, 50)],
        }
        self.key: str | None = None
        self.script: list[Reply] = []
        self.default = Reply()
        self.asked: list[dict[str, Any]] = []
        self.hung_up = 0  # how often a reader left before the end

    @property
    def address(self) -> str:
        """Return where the page is."""
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: PageServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the tests look at what the page does."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/" or (path.rsplit(".", 1)[-1] in TYPES and not path.startswith("/v1/")):
            return self._file(path.removeprefix("/") or "index.html")
        if not self._is_allowed():
            return None
        if path == "/v1/models":
            return self._json(200, {"object": "list", "data": self.server.models})
        if path.endswith("/curves") and self.server.curves is not None:
            return self._json(200, self.server.curves)
        return self._error(404, "no such thing", "not_found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._is_allowed():
            return None
        self.server.asked.append(body)
        reply = self.server.script.pop(0) if self.server.script else self.server.default
        if reply.status != 200:
            return self._error(reply.status, reply.message, reply.code, reply.headers)
        try:
            return self._stream(body, reply)
        except OSError:
            self.server.hung_up += 1
            self.close_connection = True
            return None

    def _is_allowed(self) -> bool:
        allowed = self.server.key is None or self.headers.get("Authorization") == f"Bearer {self.server.key}"
        if not allowed:
            self._error(401, "wrong or missing API key", "invalid_api_key")
        return allowed

    def _file(self, name: str) -> None:
        path = files("inkstone.serve").joinpath("page", name)
        if "/" in name or not path.is_file():
            return self._error(404, "no such file", "not_found")
        return self._answer(200, path.read_bytes(), TYPES[name.rsplit(".", 1)[1]], {"Content-Security-Policy": POLICY})

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(value).encode(), "application/json", headers or {})

    def _error(self, status: int, message: str, code: str | None, headers: dict[str, str] | None = None) -> None:
        self._json(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}, headers)

    def _answer(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "X-Content-Type-Options": "nosniff",
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, body: dict[str, Any], reply: Reply) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        make = _chat_choice if "messages" in body else _text_choice
        pieces = reply.pieces()
        self._event(": ping\n\n")
        for piece in pieces:
            time.sleep(reply.delay_seconds)
            self._chunk(body, choices=[make(piece, None)])
        if reply.end == "hang":
            while True:  # until the reader leaves
                time.sleep(0.05)
                self._event(": ping\n\n")
        if reply.end == "cut":
            time.sleep(0.2)  # a browser drops what it has not read yet when a connection breaks
            raise OSError("as the script says")
        if reply.end == "error":
            self._event(
                "data: "
                + json.dumps({"error": {"message": reply.message, "type": "server_error", "param": None, "code": None}})
                + "\n\n"
            )
        else:
            self._chunk(body, choices=[make("", reply.finish)])
            usage = {"prompt_tokens": 12, "completion_tokens": len(pieces), "total_tokens": 12 + len(pieces)}
            self._chunk(body, choices=[], usage=usage, timings={"first_token_seconds": 0.12, "tokens_per_second": 41.7})
        self._event("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, body: dict[str, Any], **fields: Any) -> None:
        chunk = {"id": "x", "object": "chunk", "created": 1, "model": body["model"], **fields}
        self._event(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n")

    def _event(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def _chat_choice(piece: str, finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": piece} if piece else {}, "finish_reason": finish}


def _text_choice(piece: str, finish: str | None) -> dict[str, Any]:
    share = 0.04 + 0.9 * abs(math.sin(len(piece) * 1.7 + ord(piece[-1]) if piece else 0))
    other = (1 - share) / 3
    top = {piece: math.log(share), " another": math.log(other), " stone": math.log(other / 2), "\ufffd": math.log(other / 4)}
    known = {"tokens": [piece], "token_logprobs": [math.log(share)], "top_logprobs": [top], "text_offset": [0]}
    return {"index": 0, "text": piece, "logprobs": known if piece else None, "finish_reason": finish}
