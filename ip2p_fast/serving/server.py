"""uvicorn with what a public server needs beside it: a time limit on headers, and a shutdown that finishes work."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..errors import BadInput
from .runner import Runner

HEADER_SECONDS = 10.0
# What a reply takes to be written once its edit was given up.
_LAST_WORDS = 5.0


def serve(
    app: FastAPI,
    engine: Runner,
    host: str,
    port: int,
    grace: float,
    header_seconds: float = HEADER_SECONDS,
    on_listening: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGTERM or SIGINT: then takes nothing more, finishes within `grace` seconds, gives the rest up.

    header_seconds: how long the headers of a request may take.
    on_listening: called once connections are taken.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=type("TimedHeaders", (_TimedHeaders,), {"header_seconds": header_seconds}),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=int(grace + _LAST_WORDS),
    )
    try:
        _Server(config, engine, grace, on_listening).run()
    finally:
        engine.stop()


def require_free(host: str, port: int) -> None:
    """Raises BadInput where the address cannot be listened at, so that no model is loaded in vain."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise BadInput(f"cannot listen at {host}:{port}: {error.strerror or error}") from None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, engine: Runner, grace: float, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._engine, self._grace, self._on_listening = engine, grace, on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_listening()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own raises the signal again in the end, and a shutdown that went well is no failure.
        self.force_exit = self.should_exit
        self.should_exit = True
        # In a thread, as a signal's handler may have interrupted the one that holds the engine's lock.
        threading.Thread(target=self._engine.stop, args=(self._grace,), daemon=True).start()


class _TimedHeaders(H11Protocol):
    """Closes a connection whose request's headers do not come in time; uvicorn itself waits for ever."""

    header_seconds = HEADER_SECONDS
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        if self._timer is None and not self._in_request:
            self._expect_headers()
        super().data_received(data)
        if self._in_request:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    @property
    def _in_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_headers(self) -> None:
        self._timer = self.loop.call_later(self.header_seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
