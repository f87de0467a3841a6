"""An OpenAI-compatible endpoint: asked at a measured pace, patiently, and every failure is one clear line."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ip2p_fast.errors import BadInput, MissingExtra

Answer = TypeVar("Answer")
_LONGEST_CAUSE = 300
# what servers that ask for no key are told
_NO_KEY = "none"


@dataclass(frozen=True)
class Pace:
    """How an endpoint is asked.

    timeout: seconds for one answer. reconnects: further tries after a failure that may pass (no connection, no answer
    in time, 429, 5xx), at intervals that double, with jitter. rate: requests a minute at most, these tries included.
    """

    timeout: float = 60.0
    reconnects: int = 5
    rate: float | None = None

    def __post_init__(self) -> None:
        if not self.timeout > 0:
            raise BadInput(f"timeout is {self.timeout}; it must be above 0 seconds")
        if self.reconnects < 0:
            raise BadInput(f"reconnects is {self.reconnects}; it must be at least 0")
        if self.rate is not None and not self.rate > 0:
            raise BadInput(f"rate is {self.rate}; it must be above 0 requests a minute")


class Endpoint:
    """One address. The key is `OPENAI_API_KEY` of the environment; servers on one's own machine mostly need none."""

    def __init__(self, address: str, pace: Pace) -> None:
        """
        Raises:
            BadInput: an address that is no http(s) URL.
            MissingExtra: without the openai package.
        """
        if not address.startswith(("http://", "https://")):
            raise BadInput(f"the endpoint {address!r} is no address: it has to begin with http:// or https://")
        try:
            import openai
        except ImportError as error:
            raise MissingExtra("an OpenAI-compatible endpoint", "openai") from error
        self.address, self._pace = address, pace
        hooks: dict[str, Any] = {} if pace.rate is None else {"request": [_Spacing(60 / pace.rate)]}
        self._client = openai.OpenAI(
            base_url=address,
            api_key=os.environ.get("OPENAI_API_KEY") or _NO_KEY,
            timeout=pace.timeout,
            max_retries=pace.reconnects,
            http_client=openai.DefaultHttpxClient(event_hooks=hooks, timeout=pace.timeout),
        )

    def ask(self, question: Callable[[Any], Any], read: Callable[[Any], Answer]) -> Answer:
        """What `read` finds in the answer to a question, which is a call of a client of the openai package.

        Raises:
            BadInput: there is no answer after all tries, or `read` cannot make sense of it.
        """
        import openai

        try:
            answer = question(self._client)
        except openai.APITimeoutError as error:
            raise self._failure(f"gave no answer within {self._pace.timeout:g} s{self._tries()}") from error
        except openai.APIConnectionError as error:
            raise self._failure(f"cannot be reached{self._tries()}: {error.__cause__ or error}") from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise self._failure(
                f"refuses the key ({error.status_code}): set OPENAI_API_KEY; {error.message}"
            ) from error
        except openai.NotFoundError as error:
            raise self._failure(f"has no such model or path (404): {error.message}") from error
        except openai.APIStatusError as error:
            tries = self._tries() if error.status_code == 429 or error.status_code >= 500 else ""
            raise self._failure(f"answers {error.status_code}{tries}: {error.message}") from error
        except (openai.OpenAIError, ValueError) as error:
            raise self._failure(f"answers what cannot be read: {error}") from error
        try:
            return read(answer)
        except (AttributeError, IndexError, TypeError) as error:
            raise self._failure(f"answers what is not of its kind: {answer}") from error

    def _failure(self, cause: str) -> BadInput:
        # pages of HTML come this way as well
        shown = cause if len(cause) <= _LONGEST_CAUSE else f"{cause[:_LONGEST_CAUSE]} ..."
        return BadInput(f"the endpoint {self.address} {' '.join(shown.split())}")

    def _tries(self) -> str:
        return f" in {self._pace.reconnects + 1} tries" if self._pace.reconnects else ""


class _Spacing:
    """Lets callers of several threads pass one by one, an interval in seconds apart."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._lock = threading.Lock()
        self._next = 0.0

    def __call__(self, request: Any) -> None:
        with self._lock:
            now = time.monotonic()
            slot = max(now, self._next)
            self._next = slot + self._interval
        time.sleep(slot - now)
