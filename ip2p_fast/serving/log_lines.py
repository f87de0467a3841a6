"""Log lines that nothing a client sent can forge: control characters are escaped, tracebacks are indented."""

from __future__ import annotations

import logging

from .errors import printable


class PlainFormatter(logging.Formatter):
    """One line a record, each line of a traceback behind a bar."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, ei) -> str:
        lines = super().formatException(ei).split("\n")
        return "\n".join("    | " + printable(line) for line in lines)


def log_to_stderr(level: str = "INFO") -> None:
    """All log lines of the process, uvicorn's too, in this form on stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(PlainFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
