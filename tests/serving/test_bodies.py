"""Bodies of strangers: whatever is sent, the server says what is wrong and lives on."""

import base64
import io
import json
import random
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

OPTIONS = ("--no-warm-up",)
BOUNDARY = {"Content-Type": "multipart/form-data; boundary=x"}
JSON = {"Content-Type": "application/json"}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks, data=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def webp(width, height):
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def part(name, value, filename=None):
    file = f'; filename="{filename}"' if filename else ""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"


def huge_exif(file_format, size):
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "x" * size
    Image.new("RGB", (8, 8)).save(file, file_format, exif=exif)
    return file.getvalue()


def text_bomb():
    return png(8, 8, *[chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(50_000_000)))] * 3, data=zlib.compress(bytes(200)))


def nested(depth):
    return b'{"prompt": ' + b"[" * depth + b"]" * depth + b"}"


PICTURES = {
    "empty": b"",
    "not_a_picture": b"hello",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "xml_entities": b"<!DOCTYPE svg [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><svg>&x;</svg>",
    "gif": b"GIF89a" + bytes(100),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "tiff": b"II*\0" + bytes(100),
    "path": b"/etc/passwd",
    "png_signature_alone": b"\x89PNG\r\n\x1a\n",
    "png_truncated": png(8, 8, data=zlib.compress(random.Random(0).randbytes(200)))[:-100],
    "png_of_no_width": png(0, 8),
    "png_100000_wide": png(100_000, 1, data=zlib.compress(bytes(300_001))),
    "png_bomb": png(60_000, 60_000, data=zlib.compress(bytes(1_000_000))),
    "png_of_negative_size": png(2**31 - 1, 2**31 - 1),
    "png_text_bomb": text_bomb(),
    "png_profile_bomb": png(8, 8, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(50_000_000)))),
    "png_one_by_8000": png(8000, 1, data=zlib.compress(bytes(24_001))),
    "jpeg_signature_alone": b"\xff\xd8\xff",
    "jpeg_garbage": b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4,
    "webp_signature_alone": b"RIFF\0\0\0\0WEBP",
    "webp_bomb": webp(16_384, 16_384),
    "webp_garbage": b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(100),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_cannot_be_used_is_400(server, name):
    reply = server.post(files={"image": ("a.png", PICTURES[name])}, data={"prompt": "make it night"})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == "image"


# a JPEG's segment holds no more than 64 KB
@pytest.mark.parametrize(("file_format", "size"), [("JPEG", 60_000), ("PNG", 5_000_000), ("WEBP", 5_000_000)])
def test_a_large_exif_is_not_in_the_way(server, file_format, size):
    data = huge_exif(file_format, size)
    assert len(data) > size
    reply = server.post(files={"image": ("a", data)}, data={"prompt": "make it night", "num_inference_steps": 1})
    assert reply.status_code == 200, reply.text


