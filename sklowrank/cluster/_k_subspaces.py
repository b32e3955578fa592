"""K-subspaces: clusters near lines, planes or affine subspaces of higher dimension, by alternation."""

from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import fitted_attributes, fitted_matrix, keep, options, recall
from .._core.iterate import drive
from .._core.rows import row_weights, rows_of
from .._core.tags import partitioned
from .._core.validation import check_fit_data, check_fit_rows, check_new_data
from .._core.workspace import open_workspace
from .._math.linalg import signs_of_largest
from .._math.subspaces import padded_bases
from ._k_subspaces_solver import Flats, last
from ._k_subspaces_starts import KSubspacesOptions, SubspacesProblem, subspaces_problem, warn_of_fewer
from ._k_subspaces_stream import FittedSubspaces, absorbed, distances, nearest, subspace_steps


class Subspaces(NamedTuple):
    """The public attributes from which distances follow."""

    cluster_centers: torch.Tensor
    bases: list[torch.Tensor]


class KSubspaces(CallbackSupportMixin, ClusterMixin, TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):
    """Cluster rows by the nearest of K affine subspaces: lines, planes, subspaces of higher dimension.

    The counterpart of :class:`~sklearn.cluster.KMeans` for subspace clusters: each row is assigned to the nearest
    subspace, and each subspace is fitted to its rows by principal components. It is fast and handles millions of rows.
    It finds a local minimum: the default also starts from a graph, because random starts alone fail where clusters have
    few rows. For a density, or soft assignments, use :class:`~sklowrank.mixture.LowRankGaussianMixture`.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    n_dims : int, "auto" or sequence of n_clusters ints, default="auto"
        Dimension of the subspaces. It is below `n_features`. "auto" is one for all: the median over clusters of the
        number of singular values above the noise, in a spectral clustering of the rows (at most 5000 of them). Dead,
        repeated and rare columns do not count.
    affine : bool, default=True
        Whether subspaces are affine, with an offset each, rather than linear.
    init : {"auto", "random"}, default="auto"
        Initialisation of the fit. "auto": one start from the spectral clustering of
        :class:`~sklowrank.cluster.ThresholdedSubspaceClustering`, with `affine` a third of the starts from k-means, the
        others from random subspaces. "random": random subspaces alone.
    n_init : int, default=10
        Number of starts; the best one wins. It has the smallest `inertia_`; time is proportional to `n_init`. Above
        5000 rows the starts are compared on 5000 rows, and the best one continues with all.
    max_iter : int, default=100
        Maximum number of iterations.
    tol : float, default=0.0
        Tolerance of the stopping criterion. The fit stops when assigning rows to nearer subspaces lowers the inertia by
        at most this share; with 0, when no row changes its cluster.
    ensemble : int or None, default=None
        Number of short runs from random subspaces. Rows that share a cluster in many of the runs are neighbours, and a
        spectral clustering of that graph is the only start. It is better than single starts where subspaces intersect
        at small angles, and takes O(n_samples²) time.
    ensemble_iter : int, default=3
        Number of iterations of each short run.
    ensemble_neighbors : int or "auto", default="auto"
        Number of neighbours of each row in the graph, at most ``n_samples - 1``. "auto" means 10.
    batch_size : int or "auto", default="auto"
        Number of rows processed at once; it bounds memory and does not change the result.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It is used by the starts.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration.

    Attributes
    ----------
    bases_ : list of n_clusters arrays of shape (n_features, n_dims_[k])
        Orthonormal directions of each subspace, strongest first; the largest entry of each is positive.
    cluster_centers_ : array of shape (n_clusters, n_features)
        A point of each subspace: the mean of its rows, or zero where `affine` is False.
    n_dims_ : array of shape (n_clusters,)
        Dimensions of the subspaces.
    labels_ : array of shape (n_samples,)
        The nearest subspace of each training row, the first of equally near ones. Fewer distinct labels than
        `n_clusters` raise a ConvergenceWarning.
    inertia_ : float
        Weighted sum of the squared distances of the rows from their subspaces.
    n_iter_ : int
        Number of iterations, or of batches of `partial_fit`.
    affinity_matrix_ : sparse array of shape (n_samples, n_samples)
        Share of the ensemble's runs in which two rows share a cluster. Only with `ensemble`.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had names that are strings.

    See Also
    --------
    sklowrank.mixture.LowRankGaussianMixture : A density of the same form, with soft assignments.
    sklowrank.cluster.ThresholdedSubspaceClustering : From a graph alone, for subspaces through the origin.
    sklearn.cluster.KMeans : For round clusters.

    Notes
    -----
    The fit minimises

    .. math:: \\sum_i w_i \\min_k \\left\\|(I - U_k U_k^\\top)(x_i - \\mu_k)\\right\\|^2

    over orthonormal :math:`U_k` and, with `affine`, :math:`\\mu_k`. Each half of an iteration is exact: the nearest
    subspace of each row; the mean and the leading eigenvectors of the second moments of each cluster. An empty cluster
    is re-seeded with the rows of the largest distances. An iteration takes
    O(n_samples n_features (n_features + n_clusters n_dims)) time; memory beyond X is one block of rows, the labels and
    n_clusters n_features² numbers.

    A row of weight 2 counts as two rows. Up to 5000 rows this holds for the starts too: equal rows are merged and
    sorted before a start is made, so that the order of the rows does not matter either.

    `partial_fit` keeps a sketch of each cluster's second moments (frequent directions) with ``2 * n_dims + 8`` rows.

    References
    ----------
    .. [1] P. Bradley, O. Mangasarian, "k-Plane clustering", Journal of Global Optimization, 2000.
    .. [2] J. Lipor, D. Hong, Y. S. Tan, L. Balzano, "Subspace clustering using ensembles of K-subspaces", Information
       and Inference, 2021.
    .. [3] M. Ghashami, E. Liberty, J. Phillips, D. Woodruff, "Frequent directions: simple and deterministic matrix
       sketching", SIAM Journal on Computing, 2016.

    Examples
    --------
    >>> from sklowrank.cluster import KSubspaces
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> from sklowrank.metrics import clustering_accuracy
    >>> X, y, bases = make_union_of_subspaces(n_clusters=4, noise=0.05, random_state=0)
    >>> model = KSubspaces(4, n_dims=3, affine=False, random_state=0).fit(X)
    >>> clustering_accuracy(y, model.labels_)
    1.0
    >>> model.transform(X).shape
    (300, 4)
    """

    _parameter_constraints = {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "n_dims": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"}), "array-like"],
        "affine": ["boolean"],
        "init": [StrOptions({"auto", "random"})],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "ensemble": [Interval(Integral, 1, None, closed="left"), None],
        "ensemble_iter": [Interval(Integral, 1, None, closed="left")],
        "ensemble_neighbors": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    affinity_matrix_ = fitted_matrix("affinity_matrix")

    # Set by fit
    bases_: list[np.ndarray]
    cluster_centers_: np.ndarray
    n_dims_: np.ndarray
    labels_: np.ndarray
    inertia_: float
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        n_dims: int | ArrayLike | Literal["auto"] = "auto",
        affine: bool = True,
        init: Literal["auto", "random"] = "auto",
        n_init: int = 10,
        max_iter: int = 100,
        tol: float = 0.0,
        ensemble: int | None = None,
        ensemble_iter: int = 3,
        ensemble_neighbors: int | Literal["auto"] = "auto",
        batch_size: int | Literal["auto"] = "auto",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_clusters = n_clusters
        self.n_dims = n_dims
        self.affine = affine
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.ensemble = ensemble
        self.ensemble_iter = ensemble_iter
        self.ensemble_neighbors = ensemble_neighbors
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None) -> Self:
        """Fit the subspaces.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : ignored
            Present for pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, at least 0.

        Returns
        -------
        self : KSubspaces
        """
        X = check_fit_rows(self, X, ensure_min_features=2)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows = rows_of(X, ws)
        weights = row_weights(sample_weight, rows, ws)
        problem = subspaces_problem(rows, weights, options(self, KSubspacesOptions), ws)
        describe = partial(described, rows, weights, self.batch_size)

        def attributes(flats):
            model = fitted_subspaces(problem, ws.dtype, flats)
            return fitted_attributes(ws, model, **describe(model))

        run = drive(self, subspace_steps(problem), attributes=attributes, X=X, y=y)
        model = fitted_subspaces(problem, ws.dtype, run.state)
        found = describe(model)
        warn_of_fewer(found["labels_"], self.n_clusters, "n_clusters")
        return keep(self, ws, model, **found, n_iter_=run.n_iter)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None) -> Self:
        """Update the subspaces with a batch of rows; the first batch starts them.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The batch; the first needs at least `n_clusters` rows.
        y : ignored
            Present for pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, at least 0.

        Returns
        -------
        self : KSubspaces
            `labels_` and `inertia_` are those of the batch, `n_iter_` counts batches.
        """
        first = not hasattr(self, "cluster_centers_")
        if first:
            X = check_fit_data(self, X, ensure_min_features=2)
        else:
            X = check_new_data(self, X, like="cluster_centers_", method="partial_fit")
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        rows = rows_of(X, ws)
        weights = row_weights(sample_weight, rows, ws)
        if first:
            problem = subspaces_problem(rows, weights, options(self, KSubspacesOptions), ws)
            model = fitted_subspaces(problem, ws.dtype, last(subspace_steps(problem), self.max_iter))
        else:
            former = recall(self, FittedSubspaces, ws.exact())
            model = absorbed(former, rows, weights, affine=self.affine, batch_size=self.batch_size, dtype=ws.dtype)
        n_iter = 1 if first else self.n_iter_ + 1
        return keep(self, ws, model, **described(rows, weights, self.batch_size, model), n_iter_=n_iter)

    def predict(self, X):
        """Return the nearest subspace of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : array of shape (n_samples,)
        """
        rows, ws, subspaces = self._open(X, "predict")
        return ws.store(nearest(rows, None, *subspaces, self.batch_size)[0])

    def transform(self, X):
        """Return the distance of each row from each subspace.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        distances : array of shape (n_samples, n_clusters)
            Euclidean distances, in units of X.
        """
        rows, ws, subspaces = self._open(X, "transform")
        return ws.answer(distances(rows, *subspaces, self.batch_size))

    def score(self, X, y=None, sample_weight=None):
        """Return minus the sum of the squared distances of the rows from their nearest subspaces.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : ignored
            Present for pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, at least 0.

        Returns
        -------
        score : float
            At most 0.
        """
        rows, ws, subspaces = self._open(X, "score")
        return -nearest(rows, row_weights(sample_weight, rows, ws), *subspaces, self.batch_size)[1]

    @property
    def _n_features_out(self):
        return len(self.bases_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)

    def _open(self, X, method):
        """Return validated rows, the workspace, and the subspaces: centres (K, D) and bases (K, D, d)."""
        X = check_new_data(self, X, like="cluster_centers_", method=method)
        ws = open_workspace(X, device=self.device)
        centers, bases = recall(self, Subspaces, ws)
        return rows_of(X, ws), ws, (centers, padded_bases(bases))


