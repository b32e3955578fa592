"""A network as a classifier, with training rules."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.multiclass import check_classification_targets
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import _fit_context
from .._core.fitted import keep
from .._core.rows import row_weights, rows_of
from .._core.validation import check_fit_data
from .._core.workspace import open_workspace
from .._nets.estimating import continue_network, fit_network, former_network, network_outputs
from .._nets.scores import ScoredClasses
from .._nets.targets import classes_of_stream, labels_head
from .._nets.training import Rule
from ._shared import NetworkMethods, documented


@documented(standardize="Constant columns become zero.")
class NetworkClassifier(NetworkMethods, ScoredClasses, CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    """Classify by a network: a multilayer perceptron or any torch module, trained plainly or by a training rule.

    It does what :class:`~sklearn.neural_network.MLPClassifier` does, on a CPU or a GPU, and takes training rules: small
    networks of low rank, little optimizer memory, or flat minima. On tables with some thousand rows of unlike columns
    :class:`~sklearn.ensemble.HistGradientBoostingClassifier` is often the better classifier.

    Parameters
    ----------
    <first_parameters>
    <network parameters>
    <last_parameters>
    <computing parameters>

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels.
    <attributes>

    See Also
    --------
    NetworkRegressor : The same for numbers.
    sklearn.neural_network.MLPClassifier : A multilayer perceptron of scikit-learn.

    Notes
    -----
    The loss is the cross-entropy. A single class is a constant.

    <notes>

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklowrank.neural import NetworkClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> model = NetworkClassifier((64,), max_iter=10, tol=0, random_state=0).fit(X_train, y_train)
    >>> model.score(X_test, y_test) > 0.9
    True
    >>> model.network()
    Sequential(
      (0): Linear(in_features=64, out_features=64, bias=True)
      (1): ReLU()
      (2): Linear(in_features=64, out_features=10, bias=True)
    )
    """

    classes_: np.ndarray

    def __init__(
        self,
        hidden_layer_sizes: Sequence[int] = (128, 128),
        *,
        training: Rule | None = None,
        activation: Literal["relu", "gelu", "tanh", "identity"] = "relu",
        module: Callable[..., nn.Module] | nn.Module | None = None,
        net_params: dict[str, Any] | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        batch_size: int = 64,
        max_iter: int = 50,
        tol: float = 1e-4,
        n_iter_no_change: int = 10,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        init_rank: int | None = None,
        standardize: bool = True,
        warm_start: bool = False,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.training = training
        self.activation = activation
        self.module = module
        self.net_params = net_params
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.init_rank = init_rank
        self.standardize = standardize
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows, finite.
        y : array-like of shape (n_samples,)
            Their classes.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss, at least 0.

        Returns
        -------
        self : NetworkClassifier
        """
        X, y = check_fit_data(self, X, y)
        check_classification_targets(y)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        weights = row_weights(sample_weight, rows_of(X, ws), ws)
        start = former_network(self, ws)
        head = labels_head(y, None if start is None else self.classes_)
        fitted = fit_network(self, X, y, ws, head=head, rule=self.training, sample_weight=weights, start=start)
        return keep(self, ws, fitted.model, **fitted.attributes)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None) -> Self:
        """Train the network for one epoch on these rows; the state of the optimizer is kept between calls.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows, finite. The first ones standardise all that follow.
        y : array-like of shape (n_samples,)
            Their classes.
        classes : array-like of shape (n_classes,), default=None
            All classes that will occur; required in the first call.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss, at least 0.

        Returns
        -------
        self : NetworkClassifier
        """
        known = classes_of_stream(self, classes)
        X, y = check_fit_data(self, X, y, reset=not hasattr(self, "weights_"))
        check_classification_targets(y)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        weights = row_weights(sample_weight, rows_of(X, ws), ws)
        head = labels_head(y, known)
        fitted = continue_network(self, X, y, ws, head=head, rule=self.training, sample_weight=weights)
        return keep(self, ws, fitted.model, **fitted.attributes)

    def _scores(self, X, method):
        return network_outputs(self, X, method=method)
