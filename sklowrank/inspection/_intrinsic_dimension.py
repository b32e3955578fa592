"""How many numbers a network needs for a problem: the smallest random subspace of its weights that does."""

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import check_scoring, get_scorer_names
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep
from .._core.warn import warn
from ._intrinsic_dimension_solver import ScoredDims, bisected, listed_dims
from ._wrapped_network import NetworkWrapper, check_trainable, inner_has


class IntrinsicDimension(NetworkWrapper, MetaEstimatorMixin, BaseEstimator):
    r"""Search the intrinsic dimension of a problem: the fewest numbers that reach a share of the network's score.

    A network is trained in random subspaces of its weights, of more and more dimensions, until its score on held-out
    rows is a given share of that of ordinary training. The dimension depends on the problem far more than on the width
    of the network: use it to compare the difficulty of data sets, labels or architectures, and to find how small a
    model may be stored. It takes some twenty to a hundred fits. It does not say which network is the best one: compare
    scores for that.

    Parameters
    ----------
    estimator : estimator
        What is fitted, copies of it: :class:`~sklowrank.neural.NetworkClassifier` or
        :class:`~sklowrank.neural.NetworkRegressor`, of which `training` is set, a skorch net, which gets a callback
        more, or a Pipeline whose last step is one of these. A `learning_rate` of about 1e-2 suits both ordinary
        training and that in a subspace.
    share : float in (0, 1], default=0.9
        Share of the baseline's score that has to be reached. A larger one gives a larger dimension.
    baseline : "direct" or float, default="direct"
        Score that is compared with: "direct" is the mean score of ordinary training of all weights, with the same
        settings and on the same rows. A number compares problems or networks at one score.
    search : "bisect" or sequence of int, default="bisect"
        Dimensions that are tried: doubled from `d_min` until the target is reached, then bisected on the log scale; or
        all of a list.
    d_min : int >= 1, default=1
        Smallest dimension that is tried. For "bisect" alone.
    d_max : int >= 1 or None, default=None
        Largest dimension that is tried; None is the number of weights. For "bisect" alone.
    resolution : float > 0, default=0.1
        Relative distance of the dimension found from one that fails, at which the bisection ends. A smaller one takes
        more fits. For "bisect" alone.
    n_seeds : int >= 1, default=3
        Number of starts and subspaces for each dimension, whose mean score decides, and for the baseline.
    cv : int, splitter, iterable or None, default=None
        Rows on which is scored, in the forms of scikit-learn. None holds out a fifth, of each class its share.
    scoring : str, callable or None, default=None
        Score, in the forms of scikit-learn; None is that of the estimator, accuracy or R².
    n_jobs : int or None, default=None
        Number of fits at a time, in joblib's sense; with several each has one thread.
    refit : bool, default=True
        Whether to fit the estimator with the dimension found to all rows, for `predict` and `score`.
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It decides held-out rows, starts and
        subspaces, whatever `random_state` the estimator has.

    Attributes
    ----------
    intrinsic_dim_ : int or None
        Smallest dimension that reached the target; None, with a ConvergenceWarning, where none did.
    curve_ : dict of arrays
        What was tried, by ascending `d`: `mean` and `std` of its scores.
    baseline_score_ : float
        Score of ordinary training, or the number given.
    target_ : float
        Score that was asked for.
    n_full_parameters_ : int
        Number of weights, the dimension of the whole space.
    best_estimator_ : estimator
        The estimator fitted to all rows with the dimension found, or with the largest one tried where none did; with
        `refit` alone.
    classes_ : array of shape (n_classes,)
        Class labels, of a classifier.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where the estimator has them.

    See Also
    --------
    sklowrank.neural.RandomSubspace : The training rule.
    LearningRegime : Whether a network has learnt features.

    Notes
    -----
    The target is :math:`b - (1 - s) |b|` for the baseline b and the share s, which is :math:`s b` where scores are
    positive. Scores are taken as monotone in d, up to noise: after the bisection the largest dimension that failed is
    tried once more with new seeds, and the search goes on below where the mean of all its scores then reaches the
    target.

    Training in a subspace depends on the optimizer and on the number of epochs as all training does: the dimension is
    that of a problem, a network and its settings. A skorch net that has an instance as its module starts from the same
    weights for all seeds.

    References
    ----------
    Li, C., Farkhoor, H., Liu, R. and Yosinski, J. (2018). Measuring the intrinsic dimension of objective landscapes.
    International Conference on Learning Representations.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklowrank.inspection import IntrinsicDimension
    >>> from sklowrank.neural import NetworkClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> network = NetworkClassifier((16,), learning_rate=0.1, max_iter=15, tol=0)
    >>> found = IntrinsicDimension(network, n_seeds=2, random_state=0).fit(X, y)
    >>> found.intrinsic_dim_ < 40, found.n_full_parameters_
    (True, 131)
    >>> found.score(X, y) > 0.8
    True
    """

    _holder = "best_estimator_"
    _parameter_constraints = {
        "estimator": "no_validation",
        "share": [Interval(Real, 0, 1, closed="right")],
        "baseline": [StrOptions({"direct"}), Interval(Real, None, None, closed="neither")],
        "search": [StrOptions({"bisect"}), "array-like"],
        "d_min": [Interval(Integral, 1, None, closed="left")],
        "d_max": [Interval(Integral, 1, None, closed="left"), None],
        "resolution": [Interval(Real, 0, None, closed="neither")],
        "n_seeds": [Interval(Integral, 1, None, closed="left")],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "n_jobs": [Integral, None],
        "refit": ["boolean"],
        "random_state": ["random_state"],
    }

    intrinsic_dim_: int | None
    curve_: dict[str, np.ndarray]
    baseline_score_: float
    target_: float
    n_full_parameters_: int
    best_estimator_: Any

    def __init__(
        self,
        estimator: Any,
        *,
        share: float = 0.9,
        baseline: Literal["direct"] | float = "direct",
        search: Literal["bisect"] | Sequence[int] = "bisect",
        d_min: int = 1,
        d_max: int | None = None,
        resolution: float = 0.1,
        n_seeds: int = 3,
        cv: int | Iterable | None = None,
        scoring: str | Callable | None = None,
        n_jobs: int | None = None,
        refit: bool = True,
        random_state: RandomState = None,
    ):
        self.estimator = estimator
        self.share = share
        self.baseline = baseline
        self.search = search
        self.d_min = d_min
        self.d_max = d_max
        self.resolution = resolution
        self.n_seeds = n_seeds
        self.cv = cv
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.refit = refit
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y) -> Self:
        """Search the intrinsic dimension, and fit the estimator with it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows, as the estimator takes them.
        y : array-like
            The targets, as the estimator takes them.

        Returns
        -------
        self : IntrinsicDimension
        """
        check_trainable(self.estimator, how="cannot be trained in a subspace", takes_rule=True)
        if y is None:
            raise ValueError("IntrinsicDimension requires y to be passed, but the target y is None.")
        dims = listed_dims(self.search, self.d_min, self.d_max)
        scored = ScoredDims(self, X, y)
        baseline = scored.direct() if self.baseline == "direct" else float(self.baseline)
        if not math.isfinite(baseline):
            raise ValueError(f"The baseline's score is {baseline}. Use another scoring, or pass a number as baseline.")
        target = baseline - (1 - self.share) * abs(baseline)
        if dims is None:
            dim = bisected(scored, target, self.d_min, self.d_max, self.resolution)
        else:
            dim = next((d for d in dims if scored.again(d) >= target), None)
            for d in dims:
                scored.mean(d)  # all of a list are tried
        if dim is None:
            warn(
                f"IntrinsicDimension reached no score of target_={target:.3g} with up to {max(scored.scores)} "
                "dimensions. Raise d_max or the estimator's max_iter, or lower share.",
                ConvergenceWarning,
            )
        best = {}
        if self.refit:
            best = {"best_estimator_": scored.fitted(max(scored.scores) if dim is None else dim)}
        return keep(
            self,
            None,
            intrinsic_dim_=dim,
            curve_=scored.curve(),
            baseline_score_=baseline,
            target_=target,
            n_full_parameters_=scored.n_full,
            **best,
        )

    @available_if(inner_has("predict"))
    def score(self, X, y):
        """Return the score of the estimator found, by `scoring`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        y : array-like
            Their targets.

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        return check_scoring(self.best_estimator_, self.scoring)(self.best_estimator_, X, y)
