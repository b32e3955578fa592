"""Differentially private classification by the mean similarity to the rows of each class."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.rows import rows_of
from .._core.tags import partitioned
from .._core.validation import check_fit_rows, check_new_data, on_host
from .._core.warn import warn
from .._core.workspace import open_workspace
from ._accountant import PrivacyAccountant
from ._ball_features import BallFeatures, ball_answers
from ._cosine_features import KERNELS, CosineFeatures, kernel_answers
from ._lattice import sizes
from ._mechanism import release
from ._mixin import PrivateMixin
from ._options import CONSTRAINTS, documented_release
from ._private_classes import (
    ClassOptions,
    class_features,
    class_sums,
    class_weights,
    encoded_labels,
    parzen_shares,
)
from ._private_rows import check_hiding_cells, without_cells
from ._sketch import MOSTLY_NOISE, Sketch, are_mostly_noise, described, merge_sketches

_LEAST = 1e-12  # probability of a class


@documented_release
class PrivateSimilarityClassifier(PrivateMixin, ClassifierMixin, BaseEstimator):
    """Classify by the mean similarity to the private rows of each class, from one release.

    One pass over the rows, no gradient steps, and so no accounting of steps: a row is in one class only, so each class
    spends the whole budget. For some hundred rows per class and more. Without privacy
    :class:`~sklearn.neighbors.KNeighborsClassifier` is better. The guarantee is that of
    :class:`PrivateKernelDensity`, and covers the label with the row.

    Parameters
    ----------
    <budget_parameters>
    similarity : str, default="gaussian"
        A kernel of :class:`PrivateKernelDensity`, or "linear": the nearest mean of rows that are moved into a ball,
        good for embeddings, and under pure differential privacy in many columns.
    bandwidth : float, array-like of shape (n_features,) or "auto", default="auto"
        Width of the kernel in units of X, for all columns or for each, chosen without looking at X. "auto" is 0.7
        times the root of the number of columns, for standardised columns; with `bounds` 0.15 times it, columns scaled
        to 0 to 1.
    bounds : (lowest, highest) or None, default=None
        Ends of each column, numbers or arrays of shape (n_features,), known without looking at X; rows are moved into
        them. Not for sparse X.
    classes : array-like or None, default=None
        The classes, known without looking: then no warning depends on y except through the release, and the only error
        that does is that for a label that is not among them. None reads them from y, which reveals classes of a single
        row.
    class_weighting : {"average", "sum"} or array-like of shape (n_classes,), default="average"
        "average" compares mean similarities, "sum" weights them by the noisy sizes of the classes, numbers by
        themselves, in the order of `classes_`. Not with `similarity="linear"`.
    count_weight : float, default=0.5
        Weight of the noisy counts of rows in a release with Gaussian noise, at least 2^-20. Raising it makes the
        counts more exact and all else less.
    clip_norm : float or None, default=None
        Radius of the ball of `similarity="linear"`. None is a quarter of the root of the number of columns with
        `bounds`, columns scaled to 0 to 1, and 1 without.
    clip_center : array-like of shape (n_features,) or None, default=None
        Centre of the ball of `similarity="linear"`. None is the middle of the bounds, or zero. Not for sparse X.
    n_components : int or "auto", default="auto"
        Number of components. They are random frequencies: "auto" is 1024, or 256 under Laplace noise.
    <mechanism_parameters>
    <release_parameters>

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        The classes, sorted.
    sketch_ : array of shape (n_classes, 2 * n_frequencies), or (n_classes, n_features) with `similarity="linear"`
        The release: whole multiples of 2^-20.
    class_counts_ : array of shape (n_classes,)
        Noisy numbers of rows: labels are protected, so they are never exact.
    n_samples_ : float
        Number of rows: noisy and at least 1, or exact with `adjacency="substitute"`.
    frequencies_, amplitudes_, noise_scale_, noise_std_, sensitivity_, mechanism_, noise_backend_, noise_secure_
        As in :class:`PrivateKernelDensity`; no frequencies with `similarity="linear"`.
    adjacency_, bounds_, privacy_spent_
        As in :class:`PrivateKernelDensity`.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any.

    See Also
    --------
    PrivateKernelDensity : The density of all rows.

    Notes
    -----
    Fitting takes O(n_samples n_features n_frequencies) time, predicting as much for each query, whatever the number of
    private rows. Scores of a cross-validation on private rows are not private.

    References
    ----------
    .. [1] A. Backurs, Z. Lin, S. Mahabadi, S. Silwal, J. Tarnawski, "Efficiently computing similarities to private
       datasets", ICLR 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklowrank.privacy import PrivateSimilarityClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = PrivateSimilarityClassifier(bounds=(0, 16), classes=range(10)).fit(X[:1200], y[:1200])
    >>> model.score(X[1200:], y[1200:]) > 0.5
    True
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "similarity": [StrOptions({*KERNELS, "linear"})],
        "bandwidth": [Interval(Real, 0, None, closed="neither"), "array-like", str],
        "classes": ["array-like", range, None],
        "class_weighting": [StrOptions({"average", "sum"}), "array-like"],
        "count_weight": [Interval(Real, 0, None, closed="neither")],
        "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
        "clip_center": ["array-like", None],
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    # Set by fit
    classes_: np.ndarray
    sketch_: np.ndarray
    class_counts_: np.ndarray
    n_samples_: float
    frequencies_: np.ndarray
    amplitudes_: np.ndarray
    noise_scale_: float
    noise_std_: float
    sensitivity_: float
    mechanism_: str
    noise_backend_: str
    noise_secure_: bool
    adjacency_: str
    bounds_: tuple[np.ndarray, np.ndarray] | None
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        *,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        similarity: str = "gaussian",
        bandwidth: float | ArrayLike | str = "auto",
        bounds: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        class_weighting: ArrayLike | Literal["average", "sum"] = "average",
        count_weight: float = 0.5,
        clip_norm: float | None = None,
        clip_center: ArrayLike | None = None,
        n_components: int | Literal["auto"] = "auto",
        mechanism: Literal["auto", "gaussian", "laplace"] = "auto",
        adjacency: Literal["add_remove", "substitute"] = "add_remove",
        accountant: PrivacyAccountant | None = None,
        noise_backend: Literal["auto", "opendp", "builtin"] = "auto",
        feature_random_state: RandomState = None,
        random_state: RandomState = None,
        device: str = "auto",
        batch_size: int | Literal["auto"] = "auto",
    ):
        self.epsilon = epsilon
        self.delta = delta
        self.similarity = similarity
        self.bandwidth = bandwidth
        self.bounds = bounds
        self.classes = classes
        self.class_weighting = class_weighting
        self.count_weight = count_weight
        self.clip_norm = clip_norm
        self.clip_center = clip_center
        self.n_components = n_components
        self.mechanism = mechanism
        self.adjacency = adjacency
        self.accountant = accountant
        self.noise_backend = noise_backend
        self.feature_random_state = feature_random_state
        self.random_state = random_state
        self.device = device
        self.batch_size = batch_size

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Release a sketch of the rows of each class.

        Parameters
        ----------
        X : array-like, tensor or CSR matrix of shape (n_samples, n_features)
            The private rows; sparse without `bounds` only.
        y : array-like of shape (n_samples,)
            Their classes.

        Returns
        -------
        self : PrivateSimilarityClassifier

        Raises
        ------
        BudgetError
            If the accountant has too little left; nothing is released.
        """
        return self._fit(X, y, self.classes)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None) -> Self:
        """Release a sketch of further rows and add it: no more is spent, because no row was seen before.

        Parameters
        ----------
        X : array-like, tensor or CSR matrix of shape (n_samples, n_features)
            Private rows, none of them in an earlier call.
        y : array-like of shape (n_samples,)
            Their classes.
        classes : array-like or None, default=None
            In the first call: all classes, where the parameter does not name them.

        Returns
        -------
        self : PrivateSimilarityClassifier
        """
        if not hasattr(self, "sketch_"):
            return self._fit(X, y, self.classes if classes is None else classes)
        former, features = recall(self, Sketch, None), self._features()
        privacy = self._privacy_options(former)
        X, y = check_hiding_cells(check_fit_rows, self, X, y, accept_sparse="csr", reset=False)
        ws = open_workspace(X, device=self.device)
        known, codes = encoded_labels(on_host(y), on_host(self.classes_))
        groups, label = torch.from_numpy(codes).to(ws.device), f"{type(self).__name__}, {self.similarity} similarity"
        sums = without_cells(class_sums, rows_of(X, ws), features, groups, len(known), self.batch_size)
        added = release(privacy, former.noise(), sums, sizes(groups, len(known)), features.count, features.gain, label)
        sketch = merge_sketches(added._replace(classes=former.classes), former)
        return keep(self, ws, sketch, features, **described(sketch, features))

    def class_similarities(self, X):
        """Return the mean similarity of each row to the private rows of each class.

        Parameters
        ----------
        X : array-like, tensor or CSR matrix of shape (n_queries, n_features)
            The rows.

        Returns
        -------
        similarities : array of shape (n_queries, n_classes)
            With `similarity="linear"` twice the product with the mean of the class, less its squared length.
        """
        ws, similarities, _ = self._similarities(X, "class_similarities")
        return ws.store(similarities.to(ws.dtype))

    def decision_function(self, X):
        """Return the score of each class.

        Parameters
        ----------
        X : array-like, tensor or CSR matrix of shape (n_queries, n_features)
            The rows.

        Returns
        -------
        scores : array of shape (n_queries, n_classes), or (n_queries,) for two classes
            For two classes the logarithm of the ratio of probabilities.
        """
        ws, scores, probabilities = self._scores(X, "decision_function")
        if scores.shape[1] == 2:
            scores = probabilities[:, 1].log() - probabilities[:, 0].log()
        return ws.store(scores.to(ws.dtype))

    def predict(self, X):
        """Return the class with the highest score.

        Parameters
        ----------
        X : array-like, tensor or CSR matrix of shape (n_queries, n_features)
            The rows.

        Returns
        -------
        labels : array of shape (n_queries,)
        """
        ws, scores, _ = self._scores(X, "predict")
        index = scores.argmax(1)
        if isinstance(self.classes_, np.ndarray):
            return self.classes_[index.cpu().numpy()]
        return ws.store(ws.load(self.classes_)[index])

    def predict_proba(self, X):
        """Return the shares of the classes in the score: a Parzen posterior where a score is above zero.

        Parameters
        ----------
        X : array-like, tensor or CSR matrix of shape (n_queries, n_features)
            The rows.

        Returns
        -------
        probabilities : array of shape (n_queries, n_classes)
        """
        ws, _, probabilities = self._scores(X, "predict_proba")
        return ws.store(probabilities.to(ws.dtype))

    def score(self, X, y, sample_weight=None):
        """Return the accuracy.

        Parameters
        ----------
        X : array-like, tensor or CSR matrix of shape (n_queries, n_features)
            The rows. A score on private rows is not private.
        y : array-like of shape (n_queries,)
            Their classes, which no error shows.
        sample_weight : array-like of shape (n_queries,), default=None
            Weights of the rows.

        Returns
        -------
        accuracy : float
        """
        return without_cells(accuracy_score, y, self.predict(X), sample_weight=sample_weight)

    def predict_log_proba(self, X):
        """Return the logarithms of the same.

        Parameters
        ----------
        X : array-like, tensor or CSR matrix of shape (n_queries, n_features)
            The rows.

        Returns
        -------
        log_probabilities : array of shape (n_queries, n_classes)
        """
        ws, _, probabilities = self._scores(X, "predict_log_proba")
        return ws.store(probabilities.log().to(ws.dtype))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.sparse = True
        tags.non_deterministic = True
        return partitioned(tags)

    def _fit(self, X, y, classes):
        """Fit with classes from a parameter or from :meth:`partial_fit`."""
        privacy = self._privacy_options()
        X, y = check_hiding_cells(check_fit_rows, self, X, y, accept_sparse="csr")
        ws = open_workspace(X, device=self.device)
        known, codes = encoded_labels(on_host(y), classes)
        groups, label = torch.from_numpy(codes).to(ws.device), f"{type(self).__name__}, {self.similarity} similarity"
        rows = rows_of(X, ws)
        features, noise = class_features(options(self, ClassOptions), rows, len(known), privacy, sparse=issparse(X))
        sums = without_cells(class_sums, rows, features, groups, len(known), self.batch_size)
        sketch = release(privacy, noise, sums, sizes(groups, len(known)), features.count, features.gain, label)
        if self.similarity != "linear" and are_mostly_noise(sketch, features):
            warn(MOSTLY_NOISE.format(self.bandwidth, self.epsilon), UserWarning)
        sketch = sketch._replace(classes=known if isinstance(y, np.ndarray) else torch.from_numpy(known))
        return keep(self, ws, sketch, features, **described(sketch, features))

    def _features(self):
        if hasattr(self, "frequencies_"):
            return recall(self, CosineFeatures, None).on_host()
        return recall(self, BallFeatures, None)

    def _similarities(self, X, method):
        """Return the workspace of rows, their similarities, and the sizes of the classes, in float64."""
        X = check_hiding_cells(check_new_data, self, X, like="sketch_", method=method, accept_sparse="csr")
        ws, features = open_workspace(X, device=self.device), self._features()
        exact = ws.exact()
        counts, sketch = exact.load(self.class_counts_).clamp(min=1.0), exact.load(self.sketch_)
        rows = X if issparse(X) else exact.load(X)
        if isinstance(features, CosineFeatures):
            return ws, kernel_answers(rows, features, sketch) / counts, counts
        return ws, ball_answers(rows, features, sketch / counts[:, None]), counts

    def _scores(self, X, method):
        """Return the workspace of rows, their scores, and the probabilities that follow from these."""
        ws, scores, counts = self._similarities(X, method)
        if hasattr(self, "frequencies_"):
            weights = class_weights(self.class_weighting, counts)
            scores = scores * weights
            shares = parzen_shares(scores, self.noise_std_ * weights / counts)
        else:
            shares = (2 * scores).softmax(1)
        return ws, scores, (1 - scores.shape[1] * _LEAST) * shares + _LEAST
