"""How long a step takes, learnt from the steps that ran: seconds = fixed + each * rows, a line through recent ones."""

from __future__ import annotations

from dataclasses import dataclass

# What a measurement weighs after the next one has come: the line follows about the last fifty steps.
_FORGETTING = 0.98


@dataclass
class StepTime:
    """A weighted least-squares line, and the mean seconds of what an edit costs outside its steps.

    Rows are counted at the model's own size: a row of a larger picture counts as several.
    """

    weight: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    start_seconds: float = 0.0
    finish_seconds: float = 0.0

    def observe(self, rows: float, seconds: float) -> None:
        """A step of so many rows took so long."""
        self.weight = self.weight * _FORGETTING + 1.0
        self.x = self.x * _FORGETTING + rows
        self.y = self.y * _FORGETTING + seconds
        self.xx = self.xx * _FORGETTING + rows * rows
        self.xy = self.xy * _FORGETTING + rows * seconds

    def observe_start(self, seconds: float) -> None:
        """Encoding one edit's picture and texts took so long."""
        self.start_seconds = _mean(self.start_seconds, seconds)

    def observe_finish(self, seconds: float) -> None:
        """Decoding one picture took so long."""
        self.finish_seconds = _mean(self.finish_seconds, seconds)

    def forget(self) -> None:
        """Starts anew."""
        vars(self).update(vars(StepTime()))

    def predict(self, rows: float) -> float:
        """Seconds of a step of so many rows; 0 before any was measured."""
        fixed, each = self._line()
        return fixed + each * rows

    def rows_within(self, seconds: float) -> float:
        """Rows that a step of this length holds; infinite before any step was measured."""
        fixed, each = self._line()
        return (seconds - fixed) / each if each > 0 else float("inf")

    def _line(self) -> tuple[float, float]:
        """(fixed, each), neither below 0. Where all steps had one number of rows, all of the time is the rows'."""
        if self.weight == 0.0:
            return 0.0, 0.0
        spread = self.weight * self.xx - self.x * self.x
        each = self.y / self.x
        if spread > 1e-6 * self.x * self.x:
            slope = (self.weight * self.xy - self.x * self.y) / spread
            each = min(max(slope, 0.0), each)
        return (self.y - each * self.x) / self.weight, each


def _mean(old: float, new: float) -> float:
    return new if old == 0.0 else 0.8 * old + 0.2 * new
