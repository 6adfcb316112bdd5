"""Count what the server does, in the text format that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from univg.serve.batching import BatchReport

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server; nothing of what was asked or answered is in them."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, held: Callable[[], float], waiting: Callable[[], float]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "univg_requests", "Chat completions by HTTP status.", ["status"], registry=registry
        )
        self._seconds = Histogram(
            "univg_request_seconds",
            "From a request's arrival to its answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._images = Counter("univg_images", "Images read.", registry=registry)
        self._tokens = Counter("univg_tokens", "Tokens read and written.", ["kind"], registry=registry)
        self._batches = Counter("univg_batches", "Batches by outcome.", ["outcome"], registry=registry)
        self._rows = Histogram("univg_batch_rows", "Responses in a batch.", buckets=_ROWS, registry=registry)
        self._batch_seconds = Histogram(
            "univg_batch_seconds", "Time of a batch.", buckets=_SECONDS, registry=registry
        )
        Gauge(
            "univg_requests_held", "Requests being read, waiting or running.", registry=registry
        ).set_function(held)
        Gauge("univg_requests_waiting", "Requests in no batch yet.", registry=registry).set_function(waiting)

    def count_request(self, status: int, seconds: float, images: int = 0) -> None:
        """Count one chat completion that ended."""
        self._requests.labels(str(status)).inc()
        self._images.inc(images)
        if status == 200:
            self._seconds.observe(seconds)

    def count_batch(self, report: BatchReport) -> None:
        """Count one batch that ended."""
        self._batches.labels("failed" if report.failed else "answered").inc()
        if not report.failed:
            self._rows.observe(report.rows)
            self._batch_seconds.observe(report.seconds)
            self._tokens.labels("prompt").inc(report.prompt_tokens)
            self._tokens.labels("completion").inc(report.tokens)

    def render(self) -> bytes:
        """Return all counters as text."""
        return generate_latest(self._registry)
