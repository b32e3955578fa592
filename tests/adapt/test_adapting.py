"""What adapters have in common: what they take, what they train, and what a fitted one can do."""

import copy
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklowrank.adapt import LDUAdapter, TuckerAdapter
from sklowrank.compress import SecondOrderPruner
from sklowrank.neural import NetworkClassifier, NetworkRegressor, TrainedRankPruning

X, y = load_iris(return_X_y=True)
ROWS = StandardScaler().fit_transform(X).astype(np.float32)
MOVED = ROWS[:, [1, 0, 3, 2]]
NAMES = np.array(["setosa", "versicolor", "virginica"])[y]
VALUES = ROWS[:, :1] * 2 + 1
LARGE = {"batch_size": 150, "learning_rate": 0.1, "random_state": 0}  # one step an epoch
each = pytest.mark.parametrize("adapter", [TuckerAdapter, LDUAdapter])


def mlp(n_outputs=3, batch_norm=False):
    norm = [nn.BatchNorm1d(8)] if batch_norm else []
    return nn.Sequential(nn.Linear(4, 8), *norm, nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, n_outputs))


def skorch(kind=NeuralNetClassifier, target=y, *, module=mlp, epochs=12, **params):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        criterion = {"criterion": nn.CrossEntropyLoss} if kind is NeuralNetClassifier else {}
        how = {"max_epochs": epochs, "lr": 0.01, "train_split": None, "verbose": 0, "optimizer": torch.optim.Adam}
        return kind(module, **criterion, **how, **params).fit(ROWS, target)


def instance():
    """A module with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return mlp()


@cache
def usual():
    """A net that is fitted once for all tests: nothing changes it."""
    return skorch()


@cache
def normed():
    return skorch(module=lambda: mlp(batch_norm=True))


@cache
def binary():
    return skorch(NeuralNetBinaryClassifier, (y > 0).astype(np.float32), module=lambda: mlp(1))


@cache
def regressor():
    return skorch(NeuralNetRegressor, VALUES, module=lambda: mlp(1))


@cache
def regressor_of_ours():
    network = NetworkRegressor((8, 8), max_iter=30, tol=0, learning_rate=1e-2, random_state=0)
    return network.fit(ROWS, VALUES[:, 0] * 1e6)


@cache
def ours(names=False):
    network = NetworkClassifier((8, 8), max_iter=20, tol=0, learning_rate=1e-2, random_state=0)
    return network.fit(ROWS, NAMES if names else y)


class Plain(ClassifierMixin, BaseEstimator):
    """A classifier that shows its module and is neither ours nor skorch's, in float64."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module_ = mlp(len(self.classes_)).double()
        return self

    def predict_proba(self, X):
        with torch.no_grad():
            return self.module_(torch.from_numpy(np.asarray(X, dtype=np.float64))).softmax(1).numpy()

    def predict(self, X):
        return self.classes_[self.predict_proba(ROWS).argmax(1)]


class PlainRegressor(RegressorMixin, Plain):
    def predict(self, X):
        return self.predict_proba(X)[:, 0]


class One(nn.Module):
    """A network in which the last linear layer by name is not the last one that is reached."""

    def __init__(self):
        super().__init__()
        self.last, self.first = nn.Linear(8, 3), nn.Linear(4, 8)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.output = nn.Embedding(9, 6, padding_idx=2), nn.Linear(6, 9)

    def forward(self, ids):
        return self.output(torch.tanh(self.table(ids).mean(1)))


class Tied(Words):
    def __init__(self):
        super().__init__()
        self.output.weight = self.table.weight


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.output = nn.Linear(8, 3)

    def forward(self, x):
        return self.output(self.encoder(x.reshape(-1, 2, 8)).mean(1))


def state_of(estimator):
    return {name: value.clone() for name, value in estimator.module_.state_dict().items()}


def same_state(a, b, but=()):
    return all(torch.equal(a[name], b[name]) for name in a if name not in but)


