"""How numbers are written in the options of commands: ranges, spans of steps, and values of words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ip2p_fast.errors import BadInput


def guidance_of(base: str) -> tuple[float, float]:
    """The range of guidance that a model's defaults.json names, else the paper's."""
    from ip2p_fast.checkpoints import SHIPPED

    from .pairs.samples import Draws

    path = SHIPPED.get(base, Path(base)) / "defaults.json"
    defaults: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    low, high = defaults.get("cfg", Draws().cfg)
    return float(low), float(high)


def picture_size(text: str) -> tuple[int, int]:
    """ "WIDTHxHEIGHT" -> (height, width)"""
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError:
        raise BadInput(f"--size is {text!r}: WIDTHxHEIGHT in pixels is needed, as 512x512") from None
    return height, width


def number_range(option: str, text: str) -> tuple[float, float]:
    """ "from:to", or one number for both."""
    low, _, high = text.partition(":")
    return number(option, low), number(option, high or low)


def span(option: str, text: str) -> tuple[float, float]:
    """ "to", which begins at 0, or "from:to"."""
    low, separator, high = text.partition(":")
    return (number(option, low), number(option, high)) if separator else (0.0, number(option, low))


def word_spans(text: str) -> tuple[tuple[float, float], dict[str, tuple[float, float]]]:
    """The span of all words, and of those that have their own."""
    option = "--cross-replace-steps"
    parts = [part.strip() for part in text.split(",") if part.strip()]
    of_all = [part for part in parts if "=" not in part]
    if len(of_all) != 1:
        raise BadInput(f"{option} is {text!r}: one span for all words is needed, then WORD=span for others")
    own = assigned(option, ",".join(part for part in parts if "=" in part))
    return span(option, of_all[0]), {word: span(option, text) for word, text in own}


def assigned(option: str, text: str) -> list[tuple[str, str]]:
    """ "WORD=value,WORD=value" """
    pairs_ = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        word, separator, value = part.partition("=")
        if not separator or not word.strip():
            raise BadInput(f"{option} has {part!r}: WORD=VALUE is needed")
        pairs_.append((word.strip(), value))
    return pairs_


def number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"{option} has {text!r} where a number is needed") from None
