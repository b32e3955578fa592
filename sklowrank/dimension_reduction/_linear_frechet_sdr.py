"""Linear Fréchet sufficient dimension reduction: directions of X along which random objects change."""

from collections.abc import Callable
from functools import partial
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator

from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.rows import map_rows, row_weights, rows_of
from .._core.tags import partitioned
from .._core.validation import check_fit_pairs, check_new_data
from .._core.workspace import open_workspace
from ._ball_features import ball_features, described_balls, fitted_balls
from ._frechet_methods import CONSTRAINTS, FrechetMethods, documented
from ._linear_frechet_sdr_solver import (
    LinearModel,
    LinearOptions,
    count_predictors,
    fit_directions,
    leading_directions,
    linear_components,
    linear_model,
    with_products,
)


@documented
class LinearFrechetSDR(FrechetMethods, BaseEstimator):
    """Find the directions of X along which responses change, whatever these are made of.

    A closed form, fast and easy to read: for a first look, for sparse tables, and for monotone relations, which "wire"
    and "fccov" find; "second" finds symmetric ones too. Where y is a number and the relation linear,
    :class:`~sklearn.linear_model.LinearRegression` gives the same direction.

    Parameters
    ----------
    <shared n_components>
    method : {"wire", "fccov", "second"}, default="wire"
        "wire" weights pairs of rows by the distance of their responses, in O(n_samples²) time. "fccov" uses balls of
        responses, hence the order of distances only: it is linear in n_samples and robust to outlying responses.
        "second" uses balls with the second moments of X as well. With `metric="precomputed"`, "wire" needs the
        distances between all rows.
    <shared metric>
    <shared balls>
    shrinkage : float, default=0.0
        Between 0 and 1: shrinkage of the covariance of X towards a multiple of the identity. Raise it where X has
        about as many columns as rows, or more.
    <shared device>

    Attributes
    ----------
    components_ : array of shape (n_components_, n_features)
        Directions, scaled so that components have unit variance on the training rows if `shrinkage` is 0.
    eigenvalues_ : array of shape (n_components_,)
        Eigenvalues, descending by magnitude; in units of the distance for "wire".
    mean_ : array of shape (n_features,)
        Mean of X.
    <shared fitted balls>

    See Also
    --------
    FrechetSDR : Nonlinear features.
    sklearn.cross_decomposition.PLSRegression : Directions for responses that are vectors.

    Notes
    -----
    With whitened rows :math:`z_j` the directions are leading eigenvectors of

    .. math:: -\\tfrac1{n^2} \\sum_{i,j} z_i z_j^\\top d(y_i, y_j), \\qquad \\sum_f w_f h_f h_f^\\top, \\qquad
        \\sum_f w_f (H_f^2 + h_f h_f^\\top)

    for "wire", "fccov" and "second", where :math:`h_f` and :math:`H_f` are the covariances of :math:`z` and
    :math:`z z^\\top` with the indicator of ball f. Indicators enter as those of their principal components that hold
    95 % of their variance. Time: O(n p² + n² p) for "wire", O(n p² + n p r) for "fccov", O(n p² r) for "second", with r
    principal components. Sparse X with "fccov" is never made dense: r least squares problems are solved by LSQR.
    Eigenvalues of the covariance below 1e-10 of the largest count as zero. A weight of two equals two rows, and the
    order of the rows does not matter. Everything is in float64.

    References
    ----------
    .. [1] C. Ying, Z. Yu, "Fréchet sufficient dimension reduction for random objects", Biometrika 109(4), 2022.
    .. [2] Q. Zhang, L. Xue, B. Li, "Dimension reduction for Fréchet regression", JASA, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.dimension_reduction import LinearFrechetSDR
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 3))
    >>> samples = X[:, :1] + rng.normal(size=(200, 30))  # each response is a sample of a distribution
    >>> sdr = LinearFrechetSDR(1, metric="wasserstein").fit(X, samples)
    >>> (sdr.components_.round(1) + 0.0).tolist()
    [[1.0, 0.0, 0.0]]
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "method": [StrOptions({"wire", "fccov", "second"})],
        "shrinkage": [Interval(Real, 0, 1, closed="both")],
    }

    # Set by fit
    components_: np.ndarray
    eigenvalues_: np.ndarray
    mean_: np.ndarray
    landmarks_: np.ndarray
    landmark_objects_: np.ndarray
    thresholds_: np.ndarray
    feature_means_: np.ndarray
    n_components_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int | float = 2,
        *,
        method: Literal["wire", "fccov", "second"] = "wire",
        metric: Callable[..., Any] | str = "auto",
        n_landmarks: int = 64,
        n_thresholds: int = 16,
        shrinkage: float = 0.0,
        device: str = "auto",
    ):
        self.n_components = n_components
        self.method = method
        self.metric = metric
        self.n_landmarks = n_landmarks
        self.n_thresholds = n_thresholds
        self.shrinkage = shrinkage
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None) -> Self:
        """Find the directions.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The features, two rows at least; sparse only with `method="fccov"`.
        y : array-like of shape (n_samples, ...)
            The responses, in the form that `metric` asks for.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; a row of weight two is as good as two rows.

        Returns
        -------
        self : LinearFrechetSDR

        Raises
        ------
        ValueError
            If a response is not what `metric` asks for, or all are equal.
        """
        X = check_fit_pairs(self, X, y, accept_sparse=self._sparse_formats())
        ws = open_workspace(X, device=self.device)
        rows = rows_of(X, ws)
        weight = row_weights(sample_weight, rows, ws)
        weight = torch.ones(len(rows), dtype=torch.float64, device=ws.device) if weight is None else weight
        balls = {"metric": self.metric, "n_landmarks": self.n_landmarks, "n_thresholds": self.n_thresholds}
        features = ball_features(y, **balls, device=ws.device, sample_weight=weight.cpu().numpy(), whole=False)
        share, chosen = weight / weight.sum(), options(self, LinearOptions)
        found = leading_directions(fit_directions(rows, share, features, chosen), features, chosen)
        model, fitted = linear_model(found, rows, share, features, chosen), fitted_balls(features, y)
        return keep(
            self,
            ws,
            model,
            fitted,
            components_=found.directions.to(ws.dtype),
            eigenvalues_=found.eigenvalues.to(ws.dtype),
            mean_=found.mean.to(ws.dtype),
            n_components_=len(found.directions),
            **described_balls(fitted),
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.method == "fccov"
        return partitioned(tags)

    def _components(self, X, method):
        """Return the workspace of new rows and their components, in float64."""
        X = check_new_data(self, X, like="components_", method=method, accept_sparse=self._sparse_formats())
        ws = open_workspace(X, device=self.device)
        model = recall(self, LinearModel, ws.exact())
        compute = partial(linear_components, model.directions, model.offset)
        return ws, map_rows(rows_of(X, ws), compute, size=24 * X.shape[1])

    def _regression(self, Z, ws):
        """Return predictors and loadings, and the number of predictors of the first 1, 2, ... components."""
        model = recall(self, LinearModel, ws)
        ends = [count_predictors(d, model.quadratic) for d in range(1, Z.shape[1] + 1)]
        return with_products(Z, model.quadratic), model.loadings, ends

    def _sparse_formats(self):
        return ("csr", "csc") if self.method == "fccov" else False