FITTED = {
    "skorch": usual,
    "skorch, instance": lambda: skorch(module=instance()),
    "ours": ours,
    "ours, names": lambda: ours(True),
    "other": lambda: Plain().fit(ROWS, NAMES),
    "pipeline": lambda: make_pipeline(StandardScaler().fit(ROWS), usual()),
    "pipeline, ours": lambda: make_pipeline(StandardScaler(), ours()).fit(ROWS, y),
}


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        (name, adapter)
        for name in FITTED
        for adapter in (TuckerAdapter, LDUAdapter)
        if adapter is TuckerAdapter or "," not in name
    ],
)
def test_networks_of_all_kinds_are_adapted_and_stay_as_they_are(name, adapter):
    fitted = FITTED[name]()
    target = NAMES if name in ("ours, names", "other") else y
    before, generators = fitted.predict_proba(ROWS), torch.get_rng_state()
    model = adapter(FrozenEstimator(fitted), max_iter=40, **{**LARGE, "learning_rate": 0.05}).fit(MOVED, target)
    assert torch.equal(torch.get_rng_state(), generators)
    assert np.array_equal(fitted.predict_proba(ROWS), before)
    assert model.score(MOVED, target) > max(0.85, fitted.score(MOVED, target))
    assert list(model.classes_) == list(np.unique(target))
    assert len(model.loss_curve_) == model.n_iter_ == 40
    merged = model.merge()
    assert type(merged) is type(fitted)
    assert np.array_equal(merged.predict_proba(MOVED), model.predict_proba(MOVED))
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(MOVED), model.predict_proba(MOVED))
    with model.disable(), model.disable():
        assert np.array_equal(model.predict_proba(MOVED), fitted.predict_proba(MOVED))
        assert np.array_equal(model.estimator_.predict(MOVED), fitted.predict(MOVED))
    assert np.array_equal(again.predict(MOVED), model.predict(MOVED))
    assert model.network() is not model.network()


@each
def test_without_an_epoch_the_answers_are_those_of_the_network(adapter):
    net = usual()
    model = adapter(FrozenEstimator(net), max_iter=0).fit(MOVED, y)
    assert model.n_iter_ == 0
    assert model.loss_curve_ == []
    assert np.array_equal(model.predict_proba(ROWS), net.predict_proba(ROWS))


@each
def test_nothing_but_the_adapter_and_the_head_changes(adapter):
    net = normed()
    before = state_of(net)
    params = {"weight_decay": 0.5, "max_iter": 3, "random_state": 0, "modules": "0"}
    trained = adapter(FrozenEstimator(net), **params).fit(MOVED + 1, y).network().state_dict()
    assert same_state(before, trained, ("0.weight", "5.weight", "5.bias"))
    assert not torch.equal(before["0.weight"], trained["0.weight"])
    assert not torch.equal(before["5.bias"], trained["5.bias"])
    kept = adapter(FrozenEstimator(net), head="keep", **params).fit(MOVED + 1, y)
    assert same_state(before, kept.network().state_dict(), ("0.weight",))
    assert (
        kept.n_trainable_parameters_ == kept.n_adapter_parameters_ == sum(v.size for v in kept.get_adapter().values())
    )
    assert same_state(before, state_of(net))
    assert not any(
        p.requires_grad != q.requires_grad for p, q in zip(kept.network().parameters(), net.module_.parameters())
    )


def test_norms_are_adapted_where_asked():
    net = normed()
    model = TuckerAdapter(FrozenEstimator(net), modules="0", head="keep", train_norm=True, max_iter=20).fit(ROWS + 3, y)
    assert {n.split(".")[0] for n in model.weights_} == {"0", "1"}
    network = model.network()
    assert not torch.equal(network[1].running_mean, net.module_[1].running_mean)
    assert not torch.equal(network[1].weight, net.module_[1].weight)
    assert int(network[1].num_batches_tracked) > int(net.module_[1].num_batches_tracked)
    assert model.n_trainable_parameters_ == model.n_adapter_parameters_ + 16
    assert np.allclose(model.predict_raw(ROWS), network(torch.from_numpy(ROWS)).detach(), atol=1e-6)


@each
def test_adapters_of_one_network_are_exchanged(adapter):
    net = usual()
    frozen = FrozenEstimator(net)
    here = adapter(frozen, max_iter=5, random_state=0).fit(MOVED, y)
    there = adapter(frozen, max_iter=5, random_state=1).fit(-ROWS, y)
    expected, own = here.predict_proba(ROWS), there.predict_proba(ROWS)
    state = there.get_adapter()
    assert np.array_equal(there.set_adapter(here.get_adapter()).predict_proba(ROWS), expected)
    assert np.array_equal(there.set_adapter(state).predict_proba(ROWS), own)
    state["4.bias"][:] = 0  # a copy
    assert np.array_equal(there.predict_proba(ROWS), own)
    with pytest.raises(NotFittedError, match="pickle or joblib"):
        adapter(FrozenEstimator(usual())).set_adapter(state)
    with pytest.raises(ValueError, match=r"no 4\.bias"):
        there.set_adapter({name: value for name, value in state.items() if name != "4.bias"})
    with pytest.raises(ValueError, match="unknown more"):
        there.set_adapter({**state, "more": np.zeros(2)})
    with pytest.raises(ValueError, match=r"4.bias of the state has the shape \(4,\)"):
        there.set_adapter({**state, "4.bias": np.zeros(4)})
    assert np.array_equal(there.predict_proba(ROWS), own)


