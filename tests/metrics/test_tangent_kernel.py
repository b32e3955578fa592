"""The tangent kernel against Jacobians by autograd, for every kind of layer; modes, names, logits, bounds of memory."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional as F

from sklowrank._nets.layers import ThinLinear, linear, low_rank_start
from sklowrank.metrics import _tangent_kernel, kernel_alignment, tangent_kernel
from sklowrank.neural import NetworkClassifier


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def draws(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(1), device="cpu", dtype=dtype)


def by_autograd(module, X, names=None):
    """The reference: a backward pass for each row and output."""
    module.eval()
    weights = [p for name, p in module.named_parameters() if names is None or name in names]
    rows = []
    for x in X:
        for output in module(x[None]).flatten():
            found = torch.autograd.grad(output, weights, retain_graph=True, allow_unused=True)
            parts = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found)]
            rows.append(torch.cat([part.flatten() for part in parts]).double())
    J = torch.stack(rows)
    return J @ J.T


def agrees(K, expected, rtol=1e-5):
    return float((torch.as_tensor(K) - expected).norm()) <= rtol * float(expected.norm())


def mlp():
    return nn.Sequential(
        nn.Linear(6, 9), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)
    )


class Tied(nn.Module):
    """A linear layer whose weight is used a second time, without a call of the layer."""

    def __init__(self):
        super().__init__()
        self.code = nn.Linear(6, 4)

    def forward(self, x):
        return F.linear(self.code(x).relu(), self.code.weight.T)


class Twice(nn.Module):
    """A layer that is called twice, one that is never called, and two with one weight."""

    def __init__(self):
        super().__init__()
        self.again, self.idle, self.one, self.other = (nn.Linear(6, 6) for _ in range(4))
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.other(self.one(self.again(self.again(x).tanh())).tanh())


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cells, self.head = kind(2, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.cells(x.reshape(len(x), 3, 2))[0][:, -1])


def convolutional():
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
    )


MODULES = {
    "linear layers": mlp,
    "convolution, batch norm": convolutional,
    "thin layer": lambda: nn.Sequential(ThinLinear.nearest_to(linear(6, 5, torch.Generator()), 2), nn.Tanh()),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Linear(4, 2)),
    "sequence": lambda: nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Linear(2, 4), nn.GELU(), nn.Flatten()),
    "used elsewhere": Tied,
    "called twice, tied, idle": Twice,
    "recurrent": lambda: Recurrent(nn.GRU),
    "LSTM": lambda: Recurrent(nn.LSTM),
    "a number for each row": lambda: nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)),
    "layer alone": lambda: nn.Linear(6, 2),
}


@pytest.mark.parametrize("name", MODULES)
def test_kernel_is_that_of_the_jacobian(name):
    module, X = seeded(MODULES[name]), draws(5, 6)
    expected = by_autograd(module, X)
    assert agrees(tangent_kernel(module, X), expected)
    assert agrees(tangent_kernel(module, X, batch_size=2), expected)


def test_linear_layers_are_products(monkeypatch):
    """No Jacobian is formed for them."""

    def refused(*args):
        raise AssertionError("a Jacobian was formed")

    monkeypatch.setattr(_tangent_kernel, "_add_by_jacobians", refused)
    module, X = seeded(mlp), draws(5, 6)
    assert agrees(tangent_kernel(module, X), by_autograd(module, X))
    with pytest.raises(AssertionError):
        tangent_kernel(seeded(convolutional), X)


def test_large_jacobians_are_computed_in_blocks(monkeypatch):
    module, X = seeded(convolutional), draws(7, 6)
    expected, sizes = by_autograd(module, X), []
    monkeypatch.setattr(_tangent_kernel, "_LARGEST", 200)  # 18 numbers for each of two outputs: five rows
    plain = _tangent_kernel._jacobians_of

    def measured(outputs_of, moving, X):
        by_row = plain(outputs_of, moving, X)

        def counted(moving, rows):
            found = by_row(moving, rows)
            sizes.append(sum(part.numel() for part in found.values()))
            return found

        return counted

    monkeypatch.setattr(_tangent_kernel, "_jacobians_of", measured)
    assert agrees(tangent_kernel(module, X), expected)
    assert max(sizes) <= 100
    assert len(sizes) == 10  # blocks of two rows: each row of blocks, and each pair once


@pytest.mark.parametrize(
    ("params", "names"),
    [
        (["3.weight"], ["3.weight"]),
        (["3"], ["3.weight", "3.bias"]),
        (("0.bias", "5"), ["0.bias", "5.weight"]),
    ],
)
def test_parameters_are_chosen_by_name(params, names):
    module, X = seeded(mlp), draws(4, 6)
    assert agrees(tangent_kernel(module, X, params=params), by_autograd(module, X, names))


def test_frozen_parameters_count_where_they_are_named():
    module, X = seeded(mlp), draws(4, 6)
    module[0].requires_grad_(False)
    assert agrees(tangent_kernel(module, X), by_autograd(seeded(mlp), X, ["3.weight", "3.bias", "5.weight"]))
    assert agrees(tangent_kernel(module, X, params=["0"]), by_autograd(seeded(mlp), X, ["0.weight", "0.bias"]))
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        tangent_kernel(module.requires_grad_(False), X)
    for wrong, message in ((["4.weight"], "params has '4.weight', but the network has only 0.weight"), ([], "empty")):
        with pytest.raises(ValueError, match=message):
            tangent_kernel(module, X, params=wrong)


@pytest.mark.parametrize(
    "last", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid(), nn.LogSigmoid(), lambda z: z.softmax(-1), torch.sigmoid]
)
@pytest.mark.parametrize("make", [mlp, convolutional])
def test_kernels_are_those_of_logits(make, last):
    class Probabilities(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = make()

        def forward(self, x):
            return last(self.net(x))

    X = draws(4, 6)
    logits, module = seeded(make), seeded(Probabilities)
    assert agrees(tangent_kernel(module, X), by_autograd(logits, X))
    assert not agrees(by_autograd(module, X), by_autograd(logits, X), rtol=0.1)
    inner = nn.Sequential(logits, nn.Softmax(1), nn.Linear(len(logits(X)[0]), 2))  # this one is a hidden layer
    assert agrees(tangent_kernel(inner, X), by_autograd(inner, X))


def test_the_module_is_left_as_it_was():
    """Dropout is off and batch norm uses its statistics while the kernel is computed, not afterwards."""
    module, X = seeded(convolutional), draws(5, 6)
    module.train()
    module[2].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    with torch.inference_mode():
        first, second = tangent_kernel(module, X), tangent_kernel(module, X)
    assert torch.equal(first, second)
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())
    with pytest.raises(RuntimeError):
        tangent_kernel(module, draws(5, 7))
    assert [part.training for part in module.modules()] == modes
    assert not any(part._forward_hooks for part in module.modules())


def test_sum_of_the_outputs():
    module, X = seeded(mlp), draws(5, 6)
    full = by_autograd(module, X).view(5, 3, 5, 3)
    assert agrees(tangent_kernel(module, X, method="sum"), full.sum((1, 3)) / 3)


def test_arrays_tensors_and_precisions():
    module, X = seeded(mlp), draws(4, 6)
    expected = by_autograd(module, X)
    K = tangent_kernel(module, X.double().numpy())
    assert isinstance(K, np.ndarray)
    assert K.dtype == np.float64
    assert agrees(K, expected)
    double = tangent_kernel(module.double(), X)
    assert isinstance(double, torch.Tensor)
    assert agrees(double, by_autograd(module, X.double()), rtol=1e-13)
    assert agrees(tangent_kernel(module.to(torch.bfloat16), X), expected, rtol=0.05)
    words = nn.Sequential(nn.EmbeddingBag(10, 3), nn.Linear(3, 2))
    assert tangent_kernel(words, [[1, 2], [3, 4]]).shape == (4, 4)


def test_fitted_models_are_taken():
    X, y = load_iris(return_X_y=True)
    model = NetworkClassifier((8,), max_iter=2, tol=0, random_state=0)
    pipeline = make_pipeline(StandardScaler(), model).fit(100 * X, y)
    rows = (100 * X - (100 * X).mean(0)) / (100 * X).std(0)
    expected = by_autograd(model.network(), torch.from_numpy(rows[:4]).float())
    assert agrees(tangent_kernel(pipeline, 100 * X[:4]), expected)


def test_what_is_no_network_is_refused():
    with pytest.raises(TypeError, match="holds no network"):
        tangent_kernel(StandardScaler(), np.eye(3))
    with pytest.raises(ValueError, match=r"gave \(6,\) for 1 rows"):
        tangent_kernel(nn.Sequential(nn.Linear(6, 6), nn.Flatten(0)), draws(3, 6))
    with pytest.raises(ValueError, match="n_rows=0"):
        tangent_kernel(seeded(mlp), draws(0, 6))


def test_a_start_of_higher_rank_is_lazier_in_expectation():
    """The theory: a two-layer linear network, trained with small steps on random tasks from starts of one norm."""
    X, G, gains = draws(20, 10, dtype=torch.float64), torch.Generator("cpu").manual_seed(0), []
    for _ in range(12):
        W, v, beta = (torch.randn(*s, generator=G, dtype=torch.float64) for s in ((10, 10), (1, 10), (10, 1)))
        W, v, found = W / 10**0.5, v / 10**0.5, []
        for rank in (1, 10):
            net = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 1, bias=False)).double()
            with torch.no_grad():
                net[0].weight.copy_(low_rank_start(W, rank))
                net[1].weight.copy_(v)
            assert net[0].weight.norm().item() == pytest.approx(W.norm().item())  # a norm would hide the rank
            K0, optimizer = tangent_kernel(net, X), torch.optim.SGD(net.parameters(), lr=0.02)
            for _ in range(150):
                optimizer.zero_grad()
                (net(X) - X @ beta).square().mean().backward()
                optimizer.step()
            found.append(kernel_alignment(tangent_kernel(net, X), K0))
        gains.append(found[1] - found[0])
    assert np.mean(gains) > 2 * np.std(gains, ddof=1) / len(gains) ** 0.5 > 0, gains


@pytest.mark.cuda
def test_modules_on_a_gpu():
    module, X = seeded(convolutional).cuda(), draws(4, 6)
    expected = by_autograd(seeded(convolutional), X)
    K = tangent_kernel(module, X)
    assert K.device == X.device
    assert agrees(K, expected, rtol=1e-3)
    assert tangent_kernel(module, X.cuda()).is_cuda
