"""What happens in the Grid tab: all cells go to the engine together and appear as they are done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import gradio as gr
from PIL import Image

from ..serving.runner import Runner
from .chain import Chain
from .edits import Result, Running, edited
from .events import asked, asking
from .grid import Grid, cell_at, sheet, spread
from .page import GridTab, Page
from .pictures import save_png
from .view import PRIVATE, Updates, bar, complaint, line

_REDRAW_SECONDS = 0.5


def connect(page: Page, engine: Runner, running: Running) -> None:
    """Wires the Grid tab to the engine. Must be called within the page's blocks."""
    tab, folder, controls = page.grid, page.blocks.GRADIO_CACHE, page.edit.controls

    async def run(chain: Chain | None, request: gr.Request, *given: Any) -> AsyncIterator[Updates]:
        async for updates in _run(tab, engine, running, folder, chain, given, f"{request.session_hash} grid"):
            yield updates

    tab.draw.click(
        run,
        [page.edit.chain, *tab.ranges, *asking(controls)],
        [tab.drawn, tab.sheet, tab.live, tab.status, tab.draw, tab.stop, tab.download],
        trigger_mode="once",
        concurrency_limit=None,
        **PRIVATE,
    )

    def stopped(request: gr.Request) -> None:
        running.stop(f"{request.session_hash} grid")

    tab.stop.click(stopped, queue=False, **PRIVATE)

    def chosen(drawn: tuple[Grid, Image.Image, int] | None, event: gr.SelectData) -> Updates:
        number = None if drawn is None else cell_at(drawn[0], drawn[1], *event.index)
        if drawn is None or number is None:
            return {tab.status: gr.skip()}
        text, image = drawn[0].cells[number]
        return {
            controls.text_guidance: text,
            controls.image_guidance: image,
            controls.seed: drawn[2],
            controls.fix_seed: True,
            page.tabs: gr.Tabs(selected="edit"),
        }

    taken = [controls.text_guidance, controls.image_guidance, controls.seed, controls.fix_seed, page.tabs, tab.status]
    tab.sheet.select(chosen, tab.drawn, taken, **PRIVATE)


async def _run(
    tab: GridTab,
    engine: Runner,
    running: Running,
    folder: str,
    chain: Chain | None,
    given: tuple[Any, ...],
    session: str,
) -> AsyncIterator[Updates]:
    idle = {tab.draw: gr.Button(visible=True), tab.stop: gr.Button(visible=False), tab.live: gr.HTML(visible=False)}
    if chain is None:
        yield {tab.status: line("There is no picture yet: choose one in the Edit tab.", error=True)}
        return
    began, picture = time.monotonic(), chain.base.picture
    ranges, rest = given[:6], given[6:]
    pictures: dict[int, Image.Image] = {}
    try:
        grid = Grid(spread("text guidance", *ranges[:3]), spread("image guidance", *ranges[3:]))
        ask, mask = asked(rest, picture.size)
        title = f"{ask.instruction}, seed {ask.seed}, {ask.steps} steps"
        asks = [replace(ask, text_guidance=text, image_guidance=image) for text, image in grid.cells]
        drawn_at = 0.0

        async def drawn() -> Image.Image:
            return await asyncio.to_thread(sheet, grid, picture, dict(pictures), title)

        async for seen in edited(engine, running, session, picture, mask, asks):
            if isinstance(seen, Result):
                pictures[seen.edit] = seen.picture
                if time.monotonic() - drawn_at > _REDRAW_SECONDS:
                    yield {tab.sheet: await drawn()}
                    drawn_at = time.monotonic()
            else:
                if not drawn_at:  # taken by the engine: what was drawn before goes
                    yield {
                        tab.drawn: (grid, picture, ask.seed),
                        tab.sheet: await drawn(),
                        tab.download: gr.DownloadButton(interactive=False),
                    }
                    drawn_at = time.monotonic()
                yield {
                    tab.live: gr.HTML(bar(seen), visible=True),
                    tab.status: line(f"{len(pictures)} of {len(asks)} pictures"),
                    tab.draw: gr.Button(visible=False),
                    tab.stop: gr.Button(visible=True),
                }
        whole = await drawn()
        yield {
            tab.sheet: whole,
            tab.status: line(f"{len(asks)} pictures in {time.monotonic() - began:.1f} s."),
            tab.download: gr.DownloadButton(value=save_png(whole, folder, f"grid {title}"), interactive=True),
            **idle,
        }
    except Exception as error:
        yield {tab.status: complaint(error), **idle}
