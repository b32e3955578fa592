"""Layers of low rank: closed forms, ranks by budget, the pass through compressed layers, and networks of many kinds."""

import copy
import pickle
import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.base import is_classifier
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetRegressor
from torch import nn

from sklowrank._nets.holding import hold, network_calls
from sklowrank._nets.randomness import Randomness
from sklowrank.compress import LowRankCompressor, SecondOrderPruner
from sklowrank.compress._layer_pairs import (
    Pair,
    input_whitened,
    output_pca,
    pair_of,
    projected,
    seen_of,
    table_moments,
    weight_svd,
)
from sklowrank.compress._rank_budgets import Ladder, least_size, ranks_by_budget, ranks_by_number, size_of
from sklowrank.compress._split_attention import SplitAttention
from sklowrank.neural import NetworkClassifier, NetworkRegressor, OrderedRank, TrainedRankPruning

METHODS = ("output_pca", "input_whitened", "weight_svd")
X, y = load_digits(return_X_y=True)
X = X / 16
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, random_state=0, stratify=y)
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(300, 20)) * np.geomspace(3, 0.1, 20) + 1


@pytest.fixture(scope="module")
def network():
    params = {"max_iter": 15, "learning_rate": 2e-3, "tol": 0, "standardize": False, "random_state": 0}
    return NetworkClassifier((128, 128), **params).fit(X_train, y_train)


def seeded(function, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return function()


def mlp(*widths, dtype=torch.float64):
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).to(dtype)


def raw(module, rows):
    with torch.no_grad():
        return module(torch.as_tensor(rows)).numpy()


def relative(found, truth):
    return ((found - truth) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()


def calls_of(module, rows):
    randomness = Randomness(torch.Generator().manual_seed(0), torch.device("cpu"), seeds_global=True)
    return network_calls(hold(module, None, None, randomness), rows)


# Closed forms


@pytest.mark.parametrize("widths", [(20, 12), (12, 20)], ids=["wide inputs", "wide outputs"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_one_layer_is_the_optimum_of_each_method(widths, bias):
    """Against the formulas as they are written, of numpy."""
    layer = seeded(lambda: nn.Linear(*widths, bias=bias)).double()
    rows = ROWS[:, : widths[0]]
    W = layer.weight.detach().numpy()
    b = layer.bias.detach().numpy() if bias else np.zeros(widths[1])
    Y = rows @ W.T + b
    Q = np.linalg.eigh(np.cov(Y.T, bias=True))[1][:, -5:]
    T = np.linalg.cholesky(rows.T @ rows / len(rows))
    U, s, Vh = np.linalg.svd(W @ T)
    whitened = (U[:, :5] * s[:5]) @ Vh[:5] @ np.linalg.inv(T)
    u, s, vh = np.linalg.svd(W)
    expected = {
        "output_pca": (Y - Y.mean(0)) @ Q @ Q.T + Y.mean(0),
        "input_whitened": rows @ whitened.T + b,
        "weight_svd": rows @ ((u[:, :5] * s[:5]) @ vh[:5]).T + b,
    }
    for method, found in expected.items():
        model = LowRankCompressor(nn.Sequential(layer), rank=5, method=method, n_calibration=None).fit(rows)
        assert np.allclose(model.predict_raw(rows), found, rtol=1e-9, atol=1e-9)
        assert model.layer_report_[0]["rank"] == 5
        assert len(list(model.network()[0].parameters())) == (3 if bias or method == "output_pca" else 2)


def test_moments_of_inputs_and_of_products_give_the_same_directions():
    rows, weight = torch.from_numpy(ROWS), torch.from_numpy(RNG.normal(size=(8, 20)))
    net = nn.Sequential(nn.Linear(20, 8, bias=False)).double()
    net[0].weight.data = weight
    products = seen_of(net, calls_of(net, ROWS), ["0"], 64)["0"].moments
    tall = nn.Sequential(nn.Linear(20, 21, bias=False)).double()
    inputs = seen_of(tall, calls_of(tall, ROWS), ["0"], 64)["0"]
    assert inputs.of_inputs
    for method in (output_pca, input_whitened):
        a, b = method(products, weight), method(inputs.moments, weight, of_inputs=True)
        assert torch.allclose(a.values, b.values, rtol=1e-9)
        assert torch.allclose(a.vectors[:, :3] @ a.vectors[:, :3].T, b.vectors[:, :3] @ b.vectors[:, :3].T, atol=1e-7)
        assert torch.allclose(a.lost[[0, 8]], torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-12)
    assert torch.allclose(a.values.sum(), (rows @ weight.T).square().mean(0).sum())
    assert torch.allclose(weight_svd(weight).values.sum(), weight.square().sum())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(3, 12, 5, stride=2, padding=2), (40, 3, 15)),
        (nn.Conv2d(3, 12, 3, padding="same", padding_mode="reflect"), (40, 3, 6, 6)),
        (nn.Conv2d(1, 12, 3, padding=1), (40, 1, 6, 6)),  # inputs are narrower
        (nn.Conv3d(3, 12, (1, 2, 3), dilation=(1, 1, 2)), (20, 3, 3, 4, 7)),
    ],
)
def test_convolutions_reach_the_closed_form_at_every_position(layer, shape):
    layer = copy.deepcopy(layer).double()
    rows = np.cumsum(RNG.normal(size=shape), axis=-1)
    Y = np.moveaxis(raw(layer, rows), 1, -1).reshape(-1, 12)
    model = LowRankCompressor(nn.Sequential(layer), rank=3, batch_size=7).fit(rows)
    found = np.moveaxis(model.predict_raw(rows), 1, -1).reshape(-1, 12)
    least = np.linalg.eigvalsh(np.cov(Y.T, bias=True))[:-3].sum()
    assert np.isclose(((found - Y) ** 2).sum(1).mean(), least, rtol=1e-9)
    first, second = model.network()[0]
    assert type(first) is type(second) is type(layer)
    assert first.weight.shape == (3, *layer.weight.shape[1:])
    assert first.padding_mode == layer.padding_mode
    assert set(second.kernel_size) == {1}


