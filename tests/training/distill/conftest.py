import io

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from ip2p_fast.training.dataset.forms.formats import writer_for
from ip2p_fast.training.dataset.forms.record import PairRecord
from ip2p_fast.training.distill.guidance import Lesson, usual_ranges
from ip2p_fast.training.distill.process import Process
from ip2p_fast.training.trainer.batches import Batch

OWN = (3.0, 1.5)


@pytest.fixture(scope="session", params=["epsilon", "v_prediction"])
def lesson(request):
    process = Process.from_config(tiny.SCHEDULER | {"prediction_type": request.param})
    return Lesson(process, OWN, usual_ranges(OWN), latent_scale=0.5)


@pytest.fixture(scope="session")
def teacher():
    """Random weights that hear both conditions well: else three rows would differ by nearly nothing."""
    unet = tiny.unet(seed=3).requires_grad_(False)
    unet.conv_in.weight[:, 4:] *= 4
    for name, weight in unet.named_parameters():
        if "attn2.to_v" in name:
            weight *= 8
    return unet


@pytest.fixture(scope="session")
def draw_batch():
    """Batches of random latents and texts of the width of `tiny`'s."""

    def draw(rng, count=4):
        image, target = torch.randn(2, count, 4, 8, 8, generator=rng)
        text, null = torch.randn(count, 77, 32, generator=rng), torch.randn(1, 77, 32, generator=rng)
        return Batch(image, 0.5 * target, text, null, torch.arange(count))

    return draw


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """A shard of 16 pairs of smooth pictures, 16x16."""
    out = tmp_path_factory.mktemp("pairs") / "pairs.tar"
    records = [PairRecord(f"pair-{i}", _picture(2 * i), _picture(2 * i + 1), f"make it {i}") for i in range(16)]
    writer_for(out, "webdataset")(records, out)
    return out


def _picture(seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((16, 16), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()
