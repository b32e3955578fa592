"""Arrays go in and come out as they should, and seeds mean the same everywhere."""

import array_api_strict
import numpy as np
import pytest
import torch
from sklearn import config_context

from sklowrank._core.rows import row_weights, rows_of
from sklowrank._core.workspace import open_workspace


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_round_trip_keeps_type_and_owns_its_memory(dtype):
    X = np.arange(6, dtype=dtype).reshape(2, 3)
    ws = open_workspace(X)
    tensor = ws.load(X)
    assert tensor.dtype == ws.dtype == torch.from_numpy(X).dtype
    back = ws.store(tensor)
    assert back.dtype == dtype
    assert np.array_equal(back, X)
    assert not np.shares_memory(back, X)


def test_load_converts_floats_and_leaves_integers_and_flags():
    ws = open_workspace(np.zeros(2, dtype=np.float32))
    assert ws.load(np.zeros(2)).dtype == torch.float32
    assert ws.load(np.arange(2)).dtype == torch.int64
    assert ws.load(np.array([True])).dtype == torch.bool


def test_read_only_and_fortran_arrays_load(recwarn):
    X = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    X.flags.writeable = False
    assert np.array_equal(open_workspace(X).load(X).numpy(), X)
    assert not recwarn.list


def test_tensors_come_back_as_tensors_under_dispatch():
    X = torch.arange(6, dtype=torch.float32, device="cpu").reshape(2, 3)
    with config_context(array_api_dispatch=True):
        ws = open_workspace(X)
        back = ws.store(ws.load(X) * 2)
    assert isinstance(back, torch.Tensor)
    assert back.dtype == torch.float32
    assert back.device == X.device


def test_no_gradients_are_recorded_for_a_tensor_that_asks_for_them():
    X = torch.ones(2, 3, dtype=torch.float64, device="cpu", requires_grad=True)
    with config_context(array_api_dispatch=True):
        assert not open_workspace(X).load(X).requires_grad


def test_another_array_library_comes_back():
    X = array_api_strict.asarray(np.arange(6.0).reshape(2, 3))
    with config_context(array_api_dispatch=True):
        ws = open_workspace(X)
        back = ws.store(ws.load(X) + 1)
    assert type(back) is type(X)
    assert float(back[1, 2]) == 6.0


def test_seed_decides_the_draws_and_none_leaves_numpy_alone_until_used():
    X = np.zeros((2, 2))
    a, b = (open_workspace(X, random_state=7).randn(4) for _ in range(2))
    assert torch.equal(a, b)
    before = np.random.get_state()[1].copy(), np.random.get_state()[2]
    ws = open_workspace(X)
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert before[1] == np.random.get_state()[2]
    assert ws.generator is ws.generator


@pytest.mark.parametrize(
    "device",
    ["warp", "mps", "mps:0", "xpu", "meta", "cpu:3", "CUDA", "cuda:-1", "cuda:01", "cuda:", "cuda:x", "", " cpu"],
)
def test_devices_that_are_not_computed_on_name_the_cure(device):
    with pytest.raises(ValueError, match=rf"device='{device}' is no device .* Use 'auto', 'cpu', 'cuda' or 'cuda:1'"):
        open_workspace(np.zeros((1, 1)), device=device)


@pytest.mark.parametrize("device", ["cuda:99", "cuda:99999999999999999999"])
def test_devices_that_are_missing_name_the_cure(device):
    with pytest.raises(
        ValueError, match=rf"device='{device}' was asked for, but torch sees .*Use device='auto' or 'cpu'"
    ):
        open_workspace(np.zeros((1, 1)), device=device)


@pytest.mark.parametrize("device", ["cpu", "cpu:0", "auto"])
def test_the_cpu_may_be_named(device):
    expected = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
    assert open_workspace(np.zeros((1, 1)), device=device).device.type == expected


@pytest.mark.parametrize("dispatch", [False, True])
def test_weights_without_values_are_refused(dispatch):
    X = np.zeros((3, 2))
    ws = open_workspace(X)
    with config_context(array_api_dispatch=dispatch), pytest.raises(TypeError, match=r"sample_weight is .*'meta'"):
        row_weights(torch.ones(3, device="meta"), rows_of(X, ws), ws)


@pytest.mark.cuda
def test_the_same_seed_draws_the_same_on_the_gpu():
    X = np.zeros((2, 2))
    here, there = (open_workspace(X, device=d, random_state=0).randn(5) for d in ("cpu", "cuda"))
    assert torch.equal(here, there.cpu())
