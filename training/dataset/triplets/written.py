"""Triplets written by people, from the files they come in."""

from __future__ import annotations

import json
from pathlib import Path

from ip2p_fast.errors import BadInput

from .triplet import AFTER_CAPTION, NotATriplet, Triplet, completion, parse

_NAMED = 5


def read_triplets(path: Path) -> list[Triplet]:
    """The triplets of a file of JSON lines, in order; blank lines are passed over.

    A line has `caption` (or `input`), `edit` and `output`; or `prompt` and `completion` in the format of `triplet`, as
    files for the finetuning of GPT-3 had it.

    Raises:
        BadInput: lines that are none, named by their numbers, or a file that is not there or holds nothing.
    """
    if not path.is_file():
        raise BadInput(f"{path} is not there")
    triplets, faults = [], []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                triplets.append(_triplet(line))
            except ValueError as fault:
                faults.append(f"line {number}: {fault}")
    if faults:
        more = f"; and {len(faults) - _NAMED} more lines" if len(faults) > _NAMED else ""
        raise BadInput(f"{path}: {'; '.join(faults[:_NAMED])}{more}")
    if not triplets:
        raise BadInput(f"{path} holds no triplet")
    return triplets


def _triplet(line: str) -> Triplet:
    """Raises ValueError: the line is no triplet."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}") from error
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if "prompt" in row and "completion" in row:
        caption, text = _text(row, "prompt").removesuffix(AFTER_CAPTION), _text(row, "completion")
    else:
        caption = _text(row, "caption" if "caption" in row else "input")
        text = completion(Triplet(caption, _text(row, "edit"), _text(row, "output")))
    if not caption.strip() or "\n" in caption or "##" in caption:
        raise NotATriplet("the caption is empty, or holds a delimiter or a line break")
    return parse(caption, text)


def _text(row: dict, name: str) -> str:
    if name not in row:
        raise ValueError(f"no {name!r}; it has {', '.join(map(repr, row))}")
    if not isinstance(row[name], str):
        raise ValueError(f"{name!r} is {type(row[name]).__name__}, not text")
    return row[name]
