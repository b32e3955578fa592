"""A classifier in which every class is a subspace of unit features."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import fitted_attributes, options, recall, replace_attributes
from .._core.iterate import drive
from .._core.modes import in_plain_modes
from .._core.rows import rows_of
from .._core.validation import check_classes, check_fit_data, check_new_data, on_host
from .._core.workspace import open_workspace
from .._nets.parameters import NETWORK_CONSTRAINTS, network_parameters
from .._nets.randomness import fit_randomness
from .._nets.scores import ScoredClasses
from .._nets.targets import classes_of_stream, labels_head
from . import _grassmann_solver as solver
from ._grassmann_network import Model, feature_network, features_of, scores_of


@network_parameters(
    width="width",
    module_params='``"module__activation"`` ("relu", "gelu", "tanh" or "identity", default "relu") and '
    '``"module__dropout"`` (default 0)',
)
class GrassmannClassifier(
    ScoredClasses,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClassifierMixin,
    BaseEstimator,
):
    """Classify by subspaces: each class is one, and a row's score is the length of its projection.

    Rows, or the features that a network makes of them, have length one, and the subspace of each class is trained by
    gradient descent on the Grassmannian. For data whose direction tells the class (images, spectra, counts of words)
    and whose classes vary within: several ways to write a digit need not become one prototype. X is not standardised:
    put a :class:`~sklearn.preprocessing.StandardScaler` before it where columns have units of their own, but not for
    images and spectra. A row and its negative have the same scores unless there is a constant coordinate; see
    `add_bias`.

    Parameters
    ----------
    subspace_dim : int, sequence of ints or "auto", default="auto"
        Dimension of the subspace of each class, or one for each class in the order of `classes_`; below the width of
        the features. "auto" is an eighth of the width, at least 1 and at most 8. Small tables want 1 or 2.
    hidden_layer_sizes : sequence of ints, default=()
        Widths of the hidden layers of the default network. () has no network: the features are the unit rows.
    gamma : float, default=25.0
        Factor of the scores, above 0: they are between 0 and it. Large values make confident probabilities.
    add_bias : bool or "auto", default="auto"
        Whether a constant coordinate is appended to the features before they get length one. Without it a row and its
        negative have the same scores. It is 1.5 times as long as the rows are in the root mean square, or, behind a
        network, 1.5 times the root of the number of outputs. "auto" appends it where there is no network and X has
        negative entries or a single column, unless the subspaces of "class_svd" classify the rows better without it, by
        three standard deviations. Pass False where a row and its negative mean the same, as waves of any phase and
        eigenvectors do: there it makes scores worse. The coordinates of a table by principal components need it: their
        signs are arbitrary for all rows at once.
    init : {"auto", "class_svd", "random"}, default="auto"
        Initialisation of the fit. "class_svd" takes the leading right singular vectors of the rows of each class,
        "random" draws subspaces. "auto" is "class_svd" without a network, and "random" behind one, where "class_svd"
        is refused.
    retraction : {"geodesic", "qr"}, default="geodesic"
        How a step moves a subspace: along the geodesic, or in a straight line, orthonormalised afterwards. Both are as
        accurate; "qr" takes less time for many classes.
    <network parameters> "optimizer" cannot be set; ``"optimizer__weight_decay"``, default 1e-4, is that of the network.
        Subspaces have none.
    learning_rate : float, default=0.1
        Step size of the optimizer. That of the network is a tenth of it. Both fall to 0 along a cosine during `fit`,
        but not in `partial_fit`: there 0.02 is more accurate.
    momentum : float, default=0.9
        Share of the former step that is added to each, in [0, 1).
    batch_size : int, default=64
        Number of rows per training step; it changes the result. At most all rows.
    max_iter : int, default=40
        Maximum number of iterations. An iteration is an epoch. All are run unless `early_stopping` ends the training.
    tol : float, default=1e-4
        Tolerance of the stopping criterion. The share by which the loss of the held-out rows has to get lower; for
        `early_stopping` alone.
    n_iter_no_change : int, default=10
        Number of epochs without an improvement by more than `tol` after which training stops. For `early_stopping`
        alone.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes in the loss. "balanced" gives each class the same total; `partial_fit` takes a dict
        alone. Weights are at least 0.
    early_stopping : bool, default=False
        Whether to hold rows out, of each class its share, and to keep the weights of the epoch with their lowest loss.
        A tenth is held out.
    warm_start : bool, default=False
        Whether `fit` starts from the former fit. It keeps `scale_`, and what "auto" has decided.
    <computing parameters>

    Attributes
    ----------
    subspaces_ : array of shape (n_classes, width, n_dims)
        Basis of the subspace of each class, orthonormal columns. Where dimensions differ, columns of zeros follow.
    weights_ : dict of arrays
        Weights of the network, float32, by their names in torch; empty without one.
    classes_ : array of shape (n_classes,)
        Class labels.
    scale_ : float
        Root mean square of the entries of X, by which rows are divided; 1 where `module` is given.
    loss_curve_ : list of floats
        Mean loss of each epoch; of the held-out rows with `early_stopping`.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    NetworkClassifier : A network with one vector per class.
    sklearn.linear_model.LogisticRegression : One vector per class, without a network.
    sklowrank.cluster.KSubspaces : Subspaces without labels.

    Notes
    -----
    With the unit features x of a row, the score of class c, whose subspace has the orthonormal basis :math:`S_c`, is

    .. math:: z_c = \\gamma \\, \\|S_c^\\top x\\|,

    and the loss is the mean cross-entropy of their softmax. For two classes `decision_function` is the difference of
    the scores. Scores depend on the subspaces alone, not on their bases: `subspaces_` may be replaced by other bases.

    A step of gradient descent with momentum :math:`B` along geodesics of the Grassmannian is

    .. math::

        B \\leftarrow (I - S S^\\top)(\\mu B + \\nabla_S L), \\qquad
        S \\leftarrow S \\cos(\\alpha \\sqrt{B^\\top B}) - B \\, (B^\\top B)^{-1/2} \\sin(\\alpha \\sqrt{B^\\top B}),

    with momentum :math:`\\mu` and learning rate :math:`\\alpha`, for which the eigenvectors of k x k matrices are
    needed. It takes O(b C k d) time for b rows, C classes, dimension k and width d, and O(C d k² + C k³) for the
    subspaces. Training is in float32. The default network predicts in float64. Sparse rows become dense a batch at a
    time. Subspaces at the start take O(n d²), or O(n² d) for classes of fewer than d rows.

    The subspaces of "class_svd" without training are the classifier CLAFIC [2]_. With enough dimensions it is as
    accurate: training pays where subspaces have few dimensions, or behind a network.

    References
    ----------
    .. [1] H. Wang, Z. Li, W. Zhang, "Get the best of both worlds: improving accuracy and transferability by Grassmann
       class representation", ICCV 2023.
    .. [2] S. Watanabe, N. Pakvasa, "Subspace method of pattern recognition", International Joint Conference on Pattern
       Recognition, 1973.
    .. [3] A. Edelman, T. A. Arias, S. T. Smith, "The geometry of algorithms with orthogonality constraints", SIAM
       Journal on Matrix Analysis and Applications 20 (1998).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklowrank.neural import GrassmannClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> model = GrassmannClassifier(4, max_iter=10, random_state=0).fit(X_train, y_train)
    >>> model.score(X_test, y_test) > 0.97
    True
    >>> model.subspaces_.shape
    (10, 64, 4)
    """

    _parameter_constraints = {
        **{
            name: legal
            for name, legal in NETWORK_CONSTRAINTS.items()
            if name not in ("weight_decay", "validation_fraction")
        },
        "subspace_dim": [Interval(Integral, 1, None, closed="left"), "array-like", StrOptions({"auto"})],
        "gamma": [Interval(Real, 0, None, closed="neither")],
        "add_bias": ["boolean", StrOptions({"auto"})],
        "init": [StrOptions({"auto", "class_svd", "random"})],
        "retraction": [StrOptions({"geodesic", "qr"})],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "early_stopping": ["boolean"],
        "warm_start": ["boolean"],
    }

    # Set by fit
    subspaces_: np.ndarray
    weights_: dict[str, np.ndarray]
    classes_: np.ndarray
    scale_: float
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        subspace_dim: int | Sequence[int] | Literal["auto"] = "auto",
        hidden_layer_sizes: Sequence[int] = (),
        *,
        gamma: float = 25.0,
        add_bias: bool | Literal["auto"] = "auto",
        init: Literal["auto", "class_svd", "random"] = "auto",
        retraction: Literal["geodesic", "qr"] = "geodesic",
        module: Callable[..., nn.Module] | nn.Module | None = None,
        net_params: dict[str, Any] | None = None,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        batch_size: int = 64,
        max_iter: int = 40,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
        early_stopping: bool = False,
        warm_start: bool = False,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.subspace_dim = subspace_dim
        self.hidden_layer_sizes = hidden_layer_sizes
        self.gamma = gamma
        self.add_bias = add_bias
        self.init = init
        self.retraction = retraction
        self.module = module
        self.net_params = net_params
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Train the network and the subspaces.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, finite.
        y : array-like of shape (n_samples,)
            Their classes, two at least.

        Returns
        -------
        self : GrassmannClassifier
        """
        X, y = check_fit_data(self, X, y, accept_sparse="csr")
        check_classes(on_host(y))
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        warm = self.warm_start and hasattr(self, "weights_")
        start = recall(self, Model, ws.exact())._replace(optimizer={}) if warm else None
        return self._trained(X, y, ws, labels_head(y, self.classes_ if warm else None), start)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None) -> Self:
        """Train for one epoch on these rows, at the full learning rate; the state of the optimizer is kept.

        As the rate does not fall, use a lower one than for `fit`, such as 0.02.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, finite. The first ones decide what `scale_` is and whether there is a constant coordinate. They
            should be of all classes: subspaces of others begin at random.
        y : array-like of shape (n_samples,)
            Their classes.
        classes : array-like of shape (n_classes,), default=None
            All classes that will occur; required in the first call.

        Returns
        -------
        self : GrassmannClassifier
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all rows, and partial_fit sees some. Pass a dict, with the weights of "
                "sklearn.utils.class_weight.compute_class_weight('balanced', classes=classes, y=y)."
            )
        known = classes_of_stream(self, classes)
        former = getattr(self, "n_iter_", 0)
        X, y = check_fit_data(self, X, y, accept_sparse="csr", reset=not former)
        check_classes(on_host(y))
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        start = recall(self, Model, ws.exact()) if former else None
        ws.generator.manual_seed(ws.generator.initial_seed() + former)  # other batches than before
        return self._trained(X, y, ws, labels_head(y, known), start, n_epochs=1)

    def decision_function(self, X):
        """Return the scores of the classes.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : array of shape (n_samples, n_classes) or (n_samples,)
            In [0, gamma]; for two classes the score of the second less that of the first.
        """
        ws, scores = self._scores(X, "decision_function")
        return ws.answer(scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores)

    def transform(self, X):
        """Return the unit features, of which the classes are subspaces.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        features : array of shape (n_samples, width)
            The constant coordinate is the last column, where there is one. Rows of zeros stay zero without it.
        """
        ws, model, rows = self._recalled(X, "transform")
        return ws.answer(features_of(model, rows, ws.device))

    @in_plain_modes
    def network(self, device: torch.device | str = "cpu") -> nn.Module:
        """Return the network that computes `transform` as a torch module.

        It is a new one at each call, in float32 and eval mode, and takes rows as they are.

        Parameters
        ----------
        device : str or torch.device, default="cpu"
            Where its weights are.

        Returns
        -------
        network : torch.nn.Module
        """
        check_is_fitted(self)
        return feature_network(recall(self, Model, open_workspace(np.empty((0, 0)), device="cpu")), device)

    @property
    def _n_features_out(self):
        return self.subspaces_.shape[1]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _trained(self, X, y, ws, head, start=None, n_epochs=None):
        """Train from a start, or from the beginning where there is none, and keep what was found."""
        codes, classes = head[0].encode(on_host(y)), head[1]
        if head[0].n_out < 2:
            raise ValueError("y has only one class. Pass rows of two classes at least.")
        labels, stream = on_host(classes["classes_"]), n_epochs is not None
        weight = solver.weights_of_classes(self.class_weight, labels, codes, stream=stream)
        settings, randomness = options(self, solver.Options), fit_randomness(self, ws)
        problem = solver.class_subspaces(
            rows_of(X, ws), codes, weight, settings, head[0].n_out, ws.device, randomness, start, n_epochs=n_epochs
        )

        def attributes(snapshot, **more):
            model = solver.fitted_model(problem, snapshot)
            public = {"weights_": model.weights, "subspaces_": model.subspaces.to(ws.precision), "scale_": model.scale}
            return fitted_attributes(ws, model, **classes, **public, **more)

        max_iter, tol = problem.training.max_iter, problem.training.tol
        run = drive(self, solver.training(problem), attributes=attributes, X=X, y=y, max_iter=max_iter, tol=tol)
        found = {"loss_curve_": run.loss_curve, "n_iter_": run.n_iter}
        if n_epochs is not None and start is not None:
            found = {name: getattr(self, name) + value for name, value in found.items()}
        return replace_attributes(self, attributes(run.state, **found))

    def _recalled(self, X, method):
        """Return the workspace of new rows, the model, and the rows."""
        X = check_new_data(self, X, like="subspaces_", method=method, accept_sparse="csr")
        ws = open_workspace(X, device=self.device)
        return ws, recall(self, Model, ws.exact()), rows_of(X, ws)

    def _scores(self, X, method):
        ws, model, rows = self._recalled(X, method)
        return ws, scores_of(model, rows, ws.device)
