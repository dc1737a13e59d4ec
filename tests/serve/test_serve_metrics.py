"""Figures that agree with what happened, in a format that Prometheus reads."""

from types import SimpleNamespace

import httpx
from prometheus_client.parser import text_string_to_metric_families
from serving_double import fake_model, running, wait_until

from inkstone.infer.engine import EngineStats
from inkstone.infer.request import Piece, Usage
from inkstone.serve.metrics import Metrics
from inkstone.serve.models import ServedModels


def read(text):
    """Return {(name, labels as a sorted tuple): value} of a page of metrics."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found, name, **labels):
    return found.get((name, tuple(sorted(labels.items()))), 0.0)


def test_every_answer_is_counted_under_its_route_and_status():
    with running() as server:
        with httpx.Client(base_url=server.url) as client:
            for _ in range(7):
                client.post("/v1/take", json={})
            for _ in range(3):
                client.post("/v1/take", content=b"{", headers={"content-type": "application/json"})
            for path in ("/v1/raise/bug", "/v1/raise/panic", "/nothing", "/else"):
                client.get(path)
            client.request("BREW", "/v1/take")
            with client.stream("GET", "/v1/stream?n=1000&seconds=0.01") as answer:
                next(answer.iter_bytes())
        wait_until(lambda: server.state.lifecycle.num_running == 0)
        found = read(httpx.get(f"{server.url}/metrics").text)
    total = "inkstone_requests_total"
    assert value(found, total, method="POST", route="/v1/take", code="200") == 7
    assert value(found, total, method="POST", route="/v1/take", code="400") == 3
    assert value(found, total, method="GET", route="/v1/raise/{what}", code="500") == 2
    assert value(found, total, method="GET", route="none", code="404") == 2
    assert value(found, total, method="other", route="/v1/take", code="405") == 1
    assert value(found, total, method="GET", route="/v1/stream", code="499") == 1
    assert value(found, "inkstone_request_seconds_count", route="/v1/take") == 11


def test_sequences_are_timed_and_engines_asked():
    with running() as server:
        for _ in range(3):
            httpx.get(f"{server.url}/v1/stream?n=4&seconds=0.001")
        found = read(httpx.get(f"{server.url}/metrics").text)
    for name in ("first_token", "inter_token", "queue"):
        assert value(found, f"inkstone_{name}_seconds_count", model="fake") == 3
    assert value(found, "inkstone_running", model="fake") == 0 and value(found, "inkstone_slots", model="fake") == 8
    assert (
        value(found, "inkstone_finished_total", model="fake") == 3
        and value(found, "inkstone_prompt_tokens_total", model="fake") == 7
    )


def test_the_time_between_tokens_is_that_after_the_first():
    metrics = Metrics(ServedModels())
    metrics.observe_sequence("m", Usage(1, 5, queue_seconds=0.5, first_token_seconds=1.0, total_seconds=3.0))
    metrics.observe_sequence("m", Usage(1, 1, first_token_seconds=1.0, total_seconds=1.0))
    metrics.observe_sequence("m", Usage(1, 0, total_seconds=9.0))
    found = read(metrics.render().decode())
    assert value(found, "inkstone_inter_token_seconds_sum", model="m") == 0.5
    assert value(found, "inkstone_first_token_seconds_count", model="m") == 2
    assert value(found, "inkstone_queue_seconds_sum", model="m") == 0.5


def test_every_figure_of_the_engine_that_counts_is_shown():
    stats = EngineStats(**{name: number for number, name in enumerate(EngineStats.__dataclass_fields__, 1)})
    model = fake_model(name="运行 1", thread=SimpleNamespace(engine=SimpleNamespace(stats=lambda: stats)))
    found = read(Metrics(ServedModels([model])).render().decode())
    shown = {int(number) for (name, labels), number in found.items() if ("model", "运行 1") in labels}
    assert shown >= {
        getattr(stats, name)
        for name in ("running", "waiting", "slots", "prompt_tokens", "reused_tokens", "completion_tokens", "cancelled")
    }


def test_a_listener_hears_everything_and_only_the_end_is_counted():
    heard, counted = [], []
    pieces = [Piece(text="a"), Piece(text="b", finish="stop", usage=Usage(1, 2))]

    def submit(request, listener):
        for piece in pieces:
            listener(piece)
        return "ticket"

    model = fake_model(thread=SimpleNamespace(submit=submit), observe=lambda name, usage: counted.append((name, usage)))
    assert model.submit("request", heard.append) == "ticket"
    assert heard == pieces and counted == [("fake", Usage(1, 2))]
    assert fake_model(thread=SimpleNamespace(submit=submit)).submit("request", heard.append) == "ticket"
