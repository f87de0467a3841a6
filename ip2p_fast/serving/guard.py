"""What stands before the application: identity of a request, keys, limits on bodies, and no traceback to a client."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from .errors import ApiError, api_error, internal_error, printable
from .metrics import Metrics
from .settings import Settings

log = logging.getLogger(__name__)

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

EDITS = "/v1/images/edits"
_PATHS = (EDITS, "/v1/models", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")
CLIENT_LEFT = 499


class Guard:
    """ASGI middleware. Every error leaves in OpenAI's form; one of ours is logged in full under the request's id."""

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self._keys = [_digest(key) for key in settings.api_keys]
        self._bodies = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        identity, began, status = secrets.token_hex(8), time.monotonic(), CLIENT_LEFT
        scope["request_id"] = identity

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", identity.encode())]}
            try:
                await asyncio.wait_for(send(message), self.settings.body_seconds)
            except (asyncio.TimeoutError, TimeoutError):
                raise ClientDisconnect from None  # it reads nothing: as good as gone

        try:
            await self._guarded(scope, receive, sending)
        except ClientDisconnect:
            pass
        except Exception as error:
            known = api_error(error)
            if known is None:
                log.exception("request %s failed", identity)
            if status == CLIENT_LEFT:  # no reply has begun
                await _reply(known or internal_error(identity), scope, receive, sending)
        finally:
            path = scope["path"] if scope["path"] in _PATHS else "other"
            self.metrics.answered(path, status)
            log.info(
                "request %s %s %s %d %.3f s",
                *(identity, printable(scope["method"], 16), printable(scope["path"], 100), status),
                time.monotonic() - began,
            )

    async def _guarded(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if scope["path"].startswith("/v1/"):
            self._require_key(headers)
        if scope["path"] != EDITS or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self.settings.max_body:
            raise self._too_large()
        if self._bodies >= self.settings.max_bodies:
            message = f"{self._bodies} requests are being served, the limit: ask again later"
            raise ApiError(429, message, "too_many_requests", kind="rate_limit_error", retry_after=1.0)
        self._bodies += 1
        try:
            await self.app(scope, self._limited(receive), send)
        finally:
            self._bodies -= 1

    def _limited(self, receive: Receive) -> Receive:
        """Raises ApiError once a body is over its size, counted as it comes, or over its time."""
        received, complete = 0, False
        end = time.monotonic() + self.settings.body_seconds

        async def limited() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), end - time.monotonic())
            except (asyncio.TimeoutError, TimeoutError):
                seconds = self.settings.body_seconds
                raise ApiError(408, f"the body did not come within {seconds:g} s", "request_timeout") from None
            received += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if received > self.settings.max_body:
                raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        limit = self.settings.max_body
        return ApiError(413, f"the body is over the limit of {limit:,} bytes: send smaller pictures", "body_too_large")

    def _require_key(self, headers: Headers) -> None:
        if not self._keys:
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        # Every key is compared, each in constant time, so that the time tells nothing of them.
        if not _any(hmac.compare_digest(_digest(key), known) for known in self._keys) or scheme.lower() != "bearer":
            message = "the API key is missing or wrong: send Authorization: Bearer KEY"
            raise ApiError(401, message, "invalid_api_key", kind="authentication_error")


async def _reply(error: ApiError, scope: Message, receive: Receive, send: Send) -> None:
    await JSONResponse(error.body, error.status, error.headers)(scope, receive, send)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.strip().encode()).digest()


def _any(found: Iterable[bool]) -> bool:
    return sum(found) > 0
