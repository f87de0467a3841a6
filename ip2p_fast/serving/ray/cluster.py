"""`ip2p-fast serve --ray`: engines on a cluster, or on one of this machine's own, for as long as the front runs."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray import serve

from ...errors import BadInput
from ..engine_options import EngineOptions
from .application import engines
from .fleet import Fleet
from .scale import Scale

log = logging.getLogger(__name__)

# Pictures on their way are all that the object store holds; Ray itself would take a third of the memory.
_OBJECT_STORE_BYTES = 200_000_000
_CONNECTING = 10.0


@contextmanager
def deployed(
    options: EngineOptions,
    scale: Scale,
    address: str | None,
    name: str,
    grace: float,
    retried: Callable[[str], None],
) -> Iterator[Fleet]:
    """Engines that are ready, until the block ends.

    Args:
        address: of the cluster, which this machine is part of; None: of this machine alone, started and ended here.
        name: of the application, of which a cluster has one.

    Raises:
        BadInput: there is no such cluster, it has no room, it has an application of this name, or a replica cannot
            load the model.
    """
    _connect(address)
    try:
        scale = _fitting(options, scale, address)
        serve.start(proxy_location="Disabled")
        if name in serve.status().applications:
            raise BadInput(f"the cluster serves {name!r} already: give this one another --name")
        try:
            yield from _fleet(options, scale, name, grace, retried)
        finally:
            _take_down(name, address)
    finally:
        ray.shutdown()


def _fleet(
    options: EngineOptions, scale: Scale, name: str, grace: float, retried: Callable[[str], None]
) -> Iterator[Fleet]:
    log.info("starting %d replicas", scale.replicas)
    try:
        handle: Any = serve.run(engines(options, scale, grace), name=name, route_prefix=None)
    except RuntimeError as error:
        raise BadInput(f"a replica cannot start: {_cause(name, str(error))}") from error
    fleet = Fleet(handle, handle.describe.remote().result(), retried)
    try:
        yield fleet
    finally:
        fleet.stop()


def _take_down(name: str, address: str | None) -> None:
    """A cluster that is not ours keeps what else it serves."""
    if address is None:
        serve.shutdown()
    elif name in serve.status().applications:
        serve.delete(name)


def _connect(address: str | None) -> None:
    if address is None:
        # A server tells no one of itself unless it is asked to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(address="local", include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES)
        return
    if address.startswith("ray://"):
        raise BadInput(f"{address!r} is for Ray's client, which cannot stream: run this on a machine of the cluster")
    _require_answer(address)
    try:
        ray.init(address=address)
    except (ConnectionError, ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())
        raise BadInput(
            f"no way into a Ray cluster at {address!r} (does it ask for RAY_AUTH_MODE=token?): {told}"
        ) from error


def _require_answer(address: str) -> None:
    """Raises BadInput where nothing answers at HOST:PORT; Ray itself would try for minutes. Other forms are Ray's."""
    host, separator, port = address.rpartition(":")
    if not (separator and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECTING).close()
    except OSError as error:
        raise BadInput(f"there is no Ray cluster at {address!r}: {error}") from error


def _fitting(options: EngineOptions, scale: Scale, address: str | None) -> Scale:
    """The scale with its GPUs settled. Raises BadInput where this machine is too small; a cluster may grow."""
    there = ray.cluster_resources()
    if scale.gpus is None:
        scale = replace(scale, gpus=float(options.device != "cpu" and there.get("GPU", 0) > 0))
    for kind, each in (("CPU", scale.cpus), ("GPU", scale.gpus or 0.0)):
        needed, has = scale.replicas * each, there.get(kind, 0.0)
        if needed > has and address is None:
            raise BadInput(
                f"{scale.replicas} replicas of {each:g} {kind}s need {needed:g}, and this machine has {has:g}: ask for "
                f"fewer --replicas, or a smaller --replica-{kind.lower()}s"
            )
        if needed > has:
            log.warning("%g %ss are needed and the cluster has %g: waiting for it to grow", needed, kind, has)
    return scale


def _cause(name: str, otherwise: str) -> str:
    """What kept the replicas from starting, without the traceback that it ends."""
    application = serve.status().applications.get(name)
    told = "" if application is None else "\n".join(one.message for one in application.deployments.values())
    errors = re.findall(r"^[\w.]*\.?(?:\w*Error|BadInput|MissingExtra|Exception): (.+)$", told, re.M)
    return str(errors[-1]) if errors else otherwise
