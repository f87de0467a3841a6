"""Distances and likenesses of pixels: L1, L2, PSNR, SSIM; of the whole picture, or of one side of a mask."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from ip2p_fast.errors import BadInput, MissingExtra

WHERE = ("inside", "outside")

_SSIM_RADIUS = 5
"""Of the Gaussian window: sigma 1.5, cut at 3.5 sigma, so 11 pixels wide."""


def l1(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of |a - b| over pixels and channels, in [0, 1].

    MagicBrush (Zhang et al. 2023) takes it between the edit and the target picture, Emu Edit (Sheynin et al. 2023)
    between the edit and the source.

    Args:
        a, b: [H, W, 3] uint8.

    Raises:
        BadInput: the pictures differ in shape, or are no uint8.
    """
    return float(np.abs(_unit(a) - _unit(b, like=a)).mean())


def l2(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None, where: str = "outside") -> float:
    """Mean of (a - b)^2 over pixels and channels, in [0, 1].

    No root is taken: MagicBrush's L2 is this mean, and so is PIE-Bench's MSE (Ju et al. 2023, "Direct Inversion"),
    which is taken outside the mask.

    Args:
        a, b: [H, W, 3] uint8.
        mask, where: see `masked`. The mean stays one over all pixels, as in PIE-Bench's script.

    Raises:
        BadInput: the pictures or the mask differ in shape, the pictures are no uint8, or `where` is unknown.
    """
    return float(np.square(_unit(masked(a, mask, where)) - _unit(masked(b, mask, where), like=a)).mean())


def psnr(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None, where: str = "outside") -> float:
    """-10 log10(l2) in dB, for a largest value of 1; infinite for equal pictures. Arguments and errors as `l2`."""
    error = l2(a, b, mask, where)
    return -10 * math.log10(error) if error else math.inf


def ssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None, where: str = "outside") -> float:
    """Structural similarity (Wang et al. 2004), 1 for equal pictures: Gaussian windows, k1 0.01, k2 0.03, range 1.

    The mean over channels and over those windows that lie within the picture, as in the paper and in the torchmetrics
    of PIE-Bench's time; later versions of torchmetrics also count windows that reach over the border. In float32, as
    there: at 512x512 float64 takes 13 times as long on a CPU.

    Args:
        a, b: [H, W, 3] uint8, at least 11x11.
        mask, where: see `masked`.

    Raises:
        BadInput: as `l2`, and for pictures smaller than a window.
        MissingExtra: torchmetrics is absent.
    """
    try:
        import torch
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError as error:
        raise MissingExtra("SSIM", "train") from error
    x, y = (_unit(masked(picture, mask, where), like=a) for picture in (a, b))
    window = 2 * _SSIM_RADIUS + 1
    if min(x.shape[:2]) < window:
        raise BadInput(f"a picture of {x.shape[1]}x{x.shape[0]} is too small for SSIM: {window}x{window} is the least")
    first, second = (torch.from_numpy(values).float().permute(2, 0, 1)[None] for values in (x, y))  # [1, 3, H, W]
    found = structural_similarity_index_measure(first, second, data_range=1.0, return_full_image=True)
    inner = slice(_SSIM_RADIUS, -_SSIM_RADIUS)
    return float(found[1][..., inner, inner].mean())


def masked(picture: np.ndarray, mask: np.ndarray | None, where: str) -> np.ndarray:
    """The picture with black in place of what is not looked at; without a mask the picture itself.

    So does PIE-Bench's script with every one of its masked metrics.

    Args:
        picture: [H, W, 3] uint8.
        mask: [H, W] bool, true where an edit may change the picture.
        where: "inside" looks at the mask, "outside" at the rest.

    Raises:
        BadInput: the mask is of another size or no bool, or `where` is unknown.
    """
    if where not in WHERE:
        raise BadInput(f"where is {where!r}: one of {', '.join(WHERE)} is needed")
    if mask is None:
        return picture
    if mask.dtype != np.bool_ or mask.shape != picture.shape[:2]:
        needed = list(picture.shape[:2])
        raise BadInput(f"the mask is {mask.dtype} {list(mask.shape)}: the picture needs bool {needed}")
    return picture * (mask if where == "inside" else ~mask)[..., None]


def at_size_of(picture: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The picture, [H, W, 3] uint8, at the size of another: bicubic, as MagicBrush's script brings edits to targets."""
    height, width = reference.shape[:2]
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def _unit(picture: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """uint8 -> float64 in [0, 1]."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise BadInput(f"a picture is {picture.dtype} {list(picture.shape)}: uint8 [H, W, 3] is needed")
    if like is not None and like.shape != picture.shape:
        raise BadInput(f"the pictures are {list(like.shape)} and {list(picture.shape)}: one size is needed")
    return picture / 255
