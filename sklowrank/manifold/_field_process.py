"""The Gaussian process of a field: what is observed, and the hyperparameters of the largest evidence."""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar

from ._field_evidence import Kernel, Observed, coordinates_of, loss_and_slope, moments_of
from ._field_posterior import Posterior, posterior_of

_LENGTHS = 5  # of the kernel of coordinates that are tried, from twice the spacing of the landmarks
_LONGEST = 30.0  # of them, in medians of distances
_ROUGH = {"ftol": 1e-6, "gtol": 1e-2}  # tolerances while the length is searched
_ROUGH_LENGTH = {"xatol": 0.05}
_HELD = 1e-4, 1e4  # lengths beyond count as these, at which the kernel of the modes no longer changes
_BOUNDS = {  # of logarithms; variances relative to the mean square of y
    "length_scale": (1e-1, 1e3),
    "amplitude": (1e-6, 1e4),
    "noise_variance": (1e-8, 1e1),
    "ambient_amplitude": (1e-6, 1e4),
}


class Process(NamedTuple):
    """What is fitted."""

    posterior: Posterior
    kernel: Kernel
    median: float  # distance, in units of the points
    log_likelihood: float
    log_likelihood_of_all: float  # of whole vectors, of which parts outside of the tangent spaces are noise


def fit_process(observed, points, eigenvalues, options, draws):
    """Return the fitted process; `draws` (n_restarts, 4) are starts of the optimisation on the unit interval."""
    coordinates = coordinates_of(observed, points) if options.ambient else None
    kernel, loss = _best_kernel(observed, coordinates, eigenvalues, options, draws)
    posterior = posterior_of(observed, coordinates, eigenvalues, kernel, options)
    units = float(observed.scale.log().sum()) * (observed.Y.numel() / len(observed.scale))
    median = 1.0 if coordinates is None else coordinates.median
    found = -loss - units
    return Process(posterior, kernel, median, found, found + _likelihood_beside(observed, kernel.noise_variance))


def _likelihood_beside(observed, noise):
    """Return the logarithm of the likelihood of the parts outside of the tangent spaces, which are noise alone."""
    units = 2 * float(observed.scale.log().sum())
    return -(observed.beside / noise + observed.n_beside * (math.log(2 * math.pi * noise) + units)) / 2


def observe(y, place, cloud, tangent, in_frames):
    """Return the labelled rows of y (n,) or (n, p), NaN elsewhere; of tangent vectors their part `in_frames` if wanted.

    Numbers are centred, vectors are not, unless there is but one location.
    """
    y = y.reshape(len(y), -1)
    given = (~y.isnan().any(1)).nonzero()[:, 0]
    given = given[place[given].argsort(stable=True)]  # in the order of the locations, not in that of the rows
    node, values = place[given], y[given]
    codes, offset = cloud.codes[node], torch.zeros_like(values[0])
    offset = offset if tangent and len(cloud.points) > 1 else values.mean(0)
    values, offset = values - offset, offset[:, None] if tangent else offset[None]
    values = values[:, :, None] if tangent else values[:, None]
    scale = _root_mean_square(values)
    if tangent and in_frames:
        frames = cloud.frames[node]
        beside = float(((values - frames @ (frames.mT @ values)) / scale).square().sum())
        n_beside = len(frames) * (frames.shape[1] - frames.shape[2])
        codes, values = frames.mT @ codes, frames.mT @ values
        return Observed(codes, values / scale, node, offset, scale, beside, n_beside)
    return Observed(codes, values / scale, node, offset, scale)


def _root_mean_square(values):
    """Return the root mean square of values (m, q, c) by their last axis; 1 where all are zero."""
    largest = values.abs().amax((0, 1))
    unit = torch.where(largest > 0, largest, 1.0)
    mean = (values / unit).square().mean((0, 1)).sqrt() * unit
    return torch.where(largest > 0, mean, 1.0)


def _best_kernel(observed, coordinates, eigenvalues, options, draws):
    """Return the hyperparameters of the largest evidence, and the negative evidence.

    For a length of the kernel of coordinates the evidence is cheap in all others: that length is searched over a grid
    and then between its neighbours, with the others optimised for each.
    """
    noise = max(options.noise_variance, _BOUNDS["noise_variance"][0])
    length_scale = min(max(options.length_scale, _HELD[0]), _HELD[1])
    start = Kernel(length_scale, *((1.0, noise, 0.0) if coordinates is None else (0.5, noise, 0.5)))
    if options.optimizer is None:
        moments, _ = moments_of(observed, coordinates, 1.0)
        values = [value for value in start[:4] if value > 0]
        return start, loss_and_slope(np.log(values), moments, eigenvalues, options)[0]
    names = [name for name in _BOUNDS if name != "ambient_amplitude" or coordinates is not None]
    low, high = np.log([_BOUNDS[name] for name in names]).T
    best = _Best(math.inf, np.log([getattr(start, name) for name in names]), 0.0)

    def improve(log_length, *thetas, **tolerances):
        nonlocal best
        moments, _ = moments_of(observed, coordinates, math.exp(log_length))
        solve = partial(minimize, loss_and_slope, args=(moments, eigenvalues, options), jac=True, method="L-BFGS-B")
        found = [solve(np.clip(t, low, high), bounds=list(zip(low, high)), options=tolerances) for t in thetas]
        best = min(best, *(_Best(run.fun, run.x, log_length) for run in found), key=lambda b: b.loss)
        return min(run.fun for run in found)

    improve(0.0, best.theta, *(low + (high - low) * (0.25 + 0.5 * draws[:, : len(names)])), **_ROUGH)
    if coordinates is not None:
        lengths, step = np.linspace(math.log(2 * coordinates.spacing), math.log(_LONGEST), _LENGTHS, retstep=True)
        for log_length in lengths:
            improve(log_length, best.theta, _by_coordinates(best.theta), **_ROUGH)
        about = max(best.log_length - step, math.log(coordinates.spacing)), best.log_length + step
        search = partial(minimize_scalar, method="bounded", options=_ROUGH_LENGTH)
        search(lambda log_length: improve(log_length, best.theta, **_ROUGH), bounds=about)
    improve(best.log_length, best.theta)
    return Kernel(*np.exp(best.theta).tolist(), ambient_length_scale=math.exp(best.log_length)), float(best.loss)


class _Best(NamedTuple):
    """The best hyperparameters so far: logarithms in the order of _BOUNDS, and that of the length of coordinates."""

    loss: float
    theta: np.ndarray
    log_length: float


def _by_coordinates(theta):
    """Return a start at which the kernel of coordinates has the larger part: once that is lost no slope leads back."""
    return np.array([theta[0], math.log(0.05), theta[2], 0.0])
