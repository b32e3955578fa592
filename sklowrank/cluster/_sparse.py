"""Sparse subspace clustering: codes by the lasso."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.callback import CallbackSupportMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.iterate import drive
from .._math.graphs import csr_from, packed_attribute
from ._admm_solver import admm_steps, least_largest_product
from ._elastic_net_solver import elastic_net_codes, elastic_net_problem, rounds
from ._self_expression import conclude, make_ready, outcome, predict, read
from ._shared_parameters import CONSTRAINTS, documented

_SUPPORT = 100  # rows with which a row is coded at a time


@documented("sum")
class SparseSubspaceClustering(CallbackSupportMixin, ClusterMixin, BaseEstimator):
    """Cluster rows by subspaces, coding each row by the others with the lasso.

    The classic of the family: where clusters are subspaces, a row is coded by rows of its own cluster under weak
    conditions. The graph may be so sparse that clusters fall apart, for which
    :class:`ElasticNetSubspaceClustering` is the cure; :class:`SparseSubspaceClusteringOMP` is faster.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    gamma : float, default=50.0
        Weight of the fit, above 0, in units of that at which the code of a row (for "admm": of some row) vanishes.
        Raising it admits more rows to a code.
    solver : {"active_set", "admm"}, default="active_set"
        "active_set" solves each row's problem on the few rows that it needs. "admm" is the alternating direction method
        of multipliers on all rows at once: one weight for all, dense matrices, for at most some 3,000 rows.
    affine : bool, default=False
        Whether codes have to sum to 1, for subspaces that do not pass through the origin.
    max_iter : int, default=200
        Iterations of "admm", or rounds of "active_set", at most.
    tol : float, default=1e-4
        For "active_set", stop when no row's optimality conditions are violated by more than this share of its penalty.
        For "admm", stop when the two copies of the codes differ by no more than this share of their norm: 1e-3 takes
        some hundred iterations and is enough for labels, 1e-4 takes up to a thousand.
    n_nonzero : int or None, default=50
        Coefficients of a row that are kept in the end, the largest; None keeps all.
    <shared parameters>
    <last parameters>
    verbose : int, default=0
        1 prints a line per iteration.

    Attributes
    ----------
    representation_ : sparse array of shape (n_samples, n_samples)
        Row i codes training row i by the others. CSR, with an empty diagonal.
    <shared attributes>
    n_iter_ : int
        Iterations or rounds run.

    See Also
    --------
    ElasticNetSubspaceClustering : With a quadratic penalty too: better connected graphs.
    SparseSubspaceClusteringOMP : Greedy codes, faster.

    Notes
    -----
    The code c of row x minimises :math:`\\|c\\|_1 + \\frac{\\mu}{2} \\|x - c X\\|^2` over the other rows, with
    :math:`\\mu = \\gamma / \\max_j |x_j^\\top x|`; "admm" takes for all rows the least of these maxima. Scale does not
    matter. "active_set" costs O(n_samples² n_features) in a round, in blocks; "admm" O(n_samples³) once and
    O(n_samples³) in an iteration, and O(n_samples²) memory.

    References
    ----------
    .. [1] E. Elhamifar, R. Vidal, "Sparse subspace clustering: algorithm, theory, and applications", IEEE Transactions
       on Pattern Analysis and Machine Intelligence, 2013.

    Examples
    --------
    >>> from sklowrank.cluster import SparseSubspaceClustering
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> from sklowrank.metrics import clustering_accuracy
    >>> X, y, _ = make_union_of_subspaces(150, 20, n_dims=3, n_clusters=3, noise=0.01, random_state=0)
    >>> model = SparseSubspaceClustering(3, random_state=0).fit(X)
    >>> clustering_accuracy(y, model.labels_)
    1.0
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "gamma": [Interval(Real, 0, None, closed="neither")],
        "solver": [StrOptions({"active_set", "admm"})],
        "affine": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_nonzero": [None, Interval(Integral, 1, None, closed="left")],
        "verbose": ["verbose"],
    }

    representation_ = packed_attribute("_representation")
    affinity_matrix_ = packed_attribute("_affinity")

    # Set by fit
    labels_: np.ndarray
    bases_: list[np.ndarray]
    means_: np.ndarray
    n_dims_: np.ndarray
    n_components_graph_: int
    n_features_in_: int
    feature_names_in_: np.ndarray
    n_iter_: int

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        gamma: float = 50.0,
        solver: Literal["active_set", "admm"] = "active_set",
        affine: bool = False,
        max_iter: int = 200,
        tol: float = 1e-4,
        n_nonzero: int | None = 50,
        normalize: bool = True,
        center: bool = False,
        n_pca: int | float | None = None,
        affinity: Literal["auto", "max", "sum", "doubly_stochastic", "nearest_neighbors"] = "auto",
        n_init: int = 10,
        assign_labels: Literal["kmeans", "cluster_qr"] = "kmeans",
        refine: Literal["none", "k-subspaces", "mixture"] = "none",
        predict_method: Literal["residual", "code"] = "residual",
        n_dims: int | Literal["auto"] = "auto",
        batch_size: int | Literal["auto"] = "auto",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_clusters = n_clusters
        self.gamma = gamma
        self.solver = solver
        self.affine = affine
        self.max_iter = max_iter
        self.tol = tol
        self.n_nonzero = n_nonzero
        self.normalize = normalize
        self.center = center
        self.n_pca = n_pca
        self.affinity = affinity
        self.n_init = n_init
        self.assign_labels = assign_labels
        self.refine = refine
        self.predict_method = predict_method
        self.n_dims = n_dims
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Cluster the rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : SparseSubspaceClustering
        """
        X = read(self, X)
        ready = make_ready(self, X, negatives=not self.affine)
        steps, matrix = _solver(self, ready.rows)

        def attributes(state):
            return outcome(self, ready, matrix(state), affinity_by_default="sum")

        run = drive(self, steps, attributes=attributes, X=X, y=y)
        conclude(self, ready, {**attributes(run.state), "n_iter_": run.n_iter})
        return self

    def predict(self, X):
        """Return the cluster of each row, by the subspaces that the training rows span.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : array of shape (n_samples,)
        """
        return predict(self, X, _code_new_rows)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags


def _problem(estimator, atoms, targets=None):
    """Return the elastic net's problem without its quadratic penalty; for "admm" with one weight for all rows."""
    options = {"gamma": estimator.gamma, "tau": 1.0, "affine": estimator.affine, "batch_size": estimator.batch_size}
    if estimator.solver == "admm" and targets is not None:
        options["lam"] = float(least_largest_product(atoms)) / estimator.gamma
    return elastic_net_problem(atoms, targets=targets, **options)


def _solver(estimator, rows):
    """Return the iterations or rounds over all rows, and what turns their state into codes."""
    if estimator.solver == "admm":
        steps = admm_steps(rows, gamma=estimator.gamma, affine=estimator.affine)
        return steps, lambda state: largest_entries(state, estimator.n_nonzero)
    options = {"support_size": _SUPPORT, "tol": estimator.tol, "batch_size": estimator.batch_size}
    steps = rounds(_problem(estimator, rows), **options)
    return steps, lambda state: state.matrix(len(rows), estimator.n_nonzero)


def _code_new_rows(estimator, atoms, rows, ws):
    options = {"support_size": _SUPPORT, "tol": estimator.tol, "batch_size": estimator.batch_size}
    codes = elastic_net_codes(_problem(estimator, atoms, rows), max_iter=estimator.max_iter, **options)
    return codes.matrix(len(atoms), estimator.n_nonzero)


def largest_entries(codes, count):
    """Return dense codes (n, n) as CSR, with the `count` largest magnitudes of each row."""
    n = len(codes)
    columns = codes.abs().topk(n if count is None else min(count, n), dim=1).indices
    return csr_from(columns, codes.gather(1, columns), n)
