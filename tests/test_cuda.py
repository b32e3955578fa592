"""What a GPU owes its user: the answers of the CPU, also when it is small, and models that do without it later."""

import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone

from sklowrank.cluster import KSubspaces
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.decomposition import SupervisedDictionaryLearning
from sklowrank.mixture import LowRankGaussianMixture
from sklowrank.privacy import PrivateKernelDensity
from tests.common import answers, fit, moved_to, new_data, on_device, public_estimators, seeded, small_data
from tests.estimators import spec_of

pytestmark = pytest.mark.cuda
each = pytest.mark.parametrize("estimator", public_estimators(), ids=lambda e: type(e).__name__)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each
def test_answers_are_those_of_the_cpu(estimator, dtype):
    """The same seed on both. Sums in another order differ by rounding; fits magnify it by at most these bounds."""
    X, y = small_data(estimator, dtype)
    here = answers(fit(seeded(estimator, **on_device(estimator, "cpu")), X, y), new_data(estimator, X))
    there = fit(seeded(estimator, **on_device(estimator, "cuda")), X, y)
    moved = moved_to("cpu", pickle.loads(pickle.dumps(there)))
    for model in (there, moved):
        for name, answer in answers(model, new_data(estimator, X)).items():
            rough = dtype is np.float32 or spec_of(estimator).network  # networks compute in float32, whatever X is
            bound = (0.02 if rough else 1e-5) * np.abs(here[name]).max()
            assert np.abs(answer - here[name]).max() <= bound, name


READ = """
import pickle, sys
import numpy as np
import torch
assert not torch.cuda.is_available()
from tests.common import answers, moved_to
for model, X in pickle.load(open(sys.argv[1], "rb")):
    np.savez(sys.argv[2] + type(model).__name__, **answers(moved_to("auto", model), X))
"""


def test_models_fitted_on_a_gpu_do_without_it(tmp_path):
    """In a process that sees no CUDA device."""
    fitted = []
    for estimator in public_estimators():
        X, y = small_data(estimator)
        fitted.append((fit(seeded(estimator, **on_device(estimator, "cuda")), X, y), new_data(estimator, X)))
    (tmp_path / "models.pickle").write_bytes(pickle.dumps(fitted))
    command = [sys.executable, "-c", READ, str(tmp_path / "models.pickle"), f"{tmp_path}/"]
    without = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=without, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    for model, X in fitted:
        there = np.load(tmp_path / f"{type(model).__name__}.npz", allow_pickle=True)
        for name, answer in answers(model, X).items():
            if answer.dtype.kind == "f":
                bound = (0.02 if hasattr(model, "module") else 1e-5) * np.abs(answer).max()
                assert np.abs(there[name] - answer).max() <= bound, name


STREAMING = [
    LowRankGaussianMixture(3, n_dims=2, init="tsc", random_state=0),
    KSubspaces(3, n_dims=2, random_state=0),
    SupervisedDictionaryLearning(2, random_state=0),
    PrivateKernelDensity(bandwidth=3.0, n_components=1024, bounds=(-20, 20), random_state=0),
]


@pytest.mark.parametrize("estimator", STREAMING, ids=lambda e: type(e).__name__)
def test_a_small_gpu_gives_the_same_answer_in_smaller_blocks(estimator, monkeypatch):
    """The process may use 400 MB of the device, and asks for blocks of all rows."""
    from sklowrank._core import rows

    shape = {"n_features": 64, "n_clusters": 3, "n_dims": 2}
    X, y, _ = make_union_of_subspaces(200_000, noise=0.1, affine=True, random_state=0, **shape)
    y = (y > 0).astype(int)
    expected = quietly(clone(estimator).set_params(device="cuda"), X, y)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    monkeypatch.setattr(rows, "rows_per_block", lambda batch_size, n, size: n)
    halved = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: halved.append(True))
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 4e8) / total)
    try:
        model = quietly(clone(estimator).set_params(device="cuda"), X, y)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert halved
    for name, answer in answers(expected, X[:1000]).items():
        there = answers(model, X[:1000])[name]
        if answer.dtype.kind == "f":
            assert np.abs(there - answer).max() <= 1e-6 * np.abs(answer).max(), name


def quietly(model, X, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a seed that breaks a guarantee
        return model.fit(X, y)