def test_tables_are_fitted_to_what_is_looked_up():
    table = seeded(lambda: nn.Embedding(20_000, 16)).double()
    used = RNG.integers(20_000, size=5)
    ids = used[RNG.integers(5, size=(300, 2))]
    found = LowRankCompressor(table_net(table), rank=4, batch_size=7).fit(ids)
    assert relative(found.predict_raw(ids), raw(table_net(table), ids)) < 1e-15  # five points: four dimensions
    skewed = (20_000 * RNG.random((300, 2)) ** 8).astype(int)
    looked = raw(table, skewed).reshape(-1, 16)
    for size in (11, 300):
        out = LowRankCompressor(table_net(table), rank=6, batch_size=size).fit(skewed).predict_raw(skewed)
        least = np.linalg.eigvalsh(np.cov(looked.T, bias=True))[:-6].sum()
        assert np.isclose(((out.reshape(-1, 16) - looked) ** 2).sum(1).mean(), least, rtol=1e-9)
    counts = torch.bincount(torch.from_numpy(skewed).reshape(-1), minlength=20_000)
    assert torch.allclose(table_moments(table.weight, counts).mean, torch.from_numpy(looked.mean(0)))


def table_net(table):
    return nn.Sequential(table, nn.Flatten())


@pytest.mark.parametrize("method", METHODS)
def test_padding_still_adds_nothing(method):
    table = seeded(lambda: nn.Embedding(200, 16, padding_idx=3))
    ids = RNG.integers(200, size=(60, 4))
    ids[:, 3] = 3
    model = LowRankCompressor(table_net(table), rank=6, method=method).fit(ids)
    pair = model.network()[0]
    assert pair[0].padding_idx == 3
    assert pair[1].bias is None
    assert not model.predict_raw(np.full((1, 4), 3)).any()
    assert model.output_relative_error_ < 0.6


