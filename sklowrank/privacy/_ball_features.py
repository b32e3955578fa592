"""Features of linear similarity: rows that are moved into a ball, whose sums give nearest means."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse

from ._mechanism import Norms, PrivacyOptions, calibrate, count_amplitude, deviation, with_count
from ._public_parameters import EXTREME, public_numbers
from ._sketch import Noise

_RADIUS_IN_BOX = 0.25  # of the ball, columns scaled to 0 to 1, times the root of their number


class BallOptions(NamedTuple):
    """The parameters of the ball."""

    bounds: tuple[np.ndarray, np.ndarray] | None
    clip_center: Any
    clip_norm: float | None
    count_weight: float


class BallFeatures(NamedTuple):
    """The ball; it does not depend on the rows."""

    centre: np.ndarray  # (d,)
    unit: np.ndarray  # (d,) radius along each column
    count: float  # what each row adds to the count
    bounds: tuple[np.ndarray, np.ndarray] | None
    gain: float = 1.0  # norm of what an answer multiplies the entries of the sketch with


def ball_features(
    d: int, options: BallOptions, privacy: PrivacyOptions, *, sparse: bool, n_groups: int
) -> tuple[BallFeatures, Noise]:
    """Choose the ball in d dimensions and the mechanism, and calibrate the noise."""
    clip_norm, bounds = options.clip_norm, options.bounds
    if sparse and (bounds is not None or options.clip_center is not None):
        raise ValueError("bounds and clip_center cannot be had with sparse X, whose zeros stay zeros. Pass None.")
    low, high = (np.zeros(d), np.ones(d)) if bounds is None else bounds
    centre = np.zeros(d) if bounds is None else (low + high) / 2
    if options.clip_center is not None:
        centre = public_numbers("clip_center", options.clip_center, d)
    if clip_norm is None:
        clip_norm = 1.0 if bounds is None else _RADIUS_IN_BOX * math.sqrt(d)
    unit = (high - low) * clip_norm
    if not ((unit >= 1 / EXTREME) & (unit <= EXTREME)).all():
        raise ValueError(
            f"clip_norm={clip_norm:g} makes the ball less than {1 / EXTREME:g} or more than {EXTREME:g} wide in some "
            "column. Pass a radius that most rows have, in units of X, or of the bounds where they are given."
        )
    norms = Norms(1.0, math.sqrt(d), n_groups * (d + 1))

    def calibrated(mechanism):
        count = count_amplitude(mechanism, norms, options.count_weight)
        return calibrate(privacy, mechanism, with_count(norms, count)), count

    def predicted_error(mechanism):
        noise, count = calibrated(mechanism)
        return deviation(noise) * math.hypot(1, 1 / count)  # of a sum, and of the number it is divided by

    noise, count = calibrated(min(privacy.mechanisms, key=predicted_error))
    return BallFeatures(centre, unit, count, bounds), noise


def ball_answers(Y, features: BallFeatures, means: torch.Tensor) -> torch.Tensor:
    """Return 2 z m - |m|² for rows z in units of the ball and means m (n_groups, d), in float64."""
    centre, unit = (torch.from_numpy(part).to(means.device) for part in (features.centre, features.unit))
    if issparse(Y):
        products = torch.from_numpy(Y @ (means / unit).cpu().numpy().T).to(means.device)
    else:
        products = ((Y - centre) / unit) @ means.T
    return 2 * products - means.square().sum(1)
