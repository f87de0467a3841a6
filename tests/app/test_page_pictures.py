"""Pictures of the page: what is uploaded, painted, shown and taken home."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from ip2p_fast.app.pictures import MAX_SIDE, data_url, painted, read, samples, save_png, shown, thumbnail
from ip2p_fast.errors import BadInput


def layer(size, box=None):
    made = Image.new("RGBA", size, (255, 255, 255, 0))
    if box is not None:
        made.paste((255, 255, 255, 255), box)
    return made


def test_a_large_upload_is_made_smaller(tmp_path):
    Image.new("RGB", (3000, 1500)).save(tmp_path / "large.png")
    assert read(tmp_path / "large.png").size == (MAX_SIDE, MAX_SIDE // 2)


def test_a_broken_upload_is_refused_without_the_servers_paths(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match="this file is not a picture") as refused:
        read(tmp_path / "broken.png")
    assert str(tmp_path) not in str(refused.value)


def test_small_pictures_are_enlarged_for_the_eye_by_whole_numbers():
    assert shown(Image.new("RGB", (64, 48))).size == (512, 384)
    large = Image.new("RGB", (700, 300))
    assert shown(large) is large
    assert max(thumbnail(large).size) == 192


def test_white_is_what_was_painted_in_any_layer():
    layers = [layer((64, 32), (0, 0, 32, 16)), layer((64, 32), (32, 16, 64, 32))]
    mask = np.asarray(painted({"layers": layers}, (128, 64)))
    assert mask.shape == (64, 128)
    assert mask[:24, :56].min() == 255 and mask[40:, 72:].min() == 255
    assert mask[40:, :56].max() == 0 and mask[:24, 72:].max() == 0


@pytest.mark.parametrize("value", [None, {}, {"layers": []}, {"layers": [layer((8, 8))]}])
def test_nothing_painted_is_no_mask(value):
    assert painted(value, (8, 8)) is None


def test_a_download_has_the_pictures_pixels_and_a_readable_name(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    path = save_png(picture, tmp_path, "Make it NIGHT: ../../etc seed 7")
    assert path.endswith("/make-it-night-etc-seed-7.png") and path.startswith(str(tmp_path))
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(picture))
    assert save_png(picture, tmp_path, "日本").endswith("/picture.png")


def test_a_preview_is_a_picture_in_text():
    head, data = data_url(Image.new("RGB", (64, 64), "red")).split(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (512, 512)


def test_samples_are_there_with_an_instruction_each():
    assert len(samples()) == 6
    assert all(one.path.exists() and one.caption and one.instruction for one in samples())
