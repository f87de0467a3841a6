"""Checkpoints: a folder each, there whole or not at all, of which the last few are kept.

step-00001000/
    checkpoint.json   step, recipe, data, where its stream stands
    state.pt          weights that are trained, their average, the optimizer's moments; whole tensors, so that any
                      number of processes can go on from them
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ip2p_fast.errors import BadInput
from ip2p_fast.whole import whole

from .recipe import Recipe, differing


def save_checkpoint(folder: Path, step: int, facts: Mapping[str, Any], state: Mapping[str, Any], keep: int) -> Path:
    """Writes folder/step-NNNNNNNN, then removes all but the last `keep`.

    Raises:
        BadInput: it cannot be written, as on a full disk; the earlier ones are as they were.
    """
    path = folder / f"step-{step:08d}"
    if path.exists():  # of a run that went on from an earlier one
        shutil.rmtree(path)
    with whole(path) as partial:
        partial.mkdir()
        try:
            torch.save(dict(state), partial / "state.pt")
        except RuntimeError as error:  # what its writer makes of any OSError
            raise OSError(f"{error}".splitlines()[0]) from error
        (partial / "checkpoint.json").write_text(json.dumps({"step": step, **facts}, indent=2) + "\n", encoding="utf-8")
    for old in checkpoints_in(folder)[:-keep]:
        shutil.rmtree(old)
    return path


def checkpoints_in(folder: Path) -> list[Path]:
    """All whole ones, the last step last."""
    return sorted(path.parent for path in folder.glob("step-*/checkpoint.json"))


def to_resume(folder: Path, resume: str) -> Path | None:
    """The checkpoint that `--resume` means: "auto" is the last, or none where there is none yet.

    Raises:
        BadInput: it is no checkpoint; or nothing is to be resumed, and there are some.
    """
    there = checkpoints_in(folder)
    if resume == "auto":
        return there[-1] if there else None
    if resume:
        if not (Path(resume) / "checkpoint.json").is_file():
            raise BadInput(f"{resume} is no checkpoint: give auto, or a folder step-NNNNNNNN")
        return Path(resume)
    if there:
        raise BadInput(f"{folder} holds checkpoints up to {there[-1].name}: --resume auto, or choose another output")
    return None


def read_facts(path: Path, recipe: Recipe, facts: Mapping[str, Any]) -> dict[str, Any]:
    """checkpoint.json of a run that this one can go on with.

    Raises:
        BadInput: it is damaged, or of another recipe, data or number of samples a step, of which the first is named.
    """
    try:
        found = json.loads((path / "checkpoint.json").read_text(encoding="utf-8"))
        theirs = found["recipe"]
        name = differing(recipe, theirs)
        pair = (getattr(recipe, name), theirs.get(name)) if name else None
        for other in ("samples_a_step", "data", "model"):
            if pair is None and found[other] != facts[other]:
                name, pair = other.replace("_", " "), (facts[other], found[other])
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path} is damaged ({error}): resume an earlier one") from error
    if pair is not None:
        raise BadInput(
            f"{path} is of another configuration: {name} is {pair[1]!r} there and {pair[0]!r} here; use the same, or "
            "choose another output"
        )
    return found


def read_state(path: Path) -> dict[str, Any]:
    """state.pt, its tensors mapped from the file. Raises BadInput when it is damaged."""
    try:
        return torch.load(path / "state.pt", map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # the reader raises many types on a damaged file
        raise BadInput(f"{path / 'state.pt'} is damaged ({str(error)[:100]}): resume an earlier one") from error
