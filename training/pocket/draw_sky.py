"""The sky with its sun, moon and clouds, and the weather that falls in front of everything."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from .draw_settings import HORIZON
from .light import RGB, WHITE, Light, gradient, mix, scale
from .pen import Pen


def sky_canvas(light: Light, pixels: int) -> Image.Image:
    """A square canvas that is all sky: from the zenith at the top to the horizon's colour, which it keeps below."""
    rows = max(1, round(HORIZON * pixels))
    column = np.empty((pixels, 1, 3), dtype=np.uint8)
    column[:, 0] = light.sky()[-1]
    column[:rows, 0] = gradient(light.sky(), rows)
    return Image.fromarray(np.repeat(column, pixels, axis=1))


def draw_heaven(pen: Pen, light: Light, rng: np.random.Generator) -> None:
    """Sun or moon and stars; dimmer behind weather."""
    x, side = rng.uniform(0.13, 0.3), rng.integers(2)
    x = 1 - x if side else x
    stars = list(
        zip(rng.uniform(0.02, 0.98, 14), rng.uniform(0.02, 0.36, 14), rng.uniform(0.006, 0.0105, 14), strict=True)
    )
    dim = {"clear": 0.0, "rain": 0.45, "snow": 0.3, "fog": 0.45}[light.weather]
    middle = light.sky()[1]
    if light.time == "night":
        for star_x, star_y, r in stars:
            pen.ellipse(star_x, star_y, r, fill=mix((255, 250, 220), middle, dim))
        pen.ellipse(x, 0.215, 0.105, fill=mix((255, 246, 200), middle, 0.82))
        pen.ellipse(x, 0.215, 0.075, fill=mix((255, 246, 200), middle, dim))
        pen.ellipse(x + 0.034, 0.20, 0.064, fill=mix((255, 246, 200), middle, 0.82))
    elif light.time == "sunset":
        pen.ellipse(x, HORIZON - 0.05, 0.165, fill=mix((255, 226, 130), light.sky()[2], 0.6))
        pen.ellipse(x, HORIZON - 0.05, 0.115, fill=mix((255, 240, 150), middle, dim))
    else:
        pen.ellipse(x, 0.16, 0.105, fill=mix((255, 244, 190), middle, 0.6))
        pen.ellipse(x, 0.16, 0.075, fill=mix((255, 222, 84), middle, dim * 1.3))


def draw_clouds(pen: Pen, light: Light, rng: np.random.Generator) -> None:
    """Two or three loose clouds when clear; a closed bank along the top for rain and snow; none in fog."""
    loose = [
        (x, rng.uniform(0.10, 0.30), rng.uniform(0.045, 0.062)) for x in (rng.uniform(0.1, 0.4), rng.uniform(0.6, 0.9))
    ]
    bank = [(x / 7, rng.uniform(0.01, 0.055), rng.uniform(0.075, 0.105)) for x in range(8)]
    if light.weather == "clear":
        cloud = {"day": WHITE, "sunset": (255, 178, 150), "night": (64, 78, 130)}[light.time]
        for x, y, r in loose:
            pen.blob([(x - 1.5 * r, y + 0.25 * r, 0.7 * r), (x, y, r), (x + 1.4 * r, y + 0.2 * r, 0.75 * r)], cloud)
            pen.rectangle(x - 1.6 * r, y + 0.3 * r, x + 1.5 * r, y + 0.95 * r, cloud)
    elif light.weather != "fog":
        cloud = scale(light.overcast(), 0.62) if light.weather == "rain" else scale(light.overcast(), 0.9)
        if light.time == "night":
            cloud = mix(light.overcast(), (92, 100, 128), 0.45)
        pen.blob([(x, y + 0.035, r) for x, y, r in bank], scale(cloud, 0.9))
        pen.blob(bank, cloud)
        pen.rectangle(0, 0, 1, 0.04, cloud)


def draw_mist(pen: Pen, light: Light, rng: np.random.Generator) -> None:
    """Banks of fog that lie in front of the setting and behind the subject."""
    at = [(rng.uniform(0.0, 1.0), y, rng.uniform(0.28, 0.42)) for y in (0.36, 0.50, 0.71)]
    if light.weather != "fog":
        return
    bank = mix(light.overcast(), WHITE, 0.12)
    for x, y, w in at:
        for shift in (-1.0, 0.0, 1.0):  # Round the edge, so that each bank shows whole or in two parts.
            pen.ellipse(x + shift, y, w, 0.022, fill=bank)
            pen.ellipse(x + shift + 0.1, y + 0.02, w * 0.6, 0.019, fill=bank)


def draw_fall(pen: Pen, light: Light, rng: np.random.Generator) -> None:
    """Rain or snow in front of everything."""
    fall = _FALLS.get(light.weather)
    if fall is not None:
        fall(pen, light, rng)


def _rain(pen: Pen, light: Light, rng: np.random.Generator) -> None:
    streak: RGB = {"day": (222, 236, 250), "sunset": (255, 226, 214), "night": (142, 166, 214)}[light.time]
    for row in range(6):
        for x in (np.arange(6) + rng.uniform(0.1, 0.9, 6)) / 6:
            y = 0.13 + 0.15 * row + rng.uniform(0.0, 0.08)
            pen.stroke([(x, y), (x - 0.026, y + 0.078)], streak, 0.0095)


def _snow(pen: Pen, light: Light, rng: np.random.Generator) -> None:
    flake: RGB = {"day": WHITE, "sunset": (255, 244, 238), "night": (214, 224, 250)}[light.time]
    for row in range(6):
        for x in (np.arange(6) + rng.uniform(0.1, 0.9, 6)) / 6:
            pen.ellipse(x, 0.08 + 0.16 * row + rng.uniform(0.0, 0.1), rng.uniform(0.009, 0.0155), fill=flake)


_FALLS: dict[str, Callable[[Pen, Light, np.random.Generator], None]] = {"rain": _rain, "snow": _snow}
