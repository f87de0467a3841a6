"""`ip2p-fast serve`: the server's command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import BadInput
from .engine import DEFAULT_MAX_QUEUE, Engine
from .policies import DEFAULT_MAX_ROWS, policy
from .settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def serve(
    model: Annotated[str, typer.Option(help="pocket, a hub id, a folder, a single file or a bundle.")] = "pocket",
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    name: Annotated[str | None, typer.Option(help="The model's name.", show_default="the end of --model")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="A further name that clients may ask for.")] = None,
    backend: Annotated[str, typer.Option(help="auto, torch, onnx, openvino or tensorrt.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    policy_name: Annotated[
        str, typer.Option("--policy", help="latency: edits join at once. throughput: they wait to join together.")
    ] = "latency",
    max_rows: Annotated[int, typer.Option(help="Most UNet rows in flight: bounds memory.")] = DEFAULT_MAX_ROWS,
    max_step_ms: Annotated[
        float | None, typer.Option(help="Fewer rows, so that a step stays this short.", show_default="no limit")
    ] = None,
    max_queue: Annotated[int, typer.Option(min=1, help="Edits that may wait.")] = DEFAULT_MAX_QUEUE,
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
    load_checker(safety_checker)
    require_free(host, port)
    chosen = policy(policy_name, max_rows, None if max_step_ms is None else max_step_ms / 1000)

    from ..editor import Editor

    editor = Editor.from_pretrained(model, backend, device, dtype, max_rows, max_pixels)
    log_to_stderr()
    metrics = Metrics()
    engine = Engine(editor, chosen, max_queue, metrics)
    engine.start(warm_up)
    application = create_app(engine, settings, metrics)
    serve_app(application, engine, host, port, grace, header_seconds=min(HEADER_SECONDS, body_seconds))


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
