"""Diagonals of LDU decompositions: the decomposition, where rounding would decide, and what is trained."""

import numpy as np
import pytest
import torch
from scipy.linalg import lu
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from sklowrank.adapt import LDUAdapter
from sklowrank.adapt._ldu_adapter import diagonal, ldu

g = np.random.default_rng(0)
both = pytest.mark.parametrize("pivoting", ["row", "complete"])


def weights():
    low, dead, twins = g.normal(size=(30, 4)) @ g.normal(size=(4, 20)), g.normal(size=(20, 50)), g.normal(size=(30, 30))
    dead[:, :7], twins[5], twins[:, 9] = 0, twins[4], twins[:, 8]
    return {
        "tall": g.normal(size=(50, 20)),
        "wide": g.normal(size=(20, 50)),
        "rank 4": low,
        "zero columns": dead,
        "twins": twins,
        "zero": np.zeros((6, 4)),
        "identity": np.eye(7, 5),
        "one row": g.normal(size=(1, 5)),
        "one column": g.normal(size=(5, 1)),
        "large": 1e25 * g.normal(size=(9, 6)),
        "small": 1e-25 * g.normal(size=(9, 6)),
    }


WEIGHTS = weights()


@both
@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_is_the_product_of_its_decomposition(name, pivoting):
    W = torch.from_numpy(WEIGHTS[name])
    r = min(W.shape)
    left, d, right = ldu(W, r, pivoting)
    assert left.shape == (W.shape[0], r)
    assert right.shape == (r, W.shape[1])
    used = d != 0
    product = (left * d) @ right
    if name not in ("zero columns", "twins") or pivoting == "complete":  # else rows of U of zero pivots are not zero
        assert torch.allclose(product, W, atol=1e-12 * float(W.abs().max()))
    assert left.abs().max() <= 1 + 1e-12  # pivots are the largest of their columns
    assert torch.isfinite(right).all()
    assert right.abs().amax(1).min() >= 1 - 1e-12
    rank = np.linalg.matrix_rank(W.numpy())
    assert int(used.sum()) <= rank
    if pivoting == "complete":
        assert int(used.sum()) == rank
        assert (d.abs()[1:] <= 2 * d.abs()[:-1] + 1e-300).all()


def test_row_pivots_are_those_of_scipy():
    W = g.normal(size=(40, 30)) * np.geomspace(1, 1e-3, 30)[g.permutation(30)]
    P, L, U = lu(W)
    left, d, right = (part.numpy() for part in ldu(torch.from_numpy(W), 30, "row"))
    assert np.allclose(d, np.diag(U))
    assert np.allclose(left, P @ L)
    assert np.allclose(right, U / np.diag(U)[:, None])
    part = ldu(torch.from_numpy(W), 7, "row")
    assert np.allclose(part.left, left[:, :7])
    assert np.allclose(part.right, right[:7])


@both
@pytest.mark.parametrize("name", ["rank 4", "zero columns", "twins", "zero", "identity"])
def test_rounding_decides_nothing(name, pivoting):
    """An adapter that is stored without the decomposition has to find it again on another machine."""
    W = torch.from_numpy(WEIGHTS[name])
    rounded = W + 1e-16 * W.abs().max() * torch.from_numpy(g.normal(size=tuple(W.shape)))
    for a, b in zip(ldu(W, min(W.shape), pivoting), ldu(rounded, min(W.shape), pivoting)):
        assert torch.allclose(a, b, atol=1e-9)


def test_complete_pivots_come_in_the_order_of_their_sizes():
    W = g.normal(size=(40, 40)) * np.geomspace(1, 1e-3, 40)[g.permutation(40)]
    W = torch.from_numpy(W)
    errors = {}
    for pivoting in ("row", "complete"):
        left, d, right = ldu(W, 20, pivoting)
        errors[pivoting] = float((W - (left * d) @ right).norm() / W.norm())
    assert errors["complete"] < 0.1 < errors["row"]


def test_starts_of_the_diagonal():
    pivots, random = torch.from_numpy(g.normal(size=5000)), torch.Generator().manual_seed(0)
    size = float(pivots.square().mean().sqrt())
    assert diagonal("uniform", pivots, random).abs().max() == pytest.approx(size, rel=1e-2)
    assert float(diagonal("normal", pivots, random).std()) == pytest.approx(size, rel=0.03)
    assert np.allclose(diagonal("constant", pivots, random), size)
    assert torch.equal(diagonal("lu", pivots, random), pivots)
    assert [float(diagonal(kind, pivots, random).sum()) for kind in ("ones", "zeros")] == [5000, 0]


ROWS, CLASSES = g.normal(size=(90, 12)).astype(np.float32), np.arange(90) % 3
ROWS[:, 0] += CLASSES * 2 - 2


def mlp():
    return nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        how = {"max_epochs": 10, "lr": 0.02, "optimizer": torch.optim.Adam, "train_split": None, "verbose": 0}
        return NeuralNetClassifier(mlp, criterion=nn.CrossEntropyLoss, **how).fit(ROWS, CLASSES)


def adapted(net, **params):
    params = {"head": "keep", "max_iter": 2, "random_state": 0, **params}
    return LDUAdapter(FrozenEstimator(net), **params).fit(ROWS + 0.5, CLASSES)


