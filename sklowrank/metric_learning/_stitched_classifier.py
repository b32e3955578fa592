"""A classifier on relative rows, that works for other encoders of the same objects."""

import copy
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._core.compat import HasMethods, _fit_context
from .._core.fitted import keep
from .._core.validation import check_classes, check_fit_data, check_new_data, on_host
from .._core.workspace import open_workspace
from ._relative_representation import RelativeRepresentation


def _head_has(name):
    """Return a condition: whether the classifier on relative rows has a method."""

    def check(self):
        getattr(getattr(self, "estimator_", None) or self._head(), name)
        return True

    return available_if(check)


class StitchedClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Classify rows by their similarities to anchors, for several encoders of the same objects.

    The classifier is fitted once, to embeddings of one encoder. `adapt` takes the anchors as another encoder embeds
    them, and returns a model that predicts there, without labels and without training. The encoders themselves are
    steps of the user. It costs a point or so of accuracy for the first encoder.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The classifier, of which a clone is fitted to relative rows. None is
        :class:`~sklearn.linear_model.LogisticRegression`.
    representation : RelativeRepresentation or None, default=None
        What makes rows relative; a clone of it is fitted. None is ``RelativeRepresentation()``.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    representation_ : RelativeRepresentation
        The fitted representation.
    anchor_indices_ : array of shape (n_anchors,)
        Indices of the anchors among the rows of `fit`.
    classes_ : array of shape (n_classes,)
        Class labels.
    n_features_in_ : int
        Number of features of the encoder for which it predicts.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    RelativeRepresentation : The relative rows.
    relative_distance : Whether two encoders are alike enough.

    References
    ----------
    .. [1] L. Moschella, V. Maiorca, M. Fumero, A. Norelli, F. Locatello, E. Rodolà, "Relative representations enable
       zero-shot latent space communication", ICLR 2023.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from sklowrank.metric_learning import RelativeRepresentation, StitchedClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> Z = PCA(20, random_state=0).fit_transform(X)  # another encoder
    >>> model = StitchedClassifier(representation=RelativeRepresentation(random_state=0)).fit(X[:1000], y[:1000])
    >>> adapted = model.adapt(Z[model.anchor_indices_])
    >>> bool(adapted.score(Z[1000:], y[1000:]) > 0.85)
    True
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"]), None],
        "representation": [RelativeRepresentation, None],
    }

    # Set by fit
    estimator_: Any
    representation_: RelativeRepresentation
    anchor_indices_: np.ndarray
    classes_: np.ndarray
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(self, estimator: Any | None = None, *, representation: RelativeRepresentation | None = None):
        self.estimator = estimator
        self.representation = representation

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y) -> Self:
        """Select the anchors, and fit the classifier to relative rows.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            Rows of an encoder.
        y : array-like of shape (n_samples,)
            Their classes.

        Returns
        -------
        self : StitchedClassifier
        """
        X, y = check_fit_data(self, X, y, accept_sparse=self._relative()._sparse_formats(X))
        check_classes(on_host(y))
        representation = clone(self._relative()).fit(X, y)
        model = clone(self._head()).fit(representation.transform(X), y)
        return self._kept(X, model, representation, representation.anchor_indices_)

    def adapt(self, X_anchors) -> Self:
        """Return a copy that predicts for another encoder; this model stays as it is.

        Parameters
        ----------
        X_anchors : array-like, tensor or sparse matrix of shape (n_anchors, n_other_features)
            What the other encoder makes of the objects of `anchor_indices_`, in this order.

        Returns
        -------
        adapted : StitchedClassifier
        """
        check_is_fitted(self)
        adapted, former = copy.copy(self), self.representation_
        X = check_fit_data(adapted, X_anchors, accept_sparse=former._sparse_formats(X_anchors))
        m = len(self.anchor_indices_)
        if X.shape[0] != m:
            raise ValueError(
                f"X_anchors has {X.shape[0]} rows, and there are {m} anchors. Pass {m} rows: those of the objects of "
                "anchor_indices_, in this order."
            )
        representation = clone(former).set_params(anchors=np.arange(m)).fit(X)
        return adapted._kept(X, self.estimator_, representation, self.anchor_indices_)

    def _kept(self, X, model, representation, indices) -> Self:
        """Store the two fitted parts."""
        parts = {"estimator_": model, "representation_": representation, "anchor_indices_": indices}
        return keep(self, open_workspace(X, device="cpu"), classes_=model.classes_, **parts)

    def predict(self, X):
        """Return the classes of rows.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            Rows of the encoder.

        Returns
        -------
        y : array of shape (n_samples,)
        """
        rows = self._new(X, "predict")
        return self.estimator_.predict(rows)

    @_head_has("predict_proba")
    def predict_proba(self, X):
        """Return the probabilities of the classes.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            Rows of the encoder.

        Returns
        -------
        probabilities : array of shape (n_samples, n_classes)
        """
        rows = self._new(X, "predict_proba")
        return self.estimator_.predict_proba(rows)

    @_head_has("decision_function")
    def decision_function(self, X):
        """Return the scores of the classes.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            Rows of the encoder.

        Returns
        -------
        scores : array of shape (n_samples, n_classes) or (n_samples,)
        """
        rows = self._new(X, "decision_function")
        return self.estimator_.decision_function(rows)

    def _new(self, X, method):
        """Return the relative rows of new data."""
        check_is_fitted(self)
        formats = self.representation_._sparse_formats(X)
        X = check_new_data(self, X, like="anchor_indices_", method=method, accept_sparse=formats)
        return self.representation_.transform(X)

    def _relative(self):
        return RelativeRepresentation() if self.representation is None else self.representation

    def _head(self):
        return LogisticRegression() if self.estimator is None else self.estimator

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        head = get_tags(self._head())
        tags.input_tags.sparse = get_tags(self._relative()).input_tags.sparse
        tags.array_api_support = head.array_api_support
        tags.classifier_tags, tags.target_tags = head.classifier_tags, head.target_tags
        return tags
