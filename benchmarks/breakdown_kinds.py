"""Kinds of operation that a step's time is told by."""

KINDS = ("convolutions", "linear layers", "attention", "norms and activations", "layout and copies", "all else")
"""All else is what no operation accounts for: Python, the sampler, waiting between operations."""
