"""Every training rule on one small problem, through both doors."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn

from sklowrank import neural
from sklowrank._nets.layers import mlp
from sklowrank._nets.training import Rule
from sklowrank.neural import (
    NetworkClassifier,
    NetworkRegressor,
    OrderedRank,
    RandomSubspace,
    SharpnessAware,
    SparseSpectralTraining,
    TrainedRankPruning,
)

# Each rule, so that it acts within some epochs of four batches, and one of its parameters with another value.
RULES = {
    "OrderedRank": (OrderedRank(1e-2), ("group_lasso", 1e-1)),
    "TrainedRankPruning": (TrainedRankPruning(0.9, period=3, nuclear_weight=0.05), ("energy", 0.5)),
    "SparseSpectralTraining": (SparseSpectralTraining(4, iteration_length=3, warmup=1), ("rank", 2)),
    "RandomSubspace": (RandomSubspace(40), ("subspace_dim", 10)),
    "SharpnessAware": (SharpnessAware(), ("radius", 0.1)),
}
LOSS = {"SparseSpectralTraining": 0.9, "RandomSubspace": 0.95}  # of the last epoch over the first, at most; else 0.8

pytestmark = pytest.mark.filterwarnings("ignore:.*before it could measure")


def table(n=64, n_features=6, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, n_features)).astype(np.float32)
    return X, (X[:, 0] - X[:, 1] ** 2 > -0.5).astype(np.int64)


@pytest.fixture(autouse=True)
def _own_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(params=sorted(RULES))
def name(request):
    return request.param


@pytest.fixture
def rule(name):
    return clone(RULES[name][0])


def ours(rule, kind=NetworkClassifier, **params):
    settings = {"learning_rate": 0.03, "batch_size": 16, "max_iter": 5, "tol": 0, "device": "cpu", "random_state": 0}
    return kind((16, 16), training=rule, **{**settings, **params})


def skorch_net(rule, *callbacks, kind=NeuralNetClassifier, module=None, **params):
    n_out = 2 if kind is NeuralNetClassifier else 1
    if module is None:
        module = mlp((6,), n_out, torch.Generator().manual_seed(0), hidden_layer_sizes=(16, 16))
    named = [(f"own{i}", callback) for i, callback in enumerate(callbacks)]
    settings = {
        "optimizer": torch.optim.Adam,
        "lr": 0.03,
        "max_epochs": 5,
        "batch_size": 16,
        "train_split": None,
        "verbose": 0,
        **params,
    }
    if kind is NeuralNetClassifier:
        settings["criterion"] = nn.CrossEntropyLoss
    return kind(module, callbacks=[*named, ("rule", rule)], **settings)


def learns(first, last, name):
    return np.isfinite(last) and last < LOSS.get(name, 0.8) * first


def trained_parameters(net):
    """Whether the optimizer has all parameters of the module that can be trained, and no others but a rule's own."""
    known = [id(p) for group in net.optimizer_.param_groups for p in group["params"]]
    return len(set(known)) == len(known) and {id(p) for p in net.module_.parameters() if p.requires_grad} <= set(known)


def same_weights(a, b):
    return list(a) == list(b) and all(np.array_equal(a[name], b[name]) for name in a)


class Ending(Callback):
    """Ends the training in the middle of an epoch."""

    def __init__(self, error, epoch=3):
        self.error = error
        self.epoch = epoch

    def on_batch_end(self, net, training, **kwargs):
        if training and len(net.history) == self.epoch and len(net.history[-1, "batches"]) == 2:
            raise self.error


def test_all_rules_of_the_package_are_tried():
    public = {
        n for n in neural.__all__ if isinstance(getattr(neural, n), type) and issubclass(getattr(neural, n), Rule)
    }
    assert public == set(RULES)


# Both doors


