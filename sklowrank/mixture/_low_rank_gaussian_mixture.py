"""Mixture of low-rank Gaussians: a density whose clusters are affine subspaces, for many features and few rows."""

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import fitted_attributes, keep, options, recall
from .._core.iterate import drive
from .._core.rows import rows_of
from .._core.tags import partitioned
from .._core.validation import check_fit_data, check_fit_rows, check_new_data
from .._core.workspace import open_workspace
from .._math.em import EMState, best_restarts, run_restarts
from ..cluster._k_subspaces_starts import warn_of_fewer
from ._density import LowRankDensityMixin, described
from ._diffusion import denoising_descent, diffusion_options
from ._problem import MixtureOptions, mixture_problem
from ._starts import mixture_starts
from ._stream import StreamStatistics, batch_statistics, blend, model_from, statistics_of


class LowRankGaussianMixture(CallbackSupportMixin, LowRankDensityMixin, BaseEstimator):
    """Mixture of Gaussians whose covariances are low-rank plus noise.

    A drop-in for :class:`~sklearn.mixture.GaussianMixture` where a cluster has few rows for its number of features: a
    component has about `n_features * n_dims` parameters instead of `n_features ** 2 / 2`. It clusters, estimates the
    density, samples, denoises, and returns the gradient of the log density that diffusion models learn. For round
    clusters with few features :class:`~sklearn.mixture.GaussianMixture` does as well; nonlinear clusters suit neither.

    Parameters
    ----------
    n_components : int, default=8
        Number of components. One component is probabilistic principal component analysis.
    n_dims : int, "auto" or sequence of n_components ints, default="auto"
        Dimension of the subspaces. It is below `n_features`; a larger one explains more variance as signal and leaves
        less as noise. "auto" estimates it by singular-value thresholding (Gavish and Donoho [4]_) in the initial
        clusters; all components start with the median. After 10 iterations components of at least 30 rows get the
        dimension of their own rows if that lowers the BIC. Dead, repeated and rare columns do not count.
    affine : bool, default=True
        Whether subspaces are affine, with an offset each, rather than linear. Linear ones have the mean zero.
    spectrum : {"free", "isotropic"}, default="free"
        One signal variance for each direction of a component, or one for all of them.
    noise : {"shared", "component"}, default="shared"
        One noise variance, or one for each component, which needs more rows.
    weights : {"free", "uniform"}, default="free"
        Whether to learn the weights of the components, or to keep them equal.
    solver : {"em", "diffusion"}, default="em"
        Algorithm of the fit. "em" is expectation maximisation; "diffusion" descends the denoising loss of diffusion
        models by stochastic gradients, slower and less exact, with noise levels of your choice.
    solver_params : dict or None, default=None
        Options of ``solver="diffusion"``; "em" has none. Keys and defaults: "batch_size", 256, rows per step;
        "learning_rate", 0.02, step size of Adam, which falls to 0 along a cosine; "max_steps", 1500;
        "noise_log_mean", log(0.3), and "noise_log_std", 1.2, mean and standard deviation of the logarithm of the
        noise's standard deviation, in units of the root mean square of the centred X.
    init : {"auto", "kmeans", "tsc", "omp", "lsr", "k-subspaces", "random"}, array-like or callable, default="auto"
        Initialisation of the fit. "tsc", "omp" and "lsr" are the graphs of
        :class:`~sklowrank.cluster.ThresholdedSubspaceClustering`,
        :class:`~sklowrank.cluster.SparseSubspaceClusteringOMP` and
        :class:`~sklowrank.cluster.LeastSquaresSubspaceClustering`; "k-subspaces" is the best of 20 random starts of
        :class:`~sklowrank.cluster.KSubspaces`. "auto" makes all of these (2 random starts where the dimensions sum to
        at most half of `n_features`) and with `affine` `n_init` times "kmeans", runs 10 iterations from each and
        finishes the two with the best likelihood. An array of shape (n_samples,) holds the label of each row; a
        callable is called as ``init(X, n_components, random_state)`` and returns one. Above 5000 rows the starts are
        compared on 5000 of them.
    n_init : int, default=3
        Number of starts; the best one wins. For "kmeans" and "random".
    max_iter : int, default=200
        Maximum number of iterations. They are those of "em", after the start.
    tol : float, default=1e-4
        Tolerance of the stopping criterion. "em" stops when the mean log-likelihood gains less, in nats.
    noise_floor : float, default=1e-6
        Least noise variance, as a share of the mean variance of the features.
    warm_start : bool, default=False
        Whether `fit` starts from the former fit. `n_dims`, `affine`, `spectrum`, `noise` and `weights` may differ from
        it; `n_components` and `n_features` may not.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It is used by the starts, by
        ``solver="diffusion"`` and by `sample`.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration.

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
        Most probable component of each training row, as `predict` returns it.
    lower_bound_ : float
        Mean log-likelihood of a training row under the fitted model.
    lower_bounds_ : list of float
        The same after each iteration of the best run; for "diffusion" only the last.
    n_iter_ : int
        Number of iterations of EM, steps of "diffusion", or batches of `partial_fit`.
    converged_ : bool
        Whether the last iteration of EM gained less than `tol`, or "diffusion" made all its steps.
    init_used_ : str
        Name of the best start; "array" or "callable" for given labels, "warm start" for a former fit.
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
    noise variance is the mean of the remaining eigenvalues. The likelihood never decreases. Noise of variance
    :math:`g^2` added to the data adds :math:`g^2` to :math:`\\sigma_k^2` alone, which gives the best denoiser and the
    gradient of the log density in closed form. For one component the principal components minimise the denoising loss
    [1]_.

    The likelihood has many local maxima, and random starts end in poor ones where clusters have few rows; hence the
    starts from graphs. They are compared after iterations of generalised EM, in which bases are improved by one step of
    block power iteration; the best two go on with it until an iteration gains at most 0.001 nats a row. The highest
    likelihood need not give the best labels: name the start if you know the data.

    An iteration costs O(n_samples n_features sum(n_dims)) for the responsibilities and O(n_samples n_features²) for the
    scatter matrices. Rows are read in blocks; only labels grow with n_samples. With more than 512 features and more
    rows than fit a block, an iteration makes one step of block power iteration instead of an eigendecomposition. Sums
    and eigenvectors are in float64 also for float32 data.

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
    >>> model = LowRankGaussianMixture(3, n_dims=3, affine=False, random_state=0).fit(X)
    >>> clustering_accuracy(y, model.labels_)
    1.0
    >>> model.transform(X).shape
    (120, 9)
    """

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_dims": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), "array-like"],
        "affine": ["boolean"],
        "spectrum": [StrOptions({"free", "isotropic"})],
        "noise": [StrOptions({"shared", "component"})],
        "weights": [StrOptions({"free", "uniform"})],
        "solver": [StrOptions({"em", "diffusion"})],
        "solver_params": [dict, None],
        "init": [
            StrOptions({"auto", "kmeans", "tsc", "omp", "lsr", "k-subspaces", "random"}),
            "array-like",
            callable,
        ],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "noise_floor": [Interval(Real, 0, None, closed="left")],
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
        affine: bool = True,
        spectrum: Literal["free", "isotropic"] = "free",
        noise: Literal["shared", "component"] = "shared",
        weights: Literal["free", "uniform"] = "free",
        solver: Literal["em", "diffusion"] = "em",
        solver_params: dict[str, Any] | None = None,
        init: ArrayLike | Callable[..., Any] | str = "auto",
        n_init: int = 3,
        max_iter: int = 200,
        tol: float = 1e-4,
        noise_floor: float = 1e-6,
        warm_start: bool = False,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.n_dims = n_dims
        self.affine = affine
        self.spectrum = spectrum
        self.noise = noise
        self.weights = weights
        self.solver = solver
        self.solver_params = solver_params
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.noise_floor = noise_floor
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
        generator = ws.generator
        descent = diffusion_options(self.solver_params)
        rows = rows_of(X, ws)
        former = self._model(ws) if self.warm_start and hasattr(self, "means_") else None
        problem = mixture_problem(rows, sample_weight, options(self, MixtureOptions), ws, generator, former)
        starts, form = mixture_starts(problem, former)
        if self.solver == "em":
            steps, limits = run_restarts(problem.rows, starts, form, tol=self.tol), {}
        else:
            steps = denoising_descent(problem.rows, starts[0], form, descent)
            limits = {"max_iter": descent.max_steps, "tol": 0.0}
        describe = partial(described, problem, form, ws.dtype, self.tol)
        run = drive(self, steps, attributes=lambda at: fitted_attributes(ws, **describe(at)), X=X, y=y, **limits)
        found = describe(run.state)
        warn_of_fewer(found["labels_"], self.n_components, "n_components", starved=run.state.starved)
        curve = {"loss_curve_": run.loss_curve} if self.solver == "diffusion" else {}
        return keep(self, ws, **found, n_iter_=run.n_iter, **curve)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None) -> Self:
        """Update the mixture with a batch of rows, by stepwise EM; the first batch starts it.

        The statistics of batch t, counted from 0, enter with the weight ``(t + 2) ** -0.6``; older ones decay.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The batch; the first needs at least `n_components` rows, and more make a better start.
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
        generator = ws.generator
        rows = rows_of(X, ws)
        if first:
            problem = mixture_problem(rows, sample_weight, options(self, MixtureOptions), ws, generator)
            starts, form = mixture_starts(problem)
            (start,) = best_restarts(problem.rows, starts, form, n_iter=self.max_iter, keep=1)
            statistics, name, seen = batch_statistics(problem.rows, start.model, form), start.name, 0
        else:
            former, name = self._model(ws), self.init_used_
            asked = options(self, MixtureOptions, n_dims=former.n_dims)
            problem = mixture_problem(rows, sample_weight, asked, ws, generator, former, at_least=1)
            (start,), form = mixture_starts(problem, former)
            streamed = hasattr(self, "_fitted")
            old = recall(self, StreamStatistics, ws.exact()) if streamed else statistics_of(former)
            # a fit counts as the batches of this size that it could have been
            seen = self.n_iter_ if streamed else max(1, len(self.labels_) // len(rows))
            statistics = blend(old, batch_statistics(problem.rows, start.model, form), (seen + 2) ** -0.6)
        model = model_from(statistics, form)
        state = EMState(model._replace(means=model.means - problem.rows.shift), [], name=name)
        return keep(self, ws, statistics, **described(problem, form, ws.dtype, self.tol, state), n_iter_=seen + 1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)
