"""Stages that an edit's time is told by."""

STAGES = ("texts", "picture to latents", "UNet", "latents to picture", "all else")
"""All else: Python, the preparation of the picture; of diffusers' also guidance and sampler, in ours a part of UNet."""
