"""What a server counts, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("forefend_requests", "answered requests", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "forefend_request_seconds", "time of a prediction", buckets=_SECONDS, registry=self.registry
        )
        self.images = Counter("forefend_images", "images that were answered", registry=self.registry)
        self.batches = Histogram(
            "forefend_batch_images", "images in a batch of the model", buckets=_SIZES, registry=self.registry
        )
        self.waiting = Gauge("forefend_requests_in_progress", "requests in progress", registry=self.registry)

    def text(self) -> bytes:
        """Return all of them."""
        return generate_latest(self.registry)
