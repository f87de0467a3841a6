"""Prometheus metrics of a server. Labels are statuses and known paths: nothing that a client wrote."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

from .engine import Observer
from .runner import Runner

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS = (1, 2, 3, 6, 9, 12, 18, 24, 36, 48, 96, 192)


class Metrics(Observer):
    """Counts what the engine and the API tell. One registry a server, so that several may live in a process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "ip2p_requests", "Requests answered, by path and status.", ["path", "status"], registry=registry
        )
        self._rows = Histogram("ip2p_step_rows", "UNet rows of a step.", buckets=_ROWS, registry=registry)
        self._steps = Histogram("ip2p_step_seconds", "Seconds of a step.", buckets=_STEP_SECONDS, registry=registry)
        self._waits = Histogram("ip2p_queue_seconds", "Seconds an edit waited.", buckets=_SECONDS, registry=registry)
        self._engine = Histogram(
            "ip2p_engine_seconds", "Seconds from the queue to the picture.", buckets=_SECONDS, registry=registry
        )
        self._totals = Histogram(
            "ip2p_request_seconds", "Seconds of an answered edit request.", buckets=_SECONDS, registry=registry
        )

    def stepped(self, rows: int, seconds: float) -> None:
        self._rows.observe(rows)
        self._steps.observe(seconds)

    def joined(self, seconds: float) -> None:
        self._waits.observe(seconds)

    def finished(self, seconds: float) -> None:
        self._engine.observe(seconds)

    def answered(self, path: str, status: int) -> None:
        """A request to a known path, or "other", was answered; 499 is a client that left."""
        self._requests.labels(path, str(status)).inc()

    def edited(self, seconds: float) -> None:
        """An edit request was answered with its pictures after so long."""
        self._totals.observe(seconds)

    def watch(self, engine: Runner) -> None:
        """Shows the engine's queue and edits in flight as they are when asked for."""
        self._gauge("ip2p_queue_length", "Edits that wait.", lambda: engine.queue_length)
        self._gauge("ip2p_edits_in_flight", "Edits between start and picture.", lambda: engine.in_flight)

    def families(self) -> list[Metric]:
        """All series as they are, to be shown elsewhere."""
        return list(self._registry.collect())

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(name, text, registry=self._registry).set_function(value)
