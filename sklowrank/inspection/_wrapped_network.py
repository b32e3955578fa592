"""Estimators that wrap a network which can be trained: what they take from it, and which they take."""

import torch
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet

from .._core.compat import check_same_namespace, safe_indexing
from .._core.workspace import check_place


def last_step(model):
    """Return the last step of a pipeline, or the model itself."""
    return model[-1] if isinstance(model, Pipeline) and len(model) else model


def trained_by_us(last) -> bool:
    """Return whether an estimator is one of ours with one network, which takes callbacks of skorch."""
    if isinstance(last, type) or not callable(getattr(last, "network", None)):
        return False
    return "net_params" in last.get_params(deep=False)


def check_trainable(model, *, how: str, takes_rule: bool = False) -> None:
    """Raise a TypeError where a model holds no network that can be trained, or trained with a rule if `takes_rule`."""
    last = last_step(model)
    ours = trained_by_us(last) and (not takes_rule or "training" in last.get_params(deep=False))
    if not (ours or isinstance(last, NeuralNet)):
        raise TypeError(
            f"A {type(last).__name__} {how}. Pass a NetworkClassifier, a NetworkRegressor, a skorch net, or a Pipeline "
            "whose last step is one of these."
        )


def rows_at(X, at):
    """Return some rows of an array, a tensor or a data frame."""
    if isinstance(X, torch.Tensor):
        return X[torch.from_numpy(at).to(X.device)]
    return safe_indexing(X, at)


def inner_has(name: str):
    """Return a check whether the fitted estimator, or the one that is to be fitted, has a method."""

    def check(self):
        if not getattr(self, "refit", True):
            raise AttributeError(f"{name} needs refit=True.")
        getattr(getattr(self, self._holder, self.estimator), name)
        return True

    return check


class NetworkWrapper:
    """Tags, classes, columns and predictions of the estimator that is wrapped; `_holder` names the fitted one."""

    _holder = "estimator_"

    @property
    def _held(self):
        check_is_fitted(self)
        return getattr(self, self._holder)

    @property
    def classes_(self):
        """Class labels of the fitted estimator."""
        return self._held.classes_

    @property
    def n_features_in_(self):
        """Number of features of the fitted estimator."""
        return self._held.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the columns that the estimator was fitted to."""
        return self._held.feature_names_in_

    @property
    def _mean(self):
        """An array in the library of the rows that were fitted, where the estimator has one."""
        return self._held.mean_

    def _check_namespace(self, X, method):
        """Refuse arrays of another library or device than those of `fit`, in the name of the wrapper."""
        check_is_fitted(self)
        check_place(X, "X")
        if hasattr(self, "_mean"):
            check_same_namespace(X, self, attribute="_mean", method=method)

    @available_if(inner_has("predict"))
    def predict(self, X):
        """Return what the fitted estimator predicts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : array
        """
        self._check_namespace(X, "predict")
        return self._held.predict(X)

    @available_if(inner_has("predict_proba"))
    def predict_proba(self, X):
        """Return the probabilities of the classes by the fitted estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        probabilities : array of shape (n_samples, n_classes)
        """
        self._check_namespace(X, "predict_proba")
        return self._held.predict_proba(X)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        if hasattr(self.estimator, "__sklearn_tags__"):
            of = get_tags(self.estimator)
            tags.estimator_type, tags.classifier_tags = of.estimator_type, of.classifier_tags
            tags.regressor_tags, tags.target_tags, tags.input_tags = of.regressor_tags, of.target_tags, of.input_tags
            tags.array_api_support, tags.non_deterministic = of.array_api_support, of.non_deterministic
        return tags
