"""The front's own counts, and what each replica's engine tells under its label `replica`: one page for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric, generate_latest

from ..metrics import Metrics
from ..runner import Runner
from .fleet import Fleet

# What a front counts. All else is told by engines: a front has none, and must not tell zeros under their names.
_OF_FRONTS = ("ip2p_requests", "ip2p_request_seconds", "ip2p_retries", "ip2p_replicas")


class FleetMetrics(Metrics):
    """front: the front's name, where there are several, whose counts are each its own."""

    def __init__(self, front: str | None = None) -> None:
        super().__init__()
        self._front = front
        self._fleet: Fleet | None = None
        self._retries = Counter(
            "ip2p_retries", "Further tries of edits, by cause: lost, refused.", ["cause"], registry=self._registry
        )

    def watch(self, engine: Runner) -> None:
        assert isinstance(engine, Fleet)
        self._fleet = engine
        replicas = Gauge("ip2p_replicas", "Replicas that are ready.", registry=self._registry)
        replicas.set_function(lambda: sum(state.ready for state in engine.states))

    def retried(self, cause: str) -> None:
        """Edits are tried again: a replica was "lost", or "refused" them."""
        self._retries.labels(cause).inc()

    def text(self) -> bytes:
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterable[Metric]:
        """One family a name, as the exposition format asks for."""
        own = [family for family in self.families() if family.name in _OF_FRONTS]
        labels = {} if self._front is None else {"front": self._front}
        merged = {family.name: _labelled(family, labels) for family in own}
        for state in () if self._fleet is None else self._fleet.states:
            for family in state.metrics:
                if family.name not in _OF_FRONTS:
                    labelled = _labelled(family, {"replica": state.replica})
                    merged.setdefault(family.name, _labelled(family, None)).samples += labelled.samples
        return merged.values()


def _labelled(family: Metric, labels: dict[str, str] | None) -> Metric:
    """A copy with these labels on every sample; with None, of no samples."""
    copy = Metric(family.name, family.documentation, family.type)
    if labels is not None:
        copy.samples = [sample._replace(labels={**sample.labels, **labels}) for sample in family.samples]
    return copy
