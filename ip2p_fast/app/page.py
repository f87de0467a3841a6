"""The page: what stands where. What happens is `events` and `grid_events`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from ..editor import DEFAULTS, Editor
from ..samplers import SAMPLERS
from . import words
from .edits import MAX_SEED
from .grid import MAX_SIDE
from .pictures import samples, thumbnail

MAX_STEPS = 100
_STATE_SECONDS = 6 * 3600.0  # how long the pictures of an idle tab are kept
_IMAGES = [".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"]


@dataclass(frozen=True)
class Controls:
    """What an edit is asked for with, in both tabs."""

    instruction: gr.Textbox
    text_guidance: gr.Slider
    image_guidance: gr.Slider
    fix_seed: gr.Checkbox
    seed: gr.Number
    steps: gr.Slider
    sampler: gr.Dropdown
    negative: gr.Textbox
    masking: gr.Checkbox
    painter: gr.ImageEditor


@dataclass(frozen=True)
class EditTab:
    """
    chain                      the state: a `chain.Chain` or None
    picture, live, compared    the stage: one of them is seen
    """

    chain: gr.State
    picture: gr.Image
    live: gr.HTML
    compared: gr.ImageSlider
    status: gr.HTML
    edit: gr.Button
    stop: gr.Button
    proceed: gr.Button
    undo: gr.Button
    redo: gr.Button
    keep_seed: gr.Button
    download: gr.DownloadButton
    history: gr.Gallery
    upload: gr.File
    samples: gr.Gallery
    controls: Controls


@dataclass(frozen=True)
class GridTab:
    """drawn: the state, a (Grid, original picture) or None; ranges: first, last and count of both scales."""

    drawn: gr.State
    sheet: gr.Image
    live: gr.HTML
    status: gr.HTML
    ranges: tuple[gr.Number, ...]
    draw: gr.Button
    stop: gr.Button
    download: gr.DownloadButton


@dataclass(frozen=True)
class Page:
    blocks: gr.Blocks
    edit: EditTab
    grid: GridTab
    tabs: gr.Tabs


def build(editor: Editor) -> Page:
    """The page for the model of `editor`, with nothing that happens on it yet."""
    defaults = {**DEFAULTS, **editor.backend.info.defaults}
    with gr.Blocks(title="ip2p-fast", analytics_enabled=False, delete_cache=(3600, int(_STATE_SECONDS))) as blocks:
        gr.HTML(_header(editor), elem_id="header")
        with gr.Tabs() as tabs:
            with gr.Tab("Edit", id="edit"):
                edit = _edit_tab(editor, defaults)
            with gr.Tab("Grid", id="grid"):
                grid = _grid_tab(defaults)
    return Page(blocks, edit, grid, tabs)


def text_bounds(default: float) -> tuple[float, float]:
    """The least and the most text guidance that the page offers."""
    return 0.5, max(15.0, 2 * default)


def image_bounds(default: float) -> tuple[float, float]:
    """The least and the most image guidance that the page offers."""
    return 0.5, max(4.0, 2 * default)


def _header(editor: Editor) -> str:
    note = f"<p>{words.POCKET_NOTE}</p>" if words.is_pocket(editor) else ""
    return f"<h1>Edit pictures by instruction</h1>{note}"


def _edit_tab(editor: Editor, defaults: dict[str, Any]) -> EditTab:
    chain = gr.State(None, time_to_live=_STATE_SECONDS)
    text, image = float(defaults["text_guidance"]), float(defaults["image_guidance"])
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=7, min_width=320, elem_classes="stage"):
            picture = gr.Image(
                show_label=False,
                interactive=False,
                format="png",
                type="filepath",
                elem_id="picture",
                elem_classes="canvas",
                buttons=["fullscreen"],
                placeholder="Take a sample, or upload a picture of yours",
            )
            live = gr.HTML(visible=False, elem_id="live")
            compared = gr.ImageSlider(
                show_label=False,
                interactive=False,
                format="png",
                type="filepath",
                visible=False,
                elem_id="compared",
                elem_classes="canvas",
                buttons=["fullscreen"],
                max_height=600,
            )
            status = gr.HTML("", elem_id="status", elem_classes="status")
            with gr.Row(elem_classes="actions"):
                proceed = gr.Button("Continue from this result", size="sm", interactive=False, elem_id="proceed")
                undo = gr.Button("Undo", size="sm", interactive=False, elem_id="undo")
                redo = gr.Button("Redo", size="sm", interactive=False, elem_id="redo")
                keep_seed = gr.Button("Keep this seed", size="sm", interactive=False, elem_id="keep-seed")
                download = gr.DownloadButton("Download PNG", size="sm", interactive=False, elem_id="download")
            history = gr.Gallery(
                label="History",
                visible=False,
                columns=6,
                rows=1,
                height="auto",
                object_fit="cover",
                allow_preview=False,
                interactive=False,
                buttons=[],
                elem_id="history",
                elem_classes="strip",
            )
            painter = gr.ImageEditor(
                label=words.MASK,
                visible=False,
                type="pil",
                image_mode="RGBA",
                format="png",
                sources=(),
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=40, colors=["#ffffff"], color_mode="fixed"),
                eraser=gr.Eraser(default_size=40),
                buttons=[],
                height=480,
                elem_id="painter",
            )
            with gr.Column(elem_id="source"):
                offered = gr.Gallery(
                    [(thumbnail(Image.open(one.path).convert("RGB")), one.caption) for one in samples()],
                    label="Pictures to try",
                    columns=6,
                    rows=1,
                    height="auto",
                    object_fit="cover",
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    elem_id="samples",
                    elem_classes="strip bare",
                )
                upload = gr.File(
                    label="Or a picture of yours",
                    file_types=_IMAGES,
                    type="filepath",
                    height=56,
                    elem_id="upload",
                )
        with gr.Column(scale=5, min_width=320, elem_classes="controls"):
            instruction = gr.Textbox(
                label="Instruction",
                placeholder="What should change?",
                lines=1,
                max_lines=3,
                max_length=600,
                elem_id="instruction",
            )
            with gr.Row(elem_classes="go"):
                edit = gr.Button("Edit", variant="primary", elem_id="edit")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
            examples = words.POCKET_EXAMPLES if words.is_pocket(editor) else words.EXAMPLES
            gr.Examples(
                [[one] for one in examples],
                [instruction],
                label="For example",
                elem_id="examples",
                api_visibility="private",
            )
            text_guidance = gr.Slider(
                *text_bounds(text), text, step=0.01, label="Follow the instruction", info=words.TEXT_GUIDANCE,
                elem_id="text-guidance",
            )  # fmt: skip
            image_guidance = gr.Slider(
                *image_bounds(image), image, step=0.01, label="Keep the picture", info=words.IMAGE_GUIDANCE,
                elem_id="image-guidance",
            )  # fmt: skip
            with gr.Row(elem_classes="seed"):
                fix_seed = gr.Checkbox(False, label="Fix the seed", info=words.SEED, elem_id="fix-seed")
                seed = gr.Number(
                    0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed", min_width=120
                )
            masking = gr.Checkbox(False, label="Edit only a part of the picture", elem_id="masking")
            with gr.Accordion("More", open=False, elem_id="more"):
                steps = gr.Slider(
                    1, MAX_STEPS, int(defaults["steps"]), step=1, label="Steps", info=words.STEPS, elem_id="steps"
                )
                sampler = gr.Dropdown(
                    list(SAMPLERS), value=defaults["sampler"], label="Sampler", info=words.SAMPLER, elem_id="sampler"
                )
                negative = gr.Textbox(
                    label="Avoid",
                    info=words.NEGATIVE,
                    max_length=600,
                    visible=not editor.backend.info.distilled,
                    elem_id="negative",
                )
    controls = Controls(
        instruction, text_guidance, image_guidance, fix_seed, seed, steps, sampler, negative, masking, painter
    )
    return EditTab(
        chain, picture, live, compared, status, edit, stop, proceed, undo, redo, keep_seed, download, history, upload,
        offered, controls,
    )  # fmt: skip


def _grid_tab(defaults: dict[str, Any]) -> GridTab:
    drawn = gr.State(None, time_to_live=_STATE_SECONDS)
    text, image = float(defaults["text_guidance"]), float(defaults["image_guidance"])
    with gr.Row(elem_classes="columns"):
        with gr.Column(scale=8, min_width=320, elem_classes="stage"):
            sheet = gr.Image(
                show_label=False,
                interactive=False,
                format="png",
                type="filepath",
                elem_id="sheet",
                elem_classes="canvas",
                buttons=["fullscreen"],
                placeholder="The edits appear here, one for each pair of scales",
            )
            live = gr.HTML(visible=False, elem_id="grid-live")
            status = gr.HTML("", elem_id="grid-status", elem_classes="status")
        with gr.Column(scale=4, min_width=300, elem_classes="controls"):
            gr.HTML(f"<p>{words.GRID}</p>", elem_classes="note")
            ranges = (
                *_range("Follow the instruction", "text", text_bounds(text), 0.5 * text, 2 * text, 4),
                *_range("Keep the picture", "image", image_bounds(image), max(1.0, image - 0.5), image + 0.5, 3),
            )
            with gr.Row(elem_classes="go"):
                draw = gr.Button("Draw the grid", variant="primary", elem_id="draw")
                stop = gr.Button("Stop", variant="stop", visible=False, elem_id="grid-stop")
            download = gr.DownloadButton("Download PNG", interactive=False, elem_id="grid-download")
    return GridTab(drawn, sheet, live, status, ranges, draw, stop, download)


def _range(
    title: str, name: str, bounds: tuple[float, float], first: float, last: float, count: int
) -> tuple[gr.Number, gr.Number, gr.Number]:
    low, high = bounds
    gr.HTML(f"<h3>{title}</h3>", elem_classes="note")
    with gr.Row(elem_classes="range"):
        return (
            gr.Number(first, label="from", minimum=low, maximum=high, step=0.1, min_width=80, elem_id=f"{name}-first"),
            gr.Number(last, label="to", minimum=low, maximum=high, step=0.1, min_width=80, elem_id=f"{name}-last"),
            gr.Number(
                count, label="values", precision=0, minimum=1, maximum=MAX_SIDE, min_width=80, elem_id=f"{name}-count"
            ),
        )
