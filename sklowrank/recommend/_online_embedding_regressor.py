"""Embeddings of identifiers learned from a stream, a row for each of them: the regressor."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from sklearn.base import BaseEstimator, RegressorMixin

from .._core.annotations import RandomState
from .._core.compat import _fit_context
from ._online_columns import checked_table
from ._online_methods import OnlineEmbeddingMethods
from ._online_parameters import online_docs
from ._online_targets import checked_numbers, checked_weights, first_unit, in_units, unit_of


@online_docs(units=", in units of y")
class OnlineEmbeddingRegressor(OnlineEmbeddingMethods, RegressorMixin, BaseEstimator):
    """Predict numbers for rows of identifiers that come in a stream: ratings, durations, amounts.

    The same as :class:`OnlineEmbeddingClassifier` with a squared loss. Where all values are there at once and a row
    names two identifiers, :class:`MatrixFactorizationRegressor` is more accurate and gives standard errors.

    Parameters
    ----------
    <parameters>

    Attributes
    ----------
    y_mean_ : float
        Mean of y, in `fit` or in the first call of `partial_fit`, which is subtracted.
    y_scale_ : float
        Standard deviation of y there, by which it is divided; 1 for a constant.
    <attributes>

    See Also
    --------
    OnlineEmbeddingClassifier : The same for classes.
    MatrixFactorizationRegressor : Values of pairs of identifiers, with standard errors, fitted to all of them at once.

    Notes
    -----
    <notes>

    The loss is half the squared error of y in standard deviations.

    References
    ----------
    .. [1] Liu et al., "Monolith: Real Time Recommendation System With Collisionless Embedding Table", 2022,
       arXiv:2209.07663.
    .. [2] Rendle, "Factorization Machines", ICDM 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.recommend import OnlineEmbeddingRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 20, (3000, 2))
    >>> y = 10.0 + (X[:, 0] - 9.5) * (X[:, 1] - 9.5)
    >>> model = OnlineEmbeddingRegressor(init_scale=0.1, max_iter=20, random_state=0).fit(X[:2700], y[:2700])
    >>> model.score(X[2700:], y[2700:]) > 0.95
    True
    """

    y_mean_: float
    y_scale_: float

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
            Their values.

        Returns
        -------
        self : OnlineEmbeddingRegressor
        """
        table = checked_table(self, X, reset=True)
        values = checked_numbers(type(self).__name__, y, table.shape[0])
        unit = unit_of(values, None)
        stored, rows, ws = self._begin(table, 1, "squared")
        return self._fit(stored, rows, in_units(values, unit), ws, X=X, y=y, **unit)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None, timestamps=None) -> Self:
        """Learn rows in the order in which they come, each once.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows.
        y : array-like of shape (n_samples,)
            Their values. Those of the first call set the unit, `y_mean_` and `y_scale_`, of all further ones: it should
            have some rows of different y.
        <stream>

        Returns
        -------
        self : OnlineEmbeddingRegressor
        """
        first = not hasattr(self, "y_mean_")
        table = checked_table(self, X, reset=first)
        y = checked_numbers(type(self).__name__, y, table.shape[0])
        weights = checked_weights(sample_weight, y)
        unit = first_unit(y, weights) if first else {"y_mean_": self.y_mean_, "y_scale_": self.y_scale_}
        stored, rows, ws = self._begin(table, 1, "squared") if first else self._continued(table)
        return self._absorb(stored, rows, in_units(y, unit), weights, timestamps, ws, **unit)

    def predict(self, X):
        """Return predicted values.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : ndarray of shape (n_samples,)
        """
        (outputs, ws), (scale, shift) = self._outputs(X), self._unit()
        return ws.answer(outputs[:, 0] * scale + shift)

    def _unit(self):
        return self.y_scale_, self.y_mean_
