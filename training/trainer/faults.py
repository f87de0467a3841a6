"""Records and files that cannot be used: named once, counted, and skipped, or the end of the work."""

from __future__ import annotations

import threading
import warnings

from ip2p_fast.errors import BadInput

_NAMED = 20


class Faults:
    """Counts distinct faults. The first are told as warnings, each with its name and cause.

    strict: raise at the first instead.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.found: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, name: str, cause: str) -> None:
        """Raises BadInput when strict."""
        if self.strict:
            raise BadInput(f"{name} cannot be used: {cause}; without --strict it would be skipped")
        with self._lock:
            if name in self.found:
                return
            self.found[name] = cause
            count = len(self.found)
        if count <= _NAMED:
            warnings.warn(f"skipped {name}: {cause}", stacklevel=2)
        elif count == _NAMED + 1:
            warnings.warn(f"more than {_NAMED} records or files are skipped; further ones are counted", stacklevel=2)