@each
@pytest.mark.parametrize("head", ["keep", "train"])
def test_layers_of_low_rank_are_adapted(adapter, head):
    thin = NetworkClassifier((32, 32), training=TrainedRankPruning(max_rank=3), max_iter=10, random_state=0)
    thin = thin.fit(ROWS, y)
    assert "2.down" in thin.weights_
    model = adapter(FrozenEstimator(thin), head=head, max_iter=3, random_state=0).fit(ROWS, y)
    assert {"2.0", "2.1"} <= {row["name"] for row in model.layer_report_}
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(ROWS), model.predict_proba(ROWS))
    assert np.allclose(model.merge().predict_proba(ROWS), model.predict_proba(ROWS), atol=1e-5)
    with model.disable():
        assert np.allclose(model.predict_proba(ROWS), thin.predict_proba(ROWS), atol=1e-5)


@each
def test_the_network_is_not_stored_again(adapter):
    net = NeuralNetClassifier(
        nn.Sequential(nn.Linear(4, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 3)),
        criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0,
    ).fit(ROWS, y)  # fmt: skip
    frozen = FrozenEstimator(net)
    model = adapter(frozen, max_iter=1, head="keep").fit(ROWS, y)
    numbers = sum(value.nbytes for value in model.weights_.values())
    assert len(pickle.dumps(model)) - len(pickle.dumps(adapter(frozen, head="keep"))) < 1.5 * numbers + 4000
    with torch.no_grad():
        net.module_[0].weight += 1
    with pytest.raises(ValueError, match="is not the one that was adapted"):
        pickle.loads(pickle.dumps(model)).predict(ROWS)


@each
def test_unknown_labels_get_a_new_head(adapter):
    grades = np.array(["low", "high"])[(ROWS[:, 0] > 0).astype(int)]
    kinds = [usual(), ours(True)]
    if adapter is TuckerAdapter:
        kinds += [Plain().fit(ROWS, y), make_pipeline(StandardScaler().fit(ROWS), ours())]
    for fitted in kinds:
        model = adapter(FrozenEstimator(fitted), head="auto", max_iter=25, **LARGE)
        assert model.fit(ROWS, grades).score(ROWS, grades) > 0.9
        assert list(model.classes_) == ["high", "low"]
        assert model.predict_proba(ROWS).shape == (150, 2)
        assert set(model.predict(ROWS)) == {"low", "high"}
        assert np.array_equal(model.score(ROWS, grades, sample_weight=np.ones(150)), model.score(ROWS, grades))
        with model.disable():
            assert len(model.classes_) == 3
            assert np.array_equal(model.predict(ROWS), fitted.predict(ROWS))
        again = pickle.loads(pickle.dumps(model))
        assert np.array_equal(again.predict(ROWS), model.predict(ROWS))
        other = adapter(FrozenEstimator(fitted), head="auto", max_iter=1).fit(ROWS, np.where(grades == "low", "a", "b"))
        assert np.array_equal(other.set_adapter(model.get_adapter()).predict(ROWS), model.predict(ROWS))
    for head, fitted in (("keep", usual()), ("train", ours(True))):
        with pytest.raises(ValueError, match=f"head='{head}'"):
            adapter(FrozenEstimator(fitted), head=head).fit(ROWS, grades)
    numbers = 10 + 5 * (ROWS[:, 0] > 0).astype(int)  # integers that are no codes
    model = adapter(FrozenEstimator(usual()), head="reset", max_iter=25, **LARGE).fit(ROWS, numbers)
    assert set(model.predict(ROWS)) == {10, 15}
    twice = adapter(FrozenEstimator(model), max_iter=1).fit(ROWS, numbers)
    assert set(twice.predict(ROWS)) == {10, 15}
    assert twice.network()[-1].out_features == 2


