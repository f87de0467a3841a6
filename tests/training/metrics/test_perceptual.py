"""LPIPS against torchmetrics' own, on one backbone with random weights: the trained ones cannot be had offline."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchmetrics.functional.image import lpips as theirs

from ip2p_fast.errors import ModelError
from ip2p_fast.training.metrics.perceptual import Lpips, squeezenet_features


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(7)
    return squeezenet_features().eval()


@pytest.fixture(scope="module")
def weights(backbone, tmp_path_factory):
    """As torchvision's file is: names that begin with `features.`, and a classifier that is not needed."""
    path = tmp_path_factory.mktemp("lpips") / "squeezenet1_1.pth"
    named = {f"features.{name}": value for name, value in backbone.state_dict().items()}
    torch.save(named | {"classifier.1.weight": torch.zeros(10, 512, 1, 1)}, path)
    return path


@pytest.mark.parametrize("size", [(64, 64), (48, 71)])
def test_it_is_the_distance_of_the_reference(backbone, weights, draw, size, monkeypatch):
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda net, pretrained: backbone)
    reference = theirs._LPIPS(pretrained=True, net="squeeze", pnet_rand=True)
    a, b = draw(1, *size), draw(2, *size)
    x, y = (torch.tensor(picture / 127.5 - 1, dtype=torch.float32).permute(2, 0, 1)[None] for picture in (a, b))
    found = Lpips(weights).distance(a, b)
    assert found == pytest.approx(float(reference(x, y)), rel=1e-4)
    assert found > 1e-4


def test_equal_pictures_are_at_no_distance_and_order_does_not_matter(weights, draw):
    lpips = Lpips(weights)
    assert lpips.distance(draw(1), draw(1)) == 0
    assert lpips.distance(draw(1), draw(2)) == pytest.approx(lpips.distance(draw(2), draw(1)), rel=1e-6)


def test_what_the_mask_hides_does_not_count(weights, draw):
    lpips, a, b, mask = Lpips(weights), draw(1), draw(1), np.zeros((24, 24), bool)
    mask[:10] = True
    b[mask] = 0
    assert lpips.distance(a, b, mask, "outside") == 0
    assert lpips.distance(a, b, mask, "inside") > 0


def test_safetensors_are_read_too(backbone, weights, draw, tmp_path):
    save_file({name: value.contiguous() for name, value in backbone.state_dict().items()}, tmp_path / "s.safetensors")
    again = Lpips(tmp_path / "s.safetensors").distance(draw(1), draw(2))
    assert again == Lpips(weights).distance(draw(1), draw(2))


def test_other_weights_are_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be read as weights"):
        Lpips(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        Lpips(tmp_path / "text.pth")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ModelError, match="does not hold SqueezeNet"):
        Lpips(tmp_path / "other.pth")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="holds list"):
        Lpips(tmp_path / "list.pth")
