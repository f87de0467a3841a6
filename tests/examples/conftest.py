import random

import numpy as np
import pytest
from browser import node_runner
from PIL import Image

from ip2p_fast import Editor
from ip2p_fast.checkpoints import POCKET

CHARACTERS = "abc ABC019'.,!<>|é日Ω😀ΣσİſßÅẞǄﬀ٣Ⅷ½\u0301\u0316\u00a0\u2003\u200b\x0b\x85\t\n"
TEXTS = [
    "",
    "make it night",
    "Make It NIGHT",
    "  two  spaces\tand\nlines ",
    "don't we'll I'M it'LL",
    "12 cats & 3.5 dogs!!",
    "naïve café, cafe\u0301",
    "日本語の猫 الليل हिन्दी",
    "Ωmega ΟΔΟΣ, İstanbul",
    "😀 smile 👩‍👩‍👧",
    "a <|startoftext|> b<|endoftext|>!! <|ENDOFTEXT|>!!",
    "word " * 100,
    "é" * 90,
    "x" * 300,
]


@pytest.fixture(scope="session")
def texts():
    """Instructions of people, and any characters in any order."""
    chance = random.Random(1)
    return TEXTS + ["".join(chance.choices(CHARACTERS, k=chance.randint(1, 90))) for _ in range(200)]


@pytest.fixture(scope="session")
def editor():
    """The pocket model's bundle in Python."""
    return Editor.from_pretrained(POCKET, backend="onnx", dtype="float32")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Files of pictures that no one needs to resize, by name."""
    folder = tmp_path_factory.mktemp("pictures")
    meadow = Image.open(POCKET / "samples/meadow_cat.png").convert("RGB")
    meadow.save(folder / "square.png")
    meadow.crop((0, 16, 64, 64)).save(folder / "wide.png")
    return folder


@pytest.fixture(scope="session")
def expected(editor, tmp_path_factory):
    """Python's picture of an edit, [H, W, 3] uint8, and the file of the noise that it was made with."""
    folder = tmp_path_factory.mktemp("noise")

    def edited(picture, instruction, steps, **settings):
        width, height = Image.open(picture).size
        shape = (1 + steps, 4, height // 4, width // 4)
        noise = np.random.default_rng(steps).standard_normal(shape, dtype=np.float32)
        path = folder / f"{width}x{height}_{steps}.f32"
        noise.tofile(path)
        result = editor.edit(picture, instruction, steps=steps, noise=noise, **settings)
        return np.asarray(result.images[0]), path

    return edited


@pytest.fixture(scope="session")
def is_the_same():
    """Whether two pictures are, to rounding: within one grey level at 99.9% of their pixels."""

    def compare(ours, theirs):
        apart = np.abs(np.asarray(ours).astype(int) - theirs).max(axis=2)
        return ours.shape == theirs.shape and np.mean(apart <= 1) >= 0.999

    return compare


@pytest.fixture(scope="session")
def node():
    """Runs Node.js in examples/, where the packages are that package-lock.json names."""
    return node_runner()
