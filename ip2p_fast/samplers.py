"""Samplers as tables: every sampler here is linear, so a step is seven numbers.

    d  = p x + q e                               the model's prediction of the clean latents
    x' = a x + b0 d + b1 d1 + b2 d2 + c n        d1, d2: earlier predictions; n: fresh unit normal noise

x is kept in variance-preserving form, x = alpha z0 + sigma n with alpha^2 + sigma^2 = 1, whatever the sampler's paper
uses; k-diffusion's x is x / alpha here and its sigma is sigma / alpha. A table is computed once in float64, and each
edit of a batch stands at its own step of its own table.

Timesteps and coefficients follow diffusers' schedulers of the same names, built from the checkpoint's scheduler
configuration; clipping and thresholding of the prediction, which are not linear, are off as in all SD configurations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import BadInput, ModelError

# Order of a row of SamplerTable.coefficients.
COEFFICIENTS = ("a", "b0", "b1", "b2", "c", "p", "q")


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process a model was trained with, and how its checkpoint wants it sampled.

    alphas_cumprod  [T] float64  alpha_t^2
    prediction      "epsilon" or "v_prediction"
    spacing         "linspace", "leading", "trailing", or None for each sampler's own default
    """

    alphas_cumprod: np.ndarray
    prediction: str
    spacing: str | None = None
    steps_offset: int = 0
    final_alpha_one: bool = True

    @property
    def length(self) -> int:
        return len(self.alphas_cumprod)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """Reads a diffusers scheduler_config. Raises ModelError on a schedule that is not supported."""
        # What a loaded scheduler filled in from its own class's defaults is not the checkpoint's wish.
        filled_in = config.get("_use_default_values", ())
        config = {key: value for key, value in config.items() if key not in filled_in}
        length = int(config.get("num_train_timesteps", 1000))
        start, end = float(config.get("beta_start", 0.00085)), float(config.get("beta_end", 0.012))
        kind = config.get("beta_schedule", "scaled_linear")
        if config.get("trained_betas") is not None:
            betas = np.asarray(config["trained_betas"], dtype=np.float64)
        elif kind == "scaled_linear":
            betas = np.linspace(start**0.5, end**0.5, length, dtype=np.float64) ** 2
        elif kind == "linear":
            betas = np.linspace(start, end, length, dtype=np.float64)
        else:
            raise ModelError(f"beta_schedule {kind!r} is not supported: use scaled_linear or linear")
        if config.get("rescale_betas_zero_snr"):
            raise ModelError("rescale_betas_zero_snr is true: schedules of zero terminal SNR are not supported")
        prediction = config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction"):
            raise ModelError(f"prediction_type {prediction!r} is not supported: use epsilon or v_prediction")
        spacing = config.get("timestep_spacing")
        if spacing not in (None, "linspace", "leading", "trailing"):
            raise ModelError(f"timestep_spacing {spacing!r} is not supported: use linspace, leading or trailing")
        return cls(
            alphas_cumprod=np.cumprod(1.0 - betas),
            prediction=prediction,
            spacing=spacing,
            steps_offset=int(config.get("steps_offset", 0)),
            final_alpha_one=bool(config.get("set_alpha_to_one", True)),
        )


@dataclass(frozen=True)
class SamplerTable:
    """One sampler at one number of steps on one noise schedule.

    timesteps     [S] float32         what the UNet is told, may be fractional
    coefficients  [S, 7] float32      a, b0, b1, b2, c, p, q
    levels        [S + 1, 2] float32  (alpha, sigma) of x before each step and after the last
    start_scale                       x before the first step is this times unit normal noise
    """

    sampler: str
    timesteps: np.ndarray
    coefficients: np.ndarray
    levels: np.ndarray
    start_scale: float

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    def from_step(self, first: int) -> SamplerTable:
        """The steps from `first` on, for an edit that starts from a noised picture: alpha z + sigma n of `levels[0]`.

        Its first step has no earlier predictions and takes their weights into its own, so a sampler of second order
        begins with one of first order. start_scale is that sigma; the whole table (`first` 0) is returned as it is.
        """
        if first == 0:
            return self
        coefficients = self.coefficients[first:].copy()
        coefficients[0, 1:4] = coefficients[0, 1:4].sum(), 0.0, 0.0
        levels = self.levels[first:]
        return SamplerTable(self.sampler, self.timesteps[first:], coefficients, levels, float(levels[0, 1]))


