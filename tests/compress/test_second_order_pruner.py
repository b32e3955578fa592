"""Pruning: the mathematics against dense matrices, the accuracy against magnitudes, and whatever holds a network."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_diabetes, load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklowrank.compress import SecondOrderPruner
from sklowrank.compress._second_order_pruner_solver import (
    PruningOptions,
    Weights,
    compensation,
    pruned,
    row_gradients,
    saliencies,
)
from sklowrank.neural import NetworkClassifier, NetworkRegressor, OrderedRank, RandomSubspace

X, y = load_digits(return_X_y=True)
X = X / 16 - 0.3
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)
DIABETES = load_diabetes(return_X_y=True)


@pytest.fixture(scope="module")
def network():
    model = NetworkClassifier((64, 64), max_iter=30, learning_rate=2e-3, tol=0, standardize=False, random_state=0)
    return FrozenEstimator(model.fit(X_train, y_train))


def prune(network, X=X_train, y=y_train, **params):
    return SecondOrderPruner(network, **{"random_state": 0, "n_grads": 96, "n_recompute": 4, **params}).fit(X, y)


# Mathematics


D, M, DAMP = 24, 10, 1e-2


def problem(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=D), rng.normal(size=(M, D)) * rng.uniform(0.1, 2, size=D)


def fisher(G, block_size=None):
    """The dense matrix; blocks of it alone."""
    F = DAMP * np.eye(D) + G.T @ G / M
    if block_size is not None:
        block = np.arange(D) // block_size
        F = np.where(block[:, None] == block, F, 0)
    return F


BLOCKS = pytest.mark.parametrize("block_size", [None, 100, 7, 16], ids=str)  # of fewer and of more weights than rows


@BLOCKS
def test_saliencies_are_those_of_the_dense_inverse(block_size):
    w, G = problem()
    expected = w**2 / (2 * np.diag(np.linalg.inv(fisher(G, block_size))))
    found = saliencies(torch.from_numpy(w), torch.from_numpy(G), DAMP, block_size)
    assert np.allclose(found, expected, rtol=1e-10)
    assert not np.array_equal(
        np.argsort(found.numpy()), np.argsort(w**2 * np.diag(fisher(G)))
    )  # not by the Fisher diagonal


@BLOCKS
def test_compensation_is_the_constrained_minimum(block_size):
    """Where half of the weights become zero at once, no change of the others makes the quadratic form smaller."""
    w, G = problem()
    kept = np.random.default_rng(1).random(D) < 0.5
    F = fisher(G, block_size)
    expected = np.zeros(D)
    expected[kept] = np.linalg.solve(F[np.ix_(kept, kept)], F[np.ix_(kept, ~kept)] @ w[~kept])
    found = compensation(torch.from_numpy(w), torch.from_numpy(G), torch.from_numpy(kept), DAMP, block_size)
    assert np.allclose(found, expected, rtol=1e-8, atol=1e-12)
    if block_size is None:
        inverse = np.linalg.inv(F)
        loss = lambda change: (change - np.where(kept, 0, w)) @ F @ (change - np.where(kept, 0, w))  # noqa: E731
        by_diagonal = -inverse @ np.where(kept, 0, w / np.diag(inverse)) * kept
        assert loss(found.numpy()) < 0.9 * min(loss(by_diagonal), loss(np.zeros(D)))


def test_one_weight_of_a_quadratic_loss():
    """Removing one weight with the others following costs the saliency, and no other weight costs less."""
    w, G = problem()
    F, weights = fisher(G), torch.from_numpy(w)
    cost = saliencies(weights, torch.from_numpy(G), DAMP, None).numpy()
    q = int(cost.argmin())
    kept = torch.arange(D) != q
    change = compensation(weights, torch.from_numpy(G), kept, DAMP, None).numpy()
    change[q] = -w[q]
    assert change @ F @ change / 2 == pytest.approx(cost[q], rel=1e-10)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_share_is_exact_to_one_weight_and_what_is_gone_stays_gone(scope):
    w, G = problem()
    weights = Weights(["a", "b"], [17, 7], torch.from_numpy(w), torch.ones(D, dtype=torch.bool))
    options = PruningOptions(M, DAMP, None, 3, scope, "mfac")
    gone = torch.zeros(D, dtype=torch.bool)
    for sparsity in (0.0, 0.3, 0.62, 0.9):
        weights = pruned(weights, sparsity, lambda _: torch.from_numpy(G.copy()), options)
        counts = [round(sparsity * n) for n in (17, 7)] if scope == "layer" else [round(sparsity * D)]
        parts = weights.kept.split([17, 7]) if scope == "layer" else [weights.kept]
        assert [int((~part).sum()) for part in parts] == counts
        assert not (gone & weights.kept).any()
        assert bool((weights.values[~weights.kept] == 0).all())
        gone = ~weights.kept


def test_gradients_of_rows_are_those_of_one_row_at_a_time():
    torch_rng = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 3)).eval()
    module[1].running_mean.normal_(generator=torch_rng)
    before = copy.deepcopy(module.state_dict())
    rows, target = torch.randn(300, 4, generator=torch_rng), torch.randint(3, (300,), generator=torch_rng)

    def loss(outputs, target):
        return nn.functional.cross_entropy(outputs, target, reduction="none")

    found = row_gradients(module, ["0.weight", "4.weight"], loss, rows, target)
    for i in (0, 127, 128, 299):
        module.zero_grad()
        loss(module(rows[i : i + 1]), target[i : i + 1]).sum().backward()
        expected = torch.cat([module[0].weight.grad.reshape(-1), module[4].weight.grad.reshape(-1)])
        assert torch.allclose(found[i], expected, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


# Accuracy


def test_better_than_magnitudes_on_digits(network):
    assert network.score(X_test, y_test) >= 0.96
    by_magnitude = prune(network, sparsity=0.8, criterion="magnitude").score(X_test, y_test)
    once = prune(network, sparsity=0.8, n_recompute=1, n_grads=512)
    assert once.score(X_test, y_test) >= by_magnitude + 0.02
    assert prune(network, sparsity=0.9, n_grads=256).score(X_test, y_test) >= 0.9
    assert prune(network, sparsity=0.9, criterion="magnitude").score(X_test, y_test) <= 0.8


def test_magnitudes_are_those_of_torch(network):
    ours = prune(network, sparsity=0.7, criterion="magnitude").network()
    theirs = network.estimator.network()
    parts = [(layer, "weight") for layer in theirs if isinstance(layer, nn.Linear)]
    nn.utils.prune.global_unstructured(parts, nn.utils.prune.L1Unstructured, amount=0.7)
    for a, (b, _) in zip([layer for layer in ours if isinstance(layer, nn.Linear)], parts):
        assert torch.equal(a.weight, b.weight)


def test_nothing_is_removed_at_a_sparsity_of_zero(network):
    pruner = prune(network, sparsity=0.0, n_grads=32, n_recompute=1)
    assert np.allclose(pruner.predict_proba(X_test), network.predict_proba(X_test), atol=1e-6)
    assert np.array_equal(pruner.predict(X_test), network.predict(X_test))
    assert pruner.sparsity_ == 0
    assert pruner.n_nonzero_ == pruner.n_parameters_ == network.n_parameters_


def test_attributes_and_the_module(network):
    pruner = prune(network, sparsity=0.85, n_recompute=2)
    weights = sum(mask.size for mask in pruner.masks_.values())
    removed = sum(int((~mask).sum()) for mask in pruner.masks_.values())
    assert set(pruner.masks_) == {"0.weight", "2.weight", "4.weight"}
    assert removed == round(0.85 * weights)
    assert pruner.sparsity_ == pytest.approx(removed / weights)
    assert pruner.n_nonzero_ == pruner.n_parameters_ - removed
    module = pruner.network()
    assert sum(int((p == 0).sum()) for p in module.parameters()) == removed
    for name, mask in pruner.masks_.items():
        assert np.array_equal(module.get_parameter(name).detach().numpy() == 0, ~mask)
    for i in (0, 2, 4):  # biases are kept
        assert torch.equal(module[i].bias, network.estimator.network()[i].bias)
    outputs = module(torch.from_numpy(X_test).float())
    assert np.allclose(outputs.softmax(1).detach(), pruner.predict_proba(X_test), atol=1e-5)
    with torch.no_grad():
        module[0].weight.zero_()
    assert pruner.network()[0].weight.any()
    assert list(pruner.classes_) == list(range(10))
    assert pruner.n_features_in_ == 64


def test_training_of_what_is_left_revives_nothing(network):
    tuned = prune(network, sparsity=0.95, n_recompute=2, schedule=[0.5, 0.8], finetune_epochs=2)
    plain = prune(network, sparsity=0.95, n_recompute=2)
    assert tuned.sparsity_ == plain.sparsity_
    for name, mask in tuned.masks_.items():
        assert not tuned.weights_[name][~mask].any()
        assert tuned.weights_[name][mask].all()
    assert tuned.score(X_test, y_test) > plain.score(X_test, y_test) + 0.02
    assert not np.array_equal(tuned.weights_["0.bias"], plain.weights_["0.bias"])


def test_more_gradients_than_rows_are_drawn_again_with_a_warning(network):
    with pytest.warns(UserWarning, match=r"n_grads=110 is more than n_samples=100: rows are drawn with replacement"):
        assert prune(network, X_train[:100], y_train[:100], sparsity=0.5, n_grads=110).score(X_test, y_test) > 0.9
    prune(network, X_train[:100], y_train[:100], criterion="magnitude")  # which draws none


# Whatever holds a network


def skorch(kind, n_outputs, **params):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.1), nn.ReLU(), nn.Linear(32, n_outputs))
    return kind(module, max_epochs=15, lr=0.2, train_split=None, verbose=0, **params)


def test_frozen_estimators_are_not_fitted_and_others_are_cloned(network):
    before = pickle.dumps(network.estimator)
    prune(network, X_train[:600], y_train[:600], n_recompute=2)
    assert pickle.dumps(network.estimator) == before
    plain = NetworkClassifier((8,), max_iter=2, tol=0, random_state=0)
    pruner = prune(plain, sparsity=0.2)
    assert not hasattr(plain, "weights_")
    fitted = clone(plain).fit(X_train, y_train)
    again = prune(FrozenEstimator(fitted), sparsity=0.2)
    assert np.array_equal(pruner.predict_proba(X_test), again.predict_proba(X_test))
    with pytest.raises(ValueError, match=r"X has 3 features, but the network in estimator is expecting 64"):
        prune(network, X_train[:, :3])
    with pytest.raises(ValueError, match="not among the classes"):
        prune(network, X_train[:600], y_train[:600] + 5)


def test_a_skorch_net():
    rows, labels = X_train.astype(np.float32), y_train
    net = skorch(NeuralNetClassifier, 10, criterion=nn.CrossEntropyLoss)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net.fit(rows, labels)
    before = copy.deepcopy(net.module_.state_dict())
    pruner = prune(FrozenEstimator(net), rows, labels, sparsity=0.6)
    assert is_classifier(pruner)
    assert pruner.score(X_test.astype(np.float32), y_test) > net.score(X_test.astype(np.float32), y_test) - 0.05
    assert pruner.predict_proba(rows[:5]).shape == (5, 10)
    assert all(torch.equal(value, before[name]) for name, value in net.module_.state_dict().items())
    assert isinstance(pruner.network(), nn.Sequential)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert prune(clone(net), rows, labels, sparsity=0.0, n_recompute=1).score(rows, labels) > 0.8
    values = skorch(NeuralNetRegressor, 2).fit(rows, rows[:, 2:4])
    pruner = prune(FrozenEstimator(values), rows, rows[:, 2:4], sparsity=0.0, n_recompute=1)
    assert is_regressor(pruner)
    assert not hasattr(pruner, "predict_proba")
    assert np.allclose(pruner.predict(rows), values.predict(rows), atol=1e-6)


def test_a_bare_module_in_its_own_precision():
    rng = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=rng)
    target = module.eval()(torch.from_numpy(X_train)).argmax(1).numpy()
    module.train()
    pruner = prune(module, X_train, target, sparsity=0.3)
    assert module.training
    assert all(bool((p != 0).all()) for p in module.parameters())
    assert pruner.network()[0].weight.dtype == torch.float64
    assert set(pruner.masks_) == {"0.weight", "3.weight"}
    assert pruner.predict(X_train).shape == (len(X_train), 10)
    assert pruner.score(X_train, target) > 0.85
    assert pruner.score(X_train, np.eye(10)[target]) < 0  # values: a coefficient of determination
    twin = clone(pruner).fit(X_train, target)
    assert np.array_equal(twin.predict(X_test), pruner.predict(X_test))
    images = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    pruner = prune(images, X_train.reshape(-1, 1, 8, 8).astype(np.float32), y_train, sparsity=0.5, finetune_epochs=1)
    assert pruner.masks_["0.weight"].shape == (4, 1, 3, 3)
    with pytest.raises(ValueError, match="no weight matrix"):
        prune(nn.BatchNorm1d(64).eval(), X_train, X_train)


def test_a_pipeline():
    pipe = make_pipeline(StandardScaler(), NetworkClassifier((16,), max_iter=5, tol=0, random_state=0))
    names = np.array(list("abcdefghij"))
    pruner = prune(pipe, 1000 * X_train, names[y_train], sparsity=0.5)
    assert set(pruner.predict(1000 * X_test)) <= set(names)
    assert (
        pruner.score(1000 * X_test, names[y_test])
        > pipe.fit(1000 * X_train, names[y_train]).score(1000 * X_test, names[y_test]) - 0.1
    )
    twin = pickle.loads(pickle.dumps(pruner))
    assert np.array_equal(twin.predict_proba(1000 * X_test), pruner.predict_proba(1000 * X_test))


@pytest.mark.parametrize("columns", [None, 1, 2])
def test_regressors(columns):
    rows, values = DIABETES
    target = values if columns is None else np.stack([values, -2 * values], 1)[:, :columns]
    model = NetworkRegressor((16,), max_iter=30, tol=0, learning_rate=1e-2, random_state=0)
    pruner = SecondOrderPruner(model, sparsity=0.5, n_grads=400, random_state=0).fit(rows, target)
    assert is_regressor(pruner)
    assert pruner.predict(rows).shape == target.shape
    assert pruner.score(rows, target) > 0.4
    assert not hasattr(pruner, "predict_proba")


def test_a_pruned_network_is_pruned_further(network):
    first = prune(network, sparsity=0.7)
    second = prune(FrozenEstimator(first), sparsity=0.9)
    assert second.score(X_test, y_test) > 0.9
    assert second.n_nonzero_ < first.n_nonzero_
    with_zeros = prune(FrozenEstimator(first), sparsity=0.0)
    assert np.allclose(with_zeros.predict_proba(X_test), first.predict_proba(X_test), atol=1e-6)


def test_a_search_over_sparsities(network):
    pruner = SecondOrderPruner(network, n_grads=64, n_recompute=2, random_state=0)
    search = GridSearchCV(pruner, {"sparsity": [0.5, 0.98]}, cv=2)
    assert search.fit(X_train[:200], y_train[:200]).best_params_ == {"sparsity": 0.5}


@pytest.mark.parametrize(
    ("params", "said"),
    [({"sparsity": 1.0}, "sparsity"), ({"sparsity": -0.1}, "sparsity"), ({"damp": 0.0}, "damp"),
     ({"n_grads": 0}, "n_grads"), ({"block_size": 0}, "block_size"), ({"scope": "row"}, "scope"),
     ({"schedule": [0.5, 0.4]}, "schedule=.*has to increase"), ({"schedule": [0.95]}, "below sparsity=0.9"),
     ({"schedule": ["a"]}, "in numbers"), ({"schedule": [[0.5]]}, "in numbers"),
     ({"schedule": [-0.1]}, "schedule"), ({"finetune_epochs": -1}, "finetune_epochs")],
    ids=str,
)  # fmt: skip
def test_bad_values_are_refused(network, params, said):
    with pytest.raises(ValueError, match=said):
        prune(network, **params)


def test_what_holds_no_network_is_refused():
    with pytest.raises(TypeError, match="holds no network"):
        prune(StandardScalerLike())
    with pytest.raises(ValueError, match="estimator"):
        prune("network")


class StandardScalerLike(StandardScaler):
    def predict(self, X):
        return X


@pytest.mark.cuda
def test_on_a_gpu(network):
    here = prune(network, sparsity=0.8, n_recompute=1, device="cpu")
    there = prune(network, sparsity=0.8, n_recompute=1, device="cuda")
    assert np.mean(here.predict(X_test) == there.predict(X_test)) > 0.98
    assert next(there.network("cuda").parameters()).is_cuda
    assert pickle.loads(pickle.dumps(there)).set_params(device="cpu").score(X_test, y_test) > 0.9


@pytest.mark.parametrize("rule", [RandomSubspace(100), OrderedRank()], ids=["subspace", "ordered"])
def test_networks_of_training_rules(rule):
    """Of a random subspace a network stores its coordinates: a pruned one stores its weights."""
    X, y = load_digits(return_X_y=True)
    X = X[:400] / 16
    model = NetworkClassifier((16, 16), training=rule, max_iter=3, tol=0, random_state=0).fit(X, y[:400])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruned = SecondOrderPruner(FrozenEstimator(model), sparsity=0.5, n_grads=50, random_state=0).fit(X, y[:400])
    answers = pruned.network(whole=True)(torch.tensor(X)).argmax(1).numpy()
    assert np.mean(pruned.predict(X) == answers) > 0.99
    assert np.array_equal(pickle.loads(pickle.dumps(pruned)).predict(X), pruned.predict(X))
