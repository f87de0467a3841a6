import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from ip2p_fast.training.metrics.cases import EditCase
from ip2p_fast.training.metrics.pie_bench import SIDE


def noise(seed, height=24, width=24):
    """A smooth random picture, [H, W, 3] uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="session")
def draw():
    return noise


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    return tiny.save_clip(tmp_path_factory.mktemp("metrics") / "clip")


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory):
    """A ViT with random weights for pictures of 16x16."""
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("metrics") / "vit"
    torch.manual_seed(5)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = ViTConfig(image_size=16, patch_size=4, initializer_range=0.3, **size)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def text(number):
    return {
        "instruction": f"make it night {number}",
        "source_caption": f"a cat in winter {number}",
        "target_caption": f"a cat at night {number}",
    }


@pytest.fixture(scope="session")
def emu_cases():
    return [
        EditCase(id=f"test-{task}-{i}", source=noise(i), group=task, **text(i))
        for i, task in enumerate(["add", "style", "add", "remove", "style"])
    ]


@pytest.fixture(scope="session")
def magicbrush_cases():
    """Sessions of one, three and two turns."""
    cases = []
    for image, turns in (("30", 1), ("139", 3), ("242", 2)):
        for turn in range(1, turns + 1):
            seed = 10 * int(image) + turn
            mask = np.zeros((24, 24), bool)
            mask[turn : turn + 9, 5:20] = True
            cases.append(
                EditCase(
                    id=f"{image}/{image}_1" if turn == 1 else f"{image}/{image}_inde_{turn}",
                    source=noise(seed),
                    target=noise(seed + 1),
                    mask=mask,
                    group=f"turn {turn}",
                    **text(seed),
                )
            )
    return cases


@pytest.fixture(scope="session")
def pie_cases():
    """The last one's mask covers everything, as with changes of style."""
    cases = []
    for i, kind in enumerate(["0 random", "1 change object", "9 change style"]):
        mask = np.full((SIDE, SIDE), i == 2)
        mask[100:300, 50 + 60 * i : 400] = True
        mask[[0, -1]] = mask[:, [0, -1]] = True
        name = f"{kind[0]}_kind/{i:012d}"
        cases.append(EditCase(id=name, source=noise(i, SIDE, SIDE), mask=mask, group=kind, **text(i)))
    return cases


@pytest.fixture(scope="session")
def assert_same():
    """Whether two cases say the same, pictures and masks pixel by pixel."""

    def check(a, b):
        for name in vars(a):
            one, other = getattr(a, name), getattr(b, name)
            if isinstance(one, np.ndarray):
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other, err_msg=name)
            else:
                assert one == other, name

    return check
