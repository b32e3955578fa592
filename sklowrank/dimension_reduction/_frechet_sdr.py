"""Fréchet sufficient dimension reduction by networks: features of X that keep what it says about random objects."""

import copy
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, RealNotInt, StrOptions, _fit_context
from .._core.fitted import fitted_attributes, recall
from .._core.iterate import drive
from .._core.modes import in_plain_modes
from .._core.nets import Randomness, as_numpy, build_trunk, split_params, width_of
from .._core.standardize import standardization, standardized
from .._core.validation import check_fit_pairs, check_new_data
from .._core.warn import warn
from .._core.workspace import open_workspace
from ._ball_features import (
    FittedBalls,
    ball_features,
    checked_components,
    described_balls,
    explained_shares,
    fitted_balls,
    restored_balls,
)
from ._frechet_sdr_solver import (
    ACTIVATIONS,
    OneByOne,
    Plan,
    SideBySide,
    average,
    outputs_of,
    split_rows,
    training,
)
from ._metric_spaces import NAMES

_OUTPUTS_OF_SHARE = 10  # of each net, where n_components is a share
_LEAST_ROWS = 10  # to hold some out
_LEAST_BATCH = 32


class FrechetSDR(CallbackSupportMixin, TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):
    """Compress X to a few nonlinear features that keep what it says about y, whatever y is made of.

    Responses may be numbers, vectors, classes, probability distributions, positive definite matrices, directions, or
    anything with distances: small networks learn the features that best predict in which balls of responses a row lies.
    Only the order of distances counts, so responses far out do little harm. For relations that are not linear and some
    hundreds of rows and more, before a plot, a nearest-neighbour or a Fréchet regression. Where the relation is linear,
    :class:`LinearFrechetSDR` or :class:`~sklearn.cross_decomposition.PLSRegression` is as good and much faster. For
    classes keep `n_classes - 1` components: those of balanced classes have nearly equal eigenvalues, so each that is
    dropped blurs some classes.

    Parameters
    ----------
    n_components : int or float, default=2
        Number of features; a float in (0, 1) asks for the fewest, of ten at most, that have this share of the sum of
        eigenvalues. There may be more than X has columns, but no more than distinct features of responses.
    metric : str or callable, default="auto"
        Distance between responses: "euclidean" for numbers (n_samples,) and vectors (n_samples, q), "discrete" for
        labels, "wasserstein" for samples or quantiles of distributions (n_samples, size) or samples of vectors
        (n_samples, size, q), both also of unequal sizes in a list, "spd_log" (or "spd"), "spd_cholesky", "spd_affine"
        for symmetric positive definite matrices (n_samples, k, k) or (n_samples, k * k), "frobenius" for other
        matrices, "sphere" for directions (n_samples, q) of length one, names of
        :func:`scipy.spatial.distance.cdist` such as "manhattan", "precomputed" for distances (n_samples, r) to r
        reference objects, or a function of two rows of y, which may be arrays of unequal sizes in a list. It is called
        about n_samples times `n_landmarks` times, and for all pairs of up to 400 rows. "auto" is "discrete" for strings
        and booleans, else "euclidean".
    hidden_layer_sizes : sequence of ints, default=(64, 64)
        Widths of the default networks' layers. Beside them there is a linear map.
    module : class, callable, torch.nn.Module or None, default=None
        A network of one's own in place of the default one, from (n, n_features) to (n, width); a linear layer follows.
        A class or function is called with the ``module__`` entries of `net_params`, and with `n_features` if it has a
        parameter of that name; an instance is copied. For pickling it has to be importable.
    net_params : dict or None, default=None
        More settings in skorch's names, for example ``{"module__dropout": 0.1, "optimizer": torch.optim.SGD,
        "callbacks": [...]}``. AdamW, unless an optimizer is named. `on_train_end` of callbacks is called however the
        training ends. EarlyStopping ends it; any other KeyboardInterrupt in a callback leaves `fit`, as Ctrl+C does.
    activation : {"gelu", "relu", "tanh"}, default="gelu"
        Of the default networks.
    dropout : float, default=0.1
        Share of the default networks' units that are left out in each step.
    n_estimators : int, default=5
        Number of networks, each of which leaves out other rows; their predictions are averaged. Raising it makes
        features better and takes longer.
    n_landmarks : int, default=64
        Number of responses around which there are balls, spread evenly over all by their distances.
    n_thresholds : int, default=16
        Number of radii of each, 255 at most.
    constraint : {"whiten", "frobenius"}, default="whiten"
        How features are kept apart: their covariance is divided out, or its distance from the identity is penalised,
        as in the paper.
    alpha : float, default=0.1
        Weight of that penalty, in units of the variance to be explained. Only with `constraint="frobenius"`.
    whiten : bool, default=False
        Whether all features have unit variance in training. Otherwise variances are in the proportion of the
        eigenvalues, and the first is one.
    learning_rate : float, default=3e-3
        Step size.
    weight_decay : float, default=1e-4
        Shrinks weights by this share of the step size in each step.
    batch_size : int or "auto", default="auto"
        Rows of a step, at least 32, and four per component. It changes the result. "auto" is a sixteenth of the rows,
        64 of up to 4096, then a sixty-fourth, and 4096 at most.
    max_iter : int, default=200
        Passes through the rows at most.
    patience : int, default=25
        Passes within which the nets have to improve by more than `tol`.
    validation_fraction : float, default=0.15
        Share of the rows that each network leaves out, by which its best pass is chosen. It is less where
        `n_estimators` is more than its inverse.
    tol : float, default=3e-3
        Training ends when the mean share of held-out variance that is explained has gained no more than this within
        `patience` passes.
    scale : bool, default=True
        Whether columns of X are standardised.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seeds weights, batches, dropout and the rows that are left out.
    verbose : int, default=0
        1 prints a line per pass.

    Attributes
    ----------
    components_dependence_ : array of shape (n_components_,)
        Eigenvalues: the variance of the features of responses that each component explains in training, descending.
    dependence_ratio_ : array of shape (n_components_,)
        Their shares of the sum of all eigenvalues found.
    weights_ : list of n_estimators dicts of ndarrays
        Of the networks.
    rotation_ : array of shape (n_estimators * n_outputs, n_components_)
        Makes components of the outputs of all networks next to one another.
    intercept_ : array of shape (n_components_,)
        Added to them.
    landmarks_ : array of shape (m,)
        Rows of the training data around whose responses balls lie, m being `n_landmarks` or fewer; columns of y with
        `metric="precomputed"`.
    landmark_objects_ : array of shape (m, ...)
        Their responses; an array of arrays where these have unequal sizes. Missing with `metric="precomputed"`.
    thresholds_ : array of shape (m, t)
        Radii of the balls, ascending; infinity where a landmark has fewer than others.
    feature_means_ : array of shape (m * t,)
        Share of the training responses in each ball.
    mean_, scale_ : arrays of shape (n_features,)
        What the columns of X are centred with and divided by; always float64.
    validation_scores_ : array of shape (n_estimators,)
        Share of the held-out variance that each network explains; NaN where nothing was held out.
    n_components_ : int
        The number of features.
    loss_curve_ : list of floats
        Mean objective of each pass.
    n_iter_ : int
        Passes run.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any.

    See Also
    --------
    KernelFrechetSDR : The same aim by kernel ridge regression: no networks, nothing random up to 1000 rows.
    LinearFrechetSDR : Linear features, fast and easy to read.
    frechet_cumulative_covariance : The measure of dependence.

    Notes
    -----
    With centred outputs u of covariance C and indicators :math:`\\phi_f` of balls, of weight :math:`w_f`, each network
    maximises

    .. math:: \\sum_f w_f \\, a_f^\\top C^{-1} a_f , \\qquad a_f = \\tfrac1b \\sum_j u_j \\, \\phi_f(y_j) ,

    over batches of b rows. In the population the optimum are the leading principal components of the conditional
    means :math:`E[\\phi(y) | x]`. So the regressions of the indicators on the outputs of all networks are averaged, and
    `transform` gives the principal components of the average. Indicators enter as those of their principal components
    that hold 95 % of their variance. There is no `partial_fit`: balls need all responses.

    Landmarks are chosen by distances alone: an isometry of the responses, such as a rotation on the sphere or
    :math:`y \\mapsto A y A^\\top` under "spd_affine", leaves the features as they are. The order of the rows decides
    which of them fall into which batch and which are left out, so another order gives another training. Samples of
    unequal sizes are compared by 100 quantiles; samples of one size by their order statistics, to which new samples of
    any size are brought.

    A pass takes O(n (net + r d)) time for r components of the indicators and d outputs, balls take n times
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
        "n_components": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="neither")],
        "metric": [StrOptions({"auto", *NAMES}), callable],
        "hidden_layer_sizes": ["array-like"],
        "module": [callable, None],
        "net_params": [dict, None],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "n_landmarks": [Interval(Integral, 1, None, closed="left")],
        "n_thresholds": [Interval(Integral, 1, 255, closed="both")],
        "constraint": [StrOptions({"whiten", "frobenius"})],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "whiten": ["boolean"],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "scale": ["boolean"],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
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
        activation: Literal["gelu", "relu", "tanh"] = "gelu",
        dropout: float = 0.1,
        n_estimators: int = 5,
        n_landmarks: int = 64,
        n_thresholds: int = 16,
        constraint: Literal["whiten", "frobenius"] = "whiten",
        alpha: float = 0.1,
        whiten: bool = False,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        batch_size: int | Literal["auto"] = "auto",
        max_iter: int = 200,
        patience: int = 25,
        validation_fraction: float = 0.15,
        tol: float = 3e-3,
        scale: bool = True,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.metric = metric
        self.hidden_layer_sizes = hidden_layer_sizes
        self.module = module
        self.net_params = net_params
        self.activation = activation
        self.dropout = dropout
        self.n_estimators = n_estimators
        self.n_landmarks = n_landmarks
        self.n_thresholds = n_thresholds
        self.constraint = constraint
        self.alpha = alpha
        self.whiten = whiten
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.tol = tol
        self.scale = scale
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Train the networks and average them.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The features, two rows at least.
        y : array-like of shape (n_samples, ...)
            The responses, in the form that `metric` asks for.

        Returns
        -------
        self : FrechetSDR

        Raises
        ------
        ValueError
            If a response is not what `metric` asks for, or all are equal.
        """
        X = check_fit_pairs(self, X, y)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        features = ball_features(
            y,
            metric=self.metric,
            n_landmarks=self.n_landmarks,
            n_thresholds=self.n_thresholds,
            device=ws.device,
            dtype=torch.float32,
        )
        balls = fitted_balls(features, y)
        known = {**fitted_attributes(ws, balls, **described_balls(balls)), **self._standardization(X, ws)}
        known["_activation"] = self.activation if self.module is None else None
        n_components, n_outputs = self._width(features.targets.shape[1])
        randomness = Randomness(ws.generator, ws.device, lends=self.module is not None or bool(self.net_params))
        with randomness.lent():
            nets = self._networks(X.shape[1], n_outputs, randomness.layers).to(ws.device)
        split, n_epochs = self._split(X.shape[0], n_outputs, ws)
        rows, plan = self._rows(X, known, ws), self._plan(split, features, n_outputs, n_epochs)

        def attributes(state):
            twin = copy.deepcopy(nets)
            twin.load_parts(state.weights)
            found = average(outputs_of(twin, rows), features.targets, split, n_components, self.whiten)
            return known | _attributes(state, found, features.basis, ws)

        steps = training(nets, rows.float(), features.targets, split, plan, randomness)
        run = drive(self, steps, attributes=attributes, X=X, y=y)
        fitted = attributes(run.state)
        vars(self).pop("landmark_objects_", None)  # of a former fit
        vars(self).update(fitted)
        self.n_iter_, self.loss_curve_ = run.n_iter, run.loss_curve
        return self

    @in_plain_modes
    def transform(self, X):
        """Return the features of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        Z : array of shape (n_samples, n_components_)
            Uncorrelated on the training rows, with mean zero, in descending order of eigenvalues.
        """
        ws, Z = self._features(X, "transform")
        return ws.store(Z.to(ws.dtype))

    def score(self, X, y):
        """Return the share of the variance of the responses' features that is explained, at most 1; higher is better.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples, ...)
            Their responses.

        Returns
        -------
        score : float
            Zero for the mean of the training rows; noise in y keeps it far below one. Compare scores of one `metric`
            only.
        """
        return float(self.explained_dependence(X, y).sum())

    @in_plain_modes
    def explained_dependence(self, X, y):
        """Return what each component adds to the score.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples, ...)
            Their responses.

        Returns
        -------
        shares : ndarray of shape (n_components_,)
            They sum to the score.
        """
        ws, Z = self._features(X, "score")
        balls = restored_balls(recall(self, FittedBalls, ws.exact()))
        return explained_shares(balls, y, Z, ws.exact().load(self._loadings), range(1, Z.shape[1] + 1))

    @property
    def _n_features_out(self):
        return self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _features(self, X, method):
        """Return the workspace of new rows, in float64, and their components."""
        X = check_new_data(self, X, like="rotation_", method=method)
        ws = open_workspace(X, device=self.device)
        exact = ws.exact()
        outputs = outputs_of(self._fitted_networks().to(ws.device), self._rows(X, vars(self), ws))
        return ws, outputs @ exact.load(self.rotation_) + exact.load(self.intercept_)

    def _standardization(self, X, ws):
        mean, scale = standardization(ws.load(X), "columns" if self.scale else False)
        return {"mean_": ws.store(mean), "scale_": ws.store(scale)}

    def _rows(self, X, known, ws):
        """Return the rows as the networks see them, in float64."""
        mean, scale = (ws.exact().load(known[name]) for name in ("mean_", "scale_"))
        return standardized(ws.load(X), mean, scale, torch.float64)

    def _width(self, n_targets):
        """Return the number of components, or their share, and the number of outputs of each network."""
        if isinstance(self.n_components, Integral):
            n_components = checked_components(self.n_components, {"distinct features of the responses": n_targets})
            return n_components, n_components
        return self.n_components, min(_OUTPUTS_OF_SHARE, n_targets)

    def _networks(self, n_features, n_outputs, generator):
        """Return fresh networks; the user's own ones draw under `Randomness.lent`."""
        sizes = list(self.hidden_layer_sizes)
        if self.module is None:
            if sizes and min(sizes) < 1:
                raise ValueError(f"hidden_layer_sizes={self.hidden_layer_sizes} has an empty layer.")
            shape = self.n_estimators, n_features, sizes, n_outputs
            return SideBySide(*shape, self.activation, self.dropout, generator)
        return self._own_networks(self.n_estimators, n_features, n_outputs, generator)

    def _own_networks(self, count, n_features, n_outputs, generator):
        params = split_params(self.net_params)[0]
        trunks = [build_trunk(self.module, params, n_features, (), generator) for _ in range(count)]
        return OneByOne(trunks, width_of(trunks[0], n_features), n_outputs, generator)

    def _fitted_networks(self):
        """Return the fitted networks, whatever the parameters have become since."""
        count = len(self.weights_)
        n_outputs = self.rotation_.shape[0] // count
        parts = [{k: torch.from_numpy(v.copy()) for k, v in weights.items()} for weights in self.weights_]
        if self._activation is not None:
            sizes = [W.shape[1] for name, W in parts[0].items() if name.startswith("weights")][:-1]
            nets = SideBySide(count, self.n_features_in_, sizes, n_outputs, self._activation, 0.0, None)
        else:
            fixed = Randomness(torch.Generator("cpu").manual_seed(0), torch.device("cpu"), lends=True)
            with fixed.lent():
                nets = self._own_networks(count, self.n_features_in_, n_outputs, None)
        nets.load_parts(parts)
        return nets

    def _split(self, n, n_outputs, ws):
        """Return the rows of each network, and the number of passes at most."""
        n_folds = max(2, self.n_estimators, round(1 / self.validation_fraction))
        if n >= _LEAST_ROWS and n >= 2 * n_folds and n - n // n_folds > 4 * n_outputs:
            return split_rows(n, self.n_estimators, n_folds, ws.generator, ws.device), self.max_iter
        n_epochs = max(1, self.max_iter // 4)
        warn(
            f"n_samples={n} is too few to leave rows out: the networks are trained on all of them, for "
            f"max_iter // 4 = {n_epochs} passes, and are likely to overfit. Add data, or lower n_components or "
            "n_estimators.",
            UserWarning,
        )
        return split_rows(n, self.n_estimators, None, ws.generator, ws.device), n_epochs

    def _plan(self, split, features, n_outputs, n_epochs):
        n_rows = split.trained.shape[1]
        size = min(4096, max(min(64, n_rows // 16), n_rows // 64)) if self.batch_size == "auto" else self.batch_size
        net_params = split_params(self.net_params)[1]
        if "optimizer" not in net_params:
            net_params = {"optimizer": torch.optim.AdamW, "optimizer__fused": True, **net_params}
        return Plan(
            constraint=self.constraint,
            alpha=self.alpha,
            variance=features.balls.variance(),
            batch_size=min(n_rows, max(size, 4 * n_outputs, _LEAST_BATCH)),
            max_iter=n_epochs,
            patience=self.patience,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            net_params=net_params,
            verbose=self.verbose,
        )


def _attributes(state, found, basis, ws):
    """Return the fitted attributes that belong to a state of the training."""
    exact = ws.exact()
    total = found.eigenvalues.sum().clamp(min=torch.finfo(torch.float64).tiny)
    n_components = found.rotation.shape[1]
    strongest = found.eigenvalues[:n_components]
    return {
        "components_dependence_": ws.store(strongest.to(ws.dtype)),
        "dependence_ratio_": ws.store((strongest / total).to(ws.dtype)),
        "weights_": [as_numpy(weights) for weights in state.weights],
        "rotation_": ws.store(found.rotation.to(exact.dtype)),
        "intercept_": ws.store(found.intercept),
        "validation_scores_": ws.store(state.scores),
        "n_components_": n_components,
        "_loadings": ws.store(found.loadings @ basis.T),
    }
