"""A regressor whose width is chosen at prediction."""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.callback import CallbackSupportMixin

from .._core.annotations import RandomState
from .._core.compat import _fit_context
from .._core.validation import check_fit_data, on_host
from .._core.workspace import open_workspace
from .._nets.targets import in_units, values_head
from ._morphable_shared import MorphableMethods, documented
from ._network_regressor import NetworkRegressor


@documented(standardize="Constant columns become zero. Targets are standardised in any case.")
class MorphableMLPRegressor(MorphableMethods, CallbackSupportMixin, RegressorMixin, BaseEstimator):
    """Predict numbers by a multilayer perceptron whose width is chosen at prediction: one fit, networks of every size.

    A fit stores one set of weights, from which the network of each width of the hidden layers is computed. It is meant
    for one model file on devices of different size, and for R² against size without further fits. For a few small sizes
    that are known beforehand :class:`NetworkRegressor` is the better choice: a small network that is trained alone is
    more accurate.

    Parameters
    ----------
    <parameters>

    Attributes
    ----------
    y_mean_, y_scale_ : float or arrays of shape (n_targets,)
        What the targets are centred with and divided by; numbers where y was a vector.
    <attributes>

    See Also
    --------
    MorphableMLPClassifier : The same for classes.
    NetworkRegressor : One network; with :class:`OrderedRank` it is cut to ranks after the fit.
    sklowrank.compress.LowRankCompressor : Makes a fitted network smaller.

    Notes
    -----
    The loss is the mean over targets of the squared errors in units of their standard deviations.

    <notes>

    References
    ----------
    <references>

    Examples
    --------
    >>> from sklearn.datasets import make_friedman1
    >>> from sklowrank.neural import MorphableMLPRegressor
    >>> X, y = make_friedman1(400, random_state=0)
    >>> model = MorphableMLPRegressor(random_state=0).fit(X[:300], y[:300])
    >>> widths, scores = model.size_curve(X[300:], y[300:], widths=[20, 33, 64])
    >>> bool(scores[2] > 0.85)
    True
    >>> model.predict(X[300:302], width=33).shape
    (2,)
    """

    y_mean_: float | np.ndarray
    y_scale_: float | np.ndarray

    def __init__(
        self,
        width_range: Sequence[int] = (16, 64),
        *,
        weight_function: Literal["nested", "spectral"] = "nested",
        train_widths: int | Sequence[int] = 7,
        default_width: int | None = None,
        n_hidden_layers: int = 2,
        n_frequencies: int = 16,
        activation: Literal["relu", "gelu", "tanh", "identity"] = "relu",
        standardize: bool = True,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.0,
        batch_size: int = 64,
        max_iter: int = 100,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.width_range = width_range
        self.weight_function = weight_function
        self.train_widths = train_widths
        self.default_width = default_width
        self.n_hidden_layers = n_hidden_layers
        self.n_frequencies = n_frequencies
        self.activation = activation
        self.standardize = standardize
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Train the weights of all widths.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows, finite.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their values.

        Returns
        -------
        self : MorphableMLPRegressor
        """
        X, y = check_fit_data(self, X, y, y_numeric=True, multi_output=True)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        return self._trained(X, y, ws, values_head(on_host(y)))

    def predict(self, X, width: int | None = None):
        """Return the values of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        <width>

        Returns
        -------
        y : array of shape (n_samples,) or (n_samples, n_targets)
        """
        ws, outputs = self._outputs(X, width, "predict")
        return ws.answer(in_units(outputs, self.y_mean_, self.y_scale_))

    def resized(self, width: int | None = None) -> NetworkRegressor:
        """Return a fitted regressor that has the network of one width alone, without training.

        It answers as this one does at that width, and can be trained on by its `partial_fit`.

        Parameters
        ----------
        <width>

        Returns
        -------
        model : NetworkRegressor
        """
        return self._resized(NetworkRegressor, width)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
