"""A classifier whose width is chosen at prediction."""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.multiclass import check_classification_targets

from .._core.annotations import RandomState
from .._core.compat import _fit_context
from .._core.validation import check_fit_data
from .._core.workspace import open_workspace
from .._nets.targets import chosen_classes, labels_head, log_probabilities
from ._morphable_shared import MorphableMethods, documented
from ._network_classifier import NetworkClassifier


@documented(standardize="Constant columns become zero.")
class MorphableMLPClassifier(MorphableMethods, CallbackSupportMixin, ClassifierMixin, BaseEstimator):
    """Classify by a multilayer perceptron whose width is chosen at prediction: one fit, networks of every size.

    A fit stores one set of weights, from which the network of each width of the hidden layers is computed. It is meant
    for one model file on devices of different size, and for accuracy against size without further fits. For a few small
    sizes that are known beforehand :class:`NetworkClassifier` is the better choice: a small network that is trained
    alone is more accurate.

    Parameters
    ----------
    <parameters>

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels.
    <attributes>

    See Also
    --------
    MorphableMLPRegressor : The same for numbers.
    NetworkClassifier : One network; with :class:`OrderedRank` it is cut to ranks after the fit.
    sklowrank.compress.LowRankCompressor : Makes a fitted network smaller.

    Notes
    -----
    The loss is the cross-entropy.

    <notes>

    References
    ----------
    <references>

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import train_test_split
    >>> from sklowrank.neural import MorphableMLPClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
    >>> model = MorphableMLPClassifier(max_iter=15, random_state=0).fit(X_train, y_train)
    >>> widths, scores = model.size_curve(X_test, y_test, widths=[20, 33, 64])
    >>> bool(scores.min() > 0.85)
    True
    >>> small = model.resized(20)
    >>> small.n_parameters_, model.n_parameters_
    (1930, 8970)
    """

    classes_: np.ndarray

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
        y : array-like of shape (n_samples,)
            Their classes.

        Returns
        -------
        self : MorphableMLPClassifier
        """
        X, y = check_fit_data(self, X, y)
        check_classification_targets(y)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        return self._trained(X, y, ws, labels_head(y))

    def predict(self, X, width: int | None = None):
        """Return the most probable class of each row.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        <width>

        Returns
        -------
        y : array of shape (n_samples,)
        """
        ws, outputs = self._outputs(X, width, "predict")
        return chosen_classes(self.classes_, outputs.argmax(1), ws)

    def predict_proba(self, X, width: int | None = None):
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        <width>

        Returns
        -------
        probabilities : array of shape (n_samples, n_classes)
        """
        ws, outputs = self._outputs(X, width, "predict_proba")
        return ws.answer(outputs.softmax(1))

    def predict_log_proba(self, X, width: int | None = None):
        """Return the logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        <width>

        Returns
        -------
        log_probabilities : array of shape (n_samples, n_classes)
        """
        ws, outputs = self._outputs(X, width, "predict_log_proba")
        return log_probabilities(outputs, ws)

    def resized(self, width: int | None = None) -> NetworkClassifier:
        """Return a fitted classifier that has the network of one width alone, without training.

        It answers as this one does at that width, and can be trained on by its `partial_fit`.

        Parameters
        ----------
        <width>

        Returns
        -------
        model : NetworkClassifier
        """
        return self._resized(NetworkClassifier, width)
