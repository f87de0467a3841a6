"""Replies of POST /v1/images/edits in OpenAI's form: one JSON object, or server-sent events while an edit goes on."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from typing import Any

from PIL import Image

from .. import __version__
from .openai_form import EditForm
from .pictures import WRITES, encode


def encoded(picture: Image.Image, form: EditForm, provenance: str | None) -> str:
    """base64 of the picture in the format asked for. provenance: the model's name, written into a PNG."""
    text = None if provenance is None else {"Software": f"ip2p-fast {__version__}", "Source": f"edited by {provenance}"}
    return base64.b64encode(encode(picture, form.output_format, form.quality, text)).decode("ascii")


def images_response(
    form: EditForm, pictures: Sequence[str], sizes: Sequence[tuple[int, int]], seeds: Sequence[int], tokens: int
) -> dict[str, Any]:
    """The reply to a request that does not stream. `seed` and `size` of each image are ours.

    pictures: base64 of each; tokens: of the prompt.
    """
    key, prefix = ("url", f"data:{WRITES[form.output_format]};base64,") if form.as_url else ("b64_json", "")
    return {
        "created": int(time.time()),
        "data": [
            {key: prefix + picture, "seed": seed, "size": _size(size)}
            for picture, seed, size in zip(pictures, seeds, sizes, strict=True)
        ],
        "background": "opaque",
        "output_format": form.output_format,
        "size": _size(sizes[0]),
        "usage": _usage(tokens),
    }


def partial_event(form: EditForm, picture: str, size: tuple[int, int], image: int, index: int) -> bytes:
    """A preview: number `index` of image number `image`."""
    return _event("image_edit.partial_image", form, picture, size, image, partial_image_index=index)


def completed_event(form: EditForm, picture: str, size: tuple[int, int], image: int, seed: int, tokens: int) -> bytes:
    """Image number `image` is done."""
    return _event("image_edit.completed", form, picture, size, image, seed=seed, usage=_usage(tokens))


def error_event(body: dict[str, Any]) -> bytes:
    """The stream ends with an error."""
    return b"event: error\ndata: " + json.dumps(body).encode() + b"\n\n"


def _event(kind: str, form: EditForm, picture: str, size: tuple[int, int], image: int, **fields: Any) -> bytes:
    body = {
        "type": kind,
        "b64_json": picture,
        "background": "opaque",
        "created_at": int(time.time()),
        "output_format": form.output_format,
        "quality": "auto",
        "size": _size(size),
        "image_index": image,
        **fields,
    }
    return f"event: {kind}\ndata: {json.dumps(body)}\n\n".encode()


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _usage(tokens: int) -> dict[str, Any]:
    """Tokens of the prompt. Pictures are not made of tokens here, and count none."""
    details = {"text_tokens": tokens, "image_tokens": 0}
    return {"input_tokens": tokens, "input_tokens_details": details, "output_tokens": 0, "total_tokens": tokens}
