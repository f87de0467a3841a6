"""A folder of edited pictures: made by a model, batch by batch, or found where they were made elsewhere."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ip2p_fast import Editor, EditRequest
from ip2p_fast.errors import BadInput
from ip2p_fast.images import save_image

from .cases import EditCase, listing, read_picture

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
MADE_WITH = "edits.json"


def make_edits(
    editor: Editor,
    cases: Iterable[EditCase],
    folder: Path,
    settings: Mapping[str, Any],
    seed: int = 0,
    batch: int = 8,
    advance: Callable[[int], None] = lambda done: None,
) -> int:
    """Edits every case whose picture is not in the folder yet, and writes it as ID.png, whole or not at all.

    A case's noise depends on its id and the seed alone: not on its batch, the limit, or what was there before.

    Args:
        cases: one that follows another comes after it.
        settings: other fields of EditRequest; None values are left out.
        batch: cases edited together.
        advance: told how many cases are done.

    Returns:
        The number of pictures made.

    Raises:
        BadInput: a request the model cannot meet, or the folder cannot be written.
    """
    chosen = {name: value for name, value in settings.items() if value is not None}
    waiting: list[tuple[str, EditRequest]] = []
    done = made = 0

    def edit_waiting() -> None:
        nonlocal done, made
        for (name, _), result in zip(waiting, editor.edit_many([request for _, request in waiting]), strict=True):
            path = folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_image(result.images[0], path)
        done, made = done + len(waiting), made + len(waiting)
        waiting.clear()
        advance(done)

    for case in cases:
        if find_edit(folder, case.id) is not None:
            done += 1
            continue
        if case.follows is not None and find_edit(folder, case.follows) is None:
            edit_waiting()
        source = case.source if case.follows is None else read_edit(folder, case.follows)
        request = EditRequest(Image.fromarray(source), case.instruction, seed=seed_of(case.id, seed), **chosen)
        waiting.append((case.id, request))
        if len(waiting) == batch:
            edit_waiting()
    edit_waiting()
    return made


def seed_of(case_id: str, seed: int) -> int:
    """The noise of a case: 32 bits of its id and the seed."""
    return zlib.crc32(f"{seed}/{case_id}".encode())


def find_edit(folder: Path, case_id: str) -> Path | None:
    """The picture of a case, with any of ENDINGS; None where there is none."""
    paths = (folder / f"{case_id}{ending}" for ending in ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def read_edit(folder: Path, case_id: str) -> np.ndarray:
    """The picture of a case, [H, W, 3] uint8.

    Raises:
        BadInput: there is none, or it cannot be read.
    """
    path = find_edit(folder, case_id)
    if path is None:
        raise BadInput(f"{folder} has no picture {case_id}.png; there is {listing(folder)}")
    return read_picture(path)


def claim_folder(folder: Path, made_with: Mapping[str, Any]) -> None:
    """Notes in the folder what its pictures are made with, or checks that they were made with the same.

    Raises:
        BadInput: the folder holds pictures made with something else, or unknown ones.
    """
    note = folder / MADE_WITH
    wanted = json.loads(json.dumps(made_with))
    if note.is_file():
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BadInput(f"{note} is no JSON: {error}") from error
        if found != wanted:
            raise BadInput(f"{folder} holds edits made with {found}, not with {wanted}: choose another --edited")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise BadInput(
            f"{folder} has no {MADE_WITH}, so its pictures were made elsewhere: "
            "leave out --model to score them, or choose another --edited"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write {note}: {error.strerror or error}") from error


def require_edits(folder: Path, case_ids: Iterable[str]) -> None:
    """Raises BadInput where pictures of cases are not there: how many, and the first."""
    missing = [case_id for case_id in case_ids if find_edit(folder, case_id) is None]
    if missing:
        raise BadInput(
            f"{folder} lacks edited pictures: {len(missing)}, the first is {missing[0]}.png "
            f"(or {', '.join(ENDINGS[1:])}); there is {listing(folder)}"
        )
