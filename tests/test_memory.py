"""Rows beyond memory: files, slices, devices that run out. The answers are those of arrays."""

import subprocess
import sys
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from sklowrank._core import rows
from sklowrank._nets import passes
from sklowrank._nets.wrapping import CalibratedNetwork
from sklowrank.cluster import KSubspaces, _k_subspaces_starts
from sklowrank.compress import FeatureMimickingCompressor, KVCacheCompressor, LowRankCompensator, LowRankCompressor
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.decomposition import MatryoshkaProjection, SupervisedDictionaryLearning, SupervisedDictionaryRegressor
from sklowrank.dimension_reduction import LinearFrechetSDR
from sklowrank.metric_learning import RelativeRepresentation
from sklowrank.mixture import LowRankGaussianMixture, _problem
from sklowrank.neural import NetworkClassifier
from sklowrank.privacy import PrivateDistanceSum, PrivateKernelDensity, PrivateSimilarityClassifier
from tests.common import answers
from tests.estimators import AttentiveNet

SEED = {"random_state": 0}
PRIVATE = {"random_state": 0, "bounds": (-100, 100)}
BY_SUMS = [
    LowRankGaussianMixture(3, n_dims=2, **SEED),
    KSubspaces(3, n_dims=2, **SEED),
    PrivateKernelDensity(bandwidth=30.0, n_components=32, **PRIVATE),
    PrivateDistanceSum(**PRIVATE),
    PrivateSimilarityClassifier(similarity="linear", **PRIVATE),
    LinearFrechetSDR(2, method="fccov", n_landmarks=16),
    SupervisedDictionaryLearning(2, **SEED),
    SupervisedDictionaryRegressor(2, **SEED),
    MatryoshkaProjection(objective="reconstruction"),
]
OF_NETWORKS = [  # which `fitted` gives them
    LowRankCompressor(None, n_calibration=None),
    LowRankCompensator(None, rank=2, n_calibration=None),
    FeatureMimickingCompressor(None, max_iter=0),
]
OF_ANCHORS = [RelativeRepresentation(20, **SEED)]
OF_TOKENS = [KVCacheCompressor(None, n_components=4, n_calibration=None)]
MEASURED = BY_SUMS + OF_NETWORKS + OF_ANCHORS
pytestmark = pytest.mark.slow


def each(estimators):
    return pytest.mark.parametrize("estimator", estimators, ids=lambda e: type(e).__name__)


@cache
def network(n_features, attentive=False):
    """A network of two classes that has seen few rows."""
    X = np.random.default_rng(0).normal(size=(200, n_features))
    settings = {"module": AttentiveNet} if attentive else {"hidden_layer_sizes": (32, 32)}
    return FrozenEstimator(NetworkClassifier(max_iter=3, tol=0, **settings, **SEED).fit(X, X[:, 0] > 0))


