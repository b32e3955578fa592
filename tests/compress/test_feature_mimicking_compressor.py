"""Tables by traffic, what is fused and what is not, activations between layers, and the training."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import train_test_split
from skorch import NeuralNetBinaryClassifier
from torch import nn

from sklowrank._nets.calls import Calls
from sklowrank._nets.pairs import Pair
from sklowrank.compress import FeatureMimickingCompressor, LowRankCompressor
from sklowrank.compress._feature_mimicking_compressor_solver import activation_start
from sklowrank.compress._fused_tables import Field, readers_of
from sklowrank.neural import NetworkClassifier, NetworkRegressor

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, test_size=0.4, random_state=0, stratify=y)
RNG = np.random.default_rng(0)
IDS = np.c_[RNG.integers(0, 60, 800), (60 * RNG.random(800) ** 3).astype(np.int64)]


def seeded(function, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return function()


class Tables(nn.Module):
    """Two tables and two dense layers; `how` says what is between."""

    def __init__(self, how="cat", **params):
        super().__init__()
        self.how = how
        self.user, self.item = nn.Embedding(60, 12, **params), nn.Embedding(60, 12)
        self.hidden, self.middle, self.output = nn.Linear(24, 32), nn.Linear(32, 32), nn.Linear(32, 1)

    def forward(self, x):
        u, v = self.user(x[:, 0]), self.item(x[:, 1])
        more = 0.0
        if self.how == "stack":
            z = torch.stack([u, v], dim=1).flatten(1)
        elif self.how == "view":
            z = torch.cat([u[:, None], v[:, None]], 1).view(x.size(0), -1)
        elif self.how == "sizes":
            z = torch.cat([u, v], 1).view(-1, 24)
        elif self.how == "activation":
            z = torch.relu(torch.cat([u, v], 1))
        elif self.how == "product":
            z, more = torch.cat([u, v], 1), (u * v).sum(1, keepdim=True)
        elif self.how == "branch":
            z = torch.cat([u, v] if float(u.sum()) < 1e9 else [v, u], 1)
        else:
            z = torch.cat([u, v], dim=-1)
        return self.output(torch.relu(self.middle(torch.relu(self.hidden(z))))) + more


def tables(how="cat", **params):
    return seeded(lambda: Tables(how, **params)).double()


@pytest.fixture(scope="module")
def network():
    params = {"max_iter": 15, "learning_rate": 2e-3, "tol": 0, "standardize": False, "random_state": 0}
    return NetworkClassifier((96, 96, 96), **params).fit(X_train, y_train)


def raw(module, rows):
    with torch.no_grad():
        return module(torch.as_tensor(rows)).numpy()


def relative(found, truth):
    return ((found - truth) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()


# Tables


def test_tables_are_fitted_to_traffic():
    """Against numpy: the leading directions of the covariance of what is looked up; unused rows are projected."""
    net = tables()
    model = FeatureMimickingCompressor(net, embedding_rank=3, linear_rank=None, fuse=False, batch_size=64).fit(IDS)
    table = net.item.weight.detach().numpy()
    looked = table[IDS[:, 1]]
    mean, U = looked.mean(0), np.linalg.eigh(np.cov(looked.T, bias=True))[1][:, -3:]
    found = model.network().item
    assert [type(part) for part in found] == [nn.Embedding, nn.Linear]
    expected = (table - mean) @ U @ U.T + mean
    assert np.allclose(raw(found, np.arange(60)), expected, rtol=1e-9, atol=1e-9)
    assert np.isclose(
        model.layer_report_[1]["explained"],
        1 - ((looked - expected[IDS[:, 1]]) ** 2).sum() / ((looked - mean) ** 2).sum(),
    )


@pytest.mark.parametrize("how", ["cat", "stack", "view"])
@pytest.mark.parametrize("params", [{}, {"padding_idx": 0}], ids=["", "padding"])
def test_maps_behind_tables_become_part_of_the_layer_that_reads_them(how, params):
    net = tables(how, **params)
    fused, apart = (FeatureMimickingCompressor(net, embedding_rank=3, fuse=fuse).fit(IDS) for fuse in (True, False))
    assert np.allclose(fused.predict_raw(IDS), apart.predict_raw(IDS), rtol=1e-9, atol=1e-9)
    small = fused.network()
    assert type(small.user) is type(small.item) is nn.Embedding
    assert small.hidden.in_features == 6
    assert small.user.padding_idx == params.get("padding_idx")
    assert fused.n_parameters_ == apart.n_parameters_ - 2 * (12 * 3) - 12 * (2 - bool(params)) - 32 * (24 - 6)
    if params:
        assert not small.user.weight[0].any()


@pytest.mark.parametrize("how", ["sizes", "activation", "product", "branch"])
def test_nothing_is_fused_where_something_else_is_between(how):
    net = tables(how)
    fused, apart = (FeatureMimickingCompressor(net, embedding_rank=3, fuse=fuse).fit(IDS) for fuse in (True, False))
    assert fused.network().hidden.in_features == 24
    assert np.array_equal(fused.predict_raw(IDS), apart.predict_raw(IDS))


@pytest.mark.parametrize("how", ["stack", "view"])
@pytest.mark.parametrize(
    "params", [{"embedding_rank": 3, "exclude": "user"}, {"compression": 0.7}, {"compression": 0.4}], ids=str
)
def test_stacked_tables_are_fused_only_where_all_have_the_same_width(how, params):
    """Tables of other ranks, or one that stays, cannot be stacked without the maps behind them."""
    net = tables(how)
    rows = np.c_[IDS[:, 0] % 5, IDS[:, 1]]  # of the first table few rows are looked up: it gets a lower rank
    fused, apart = (FeatureMimickingCompressor(net, fuse=fuse, **params).fit(rows) for fuse in (True, False))
    assert fused.network().hidden.in_features == 24
    assert np.array_equal(fused.predict_raw(rows), apart.predict_raw(rows))
    assert fused.compression_ <= params.get("compression", 1)


def test_an_activation_starts_where_inputs_of_some_units_are_constant_but_for_rounding():
    rows = np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 1e-8, 0.0]
    for activation in ("silu", "tanh"):
        shift, scale = activation_start(torch.from_numpy(rows), activation, torch.float32)
        assert scale.min() > 0.1
        assert shift.isfinite().all()


def test_tables_and_layers_that_are_used_twice_are_not_fused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.item, self.output = nn.Embedding(60, 12), nn.Linear(24, 2)

        def forward(self, x):
            return self.output(torch.cat([self.item(x[:, 0]), self.item(x[:, 1])], 1))

    model = FeatureMimickingCompressor(seeded(Twice), embedding_rank=3).fit(IDS)
    assert model.network().output.in_features == 24


def test_fields_of_one_table_are_read_in_their_order():
    """A table of several columns, beside numbers that are of no table."""

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.item, self.output = nn.Embedding(60, 4), nn.Linear(11, 2)

        def forward(self, x, numbers):
            return self.output(torch.cat([numbers, self.item(x).flatten(1)], dim=1))

    net, numbers = seeded(Wide), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    calls = Calls([((torch.as_tensor(IDS[:5]),), {"numbers": numbers})])
    (reader,) = readers_of(net, calls, ["item"])
    assert reader.fields == [Field(None, 3), Field("item", 4), Field("item", 4)]


def test_a_first_layer_is_compressed_behind_fused_tables():
    net = tables()
    model = FeatureMimickingCompressor(net, embedding_rank=3, linear_rank=2, first_layer=True, last_layer=True).fit(IDS)
    assert [row["name"] for row in model.layer_report_] == ["user", "item", "hidden", "middle", "output"]
    assert model.layer_report_[2]["shape"] == (32, 24)
    assert model.network().hidden[0].weight.shape == (2, 6)
    assert model.layer_report_[4]["rank"] is None  # one output: a pair would be larger
    assert model.n_parameters_ == sum(p.numel() for p in model.network().parameters())


# Ranks


def test_full_ranks_and_dense_layers_answer_as_before():
    net = tables()
    model = FeatureMimickingCompressor(net, embedding_rank=12, linear_rank=1.0).fit(IDS)
    assert model.compression_ == 1
    assert np.array_equal(model.predict_raw(IDS), raw(net, IDS))


def test_dense_layers_are_those_of_the_compressor_without_training(network):
    ours = FeatureMimickingCompressor(FrozenEstimator(network), linear_rank=8, first_layer=True, last_layer=True)
    theirs = LowRankCompressor(FrozenEstimator(network), rank=8, n_calibration=None)
    ours, theirs = ours.fit(X_train), theirs.fit(X_train)
    assert ours.n_iter_ == 0
    assert not ours.loss_curve_
    assert np.allclose(ours.predict_raw(X_test), theirs.predict_raw(X_test), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("share", [0.7, 0.9])
def test_budgets_are_kept_and_used(fuse, share):
    model = FeatureMimickingCompressor(tables(), compression=share, fuse=fuse).fit(IDS)
    step = max(60 + 32, 64)  # parameters of one more rank
    assert model.compression_ <= share
    assert model.n_parameters_ + step > share * model.n_parameters_before_
    with pytest.raises(ValueError, match=r"compression=0.01 cannot be reached"):
        FeatureMimickingCompressor(tables(), compression=0.01, fuse=fuse).fit(IDS)


def test_rows_that_are_drawn_are_fitted_to():
    net, drawn = tables(), []
    for seed in (0, 0, 1):
        model = FeatureMimickingCompressor(net, embedding_rank=3, n_calibration=50, random_state=seed).fit(IDS)
        drawn.append(model.predict_raw(IDS))
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


@pytest.mark.parametrize("activation", [None, "silu"])
def test_the_order_of_rows_and_the_size_of_batches_do_not_matter_before_training(activation):
    net, order = tables(), np.random.default_rng(1).permutation(len(IDS))
    found = [
        FeatureMimickingCompressor(net, inner_activation=activation, batch_size=size).fit(rows).predict_raw(IDS)
        for rows, size in ((IDS, 1024), (IDS, 37), (IDS[order], 1024))
    ]
    assert np.allclose(found[0], found[1], rtol=1e-8, atol=1e-9)
    assert np.allclose(found[0], found[2], rtol=1e-8, atol=1e-9)


# Activations


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
def test_activations_start_close_to_none(activation):
    """At any scale of what is between, and where it is constant."""
    rows = torch.from_numpy(RNG.normal(size=(2000, 4)) * [1e-8, 1, 1e6, 0] + 3)
    shift, scale = activation_start(rows, activation)
    act = {"relu": torch.relu, "tanh": torch.tanh, "silu": nn.functional.silu}[activation]
    found = scale * act((rows - shift) / scale) + shift
    assert found.isfinite().all()
    assert ((found - rows).square().sum(0)[:3] / (rows - rows.mean(0)).square().sum(0)[:3]).max() < 0.03
    assert (found - rows)[:, 3].abs().max() < 1e-6


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu"])
def test_networks_with_activations_start_close_and_are_tuned(network, activation):
    frozen = FrozenEstimator(network)
    how = {"linear_rank": 12, "inner_activation": activation, "random_state": 0}
    start = FeatureMimickingCompressor(frozen, max_iter=0, **how).fit(X_train)
    plain = FeatureMimickingCompressor(frozen, linear_rank=12).fit(X_train)
    assert start.output_relative_error_ < plain.output_relative_error_ + 0.1
    assert start.n_parameters_ == plain.n_parameters_ + 2 * 12
    tuned = FeatureMimickingCompressor(frozen, batch_size=64, **how).fit(X_train, y_train)
    assert tuned.n_iter_ == len(tuned.loss_curve_) == 3
    assert tuned.score(X_test, y_test) >= start.score(X_test, y_test) - 0.01


# Training


def test_training_gains_what_one_shot_loses_and_keeps_the_best_epoch(network):
    frozen = FrozenEstimator(network)
    shot = FeatureMimickingCompressor(frozen, linear_rank=3, max_iter=0).fit(X_train, y_train)
    how = {"linear_rank": 3, "max_iter": 10, "batch_size": 64, "random_state": 0}
    tuned = FeatureMimickingCompressor(frozen, **how).fit(X_train, y_train)
    assert tuned.score(X_test, y_test) > shot.score(X_test, y_test) + 0.1
    wild = FeatureMimickingCompressor(frozen, **{**how, "max_iter": 2}, learning_rate=10.0).fit(X_train, y_train)
    assert np.array_equal(wild.predict_raw(X_test), shot.predict_raw(X_test))
    assert wild.n_iter_ == 2


def test_outputs_alone_are_mimicked_without_labels(network):
    how = {"linear_rank": 3, "max_iter": 5, "batch_size": 64, "random_state": 0}
    alone = FeatureMimickingCompressor(FrozenEstimator(network), **how).fit(X_train)
    same = FeatureMimickingCompressor(FrozenEstimator(network), **how, distillation=1).fit(X_train, y_train)
    start = FeatureMimickingCompressor(FrozenEstimator(network), linear_rank=3).fit(X_train)
    assert alone.output_relative_error_ < 0.9 * start.output_relative_error_
    assert np.isclose(same.output_relative_error_, alone.output_relative_error_, rtol=0.1)


def test_regressors_are_trained_in_their_own_units():
    target = 1e3 * X_train[:, 20] + 5e3
    params = {"max_iter": 10, "tol": 0, "standardize": False, "random_state": 0}
    dense = NetworkRegressor((48, 48, 48), **params).fit(X_train, target)
    how = {"linear_rank": 4, "batch_size": 32, "random_state": 0}
    shot = FeatureMimickingCompressor(FrozenEstimator(dense), max_iter=0, **how).fit(X_train)
    tuned = FeatureMimickingCompressor(FrozenEstimator(dense), max_iter=10, distillation=0, **how).fit(X_train, target)
    assert tuned.score(X_train, target) > shot.score(X_train, target)


def test_tables_of_a_skorch_net_are_trained_by_its_criterion():
    liked = (IDS.sum(1) % 7 < 3).astype(np.float32)
    net = seeded(
        lambda: NeuralNetBinaryClassifier(
            tables(sparse=False).float(),
            optimizer=torch.optim.Adam,
            lr=1e-2,
            max_epochs=10,
            train_split=None,
            verbose=0,
        ).fit(IDS, liked)
    )
    before = copy.deepcopy(net.module_.state_dict())
    net.module_.user.sparse = True  # Adam takes no sparse gradients
    net.module_.requires_grad_(False)
    how = {"embedding_rank": 4, "max_iter": 8, "batch_size": 64, "learning_rate": 1e-2, "random_state": 0}
    model = FeatureMimickingCompressor(FrozenEstimator(net), **how).fit(IDS, liked)
    assert model.n_iter_ == 8
    assert model.loss_curve_[-1] < model.loss_curve_[0]
    small = model.network()
    assert small.user.sparse
    assert not any(p.requires_grad for p in small.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.module_.state_dict().items())
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(IDS), model.predict_proba(IDS))


def test_networks_with_batch_norms_are_trained_whatever_the_number_of_rows():
    """A last batch of a single row has no variance."""
    layers = [nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)]
    net = seeded(lambda: nn.Sequential(*layers)).eval()
    model = FeatureMimickingCompressor(net, linear_rank=4, max_iter=2, batch_size=12, random_state=0)
    assert model.fit(X_train[:54].astype(np.float32)).n_iter_ == 2  # 49 without the rows that are held out
    assert not model.network().training


def test_errors_name_the_parameter(network):
    frozen = FrozenEstimator(network)
    with pytest.raises(ValueError, match="y was passed for a torch module"):
        FeatureMimickingCompressor(tables()).fit(IDS, IDS[:, 0])
    with pytest.raises(ValueError, match="embedding_rank, linear_rank and compression are None"):
        FeatureMimickingCompressor(frozen, embedding_rank=None, linear_rank=None).fit(X_train)
    with pytest.raises(ValueError, match=r"first and the last linear layer stay unless first_layer"):
        FeatureMimickingCompressor(nn.Sequential(nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 2))).fit(X_train)
    with pytest.raises(ValueError, match=r"y has the label 11, which is not among the classes"):
        FeatureMimickingCompressor(frozen).fit(X_train, np.where(y_train == 3, 11, y_train))
    with pytest.raises(ValueError, match=r"y has 10"):
        FeatureMimickingCompressor(frozen).fit(X_train, y_train[:10])


def test_transformer_layers_leave_their_fused_path():
    """In eval mode it would read the weight of a layer that is three layers now."""
    net = seeded(
        lambda: nn.Sequential(
            nn.Linear(8, 16),
            nn.TransformerEncoderLayer(16, 2, 64, 0.0, batch_first=True),
            nn.Flatten(),
            nn.Linear(64, 2),
        )
    ).eval()
    rows = RNG.normal(size=(50, 4, 8)).astype(np.float32)
    model = FeatureMimickingCompressor(net, linear_rank=4, inner_activation="relu").fit(rows)
    assert [row["name"] for row in model.layer_report_] == ["1.linear1", "1.linear2"]
    assert relative(model.predict_raw(rows), raw(net, rows)) < 0.3


@pytest.mark.cuda
def test_cuda_gives_the_answers_of_the_cpu():
    net = tables()
    here, there = (
        FeatureMimickingCompressor(net, embedding_rank=3, inner_activation="tanh", device=device).fit(IDS)
        for device in ("cpu", "cuda")
    )
    assert np.allclose(here.predict_raw(IDS), there.predict_raw(IDS), rtol=1e-6, atol=1e-8)


def test_a_pair_of_low_rank_is_taken_as_one_layer():
    rows = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    net = seeded(lambda: nn.Sequential(nn.Linear(12, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 3)))
    pairs = LowRankCompressor(net, rank=15, modules="2").fit(rows).network()
    assert isinstance(pairs[2], Pair)
    lower = FeatureMimickingCompressor(pairs, linear_rank=6).fit(rows)
    (row,) = lower.layer_report_
    assert (row["name"], row["type"], row["shape"], row["rank"]) == ("2", "Linear", (40, 40), 6)
    assert row["n_parameters_before"] == sum(p.numel() for p in pairs[2].parameters())
    plain = FeatureMimickingCompressor(net, linear_rank=6).fit(rows)  # from the layer of which the pair was made
    np.testing.assert_allclose(lower.predict_raw(rows), plain.predict_raw(rows), atol=0.02)
    same = FeatureMimickingCompressor(pairs, linear_rank=15).fit(rows)  # which would not be smaller
    assert same.layer_report_[0]["rank"] is None
    assert isinstance(same.network()[2], Pair)
    assert same.output_relative_error_ == 0


@pytest.mark.parametrize("linear_rank", [1.0, 3])
def test_the_map_behind_a_table_goes_into_a_pair(linear_rank):
    ids = np.random.default_rng(0).integers(50, size=(400, 2))
    net = seeded(
        lambda: nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(16, 30), nn.ReLU(), nn.Linear(30, 9))
    )
    pairs = LowRankCompressor(net.double(), rank=6, modules="2").fit(ids).network()
    how = {"embedding_rank": 4, "linear_rank": linear_rank, "first_layer": True}
    fused, apart = (FeatureMimickingCompressor(pairs, fuse=fuse, **how).fit(ids) for fuse in (True, False))
    assert fused.n_parameters_ < apart.n_parameters_
    np.testing.assert_allclose(fused.predict_raw(ids), apart.predict_raw(ids), atol=1e-9)
