"""WebDataset's form: tar files in which three members in a row, KEY.input.jpg, KEY.edited.jpg and KEY.json, are a pair.

A picture's member is called .jpg whatever its bytes are, so that a loader can ask for one name; readers
go by the bytes.
"""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from ip2p_fast.errors import BadInput
from ip2p_fast.whole import whole

from .record import PairRecord, described, distinct, is_key, key_of, record_from

END = bytes(2 * tarfile.BLOCKSIZE)
"""What ends a tar file, behind the last record."""

_PICTURES = ("jpg", "jpeg", "png", "webp")


def members(record: PairRecord) -> list[tuple[str, bytes]]:
    """Names and contents of a record's members: both pictures as they are, then its JSON, null where unknown.

    Raises:
        BadInput: the key is not [a-z0-9-]+, or a number is not finite, so that JSON cannot hold it.
    """
    if not is_key(record.key):
        raise BadInput(f"the key {record.key!r} cannot name members of a shard: use a-z, 0-9 and hyphens")
    try:
        text = json.dumps(described(record), ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # NaN or infinity, or half of a surrogate pair
        raise BadInput(f"{record.key} cannot be written as JSON: {error}") from error
    return [
        (f"{record.key}.input.jpg", record.input_image),
        (f"{record.key}.edited.jpg", record.edited_image),
        (f"{record.key}.json", text),
    ]


def tar_bytes(record: PairRecord) -> bytes:
    """A record's members as blocks of a tar file, without its end: records can be appended, and END written last.

    The bytes depend on the record alone: no time, owner or order comes in.

    Raises:
        BadInput: as `members`.
    """
    blocks = []
    for name, data in members(record):
        header = tarfile.TarInfo(name)  # mode 0644, owner and time 0
        header.size = len(data)
        blocks += [header.tobuf(tarfile.PAX_FORMAT), data, bytes(-len(data) % tarfile.BLOCKSIZE)]
    return b"".join(blocks)


def write_shard(records: Iterable[PairRecord], path: Path) -> int:
    """Writes a shard, whole or not at all, and returns the number of records.

    Raises:
        BadInput: the file is there already, a key is repeated or of another form, or there is no record.
    """
    count = 0
    with whole(path) as partial, partial.open("wb") as file:
        for record in distinct(records):
            file.write(tar_bytes(record))
            count += 1
        if not count:
            raise BadInput(f"there are no records to write to {path}")
        file.write(END)
    return count


def write_shards(records: Iterable[PairRecord], folder: Path, each: int = 1000) -> int:
    """Writes a folder of shards of `each` records, 000000.tar and so on, and returns the number of records.

    Raises:
        BadInput: as `write_shard`.
    """
    remaining = distinct(records)
    count = 0
    with whole(folder) as partial:
        for number in itertools.count():
            first = next(remaining, None)
            if first is None:
                break
            group = itertools.chain([first], itertools.islice(remaining, each - 1))
            count += write_shard(group, partial / f"{number:06d}.tar")
        if not count:
            raise BadInput(f"there are no records to write to {folder}")
    return count


def read_shard(path: Path) -> Iterator[PairRecord]:
    """The records of a shard, in its order, one in memory at a time.

    Further members of a record and further names in its JSON are ignored.

    Raises:
        BadInput: no tar file, or one that is damaged or cut short; a record that lacks a member, or whose JSON cannot
            be read. The message names file and key.
    """
    for name, group in itertools.groupby(_members(path), key=lambda member: member[0]):
        yield _record(path, name, [(ending, data) for _, ending, data in group])


def _members(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """What is before a member's first dot, what is after it, and its contents."""
    name = ""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would remember every one
                content = tar.extractfile(member) if member.isfile() else None
                if content is None:
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                name = f"{folder}/{stem}".removeprefix("./").strip("/")
                data = content.read()
                if len(data) < member.size:
                    raise tarfile.ReadError("unexpected end of data")
                yield name, ending.lower(), data
            # tarfile takes a header that it cannot read for the end
            file.seek(tar.offset)
            if file.read(len(END)) != END:
                raise tarfile.ReadError("no end mark")
    except tarfile.TarError as error:
        place = f"at or behind {name}" if name else "at its start"
        raise BadInput(f"{path} is no whole tar file: it is damaged or cut short {place} ({error})") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error


def _record(path: Path, name: str, found: list[tuple[str, bytes]]) -> PairRecord:
    where = f"{path}, {name}"
    data: dict[str, bytes] = {}
    for ending, content in found:
        if ending in data:
            raise BadInput(f"{where}: two members are called .{ending}")
        data[ending] = content
    before, after = (_picture(data, role, where) for role in ("input", "edited"))
    if "json" not in data:
        raise BadInput(f"{where}: there is no member .json; it has {_listed(data)}")
    try:
        known = json.loads(data["json"])
    except ValueError as error:
        raise BadInput(f"{where}: .json cannot be read ({error})") from error
    if not isinstance(known, dict):
        raise BadInput(f"{where}: .json holds {type(known).__name__}, not an object")
    return record_from(key_of(name), before, after, known, where)


def _picture(data: dict[str, bytes], role: str, where: str) -> bytes:
    for ending in _PICTURES:
        if f"{role}.{ending}" in data:
            return data[f"{role}.{ending}"]
    raise BadInput(f"{where}: there is no member .{role}.jpg; it has {_listed(data)}")


def _listed(data: dict[str, bytes]) -> str:
    return ", ".join(f".{ending}" for ending in data)
