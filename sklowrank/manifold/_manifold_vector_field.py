"""Vector fields on a cloud of points by a Gaussian process whose kernel follows the cloud."""

from numbers import Integral, Real
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_array, check_consistent_length

from .._core.annotations import RandomState
from .._core.blocks import in_blocks, rows_per_block
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.validation import check_fit_data, check_new_data, on_host
from .._core.warn import warn
from .._core.workspace import open_workspace
from ._connection import SPARE, Cloud, GraphOptions, Rule, codes_at, connection_modes, place_rows, scaled
from ._field_process import Posterior, ProcessOptions, deviation_at, draws_at, field_at, fit_process, observe


class ManifoldVectorFieldRegressor(RegressorMixin, MultiOutputMixin, BaseEstimator):
    """Vector fields on a cloud of points by a Gaussian process whose kernel follows the cloud."""

    _parameter_constraints = {
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "signal": [StrOptions({"auto", "tangent", "scalar"})],
        "tangent_neighbors": [Interval(Real, 0, None, closed="neither")],
        "intrinsic_dim": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "explained_variance": [Interval(Real, 0, 1, closed="right")],
        "n_eigenpairs": [Interval(Integral, 1, None, closed="left")],
        "weights": [StrOptions({"binary", "gaussian"})],
        "kernel": [StrOptions({"matern", "rbf"})],
        "ambient": [StrOptions({"matern"}), None],
        "nu": [Interval(Real, 0, None, closed="neither")],
        "length_scale": [Interval(Real, 0, None, closed="neither")],
        "noise_variance": [Interval(Real, 0, None, closed="left")],
        "optimizer": [StrOptions({"l-bfgs-b"}), None],
        "n_restarts_optimizer": [Interval(Integral, 0, None, closed="left")],
        "device": [str],
        "random_state": ["random_state"],
    }

    # Set by fit
    gauges_: np.ndarray
    eigenvalues_: np.ndarray
    eigenvectors_: np.ndarray
    intrinsic_dim_: int
    kernel_params_: dict[str, float | np.ndarray]
    alpha_: np.ndarray
    X_fit_: np.ndarray
    log_marginal_likelihood_value_: float
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_neighbors: int = 10,
        *,
        signal: Literal["auto", "tangent", "scalar"] = "auto",
        tangent_neighbors: float = 1.5,
        intrinsic_dim: int | Literal["auto"] = "auto",
        explained_variance: float = 0.8,
        n_eigenpairs: int = 80,
        weights: Literal["binary", "gaussian"] = "binary",
        kernel: Literal["matern", "rbf"] = "matern",
        ambient: Literal["matern"] | None = "matern",
        nu: float = 1.5,
        length_scale: float = 5.0,
        noise_variance: float = 1e-3,
        optimizer: Literal["l-bfgs-b"] | None = "l-bfgs-b",
        n_restarts_optimizer: int = 1,
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.n_neighbors = n_neighbors
        self.signal = signal
        self.tangent_neighbors = tangent_neighbors
        self.intrinsic_dim = intrinsic_dim
        self.explained_variance = explained_variance
        self.n_eigenpairs = n_eigenpairs
        self.weights = weights
        self.kernel = kernel
        self.ambient = ambient
        self.nu = nu
        self.length_scale = length_scale
        self.noise_variance = noise_variance
        self.optimizer = optimizer
        self.n_restarts_optimizer = n_restarts_optimizer
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Learn the cloud and the field."""
        X, y = _checked(self, X, y)
        tangent = _is_tangent(self.signal, X, y)
        _check_dimension(self.intrinsic_dim, X)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows, values = ws.exact().load(X), ws.exact().load(y)
        placement = place_rows(rows)
        points = scaled(rows[placement.first], placement)
        cloud = connection_modes(points, options(self, GraphOptions, tangent=tangent))
        if len(points) == 1:
            warn("All rows of X are equal: predictions are the mean of y.", UserWarning)
        observed = observe(values, placement.place, cloud, in_frames=self.ambient is None)
        starts = torch.rand(self.n_restarts_optimizer, 4, generator=ws.generator, dtype=torch.float64, device="cpu")
        process = fit_process(observed, points, cloud.eigenvalues, options(self, ProcessOptions), starts.numpy())
        model = field_model(rows, placement, cloud, process, flat=y.ndim == 1)
        return keep(self, ws, model, **described(model, process, X, ws))

    def predict(self, X, return_std=False):
        """Return the field at each point, and its standard deviation if wanted."""
        ws, model, queries = self._located(X, "predict")
        answers = [shaped(part, model) for part in predicted(queries, model, return_std)]
        return tuple(map(ws.answer, answers)) if return_std else ws.answer(answers[0])

    def sample_y(self, X, n_samples=1, random_state=0):
        """Draw fields from the posterior."""
        ws, model, queries = self._located(X, "sample_y", random_state)
        codes = codes_at(queries, cloud_of(model))
        draws = draws_at(codes, known_points(model), queries, model.posterior, n_samples, ws.exact().randn)
        return ws.answer(shaped(draws, model))

    def _located(self, X, method, random_state=None):
        """Return the workspace of new points, the model and the points in its units."""
        X = check_new_data(self, X, like="gauges_", method=method)
        ws = open_workspace(X, device=self.device, random_state=random_state)
        model = recall(self, FieldModel, ws.exact())
        return ws, model, scaled(ws.exact().load(X), model)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags


# The data


def _checked(estimator, X, y):
    """Return X and values y in float64, where rows of NaN are unlabelled."""
    if y is None:
        check_fit_data(estimator, X, None)  # which raises
    X = check_fit_data(estimator, X, ensure_min_samples=2)
    y = on_host(y)
    y = check_array(y, ensure_2d=False, dtype=np.float64, ensure_all_finite="allow-nan", input_name="y")
    check_consistent_length(X, y)
    missing = np.isnan(y).reshape(len(y), -1)
    in_part = np.flatnonzero(missing.any(1) & ~missing.all(1))
    if len(in_part):
        raise ValueError(
            f"y has rows that are NaN in part: {in_part[:10].tolist()}. A row without a label is NaN in all columns; "
            "complete the others or leave them out."
        )
    if missing.all():
        raise ValueError(f"y has no label: all of its {len(y)} rows are NaN. Pass at least one row of numbers.")
    return X, y


def _is_tangent(signal, X, y):
    """Return whether y are tangent vectors, and check that they can be."""
    wide = y.ndim == 2 and y.shape[1] == X.shape[1]
    if signal == "tangent" and not wide:
        raise ValueError(
            f"signal='tangent' needs vectors of n_features={X.shape[1]} numbers, but y has the shape {y.shape}. Pass "
            "signal='scalar' to treat each column of y as a field of numbers."
        )
    return signal != "scalar" and wide


def _check_dimension(intrinsic_dim, X):
    if intrinsic_dim != "auto" and intrinsic_dim > X.shape[1]:
        raise ValueError(
            f"intrinsic_dim={intrinsic_dim} is too large for X with n_features={X.shape[1]}. Pass at most "
            f"{X.shape[1]}, or 'auto'."
        )


# The model


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


def field_model(rows, placement, cloud, process, flat):
    """Return the model, with frames and codes for each row."""
    first, place, center, unit = placement
    frames, codes, rest = cloud.frames[place], cloud.codes[place], (cloud.density, cloud.rule, process.posterior)
    return FieldModel(rows, frames, codes, cloud.eigenvalues, first, center, unit, *rest, flat)


def described(model, process, X, ws):
    """Return the public attributes; hyperparameters and coefficients in units of X and y."""
    public = (getattr(model, name).to(ws.precision) for name in ("gauges", "eigenvalues", "eigenvectors"))
    alpha = model.posterior.alpha
    return {
        **dict(zip(("gauges_", "eigenvalues_", "eigenvectors_"), public)),
        "X_fit_": X,
        "intrinsic_dim_": model.gauges.shape[2],
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
    parts = in_blocks(of_block, len(queries), block, bytes_per_row=bytes_per_row)
    return [torch.cat(part) for part in zip(*parts)]


def shaped(values, model):
    """Return values (n, q, c, ...) with one axis for the columns of y, none where y was a vector."""
    values = values.flatten(1, 2)
    return values[:, 0] if model.flat else values
