"""The front as a deployment: the application of `api.py` behind Ray's own HTTP proxies, before a `Fleet`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from ..api import create_app
from ..settings import Settings
from .fleet import Fleet
from .metrics import FleetMetrics


@serve.ingress()
class Front:
    """Ready once a replica has described the model."""

    # Ray waits for it; within a replica, handles can only be awaited.
    async def __init__(self, engines: DeploymentHandle, settings: Settings) -> None:  # type: ignore[misc]
        self._settings = settings
        self._metrics = FleetMetrics(serve.get_replica_context().replica_id.unique_id)
        self._fleet = Fleet(engines, await engines.describe.remote(), self._metrics.retried)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._fleet, self._settings, self._metrics)

    def __del__(self) -> None:
        fleet: Any = getattr(self, "_fleet", None)
        if fleet is not None:
            fleet.stop()
