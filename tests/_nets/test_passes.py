"""Rows of networks that are not in memory: what is seen of them is what is seen of an array."""

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn

from sklowrank._nets import passes
from sklowrank._nets.calls import Calls, outputs_of
from sklowrank._nets.holding import hold
from sklowrank._nets.passes import CallsOfRows, calls_of, rows_at
from sklowrank._nets.randomness import fixed_randomness
from sklowrank._nets.recording import input_rows, moments
from sklowrank.compress import LowRankCompressor
from sklowrank.neural import NetworkClassifier

CPU = torch.device("cpu")


@pytest.fixture(params=["float", "integer"])
def file(request, tmp_path):
    X = np.random.default_rng(0).normal(size=(300, 6)) * 3
    np.save(tmp_path / "rows.npy", X.astype(np.int16 if request.param == "integer" else np.float64))
    return np.load(tmp_path / "rows.npy", mmap_mode="r")


@pytest.fixture
def held():
    X = np.random.default_rng(1).normal(size=(60, 6))
    network = NetworkClassifier((8, 8), max_iter=1, tol=0, random_state=0).fit(X, X[:, 0] > 0)
    return hold(FrozenEstimator(network), None, None, fixed_randomness())


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(passes, "rows_per_block", lambda batch_size, n, size: min(n, 70))


def test_passes_of_a_file_are_those_of_its_rows(file, held):
    here, there = calls_of(held, np.array(file)), calls_of(held, file)
    assert isinstance(here, Calls)
    assert isinstance(there, CallsOfRows)
    assert here.n_rows == there.n_rows == 300
    torch.testing.assert_close(outputs_of(held.module, there, 32), outputs_of(held.module, here, 32))
    layers = [name for name, layer in held.module.named_modules() if isinstance(layer, nn.Linear)]
    one, other = (moments(held.module, calls, layers, input_rows, 32) for calls in (here, there))
    for name in layers:
        assert one[name].n_rows == other[name].n_rows
        torch.testing.assert_close(one[name].scatter, other[name].scatter)


def test_batches_are_no_larger_than_asked_for_and_have_all_rows(file, held):
    sizes = [len(args[0]) for args, _ in CallsOfRows(file, passes.stored_held(held)).batches(32, CPU)]
    assert max(sizes) == 32
    assert sum(sizes) == 300


def test_rows_are_taken_by_their_positions(file, held):
    at = torch.tensor([7, 3, 250, 4])
    here, there = (calls_of(held, X).taken(at).arguments[0][0][0] for X in (np.array(file), file))
    torch.testing.assert_close(here, there)
    assert np.array_equal(rows_at(file, np.array([3, 4, 5])), file[3:6])
    for positions in ([5, 3, 4], [3, 5, 4, 6], [3, 5, 5], [9]):
        assert np.array_equal(rows_at(file, np.array(positions)), file[positions])
    assert not isinstance(rows_at(file, np.array([3, 4])), np.memmap)


def test_integers_of_a_file_are_looked_up(tmp_path):
    ids = np.random.default_rng(0).integers(0, 20, (200, 3))
    np.save(tmp_path / "ids.npy", ids)
    network = nn.Sequential(nn.Embedding(20, 12), nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 2))
    model = LowRankCompressor(network, compression=0.8, n_calibration=None)
    small = model.fit(np.load(tmp_path / "ids.npy", mmap_mode="r")).predict_raw(ids)
    np.testing.assert_allclose(small, model.fit(ids).predict_raw(ids), atol=1e-5)


def test_outputs_may_be_more_or_less_than_rows():
    X = torch.arange(12.0)[:, None]
    calls = Calls([((X,), {})])
    for rows_of_five in ((2, 1, 1), (1, 3, 2), (3, 3, 3)):
        shares = iter(rows_of_five)

        class Several(nn.Module):
            def forward(self, x, shares=shares):
                return x.repeat(next(shares), 1)

        found = outputs_of(Several(), calls, 5)
        parts = [part.repeat(k, 1) for part, k in zip(X.split(5), rows_of_five)]
        torch.testing.assert_close(found, torch.cat(parts))
        assert not found.is_inference()
