"""The subjects: bold silhouettes with a dark outline, each painted in its one colour.

A drawing stands on the origin of its pen's frame and fills the box that `BOX` gives for it, so the layout can fit it to
any place. Shades of the one colour model the form; what is brown, black or glass is small.
"""

from __future__ import annotations

from collections.abc import Callable

from .light import INK, RGB, WHITE, Light, mix, scale
from .pen import Pen

COLOURS: dict[str, RGB] = {
    "red": (222, 44, 48),
    "yellow": (250, 208, 46),
    "green": (24, 142, 74),
    "blue": (42, 108, 236),
    "purple": (174, 72, 204),
    "white": (250, 249, 246),
}
_BROWN: RGB = (122, 78, 48)
_TYRE: RGB = (46, 44, 56)

BOX: dict[str, tuple[float, float]] = {
    "house": (1.04, 1.02),
    "tree": (0.96, 1.10),
    "car": (1.34, 0.88),
    "cat": (0.98, 1.04),
    "balloon": (0.86, 1.14),
    "boat": (1.24, 1.16),
}
"""Width and height of each drawing, outline included; centred on the origin, which is its foot."""


def draw_subject(pen: Pen, light: Light, subject: str, colour: str) -> None:
    """Draws one subject that stands on the pen's origin."""
    _DRAWINGS[subject](pen, light, light.subject(COLOURS[colour]))


def _house(pen: Pen, light: Light, colour: RGB) -> None:
    ink = light.subject(INK)
    roof = scale(colour, 0.76)
    pen.rectangle(0.20, -0.96, 0.33, -0.6, roof, ink)
    pen.rectangle(-0.39, -0.58, 0.39, -0.02, colour, ink)
    pen.polygon([(-0.50, -0.52), (0.0, -0.99), (0.50, -0.52)], roof, ink)
    pen.ellipse(0.0, -0.68, 0.075, fill=light.window())
    pen.rectangle(-0.27, -0.42, -0.05, -0.22, light.window(), ink)
    pen.rectangle(0.08, -0.38, 0.27, -0.02, light.subject(_BROWN), ink)


def _tree(pen: Pen, light: Light, colour: RGB) -> None:
    ink = light.subject(INK)
    pen.polygon([(-0.07, -0.5), (0.07, -0.5), (0.12, -0.02), (-0.12, -0.02)], light.subject(_BROWN), ink)
    crown = [(-0.24, -0.52, 0.20), (0.24, -0.52, 0.20), (-0.17, -0.78, 0.20), (0.17, -0.78, 0.20), (0.0, -0.88, 0.19)]
    pen.blob([*crown, (0.0, -0.6, 0.25)], colour, ink)
    shade = scale(colour, 0.78)
    pen.blob([(0.26, -0.47, 0.12), (0.06, -0.45, 0.12)], shade)
    pen.blob([(-0.14, -0.84, 0.09), (-0.25, -0.62, 0.06)], mix(colour, WHITE, 0.32))


def _car(pen: Pen, light: Light, colour: RGB) -> None:
    ink = light.subject(INK)
    pen.polygon([(-0.44, -0.46), (-0.29, -0.84), (0.22, -0.84), (0.44, -0.46)], colour, ink)
    pen.polygon([(-0.31, -0.51), (-0.22, -0.75), (-0.05, -0.75), (-0.05, -0.51)], light.window())
    pen.polygon([(0.05, -0.51), (0.05, -0.75), (0.17, -0.75), (0.30, -0.51)], light.window())
    body = [(-0.64, -0.15), (-0.64, -0.40), (-0.57, -0.49), (0.46, -0.49), (0.61, -0.41), (0.64, -0.15)]
    pen.polygon(body, colour, ink)
    pen.rectangle(-0.61, -0.25, 0.61, -0.18, scale(colour, 0.76))
    pen.ellipse(0.55, -0.36, 0.055, fill=light.window())
    for x in (-0.36, 0.36):
        pen.ellipse(x, -0.165, 0.165, fill=light.subject(_TYRE))
        pen.ellipse(x, -0.165, 0.075, fill=light.subject((206, 208, 214)))


