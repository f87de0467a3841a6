"""A pair of training pictures with all that is known about it, and what can be wrong with one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ip2p_fast.errors import BadInput
from ip2p_fast.images import load_image


@dataclass(frozen=True)
class Similarities:
    """Cosines of CLIP embeddings (InstructPix2Pix, section 3.1.2), by which pairs are filtered.

    text_image_0, text_image_1: the picture before and its caption, the picture after and its caption. direction: the
    change of the pictures and the change of the captions. image: the two pictures.
    """

    text_image_0: float
    text_image_1: float
    direction: float
    image: float


@dataclass(frozen=True)
class PairRecord:
    """One pair of training pictures.

    key: unique in its set, [a-z0-9-]+, so no dot. input_image, edited_image: the bytes of a JPEG or PNG, before and
    after. instruction: what was asked for. caption, edited_caption: of the two pictures. seed, p, cfg: the noise both
    were drawn from, the share of steps with Prompt-to-Prompt's attention, and the guidance scale.
    """

    key: str
    input_image: bytes
    edited_image: bytes
    instruction: str
    caption: str | None = None
    edited_caption: str | None = None
    seed: int | None = None
    p: float | None = None
    cfg: float | None = None
    similarities: Similarities | None = None


SIMILARITIES = tuple(field.name for field in fields(Similarities))


def faults(record: PairRecord) -> list[str]:
    """What is wrong with a record, a line `what: how` each; none when it can be trained on. Decodes both pictures."""
    found = []
    if not is_key(record.key):
        found.append(f"key: {record.key!r} is not made of a-z, 0-9 and hyphens alone")
    found += _picture_faults(record)
    if not record.instruction.strip():
        found.append("instruction: it is empty")
    if record.seed is not None and record.seed < 0:
        found.append(f"seed: {record.seed} is below 0")
    if record.p is not None and not 0 <= record.p <= 1:  # written so that NaN fails too
        found.append(f"p: {record.p} is not from 0 to 1")
    if record.cfg is not None and not 0 < record.cfg < math.inf:
        found.append(f"cfg: {record.cfg} is not above 0 and finite")
    if record.similarities is not None:
        for name, value in asdict(record.similarities).items():
            if not -1 <= value <= 1:
                found.append(f"{name}: {value} is not from -1 to 1, as a cosine is")
    return found


def _picture_faults(record: PairRecord) -> list[str]:
    found, sizes = [], []
    for name, data in (("input picture", record.input_image), ("edited picture", record.edited_image)):
        try:
            sizes.append(load_image(data).size)
        except BadInput as error:
            found.append(f"{name}: {error}")
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        (width, height), (edited_width, edited_height) = sizes
        found.append(f"sizes: {width}x{height} before the edit, {edited_width}x{edited_height} after it")
    return found


def is_key(text: str) -> bool:
    """Whether a text is [a-z0-9-]+."""
    return re.fullmatch(r"[a-z0-9-]+", text) is not None


def key_of(*parts: object) -> str:
    """A key of whatever names a record elsewhere: joined by hyphens, each other character replaced by one."""
    return re.sub(r"[^a-z0-9-]", "-", "-".join(map(str, parts)).lower()) or "-"


def distinct(records: Iterable[PairRecord]) -> Iterator[PairRecord]:
    """The records, whose keys have to differ.

    Raises:
        BadInput: a key that was there before.
    """
    seen: set[str] = set()
    for record in records:
        if record.key in seen:
            raise BadInput(f"two records have the key {record.key}: a set's keys have to differ")
        seen.add(record.key)
        yield record


def described(record: PairRecord) -> dict[str, Any]:
    """All but key and pictures, by field, None where unknown: what `record_from` reads back."""
    return {name: value for name, value in asdict(record).items() if name not in ("key", "input_image", "edited_image")}


def record_from(key: str, input_image: bytes, edited_image: bytes, known: Mapping[str, Any], where: str) -> PairRecord:
    """A record of what a file says of a pair.

    Args:
        known: values by field; what is absent or None is unknown, names of no field are ignored. An absent instruction
            becomes an empty one, which is a fault of the record and no reason to stop reading.
        where: names the file and the pair in errors.

    Raises:
        BadInput: a value of another type than its field's.
    """
    return PairRecord(
        key=key,
        input_image=input_image,
        edited_image=edited_image,
        instruction=_text(known.get("instruction"), "instruction", where) or "",
        caption=_text(known.get("caption"), "caption", where),
        edited_caption=_text(known.get("edited_caption"), "edited caption", where),
        seed=_whole(known.get("seed"), "seed", where),
        p=_number(known.get("p"), "p", where),
        cfg=_number(known.get("cfg"), "cfg", where),
        similarities=_similarities(known.get("similarities"), where),
    )


def _similarities(measured: Any, where: str) -> Similarities | None:
    if measured is None:
        return None
    if not isinstance(measured, Mapping):
        raise BadInput(f"{where}: similarities are {measured!r}, not an object")
    cosines: dict[str, float] = {}
    for name in SIMILARITIES:
        value = _number(measured.get(name), name, where)
        if value is not None:
            cosines[name] = value
    missing = [name for name in SIMILARITIES if name not in cosines]
    if cosines and missing:
        raise BadInput(f"{where}: the similarities lack {', '.join(missing)}")
    return Similarities(**cosines) if cosines else None


def _text(value: Any, name: str, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BadInput(f"{where}: the {name} is {value!r}, not text")


def _number(value: Any, name: str, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput(f"{where}: {name} is {value!r}, not a number")
    return float(value)


def _whole(value: Any, name: str, where: str) -> int | None:
    number = _number(value, name, where)
    if number is not None and not number.is_integer():  # columns with gaps hold whole numbers as floats
        raise BadInput(f"{where}: {name} is {value!r}, not a whole number")
    return None if value is None else int(value)
