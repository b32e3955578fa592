"""Tensors in, tensors out: computed where they lie, alone and behind scikit-learn's own transformers."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.cluster import KSubspaces, ManifoldLinearizingClustering
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.decomposition import SupervisedDictionaryLearning, SupervisedDictionaryRegressor
from sklowrank.dimension_reduction import FrechetSDR, LinearFrechetSDR
from sklowrank.impute import MatrixCompletionImputer
from sklowrank.mixture import LowRankGaussianMixture
from tests.common import answers, methods_of, new_data, public_estimators, seeded, small_data
from tests.estimators import spec_of

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
on_each_device = pytest.mark.parametrize("device", DEVICES)
TENSORS = [e for e in public_estimators() if e.__sklearn_tags__().array_api_support]


def on(device, array):
    return None if array is None else torch.from_numpy(array).to(device)


def fit_quietly(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X) if y is None else model.fit(X, y)


def test_every_dense_estimator_takes_tensors():
    """But for those that take identifiers, which may be text, or whose rows are for any estimator or module."""
    without = {type(e).__name__ for e in public_estimators()} - {type(e).__name__ for e in TENSORS}
    networks = {"FeatureMimickingCompressor", "KVCacheCompressor", "LowRankCompensator", "LowRankCompressor"}
    networks |= {"SecondOrderPruner", "LDUAdapter", "TuckerAdapter"}
    streams = {"OnlineEmbeddingClassifier", "OnlineEmbeddingRegressor"}
    others = {"MatrixFactorizationRegressor", "OTAdaptationClassifier", "OTAdaptationRegressor"}
    assert without == networks | streams | others


@on_each_device
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("estimator", TENSORS, ids=lambda e: type(e).__name__)
def test_tensors_are_answered_in_kind(estimator, dtype, device):
    X, y = small_data(estimator, dtype)
    new = new_data(estimator, X)
    expected = answers(fit_quietly(seeded(estimator), X, y), new)
    with config_context(array_api_dispatch=True):
        tensor = on(device, X)
        model = fit_quietly(seeded(estimator), tensor, on(device, y))
        found = {name: getattr(model, name)(on(device, new)) for name in methods_of(estimator)}
        if "labels_" in spec_of(estimator).laws:
            found["labels_"] = model.labels_
    assert found.keys() == expected.keys()
    rough = dtype is np.float32 or spec_of(estimator).network  # networks compute in float32, whatever X is
    for name, answer in found.items():
        if name == "score":
            assert answer == pytest.approx(float(expected[name]), rel=0.02 if rough else 1e-5)
            continue
        assert isinstance(answer, torch.Tensor), name
        assert answer.device == tensor.device, name
        if expected[name].dtype.kind == "f":
            assert answer.dtype == tensor.dtype, name
            # on one device the same sums; on another one sums in another order, magnified by what fits magnify
            bound = (0.02 if rough else 1e-5) if device == "cuda" else 1e-6
            difference = np.abs(answer.cpu().numpy() - expected[name]).max()
            assert difference <= bound * np.abs(expected[name]).max(), name
        elif device == "cpu":
            assert np.array_equal(answer.numpy(), expected[name]), name


# Pipelines

N = 6500  # more rows than those from which clusterings start
PIPED = [
    KSubspaces(3, n_dims=2, random_state=0),
    LowRankGaussianMixture(3, n_dims=2, init="tsc", random_state=0),
    SupervisedDictionaryLearning(2, random_state=0),
    SupervisedDictionaryRegressor(2, random_state=0),
    LinearFrechetSDR(2, method="fccov", n_landmarks=8),
    FrechetSDR(2, max_iter=2, n_estimators=1, random_state=0),
    ManifoldLinearizingClustering(3, n_epochs=(1, 1), random_state=0),
    MatrixCompletionImputer(2, max_iter=5, random_state=0),
]


class HostCopies(torch.utils._python_dispatch.TorchDispatchMode):
    """Keeps the shapes of all tensors that are copied from a GPU to the CPU."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        if operation.overloadpacket is torch.ops.aten._to_copy and args[0].is_cuda and not found.is_cuda:
            self.shapes.append(tuple(found.shape))
        return found


@on_each_device
@pytest.mark.parametrize("estimator", PIPED, ids=lambda e: type(e).__name__)
def test_a_pipeline_runs_on_one_tensor(estimator, device, monkeypatch):
    """Scaled, rotated and fitted where it lies. No table of all rows becomes an array of numpy or leaves the GPU."""
    shape = {"n_features": 10, "n_dims": 2, "n_clusters": 3}
    X, _, _ = make_union_of_subspaces(N, affine=True, noise=0.1, random_state=0, **shape)
    y = (X[:, 0] > 0).astype(np.int64) if is_classifier(estimator) else X[:, 0] + X[:, 1]
    tables, numpy = [], torch.Tensor.numpy

    def watched(self, *args, **options):
        tables.append(tuple(self.shape))
        return numpy(self, *args, **options)

    before = StandardScaler(), PCA(6, svd_solver="covariance_eigh")
    pipe = make_pipeline(*before, clone(estimator))
    with config_context(array_api_dispatch=True), HostCopies() as copies:
        monkeypatch.setattr(torch.Tensor, "numpy", watched)
        fit_quietly(pipe, on(device, X), on(device, y))
        answer = (pipe.predict if hasattr(estimator, "predict") else pipe.transform)(on(device, X))
        monkeypatch.undo()
    assert answer.device.type == device
    assert not [shape for shape in tables + copies.shapes if shape[:1] == (N,) and np.prod(shape[1:]) > 5]
    expected = fit_quietly(
        make_pipeline(StandardScaler(), PCA(6, svd_solver="covariance_eigh"), clone(estimator)), X, y
    )
    expected = (expected.predict if hasattr(estimator, "predict") else expected.transform)(X)
    if device == "cpu" and answer.is_floating_point():
        assert np.abs(answer.numpy() - expected).max() <= 1e-4 * np.abs(expected).max()
