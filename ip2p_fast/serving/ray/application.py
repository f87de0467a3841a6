"""The Ray Serve application: a front that speaks HTTP, and behind it engines that Ray starts, watches and counts."""

# Not `from __future__ import annotations`: Ray reads the annotation of `app` itself.
from dataclasses import fields
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.deployment import Application

from ..engine_options import EngineOptions
from ..settings import Settings
from .front import Front
from .least_work import LeastWork
from .replica import Replica
from .scale import Scale

# Never the limit: the engine's queue is, and it says so.
_NO_LIMIT = 100_000


def engines(options: EngineOptions, scale: Scale, grace: float = 30.0) -> Application:
    """The deployment of engines alone, for a `Fleet` that stands before its handle.

    grace: seconds in which a replica that is to go finishes its edits. Those left are done by others.
    """
    counted: dict[str, Any] = {"num_replicas": scale.replicas}
    if scale.max_replicas is not None:
        target = scale.target or max(1.0, options.max_rows / 3)
        counted = {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=scale.replicas, max_replicas=scale.max_replicas, target_ongoing_requests=target
            )
        }
    replica: Any = serve.deployment(Replica)
    router: Any = LeastWork
    return replica.options(
        name="engine",
        ray_actor_options={"num_cpus": scale.cpus, "num_gpus": scale.gpus or 0.0},
        request_router_config=RequestRouterConfig(request_router_class=router),
        max_ongoing_requests=_NO_LIMIT,
        health_check_period_s=5.0,
        graceful_shutdown_timeout_s=grace,
        graceful_shutdown_wait_loop_s=0.2,
        logging_config={"enable_access_log": False},
        **counted,
    ).bind(options)


def _arguments() -> type[BaseModel]:
    """All fields of the options and settings by name; a name of both, as max_pixels, is one argument."""
    found: dict[str, Any] = {"grace": (float, 30.0)}
    for kind in (EngineOptions, Settings):
        types = get_type_hints(kind)
        found |= {one.name: (types[one.name], one.default) for one in fields(kind)}
    return create_model("Arguments", __config__=ConfigDict(extra="forbid"), **found)


Arguments = _arguments()


def app(arguments: Arguments) -> Application:  # type: ignore[valid-type]
    """The whole application, `ip2p_fast.serving.ray:app` in a file of Ray Serve's.

    Its arguments are the fields of `EngineOptions` and `Settings`, and grace. How many replicas there are, and on what,
    is Ray's to say, under the names of the deployments: engine and front.
    """
    given = arguments.model_dump()  # type: ignore[attr-defined]
    options = EngineOptions(**{one.name: given[one.name] for one in fields(EngineOptions)})
    settings = Settings(**{one.name: given[one.name] for one in fields(Settings)})
    front: Any = serve.deployment(Front)
    return front.options(
        name="front",
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=_NO_LIMIT,
        graceful_shutdown_timeout_s=given["grace"],
        graceful_shutdown_wait_loop_s=0.2,
        logging_config={"enable_access_log": False},
    ).bind(engines(options, Scale(), given["grace"]), settings)