@each
def test_heads_are_kept_for_labels_that_are_known(adapter):
    few = y > 0
    model = adapter(FrozenEstimator(usual()), head="auto", max_iter=2).fit(ROWS[few], y[few])
    assert list(model.classes_) == [0, 1, 2]
    assert "4.bias" in model.weights_
    by_pass = adapter(FrozenEstimator(skorch(module=One)), head="train", max_iter=1).fit(ROWS, y)
    assert set(by_pass.weights_) >= {"last.weight", "last.bias"}
    assert [row["name"] for row in by_pass.layer_report_] == ["first"]
    assert np.isfinite(
        adapter(FrozenEstimator(usual()), max_iter=2).fit(ROWS[[0, 149]], y[[0, 149]]).predict_proba(ROWS)
    ).all()


@each
def test_two_classes_of_one_output(adapter):
    two = (y > 0).astype(np.float32)
    net = binary()
    model = adapter(FrozenEstimator(net), head="auto", max_iter=20, **LARGE).fit(MOVED, two)
    assert model.score(MOVED, two) > 0.9
    names = np.where(y > 1, "virginica", "other")
    model = adapter(FrozenEstimator(net), head="auto", max_iter=30, **LARGE).fit(ROWS, names)
    assert model.score(ROWS, names) > 0.8
    assert set(model.predict(ROWS)) == {"virginica", "other"}
    with pytest.raises(ValueError, match="two classes, and y has 3"):
        adapter(FrozenEstimator(net), head="auto").fit(ROWS, NAMES)


@each
def test_values(adapter):
    target, net = VALUES, regressor()
    params = {"head": "train", "max_iter": 40, **LARGE}
    model = adapter(FrozenEstimator(net), **params).fit(MOVED, target)
    assert model.score(MOVED, target) > 0.9
    assert np.array_equal(
        adapter(FrozenEstimator(net), **params).fit(MOVED, target[:, 0]).predict(ROWS), model.predict(ROWS)
    )
    fitted = regressor_of_ours()
    model = adapter(FrozenEstimator(fitted), **params).fit(MOVED, target[:, 0] * 1e6)
    assert model.score(MOVED, target[:, 0] * 1e6) > 0.9
    with pytest.raises(TypeError, match="loss of a PlainRegressor"):
        adapter(FrozenEstimator(PlainRegressor().fit(ROWS, y))).fit(ROWS, ROWS[:, 0])
    with pytest.raises(ValueError, match="NaN"):
        adapter(FrozenEstimator(net)).fit(ROWS, np.full((150, 1), np.nan, dtype=np.float32))


@each
def test_what_is_not_taken(adapter):
    with pytest.raises(TypeError, match="skorch"):
        adapter(mlp()).fit(ROWS, y)
    with pytest.raises(TypeError, match="torch"):
        adapter(FrozenEstimator(LogisticRegression().fit(X, y))).fit(X, y)
    with pytest.raises(NotFittedError):
        adapter(FrozenEstimator(NeuralNetClassifier(mlp))).fit(ROWS, y)
    frozen = FrozenEstimator(usual())
    for method in ("merge", "get_adapter", "network"):
        with pytest.raises(NotFittedError):
            getattr(adapter(frozen), method)()
    with pytest.raises(ValueError, match="one class"):
        adapter(frozen).fit(ROWS[:9], y[:9])
    with pytest.raises(ValueError, match="y has 149"):
        adapter(frozen).fit(ROWS, y[1:])
    with pytest.raises(ValueError, match="nothing"):
        adapter(frozen, modules=["0", "nothing*"]).fit(ROWS, y)
    with pytest.raises(ValueError, match="head='keep'"):
        adapter(frozen, modules="4", head="train").fit(ROWS, y)
    with pytest.raises(ValueError, match="learning_rate"):
        adapter(frozen, max_iter=2, learning_rate=1e30).fit(ROWS, y)
    pruner = SecondOrderPruner(FrozenEstimator(ours()), sparsity=0.3, n_grads=50, n_recompute=1).fit(ROWS, y)
    model = adapter(FrozenEstimator(pruner), max_iter=5).fit(MOVED, y)
    assert np.array_equal(model.merge().predict(ROWS), model.predict(ROWS))


@each
def test_networks_of_a_single_layer(adapter):
    net = skorch(module=lambda: nn.Linear(4, 3))
    model = adapter(FrozenEstimator(net), head="keep", max_iter=30, **LARGE).fit(MOVED, y)
    assert model.score(MOVED, y) > net.score(MOVED, y)
    if adapter is LDUAdapter:
        assert model.diagonals_[""].shape == (3,)
        assert model.scales_[""] == float(model.weights_["sigma"]) != 1
    with pytest.raises(ValueError, match="head='keep'"):
        adapter(FrozenEstimator(net), head="train").fit(ROWS, y)