def test_both_doors_learn_and_report(name, rule):
    X, y = table()
    model = ours(rule, max_iter=15).fit(X, y)
    assert learns(model.loss_curve_[0], model.loss_curve_[-1], name)
    assert model.training_
    net = skorch_net(clone(rule), max_epochs=15).fit(X, y)
    losses = net.history[:, "train_loss"]
    assert learns(losses[0], losses[-1], name)
    assert dict(net.callbacks_)["rule"].report().keys() == model.training_.keys()
    assert trained_parameters(net)
    assert not [key for key in vars(model.training) if key.endswith("_")]  # the user's rule is not changed


def test_values_are_learnt_as_well_as_classes(name, rule):
    X, _ = table()
    y = (X[:, :1] - X[:, 1:2]).astype(np.float32)
    model = ours(rule, NetworkRegressor, max_iter=15).fit(X, y[:, 0])
    assert learns(model.loss_curve_[0], model.loss_curve_[-1], name)
    net = skorch_net(clone(rule), kind=NeuralNetRegressor, max_epochs=15).fit(X, y)
    losses = net.history[:, "train_loss"]
    assert learns(losses[0], losses[-1], name)


def test_reports_are_plain_values(rule):
    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(key, str | int) and plain(part) for key, part in value.items())
        if isinstance(value, list | tuple):
            return all(map(plain, value))
        return value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic)

    X, y = table()
    assert plain(ours(rule).fit(X, y).training_)


def test_network_predicts_as_the_estimator(rule):
    X, y = table()
    model = ours(rule, standardize=False).fit(X, y)
    with torch.inference_mode():
        outputs = torch.softmax(model.network()(torch.from_numpy(X)), 1).numpy()
    assert np.allclose(outputs, model.predict_proba(X), rtol=0, atol=1e-5)
    assert sum(p.numel() for p in model.network().parameters()) <= model.n_dense_parameters_


def test_clones_train_alike(rule):
    X, y = table()
    models = [ours(each).fit(X, y) for each in (rule, clone(rule))]
    assert same_weights(*(model.weights_ for model in models))
    assert repr(models[0].training) == repr(rule)
    again = clone(models[0]).fit(X, y)
    assert same_weights(again.weights_, models[0].weights_)
    assert same_weights(models[0].fit(X, y).weights_, again.weights_)  # nothing is left of the former fit


def test_fitted_models_are_pickled(rule):
    X, y = table()
    model = ours(rule).fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    again.partial_fit(X, y)
    model.partial_fit(X, y)
    assert same_weights(again.weights_, model.weights_)
    net = skorch_net(clone(rule)).fit(X, y)
    again = pickle.loads(pickle.dumps(net))
    assert np.array_equal(again.predict_proba(X), net.predict_proba(X))
    assert trained_parameters(again)
    again.partial_fit(X, y)
    assert np.isfinite(again.predict_proba(X)).all()


def test_parameters_are_searched(name, rule):
    X, y = table()
    parameter, other = RULES[name][1]
    values = [getattr(rule, parameter), other]
    search = GridSearchCV(ours(rule), {f"training__{parameter}": values}, cv=2, error_score="raise").fit(X, y)
    assert getattr(search.best_estimator_.training, parameter) == search.best_params_[f"training__{parameter}"]
    net = skorch_net(clone(rule))
    search = GridSearchCV(net, {f"callbacks__rule__{parameter}": values}, cv=2, error_score="raise").fit(X, y)
    assert dict(search.best_estimator_.callbacks_)["rule"].get_params()[parameter] in values


@pytest.mark.parametrize("door", ["ours", "skorch"])
def test_training_continues(name, rule, door):
    X, y = table()
    model = ours(rule, max_iter=3) if door == "ours" else skorch_net(rule, max_epochs=3)
    model.fit(X, y)
    before = [model.predict_proba(X)]
    for _ in range(2):
        model.partial_fit(X, y)
        before.append(model.predict_proba(X))
    assert np.isfinite(before).all()
    assert not np.array_equal(before[0], before[1])
    assert not np.array_equal(before[1], before[2])
    losses = model.loss_curve_ if door == "ours" else model.history[:, "train_loss"]
    assert len(losses) == (5 if door == "ours" else 9)
    assert losses[-1] < 1.05 * losses[0]  # it does not start anew
    if door == "skorch":
        assert trained_parameters(model)


