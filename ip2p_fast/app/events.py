"""What happens in the Edit tab: every handler takes the chain and the controls, and gives what is seen next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import gradio as gr
from PIL import Image

from ..errors import BadInput
from ..serving.runner import Runner
from . import chain as chains
from .chain import Chain
from .edits import Ask, Progress, Result, Running, chosen_seed, edited
from .page import Controls, EditTab, Page
from .pictures import data_url, painted, read, samples
from .view import PRIVATE, Updates, bar, complaint, line, painter, seen, view
from .words import is_pocket

_PREVIEWS = 10


def connect(page: Page, engine: Runner, running: Running) -> None:
    """Wires the Edit tab to the engine. Must be called within the page's blocks."""
    tab, folder = page.edit, page.blocks.GRADIO_CACHE
    controls = tab.controls

    def opened() -> Updates:
        if not is_pocket(engine.editor):
            return {tab.status: ""}
        sample = samples()[0]
        return {**view(tab, folder, chains.start(read(sample.path))), controls.instruction: sample.instruction}

    page.blocks.load(opened, None, [*seen(tab), controls.instruction], **PRIVATE)

    def after(action: Callable[[], Chain], chain: Chain | None, masking: bool, request: gr.Request) -> Updates:
        """What is seen after an action on the chain."""
        try:
            if running.waits(_session(request)):
                raise BadInput("an edit is running: stop it first")
            new = action()
        except Exception as error:
            return {tab.status: complaint(error)}
        return view(tab, folder, new, masking and (chain is None or new.base is not chain.base))

    state = [tab.chain, controls.masking]
    for button, action in ((tab.proceed, chains.keep), (tab.undo, chains.undo), (tab.redo, chains.redo)):

        def pressed(
            chain: Chain | None, request: gr.Request, masking: bool, action: Callable[[Chain], Chain] = action
        ) -> Updates:
            return after(lambda: action(_there(chain)), chain, masking, request)

        button.click(pressed, state, seen(tab), **PRIVATE)

    def chosen(chain: Chain | None, request: gr.Request, event: gr.SelectData, masking: bool) -> Updates:
        return after(lambda: chains.show(_there(chain), event.index), chain, masking, request)

    tab.history.select(chosen, state, seen(tab), **PRIVATE)

    def uploaded(chain: Chain | None, request: gr.Request, masking: bool, path: str) -> Updates:
        return {**after(lambda: chains.start(read(path)), chain, masking, request), tab.upload: None}

    tab.upload.upload(uploaded, [*state, tab.upload], [*seen(tab), tab.upload], **PRIVATE)

    def sampled(chain: Chain | None, request: gr.Request, event: gr.SelectData, masking: bool) -> Updates:
        sample = samples()[event.index]
        updates = after(lambda: chains.start(read(sample.path)), chain, masking, request)
        asks = {controls.instruction: sample.instruction} if tab.chain in updates else {}
        return {**updates, **asks, tab.samples: gr.Gallery(selected_index=None)}

    tab.samples.select(sampled, state, [*seen(tab), tab.samples, controls.instruction], **PRIVATE)
    controls.masking.input(painter, state, controls.painter, **PRIVATE)

    def seed_kept(chain: Chain | None) -> Updates:
        kept = None if chain is None else chain.shown.seed
        return {controls.seed: gr.skip() if kept is None else kept, controls.fix_seed: kept is not None}

    tab.keep_seed.click(seed_kept, tab.chain, [controls.seed, controls.fix_seed], **PRIVATE)

    async def run(chain: Chain | None, request: gr.Request, *given: Any) -> AsyncIterator[Updates]:
        async for updates in _run(tab, engine, running, folder, chain, given, _session(request)):
            yield updates

    gr.on(
        [tab.edit.click, controls.instruction.submit],
        run,
        [tab.chain, *asking(controls)],
        [*seen(tab), tab.live, tab.edit, tab.stop],
        trigger_mode="once",
        concurrency_limit=None,
        **PRIVATE,
    )

    def stopped(request: gr.Request) -> None:
        running.stop(_session(request))

    tab.stop.click(stopped, queue=False, **PRIVATE)


def asking(controls: Controls) -> list[Any]:
    """The inputs that `asked` reads, in its order."""
    return [
        controls.instruction, controls.text_guidance, controls.image_guidance, controls.fix_seed, controls.seed,
        controls.steps, controls.sampler, controls.negative, controls.masking, controls.painter,
    ]  # fmt: skip


def asked(given: tuple[Any, ...], size: tuple[int, int]) -> tuple[Ask, Image.Image | None]:
    """What `asking` gave: the edit, and the mask of `size` or None. Raises BadInput."""
    instruction, text, image, fixed, seed, steps, sampler, negative, masking, layers = given
    ask = Ask(instruction, text, image, chosen_seed(fixed, seed), int(steps), sampler, negative or "")
    return ask, painted(layers, size) if masking else None


async def _run(
    tab: EditTab,
    engine: Runner,
    running: Running,
    folder: str,
    chain: Chain | None,
    given: tuple[Any, ...],
    session: str,
) -> AsyncIterator[Updates]:
    idle = {tab.edit: gr.Button(visible=True), tab.stop: gr.Button(visible=False), tab.live: gr.HTML(visible=False)}
    began, compares = time.monotonic(), chain is not None and chain.compares
    try:
        chain = _there(chain)
        base = chain.base
        ask, mask = asked(given, base.picture.size)
        looks = f'<img class="waiting" alt="The picture that is edited" src="{data_url(base.picture)}">'
        async for news in edited(engine, running, session, base.picture, mask, [ask], _PREVIEWS):
            if isinstance(news, Progress):
                if news.preview is not None:
                    looks = f'<img alt="The edit so far" src="{data_url(news.preview)}">'
                yield {
                    tab.live: gr.HTML(f'<div class="live">{looks}{bar(news)}</div>', visible=True),
                    tab.picture: gr.Image(visible=False),
                    tab.compared: gr.ImageSlider(visible=False),
                    tab.status: line(f"Step {news.done} of {news.total}" if news.done else "Waiting for a place..."),
                    tab.edit: gr.Button(visible=False),
                    tab.stop: gr.Button(visible=True),
                }
            elif isinstance(news, Result):
                new = chains.add(chain, news.picture, ask.instruction, ask.seed)
                said = line(f"{ask.instruction}: done in {time.monotonic() - began:.1f} s, seed {ask.seed}.")
                yield {**await asyncio.to_thread(view, tab, folder, new), **idle, tab.status: said}
    except Exception as error:
        yield {
            tab.picture: gr.Image(visible=not compares),
            tab.compared: gr.ImageSlider(visible=compares),
            tab.status: complaint(error),
            **idle,
        }


def _session(request: gr.Request) -> str:
    return f"{request.session_hash} edit"


def _there(chain: Chain | None) -> Chain:
    if chain is None:
        raise BadInput("there is no picture: take a sample, or upload one")
    return chain
