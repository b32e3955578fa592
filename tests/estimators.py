"""What the common tests have to know of each public estimator, in one row: a new estimator gets one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklowrank.metric_learning import RelativeRepresentation
from sklowrank.transport import SinkhornTransport

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


def _a_network():
    """What estimators that change a fitted network are given: a tenth of its weights still separates three classes."""
    from sklowrank.neural import NetworkClassifier

    return NetworkClassifier((64,), max_iter=30, tol=0, learning_rate=1e-2, random_state=0)


class AttentiveNet(nn.Module):
    """Each column is a token, in a place of its own; in the precision of estimators, whatever torch's default is."""

    def __init__(self, n_features, n_outputs):
        super().__init__()
        single = {"dtype": torch.float32}
        self.read, self.output = nn.Linear(1, 16, **single), nn.Linear(16, n_outputs, **single)
        self.place = nn.Parameter(torch.randn(n_features, 16, **single))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True, **single)

    def forward(self, x):
        x = torch.relu(self.read(x[:, :, None]) + self.place)
        return self.output((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def _an_attentive_network():
    """It is not sure of its classes: rounding of large logits would show in probabilities."""
    from sklowrank.neural import NetworkClassifier

    return NetworkClassifier(module=AttentiveNet, max_iter=12, tol=0, learning_rate=1e-2, random_state=0)


def _a_deep_network():
    """A network of which half of the weights are between hidden layers, however few columns and classes there are."""
    return _a_network().set_params(hidden_layer_sizes=(32, 32))


class Spec(NamedTuple):
    """A row of the table.

    `laws` says for each method, for `labels_`, and for `score` where there is nothing else, with which of LAWS its
    answers follow the scale of X; what is not named there, the estimator does not have.
    """

    laws: dict[str, str]
    y: str | None = None  # what it asks for: "classes", "numbers" or nothing
    unlabelled: bool = False  # NaN in y is a row without a label
    ids: bool = False  # the first two columns of X are identifiers
    categories: bool = False  # text is an identifier, and so is a column of a sparse X
    min_features: int = 1  # in one dimension there is no room for a subspace
    score: bool = True
    batches: bool = False  # has `partial_fit`
    iterates: bool = False  # has `max_iter` and `tol`, and calls callbacks
    converges: bool = True  # `tol` ends a fit, and `max_iter` warns; else all iterations are run
    tol: bool = True  # False: it iterates for `max_iter` epochs, and has no `tol`
    seed: bool = True  # has `random_state`
    network: bool = False  # is trained in float32, whatever the type of X
    in_units: Callable[[Any, float, int], dict[str, Any]] = _no_units  # parameters where X is multiplied by a scale
    wraps: Callable[[], Any] | None = None  # makes the `estimator` that the constructor asks for
    holds: tuple[str, ...] = ()  # types of ours in what is fitted, beside that of the wrapped estimator
    quick: dict[str, Any] = {}  # parameters of the common tests; the slow ones check the defaults
    too_large: dict[str, Any] = {"device": "warp"}  # parameters that `fit` refuses after it has looked at X


def _adapted(estimator):
    """Parameters with which an adaptation follows the scale of X, and has a device."""
    return {"estimator": estimator, "transport": SinkhornTransport()}


_ADAPTATION = Spec(
    {},
    seed=False,
    holds=("sklowrank.transport._sinkhorn_transport.SinkhornTransport",),
    too_large={"transport__device": "warp"},
)
_CLUSTERS = Spec({"predict": "same", "labels_": "same"}, min_features=2, score=False)
_FEATURES = Spec({"transform": "same"}, y="numbers")
_FEW_SWEEPS = {"max_iter": 20}
_ATTENTION = Spec(
    {},
    iterates=True,
    converges=False,
    quick={"degree": 4, "method": "polynomial", "error_tol": 1.0, "max_iter": 30},
)
_MORPHABLE = Spec(
    {},
    iterates=True,
    converges=False,
    tol=False,
    network=True,
    quick={"width_range": (8, 12), "max_iter": 30, "learning_rate": 1e-2},
    too_large={"default_width": 99},
)
_NETWORK = Spec({}, batches=True, iterates=True, network=True)
_STREAM = ("sklowrank.recommend._online_state.OnlineState",)
_TINY_NETWORK = {"hidden_layer_sizes": (8,), "max_iter": 30, "learning_rate": 1e-2}


def _tiny_classifier():
    from sklowrank.neural import NetworkClassifier

    return NetworkClassifier(**_TINY_NETWORK, random_state=0)


def _all_epochs():
    return _tiny_classifier().set_params(tol=0)  # without a warning


def _fast_classifier():
    return _tiny_classifier().set_params(learning_rate=0.1)  # nine tenths of its score are to pass for accurate


ESTIMATORS = {
    "DynamicSubspaceMetricLearner": Spec(
        {"transform": "same"},
        y="classes",
        score=False,
        iterates=True,
        converges=False,
        network=True,
        quick={"n_components": 4, "max_learners": 2, "hidden_layer_sizes": (8,), "max_iter": 6},
    ),
    "ElasticNetSubspaceClustering": _CLUSTERS._replace(iterates=True),
    "FeatureMimickingCompressor": Spec(
        {"predict": "same", "predict_proba": "same"},
        y="classes",
        iterates=True,
        converges=False,
        tol=False,
        wraps=_a_deep_network,
        quick={"linear_rank": 6, "max_iter": 3},
    ),
    "FrechetSDR": _FEATURES._replace(
        iterates=True, network=True, quick={"max_iter": 5, "n_estimators": 2, "hidden_layer_sizes": (8,)}
    ),
    "FunctionalMapAligner": Spec(
        {"transform": "linear", "predict": "same"}, quick={"n_components": 12, "n_neighbors": 8}
    ),
    "FunctionalTuckerRegressor": Spec(
        {"predict": "same"}, y="numbers", iterates=True, quick={"rank": 2, "core": "cp", "max_iter": 15}
    ),
    "GrassmannClassifier": _NETWORK._replace(
        laws={"transform": "same", "predict": "same", "predict_proba": "same", "decision_function": "same"},
        y="classes",
        converges=False,
        quick={"max_iter": 20},
        too_large={"subspace_dim": 99},
    ),
    "HeatGeodesicEmbedding": Spec({"transform": "same"}, score=False, iterates=True),
    "IntrinsicDimension": Spec(
        {"predict": "same", "predict_proba": "same"},
        y="classes",
        wraps=_fast_classifier,
        holds=("sklowrank.neural._random_subspace.RandomSubspace",),
        quick={"n_seeds": 1, "search": [20], "share": 1.0},
        too_large={"search": [10**6]},
    ),
    "KVCacheCompressor": Spec(
        {"predict": "same", "predict_proba": "same"},
        y="classes",
        wraps=_an_attentive_network,
        quick={"n_components": 6},
        too_large={"n_components": 9},
    ),
    "KSubspaces": Spec(
        {"transform": "linear", "predict": "same", "labels_": "same"}, min_features=2, batches=True, iterates=True
    ),
    "KernelFrechetSDR": _FEATURES,
    "LDUAdapter": Spec(
        {"predict": "same", "predict_proba": "same"},
        y="classes",
        iterates=True,
        converges=False,
        tol=False,
        wraps=_all_epochs,
        holds=("sklowrank._nets.recording.LayerReport",),
        quick={"max_iter": 5},
    ),
    "LatentSpectralRegressor": Spec(
        {"predict": "same"},
        y="numbers",
        iterates=True,
        converges=False,
        tol=False,
        network=True,
        quick={"width": 16, "n_basis": 3, "max_iter": 5, "loss": "mse", "learning_rate": 3e-3},
    ),
    "LeastSquaresSubspaceClustering": _CLUSTERS,
    "LatentQuantizationFilter": Spec(
        {"transform": "linear", "score_samples": "same"},
        iterates=True,
        converges=False,
        tol=False,
        network=True,
        quick={"hidden_layer_sizes": (8,), "max_iter": 4},
    ),
    "LearningRegime": Spec(
        {"predict": "same", "predict_proba": "same"},
        y="classes",
        wraps=_tiny_classifier,
        too_large={"layers": ["warp"]},
    ),
    "LieGroupConvClassifier": Spec(
        {"transform": "same", "predict": "same", "predict_proba": "same"},
        y="classes",
        iterates=True,
        converges=False,
        tol=False,
        network=True,
        quick={
            "n_channels": 8,
            "n_group_samples": 4,
            "n_test_samples": 1,
            "pad": 0,
            "learning_rate": 2e-2,
            "batch_size": 16,
            "max_iter": 10,
        },
        too_large={"kernel_size": 99},
    ),
    "LinearFrechetSDR": _FEATURES._replace(seed=False),
    "LokiClassifier": Spec(
        {"predict": "same", "predict_proba": "same", "decision_function": "same"},
        y="classes",
        batches=True,
        seed=False,
        wraps=_fast_classifier,
        too_large={"label_space": [5, 6]},
    ),
    "LowRankCompensator": Spec(
        {"predict": "same", "predict_proba": "same"},
        y="classes",
        wraps=_tiny_classifier,
        quick={"rank": 2},
    ),
    "LowRankGaussianMixture": Spec(
        {"transform": "linear", "predict": "same", "predict_proba": "same", "score_samples": "log", "labels_": "same"},
        min_features=2,
        batches=True,
        iterates=True,
        quick={"init": "kmeans", "n_init": 1},
    ),
    "LowRankCompressor": Spec(
        {"predict": "same", "predict_proba": "same"}, y="classes", wraps=_a_deep_network, quick={"rank": 6}
    ),
    "LowRankRepresentationClustering": _CLUSTERS,
    "ManifoldLinearizingClustering": Spec(
        {"transform": "same", "predict": "same", "predict_proba": "same", "labels_": "same"},
        batches=True,
        network=True,
        quick={"n_epochs": (3, 2), "hidden_layer_sizes": (16,)},
    ),
    "ManifoldVectorFieldRegressor": Spec(
        {"predict": "same"}, y="numbers", unlabelled=True, quick={"n_eigenpairs": 20, "ambient": None}
    ),
    "MatrixCompletionImputer": Spec({"transform": "linear"}, batches=True, iterates=True, quick=_FEW_SWEEPS),
    "MatrixFactorizationRegressor": Spec(
        {"predict": "same", "transform": "same"}, y="numbers", ids=True, batches=True, iterates=True, quick=_FEW_SWEEPS
    ),
    "MatryoshkaProjection": Spec(
        {"transform": "linear"}, y="numbers", iterates=True, quick={"max_iter": 20, "tol": 0.1}
    ),
    "MorphableMLPClassifier": _MORPHABLE._replace(laws={"predict": "same", "predict_proba": "same"}, y="classes"),
    "MorphableMLPRegressor": _MORPHABLE._replace(laws={"predict": "same"}, y="numbers"),
    "MultiparameterPersistence": Spec(
        {"transform": "same"}, score=False, seed=False, quick={"resolution": (3, 4), "max_points": 20}
    ),
    "NetworkClassifier": _NETWORK._replace(
        laws={"predict": "same", "predict_proba": "same"}, y="classes", quick=_TINY_NETWORK
    ),
    "NetworkRegressor": _NETWORK._replace(laws={"predict": "same"}, y="numbers", quick=_TINY_NETWORK),
    "OnlineEmbeddingClassifier": Spec(
        {"transform": "same", "predict": "same", "predict_proba": "same", "decision_function": "same"},
        y="classes",
        categories=True,
        batches=True,
        holds=_STREAM,
    ),
    "OnlineEmbeddingRegressor": Spec(
        {"transform": "same", "predict": "same"}, y="numbers", categories=True, batches=True, holds=_STREAM
    ),
    "OTAdaptationClassifier": _ADAPTATION._replace(
        laws={"predict": "same", "predict_proba": "same", "decision_function": "same"},
        y="classes",
        quick=_adapted(make_pipeline(StandardScaler(with_mean=False), LogisticRegression(solver="newton-cholesky"))),
    ),
    "OTAdaptationRegressor": _ADAPTATION._replace(
        laws={"predict": "same"}, y="numbers", quick=_adapted(KNeighborsRegressor(algorithm="brute"))
    ),
    "PersistenceSeparability": Spec({"score": "same"}),
    "PolynomialAttentionClassifier": _ATTENTION._replace(
        laws={"transform": "same", "predict": "same", "predict_proba": "same"}, y="classes"
    ),
    "PolynomialAttentionRegressor": _ATTENTION._replace(laws={"transform": "same", "predict": "same"}, y="numbers"),
    "PerturbedLatentDensity": Spec(
        {"transform": "same", "score_samples": "log"},
        iterates=True,
        converges=False,
        tol=False,
        network=True,
        quick={"perturbation": 0.1, "hidden_layer_sizes": (8,), "max_iter": 4, "n_importance": 2, "n_eval_samples": 20},
    ),
    "PrivateDistanceSum": Spec({"transform": "linear", "score_samples": "linear"}, score=False, batches=True),
    "PrivateKernelDensity": Spec({"score_samples": "log"}, batches=True, in_units=_bandwidth_in_units),
    "PrivateSimilarityClassifier": Spec(
        {"predict": "same", "predict_proba": "same", "decision_function": "same"},
        y="classes",
        batches=True,
        in_units=_bandwidth_in_units,
    ),
    "RelativeRepresentation": Spec({"transform": "same"}, score=False, quick={"n_anchors": 20}),
    "SecondOrderPruner": Spec(
        {"predict": "same", "predict_proba": "same"},
        y="classes",
        wraps=_a_network,
        quick={"sparsity": 0.5, "n_grads": 30, "n_recompute": 4},
    ),
    "SinkhornTransport": Spec({"transform": "linear"}, score=False, iterates=True),
    "SparseSubspaceClustering": _CLUSTERS._replace(iterates=True),
    "SparseSubspaceClusteringOMP": _CLUSTERS,
    "StitchedClassifier": Spec(
        {"predict": "same", "predict_proba": "same", "decision_function": "same"},
        y="classes",
        seed=False,
        holds=("sklowrank.metric_learning._relative_representation.RelativeRepresentation",),
        quick={"representation": RelativeRepresentation(20, random_state=0)},
        too_large={"representation__device": "warp"},
    ),
    "SupervisedDictionaryLearning": Spec(
        {"transform": "linear", "predict": "same", "predict_proba": "same", "decision_function": "same"},
        y="classes",
        iterates=True,
        in_units=_penalty_in_units,
    ),
    "SupervisedDictionaryRegressor": Spec(
        {"transform": "linear", "predict": "same"}, y="numbers", iterates=True, in_units=_penalty_in_units
    ),
    "ThresholdedSubspaceClustering": _CLUSTERS,
    "TuckerAdapter": Spec(
        {"predict": "same", "predict_proba": "same"},
        y="classes",
        iterates=True,
        converges=False,
        tol=False,
        wraps=_all_epochs,
        holds=("sklowrank._nets.recording.LayerReport",),
        quick={"rank": 2, "max_iter": 5},
    ),
}


def spec_of(estimator) -> Spec:
    """Return the row of an estimator, or of its class."""
    cls = estimator if isinstance(estimator, type) else type(estimator)
    if cls.__name__ not in ESTIMATORS:
        raise LookupError(
            f"{cls.__name__} has no row in tests/estimators.py: say its laws of scale and its data there."
        )
    return ESTIMATORS[cls.__name__]
