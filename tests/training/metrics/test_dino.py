"""Class tokens and structure against transformers' own outputs."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Dinov2Config, Dinov2Model, ViTModel

from ip2p_fast.errors import ModelError
from ip2p_fast.training.metrics.dino import Dino

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def dino(vit_folder):
    return Dino(vit_folder)


def fed(picture, white=1.0):
    """[H, W, 3] uint8 -> [1, 3, H, W]"""
    x = (picture * (white / 255) - MEAN) / STD
    return torch.tensor(x.transpose(2, 0, 1)[None], dtype=torch.float32)


def test_the_cosine_is_that_of_class_tokens(dino, vit_folder, draw):
    model = ViTModel.from_pretrained(vit_folder, add_pooling_layer=False).eval()

    def token(picture):
        resized = np.array(Image.fromarray(picture).resize((18, 18), Image.Resampling.BICUBIC))
        with torch.no_grad():
            return model(fed(resized[1:17, 1:17])).last_hidden_state[0, 0].numpy()

    a, b = token(draw(1)), token(draw(2))
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert dino.cosine(draw(1), draw(2)) == pytest.approx(expected, abs=1e-5)
    assert expected < 0.99


def test_equal_pictures_have_cosine_one_and_one_structure(dino, draw):
    assert dino.cosine(draw(1), draw(1)) == pytest.approx(1, abs=1e-6)
    assert dino.structure_distance(draw(1), draw(1)) == 0


@pytest.mark.parametrize("white", [1, 255])
def test_the_structure_is_the_self_similarity_of_the_last_keys(dino, vit_folder, draw, white):
    model = ViTModel.from_pretrained(vit_folder, add_pooling_layer=False).eval()
    last = [module for name, module in model.named_modules() if name.endswith("layernorm_before")][-1]
    project = [module for name, module in model.named_modules() if name.endswith(("k_proj", ".key"))][-1]

    def similarity(picture):
        with torch.no_grad():
            states = model(fed(picture, white), output_hidden_states=True).hidden_states
            keys = project(last(states[-2]))[0].numpy()  # [17, 32]: a class token and 4x4 patches
        keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
        return keys @ keys.T

    a, b = draw(1, 16, 16), draw(2, 16, 16)  # the model's own size: nothing is resized
    expected = np.square(similarity(a) - similarity(b)).mean()
    assert similarity(a).shape == (17, 17)
    assert dino.structure_distance(a, b, white) == pytest.approx(expected, rel=1e-3)
    assert expected > 1e-4


def test_the_range_of_pixels_matters_to_the_structure(dino, draw):
    one, other = (dino.structure_distance(draw(1), draw(2), white) for white in (1, 255))
    assert one != pytest.approx(other, rel=0.05)


@pytest.mark.parametrize(
    ("size", "patches"),
    [
        ((32, 32), 4 * 4),
        ((32, 48), 4 * 6),  # 16x24
        ((16, 48), 2 * 8),  # 48 comes to 16 x 480 / 224 = 34, and 16 to 11
    ],
)
def test_structure_keeps_the_aspect_up_to_a_limit(dino, draw, size, patches):
    grids = []
    hook = dino._keys.register_forward_hook(lambda module, given, keys: grids.append(keys.shape[1] - 1))
    dino.structure_distance(draw(1, *size), draw(2, *size))
    hook.remove()
    assert grids == [patches] * 2


def test_dinov2_works_too(tmp_path, draw):
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(image_size=28, patch_size=14, **size)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"crop_size": {"height": 42, "width": 42}}')
    dino = Dino(tmp_path)
    assert dino.side == 42  # what it is fed, not what it was trained at
    assert dino.cosine(draw(1), draw(1)) == pytest.approx(1, abs=1e-6)
    assert dino.structure_distance(draw(1), draw(2)) > 0


def test_what_is_no_such_model_is_refused(tmp_path, clip_folder):
    with pytest.raises(ModelError, match="no vision transformer"):
        Dino(tmp_path)
    with pytest.raises(ModelError, match="clip model: it has no class token"):
        Dino(clip_folder)
