"""The settings: from the horizon down to the viewer's feet.

Each has landmarks across its whole width, so that no subject can hide which setting it is, and no snow either.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .light import RGB, WHITE, Light, mix, scale
from .pen import Pen

HORIZON = 0.58
"""Height of the horizon, from the top, as a share of the picture."""

GROUND: dict[str, RGB] = {
    "meadow": (142, 200, 84),
    "beach": (244, 220, 160),
    "desert": (236, 168, 92),
    "mountains": (138, 158, 118),
    "city": (104, 106, 118),
}
"""What the subject stands on."""

_SNOW_ON_GROUND = 0.74


def draw_setting(pen: Pen, light: Light, setting: str, rng: np.random.Generator) -> None:
    """Draws all of a setting but its sky."""
    _DRAWINGS[setting](pen, light, rng)


def shadow_colour(light: Light, setting: str) -> RGB:
    """The ground in the shadow of a subject."""
    return scale(light.scenery(GROUND[setting], 0.1, _SNOW_ON_GROUND), 0.78)


def _meadow(pen: Pen, light: Light, rng: np.random.Generator) -> None:
    _hills(pen, light.scenery((112, 178, 132), 0.9, 0.45), rng, HORIZON - 0.05, 0.055, 1.6)
    _hills(pen, light.scenery((104, 176, 88), 0.6, 0.5), rng, HORIZON + 0.01, 0.035, 2.2)
    hedge = light.scenery((52, 122, 66), 0.5, 0.15)
    for x in _spread(rng, 7):
        r = rng.uniform(0.022, 0.036)
        pen.blob([(x - r, HORIZON + 0.075, r), (x + r, HORIZON + 0.08, r * 0.9), (x, HORIZON + 0.055, r)], hedge)
    _hills(pen, light.scenery(GROUND["meadow"], 0.1, _SNOW_ON_GROUND), rng, HORIZON + 0.085, 0.012, 1.3)
    for x in _spread(rng, 9):
        y = rng.uniform(0.74, 0.97)
        petals = light.scenery(((255, 150, 178), (255, 246, 240))[int(rng.integers(2))], 0.0)
        pen.stroke([(x, y), (x, y + 0.026)], light.scenery((58, 130, 60), 0.0), 0.008)
        pen.ellipse(x, y, 0.0145, fill=petals)
        pen.ellipse(x, y, 0.006, fill=light.scenery((250, 190, 60), 0.0))


def _beach(pen: Pen, light: Light, rng: np.random.Generator) -> None:
    sea = light.scenery((44, 142, 196), 0.8)
    pen.rectangle(0, HORIZON, 1, 1, sea)
    pen.rectangle(0, HORIZON + 0.05, 1, 1, light.scenery((66, 172, 208), 0.6))
    foam = light.scenery((226, 244, 250), 0.5)
    for x in _spread(rng, 5):
        y = rng.uniform(HORIZON + 0.018, HORIZON + 0.075)
        pen.stroke([(x - 0.045, y), (x + 0.045, y)], foam, 0.009)
    shore = HORIZON + 0.105
    phase = rng.uniform(0, 2 * np.pi)
    pen.polygon(_wave(shore - 0.018, 0.012, 2.0, phase), foam)
    pen.polygon(_wave(shore, 0.012, 2.0, phase), light.scenery((222, 190, 128), 0.3, 0.3))
    pen.polygon(_wave(shore + 0.026, 0.012, 2.0, phase), light.scenery(GROUND["beach"], 0.1, _SNOW_ON_GROUND))
    for x in _spread(rng, 5):
        y = rng.uniform(0.78, 0.97)
        pen.ellipse(x, y, 0.014, 0.009, fill=light.scenery((214, 170, 116), 0.0))
    side = float(rng.integers(2))
    for root, height in ((abs(side - 0.05), 0.36), (abs(side - 0.93), 0.27)):
        _palm(pen.at(root, HORIZON + 0.20, height), light, 1 if root < 0.5 else -1)


def _desert(pen: Pen, light: Light, rng: np.random.Generator) -> None:
    rock = light.scenery((190, 96, 66), 0.8, 0.2)
    for x in _spread(rng, 3):
        w, h = rng.uniform(0.075, 0.12), rng.uniform(0.09, 0.15)
        pen.polygon(
            [(x - w, HORIZON + 0.06), (x - w * 0.7, HORIZON - h), (x + w * 0.7, HORIZON - h), (x + w, HORIZON + 0.06)],
            rock,
        )
        top = light.scenery((216, 124, 84), 0.8, 0.7)
        pen.rectangle(x - w * 0.7, HORIZON - h, x + w * 0.7, HORIZON - h + 0.028, top)
    _hills(pen, light.scenery((222, 146, 76), 0.6, 0.5), rng, HORIZON + 0.02, 0.03, 1.4)
    _hills(pen, light.scenery(GROUND["desert"], 0.1, _SNOW_ON_GROUND), rng, HORIZON + 0.10, 0.022, 1.1)
    ripple = light.scenery((214, 142, 74), 0.1, 0.35)
    for x in _spread(rng, 5):
        y = rng.uniform(0.77, 0.96)
        pen.stroke([(x - 0.07, y), (x, y - 0.012), (x + 0.07, y)], ripple, 0.009)
    for x in _spread(rng, 4):
        _cactus(pen.at(x, HORIZON + rng.uniform(0.09, 0.13), rng.uniform(0.14, 0.20)), light)


def _mountains(pen: Pen, light: Light, rng: np.random.Generator) -> None:
    for layer, (colour, height) in enumerate((((146, 158, 190), 0.34), ((104, 116, 152), 0.24))):
        depth = 0.95 - 0.3 * layer
        for x in _spread(rng, 3 + layer):
            h, w = height * rng.uniform(0.85, 1.15), rng.uniform(0.20, 0.26)
            _peak(pen.at(x, HORIZON + 0.06), light, colour, depth, w, h)
    _hills(pen, light.scenery((112, 138, 104), 0.5, 0.55), rng, HORIZON + 0.03, 0.015, 1.7)
    pine = light.scenery((38, 88, 72), 0.45, 0.2)
    for x in _spread(rng, 10):
        p = pen.at(x, HORIZON + 0.10, rng.uniform(0.08, 0.125))
        p.polygon([(-0.34, 0.0), (0.34, 0.0), (0.0, -0.7)], pine)
        p.polygon([(-0.25, -0.4), (0.25, -0.4), (0.0, -1.05)], pine)
    _hills(pen, light.scenery(GROUND["mountains"], 0.1, _SNOW_ON_GROUND), rng, HORIZON + 0.09, 0.01, 1.2)
    for x in _spread(rng, 5):
        p = pen.at(x, rng.uniform(0.76, 0.97), rng.uniform(0.022, 0.036))
        p.polygon([(-1.2, 0.5), (-0.7, -0.4), (0.3, -0.6), (1.2, 0.5)], light.scenery((128, 130, 138), 0.1, 0.3))
        p.polygon([(-0.7, -0.4), (0.3, -0.6), (0.2, 0.0)], light.scenery((166, 168, 174), 0.1, 0.7))


def _city(pen: Pen, light: Light, rng: np.random.Generator) -> None:
    kerb = HORIZON + 0.09
    walls = ((150, 128, 132), (116, 134, 158), (176, 150, 128), (132, 120, 150))
    edges = np.linspace(-0.02, 1.02, 8) + np.concatenate([[0], rng.uniform(-0.02, 0.02, 6), [0]])
    for i, (x0, x1) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        # Tall and low by turns: a skyline keeps its steps whatever is drawn.
        top = HORIZON - (rng.uniform(0.26, 0.36) if i % 2 == 0 else rng.uniform(0.12, 0.2))
        wall = walls[int(rng.integers(len(walls)))]
        _building(pen, light, float(x0), float(x1), top, kerb, wall)
    pen.rectangle(0, kerb, 1, 1, light.scenery((190, 188, 190), 0.3, 0.5))
    pen.rectangle(0, kerb + 0.055, 1, 1, light.scenery(GROUND["city"], 0.1, 0.62))
    start = rng.uniform(-0.2, 0.0)
    for i in range(7):
        x = start + 0.2 * i
        pen.polygon(
            [(x, 0.865), (x + 0.11, 0.865), (x + 0.10, 0.89), (x - 0.01, 0.89)], light.scenery((248, 236, 200), 0.0)
        )
    for x in (0.5 - rng.uniform(0.40, 0.46), 0.5 + rng.uniform(0.40, 0.46)):
        post = light.scenery((52, 54, 66), 0.2)
        pen.stroke([(x, kerb + 0.05), (x, kerb - 0.19)], post, 0.013)
        pen.ellipse(
            x, kerb - 0.20, 0.024, fill=light.window() if light.time != "day" else light.scenery((244, 244, 236), 0.2)
        )


def _building(pen: Pen, light: Light, x0: float, x1: float, top: float, foot: float, wall: RGB) -> None:
    pen.rectangle(x0, top, x1, foot, light.scenery(wall, 0.55))
    pen.rectangle(x0, top, x1, top + 0.018, light.scenery(scale(wall, 0.75), 0.55, 1.0))
    pane = mix(light.window(), light.overcast(), 0.3) if light.weather == "fog" else light.window()
    w = (x1 - x0) / 2
    for column in range(2):
        cx = x0 + w * (column + 0.5)
        y = top + 0.045
        while y + 0.034 < foot - 0.02:
            pen.rectangle(cx - 0.017, y, cx + 0.017, y + 0.034, pane)
            y += 0.066


def _palm(pen: Pen, light: Light, lean: int) -> None:
    pen.stroke([(0.0, 0.0), (0.04 * lean, -0.4), (0.14 * lean, -0.8)], light.scenery((138, 96, 58), 0.25), 0.075)
    leaf = light.scenery((44, 136, 72), 0.25, 0.15)
    for dx, dy in ((-0.42, 0.10), (-0.34, -0.16), (-0.08, -0.27), (0.26, -0.22), (0.42, 0.02), (0.30, 0.22)):
        x, y = 0.14 * lean, -0.8
        pen.polygon(
            [
                (x, y + 0.03),
                (x + dx * 0.55, y + dy - 0.12),
                (x + dx, y + dy + 0.06),
                (x + dx * 0.5, y + dy * 0.7 + 0.03),
            ],
            leaf,
        )


def _cactus(pen: Pen, light: Light) -> None:
    green = light.scenery((62, 138, 84), 0.35, 0.1)
    pen.stroke([(0.0, 0.0), (0.0, -0.92)], green, 0.2)
    pen.ellipse(0.0, -0.92, 0.1, fill=green)
    for x, low, high in ((-0.28, -0.36, -0.66), (0.28, -0.48, -0.8)):
        pen.stroke([(0.0, low), (x, low), (x, high)], green, 0.14)
        pen.ellipse(x, high, 0.07, fill=green)


def _peak(pen: Pen, light: Light, colour: RGB, depth: float, w: float, h: float) -> None:
    pen.polygon([(-w, 0.0), (0.0, -h), (w, 0.0)], light.scenery(colour, depth, 0.25))
    pen.polygon(
        [(0.0, -h), (w, 0.0), (0.12 * w, 0.0), (-0.08 * w, -0.5 * h)], light.scenery(scale(colour, 0.82), depth, 0.25)
    )
    cap = [
        (0.0, -h),
        (0.36 * w, -0.64 * h),
        (0.16 * w, -0.70 * h),
        (0.02 * w, -0.58 * h),
        (-0.14 * w, -0.70 * h),
        (-0.36 * w, -0.64 * h),
    ]
    pen.polygon(cap, light.scenery(WHITE, depth))


def _hills(pen: Pen, colour: RGB, rng: np.random.Generator, top: float, height: float, waves: float) -> None:
    pen.polygon(_wave(top, height, waves * rng.uniform(0.85, 1.15), rng.uniform(0, 2 * np.pi)), colour)


def _wave(top: float, height: float, waves: float, phase: float) -> list[tuple[float, float]]:
    xs = np.linspace(0, 1, 25)
    ys = top + height * np.sin(2 * np.pi * waves * xs + phase)
    return [(0.0, 1.01), *zip(xs.tolist(), ys.tolist(), strict=True), (1.0, 1.01)]


def _spread(rng: np.random.Generator, n: int) -> list[float]:
    """n places across the width, one in each of n equal parts."""
    return ((np.arange(n) + rng.uniform(0.15, 0.85, n)) / n).tolist()


_DRAWINGS: dict[str, Callable[[Pen, Light, np.random.Generator], None]] = {
    "meadow": _meadow,
    "beach": _beach,
    "desert": _desert,
    "mountains": _mountains,
    "city": _city,
}
