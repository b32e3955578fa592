"""Models for a table without labels, fitted to a table with labels that is moved onto it."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from .._core.compat import HasMethods, _fit_context
from .._core.docs import documented
from .._core.fitted import keep
from .._core.validation import check_classes, check_fit_data, check_new_data
from .._core.workspace import open_workspace
from ._samples import checked_target, two_tables
from ._sinkhorn_transport import SinkhornTransport

_CONSTRAINTS = {
    "estimator": [HasMethods(["fit", "predict"]), None],
    "transport": [HasMethods(["fit", "transform"]), None],
}
_PARAGRAPHS = {
    "transport_parameter": """
        transport : transformer or None, default=None
            What moves the source, with ``fit(X, y, X_target=...)`` and ``transform``; it is cloned. None is
            ``SinkhornTransport()``. Pass one to choose its `reg`, also by a search over ``transport__reg``.
    """,
    "fit_parameters": """
        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows of the source; with `sample_domain` of both.
        y : array-like of shape (n_samples,)
            Their labels. Those of target rows are not read: they can be -1 or NaN.
        X_target : array-like or sparse matrix of shape (n_target_samples, n_features), default=None
            Rows of the target. Without it, and without `sample_domain`, the target is X.
        sample_domain : array-like of shape (n_samples,), default=None
            Positive for rows of X that are the source, negative for those that are the target.
    """,
    "predict_parameters": """
        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows of the target, as they are.
    """,
    "shared_attributes": """
        estimator_ : estimator
            The model, fitted to the moved rows of the source.
        transport_ : transformer
            The fitted transport.
        n_features_in_ : int
            Number of features.
        feature_names_in_ : array of shape (n_features_in_,)
            Names of the columns of X, where all are strings.
    """,
    "references": """
        References
        ----------
        .. [1] N. Courty, R. Flamary, D. Tuia, A. Rakotomamonjy, "Optimal transport for domain adaptation", IEEE
           Transactions on Pattern Analysis and Machine Intelligence 39(9), 2017.
    """,
}
documented_adaptation = documented(**_PARAGRAPHS)


def _base_has(name):
    """Return a condition: whether the wrapped estimator has a method."""

    def check(self):
        getattr(getattr(self, "estimator_", None) or self._base(), name)
        return True

    return available_if(check)


@documented_adaptation
class _Adaptation:
    """What both estimators share: `_base()` returns the estimator that is cloned."""

    def predict(self, X):
        """Return the classes, or the values, of rows of the target.

        <predict_parameters>

        Returns
        -------
        y : array of shape (n_samples,) or (n_samples, n_targets)
        """
        X = self._new(X, "predict")
        return self.estimator_.predict(X)

    def _moved(self, tables, X):
        """Return the fitted transport, and the rows of the source moved by it."""
        Z = None if tables.X_target is None else checked_target(self, tables.X_target, self._sparse_formats())
        transport = clone(SinkhornTransport() if self.transport is None else self.transport)
        if hasattr(transport, "set_output"):  # new rows come to the model as arrays, so moved ones do
            transport.set_output(transform="default")
        transport.fit(X, X_target=Z)
        return transport, transport.transform(X)

    def _new(self, X, method):
        return check_new_data(self, X, method=method, accept_sparse=self._sparse_formats())

    def _sparse_formats(self):
        return "csr" if get_tags(self).input_tags.sparse else False

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        transport = SinkhornTransport() if self.transport is None else self.transport
        tags.input_tags.sparse = all(get_tags(part).input_tags.sparse for part in (self._base(), transport))
        return tags


@documented_adaptation
class OTAdaptationClassifier(_Adaptation, ClassifierMixin, BaseEstimator):
    """Classify the rows of a table without labels by a table with labels that has drifted from it.

    The rows with labels are moved onto those without by optimal transport, and a classifier is fitted to them there. It
    predicts rows of the target as they are. Where the drift only shifts and scales columns, standardise both tables
    instead.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The classifier; it is cloned. None is :class:`~sklearn.linear_model.LogisticRegression`.
    <transport_parameter>

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels of the source.
    <shared_attributes>

    See Also
    --------
    SinkhornTransport : The transport alone.
    OTAdaptationRegressor : For targets that are numbers.

    Notes
    -----
    Transport moves all of the source onto all of the target, so both are assumed to have equal shares of the classes:
    where these differ by q, about a share q of the rows gets a wrong label. Nothing says from the target alone whether
    an adaptation has helped: keep some rows of the target with labels to test it.

    <references>

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_moons
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklowrank.transport import OTAdaptationClassifier
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> Z, z = make_moons(200, noise=0.1, random_state=1)
    >>> Z = Z @ [[0.77, 0.64], [-0.64, 0.77]] + [2, 1]  # turned by 40 degrees and moved
    >>> model = OTAdaptationClassifier(KNeighborsClassifier()).fit(X, y, X_target=Z)
    >>> bool(model.score(Z, z) > KNeighborsClassifier().fit(X, y).score(Z, z) + 0.1)
    True
    """

    _parameter_constraints = {**_CONSTRAINTS}

    # Set by fit
    estimator_: Any
    transport_: Any
    classes_: np.ndarray
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(self, estimator: BaseEstimator | None = None, transport: BaseEstimator | None = None):
        self.estimator = estimator
        self.transport = transport

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, *, X_target=None, sample_domain=None) -> Self:
        """Move the source onto the target, and fit the classifier to it.

        <fit_parameters>

        Returns
        -------
        self : OTAdaptationClassifier
        """
        tables = two_tables(X, y, X_target, None, sample_domain)
        X, y = check_fit_data(self, tables.X, tables.y, accept_sparse=self._sparse_formats())
        check_classes(y)
        transport, moved = self._moved(tables, X)
        model = clone(self._base()).fit(moved, y)
        ws = open_workspace(X)
        return keep(self, ws, estimator_=model, transport_=transport, classes_=np.unique(y))

    @_base_has("predict_proba")
    def predict_proba(self, X):
        """Return the probabilities of the classes for rows of the target.

        <predict_parameters>

        Returns
        -------
        probabilities : array of shape (n_samples, n_classes)
        """
        X = self._new(X, "predict_proba")
        return self.estimator_.predict_proba(X)

    @_base_has("decision_function")
    def decision_function(self, X):
        """Return the scores of the classes for rows of the target.

        <predict_parameters>

        Returns
        -------
        scores : array of shape (n_samples, n_classes) or (n_samples,)
            As the classifier returns them.
        """
        X = self._new(X, "decision_function")
        return self.estimator_.decision_function(X)

    def _base(self):
        return LogisticRegression() if self.estimator is None else self.estimator


@documented_adaptation
class OTAdaptationRegressor(_Adaptation, RegressorMixin, BaseEstimator):
    """Predict numbers for a table without targets by a table with targets that has drifted from it.

    The rows with targets are moved onto those without by optimal transport, and a regressor is fitted to them there. It
    predicts rows of the target as they are. Where the drift only shifts and scales columns, standardise both tables
    instead.

    Parameters
    ----------
    estimator : regressor or None, default=None
        The regressor; it is cloned. None is :class:`~sklearn.linear_model.Ridge`.
    <transport_parameter>

    Attributes
    ----------
    <shared_attributes>

    See Also
    --------
    SinkhornTransport : The transport alone.
    OTAdaptationClassifier : For classes.

    Notes
    -----
    Transport assumes that the drift has changed the features alone: the distribution of what is to be predicted is
    equal in both tables. Nothing says from the target alone whether an adaptation has helped: keep some rows of the
    target with known values to test it.

    <references>

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> from sklowrank.transport import OTAdaptationRegressor
    >>> rng = np.random.default_rng(0)
    >>> X, Z = rng.uniform(-1, 1, size=(300, 2)), rng.uniform(-1, 1, size=(300, 2))
    >>> y, z = (np.sin(3 * table[:, 0]) + table[:, 1] for table in (X, Z))
    >>> Z = np.c_[np.exp(Z[:, 0]) + 1.5, 2 * Z[:, 1]]  # the scales of the columns have changed
    >>> model = OTAdaptationRegressor(KNeighborsRegressor()).fit(X, y, X_target=Z)
    >>> bool(model.score(Z, z) > 0.8)
    True
    """

    _parameter_constraints = {**_CONSTRAINTS}

    # Set by fit
    estimator_: Any
    transport_: Any
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(self, estimator: BaseEstimator | None = None, transport: BaseEstimator | None = None):
        self.estimator = estimator
        self.transport = transport

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, *, X_target=None, sample_domain=None) -> Self:
        """Move the source onto the target, and fit the regressor to it.

        <fit_parameters>

        Returns
        -------
        self : OTAdaptationRegressor
        """
        tables = two_tables(X, y, X_target, None, sample_domain)
        several = get_tags(self).target_tags.multi_output
        checks = {"accept_sparse": self._sparse_formats(), "y_numeric": True, "multi_output": several}
        X, y = check_fit_data(self, tables.X, tables.y, **checks)
        transport, moved = self._moved(tables, X)
        model = clone(self._base()).fit(moved, y)
        return keep(self, open_workspace(X), estimator_=model, transport_=transport)

    def _base(self):
        return Ridge() if self.estimator is None else self.estimator

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = get_tags(self._base()).target_tags.multi_output
        return tags
