"""Limits and bias: success by kind of edit (figure 13), and what changes unasked (figure 14).

Both are read off the same edits, the first held-out pairs of every kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ip2p_fast import Editor
from ip2p_fast.benchmarks.results import Row

from ..metrics.bootstrap import bootstrap_interval
from ..pocket.data import Pairs
from ..pocket.evaluate import Verdicts, spared_attributes, verdicts
from ..pocket.reader import Reader
from ..pocket.scene import ATTRIBUTES
from ..pocket.split import KINDS
from ..pocket.stages import load_vae
from ..pocket.vae import reconstruct
from .cases import balanced_pairs, pocket_cases
from .intervals import wilson_interval
from .sweep import Advance, edit_cases, model_name, settings_of

HARD = ("count", "position")
"""Kinds of edit that the paper finds hard: counting, and where things are."""
_ASPECTS = {"success": "do as asked", "kept": "keep the rest", "both": "do both"}


@dataclass(frozen=True)
class ByKind:
    """Edits of a balanced set, and the same pictures through the autoencoder alone, as the reader reads them."""

    pairs: Pairs
    edited: Verdicts
    decoded: Verdicts
    settings: Mapping[str, Any]


def edit_by_kind(
    editor: Editor,
    reader: Reader,
    per_kind: int,
    settings: Mapping[str, Any],
    advance: Advance = lambda done: None,
) -> ByKind:
    """Edits the first `per_kind` held-out pairs of every kind, and has the reader judge them.

    Raises:
        ModelError: the model is no folder with an autoencoder.
        BadInput: its pictures are not of the reader's size.
    """
    vae = load_vae(Path(editor.model_path))
    pairs = balanced_pairs(per_kind, reader.pixels)
    made_with = {"model": model_name(editor), **settings_of(editor, settings)}
    edited = edit_cases(editor, pocket_cases(pairs), settings, advance)
    decoded = reconstruct(vae, pairs.pixels[:, 0])
    return ByKind(pairs, verdicts(reader, pairs, np.stack(edited)), verdicts(reader, pairs, decoded), made_with)


def limit_rows(found: ByKind) -> list[Row]:
    """For each kind the shares that do as asked, keep the rest, and both, with Wilson's 95% intervals."""
    shares = {
        "success": found.edited.success,
        "kept": found.edited.kept,
        "both": found.edited.success & found.edited.kept,
    }
    rows = []
    for index, kind in enumerate(KINDS):
        of_kind = found.pairs.kinds == index
        for aspect, values in shares.items():
            done, edits = int(values[of_kind].sum()), int(of_kind.sum())
            detail = {
                "what": f"edits of kind {kind} that {_ASPECTS[aspect]}",
                "kind": kind,
                "aspect": aspect,
                "interval": list(wilson_interval(done, edits)),
                "edits": edits,
                "settings": found.settings,
            }
            rows.append(Row(f"limits.{kind}.{aspect}", done / edits, "share", "higher", None, detail))
    return rows


def bias_rows(found: ByKind) -> list[Row]:
    """For each kind of edit and attribute the share that changes unasked; for each attribute where it drifts to.

    The drift of a value is its share after the edits less its share before them, over the edits that had to leave the
    attribute as it was; the row names the value that gains most.
    """
    return [*_changes(found), *_drifts(found)]


def _changes(found: ByKind) -> list[Row]:
    spared = spared_attributes(np.arange(len(KINDS)))  # [kinds, 8]
    rows = []
    for k, kind in enumerate(KINDS):
        of_kind = found.pairs.kinds == k
        for a, attribute in enumerate(ATTRIBUTES):
            if not spared[k, a]:
                continue
            changed, edits = int(found.edited.changed[of_kind, a].sum()), int(of_kind.sum())
            detail = {
                "what": f"edits of kind {kind} that change the {attribute} unasked",
                "kind": kind,
                "attribute": attribute,
                "interval": list(wilson_interval(changed, edits)),
                "autoencoder": float(found.decoded.changed[of_kind, a].mean()),
                "edits": edits,
                "settings": found.settings,
            }
            rows.append(Row(f"bias.{kind}.{attribute}", changed / edits, "share", "lower", None, detail))
    return rows


def _drifts(found: ByKind) -> list[Row]:
    spared = spared_attributes(found.pairs.kinds)  # [N, 8]
    rows = []
    for a, (attribute, values) in enumerate(ATTRIBUTES.items()):
        left = spared[:, a]
        before, after = found.pairs.labels[left, 0, a], found.edited.values[left, a]
        moves = [(after == value).astype(float) - (before == value) for value in range(len(values))]
        gain = np.array([move.mean() for move in moves])
        most = int(gain.argmax())
        detail = {
            "what": f"drift of the {attribute} unasked, to {values[most]}",
            "drift_of": attribute,
            "to": values[most],
            "interval": list(bootstrap_interval(moves[most])),
            "by_value": dict(zip(values, map(float, gain), strict=True)),
            "changed": float(found.edited.changed[left, a].mean()),
            "autoencoder": float(found.decoded.changed[left, a].mean()),
            "edits": int(left.sum()),
            "settings": found.settings,
        }
        rows.append(Row(f"bias.drift.{attribute}", float(gain[most]), "share", "lower", None, detail))
    return rows