def _cat(pen: Pen, light: Light, colour: RGB) -> None:
    ink = light.subject(INK)
    tail = [(0.20, -0.09), (0.36, -0.09), (0.42, -0.20), (0.41, -0.34), (0.36, -0.44)]
    edge = pen.line / pen.unit
    pen.stroke(tail, ink, 0.12 + 2 * edge)
    pen.ellipse(0.36, -0.44, 0.06 + edge, fill=ink)
    pen.polygon(
        [(-0.20, -0.46), (0.20, -0.46), (0.31, -0.18), (0.30, -0.02), (-0.30, -0.02), (-0.31, -0.18)], colour, ink
    )
    pen.stroke(tail, colour, 0.12)
    pen.ellipse(0.36, -0.44, 0.06, fill=colour)
    pen.ellipse(0.0, -0.17, 0.15, 0.14, fill=mix(colour, WHITE, 0.3))
    for side in (-1, 1):
        pen.polygon([(side * 0.33, -0.70), (side * 0.31, -1.0), (side * 0.07, -0.86)], colour, ink)
    pen.ellipse(0.0, -0.66, 0.34, 0.265, fill=colour, outline=ink)
    for side in (-1, 1):
        pen.polygon([(side * 0.28, -0.74), (side * 0.27, -0.92), (side * 0.13, -0.84)], scale(colour, 0.8))
        pen.ellipse(side * 0.14, -0.69, 0.058, 0.075, fill=ink)
        pen.ellipse(side * 0.14 - 0.016, -0.715, 0.02, fill=WHITE)
    pen.polygon([(-0.045, -0.585), (0.045, -0.585), (0.0, -0.535)], light.subject((240, 130, 140)), None)


def _balloon(pen: Pen, light: Light, colour: RGB) -> None:
    ink = light.subject(INK)
    for side in (-1, 1):
        pen.stroke([(side * 0.17, -0.34), (side * 0.085, -0.16)], ink)
    pen.polygon([(-0.30, -0.48), (0.30, -0.48), (0.10, -0.26), (-0.10, -0.26)], colour, ink)
    pen.ellipse(0.0, -0.71, 0.39, 0.39, fill=colour, outline=ink)
    pen.polygon([(-0.29, -0.49), (0.29, -0.49), (0.10, -0.28), (-0.10, -0.28)], colour)
    light_stripe = mix(colour, WHITE, 0.38)
    pen.ellipse(0.0, -0.71, 0.165, 0.37, fill=light_stripe)
    pen.polygon([(-0.14, -0.52), (0.14, -0.52), (0.055, -0.28), (-0.055, -0.28)], light_stripe)
    pen.rectangle(-0.105, -0.17, 0.105, -0.02, light.subject((176, 118, 64)), ink)


def _boat(pen: Pen, light: Light, colour: RGB) -> None:
    ink = light.subject(INK)
    # A pond of its own lets it sail in every setting.
    pen.ellipse(0.0, -0.10, 0.60, 0.095, fill=light.subject((96, 178, 226)), outline=light.subject((58, 122, 176)))
    pen.stroke([(0.0, -0.26), (0.0, -1.12)], ink, 0.045)
    pen.polygon([(0.07, -1.08), (0.07, -0.40), (0.50, -0.40)], colour, ink)
    pen.polygon([(-0.07, -0.94), (-0.07, -0.40), (-0.40, -0.40)], mix(colour, WHITE, 0.3), ink)
    pen.polygon([(-0.54, -0.32), (0.54, -0.32), (0.36, -0.08), (-0.36, -0.08)], colour, ink)
    pen.polygon([(-0.44, -0.17), (0.44, -0.17), (0.38, -0.11), (-0.38, -0.11)], scale(colour, 0.72))


_DRAWINGS: dict[str, Callable[[Pen, Light, RGB], None]] = {
    "house": _house,
    "tree": _tree,
    "car": _car,
    "cat": _cat,
    "balloon": _balloon,
    "boat": _boat,
}
