"""LOKI: predictions by the Fréchet mean of class probabilities, in a label space with a metric."""

import copy
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._core.compat import HasMethods, Interval, StrOptions, _fit_context, check_same_namespace
from .._core.fitted import keep, options, recall
from .._core.validation import on_host
from .._core.workspace import check_place, open_workspace
from ._frechet_means import frechet_means, functional, in_power_of
from ._label_space_methods import LabelSpaceMixin
from ._label_spaces import LabelSpace, SpaceOptions, label_space, prepared
from ._wrapped_classifier import (
    check_classifier,
    class_scores,
    classifier_of,
    in_library,
    is_array,
    labels_of,
    learns_in_batches,
    probabilities,
    routed,
)


class LokiClassifier(LabelSpaceMixin, ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Predict the Fréchet mean of a classifier's probabilities, in a label space with a metric.

    It wraps a classifier and replaces the arg-max rule: of all labels, the one with the least expected squared distance
    to the true label is predicted. This can be a label without any training row, such as a grade between observed ones,
    or an inner node of a taxonomy. The classifier itself does not change, and a fitted one need not be fitted again.
    Use it where errors cost more the farther they are. Where every error costs the same, arg-max is more accurate, and
    where labels are plain numbers a regressor is as good.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The classifier, of which a clone is fitted; one in a :class:`~sklearn.frozen.FrozenEstimator` is used as it is.
        None is a :class:`~sklearn.linear_model.LogisticRegression`.
    metric : {"discrete", "ordinal", "numeric", "precomputed", "embedding", "tree"} or callable, default="ordinal"
        Distances between labels. "discrete": 0 or 1, which gives the arg-max rule. "ordinal": difference of ranks, for
        text by the order of `label_space`, else by size. "numeric": difference of labels that are numbers.
        "precomputed": `distances`. "embedding": Euclidean distances of `label_embeddings`. "tree": lengths of paths in
        `label_tree`. A callable takes two labels and returns their distance.
    label_space : array-like of shape (n_classes,) or None, default=None
        All labels that may be predicted, those of the training rows among them. None is the labels of the training
        rows, sorted; with `metric="tree"` see `tree_nodes`.
    distances : array-like of shape (n_classes, n_classes) or None, default=None
        Distances between labels, not squared, in the order of `label_space`. For `metric="precomputed"`.
    label_embeddings : array-like of shape (n_classes, n_dims) or None, default=None
        A point for each label, in the order of `label_space`. For `metric="embedding"`.
    label_tree : sequence of tuples or None, default=None
        Edges ``(parent, child)`` or ``(a, b, weight)`` of a tree, whose nodes are labels. For `metric="tree"`.
    tree_nodes : {"all", "leaves"}, default="all"
        Which nodes are the label space where `label_space` is None: all, or leaves and the labels of the training rows.
        An unseen leaf is never nearer to observed ones than the node at which it hangs, so that with "leaves" hardly
        any unseen label is predicted.
    power : float, default=2.0
        Power of the distance, above 0: 2 gives Fréchet means, 1 Fréchet medians.
    temperature : float, default=1.0
        Probabilities are raised to the power 1 / temperature, above 0. Above 1 for an overconfident classifier.
        Choose it by cross-validation, or wrap a calibrated classifier.
    scores : {"proba", "decision"}, default="proba"
        Where probabilities come from: `predict_proba`, or the softmax of `decision_function` over `temperature`.
    tie_break : {"proba", "first"}, default="proba"
        Which label is predicted where several are equal to 1e-12: the most probable one, or the first.
    batch_size : int or "auto", default="auto"
        Number of rows processed at once; it bounds memory and does not change the result.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    classes_ : array of shape (n_classes,)
        All labels that may be predicted, sorted.
    observed_classes_ : array of shape (n_observed,)
        Labels that the classifier knows.
    observed_index_ : array of shape (n_observed,)
        Their positions in `classes_`.
    distances_ : array of shape (n_observed, n_classes)
        Distances of the observed labels to all; computed when it is read, but for those that were given.
    n_features_in_ : int
        Number of features, where the classifier has it.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where the classifier has them.

    See Also
    --------
    sklearn.calibration.CalibratedClassifierCV : Calibrated probabilities, which this rule depends on.
    sklearn.multiclass.OneVsRestClassifier : Probabilities from binary classifiers.

    Notes
    -----
    With probabilities :math:`p_i` of the observed labels and a distance :math:`d` the prediction is

    .. math:: \\hat y = \\arg\\min_{v} \\sum_i p_i \\, d(v, i)^2

    over all labels. Its expected squared distance is at most that of the most probable label, if the probabilities are
    right. For n rows, k observed labels and m labels this is a matrix product, O(n k m), in blocks. For "ordinal",
    "numeric" and "embedding" with `power=2` it is the label nearest to the mean :math:`\\sum_i p_i e_i` of embeddings,
    O(n (k + m) e), and O(n (k + log m)) on a line; a table of k m distances is never made. In a tree only nodes between
    observed ones can be means, and others are left out. Everything is computed in float64: for tensors on their
    device, for arrays on the CPU.

    References
    ----------
    .. [1] N. Roberts, X. Li, D. Adila, S. Cromp, T.-H. Huang, J. Zhao, F. Sala, "Geometry-aware adaptation for
       pretrained models", NeurIPS 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.multiclass import LokiClassifier
    >>> X = np.random.default_rng(0).normal(size=(300, 1))
    >>> grade = np.clip(np.round(2 * X[:, 0] + 4), 0, 8).astype(int)
    >>> seen = np.isin(grade, [0, 4, 8])  # no training row has one of the other six grades
    >>> model = LokiClassifier(metric="numeric", label_space=np.arange(9)).fit(X[seen], grade[seen])
    >>> model.predict([[-1.5], [-1.0], [0.0], [1.0]])
    array([2, 3, 4, 5])
    >>> argmax = model.estimator_.predict(X)
    >>> bool(model.score_distance(X, grade) < 0.5 * np.mean((argmax - grade) ** 2))
    True
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit"]), None],
        "metric": [StrOptions({"discrete", "ordinal", "numeric", "precomputed", "embedding", "tree"}), callable],
        "label_space": ["array-like", None],
        "distances": ["array-like", None],
        "label_embeddings": ["array-like", None],
        "label_tree": ["array-like", None],
        "tree_nodes": [StrOptions({"all", "leaves"})],
        "power": [Interval(Real, 0, None, closed="neither")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "scores": [StrOptions({"proba", "decision"})],
        "tie_break": [StrOptions({"proba", "first"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    }

    # Set by fit
    estimator_: Any
    classes_: np.ndarray
    observed_classes_: np.ndarray
    observed_index_: np.ndarray

    def __init__(
        self,
        estimator: Any | None = None,
        metric: Callable[[Any, Any], float]
        | Literal["discrete", "ordinal", "numeric", "precomputed", "embedding", "tree"] = "ordinal",
        *,
        label_space: Any | None = None,
        distances: Any | None = None,
        label_embeddings: Any | None = None,
        label_tree: Sequence[tuple] | None = None,
        tree_nodes: Literal["all", "leaves"] = "all",
        power: float = 2.0,
        temperature: float = 1.0,
        scores: Literal["proba", "decision"] = "proba",
        tie_break: Literal["proba", "first"] = "proba",
        batch_size: int | Literal["auto"] = "auto",
    ):
        self.estimator = estimator
        self.metric = metric
        self.label_space = label_space
        self.distances = distances
        self.label_embeddings = label_embeddings
        self.label_tree = label_tree
        self.tree_nodes = tree_nodes
        self.power = power
        self.temperature = temperature
        self.scores = scores
        self.tie_break = tie_break
        self.batch_size = batch_size

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y, **fit_params) -> Self:
        """Fit the classifier, and prepare the label space.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, as the classifier takes them.
        y : array-like of shape (n_samples,)
            Their labels.
        **fit_params : dict
            Parameters of the classifier's `fit`, such as `sample_weight`: with metadata routing those that it requests.

        Returns
        -------
        self : LokiClassifier
        """
        check_place(X)
        labels = labels_of(self.estimator, y)
        space = label_space(labels, options(self, SpaceOptions))
        if len(labels) == 1 and not isinstance(self.estimator, FrozenEstimator):
            return self._kept(X, DummyClassifier().fit(X, y), space)
        model = clone(classifier_of(self.estimator)).fit(X, y, **routed(self, "fit", fit_params))
        return self._kept(X, model, space)

    @available_if(learns_in_batches)
    @_fit_context(prefer_skip_nested_validation=False)
    def partial_fit(self, X, y, classes=None, **fit_params) -> Self:
        """Go on fitting the classifier with a batch of rows; the label space is that of the first call.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, as the classifier takes them.
        y : array-like of shape (n_samples,)
            Their labels.
        classes : array-like of shape (n_observed,), default=None
            All labels that training rows will have; required in the first call.
        **fit_params : dict
            Parameters of the classifier's `partial_fit`.

        Returns
        -------
        self : LokiClassifier
        """
        check_place(X)
        former = getattr(self, "estimator_", None)
        if hasattr(former, "partial_fit"):  # what stands in where there is one label has none
            model, space = copy.deepcopy(former), recall(self, LabelSpace, None)  # a batch that fails changes nothing
        else:
            labels = labels_of(None, y if classes is None else classes)
            model, space = clone(self.estimator), label_space(labels, options(self, SpaceOptions))
        model.partial_fit(X, y, classes=classes, **routed(self, "partial_fit", fit_params))
        return self._kept(X, model, space)

    def _kept(self, X, model, space) -> Self:
        """Store the fitted classifier and the labels, those that are numbers in the library of X."""
        check_classifier(model, self.scores)
        observed = on_host(model.classes_)
        if not np.array_equal(observed, space.labels[space.observed]):
            space = label_space(observed, options(self, SpaceOptions))
        ws = open_workspace(X if is_array(X) else np.empty((0, 0)), device="cpu")
        public = {"classes_": space.labels, "observed_classes_": observed, "observed_index_": space.observed}
        arrays = {name: in_library(array, ws) for name, array in public.items()}
        return keep(self, ws, space, estimator_=model, **arrays)

    def predict(self, X):
        """Return the label with the least expected power of the distance.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, as the classifier takes them.

        Returns
        -------
        y : array of shape (n_samples,)
        """
        at, _, ws = self._means(X, "predict")
        return in_library(recall(self, LabelSpace, None).labels[at.cpu().numpy()], ws)

    def predict_proba(self, X):
        """Return weights of all labels that sum to one and are largest at the prediction.

        They are the softmax of the negative functional, divided by the row's mean over the labels. They are no
        calibrated probabilities: those of the classifier are in :meth:`base_proba`.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, as the classifier takes them.

        Returns
        -------
        probabilities : array of shape (n_samples, n_classes)
        """
        values, _, ws = self._functional(X, "predict_proba")
        mean = values.mean(1, keepdim=True)
        return ws.answer((-values / torch.where(mean > 0, mean, 1.0)).softmax(1))

    def decision_function(self, X):
        """Return the negative functional at all labels.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, as the classifier takes them.

        Returns
        -------
        scores : array of shape (n_samples, n_classes) or (n_samples,)
            Of two labels the functional at the first less that at the second.
        """
        values, unit, ws = self._functional(X, "decision_function")
        scores = values[:, 0] - values[:, 1] if values.shape[1] == 2 else -values
        return ws.answer(in_power_of(unit, scores, self.power))

    def base_proba(self, X):
        """Return the probabilities of the observed labels, with `temperature`, normalised.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, as the classifier takes them.

        Returns
        -------
        probabilities : array of shape (n_samples, n_observed)
        """
        P, ws = self._proba(X, "base_proba")
        return ws.answer(P)

    def frechet_variance(self, X):
        """Return the functional at the prediction: the expected power of its distance from the true label.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, as the classifier takes them.

        Returns
        -------
        variances : array of shape (n_samples,)
        """
        _, variance, ws = self._means(X, "frechet_variance")
        return ws.answer(variance)

    @property
    def n_features_in_(self):
        """Number of features of the classifier."""
        check_is_fitted(self)
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the columns that the classifier was fitted to."""
        check_is_fitted(self)
        return self.estimator_.feature_names_in_

    def get_metadata_routing(self):
        """Return the router that says which parameters of `fit` and `partial_fit` the classifier requests.

        Returns
        -------
        routing : MetadataRouter
        """
        mapping = MethodMapping().add(caller="fit", callee="fit").add(caller="partial_fit", callee="partial_fit")
        return MetadataRouter(owner=self).add(estimator=classifier_of(self.estimator), method_mapping=mapping)

    def _proba(self, X, method):
        """Return the normalised probabilities of the observed labels, and a workspace where X is."""
        check_is_fitted(self)
        check_place(X)
        check_same_namespace(X, self, attribute="observed_index_", method=method)
        P, kind = class_scores(self.estimator_, X, self.scores, self.observed_index_.shape[0])
        ws = open_workspace(X if is_array(X) else P, device="auto" if isinstance(X, torch.Tensor) else "cpu")
        return probabilities(ws.exact().load(P).double(), kind, self.temperature, type(self.estimator_).__name__), ws

    def _means(self, X, method):
        """Return the positions of the predicted labels, the functional there, and a workspace."""
        P, ws = self._proba(X, method)
        columns, labels = prepared(recall(self, LabelSpace, None), ws, reachable=True)
        at, values = frechet_means(P, labels, self.power, tie_break=self.tie_break, batch_size=self.batch_size)
        at = at if columns is None else ws.load(columns)[at]
        return at, in_power_of(labels.unit, values, self.power), ws

    def _functional(self, X, method):
        """Return the functional at all labels, in a unit of the distances."""
        P, ws = self._proba(X, method)
        _, labels = prepared(recall(self, LabelSpace, None), ws)
        return functional(P, labels, self.power, batch_size=self.batch_size), labels.unit, ws

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        of = get_tags(classifier_of(self.estimator))
        tags.classifier_tags, tags.target_tags, tags.input_tags = of.classifier_tags, of.target_tags, of.input_tags
        tags.array_api_support, tags.non_deterministic = of.array_api_support, of.non_deterministic
        return tags
