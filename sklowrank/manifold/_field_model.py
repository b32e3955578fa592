"""The fitted field as a value: what is stored, what of it is public, and predictions in blocks."""

from typing import NamedTuple

import torch

from .._core.blocks import join_blocks, rows_per_block
from ._connection import SPARE, Cloud, Rule, codes_at, scaled
from ._field_posterior import Posterior, deviation_at, field_at


class FieldModel(NamedTuple):
    """The cloud and the field on it."""

    X_fit: torch.Tensor
    gauges: torch.Tensor
    eigenvectors: torch.Tensor
    eigenvalues: torch.Tensor
    first: torch.Tensor  # (N,): the rows that stand for distinct locations
    center: torch.Tensor
    unit: torch.Tensor
    density: torch.Tensor
    rule: Rule
    posterior: Posterior
    flat: bool  # y was a vector


def field_model(rows, placement, fit, flat):
    """Return the model, with frames and codes for each row."""
    cloud, process, _ = fit
    first, place, center, unit = placement
    frames, codes, rest = cloud.frames[place], cloud.codes[place], (cloud.density, cloud.rule, process.posterior)
    return FieldModel(rows, frames, codes, cloud.eigenvalues, first, center, unit, *rest, flat)


def described(model, fit, X, ws):
    """Return the public attributes; hyperparameters and coefficients in units of X and y."""
    process = fit.process
    public = (getattr(model, name).to(ws.precision) for name in ("gauges", "eigenvalues", "eigenvectors"))
    alpha = model.posterior.alpha
    return {
        **dict(zip(("gauges_", "eigenvalues_", "eigenvectors_"), public)),
        "X_fit_": X,
        "intrinsic_dim_": model.gauges.shape[2],
        "tangent_neighbors_": fit.tangent_neighbors,
        "alpha_": (alpha[:, 0] if alpha.shape[1] == 1 else alpha).to(ws.precision),
        "kernel_params_": in_units(process.kernel, model, process.median),
        "log_marginal_likelihood_value_": process.log_likelihood,
    }


def in_units(kernel, model, median):
    """Return the hyperparameters in units of X and y: a number, or one for each column of y."""
    squares = model.posterior.scale.square().cpu().numpy()
    square = float(squares[0]) if model.flat or len(squares) == 1 else squares
    found = {name: getattr(kernel, name) * square for name in ("amplitude", "noise_variance")}
    found = {"length_scale": kernel.length_scale, **found}
    if model.posterior.ambient is None:
        return found
    length = kernel.ambient_length_scale * median * float(model.unit)
    return {**found, "ambient_amplitude": kernel.ambient_amplitude * square, "ambient_length_scale": length}


def cloud_of(model):
    """Return the cloud of a fitted model."""
    places = (known_points(model), model.first, model.gauges, model.eigenvectors)
    return Cloud(*places, model.eigenvalues, model.density, model.rule)


def known_points(model):
    """Return the distinct locations in units of the model."""
    return scaled(model.X_fit[model.first], model)


def predicted(queries, model, with_deviation):
    """Return the mean of the field at the queries, and its standard deviation if wanted, in blocks of queries."""
    cloud, posterior = cloud_of(model), model.posterior
    _, D, K = cloud.codes.shape
    bytes_per_row = 8 * (cloud.rule.wide + SPARE) * (D + K) * (D + 1)

    def of_block(rows):
        here = queries[rows]
        codes = codes_at(here, cloud)
        known = codes, cloud.points, here, posterior
        return (field_at(*known), deviation_at(*known)) if with_deviation else (field_at(*known),)

    block = rows_per_block("auto", len(queries), bytes_per_row)
    return join_blocks(of_block, len(queries), block, bytes_per_row=bytes_per_row)


def shaped(values, model):
    """Return values (n, q, c, ...) with one axis for the columns of y, none where y was a vector."""
    values = values.flatten(1, 2)
    return values[:, 0] if model.flat else values
