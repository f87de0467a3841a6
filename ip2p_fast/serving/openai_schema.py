"""The OpenAPI description of POST /v1/images/edits, written out as the body has two forms and is read by hand."""

from __future__ import annotations

from typing import Any

from ..samplers import SAMPLERS
from .openai_form import IGNORED, MAX_PROMPT

_FIELDS: dict[str, Any] = {
    "prompt": {"type": "string", "minLength": 1, "maxLength": MAX_PROMPT, "description": "What to change."},
    "model": {"type": "string", "description": "The served model's name, or none."},
    "n": {"type": "integer", "minimum": 1, "default": 1, "description": "Images of each picture."},
    "size": {"type": "string", "pattern": "^(auto|[0-9]{1,5}x[0-9]{1,5})$", "default": "auto"},
    "output_format": {"type": "string", "enum": ["png", "jpeg", "webp"], "default": "png"},
    "output_compression": {"type": "integer", "minimum": 0, "maximum": 100, "description": "Of JPEG and WebP."},
    "response_format": {"type": "string", "enum": ["b64_json", "url"], "description": "url: a data URL."},
    "stream": {"type": "boolean", "default": False},
    "partial_images": {"type": "integer", "minimum": 0, "maximum": 3, "default": 0},
    "seed": {"type": "integer", "minimum": 0, "description": "Of the first image; image i takes seed + i."},
    "num_inference_steps": {"type": "integer", "minimum": 1},
    "guidance_scale": {"type": "number", "description": "Higher follows the instruction more."},
    "image_guidance_scale": {"type": "number", "description": "Higher keeps the picture more."},
    "negative_prompt": {"type": "string", "maxLength": MAX_PROMPT},
    "sampler": {"type": "string", "enum": list(SAMPLERS)},
    "mask_sense": {
        "type": "string",
        "enum": ["alpha", "white"],
        "default": "alpha",
        "description": "alpha: transparent is edited. white: white is edited.",
    },
    "resolution": {"type": "integer", "minimum": 1, "description": "Longer side at which the model works."},
    "deadline": {"type": "number", "minimum": 0, "description": "Seconds after which the edit is of no use."},
    **{name: {"type": "string", "description": "Taken and not used."} for name in IGNORED},
}
_FILE = {"type": "string", "format": "binary"}
_REFERENCE = {
    "type": "object",
    "required": ["image_url"],
    "properties": {"image_url": {"type": "string", "description": "data:image/png;base64,..."}},
}


def _body(**pictures: Any) -> dict[str, Any]:
    properties = {**pictures, **_FIELDS}
    required = ["prompt", next(iter(pictures))]
    schema = {"type": "object", "required": required, "properties": properties, "additionalProperties": False}
    return {"schema": schema}


REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": _body(image={"type": "array", "items": _FILE, "minItems": 1}, mask=_FILE),
        "application/json": _body(images={"type": "array", "items": _REFERENCE, "minItems": 1}, mask=_REFERENCE),
    },
}

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_MEANINGS = {
    400: "A field cannot be used.",
    401: "The API key is missing or wrong.",
    404: "No such model.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is of another type.",
    429: "Too many requests: see Retry-After.",
    500: "The server failed.",
    503: "Not by the deadline, or not now: see Retry-After.",
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
    for status, text in _MEANINGS.items()
}
