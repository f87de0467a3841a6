"""Pairs that share attention, on a real GPU: Triton's paired attention in the whole loop."""

import numpy as np
import pytest
import tiny
import torch

from ip2p_fast.training.dataset.pairs.generator import Drawing, PairGenerator
from ip2p_fast.training.dataset.pairs.samples import Sample

CAPTIONS = ("a watercolour of a red cat", "a watercolour of a blue dog")

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    tiny.text_to_image(folder / "source").save_pretrained(folder / "base")
    return folder / "base"


def pairs(base, device):
    """Four pairs at once, each with its own p and guidance: [4, 2, H, W, 3]"""
    generator = PairGenerator.from_pretrained(base, Drawing(steps=6, at_once=4), device, "float32")
    made = dict(generator.generate((i, CAPTIONS, Sample(i, 0.3 * i, 5.0 + i)) for i in range(4)))
    return np.stack([np.stack(made[i]) for i in range(4)])


def test_pairs_on_a_gpu_are_those_of_the_cpu(base):
    assert torch.cuda.is_available()
    difference = np.abs(pairs(base, "cuda").astype(int) - pairs(base, "cpu"))
    assert (difference <= 2).mean() >= 0.999
