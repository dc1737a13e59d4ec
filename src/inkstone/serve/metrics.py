"""Figures for Prometheus, in a registry of their own: what came over HTTP, and what the engines say of themselves."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from inkstone.infer.request import Usage
    from inkstone.serve.models import ServedModels

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_TOKEN_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

_GAUGES = {
    "running": "sequences in slots",
    "waiting": "sequences that wait for a slot",
    "slots": "sequences that can be computed at once",
    "free_slots": "slots without a sequence",
    "cached_tokens": "positions that a new prompt could reuse",
}
_COUNTERS = {
    "prompt_tokens": "tokens of prompts",
    "reused_tokens": "tokens of prompts that were not computed again",
    "completion_tokens": "tokens drawn",
    "proposed_tokens": "tokens guessed ahead",
    "accepted_tokens": "guesses that were right",
    "finished": "sequences that came to their end",
    "cancelled": "sequences that were cancelled",
    "failed": "sequences that failed",
}


class Metrics:
    """Counters and histograms. Thread-safe."""

    def __init__(self, models: "ServedModels") -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_EngineCollector(models))
        self._requests = Counter(
            "inkstone_requests", "answers by route and status", ["method", "route", "code"], registry=self.registry
        )
        self._request_seconds = self._histogram("inkstone_request_seconds", "from the headers to the last byte", "route", _SECONDS)
        self._first = self._histogram("inkstone_first_token_seconds", "from the submission to the first token", "model", _SECONDS)
        self._between = self._histogram(
            "inkstone_inter_token_seconds", "mean time between two tokens of a sequence", "model", _TOKEN_SECONDS
        )
        self._queue = self._histogram("inkstone_queue_seconds", "from the submission to a slot", "model", _SECONDS)

    def _histogram(self, name: str, text: str, label: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, [label], buckets=buckets, registry=self.registry)

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer; 499 stands for a caller that went away."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def observe_sequence(self, model: str, usage: "Usage") -> None:
        """Count the times of one sequence that is over."""
        if usage.completion_tokens:
            self._first.labels(model).observe(usage.first_token_seconds)
            self._queue.labels(model).observe(usage.queue_seconds)
        if usage.completion_tokens > 1:
            between = (usage.total_seconds - usage.first_token_seconds) / (usage.completion_tokens - 1)
            self._between.labels(model).observe(between)

    def render(self) -> bytes:
        """Return everything in the text format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Asks the engines when somebody looks, so that their figures are not kept twice."""

    def __init__(self, models: "ServedModels") -> None:
        self._models = models

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        stats = [(model.name, model.thread.engine.stats()) for model in self._models.all()]
        for field, text in _GAUGES.items():
            yield _family(GaugeMetricFamily, field, text, stats)
        for field, text in _COUNTERS.items():
            yield _family(CounterMetricFamily, field, text, stats)


def _family(kind: type, field: str, text: str, stats: list) -> GaugeMetricFamily | CounterMetricFamily:
    family = kind(f"inkstone_{field}", text, labels=["model"])
    for name, figures in stats:
        family.add_metric([name], getattr(figures, field))
    return family