def test_directions_that_rows_do_not_show_follow_the_weight():
    """Two rows say one direction of outputs; whichever way they are ordered, the others are those of the weight."""
    layer = seeded(lambda: nn.Linear(20, 12)).double()
    few, new = ROWS[:2], ROWS[50:]
    models = [LowRankCompressor(nn.Sequential(layer), rank=7).fit(rows) for rows in (few, few[::-1].copy())]
    a, b = (model.predict_raw(new) for model in models)
    assert np.allclose(a, b, rtol=1e-5, atol=1e-5)
    assert np.allclose(models[0].predict_raw(few), raw(layer, few))
    dead = nn.Sequential(copy.deepcopy(layer))
    dead[0].weight.data[:9] = 0
    for method in METHODS:
        model = LowRankCompressor(dead, rank=5, method=method).fit(ROWS)
        assert np.allclose(model.predict_raw(ROWS), raw(dead, ROWS))
        constant = LowRankCompressor(nn.Sequential(layer), rank=5, method=method).fit(np.ones((30, 20)))
        assert np.isfinite(constant.predict_raw(ROWS)).all()
        assert constant.layer_report_[0]["explained"] <= 1


def test_a_pair_shows_the_product_that_it_is():
    layer = seeded(lambda: nn.Conv2d(3, 8, 3, padding=1)).double()
    vectors = torch.linalg.qr(torch.from_numpy(RNG.normal(size=(8, 8)))).Q
    full = pair_of(layer, projected(layer.weight.detach().flatten(1), layer.bias, vectors))
    assert torch.allclose(full.weight, layer.weight)
    assert torch.allclose(full.bias, layer.bias)
    table = nn.Embedding(9, 8).double()
    mean = table.weight.detach().mean(0)
    shown = pair_of(table, projected(table.weight.detach().T, None, vectors, mean)).weight
    assert torch.allclose(shown, table.weight)
    assert type(full[:1]) is Pair


# Ranks


def ladder(n_out, n_in, values, bias=True):
    lost = torch.cat([torch.tensor(values).flip(0).cumsum(0).flip(0), torch.zeros(1)])
    return Ladder(n_out * n_in + n_out * bias, n_in + n_out, n_out * bias, (lost / lost[0]).double())


def test_ranks_that_do_not_pay_leave_a_layer():
    square = ladder(8, 8, np.ones(8))
    assert square.top == 3  # 3 (8 + 8) + 8 < 72, 4 (8 + 8) + 8 = 72
    assert ranks_by_number({"a": square}, 3) == {"a": 3}
    assert ranks_by_number({"a": square}, 4) == {"a": None}
    assert ranks_by_number({"a": square}, 0.25) == {"a": 2}
    assert ranks_by_number({"a": square}, 1.0) == {"a": None}
    narrow = ladder(1, 8, np.ones(1))
    assert narrow.top == 0
    assert least_size({"a": square, "b": narrow}) == 16 + 8 + 9


