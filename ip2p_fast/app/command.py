"""`ip2p-fast app`: the page's command line."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ..serving.command_options import (
    Backend,
    Device,
    Dtype,
    Host,
    MaxQueue,
    MaxRows,
    MaxStepMs,
    Model,
    PolicyName,
    Port,
)
from ..serving.engine import DEFAULT_MAX_QUEUE, Engine
from ..serving.engine_options import EngineOptions, start_engine
from ..serving.policies import DEFAULT_MAX_ROWS

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

_GRACE_SECONDS = 1.0  # a page that is open keeps its connection, and would be waited for


@app.command("app")
def run_app(
    model: Model = "pocket",
    host: Host = "127.0.0.1",
    port: Port = 7860,
    api: Annotated[bool, typer.Option("--api", help="Serve OpenAI's image edits at /v1 as well.")] = False,
    backend: Backend = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    policy_name: PolicyName = "latency",
    max_rows: MaxRows = DEFAULT_MAX_ROWS,
    max_step_ms: MaxStepMs = None,
    max_queue: MaxQueue = DEFAULT_MAX_QUEUE,
) -> None:
    """Edit pictures on a page in the browser."""
    # Steps are timed before the first request for the sake of deadlines, which programs have and people have not.
    options = EngineOptions(
        model,
        backend,
        device,
        dtype,
        policy_name,
        max_rows,
        max_step_ms,
        max_queue,
        warm_up=api or max_step_ms is not None,
    )
    # Pictures that pages show lie in files of gradio's; none is left when the command ends.
    with TemporaryDirectory(prefix="ip2p-fast-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        from ..serving.log_lines import log_to_stderr
        from ..serving.metrics import Metrics
        from ..serving.server import require_free, serve
        from .site import alone, beside_api

        require_free(host, port)
        log_to_stderr("WARNING")
        metrics = Metrics()
        engine = start_engine(options, metrics)
        _wait(engine)
        site = beside_api(engine, Path(model).name, metrics) if api else alone(engine)
        serve(site, engine, host, port, _GRACE_SECONDS, on_listening=lambda: _tell(host, port))


def _wait(engine: Engine) -> None:
    while not engine.wait_until_ready(0.1):
        if not engine.healthy:
            raise RuntimeError("the model failed in its first steps: the log has the cause")


def _tell(host: str, port: int) -> None:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    print(f"The page is at http://{shown}:{port}/ (Ctrl+C ends it)", flush=True)
