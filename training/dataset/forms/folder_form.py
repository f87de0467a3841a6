"""The original's form: a numbered folder for each pair of captions, in it the pairs of pictures named by their seeds.

    seeds.json                       [[folder, [seed, ...]], ...]: the pairs that are used
    0000000/prompt.json              input (or caption), edit, output
    0000000/metadata.jsonl           a line a pair: seed, p2p_threshold, cfg_scale, clip_sim_0, _1, _dir, _image
    0000000/123_0.jpg, 123_1.jpg     before and after

Two names of ours may stand in a line of metadata.jsonl: `key`, where it is not FOLDER-SEED, and `numbered`, true where
the seed is not known and the number only tells the pictures of a folder apart.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ip2p_fast.errors import BadInput
from ip2p_fast.whole import whole

from .record import PairRecord, distinct, key_of, record_from

# The original's names, ours.
_PROMPT = (("input", "caption"), ("edit", "instruction"), ("output", "edited_caption"))
_SETTINGS = (("p2p_threshold", "p"), ("cfg_scale", "cfg"))
_SIMILARITIES = (
    ("clip_sim_0", "text_image_0"),
    ("clip_sim_1", "text_image_1"),
    ("clip_sim_dir", "direction"),
    ("clip_sim_image", "image"),
)


def is_folder_form(folder: Path) -> bool:
    """Whether there is a seeds.json, or a prompt.json in any folder."""
    return (folder / "seeds.json").is_file() or any(True for _ in folder.glob("*/prompt.json"))


def read_folder(folder: Path) -> Iterator[PairRecord]:
    """The pairs of seeds.json in its order; where there is none, all pairs found, by folder and seed.

    Raises:
        BadInput: a file that is named or needed is not there, or cannot be read; the message names it.
    """
    for name, seeds in _listed(folder):
        place = folder / name
        if not place.is_dir() or place.parent != folder:
            raise BadInput(f"{folder / 'seeds.json'} names {name}, which is no folder there")
        prompt = _prompt(place / "prompt.json")
        metadata = {line.get("seed"): line for line in _metadata(place / "metadata.jsonl")}
        for seed in seeds:
            before, after = (_bytes(place / f"{seed}_{side}.jpg") for side in (0, 1))
            line = metadata.get(seed, {})
            known = {**prompt, **{ours: line.get(theirs) for theirs, ours in _SETTINGS}}
            known["similarities"] = {ours: line.get(theirs) for theirs, ours in _SIMILARITIES}
            known["seed"] = None if line.get("numbered") else seed
            yield record_from(key_of(line.get("key") or f"{name}-{seed}"), before, after, known, f"{place}, {seed}")


def write_folder(records: Iterable[PairRecord], folder: Path) -> int:
    """Writes a data set in the original's form, whole or not at all, and returns the number of records.

    Records that follow each other with the same captions and instruction share a folder. Pictures are written as they
    are, under the names of the form, which end in .jpg.

    Raises:
        BadInput: the folder is there already, a key is repeated, or there is no record.
    """
    listed: list[tuple[str, list[int]]] = []
    with whole(folder) as partial:
        partial.mkdir()
        for number, (prompt, seeds) in enumerate(_grouped(distinct(records), partial)):
            name = f"{number:07d}"
            _write_json(partial / name / "prompt.json", prompt)
            listed.append((name, seeds))
        if not listed:
            raise BadInput(f"there are no records to write to {folder}")
        _write_json(partial / "seeds.json", listed)
    return sum(len(seeds) for _, seeds in listed)


def _grouped(records: Iterator[PairRecord], folder: Path) -> Iterator[tuple[dict[str, str], list[int]]]:
    """Writes the pairs of one folder after another; gives each folder's prompt and seeds once its pairs are there."""
    numbers = itertools.count()
    for _, group in itertools.groupby(records, key=lambda r: (r.caption, r.instruction, r.edited_caption)):
        remaining: Iterator[PairRecord] = group
        first = next(remaining, None)
        while first is not None:
            place = folder / f"{next(numbers):07d}"
            place.mkdir()
            prompt = {theirs: getattr(first, ours) for theirs, ours in _PROMPT if getattr(first, ours) is not None}
            seeds, first = _write_pairs(itertools.chain([first], remaining), place)
            yield prompt, seeds


def _write_pairs(records: Iterator[PairRecord], place: Path) -> tuple[list[int], PairRecord | None]:
    """Writes pairs until a seed comes a second time; gives the seeds, and the record that has to go elsewhere."""
    seeds: dict[int, None] = {}
    with (place / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for record in records:
            if record.seed in seeds:
                return list(seeds), record
            free = (number for number in itertools.count(len(seeds)) if number not in seeds)
            seed = next(free) if record.seed is None else record.seed
            seeds[seed] = None
            lines.write(json.dumps(_line(record, seed, place.name), ensure_ascii=False) + "\n")
            for side, data in enumerate((record.input_image, record.edited_image)):
                (place / f"{seed}_{side}.jpg").write_bytes(data)
    return list(seeds), None


def _line(record: PairRecord, seed: int, folder: str) -> dict[str, Any]:
    line: dict[str, Any] = {"seed": seed}
    line |= {theirs: getattr(record, ours) for theirs, ours in _SETTINGS if getattr(record, ours) is not None}
    if record.similarities is not None:
        line |= {theirs: getattr(record.similarities, ours) for theirs, ours in _SIMILARITIES}
    if record.key != f"{folder}-{seed}":
        line["key"] = record.key
    if record.seed is None:
        line["numbered"] = True
    return line


def _listed(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Folders and the seeds of their pairs."""
    path = folder / "seeds.json"
    if path.is_file():
        listed = _json(path)
        try:
            yield from ((str(name), [int(seed) for seed in seeds]) for name, seeds in listed)
        except (TypeError, ValueError) as error:
            raise BadInput(f"{path} is not of the form [[folder, [seed, ...]], ...]") from error
        return
    for prompt in sorted(folder.glob("*/prompt.json")):
        stems = [picture.stem.removesuffix("_0") for picture in prompt.parent.glob("*_0.jpg")]
        yield prompt.parent.name, sorted(int(stem) for stem in stems if stem.isdecimal())


def _prompt(path: Path) -> dict[str, Any]:
    prompt = _json(path)
    if not isinstance(prompt, dict):
        raise BadInput(f"{path} holds {type(prompt).__name__}, not an object")
    if "input" not in prompt and "caption" in prompt:
        prompt["input"] = prompt["caption"]
    return {ours: prompt.get(theirs) for theirs, ours in _PROMPT}


def _metadata(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for number, text in enumerate(_bytes(path).splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise BadInput(f"{path}, line {number}, is no JSON: {error}") from error
        if not isinstance(line, dict):
            raise BadInput(f"{path}, line {number}, holds {type(line).__name__}, not an object")
        yield line


def _json(path: Path) -> Any:
    try:
        return json.loads(_bytes(path))
    except ValueError as error:
        raise BadInput(f"{path} is no JSON: {error}") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