def test_greedy_is_the_best_of_all_ranks_on_small_ladders():
    """Enumeration: at sizes that greedy reaches there is no better choice; the budget is used as far as it goes."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        ladders = {
            name: ladder(*shape, np.sort(rng.exponential(size=min(shape)) ** 3)[::-1].copy())
            for name, shape in {"a": (6, 6), "b": (10, 5), "c": (4, 12)}.items()
        }
        options = [[None, *range(1, part.top + 1)] for part in ladders.values()]
        every = [dict(zip(ladders, ranks)) for ranks in np.array(np.meshgrid(*options)).T.reshape(-1, 3).tolist()]

        def lost(ranks, ladders=ladders):
            return sum(0.0 if r is None else float(ladders[name].lost[r]) for name, r in ranks.items())

        for budget in range(least_size(ladders), size_of(ladders, dict.fromkeys(ladders)), 7):
            found = ranks_by_budget(ladders, budget, "greedy")
            size = size_of(ladders, found)
            assert size <= budget
            better = [ranks for ranks in every if size_of(ladders, ranks) <= size and lost(ranks) < lost(found) - 1e-12]
            slack = min(part.n_per_rank for part in ladders.values())
            assert not better or lost(found) - min(map(lost, better)) < 0.15 or size > budget - slack


@pytest.mark.parametrize("allocation", ["greedy", "energy", "uniform"])
def test_budgets_are_kept_and_used(network, allocation):
    smallest = None
    for budget in (0.6, 0.3, 0.12):
        model = LowRankCompressor(FrozenEstimator(network), compression=budget, allocation=allocation).fit(
            X_train[:200]
        )
        assert model.compression_ <= budget
        assert model.compression_ == sum(v.size for v in model.weights_.values()) / model.n_parameters_before_
        if allocation == "greedy":
            assert model.compression_ > budget - 0.02
        smallest = model
    with pytest.raises(ValueError, match=r"compression=0.001 cannot be reached: .* it is 0.0"):
        smallest.set_params(compression=0.001).fit(X_train[:50])


def test_greedy_loses_less_than_the_others(network):
    errors = {
        kind: LowRankCompressor(FrozenEstimator(network), compression=0.3, allocation=kind)
        .fit(X_train[:300])
        .output_relative_error_
        for kind in ("greedy", "energy", "uniform")
    }
    assert errors["greedy"] < errors["energy"] < errors["uniform"]


def test_tolerance_bounds_the_loss_on_the_rows(network):
    frozen, rows, target = FrozenEstimator(network), X_train[:300], y_train[:300]
    scored = LowRankCompressor(frozen, tolerance=0.01).fit(rows, target)
    assert network.score(rows, target) - scored.score(rows, target) <= 0.01 + 1e-12
    assert scored.compression_ < 0.4
    unlabelled = LowRankCompressor(frozen, tolerance=0.01).fit(rows)
    assert unlabelled.output_relative_error_ <= 0.01
    smaller = LowRankCompressor(frozen, compression=0.9 * unlabelled.compression_).fit(rows)
    assert smaller.output_relative_error_ > 0.01
    exact = LowRankCompressor(frozen, tolerance=0.0).fit(rows)
    assert exact.compression_ == 1.0
    assert np.allclose(exact.predict_proba(X_test), network.predict_proba(X_test), rtol=1e-4)


# The pass


def test_each_layer_is_fitted_to_what_reaches_it():
    """Principal components of each layer's outputs on inputs that have passed those before: ten lines of numpy."""
    deep = seeded(lambda: mlp(20, 30, 30, 30, 4))
    for sequential in (True, False):
        H = clean = ROWS
        for i in (0, 2, 4):
            W, b = (p.detach().numpy() for p in deep[i].parameters())
            Y, seen = H @ W.T + b, (H if sequential else clean) @ W.T + b
            Q, mean = np.linalg.eigh(np.cov(seen.T))[1][:, -6:], seen.mean(0)
            H, clean = np.maximum((Y - mean) @ Q @ Q.T + mean, 0), np.maximum(clean @ W.T + b, 0)
        W, b = (p.detach().numpy() for p in deep[6].parameters())
        model = LowRankCompressor(deep, rank=6, exclude="6", sequential=sequential, batch_size=64).fit(ROWS)
        assert np.allclose(model.predict_raw(ROWS), H @ W.T + b, atol=1e-8)


def test_outputs_are_kept_better_than_by_the_weights(network):
    errors = {
        method: relative(
            LowRankCompressor(FrozenEstimator(network), rank=4, method=method, exclude="*4")
            .fit(X_train[:300])
            .predict_raw(X_test),
            LowRankCompressor(FrozenEstimator(network), rank=1.0).fit(X_train[:300]).predict_raw(X_test),
        )
        for method in METHODS
    }
    assert errors["output_pca"] < 0.4 * errors["weight_svd"]
    assert errors["input_whitened"] < 0.4 * errors["weight_svd"]


