"""The HTTP application: OpenAI's image edits, models, health, readiness, metrics, and the documents of the API."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi_swagger import patch_fastapi
from PIL import Image
from starlette.exceptions import HTTPException

from .. import __version__
from .checked import Work, checked
from .errors import ApiError, api_error, internal_error
from .guard import EDITS, Guard
from .metrics import Metrics
from .openai_form import EditForm, read_form
from .openai_replies import completed_event, encoded, error_event, images_response, partial_event
from .openai_schema import REQUEST_BODY, RESPONSES
from .runner import Runner
from .safety import SafetyChecker, load_checker, require_safe
from .settings import Settings
from .tickets import Event, Failed, Finished, Stepped, Ticket

log = logging.getLogger(__name__)

T = TypeVar("T")


class ClientLeft(Exception):
    """No one waits for the reply."""


def create_app(engine: Runner, settings: Settings, metrics: Metrics | None = None) -> FastAPI:
    """The application before an engine that runs, or that its caller starts.

    metrics: the engine's observer, where it has one; otherwise those of the API alone are counted.
    """
    metrics = metrics or Metrics()
    metrics.watch(engine)
    service = _Service(engine, settings, metrics, load_checker(settings.safety_checker))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="ip2p-fast",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    patch_fastapi(app, redirect_from_root_to_docs=False)  # FastAPI's own page at /docs has its scripts from elsewhere
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    if settings.cors_origins:  # outside the guard: a page may read its errors, and asks first without a key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )
    app.add_exception_handler(HTTPException, _http_error)

    @app.post(EDITS, openapi_extra={"requestBody": REQUEST_BODY}, responses=RESPONSES)
    async def edit_images(request: Request) -> Response:
        """Edit pictures by an instruction."""
        return await service.edit(request)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The model that is served."""
        names = (settings.name, *settings.aliases)
        made = {"object": "model", "created": service.created, "owned_by": "ip2p-fast"}
        return {"object": "list", "data": [{"id": name, **made} for name in names]}

    @app.get("/healthz", responses={503: {"description": "The engine has failed."}})
    async def healthz() -> Response:
        """Whether the engine works: if not, restart the server."""
        return PlainTextResponse("ok" if engine.healthy else "failed", 200 if engine.healthy else 503)

    @app.get("/readyz", responses={503: {"description": "Not yet, or no more."}})
    async def readyz() -> Response:
        """Whether requests should be sent here: warm, and not shutting down."""
        return PlainTextResponse("ready" if engine.ready else "not ready", 200 if engine.ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> Response:
        """Prometheus metrics."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


class _Service:
    """Requests on their way: read, checked and queued, followed, answered. The event loop does no work on pictures."""

    def __init__(self, engine: Runner, settings: Settings, metrics: Metrics, checker: SafetyChecker | None) -> None:
        self.engine, self.settings, self.metrics, self.checker = engine, settings, metrics, checker
        self.created = int(time.time())
        self._provenance = settings.name if settings.provenance else None
        # Uploads are decoded one at a time, which bounds memory by one picture.
        self._checks = ThreadPoolExecutor(1, "checks")
        self._replies = ThreadPoolExecutor(2, "replies")

    def close(self) -> None:
        self._checks.shutdown(wait=False, cancel_futures=True)
        self._replies.shutdown(wait=False, cancel_futures=True)

    async def edit(self, request: Request) -> Response:
        began = time.monotonic()
        if self.engine.full:  # before a body is read; `submit` has the last word
            retry = self.engine.backlog_seconds() / 2
            message = "the queue is full: ask again later"
            raise ApiError(429, message, "queue_full", kind="rate_limit_error", retry_after=retry)
        form = await read_form(request.headers, request.stream(), self.settings)
        events: asyncio.Queue[Event] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(event: Event) -> None:
            with suppress(RuntimeError):  # the event loop has ended: a shutdown
                loop.call_soon_threadsafe(events.put_nowait, event)

        work, ticket = await loop.run_in_executor(self._checks, self._submit, form, began, tell)
        followed = _Followed(request, events)
        if form.stream:
            try:
                await followed.next()  # Queued: a refusal has a status of its own, which a stream has no more
            except BaseException as error:
                ticket.cancel()
                if isinstance(error, ClientLeft):
                    return Response(status_code=499)
                raise
            stream = self._events(form, work, ticket, followed, began)
            return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return await self._answer(form, work, ticket, followed, began)

    def _submit(self, form: EditForm, began: float, tell: Callable[[Event], None]) -> tuple[Work, Ticket]:
        work = checked(form, self.engine.editor, self.settings)
        left = form.deadline - (time.monotonic() - began)
        previews = form.partial_images if form.stream else 0
        return work, self.engine.submit(work.requests, seconds=left, previews=previews, on_event=tell)

    async def _answer(
        self, form: EditForm, work: Work, ticket: Ticket, followed: _Followed, began: float
    ) -> JSONResponse | Response:
        try:
            pictures: dict[int, tuple[str, Image.Image]] = {}
            while len(pictures) < len(ticket.seeds):
                event = await followed.next()
                if isinstance(event, Finished):
                    pictures[event.edit] = await self._on_replies(self._picture, form, work, event.edit, event.picture)
        except ClientLeft:
            return Response(status_code=499)
        finally:
            ticket.cancel()
        self.metrics.edited(time.monotonic() - began)
        ordered = [pictures[edit] for edit in sorted(pictures)]
        sizes = [picture.size for _, picture in ordered]
        return JSONResponse(images_response(form, [text for text, _ in ordered], sizes, ticket.seeds, work.tokens))

    async def _events(
        self, form: EditForm, work: Work, ticket: Ticket, followed: _Followed, began: float
    ) -> AsyncIterator[bytes]:
        shown = [0] * len(ticket.seeds)
        left = len(ticket.seeds)
        try:
            while left:
                event = await followed.next()
                if isinstance(event, Stepped) and event.preview is not None:
                    text, picture = await self._on_replies(self._picture, form, work, event.edit, event.preview)
                    yield partial_event(form, text, picture.size, event.edit, shown[event.edit])
                    shown[event.edit] += 1
                elif isinstance(event, Finished):
                    text, picture = await self._on_replies(self._picture, form, work, event.edit, event.picture)
                    left -= 1
                    seed = ticket.seeds[event.edit]
                    yield completed_event(form, text, picture.size, event.edit, seed, work.tokens)
            self.metrics.edited(time.monotonic() - began)
        except ClientLeft:
            return
        except Exception as error:  # the status is sent already, so the stream itself has to tell
            known = api_error(error)
            if known is None:
                identity = followed.request.scope["request_id"]
                log.exception("request %s failed", identity)
                known = internal_error(identity)
            yield error_event(known.body)
        finally:
            ticket.cancel()

    def _picture(self, form: EditForm, work: Work, edit: int, pixels: Any) -> tuple[str, Image.Image]:
        """A picture of the model's as the client gets it: at the output's size, seen by the checker, base64."""
        picture = work.canvas_of(edit, form).finish(Image.fromarray(pixels))
        require_safe(self.checker, [picture], form.prompt)
        return encoded(picture, form, self._provenance), picture

    def _on_replies(self, function: Callable[..., T], *arguments: Any) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._replies, function, *arguments)


class _Followed:
    """A ticket's events, until its client leaves."""

    def __init__(self, request: Request, events: asyncio.Queue[Event]) -> None:
        self.request, self._events = request, events

    async def next(self) -> Event:
        """The next event. Raises ClientLeft, and what ended the ticket."""
        event = asyncio.ensure_future(self._events.get())
        left = asyncio.ensure_future(self._left())
        try:
            await asyncio.wait((event, left), return_when=asyncio.FIRST_COMPLETED)
            if left.done() and not event.done():
                raise ClientLeft
            got = await event
        finally:
            event.cancel()
            left.cancel()
        if isinstance(got, Failed):
            raise got.error
        return got

    async def _left(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass


async def _http_error(_: Request, error: Exception) -> JSONResponse:
    """Errors of routing: no such path, or a method that it has not."""
    assert isinstance(error, HTTPException)
    told = ApiError(error.status_code, str(error.detail), "not_found" if error.status_code == 404 else None)
    return JSONResponse(told.body, error.status_code, dict(error.headers or {}))