@pytest.mark.parametrize(
    ("start", "pivoting"),
    [*((start, "row") for start in ("lu", "uniform", "normal", "constant", "ones", "zeros")), ("normal", "complete")],
)
def test_the_update_is_that_of_the_formula_whatever_the_start(net, start, pivoting):
    exact = adapted(net, diag_init=start, pivoting=pivoting, max_iter=0)
    assert np.abs(exact.predict_raw(ROWS) - net.forward(ROWS).numpy()).max() < 1e-4
    for exactly in (True, False):
        model = adapted(net, diag_init=start, exact_start=exactly, pivoting=pivoting, rank=6)
        for name in ("0", "2", "4"):
            W = net.module_.get_submodule(name).weight.detach()
            change = (model.network().get_submodule(name).weight - W).double().detach()
            left, d, right = ldu(W, min(6, *W.shape), pivoting)
            z, sigma = torch.from_numpy(model.diagonals_[name]).double(), model.scales_[name]
            assert torch.allclose((left * (sigma * z - d)) @ right, change, atol=1e-4 * float(W.abs().max()))


def test_another_start_is_another_network(net):
    loose = adapted(net, diag_init="zeros", exact_start=False, max_iter=0)
    assert np.abs(loose.predict_raw(ROWS) - net.forward(ROWS).numpy()).max() > 0.1
    # All pivots at zero leave nothing of the weights
    assert max(float(loose.network()[i].weight.abs().max()) for i in (0, 2, 4)) < 1e-5


def test_adapters_with_other_starts_are_exchanged(net):
    a, b = adapted(net, diag_init="normal", random_state=1), adapted(net)
    expected = a.predict_raw(ROWS)
    assert np.allclose(b.set_adapter(a.get_adapter()).predict_raw(ROWS), expected, atol=1e-5)


def test_only_diagonals_and_scales_are_trained(net):
    model = adapted(net)
    assert model.n_trainable_parameters_ == model.n_adapter_parameters_ == (10 + 8 + 3) + 3
    assert sum(value.nbytes for value in model.get_adapter().values()) == 4 * 24
    assert [row["ranks"] for row in model.layer_report_] == [(10,), (8,), (3,)]
    fixed = adapted(net, train_scale=False)
    assert fixed.n_adapter_parameters_ == 21
    assert set(fixed.scales_.values()) == {1.0}
    assert "0.sigma" not in fixed.weights_
    biased = adapted(net, bias=True)
    assert biased.n_trainable_parameters_ == 24 + 10 + 8 + 3
    assert biased.n_adapter_parameters_ == 24
    assert not np.array_equal(biased.weights_["0.bias"], net.module_[0].bias.detach())
    with_head = adapted(net, head="train", bias=True)
    assert with_head.n_trainable_parameters_ == (10 + 8 + 2) + (10 + 8) + (8 * 3 + 3)


def test_ranks_are_numbers_or_shares_of_pivots(net):
    for rank, expected in ((4, [4, 4, 3]), (0.5, [5, 4, 2]), (1e-9, [1, 1, 1]), (None, [10, 8, 3])):
        assert [len(z) for z in adapted(net, rank=rank, max_iter=1).diagonals_.values()] == expected
    for wrong in (0, 1.5, -1, 0.0):
        with pytest.raises(ValueError, match="rank"):
            adapted(net, rank=wrong)


class Maps(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.map, self.output = nn.Linear(*weight.shape[::-1]), nn.Linear(weight.shape[0], 2)
        self.map.weight.data = torch.from_numpy(weight.astype(np.float32))

    def forward(self, x):
        return self.output(torch.tanh(self.map(x)))


@both
@pytest.mark.parametrize("name", ["rank 4", "zero columns", "twins", "zero"])
def test_weights_without_full_rank_can_be_trained(name, pivoting):
    W = WEIGHTS[name]
    X, y = g.normal(size=(40, W.shape[1])).astype(np.float32), np.arange(40) % 2
    how = {"criterion": nn.CrossEntropyLoss, "max_epochs": 1, "lr": 1e-9, "train_split": None, "verbose": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small = NeuralNetClassifier(Maps, module__weight=W, **how).fit(X, y)
    model = LDUAdapter(FrozenEstimator(small), head="keep", modules="map", pivoting=pivoting, max_iter=20).fit(X, y)
    assert np.isfinite(model.predict_raw(X)).all()
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    assert (model.network().map.weight - small.module_.map.weight).abs().max() < 10


class Pictures(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.output = nn.Conv2d(1, 4, 2), nn.Linear(4 * 6, 3)

    def forward(self, x):
        return self.output(torch.relu(self.conv(x.reshape(-1, 1, 3, 4))).flatten(1))


def test_kernels_are_matrices_of_outputs_and_patches():
    net = NeuralNetClassifier(
        Pictures, criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0
    ).fit(ROWS, CLASSES)  # fmt: skip
    model = LDUAdapter(FrozenEstimator(net), max_iter=3).fit(ROWS, CLASSES)
    assert model.layer_report_[0]["ranks"] == (4,)
    change = (model.network().conv.weight - net.module_.conv.weight).detach().flatten(1)
    left, d, right = ldu(net.module_.conv.weight.detach().flatten(1), 4, "row")
    z = torch.from_numpy(model.diagonals_["conv"])
    assert torch.allclose(((left * (model.scales_["conv"] * z - d)) @ right).float(), change, atol=1e-5)
