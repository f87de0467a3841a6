"""The size for trials, cut to a handful of pairs."""

from dataclasses import replace

from ip2p_fast.training.pocket.sizes import size_named

TINY = replace(size_named("tiny"), pairs=8)
STEPS = TINY.unet.steps
