"""Manifold linearizing and clustering: nonlinear clusters, mapped to orthogonal subspaces by a small network."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning

from .._core.annotations import RandomState
from .._core.compat import Interval, Options, StrOptions, _fit_context
from .._core.fitted import fitted_attributes, options, recall, replace_attributes
from .._core.iterate import drive
from .._core.standardize import standardization
from .._core.validation import check_fit_data, check_new_data
from .._core.warn import warn
from .._core.workspace import open_workspace
from .._nets.parameters import NETWORK_CONSTRAINTS, network_parameters
from .._nets.randomness import fit_randomness
from . import _manifold_linearizing_solver as solver
from ._manifold_linearizing_methods import FittedCodesMixin


@network_parameters(
    width="width",
    module_params='``"module__activation"`` ("relu", "gelu", "tanh" or "identity", default "relu"), '
    '``"module__dropout"`` (default 0) and ``"module__batch_norm"`` (default True)',
)
class ManifoldLinearizingClustering(CallbackSupportMixin, FittedCodesMixin, BaseEstimator):
    """Cluster rows on nonlinear manifolds by a network that maps each of them to a subspace.

    A small network learns without labels to map clusters to orthogonal subspaces, in which the rows are clustered
    (MCR², the principle of maximal coding rate reduction). For some hundreds of rows or more whose clusters are
    connected, but neither convex nor linear: pixels, sensor windows, frozen embeddings. It predicts new rows, gives
    features, and can choose the number of clusters. For round clusters, above all of unequal size,
    :class:`~sklearn.cluster.KMeans` is better and much faster. Results vary with the seed: compare several.

    Parameters
    ----------
    n_clusters : int or "auto", default=8
        Number of clusters. "auto" trains for 10, and chooses a number from 2 to 20 as `estimate_n_clusters` does: a
        rough guide, usually too high where clusters are few.
    n_components : int or "auto", default="auto"
        Number of components. "auto" is 16 for up to 5 clusters, 32 for up to 20, 64 for up to 60, else 128.
    hidden_layer_sizes : sequence of ints, default=(256, 256)
        Widths of the hidden layers of the default network.
    <network parameters> There is one training for each of two stages, with the same callbacks. Weight decay is 1e-4
        unless ``"optimizer__weight_decay"`` is given.
    precision : float, default=0.5
        Squared precision of the coding rates. Smaller values resolve finer differences.
    eta : float or "auto", default="auto"
        Weight of the membership's entropy. Raising it makes memberships softer. "auto" is the value at which a row
        shares its membership with as many rows as a balanced cluster has; for up to 5 clusters it is 0.3.
    kernel : {"signed", "absolute"}, default="signed"
        Similarity of codes: their inner product, or its magnitude.
    positives : {"neighbors", "noise", "mask"} or callable, default="neighbors"
        Second view of a row, which is to get the same features: one of its nearest neighbours, the row itself, the row
        with 30 % of its entries from other rows, or what ``positives(batch, indices, generator)`` returns: a tensor
        like `batch`, standardised rows (n, n_features) on the device; draws should come from `generator`.
    n_neighbors : int or "auto", default="auto"
        Number of nearest neighbours. Positive pairs are drawn from them. "auto" is 5; 3 for more than 5 clusters of
        fewer than 100 rows on average. Only with `positives="neighbors"`.
    view_noise : float, default=0.1
        Standard deviation of the noise on both views, in units of the standardised columns.
    n_epochs : "auto" or pair of int or "auto", default="auto"
        Epochs of the first stage, for the features, and of the second, for features and memberships. "auto" is 40 and
        10; more for fewer than 2000 rows, so that there are at least 300 and 80 steps; fewer for many rows, so that
        there are at most 3000 and 100 (with many more, memberships break into pieces); and the first stage ends where
        50 steps improve its objective by less than 0.5 %. 0 skips a stage.
    batch_size : int, default=256
        Number of rows per training step; it changes the result. Memberships are learned between them, so it is raised
        to four per cluster. Less is faster, and better for few rows; it should be at least twice `n_components`.
    learning_rate : float or pair of floats, default=(1e-3, 3e-4)
        Step size of the optimizer. A pair is for the two stages.
    membership_penalty : float, default=0.0
        Penalty on half the squared entries of the memberships. Raising it makes them softer.
    standardize : {"global", "columns"} or False, default="global"
        Whether to centre each column and divide it by its standard deviation. "columns" does so, for mixed units;
        "global" divides all columns by one common scale, for pixels and other columns of one unit.
    assign_labels : {"spectral", "kmeans"}, default="spectral"
        How labels are assigned. "spectral" clusters the eigenvectors of the membership, "kmeans" the codes.
    <computing parameters>

    Attributes
    ----------
    labels_ : array of shape (n_samples,)
        Clusters of the training rows, equal to those of `predict`. Equal rows have equal labels.
    weights_ : dict of ndarrays
        Of the network: ``trunk.*``, ``features.*``, ``clusters.*``.
    cluster_centers_ : array of shape (n_clusters, n_components)
        Mean code of each cluster, scaled to unit length.
    bases_ : list of n_clusters arrays of shape (n_components, n_dims)
        Orthonormal directions that hold 95 % of the second moments of each cluster's features, strongest first.
    eta_ : float
        Weight of the entropy.
    mean_, scale_ : arrays of shape (n_features,)
        What the columns are centred with and divided by; always float64.
    n_components_ : int
        Number of components.
    coding_rates_ : array of shape (n_steps, 2)
        Coding rate of each batch of the second stage, and rate given the membership, in nats.
    loss_curve_ : list of floats
        Mean objective of each epoch; that of the two stages is not the same.
    n_iter_ : int
        Number of epochs of both stages; 1 where both are skipped.
    n_steps_init_ : int
        Number of steps of the first stage.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any.

    See Also
    --------
    sklowrank.cluster.KSubspaces : For subspace clusters.
    sklowrank.metrics.rate_reduction : The objective, as a function of features and labels.
    sklearn.cluster.SpectralClustering : Nonlinear clusters from a graph of neighbours, without prediction.

    Notes
    -----
    With unit features Z (n, d) and a doubly stochastic membership :math:`\\Gamma` (n, n) of a batch the fit maximises

    .. math:: \\tfrac12\\log\\det\\Bigl(I + \\tfrac{d}{n\\epsilon^2} Z^\\top Z\\Bigr) - \\frac1{2n}\\sum_j
        \\log\\det\\Bigl(I + \\tfrac{d}{\\epsilon^2} Z^\\top \\operatorname{diag}(\\Gamma_j) Z\\Bigr),

    where :math:`\\epsilon^2` is `precision` and :math:`\\Gamma` is the projection of the inner products of unit codes,
    an entropy of weight `eta` added, by ten symmetric Sinkhorn sweeps, differentiated through. A first stage
    maximises the rate of the mean of two views of each row plus 20 times their agreement; then the head of the features
    becomes that of the codes too. Labels come from the leading eigenvectors of the membership of at most 4000 rows; all
    other rows join the cluster whose stored codes, at most 256, give them the most mass.

    A step takes O(batch_size² n_components² + batch_size n_components³) time for any number of rows. Nearest neighbours
    are searched among all rows up to 5000, above that within random parts of 5000, so that views stay distinct as rows
    get denser: O(n_samples · 5000 · n_features). Training is in float32; each stage keeps its best epoch.

    References
    ----------
    .. [1] T. Ding, S. Tong, K. H. R. Chan, X. Dai, Y. Ma, B. D. Haeffele, "Unsupervised manifold linearizing and
       clustering", ICCV 2023.
    .. [2] Y. Yu, K. H. R. Chan, C. You, C. Song, Y. Ma, "Learning diverse and discriminative representations via the
       principle of maximal coding rate reduction", NeurIPS 2020.
    .. [3] T. Chu, S. Tong, T. Ding, X. Dai, B. D. Haeffele, R. Vidal, Y. Ma, "Image clustering via the principle of
       rate reduction in the age of pretrained models", ICLR 2024.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklowrank.cluster import ManifoldLinearizingClustering
    >>> X, y = make_moons(300, noise=0.05, random_state=0)
    >>> model = ManifoldLinearizingClustering(2, view_noise=0.02, n_epochs=(20, 5), random_state=0).fit(X)
    >>> model.transform(X).shape
    (300, 16)
    >>> model.predict(X[:3]).shape
    (3,)
    """

    _parameter_constraints = {
        **{name: NETWORK_CONSTRAINTS[name] for name in ("hidden_layer_sizes", "module", "net_params")},
        "n_clusters": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "precision": [Interval(Real, 0, None, closed="neither")],
        "eta": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "kernel": [StrOptions({"signed", "absolute"})],
        "positives": [StrOptions({"neighbors", "noise", "mask"}), callable],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "view_noise": [Interval(Real, 0, None, closed="left")],
        "n_epochs": [StrOptions({"auto"}), tuple, list],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), tuple, list],
        "membership_penalty": [Interval(Real, 0, None, closed="left")],
        "standardize": [StrOptions({"global", "columns"}), Options(bool, {False})],
        "assign_labels": [StrOptions({"spectral", "kmeans"})],
        **{name: NETWORK_CONSTRAINTS[name] for name in ("device", "random_state", "verbose")},
    }

    # Set by fit
    labels_: np.ndarray
    weights_: dict[str, np.ndarray]
    cluster_centers_: np.ndarray
    bases_: list[np.ndarray]
    eta_: float
    mean_: np.ndarray
    scale_: np.ndarray
    n_components_: int
    coding_rates_: np.ndarray
    loss_curve_: list[float]
    n_iter_: int
    n_steps_init_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_clusters: int | Literal["auto"] = 8,
        n_components: int | Literal["auto"] = "auto",
        *,
        hidden_layer_sizes: ArrayLike = (256, 256),
        module: Callable[..., Any] | None = None,
        net_params: dict[str, Any] | None = None,
        precision: float = 0.5,
        eta: float | Literal["auto"] = "auto",
        kernel: Literal["signed", "absolute"] = "signed",
        positives: Callable[..., Any] | Literal["neighbors", "noise", "mask"] = "neighbors",
        n_neighbors: int | Literal["auto"] = "auto",
        view_noise: float = 0.1,
        n_epochs: Literal["auto"] | tuple[int | Literal["auto"], int | Literal["auto"]] = "auto",
        batch_size: int = 256,
        learning_rate: float | tuple[float, float] = (1e-3, 3e-4),
        membership_penalty: float = 0.0,
        standardize: Literal["global", "columns", False] = "global",
        assign_labels: Literal["spectral", "kmeans"] = "spectral",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_clusters = n_clusters
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.module = module
        self.net_params = net_params
        self.precision = precision
        self.eta = eta
        self.kernel = kernel
        self.positives = positives
        self.n_neighbors = n_neighbors
        self.view_noise = view_noise
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.membership_penalty = membership_penalty
        self.standardize = standardize
        self.assign_labels = assign_labels
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Train the network and cluster the rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows, at least two.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : ManifoldLinearizingClustering
        """
        X = check_fit_data(self, X, ensure_min_samples=2)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        mean, scale = standardization(ws.load(X), self.standardize)
        found = options(self, solver.Options)
        problem = solver.clustering_problem(ws.load(X), mean, scale, found, fit_randomness(self, ws))
        return self._trained(X, y, ws, problem)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None) -> Self:
        """Continue the second stage on a batch of rows; the first batch is fitted from the start.

        Clusters keep their numbers where the labels of the batch allow it. Many calls make a long second stage, which
        breaks memberships into pieces: prefer a new fit where all rows are in memory.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Batch with at least as many rows as clusters.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : ManifoldLinearizingClustering
            `labels_` are those of the batch; `coding_rates_`, `loss_curve_` and `n_iter_` are of all batches.
        """
        if not hasattr(self, "weights_"):
            return self.fit(X, y)
        X = check_new_data(self, X, like="cluster_centers_", method="partial_fit", ensure_min_samples=2)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        ws.generator.manual_seed(ws.generator.initial_seed() + self.n_iter_)  # other batches and views than before
        model, randomness = recall(self, solver.Model, ws.exact()), fit_randomness(self, ws)
        n_clusters = model.n_clusters if self.n_clusters == "auto" else self.n_clusters
        found = options(self, solver.Options, n_components=model.n_components)
        problem = solver.clustering_problem(ws.load(X), model.mean, model.scale, found, randomness)
        problem = problem._replace(architecture=model.architecture, candidates=[n_clusters], start=model)
        before = {name: getattr(self, name) for name in ("loss_curve_", "n_iter_", "n_steps_init_", "coding_rates_")}
        return self._trained(X, y, ws, problem, before)

    def _trained(self, X, y, ws, problem, before=None):
        """Train the network and keep what it has found; `before` are attributes that count all batches."""

        def attributes(state, **more):
            model, public = solver.described(problem, state)
            return fitted_attributes(ws, model, **public, **more)

        n_epochs = sum(stage.max_iter for stage in problem.stages[problem.start is not None :])
        steps = solver.training(problem)
        run = drive(self, steps, attributes=attributes, X=X, y=y, max_iter=max(1, n_epochs), tol=0.0)
        fitted = attributes(run.state, loss_curve_=run.loss_curve, n_iter_=run.n_iter)
        if before is not None:
            history = [ws.load(rates["coding_rates_"]) for rates in (before, fitted)]
            fitted |= {name: before[name] + fitted[name] for name in ("loss_curve_", "n_iter_")}
            fitted |= {"n_steps_init_": before["n_steps_init_"], "coding_rates_": ws.store(torch.cat(history))}
        found, wanted = fitted["cluster_centers_"].shape[0], min(problem.candidates)
        if found < wanted:
            warn(
                f"{type(self).__name__} found {found} clusters, fewer than n_clusters={wanted}: the codes of the rows "
                "are too alike. Lower n_clusters, or train for more epochs.",
                ConvergenceWarning,
            )
        return replace_attributes(self, fitted)
