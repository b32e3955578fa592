"""The sketch behind linear similarity: sums of rows that were moved into a ball, and nearest means."""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse

from ._lattice import ball_sums, sizes
from ._private_rows import without_cells
from ._release import (
    EXTREME,
    Noise,
    Norms,
    Terms,
    calibrate,
    check_same_promise,
    choose,
    count_amplitude,
    public_numbers,
    read_bounds,
    release,
    remember,
    with_count,
)

_RADIUS_IN_BOX = 0.25  # of the ball, columns scaled to 0 to 1, times the root of their number


class Ball(NamedTuple):
    """All that is decided before a sum is made; nothing of it depends on the rows."""

    centre: np.ndarray  # (d,)
    unit: np.ndarray  # (d,) radius along each column
    noise: Noise
    count: float  # what each row adds to the count
    bounds: tuple[np.ndarray, np.ndarray] | None


def make_ball(rows, terms: Terms, *, bounds, center, clip_norm, count_weight: float, n_groups: int) -> Ball:
    """Choose the ball, mechanism and noise."""
    d = rows.shape[1]
    bounds = read_bounds(bounds, rows, False, "similarity='linear'")
    if rows.kind == "csr" and (bounds is not None or center is not None):
        raise ValueError("bounds and center cannot be had with sparse X, whose zeros stay zeros. Pass None.")
    low, high = (np.zeros(d), np.ones(d)) if bounds is None else bounds
    centre = np.zeros(d) if bounds is None else (low + high) / 2
    if center is not None:
        centre = public_numbers("center", center, d)
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
        count = count_amplitude(mechanism, norms, count_weight)
        return calibrate(terms, mechanism, with_count(norms, count)), count

    def predicted(mechanism):
        noise, count = calibrated(mechanism)
        return noise.deviation() * math.hypot(1, 1 / count)  # of a sum, and of the number it is divided by

    noise, count = calibrated(choose(terms.allowed, predicted))
    return Ball(centre, unit, noise, count, bounds)


def release_ball(terms, ball: Ball, rows, groups, n_groups, batch_size, label):
    """Return the released sums (n_groups, d), and the released numbers of rows (n_groups,)."""
    sums = without_cells(ball_sums, rows, ball.centre, ball.unit, groups, n_groups, batch_size, ball.bounds)
    return release(terms, ball.noise, sums, label, ball.count, sizes(groups, n_groups))


def ball_answers(Y, centre, unit, means) -> torch.Tensor:
    """Return 2 z m - |m|² for rows z in units of the ball and means m (n_groups, d), in float64."""
    if issparse(Y):
        products = torch.from_numpy(Y @ (means / unit).cpu().numpy().T).to(means.device)
    else:
        products = ((Y - centre) / unit) @ means.T
    return 2 * products - means.square().sum(1)


def store_ball(estimator, terms: Terms, ball: Ball, sums, ws, first: bool) -> None:
    """Set the fitted attributes after a release, or add it to those before."""
    kept = [ball.centre, ball.unit, ball.noise.scale, ball.count]
    remember(estimator, terms, ball.noise, sums, kept, bounds=ball.bounds, gain=1.0, ws=ws, first=first)


def former_ball(estimator, terms: Terms) -> Ball:
    """Return the ball of the first release, for the next one."""
    check_same_promise(estimator, terms)
    centre, unit, scale, count = estimator._plan
    return Ball(centre, unit, Noise(estimator.mechanism_, scale, estimator.sensitivity_), count, estimator.bounds_)
