"""Linear Fréchet sufficient dimension reduction: directions of X along which random objects change."""

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from .._core.compat import Interval, RealNotInt, StrOptions, _fit_context
from .._core.rows import map_rows, row_weights, rows_of
from .._core.tags import partitioned
from .._core.validation import check_new_data
from .._core.workspace import open_workspace
from .._math.linalg import signs_of_largest
from ._ball_features import (
    ball_features,
    check_pairs,
    checked_components,
    explained_by,
    loading_sums,
    loadings_from,
    number_of,
    stored_balls,
)
from ._linear_frechet_sdr_solver import ball_moments, directions, distance_moments, second_moments, sparse_directions
from ._metric_spaces import NAMES


class LinearFrechetSDR(TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):
    """Find the directions of X along which responses change, whatever these are made of.

    A closed form, fast and easy to read: for a first look, for sparse tables, and where relations are monotone, which
    are the ones that "wire" and "fccov" see; "second" sees symmetric ones too. Where y is a number and the relation
    linear, :class:`~sklearn.linear_model.LinearRegression` gives the same direction.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of directions; a float in (0, 1) asks for the fewest that have this share of the sum of eigenvalues.
    method : {"wire", "fccov", "second"}, default="wire"
        "wire" weights pairs of rows by the distance of their responses, and takes O(n_samples²) time. "fccov" uses
        balls of responses, that is the order of distances alone: linear in n_samples, and not led astray by responses
        far out. "second" does so with the second moments of X as well.
    metric : str or callable, default="auto"
        Distance between responses, as in :class:`FrechetSDR`. Distances of each row to all of them are what "wire"
        needs of "precomputed".
    n_landmarks : int, default=64
        Number of responses around which there are balls.
    n_thresholds : int, default=16
        Number of radii of each, 255 at most.
    shrinkage : float, default=0.0
        Between 0 and 1: how far the covariance of X is drawn to a multiple of the identity. Raise it where X has as
        many columns as rows, or nearly so.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1". Sparse X is handled by SciPy.

    Attributes
    ----------
    components_ : array of shape (n_components_, n_features)
        Directions, scaled so that the features have unit variance in training, but for `shrinkage`.
    eigenvalues_ : array of shape (n_components_,)
        How much each counts, by magnitude descending; in units of the distance for "wire".
    mean_ : array of shape (n_features,)
        Mean of X.
    landmarks_, landmark_objects_, thresholds_, feature_means_ : arrays
        The balls, as in :class:`FrechetSDR`.
    n_components_ : int
        The number of directions.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any.

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
        "n_components": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="neither")],
        "method": [StrOptions({"wire", "fccov", "second"})],
        "metric": [StrOptions({"auto", *NAMES}), callable],
        "n_landmarks": [Interval(Integral, 1, None, closed="left")],
        "n_thresholds": [Interval(Integral, 1, 255, closed="both")],
        "shrinkage": [Interval(Real, 0, 1, closed="both")],
        "device": [str],
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
        X = check_pairs(self, X, y, accept_sparse=self._sparse_formats())
        ws = open_workspace(X, device=self.device)
        rows = rows_of(X, ws)
        weight = row_weights(sample_weight, rows, ws)
        weight = torch.ones(len(rows), dtype=torch.float64, device=ws.device) if weight is None else weight
        features = ball_features(
            y,
            metric=self.metric,
            n_landmarks=self.n_landmarks,
            n_thresholds=self.n_thresholds,
            device=ws.device,
            sample_weight=weight.cpu().numpy(),
            whole=rows.kind == "csr",
        )
        share = weight / weight.sum()
        if rows.kind == "csr":
            found = sparse_directions(X, share, features.targets, self.shrinkage)
        else:
            found = directions(rows, share, self._moments(rows, share, features), self.shrinkage)
        n_components = self._width(found, features)
        components = found.directions[:n_components]
        components = components * signs_of_largest(components)[:, None]
        design = partial(_design_of_rows, components, components @ found.mean, self.method == "second")
        sums = rows.gather(
            partial(_loading_sums, design, features.reader()),
            share,
            features.beside(),
            size=8 * (4 * rows.shape[1] + len(features.basis)),
        )

        vars(self).pop("landmark_objects_", None)  # of a former fit
        vars(self).update(stored_balls(features, y, ws))
        self.components_ = ws.store(components.to(ws.dtype))
        self.eigenvalues_ = ws.store(found.eigenvalues[:n_components].to(ws.dtype))
        self.mean_ = ws.store(found.mean.to(ws.dtype))
        self.n_components_ = n_components
        self._directions, self._offset = ws.store(components), ws.store(components @ found.mean)
        self._loadings = ws.store(loadings_from(*sums, features.basis))
        return self

    def transform(self, X):
        """Return the features of each row.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows; sparse only with `method="fccov"`.

        Returns
        -------
        Z : array of shape (n_samples, n_components_)
            Uncorrelated on the training rows, with mean zero.
        """
        ws, Z = self._features(X, "transform")
        return ws.store(Z.to(ws.dtype))

    def score(self, X, y):
        """Return the share of the variance of the responses' features that is explained, at most 1; higher is better.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples, ...)
            Their responses.

        Returns
        -------
        score : float
            Zero for the mean of the training rows; noise in y keeps it far below one. Features of responses are
            regressed on the components, with "second" on their squares and products too. Compare scores of one
            `metric` only.
        """
        return float(self.explained_dependence(X, y).sum())

    def explained_dependence(self, X, y):
        """Return what each component adds to the score.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples, ...)
            Their responses.

        Returns
        -------
        shares : ndarray of shape (n_components_,)
            They sum to the score.
        """
        ws, Z = self._features(X, "score")
        quadratic = self._loadings.shape[0] > _width(Z.shape[1], quadratic=False)
        ends = [_width(d, quadratic) for d in range(1, Z.shape[1] + 1)]
        return explained_by(self, y, _design(Z, quadratic), ends, ws.exact())

    @property
    def _n_features_out(self):
        return self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.sparse = self.method == "fccov"
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)

    def _features(self, X, method):
        """Return the workspace of new rows and their components, in float64."""
        X = check_new_data(self, X, like="components_", method=method, accept_sparse=self._sparse_formats())
        ws = open_workspace(X, device=self.device)
        exact = ws.exact()
        products = partial(_products, exact.load(self._directions), exact.load(self._offset))
        return ws, map_rows(rows_of(X, ws), products, size=24 * X.shape[1])

    def _sparse_formats(self):
        return ("csr", "csc") if self.method == "fccov" else False

    def _moments(self, rows, share, features):
        """Return the function whose value at a whitening is the matrix whose eigenvectors are wanted."""
        if self.method != "wire":
            return partial(ball_moments if self.method == "fccov" else second_moments, rows, share, features)
        if rows.kind == "cluster":
            raise ValueError("method='wire' looks at all pairs of rows, which partitions do not hold. Use 'fccov'.")
        metric, points = features.balls.metric, features.points
        if metric == "precomputed" and points.shape[0] != points.shape[1]:
            raise ValueError(
                f"method='wire' needs the distances between all rows, but y has shape {tuple(points.shape)}. Use "
                "method='fccov'."
            )
        return partial(distance_moments, rows, share, points, metric)

    def _width(self, found, features):
        if not isinstance(self.n_components, Integral):
            return number_of(found.eigenvalues.abs(), self.n_components)
        limits = {"directions in which X varies": int((found.directions != 0).any(1).sum())}
        if self.method == "fccov":
            limits["distinct features of the responses"] = features.basis.shape[1]
        return checked_components(self.n_components, limits)


# Components


def _products(components, offset, X):
    """Return X times directions, less an offset, in float64."""
    if issparse(X):
        return torch.from_numpy(X @ components.cpu().numpy().T).to(components.device) - offset
    return X.double() @ components.T - offset


def _design_of_rows(components, offset, quadratic, X):
    return _design(_products(components, offset, X), quadratic)


def _loading_sums(design, read, X, share, beside):
    return loading_sums(design(X), share, read(beside))


def _design(Z, quadratic):
    """Return the predictors: a constant and components, in between products of each with itself and those before."""
    columns = [torch.ones_like(Z[:, :1])]
    for j in range(Z.shape[1]):
        columns.append(Z[:, j : j + 1])
        if quadratic:
            columns.append(Z[:, : j + 1] * Z[:, j : j + 1])
    return torch.cat(columns, 1)


def _width(d, quadratic):
    """Return how many predictors belong to the first d components."""
    return 1 + d + d * (d + 1) // 2 * quadratic