def sampler_table(sampler: str, steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """The table of `sampler`, a key of SAMPLERS. Raises BadInput for an unknown sampler or steps out of range."""
    if sampler not in SAMPLERS:
        raise BadInput(f"unknown sampler {sampler!r}: choose one of {', '.join(SAMPLERS)}")
    limit = LCM_GRID if sampler == "lcm" else schedule.length
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps <= limit:
        raise BadInput(f"steps is {steps!r}: {sampler} takes a whole number from 1 to {limit}")
    return SAMPLERS[sampler](int(steps), schedule)


def euler(steps: int, schedule: NoiseSchedule, ancestral: bool = False) -> SamplerTable:
    """Euler's method on the probability-flow ODE; Karras et al. 2022 (EDM), algorithm 1 without churn."""
    timesteps = _spaced(steps, schedule, default="linspace")
    levels = _interpolated_levels(timesteps, schedule)
    alpha, sigma, alpha_next, sigma_next = _pairs(levels)
    s, s_next = sigma / alpha, sigma_next / alpha_next
    s_up = np.sqrt(s_next**2 * (s**2 - s_next**2) / s**2) if ancestral else np.zeros(steps)
    s_down = np.sqrt(s_next**2 - s_up**2)
    leading = (schedule.spacing or "linspace") == "leading"
    return _table(
        "euler_a" if ancestral else "euler",
        schedule,
        timesteps,
        levels,
        a=alpha_next / alpha * s_down / s,
        b0=alpha_next * (1.0 - s_down / s),
        c=alpha_next * s_up,
        start_scale=1.0 if leading else float(sigma[0]),
    )


def euler_a(steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """Ancestral Euler, k-diffusion's sample_euler_ancestral with eta = 1: the paper's sampler."""
    return euler(steps, schedule, ancestral=True)


def ddim(steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """Song et al. 2021 (DDIM), eq. 12 with eta = 0."""
    timesteps = _spaced(steps, schedule, default="leading").astype(np.int64)
    previous = timesteps - schedule.length // steps
    final = 1.0 if schedule.final_alpha_one else schedule.alphas_cumprod[0]
    alpha2 = schedule.alphas_cumprod[timesteps]
    alpha2_next = np.where(previous >= 0, schedule.alphas_cumprod[np.maximum(previous, 0)], final)
    alpha, sigma = np.sqrt(alpha2), np.sqrt(1.0 - alpha2)
    alpha_next, sigma_next = np.sqrt(alpha2_next), np.sqrt(1.0 - alpha2_next)
    levels = _levels(np.append(alpha, alpha_next[-1]), np.append(sigma, sigma_next[-1]))
    return _table("ddim", schedule, timesteps, levels, a=sigma_next / sigma, b0=alpha_next - alpha * sigma_next / sigma)


def dpmpp_2m(steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """DPM-Solver++(2M), midpoint; Lu et al. 2022, algorithm 2. First order at the first step and at the last."""
    timesteps = _spaced(steps, schedule, default="linspace", intervals=True).astype(np.int64)
    levels = _interpolated_levels(timesteps, schedule)
    alpha, sigma, alpha_next, sigma_next = _pairs(levels)
    first = alpha_next - alpha * sigma_next / sigma
    ratio = np.zeros(steps)  # 1 / (2 r0), r0 = (lambda_s - lambda_s1) / (lambda_t - lambda_s)
    if steps > 2:
        log_snr = np.log(alpha / sigma)
        h = np.diff(log_snr)
        ratio[1:-1] = 0.5 * h[1:] / h[:-1]
    return _table(
        "dpmpp_2m", schedule, timesteps, levels, a=sigma_next / sigma, b0=first * (1.0 + ratio), b1=-first * ratio
    )


# Steps of the grid that latent consistency models are distilled on, and so the most that lcm takes.
LCM_GRID = 50


def lcm(steps: int, schedule: NoiseSchedule) -> SamplerTable:
    """Multistep consistency sampling; Luo et al. 2023 (LCM), algorithm 3, with diffusers' boundary scalings."""
    grid = (np.arange(1, LCM_GRID + 1) * (schedule.length // LCM_GRID) - 1)[::-1]
    timesteps = grid[np.floor(np.linspace(0, len(grid), steps, endpoint=False)).astype(np.int64)]
    alpha2 = schedule.alphas_cumprod[timesteps]
    alpha, sigma = np.append(np.sqrt(alpha2), 1.0), np.append(np.sqrt(1.0 - alpha2), 0.0)
    sigma_data, scaled = 0.5, timesteps * 10.0
    skip = sigma_data**2 / (scaled**2 + sigma_data**2)
    out = scaled / np.sqrt(scaled**2 + sigma_data**2)
    levels = _levels(alpha, sigma)
    return _table("lcm", schedule, timesteps, levels, a=alpha[1:] * skip, b0=alpha[1:] * out, c=sigma[1:])


SAMPLERS: dict[str, Callable[[int, NoiseSchedule], SamplerTable]] = {
    "euler_a": euler_a,
    "euler": euler,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "lcm": lcm,
}


def _spaced(steps: int, schedule: NoiseSchedule, default: str, intervals: bool = False) -> np.ndarray:
    """Timesteps from high to low (Lin et al. 2024, table 2). `intervals` drops the grid's last point, as DPM-Solver."""
    spacing, length, extra = schedule.spacing or default, schedule.length, int(intervals)
    if spacing == "linspace":
        grid = np.linspace(0, length - 1, steps + extra)[::-1]
        return grid.round()[:steps] if intervals or default == "leading" else grid
    if spacing == "leading":
        return (np.arange(steps + extra) * (length // (steps + extra)))[::-1][:steps] + float(schedule.steps_offset)
    return np.arange(length, 0, -length / steps).round() - 1.0


def _interpolated_levels(timesteps: np.ndarray, schedule: NoiseSchedule) -> np.ndarray:
    """(alpha, sigma) at each timestep, by linear interpolation of sigma / alpha, then (1, 0). [S + 1, 2]"""
    ratios = np.sqrt((1.0 - schedule.alphas_cumprod) / schedule.alphas_cumprod)
    s = np.append(np.interp(timesteps, np.arange(schedule.length), ratios), 0.0)
    return _levels(1.0 / np.sqrt(1.0 + s**2), s / np.sqrt(1.0 + s**2))


def _levels(alpha: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    return np.stack([alpha, sigma], axis=1)


def _pairs(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """alpha, sigma before each step and after it, each [S]."""
    return levels[:-1, 0], levels[:-1, 1], levels[1:, 0], levels[1:, 1]


def _table(
    sampler: str,
    schedule: NoiseSchedule,
    timesteps: np.ndarray,
    levels: np.ndarray,
    *,
    a: np.ndarray,
    b0: np.ndarray,
    b1: np.ndarray | float = 0.0,
    c: np.ndarray | float = 0.0,
    start_scale: float = 1.0,
) -> SamplerTable:
    alpha, sigma = levels[:-1, 0], levels[:-1, 1]
    if schedule.prediction == "epsilon":
        p, q = 1.0 / alpha, -sigma / alpha
    else:
        p, q = alpha, -sigma
    columns = np.broadcast_arrays(a, b0, b1, 0.0, c, p, q)
    return SamplerTable(
        sampler=sampler,
        timesteps=timesteps.astype(np.float32),
        coefficients=np.stack(columns, axis=1).astype(np.float32),
        levels=levels.astype(np.float32),
        start_scale=start_scale,
    )