def test_rows_batches_and_precision_change_nothing_beyond_rounding():
    deep = seeded(lambda: mlp(20, 30, 30, 4))
    first = LowRankCompressor(deep, rank=5).fit(ROWS).predict_raw(ROWS)
    assert np.allclose(LowRankCompressor(deep, rank=5, batch_size=7).fit(ROWS).predict_raw(ROWS), first, rtol=1e-9)
    assert np.allclose(LowRankCompressor(deep, rank=5).fit(ROWS[::-1].copy()).predict_raw(ROWS), first, rtol=1e-9)
    single = copy.deepcopy(deep).float()
    assert np.allclose(LowRankCompressor(single, rank=5).fit(ROWS).predict_raw(ROWS), first, atol=1e-4)
    for power in (1e-20, 1e20):
        scaled = copy.deepcopy(deep)
        for layer in scaled[::2]:
            layer.bias.data *= power
        found = LowRankCompressor(scaled, rank=5).fit(power * ROWS).predict_raw(power * ROWS)
        assert np.allclose(found / power, first, rtol=1e-7)


# Networks of many kinds


class Many(nn.Module):
    """Batch norm, dropout, a residual block, a layer used twice, convolutions in groups, and a padded table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(30, 24, padding_idx=0)
        self.conv = nn.Conv1d(24, 32, 3, padding=1)
        self.norm, self.drop = nn.BatchNorm1d(32), nn.Dropout(0.5)
        self.depthwise, self.grouped = nn.Conv1d(32, 32, 3, padding=1, groups=32), nn.Conv1d(32, 32, 1, groups=4)
        self.twice, self.lstm = nn.Linear(32, 32), nn.LSTM(32, 16, batch_first=True)
        self.shared, self.shared_too = nn.Linear(16, 16), nn.Linear(16, 16)
        self.shared_too.weight = self.shared.weight
        self.output = nn.Linear(16, 12)

    def forward(self, ids):
        x = self.drop(torch.relu(self.norm(self.conv(self.table(ids).transpose(1, 2)))))
        x = self.grouped(torch.relu(self.depthwise(x))).transpose(1, 2)
        x = x + self.twice(torch.relu(self.twice(x)))
        x = self.lstm(x)[0].mean(1)
        return self.output(torch.relu(self.shared_too(torch.relu(self.shared(x)))))


def test_layers_of_many_kinds_are_taken_or_left():
    net = seeded(Many).train()
    ids = RNG.integers(30, size=(150, 7))
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    with pytest.warns(UserWarning, match="tied weights .*: shared, shared_too"):
        model = LowRankCompressor(net, rank=4).fit(ids)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [row["name"] for row in model.layer_report_] == ["table", "conv", "twice", "output"]
    assert [row["rank"] for row in model.layer_report_] == [4, 4, 4, 4]
    small = model.network()
    for name in ("norm", "depthwise", "grouped", "lstm", "shared"):
        for a, b in zip(small.get_submodule(name).state_dict().values(), net.get_submodule(name).state_dict().values()):
            assert torch.equal(a, b)
    assert small.shared.weight is small.shared_too.weight
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in small.modules())
    assert model.n_parameters_ < model.n_parameters_before_
    assert np.array_equal(LowRankCompressor(small, rank=1.0).fit(ids).predict_raw(ids), model.predict_raw(ids))
    assert LowRankCompressor(net, rank=0.99, modules="twice").fit(ids).layer_report_[0]["rank"] is None


def test_what_holds_no_layer_to_be_taken_is_named():
    rows = RNG.normal(size=(20, 5, 8)).astype(np.float32)
    with pytest.raises(ValueError, match=r"No layer is left .* 0 \(LSTM\)"):
        LowRankCompressor(nn.Sequential(nn.LSTM(8, 16)), rank=2).fit(rows)
    with pytest.raises(ValueError, match="single Linear layer"):
        LowRankCompressor(nn.Linear(8, 16), rank=2).fit(rows[:, 0])
    net = nn.Sequential(nn.Conv1d(5, 60, 3, groups=5), nn.Flatten(), nn.Linear(360, 2))
    with pytest.raises(ValueError, match=r"Left as they are: 0 \(Conv1d, 240 parameters\)"):
        LowRankCompressor(net, compression=0.01).fit(rows)
    rows[3, 2, 1] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity for 1 of 20 rows"):
        LowRankCompressor(net).fit(rows)


class Encoder(nn.Module):
    def __init__(self, n_layers=2, **params):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True, **params)
        self.encoder, self.output = nn.TransformerEncoder(layer, n_layers), nn.Linear(16, 12)

    def forward(self, x, mask=None):
        x = self.encoder(x, src_key_padding_mask=mask)
        kept = torch.ones_like(x[..., 0]) if mask is None else (~mask).to(x)
        return self.output((x * kept[..., None]).sum(1) / kept.sum(1, keepdim=True))


@pytest.mark.parametrize("split", [False, True])
def test_encoders_of_torch_call_their_pairs_in_every_mode(split):
    net, rows = seeded(Encoder).eval(), RNG.normal(size=(64, 5, 16)).astype(np.float32)
    model = LowRankCompressor(net, rank=0.75, split_attention=split).fit(rows)
    small, called = model.network(), []
    pair = small.encoder.layers[1].linear1
    assert isinstance(pair, Pair)
    pair.register_forward_hook(lambda *_: called.append(1))
    assert np.allclose(raw(small, rows), model.predict_raw(rows), atol=1e-6)
    assert called
    assert relative(model.predict_raw(rows), raw(net, rows)) < 0.2
    assert any(".self_attn." in row["name"] for row in model.layer_report_) == split
    mask = torch.from_numpy(RNG.random((64, 5)) < 0.3)
    mask[:, 0] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nested tensors
        masked = net(torch.from_numpy(rows), mask), small(torch.from_numpy(rows), mask)
    assert relative(masked[1].detach().numpy(), masked[0].detach().numpy()) < 0.3


@pytest.mark.parametrize("params", [{}, {"batch_first": True}, {"kdim": 6, "vdim": 10}, {"bias": False}])
def test_split_attention_is_torchs(params):
    attention = seeded(lambda: nn.MultiheadAttention(8, 2, **params)).eval()
    split = SplitAttention(attention)
    query, key, value = (torch.randn(3, 3, width, generator=torch.Generator().manual_seed(1)) for width in (8, 8, 8))
    key, value = key[..., : params.get("kdim", 8)], torch.cat([value, value], 2)[..., : params.get("vdim", 8)]
    padding = torch.tensor([[False, False, True], [False] * 3, [False, True, False]])
    forbidden = torch.ones(3, 3).triu(1).bool()
    for need in (True, False):
        for how in ({}, {"key_padding_mask": padding}, {"attn_mask": forbidden}, {"attn_mask": -forbidden.float()},
                    {"attn_mask": forbidden.expand(6, 3, 3), "key_padding_mask": padding}):  # fmt: skip
            for found, expected in zip(split(query, key, value, need_weights=need, **how),
                                       attention(query, key, value, need_weights=need, **how)):  # fmt: skip
                assert (found is None) == (expected is None)
                if found is not None:
                    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    alone = split(query[0], key[0], value[0], average_attn_weights=False)
    for found, expected in zip(alone, attention(query[0], key[0], value[0], average_attn_weights=False)):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    own = nn.TransformerEncoderLayer(8, 2, 16)
    own.self_attn = nn.MultiheadAttention(8, 2, add_bias_kv=True)
    model = LowRankCompressor(own, rank=2, split_attention=True).fit(np.ones((4, 3, 8)))
    assert [row["name"] for row in model.layer_report_] == ["linear1", "linear2"]


# What users have


def test_estimators_keep_their_manners_and_train_on(network):
    model = LowRankCompressor(FrozenEstimator(network), rank=10).fit(X_train[:200])
    assert is_classifier(model)
    assert list(model.classes_) == list(range(10))
    assert model.n_features_in_ == 64
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(X_test), model.predict_proba(X_test))
    small = model.estimator_
    assert small.n_parameters_ == model.n_parameters_
    trained = small.partial_fit(X_train, y_train)
    assert trained.score(X_test, y_test) >= model.score(X_test, y_test) - 0.02
    assert trained.n_parameters_ == model.n_parameters_
    frame = model.layer_report_.to_frame()
    assert frame["n_parameters"].sum() < frame["n_parameters_before"].sum()
    assert "rank" in model.layer_report_._repr_html_()


def test_what_is_compressed_can_be_compressed_again_and_pruned(network):
    once = LowRankCompressor(FrozenEstimator(network), compression=0.6).fit(X_train[:300])
    twice = LowRankCompressor(FrozenEstimator(once), compression=0.6).fit(X_train[:300])
    assert twice.n_parameters_ <= 0.6 * once.n_parameters_
    assert twice.output_relative_error_ < 0.05
    assert twice.score(X_test, y_test) > 0.93
    pruner = SecondOrderPruner(FrozenEstimator(once), sparsity=0.3, n_grads=50, n_recompute=1, random_state=0)
    assert pruner.fit(X_train, y_train).score(X_test, y_test) > 0.9
    assert pruner.n_parameters_ == once.n_parameters_
    bare = LowRankCompressor(network.network(), rank=20).fit(X_train[:100])
    again = LowRankCompressor(FrozenEstimator(bare), rank=1.0).fit(X_train[:100])
    assert np.allclose(again.predict_raw(X_test), bare.predict_raw(X_test), atol=1e-5)


def test_pipelines_regressors_and_searches():
    values = X_train @ RNG.normal(size=64)
    net = make_pipeline(StandardScaler(), NetworkRegressor((64, 64), max_iter=10, tol=0, random_state=0))
    net.fit(X_train, values)
    model = LowRankCompressor(FrozenEstimator(net), compression=0.5).fit(X_train[:200])
    assert abs(model.score(X_train, values) - net.score(X_train, values)) < 0.05
    unfitted = LowRankCompressor(NetworkRegressor((32, 32), max_iter=10, tol=0, random_state=0), rank=4)
    search = GridSearchCV(unfitted, {"rank": [1, 8]}, cv=2).fit(X_train[:200], values[:200])
    assert search.best_params_ == {"rank": 8}
    with torch.random.fork_rng():
        skorch = NeuralNetRegressor(mlp(64, 32, 32, 1, dtype=torch.float32), train_split=None, max_epochs=2, verbose=0)
        skorch.fit(X_train.astype(np.float32), values[:, None].astype(np.float32))
    found = LowRankCompressor(FrozenEstimator(skorch), tolerance=0.05).fit(X_train.astype(np.float32), values)
    drop = skorch.score(X_train.astype(np.float32), values) - found.score(X_train.astype(np.float32), values)
    assert drop <= 0.05 + 1e-6


def test_parameters_that_exclude_each_other_are_refused(network):
    with pytest.raises(ValueError, match=r"rank=3 and tolerance=0.1"):
        LowRankCompressor(FrozenEstimator(network), rank=3, tolerance=0.1).fit(X_train)
    with pytest.raises(ValueError, match="none'"):
        LowRankCompressor(FrozenEstimator(network), modules="none").fit(X_train)


@pytest.mark.cuda
def test_a_gpu_gives_the_same_network(network):
    models = [
        LowRankCompressor(FrozenEstimator(network), compression=0.3, device=device).fit(X_train[:200])
        for device in ("cpu", "cuda")
    ]
    assert [row["rank"] for row in models[0].layer_report_] == [row["rank"] for row in models[1].layer_report_]
    assert np.allclose(models[0].predict_proba(X_test), models[1].predict_proba(X_test), atol=1e-3)


class Routed(nn.Module):
    """Rows take one of two ways; the third is never taken."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 3)
        self.ways = nn.ModuleList([nn.Linear(32, 32) for _ in range(3)])

    def forward(self, x):
        h, way = self.first(x).relu(), (x[:, 0] > 0).long()
        out = torch.zeros_like(h)
        for at, layer in enumerate(self.ways):
            out[way == at] = layer(h[way == at])
        return self.last(out.reshape(-1, self.ways[0].in_features))