class Slices:
    """What data sets of HDF5 or Zarr are to a reader: shape, type and slices, and no array as a whole."""

    def __init__(self, array):
        self._array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __getitem__(self, at):
        part = self._array[at]
        self.most = max(self.most, len(part))
        return np.array(part)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 97 rows, and clusterings that start from 300 rows instead of 5000."""
    for module in (rows, passes):
        monkeypatch.setattr(module, "rows_per_block", lambda batch_size, n, size: min(n, 97))
    for module in (_problem, _k_subspaces_starts):
        monkeypatch.setattr(module, "MOST_ROWS", 300)


@pytest.fixture(scope="module")
def whole_numbers():
    X, y, _ = make_union_of_subspaces(900, n_features=8, n_clusters=3, n_dims=2, noise=0.1, affine=True, random_state=0)
    return (20 * X).round().clip(-100, 100), (y > 0).astype(int)


def fitted(estimator, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of seeds that break a guarantee
        return of_width(estimator, X.shape[1]).fit(X, y)


def of_width(estimator, n_features):
    """Return a clone, with a network for so many columns where it takes one."""
    estimator = clone(estimator)
    if isinstance(estimator, CalibratedNetwork):
        estimator.set_params(estimator=network(n_features, isinstance(estimator, KVCacheCompressor)))
    return estimator


def assert_same_answers(estimator, one, other, X):
    agree = 1e-5 if isinstance(estimator, CalibratedNetwork) else 1e-8  # networks compute in float32
    one, other = answers(one, X), answers(other, X)
    for name, answer in one.items():
        if answer.dtype.kind == "f":
            np.testing.assert_allclose(other[name], answer, atol=agree * np.abs(answer).max(), err_msg=name)
        else:
            assert np.array_equal(other[name], answer), name


@each(BY_SUMS + OF_NETWORKS + OF_ANCHORS + OF_TOKENS)
@pytest.mark.parametrize("kind", ["float file", "integer file", "slices", "slices of integers", "reversed"])
def test_what_slices_is_fitted_in_blocks(estimator, kind, whole_numbers, tmp_path):
    X, y = whole_numbers
    expected = fitted(estimator, X, y)
    if kind.endswith("file"):
        path = tmp_path / "rows.npy"
        np.save(path, X if kind == "float file" else X.astype(np.int16))
        there = np.load(path, mmap_mode="r")
    elif kind == "reversed":
        there = np.ascontiguousarray(X[::-1])[::-1]
    else:
        there = Slices(X if kind == "slices" else X.astype(np.int16))
    model = fitted(estimator, there, y)
    assert_same_answers(estimator, expected, model, X)
    if isinstance(there, Slices):
        assert there.most <= 300  # the rows that a clustering starts from


def test_solvers_that_keep_all_rows_take_slices_too(whole_numbers):
    X, y = whole_numbers
    X = X - X.min()
    for solver in ({"solver": "bcd"}, {"nonnegative": True, "max_iter": 20}):
        estimator = SupervisedDictionaryLearning(2, **solver, **SEED)
        expected = fitted(estimator, X, y)
        assert_same_answers(estimator, expected, fitted(estimator, Slices(X), y), X)
    with pytest.raises(ValueError, match="without negative entries"):
        fitted(SupervisedDictionaryLearning(2, nonnegative=True), Slices(X - 1), y)


@each(BY_SUMS + OF_NETWORKS)
def test_slices_with_gaps_are_refused(estimator, whole_numbers):
    """But for rows that are never read, as are those that are no anchors."""
    X, y = whole_numbers
    X = X.copy()
    X[600, 3] = np.nan
    with pytest.raises(ValueError, match="contains NaN"):
        fitted(estimator, Slices(X), y)


@each(BY_SUMS)
def test_running_out_of_memory_halves_the_block(estimator, whole_numbers, monkeypatch):
    X, y = whole_numbers
    monkeypatch.setattr(rows, "rows_per_block", lambda batch_size, n, size: n)
    expected = fitted(estimator, X, y)
    take, refused = rows.Rows.take, []

    def narrow(self, at):
        part = take(self, at)
        if isinstance(at, slice) and at.stop is not None and part.shape[0] > 200:
            refused.append(part.shape[0])
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return part

    monkeypatch.setattr(rows.Rows, "take", narrow)
    model = fitted(estimator, X, y)
    assert max(refused) == len(X)
    monkeypatch.undo()
    assert_same_answers(estimator, expected, model, X)


MEASURE = """
import sys, threading, time, warnings
import numpy as np
from sklowrank._core import blocks
from sklowrank.decomposition._sdl import problem
from sklowrank.cluster import _k_subspaces_starts
from sklowrank.mixture import _problem
from tests.test_memory import MEASURED, of_width

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.01)

warnings.simplefilter("ignore")
problem._COPIED_BYTES, blocks._AUTO_BYTES = 0, 1 << 21  # no copies, and blocks of 2 MB
_problem.MOST_ROWS = _k_subspaces_starts.MOST_ROWS = 300
X, y = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2])
peak = [0.0]
threading.Thread(target=watch, daemon=True).start()
for estimator in MEASURED:
    peaks, estimator = [], of_width(estimator, X.shape[1])
    for n in (1000, len(X)):  # the first has all that does not depend on the number of rows
        peak[0] = anonymous()
        estimator.fit(X[:n], y[:n])
        peaks.append(peak[0])
    print(type(estimator).__name__, round(peaks[1] - peaks[0]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is read from Linux's /proc")
def test_a_file_is_not_read_into_memory(tmp_path):
    """A fit takes little more memory than one of 1000 rows; what is mapped is not the process's own."""
    rng = np.random.default_rng(0)
    X = np.lib.format.open_memmap(tmp_path / "X.npy", mode="w+", dtype=np.float32, shape=(250_000, 64))
    y = rng.integers(0, 3, len(X))
    B = rng.normal(size=(3, 2, 64))
    for start in range(0, len(X), 50_000):
        Z = rng.normal(size=(50_000, 1, 2)) @ B[y[start : start + 50_000]]
        X[start : start + 50_000] = 10 * y[start : start + 50_000, None] + Z[:, 0] + rng.normal(size=(50_000, 64))
    X.flush()
    np.save(tmp_path / "y.npy", (y > 0).astype(int))
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "X.npy"), str(tmp_path / "y.npy")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    added = {line.split()[0]: int(line.split()[1]) for line in result.stdout.splitlines()}
    assert len(added) == len(MEASURED)
    assert max(added.values()) < 32, added  # the file is 64 MB
