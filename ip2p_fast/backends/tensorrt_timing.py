"""TensorRT's timing cache: what a build measured of kernels, kept for the next build of the same version and GPU.

TensorRT-RTX measures nothing when it builds, and has no use for one.
"""

from __future__ import annotations

import os
import secrets
import warnings
from pathlib import Path
from typing import Any

from ..errors import BadInput


def use_timings(config: Any, path: Path) -> None:
    """Gives a configuration the cache in `path`, or an empty one where that is absent, damaged or of another GPU.

    Warns, naming the file, where there is one that cannot be used; `keep_timings` puts another in its place.
    """
    stored = path.read_bytes() if path.is_file() else b""
    for content in (stored, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return
        if content:
            warnings.warn(
                f"{path} is damaged, or of another version or GPU: the build measures anew and replaces it",
                stacklevel=2,
            )


def keep_timings(config: Any, path: Path) -> None:
    """Writes the configuration's cache to `path`, with what another build has put there meanwhile; whole or not at all.

    Raises BadInput where the folder cannot be written.
    """
    cache = config.get_timing_cache()
    if cache is None:
        return
    if path.is_file() and (other := config.create_timing_cache(path.read_bytes())) is not None:
        cache.combine(other, ignore_mismatch=False)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        partial.write_bytes(bytes(cache.serialize()))
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
