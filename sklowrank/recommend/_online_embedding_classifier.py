"""Embeddings of identifiers learned from a stream, a row for each of them: the classifier."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin

from .._core.annotations import RandomState
from .._core.compat import _fit_context
from ._online_columns import checked_table
from ._online_methods import OnlineEmbeddingMethods
from ._online_parameters import online_docs
from ._online_targets import (
    checked_labels,
    checked_weights,
    declared_classes,
    loss_for,
    network_targets,
    outputs_for,
    plain_labels,
    positions_of,
)


@online_docs()
class OnlineEmbeddingClassifier(OnlineEmbeddingMethods, ClassifierMixin, BaseEstimator):
    """Classify rows of identifiers that come in a stream: clicks, likes, fraud, churn.

    A factorization machine with an embedding for each user, item, merchant or device, of which no two share one
    (Monolith [1]_). It learns in one pass by `partial_fit`, ignores identifiers that are too rare, drops those that
    have not occurred for long, continues exactly from snapshots, and can predict from a copy while it learns. It
    replaces :class:`~sklearn.feature_extraction.FeatureHasher` before :class:`~sklearn.linear_model.SGDClassifier`. For
    tables of some thousand rows with few categories, gradient boosted trees on encoded columns are often better.

    Parameters
    ----------
    <parameters>

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Class labels.
    <attributes>

    See Also
    --------
    OnlineEmbeddingRegressor : The same for numbers.
    MatrixFactorizationRegressor : Values of pairs of identifiers, with standard errors, fitted to all of them at once.
    sklearn.feature_extraction.FeatureHasher : Columns of fixed number for identifiers, which share them.

    Notes
    -----
    <notes>

    The loss is the logistic one for two classes, and else the cross-entropy, where each class weighs the entries of the
    interaction.

    References
    ----------
    .. [1] Liu et al., "Monolith: Real Time Recommendation System With Collisionless Embedding Table", 2022,
       arXiv:2209.07663.
    .. [2] Rendle, "Factorization Machines", ICDM 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.recommend import OnlineEmbeddingClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 30, (4000, 2)) + 10**15
    >>> y = (X[:, 0] % 3 == X[:, 1] % 3).astype(int)
    >>> model = OnlineEmbeddingClassifier(init_scale=0.1, random_state=0)
    >>> for rows in np.array_split(np.arange(3600), 36):
    ...     model = model.partial_fit(X[rows], y[rows], classes=[0, 1])
    >>> model.n_ids_, model.score(X[3600:], y[3600:]) > 0.9
    (60, True)
    """

    classes_: np.ndarray

    def __init__(
        self,
        n_components: int = 8,
        *,
        interaction: Literal["fm", "linear", "deepfm"] = "fm",
        hidden_layer_sizes: Sequence[int] = (64,),
        categorical_features: Sequence[Any] | Literal["auto"] | None = "auto",
        learning_rate: float | tuple[float, float] = 0.2,
        init_scale: float = 0.01,
        batch_size: int = 32,
        max_iter: int = 5,
        min_count: int | dict[Any, int] = 1,
        admission: Literal["count", "probabilistic"] = "count",
        filter_capacity: int | None = None,
        expire_after: float | dict[Any, float] | None = None,
        evict_every: int | None = None,
        max_rows: int | None = None,
        sync_interval: int = 0,
        table: Literal["cuckoo", "modulo"] = "cuckoo",
        n_rows: int | None = None,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.interaction = interaction
        self.hidden_layer_sizes = hidden_layer_sizes
        self.categorical_features = categorical_features
        self.learning_rate = learning_rate
        self.init_scale = init_scale
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.min_count = min_count
        self.admission = admission
        self.filter_capacity = filter_capacity
        self.expire_after = expire_after
        self.evict_every = evict_every
        self.max_rows = max_rows
        self.sync_interval = sync_interval
        self.table = table
        self.n_rows = n_rows
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Forget all, and learn rows in epochs, each in an order that is drawn.

        Identifiers are counted in the first epoch alone, and none is dropped by age.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows: identifiers, and finite numbers. Columns of a data frame keep their types.
        y : array-like of shape (n_samples,)
            Their classes.

        Returns
        -------
        self : OnlineEmbeddingClassifier
        """
        table = checked_table(self, X, reset=True)
        y_checked = checked_labels(type(self).__name__, y, table.shape[0])
        classes, positions = np.unique(y_checked, return_inverse=True)
        n_outputs = outputs_for(classes)
        stored, rows, ws = self._begin(table, n_outputs, loss_for(n_outputs))
        return self._fit(stored, rows, network_targets(positions, n_outputs), ws, X=X, y=y, classes_=classes)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, classes=None, sample_weight=None, timestamps=None) -> Self:
        """Learn rows in the order in which they come, each once.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,)
            Their classes.
        classes : array-like of shape (n_classes,) or None, default=None
            All classes that will occur. None in the first call takes those of y.
        <stream>

        Returns
        -------
        self : OnlineEmbeddingClassifier
        """
        first = not hasattr(self, "classes_")
        table = checked_table(self, X, reset=first)
        if first or not plain_labels(y, table.shape[0]):
            y = checked_labels(type(self).__name__, y, table.shape[0])
        weights = checked_weights(sample_weight, y)
        known = declared_classes(y, classes, None if first else self.classes_)
        positions, n_outputs = positions_of(y, known), outputs_for(known)
        if first:
            stored, rows, ws = self._begin(table, n_outputs, loss_for(n_outputs))
        else:
            stored, rows, ws = self._continued(table)
        target = network_targets(positions, n_outputs)
        return self._absorb(stored, rows, target, weights, timestamps, ws, classes_=known)

    def decision_function(self, X):
        """Return the outputs of the model: log-odds of the second class, or one for each of several classes.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        outputs : ndarray of shape (n_samples,) or (n_samples, n_classes)
        """
        outputs, ws = self._outputs(X)
        return ws.answer(outputs[:, 0] if outputs.shape[1] == 1 else outputs)

    def predict_proba(self, X):
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes)
        """
        outputs, ws = self._outputs(X)
        if outputs.shape[1] == 1:
            return ws.answer(torch.cat([-outputs, outputs], 1).sigmoid())
        return ws.answer(outputs.softmax(1))

    def predict(self, X):
        """Return the most probable class of each row.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        outputs, _ = self._outputs(X)
        positions = outputs[:, 0] > 0 if outputs.shape[1] == 1 else outputs.argmax(1)
        return self.classes_[positions.cpu().numpy().astype(np.int64)]
