import io

import numpy as np
import pytest
import tiny
from PIL import Image

from ip2p_fast.training.dataset.forms.formats import writer_for
from ip2p_fast.training.dataset.forms.record import PairRecord


def smooth(seed, height=16, width=16):
    """A smooth random picture, [H, W, 3] uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def draw():
    return smooth


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    return tiny.save_clip(tmp_path_factory.mktemp("figures") / "clip")


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory):
    """Four captioned pairs of 16x16 pictures, and one without captions."""

    def png(seed):
        file = io.BytesIO()
        Image.fromarray(smooth(seed)).save(file, "PNG")
        return file.getvalue()

    captioned = [
        PairRecord(f"pair-{i}", png(i), png(50 + i), "make it night", f"a red cat {i}", f"a red cat {i} at night")
        for i in range(4)
    ]
    bare = PairRecord("bare", png(9), png(59), "make it night")
    path = tmp_path_factory.mktemp("figures") / "pairs.tar"
    writer_for(path, "webdataset")([bare, *captioned], path)
    return path


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """The folder of a small text-to-image model."""
    folder = tmp_path_factory.mktemp("figures") / "base"
    tiny.text_to_image(folder.parent / "source").save_pretrained(folder)
    return folder
