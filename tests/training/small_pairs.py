"""Small pairs for tests of a data set's forms."""

import io

import numpy as np
from PIL import Image

from ip2p_fast.training.dataset.forms.record import PairRecord, Similarities


def picture(seed=0, size=(16, 12), form="JPEG"):
    """The bytes of a small picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def pair(number=0, **other):
    """A record with everything known; `other` replaces fields."""
    fields = {
        "key": f"{number // 2:07d}-{1000 + number}",
        "input_image": picture(2 * number),
        "edited_image": picture(2 * number + 1, form="PNG" if number == 1 else "JPEG"),
        "instruction": f"make it {number // 2}",
        "caption": f"a house, {number // 2}",
        "edited_caption": f"a “house” in the mist, {number // 2}",
        "seed": 1000 + number,
        "p": 0.1 + number / 16,
        "cfg": 7.5 + number / 3,
        "similarities": Similarities(0.25, 0.24, -0.125 + number / 64, 0.875),
    }
    return PairRecord(**{**fields, **other})


def bare(number=0):
    """A record of which only what the smallest data sets have is known."""
    return PairRecord(f"row-{number}", picture(2 * number), picture(2 * number + 1), "make it night")


RECORDS = [pair(number) for number in range(5)] + [bare(number) for number in range(3)]
