"""How the Edit tab looks: a chain becomes what every part of the tab shows."""

from __future__ import annotations

import html
import textwrap
from typing import Any, TypeAlias

import gradio as gr

from ..errors import Cancelled
from . import chain as chains
from .chain import Chain, Entry
from .edits import Progress
from .page import EditTab
from .pictures import save_png, shown, thumbnail
from .words import told

# No event is an API of its own: programs have /v1/images/edits.
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

Updates: TypeAlias = dict[Any, Any]


def line(text: str, error: bool = False) -> str:
    """A line of the page's status."""
    kind = 'class="error" role="alert"' if error else 'role="status"'
    return f"<p {kind}>{html.escape(text)}</p>"


def complaint(error: Exception) -> str:
    """The status line of what went wrong; to have stopped an edit is no fault."""
    return line(told(error), error=not isinstance(error, Cancelled))


def bar(progress: Progress) -> str:
    """A progress bar."""
    share = 100 * progress.done / progress.total
    return f'<div class="bar"><i style="width:{share:.0f}%"></i></div>'


def view(tab: EditTab, folder: str, chain: Chain, new_base: bool = False) -> Updates:
    """The whole tab at rest, as it shows `chain`."""
    entry = chain.shown
    before = shown(chain.base.picture)
    after = shown(entry.picture) if chain.compares else None
    made = entry.seed is not None
    updates = {
        tab.chain: chain,
        tab.picture: gr.Image(before if after is None else None, visible=after is None),
        tab.compared: gr.ImageSlider(None if after is None else (before, after), visible=after is not None),
        tab.status: line(f"{entry.instruction} (seed {entry.seed})" if made else "Ready."),
        tab.proceed: gr.Button(interactive=chain.compares),
        tab.undo: gr.Button(interactive=chains.can_undo(chain)),
        tab.redo: gr.Button(interactive=bool(chain.undone)),
        tab.keep_seed: gr.Button(interactive=made),
        tab.download: gr.DownloadButton(
            value=save_png(entry.picture, folder, f"{entry.instruction} seed {entry.seed}" if made else "picture"),
            interactive=True,
        ),
        tab.history: _history(chain),
    }
    if new_base:
        updates[tab.controls.painter] = painter(chain, True)
    return updates


def seen(tab: EditTab) -> list[Any]:
    """The outputs that `view` may give."""
    return [
        tab.chain, tab.picture, tab.compared, tab.status, tab.proceed, tab.undo, tab.redo, tab.keep_seed, tab.download,
        tab.history, tab.controls.painter,
    ]  # fmt: skip


def painter(chain: Chain | None, masking: bool) -> Any:
    if not masking or chain is None:
        return gr.ImageEditor(visible=False)
    picture = shown(chain.base.picture)
    return gr.ImageEditor({"background": picture, "layers": [], "composite": None}, visible=True)


def _history(chain: Chain) -> Any:
    thumbnails = [(thumbnail(one.picture), _caption(one)) for one in chain.entries]
    return gr.Gallery(thumbnails, selected_index=chain.at, visible=len(chain.entries) > 1)


def _caption(entry: Entry) -> str:
    if entry.seed is None:
        return "Your picture"
    return f"{textwrap.shorten(entry.instruction, 36, placeholder='...')}\nseed {entry.seed}"