def test_a_warm_start_continues(rule):
    X, y = table()
    model = ours(rule, warm_start=True, max_iter=10).fit(X, y)
    first, last = model.loss_curve_[0], model.loss_curve_[-1]
    model.fit(X, y)
    assert model.loss_curve_[0] < (first + last) / 2 + 0.1
    assert np.isfinite(model.predict_proba(X)).all()


# How training ends


def test_early_stopping(rule):
    X, y = table(120)
    model = ours(rule, early_stopping=True, validation_fraction=0.3, n_iter_no_change=3, tol=1e-2, max_iter=60)
    model.fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    assert model.n_iter_ == len(model.loss_curve_)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    stop = EarlyStopping(patience=3, threshold=0.2)
    net = skorch_net(clone(rule), stop, train_split=ValidSplit(3, stratified=True), max_epochs=60).fit(X, y)
    assert len(net.history) < 60
    assert np.isfinite(net.predict_proba(X)).all()
    assert trained_parameters(net)


def test_interrupts(rule):
    X, y = table()
    model = ours(rule).fit(X, y)
    weights, report = model.weights_, model.training_
    model.set_params(net_params={"callbacks": [Ending(KeyboardInterrupt())]})
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert model.weights_ is weights  # of the former fit
    assert model.training_ is report
    net = skorch_net(clone(rule), Ending(KeyboardInterrupt())).fit(X, y)  # skorch ends the training
    assert len(net.history) == 3
    assert np.isfinite(net.predict_proba(X)).all()
    assert trained_parameters(net)
    assert np.array_equal(pickle.loads(pickle.dumps(net)).predict_proba(X), net.predict_proba(X))


def test_errors_of_callbacks(rule):
    X, y = table()
    model = ours(rule, net_params={"callbacks": [Ending(RuntimeError("no more"))]})
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X, y)
    assert not hasattr(model, "weights_")
    model.set_params(net_params=None).fit(X, y)
    assert same_weights(model.weights_, ours(clone(rule)).fit(X, y).weights_)
    net = skorch_net(rule, Ending(RuntimeError("no more")))
    with pytest.raises(RuntimeError, match="no more"):
        net.fit(X, y)
    net.set_params(callbacks__own0=None).fit(X, y)  # the same rule begins again
    assert np.isfinite(net.predict_proba(X)).all()


# Data, precision, and what is global


def test_in_float64(rule):
    X, y = table()
    model = ours(rule, batch_size=64).fit(X.astype(np.float64), y)  # one batch of all rows in float64
    assert model.predict_proba(X.astype(np.float64)).dtype == np.float64
    assert np.isfinite(model.loss_curve_).all()
    module = mlp((6,), 2, torch.Generator().manual_seed(0), hidden_layer_sizes=(16, 16)).double()
    net = skorch_net(clone(rule), module=module).fit(X.astype(np.float64), y)
    assert {p.dtype for p in net.module_.parameters()} == {torch.float64}
    assert np.isfinite(net.predict_proba(X.astype(np.float64))).all()


@pytest.mark.parametrize("case", ["a batch of one row", "batches of one row", "one row", "constant", "one feature"])
def test_little_to_learn_from(rule, case):
    X, y = table(33)
    size = 1 if case == "batches of one row" else 16
    X = {"one row": X[:1], "constant": np.ones_like(X), "one feature": X[:, :1]}.get(case, X)
    target = np.random.default_rng(1).normal(size=33)[: len(X)]
    model = ours(rule, NetworkRegressor, batch_size=size, max_iter=3).fit(X, target)
    assert np.isfinite(model.predict(X)).all()
    module = mlp((X.shape[1],), 2, torch.Generator().manual_seed(0), hidden_layer_sizes=(16, 16))
    net = skorch_net(clone(rule), module=module, batch_size=size, max_epochs=3).fit(X, y[: len(X)])
    assert np.isfinite(net.predict_proba(X)).all()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleDict({"wide": nn.Linear(12, 16), "back": nn.Linear(16, 12, bias=False)})

    def forward(self, x):
        return x + self.inner["back"](self.inner["wide"](x).relu())


