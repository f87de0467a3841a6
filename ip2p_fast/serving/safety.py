"""The hook of a safety checker: a function of the operator's that sees pictures before anyone else does."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

from PIL import Image

from ..errors import BadInput
from .errors import ApiError

SafetyChecker: TypeAlias = Callable[[Sequence[Image.Image], str], str | None]
"""(pictures, prompt) -> why they may not be shown, or None. What it raises fails the request."""


def load_checker(path: str | None) -> SafetyChecker | None:
    """The function at "module:function". Raises BadInput where there is none."""
    if path is None:
        return None
    module, _, name = path.partition(":")
    try:
        checker = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise BadInput(f"the safety checker {path!r} cannot be imported: {error}; module:function is needed") from error
    if not callable(checker):
        raise BadInput(f"the safety checker {path!r} is not a function")
    return checker


def require_safe(checker: SafetyChecker | None, pictures: Sequence[Image.Image], prompt: str) -> None:
    """Raises ApiError (400, moderation_blocked) for pictures that the checker refuses."""
    reason = None if checker is None else checker(pictures, prompt)
    if reason is not None:
        raise ApiError(400, f"refused by the safety checker: {reason}", "moderation_blocked")
