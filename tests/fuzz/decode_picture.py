"""Fuzzes what a server decodes: pictures, masks and bodies, by coverage of our own code (atheris, libFuzzer).

    python tests/fuzz/decode_picture.py -max_total_time=60 CORPUS     any options of libFuzzer; what it finds is kept

Whatever the bytes, there is a picture within the limits or one refusal; anything else ends the run with the input in a
crash file. Memory and time are bounded by libFuzzer's -rss_limit_mb and -timeout.
"""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ip2p_fast", "PIL", "starlette", "python_multipart"]):
    from PIL import Image
    from starlette.datastructures import Headers

    from ip2p_fast.errors import BadInput
    from ip2p_fast.serving.errors import ApiError
    from ip2p_fast.serving.openai_form import read_form
    from ip2p_fast.serving.pictures import decode, decode_mask
    from ip2p_fast.serving.settings import Settings

MAX_PIXELS, MAX_SIDE, MASK_SIZE = 1 << 20, 4096, (16, 16)
_LIMITS = ("-rss_limit_mb=1024", "-timeout=10")
_BOUNDARY = b"picture"


def one_input(data: bytes) -> None:
    """The first byte chooses what reads the rest."""
    if not data:
        return
    readers = (_picture, _mask, _json_body, _multipart_body)
    readers[data[0] % len(readers)](data[1:])


def write_corpus(folder: Path) -> None:
    """Small right inputs of every kind, for libFuzzer to change."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, mode in (
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("WEBP", "RGB"),
    ):
        file = io.BytesIO()
        Image.effect_mandelbrot(MASK_SIZE, (-2, -1.5, 1, 1.5), 50).convert(mode).save(file, name)
        for kind in (0, 1):
            (folder / f"{name}-{mode}-{kind}").write_bytes(bytes([kind]) + file.getvalue())
        part = b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n%s\r\n'
        body = part % (_BOUNDARY, b"image", file.getvalue()) + part % (_BOUNDARY, b"prompt", b"night")
        (folder / f"{name}-{mode}-3").write_bytes(b"\x03" + body + b"--" + _BOUNDARY + b"--\r\n")
    (folder / "json").write_bytes(
        b'\x02{"images": [{"image_url": "data:image/png;base64,iVBORw0KGgo="}], "prompt": "a"}'
    )


def _picture(data: bytes) -> None:
    try:
        picture = decode(data, MAX_PIXELS, MAX_SIDE)
    except BadInput:
        return
    assert picture.mode == "RGB" and max(picture.size) <= MAX_SIDE and picture.width * picture.height <= MAX_PIXELS


def _mask(data: bytes) -> None:
    for sense in ("alpha", "white"):
        try:
            mask = decode_mask(data, sense, MASK_SIZE, MAX_PIXELS, MAX_SIDE)
        except BadInput:
            continue
        assert mask.mode == "L" and mask.size == MASK_SIZE


def _json_body(data: bytes) -> None:
    _body("application/json", data)


def _multipart_body(data: bytes) -> None:
    _body(f"multipart/form-data; boundary={_BOUNDARY.decode()}", data)


def _body(kind: str, data: bytes) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    try:
        form = asyncio.run(read_form(Headers({"content-type": kind}), chunks(), Settings(name="pocket")))
    except ApiError as error:
        assert 400 <= error.status < 500
        return
    assert form.pictures and form.prompt


if __name__ == "__main__":
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    for folder in folders[:1]:
        write_corpus(Path(folder))
    atheris.Setup([sys.argv[0], *_LIMITS, *sys.argv[1:]], one_input)
    atheris.Fuzz()
