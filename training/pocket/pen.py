"""Vector drawing in units of the picture, so that one drawing serves every resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import ImageDraw

from .light import RGB

Point = tuple[float, float]


@dataclass(frozen=True)
class Pen:
    """Draws on a canvas in a frame of its own: origin (x, y) and `unit`, in canvas pixels; y points down.

    `line` is the canvas pixels of an outline's width, the same in every frame: a small thing is not drawn with a finer
    pen unless it asks (`thinner`).
    """

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    unit: float
    line: float

    def at(self, x: float, y: float, scale: float = 1.0) -> Pen:
        """The pen in a frame whose origin and unit are given in this one."""
        return replace(self, x=self.x + x * self.unit, y=self.y + y * self.unit, unit=self.unit * scale)

    def thinner(self, share: float) -> Pen:
        """The pen with outlines of `share` of the width."""
        return replace(self, line=self.line * share)

    def polygon(self, points: Sequence[Point], fill: RGB, outline: RGB | None = None) -> None:
        """A filled polygon, with an outline centred on its edge."""
        xy = [self._to(p) for p in points]
        self.draw.polygon(xy, fill=fill)
        if outline is not None:
            self.draw.line([*xy, xy[0], xy[1]], fill=outline, width=self._width(self.line), joint="curve")

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, outline: RGB | None = None) -> None:
        """A filled rectangle between two corners."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, outline)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float | None = None,
        fill: RGB | None = None,
        outline: RGB | None = None,
    ) -> None:
        """An ellipse about a centre; a circle when `ry` is not given."""
        ry = rx if ry is None else ry
        grow = self.line / 2 / self.unit if outline is not None else 0.0
        (x0, y0), (x1, y1) = self._to((x - rx - grow, y - ry - grow)), self._to((x + rx + grow, y + ry + grow))
        self.draw.ellipse((x0, y0, x1, y1), fill=fill, outline=outline, width=self._width(self.line) if outline else 0)

    def stroke(self, points: Sequence[Point], colour: RGB, width: float | None = None) -> None:
        """A line through points; its width is in this frame's units, or an outline's when not given."""
        pixels = self.line if width is None else width * self.unit
        self.draw.line([self._to(p) for p in points], fill=colour, width=self._width(pixels), joint="curve")

    def blob(self, circles: Sequence[tuple[float, float, float]], fill: RGB, outline: RGB | None = None) -> None:
        """The union of circles (x, y, r), outlined as one shape."""
        if outline is not None:
            grow = self.line / self.unit
            for x, y, r in circles:
                self.ellipse(x, y, r + grow, fill=outline)
        for x, y, r in circles:
            self.ellipse(x, y, r, fill=fill)

    def _to(self, point: Point) -> tuple[float, float]:
        return self.x + point[0] * self.unit, self.y + point[1] * self.unit

    @staticmethod
    def _width(pixels: float) -> int:
        return max(1, round(pixels))
