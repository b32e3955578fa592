"""An estimator of one's own, written as those of the suite are: options -> problem -> model -> keep."""

from functools import partial
from numbers import Integral
from typing import NamedTuple

import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from sklowrank._core.compat import Interval, _fit_context
from sklowrank._core.fitted import keep, options, recall
from sklowrank._core.rows import rows_of
from sklowrank._core.standardize import standardization
from sklowrank._core.tags import partitioned
from sklowrank._core.validation import check_fit_rows, check_new_data
from sklowrank._core.workspace import open_workspace
from sklowrank._math.linalg import signs_of_largest
from sklowrank._math.subspaces import top_eigenpairs


class AxesOptions(NamedTuple):
    """What the solver reads of the parameters."""

    n_components: int


class Axes(NamedTuple):
    """The fitted model: all that methods need."""

    components: torch.Tensor
    mean: torch.Tensor


class PrincipalAxes(TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):
    """Project rows on the directions in which they vary most."""

    _parameter_constraints = {"n_components": [Interval(Integral, 1, None, closed="left")], "device": [str]}

    def __init__(self, n_components=1, *, device="auto"):
        self.n_components = n_components
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Find the directions."""
        X = check_fit_rows(self, X, ensure_min_samples=2)
        if self.n_components > X.shape[1]:
            cure = f"Pass at most {X.shape[1]}."
            raise ValueError(f"n_components={self.n_components} is too large for n_features={X.shape[1]}. {cure}")
        ws = open_workspace(X, device=self.device)
        axes = principal_axes(rows_of(X, ws), options(self, AxesOptions), ws.dtype)
        return keep(self, ws, axes, components_=axes.components, mean_=axes.mean)

    def transform(self, X):
        """Return the coordinates along the directions."""
        X = check_new_data(self, X, like="components_", method="transform")
        ws = open_workspace(X, device=self.device)
        axes = recall(self, Axes, ws)
        return ws.store((ws.load(X) - axes.mean) @ axes.components.T)

    @property
    def _n_features_out(self):
        return self.components_.shape[0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)


def principal_axes(rows, options, dtype) -> Axes:
    """Find the directions: rows and options in, a model out; no estimator."""
    mean, scale = standardization(rows, "global")
    (scatter,) = rows.gather(partial(_scatter, mean, scale), size=24 * rows.shape[1])
    components = top_eigenpairs(scatter, options.n_components)[0].T
    components = components * signs_of_largest(components)[:, None]
    return Axes(components.to(dtype), mean.to(dtype))


def _scatter(mean, scale, X):
    """Return what a block of rows adds to the sum over all rows."""
    Z = (X.double() - mean) / scale
    return (Z.T @ Z,)
