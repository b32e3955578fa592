"""Elastic-net subspace clustering: codes that are sparse, and shared among rows that are alike."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.callback import CallbackSupportMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, _fit_context
from .._core.iterate import drive
from .._math.graphs import packed_attribute
from ._elastic_net_solver import elastic_net_codes, elastic_net_problem, rounds
from ._self_expression import conclude, make_ready, outcome, predict, read
from ._shared_parameters import CONSTRAINTS, documented


@documented("sum")
class ElasticNetSubspaceClustering(CallbackSupportMixin, ClusterMixin, BaseEstimator):
    """Cluster rows by subspaces, coding each row by the others with the elastic net.

    Between :class:`SparseSubspaceClustering` (`tau` = 1), whose graphs may fall apart, and
    :class:`LeastSquaresSubspaceClustering`, whose graphs join everything: the codes are sparse, and rows that are alike
    share them. Active sets make it fast; it takes tens of thousands of rows. :class:`ThresholdedSubspaceClustering` and
    :class:`SparseSubspaceClusteringOMP` are faster still.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    gamma : float, default=50.0
        Weight of the fit, above 0, in units of that at which a row's code vanishes: up to 1 there is no code. Raising
        it admits more rows to a code.
    tau : float, default=0.9
        Share of the 1-norm in the penalty, above 0, at most 1. Lowering it spreads codes over rows that are alike.
    positive : bool, default=False
        Whether coefficients have to be at least 0.
    support_size : int, default=100
        Rows at most with which a row is coded at a time; more are taken up only if needed, one in a round.
    max_iter : int, default=40
        Rounds at most: each takes up the rows that would improve a code most, and solves for the coefficients.
    tol : float, default=1e-4
        Stop when no row's optimality conditions are violated by more than this share of its penalty.
    n_nonzero : int or None, default=50
        Coefficients of a row that are kept in the end, the largest; None keeps all.
    <shared parameters>
    <last parameters>
    verbose : int, default=0
        1 prints a line per round.

    Attributes
    ----------
    representation_ : sparse array of shape (n_samples, n_samples)
        Row i codes training row i by the others. CSR, with an empty diagonal.
    <shared attributes>
    n_iter_ : int
        Rounds run.

    See Also
    --------
    SparseSubspaceClustering : The 1-norm alone.
    SparseSubspaceClusteringOMP : Greedy codes, faster.

    Notes
    -----
    The code c of row x minimises
    :math:`\\tau \\|c\\|_1 + \\frac{1 - \\tau}{2} \\|c\\|^2 + \\frac{1}{2 a} \\|x - c X\\|^2` over the other rows,
    with :math:`a = \\max_j |x_j^\\top x| / (\\tau \\gamma)`, so that scale does not matter. A round costs
    O(n_samples² n_features) for the rows not yet done, in blocks; memory O(n_samples support_size).

    References
    ----------
    .. [1] C. You, C.-G. Li, D. Robinson, R. Vidal, "Oracle based active set algorithm for scalable elastic net subspace
       clustering", CVPR 2016.

    Examples
    --------
    >>> from sklowrank.cluster import ElasticNetSubspaceClustering
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> from sklowrank.metrics import clustering_accuracy
    >>> X, y, _ = make_union_of_subspaces(150, 20, n_dims=3, n_clusters=3, noise=0.01, random_state=0)
    >>> model = ElasticNetSubspaceClustering(3, random_state=0).fit(X)
    >>> clustering_accuracy(y, model.labels_)
    1.0
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "gamma": [Interval(Real, 0, None, closed="neither")],
        "tau": [Interval(Real, 0, 1, closed="right")],
        "positive": ["boolean"],
        "support_size": [Interval(Integral, 1, None, closed="left")],
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
        tau: float = 0.9,
        positive: bool = False,
        support_size: int = 100,
        max_iter: int = 40,
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
        self.tau = tau
        self.positive = positive
        self.support_size = support_size
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
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : ElasticNetSubspaceClustering
        """
        X = read(self, X, sparse=True)
        ready = make_ready(self, X, negatives=not self.positive)
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
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : array of shape (n_samples,)
        """
        return predict(self, X, _code_new_rows, sparse=True)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.sparse = True
        return tags


def _problem(estimator, atoms, targets=None):
    options = {"gamma": estimator.gamma, "tau": estimator.tau, "positive": estimator.positive}
    return elastic_net_problem(atoms, targets=targets, batch_size=estimator.batch_size, **options)


def _solver(estimator, rows):
    """Return the rounds over all rows, and what turns their state into codes."""
    options = {"support_size": estimator.support_size, "tol": estimator.tol, "batch_size": estimator.batch_size}
    steps = rounds(_problem(estimator, rows), **options)
    return steps, lambda state: state.matrix(rows.shape[0], estimator.n_nonzero)


def _code_new_rows(estimator, atoms, rows, ws):
    options = {"support_size": estimator.support_size, "tol": estimator.tol, "batch_size": estimator.batch_size}
    codes = elastic_net_codes(_problem(estimator, atoms, rows), max_iter=estimator.max_iter, **options)
    return codes.matrix(atoms.shape[0], estimator.n_nonzero)