class Nested(nn.Module):
    """A user's module of blocks."""

    def __init__(self):
        super().__init__()
        self.begin, self.blocks = nn.Linear(6, 12), nn.ModuleList([Block(), Block()])
        self.end = nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 2))

    def forward(self, x):
        x = self.begin(x)
        for block in self.blocks:
            x = block(x)
        return self.end(x)


def test_any_module(name, rule):
    X, y = table()
    model = ours(rule, module=Nested, max_iter=15).fit(X, y)
    assert learns(model.loss_curve_[0], model.loss_curve_[-1], name)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), model.predict_proba(X))
    net = skorch_net(clone(rule), module=Nested, max_epochs=15).fit(X, y)
    losses = net.history[:, "train_loss"]
    assert learns(losses[0], losses[-1], name)
    assert trained_parameters(net)


class Transformer(nn.Module):
    """A module whose layers are not called in eval mode: it reads their weights."""

    def __init__(self):
        super().__init__()
        self.begin, self.end = nn.Linear(1, 8), nn.Linear(8, 2)
        self.layer = nn.TransformerEncoderLayer(8, 2, 24, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.end(self.layer(self.begin(x[:, :, None])).mean(1))


def test_a_transformer(name, rule):
    X, y = table()
    model = ours(rule, module=Transformer, early_stopping=True, standardize=False, batch_size=20).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    with torch.inference_mode():
        fused = model.network()(torch.from_numpy(X))
    called = model.network()(torch.from_numpy(X))  # with gradients each layer is called
    assert torch.allclose(fused, called, rtol=0, atol=1e-5)
    model.partial_fit(X, y)


def test_fits_in_threads_equal_those_one_by_one(rule):
    X, y = table()

    def fit(seed):
        return ours(clone(rule), random_state=seed, max_iter=4).fit(X, y).weights_

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fit, range(4)))
    assert all(same_weights(a, fit(seed)) for seed, a in enumerate(together))


def test_global_generators_are_left_alone(rule):
    X, y = table()
    before, state = torch.get_rng_state(), np.random.get_state()[1].copy()
    ours(rule).fit(X, y).partial_fit(X, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], state)


def test_skorch_nets_follow_the_global_seed(rule):
    X, y = table()
    nets = []
    for _ in range(2):
        torch.manual_seed(1)
        nets.append(skorch_net(clone(rule)).fit(X, y))
    assert np.array_equal(nets[0].predict_proba(X), nets[1].predict_proba(X))


def test_default_devices_and_precisions_of_the_user_do_not_matter(rule):
    X, y = table()
    expected = ours(rule).fit(X, y).weights_
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            found = ours(clone(rule)).fit(X, y).weights_
    finally:
        torch.set_default_dtype(before)
    assert same_weights(found, expected)
    with torch.no_grad():
        assert same_weights(ours(clone(rule)).fit(X, y).weights_, expected)


@pytest.mark.cuda
def test_on_a_gpu(name, rule):
    X, y = table()
    model = ours(rule, device="cuda", max_iter=15).fit(X, y)
    assert learns(model.loss_curve_[0], model.loss_curve_[-1], name)
    net = skorch_net(clone(rule), device="cuda", max_epochs=15).fit(X, y)
    assert {p.device.type for p in net.module_.parameters()} == {"cuda"}
    losses = net.history[:, "train_loss"]
    assert learns(losses[0], losses[-1], name)
