"""The page as part of an application: alone, or beside the API before the same engine."""

from __future__ import annotations

import gradio as gr
from fastapi import FastAPI

from ..serving.api import create_app
from ..serving.metrics import Metrics
from ..serving.runner import Runner
from ..serving.settings import Settings
from . import events, grid_events
from .edits import Running
from .looks import style, theme
from .page import build

_MAX_SESSIONS = 200  # tabs whose pictures are kept; the oldest are forgotten first
_MAX_FILE = 64_000_000  # bytes of an upload


def alone(engine: Runner) -> FastAPI:
    """An application that is the page."""
    return mount(FastAPI(docs_url=None, redoc_url=None, openapi_url=None), engine)


def beside_api(engine: Runner, name: str, metrics: Metrics) -> FastAPI:
    """An application with the page at its root and OpenAI's image edits at /v1. metrics: the engine's observer."""
    return mount(create_app(engine, Settings(name=name), metrics), engine)


def mount(app: FastAPI, engine: Runner, path: str = "") -> FastAPI:
    """Adds the page to an application at `path`. The engine is started and stopped by its owner."""
    page = build(engine.editor)
    running = Running()
    with page.blocks:
        events.connect(page, engine, running)
        grid_events.connect(page, engine, running)

        def left(request: gr.Request) -> None:
            for tab in ("edit", "grid"):
                running.stop(f"{request.session_hash} {tab}")

        page.blocks.unload(left)
    page.blocks.state_session_capacity = _MAX_SESSIONS
    page.blocks.queue(default_concurrency_limit=None, api_open=False)
    return gr.mount_gradio_app(
        app,
        page.blocks,
        path,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=_MAX_FILE,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=style(),
    )
