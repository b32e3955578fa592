"""Rows of one table moved onto another by entropic optimal transport."""

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning

from .._core.annotations import RandomState
from .._core.compat import PAIRWISE_METRICS, Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.iterate import drive
from .._core.validation import check_fit_data, check_new_data
from .._core.warn import warn
from .._core.workspace import open_workspace
from ._entropic_map import (
    MAPS,
    SPARSE_METRICS,
    TransportModel,
    TransportOptions,
    costs,
    coupling,
    described,
    progress,
    transport_model,
    transport_problem,
    turned,
    turned_costs,
)
from ._samples import checked_target, known_labels, sample_of, two_tables
from ._sinkhorn_newton import SOLVER_CONSTRAINTS
from ._sinkhorn_newton_solver import solve_potentials

_ADVICE = "Raise max_iter or tol, or raise reg."


class SinkhornTransport(CallbackSupportMixin, OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Move the rows of one table onto another by entropic optimal transport.

    It corrects a drift between two tables with the same columns, such as those of two sensors or batches, of which no
    rows are known to belong together. Each row becomes a weighted mean of rows of the target, new rows too. Where the
    drift only shifts and scales columns, standardising both tables undoes it as well, and is faster. Where the means of
    the tables are farther apart than their rows, centre both first, or moved rows shrink towards the mean of the
    target: ``fit(X - X.mean(axis=0), X_target=Z - Z.mean(axis=0))``.

    Parameters
    ----------
    reg : float, default=0.05
        Strength of the entropy, above 0, in units of `reg_scale`. The larger it is, the closer together the moved rows
        are.
    metric : str or callable, default="sqeuclidean"
        Cost between a row and a row of the target: a name that :func:`~sklearn.metrics.pairwise_distances` takes, or a
        function of two rows. Sparse rows need "sqeuclidean" or "cosine".
    reg_scale : {"median", "max"} or None, default="median"
        What of the magnitudes of the costs is the unit of `reg`. None is 1.
    solver : {"sns", "sinkhorn", "auto"}, default="sns"
        Algorithm of the fit. "sns" takes Newton steps with a sparse Hessian after some sweeps, "sinkhorn" only sweeps,
        and "auto" only sweeps where the entropy is above a tenth of the median cost.
    warmup : int, default=5
        Number of sweeps before the first Newton step, of each problem of the continuation.
    continuation : bool, default=True
        Whether to solve roughly a series of problems with a larger regularisation first.
    density : float or "auto", default="auto"
        Share of the entries of the plan in the Hessian at the start, in (0, 1]. "auto" leaves out the entries that are
        small for their row and for their column.
    max_newton : int, default=60
        Maximum number of Newton steps with the final regularisation; sweeps follow.
    max_iter : int, default=10000
        Maximum number of iterations. Sweeps and Newton steps count.
    tol : float, default=1e-8
        Tolerance of the stopping criterion. This is the marginal error in l1, for weights that sum to one.
    class_reg : float, default=0.0
        Penalty, at least 0, for pairs of rows of different known classes, in units of the largest cost. It
        needs `y` and `y_target`.
    max_samples : int, default=2000
        Number of rows of either table for which the plan is computed. From larger tables rows are drawn in proportion
        to their weights; all rows are moved.
    out_of_sample : {"entropic", "nearest"}, default="entropic"
        How rows are moved: to the mean of the target rows weighted by the potentials, or like the nearest row of the
        plan, with the offset from it.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It draws rows where there are more
        than `max_samples`.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration.

    Attributes
    ----------
    X_source_ : array of shape (n_source, n_features)
        Rows of the source for which the plan was computed.
    X_target_ : array of shape (n_target, n_features)
        Rows of the target for which the plan was computed.
    potentials_source_ : array of shape (n_source,)
        Potentials of the source rows in units of the cost, -inf for rows without weight. In float64.
    potentials_target_ : array of shape (n_target,)
        Potentials of the target rows.
    cost_ : array of shape (n_source, n_target)
        The cost matrix, with the penalty of classes. In float64.
    coupling_ : array of shape (n_source, n_target)
        The plan, whose sums are the weights; computed at each access. In float64.
    distance_ : float
        Mean cost of the plan, without the penalty of classes.
    reg_ : float
        Strength of the entropy in units of the cost.
    n_sinkhorn_ : int
        Number of sweeps.
    n_newton_ : int
        Number of Newton steps.
    n_iter_ : int
        Number of sweeps and Newton steps.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    OTAdaptationClassifier : A classifier for a table without labels.
    sinkhorn_newton : The plan for any cost matrix.
    sklearn.preprocessing.StandardScaler : For drifts that shift and scale columns.

    Notes
    -----
    The plan minimises ``<C, P> + reg_ * sum(P log P)`` among those with the weights as sums. With the potentials v of
    the target rows t_j, a row x is moved to

    .. math:: T(x) = \\sum_j w_j(x) t_j, \\qquad w_j(x) \\propto \\exp((v_j - c(x, t_j)) / \\mathrm{reg})

    which for a row of the plan is the mean of the target by its row of the plan. New rows have no class, so they are
    moved without `class_reg`; with "nearest" the rows of the plan are moved with it. The plan is solved in float64; it
    takes O(n_source n_target) time per iteration, and the map O(n_target n_features) per row.

    Each class is moved onto what lies near it. Where classes have other shares in the target than in the source, some
    rows are moved to another class: about as many as the shares differ by.

    References
    ----------
    .. [1] N. Courty, R. Flamary, D. Tuia, A. Rakotomamonjy, "Optimal transport for domain adaptation", IEEE
       Transactions on Pattern Analysis and Machine Intelligence 39(9), 2017.
    .. [2] X. Tang et al., "Accelerating Sinkhorn algorithm with sparse Newton iterations", ICLR 2024.
    .. [3] A.-A. Pooladian, J. Niles-Weed, "Entropic estimation of optimal transport maps", 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.transport import SinkhornTransport
    >>> rng = np.random.default_rng(0)
    >>> X, Z = rng.normal(size=(200, 2)), rng.normal(size=(200, 2))
    >>> moved = SinkhornTransport().fit(X, X_target=2 * Z + 3).transform(X)
    >>> bool(abs(moved - (2 * X + 3)).mean() < 0.5)
    True
    """

    _parameter_constraints = {
        **SOLVER_CONSTRAINTS,
        "reg": [Interval(Real, 0, None, closed="neither")],
        "metric": [StrOptions(PAIRWISE_METRICS), callable],
        "reg_scale": [StrOptions({"median", "max"}), None],
        "solver": [StrOptions({"sns", "sinkhorn", "auto"})],
        "class_reg": [Interval(Real, 0, None, closed="left")],
        "max_samples": [Interval(Integral, 1, None, closed="left")],
        "out_of_sample": [StrOptions({"entropic", "nearest"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # Set by fit
    X_source_: Any
    X_target_: Any
    potentials_source_: np.ndarray
    potentials_target_: np.ndarray
    cost_: np.ndarray
    distance_: float
    reg_: float
    n_sinkhorn_: int
    n_newton_: int
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        reg: float = 0.05,
        *,
        metric: Callable[..., Any] | str = "sqeuclidean",
        reg_scale: Literal["median", "max"] | None = "median",
        solver: Literal["sns", "sinkhorn", "auto"] = "sns",
        warmup: int = 5,
        continuation: bool = True,
        density: float | Literal["auto"] = "auto",
        max_newton: int = 60,
        max_iter: int = 10_000,
        tol: float = 1e-8,
        class_reg: float = 0.0,
        max_samples: int = 2000,
        out_of_sample: Literal["entropic", "nearest"] = "entropic",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.reg = reg
        self.metric = metric
        self.reg_scale = reg_scale
        self.solver = solver
        self.warmup = warmup
        self.continuation = continuation
        self.density = density
        self.max_newton = max_newton
        self.max_iter = max_iter
        self.tol = tol
        self.class_reg = class_reg
        self.max_samples = max_samples
        self.out_of_sample = out_of_sample
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X,
        y=None,
        *,
        X_target=None,
        y_target=None,
        source_weight=None,
        target_weight=None,
        sample_domain=None,
    ) -> Self:
        """Compute the plan between the source and the target.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            Rows of the source; with `sample_domain` of both.
        y : array-like of shape (n_samples,), default=None
            Classes of the rows, for `class_reg` alone; -1 is unknown.
        X_target : array-like, tensor or sparse matrix of shape (n_target_samples, n_features), default=None
            Rows of the target. Without it, and without `sample_domain`, the target is X.
        y_target : array-like of shape (n_target_samples,), default=None
            Classes of the target rows; -1 is unknown.
        source_weight : array-like of shape (n_source_samples,), default=None
            Weights of the source rows, non-negative. A weight of two equals two rows.
        target_weight : array-like of shape (n_target_samples,), default=None
            Weights of the target rows.
        sample_domain : array-like of shape (n_samples,), default=None
            Positive for rows of X that are the source, negative for those that are the target; `y` is divided
            likewise.

        Returns
        -------
        self : SinkhornTransport
        """
        tables = two_tables(X, y, X_target, y_target, sample_domain)
        X = check_fit_data(self, tables.X, accept_sparse=self._sparse_formats())
        alone = tables.X_target is None
        Z = X if alone else checked_target(self, tables.X_target, self._sparse_formats())
        ws = open_workspace(X, device=self.device, random_state=self.random_state).exact()
        labels, target_labels = known_labels(tables, self.class_reg)
        source = sample_of(X, labels, source_weight, "source_weight", self.max_samples, ws)
        target = sample_of(Z, target_labels, target_weight, "target_weight", self.max_samples, ws)
        problem = transport_problem(source, target, options(self, TransportOptions))
        solver = solve_potentials(problem.entropic(), problem.solving)
        run = drive(self, solver, attributes=partial(progress, problem, ws), X=X, y=tables.y, advice=_ADVICE)
        if run.converged:
            _warn_of_rounding(run.state.error, self.tol)
        model = transport_model(problem, run.state)
        return keep(self, ws, model, **described(model, problem, run.state, ws))

    def transform(self, X):
        """Move rows of the source onto the target.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        X_moved : array of shape (n_samples, n_features)
            Dense, in the precision of X.
        """
        ws, rows, model = self._recalled(X, method="transform")
        cost_of = partial(costs, metric=model.metric, device=ws.device)
        return ws.answer(MAPS[self.out_of_sample](rows, model, cost_of))

    def inverse_transform(self, X):
        """Move rows of the target onto the source.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        X_moved : array of shape (n_samples, n_features)
            Dense, in the precision of X. Both maps take means: one after the other is not the identity.
        """
        ws, rows, model = self._recalled(X, method="inverse_transform")
        cost_of = partial(turned_costs, metric=model.metric, device=ws.device)
        return ws.answer(MAPS[self.out_of_sample](rows, turned(model), cost_of))

    @property
    def coupling_(self):
        """The plan between the rows of both tables."""
        if not hasattr(self, "X_target_"):
            raise AttributeError(f"This {type(self).__name__} has no coupling_: it is not fitted.")
        ws = open_workspace(self.potentials_target_, device=self.device).exact()
        return ws.store(coupling(recall(self, TransportModel, ws)))

    def _recalled(self, X, method):
        """Validate new rows; return the workspace, the rows and the model."""
        formats = self._sparse_formats()
        X = check_new_data(self, X, like="potentials_target_", method=method, accept_sparse=formats)
        ws = open_workspace(X, device=self.device).exact()
        return ws, X if issparse(X) else ws.load(X), recall(self, TransportModel, ws)

    def _sparse_formats(self):
        return "csr" if self.metric in SPARSE_METRICS else False

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.metric in SPARSE_METRICS
        tags.array_api_support = True
        return tags


def _warn_of_rounding(error, tol):
    """Warn where the solver has ended above the tolerance; with a tolerance of 0 it always does."""
    if error > tol > 0:
        warn(
            f"SinkhornTransport stopped with a marginal error of {error:.1e}, above tol={tol:.1e}, where rounding in "
            "float64 allows no less. Raise reg or tol.",
            ConvergenceWarning,
        )
