"""Time of day and weather as light: what becomes of a colour in a scene.

Colours are graded before they are drawn, not the finished picture after: a subject can so keep its hue at night, lit
windows stay bright, and fog can thicken with distance, all at no cost per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RGB = tuple[int, int, int]

INK: RGB = (36, 31, 46)
WHITE: RGB = (255, 255, 255)

# From the top of the sky to the horizon.
_SKY: dict[str, tuple[RGB, RGB, RGB]] = {
    "day": ((74, 158, 232), (136, 200, 244), (212, 236, 248)),
    "sunset": ((118, 78, 152), (242, 120, 92), (255, 206, 112)),
    "night": ((13, 18, 50), (28, 38, 86), (58, 74, 132)),
}
_SCENERY_TINT = {"day": (1.0, 1.0, 1.0), "sunset": (1.0, 0.78, 0.66), "night": (0.37, 0.46, 0.70)}
# Gentler than the scenery's: the colour of a subject is an attribute to be read, also at night.
_SUBJECT_TINT = {"day": (1.0, 1.0, 1.0), "sunset": (1.0, 0.90, 0.82), "night": (0.86, 0.86, 0.97)}
_OVERCAST: dict[str, dict[str, RGB]] = {
    "rain": {"day": (138, 152, 170), "sunset": (168, 108, 110), "night": (26, 32, 52)},
    "snow": {"day": (214, 222, 232), "sunset": (240, 184, 164), "night": (66, 78, 116)},
    "fog": {"day": (226, 230, 232), "sunset": (248, 206, 172), "night": (92, 104, 136)},
}
_OVERCAST_SHARE = {"rain": 0.62, "snow": 0.55, "fog": 0.62}
_WINDOW: dict[str, RGB] = {"day": (176, 216, 240), "sunset": (255, 214, 120), "night": (255, 220, 96)}


@dataclass(frozen=True)
class Light:
    """The light of one time of day and weather. Depth runs from 0 (at the viewer) to 1 (at the horizon)."""

    time: str
    weather: str

    def sky(self) -> tuple[RGB, ...]:
        """Colours of the sky from top to horizon, evenly spaced."""
        if self.weather == "clear":
            return _SKY[self.time]
        veil = _OVERCAST[self.weather][self.time]
        thicker_below = 0.15 if self.weather == "fog" else -0.12
        share = _OVERCAST_SHARE[self.weather]
        return tuple(mix(c, veil, share + thicker_below * i) for i, c in enumerate(_SKY[self.time]))

    def scenery(self, colour: RGB, depth: float = 0.5, snow: float = 0.0) -> RGB:
        """A colour of the setting; `snow` is the share of it that lies under snow when it snows."""
        if self.weather == "snow":
            colour = mix(colour, (246, 249, 255), snow)
        colour = scale(colour, _SCENERY_TINT[self.time])
        return self._veiled(colour, 0.2 + 0.4 * depth)

    def subject(self, colour: RGB) -> RGB:
        """A colour of the subject, which keeps its hue in any light."""
        return self._veiled(scale(colour, _SUBJECT_TINT[self.time]), 0.16)

    def window(self) -> RGB:
        """Glass by day, lamplight at night."""
        return self._veiled(_WINDOW[self.time], 0.1)

    def overcast(self) -> RGB:
        """The colour of the weather's own clouds and veils; the horizon's when clear."""
        return _SKY[self.time][2] if self.weather == "clear" else _OVERCAST[self.weather][self.time]

    def _veiled(self, colour: RGB, share: float) -> RGB:
        return mix(colour, self.overcast(), share) if self.weather == "fog" else colour


def mix(a: RGB, b: RGB, share: float) -> RGB:
    """`a` with a share in [0, 1] of `b`."""
    return _rgb(x + (y - x) * share for x, y in zip(a, b, strict=True))


def scale(colour: RGB, by: float | tuple[float, float, float]) -> RGB:
    """Each channel times a factor, clipped at white."""
    factors = (by, by, by) if isinstance(by, (int, float)) else by
    return _rgb(c * f for c, f in zip(colour, factors, strict=True))


def gradient(colours: tuple[RGB, ...], rows: int) -> np.ndarray:
    """Colours spread evenly over `rows` lines: [rows, 3] uint8."""
    stops = np.linspace(0, rows, len(colours))
    at = np.arange(rows) + 0.5
    table = np.asarray(colours, dtype=np.float64)
    return np.stack([np.interp(at, stops, table[:, c]) for c in range(3)], axis=1).round().astype(np.uint8)


def _rgb(channels: object) -> RGB:
    r, g, b = (min(255, max(0, int(c + 0.5))) for c in channels)  # type: ignore[attr-defined]
    return r, g, b