# In the order in which `fit` calls them


def fitted_subspaces(problem: SubspacesProblem, dtype: torch.dtype, flats: Flats) -> FittedSubspaces:
    """Return what is stored of a state of the fit, in units of X and the precision `dtype`."""
    unit, dims = problem.rows.unit, problem.n_dims
    centers = ((flats.means + problem.rows.centre) * unit).to(dtype)
    signs = torch.stack([signs_of_largest(U.mT) for U in flats.bases])[:, None]
    bases = (flats.bases * signs).to(dtype)
    sketches = (flats.strengths.sqrt()[:, :, None] * flats.bases.mT * unit).to(dtype)
    bases = [U[:, :d] for U, d in zip(bases, dims)]
    return FittedSubspaces(centers, bases, list(sketches), flats.counts, problem.graph)


def described(rows, weights: torch.Tensor | None, batch_size, model: FittedSubspaces) -> dict[str, Any]:
    """Return the public attributes of a fitted model; labels are those of the subspaces as stored."""
    labels, inertia = nearest(rows, weights, model.cluster_centers, padded_bases(model.bases), batch_size)
    dims = torch.tensor([U.shape[1] for U in model.bases], device=labels.device)
    return {
        "cluster_centers_": model.cluster_centers,
        "bases_": model.bases,
        "n_dims_": dims,
        "labels_": labels,
        "inertia_": inertia,
    }
