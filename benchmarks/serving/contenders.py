"""What is compared: ways to batch, each the server's own options, and how busy it is."""

from __future__ import annotations

from collections.abc import Mapping

POLICIES: Mapping[str, tuple[str, ...]] = {
    "step": (),
    "static": ("--policy", "static"),
    # the rows of one edit: the next starts when it is done
    "none": ("--max-rows", "3"),
}
NAMES = {"step": "step-level batching", "static": "batches of whole requests", "none": "one request at a time"}
LOADS = (50, 80, 95)
"""Percent of the capacity of step-level batching."""