@each
def test_tied_weights_and_rows_for_padding_stay(adapter):
    ids = np.random.default_rng(0).integers(0, 9, (60, 4))
    classes = ids[:, 0] % 9
    how = {"criterion": nn.CrossEntropyLoss, "max_epochs": 2, "train_split": None, "verbose": 0}
    net = NeuralNetClassifier(Words, **how).fit(ids, classes)
    table = adapter(FrozenEstimator(net), head="keep", max_iter=5).fit(ids, classes).network().table.weight
    moved = (table != net.module_.table.weight).any(1)
    assert not moved[2]
    assert moved.sum() == 8
    tied = NeuralNetClassifier(Tied, **how).fit(ids, classes)
    with pytest.raises(ValueError, match="output is shared"):
        adapter(FrozenEstimator(tied), head="train").fit(ids, classes)
    with pytest.warns(UserWarning, match="tied"), pytest.raises(ValueError, match="No layer"):
        adapter(FrozenEstimator(tied), head="keep").fit(ids, classes)


@each
def test_transformers_answer_alike_on_their_fast_path(adapter):
    rows = np.tile(ROWS, 4)
    net = NeuralNetClassifier(
        Transformer, criterion=nn.CrossEntropyLoss, max_epochs=2, train_split=None, verbose=0
    ).fit(rows, y)  # fmt: skip
    model = adapter(FrozenEstimator(net), max_iter=5, validation_fraction=0.2, random_state=0).fit(rows, y)
    assert [row["name"] for row in model.layer_report_] == ["encoder.layers.0.linear1", "encoder.layers.0.linear2"]
    slow = model.network()
    slow.encoder.layers[0].self_attn.register_forward_hook(lambda *args: None)  # closes the path
    with torch.no_grad():
        expected = slow(torch.from_numpy(rows))
    assert np.allclose(model.predict_raw(rows), expected, atol=1e-5)
    assert np.allclose(model.merge().predict_proba(rows), model.predict_proba(rows), atol=1e-6)


@each
def test_the_best_epoch_of_the_held_out_rows_is_kept(adapter):
    frozen = FrozenEstimator(usual())
    params = {"max_iter": 100, "learning_rate": 0.03, "random_state": 0}
    model = adapter(frozen, validation_fraction=0.3, n_iter_no_change=5, **params).fit(MOVED, y)
    assert model.n_iter_ < 100
    assert model.n_iter_ - 1 - int(np.argmin(model.loss_curve_)) >= 5
    assert model.score(MOVED, y) > 0.85


@each
def test_all_rows_in_one_batch_have_no_order(adapter):
    frozen = FrozenEstimator(Plain().fit(ROWS, y))
    order = np.random.default_rng(0).permutation(150)
    model = adapter(frozen, max_iter=5, batch_size=150, random_state=0)
    a = copy.deepcopy(model.fit(X, y)).predict_proba(X)
    b = model.fit(X[order], y[order]).predict_proba(X)
    assert np.allclose(a, b, rtol=1e-9)


@each
def test_precision_is_that_of_the_network(adapter):
    model = adapter(FrozenEstimator(Plain().fit(ROWS, y)), max_iter=3, random_state=0).fit(X, y)
    assert {value.dtype for value in model.weights_.values()} == {np.dtype(np.float64)}
    assert model.predict_raw(X).dtype == np.float64
    model = adapter(FrozenEstimator(usual()), max_iter=3, random_state=0).fit(ROWS, y)
    assert {value.dtype for value in model.weights_.values()} == {np.dtype(np.float32)}


@each
def test_modes_and_default_devices_of_the_caller_change_nothing(adapter):
    frozen = FrozenEstimator(usual())
    expected = adapter(frozen, max_iter=3, random_state=0).fit(MOVED, y).predict_raw(ROWS)
    with torch.device("meta"), torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        found = adapter(frozen, max_iter=3, random_state=0).fit(MOVED, y).predict_raw(ROWS)
    assert np.array_equal(expected, found)


@pytest.mark.cuda
@each
def test_a_gpu_gives_the_same(adapter):
    frozen = FrozenEstimator(usual())
    here = adapter(frozen, max_iter=5, random_state=0, device="cpu").fit(MOVED, y)
    there = adapter(frozen, max_iter=5, random_state=0, device="cuda").fit(MOVED, y)
    assert np.allclose(here.predict_raw(ROWS), there.predict_raw(ROWS), atol=1e-3)
    assert there.network("cuda")[0].weight.is_cuda
    assert np.allclose(there.predict_proba(ROWS), here.predict_proba(ROWS), atol=1e-3)
