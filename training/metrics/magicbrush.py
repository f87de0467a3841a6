"""MagicBrush's test and dev sets (Zhang et al. 2023), unpacked.

    edit_sessions.json                 {"139": [{"input", "mask", "output", "instruction"}, ...], ...}: turns in order
    edit_turns.json                    the same turns in one array
    local_descriptions.json            {"139": {"139-output1.png": text}}; global_descriptions.json: also of the input
    images/139/139-input.png, 139-mask1.png, 139-output1.png, 139-mask2.png, ...

Turn n + 1 begins from the output of turn n.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ip2p_fast.errors import BadInput

from .cases import EditCase, distinct_cases, read_json, read_picture, require_pictures, texts_of

_NAMES = ("input", "mask", "output", "instruction")
CAPTIONS = ("local", "global")


def read_magicbrush(
    folder: Path, multi_turn: bool = False, captions: str = "local", limit: int | None = None
) -> Iterator[EditCase]:
    """The turns of a set. Ids are the names that the benchmark's own script looks for.

    Single-turn: every turn from its true input, 139/139_1, 139/139_inde_2, ...; the group is the turn. The turns are
    taken from edit_turns.json.
    Multi-turn: turns after the first begin from the edit before (139/139_1, 139/139_iter_2, ...), and only the last of
    a session is scored; the group is the number of turns. All first turns come first, then all second ones. The
    sessions are taken from edit_sessions.json.

    Args:
        captions: local describes what the turn changes, global the whole picture. The benchmark's example takes the
            local ones. A caption of the source that is not there is empty: no figure of this benchmark needs it.
        limit: of turns, or of sessions.

    Raises:
        BadInput: a file is absent or of another form, a picture that is named is not there, an output has no caption,
            or `captions` is neither.
    """
    if captions not in CAPTIONS:
        raise BadInput(f"captions is {captions!r}: one of {', '.join(CAPTIONS)} is needed")
    described = read_json(folder, f"{captions}_descriptions.json", dict)
    if multi_turn:
        sessions = read_json(folder, "edit_sessions.json", dict)
        turns = _by_turn(dict(itertools.islice(sessions.items(), limit)), folder)
    else:
        listed = itertools.islice(read_json(folder, "edit_turns.json", list), limit)
        turns = [_Turn(entry, f"{folder / 'edit_turns.json'}, turn {i}") for i, entry in enumerate(listed, 1)]
    require_pictures(path for turn in turns for path in turn.pictures(folder))
    for turn in turns:
        turn.caption(described, f"{captions}_descriptions.json")
    return distinct_cases(turn.case(folder, described, multi_turn) for turn in turns)


def write_magicbrush(cases: Sequence[EditCase], folder: Path, captions: str = "local") -> None:
    """Writes single-turn cases, in the order of their turns, with ids as `read_magicbrush` gives them.

    A turn after the first has no picture and caption of a source of its own: they are the output's of the turn before.

    Raises:
        ValueError: a case has no target or no mask.
    """
    sessions: dict[str, list[dict[str, str]]] = defaultdict(list)
    described: dict[str, dict[str, str]] = defaultdict(dict)
    for case in cases:
        if case.target is None or case.mask is None:
            raise ValueError(f"{case.id} has no target picture or no mask")
        name = case.id.partition("/")[0]
        number = len(sessions[name]) + 1
        source = f"{name}-output{number - 1}.png" if number > 1 else f"{name}-input.png"
        entry = {"input": source, "mask": f"{name}-mask{number}.png", "output": f"{name}-output{number}.png"}
        place = folder / "images" / name
        place.mkdir(parents=True, exist_ok=True)
        if number == 1:
            Image.fromarray(case.source).save(place / source)
        Image.fromarray(case.target).save(place / entry["output"])
        kept = np.where(case.mask, 0, 255).astype(np.uint8)
        Image.fromarray(np.dstack([case.source, kept])).save(place / entry["mask"])
        sessions[name].append(entry | {"instruction": case.instruction})
        described[name].setdefault(source, case.source_caption)
        described[name][entry["output"]] = case.target_caption
    turns = [turn for session in sessions.values() for turn in session]
    files = {"edit_sessions": sessions, "edit_turns": turns, f"{captions}_descriptions": described}
    for stem, value in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(value), encoding="utf-8")


class _Turn:
    """An entry of the set's files. number: from 1; of: the turns of its session, 0 where they are not known."""

    def __init__(self, entry: Any, where: str, number: int = 0, of: int = 0) -> None:
        self.input, self.mask, self.output, self.instruction = texts_of(entry, _NAMES, where)
        named = re.fullmatch(r"([^/\\]+?)-output([0-9]+)\.png", self.output)
        if named is None or (number and int(named[2]) != number):
            raise BadInput(f"{where}: the output is {self.output!r}, not IMAGE-output{number or 'N'}.png")
        self.image, self.number, self.of = named[1], int(named[2]), of

    def pictures(self, folder: Path) -> tuple[Path, ...]:
        return tuple(folder / "images" / self.image / name for name in (self.input, self.mask, self.output))

    def caption(self, described: dict[str, Any], file: str) -> str:
        of_image = described.get(self.image)
        text = of_image.get(self.output) if isinstance(of_image, dict) else None
        if not isinstance(text, str):
            raise BadInput(f"{file} has no text for {self.output}")
        return text

    def case(self, folder: Path, described: dict[str, Any], multi_turn: bool) -> EditCase:
        before, mask, after = self.pictures(folder)
        return EditCase(
            id=_id(self.image, self.number, multi_turn),
            source=read_picture(before),
            instruction=self.instruction,
            source_caption=str(described[self.image].get(self.input, "")),
            target_caption=described[self.image][self.output],
            group=_turns(self.of) if multi_turn else f"turn {self.number}",
            mask=_mask(mask),
            target=read_picture(after),
            follows=_id(self.image, self.number - 1, True) if multi_turn and self.number > 1 else None,
            scored=not multi_turn or self.number == self.of,
        )


def _by_turn(sessions: dict[str, Any], folder: Path) -> list[_Turn]:
    """All first turns, all second ones, ..."""
    turns = []
    for name, session in sessions.items():
        where = f"{folder / 'edit_sessions.json'}, session {name}"
        if not isinstance(session, list) or not session:
            raise BadInput(f"{where} is no array of turns")
        turns += [_Turn(entry, f"{where}, turn {i}", i, len(session)) for i, entry in enumerate(session, 1)]
    return sorted(turns, key=lambda turn: turn.number)


def _id(image: str, turn: int, multi_turn: bool) -> str:
    if turn == 1:
        return f"{image}/{image}_1"
    return f"{image}/{image}_{'iter' if multi_turn else 'inde'}_{turn}"


def _turns(count: int) -> str:
    return f"{count} turn" + "s" * (count > 1)


def _mask(path: Path) -> np.ndarray:
    """[H, W] bool, true where the picture may change: transparent, or white in a file without transparency."""
    try:
        with Image.open(path) as image:
            if image.mode in ("RGBA", "LA"):
                return np.asarray(image.getchannel("A")) == 0
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    return read_picture(path).min(2) >= 128
