"""A caller of many streams at once over plain sockets, light enough to share the machine with the server that it measures.

What arrives is only put aside with its time; it is read when all streams are over. No web framework and no torch here.
"""

import asyncio
import http.client
import itertools
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Address = tuple[str, int]
_EVENT = b"data: {"
_READ_BYTES = 65536
_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """What one request got. `first_seconds`: until the first event of the stream, for a refusal until its headers.

    `gaps`: seconds between the arrivals of events. `left`: this caller went away first. Seconds are from sending the request.
    """

    status: int
    first_seconds: float
    total_seconds: float
    gaps: tuple[float, ...] = ()
    completion_tokens: int = 0
    retry_after: str | None = None
    left: bool = False


def completion_body(model: str, prompt: Sequence[int], new_tokens: int) -> bytes:
    """Return the body of a streamed completion of the likeliest tokens."""
    values = {
        "model": model, "prompt": list(prompt), "max_tokens": new_tokens, "temperature": 0, "top_p": 1, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    return json.dumps(values).encode()


async def ask(address: Address, body: bytes, *, leave_after: int | None = None) -> Answer:
    """Return what one completion gets, over a connection of its own; `leave_after` cuts it off after so many events.

    Raises: OSError when there is no connection.
    """
    reader, writer = await asyncio.open_connection(*address)
    start = time.perf_counter()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    data, arrivals = bytearray(), list[tuple[float, int]]()
    left = leave_after == 0
    try:
        await writer.drain()
        while not left and (chunk := await reader.read(_READ_BYTES)):
            data += chunk
            arrivals.append((time.perf_counter() - start, len(data)))
            left = leave_after is not None and data.count(_EVENT) >= leave_after
    finally:
        writer.transport.abort() if left else writer.close()
    return _read_answer(bytes(data), arrivals, left=left)


async def ask_together(address: Address, bodies: Sequence[bytes]) -> tuple[list[Answer], float]:
    """Return what requests that are sent at once get, and the seconds until all of them are over."""
    start = time.perf_counter()
    answers = await asyncio.gather(*(ask(address, body) for body in bodies))
    return answers, time.perf_counter() - start


def summarize(answers: Sequence[Answer], seconds: float) -> dict[str, Any]:
    """Return the figures of streams that ran together: tokens a second, seconds to the first event, seconds between events."""
    firsts = [answer.first_seconds for answer in answers]
    gaps = [gap for answer in answers for gap in answer.gaps]
    return {
        "streams": len(answers),
        "failed": sum(answer.status != 200 for answer in answers),
        "tokens": sum(answer.completion_tokens for answer in answers),
        "tokens_per_second": sum(answer.completion_tokens for answer in answers) / seconds,
        "first_token_p50": percentile(firsts, 0.5),
        "first_token_p99": percentile(firsts, 0.99),
        "inter_token_p50": percentile(gaps, 0.5),
        "inter_token_p99": percentile(gaps, 0.99),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed; 0 of no values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0


def get(address: Address, path: str) -> tuple[int, str]:
    """Return the status and text of a page. Raises: OSError."""
    connection = http.client.HTTPConnection(*address, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def gauge(address: Address, name: str) -> int:
    """Return one of the server's figures, all models together. Raises: OSError, LookupError when there is no such figure."""
    found = re.findall(rf"^inkstone_{name}(?:{{.*}})? ([0-9.e+]+)$", get(address, "/metrics")[1], re.MULTILINE)
    if not found:
        raise LookupError(f"/metrics has no inkstone_{name}")
    return int(sum(map(float, found)))


def _read_answer(data: bytes, arrivals: Sequence[tuple[float, int]], *, left: bool) -> Answer:
    if not arrivals:
        return Answer(0, 0.0, 0.0, left=left)
    head, _, _ = data.partition(b"\r\n\r\n")
    times, at = [], 0
    for seconds, end in arrivals:
        if data.find(_EVENT, max(0, at - len(_EVENT) + 1), end) >= 0:
            times.append(seconds)
        at = end
    usage = re.findall(rb'"completion_tokens": ?([0-9]+)', data)
    retry = re.search(rb"(?i)^retry-after: *([^\r\n]+)", head, re.MULTILINE)
    status = re.match(rb"HTTP/1\.1 ([0-9]{3})", head)
    return Answer(
        status=int(status[1]) if status else 0, first_seconds=times[0] if times else arrivals[0][0], total_seconds=arrivals[-1][0],
        gaps=tuple(later - earlier for earlier, later in itertools.pairwise(times)),
        completion_tokens=int(usage[-1]) if usage else 0, retry_after=retry[1].decode() if retry else None, left=left,
    )  # fmt: skip
