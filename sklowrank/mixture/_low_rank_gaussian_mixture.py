"""Mixture of low-rank Gaussians: a density whose clusters are flat pieces, for many features and few rows."""

import math
from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, DensityMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.iterate import drive
from .._core.rows import map_rows, row_weights, rows_of
from .._core.tags import partitioned
from .._core.validation import check_fit_data, check_fit_rows, check_new_data
from .._core.warn import warn
from .._core.workspace import open_workspace
from .._math.linalg import signs_of_largest
from .._math.subspaces import coordinates, first_largest
from ..cluster._k_subspaces_starts import check_dims, check_enough, warn_of_fewer
from ._data import mean_log_likelihood
from ._diffusion import Schedule, denoising_descent
from ._expectation_maximization import Fit, leaders, race
from ._low_rank_gaussian import (
    Model,
    conditional_mean,
    draw,
    gradient,
    log_joint,
    n_parameters,
    nearest_points,
    pad,
    responsibilities,
)
from ._starts import data_and_models
from ._stream import Statistics, batch_statistics, blend, model_from, statistics_of

_LOG_NOISE = math.log(0.3)


class LowRankGaussianMixture(
    CallbackSupportMixin,
    DensityMixin,
    ClusterMixin,
    TransformerMixin,
    ClassNamePrefixFeaturesOutMixin,
    BaseEstimator,
):
    """Mixture of Gaussians that are flat: each varies along a few directions, and the rest is noise.

    A drop-in for :class:`~sklearn.mixture.GaussianMixture` where features are many against the rows of a cluster:
    a component has about `n_features * n_dims` parameters instead of `n_features ** 2 / 2`. It clusters, scores,
    samples, denoises, and gives the score function that diffusion models learn. Where clusters are round and features
    few, :class:`~sklearn.mixture.GaussianMixture` does as well; where they are curved, neither fits.

    Parameters
    ----------
    n_components : int, default=8
        Number of components, at least 1. One component is probabilistic principal component analysis.
    n_dims : int, "auto" or sequence of n_components ints, default="auto"
        Dimension of the components, below `n_features`. Raising it lets them take up more and leaves less as noise.
        "auto" estimates them by singular-value thresholding (Gavish and Donoho [4]_) in the initial clusters; all
        components start with the median. After 10 iterations components of 30 rows or more get the dimension of their
        own rows if that lowers the BIC. Dead, repeated and rare columns do not count.
    mean : {"free", "zero"}, default="free"
        "zero" makes the components linear subspaces through the origin.
    spectrum : {"free", "isotropic"}, default="free"
        A variance for each direction of a component, or one for all of them.
    noise : {"shared", "component"}, default="shared"
        One noise variance, or one for each component, which needs more rows.
    weights : {"free", "uniform"}, default="free"
        Learn the weights of the components, or keep them equal.
    solver : {"em", "diffusion"}, default="em"
        Expectation maximisation, or stochastic gradients of the denoising loss of diffusion models: slower, less exact,
        and for those who want to choose the law of the noise levels.
    init : {"auto", "kmeans", "tsc", "omp", "lsr", "k-subspaces", "random"}, array-like or callable, default="auto"
        Where to start. "tsc", "omp" and "lsr" are the graphs of
        :class:`~sklowrank.cluster.ThresholdedSubspaceClustering`,
        :class:`~sklowrank.cluster.SparseSubspaceClusteringOMP` and
        :class:`~sklowrank.cluster.LeastSquaresSubspaceClustering`; "k-subspaces" is the best of 20 random starts of
        :class:`~sklowrank.cluster.KSubspaces` (of 2 in "auto" where the dimensions sum to half of `n_features` at
        most). "auto" makes all of these and, unless `mean` is "zero", `n_init` times
        "kmeans", runs 10 iterations from each and finishes the two with the best likelihood. An array of shape
        (n_samples,) holds the label of each row; a callable is called as ``init(X, n_components, random_state)`` and
        returns one. Above 5000 rows the start is decided on 5000 of them.
    n_init : int, default=3
        Number of starts by "kmeans" and "random"; the best likelihood wins.
    max_iter : int, default=200
        Iterations of EM at most, after the start.
    tol : float, default=1e-4
        EM stops when the mean log-likelihood of a row gains less, in nats.
    reg : float, default=1e-6
        Floor of the noise variances, as a share of the mean variance of the features.
    batch_size : int, default=256
        Rows in a step of "diffusion". It changes the result.
    learning_rate : float, default=0.02
        Of Adam, for "diffusion"; it falls to 0 along a cosine.
    max_steps : int, default=1500
        Steps of "diffusion".
    noise_log_mean : float, default=log(0.3)
        For "diffusion": mean of the logarithm of the noise's standard deviation, in units of the root mean square of
        the centred X.
    noise_log_std : float, default=1.2
        For "diffusion": standard deviation of that logarithm.
    warm_start : bool, default=False
        Start `fit` from the fitted parameters. `n_dims`, `mean`, `spectrum`, `noise` and `weights` may have changed
        since; `n_components` and `n_features` may not.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seeds the starts, the diffusion solver and `sample`.
    verbose : int, default=0
        1 prints a line per iteration or step.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components,)
        Weights of the components; they sum to 1.
    means_ : ndarray of shape (n_components, n_features)
        Means of the components.
    bases_ : list of n_components ndarrays of shape (n_features, n_dims_[k])
        Orthonormal columns; the largest entry of each is positive.
    variances_ : list of n_components ndarrays of shape (n_dims_[k],)
        Variances of the signal along the columns, descending, in squared units of X and always float64. The variance of
        the data along a column is this plus the noise variance.
    noise_variance_ : ndarray of shape (n_components,)
        Noise variances, in squared units of X and always float64; all equal with shared noise.
    n_dims_ : ndarray of shape (n_components,)
        Dimensions of the components.
    labels_ : ndarray of shape (n_samples,)
        Most probable component of each training row; what `predict` returns for them.
    lower_bound_ : float
        Mean log-likelihood of a training row under the fitted model.
    lower_bounds_ : list of float
        The same after each iteration of the run that won; for "diffusion" only the last.
    n_iter_ : int
        Iterations of EM, steps of "diffusion", or batches of `partial_fit`.
    converged_ : bool
        Whether EM gained less than `tol` in the end, or "diffusion" made all its steps.
    init_used_ : str
        Name of the start that won; "array" or "callable" where labels were given.
    loss_curve_ : list of float
        Denoising loss of each step. Only for "diffusion".
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had names that are strings.

    See Also
    --------
    sklowrank.cluster.KSubspaces : Hard assignments, no density, faster.
    sklearn.mixture.GaussianMixture : Full, tied, diagonal or spherical covariances.

    Notes
    -----
    Component k is :math:`N(\\mu_k, U_k \\Lambda_k U_k^\\top + \\sigma_k^2 I)` with :math:`U_k^\\top U_k = I`. EM
    alternates responsibilities and, for each component, the leading eigenvectors of its weighted scatter matrix; the
    noise variance is the mean of the remaining eigenvalues. The likelihood never falls. Noise of variance :math:`g^2`
    added to the data adds :math:`g^2` to :math:`\\sigma_k^2` alone, so that the best denoiser and the score function
    have closed forms. For one component the denoising loss of a diffusion model is least for the principal components
    [1]_.

    The likelihood has many local maxima, and random starts end in poor ones where clusters have few rows; hence the
    starts from graphs. They are compared after iterations of generalised EM, in which bases are improved by one step of
    block power iteration; so are those of the best two, until an iteration gains at most 0.001 nats a row. The choice
    by likelihood is not a choice by labels: who knows the data may name the start.

    An iteration costs O(n_samples n_features sum(n_dims)) for the responsibilities and O(n_samples n_features²) for the
    scatter matrices, of the rows that a component holds. Rows stream in blocks; nothing but labels grows with
    n_samples. With more than 512 features and more rows than fit a block, each iteration makes one step of block power
    iteration instead of a full eigendecomposition. Sums and eigenvectors are in float64 also for float32 data.

    References
    ----------
    .. [1] P. Wang, H. Zhang, Z. Zhang, S. Chen, Y. Ma, Q. Qu, "Diffusion models learn low-dimensional distributions via
       subspace clustering", 2024.
    .. [2] M. Tipping, C. Bishop, "Mixtures of probabilistic principal component analysers", Neural Computation, 1999.
    .. [3] R. Heckel, H. Bölcskei, "Robust subspace clustering via thresholding", IEEE Transactions on Information
       Theory, 2015.
    .. [4] M. Gavish, D. Donoho, "The optimal hard threshold for singular values is 4/sqrt(3)", IEEE Transactions on
       Information Theory, 2014.

    Examples
    --------
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> from sklowrank.metrics import clustering_accuracy
    >>> from sklowrank.mixture import LowRankGaussianMixture
    >>> X, y, _ = make_union_of_subspaces(120, 20, n_dims=3, n_clusters=3, noise=0.05, random_state=0)
    >>> model = LowRankGaussianMixture(3, n_dims=3, mean="zero", random_state=0).fit(X)
    >>> clustering_accuracy(y, model.labels_)
    1.0
    >>> model.transform(X).shape
    (120, 9)
    """

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_dims": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), "array-like"],
        "mean": [StrOptions({"free", "zero"})],
        "spectrum": [StrOptions({"free", "isotropic"})],
        "noise": [StrOptions({"shared", "component"})],
        "weights": [StrOptions({"free", "uniform"})],
        "solver": [StrOptions({"em", "diffusion"})],
        "init": [
            StrOptions({"auto", "kmeans", "tsc", "omp", "lsr", "k-subspaces", "random"}),
            "array-like",
            callable,
        ],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "reg": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "max_steps": [Interval(Integral, 1, None, closed="left")],
        "noise_log_mean": [Interval(Real, None, None, closed="neither")],
        "noise_log_std": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # Set by fit
    weights_: np.ndarray
    means_: np.ndarray
    bases_: list[np.ndarray]
    variances_: list[np.ndarray]
    noise_variance_: np.ndarray
    n_dims_: np.ndarray
    labels_: np.ndarray
    lower_bound_: float
    lower_bounds_: list[float]
    n_iter_: int
    converged_: bool
    init_used_: str
    loss_curve_: list[float]
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int = 8,
        *,
        n_dims: int | ArrayLike | Literal["auto"] = "auto",
        mean: Literal["free", "zero"] = "free",
        spectrum: Literal["free", "isotropic"] = "free",
        noise: Literal["shared", "component"] = "shared",
        weights: Literal["free", "uniform"] = "free",
        solver: Literal["em", "diffusion"] = "em",
        init: ArrayLike | Callable[..., Any] | str = "auto",
        n_init: int = 3,
        max_iter: int = 200,
        tol: float = 1e-4,
        reg: float = 1e-6,
        batch_size: int = 256,
        learning_rate: float = 0.02,
        max_steps: int = 1500,
        noise_log_mean: float = _LOG_NOISE,
        noise_log_std: float = 1.2,
        warm_start: bool = False,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.n_dims = n_dims
        self.mean = mean
        self.spectrum = spectrum
        self.noise = noise
        self.weights = weights
        self.solver = solver
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.reg = reg
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_steps = max_steps
        self.noise_log_mean = noise_log_mean
        self.noise_log_std = noise_log_std
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None) -> Self:
        """Fit the mixture.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : ignored
            Present for pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, at least 0. A row of weight 2 counts as two rows.

        Returns
        -------
        self : LowRankGaussianMixture
        """
        X = check_fit_rows(self, X, ensure_min_features=2, ensure_min_samples=2)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows = rows_of(X, ws)
        data, form, models, names = self._begin(rows, sample_weight, ws)
        steps, limits = self._steps(data, form, models, ws)

        def attributes(fit):
            return self._attributes(fit, form, data, names, rows, ws)

        run = drive(self, steps, attributes=attributes, X=X, y=y, **limits)
        if run.state.starved:
            warn(
                f"Some of n_components={self.n_components} keep fewer rows than determine a flat of n_dims dimensions, "
                "also after being re-seeded. Lower n_components or n_dims, or add data.",
                ConvergenceWarning,
            )
        vars(self).update(attributes(run.state), n_iter_=run.n_iter)
        for name in ("_statistics", "loss_curve_"):
            vars(self).pop(name, None)
        if not run.state.starved:
            warn_of_fewer(ws.load(self.labels_), self.n_components, "n_components")
        if self.solver == "diffusion":
            self.loss_curve_ = run.loss_curve
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None) -> Self:
        """Update the mixture with a batch of rows, by stepwise EM; the first batch starts it.

        The statistics of batch t, counted from 0, enter with the weight ``(t + 2) ** -0.6``, and older ones fade.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The batch; the first needs `n_components` rows at least, and more make a better start.
        y : ignored
            Present for pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, at least 0.

        Returns
        -------
        self : LowRankGaussianMixture
            `labels_` and `lower_bound_` are those of the batch.
        """
        first = not hasattr(self, "means_")
        if first:
            X = check_fit_data(self, X, ensure_min_features=2, ensure_min_samples=2)
        else:
            X = check_new_data(self, X, method="partial_fit", like="means_")
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows = rows_of(X, ws)
        data, form, models, names = self._begin(rows, sample_weight, ws, warm=not first)
        if first:
            (place, model), *_ = leaders(data, models, form, n_iter=self.max_iter, keep=1)
            statistics, names, seen = batch_statistics(data, model, form), names[place : place + 1], 0
        else:
            old, names, seen = self._statistics_so_far(ws), [self.init_used_], self._batches_so_far(len(rows))
            statistics = blend(old, batch_statistics(data, models[0], form), (seen + 2) ** -0.6)
        model = model_from(statistics, form).moved(-data.shift)
        fit = Fit(model, [mean_log_likelihood(data, model)])
        vars(self).pop("loss_curve_", None)
        vars(self).update(self._attributes(fit, form, data, names, rows, ws), n_iter_=seen + 1)
        self._statistics = [ws.store(part) for part in statistics]
        return self

    def predict(self, X):
        """Return the most probable component of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : array of shape (n_samples,)
        """
        return self._by_blocks(X, "predict", _most_probable)

    def predict_proba(self, X):
        """Return the posterior probability of each component.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        probabilities : array of shape (n_samples, n_components)
        """
        return self._by_blocks(X, "predict_proba", lambda Z, model: responsibilities(log_joint(Z, model))[0])

    def score_samples(self, X):
        """Return the logarithm of the density at each row, in nats.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_density : array of shape (n_samples,)
        """
        return self._by_blocks(X, "score_samples", _log_density)

    def score(self, X, y=None):
        """Return the mean log density of the rows, in nats.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : ignored
            Present for pipelines.

        Returns
        -------
        score : float
        """
        return float(self._log_densities(X, "score").mean())

    def transform(self, X):
        """Return the coordinates of each row in each component, times the component's posterior probability.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        coordinates : array of shape (n_samples, sum(n_dims_))
        """

        def spread(Z, model):
            P = coordinates(Z, model.means, model.bases)[0]
            R = responsibilities(log_joint(Z, model))[0]
            real = (model.bases != 0).any(1).flatten()
            return (R[..., None] * P).flatten(1)[:, real]

        return self._by_blocks(X, "transform", spread)

    def project(self, X):
        """Return the nearest point of the flat of each row's most probable component.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        X_flat : array of shape (n_samples, n_features)
        """
        return self._by_blocks(X, "project", nearest_points, moved=True)

    def denoise(self, X, noise_std):
        """Return the posterior mean of each row, given that Gaussian noise was added to a draw from the mixture.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        noise_std : float
            Standard deviation of the noise in each feature, in units of X, at least 0. Towards 0 the rows come back as
            they are, noise of the model included; towards infinity the mean of the mixture does.

        Returns
        -------
        X_clean : array of shape (n_samples, n_features)
        """
        variance = check_scalar(noise_std, "noise_std", Real, min_val=0) ** 2
        return self._by_blocks(X, "denoise", lambda Z, model: conditional_mean(Z, model, variance), moved=True)

    def score_function(self, X, noise_std=0.0):
        """Return the gradient of the log density with respect to the row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        noise_std : float, default=0.0
            Standard deviation of Gaussian noise that is added to the model first, in units of X, at least 0.

        Returns
        -------
        gradient : array of shape (n_samples, n_features)
            In nats per unit of X.
        """
        variance = check_scalar(noise_std, "noise_std", Real, min_val=0) ** 2
        return self._by_blocks(X, "score_function", lambda Z, model: gradient(Z, model, variance))

    def sample(self, n_samples=1):
        """Draw rows from the mixture.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.

        Returns
        -------
        X : array of shape (n_samples, n_features)
            The rows, component by component.
        labels : array of shape (n_samples,)
            Their components.
        """
        check_is_fitted(self)
        check_scalar(n_samples, "n_samples", Integral, min_val=1)
        ws = open_workspace(self.means_, device=self.device, random_state=self.random_state)
        model = self._model(ws)
        chosen = torch.multinomial(model.weights.cpu(), n_samples, replacement=True, generator=ws.generator)
        labels = chosen.sort()[0].to(ws.device)
        normal = [
            torch.randn(n_samples, width, generator=ws.generator, dtype=torch.float64, device="cpu").to(ws.device)
            for width in (model.variances.shape[1], model.means.shape[1])
        ]
        return ws.store(draw(model, labels, *normal).to(ws.dtype)), ws.store(labels)

    def bic(self, X):
        """Return the Bayesian information criterion on X: the lower the better.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        bic : float
        """
        values = self._log_densities(X, "bic")
        return -2 * float(values.sum()) + self._n_parameters() * math.log(len(values))

    def aic(self, X):
        """Return the Akaike information criterion on X: the lower the better.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        aic : float
        """
        return -2 * float(self._log_densities(X, "aic").sum()) + 2 * self._n_parameters()

    @property
    def _n_features_out(self):
        return sum(U.shape[1] for U in self.bases_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)

    def _begin(self, rows, sample_weight, ws, *, warm=False):
        """Return the rows to iterate on, what the model may learn, the models to start from and their names."""
        K = self.n_components
        n_dims = check_dims(self.n_dims, K, rows.shape[1], name="n_components")
        weights = row_weights(sample_weight, rows, ws)
        n_samples = len(rows) if weights is None else int((weights > 0).sum())
        check_enough(n_samples, len(rows), 1 if warm else K, name="n_components")
        if not (warm or (self.warm_start and hasattr(self, "means_"))):
            return data_and_models(self, rows, weights, n_dims, ws)
        for name, now, before in (
            ("n_components", K, len(self.means_)),
            ("n_features", rows.shape[1], self.means_.shape[1]),
        ):
            if now != before:
                raise ValueError(
                    f"{name}={now}, but the fit so far has {before}. Set it back, or fit anew with warm_start=False."
                )
        before = [U.shape[1] for U in self.bases_]
        return data_and_models(self, rows, weights, before if warm else n_dims, ws, warm=(self._model(ws), before))

    def _steps(self, data, form, models, ws):
        """Return the solver, and the limits that it has of its own."""
        if self.solver == "em":
            return race(data, models, form, tol=self.tol), {}
        law = (self.noise_log_mean, self.noise_log_std)
        schedule = Schedule(self.batch_size, self.learning_rate, self.max_steps, *law)
        steps = denoising_descent(data, models[0], form, schedule, ws.generator)
        return steps, {"max_iter": self.max_steps, "tol": 0.0}

    def _attributes(self, fit, form, data, names, rows, ws):
        """Return the fitted attributes of a state of either solver; labels are those of the attributes as stored."""
        model = fit.model.moved(data.shift)
        signs = torch.stack([signs_of_largest(U.mT) for U in model.bases])[:, None]
        model = model._replace(bases=model.bases * signs)
        bounds = fit.bounds or [mean_log_likelihood(data, fit.model)]
        rounded = Model(*(part.to(ws.dtype).double() for part in model[:3]), *model[3:])
        labels = _of_all_rows(_most_probable, rows, rounded)
        return {
            "weights_": ws.store(model.weights.to(ws.dtype)),
            "means_": ws.store(model.means.to(ws.dtype)),
            "bases_": [ws.store(U[:, :d].to(ws.dtype)) for U, d in zip(model.bases, form.n_dims)],
            "variances_": [ws.store(v[:d]) for v, d in zip(model.variances, form.n_dims)],
            "noise_variance_": ws.store(model.noise),
            "n_dims_": ws.store(torch.tensor(form.n_dims, device=ws.device)),
            "labels_": ws.store(labels),
            "lower_bound_": bounds[-1],
            "lower_bounds_": list(bounds),
            "converged_": fit.gap <= self.tol,
            "init_used_": names[fit.place],
        }

    def _model(self, ws):
        """Return the fitted model in float64."""
        ws = ws.exact()
        bases, variances = pad([ws.load(U) for U in self.bases_], [ws.load(v) for v in self.variances_])
        return Model(ws.load(self.weights_), ws.load(self.means_), bases, variances, ws.load(self.noise_variance_))

    def _statistics_so_far(self, ws):
        if hasattr(self, "_statistics"):
            return Statistics(*(ws.exact().load(part) for part in self._statistics))
        return statistics_of(self._model(ws))

    def _batches_so_far(self, n_rows):
        """Return the number of batches; a fit counts as the batches of `n_rows` rows that it could have been."""
        return self.n_iter_ if hasattr(self, "_statistics") else max(1, len(self.labels_) // n_rows)

    def _n_parameters(self):
        ws = open_workspace(self.means_, device=self.device)
        return n_parameters(
            self._model(ws),
            [U.shape[1] for U in self.bases_],
            centred=self.mean == "free",
            isotropic=self.spectrum == "isotropic",
            shared=self.noise == "shared",
            uniform=self.weights == "uniform",
        )

    def _by_blocks(self, X, method, compute, *, moved=False):
        """Return ``compute(rows, model)`` for all rows; with `moved` it returns points of the rows' space."""
        X = check_new_data(self, X, method=method, like="means_")
        ws = open_workspace(X, device=self.device)
        answer = _of_all_rows(compute, rows_of(X, ws), self._model(ws), moved=moved)
        return ws.store(answer.to(ws.dtype) if answer.is_floating_point() else answer)

    def _log_densities(self, X, method):
        """Return the log densities of the rows as a float64 tensor."""
        X = check_new_data(self, X, method=method, like="means_")
        ws = open_workspace(X, device=self.device)
        return _of_all_rows(_log_density, rows_of(X, ws), self._model(ws))


def _log_density(Z, model):
    return log_joint(Z, model).logsumexp(1)


def _most_probable(Z, model):
    return first_largest(log_joint(Z, model))


def _of_all_rows(compute, rows, model, *, moved=False):
    """Return ``compute(rows, model)`` of all rows, with the origin amid the model: far from it digits are lost."""
    middle = model.weights @ model.means
    near = partial(_near_the_origin, compute, model.moved(-middle), middle, moved)
    return map_rows(rows, near, size=32 * (rows.shape[1] + model.variances.numel()))


def _near_the_origin(compute, model, middle, moved, X):
    answer = compute(X.double() - middle, model)
    return answer + middle if moved else answer
