"""From what a person asked for to edits of the engine, and back: progress, previews and pictures as they come."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image

from ..editor import Editor, EditRequest
from ..errors import BadInput
from ..serving.pictures import Canvas, canvas
from ..serving.runner import Runner
from ..serving.tickets import Event, Failed, Finished, Stepped, Ticket

MAX_SEED = 2**53 - 1
"""What a number of a page can hold exactly."""


@dataclass(frozen=True)
class Ask:
    """An edit as the page's controls have it."""

    instruction: str
    text_guidance: float
    image_guidance: float
    seed: int
    steps: int
    sampler: str
    negative: str = ""


@dataclass(frozen=True)
class Progress:
    """`done` of `total` steps of all edits; preview: what the first of them looks like so far, where that is new."""

    done: int
    total: int
    preview: Image.Image | None = None


@dataclass(frozen=True)
class Result:
    """Edit number `edit` is done. picture: as large as the one that was given."""

    edit: int
    picture: Image.Image


Seen: TypeAlias = "Progress | Result"


class Running:
    """Who waits for which edits, so that others than the one who waits can stop them. Any thread may use it."""

    def __init__(self) -> None:
        self._tickets: dict[str, set[Ticket]] = {}
        self._lock = threading.Lock()

    def add(self, session: str, ticket: Ticket) -> None:
        with self._lock:
            self._tickets.setdefault(session, set()).add(ticket)

    def remove(self, session: str, ticket: Ticket) -> None:
        with self._lock:
            left = self._tickets.get(session, set())
            left.discard(ticket)
            if not left:
                self._tickets.pop(session, None)

    def waits(self, session: str) -> bool:
        """Whether this session waits for edits."""
        with self._lock:
            return session in self._tickets

    def stop(self, session: str) -> None:
        """Gives up all that this session waits for."""
        with self._lock:
            tickets = list(self._tickets.get(session, ()))
        for ticket in tickets:
            ticket.cancel()


def chosen_seed(fixed: bool, seed: float | None) -> int:
    """The seed to use, drawn if none is fixed. Raises BadInput."""
    if not fixed:
        return secrets.randbelow(2**31)
    if seed is None or seed != int(seed) or not 0 <= seed <= MAX_SEED:
        raise BadInput(
            f"the seed is {'empty' if seed is None else f'{seed:g}'}: give a whole number from 0 to 2^53 - 1"
        )
    return int(seed)


async def edited(
    engine: Runner,
    running: Running,
    session: str,
    picture: Image.Image,
    mask: Image.Image | None,
    asks: Sequence[Ask],
    previews: int = 0,
) -> AsyncIterator[Seen]:
    """Gives the engine all of `asks` together and tells what comes of them; leaving it early gives them up.

    Args:
        mask: L of the picture's size, white where it may change.
        previews: how many pictures of the first edit on its way.

    Raises BadInput, Refused, EngineFailure, and Cancelled where `running` was told to stop.
    """
    events: asyncio.Queue[Event] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def tell(event: Event) -> None:
        with suppress(RuntimeError):  # the event loop has ended: a shutdown
            loop.call_soon_threadsafe(events.put_nowait, event)

    on = await asyncio.to_thread(_canvas, engine.editor, picture, mask)
    requests = await asyncio.to_thread(_requests, engine.editor, asks, on)
    submitting = asyncio.ensure_future(
        asyncio.to_thread(engine.submit, requests, previews=previews, on_event=tell),
    )
    try:
        ticket = await asyncio.shield(submitting)
    except asyncio.CancelledError:  # whoever asked has left while the engine took the edits
        submitting.add_done_callback(_give_up)
        raise
    running.add(session, ticket)
    try:
        total = sum(ask.steps for ask in asks)
        done, left = 0, len(asks)
        yield Progress(0, total)
        while left:
            preview: np.ndarray | None = None
            for event in await _news(events):
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Stepped):
                    done += 1
                    preview = event.preview if event.edit == 0 and event.preview is not None else preview
                elif isinstance(event, Finished):
                    left -= 1
                    yield Result(event.edit, await asyncio.to_thread(_picture, on, event.picture))
            if left:
                looks = None if preview is None else await asyncio.to_thread(_picture, on, preview)
                yield Progress(done, total, looks)
    finally:
        running.remove(session, ticket)
        ticket.cancel()


def _give_up(submitted: asyncio.Future[Ticket]) -> None:
    if not submitted.cancelled() and submitted.exception() is None:
        submitted.result().cancel()


def _canvas(editor: Editor, picture: Image.Image, mask: Image.Image | None) -> Canvas:
    info = editor.backend.info
    return canvas(picture, mask, None, info.defaults["size"], info.size_multiple)


def _requests(editor: Editor, asks: Sequence[Ask], on: Canvas) -> list[EditRequest]:
    return [_request(editor, ask, on) for ask in asks]


def _request(editor: Editor, ask: Ask, on: Canvas) -> EditRequest:
    if not ask.instruction.strip():
        raise BadInput("the instruction is empty: say what to change")
    for name, text in (("the instruction", ask.instruction), ("the negative text", ask.negative)):
        ids, overflow = editor.tokenizer.encode(text)
        if overflow:
            raise BadInput(f"{name} is longer than the {len(ids) - 2} tokens that this model reads: shorten it")
    return EditRequest(
        image=on.work,
        instruction=ask.instruction,
        text_guidance=ask.text_guidance,
        image_guidance=ask.image_guidance,
        steps=ask.steps,
        sampler=ask.sampler,
        seed=ask.seed,
        negative=ask.negative,
        mask=on.work_mask,
        size=max(on.work.size),
    )


async def _news(events: asyncio.Queue[Event]) -> list[Event]:
    """All that has come since, at least one: a slow page sees fewer steps, not late ones."""
    news = [await events.get()]
    while not events.empty():
        news.append(events.get_nowait())
    return news


def _picture(on: Canvas, pixels: np.ndarray) -> Image.Image:
    return on.finish(Image.fromarray(pixels))
