"""`ip2p-fast serve`: the server's command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import BadInput
from .command_options import (
    Backend,
    Device,
    Dtype,
    Host,
    LowMemory,
    MaxQueue,
    MaxRows,
    MaxStepMs,
    Model,
    PolicyName,
    Port,
)
from .engine import DEFAULT_MAX_QUEUE
from .engine_options import EngineOptions, start_engine
from .policies import DEFAULT_MAX_ROWS
from .settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def serve(
    model: Model = "pocket",
    host: Host = "127.0.0.1",
    port: Port = 8000,
    name: Annotated[str | None, typer.Option(help="The model's name.", show_default="the end of --model")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="A further name that clients may ask for.")] = None,
    backend: Backend = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    low_memory: LowMemory = False,
    policy_name: PolicyName = "latency",
    max_rows: MaxRows = DEFAULT_MAX_ROWS,
    max_step_ms: MaxStepMs = None,
    max_queue: MaxQueue = DEFAULT_MAX_QUEUE,
    max_n: Annotated[int, typer.Option(help="Images of a picture.")] = Settings.max_n,
    max_pictures: Annotated[int, typer.Option(help="Pictures of a request.")] = Settings.max_pictures,
    max_steps: Annotated[int, typer.Option(help="Sampling steps.")] = Settings.max_steps,
    max_pixels: Annotated[int, typer.Option(help="Of a picture, in or out.")] = Settings.max_pixels,
    max_output: Annotated[int, typer.Option(help="Pixels of a reply.")] = Settings.max_output,
    max_side: Annotated[int, typer.Option(help="Pixels, in or out.")] = Settings.max_side,
    max_resolution: Annotated[
        int | None, typer.Option(help="Longer side at which the model works.", show_default="twice the model's own")
    ] = None,
    max_body: Annotated[int, typer.Option(help="Bytes of a request.")] = Settings.max_body,
    max_bodies: Annotated[int, typer.Option(help="Requests at once.")] = Settings.max_bodies,
    body_seconds: Annotated[float, typer.Option(help="Time to receive a body.")] = Settings.body_seconds,
    deadline: Annotated[float, typer.Option(help="Seconds, where none is asked.")] = Settings.default_deadline,
    max_deadline: Annotated[float, typer.Option(help="Seconds that may be asked.")] = Settings.max_deadline,
    api_keys: Annotated[Path | None, typer.Option(help="A file of API keys, one a line.")] = None,
    cors_origin: Annotated[list[str] | None, typer.Option(help="An origin whose pages may call.")] = None,
    safety_checker: Annotated[str | None, typer.Option(metavar="MODULE:FUNCTION", help="Sees all pictures.")] = None,
    provenance: Annotated[bool, typer.Option("--provenance", help="PNGs tell which model made them.")] = False,
    grace: Annotated[float, typer.Option(min=0, help="Seconds to finish edits on SIGTERM.")] = 30.0,
    warm_up: Annotated[bool, typer.Option(help="Run steps before ready.")] = True,
    ray: Annotated[bool, typer.Option("--ray", help="Run the model in replicas on Ray.")] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster.", show_default="one on this machine alone")
    ] = None,
    replicas: Annotated[int, typer.Option(help="Replicas; with --max-replicas the fewest.")] = 1,
    max_replicas: Annotated[
        int | None, typer.Option(help="Most replicas, added as requests ask for them.", show_default="--replicas")
    ] = None,
    replica_cpus: Annotated[float, typer.Option(help="CPUs of a replica.")] = 1.0,
    replica_gpus: Annotated[
        float | None, typer.Option(help="GPUs of a replica.", show_default="1 if there are any")
    ] = None,
) -> None:
    """Serve image edits as OpenAI's API has them."""
    # uvicorn and FastAPI are checked for before a model is loaded.
    from .api import create_app
    from .log_lines import log_to_stderr
    from .metrics import Metrics
    from .safety import load_checker
    from .server import HEADER_SECONDS, require_free
    from .server import serve as serve_app

    settings = Settings(
        name=name or Path(model).name,
        aliases=tuple(alias or ()),
        max_n=max_n,
        max_pictures=max_pictures,
        max_steps=max_steps,
        max_pixels=max_pixels,
        max_output=max_output,
        max_side=max_side,
        max_resolution=max_resolution,
        max_body=max_body,
        max_bodies=max_bodies,
        body_seconds=body_seconds,
        default_deadline=deadline,
        max_deadline=max_deadline,
        api_keys=_keys(api_keys),
        cors_origins=tuple(cors_origin or ()),
        provenance=provenance,
        safety_checker=safety_checker,
    )
    options = EngineOptions(
        model,
        backend,
        device,
        dtype,
        policy_name,
        max_rows,
        max_step_ms,
        max_queue,
        max_pixels,
        warm_up,
        low_memory,
    )
    ray = ray or ray_address is not None
    if not ray and (replicas, max_replicas, replica_cpus, replica_gpus) != (1, None, 1.0, None):
        raise BadInput("replicas are for --ray: give it, or leave out what is said of replicas")
    load_checker(safety_checker)
    require_free(host, port)
    header_seconds = min(HEADER_SECONDS, body_seconds)
    if ray:
        from .ray.cluster import deployed
        from .ray.metrics import FleetMetrics
        from .ray.scale import Scale

        scale = Scale(replicas, max_replicas, None, replica_cpus, replica_gpus)
        counted = FleetMetrics()
        with deployed(options, scale, ray_address, f"ip2p-fast-{settings.name}", grace, counted.retried) as fleet:
            log_to_stderr()
            serve_app(create_app(fleet, settings, counted), fleet, host, port, grace, header_seconds)
        return
    metrics = Metrics()
    engine = start_engine(options, metrics)
    log_to_stderr()
    serve_app(create_app(engine, settings, metrics), engine, host, port, grace, header_seconds)


def _keys(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = path.read_text().split("\n")
    except (OSError, UnicodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None
    keys = tuple(line.strip() for line in lines if line.strip())
    if not keys:
        raise BadInput(f"{path} has no key: write one a line, or leave --api-keys out")
    return keys
