"""One edit that a benchmark asks for, and what the layouts of benchmarks share: pictures, JSON, ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ip2p_fast.errors import BadInput
from ip2p_fast.images import load_image


@dataclass(frozen=True, eq=False)
class EditCase:
    """What to edit, how, and what is known of the result.

    id: unique in its benchmark, and the path of the edited picture without its ending, folders parted by `/`.
    source: [H, W, 3] uint8. instruction: what to change. source_caption, target_caption: of the picture before and the
    wanted one. group: task, turn or type, by which figures are given. mask: [H, W] bool, true where the edit may change
    the picture. target: [H, W, 3] uint8, a picture of the wanted result. follows: the id of an earlier case whose edit
    takes the place of the source. scored: false for a step on the way that has no figures of its own.
    """

    id: str
    source: np.ndarray
    instruction: str
    source_caption: str
    target_caption: str
    group: str
    mask: np.ndarray | None = None
    target: np.ndarray | None = None
    follows: str | None = None
    scored: bool = True


def distinct_cases(cases: Iterable[EditCase]) -> Iterator[EditCase]:
    """The cases, whose ids have to differ and to stay within a folder.

    Raises:
        BadInput: an id that was there before, or that leads out of its folder.
    """
    seen: set[str] = set()
    for case in cases:
        path = PurePosixPath(case.id)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in case.id or "\0" in case.id:
            raise BadInput(f"the id {case.id!r} is no path within a folder")
        if case.id in seen:
            raise BadInput(f"two cases have the id {case.id}: a benchmark's ids have to differ")
        seen.add(case.id)
        yield case


def read_picture(source: Path | bytes) -> np.ndarray:
    """A file, or its bytes -> [H, W, 3] uint8. Raises BadInput as `load_image`."""
    return np.array(load_image(source))


def read_json(folder: Path, name: str, kind: type) -> Any:
    """An object (`kind` dict) or array (list) from a file of a layout.

    Raises:
        BadInput: there is no such file (the message lists what there is), or it holds something else.
    """
    path = folder / name
    if not path.is_file():
        raise BadInput(f"{folder} has no {name}; there is {listing(folder)}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, kind):
        raise BadInput(f"{path} holds {type(value).__name__}, not {kind.__name__}")
    return value


def texts_of(entry: Any, names: tuple[str, ...], where: str) -> list[str]:
    """Texts by name from an object of a file.

    Raises:
        BadInput: one is absent or no text; the message says which there are.
    """
    if not isinstance(entry, dict):
        raise BadInput(f"{where} is {type(entry).__name__}, not an object")
    for name in names:
        if not isinstance(entry.get(name), str):
            there = ", ".join(sorted(map(str, entry))) or "nothing"
            raise BadInput(f"{where} has no text {name!r}; there is {there}")
    return [entry[name] for name in names]


def require_pictures(paths: Iterable[Path]) -> None:
    """Raises BadInput where files are not there: how many, and the first."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise BadInput(f"named pictures that are not there: {len(missing)}, the first is {missing[0]}")


def listing(folder: Path, most: int = 8) -> str:
    """What a folder holds, in a few words."""
    if not folder.is_dir():
        return "no such folder"
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir())
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "nothing"
