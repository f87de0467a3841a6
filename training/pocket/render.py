"""A scene as a picture.

The seed fixes the layout. Each component of a picture draws from a generator of its own, keyed by (seed, component), so
that a changed attribute leaves the draws of all others untouched: an edit of the subject changes pixels only where the
old or the new subject stands.
"""

from __future__ import annotations

from zlib import crc32

import numpy as np
from PIL import Image, ImageDraw

from ip2p_fast.errors import BadInput

from .draw_settings import draw_setting, shadow_colour
from .draw_sky import draw_clouds, draw_fall, draw_heaven, draw_mist, sky_canvas
from .draw_subjects import BOX, draw_subject
from .light import Light
from .pen import Pen
from .scene import Scene
from .styles import stylize

_SUPERSAMPLING = 4
_OUTLINE = 0.014

# By count: the box that one subject is fitted to, and where each one's foot stands relative to the group's.
_CELL = {1: (0.44, 0.43), 2: (0.236, 0.34), 3: (0.236, 0.262)}
_FEET = {
    1: ((0.0, 0.0),),
    2: ((-0.126, -0.03), (0.126, 0.03)),
    3: ((0.0, -0.215), (-0.126, 0.06), (0.126, 0.06)),
}
_CENTRE = {"left": 0.27, "middle": 0.5, "right": 0.73}
_FOOT_ON_GROUND = 0.895
_FOOT_IN_THE_AIR = {1: 0.60, 2: 0.54, 3: 0.60}


def render(scene: Scene, seed: int, size: int) -> Image.Image:
    """Draws a scene.

    Args:
        scene: what to show.
        seed: any integer >= 0; the same layout for every scene.
        size: width and height in pixels, >= 1.
    Returns:
        An RGB picture; the same for the same arguments.
    Raises:
        BadInput: a size below 1 or a seed below 0.
    """
    if size < 1:
        raise BadInput(f"a picture is at least 1 pixel wide, not {size}")
    light = Light(scene.time, scene.weather)
    canvas = sky_canvas(light, size * _SUPERSAMPLING)
    pen = Pen(
        ImageDraw.Draw(canvas),
        0.0,
        0.0,
        canvas.width,
        canvas.width * _OUTLINE * (0.7 if scene.style == "pixel art" else 1.0),
    )
    draw_heaven(pen, light, _generator(seed, "heaven"))
    draw_clouds(pen, light, _generator(seed, "clouds"))
    draw_setting(pen, light, scene.setting, _generator(seed, scene.setting))
    draw_mist(pen, light, _generator(seed, "mist"))
    _draw_group(pen, light, scene, seed)
    draw_fall(pen, light, _generator(seed, "fall"))
    return stylize(canvas, scene.style, size, _generator(seed, scene.style))


def subject_boxes(scene: Scene, seed: int) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of each of the scene's subjects as shares of the picture, shadow included."""
    if scene.empty:
        return []
    w, h = BOX[scene.subject]
    return [
        (x - (w / 2 + 0.02) * s, y - h * s - _OUTLINE, x + (w / 2 + 0.02) * s, y + 0.06 * s + _OUTLINE)
        for x, y, s in _places(scene, seed)
    ]


def _draw_group(pen: Pen, light: Light, scene: Scene, seed: int) -> None:
    if scene.empty:
        return
    shadow = shadow_colour(light, scene.setting)
    pen = pen if scene.count == 1 else pen.thinner(0.75)
    for x, y, scale in _places(scene, seed):
        standing = pen.at(x, y, scale)
        if scene.subject != "balloon":
            standing.ellipse(0.0, -0.01, BOX[scene.subject][0] * 0.5, 0.065, fill=shadow)
        draw_subject(standing, light, scene.subject, scene.colour)


def _places(scene: Scene, seed: int) -> list[tuple[float, float, float]]:
    """Foot (x, y) and scale of each subject, back to front."""
    dx, dy, shrink = _generator(seed, "subject").uniform((-0.012, -0.015, 0.93), (0.012, 0.015, 1.0)).tolist()
    (w, h), (cell_w, cell_h) = BOX[scene.subject], _CELL[scene.count]
    scale = min(cell_w / w, cell_h / h) * shrink
    x = _CENTRE[scene.position] + dx
    y = (_FOOT_IN_THE_AIR[scene.count] if scene.subject == "balloon" else _FOOT_ON_GROUND) + dy
    return [(x + foot_x, y + foot_y, scale) for foot_x, foot_y in _FEET[scene.count]]


def _generator(seed: int, component: str) -> np.random.Generator:
    if seed < 0:
        raise BadInput(f"a seed is an integer from 0 up, not {seed}")
    return np.random.Generator(np.random.PCG64([seed, crc32(component.encode())]))
