"""What the common tests have to know of each public estimator, in one row: a new estimator gets one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# What happens to an answer where X is multiplied by a scale
LAWS: dict[str, Callable[[np.ndarray, float, int], np.ndarray]] = {
    "same": lambda answer, scale, n_features: answer,
    "linear": lambda answer, scale, n_features: answer * scale,
    "log": lambda answer, scale, n_features: answer - n_features * np.log(scale),  # the logarithm of a density
}


def _no_units(estimator, scale, n_features):
    return {}


def _bandwidth_in_units(estimator, scale, n_features):
    """A bandwidth has the units of X; "auto" is for standardised columns."""
    unit = 0.7 * n_features**0.5 if estimator.bandwidth == "auto" else estimator.bandwidth
    return {"bandwidth": scale * unit}


def _penalty_in_units(estimator, scale, n_features):
    """C has the inverse units of X squared."""
    return {"C": estimator.C / scale**2}


class Spec(NamedTuple):
    """A row of the table.

    `laws` says for each method with which of LAWS its answers follow the scale of X.
    """

    laws: dict[str, str]
    y: str | None = None  # what it asks for: "classes", "numbers" or nothing
    ids: bool = False  # the first two columns of X are identifiers
    min_features: int = 1  # in one dimension there is no room for a flat piece
    in_units: Callable[[Any, float, int], dict[str, Any]] = _no_units  # parameters where X is multiplied by a scale
    quick: dict[str, Any] = {}  # fewer epochs for the common tests; nothing else may be changed
    too_large: dict[str, Any] = {"device": "warp"}  # parameters that `fit` refuses after it has looked at X


_CLUSTERS = Spec({"predict": "same", "labels_": "same"}, min_features=2)
_FEATURES = Spec({"transform": "same"}, y="numbers")

ESTIMATORS = {
    "ElasticNetSubspaceClustering": _CLUSTERS,
    "FrechetSDR": _FEATURES._replace(quick={"max_iter": 20, "n_iter_no_change": 3}),
    "KSubspaces": Spec({"transform": "linear", "predict": "same", "labels_": "same"}, min_features=2),
    "KernelFrechetSDR": _FEATURES,
    "LeastSquaresSubspaceClustering": _CLUSTERS,
    "LinearFrechetSDR": _FEATURES,
    "LowRankGaussianMixture": Spec(
        {"transform": "linear", "predict": "same", "predict_proba": "same", "score_samples": "log", "labels_": "same"},
        min_features=2,
    ),
    "LowRankRepresentationClustering": _CLUSTERS,
    "ManifoldLinearizingClustering": Spec(
        {"transform": "same", "predict": "same", "predict_proba": "same", "labels_": "same"},
        quick={"n_epochs": (5, 2)},
    ),
    "MatrixCompletionImputer": Spec({"transform": "linear"}),
    "MatrixFactorizationRegressor": Spec({"predict": "same", "transform": "same"}, y="numbers", ids=True),
    "PrivateDistanceSum": Spec({"transform": "linear", "score_samples": "linear"}),
    "PrivateKernelDensity": Spec({"score_samples": "log"}, in_units=_bandwidth_in_units),
    "PrivateSimilarityClassifier": Spec(
        {"predict": "same", "predict_proba": "same", "decision_function": "same"},
        y="classes",
        in_units=_bandwidth_in_units,
    ),
    "SparseSubspaceClustering": _CLUSTERS,
    "SparseSubspaceClusteringOMP": _CLUSTERS,
    "SupervisedDictionaryLearning": Spec(
        {"transform": "linear", "predict": "same", "predict_proba": "same", "decision_function": "same"},
        y="classes",
        in_units=_penalty_in_units,
    ),
    "SupervisedDictionaryRegressor": Spec(
        {"transform": "linear", "predict": "same"}, y="numbers", in_units=_penalty_in_units
    ),
    "ThresholdedSubspaceClustering": _CLUSTERS,
}


def spec_of(estimator) -> Spec:
    """Return the row of an estimator, or of its class."""
    cls = estimator if isinstance(estimator, type) else type(estimator)
    if cls.__name__ not in ESTIMATORS:
        raise LookupError(
            f"{cls.__name__} has no row in tests/estimators.py: say its laws of scale and its data there."
        )
    return ESTIMATORS[cls.__name__]
