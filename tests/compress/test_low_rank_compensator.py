"""Compressed layers and their paths: what is stored, what is the optimum, in which order layers are fitted."""

import copy
import io
import pickle
import warnings
from collections import OrderedDict
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch import nn

from sklowrank._nets.calls import Calls
from sklowrank._nets.holding import hold, network_calls
from sklowrank._nets.randomness import Randomness
from sklowrank.compress import LowRankCompensator, LowRankCompressor
from sklowrank.compress import _low_rank_compensator_solver as solver
from sklowrank.compress._compensated_layers import CompensatedLayer
from sklowrank.compress._compressed_weights import (
    Codes,
    KeptEntries,
    matrix_of,
    packed,
    rounded,
    unpacked,
)
from sklowrank.neural import NetworkClassifier, TrainedRankPruning

DIGITS, LABELS = load_digits(return_X_y=True)
DIGITS = (DIGITS / 16).astype(np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


def seeded(build, seed=0):
    """Return a module with its own weights in float64, the global generator left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().double().eval()


def mlp(*widths):
    layers = OrderedDict()
    for i, (n_in, n_out) in enumerate(pairwise(widths), 1):
        layers[f"layer{i}"] = nn.Linear(n_in, n_out)
        layers[f"relu{i}"] = nn.ReLU()
    return nn.Sequential(layers)[:-1]


def rows_with_a_mean(n_rows, n_features, seed=0):
    g = rng(seed)
    spread = np.linalg.qr(g.normal(size=(n_features, n_features)))[0] * np.geomspace(1, 0.05, n_features)
    return g.normal(size=(n_rows, n_features)) @ spread + g.normal(size=n_features)


def nearest_levels(W, bits):
    """Return the weight on 2^bits - 1 levels, a scale for each row."""
    top = 2 ** (bits - 1) - 1
    scale = np.abs(W).max(1, keepdims=True) / top
    return np.round(W / scale) * scale


def by_the_paper(D, M, rank):
    """Return B and A by the eigenspace projection: B = U S^1/2, A = S^1/2 V' L^-1/2 Q'."""
    L, Q = np.linalg.eigh(M)
    L = L.clip(1e-10 * L[-1])
    U, s, Vh = np.linalg.svd(D @ Q * np.sqrt(L), full_matrices=False)
    root = np.sqrt(s[:rank])
    return U[:, :rank] * root, (root[:, None] * Vh[:rank]) / np.sqrt(L) @ Q.T


def outputs(module, X):
    with torch.inference_mode():
        return module(torch.as_tensor(X)).numpy()


@pytest.fixture(scope="module")
def net():
    """A fitted network for digits."""
    return NetworkClassifier((48, 32), max_iter=15, tol=0, standardize=False, random_state=0).fit(DIGITS, LABELS)


# The optimum


@pytest.mark.parametrize("correct_bias", [False, True])
@pytest.mark.parametrize("shape", [(24, 16), (16, 24)])
def test_a_path_is_the_optimum_of_the_output_error(shape, correct_bias):
    n_in, n_out = shape
    net, X = seeded(lambda: nn.Sequential(nn.Linear(n_in, n_out))), rows_with_a_mean(400, n_in)
    W, bias = net[0].weight.detach().numpy(), net[0].bias.detach().numpy()
    D = W - nearest_levels(W, 2)
    M = np.cov(X.T, bias=True) if correct_bias else X.T @ X / len(X)
    model = LowRankCompensator(net, bits=2, rank=5, correct_bias=correct_bias, modules="0", n_calibration=None).fit(X)
    B, A = model.adapters_["0"]
    assert B.shape == (n_out, 5)
    assert A.shape == (5, n_in)
    by_hand = by_the_paper(D, M, 5)
    np.testing.assert_allclose(B @ A, by_hand[0] @ by_hand[1], atol=1e-6 * np.abs(D).max())
    np.testing.assert_allclose(np.linalg.norm(B, axis=0), np.linalg.norm(A, axis=1))
    error = ((model.predict_raw(X) - X @ W.T - bias) ** 2).sum(1).mean()
    L, Q = np.linalg.eigh(M)
    dropped = (np.linalg.svd(D @ Q * np.sqrt(L.clip(0)), compute_uv=False)[5:] ** 2).sum()
    assert error == pytest.approx(dropped, rel=1e-6)
    variance = (X @ W.T).var(0).sum()
    assert model.layer_report_[0]["error"] == pytest.approx(dropped / variance, rel=1e-6)


@pytest.mark.parametrize("method", ["eigenspace", "activation_scale", "svd"])
def test_each_method_is_best_in_its_own_metric(method):
    net, X = seeded(lambda: nn.Sequential(nn.Linear(12, 10))), rows_with_a_mean(300, 12)
    W = net[0].weight.detach().numpy()
    D = W - nearest_levels(W, 2)
    weights = {
        "eigenspace": np.linalg.cholesky(X.T @ X / len(X)),
        "activation_scale": np.diag(np.abs(X).mean(0)),
        "svd": np.eye(12),
    }[method]
    options = {"bits": 2, "rank": 3, "correct_bias": False, "modules": "0", "n_calibration": None}
    B, A = LowRankCompensator(net, method=method, **options).fit(X).adapters_["0"]
    best = (np.linalg.svd(D @ weights, compute_uv=False)[3:] ** 2).sum()
    assert (((D - B @ A) @ weights) ** 2).sum() == pytest.approx(best, rel=1e-6)


def test_rank_0_is_the_compressed_network_and_full_rank_the_original():
    net, X = seeded(lambda: mlp(10, 12, 9, 4)), rows_with_a_mean(100, 10)
    plain = LowRankCompensator(net, bits=3, rank=0, correct_bias=False).fit(X)
    by_hand = copy.deepcopy(net)
    for layer in (by_hand.layer1, by_hand.layer2):
        layer.weight.data = torch.from_numpy(nearest_levels(layer.weight.detach().numpy(), 3))
    np.testing.assert_allclose(plain.predict_raw(X), outputs(by_hand, X), atol=1e-12)
    full = LowRankCompensator(net, bits=2, rank=100).fit(X)
    np.testing.assert_allclose(full.predict_raw(X), outputs(net, X), atol=1e-12)
    assert [row["rank"] for row in full.layer_report_] == [10, 9]
    assert full.output_relative_error_ < 1e-24


def test_layers_are_fitted_behind_the_compensated_ones():
    net, X = seeded(lambda: mlp(15, 20, 20, 3)), rows_with_a_mean(200, 15)
    H = X
    for layer in (net.layer1, net.layer2):
        W, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        D = W - nearest_levels(W, 3)
        B, A = by_the_paper(D, np.cov(H.T, bias=True), 4)
        total = W - D + B @ A
        H = np.maximum(H @ total.T + bias + (W - total) @ H.mean(0), 0)
    expected = H @ net.layer3.weight.detach().numpy().T + net.layer3.bias.detach().numpy()
    model = LowRankCompensator(net, bits=3, rank=4, n_calibration=None).fit(X)
    np.testing.assert_allclose(model.predict_raw(X), expected, atol=1e-6)


def test_inputs_that_are_always_zero_change_nothing():
    net, X = seeded(lambda: nn.Sequential(nn.Linear(12, 10))), rows_with_a_mean(200, 12)
    wide = seeded(lambda: nn.Sequential(nn.Linear(20, 10)))
    with torch.no_grad():
        wide[0].weight[:, :12] = net[0].weight
        wide[0].weight[:, 12:] *= 0.01
        wide[0].bias.copy_(net[0].bias)
    options = {"bits": 2, "rank": 3, "modules": "0", "n_calibration": None}
    narrow = LowRankCompensator(net, **options).fit(X).predict_raw(X)
    padded = LowRankCompensator(wide, **options).fit(np.hstack([X, np.zeros((200, 8))]))
    np.testing.assert_allclose(padded.predict_raw(np.hstack([X, np.zeros((200, 8))])), narrow, atol=1e-7)
    assert all(np.isfinite(part).all() for part in padded.adapters_["0"])


def test_fewer_rows_than_inputs_and_a_path_for_what_they_do_not_say():
    net, X = seeded(lambda: nn.Sequential(nn.Linear(30, 20))), rows_with_a_mean(4, 30)
    model = LowRankCompensator(net, bits=2, rank=8, modules="0").fit(X)
    new = rows_with_a_mean(300, 30, seed=1)
    none = LowRankCompensator(net, bits=2, rank=3, modules="0").fit(X)  # that many directions the rows have
    errors = [((m.predict_raw(new) - outputs(net, new)) ** 2).sum() for m in (model, none)]
    np.testing.assert_allclose(model.predict_raw(X), outputs(net, X), atol=1e-4)
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_scale_of_rows_does_not_matter(scale):
    net, X = seeded(lambda: nn.Sequential(nn.Linear(12, 10, bias=False))), rows_with_a_mean(100, 12)
    options = {"bits": 2, "rank": 3, "modules": "0", "n_calibration": None}
    one, other = (LowRankCompensator(net, **options).fit(Z) for Z in (X, X * scale))
    np.testing.assert_allclose(other.predict_raw(X * scale) / scale, one.predict_raw(X), atol=1e-10)
    assert other.output_relative_error_ == pytest.approx(one.output_relative_error_, rel=1e-9)


# Kinds of layers


class Tokens(nn.Module):
    """An embedding, torch's transformer layer, and three layers that are given the same tensor."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(30, 16, padding_idx=0)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.query, self.key, self.value = nn.Linear(16, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 16)
        self.output = nn.Linear(16, 3)

    def forward(self, x):
        h = self.block(self.table(x))
        weights = torch.softmax(self.query(h) @ self.key(h).mT, -1)
        return self.output((weights @ self.value(h)).mean(1))


class Twice(nn.Module):
    """A layer that a pass reaches twice."""

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.a(self.c(torch.relu(self.a(x))))


class Conv1D(nn.Module):
    """The linear layer of transformers, whose weight is (in, out)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.weight, self.bias = nf, nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


LAYERS = {
    "linear": (lambda: nn.Linear(12, 10), (60, 12)),
    "linear on sequences, no bias": (lambda: nn.Linear(12, 10, bias=False), (20, 5, 12)),
    "transposed": (lambda: Conv1D(10, 12), (60, 12)),
    "conv1d": (lambda: nn.Conv1d(3, 8, 4, stride=2, dilation=2), (30, 3, 16)),
    "conv2d, padded": (lambda: nn.Conv2d(2, 8, (3, 2), padding="same", bias=False), (20, 2, 6, 5)),
    "conv2d, reflected": (lambda: nn.Conv2d(2, 8, 2, padding=1, padding_mode="reflect"), (20, 2, 6, 5)),
    "conv2d, round": (lambda: nn.Conv2d(2, 8, 3, padding="same", padding_mode="circular"), (20, 2, 6, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 8, (1, 2, 3), padding=(0, 1, 1)), (10, 2, 4, 5, 6)),
    "embedding": (lambda: nn.Embedding(20, 8), (100,)),
    "narrow embedding": (lambda: nn.Embedding(6, 9), (100, 2)),
}


@pytest.mark.parametrize("compression", ["quantize", "prune"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_all_kinds(name, compression):
    build, shape = LAYERS[name]
    net = seeded(lambda: nn.Sequential(build()))
    X = (
        rng().integers(0, 20 if name == "embedding" else 6, shape)
        if "embedding" in name
        else rng().normal(size=shape) + 0.5
    )
    options = {"compression": compression, "bits": 2, "sparsity": 0.6, "modules": "0"}
    none, model, full = (LowRankCompensator(net, rank=rank, **options).fit(X) for rank in (0, 3, 12))
    truth = outputs(net, X)
    np.testing.assert_allclose(full.predict_raw(X), truth, atol=1e-12)
    assert model.output_relative_error_ < 0.9 * none.output_relative_error_
    row = model.layer_report_[0]
    assert row["error"] == pytest.approx(model.output_relative_error_, rel=1e-6) or model.predict_raw(X).ndim > 2
    assert row["error"] < row["error_before"]
    change = (model.predict_raw(X) - truth).reshape(len(X), len(net[0].weight), -1) if "conv" in name else None
    if change is not None:  # the bias takes the mean of the error of each filter
        np.testing.assert_allclose(change.mean((0, 2)), 0, atol=1e-12)
    merged = LowRankCompensator(net, rank=3, merge=True, **options).fit(X)
    np.testing.assert_allclose(merged.predict_raw(X), model.predict_raw(X), atol=1e-12)
    assert type(merged.network()[0]) is type(net[0])
    weight = model.network()[0].weight
    assert weight.shape == net[0].weight.shape
    np.testing.assert_allclose(weight.detach(), merged.network()[0].weight.detach(), atol=1e-12)


def test_tables_are_fitted_as_the_linear_layers_that_they_are():
    """Of one-hot rows; rows of the table that are never asked for weigh nothing."""
    table = seeded(lambda: nn.Sequential(nn.Embedding(9, 7)))
    layer = seeded(lambda: nn.Sequential(nn.Linear(9, 7)))
    with torch.no_grad():
        layer[0].weight.copy_(table[0].weight.T)
        layer[0].bias.zero_()
    X = rng().choice(7, 200, p=np.arange(1, 8) / 28)
    halved = {"modules": "0", "rank": 2, "n_calibration": None}
    for shift in (False, True):
        twins = [copy.deepcopy(module) for module in (table, layer)]
        for twin in twins:
            twin[0].weight.data = twin[0].weight.data.round()
        model = LowRankCompensator(table, compressed=twins[0], correct_bias=shift, **halved).fit(X)
        linear = LowRankCompensator(layer, compressed=twins[1], correct_bias=shift, **halved).fit(np.eye(9)[X])
        np.testing.assert_allclose(model.predict_raw(X), linear.predict_raw(np.eye(9)[X]), atol=1e-6)


def test_transformers_and_what_reads_the_weights_of_their_layers():
    net, X = seeded(Tokens), rng().integers(1, 30, (80, 6))
    model = LowRankCompensator(net, bits=2, rank=3, modules="*", n_calibration=None).fit(X)
    names = [row["name"] for row in model.layer_report_]
    assert names == ["table", "block.linear1", "block.linear2", "query", "key", "value", "output"]
    found = model.network()
    rows = torch.from_numpy(X)
    with torch.inference_mode():
        fast = found(rows)  # torch reads `linear1.weight` here and calls no layer
        found.block.train()  # without dropout the same
        slow = found(rows)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(model.predict_raw(X), slow.numpy(), atol=1e-10)
    none = LowRankCompensator(net, bits=2, rank=0, correct_bias=False, modules="*", n_calibration=None).fit(X)
    assert model.output_relative_error_ < 0.5 * none.output_relative_error_
    assert not found.table(torch.tensor([0])).any()  # the padding
    assert [row["name"] for row in LowRankCompensator(net).fit(X).layer_report_] == names[1:-1]
    few = LowRankCompensator(net, modules=["!block.*", "!key"]).fit(X)
    assert [row["name"] for row in few.layer_report_] == ["query", "value"]


def test_layers_that_are_given_the_same_tensor_share_a_pass():
    net, X = seeded(Tokens), torch.from_numpy(rng().integers(1, 30, (20, 6)))
    calls = solver.Calls([((X,), {})])
    names = ["block.linear1", "block.linear2", "query", "key", "value", "output"]
    groups = [["block.linear1"], ["block.linear2"], ["query", "key", "value"], ["output"]]
    assert solver.same_inputs(net, calls, names) == groups
    again = seeded(Twice)
    inputs = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    calls = solver.Calls([((inputs,), {})])
    assert solver.same_inputs(again, calls, ["a", "c"]) == [["a"], ["c"]]
    options = {"bits": 2, "rank": 1, "modules": ["a"], "n_calibration": None, "correct_bias": False}
    found = LowRankCompensator(again, **options).fit(inputs.numpy())  # its rows are those of both calls
    W = again.a.weight.detach().numpy()
    with torch.no_grad():
        rows = torch.cat([inputs, again.c(torch.relu(again.a(inputs)))]).numpy()
    B, A = by_the_paper(W - nearest_levels(W, 2), rows.T @ rows / len(rows), 1)
    ours = found.adapters_["a"]
    np.testing.assert_allclose(ours[0] @ ours[1], B @ A, atol=1e-6)


# What is stored


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_of_any_number_of_bits_are_packed(bits):
    codes = torch.from_numpy(rng().integers(0, 2**bits, 101).astype(np.uint8))
    stored = packed(codes, bits)
    assert len(stored) <= -(-101 * bits // 8) + 3
    assert torch.equal(unpacked(stored, bits, 101), codes)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("group_size", [None, 4])
def test_weights_are_rounded_to_the_nearest_level(bits, group_size):
    W = torch.from_numpy(rng().normal(size=(5, 12)))
    W[3] = 0
    part = rounded(W, bits, group_size, torch.float64)
    levels = part().reshape(5, -1, group_size or 12)
    scales = W.reshape(levels.shape).abs().amax(2, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((levels - W.reshape(levels.shape)).abs() <= scales / 2 * (1 + 1e-12)).all()
    assert not levels[3].any()
    assert torch.equal(part(), rounded(part(), bits, group_size, torch.float64)()) or bits > 2


def test_quantised_layers_hold_integers_and_pruned_ones_what_is_kept(net):
    dense = sum(value.nbytes for value in net.weights_.values())
    model = LowRankCompensator(FrozenEstimator(net), bits=2, rank=4, random_state=0).fit(DIGITS)
    codes, rows = (64 * 48 + 48 * 32) * 2 // 8, 4 * (48 + 32)
    paths, biases = 4 * 4 * (64 + 48 + 48 + 32), 4 * (48 + 32 + 10)
    assert model.nbytes_ == sum(value.nbytes for value in model.weights_.values())
    assert model.nbytes_ == codes + rows + paths + biases + 4 * 320
    assert model.nbytes_before_ == dense
    assert model.compression_ == pytest.approx(model.nbytes_ / dense)
    layer = next(layer for layer in model.network() if isinstance(layer, CompensatedLayer))
    assert isinstance(layer.base, Codes)
    assert layer.base.codes.dtype == torch.uint8
    assert not isinstance(layer.base.codes, nn.Parameter)
    stored = pickle.dumps(model)
    assert len(stored) - len(pickle.dumps(LowRankCompensator(FrozenEstimator(net)))) < model.nbytes_ + 25_000
    pruned = LowRankCompensator(FrozenEstimator(net), compression="prune", sparsity=0.75, rank=0).fit(DIGITS)
    layer = next(layer for layer in pruned.network() if isinstance(layer, CompensatedLayer))
    assert isinstance(layer.base, KeptEntries)
    assert pruned.layer_report_[0]["nbytes"] == 64 * 48 // 8 + 4 * 64 * 48 // 4 + 4 * 48
    assert (matrix_of(layer.base) != 0).sum() == 64 * 48 // 4
    small = LowRankCompensator(FrozenEstimator(net), bits=2, rank=4, adapter_bits=8, random_state=0).fit(DIGITS)
    assert model.nbytes_ - small.nbytes_ == paths * 3 // 4 - 4 * 2 * 2 * 4
    assert small.output_relative_error_ < 1.05 * model.output_relative_error_
    merged = LowRankCompensator(FrozenEstimator(net), bits=2, rank=4, merge=True).fit(DIGITS)
    assert merged.nbytes_ == dense
    assert merged.adapters_ == {}


def test_pruning_keeps_what_counts():
    net, X = seeded(lambda: nn.Sequential(nn.Linear(8, 6))), rows_with_a_mean(100, 8)
    X[:, 5] = 0
    W, squares = net[0].weight.detach().numpy(), (X**2).mean(0)
    options = {"rank": 0, "correct_bias": False, "modules": "0"}

    def kept(**params):
        return LowRankCompensator(net, **options, **params).fit(X).network()[0].weight.detach().numpy() != 0

    found = kept(compression="prune", sparsity=0.5)
    scores = np.abs(W) * np.sqrt(squares)
    assert found.sum() == 24
    assert scores[found].min() >= scores[~found].max()
    magnitudes = kept(compression="prune", sparsity=0.9, importance="magnitude")
    assert magnitudes.sum() == 5
    assert np.abs(W)[magnitudes].min() >= np.abs(W)[~magnitudes].max()
    found = kept(compression="prune_n_m", n=1, m=4)
    assert (found.reshape(6, 2, 4).sum(2) == 1).all()
    # Where all scores are zero the larger weight stays, and a path is that of the weight
    X[:] = 0
    found = kept(compression="prune_n_m", n=1, m=2).reshape(6, 4, 2)
    assert (found.argmax(2) == np.abs(W).reshape(6, 4, 2).argmax(2)).all()
    one, other = (LowRankCompensator(net, bits=2, rank=2, method=m, modules="0").fit(X) for m in ("eigenspace", "svd"))
    for ours, theirs in zip(one.adapters_["0"], other.adapters_["0"]):
        np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_a_function_and_a_twin_compress():
    net, X = seeded(lambda: mlp(10, 12, 8, 3)), rows_with_a_mean(120, 10)
    seen = []

    def signs(W, moments):
        seen.append((W.shape, sorted(moments)))
        np.testing.assert_allclose(moments["second"].diagonal() >= moments["mean"] ** 2, True)
        return np.sign(W) * np.abs(W).mean(1, keepdims=True)

    twin = copy.deepcopy(net)
    for layer in (twin.layer1, twin.layer2):
        layer.weight.data = layer.weight.data.sign() * layer.weight.data.abs().mean(1, keepdim=True)
    own, given = (
        LowRankCompensator(net, rank=2, **how).fit(X) for how in ({"compression": signs}, {"compressed": twin})
    )
    np.testing.assert_allclose(own.predict_raw(X), given.predict_raw(X), atol=1e-12)
    assert seen == [((12, 10), ["mean", "second"]), ((8, 12), ["mean", "second"])]
    assert own.layer_report_[0]["nbytes"] > own.layer_report_[0]["nbytes_before"]
    coarse = LowRankCompensator(net, bits=2, rank=0, correct_bias=False).fit(X)
    model = LowRankCompensator(net, compressed=coarse, rank=2).fit(X)  # what a compensator made is a twin, too
    expected = LowRankCompensator(net, bits=2, rank=2).fit(X)
    np.testing.assert_allclose(model.predict_raw(X), expected.predict_raw(X), atol=1e-12)
    with pytest.raises(ValueError, match="layer1"):
        LowRankCompensator(net, compressed=seeded(lambda: mlp(10, 9, 8, 3))).fit(X)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will replace it
        integers = torch.ao.quantization.quantize_dynamic(net.float(), {nn.Linear}, dtype=torch.qint8)
    eight = LowRankCompensator(net, compressed=integers, rank=2).fit(X.astype(np.float32))
    assert 0 < eight.output_relative_error_ < 1e-4
    with pytest.raises(ValueError, match="layer2"):
        LowRankCompensator(net, compressed=nn.Sequential(OrderedDict(layer1=net.layer1))).fit(X)
    with pytest.raises(ValueError, match="finite values of shape"):
        LowRankCompensator(net, compression=lambda W, moments: W[1:]).fit(X)


# Ranks


def test_ranks_are_spread_over_the_layers_within_the_budget(net):
    entries = 64 * 48 + 48 * 32
    fixed = FrozenEstimator(net)
    for budget in (0.05, 0.2, 1.0):
        model = LowRankCompensator(fixed, bits=2, rank="auto", budget=budget, n_calibration=None).fit(DIGITS)
        used = sum(B.size + A.size for B, A in model.adapters_.values())
        assert budget * entries - 112 < used <= budget * entries or budget == 1
    gains = {"wide": torch.tensor([9.0, 1.0, 0.0]), "narrow": torch.tensor([4.0, 3.0])}
    shapes = {"wide": (20, 20), "narrow": (10, 10)}
    assert solver.spread_ranks(gains, shapes, 80 / 500) == {"wide": 1, "narrow": 2}
    assert solver.spread_ranks(gains, shapes, 60 / 500) == {"wide": 1, "narrow": 1}
    assert solver.spread_ranks(gains, shapes, 20 / 500) == {"wide": 0, "narrow": 1}
    names = [row["name"] for row in model.layer_report_]
    by_name = LowRankCompensator(fixed, bits=2, rank={names[1]: 3}).fit(DIGITS)
    assert [row["rank"] for row in by_name.layer_report_] == [0, 3]
    with pytest.raises(ValueError, match="unknown"):
        LowRankCompensator(fixed, rank={"unknown": 3}).fit(DIGITS)


# Adapters of tasks


@pytest.mark.parametrize("adapter_bits", [None, 5])
def test_adapters_of_a_task_are_saved_and_loaded(net, adapter_bits, tmp_path):
    low, high = DIGITS[LABELS < 5], DIGITS[LABELS >= 5]
    options = {"bits": 2, "adapter_bits": adapter_bits, "n_calibration": None}
    tasks = [LowRankCompensator(FrozenEstimator(net), rank=rank, **options).fit(X) for rank, X in ((3, low), (5, high))]
    tasks[1].save_adapters(tmp_path / "high.npz")
    before = tasks[0].predict_proba(high)
    swapped = copy.deepcopy(tasks[0])
    held = swapped.estimator_
    assert swapped.load_adapters(tmp_path / "high.npz") is swapped
    np.testing.assert_array_equal(swapped.predict_raw(high), tasks[1].predict_raw(high))
    np.testing.assert_array_equal(swapped.estimator_.predict_proba(high), tasks[1].predict_proba(high))
    assert swapped.layer_report_ == tasks[1].layer_report_
    assert swapped.nbytes_ == tasks[1].nbytes_
    assert swapped.output_relative_error_ == tasks[1].output_relative_error_
    np.testing.assert_array_equal(tasks[0].predict_proba(high), before)
    np.testing.assert_array_equal(held.predict_proba(high), before)
    truth = outputs(net.network(), high)
    errors = [((task.predict_raw(high) - truth) ** 2).sum() for task in (tasks[0], swapped)]
    assert errors[1] < errors[0]
    with np.load(tmp_path / "high.npz", allow_pickle=False) as file:
        assert sum(value.nbytes for value in file.values()) < 2 * sum(
            B.nbytes + A.nbytes for B, A in tasks[1].adapters_.values()
        )


def test_adapters_of_other_weights_are_refused(net):
    file = io.BytesIO()
    LowRankCompensator(FrozenEstimator(net), bits=2, rank=3).fit(DIGITS).save_adapters(file)

    def load(**params):
        file.seek(0)
        return LowRankCompensator(FrozenEstimator(net), rank=3, **params).fit(DIGITS).load_adapters(file)

    load(bits=2)
    with pytest.raises(ValueError, match="another compressed weight"):
        load(bits=3)
    with pytest.raises(ValueError, match="layers"):
        load(bits=2, modules="*")
    with pytest.raises(ValueError, match="merge"):
        load(bits=2, merge=True)
    file, model = io.BytesIO(), LowRankCompensator(FrozenEstimator(net), bits=2).fit(DIGITS)
    np.savez(file, a=np.ones(3))
    file.seek(0)
    with pytest.raises(ValueError, match="adapters"):
        model.load_adapters(file)
    with pytest.raises(NotFittedError):
        LowRankCompensator(FrozenEstimator(net)).save_adapters(file)


# Inside estimators


def test_a_compensated_network_trains_on(net):
    model = LowRankCompensator(FrozenEstimator(net), bits=2, rank=4, random_state=0).fit(DIGITS)
    tuned = model.estimator_
    codes = {name: value for name, value in tuned.weights_.items() if value.dtype == np.uint8}
    tuned.partial_fit(DIGITS, LABELS)
    assert all(np.array_equal(tuned.weights_[name], value) for name, value in codes.items())
    assert any(
        name.endswith(".A") and not np.array_equal(value, model.weights_[name])
        for name, value in tuned.weights_.items()
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        skorch = NeuralNetClassifier(mlp(64, 32, 10), criterion=nn.CrossEntropyLoss, max_epochs=3, verbose=0)
        skorch.fit(DIGITS, LABELS)
    model = LowRankCompensator(FrozenEstimator(skorch), bits=3, rank=4, random_state=0).fit(DIGITS)
    assert abs(model.score(DIGITS, LABELS) - skorch.score(DIGITS, LABELS)) < 0.02
    tuned = model.estimator_
    tuned.partial_fit(DIGITS, LABELS)
    assert not np.array_equal(tuned.module_.layer1.A.detach(), model.adapters_["layer1"][1])


def test_modules_are_exported_and_changed_again(net):
    rows = torch.from_numpy(DIGITS[:20])
    for params in ({"bits": 3}, {"compression": "prune"}):
        model = LowRankCompensator(net.network(), rank=4, random_state=0, **params).fit(DIGITS)
        module = model.network()
        exported = torch.export.export(module, (rows,)).module()
        with torch.inference_mode():
            torch.testing.assert_close(exported(rows), module(rows))
    small = LowRankCompressor(FrozenEstimator(net), rank=8).fit(DIGITS)
    model = LowRankCompensator(FrozenEstimator(small), bits=8, rank=2).fit(DIGITS)
    assert model.compression_ < 0.8
    assert model.output_relative_error_ < 1e-3
    with pytest.raises(ValueError, match="No layer"):  # all but the last one are compressed
        LowRankCompensator(FrozenEstimator(model)).fit(DIGITS)


def test_rows_blocks_and_precision_change_nothing(net, monkeypatch):
    options = {"bits": 2, "rank": 4, "n_calibration": None}
    model = LowRankCompensator(FrozenEstimator(net), **options).fit(DIGITS)
    turned = LowRankCompensator(FrozenEstimator(net), **options).fit(DIGITS[::-1])
    np.testing.assert_allclose(turned.predict_raw(DIGITS), model.predict_raw(DIGITS), atol=1e-3)
    monkeypatch.setattr(solver, "BLOCK", 1000)
    blocks = LowRankCompensator(FrozenEstimator(net), **options).fit(DIGITS)
    np.testing.assert_allclose(blocks.predict_raw(DIGITS), model.predict_raw(DIGITS), atol=1e-3)
    single, double = net.network(), net.network().double()
    found = [LowRankCompensator(module, **options).fit(DIGITS) for module in (single, double)]
    assert {value.dtype for value in found[1].weights_.values()} == {np.dtype("uint8"), np.dtype("float64")}
    np.testing.assert_allclose(found[0].predict_raw(DIGITS), found[1].predict_raw(DIGITS), atol=1e-3)
    rough = LowRankCompensator(net.network().bfloat16(), **options).fit(DIGITS)
    assert rough.nbytes_ < 0.6 * found[0].nbytes_
    assert rough.output_relative_error_ < 2 * found[0].output_relative_error_


def test_refusals(net):
    X = rows_with_a_mean(20, 6)
    one, two = nn.Linear(6, 5).double(), seeded(lambda: mlp(6, 5, 3))
    for module, params, words in (
        (one, {}, "last layer"),
        (one, {"modules": "*"}, "No layer"),
        (two, {"modules": "!layer1"}, "No layer"),
        (two, {"modules": "!nothing"}, "nothing"),
        (two, {"group_size": 5}, "group_size=5 does not divide the 6 inputs"),
        (two, {"compression": "prune_n_m", "m": 4}, "m=4 does not divide"),
        (two, {"compression": "prune_n_m", "n": 5}, "n=5 is above m=4"),
        (two, {"rank": "auto"}, "budget"),
        (two, {"rank": {"layer1": -1}}, "-1"),
        (two, {"rank": {"layer1": True}}, "True"),
        (two, {"rank": {"nothing": 2}}, "'nothing', which is not taken"),
    ):
        with pytest.raises(ValueError, match=words):
            LowRankCompensator(module, **params).fit(X)
    table = nn.Sequential(nn.Embedding(9, 4))
    with pytest.raises(ValueError, match="embedding"):
        LowRankCompensator(table, modules="0", compression=lambda W, moments: W).fit(np.arange(9))
    X[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        LowRankCompensator(two).fit(X)


@pytest.mark.cuda
def test_on_a_gpu(net):
    options = {"bits": 2, "rank": 4, "n_calibration": None}
    for params in ({}, {"rank": "auto", "budget": 0.1}, {"compression": "prune"}, {"adapter_bits": 8}, {"merge": True}):
        here, there = (
            LowRankCompensator(FrozenEstimator(net), device=device, **(options | params)).fit(DIGITS)
            for device in ("cpu", "cuda")
        )
        assert here.output_relative_error_ == pytest.approx(there.output_relative_error_, rel=1e-2)
        np.testing.assert_allclose(here.predict_proba(DIGITS), there.predict_proba(DIGITS), atol=1e-2)


def test_layers_without_a_path_and_files_without_adapters(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 16))
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.Linear(32, 2))
    model = LowRankCompensator(module, rank={"0": 3}, random_state=0).fit(x)
    assert {name: (B.shape, A.shape) for name, (B, A) in model.adapters_.items()} == {"0": ((32, 3), (3, 16))}
    np.save(tmp_path / "rows.npy", x)
    with pytest.raises(ValueError, match="no adapters"):
        model.load_adapters(tmp_path / "rows.npy")


@pytest.mark.parametrize("method", ["eigenspace", "activation_scale", "svd"])
def test_layers_that_rows_no_longer_reach_follow_their_weights(method):
    """Behind compensated layers rows may take other ways than in the network before."""
    layer = nn.Linear(8, 6)
    module = nn.Sequential(nn.Linear(8, 8), layer)
    module.forward = lambda x: module[0](x) + module[1](x[:0]).sum()
    held = hold(
        module, None, None, Randomness(torch.Generator().manual_seed(0), torch.device("cpu"), seeds_global=True)
    )
    calls = network_calls(held, np.eye(8, dtype=np.float32))
    options = solver.PathOptions(2, None, method, True, False, None)
    inputs = solver.inputs_of(module, calls, ["1"], options)["1"]
    D = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    U = solver.leading_directions(D, inputs, method, centred=True)[1]
    assert bool(U.isfinite().all())
    if method != "activation_scale":
        assert torch.allclose(U.abs(), torch.linalg.svd(D).U.abs(), atol=1e-6)


def test_lookups_of_a_table_are_summed_over_blocks():
    table = nn.Sequential(nn.Embedding(9, 4))
    rows = torch.arange(900).reshape(-1, 1) % 3
    found = solver.frequencies(table, Calls([((rows,), {})]), "0")
    torch.testing.assert_close(found.mean, torch.tensor([1 / 3] * 3 + [0.0] * 6, dtype=torch.float64))
    behind = nn.Sequential(nn.Linear(2, 3))  # whose pass does not reach the table
    behind.table = nn.Embedding(9, 4)
    behind.forward = lambda x: behind[0](x)
    assert not solver.frequencies(behind, Calls([((torch.ones(5, 2),), {})]), "table").mean.any()


def test_training_goes_on_without_a_rule_that_has_no_layer_left():
    rule = NetworkClassifier((16,), training=TrainedRankPruning(), max_iter=1, random_state=0).fit(DIGITS, LABELS)
    trained = LowRankCompensator(FrozenEstimator(rule), rank=2).fit(DIGITS).estimator_
    with pytest.raises(ValueError, match="train without a rule"):
        trained.partial_fit(DIGITS, LABELS)
    assert trained.set_params(training=None).partial_fit(DIGITS, LABELS).n_iter_ == 2
