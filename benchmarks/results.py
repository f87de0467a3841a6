"""The form of a results file, `benchmarks/results/NAME.json`: who measured what, on what, and against which target.

To write one from anywhere in the project:

    rows = [Row("cpu.kernels.guided_step.vs_eager", 3.4, "x", "higher", target=3.0, detail={"p50": ...})]
    write_results(Path("benchmarks/results/cpu-kernels.json"), rows, rerun="ip2p-fast bench cpu-kernels")

Every number that is promised is one row. A check that did not run has no row: there is no value that means "not run".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ip2p_fast.errors import BadInput

from .machine import describe_machine, source_commit, versions

SCHEMA = 1
_ID = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
_BETTER = ("higher", "lower")
_REQUIRED = ("schema", "created", "commit", "machine", "versions", "rows")
_OPTIONAL = ("rerun", "quick")


@dataclass(frozen=True)
class Row:
    """One number.

    id      dotted, lower case: device.model.figure, as cpu.pocket.exact.vs_diffusers
    unit    "x" for a ratio, "s", "GB", "edits/s", "GFLOP/s", "share" (of 1), ...
    better  "higher" or "lower"
    target  what was promised, or None
    detail  "what": one line for a reader, and whatever tells how it came about: p20, p50, p80, peers, settings
    """

    id: str
    value: float
    unit: str
    better: str
    target: float | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


@dataclass(frozen=True)
class Results:
    """A results file. `rerun` is the command that makes it again; `quick` marks a trial whose figures mean nothing."""

    created: str
    commit: str | None
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    rows: tuple[Row, ...]
    rerun: str | None = None
    quick: bool = False


def write_results(path: Path, rows: Sequence[Row], rerun: str, quick: bool = False) -> Results:
    """Writes rows with today's date, the commit, the machine and the versions; whole or not at all.

    Numbers are kept to six significant digits. Raises BadInput, before writing, for rows that `read_results` would
    refuse.
    """
    content = {
        "schema": SCHEMA,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": source_commit(),
        "machine": describe_machine(),
        "versions": versions(),
        "rerun": rerun,
        **({"quick": True} if quick else {}),
        "rows": [asdict(row) for row in rows],
    }
    content = _rounded(content)
    results = parse_results(content, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return results


def read_results(path: Path) -> Results:
    """Raises BadInput, naming the file and the fault, for what is no results file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} is no results file: {error}") from None
    return parse_results(content, str(path))


def parse_results(content: Any, source: str) -> Results:
    """Checks a file's content. Raises BadInput naming `source`, the place and what is wrong there."""
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise BadInput(f"{source}: the schema must be {SCHEMA}")
    _require_keys(content, required=_REQUIRED, allowed=_REQUIRED + _OPTIONAL, place=source)
    if not isinstance(content["rows"], list) or not content["rows"]:
        raise BadInput(f"{source}: rows must be a list with at least one row")
    rows = tuple(_row(row, f"{source}: row {number}") for number, row in enumerate(content["rows"]))
    ids = [row.id for row in rows]
    if repeated := {name for name in ids if ids.count(name) > 1}:
        raise BadInput(f"{source}: more than one row is called {', '.join(sorted(repeated))}")
    return Results(
        created=content["created"],
        commit=content["commit"],
        machine=content["machine"],
        versions=content["versions"],
        rows=rows,
        rerun=content.get("rerun"),
        quick=content.get("quick", False),
    )


def _row(content: Any, place: str) -> Row:
    names = tuple(Row.__dataclass_fields__)
    if not isinstance(content, dict):
        raise BadInput(f"{place} is {content!r}: an object with {', '.join(names)} is needed")
    _require_keys(content, required=names, allowed=names, place=place)
    row = Row(**content)
    if not isinstance(row.id, str) or not _ID.fullmatch(row.id):
        raise BadInput(f"{place}: id {row.id!r} is not lower-case words with dots between them")
    place = f"{place} ({row.id})"
    if not _is_number(row.value):
        raise BadInput(f"{place}: value {row.value!r} is not a finite number; a check that did not run has no row")
    if row.target is not None and not _is_number(row.target):
        raise BadInput(f"{place}: target {row.target!r} is neither a finite number nor null")
    if row.better not in _BETTER:
        raise BadInput(f"{place}: better is {row.better!r}; choose {' or '.join(_BETTER)}")
    if not isinstance(row.unit, str) or not row.unit:
        raise BadInput(f"{place}: unit is {row.unit!r}; name it, or x for a ratio")
    if not isinstance(row.detail, dict):
        raise BadInput(f"{place}: detail is {row.detail!r}; an object is needed")
    return row


def _require_keys(content: dict[str, Any], required: Sequence[str], allowed: Sequence[str], place: str) -> None:
    if missing := [name for name in required if name not in content]:
        raise BadInput(f"{place}: {', '.join(missing)} missing")
    if unknown := sorted(content.keys() - set(allowed)):
        raise BadInput(f"{place}: unknown {', '.join(unknown)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _rounded(value: Any) -> Any:
    """Floats to six significant digits, through lists and objects: more would pretend to a precision no clock has."""
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value
