"""The public edit benchmarks: for each how it is read, the columns its users quote, and how an edit is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..dataset.pairs.clip_scores import ClipScorer
from .cases import EditCase
from .dino import Dino
from .emu_edit import read_emu_edit
from .magicbrush import read_magicbrush
from .perceptual import Lpips
from .pie_bench import read_pie_bench
from .pixels import at_size_of, l1, l2, masked, psnr, ssim
from .similarity import image_image, similarities, text_image


@dataclass(frozen=True)
class Models:
    """What looks at pictures; a column whose model is None is not measured."""

    clip: ClipScorer
    dino: Dino | None = None
    lpips: Lpips | None = None


@dataclass(frozen=True)
class Column:
    """A figure of a benchmark.

    better: higher or lower. needs: dino or lpips, where it takes one. power: tables show 10^power times the value.
    """

    name: str
    better: str
    needs: str = ""
    power: int = 0


@dataclass(frozen=True)
class Benchmark:
    """read: a folder and options -> cases. score: figures by column of one edit, without those of absent models."""

    read: Callable[..., Iterator[EditCase]]
    columns: tuple[Column, ...]
    score: Callable[[Models, EditCase, np.ndarray], dict[str, float]]


def score_emu_edit(models: Models, case: EditCase, edited: np.ndarray) -> dict[str, float]:
    """Everything is compared with the source: the test set has no targets (Emu Edit, section 5)."""
    found = similarities(models.clip, (case.source_caption, case.target_caption), case.source, edited)
    figures = {
        "CLIP_dir": found.direction,
        "CLIP_img": found.image,
        "CLIP_out": found.text_image_1,
        "L1": l1(at_size_of(edited, case.source), case.source),
    }
    if models.dino is not None:
        figures["DINO"] = models.dino.cosine(edited, case.source)
    return figures


def score_magicbrush(models: Models, case: EditCase, edited: np.ndarray) -> dict[str, float]:
    """Everything is compared with the target (MagicBrush, section 4.2, and its image_eval.py)."""
    assert case.target is not None  # the layout has one for every case
    at_size = at_size_of(edited, case.target)
    figures = {
        "L1": l1(at_size, case.target),
        "L2": l2(at_size, case.target),
        "CLIP-I": image_image(models.clip, edited, case.target),
        "CLIP-T": text_image(models.clip, case.target_caption, edited),
    }
    if models.dino is not None:
        figures["DINO"] = models.dino.cosine(edited, case.target)
    return figures


def score_pie_bench(models: Models, case: EditCase, edited: np.ndarray) -> dict[str, float]:
    """The source outside the mask, the target caption whole and inside it (PIE-Bench's evaluate.py).

    What lies outside is not scored (NaN) where the mask covers the picture. CLIPScore is max(cos, 0).
    """
    assert case.mask is not None  # the layout has one for every case
    edited = at_size_of(edited, case.source)
    pair, outside = (edited, case.source), not case.mask.all()
    figures = {
        "PSNR": psnr(*pair, case.mask) if outside else np.nan,
        "MSE": l2(*pair, case.mask) if outside else np.nan,
        "SSIM": ssim(*pair, case.mask) if outside else np.nan,
        "CLIP_whole": max(0.0, text_image(models.clip, case.target_caption, edited)),
        "CLIP_edited": max(0.0, text_image(models.clip, case.target_caption, masked(edited, case.mask, "inside"))),
    }
    if models.dino is not None:
        figures["structure"] = models.dino.structure_distance(*pair, white=255)
    if models.lpips is not None:
        figures["LPIPS"] = models.lpips.distance(*pair, case.mask) if outside else np.nan
    return figures


BENCHMARKS: Mapping[str, Benchmark] = {
    "emu-edit": Benchmark(
        read_emu_edit,
        (
            Column("CLIP_dir", "higher"),
            Column("CLIP_img", "higher"),
            Column("CLIP_out", "higher"),
            Column("L1", "lower"),
            Column("DINO", "higher", "dino"),
        ),
        score_emu_edit,
    ),
    "magicbrush": Benchmark(
        read_magicbrush,
        (
            Column("L1", "lower"),
            Column("L2", "lower"),
            Column("CLIP-I", "higher"),
            Column("CLIP-T", "higher"),
            Column("DINO", "higher", "dino"),
        ),
        score_magicbrush,
    ),
    "pie-bench": Benchmark(
        read_pie_bench,
        (
            Column("structure", "lower", "dino", power=3),
            Column("PSNR", "higher"),
            Column("LPIPS", "lower", "lpips", power=3),
            Column("MSE", "lower", power=4),
            Column("SSIM", "higher", power=2),
            Column("CLIP_whole", "higher", power=2),
            Column("CLIP_edited", "higher", power=2),
        ),
        score_pie_bench,
    ),
}