def test_rows_that_take_several_ways_and_sizes_that_are_read():
    x = np.random.default_rng(0).normal(size=(40, 16))
    for rows in (x, x[x[:, 0].argsort()]):
        model = LowRankCompressor(Routed(), rank=4).fit(rows)
        assert [row["name"] for row in model.layer_report_] == ["first", "ways.0", "ways.1", "last"]
        assert np.isfinite(model.predict_raw(rows)).all()


def test_networks_with_pairs_are_scripted():
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32))
    x = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    network = LowRankCompressor(module, rank=4).fit(x).network()
    assert torch.equal(torch.jit.script(network)(x), network(x))


# Networks that have a low rank already


@pytest.mark.parametrize(
    "rule", [TrainedRankPruning(period=5, nuclear_weight=1e-2), OrderedRank()], ids=["trp", "ordered"]
)
def test_layers_of_low_rank_get_a_lower_one(rule):
    thin = NetworkClassifier((64, 64), training=rule, max_iter=8, tol=0, standardize=False, random_state=0)
    thin = thin.fit(X_train, y_train)
    assert any("down" in name for name in thin.weights_)
    share = 0.9 if thin.n_parameters_ < thin.n_dense_parameters_ else 0.6
    small = LowRankCompressor(FrozenEstimator(thin), compression=share, random_state=0).fit(X_train)
    assert small.n_parameters_before_ == thin.n_parameters_
    assert small.n_parameters_ == sum(p.numel() for p in small.network().parameters()) <= share * thin.n_parameters_
    report = small.layer_report_.to_frame()
    assert report["name"].tolist() == ["0", "2", "4"]
    assert report["n_parameters"].sum() == small.n_parameters_
    assert report["n_parameters_before"].sum() == thin.n_parameters_
    assert small.score(X_test, y_test) > thin.score(X_test, y_test) - 0.05
    assert pickle.loads(pickle.dumps(small)).score(X_test, y_test) == small.score(X_test, y_test)


def test_a_compressed_network_is_compressed_further_as_from_its_products(network):
    once = LowRankCompressor(FrozenEstimator(network), rank=12, random_state=0).fit(X_train)
    twice = LowRankCompressor(FrozenEstimator(once), rank=6, random_state=0).fit(X_train)
    named = {row["name"]: row["rank"] for row in twice.layer_report_}
    assert named["0"] == named["2"] == 6
    assert not any(name.startswith(("0.0.", "2.0.")) and name.count(".") > 2 for name in twice.weights_)
    kept = LowRankCompressor(FrozenEstimator(once), rank=12, random_state=0).fit(X_train)
    assert kept.n_parameters_ == kept.n_parameters_before_ == once.n_parameters_
    assert np.array_equal(kept.predict_raw(X_test), once.predict_raw(X_test))
    left = LowRankCompressor(FrozenEstimator(once), rank=6, exclude="0", random_state=0).fit(X_train)
    assert np.array_equal(left.weights_["0.0.weight"], once.weights_["0.0.weight"])
