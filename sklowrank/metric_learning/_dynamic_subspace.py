"""Metric learning by a network whose embedding is divided among learners, which are added in training."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import fitted_attributes, keep, options, recall
from .._core.iterate import drive
from .._core.modes import in_plain_modes
from .._core.validation import check_fit_data, check_new_data, on_host
from .._core.warn import warn
from .._core.workspace import open_workspace
from .._nets.layers import Standardized
from .._nets.parameters import NETWORK_CONSTRAINTS, network_parameters
from .._nets.randomness import fit_randomness
from . import _dynamic_subspace_solver as solver


def _warn_of_what_cannot_be_learned(codes, n_learners, n_components):
    """Warn where a learner has a single column, or where no two rows are of one class."""
    if 2 * n_learners > n_components:
        cure = (
            "Pass n_components >= 2." if n_learners == 1 else "Lower max_learners, or raise n_components to twice it."
        )
        warn(
            f"n_components={n_components} for {n_learners} learner(s) makes one of a single column, which is "
            f"scaled to 1 or -1 and has no gradient: it learns nothing. {cure}",
            UserWarning,
        )
    if np.bincount(codes).max() < 2:
        warn(
            "y has no class of two rows, so that no rows are to be near one another: the embedding only spreads them. "
            "Pass a y whose classes have several rows.",
            UserWarning,
        )


@network_parameters(
    width="width",
    module_params='``"module__activation"`` ("relu", "gelu", "tanh" or "identity", default "relu"), '
    '``"module__dropout"`` (default 0.25) and ``"module__batch_norm"`` (default False)',
)
class DynamicSubspaceMetricLearner(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """Learn an embedding in which rows of a class are near, by learners that each have some of the rows and columns.

    A network is trained with a loss of metric learning, for nearest neighbours, clustering or retrieval. Its embedding
    is divided among several learners, each for one cluster of the rows; a learner is added when training no longer
    improves. For classes that appear in several forms. ``max_learners=1`` is metric learning by one network, the plain
    choice: on handwritten digits several learners are no better, and what is ahead of
    :class:`~sklearn.neighbors.NeighborhoodComponentsAnalysis` is the loss. For classes that are not in the training
    rows the original columns are better. Scale columns of different units, for example by
    :class:`~sklearn.preprocessing.StandardScaler`.

    Parameters
    ----------
    n_components : int, default=32
        Number of components. The learners share them; numbers differ by one at most. With a single one nothing is
        learned.
    max_learners : int, default=4
        Largest number of learners. Growth leaves each at least two components; "fixed" makes as many as there are
        components at most, and warns where one has a single component, which cannot be learned.
    grow : {"plateau", "fixed"}, default="plateau"
        "plateau" starts with one learner and adds one where the loss has stopped falling, "fixed" starts with
        `max_learners`.
    patience : int, default=6
        Number of epochs without an improvement by more than `tol` after which a learner is added.
    tol : float, default=0.02
        Share by which the loss of an epoch has to be below the lowest one before, to count as an improvement. It
        decides when a learner is added; all epochs are run.
    recluster_every : int, default=5
        Number of epochs after which the rows are clustered again.
    attention : bool, default=True
        Whether a gate multiplies each cell by a factor between 0 and 2 that depends on the row; see `attention_map`.
    loss : {"margin", "proxy_anchor"}, default="margin"
        Loss of a batch. "margin" compares pairs of rows with a distance that is learned for each class, "proxy_anchor"
        rows with one learned point per class.
    margin : float, default=0.2
        Margin of the loss: by how much pairs of one class are to be nearer than that distance, and others farther; of
        "proxy_anchor" a cosine.
    hidden_layer_sizes : sequence of ints, default=(128,)
        Widths of the hidden layers of the default network. A linear layer without offset follows the last one.
    <network parameters> A user's module is followed by that layer, too. Weight decay is 1e-4 unless
        ``"optimizer__weight_decay"`` is given.
    image_shape : (height, width), (height, width, channels) or None, default=None
        Shape of the image that a row is, channels last. The default network begins with two convolutions and the gate
        has one factor per pixel; a user's module gets (n, channels, height, width).
    batch_size : int, default=80
        Number of rows per training step; it changes the result. At least two groups of `samples_per_class`.
    samples_per_class : int, default=4
        Number of rows of a class that come into a batch together, at least 2.
    learning_rate : float, default=1e-3
        Step size of the optimizer. Adam, unless `net_params` names another one. Ten times as much for what is learned
        of classes.
    max_iter : int, default=60
        Maximum number of iterations. An iteration is an epoch; only a callback ends the training before.
    <computing parameters>

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels.
    n_learners_ : int
        Number of learners.
    learner_slices_ : list of n_learners slices
        Columns of the embedding that each learner has.
    growth_epochs_ : list of ints
        Epochs after which there was one learner more.
    weights_ : dict of arrays
        Weights of the network, float32, by their names in torch.
    beta_ : array of shape (n_classes,)
        The distance that separates pairs of each class from others; with ``loss="margin"``.
    proxies_ : array of shape (n_classes, n_components)
        The learned point of each class; with ``loss="proxy_anchor"``.
    mean_, scale_ : arrays of shape (n_features,)
        What columns are centred with and divided by, float64; one scale for all.
    loss_curve_ : list of floats
        Mean loss of each epoch.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    sklearn.neighbors.NeighborhoodComponentsAnalysis : A linear map for nearest neighbours.
    sklearn.discriminant_analysis.LinearDiscriminantAnalysis : A linear map that separates classes.
    sklowrank.neural.NetworkClassifier : A network that predicts the classes.

    Notes
    -----
    With the gate :math:`a(x)`, the trunk f and a matrix W the embedding is :math:`z = W f(x \\odot a(x))`, of which
    each slice is scaled to length one: rows of `transform` have the norm :math:`\\sqrt{K}` with K learners. The margin
    loss of a slice averages

    .. math:: \\bigl(d(x, p) - \\beta_c + m\\bigr)_+ , \\qquad \\bigl(\\beta_c + m - d(x, n)\\bigr)_+

    over the terms above zero, where p is a random row of the class c of x and n a row of another one, drawn inversely
    to the density of distances on the sphere. Each epoch trains each learner on batches of its own cluster, found by
    k-means of the embedding; a cluster of a single class gets as many rows of others. In the last fifth of the epochs
    all learners see all rows. A learner is not added where the loss is zero.

    An epoch takes O(n p) time for n rows and p weights, and memory for a batch and the embedding. Clusters take
    O(n K n_components). Training is in float32, the default network answers in float64. Sparse X is made dense by
    batches.

    References
    ----------
    .. [1] S. Adiga V, J. Dolz, H. Lombaert, "Attention-based dynamic subspace learners for medical image analysis",
       IEEE Journal of Biomedical and Health Informatics 26(9), 2022.
    .. [2] A. Sanakoyeu, V. Tschernezki, U. Büchler, B. Ommer, "Divide and conquer the embedding space for metric
       learning", CVPR 2019.
    .. [3] C.-Y. Wu, R. Manmatha, A. J. Smola, P. Krähenbühl, "Sampling matters in deep embedding learning", ICCV 2017.
    .. [4] S. Kim, D. Kim, M. Cho, S. Kwak, "Proxy anchor loss for deep metric learning", CVPR 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklowrank.metric_learning import DynamicSubspaceMetricLearner
    >>> X, y = load_wine(return_X_y=True)
    >>> metric = DynamicSubspaceMetricLearner(8, max_learners=1, max_iter=20, random_state=0)
    >>> model = make_pipeline(StandardScaler(), metric, KNeighborsClassifier()).fit(X[::2], y[::2])
    >>> model.score(X[1::2], y[1::2]) > 0.95
    True
    >>> model[:-1].transform(X).shape
    (178, 8)
    """

    _parameter_constraints = {
        **{name: NETWORK_CONSTRAINTS[name] for name in ("hidden_layer_sizes", "module", "net_params")},
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "max_learners": [Interval(Integral, 1, None, closed="left")],
        "grow": [StrOptions({"plateau", "fixed"})],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "tol": NETWORK_CONSTRAINTS["tol"],
        "recluster_every": [Interval(Integral, 1, None, closed="left")],
        "attention": ["boolean"],
        "loss": [StrOptions({"margin", "proxy_anchor"})],
        "margin": [Interval(Real, 0, None, closed="left")],
        "image_shape": ["array-like", None],
        "batch_size": NETWORK_CONSTRAINTS["batch_size"],
        "samples_per_class": [Interval(Integral, 2, None, closed="left")],
        **{name: NETWORK_CONSTRAINTS[name] for name in ("learning_rate", "max_iter")},
        **{name: NETWORK_CONSTRAINTS[name] for name in ("device", "random_state", "verbose")},
    }

    # Set by fit
    classes_: np.ndarray
    n_learners_: int
    learner_slices_: list[slice]
    growth_epochs_: list[int]
    weights_: dict[str, np.ndarray]
    beta_: np.ndarray
    proxies_: np.ndarray
    mean_: np.ndarray
    scale_: np.ndarray
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int = 32,
        max_learners: int = 4,
        *,
        grow: Literal["plateau", "fixed"] = "plateau",
        patience: int = 6,
        tol: float = 0.02,
        recluster_every: int = 5,
        attention: bool = True,
        loss: Literal["margin", "proxy_anchor"] = "margin",
        margin: float = 0.2,
        hidden_layer_sizes: ArrayLike = (128,),
        module: Callable[..., nn.Module] | nn.Module | None = None,
        net_params: dict[str, Any] | None = None,
        image_shape: tuple[int, ...] | None = None,
        batch_size: int = 80,
        samples_per_class: int = 4,
        learning_rate: float = 1e-3,
        max_iter: int = 60,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.max_learners = max_learners
        self.grow = grow
        self.patience = patience
        self.tol = tol
        self.recluster_every = recluster_every
        self.attention = attention
        self.loss = loss
        self.margin = margin
        self.hidden_layer_sizes = hidden_layer_sizes
        self.module = module
        self.net_params = net_params
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.samples_per_class = samples_per_class
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, at least two.
        y : array-like of shape (n_samples,)
            Their classes. Rows of a class that has no other row are negatives of others alone.

        Returns
        -------
        self : DynamicSubspaceMetricLearner
        """
        X, y = check_fit_data(self, X, y, accept_sparse="csr", ensure_min_samples=2)
        check_classification_targets(y)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        found, codes = np.unique(on_host(y), return_inverse=True)
        classes = found if isinstance(y, np.ndarray) else torch.from_numpy(found)
        problem = solver.metric_problem(X, codes, options(self, solver.Options), ws, fit_randomness(self, ws))
        if len(classes) == 1:
            warn("y has a single class, so that there is no metric to learn: rows are projected by PCA.", UserWarning)
            model, public = solver.projected(problem)
            return keep(self, ws, model, classes_=classes, **public)

        _warn_of_what_cannot_be_learned(codes, problem.numbers[0], self.n_components)

        def attributes(snapshot):
            model, public = solver.described(problem, snapshot)
            return fitted_attributes(ws, model, classes_=classes, **public)

        run = drive(self, solver.training(problem), attributes=attributes, X=X, y=y, tol=0.0)
        model, public = solver.described(problem, run.state)
        return keep(self, ws, model, classes_=classes, loss_curve_=run.loss_curve, n_iter_=run.n_iter, **public)

    @in_plain_modes
    def transform(self, X):
        """Return the embedding of rows.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        Z : array of shape (n_samples, n_components)
            The columns of each learner, `learner_slices_`, have length one in each row.
        """
        ws, model, X = self._recalled(X, "transform")
        return ws.answer(solver.embedding(X, model, ws))

    @available_if(lambda self: self._has_gate)
    @in_plain_modes
    def attention_map(self, X):
        """Return by what the gate multiplies the standardised cells of rows.

        It is there with ``attention=True``.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        factors : array of shape (n_samples, n_features)
            Between 0 and 2. Of images those of the channels of a pixel are equal.
        """
        ws, model, X = self._recalled(X, "attention_map")
        return ws.answer(solver.attention_of(X, model, ws))

    @in_plain_modes
    def network(self, device: torch.device | str = "cpu") -> nn.Module:
        """Return the fitted network as a torch module.

        It is a new one at each call, in float32 and eval mode, takes rows as `transform` does, and gives the embedding
        before the columns of each learner are scaled to length one.

        Parameters
        ----------
        device : str or torch.device, default="cpu"
            Where its weights are.

        Returns
        -------
        network : torch.nn.Module
        """
        check_is_fitted(self)
        model = recall(self, solver.Model, open_workspace(np.empty((0, 0)), device="cpu").exact())
        return Standardized(solver.restored(model), model.mean, model.scale).to(device).eval()

    def _recalled(self, X, method):
        """Return the workspace of new rows, the model, and the rows validated."""
        X = check_new_data(self, X, like="mean_", method=method, accept_sparse="csr")
        ws = open_workspace(X, device=self.device)
        return ws, recall(self, solver.Model, ws.exact()), X

    @property
    def _has_gate(self):
        """Whether the network that was fitted, or the one that `fit` would make, has a gate."""
        if hasattr(self, "weights_"):
            return any(name.startswith("gate.") for name in self.weights_)
        return self.attention

    @property
    def _n_features_out(self):
        return self.learner_slices_[-1].stop

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
