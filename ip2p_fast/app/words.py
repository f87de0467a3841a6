"""What the page says: what each control does, examples of instructions, and every error in one line."""

from __future__ import annotations

import logging

from ..editor import Editor
from ..errors import BadInput, Cancelled
from ..serving.tickets import EngineFailure, QueueFull, Refused

log = logging.getLogger(__name__)

TEXT_GUIDANCE = "More follows the instruction more strongly, and changes more of the picture."
IMAGE_GUIDANCE = "More stays closer to your picture, and does less of what is asked."
STEPS = "More takes longer and shows finer detail, up to a point."
SAMPLER = "How each step is taken. The model's own is chosen already."
NEGATIVE = "What the result should not look like."
SEED = "The same seed with the same settings gives the same picture."
MASK = "Paint over what may change"
GRID = (
    "One edit for each pair of scales: the picture, instruction, seed and steps are those of the Edit tab. "
    "Click a picture to edit with its scales."
)

POCKET_EXAMPLES = (
    "make it night",
    "make it snow",
    "make it a watercolour",
    "make it a beach",
    "make it sunset",
    "make it pixel art",
)
"""Sentences that the pocket model was trained on and that suit any picture of its world."""

EXAMPLES = (
    "make it winter",
    "make it night",
    "turn it into a watercolour painting",
    "make it look like autumn",
    "add fireworks to the sky",
    "turn it into a pencil sketch",
)

POCKET_NOTE = "The pocket model edits small pictures of its own drawn world: take one of the samples."


def is_pocket(editor: Editor) -> bool:
    """Whether this is one of the models that come with the package."""
    from pathlib import Path

    from ..checkpoints import SHIPPED

    return Path(editor.model_path).resolve() in SHIPPED.values()


def told(error: Exception) -> str:
    """One line for a person. What is our own fault is logged in full, and its cause kept from the page."""
    if isinstance(error, Cancelled):
        return "Stopped."
    if isinstance(error, EngineFailure):
        return "The edit failed in the model's backend; the server's log has the cause."
    if isinstance(error, QueueFull):
        return "The server has no room for so many edits now: try again in a moment, or ask for fewer."
    if isinstance(error, (BadInput, Refused)):
        line = " ".join(str(error).split())
        return line[:1].upper() + line[1:] + ("" if line.endswith((".", "!", "?")) else ".")
    log.error("the page failed", exc_info=error)
    return "The server failed; its log has the cause."
