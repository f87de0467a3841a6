"""Strangers' pictures and masks, and the way back to the input's own size."""

import io

import numpy as np
import pytest
from PIL import Image

from ip2p_fast.errors import BadInput
from ip2p_fast.serving.pictures import canvas, decode, decode_mask, encode

LIMITS = (10_000, 200)


def saved(picture, file_format, **options):
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


@pytest.fixture
def photo(pictures):
    return pictures[2].resize((60, 40))


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0II*\0" + bytes(8)}),
    ],
)
def test_png_jpeg_and_webp_are_read_at_their_size(photo, file_format, options):
    assert decode(saved(photo, file_format, **options), *LIMITS).size == photo.size


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(photo, file_format):
    with pytest.raises(BadInput, match="PNG, JPEG or WebP"):
        decode(saved(photo, file_format), *LIMITS)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(201, 2), (2, 201), (101, 100)])
def test_sizes_over_the_limits_are_refused_before_anything_is_decoded(monkeypatch, file_format, size):
    data = saved(Image.new("RGB", size), file_format)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(BadInput, match=f"{size[0]}x{size[1]}"):
        decode(data, *LIMITS)


def test_a_picture_goes_to_the_model_whole_and_comes_back_at_its_own_size(photo):
    made = canvas(photo, None, None, resolution=32, multiple=8)
    assert made.work.size == (32, 24)
    back = np.asarray(made.finish(made.work).resize((30, 20)), float)
    assert np.abs(back - np.asarray(photo.resize((30, 20)), float)).mean() < 8  # stretched and back: nothing has moved
    assert made.finish(made.work).size == photo.size


def test_a_picture_of_a_size_the_model_works_at_is_not_touched(photo):
    made = canvas(photo.resize((32, 24)), None, None, resolution=32, multiple=8)
    assert made.finish(made.work) is made.work


def test_a_size_of_another_aspect_crops_the_middle(photo):
    made = canvas(photo, None, (20, 20), resolution=16, multiple=8)
    assert made.full.size == (20, 20) and made.work.size == (16, 16)
    expected = photo.crop((10, 0, 50, 40)).resize((20, 20), Image.Resampling.LANCZOS)
    assert np.abs(np.asarray(made.full, float) - np.asarray(expected, float)).max() <= 2


def test_both_mask_senses_say_where_to_edit():
    edited = np.zeros((40, 60), np.uint8)
    edited[:, 30:] = 255
    transparent = Image.new("RGBA", (60, 40), "black")
    transparent.putalpha(Image.fromarray(255 - edited))
    masks = [
        decode_mask(saved(transparent, "PNG"), "alpha", (60, 40), *LIMITS),
        decode_mask(saved(Image.fromarray(edited), "PNG"), "white", (60, 40), *LIMITS),
    ]
    for mask in masks:
        np.testing.assert_array_equal(np.asarray(mask), edited)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_a_mask_without_transparency_needs_the_other_sense(photo, file_format):
    with pytest.raises(BadInput, match="mask_sense=white"):
        decode_mask(saved(photo, file_format), "alpha", photo.size, *LIMITS)


def test_outside_a_mask_the_inputs_own_pixels_stay(photo):
    mask = Image.new("L", photo.size)
    mask.paste(255, (30, 0, 60, 40))
    made = canvas(photo, mask, None, resolution=32, multiple=8)
    after = np.asarray(made.finish(Image.new("RGB", made.work.size, "red")))
    np.testing.assert_array_equal(after[:, :30], np.asarray(photo)[:, :30])
    assert (after[:, 30:] == (255, 0, 0)).all()
    assert made.work_mask.size == made.work.size


def test_a_png_carries_text_and_nothing_else_of_the_request(photo):
    data = encode(photo, "png", 95, {"Software": "ip2p-fast"})
    assert Image.open(io.BytesIO(data)).text == {"Software": "ip2p-fast"}
    assert Image.open(io.BytesIO(encode(photo, "png", 95))).text == {}
