"""Functional Tucker regression: a small core tensor times smooth random functions of each coordinate."""

from collections.abc import Sequence
from functools import partial
from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import fitted_attributes, keep, options, recall
from .._core.iterate import drive
from .._core.validation import check_count, check_new_data, is_integer
from .._core.workspace import open_workspace
from ._coordinates import TuckerOptions, check_coordinates, checked_options, tucker_problem
from ._functional_tucker_model import TuckerModel, described, drawn, functions_at, predicted
from ._functional_tucker_solver import sweeps
from ._state_space import ORDERS

NOT_CONVERGED = "Raise max_iter or tol, or lower rank."


class FunctionalTuckerRegressor(CallbackSupportMixin, RegressorMixin, BaseEstimator):
    """Regress on coordinates by a low-rank tensor whose factors are smooth functions.

    Every column of X is a coordinate, such as latitude, longitude and time, or dose and temperature. The response is a
    small core tensor contracted with a few smooth random functions of each coordinate. Coordinates need no grid and no
    binning; predictions between the training coordinates are those of Gaussian processes, with standard deviations. For
    2 to about 6 columns and up to millions of rows, where a :class:`~sklearn.gaussian_process.GaussianProcessRegressor`
    is too slow, and the response is closer to a sum of few products of functions than to the axis-aligned steps of
    trees.

    Parameters
    ----------
    rank : int or sequence of int of length n_features, default=3
        Number of functions of each coordinate, at least 1. More functions describe finer interactions; cost grows
        with the product of the ranks for a Tucker core.
    core : {"auto", "tucker", "cp"}, default="auto"
        Core tensor. "tucker" learns all of its entries; "cp" is the identity tensor, with equal ranks, for many
        columns. "auto" is "tucker" up to 6 columns and 256 entries, else "cp".
    kernel : {"matern12", "matern32", "matern52"} or sequence of these, default="matern32"
        Kernel of the functions, for all coordinates or for each: continuous, once and twice differentiable functions.
    length_scale : float or sequence of float, default=0.3
        Length scale of the functions, above 0, in units of the range of the coordinate; where it is learned this is the
        initial one.
    signal_variance : float, default=1.0
        Prior variance of each function, above 0, for y of unit variance.
    categorical_features : array-like of int or bool, default=None
        Indices or mask of columns whose values are labels. Their functions are independent values for each label.
    fit_intercept : bool, default=True
        Whether to fit intercepts. If True, the mean of y is subtracted; if False, y is only divided by its root mean
        square, which needs fewer functions for positive responses that are products.
    optimize_hyperparameters : bool, default=True
        Whether to learn length scales, by the marginal likelihood of each coordinate's functions in every third sweep.
    noise_prior : (float, float), default=(1e-3, 1e-3)
        Shape and rate of the Gamma prior of the noise precision, both above 0, for y of unit variance.
    damping : float, default=0.0
        Weight of the former message where functions are updated, at least 0 and below 1, but for the sweeps in which
        length scales are learned. The bound does not fall with any value; 0 is the fastest as a rule.
    max_iter : int, default=100
        Maximum number of iterations. An iteration is a sweep over all coordinates, core and noise.
    tol : float, default=1e-5
        Tolerance of the stopping criterion. The relative rise of the bound in a sweep.
    n_init : int, default=1
        Number of starts; the best one wins. It has the highest bound; time is proportional to `n_init`.
    batch_size : int or "auto", default="auto"
        Number of rows processed at once; it bounds memory and does not change the result. "auto" bounds a block of rows
        to 32 MiB.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. They make the start.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration.

    Attributes
    ----------
    core_ : array of shape (R_1, ..., R_K) or (R,)
        Posterior mean of the core; ones (R,) for "cp".
    core_covariance_ : array of shape (P, P)
        Posterior covariance of the P entries of the core. Only for "tucker".
    mode_values_ : list of n_features arrays of shape (T_k,)
        Distinct coordinates of the training rows, sorted.
    mode_means_ : list of n_features arrays of shape (T_k, R_k)
        Posterior means of the functions at these.
    mode_covariances_ : list of n_features arrays of shape (T_k, R_k, R_k)
        Posterior covariances of the functions of a coordinate at each of these.
    length_scale_ : array of shape (n_features,)
        Length scales, in units of the range of each coordinate.
    noise_variance_ : float
        Noise variance in squared units of y.
    intercept_ : float
        Mean of y; 0 without `fit_intercept`.
    scale_ : float
        Divisor of y, the standard deviation of y or its root mean square.
    loss_curve_ : list of float
        Minus the lower bound of the log evidence after each sweep, for y divided by `scale_`; it does not rise.
    n_iter_ : int
        Number of sweeps.
    n_features_in_ : int
        Number of columns of X seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X, where they are strings.

    See Also
    --------
    sklearn.gaussian_process.GaussianProcessRegressor : No low rank, any kernel; up to some thousand rows.
    sklearn.ensemble.HistGradientBoostingRegressor : Responses with jumps, and columns that are no coordinates.
    sklowrank.recommend.MatrixFactorizationRegressor : Two columns of identifiers.

    Notes
    -----
    The model of a row with coordinates :math:`x_1, ..., x_K` is

    .. math:: y = \\sum_{r_1, ..., r_K} G_{r_1 ... r_K} \\prod_k u^k_{r_k}(x_k) + \\varepsilon, \\qquad
        u^k_r \\sim GP(0, \\text{Matérn}), \\quad G_r \\sim N(0, 1), \\quad \\varepsilon \\sim N(0, 1 / \\tau)

    with a Gamma prior on :math:`\\tau`. A variational posterior with independent core, noise and functions of each
    coordinate is found by coordinate ascent [1]_, for "cp" with momentum; its lower bound of the evidence does not
    fall. Functions are Markov chains of states with one to three entries, which are smoothed by dense products over
    stretches of some points and a scan over the stretches [2]_: time is linear in the distinct coordinates, and no
    matrix between all of them is formed. Rows with equal coordinates are merged without loss.

    A sweep over n distinct rows costs O(n q²) with q the product of the other coordinates' ranks, halved for each of
    them by symmetry, plus O(T (R s)³) for T distinct coordinates and kernels of smoothness s - 1/2, plus O(P³). Memory:
    O(T q²) and a block of rows. Everything is in float64. The start is random: another `random_state` can end at
    another optimum.

    Standard deviations that include the noise are close to calibrated. Those of the latent function can be too small:
    the posterior takes core and functions for independent, and describes one optimum alone.

    References
    ----------
    .. [1] S. Fang, X. Yu, Z. Wang, S. Li, R. M. Kirby, S. Zhe, "Functional Bayesian Tucker decomposition for
       continuous-indexed tensor data", ICLR 2024.
    .. [2] S. Särkkä, Á. F. García-Fernández, "Temporal parallelization of Bayesian smoothers", IEEE Transactions on
       Automatic Control 66(1), 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.tensor import FunctionalTuckerRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(size=(300, 2))
    >>> y = np.sin(6 * X[:, 0]) * np.exp(X[:, 1]) + 0.1 * rng.normal(size=300)
    >>> model = FunctionalTuckerRegressor(2, random_state=0).fit(X[:200], y[:200])
    >>> round(model.score(X[200:], y[200:]), 2)
    0.99
    >>> mean, std = model.predict([[0.5, 0.5], [99.0, 99.0]], return_std=True)  # within the data, and far away
    >>> bool(std[1] > 3 * std[0])
    True
    """

    _parameter_constraints = {
        "rank": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "core": [StrOptions({"auto", "tucker", "cp"})],
        "kernel": [StrOptions(set(ORDERS)), "array-like"],
        "length_scale": [Interval(Real, 0, None, closed="neither"), "array-like"],
        "signal_variance": [Interval(Real, 0, None, closed="neither")],
        "categorical_features": ["array-like", None],
        "fit_intercept": ["boolean"],
        "optimize_hyperparameters": ["boolean"],
        "noise_prior": ["array-like"],
        "damping": [Interval(Real, 0, 1, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # Set by fit
    core_: np.ndarray
    core_covariance_: np.ndarray
    mode_values_: list[np.ndarray]
    mode_means_: list[np.ndarray]
    mode_covariances_: list[np.ndarray]
    length_scale_: np.ndarray
    noise_variance_: float
    intercept_: float
    scale_: float
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        rank: int | Sequence[int] = 3,
        *,
        core: Literal["auto", "tucker", "cp"] = "auto",
        kernel: str | Sequence[str] = "matern32",
        length_scale: float | Sequence[float] = 0.3,
        signal_variance: float = 1.0,
        categorical_features: ArrayLike | None = None,
        fit_intercept: bool = True,
        optimize_hyperparameters: bool = True,
        noise_prior: tuple[float, float] = (1e-3, 1e-3),
        damping: float = 0.0,
        max_iter: int = 100,
        tol: float = 1e-5,
        n_init: int = 1,
        batch_size: int | Literal["auto"] = "auto",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.rank = rank
        self.core = core
        self.kernel = kernel
        self.length_scale = length_scale
        self.signal_variance = signal_variance
        self.categorical_features = categorical_features
        self.fit_intercept = fit_intercept
        self.optimize_hyperparameters = optimize_hyperparameters
        self.noise_prior = noise_prior
        self.damping = damping
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None) -> Self:
        """Fit core, functions, noise and length scales.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The coordinates.
        y : array-like of shape (n_samples,)
            The responses.
        sample_weight : array-like of shape (n_samples,), default=None
            Numbers of observations, at least 0: a row of weight 2 is the same as two rows, one of weight 0 as none.

        Returns
        -------
        self : FunctionalTuckerRegressor

        Raises
        ------
        ValueError
            If y has several columns, or a parameter does not fit the columns of X.
        """
        X, y = check_coordinates(self, X, y)
        chosen = checked_options(options(self, TuckerOptions), X.shape[1])
        ws = open_workspace(X, device=self.device, random_state=self.random_state).exact()
        problem = tucker_problem(X, y, sample_weight, chosen, ws)
        describe = partial(described, problem)

        def attributes(state):
            model, public = describe(state)
            return fitted_attributes(ws, model, **public)

        run = drive(self, sweeps(problem, ws), attributes=attributes, X=X, y=y, advice=NOT_CONVERGED)
        model, public = describe(run.state)
        return keep(self, ws, model, **public, loss_curve_=run.loss_curve, n_iter_=run.n_iter)

    def predict(self, X, return_std=False):
        """Predict y, on demand with standard deviations.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The coordinates. Far outside of the training coordinates predictions revert to `intercept_`.
        return_std : bool or "latent", default=False
            Whether to return standard deviations: True includes the noise, "latent" is that of the regression function
            alone, which can be too small: the posterior ignores how core and functions depend on one another.

        Returns
        -------
        y : array of shape (n_samples,)
            Posterior means.
        std : array of shape (n_samples,)
            Standard deviations, where `return_std`.
        """
        X = check_new_data(self, X, method="predict", like="core_")
        if not (isinstance(return_std, bool | np.bool_) or return_std == "latent"):
            raise ValueError(f"return_std={return_std!r} is not known. Pass True, False or 'latent'.")
        ws = open_workspace(X, device=self.device).exact()
        model = recall(self, TuckerModel, ws)
        mean, variance = predicted(model, ws.load(X), self.batch_size, with_variance=bool(return_std))
        if variance is None:
            return ws.answer(mean)
        variance = variance if return_std == "latent" else variance + model.noise_variance
        return ws.answer(mean), ws.answer(variance.sqrt())

    def sample_y(self, X, n_samples=1, random_state=None):
        """Draw regression functions from the posterior, without noise.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples_X, n_features)
            The coordinates, at which each function is drawn jointly.
        n_samples : int, default=1
            Number of functions.
        random_state : int, RandomState instance or None, default=None
            Seed or generator of the draws.

        Returns
        -------
        y : array of shape (n_samples_X, n_samples)
            The functions' values, a column each.
        """
        n_samples = check_count(n_samples, "n_samples", "sample_y")
        X = check_new_data(self, X, method="sample_y", like="core_")
        ws = open_workspace(X, device=self.device, random_state=random_state).exact()
        values = drawn(recall(self, TuckerModel, ws), ws.load(X), n_samples, self.batch_size, ws.randn)
        return ws.answer(values)

    def factor_functions(self, k, x, return_std=False):
        """Return the functions of one coordinate.

        Parameters
        ----------
        k : int
            Index of the column of X.
        x : array-like of shape (n_points,)
            Coordinates, in the units of that column.
        return_std : bool, default=False
            Whether to return the functions' standard deviations.

        Returns
        -------
        values : array of shape (n_points, R_k)
            Posterior means; core and functions can trade sign and scale.
        std : array of shape (n_points, R_k)
            Square roots of the posterior variances, where `return_std`.
        """
        check_is_fitted(self)
        if not is_integer(k, 0) or k >= self.n_features_in_:
            raise ValueError(f"k={k!r} is no column of X. Pass an index from 0 to {self.n_features_in_ - 1}.")
        ws = open_workspace(self.core_, device=self.device).exact()
        x = ws.load(check_array(x, ensure_2d=False, dtype=np.float64, input_name="x")).ravel()
        mean, covariance = functions_at(recall(self, TuckerModel, ws), k, x)
        if not return_std:
            return ws.store(mean)
        return ws.store(mean), ws.store(covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt())

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags
