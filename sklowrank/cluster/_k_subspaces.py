"""K-subspaces: clusters that are lines, planes or flats of higher dimension, by alternation."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.iterate import drive
from .._core.rows import largest_magnitude, row_weights, rows_of
from .._core.tags import partitioned
from .._core.validation import check_fit_data, check_fit_rows, check_new_data
from .._core.workspace import open_workspace
from .._math.distinct import distinct_weighted
from .._math.graphs import pack, packed_attribute, spread
from .._math.linalg import signs_of_largest
from .._math.subspaces import dims_by_threshold, table_of
from ._k_subspaces_solver import descend, last
from ._k_subspaces_starts import (
    check_dims,
    check_enough,
    draw_rows,
    ensemble_labels,
    spectral_start,
    starting_labels,
    warn_of_fewer,
)
from ._k_subspaces_stream import Data, absorb, distances, nearest, power_of_two, stream, sweep


class KSubspaces(CallbackSupportMixin, ClusterMixin, TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator):
    """Cluster rows by the nearest of K flats: lines, planes, subspaces.

    What :class:`~sklearn.cluster.KMeans` is for round clusters, this is for flat ones: rows go to the nearest flat, and
    each flat is fitted to its rows by principal components. It is fast and handles millions of rows. It finds a local
    minimum: the default starts from a graph too, because random starts alone fail where clusters have few rows. For a
    density, or soft assignments, take :class:`~sklowrank.mixture.LowRankGaussianMixture`.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    n_dims : int, "auto" or sequence of n_clusters ints, default="auto"
        Dimension of the flats, below `n_features`. "auto" is one for all: the median over clusters of the number of
        singular values above the noise, in a spectral clustering of the rows (at most 5000 of them). Dead, repeated and
        rare columns do not count.
    affine : bool, default=True
        Flats with a mean of their own. Where False they go through the origin.
    init : {"auto", "random"}, default="auto"
        "auto": one start from the spectral clustering of
        :class:`~sklowrank.cluster.ThresholdedSubspaceClustering`, with `affine` a third of the starts from k-means, the
        others from random flats. "random": random flats alone.
    n_init : int, default=10
        Number of starts; the one with the smallest `inertia_` is kept. Raising it costs time in proportion. Above 5000
        rows the starts compete on 5000 rows, and the best goes on with all.
    max_iter : int, default=100
        Iterations at most.
    tol : float, default=0.0
        Stop when giving rows to nearer flats lowers the inertia by this share at most. 0 goes on until no row moves.
    ensemble : int or None, default=None
        Number of short runs from random flats whose labels are collected: rows that share a cluster in many of them are
        neighbours, and a spectral clustering of that graph is the only start. Better than single starts where the flats
        cross at small angles, and takes O(n_samples²) time.
    ensemble_iter : int, default=3
        Iterations of each short run.
    ensemble_neighbors : int or "auto", default="auto"
        Neighbours kept for each row, at most ``n_samples - 1``. "auto" means 10.
    batch_size : int or "auto", default="auto"
        Rows handled at once. It bounds the memory and does not change the result.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seeds the starts.
    verbose : int, default=0
        1 prints a line per iteration.

    Attributes
    ----------
    bases_ : list of n_clusters arrays of shape (n_features, n_dims_[k])
        Orthonormal directions of each flat, strongest first; the largest entry of each is positive.
    means_ : array of shape (n_clusters, n_features)
        A point of each flat: the mean of its rows, or zero where `affine` is False.
    n_dims_ : array of shape (n_clusters,)
        Dimensions of the flats.
    labels_ : array of shape (n_samples,)
        The nearest flat of each training row, the first of equally near ones. Fewer distinct labels than `n_clusters`
        raise a ConvergenceWarning.
    inertia_ : float
        Sum of the squared distances of the rows from their flats, times the rows' weights.
    n_iter_ : int
        Iterations run.
    affinity_matrix_ : sparse array of shape (n_samples, n_samples)
        Shares of the ensemble's runs in which two rows had one cluster. Only with `ensemble`.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any.

    See Also
    --------
    sklowrank.mixture.LowRankGaussianMixture : The same picture as a density, with soft assignments.
    sklowrank.cluster.ThresholdedSubspaceClustering : From a graph alone, for subspaces through the origin.
    sklearn.cluster.KMeans : For round clusters.

    Notes
    -----
    The fit minimises

    .. math:: \\sum_i w_i \\min_k \\left\\|(I - U_k U_k^\\top)(x_i - \\mu_k)\\right\\|^2

    over orthonormal :math:`U_k` and, with `affine`, :math:`\\mu_k`. Each half of an iteration is exact: the nearest
    flat of each row; the mean and the leading eigenvectors of the second moments of each cluster. An empty cluster is
    seeded with the rows that are worst fitted. An iteration takes O(n_samples n_features (n_features + n_clusters
    n_dims)) time; memory beyond X is one block of rows, the labels and n_clusters n_features² numbers.

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

    affinity_matrix_ = packed_attribute("_affinity")

    # Set by fit
    bases_: list[np.ndarray]
    means_: np.ndarray
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
        """Find the flats.

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
        data, steps, n_dims, graph = self._descent(rows, sample_weight, ws)

        def attributes(flats):
            return self._attributes(flats, n_dims, data, ws)

        run = drive(self, steps, attributes=attributes, X=X, y=y)
        self._remember(attributes(run.state), graph, n_iter=run.n_iter)
        warn_of_fewer(ws.load(self.labels_), self.n_clusters, "n_clusters")
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None) -> Self:
        """Update the flats with a batch of rows; the first batch, which starts them, needs n_clusters rows at least.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The batch.
        y : ignored
            Present for pipelines.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, at least 0.

        Returns
        -------
        self : KSubspaces
            `labels_` and `inertia_` are those of the batch, `n_iter_` counts batches.
        """
        if not hasattr(self, "means_"):
            X = check_fit_data(self, X, ensure_min_features=2)
            ws = open_workspace(X, device=self.device, random_state=self.random_state)
            data, steps, n_dims, graph = self._descent(rows_of(X, ws), sample_weight, ws)
            return self._remember(self._attributes(last(steps, self.max_iter), n_dims, data, ws), graph, n_iter=1)
        X = check_new_data(self, X, like="means_", method="partial_fit")
        ws = open_workspace(X, device=self.device)
        return self._remember(self._absorb(rows_of(X, ws), sample_weight, ws), None, n_iter=self.n_iter_ + 1)

    def predict(self, X):
        """Return the nearest flat of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : array of shape (n_samples,)
        """
        rows, ws = self._open(X, "predict")
        return ws.store(nearest(rows, None, *self._flats(ws), self.batch_size)[0])

    def transform(self, X):
        """Return the distance of each row from each flat.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        distances : array of shape (n_samples, n_clusters)
            Euclidean distances, in units of X.
        """
        rows, ws = self._open(X, "transform")
        blocks = distances(rows, *self._flats(ws), self.batch_size)
        return ws.store(torch.cat([block.to(ws.dtype) for block in blocks]))

    def score(self, X, y=None, sample_weight=None):
        """Return minus the sum of the squared distances of the rows from their nearest flats.

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
        rows, ws = self._open(X, "score")
        return -nearest(rows, row_weights(sample_weight, rows, ws), *self._flats(ws), self.batch_size)[1]

    @property
    def _n_features_out(self):
        return len(self.bases_)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)

    def _descent(self, rows, sample_weight, ws):
        """Return the rows, the steps of the fit, the dimension of each flat, and the graph of an ensemble."""
        n_dims = check_dims(self.n_dims, self.n_clusters, rows.shape[1])
        given, generator = row_weights(sample_weight, rows, ws), ws.generator
        weights = torch.ones(len(rows), dtype=torch.float64, device=ws.device) if given is None else given
        check_enough(int((weights > 0).sum()), len(rows), self.n_clusters)
        origin = torch.zeros(rows.shape[1], dtype=torch.float64, device=ws.device)
        data = Data(rows, given, power_of_two(largest_magnitude(rows)), origin)
        chosen = slice(None) if self.ensemble else draw_rows(weights, generator)
        rows, weights, place = distinct_weighted(data.load(chosen), weights[chosen])
        if self.affine:
            data = data._replace(centre=weights @ rows / weights.sum())
            rows = rows - data.centre
        spectral = graph = None
        if n_dims is None or (self.init == "auto" and not self.ensemble):
            spectral = spectral_start(rows, self.n_clusters, generator)
        if n_dims is None:
            table = table_of(rows, centred=self.affine)
            n_dims = [dims_by_threshold(table, spectral, self.n_clusters)] * self.n_clusters
        options = {"centred": self.affine, "generator": generator}
        if self.ensemble:
            q = 10 if self.ensemble_neighbors == "auto" else self.ensemble_neighbors
            options |= {"n_iter": self.ensemble_iter, "n_neighbors": q}
            labels, graph = ensemble_labels(rows, weights, n_dims, self.ensemble, **options)
            graph = spread(graph, place.cpu().numpy())
        else:
            labels = starting_labels(rows, weights, n_dims, self.n_init, init=self.init, spectral=spectral, **options)
        steps = descend(rows, weights, labels, n_dims, centred=self.affine, batch_size=self.batch_size)
        if isinstance(chosen, torch.Tensor):
            best = last(steps, self.max_iter)
            steps = stream(data, best, n_dims, centred=self.affine, batch_size=self.batch_size)
        return data, steps, n_dims, graph

    def _attributes(self, flats, n_dims, data, ws):
        """Return the fitted attributes of some flats; labels are those of the flats as they are stored."""
        means = ((flats.means + data.centre) * data.unit).to(ws.dtype)
        signs = torch.stack([signs_of_largest(U.mT) for U in flats.bases])[:, None]
        bases = (flats.bases * signs).to(ws.dtype)
        sketch = (flats.strengths.sqrt()[:, :, None] * flats.bases.mT * data.unit).to(ws.dtype)
        labels, inertia = nearest(data.rows, data.weights, means, bases, self.batch_size)
        return {
            "means_": ws.store(means),
            "bases_": [ws.store(U[:, :d]) for U, d in zip(bases, n_dims)],
            "n_dims_": ws.store(torch.tensor(n_dims, device=ws.device)),
            "labels_": ws.store(labels),
            "inertia_": inertia,
            "_sketch": [ws.store(rows) for rows in sketch],
            "_weight": ws.store(flats.counts),
        }

    def _absorb(self, rows, sample_weight, ws):
        """Return the fitted attributes after a batch of rows, each given to the nearest flat."""
        (means, bases), weights = self._flats(ws), row_weights(sample_weight, rows, ws)
        unit, dims = power_of_two(largest_magnitude(rows), means.abs().amax()), [U.shape[1] for U in self.bases_]
        data = Data(rows, weights, unit, torch.zeros(rows.shape[1], dtype=torch.float64, device=ws.device))
        means, bases = means.double() / unit, bases.double()
        nobody = torch.zeros(len(rows), dtype=torch.int32, device=ws.device)
        *_, moments = sweep(data, means, bases, nobody, self.batch_size)
        sketches, total = [ws.load(known).double() / unit for known in self._sketch], ws.load(self._weight).clone()
        absorb(moments, means, bases, sketches, total, dims, centred=self.affine)
        means, bases = (means * unit).to(ws.dtype), bases.to(ws.dtype)
        labels, inertia = nearest(rows, weights, means, bases, self.batch_size)
        return {
            "means_": ws.store(means),
            "bases_": [ws.store(U[:, :d]) for U, d in zip(bases, dims)],
            "labels_": ws.store(labels),
            "inertia_": inertia,
            "_sketch": [ws.store((known * data.unit).to(ws.dtype)) for known in sketches],
            "_weight": ws.store(total),
        }

    def _remember(self, found, graph, *, n_iter):
        """Set the fitted attributes; the graph of a former fit does not stay."""
        vars(self).pop("_affinity", None)
        vars(self).update(found, n_iter_=n_iter)
        if graph is not None:
            self._affinity = pack(graph)
        return self

    def _open(self, X, method):
        X = check_new_data(self, X, like="means_", method=method)
        ws = open_workspace(X, device=self.device)
        return rows_of(X, ws), ws

    def _flats(self, ws):
        """Return means (K, D) and bases (K, D, d) in memory of their own, narrower bases filled up with zeros."""
        means = ws.load(self.means_).clone()
        bases = means.new_zeros(*means.shape, max(U.shape[1] for U in self.bases_))
        for k, U in enumerate(self.bases_):
            bases[k, :, : U.shape[1]] = ws.load(U)
        return means, bases
