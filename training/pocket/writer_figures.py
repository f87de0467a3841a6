"""Are the triplets that a language model writes in form, and right about the world? Figures, results file, table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ip2p_fast.benchmarks.results import Row, read_results, write_results
from ip2p_fast.benchmarks.table import between_markers, full_tables
from ip2p_fast.errors import BadInput

from ..dataset.triplets.finetune_writer import perplexity, split_triplets
from ..dataset.triplets.triplet import NotATriplet, Triplet, parse
from ..dataset.triplets.writers import Sampling, TransformersWriter
from ..dataset.triplets.written import read_triplets
from . import language
from .scene import Edit, edits
from .split import draw_pair
from .writer import HELD_OUT_SHARE, WRITTEN

BEGIN, END = "<!-- pocket-writer:begin -->", "<!-- pocket-writer:end -->"
_DRAWN = 300
_MOST_ANSWERS = 4
_FIGURES = (
    ("parse", "share", "higher", 0.95, "answers in the format"),
    ("changed", "share", "higher", None, "of these, answers that change the caption; the others are dropped"),
    ("right", "share", "higher", 0.90, "triplets whose edited caption is exactly one edit away"),
    ("own_words", "share", "higher", None, "of these, instructions that the grammar does not have"),
    ("perplexity", "per token", "lower", None, "perplexity of triplets written by hand and held out"),
)


@dataclass(frozen=True)
class WriterReport:
    """Shares in [0, 1] over what it took to get `triplets` triplets, each caption asked once.

    parse: of the answers, those in the format. changed: of these, those that change the caption; the others are
    dropped, as they are from any data set. right: of the triplets, those whose edited caption says a scene that is
    exactly one edit away. own_words: of the right ones, those with an instruction that the grammar does not have for
    the edit. by_kind: kind of edit -> share of the right ones. perplexity: on written triplets that are held out.
    """

    parse: float
    changed: float
    right: float
    own_words: float
    perplexity: float
    triplets: int
    by_kind: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """The object that `ip2p-fast evaluate writer --json` prints."""
        return dict(vars(self))


def measure_writer(
    model: str, limit: int, batch: int = 256, advance: Callable[[int], None] = lambda done: None
) -> WriterReport:
    """Has a model write `limit` triplets to captions of held-out scenes, under the paper's sampling.

    Args:
        advance: told the number of triplets there are so far.

    Raises:
        BadInput: far fewer answers than asked for are triplets.
        ModelError: `model` is no causal language model that can be loaded.
    """
    writer = TransformersWriter(model, Sampling())
    answers = parsed = 0
    triplets: list[Triplet] = []
    while len(triplets) < limit:
        if answers >= _MOST_ANSWERS * limit:
            raise BadInput(f"{model} wrote {len(triplets)} triplets to {answers} captions: it is no writer of triplets")
        seeds = range(answers, answers + batch)
        captions = [_caption(n) for n in seeds]
        for caption, text in zip(captions, writer.write(captions, seeds), strict=True):
            if len(triplets) == limit:
                break
            answers += 1
            try:
                triplet = parse(caption, text)
            except NotATriplet:
                continue
            parsed += 1
            if not triplet.changes_nothing:
                triplets.append(triplet)
        advance(len(triplets))
    done = [(triplet, edit_done(triplet)) for triplet in triplets]
    right = [(triplet, edit) for triplet, edit in done if edit is not None]
    counts = Counter(edit.kind for _, edit in right)
    own_words = sum(not _says_the_grammar(triplet, edit) for triplet, edit in right)
    return WriterReport(
        parse=parsed / answers,
        changed=limit / parsed,
        right=len(right) / limit,
        own_words=own_words / max(1, len(right)),
        perplexity=perplexity(model, split_triplets(read_triplets(WRITTEN), HELD_OUT_SHARE)[1]),
        triplets=limit,
        by_kind={kind: count / len(right) for kind, count in sorted(counts.items())},
    )


def edit_done(triplet: Triplet) -> Edit | None:
    """The one edit that leads from caption to edited caption; None where there is no such edit."""
    try:
        before, after = language.parse_caption(triplet.caption), language.parse_caption(triplet.output)
    except BadInput:
        return None
    return next((edit for edit in edits(before) if edit.scene == after), None)


def _caption(number: int) -> str:
    return language.caption(draw_pair("held-out", number).scene, np.random.default_rng([number, 1]))


def _says_the_grammar(triplet: Triplet, edit: Edit) -> bool:
    scene, rng = language.parse_caption(triplet.caption), np.random.default_rng(0)
    # no edit has more phrasings than a few dozen
    return any(triplet.edit == language.instruction(scene, edit, rng) for _ in range(_DRAWN))


def record_writer(path: Path, report: WriterReport) -> None:
    """Writes the results file."""
    detail = {"triplets": report.triplets, "sampling": vars(Sampling()), "by_kind": report.by_kind}
    rows = [
        Row(f"pocket.writer.{name}", getattr(report, name), unit, better, target, {"what": what, **detail})
        for name, unit, better, target, what in _FIGURES
    ]
    write_results(path, rows, rerun=f"ip2p-fast evaluate writer --limit {report.triplets} --record {path.as_posix()}")


def draw_writer_table(document: Path, results: Path) -> None:
    """Redraws the table between the marker lines of a document.

    Raises:
        BadInput: the document lacks the markers, or the results file is faulty.
    """
    table = full_tables({results.stem: read_results(results)})
    document.write_text(between_markers(document, table, BEGIN, END), encoding="utf-8")
