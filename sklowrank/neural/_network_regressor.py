"""A network as a regressor, with training rules."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.callback import CallbackSupportMixin
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import _fit_context
from .._core.fitted import keep
from .._core.rows import row_weights, rows_of
from .._core.validation import check_fit_data, on_host
from .._core.workspace import open_workspace
from .._nets.estimating import continue_network, fit_network, former_network, network_outputs
from .._nets.targets import in_units, values_head
from .._nets.training import Rule
from ._shared import NetworkMethods, documented


@documented(standardize="So are the targets, one by one. Constant columns become zero.")
class NetworkRegressor(NetworkMethods, CallbackSupportMixin, RegressorMixin, BaseEstimator):
    """Predict numbers by a network: a multilayer perceptron or any torch module, trained plainly or by a training rule.

    It does what :class:`~sklearn.neural_network.MLPRegressor` does, on a CPU or a GPU, standardises the targets, and
    takes training rules: small networks of low rank, little optimizer memory, or flat minima. On tables with some
    thousand rows of unlike columns :class:`~sklearn.ensemble.HistGradientBoostingRegressor` is often the better
    regressor.

    Parameters
    ----------
    <first_parameters>
    <network parameters>
    <last_parameters>
    <computing parameters>

    Attributes
    ----------
    y_mean_, y_scale_ : float or arrays of shape (n_targets,)
        What the targets are centred with and divided by; numbers where y was a vector.
    <attributes>

    See Also
    --------
    NetworkClassifier : The same for classes.
    sklearn.neural_network.MLPRegressor : A multilayer perceptron of scikit-learn.

    Notes
    -----
    The loss is the mean over targets of the squared errors in units of their standard deviations.

    <notes>

    Examples
    --------
    >>> from sklearn.datasets import make_friedman1
    >>> from sklowrank.neural import NetworkRegressor
    >>> X, y = make_friedman1(400, random_state=0)
    >>> model = NetworkRegressor((32,), learning_rate=1e-2, tol=0, random_state=0).fit(X[:300], y[:300])
    >>> model.score(X[300:], y[300:]) > 0.9
    True
    """

    y_mean_: float | np.ndarray
    y_scale_: float | np.ndarray

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
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss, at least 0.

        Returns
        -------
        self : NetworkRegressor
        """
        X, y = check_fit_data(self, X, y, y_numeric=True, multi_output=True)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        weights = row_weights(sample_weight, rows_of(X, ws), ws)
        start = former_network(self, ws)
        units = None if start is None else (self.y_mean_, self.y_scale_)
        head = values_head(on_host(y), standardize=self.standardize, sample_weight=weights, fitted=units)
        fitted = fit_network(self, X, y, ws, head=head, rule=self.training, sample_weight=weights, start=start)
        return keep(self, ws, fitted.model, **fitted.attributes)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None) -> Self:
        """Train the network for one epoch on these rows; the state of the optimizer is kept between calls.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows, finite. The first ones standardise all that follow, and so do their targets.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their values.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the loss, at least 0.

        Returns
        -------
        self : NetworkRegressor
        """
        first = not hasattr(self, "weights_")
        X, y = check_fit_data(self, X, y, y_numeric=True, multi_output=True, reset=first)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        weights = row_weights(sample_weight, rows_of(X, ws), ws)
        units = None if first else (self.y_mean_, self.y_scale_)
        head = values_head(on_host(y), standardize=self.standardize, sample_weight=weights, fitted=units)
        fitted = continue_network(self, X, y, ws, head=head, rule=self.training, sample_weight=weights)
        return keep(self, ws, fitted.model, **fitted.attributes)

    def predict(self, X):
        """Return the values of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : array of shape (n_samples,) or (n_samples, n_targets)
        """
        ws, outputs = network_outputs(self, X, method="predict")
        return ws.answer(in_units(outputs, self.y_mean_, self.y_scale_))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
