"""Sparse subspace clustering: codes by the lasso."""

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Literal, NamedTuple, Self

import torch
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import fitted_attributes, fitted_matrix, keep, options
from .._core.iterate import Step, drive
from .._core.validation import check_fit_data
from .._math.graphs import csr_from
from .._math.prox import soft_threshold
from ._elastic_net_solver import ElasticNetOptions, elastic_net_codes, elastic_net_problem, rounds
from ._self_expression import LEAST_SHAPE, SpectralOptions, cluster_model, coding_problem, described, warn_of_graph
from ._shared_parameters import CONSTRAINTS, documented_clusterer
from ._subspace_predictions import SubspacePredictions

_RELAXATION = 1.6


@documented_clusterer()
class SparseSubspaceClustering(CallbackSupportMixin, SubspacePredictions, BaseEstimator):
    """Cluster rows by subspaces, coding each row by the others with the lasso.

    The classic method of the family: where clusters are subspaces, a row is coded by rows of its own cluster, under
    weak conditions. The graph may be so sparse that clusters are disconnected; :class:`ElasticNetSubspaceClustering`
    avoids this, and :class:`SparseSubspaceClusteringOMP` is faster.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    gamma : float, default=50.0
        Weight of the squared error, above 0, relative to the weight at which the code of a row vanishes (for "admm": of
        the first row whose code does not). Higher values give codes with more nonzero coefficients.
    solver : {"active_set", "admm"}, default="active_set"
        Algorithm of the fit. "active_set" solves the lasso of each row on a small set of rows that grows. "admm" is the
        alternating direction method of multipliers on all rows at once, with one weight for all and dense matrices, for
        up to some 3,000 rows.
    affine : bool, default=False
        Whether subspaces are affine, with an offset each, rather than linear. The codes of a row then sum to 1.
    max_iter : int, default=200
        Maximum number of iterations.
    tol : float, default=1e-4
        Tolerance of the stopping criterion. "active_set" stops when no row violates its optimality conditions by more
        than this share of its penalty, "admm" when the two copies of the codes differ by at most this share of their
        norm: 1e-3 takes some hundred iterations and suffices for labels, 1e-4 takes up to a thousand.
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
    ElasticNetSubspaceClustering : A quadratic penalty too, for graphs that are better connected.
    SparseSubspaceClusteringOMP : Greedy codes, faster.

    Notes
    -----
    The code c of row x minimises :math:`\\|c\\|_1 + \\frac{\\mu}{2} \\|x - c X\\|^2` over the other rows, with
    :math:`\\mu = \\gamma / \\max_j |x_j^\\top x|`; "admm" uses the least of these maxima for all rows. Codes do
    not depend on the scale of X. "active_set" costs O(n_samples² n_features) per iteration, in blocks; "admm"
    O(n_samples³) per iteration, and O(n_samples²) memory.

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
        solver: Literal["active_set", "admm"] = "active_set",
        affine: bool = False,
        max_iter: int = 200,
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
        self.solver = solver
        self.affine = affine
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
        X = check_fit_data(self, X, **LEAST_SHAPE)
        problem = coding_problem(X, options(self, SpectralOptions), negatives=not self.affine)
        if self.solver == "admm":
            steps = admm_steps(problem.rows, gamma=self.gamma, affine=self.affine)
        else:
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
        lam = float(least_largest_product(atoms)) / self.gamma if self.solver == "admm" else None
        net = elastic_net_problem(atoms, options(self, ElasticNetOptions), targets=rows, lam=lam)
        return elastic_net_codes(net).matrix(atoms.shape[0], self.n_nonzero_coefs)


# The codes of all rows at once


class DenseCodes(NamedTuple):
    """A dense matrix of codes."""

    values: torch.Tensor  # (n, n)

    def matrix(self, n_atoms: int, n_nonzero_coefs: int | None = None):
        """Return the codes as CSR, with the `n_nonzero_coefs` largest magnitudes of each row."""
        count = n_atoms if n_nonzero_coefs is None else min(n_nonzero_coefs, n_atoms)
        columns = self.values.abs().topk(count, dim=1).indices
        return csr_from(columns, self.values.gather(1, columns), n_atoms)


def least_largest_product(X) -> torch.Tensor:
    """Return the least over rows of the largest absolute inner product with another row, rows of zeros left out."""
    largest = (X @ X.mT).fill_diagonal_(0).abs().amax(1)
    return torch.where(largest > 0, largest, torch.inf).amin().clamp(max=torch.finfo(X.dtype).max)


def admm_steps(X, *, gamma: float, affine: bool) -> Iterator[Step]:
    """Yield the iterates of ADMM for codes Z (n, n) that minimise ``|Z|_1 + mu / 2 |X - Z X|²`` with a zero diagonal.

    With `affine` the rows of Z sum to 1. ``mu = gamma / least_largest_product(X)``, and `gamma` is the weight of the
    augmented Lagrangian too. C is the copy of Z on which the squares are minimised, over-relaxed by 1.6. The gap is the
    norm of their difference over that of Z.
    """
    n, ones = len(X), float(affine)
    G = (gamma / least_largest_product(X)) * (X @ X.mT)
    L = torch.linalg.cholesky(G + gamma * (torch.eye(n, dtype=X.dtype, device=X.device) + ones))
    Z, dual, dual_sums = torch.zeros_like(G), torch.zeros_like(G), X.new_zeros(n, 1)
    tiny = torch.finfo(X.dtype).tiny
    while True:
        right = G + gamma * Z - dual + ones * (gamma - dual_sums)
        C = torch.cholesky_solve(right.mT, L).mT
        relaxed = _RELAXATION * C + (1 - _RELAXATION) * Z
        Z = soft_threshold(relaxed + dual / gamma, 1 / gamma).fill_diagonal_(0)
        dual = dual + gamma * (relaxed - Z)
        gap = torch.linalg.matrix_norm(Z - C) / torch.linalg.matrix_norm(Z).clamp(min=tiny)
        if affine:
            excess = C.sum(1, keepdim=True) - 1
            dual_sums = dual_sums + gamma * excess
            gap = torch.maximum(gap, excess.square().mean().sqrt())
        yield Step(DenseCodes(Z), float(gap))
