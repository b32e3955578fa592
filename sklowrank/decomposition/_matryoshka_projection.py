"""Orthogonal projections of which each prefix keeps what a fitted predictor uses."""

import copy
from collections.abc import Callable, Sequence
from functools import partial, wraps
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_array, check_is_fitted
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import HasMethods, Interval, RealNotInt, StrOptions, _fit_context, get_namespace
from .._core.fitted import options, recall, replace_attributes, update_attributes
from .._core.iterate import Run, drive
from .._core.modes import in_plain_modes
from .._core.rows import map_rows, rows_of
from .._core.tags import partitioned
from .._core.validation import check_new_data
from .._core.workspace import check_place, open_workspace
from .._nets.parameters import NETWORK_CONSTRAINTS
from ._matryoshka_given import (
    Projection,
    checked,
    count_components,
    described,
    finished,
    mean_loss,
    objective_of,
    ranks_of_groups,
    teacher_of,
    widths_of,
)
from ._matryoshka_projection_solver import (
    ProjectionOptions,
    closed_form,
    moments_of,
    projection_problem,
    start_of,
    trained_rotations,
)
from ._teachers import encoded, live_teacher


class MatryoshkaProjection(CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Rotate features so that each prefix of the new ones is as useful as it can be to a fitted predictor.

    The width can be changed after the fit, by :meth:`truncate` or by cutting off columns: predictions from 12 of 64
    columns hardly differ. PCA keeps the variance; this keeps what the predictor uses. Predictors are linear models,
    networks, and any function of tensors that can be differentiated; with y alone a linear one is fitted.

    Parameters
    ----------
    n_components : int, float or None, default=None
        Number of components. A float in (0, 1] is a share of the features; None keeps all. All directions are fitted
        whatever it is.
    estimator : fitted estimator, torch.nn.Module, callable or None, default=None
        The predictor whose answers are kept, never fitted again: a linear model with `coef_`, an estimator with a torch
        network, a :class:`~sklearn.pipeline.Pipeline` of affine steps and one of these, a module, or a function from
        tensor (n, n_features) to tensor of shape (n,) or (n, n_outputs). Linear models whose predictions are not those
        of `coef_` and `intercept_`, such as generalised ones and :class:`~sklearn.svm.SVC` with more than two classes,
        are refused. In searches wrap it in :class:`~sklearn.frozen.FrozenEstimator`: clones of
        estimators are not fitted.
    objective : {"auto", "predictions", "similarity", "reconstruction"}, default="auto"
        What prefixes keep. "predictions": the answers of `estimator`, or of a linear model of y. "similarity": inner
        products of rows, without centring, in closed form. "reconstruction": the rows themselves, which is PCA. "auto"
        is "predictions" with `estimator` or y, else "reconstruction".
    n_groups : int, default=1
        Number of equal, contiguous groups of features that are rotated each by itself, such as heads of attention. It
        has to divide the number of features.
    group_ranks : {"uniform", "adaptive"}, default="uniform"
        How components are spread over groups. "uniform" takes one of each in turn, "adaptive" those first whose removal
        costs most.
    rank_schedule : list of int or None, default=None
        Numbers of components per group that are drawn in training, and at which losses are reported; all features of a
        group are added. None takes the multiples of ``max(4, n_features / n_groups / 16)``.
    init : {"auto", "gradient", "pca"}, default="auto"
        Initialisation of the fit. "gradient" are the directions along which the answers change most, "pca" the
        principal components; "auto" takes the better one.
    gradient_rows : int, default=500
        Number of rows whose gradients are used.
    center : bool, default=True
        Whether to subtract the column means.
    max_iter : int, default=600
        Maximum number of iterations. With 0 the start is kept.
    batch_size : int, default=256
        Number of rows per training step; it changes the result.
    learning_rate : float, default=0.005
        Step size of the optimizer.
    tol : float, default=1e-4
        Tolerance of the stopping criterion. Training stops where the loss on held-out rows has fallen by less than this
        share in a tenth of `max_iter` iterations.
    task_weight : float, default=0.0
        Share in [0, 1] of the loss on labels y in training; the rest is the difference to the answers of `estimator`.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration.

    Attributes
    ----------
    components_ : array of shape (n_features, n_features)
        Orthonormal directions in rows, the most useful first; the largest entry of each is positive.
    mean_ : array of shape (n_features,)
        What is subtracted from rows; zeros without `center` and for "similarity".
    n_components_ : int
        Number of components that `transform` returns.
    group_ranks_ : list of int
        How many of these are of each group.
    rank_loss_ : dict
        Mean loss on held-out rows by the number of components per group: the Kullback-Leibler divergence of classes, or
        the squared error of values. For "similarity" and "reconstruction" the mean squared error on all rows.
    loss_curve_ : list of float
        Loss of each iteration.
    n_iter_ : int
        Number of iterations; 0 for closed forms.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    sklearn.decomposition.PCA : Directions of the largest variance.
    sklearn.cross_decomposition.PLSRegression : Directions of the largest covariance with y.
    sklearn.discriminant_analysis.LinearDiscriminantAnalysis : One direction less than there are classes.
    sklowrank.compress.KVCacheCompressor : The same for the keys and values of attention.

    Notes
    -----
    With the first r columns :math:`U_r` of an orthogonal matrix, training minimises the mean over rows and widths r of

    .. math:: \\ell\\bigl(f(\\mu + U_r U_r^\\top (x - \\mu)),\\ f(x)\\bigr)

    where f is the predictor and :math:`\\ell` the Kullback-Leibler divergence of classes, or the squared error. The
    matrix is the start times the Cayley map of a skew-symmetric matrix, which Adam changes; widths are drawn at each
    step for each group. The start "gradient" are the eigenvectors of :math:`\\sum_x J_x^\\top M_x J_x`, of Jacobians
    :math:`J_x` and with :math:`M_x = \\mathrm{diag}(p) - p p^\\top` for classes, else the identity; it is exact for
    linear predictors with K outputs at K components, K - 1 for classes. Kept is, by the loss on a fifth of the rows,
    the start, the trained matrix, or the first columns of it with what the start would add.

    An iteration takes the predictor's time for twice the batch, and :math:`O(d^3 / g^2)` for g groups. More than 4,096
    features per group are refused.

    References
    ----------
    .. [1] B. Lin, Z. Zeng, Z. Xiao, S. Kou, T. Hou, X. Gao, H. Zhang, Z. Deng, "MatryoshkaKV: Adaptive KV Compression
       via Trainable Orthogonal Projection", ICLR 2025.
    .. [2] P. G. Constantine, "Active Subspaces", SIAM, 2015.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklowrank.decomposition import MatryoshkaProjection
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression(C=0.01, max_iter=1000).fit(X, y)
    >>> projection = MatryoshkaProjection(9, estimator=FrozenEstimator(model), init="gradient", max_iter=0).fit(X)
    >>> restored = projection.inverse_transform(projection.transform(X))
    >>> bool((model.predict(restored) == model.predict(X)).all())
    True
    """

    _parameter_constraints = {
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="right"),
            None,
        ],
        "estimator": [HasMethods(["fit", "predict"]), callable, None],
        "objective": [StrOptions({"auto", "predictions", "similarity", "reconstruction"})],
        "n_groups": [Interval(Integral, 1, None, closed="left")],
        "group_ranks": [StrOptions({"uniform", "adaptive"})],
        "rank_schedule": ["array-like", None],
        "init": [StrOptions({"auto", "gradient", "pca"})],
        "gradient_rows": [Interval(Integral, 1, None, closed="left")],
        "center": ["boolean"],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "batch_size": NETWORK_CONSTRAINTS["batch_size"],
        "learning_rate": NETWORK_CONSTRAINTS["learning_rate"],
        "tol": NETWORK_CONSTRAINTS["tol"],
        "task_weight": [Interval(Real, 0, 1, closed="both")],
        "device": NETWORK_CONSTRAINTS["device"],
        "random_state": NETWORK_CONSTRAINTS["random_state"],
        "verbose": NETWORK_CONSTRAINTS["verbose"],
    }

    # Set by fit
    components_: np.ndarray
    mean_: np.ndarray
    n_components_: int
    group_ranks_: list[int]
    rank_loss_: dict[int, float]
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int | float | None = None,
        *,
        estimator: BaseEstimator | nn.Module | Callable[[torch.Tensor], Any] | None = None,
        objective: Literal["auto", "predictions", "similarity", "reconstruction"] = "auto",
        n_groups: int = 1,
        group_ranks: Literal["uniform", "adaptive"] = "uniform",
        rank_schedule: Sequence[int] | None = None,
        init: Literal["auto", "gradient", "pca"] = "auto",
        gradient_rows: int = 500,
        center: bool = True,
        max_iter: int = 600,
        batch_size: int = 256,
        learning_rate: float = 5e-3,
        tol: float = 1e-4,
        task_weight: float = 0.0,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.estimator = estimator
        self.objective = objective
        self.n_groups = n_groups
        self.group_ranks = group_ranks
        self.rank_schedule = rank_schedule
        self.init = init
        self.gradient_rows = gradient_rows
        self.center = center
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.tol = tol
        self.task_weight = task_weight
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None) -> Self:
        """Find the directions.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows, two at least, like those that the estimator predicts on.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets: of the linear model that is fitted where there is no `estimator`, logistic for classes and ridge
            for floating values; else of `task_weight`.

        Returns
        -------
        self : MatryoshkaProjection
        """
        X, y = checked(self, X, y)
        objective = objective_of(self, y)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        widths = widths_of(self.rank_schedule, X.shape[1], self.n_groups)
        chosen = options(self, ProjectionOptions, widths=widths, center=self.center and objective != "similarity")
        rows = rows_of(X, ws)
        moments = moments_of(rows, self.n_groups, center=chosen.center)
        describe = partial(described, ws, count_components(self.n_components, X.shape[1]), moments, chosen)
        if objective != "predictions":
            return replace_attributes(self, describe(None, closed_form(moments, chosen), Run(None, 0, [])))

        teacher = teacher_of(self.estimator, rows, y, moments, self.max_iter)
        live = live_teacher(teacher, ws.device, ws.dtype)
        labels = encoded(teacher, y, ws.device) if self.task_weight else None
        problem = projection_problem(rows, moments, live, labels, chosen, ws.generator)
        start, run = start_of(problem, chosen), Run(None, 0, [])
        finish = partial(finished, partial(describe, teacher), problem, start, chosen)
        if self.max_iter:
            steps = trained_rotations(problem, start.rotation, chosen, ws.generator)
            run = drive(self, steps, attributes=lambda U: finish(Run(U, 0, [])), X=X, y=y)
        return replace_attributes(self, finish(run))

    @in_plain_modes
    def transform(self, X, n_components: int | None = None):
        """Return rows in the new coordinates.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        n_components : int or None, default=None
            Number of components in place of that of the fit.

        Returns
        -------
        Z : array of shape (n_samples, n_components)
        """
        X = check_new_data(self, X, like="components_", method="transform")
        ws = open_workspace(X, device=self.device)
        model = recall(self, Projection, ws.exact())
        compute = partial(_coordinates, model.mean, model.components[: self.n_components_])
        return ws.answer(map_rows(rows_of(X, ws), compute, size=24 * X.shape[1]))

    @in_plain_modes
    def inverse_transform(self, X):
        """Return rows of the original features for their first components, as if the others were zero.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            The first components, as many as there are.

        Returns
        -------
        X_original : array of shape (n_samples, n_features)

        Raises
        ------
        ValueError
            If there are more columns than features.
        """
        check_is_fitted(self)
        check_place(X, "X")
        xp = get_namespace(X)[0]
        X = check_array(X, dtype=[xp.float64, xp.float32], input_name="X")
        if X.shape[1] > self.n_features_in_:
            limit = f"at most n_features_in_={self.n_features_in_}"
            raise ValueError(f"X has {X.shape[1]} columns, but there are {limit} components.")
        ws = open_workspace(X, device=self.device)
        model = recall(self, Projection, ws.exact())
        return ws.answer(ws.load(X).double() @ model.components[: X.shape[1]] + model.mean)

    def truncate(self, n_components: int) -> Self:
        """Return a fitted copy with another number of components.

        Parameters
        ----------
        n_components : int
            How many components its `transform` returns.

        Returns
        -------
        projection : MatryoshkaProjection
        """
        check_is_fitted(self)
        width = count_components(n_components, self.n_features_in_)
        cut = copy.copy(self).set_params(n_components=n_components)
        model = recall(self, Projection, open_workspace(np.empty((0, 0)), device="cpu"))
        ranks = ranks_of_groups(model.groups, width, model.n_groups)
        return update_attributes(cut, {"n_components_": width, "group_ranks_": ranks})

    @in_plain_modes
    def score(self, X, y=None) -> float:
        """Return minus the mean loss over the widths of `rank_schedule`, on new rows.

        For "similarity" and "reconstruction" it is minus the mean squared error with `n_components_` components.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : None
            Not used.

        Returns
        -------
        score : float
        """
        X = check_new_data(self, X, like="components_", method="score")
        ws = open_workspace(X, device=self.device)
        return -mean_loss(recall(self, Projection, ws.exact()), ws.load(X), self.n_components_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return partitioned(tags)

    @property
    def _n_features_out(self) -> int:
        return self.n_components_


def _named_by_width(transform):
    """Let a fitted copy of the asked width transform, so that `set_output` names as many columns."""

    @wraps(transform)
    def transformed(self, X, n_components: int | None = None):
        return transform(self if n_components is None else self.truncate(n_components), X)

    return transformed


# Inside of the class it would be undone by what makes transform follow set_output
MatryoshkaProjection.transform = _named_by_width(MatryoshkaProjection.transform)  # type: ignore[method-assign]


def _coordinates(mean, components, X):
    return (X.double() - mean) @ components.T
