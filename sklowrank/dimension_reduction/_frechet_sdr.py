"""Fréchet sufficient dimension reduction by networks: features of X that determine the conditional law of y."""

from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_consistent_length

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import options, recall, replace_attributes
from .._core.iterate import drive
from .._core.modes import in_plain_modes
from .._core.standardize import standardization, standardized
from .._core.validation import check_fit_data, check_new_data, on_host
from .._core.workspace import open_workspace
from .._nets.ensembles import ensemble_outputs, restore_ensemble
from .._nets.parameters import NETWORK_CONSTRAINTS, network_parameters
from .._nets.randomness import Randomness
from ._ball_features import ball_features, checked_components, described_balls, fitted_balls
from ._frechet_methods import CONSTRAINTS, FrechetMethods, documented
from ._frechet_sdr_solver import Model, Options, described, network_problem, training


@documented
@network_parameters(
    width="width",
    follows=", a linear layer behind it",
    module_params='``"module__activation"`` ("gelu", "relu", "tanh" or "identity", default "gelu") and '
    '``"module__dropout"`` (default 0.1)',
)
class FrechetSDR(CallbackSupportMixin, FrechetMethods, BaseEstimator):
    """Reduce X to a few nonlinear features that explain y, whatever y is made of.

    Responses may be numbers, vectors, classes, probability distributions, positive definite matrices, directions, or
    anything with distances: small networks learn the features that best predict in which balls of responses a row lies.
    Only the order of distances counts, so outliers among the responses have little influence. For nonlinear relations
    and some hundreds of rows or more, before a plot, a nearest-neighbour or a Fréchet regression. Where the relation is
    linear, :class:`LinearFrechetSDR` or :class:`~sklearn.cross_decomposition.PLSRegression` is as good and much faster.
    For classes keep `n_classes - 1` components: balanced classes have nearly equal eigenvalues, so dropping one
    confuses some classes.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of components. A float in (0, 1) asks for the fewest, of ten at most, that have this share of the sum of
        eigenvalues. There may be more than X has columns, but no more than distinct features of responses.
    <shared metric>
    hidden_layer_sizes : sequence of ints, default=(64, 64)
        Widths of the hidden layers of the default network. A linear map of X is added to their output.
    <network parameters>
    n_estimators : int, default=5
        Number of networks, each of which holds out other rows; their predictions are averaged. Raising it makes
        features better and takes longer.
    <shared balls>
    <shared whiten>
    learning_rate : float, default=3e-3
        Step size of the optimizer.
    weight_decay : float, default=1e-4
        Strength of the weight decay of the optimizer. AdamW, unless `net_params` names another one, subtracts this
        share of the weights, times the step size, in each step.
    batch_size : int or "auto", default="auto"
        Number of rows per training step; it changes the result. At least 32 and four per component. "auto" is n / 16
        between 32 and 64 for up to 4096 training rows, then n / 64, at most 4096.
    max_iter : int, default=200
        Maximum number of iterations. An iteration is an epoch.
    n_iter_no_change : int, default=25
        Number of epochs without an improvement by more than `tol` after which training stops.
    validation_fraction : float, default=0.15
        Share of the training rows that is held out. Each network holds out other rows, which choose its best epoch. It
        is less where `n_estimators` is more than its inverse.
    tol : float, default=3e-3
        Tolerance of the stopping criterion. It is the gain in the mean explained share of the held-out variance.
    <shared standardize>
    <computing parameters>

    Attributes
    ----------
    <shared dependence>
    weights_ : list of n_estimators dicts of ndarrays
        Weights of the networks.
    rotation_ : array of shape (n_estimators * n_outputs, n_components_)
        Matrix from the concatenated outputs of all networks to components.
    intercept_ : array of shape (n_components_,)
        Added to them.
    mean_, scale_ : arrays of shape (n_features,)
        What the columns of X are centred with and divided by; always float64.
    validation_scores_ : array of shape (n_estimators,)
        Share of the held-out variance that each network explains; NaN where nothing was held out.
    loss_curve_ : list of floats
        Mean objective of each epoch.
    n_iter_ : int
        Number of epochs.
    <shared fitted balls>

    See Also
    --------
    KernelFrechetSDR : The same aim by kernel ridge regression: no networks, nothing random up to 1000 rows.
    LinearFrechetSDR : Linear features, fast and easy to interpret.
    frechet_cumulative_covariance : The measure of dependence.

    Notes
    -----
    With centred outputs u of covariance C and indicators :math:`\\phi_f` of balls, of weight :math:`w_f`, each network
    maximises

    .. math:: \\sum_f w_f \\, a_f^\\top C^{-1} a_f , \\qquad a_f = \\tfrac1b \\sum_j u_j \\, \\phi_f(y_j) ,

    over batches of b rows. In the population the optimum is spanned by the leading principal components of the
    conditional means :math:`E[\\phi(y) | x]`. So the regressions of the indicators on the outputs of all networks are
    averaged, and `transform` gives the principal components of the average. Indicators enter as their principal
    components that hold 95 % of their variance. There is no `partial_fit`: balls need all responses.

    Landmarks are chosen by distances alone: an isometry of the responses, such as a rotation on the sphere or
    :math:`y \\mapsto A y A^\\top` under "spd_affine", leaves the features unchanged. The order of the rows decides
    batches and held-out rows, so another order gives another training. Samples of unequal sizes are compared by 100
    quantiles; samples of one size by their order statistics, to which new samples of any size are brought.

    An epoch takes O(n (net + r d)) time for r components of the indicators and d outputs, balls take n times
    `n_landmarks` distances and as many bytes. Training is in float32, what follows in float64.

    References
    ----------
    .. [1] H. Yuan, C. D. Wang, Z. Yu, "Fréchet cumulative covariance net for deep nonlinear sufficient dimension
       reduction with random objects", arXiv:2502.15374, 2025.
    .. [2] Y. Chen, Y. Jiao, R. Qiu, Z. Yu, "Deep nonlinear sufficient dimension reduction", Annals of Statistics 52(3),
       2024.

    Examples
    --------
    >>> from sklowrank.datasets import make_frechet_regression
    >>> from sklowrank.dimension_reduction import FrechetSDR
    >>> X, y, _ = make_frechet_regression(300, response="direction", random_state=0)
    >>> sdr = FrechetSDR(1, metric="sphere", n_estimators=2, tol=0.02, random_state=0).fit(X[:200], y[:200])
    >>> sdr.transform(X[200:]).shape
    (100, 1)
    >>> sdr.score(X[200:], y[200:]) > 0.1  # of the variance of new responses
    True
    """

    _parameter_constraints = {
        **NETWORK_CONSTRAINTS,
        **CONSTRAINTS,
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "whiten": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "standardize": ["boolean"],
    }

    # Set by fit
    components_dependence_: np.ndarray
    dependence_ratio_: np.ndarray
    weights_: list[dict[str, np.ndarray]]
    rotation_: np.ndarray
    intercept_: np.ndarray
    landmarks_: np.ndarray
    landmark_objects_: np.ndarray
    thresholds_: np.ndarray
    feature_means_: np.ndarray
    mean_: np.ndarray
    scale_: np.ndarray
    validation_scores_: np.ndarray
    n_components_: int
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int | float = 2,
        *,
        metric: Callable[..., Any] | str = "auto",
        hidden_layer_sizes: ArrayLike = (64, 64),
        module: Callable[..., Any] | None = None,
        net_params: dict[str, Any] | None = None,
        n_estimators: int = 5,
        n_landmarks: int = 64,
        n_thresholds: int = 16,
        whiten: bool = False,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        batch_size: int | Literal["auto"] = "auto",
        max_iter: int = 200,
        n_iter_no_change: int = 25,
        validation_fraction: float = 0.15,
        tol: float = 3e-3,
        standardize: bool = True,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.metric = metric
        self.hidden_layer_sizes = hidden_layer_sizes
        self.module = module
        self.net_params = net_params
        self.n_estimators = n_estimators
        self.n_landmarks = n_landmarks
        self.n_thresholds = n_thresholds
        self.whiten = whiten
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.n_iter_no_change = n_iter_no_change
        self.validation_fraction = validation_fraction
        self.tol = tol
        self.standardize = standardize
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Train the networks and average them.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Features, at least two rows.
        y : array-like of shape (n_samples, ...)
            Responses, in the form that `metric` asks for.

        Returns
        -------
        self : FrechetSDR

        Raises
        ------
        ValueError
            If a response is not what `metric` asks for, or all are equal.
        """
        X = check_fit_data(self, X, None if y is None else "no_validation", ensure_min_samples=2)
        check_consistent_length(X, y := on_host(y))
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        seeds_global = self.module is not None or bool(self.net_params)
        randomness = Randomness(ws.generator, ws.device, seeds_global=seeds_global)
        mean, scale = standardization(ws.load(X), "columns" if self.standardize else False)
        rows = standardized(ws.load(X), mean, scale, torch.float64)
        shape = {"n_landmarks": self.n_landmarks, "n_thresholds": self.n_thresholds}
        features = ball_features(y, metric=self.metric, device=ws.device, dtype=torch.float32, **shape)
        limits = {"distinct features of the responses": features.targets.shape[1]}
        n_components = checked_components(self.n_components, limits)
        public = {"mean_": mean, "scale_": scale, **described_balls(balls := fitted_balls(features, y))}
        settings = options(self, Options, n_components=n_components)
        problem = network_problem(rows, features, settings, randomness)
        describe = partial(described, problem, balls, public, ws)
        run = drive(self, training(problem), attributes=describe, X=X, y=y)
        return replace_attributes(self, describe(run.state, n_iter_=run.n_iter, loss_curve_=run.loss_curve))

    @in_plain_modes
    def _components(self, X, method):
        """Return the workspace of new rows, in float64, and their components."""
        X = check_new_data(self, X, like="rotation_", method=method)
        ws = open_workspace(X, device=self.device)
        model = recall(self, Model, ws.exact())
        mean, scale = (ws.exact().load(part) for part in (self.mean_, self.scale_))
        rows = standardized(ws.load(X), mean, scale, torch.float64)
        outputs = ensemble_outputs(restore_ensemble(model.architecture, model.weights, ws.device), rows)
        return ws, outputs @ model.rotation + model.intercept

    def _regression(self, Z, ws):
        return Z, recall(self, Model, ws).loadings, range(1, Z.shape[1] + 1)
