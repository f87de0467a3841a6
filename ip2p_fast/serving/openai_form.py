"""The body of POST /v1/images/edits, multipart or JSON, as one checked form. OpenAI's fields, and ours beside them.

https://platform.openai.com/docs/api-reference/images/createEdit
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from ..samplers import SAMPLERS
from .errors import ApiError, bad_field
from .pictures import WRITES
from .settings import Settings

Fields: TypeAlias = Mapping[str, Sequence[Any]]
"""Values by name: str and bytes (files) of a multipart body, any JSON value of a JSON one."""

MAX_PROMPT = 32_000
MAX_FIELDS = 64
MAX_FIELD = 200_000
# Fields of OpenAI's that change nothing here: they are taken, so that its clients work.
IGNORED = ("user", "quality", "background", "input_fidelity", "moderation", "safety_identifier")
_SCALARS = (
    *("prompt", "model", "n", "size", "output_format", "output_compression", "response_format", "stream"),
    *("partial_images", "seed", "num_inference_steps", "guidance_scale", "image_guidance_scale", "negative_prompt"),
    *("sampler", "mask_sense", "resolution", "deadline", *IGNORED),
)


@dataclass(frozen=True)
class EditForm:
    """One request; None where the server or the model decides.

    pictures      files, undecoded
    size          (width, height) of the output; None: the picture's own
    quality       of JPEG and WebP, 0 to 100
    as_url        reply with data URLs in place of b64_json
    mask_sense    "alpha": transparent is edited, as OpenAI has it; "white": white is edited
    resolution    longer side at which the model works
    deadline      seconds
    """

    pictures: tuple[bytes, ...]
    prompt: str
    mask: bytes | None
    mask_sense: str
    n: int
    size: tuple[int, int] | None
    output_format: str
    quality: int
    as_url: bool
    stream: bool
    partial_images: int
    seed: int | None
    steps: int | None
    text_guidance: float | None
    image_guidance: float | None
    negative: str
    sampler: str | None
    resolution: int | None
    deadline: float


async def read_form(headers: Headers, body: AsyncIterator[bytes], settings: Settings) -> EditForm:
    """Reads and checks a body. Raises ApiError (400, 404, 413, 415)."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        fields = await _multipart(headers, body, settings)
    elif kind == "application/json":
        fields = _json(b"".join([chunk async for chunk in body]))
    else:
        raise ApiError(415, "the body is neither multipart/form-data nor application/json", "unsupported_media_type")
    return _form(fields, settings)


def _form(fields: Fields, settings: Settings) -> EditForm:
    for name in fields:
        if name not in (*_SCALARS, "image", "image[]", "images", "mask"):
            raise bad_field(name[:64], f"unknown parameter: {name[:64]!r}", "unknown_parameter")
    given = {name: _one(name, fields[name]) for name in _SCALARS if name in fields}
    given = {name: value for name, value in given.items() if value is not None}

    names = (settings.name, *settings.aliases)
    if "model" in given and _text(given, "model") not in names:
        message = f"there is no model {given['model'][:64]!r} here: ask for {' or '.join(names)}, or name none"
        raise ApiError(404, message, "model_not_found", "model")
    if given.get("background", "auto") not in ("auto", "opaque"):
        raise bad_field("background", "background is not auto or opaque: there are no transparent results here")
    prompt = _text(given, "prompt")
    if not prompt.strip():
        raise bad_field("prompt", "prompt is missing or empty: say what to change", "missing_required_parameter")
    output_format = _choice(given, "output_format", "png", WRITES)
    if output_format == "png" and given.get("output_compression") not in (None, 100, "100"):
        raise bad_field("output_compression", "output_compression goes with output_format jpeg or webp")
    return EditForm(
        pictures=_pictures(fields, settings),
        prompt=prompt,
        mask=_mask(fields),
        mask_sense=_choice(given, "mask_sense", "alpha", ("alpha", "white")),
        n=_whole(given, "n", 1, 1, settings.max_n),
        size=_size(given, settings),
        output_format=output_format,
        quality=_whole(given, "output_compression", 95, 0, 100),
        as_url=_choice(given, "response_format", "b64_json", ("b64_json", "url")) == "url",
        stream=_choice(given, "stream", "false", ("true", "false")) == "true",
        partial_images=_whole(given, "partial_images", 0, 0, 3),
        seed=_whole(given, "seed", None, 0, 2**63 - 1 - settings.max_n),
        steps=_whole(given, "num_inference_steps", None, 1, settings.max_steps),
        text_guidance=_number(given, "guidance_scale", None, -1000, 1000),
        image_guidance=_number(given, "image_guidance_scale", None, -1000, 1000),
        negative=_text(given, "negative_prompt"),
        sampler=_choice(given, "sampler", None, SAMPLERS),
        resolution=_whole(given, "resolution", None, 1, settings.max_resolution or settings.max_side),
        deadline=_number(given, "deadline", settings.default_deadline, 0, settings.max_deadline),
    )


