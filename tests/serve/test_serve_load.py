"""The measuring caller: what it reports is what the wire said, whatever the pieces in which that came."""

import asyncio

import pytest

from inkstone.base.errors import ResourceError
from inkstone.serve.child import NAME, serving
from inkstone.serve.load import Answer, ask, ask_together, completion_body, gauge, percentile, summarize

STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    b'data: {"a": 1}\n\n', b": ping\n\n", b"da", b'ta: {"b": 2}\n\ndata: {"c": 3}\n\n',
    b'data: {"usage": {"prompt_tokens": 3, "completion_tokens": 12}}\n\ndata: [DONE]\n\n',
)  # fmt: skip
REFUSAL = (b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\ncontent-length: 2\r\n\r\n", b"{}")


def answered(pieces, call):
    """Return what `call(address)` gives while every connection is answered with these pieces, and what was received."""
    received = []

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split()[0])
        received.append((head, await reader.readexactly(length)))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        writer.close()

    async def both():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await call(server.sockets[0].getsockname()[:2])

    return asyncio.run(both()), received


def test_a_stream_is_timed_by_its_events_and_not_by_pings_or_pieces():
    answer, _ = answered(STREAM, lambda address: ask(address, b"{}"))
    assert (answer.status, answer.completion_tokens, answer.retry_after, answer.left) == (200, 12, None, False)
    assert len(answer.gaps) == 2  # three arrivals with events: the first, the two together, the usage
    assert 0 < answer.first_seconds <= answer.first_seconds + sum(answer.gaps) <= answer.total_seconds


def test_a_refusal_has_its_status_and_when_to_come_again():
    answer, _ = answered(REFUSAL, lambda address: ask(address, b"{}"))
    assert (answer.status, answer.retry_after, answer.completion_tokens, answer.gaps) == (429, "7", 0, ())
    assert answer.first_seconds > 0


@pytest.mark.parametrize(("leave_after", "status"), [(0, 0), (1, 200), (3, 200)])
def test_a_caller_leaves_when_it_was_told_to(leave_after, status):
    answer, _ = answered(STREAM, lambda address: ask(address, b"{}", leave_after=leave_after))
    assert answer.left and answer.status == status


def test_a_server_that_hangs_up_without_a_word_has_no_status():
    answer, _ = answered((), lambda address: ask(address, b"{}"))
    assert answer == Answer(0, 0.0, 0.0)


def test_the_request_is_whole_and_asks_for_greedy_tokens_with_usage():
    body = completion_body("m", [1, 2], 5)
    _, ((head, received),) = answered(STREAM, lambda address: ask(address, body))
    assert head.startswith(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:") and received == body
    assert b'"temperature": 0' in body and b'"include_usage": true' in body and b'"prompt": [1, 2]' in body


def test_streams_together_are_summed_and_failures_counted():
    (answers, seconds), _ = answered(STREAM, lambda address: ask_together(address, [b"{}"] * 3))
    found = summarize([*answers, Answer(429, 0.5, 0.5)], seconds)
    assert (found["streams"], found["failed"], found["tokens"]) == (4, 1, 36)
    assert found["tokens_per_second"] == pytest.approx(36 / seconds) and found["first_token_p99"] == 0.5


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([], 0.5, 0.0), ([3.0], 0.99, 3.0), ([1, 2, 3, 4], 0.5, 2), ([4, 3, 2, 1], 0.51, 3), (range(1, 101), 0.99, 99), ([1, 2], 1.0, 2)],
)  # fmt: skip
def test_percentiles_are_values_that_were_measured(values, share, expected):
    assert percentile(values, share) == expected


def test_a_figure_is_the_sum_over_models():
    page = b'HTTP/1.1 200 OK\r\n\r\ninkstone_running{model="a"} 2.0\ninkstone_running{model="b"} 3.0\ninkstone_running_total{model="b"} 9.0\n'

    async def read(address):
        return await asyncio.to_thread(gauge, address, "running")

    async def missing(address):
        with pytest.raises(LookupError, match="inkstone_nothing"):
            await asyncio.to_thread(gauge, address, "nothing")

    assert get_answered(page, read) == 5
    get_answered(page, missing)


def get_answered(page, call):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(page)
        await writer.drain()
        writer.close()

    async def both():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            return await call(server.sockets[0].getsockname()[:2])

    return asyncio.run(both())


def test_a_server_that_cannot_start_says_why(tmp_path):
    with pytest.raises(ResourceError, match=r"did not get ready; its last words: .*nowhere"), serving(tmp_path / "nowhere"):
        pass
    assert NAME
