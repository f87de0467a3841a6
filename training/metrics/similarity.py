"""Cosines of CLIP's embeddings of pictures and captions: how near an edit is to what was asked for and to its source.

The CLIP is loaded and run by `ClipScorer`, by which pairs are filtered; pictures come to it prepared as CLIP's own
preprocessing does it, where the filter squeezes them into a square as the paper's script does.
"""

from __future__ import annotations

import numpy as np

from ..dataset.forms.record import Similarities
from ..dataset.pairs.clip_scores import ClipScorer
from .preprocessing import square


def similarities(scorer: ClipScorer, captions: tuple[str, str], before: np.ndarray, after: np.ndarray) -> Similarities:
    """All four cosines of one edit, in [-1, 1].

    direction: cos(dImage, dText) between the change of the unit embeddings of the pictures and that of the captions
    (StyleGAN-NADA, Gal et al. 2021; InstructPix2Pix, section 4; Emu Edit's CLIP_dir). It is 0 where either does not
    change. text_image_1 is Emu Edit's CLIP_out, image its CLIP_img.

    Args:
        captions: of the source and of the wanted picture.
        before, after: [H, W, 3] uint8, of any sizes.
    """
    side = scorer.side
    return scorer.score(captions, [square(before, side)], [square(after, side)])[0]


def image_image(scorer: ClipScorer, a: np.ndarray, b: np.ndarray) -> float:
    """cos of the embeddings of two pictures, [H, W, 3] uint8: MagicBrush's CLIP-I, between the edit and the target."""
    first, second = scorer.embed_pictures([square(picture, scorer.side) for picture in (a, b)])  # [D] each
    return float((first @ second).clamp(-1, 1))


def text_image(scorer: ClipScorer, caption: str, picture: np.ndarray) -> float:
    """cos of the embeddings of a caption and a picture, [H, W, 3] uint8: MagicBrush's CLIP-T.

    CLIPScore (Hessel et al. 2021), as torchmetrics and so PIE-Bench have it, is 100 max(cos, 0).
    """
    (embedded,) = scorer.embed_pictures([square(picture, scorer.side)])
    return float((scorer.embed_texts([caption])[0] @ embedded).clamp(-1, 1))
