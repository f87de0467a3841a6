"""A file or folder that appears whole or not at all, and the hash that tells later whether it still is."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import BadInput

_CHUNK = 2**20


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A free name beside `path` to write a file or folder under. It takes the name `path` once all of it is on disk.

    What is left under the free name when the block fails is removed; after a kill it stays, hidden, as `.*.part`.

    Raises:
        BadInput: `path` is there already (an empty folder is not in the way), or its folder cannot be written.
    """
    _require_free(path)
    partial = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _flush(partial)
        _require_free(path)
        partial.rename(path)
        _flush(path.parent)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """In hexadecimal, of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _require_free(path: Path) -> None:
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise BadInput(f"{path} is there already: remove it, or choose another output")


def _flush(path: Path) -> None:
    if path.is_dir() and hasattr(os, "sync"):
        os.sync()  # once, not file by file: a data set has hundreds of thousands
    elif path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
