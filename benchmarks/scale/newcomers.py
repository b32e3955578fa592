"""The estimators whose curves came later, by family: what they are fitted to, and what differs from their defaults."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from sklearn.frozen import FrozenEstimator

from benchmarks.scale.attentive import Attentive
from benchmarks.scale.data import COLUMNS, data_of

FAMILIES = ("networks", "deep methods", "changed networks", "shapes", "domains and labels", "streams and tensors")
NETWORKS, DEEP, CHANGED, SHAPES, DOMAINS, STREAMS = FAMILIES
STREAMED = (  # files are read in blocks
    "LowRankCompressor",
    "LowRankCompensator",
    "FeatureMimickingCompressor",
    "KVCacheCompressor",
    "MatryoshkaProjection",
    "RelativeRepresentation",
)
UNMEASURED: dict[str, str] = {}  # estimators without a curve, with the reason
SEED = {"random_state": 0}
EPOCHS = {"max_iter": 3}
WHOLE = {**EPOCHS, "tol": 0}  # no epoch is left out


class Newcomer(NamedTuple):
    """An estimator and how its curve is measured."""

    make: Callable[[], Any]
    kind: str  # of the data: see :func:`given`
    family: str
    said: str = ""  # what differs from the defaults
    grows: float = 1.0  # power of the rows that the time is expected to grow with, before it is known
    linear: bool = False  # whether that is claimed


def newcomers() -> dict[str, Newcomer]:
    """Return the estimators by their names."""
    from sklowrank import (
        adapt,
        compress,
        decomposition,
        inspection,
        manifold,
        metric_learning,
        multiclass,
        neural,
        recommend,
        tensor,
        topology,
        transport,
    )

    epochs = f"{EPOCHS['max_iter']} epochs"
    every_row = {"n_calibration": None}
    changed = partial(Newcomer, family=CHANGED, linear=True)

    def trained(cls, kind="classes", **settings):
        return Newcomer(partial(cls, **settings, **WHOLE, **SEED), kind, NETWORKS, epochs, linear=True)

    def deep(cls, kind, said=epochs, **settings):
        return Newcomer(partial(cls, **settings, **EPOCHS, **SEED), kind, DEEP, said, linear=True)

    def by_rule(rule, **settings):
        return trained(neural.NetworkClassifier, training=rule(**settings))

    return {
        "NetworkClassifier": trained(neural.NetworkClassifier),
        "NetworkRegressor": trained(neural.NetworkRegressor, "numbers"),
        "NetworkClassifier, OrderedRank": by_rule(neural.OrderedRank),
        "NetworkClassifier, TrainedRankPruning": by_rule(neural.TrainedRankPruning),
        "NetworkClassifier, SparseSpectralTraining": by_rule(neural.SparseSpectralTraining),
        "NetworkClassifier, RandomSubspace": by_rule(neural.RandomSubspace),
        "NetworkClassifier, SharpnessAware": by_rule(neural.SharpnessAware),
        "GrassmannClassifier": trained(neural.GrassmannClassifier),
        "DynamicSubspaceMetricLearner": Newcomer(
            partial(metric_learning.DynamicSubspaceMetricLearner, **EPOCHS, **SEED), "classes", NETWORKS, epochs
        ),
        "PerturbedLatentDensity": deep(neural.PerturbedLatentDensity, "X"),
        "LatentQuantizationFilter": deep(neural.LatentQuantizationFilter, "X"),
        "LatentSpectralRegressor": deep(
            neural.LatentSpectralRegressor, "fields", f"grids of 7 x 7, {epochs}", grid_shape=(7, 7)
        ),
        "MorphableMLPClassifier": deep(neural.MorphableMLPClassifier, "classes"),
        "MorphableMLPRegressor": deep(neural.MorphableMLPRegressor, "numbers"),
        "LieGroupConvClassifier": deep(
            neural.LieGroupConvClassifier, "images", f"images of 7 x 7, {epochs}", image_shape=(7, 7)
        ),
        "PolynomialAttentionClassifier": deep(neural.PolynomialAttentionClassifier, "classes", "3 iterations"),
        "PolynomialAttentionRegressor": deep(neural.PolynomialAttentionRegressor, "numbers", "3 iterations"),
        "LowRankCompressor": changed(
            lambda: compress.LowRankCompressor(network(), **every_row), "X", said="n_calibration=None"
        ),
        "LowRankCompensator": changed(
            lambda: compress.LowRankCompensator(network(), **every_row), "X", said="n_calibration=None"
        ),
        "FeatureMimickingCompressor": changed(
            lambda: compress.FeatureMimickingCompressor(network(), **SEED), "X", said="without y"
        ),
        "KVCacheCompressor": changed(
            lambda: compress.KVCacheCompressor(attentive_network(), **every_row), "X", said="n_calibration=None"
        ),
        "SecondOrderPruner": changed(
            lambda: compress.SecondOrderPruner(network(16), n_grads=64, **SEED), "classes", said="64 gradients"
        ),
        "TuckerAdapter": changed(lambda: adapt.TuckerAdapter(network(), **EPOCHS, **SEED), "classes", said=epochs),
        "LDUAdapter": changed(lambda: adapt.LDUAdapter(network(), **EPOCHS, **SEED), "classes", said=epochs),
        "IntrinsicDimension": changed(
            lambda: inspection.IntrinsicDimension(unfitted(), search=[50, 200], n_seeds=1, **SEED),
            "classes",
            said=f"{epochs}, two dimensions",
        ),
        "LearningRegime": changed(lambda: inspection.LearningRegime(unfitted(), **SEED), "classes", said=epochs),
        "MatryoshkaProjection": changed(decomposition.MatryoshkaProjection, "X"),
        "MatryoshkaProjection, of classes": changed(
            partial(decomposition.MatryoshkaProjection, **SEED), "classes", linear=False
        ),
        "HeatGeodesicEmbedding": Newcomer(partial(manifold.HeatGeodesicEmbedding, **SEED), "X", SHAPES, grows=2),
        "FunctionalMapAligner": Newcomer(
            partial(manifold.FunctionalMapAligner, **SEED), "surfaces", SHAPES, "points of two surfaces", grows=1.5
        ),
        "ManifoldVectorFieldRegressor": Newcomer(
            partial(manifold.ManifoldVectorFieldRegressor, **SEED), "few numbers", SHAPES, "400 labels", grows=1.5
        ),
        "PersistenceSeparability": Newcomer(
            partial(topology.PersistenceSeparability, **SEED), "classes", SHAPES, "4,000 drawn rows"
        ),
        "MultiparameterPersistence": Newcomer(
            topology.MultiparameterPersistence, "clouds", SHAPES, "a row is a cloud of 20 points", linear=True
        ),
        "SinkhornTransport": Newcomer(
            partial(transport.SinkhornTransport, **SEED), "domains", DOMAINS, "as many rows of the target", grows=2
        ),
        "OTAdaptationClassifier": Newcomer(
            transport.OTAdaptationClassifier, "labelled domains", DOMAINS, "as many rows of the target", grows=2
        ),
        "OTAdaptationRegressor": Newcomer(
            transport.OTAdaptationRegressor, "valued domains", DOMAINS, "as many rows of the target", grows=2
        ),
        "RelativeRepresentation": Newcomer(partial(metric_learning.RelativeRepresentation, **SEED), "X", DOMAINS),
        "StitchedClassifier": Newcomer(metric_learning.StitchedClassifier, "classes", DOMAINS),
        "LokiClassifier": Newcomer(multiclass.LokiClassifier, "classes", DOMAINS),
        "OnlineEmbeddingClassifier": Newcomer(
            partial(recommend.OnlineEmbeddingClassifier, max_iter=1, **SEED),
            "identifiers",
            STREAMS,
            "two identifiers, one pass",
            linear=True,
        ),
        "OnlineEmbeddingRegressor": Newcomer(
            partial(recommend.OnlineEmbeddingRegressor, max_iter=1, **SEED),
            "valued identifiers",
            STREAMS,
            "two identifiers, one pass",
            linear=True,
        ),
        "FunctionalTuckerRegressor": Newcomer(
            partial(tensor.FunctionalTuckerRegressor, max_iter=5, **SEED),
            "coordinates of 200 values",
            STREAMS,
            "three coordinates of 200 values, five sweeps",
            linear=True,
        ),
        "FunctionalTuckerRegressor, distinct": Newcomer(
            partial(tensor.FunctionalTuckerRegressor, max_iter=5, **SEED),
            "coordinates",
            STREAMS,
            "three coordinates, no two alike, five sweeps",
        ),
    }


# Networks that are changed: fitted to a thousand rows


@cache
def network(width=128):
    """A classifier of four classes with two hidden layers."""
    X, y = data_of("classes", 1000)
    return FrozenEstimator(unfitted(width).fit(X, y))


def unfitted(width=128):
    """The same, to be fitted."""
    from sklowrank.neural import NetworkClassifier

    return NetworkClassifier((width, width), **WHOLE, **SEED)


@cache
def attentive_network():
    """A classifier to which each column is a token."""
    from sklowrank.neural import NetworkClassifier

    X, y = data_of("classes", 1000)
    return FrozenEstimator(NetworkClassifier(module=Attentive, **WHOLE, **SEED).fit(X, y))


# What they are fitted to


def given(kind: str, n: int) -> dict[str, Any]:
    """Return what `fit` is given for n rows, by its parameters."""
    if kind in ("X", "classes", "numbers"):
        return named(*data_of(kind, n))
    if kind in ("images", "fields"):
        X, y = data_of("classes", n)
        X = np.array(X[:, :49])
        return named(X, y if kind == "images" else np.roll(X, 1, axis=1))
    rng = np.random.default_rng(3)
    if kind == "few numbers":
        X, y = data_of("numbers", n)
        y[rng.permutation(n)[400:]] = np.nan
        return named(X, y)
    if kind.endswith("domains"):
        X, y = data_of({"labelled domains": "classes", "valued domains": "numbers"}.get(kind, "X"), n)
        return {**named(X, y), "X_target": np.array(X) @ rotation(rng) + 1}
    if kind == "surfaces":
        points = rng.normal(size=(n, 3)).astype(np.float32)
        points *= [1.0, 1.4, 2.0] / np.linalg.norm(points, axis=1, keepdims=True)
        return {"X": points, "X_target": points[::-1] + 0.1 * np.sin(3 * points[::-1])}
    if kind == "clouds":
        return {"X": rng.normal(size=(n, 20, 2))}
    if kind.startswith("coordinates"):
        X = rng.random((n, 3)) if kind == "coordinates" else rng.integers(0, 200, (n, 3)) / 200
        return named(X, np.sin(6 * X[:, 0]) * X[:, 1] + X[:, 2] ** 2 + 0.1 * rng.normal(size=n))
    X = np.column_stack([rng.integers(0, max(10, n // 10), n), rng.integers(0, 1000, n)])  # identifiers
    score = rng.normal(size=len(X))[X[:, 0]] + rng.normal(size=1000)[X[:, 1]]
    return named(X, score if kind == "valued identifiers" else (score > 0).astype(int))


def named(X, y=None):
    """Return X and y by their names, y where there is one."""
    return {"X": X} if y is None else {"X": X, "y": y}


def rotation(rng):
    """Return a rotation of all columns."""
    return np.linalg.qr(rng.normal(size=(COLUMNS, COLUMNS)))[0].astype(np.float32)