BODIES = {
    "nothing": (b"", {}),
    "plain_text": (b"hello", {"Content-Type": "text/plain"}),
    "form": (b"prompt=x", {"Content-Type": "application/x-www-form-urlencoded"}),
    "multipart_without_boundary": (b"--x--", {"Content-Type": "multipart/form-data"}),
    "multipart_of_another_boundary": (b"--y\r\n\r\n--y--", BOUNDARY),
    "multipart_unfinished": (part("prompt", b"x")[:-5], BOUNDARY),
    "multipart_empty": (b"--x--\r\n", BOUNDARY),
    "part_without_name": (b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--", BOUNDARY),
    "part_with_a_bad_header": (b"--x\r\n\x00\xff: \x01\r\n\r\nx\r\n--x--", BOUNDARY),
    "text_for_an_image": (part("image", b"/etc/passwd") + part("prompt", b"x") + b"--x--", BOUNDARY),
    "file_for_a_prompt": (part("prompt", b"x", "a") + part("image", b"x", "a") + b"--x--", BOUNDARY),
    "prompt_twice": (part("prompt", b"x") * 2 + part("image", b"x", "a") + b"--x--", BOUNDARY),
    "prompt_not_utf8": (part("prompt", b"\xff\xfe\x00") + part("image", b"x", "a") + b"--x--", BOUNDARY),
    "a_thousand_fields": (b"".join(part(f"f{i}", b"x") for i in range(1000)) + b"--x--", BOUNDARY),
    "a_hundred_files": (part("image[]", b"x", "a") * 100 + b"--x--", BOUNDARY),
    "a_long_field": (part("prompt", b"x" * 400_000) + b"--x--", BOUNDARY),
    "a_charset_of_no_one": (
        part("prompt", b"x") + b"--x--",
        {"Content-Type": BOUNDARY["Content-Type"] + "; charset=q"},
    ),
    "json_cut_off": (b'{"prompt": "x"', JSON),
    "json_list": (b"[]", JSON),
    "json_number": (b"1", JSON),
    "json_nan": (b'{"guidance_scale": NaN}', JSON),
    "json_not_utf8": (b'{"prompt": "\xff"}', JSON),
    "json_deep": (nested(100_000), JSON),
    "json_long_number": (b'{"seed": ' + b"9" * 10_000 + b"}", JSON),
}
URLS = [
    "http://127.0.0.1:1/a.png",
    "https://example.com/a.png",
    "file:///etc/passwd",
    "/etc/passwd",
    "data:image/svg+xml;base64,AAAA",
    "data:image/png;base64,%%%%",
    "data:image/png;base64," + base64.b64encode(b"/etc/passwd").decode(),
    "data:,x",
    "",
]
VALUES = [None, True, -1, 2**70, 1e308, "", "\x00", "\ud800", [], {}, [[]], {"image_url": 3}, "x" * 40_000]
NAMES = ["prompt", "n", "size", "seed", "stream", "images", "mask", "guidance_scale", "model", "sampler", "deadline"]


@pytest.mark.parametrize("name", BODIES)
def test_a_malformed_body_is_a_4xx_in_openais_form(server, name):
    content, headers = BODIES[name]
    reply = server.post(content=content, headers=headers)
    assert 400 <= reply.status_code < 500, reply.text
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize("url", URLS)
def test_nothing_is_fetched_and_no_path_is_read(server, url):
    reply = server.post(json={"prompt": "make it night", "images": [{"image_url": url}]})
    assert reply.status_code == 400
    assert "root:" not in reply.text


@pytest.mark.parametrize("name", NAMES)
def test_values_of_any_type_are_answered(server, sample, name):
    url = "data:image/png;base64," + base64.b64encode(sample).decode()
    for value in VALUES:
        body = {"prompt": "make it night", "images": [{"image_url": url}], "num_inference_steps": 1, name: value}
        reply = server.post(content=json.dumps(body).encode(), headers=JSON)
        assert reply.status_code < 500 or reply.json()["error"]["code"] == "deadline", (value, reply.text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "image_url"]), inner, max_size=4)
    ),
    max_leaves=8,
)
QUICK = settings(
    max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(body=st.dictionaries(st.sampled_from(NAMES), JSON_VALUES, max_size=6))
def test_any_json_is_answered(server, body):
    reply = server.post(content=json.dumps(body).encode(), headers=JSON)
    assert 400 <= reply.status_code < 500


@QUICK
@given(parts=st.lists(st.tuples(st.sampled_from([*NAMES, "image"]), st.binary(max_size=40), st.booleans()), max_size=6))
def test_any_multipart_is_answered(server, parts):
    content = b"".join(part(name, value, "a" if is_file else None) for name, value, is_file in parts) + b"--x--"
    assert 400 <= server.post(content=content, headers=BOUNDARY).status_code < 500


@QUICK
@given(content=st.binary(max_size=200))
def test_any_bytes_are_answered(server, content):
    for headers in (BOUNDARY, JSON):
        assert 400 <= server.post(content=content, headers=headers).status_code < 500


@QUICK
@given(position=st.integers(0, 10**6), change=st.binary(min_size=1, max_size=8), cut=st.integers(0, 10**6))
def test_any_damage_to_a_picture_is_answered(server, sample, position, change, cut):
    place = position % len(sample)
    damaged = sample[:place] + change + sample[place + len(change) :]
    damaged = damaged[: len(damaged) - (cut % 3) * (cut % len(damaged)) // 2]
    data = {"prompt": "make it night", "num_inference_steps": 1}
    assert server.post(files={"image": ("a.png", damaged)}, data=data).status_code in (200, 400)


def test_the_next_edit_is_right(server, sample):
    reply = server.post(files={"image": ("a.png", sample)}, data={"prompt": "make it night", "num_inference_steps": 1})
    assert reply.status_code == 200
    assert server.metric("ip2p_edits_in_flight") == server.metric("ip2p_queue_length") == 0
