"""Manifold linearizing and clustering: clusters that are curved sheets, straightened by a small network."""

import copy
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning

from .._core.annotations import RandomState
from .._core.compat import Interval, Options, StrOptions, _fit_context
from .._core.iterate import drive
from .._core.modes import in_plain_modes
from .._core.nets import Randomness, as_numpy, build_trunk, load_weights, split_params, width_of
from .._core.standardize import standardization, standardized
from .._core.validation import check_fit_data, check_new_data
from .._core.warn import warn
from .._core.workspace import open_workspace
from ._manifold_linearizing_solver import (
    STAGES,
    Plan,
    TwoHeads,
    codes_of,
    make_views,
    planned,
    rates,
    some_rows,
    training,
    unit,
    with_memberships,
)
from ._membership import Known, Rule, find_clusters, main_directions, masses, membership, settle

_CLUSTERS_OF_AUTO = 10  # with n_clusters="auto" the network is trained as if for so many
_CANDIDATES = range(2, 21)
_MEMBERSHIP_ROWS = 20_000


class ManifoldLinearizingClustering(
    CallbackSupportMixin, ClusterMixin, TransformerMixin, ClassNamePrefixFeaturesOutMixin, BaseEstimator
):
    """Cluster rows that lie on curved sheets, by a network that learns to straighten them.

    Without labels a small network learns to map each cluster to a subspace of its own, at right angles to the others,
    and the rows are clustered there (MCR², the principle of maximal coding rate reduction). For some hundreds of rows
    and more whose clusters are connected, but neither balls nor flats: pixels, sensor windows, frozen embeddings. It
    predicts new rows, gives features, and can choose the number of clusters. For round clusters, above all of unequal
    size, :class:`~sklearn.cluster.KMeans` is better, and much faster. Results vary with the seed: compare several.

    Parameters
    ----------
    n_clusters : int or "auto", default=8
        Number of clusters. "auto" trains as for 10, and takes a number from 2 to 20 as `estimate_n_clusters` does: a
        rough guide, too high as a rule where clusters are few.
    n_components : int or "auto", default="auto"
        Number of features. "auto" is 16 for up to 5 clusters, 32 for up to 20, 64 for up to 60, else 128.
    hidden_layer_sizes : sequence of ints, default=(256, 256)
        Widths of the default network's layers.
    module : class, callable, torch.nn.Module or None, default=None
        A network of one's own in place of the default one, from (n, n_features) to (n, width). A class or function is
        called with the ``module__`` entries of `net_params`, and with `n_features` if it has a parameter of that name;
        an instance is copied. For pickling it has to be importable.
    net_params : dict or None, default=None
        More settings in skorch's names, for example ``{"module__dropout": 0.1, "optimizer": torch.optim.AdamW,
        "callbacks": [...], "train_split": ValidSplit(5)}``. Each of the two stages is a training of its own, with the
        same callbacks; their `on_train_end` is called however it ends. EarlyStopping ends it; any other
        KeyboardInterrupt in a callback leaves `fit`, as Ctrl+C does.
    precision : float, default=0.5
        Squared precision of the coding rates. Smaller values resolve finer differences.
    eta : float or "auto", default="auto"
        Weight of the membership's entropy. Raising it makes memberships softer. "auto" is the value at which a row
        shares its membership with as many rows as a balanced cluster has; for up to 5 clusters it is 0.3.
    kernel : {"signed", "absolute"}, default="signed"
        Whether opposite codes are far apart or the same.
    positives : {"neighbors", "noise", "mask"} or callable, default="neighbors"
        The second view of a row, which shall get the same features: one of its nearest rows, the row itself, the row
        with 30 % of its cells from other rows, or what ``positives(batch, indices, generator)`` returns: a tensor like
        `batch`, standardised rows (n, n_features) on the device; draws should come from `generator`.
    n_neighbors : int or "auto", default="auto"
        From so many nearest rows the second view is drawn. "auto" is 5; 3 for more than 5 clusters of fewer than 100
        rows on average. Only with `positives="neighbors"`.
    view_noise : float, default=0.1
        Standard deviation of the noise on both views, in units of the standardised columns.
    invariance : float, default=20.0
        Weight of the agreement of both views in the first stage.
    n_epochs_init, n_epochs : int or "auto", default="auto"
        Epochs of the first stage, for the features, and of the second, for features and memberships. "auto" is 40 and
        10; more for fewer than 2000 rows, so that there are 300 and 80 steps at least; fewer for many rows, so that
        there are 3000 and 100 at most (much longer, memberships break into pieces); and the first stage ends where 50
        steps improve its objective by less than 0.5 %. 0 skips a stage.
    batch_size : int, default=256
        Rows of a step, between which memberships are learned; raised to four per cluster. It changes the result: less
        is faster, and better for few rows; it should be at least twice `n_components`.
    learning_rate_init, learning_rate : float, default=1e-3 and 3e-4
        Step sizes of the two stages.
    weight_decay : float, default=1e-4
        Penalty on the squared weights.
    membership_penalty : float, default=0.0
        Penalty on half the squared entries of the memberships. Raising it makes them softer.
    sinkhorn_iter : int, default=10
        Sweeps of the projection in training.
    standardize : {"global", "columns"} or False, default="global"
        Columns are centred, and divided by one common scale ("global", for pixels and other columns of one unit) or
        each by its own ("columns", for mixed units).
    assign_labels : {"spectral", "kmeans"}, default="spectral"
        Whether the eigenvectors of the membership are clustered or the codes.
    n_init : int, default=10
        Starts of the k-means of the last step.
    warm_start : bool, default=False
        Go on from the weights of the former fit.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seeds weights, batches, views and labels.
    verbose : int, default=0
        1 prints a line per epoch.

    Attributes
    ----------
    labels_ : array of shape (n_samples,)
        Clusters of the training rows: what `predict` says of them. Equal rows have equal labels.
    weights_ : dict of ndarrays
        Of the network: ``trunk.*``, ``features.*``, ``clusters.*``.
    cluster_centers_ : array of shape (n_clusters, n_components)
        Mean code of each cluster, scaled to unit length.
    cluster_subspaces_ : list of n_clusters arrays of shape (n_components, n_dims)
        Orthonormal directions that hold 95 % of the second moments of each cluster's features, strongest first.
    eta_ : float
        The weight of the entropy that was used.
    mean_, scale_ : arrays of shape (n_features,)
        What the columns are centred with and divided by; always float64.
    n_components_ : int
        The number of features.
    loss_history_ : array of shape (n_steps, 2)
        Coding rate of each batch of the second stage, and rate given the membership, in nats.
    loss_curve_ : list of floats
        Mean objective of each epoch; that of the two stages is not the same.
    n_iter_ : int
        Epochs run, of both stages; 1 where both are skipped.
    n_steps_init_ : int
        Steps of the first stage.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Their names, where X had any.

    See Also
    --------
    sklowrank.cluster.KSubspaces : For clusters that are flat.
    sklowrank.metrics.rate_reduction : The objective, as a function of features and labels.
    sklearn.cluster.SpectralClustering : Curved clusters from a graph of neighbours, without prediction.

    Notes
    -----
    With unit features Z (n, d) and a doubly stochastic membership :math:`\\Gamma` (n, n) of a batch the fit maximises

    .. math:: \\tfrac12\\log\\det\\Bigl(I + \\tfrac{d}{n\\epsilon^2} Z^\\top Z\\Bigr) - \\frac1{2n}\\sum_j
        \\log\\det\\Bigl(I + \\tfrac{d}{\\epsilon^2} Z^\\top \\operatorname{diag}(\\Gamma_j) Z\\Bigr),

    where :math:`\\epsilon^2` is `precision` and :math:`\\Gamma` is the projection of the inner products of unit codes,
    an entropy of weight `eta` added, by `sinkhorn_iter` symmetric sweeps that are differentiated through. A first stage
    maximises the rate of the mean of two views of each row, and their agreement; then the head of the features becomes
    that of the codes too. Labels come from the leading eigenvectors of the membership of at most 4000 rows, all other
    rows join the cluster whose stored codes, at most 256, give them the most mass.

    A step takes O(batch_size² n_components² + batch_size n_components³) time whatever the number of rows. The nearest
    rows, of all up to 5000 rows and above that within random parts of 5000, so that views stay apart as rows get
    denser, take O(n_samples · 5000 · n_features) at most. Training is in float32. Of each stage the weights of its
    best epoch are
    kept.

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
    >>> model = ManifoldLinearizingClustering(2, view_noise=0.02, n_epochs_init=20, n_epochs=5, random_state=0).fit(X)
    >>> model.transform(X).shape
    (300, 16)
    >>> model.predict(X[:3]).shape
    (3,)
    """

    _parameter_constraints = {
        "n_clusters": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "hidden_layer_sizes": ["array-like"],
        "module": [callable, None],
        "net_params": [dict, None],
        "precision": [Interval(Real, 0, None, closed="neither")],
        "eta": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "kernel": [StrOptions({"signed", "absolute"})],
        "positives": [StrOptions({"neighbors", "noise", "mask"}), callable],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "view_noise": [Interval(Real, 0, None, closed="left")],
        "invariance": [Interval(Real, 0, None, closed="left")],
        "n_epochs_init": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "n_epochs": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "membership_penalty": [Interval(Real, 0, None, closed="left")],
        "sinkhorn_iter": [Interval(Integral, 1, None, closed="left")],
        "standardize": [StrOptions({"global", "columns"}), Options(bool, {False})],
        "assign_labels": [StrOptions({"spectral", "kmeans"})],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # Set by fit
    labels_: np.ndarray
    weights_: dict[str, np.ndarray]
    cluster_centers_: np.ndarray
    cluster_subspaces_: list[np.ndarray]
    eta_: float
    mean_: np.ndarray
    scale_: np.ndarray
    n_components_: int
    loss_history_: np.ndarray
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
        invariance: float = 20.0,
        n_epochs_init: int | Literal["auto"] = "auto",
        n_epochs: int | Literal["auto"] = "auto",
        batch_size: int = 256,
        learning_rate_init: float = 1e-3,
        learning_rate: float = 3e-4,
        weight_decay: float = 1e-4,
        membership_penalty: float = 0.0,
        sinkhorn_iter: int = 10,
        standardize: Literal["global", "columns", False] = "global",
        assign_labels: Literal["spectral", "kmeans"] = "spectral",
        n_init: int = 10,
        warm_start: bool = False,
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
        self.invariance = invariance
        self.n_epochs_init = n_epochs_init
        self.n_epochs = n_epochs
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.membership_penalty = membership_penalty
        self.sinkhorn_iter = sinkhorn_iter
        self.standardize = standardize
        self.assign_labels = assign_labels
        self.n_init = n_init
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Train the network and cluster the rows.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows, two at least.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : ManifoldLinearizingClustering
        """
        X = check_fit_data(self, X, ensure_min_samples=2)
        n_clusters = self._number_of_clusters(X.shape[0])
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        mean, scale = standardization(ws.load(X), self.standardize)
        rows = standardized(ws.load(X), mean, scale)
        n_components = _n_components(n_clusters) if self.n_components == "auto" else self.n_components
        randomness = self._randomness(ws)
        with randomness.lent():
            net = self._network(X.shape[1], n_components, self.weights_ if self._goes_on() else None, ws, randomness)
        candidates = _CANDIDATES if self.n_clusters == "auto" else [n_clusters]
        known = {"mean_": ws.store(mean), "scale_": ws.store(scale), "n_components_": n_components}
        vars(self).update(self._train(X, y, net, rows, ws, randomness, n_clusters, candidates, known))
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None) -> Self:
        """Go on with the second stage on a batch of rows; the first batch is fitted from the start.

        Clusters keep their numbers as far as the labels of the batch allow. Many calls make a long second stage, in
        which memberships break into pieces: a new fit is better where all rows are at hand.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The batch: as many rows as clusters at least.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : ManifoldLinearizingClustering
            `labels_` are those of the batch; `loss_history_` and `n_iter_` count all batches.
        """
        if not hasattr(self, "weights_"):
            return self.fit(X, y)
        X = check_new_data(self, X, like="cluster_centers_", method="partial_fit", ensure_min_samples=2)
        n_clusters = self._number_of_clusters(X.shape[0])
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        ws.generator.manual_seed(ws.generator.initial_seed() + self.n_iter_)  # other batches and views than before
        net, rows = self._restored(X, ws)
        former = masses(codes_of(net, rows)[1], *self._clusters(ws)).argmax(1)
        candidates = [self.cluster_centers_.shape[0]] if self.n_clusters == "auto" else [n_clusters]
        randomness = self._randomness(ws)
        fitted = self._train(X, y, net, rows, ws, randomness, n_clusters, candidates, former=former.cpu().numpy())
        history = torch.cat([ws.load(self.loss_history_), ws.load(fitted["loss_history_"])])
        fitted |= {
            "loss_history_": ws.store(history),
            "loss_curve_": self.loss_curve_ + fitted["loss_curve_"],
            "n_iter_": self.n_iter_ + fitted["n_iter_"],
            "n_steps_init_": self.n_steps_init_,
        }
        vars(self).update(fitted)
        return self

    @in_plain_modes
    def predict(self, X):
        """Return the cluster of each row: the one whose stored codes give it the most mass.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : array of shape (n_samples,)
        """
        ws, _, C = self._codes(X, "predict")
        return ws.store(masses(C, *self._clusters(ws)).argmax(1))

    @in_plain_modes
    def predict_proba(self, X):
        """Return how the mass that each row gets is shared between the clusters.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        memberships : array of shape (n_samples, n_clusters)
            At least 0; rows sum to 1.
        """
        ws, _, C = self._codes(X, "predict_proba")
        return ws.store(masses(C, *self._clusters(ws)).to(ws.dtype).softmax(1))

    @in_plain_modes
    def transform(self, X):
        """Return the features of each row: those of one cluster lie near a subspace.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        Z : array of shape (n_samples, n_components)
            Rows of unit length.
        """
        ws, Z, _ = self._codes(X, "transform")
        return ws.store(unit(Z.to(ws.dtype)))

    @in_plain_modes
    def membership(self, X):
        """Return who belongs together among some rows, as a doubly stochastic matrix.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows, at most 20,000.

        Returns
        -------
        membership : array of shape (n_samples, n_samples)
            Symmetric, at least 0; rows and columns sum to 1.
        """
        ws, _, C = self._codes(X, "membership", most=_MEMBERSHIP_ROWS)
        return ws.store(membership(unit(C.to(ws.dtype)), self.eta_, self.kernel)[0])

    @in_plain_modes
    def score(self, X, y=None):
        """Return the rate reduction: how much shorter a code of the features is when the membership is known.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : ignored
            Present for pipelines.

        Returns
        -------
        score : float
            In nats a row, the mean over batches of `batch_size` rows, which are the same in every call. Higher is
            better; it depends on `n_components`, `precision`, `eta` and the size of the batches.
        """
        _, Z, C = self._codes(X, "score")
        size = min(self._batch_size(self.cluster_centers_.shape[0]), len(Z))
        order = some_rows(len(Z), len(Z), torch.Generator("cpu").manual_seed(0)).to(Z.device)
        reductions = []
        for batch in order[: len(Z) // size * size].split(size):
            R, R_c = rates(Z[batch], membership(C[batch], self.eta_, self.kernel)[0], self.precision)
            reductions.append(R - R_c)
        return float(torch.stack(reductions).mean())

    @in_plain_modes
    def estimate_n_clusters(self, X, n_clusters=_CANDIDATES):
        """Return the smallest number of clusters with which a code of the features is not far from the shortest.

        The features and labels of some rows are coded together, by clusters, for each number; 2 % more than the
        shortest length is not far. The network is that of the fit; only the membership is cut into more clusters or
        fewer.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        n_clusters : iterable of ints, default=range(2, 21)
            The numbers tried, each at least 1.

        Returns
        -------
        n_clusters : int
        """
        candidates = sorted({int(k) for k in n_clusters})
        if not candidates or candidates[0] < 1:
            raise ValueError(f"n_clusters={candidates} has to name numbers of clusters, each at least 1.")
        _, Z, C = self._codes(X, "estimate_n_clusters")
        return find_clusters(Z, C, candidates, self._rule(self.eta_), np.random.RandomState(0))[1]

    @property
    def _n_features_out(self):
        return self.n_components_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _train(self, X, y, net, rows, ws, randomness, n_clusters, candidates, known=None, former=None):
        """Train the network, with `former` labels of the rows only its second stage; return the fitted attributes.

        `known` are those attributes that training does not change.
        """
        known = known or {}
        plan = self._plan(len(rows), n_clusters, ws)
        n_neighbors = self._n_neighbors(len(rows), n_clusters)
        views = make_views(rows, self.positives, n_neighbors, self.view_noise, ws.generator)
        seed = int(torch.randint(1 << 31, (), generator=ws.generator, device="cpu", dtype=torch.int64))
        eta = None if former is None else self.eta_

        def attributes(state):
            twin = copy.deepcopy(net)
            state = with_memberships(twin, state, rows, plan)
            found = self._attributes(twin, state, rows, candidates, np.random.RandomState(seed), former, ws)
            return known | found

        steps = training(net, rows, views, plan, randomness, eta)
        n_epochs = plan.epochs[1][0] + (plan.epochs[0][0] if eta is None else 0)
        run = drive(self, steps, attributes=attributes, X=X, y=y, max_iter=max(1, n_epochs), tol=0.0)
        fitted = attributes(run.state) | {"loss_curve_": run.loss_curve, "n_iter_": run.n_iter}
        found = fitted["cluster_centers_"].shape[0]
        if found < min(candidates):
            warn(
                f"{type(self).__name__} found {found} clusters, fewer than n_clusters={min(candidates)}: the codes of "
                "the rows are too alike. Lower n_clusters, or train for more epochs.",
                ConvergenceWarning,
            )
        return fitted

    def _attributes(self, net, state, rows, candidates, rng, former, ws):
        """Return the fitted attributes that belong to a state of the training, loaded into `net`."""
        Z, C = codes_of(net, rows)
        rule = self._rule(state.eta)
        known, n_clusters = find_clusters(Z, C, candidates, rule, rng)
        labels, known, n_clusters = settle(C, known, n_clusters, rule, former)
        centers = torch.stack([C[labels == k].mean(0) for k in range(n_clusters)])
        subspaces = main_directions(Z, labels, n_clusters)
        return {
            "labels_": ws.store(labels),
            "weights_": as_numpy(state.weights),
            "cluster_centers_": ws.store(unit(centers).to(ws.dtype)),
            "cluster_subspaces_": [ws.store(U.to(ws.dtype)) for U in subspaces],
            "eta_": state.eta,
            "loss_history_": ws.store(state.rates.to(ws.dtype)),
            "n_steps_init_": state.n_steps_init,
            "_known": [part.cpu().numpy() for part in known],
        }

    def _plan(self, n_rows, n_clusters, ws):
        batch_size = min(n_rows, self._batch_size(n_clusters))
        lengths = zip((self.n_epochs_init, self.n_epochs), STAGES)
        return Plan(
            n_clusters=n_clusters,
            precision=self.precision,
            invariance=self.invariance,
            kernel=self.kernel,
            eta=self.eta,
            n_sweeps=self.sinkhorn_iter,
            membership_penalty=self.membership_penalty,
            batch_size=batch_size,
            epochs=tuple(planned(n_epochs, n_rows, batch_size, stage) for n_epochs, stage in lengths),
            learning_rates=(self.learning_rate_init, self.learning_rate),
            weight_decay=self.weight_decay,
            net_params=split_params(self.net_params)[1],
            verbose=self.verbose,
            stop_early=self.n_epochs_init == "auto",
            sample=some_rows(n_rows, batch_size, ws.generator).to(ws.device),
        )

    def _randomness(self, ws):
        return Randomness(ws.generator, ws.device, lends=self.module is not None or bool(self.net_params))

    def _network(self, n_features, n_components, weights, ws, randomness):
        """Return the network with the given weights, or fresh ones; a user's own draws under `Randomness.lent`."""
        sizes = list(self.hidden_layer_sizes)
        if not sizes or min(sizes) < 1:
            raise ValueError(
                f"hidden_layer_sizes={self.hidden_layer_sizes} has to name one layer at least, none empty."
            )
        generator = randomness.layers if weights is None else None
        trunk = build_trunk(self.module, split_params(self.net_params)[0], n_features, sizes, generator)
        net = TwoHeads(trunk, width_of(trunk, n_features), n_components, generator)
        if weights is None:
            return net.to(ws.device)
        if {k: v.shape for k, v in weights.items()} != {k: tuple(v.shape) for k, v in net.state_dict().items()}:
            raise ValueError(
                "The weights of the former fit do not suit the network. With warm_start=True keep n_features, "
                "n_components, hidden_layer_sizes and module as they were, or set warm_start=False."
            )
        return load_weights(net, weights, ws.device)

    def _restored(self, X, ws):
        """Return the fitted network, and the rows as it sees them."""
        mean, scale = (ws.exact().load(part) for part in (self.mean_, self.scale_))
        rows = standardized(ws.load(X), mean, scale)
        fixed = Randomness(torch.Generator("cpu").manual_seed(0), torch.device("cpu"), lends=self.module is not None)
        with fixed.lent():
            return self._network(X.shape[1], self.n_components_, self.weights_, ws, fixed), rows

    def _codes(self, X, method, most=None):
        """Return the workspace of new rows, their features and their codes."""
        X = check_new_data(self, X, like="cluster_centers_", method=method)
        if most is not None and X.shape[0] > most:
            raise ValueError(f"n_samples={X.shape[0]} should be <= {most}: the result would be too large. Pass fewer.")
        ws = open_workspace(X, device=self.device)
        return ws, *codes_of(*self._restored(X, ws))

    def _clusters(self, ws):
        """Return the stored codes, the number of clusters, and the rule, as `masses` wants them."""
        known = Known(*(torch.from_numpy(part.copy()).to(ws.device) for part in self._known))
        return known, self.cluster_centers_.shape[0], self._rule(self.eta_)

    def _rule(self, eta):
        return Rule(eta, self.kernel, self.assign_labels, self.n_init, self.precision)

    def _number_of_clusters(self, n_samples):
        if self.n_clusters == "auto":
            return _CLUSTERS_OF_AUTO
        if n_samples < self.n_clusters:
            raise ValueError(
                f"n_samples={n_samples} should be >= n_clusters={self.n_clusters}. Lower n_clusters or add data."
            )
        return self.n_clusters

    def _batch_size(self, n_clusters):
        return max(self.batch_size, 4 * n_clusters)

    def _n_neighbors(self, n_samples, n_clusters):
        if self.n_neighbors != "auto":
            return self.n_neighbors
        return 3 if n_clusters > 5 and n_samples < 100 * n_clusters else 5

    def _goes_on(self):
        return self.warm_start and hasattr(self, "weights_")


def _n_components(n_clusters):
    """Return a width in which so many subspaces find room at right angles."""
    return next((d for most, d in ((5, 16), (20, 32), (60, 64)) if n_clusters <= most), 128)
