"""Errors as the API tells them, in OpenAI's form: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import math
from typing import Any

from ..errors import BadInput
from .tickets import QueueFull, Refused, TooLate


class ApiError(Exception):
    """What a client is told: an HTTP status, one line, and for machines a type, a code and the field concerned."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.kind = status, printable(message), code, param, kind
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After in whole seconds, at least 1, at most an hour."""
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(min(3600, max(1, math.ceil(self.retry_after))))}


def bad_field(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """400: a field of the request cannot be used."""
    return ApiError(400, message, code, param)


def api_error(error: Exception) -> ApiError | None:
    """What the API says of an error of the engine or the editor; None of one that is the server's own fault."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BadInput):
        return ApiError(400, str(error), "invalid_value")
    if isinstance(error, QueueFull):
        return ApiError(429, str(error), "queue_full", kind="rate_limit_error", retry_after=error.retry_after)
    if isinstance(error, Refused):
        code = "deadline" if isinstance(error, TooLate) else "unavailable"
        return ApiError(503, str(error), code, kind="server_error", retry_after=error.retry_after)
    return None


def internal_error(identity: str) -> ApiError:
    """500: the log has the cause under this id, the client has the id alone."""
    return ApiError(500, f"the server failed; its log has the cause under {identity}", "internal", kind="server_error")


def printable(text: str, length: int = 2000) -> str:
    """The text on one line, fit for a log or a terminal: what does not print is escaped, what is too long is cut."""
    cut = text if len(text) <= length else text[:length] + "..."
    escaped = (letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in cut)
    return "".join(escaped)
