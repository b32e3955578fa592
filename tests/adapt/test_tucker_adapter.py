"""Updates of low Tucker rank: their form, their ranks, and what they learn that flattened ones do not."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklowrank.adapt import TuckerAdapter
from sklowrank.adapt._tucker_adapter import TuckerUpdate, multiplied

g = np.random.default_rng(0)


def tensor(*shape):
    return torch.from_numpy(g.normal(size=shape))


class Layers(nn.Module):
    """One layer of each type, with other numbers of outputs than of inputs."""

    def __init__(self):
        super().__init__()
        self.table, self.wave = nn.Embedding(50, 12), nn.Conv1d(12, 24, 3, stride=2, padding=1)
        self.grouped, self.flat = nn.Conv1d(24, 24, 3, padding=1, groups=8), nn.Conv2d(1, 5, (2, 3), padding=1)
        self.volume, self.output = nn.Conv3d(5, 6, 2), nn.Linear(6, 3)

    def forward(self, ids):
        x = torch.relu(self.grouped(self.wave(self.table(ids).transpose(1, 2))))
        x = torch.relu(self.flat(x[:, None]))
        return self.output(self.volume(x.reshape(len(x), 5, 5, 5, -1)).flatten(2).mean(2))


IDS, CLASSES = g.integers(0, 50, size=(60, 8)), np.arange(60) % 3


def a_net(module=Layers, X=IDS, y=CLASSES, kind=NeuralNetClassifier, epochs=1):
    criterion = {"criterion": nn.CrossEntropyLoss} if kind is NeuralNetClassifier else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(module, **criterion, max_epochs=epochs, train_split=None, verbose=0).fit(X, y)


@pytest.mark.parametrize(
    ("sizes", "ranks"), [((7, 5), (3, 2)), ((6, 4, 3), (2, 4, 1)), ((6, 4, 3, 2), (3, 2, 3, 2)), ((5,), (2,))]
)
def test_products_are_those_of_the_formula(sizes, ranks):
    core, factors = tensor(*ranks), [tensor(n, r) for n, r in zip(sizes, ranks)]
    by_hand = core.numpy()
    for axis, factor in enumerate(factors):
        by_hand = np.moveaxis(np.tensordot(factor.numpy(), by_hand, axes=([1], [axis])), 0, axis)
    assert np.allclose(multiplied(core, factors).numpy(), by_hand)
    weight = tensor(*sizes)
    assert torch.allclose(TuckerUpdate(core, factors, 0.5)(weight), weight + 0.5 * torch.from_numpy(by_hand))


def test_updates_start_at_zero_and_can_be_learned():
    like = torch.empty(4, 6, 3, 3, dtype=torch.float64)
    update = TuckerUpdate.drawn(like.shape, (2, 3, 3, 1), 1.0, like, torch.Generator().manual_seed(0))
    weight = torch.zeros_like(like)
    assert torch.equal(update(weight), weight)
    (update(weight) - 1).square().sum().backward()
    assert update.core.grad.abs().min() > 0
    many = TuckerUpdate.drawn((2000, 2000), (4, 16), 1.0, like, torch.Generator().manual_seed(0))
    assert [float(f.std()) for f in many.factors] == pytest.approx([1 / 2, 1 / 4], rel=0.03)


def test_layers_of_all_types_have_an_update_of_their_ranks():
    net = a_net()
    model = TuckerAdapter(FrozenEstimator(net), rank=4, kernel_rank=2, head="keep", max_iter=3).fit(IDS, CLASSES)
    ranks = {row["name"]: row["ranks"] for row in model.layer_report_}
    assert ranks == {
        "table": (4, 4),
        "wave": (4, 4, 2),
        "grouped": (4, 3, 2),
        "flat": (4, 1, 2, 2),
        "volume": (4, 4, 2, 2, 2),
        "output": (3, 4),
    }
    shapes = {row["name"]: row["shape"] for row in model.layer_report_}
    counts = {n: np.prod(r) + np.dot(r, shapes[n]) for n, r in ranks.items()}
    assert {row["name"]: row["n_parameters"] for row in model.layer_report_} == counts
    assert model.n_adapter_parameters_ == sum(counts.values())
    assert list(model.layer_report_.to_frame()["type"])[:3] == ["Embedding", "Conv1d", "Conv1d"]
    for name in ranks:
        change = (model.network().get_submodule(name).weight - net.module_.get_submodule(name).weight).detach().double()
        factors = [model.weights_[f"{name}.factors.{i}"] for i in range(change.ndim)]
        letters, small = "abcde"[: change.ndim], "vwxyz"[: change.ndim]
        formula = f"{small},{','.join(f'{a}{b}' for a, b in zip(letters, small))}->{letters}"
        by_hand = np.einsum(formula, model.weights_[f"{name}.core"], *factors)
        assert np.abs(change.numpy() - by_hand).max() < 1e-6
        assert change.abs().max() > 1e-4


def test_some_types_and_exact_ranks():
    frozen = FrozenEstimator(a_net())
    convolutions = TuckerAdapter(frozen, layers=("conv1d", "conv3d"), max_iter=1).fit(IDS, CLASSES)
    assert [row["name"] for row in convolutions.layer_report_] == ["wave", "grouped", "volume"]
    ranks = {"wave": (5, 2, 3), "[wg]*": (6, 1, 1)}  # the first that matches
    model = TuckerAdapter(frozen, ranks=ranks, modules=["wave", "grouped", "flat"], max_iter=1).fit(IDS, CLASSES)
    assert [row["ranks"] for row in model.layer_report_] == [(5, 2, 3), (6, 1, 1), (5, 1, 2, 3)]
    for wrong in (
        {"nothing": (1, 1)},
        {"wave": (4, 4)},
        {"wave": (4, 4, 4)},
        {"wave": (0, 4, 1)},
        {"wave": (2.5, 1, 1)},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TuckerAdapter(frozen, ranks=wrong).fit(IDS, CLASSES)
    for layers in ((), ("linear", "lstm")):
        with pytest.raises(ValueError, match="layers"):
            TuckerAdapter(frozen, layers=layers).fit(IDS, CLASSES)


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.output = nn.Embedding(100_001, 4), nn.Linear(4, 3)

    def forward(self, ids):
        return self.output(self.table(ids).mean(1))


def test_large_tables_share_one_vector():
    net = a_net(Table)
    model = TuckerAdapter(FrozenEstimator(net), rank=8, head="keep", modules="table", max_iter=2).fit(IDS, CLASSES)
    assert model.layer_report_[0]["ranks"] == (4,)
    assert model.n_adapter_parameters_ == 4 + 16
    change = (model.network().table.weight - net.module_.table.weight).detach()
    assert change.abs().max() > 0
    assert torch.allclose(change, change[:1].expand_as(change), atol=1e-6)


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.output = nn.Conv2d(8, 6, 3, bias=False), nn.Flatten()

    def forward(self, x):
        return self.output(self.conv(x))


def test_kernels_of_low_tucker_rank_are_found_where_flattened_updates_of_as_many_numbers_fail():
    """An update that is one separable kernel for all pairs of channels, up to a factor."""
    X = g.normal(size=(150, 8, 6, 6)).astype(np.float32)
    net = a_net(Images, X, np.zeros((150, 96), dtype=np.float32), NeuralNetRegressor)
    target = copy.deepcopy(net.module_)
    change = 0.3 * torch.einsum("oi,h,w->oihw", tensor(6, 8), tensor(3), tensor(3)).float()
    with torch.no_grad():
        target.conv.weight += change
        Y = target(torch.from_numpy(X)).numpy()
    params = {"rank": 8, "kernel_rank": 1, "head": "keep", "max_iter": 100, "learning_rate": 3e-2, "random_state": 0}
    model = TuckerAdapter(FrozenEstimator(net), **params).fit(X[:100], Y[:100])
    found = (model.network().conv.weight - net.module_.conv.weight).detach()
    assert model.n_adapter_parameters_ == 6 * 8 + 6 * 6 + 8 * 8 + 3 + 3 == 154
    assert (found - change).norm() < 0.02 * change.norm()
    assert model.score(X[100:], Y[100:]) > 0.99
    # The nearest flattened update of rank 2 has more numbers: 2 (6 + 72)
    s = torch.linalg.svdvals(change.flatten(1))
    assert s[2:].norm() > 0.3 * change.norm()


def test_adapters_of_any_scale_are_exchanged():
    frozen, params = FrozenEstimator(a_net()), {"modules": "wave", "max_iter": 1, "random_state": 0}
    one, three = (TuckerAdapter(frozen, scale=s, **params).fit(IDS, CLASSES) for s in (1, 3))
    # The first steps of Adam are of one length whatever the gradient, and the scale multiplies them
    assert np.allclose(three.weights_["wave.core"], 3 * one.weights_["wave.core"], rtol=0.05, atol=1e-6)
    expected = three.predict_raw(IDS)
    assert not np.allclose(one.predict_raw(IDS), expected)
    assert np.array_equal(one.set_adapter(three.get_adapter()).predict_raw(IDS), expected)


def test_layers_of_transformers_with_transposed_weights():
    class Conv1D(nn.Module):
        def __init__(self):
            super().__init__()
            self.nf, self.weight = 3, nn.Parameter(torch.zeros(4, 3))

        def forward(self, x):
            return x @ self.weight

    update = TuckerUpdate.drawn((4, 3), (2, 2), 1.0, torch.zeros(4, 3), torch.Generator())
    assert update(Conv1D().weight).shape == (4, 3)
    assert SimpleNamespace(weight=update(torch.zeros(4, 3))).weight.abs().max() == 0
