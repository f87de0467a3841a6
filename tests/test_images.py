"""Reading, sizing and writing pictures."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ip2p_fast.errors import BadInput
from ip2p_fast.images import (
    MAX_STRETCH,
    before_after,
    fit,
    load_image,
    load_mask,
    require_writable,
    save_image,
    target_size,
)

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, and whose data is a few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "image, expected",
    [
        (Image.new("RGB", (4, 2), RED), RED),
        (Image.new("RGBA", (4, 2), (255, 0, 0, 0)), WHITE),
        (Image.new("RGBA", (4, 2), (255, 0, 0, 128)), (255, 127, 127)),
        (Image.new("LA", (4, 2), (0, 0)), WHITE),
        (Image.new("L", (4, 2), 90), (90, 90, 90)),
        (Image.new("1", (4, 2), 1), WHITE),
        (Image.new("P", (4, 2), 0), (0, 0, 0)),
        (Image.fromarray(np.full((2, 4), 32896, np.uint16)), (128, 128, 128)),
    ],
    ids=["rgb", "clear", "half-clear", "grey-alpha", "grey", "1-bit", "palette", "16-bit"],
)
def test_every_mode_becomes_rgb_on_white(image, expected):
    loaded = load_image(encoded(image))
    assert (loaded.mode, loaded.size, loaded.getpixel((1, 1))) == ("RGB", (4, 2), expected)


def test_cmyk_jpeg():
    red = load_image(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4))
    assert red[0] > 240 and red[1] < 15 and red[2] < 15


def test_palette_with_a_transparent_entry_shows_white():
    image = Image.new("P", (4, 2), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    assert load_image(encoded(image, transparency=1)).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("orientation, corner", [(1, (0, 0)), (3, (15, 7)), (6, (7, 0)), (8, (0, 15))])
def test_exif_rotation_is_applied(orientation, corner):
    image = Image.new("RGB", (16, 8))
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = load_image(encoded(image, exif=exif))
    assert loaded.getpixel(corner) == RED
    assert loaded.size == ((16, 8) if orientation in (1, 3) else (8, 16))


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, (0, 0, 255))]
    assert load_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])).getpixel((0, 0)) == RED


@pytest.mark.parametrize("dtype, value", [("uint8", 51), ("uint16", 51 * 257), ("float32", 0.2), ("float16", 0.2)])
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1), (3, 5, 3)])
def test_arrays(dtype, value, shape):
    loaded = load_image(np.full(shape, value, dtype))
    assert (loaded.size, loaded.getpixel((4, 2))) == ((5, 3), (51, 51, 51))


def test_paths_bytes_and_images_read_alike(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))
    save_image(image, tmp_path / "a.png")
    expected = np.asarray(image)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes(), image, expected):
        np.testing.assert_array_equal(np.asarray(load_image(source)), expected)


@pytest.mark.parametrize(
    "array, reason",
    [
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.full((4, 4, 3), 255.0), "0..1"),
        (np.full((4, 4, 3), np.nan), "0..1"),
    ],
)
def test_arrays_that_are_no_pictures(array, reason):
    with pytest.raises(BadInput, match=reason):
        load_image(array)


def test_a_pixel_bomb_is_refused_from_its_header_and_the_limit_is_an_option():
    bomb = png_claiming(9000, 9000)
    with pytest.raises(BadInput, match=r"9000x9000 = 81,000,000 pixels, over the limit of 64,000,000.*--max-pixels"):
        load_image(bomb)
    with pytest.raises(BadInput, match="damaged"):  # past the limit it is decoded, and found to hold nothing
        load_image(bomb, max_pixels=90_000_000)
    with pytest.raises(BadInput, match="pixels"):  # past Pillow's own limit
        load_image(png_claiming(60_000, 60_000), max_pixels=10**12)


def test_the_limit_holds_for_arrays_and_images():
    for source in (np.zeros((4, 4), np.uint8), Image.new("RGB", (4, 4))):
        with pytest.raises(BadInput, match="over the limit of 15"):
            load_image(source, max_pixels=15)
        load_image(source, max_pixels=16)


def test_files_that_cannot_be_read_are_named(tmp_path):
    picture = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
    files = {"empty.png": b"", "text.png": b"hello" * 9, "cut.jpg": picture[: len(picture) // 2], "cut.png": b"\x89PNG"}
    reasons = {"empty.png": "is empty", "text.png": "not a picture", "cut.jpg": "damaged", "cut.png": "not a picture"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadInput, match=reasons[name]) as caught:
            load_image(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="no such file"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(BadInput, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(BadInput, match="not a file name"):
        load_image("a\0b.png")


SEEDS = [
    encoded(Image.effect_noise((9, 7), 60).convert(mode), file_format)
    for mode, file_format in (("RGB", "PNG"), ("P", "GIF"), ("RGB", "JPEG"), ("L", "BMP"), ("RGB", "WEBP"))
]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_damaged_bytes_give_a_picture_or_one_line(seed, data):
    damaged = bytearray(seed[: data.draw(st.integers(0, len(seed)))])
    for _ in range(data.draw(st.integers(0, 8))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert load_image(bytes(damaged), max_pixels=100_000).mode == "RGB"
    except BadInput as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "size, resolution, multiple, expected",
    [
        ((512, 512), 512, 64, (512, 512)),
        ((640, 480), 512, 64, (512, 384)),
        ((1920, 1080), 512, 64, (512, 320)),
        ((480, 640), 512, 64, (384, 512)),
        ((584, 512), 512, 64, (576, 512)),  # the rule may pass the resolution by a block
        ((1280, 853), 64, 64, (64, 64)),  # in doubles its height is 0
        ((1, 1), 512, 64, (512, 512)),
        ((4096, 64), 512, 64, (4096, 64)),
        ((1280, 853), 64, 16, (64, 48)),
        ((100, 100), 100, 64, (128, 128)),
    ],
)
def test_target_size_by_example(size, resolution, multiple, expected):
    assert target_size(*size, resolution, multiple) == expected


def test_the_longest_picture_is_named_with_the_limit():
    assert target_size(64, 64 * 64, 512) == (64, 512 * MAX_STRETCH)
    with pytest.raises(BadInput, match=r"10000x3.* over the limit of 8 times the size 512; crop it first"):
        target_size(10000, 3, 512)
    with pytest.raises(BadInput, match="needs at least 64"):
        target_size(512, 512, 32)
    with pytest.raises(BadInput, match="width is 0"):
        target_size(0, 512, 512)


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([(64, 16), (128, 64), (512, 64), (768, 64)]))
def test_target_size_keeps_the_shape_and_its_limits(width, height, scale):
    resolution, multiple = scale
    try:
        new_width, new_height = target_size(width, height, resolution, multiple)
    except BadInput:
        assert max(width, height) > min(width, height) * (MAX_STRETCH * resolution // multiple - 1)
        return
    assert new_width % multiple == new_height % multiple == 0
    assert multiple <= min(new_width, new_height) and max(new_width, new_height) <= MAX_STRETCH * resolution
    assert target_size(height, width, resolution, multiple) == (new_height, new_width)
    # The shorter side fills a whole number of blocks; the longer one loses less than a block to the crop.
    short, long = sorted((width, height))
    new_short, new_long = sorted((new_width, new_height))
    assert 0 <= new_short * long - new_long * short < multiple * short or new_short >= new_long


def test_fit_crops_the_middle():
    image = Image.new("RGB", (300, 100), RED)
    image.paste((0, 0, 255), (100, 0, 200, 100))
    fitted = fit(image, (64, 64))
    assert fitted.size == (64, 64) and fitted.getpixel((32, 32)) == (0, 0, 255) and fitted.getpixel((2, 2))[0] < 40


def test_mask_is_white_where_edited_and_fitted_like_the_picture():
    mask = Image.new("L", (300, 100), 0)
    mask.paste(255, (100, 0, 200, 100))
    loaded = load_mask(mask, (32, 16))
    assert (loaded.shape, loaded.dtype) == ((16, 32), np.float32)
    assert loaded[:, 16].min() == 1.0 and loaded[:, 0].max() == 0.0 and 0.0 <= loaded.min() <= loaded.max() <= 1.0


def test_before_after_stands_side_by_side():
    sheet = before_after(Image.new("RGB", (100, 100), RED), Image.new("RGB", (64, 48), (0, 0, 255)))
    assert sheet.size == (2 * 64 + 2, 48)
    assert [sheet.getpixel((x, 20)) for x in (0, 64, 129)] == [RED, WHITE, (0, 0, 255)]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.webp"])
def test_save_writes_the_whole_file_and_nothing_else(tmp_path, name):
    (tmp_path / name).write_bytes(b"old")
    save_image(Image.new("RGB", (8, 8), RED), tmp_path / name)
    assert load_image(tmp_path / name).size == (8, 8)
    assert os.listdir(tmp_path) == [name]


def test_an_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"old")

    def interrupted(self, file, *args, **options):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_image(Image.new("RGB", (8, 8)), tmp_path / "a.png")
    assert os.listdir(tmp_path) == ["a.png"] and (tmp_path / "a.png").read_bytes() == b"old"


@pytest.mark.parametrize("write", [require_writable, lambda path: save_image(Image.new("RGB", (8, 8)), path)])
def test_places_that_cannot_be_written_are_named(tmp_path, write):
    (tmp_path / "folder.png").mkdir()
    places = {
        tmp_path / "absent" / "a.png": "there is no folder",
        tmp_path / "folder.png": "it is a folder",
        tmp_path / "a.tga": "it ends in .tga; use one of .png",
        tmp_path / "a": "it has no ending",
    }
    if Path("/proc/self").is_dir():
        places[Path("/proc/self/a.png")] = "cannot write /proc/self/a.png"  # read-only even to root
    for path, reason in places.items():
        with pytest.raises(BadInput, match=reason):
            write(path)
    assert os.listdir(tmp_path) == ["folder.png"]
