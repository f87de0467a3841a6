"""The tables of the documents, drawn from the results files: README.md shows what has a target, docs/benchmarks.md all.

Reports have a table in a document of their own, and a plot beside it. A document says where its table goes with two
marker lines; everything between them is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ip2p_fast.errors import BadInput

from . import breakdown_report, gpu_breakdown_report, matrix_report, plots, stages_report, tried_report
from .results import Results, Row, read_results
from .serving import report as load_report

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().with_name("results")
TRIALS = Path("out/bench")
REPORTS = (
    load_report.REPORT,
    breakdown_report.REPORT,
    gpu_breakdown_report.REPORT,
    stages_report.REPORT,
    *matrix_report.REPORTS,
    tried_report.REPORT,
)
README, FULL = Path("README.md"), Path("docs/benchmarks.md")


def write_tables(root: Path, results: Path) -> list[Path]:
    """Redraws the tables of the documents under `root` and returns those that changed. Raises BadInput as `drawn`."""
    changed = []
    for path, text in drawn(root, results).items():
        if path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    for path, draw, found in _unplotted(root, results):
        draw(found, path)
        changed.append(path)
    return changed


def check_tables(root: Path, results: Path) -> None:
    """Raises BadInput if a document's table or plot is not what its results files give, or as `drawn`."""
    old = [str(path) for path, text in drawn(root, results).items() if path.read_text(encoding="utf-8") != text]
    old += [str(path) for path, _, _ in _unplotted(root, results)]
    if old:
        raise BadInput(f"{', '.join(old)} and {results} differ: run ip2p-fast bench table")


def drawn(root: Path, results: Path) -> dict[Path, str]:
    """Every document under `root` as it should be.

    Raises BadInput for a results file that is faulty or of a quick trial, a document without the markers, or none.
    """
    files = {path.stem: read_results(path) for path in sorted(results.glob("*.json"))}
    if trials := [name for name, found in files.items() if found.quick]:
        raise BadInput(f"{', '.join(trials)} in {results}: the figures of a --quick trial mean nothing; remove it")
    tables = {README: targets_table(files), FULL: full_tables(files)}
    documents = {root / path: table for path, table in tables.items() if (root / path).exists()}
    if not documents:
        raise BadInput(f"{root} has neither {README} nor {FULL}: run this in a checkout of ip2p-fast")
    texts = {path: between_markers(path, table) for path, table in documents.items()}
    for report in REPORTS:
        path = root / report.document
        if report.suite in files and path.exists():
            text = texts.get(path) or read_document(path)
            texts[path] = replace_between(text, report.table(files[report.suite]), report.begin, report.end, str(path))
    return texts


def targets_table(files: Mapping[str, Results]) -> str:
    """One table of the rows that have a target; "" where nothing is measured yet."""
    rows = [row for found in files.values() for row in found.rows if row.target is not None]
    if not rows:
        return ""
    lines = ["| figure | measured | target | met |", "| --- | --- | --- | --- |"]
    for row in rows:
        lines.append(
            f"| {_title(row)} | {_value(row, row.value)} | {_target(row)} | {'yes' if row.met else '**no**'} |"
        )
    return "\n".join(lines)


def full_tables(files: Mapping[str, Results]) -> str:
    """A section a results file: every row with its spread, then the machine, the commit and how to run it again."""
    return "\n\n".join(_section(name, found) for name, found in files.items())


def _unplotted(root: Path, results: Path) -> list[tuple[Path, Callable[[Results, Path], None], Results]]:
    """Plots that are absent or of other results: where they go, what draws them, and of which results."""
    found = []
    for report in REPORTS:
        path = results / f"{report.suite}.json"
        if report.plot and report.draw and path.exists() and (root / report.document).exists():
            measured = read_results(path)
            if not plots.is_of(root / report.plot, measured):
                found.append((root / report.plot, report.draw, measured))
    return found


def _section(name: str, found: Results) -> str:
    lines = [f"### {name}", "", "| figure | id | measured | p20 to p80 | target |", "| --- | --- | --- | --- | --- |"]
    for row in found.rows:
        target = f"{_target(row)} ({'met' if row.met else '**not met**'})" if row.target is not None else ""
        lines.append(f"| {_title(row)} | `{row.id}` | {_value(row, row.value)} | {_spread(row)} | {target} |")
    machine = ", ".join(f"{key} {_plain(value)}" for key, value in found.machine.items() if value is not None)
    versions = ", ".join(f"{key} {value}" for key, value in found.versions.items() if value != "absent")
    lines += ["", f"Measured {found.created[:10]} at {found.commit or 'an unknown commit'} on: {machine}.", ""]
    lines += [f"Versions: {versions}."]
    if found.rerun:
        lines += ["", f"Again: `{found.rerun}`"]
    return "\n".join(lines)


def between_markers(path: Path, table: str, begin: str = BEGIN, end: str = END) -> str:
    """A document's text with `table` in place of what stands between its marker lines.

    Raises BadInput for a document that cannot be read, or without the markers.
    """
    return replace_between(read_document(path), table, begin, end, str(path))


def read_document(path: Path) -> str:
    """Raises BadInput for a document that cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error


def replace_between(text: str, table: str, begin: str, end: str, source: str) -> str:
    """`between_markers` of a text. Raises BadInput, naming `source`, where the markers are not there."""
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise BadInput(f"{source} needs one line {begin} and, below it, one line {end}: the table goes between them")
    lines = f"{table}\n" if table else ""
    return f"{text[: text.index(begin)]}{begin}\n{lines}{text[text.index(end) :]}"


def _title(row: Row) -> str:
    return str(row.detail.get("what", row.id)).replace("|", "\\|")


def _target(row: Row) -> str:
    return f"{'at least' if row.better == 'higher' else 'at most'} {_value(row, row.target)}"


def _spread(row: Row) -> str:
    """Only where p20 and p80 are of the row's own value: a row in edits/s may detail the seconds of a call."""
    low, high = row.detail.get("p20"), row.detail.get("p80")
    return "" if low is None or high is None else f"{_value(row, low)} to {_value(row, high)}"


def _value(row: Row, value: float | None) -> str:
    if value is None:
        return ""
    if row.unit == "share":
        return f"{100 * value:.1f}%"
    return f"{_plain(value)}{'x' if row.unit == 'x' else f' {row.unit}'}"


def _plain(value: object) -> str:
    return plots.three_digits(value) if isinstance(value, float) else str(value)
