"""Differentially private classification by the mean similarity to the rows of each class."""

import math
from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.rows import rows_of
from .._core.tags import partitioned
from .._core.validation import on_host
from .._core.warn import warn
from .._core.workspace import open_workspace
from ._accountant import PrivacyAccountant, PrivacyLeakWarning
from ._ball_sketch import ball_answers, former_ball, make_ball, release_ball, store_ball
from ._families import keep_family
from ._kernels import KERNELS
from ._private_rows import check_private_rows, check_queries, without_cells
from ._release import CONSTRAINTS, merge_sketches, open_terms, read_bounds, spent_of
from ._wave_sketch import former_plan, make_plan, read_bandwidth, release_waves, store_waves, wave_answers

_WIDTH, _WIDTH_IN_BOX = 0.7, 0.15  # of bandwidth "auto", times the root of the number of columns
_LEAST = 1e-12  # probability of a class


class PrivateSimilarityClassifier(ClassifierMixin, BaseEstimator):
    """Classify by the mean similarity to the private rows of each class, from one release.

    One pass over the rows, no gradient steps, and so no accounting of steps: a row is in one class only, so each class
    spends the whole budget. For some hundred rows per class and more. Without privacy
    :class:`~sklearn.neighbors.KNeighborsClassifier` is better. The promise is that of
    :class:`PrivateKernelDensity`, and covers the label with the row.

    Parameters
    ----------
    epsilon : float, default=1.0
        The budget of one fit. Lowering it makes the promise stronger and the noise larger.
    delta : float, default=1e-6
        The delta of (epsilon, delta)-differential privacy, far below 1 / n_samples. 0 is pure differential privacy, by
        Laplace noise.
    similarity : str, default="gaussian"
        A kernel of :class:`PrivateKernelDensity`, or "linear": the nearest mean of rows that are moved into a ball,
        good for embeddings, and under pure differential privacy in many columns.
    bandwidth : float, array-like of shape (n_features,) or "auto", default="auto"
        Width of the kernel in units of X, for all columns or for each, chosen without the data. "auto" is 0.7 times the
        root of the number of columns, for standardised columns; with `bounds` 0.15 times it, columns scaled to 0 to 1.
    bounds : (lowest, highest) or None, default=None
        Ends of each column, numbers or arrays of shape (n_features,), known without looking; rows are moved into them.
    classes : array-like or None, default=None
        The classes, known without looking: then no warning depends on y, and the only error that does is that for a
        label that is not among them. None reads them from y, which reveals classes of a single row.
    class_weighting : {"average", "sum"} or array-like of shape (n_classes,), default="average"
        "average" compares mean similarities, "sum" weights them by the noisy sizes of the classes, numbers by
        themselves, in the order of `classes_`. Not with `similarity="linear"`.
    count_weight : float, default=0.5
        Share of the noisy counts in a release with Gaussian noise, at least 2^-20.
    clip_norm : float or None, default=None
        Radius of the ball of `similarity="linear"`. None is a quarter of the root of the number of columns with
        `bounds`, columns scaled to 0 to 1, and 1 without.
    center : array-like of shape (n_features,) or None, default=None
        Its centre. None is the middle of the bounds, or zero.
    n_components : int or "auto", default="auto"
        Number of random frequencies: "auto" is 1024, or 256 under Laplace noise.
    mechanism : {"auto", "gaussian", "laplace"}, default="auto"
        The noise. "auto" takes, of those that `delta` and the accountant allow, the one with the smaller error.
    neighbors : {"add_remove", "substitute"}, default="add_remove"
        Whether the presence of a row is protected, or its values and its label, with twice the noise.
    accountant : PrivacyAccountant or None, default=None
        The budget that pays, as in :class:`PrivateKernelDensity`.
    noise_backend : {"auto", "opendp", "builtin"}, default="auto"
        Who draws the noise. "auto" is OpenDP where it is installed and nothing is seeded.
    feature_random_state : int, RandomState instance or None, default=None
        Seeds the frequencies, which are public.
    random_state : int, RandomState instance or None, default=None
        None draws noise from the operating system. Anything else makes the noise reproducible: whoever knows the seed
        subtracts it. A small seed need not be known: without `feature_random_state` the frequencies follow from it,
        `frequencies_` is public, and all 2^31 seeds can be tried until they fit. For tests only; it warns with
        `PrivacyLeakWarning`, and `noise_secure_` is False.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    batch_size : int or "auto", default="auto"
        Rows handled at once; no result depends on it.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        The classes, sorted.
    sketch_ : array of shape (n_classes, 2 * n_frequencies), or (n_classes, n_features) with `similarity="linear"`
        The release: whole multiples of 2^-20.
    class_counts_ : array of shape (n_classes,)
        Noisy numbers of rows: labels are protected, so they are never exact.
    n_samples_ : float
        Number of rows: noisy and at least 1, or exact with `neighbors="substitute"`.
    frequencies_, amplitudes_, noise_scale_, noise_std_, sensitivity_, mechanism_, noise_backend_, noise_secure_
        As in :class:`PrivateKernelDensity`; no frequencies with `similarity="linear"`.
    neighbors_, bounds_, privacy_spent_
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
        "center": ["array-like", None],
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
    neighbors_: str
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
        center: ArrayLike | None = None,
        n_components: int | Literal["auto"] = "auto",
        mechanism: Literal["auto", "gaussian", "laplace"] = "auto",
        neighbors: Literal["add_remove", "substitute"] = "add_remove",
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
        self.center = center
        self.n_components = n_components
        self.mechanism = mechanism
        self.neighbors = neighbors
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
        return self._release(X, y, self.classes, first=True)

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
        first = not hasattr(self, "sketch_")
        return self._release(X, y, self.classes if classes is None else classes, first)

    def merge(self, other) -> Self:
        """Add the sketches of another holder of rows, none of which are here; equal frequencies are needed.

        Parameters
        ----------
        other : PrivateSimilarityClassifier
            Fitted with the same parameters, classes and `feature_random_state`.

        Returns
        -------
        self : PrivateSimilarityClassifier
        """
        if not np.array_equal(on_host(self.classes_), on_host(other.classes_)):
            raise ValueError("Only classifiers of the same classes can be merged. Fit both with equal classes.")
        merge_sketches(self, other)
        self.class_counts_ = self.class_counts_ + other.class_counts_
        self.n_samples_ = float(self.n_samples_ + other.n_samples_)
        return self

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

    @property
    def privacy_spent_(self):
        """What was promised to each row."""
        return spent_of(self)

    def __sklearn_clone__(self):
        return keep_family(self, super().__sklearn_clone__())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.sparse = True
        tags.non_deterministic = True
        return partitioned(tags)

    def _release(self, X, y, classes, first):
        terms = open_terms(self, first)
        X, y = check_private_rows(self, X, y, accept_sparse="csr", reset=first)
        ws = open_workspace(X, device=self.device)
        rows, label = rows_of(X, ws), f"{type(self).__name__}, {self.similarity} similarity"
        known, codes = _encoded(on_host(y), classes if first else on_host(self.classes_))
        groups, C = torch.from_numpy(codes).to(ws.device), len(known)
        linear = (self.similarity if first else self._similarity) == "linear"
        bandwidth = self._bandwidth(rows)  # a bad one is refused also where it has no part
        if linear:
            ball = self._ball(rows, terms, C) if first else former_ball(self, terms)
            sums, counts = release_ball(terms, ball, rows, groups, C, self.batch_size, label)
        else:
            plan = self._planned(rows, terms, bandwidth, C) if first else former_plan(self, terms)
            sums, counts = release_waves(terms, plan, rows, groups, C, self.batch_size, ws.device, label)
        for name in ("frequencies_", "amplitudes_") if first else ():  # of a former fit
            vars(self).pop(name, None)
        if linear:
            store_ball(self, terms, ball, sums, ws, first)
        else:
            store_waves(self, terms, plan, sums, ws, first)
        counts, n_samples = torch.from_numpy(counts), float(len(rows))
        if first:
            own = isinstance(y, np.ndarray)
            self.classes_ = known if own else ws.store(torch.from_numpy(known).to(ws.device))
            self.class_counts_ = ws.store(counts)
            self._similarity = self.similarity
        else:
            self.class_counts_ = ws.store(ws.exact().load(self.class_counts_).cpu() + counts)
        if terms.neighbors == "add_remove":
            self.n_samples_ = max(1.0, float(ws.exact().load(self.class_counts_).sum()))
        else:
            self.n_samples_ = n_samples if first else self.n_samples_ + n_samples
        return self

    def _planned(self, rows, terms, bandwidth, C):
        one_each = torch.ones(C, dtype=torch.float64, device="cpu")
        self._weights(one_each)  # bad ones are refused before anything is released
        return make_plan(
            rows,
            terms,
            kernel=self.similarity,
            bandwidth=bandwidth,
            bounds=self.bounds,
            n_components=self.n_components,
            count_weight=self.count_weight,
            n_groups=C,
        )

    def _ball(self, rows, terms, C):
        if not isinstance(self.class_weighting, str) or self.class_weighting != "average":
            raise ValueError("class_weighting has to be 'average' with similarity='linear'.")
        return make_ball(
            rows,
            terms,
            bounds=self.bounds,
            center=self.center,
            clip_norm=self.clip_norm,
            count_weight=self.count_weight,
            n_groups=C,
        )

    def _bandwidth(self, rows):
        """Return the bandwidth of each column."""
        d = rows.shape[1]
        if not (isinstance(self.bandwidth, str) and self.bandwidth == "auto"):
            return read_bandwidth(self.bandwidth, d)
        if self.bounds is None:
            return np.full(d, _WIDTH * math.sqrt(d))
        low, high = read_bounds(self.bounds, rows, False, "")
        return _WIDTH_IN_BOX * math.sqrt(d) * (high - low)

    def _similarities(self, X, method):
        """Return the workspace of rows, their similarities, and the sizes of the classes, in float64."""
        X = check_queries(self, X, like="sketch_", method=method, accept_sparse="csr")
        ws = open_workspace(X, device=self.device)
        exact = ws.exact()
        counts, sketch = exact.load(self.class_counts_).clamp(min=1.0), exact.load(self.sketch_)
        if self._similarity != "linear":
            rows = X if issparse(X) else exact.load(X)
            parts = (exact.load(part) for part in (self.frequencies_, self._plan[0]))
            sums = wave_answers(rows, *parts, sketch, exact.load(self._plan[4]))
            return ws, sums / counts, counts
        rows = X if issparse(X) else exact.load(X)
        origin, unit = (exact.load(part) for part in self._plan[:2])
        return ws, ball_answers(rows, origin, unit, sketch / counts[:, None]), counts

    def _scores(self, X, method):
        """Return the workspace of rows, their scores, and the probabilities that follow from these."""
        ws, scores, counts = self._similarities(X, method)
        if self._similarity == "linear":
            shares = (2 * scores).softmax(1)
        else:
            weights = self._weights(counts)
            scores, noise = scores * weights, self.noise_std_ * weights / counts
            positive = scores.clamp(min=0)
            total = positive.sum(1, keepdim=True)
            shares = torch.where(total > 0, positive / total.clamp(min=torch.finfo(total.dtype).tiny), 0.0)
            shares = torch.where(total > 0, shares, (scores / noise.amax()).softmax(1))
        return ws, scores, (1 - scores.shape[1] * _LEAST) * shares + _LEAST

    def _weights(self, counts):
        """Return what the mean similarity to each class is multiplied by."""
        if isinstance(self.class_weighting, str):
            return counts if self.class_weighting == "sum" else torch.ones_like(counts)
        weights = np.asarray(self.class_weighting, dtype=float)
        if weights.shape != counts.shape or not ((weights > 0) & np.isfinite(weights)).all():
            raise ValueError(f"class_weighting has to hold {len(counts)} numbers above 0, one for each of classes_.")
        return torch.from_numpy(weights).to(counts)


def _encoded(y, classes):
    """Return the classes, sorted, and the place of each label; messages never name a label.

    Where the classes are public, labels are only compared with them: no warning or error depends on how many there are.
    """
    y = np.asarray(y)
    if classes is None:
        warn(
            "classes are read from y, which reveals a class even if it has a single row. Pass classes that you know "
            "without looking.",
            PrivacyLeakWarning,
        )
        without_cells(check_classification_targets, y)
        return without_cells(np.unique, y, return_inverse=True)
    known = _public_classes(classes)
    codes = without_cells(_places, y, known)
    if (codes < 0).any():
        raise ValueError("y has labels that are not among classes. Name all of them, or leave their rows out.")
    return known, codes


def _places(y, known):
    """Return the place of each label among sorted classes, -1 where it is none of them."""
    if y.dtype.kind == known.dtype.kind and y.dtype.kind in "biuU":
        codes = np.searchsorted(known, y).clip(max=len(known) - 1)
        return np.where(known[codes] == y, codes, -1)
    places = {label: i for i, label in enumerate(known.tolist())}
    return np.array([places.get(label, -1) for label in y.tolist()], dtype=np.int64)


def _public_classes(classes) -> np.ndarray:
    """Return the classes that the user names, sorted."""
    try:
        known = np.asarray(on_host(classes))
        usable = known.ndim == 1 and known.size > 0 and not (known.dtype.kind in "fc" and np.isnan(known).any())
        if usable:
            return np.unique(known)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"classes={classes!r} has to be a list of labels, all numbers or all text, without NaN.")
