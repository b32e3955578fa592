"""Elastic-net subspace clustering: sparse codes that are shared among correlated rows."""

from numbers import Integral, Real
from typing import Literal, Self

from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, _fit_context
from .._core.fitted import fitted_attributes, fitted_matrix, keep, options
from .._core.iterate import drive
from .._core.validation import check_fit_data
from ._elastic_net_solver import ElasticNetOptions, elastic_net_codes, elastic_net_problem, rounds
from ._self_expression import LEAST_SHAPE, SpectralOptions, cluster_model, coding_problem, described, warn_of_graph
from ._shared_parameters import CONSTRAINTS, documented_clusterer
from ._subspace_predictions import SubspacePredictions


@documented_clusterer(sparse=True)
class ElasticNetSubspaceClustering(CallbackSupportMixin, SubspacePredictions, BaseEstimator):
    """Cluster rows by subspaces, coding each row by the others with the elastic net.

    Between :class:`SparseSubspaceClustering` (``l1_ratio=1``), whose graphs may be disconnected, and
    :class:`LeastSquaresSubspaceClustering`, whose graphs are complete: codes are sparse, and shared among correlated
    rows. Active sets make it fit for tens of thousands of rows. :class:`ThresholdedSubspaceClustering` and
    :class:`SparseSubspaceClusteringOMP` are faster.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    gamma : float, default=50.0
        Weight of the squared error, above 0, relative to the weight at which the code of a row vanishes: up to 1 all
        codes are zero. Higher values give codes with more nonzero coefficients.
    l1_ratio : float, default=0.9
        Share of the 1-norm in the penalty, in (0, 1]. Lower values spread a code over more correlated rows.
    positive : bool, default=False
        Whether coefficients are constrained to be at least 0.
    max_iter : int, default=40
        Maximum number of iterations. Each adds the rows that violate the optimality conditions most to the support of
        a code, and solves for its coefficients.
    tol : float, default=1e-4
        Tolerance of the stopping criterion. The fit stops when no row violates its optimality conditions by more than
        this share of its penalty.
    n_nonzero_coefs : int or None, default=50
        Maximum number of nonzero coefficients of a code. The largest in magnitude are kept after the fit; None keeps
        all.
    <shared_parameters>
    <last_parameters>
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration.

    Attributes
    ----------
    representation_ : sparse array of shape (n_samples, n_samples)
        Row i is the code of training row i over the others. CSR, with an empty diagonal.
    <shared_attributes>
    n_iter_ : int
        Number of iterations run.

    See Also
    --------
    SparseSubspaceClustering : Codes by the lasso.
    SparseSubspaceClusteringOMP : Greedy codes, faster.

    Notes
    -----
    The code c of row x minimises
    :math:`\\rho \\|c\\|_1 + \\frac{1 - \\rho}{2} \\|c\\|^2 + \\frac{1}{2 a} \\|x - c X\\|^2` over the other rows,
    with :math:`a = \\max_j |x_j^\\top x| / (\\rho \\gamma)`, so that codes do not depend on the scale of
    X. An iteration costs O(n_samples² n_features) for the rows that have not converged, in blocks; memory O(n_samples)
    times the size of the supports, of which most stay below 100 rows.

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
        "l1_ratio": [Interval(Real, 0, 1, closed="right")],
        "positive": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_nonzero_coefs": [None, Interval(Integral, 1, None, closed="left")],
        "verbose": ["verbose"],
    }

    representation_ = fitted_matrix("representation")

    # Set by fit
    n_iter_: int

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        gamma: float = 50.0,
        l1_ratio: float = 0.9,
        positive: bool = False,
        max_iter: int = 40,
        tol: float = 1e-4,
        n_nonzero_coefs: int | None = 50,
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
        self.l1_ratio = l1_ratio
        self.positive = positive
        self.max_iter = max_iter
        self.tol = tol
        self.n_nonzero_coefs = n_nonzero_coefs
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

        <fit_parameters>
        """
        X = check_fit_data(self, X, accept_sparse="csr", **LEAST_SHAPE)
        problem = coding_problem(X, options(self, SpectralOptions), negatives=not self.positive)
        steps = rounds(elastic_net_problem(problem.rows, options(self, ElasticNetOptions)))

        def model_of(codes):
            return cluster_model(codes.matrix(problem.rows.shape[0], self.n_nonzero_coefs), problem)

        def attributes(codes):
            model = model_of(codes)
            return fitted_attributes(problem.ws, model, **described(model, problem))

        run = drive(self, steps, attributes=attributes, X=X, y=y)
        model = model_of(run.state)
        warn_of_graph(model, problem, "raise n_nonzero_coefs or gamma")
        return keep(self, problem.ws, model, **described(model, problem), n_iter_=run.n_iter)

    def _code_rows(self, atoms, rows, model, ws):
        net = elastic_net_problem(atoms, options(self, ElasticNetOptions), targets=rows)
        return elastic_net_codes(net).matrix(atoms.shape[0], self.n_nonzero_coefs)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