async def _multipart(headers: Headers, body: AsyncIterator[bytes], settings: Settings) -> Fields:
    parser = _InMemory(
        headers,
        body,  # type: ignore[arg-type]  # any asynchronous iterator will do
        max_files=settings.max_pictures + 1,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD,
    )
    parser.spool_max_size = settings.max_body + 1
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ApiError(400, f"the multipart body is malformed: {error.message}", "malformed") from None
    except (UnicodeError, ValueError, KeyError, IndexError, AssertionError):
        raise ApiError(400, "the multipart body is malformed", "malformed") from None
    fields: dict[str, list[Any]] = {}
    for name, value in form.multi_items():
        fields.setdefault(name, []).append(await value.read() if isinstance(value, UploadFile) else value)
    return fields


class _InMemory(MultiPartParser):
    """Never writes an upload to disk: the body is bounded already."""


def _json(body: bytes) -> Fields:
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ApiError(400, "the body is not JSON", "malformed") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body is not a JSON object", "malformed")
    for name in ("image", "image[]"):
        if name in value:
            raise bad_field(name, f"{name} is a file of a multipart body; in JSON send images: [{{image_url}}]")
    return {
        name: item if name == "images" and isinstance(item, list) else [item]
        for name, item in value.items()
        if item is not None
    }


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def _pictures(fields: Fields, settings: Settings) -> tuple[bytes, ...]:
    files = [*fields.get("image", ()), *fields.get("image[]", ())]
    if any(not isinstance(file, bytes) for file in files):
        raise bad_field("image", "image is not a file: send the picture itself, with a file name")
    pictures = [*files, *(_referenced("images", item) for item in fields.get("images", ()))]
    if not pictures:
        raise bad_field("image", "image is missing: send at least one picture", "missing_required_parameter")
    if len(pictures) > settings.max_pictures:
        raise bad_field("image", f"there are {len(pictures)} pictures, over the limit of {settings.max_pictures}")
    return tuple(pictures)


def _mask(fields: Fields) -> bytes | None:
    if "mask" not in fields:
        return None
    value = _one("mask", fields["mask"])
    return value if isinstance(value, bytes) else _referenced("mask", value)


def _referenced(name: str, item: Any) -> bytes:
    """The bytes of {"image_url": "data:..."}; nothing is ever fetched."""
    url = item.get("image_url") if isinstance(item, dict) else None
    if not isinstance(url, str):
        raise bad_field(name, f'{name} is not {{"image_url": "data:image/png;base64,..."}}')
    head, comma, data = url.partition(",")
    if not comma or not re.fullmatch(r"data:image/(png|jpeg|jpg|webp);base64", head, re.IGNORECASE):
        raise bad_field(name, "image_url is not a base64 data URL of a PNG, JPEG or WebP: this server fetches nothing")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise bad_field(name, "image_url's base64 is damaged") from None


def _one(name: str, values: Sequence[Any]) -> Any:
    if len(values) != 1:
        raise bad_field(name, f"{name} is given {len(values)} times: once is needed")
    return values[0]


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise bad_field(name, f"{name} is not a text", "invalid_type")
    if len(value) > MAX_PROMPT:
        raise bad_field(name, f"{name} has {len(value)} characters, over the limit of {MAX_PROMPT}")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise bad_field(name, f"{name} has characters that are not text")
    return value


def _choice(given: Mapping[str, Any], name: str, default: Any, choices: Any) -> Any:
    value = given.get(name, default)
    if isinstance(value, bool):
        value = str(value).lower()
    if value is not default and (not isinstance(value, str) or value not in choices):
        raise bad_field(name, f"{name} is none of {', '.join(choices)}")
    return value


def _whole(given: Mapping[str, Any], name: str, default: int | None, low: int, high: int) -> Any:
    value = given.get(name, default)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        value = int(value)
    if value is default:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise bad_field(name, f"{name} is {_shown(value)}: a whole number from {low} to {high} is needed")
    return value


def _number(given: Mapping[str, Any], name: str, default: float | None, low: float, high: float) -> Any:
    value = given.get(name, default)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9.]{1,30}(e-?[0-9]{1,3})?", value):
        try:
            value = float(value)
        except ValueError:
            value = math.nan
    if value is default:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise bad_field(name, f"{name} is {_shown(value)}: a number from {low:g} to {high:g} is needed")
    return float(value)


def _size(given: Mapping[str, Any], settings: Settings) -> tuple[int, int] | None:
    text = given.get("size", "auto")
    if text == "auto":
        return None
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text) if isinstance(text, str) else None
    if match is None:
        raise bad_field("size", f"size is {_shown(text)}: auto, or WIDTHxHEIGHT in pixels, is needed")
    width, height = int(match[1]), int(match[2])
    if not (min(width, height) > 0 and max(width, height) <= settings.max_side):
        raise bad_field("size", f"size is {width}x{height}: 1 to {settings.max_side} pixels a side are needed")
    if width * height > settings.max_pixels:
        raise bad_field("size", f"size is {width}x{height}, over the limit of {settings.max_pixels:,} pixels")
    return width, height


def _shown(value: Any) -> str:
    return repr(value)[:40] if not isinstance(value, int) or abs(value) < 10**30 else "a huge number"
