"""Stepwise expectation maximisation: statistics with forgetting, kept as a thin factor of each scatter matrix."""

from functools import partial
from typing import NamedTuple

import torch

from .._math.em import CentredRows, MixtureForm, Moments, by_posterior, maximised, moments_by
from .._math.mixtures import LowRankGaussians

_SURPLUS = 8  # columns of a factor beyond the dimension


class StreamStatistics(NamedTuple):
    """Weighted averages over the batches so far."""

    mass: torch.Tensor  # (K,), shares of the rows
    centres: torch.Tensor  # (K, D), mean rows of the components
    factors: torch.Tensor  # (K, D, q), times their transposes about the scatter matrices
    traces: torch.Tensor  # (K,), of the scatter matrices


def statistics_of(model: LowRankGaussians) -> StreamStatistics:
    """Return statistics of which `model` is the best fit."""
    along = model.variances + model.noise[:, None] * (model.variances > 0)
    n_noise = model.means.shape[1] - (model.variances > 0).sum(1)
    factors = model.bases * along.sqrt()[:, None]
    return StreamStatistics(model.weights, model.means, factors, along.sum(1) + n_noise * model.noise)


def batch_statistics(rows: CentredRows, model: LowRankGaussians, form: MixtureForm) -> StreamStatistics:
    """Return the statistics of one batch under the model's responsibilities."""
    width = min(len(rows.shift), max(form.n_dims) + _SURPLUS)
    wide = form._replace(n_dims=(width,) * len(form.n_dims))
    mass, means, bases, e, traces = moments_by(rows, partial(by_posterior, model), model.means, wide)[0]
    centres = means + rows.shift * form.affine
    return StreamStatistics(mass / mass.sum(), centres, bases * e.sqrt()[:, None], traces)


def blend(old: StreamStatistics, new: StreamStatistics, rate: float) -> StreamStatistics:
    """Return (1 - rate) old + rate new, with factors as wide as the new ones."""
    a, b = (1 - rate) * old.mass, rate * new.mass
    mass = a + b
    share = (b / mass.clamp(min=torch.finfo(mass.dtype).tiny))[:, None]
    step = new.centres - old.centres
    between = (share * (1 - share)).sqrt() * step
    factors = torch.cat(
        [(1 - share).sqrt()[:, None] * old.factors, share.sqrt()[:, None] * new.factors, between[:, :, None]], 2
    )
    U, s, _ = torch.linalg.svd(factors, full_matrices=False)
    width = new.factors.shape[2]
    traces = (1 - share[:, 0]) * old.traces + share[:, 0] * new.traces + between.square().sum(1)
    return StreamStatistics(mass, old.centres + share * step, U[:, :, :width] * s[:, None, :width], traces)


def model_from(statistics: StreamStatistics, form: MixtureForm) -> LowRankGaussians:
    """Return the best model for the statistics."""
    U, s, _ = torch.linalg.svd(statistics.factors, full_matrices=False)
    width = max(form.n_dims)
    dims = torch.tensor(form.n_dims, device=U.device)
    real = torch.arange(width, device=U.device) < dims[:, None]
    e = s[:, :width].square() * real
    bases = U[:, :, :width] * real[:, None]
    return maximised(Moments(statistics.mass, statistics.centres, bases, e, statistics.traces), form)
