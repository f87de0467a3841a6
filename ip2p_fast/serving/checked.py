"""From a form to edits for the engine: pictures decoded within limits, texts that fit, one EditRequest a picture."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image

from ..editor import Editor, EditRequest
from ..errors import BadInput
from .errors import bad_field
from .openai_form import EditForm
from .pictures import Canvas, canvas, decode, decode_mask
from .settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Work:
    """One canvas and one request a picture, and the tokens of the prompt."""

    canvases: tuple[Canvas, ...]
    requests: tuple[EditRequest, ...]
    tokens: int

    def canvas_of(self, edit: int, form: EditForm) -> Canvas:
        """The canvas of edit number `edit`: each picture has n of them."""
        return self.canvases[edit // form.n]


def checked(form: EditForm, editor: Editor, settings: Settings) -> Work:
    """Decodes and checks all that the form holds. Raises ApiError naming the field, before any work."""
    tokens = _require_fit(editor, "prompt", form.prompt)
    _require_fit(editor, "negative_prompt", form.negative)
    own = editor.backend.info.defaults["size"]
    limit = settings.max_resolution or 2 * own
    resolution = form.resolution or own
    if resolution > limit:
        raise bad_field("resolution", f"resolution is {resolution}, over the limit of {limit}")
    if form.mask is not None and len(form.pictures) > 1:
        raise bad_field("mask", "a mask goes with one picture, and there are several: send them one by one")
    seed = secrets.randbelow(2**31) if form.seed is None else form.seed
    canvases = tuple(_canvas(data, form, resolution, editor, settings) for data in form.pictures)
    pixels = sum(one.full.width * one.full.height for one in canvases) * form.n
    if pixels > settings.max_output:
        message = f"the images would have {pixels:,} pixels together, over the limit of {settings.max_output:,}"
        raise bad_field("size" if form.size else "n", f"{message}: ask for fewer or smaller ones")
    requests = tuple(
        EditRequest(
            image=one.work,
            instruction=form.prompt,
            text_guidance=form.text_guidance,
            image_guidance=form.image_guidance,
            steps=form.steps,
            sampler=form.sampler,
            seed=seed,
            negative=form.negative,
            mask=one.work_mask,
            num_images=form.n,
            size=max(one.work.size),
        )
        for one in canvases
    )
    return Work(canvases, requests, tokens)


def _canvas(data: bytes, form: EditForm, resolution: int, editor: Editor, settings: Settings) -> Canvas:
    limits = settings.max_pixels, settings.max_side
    picture = _named("image", decode, data, *limits)
    mask: Image.Image | None = None
    if form.mask is not None:
        mask = _named("mask", decode_mask, form.mask, form.mask_sense, picture.size, *limits)
    return _named("image", canvas, picture, mask, form.size, resolution, editor.backend.info.size_multiple)


def _named(field: str, function: Callable[..., T], *arguments: Any) -> T:
    """What is wrong with a picture is told as wrong with its field."""
    try:
        return function(*arguments)
    except BadInput as error:
        raise bad_field(field, str(error), "invalid_image") from error


def _require_fit(editor: Editor, field: str, text: str) -> int:
    """The text's tokens. A model that would ignore the end of a text must not seem to follow it."""
    ids, overflow = editor.tokenizer.encode(text)
    if overflow:
        raise bad_field(
            field,
            f"{field} is longer than the {len(ids) - 2} tokens that this model reads: leave out {overflow[:40]!r}"
            f"{' and what follows' if len(overflow) > 40 else ''}",
            "text_too_long",
        )
    end = editor.tokenizer.end_id
    return int((ids[1:] == end).argmax())
