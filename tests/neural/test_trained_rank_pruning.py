"""Trained rank pruning against ten lines of numpy, plain training and its truncation, through both doors."""

import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping
from skorch.dataset import ValidSplit
from torch import nn

from sklowrank._math.linalg import stable_svd
from sklowrank._nets.layers import ThinLinear, mlp
from sklowrank.neural import NetworkClassifier, NetworkRegressor, TrainedRankPruning
from sklowrank.neural._trained_rank_pruning import nuclear_subgradient, rank_by_energy, rank_by_value

LOW = {"energy": 0.9, "period": 3, "nuclear_weight": 0.05}  # low ranks within some epochs


def table(n=60, n_features=6, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, n_features)).astype(np.float32)
    return X, (X[:, 0] - X[:, 1] ** 2 > -0.5).astype(np.int64)


pytestmark = pytest.mark.filterwarnings("ignore:.*before it could measure")


@pytest.fixture(autouse=True)
def _own_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def small(kind, rule, sizes=(16, 16), **params):
    settings = {"learning_rate": 0.01, "batch_size": 16, "max_iter": 8, "tol": 0, "device": "cpu", "random_state": 0}
    return kind(sizes, training=rule, **{**settings, **params})


classifier, regressor = partial(small, NetworkClassifier), partial(small, NetworkRegressor)


def network(sizes=(16, 16), n_out=2, seed=0):
    return mlp((6,), n_out, torch.Generator().manual_seed(seed), hidden_layer_sizes=sizes)


def skorch_net(rule, *callbacks, module=None, **params):
    named = [(f"own{i}", callback) for i, callback in enumerate(callbacks)]
    settings = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.Adam,
        "lr": 0.01,
        "max_epochs": 8,
        "batch_size": 16,
        "train_split": None,
        "verbose": 0,
        **params,
    }
    rules = [] if rule is None else [("rule", rule)]
    return NeuralNetClassifier(network() if module is None else module, callbacks=[*named, *rules], **settings)


def weights_of(net):
    return {name: value.detach().clone() for name, value in net.module_.state_dict().items()}


def matrix(values, shape=(9, 7), seed=0):
    """A matrix with the singular values given."""
    rng = np.random.default_rng(seed)
    U, V = (np.linalg.qr(rng.normal(size=(n, len(values))))[0] for n in shape)
    return torch.from_numpy((U * values) @ V.T)


# Against definitions


def test_ranks_follow_squares_of_singular_values():
    s = torch.tensor([4.0, 2.0, 1.0, 0.5])  # squares 16, 4, 1, 0.25: shares 0.753, 0.941, 0.988, 1
    assert [rank_by_energy(s, energy) for energy in (0.5, 0.9, 0.95, 0.99, 1)] == [1, 2, 3, 4, 4]
    assert rank_by_energy(s, 0.8) == 2  # values themselves would have shares 0.533, 0.8
    assert [rank_by_value(s, share) for share in (0, 0.125, 0.2, 0.5, 0.9)] == [4, 4, 3, 2, 1]
    assert rank_by_energy(torch.zeros(4), 0.9) == rank_by_value(torch.zeros(4), 0.0) == 0
    assert rank_by_energy(1e-25 * s, 0.9) == 2
    assert rank_by_energy(1e25 * s, 0.9) == 2


def test_the_subgradient_has_all_singular_vectors_but_those_of_zero():
    W = matrix([3.0, 1.0, 1e-3])
    U, _, Vh = np.linalg.svd(W.numpy(), full_matrices=False)
    assert np.allclose(nuclear_subgradient(*stable_svd(W)), U[:, :3] @ Vh[:3], atol=1e-10)
    slope = nuclear_subgradient(*stable_svd(matrix(np.arange(1.0, 8.0)))) * 1e-6
    nuclear = [torch.linalg.matrix_norm(matrix(np.arange(1.0, 8.0)) + t * slope, "nuc") for t in (-1, 1)]
    assert float(nuclear[1] - nuclear[0]) == pytest.approx(2e-6 * 7, rel=1e-6)  # its squared norm is the rank


def reference(X, y, *, energy, period, nuclear_weight, lr, batch_size, n_epochs):
    """Weights, ranks at truncations; gradient descent with truncated weights of the first two layers."""
    net = network()
    weights, ranks, step = [net[0].weight, net[2].weight], [], 0
    for _ in range(n_epochs):
        for i in range(0, len(X), batch_size):
            full = []
            if step % period == 0:
                for W in weights:
                    U, s, Vh = np.linalg.svd(W.detach().numpy(), full_matrices=False)
                    r = 1 + int(np.argmax(np.cumsum(s**2) >= energy * np.sum(s**2)))
                    W.data = torch.from_numpy((U[:, :r] * s[:r]) @ Vh[:r])
                    full.append((r, torch.from_numpy(U @ Vh)))
                ranks.append([r for r, _ in full])
            net.zero_grad()
            rows = slice(i, i + batch_size)
            nn.functional.cross_entropy(net(torch.from_numpy(X[rows])), torch.from_numpy(y[rows])).backward()
            for W, (_, subgradient) in zip(weights, full):
                W.grad += nuclear_weight * subgradient
            for p in net.parameters():
                p.data -= lr * p.grad
            step += 1
    return net, np.array(ranks)


def test_steps_are_those_of_ten_lines_of_numpy():
    X, y = table()
    settings = {"energy": 0.8, "period": 3, "nuclear_weight": 0.1}
    expected, ranks = reference(X, y, **settings, lr=0.3, batch_size=16, n_epochs=5)
    seen = []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            seen.append(weights_of(net))

    rule = TrainedRankPruning(**settings)
    skorch_net(rule, Watch(), optimizer=torch.optim.SGD, lr=0.3, max_epochs=5).fit(X, y)
    for name, value in expected.state_dict().items():
        assert torch.allclose(seen[-1][name], value, rtol=0, atol=1e-5)
    assert np.array_equal(rule.report()["rank_curve"], ranks)
    assert rule.report()["n_truncations"] == len(ranks) == 7  # steps 0, 3, ..., 18 of 20


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_without_truncation_and_nuclear_norm_it_is_plain_training_bit_for_bit(optimizer):
    X, y = table()
    rule = TrainedRankPruning(truncate=False, nuclear_weight=0)
    for fit in (skorch_net, lambda rule, **kw: classifier(rule, net_params=kw)):
        plain, ours = (fit(r, optimizer=optimizer).fit(X, y) for r in (None, clone(rule)))
        a, b = (getattr(net, "weights_", None) or weights_of(net) for net in (plain, ours))
        assert list(a) == list(b)
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert ours.training_["n_truncations"] == 0
    assert ours.training_["rank_curve"].shape == (0, 2)
    assert ours.n_parameters_ == plain.n_parameters_
    held_out = {"early_stopping": True, "validation_fraction": 0.2}
    plain, ours = (classifier(r, **held_out).fit(X, y) for r in (None, rule))
    assert all(np.array_equal(plain.weights_[name], ours.weights_[name]) for name in plain.weights_)


# Recovery


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16 - 0.3, y, test_size=0.3, stratify=y, random_state=0)


def cut(network, ranks):
    """The network with layers 0 and 2 truncated after the training."""
    for layer, rank in zip((network[0], network[2]), ranks):
        U, s, Vh = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
        layer.weight.data = (U[:, :rank] * s[:rank]) @ Vh[:rank]
    return network


def test_digits_at_low_rank_where_plain_training_cannot_be_cut(digits):
    X, X_new, y, y_new = digits
    rule = TrainedRankPruning(energy=0.98, period=5, nuclear_weight=1e-2)
    settings = {"max_iter": 30, "tol": 0, "standardize": False, "device": "cpu", "random_state": 0}
    pruned, plain = (NetworkClassifier(training=r, **settings).fit(X, y) for r in (rule, None))
    assert max(pruned.ranks_) <= 12  # 60 epochs reach 10: benchmarks
    assert tuple(pruned.training_["ranks"].values()) == tuple(pruned.ranks_)
    assert pruned.score(X_new, y_new) >= 0.955
    assert pruned.n_parameters_ <= 0.35 * pruned.n_dense_parameters_
    ranks = [rank - 3 for rank in pruned.training_["ranks"].values()]
    outputs = cut(plain.network(), ranks)(torch.from_numpy(X_new).float())
    assert pruned.score(X_new, y_new) >= 0.05 + np.mean(outputs.argmax(1).numpy() == y_new)


# The end


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thin_layers_are_the_truncated_weights_in_half_the_numbers_or_the_layer_keeps_its_shape(dtype):
    net = network().to(dtype)
    for at, values in ((0, [5.0, 2.0, 1.0]), (2, [3.0, 1.0, 0.5, 1e-3])):
        net[at].weight.data = matrix(values, net[at].weight.shape).to(dtype)
    rule, X = TrainedRankPruning(energy=1.0, final_threshold=0.01, skip_last=False), torch.randn(20, 6, dtype=dtype)
    rule.generator_ = torch.Generator().manual_seed(0)
    assert rule.convert(net) == []
    before = [net[0].weight.clone(), net(X)]
    edits = rule.finish(net)
    assert rule.report()["ranks"] == {"0": 3, "2": 3, "4": 2}
    assert [(edit.path, edit.kind, edit.shape[2]) for edit in edits] == [("0", "thin", 3), ("2", "thin", 3)]
    assert type(net[4]) is nn.Linear  # 2 (2 + 16) is more than 2 x 16
    assert {p.dtype for p in net.parameters()} == {dtype}
    precision = 1e-12 if dtype == torch.float64 else 1e-5
    assert torch.allclose(net[0].up @ net[0].down, before[0], rtol=0, atol=precision)
    assert torch.allclose(net[0].up.T @ net[0].up, net[0].down @ net[0].down.T, rtol=0, atol=10 * precision)
    assert torch.allclose(net(X), before[1], rtol=0, atol=2e-3)  # 1e-3 is what was dropped
    again = rule.convert(net)
    assert [(edit.path, edit.kind) for edit in again] == [("0", "linear"), ("2", "linear")]
    assert torch.allclose(net[0].weight, before[0], rtol=0, atol=precision)


def test_layers_that_do_not_become_smaller_are_truncated_all_the_same():
    net = network()
    net[0].weight.data = matrix([1.0, 1.0, 1.0, 1.0, 1.0, 1e-3], (16, 6)).float()
    rule = TrainedRankPruning(final_threshold=0.01)
    rule.convert(net)
    rule.finish(net)
    assert type(net[0]) is nn.Linear  # 5 (16 + 6) is more than 16 x 6
    assert int(torch.linalg.matrix_rank(net[0].weight.detach(), rtol=1e-5)) == rule.report()["ranks"]["0"] == 5


def test_threshold_at_the_end_is_for_nuclear_norms_alone_too():
    X, y = table()
    settings = {"truncate": False, "nuclear_weight": 0.05, "period": 1}
    descent = {"learning_rate": 0.1, "max_iter": 40, "net_params": {"optimizer": torch.optim.SGD}}
    ranks = [
        classifier(TrainedRankPruning(**settings, final_threshold=share), **descent).fit(X, y).ranks_[1]
        for share in (0.0, 0.05)
    ]
    assert ranks[0] == 16
    assert ranks[1] < 10


@pytest.mark.parametrize(
    ("limit", "ranks"), [(2, {"0": 2, "2": 2}), ({"2": 3}, {"0": 6, "2": 3}), ({}, {"0": 6, "2": 16})]
)
@pytest.mark.parametrize("truncate", [True, False])
def test_no_rank_is_above_its_limit(limit, ranks, truncate):
    X, y = table()
    rule = TrainedRankPruning(energy=1.0, nuclear_weight=0, final_threshold=0, max_rank=limit, truncate=truncate)
    model = classifier(rule, max_iter=3).fit(X, y)
    assert model.training_["ranks"] == ranks
    if truncate:
        assert model.training_["rank_curve"].tolist() == [list(ranks.values())]


# Traps


def test_ranks_rise_again_where_the_task_asks_for_it():
    X, y = table()
    module = network()
    for at in (0, 2):
        module[at].weight.data = matrix([1.0], module[at].weight.shape).float()
    rule = TrainedRankPruning(0.98, period=5, nuclear_weight=1e-3)
    skorch_net(rule, module=module, max_epochs=20).fit(X, y)
    curve = rule.report()["rank_curve"]
    assert curve[0].tolist() == [1, 1]
    assert (curve[-1] > 1).all()


def count_nuclear_steps(rule, X, y, **params):
    """By step, whether the nuclear norm has changed the gradient, and whether the weight was of low rank."""
    seen, gradients = [], []

    class Before(Callback):
        def on_grad_computed(self, net, **kwargs):
            gradients.append(net.module_[2].weight.grad.clone())

    class After(TrainedRankPruning):
        def on_grad_computed(self, net, **kwargs):
            super().on_grad_computed(net, **kwargs)
            weight = net.module_[2].weight
            full = int(torch.linalg.matrix_rank(weight.detach(), rtol=1e-5)) == 16
            seen.append((not torch.equal(weight.grad, gradients[-1]), not full))

    skorch_net(After(**rule.get_params()), Before(), **params).fit(X, y)
    return seen


def test_nuclear_norm_and_truncation_work_in_the_same_steps_only():
    X, y = table()  # 4 batches an epoch
    seen = count_nuclear_steps(TrainedRankPruning(0.8, period=5, nuclear_weight=0.1), X, y, max_epochs=3)
    assert [nuclear for nuclear, _ in seen] == [True, False, False, False, False] * 2 + [True, False]
    assert [low for _, low in seen] == [nuclear for nuclear, _ in seen]


def test_state_of_the_optimizer_is_that_of_the_full_weights():
    X, y = table()
    sizes = []

    class Watch(Callback):
        def on_batch_end(self, net, **kwargs):
            state = net.optimizer_.state[net.module_[2].weight]
            sizes.append((int(state["step"]), int(torch.linalg.matrix_rank(state["exp_avg"]))))

    skorch_net(TrainedRankPruning(0.5, period=1), Watch(), max_epochs=3).fit(X, y)
    assert [step for step, _ in sizes] == list(range(1, 13))
    assert max(rank for _, rank in sizes) > 6


def test_truncation_in_training_is_not_the_truncation_at_the_end():
    X, y = table()
    limit = {"energy": 1.0, "nuclear_weight": 0, "max_rank": 1, "period": 1}
    within, after = (
        classifier(TrainedRankPruning(**limit, truncate=truncate), max_iter=40).fit(X, y) for truncate in (True, False)
    )
    assert within.ranks_[:2] == after.ranks_[:2] == (1, 1)
    assert within.score(X, y) >= after.score(X, y) + 0.05


def validated(rule, X, y, *callbacks, **params):
    params = {"train_split": ValidSplit(3, stratified=True), **params}
    return skorch_net(rule, *callbacks, **params).fit(X, y)


def test_validation_sees_truncated_weights_and_does_not_change_training():
    X, y = table()
    low, ends = [], []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            low.append(int(torch.linalg.matrix_rank(net.module_[2].weight.detach(), rtol=1e-5)))

        def on_batch_begin(self, net, training, **kwargs):
            if training:
                return
            ends.append(net.module_[2].weight.detach().clone())

    rules = [TrainedRankPruning(0.8, period=5, nuclear_weight=0.1) for _ in range(2)]
    net = validated(rules[0], X, y, Watch())
    assert max(low) < 16
    assert int(torch.linalg.matrix_rank(ends[0], rtol=1e-5)) == 16  # the callback comes before the rule
    kept = ValidSplit(3, stratified=True)(X, y)[0].indices
    alone = skorch_net(rules[1]).fit(X[kept], y[kept])
    curves = [rule.report()["rank_curve"] for rule in rules]
    assert np.array_equal(*curves)
    assert alone.history[:, "train_loss"] == net.history[:, "train_loss"]


def test_early_stopping_keeps_weights_that_were_validated_and_truncates_them_once():
    X, y = table(200)
    losses = {}

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            losses[net.history[-1, "valid_loss"]] = weights_of(net)

    rule = TrainedRankPruning(0.9, period=1000, final_threshold=1e-4)
    model = classifier(
        rule,
        early_stopping=True,
        validation_fraction=0.3,
        max_iter=30,
        n_iter_no_change=30,
        net_params={"callbacks": [Watch()]},
    ).fit(X, y)
    best = losses[min(losses)]
    assert min(losses) != list(losses)[-1]  # an epoch in the middle
    now = model.network()
    for path in ("0", "2"):
        layer, weight = now.get_submodule(path), best[f"{path}.weight"]
        rank = int(torch.linalg.matrix_rank(weight, rtol=1e-5))
        assert model.training_["ranks"][path] == rank
        product = layer.up @ layer.down if isinstance(layer, ThinLinear) else layer.weight
        assert torch.allclose(product, weight, rtol=0, atol=1e-5)
    assert any(isinstance(layer, ThinLinear) for layer in now)
    s = torch.linalg.svdvals(best["2.weight"])
    assert rank_by_energy(s, 0.9) < model.training_["ranks"]["2"]  # what a second truncation would have lost


def test_best_weights_of_a_skorch_callback_are_truncated_once_too():
    X, y = table(200)
    losses = {}

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            losses[net.history[-1, "valid_loss"]] = weights_of(net)

    rule = TrainedRankPruning(0.9, period=1000, final_threshold=1e-4)
    net = validated(rule, X, y, Watch(), EarlyStopping(patience=4, load_best=True), max_epochs=60)
    assert len(net.history) < 60
    rank = int(torch.linalg.matrix_rank(losses[min(losses)]["2.weight"], rtol=1e-5))
    assert rule.report()["ranks"]["2"] == rank
    W = net.module_[2].up @ net.module_[2].down
    assert torch.allclose(W, losses[min(losses)]["2.weight"], rtol=0, atol=1e-5)


def test_weights_between_truncations_are_truncated_at_the_end_by_energy():
    X, y = table()  # 4 steps an epoch: 31 steps after the only truncation
    model = classifier(TrainedRankPruning(0.8, period=1000, final_threshold=0)).fit(X, y)
    assert len(model.training_["rank_curve"]) == 1
    assert max(model.ranks_[:2]) < 6


def test_a_failed_decomposition_is_repeated_then_skipped_with_a_warning(monkeypatch):
    svd, calls = torch.linalg.svd, []

    def failing(broken):
        def fails(A, **options):
            calls.append(A.dtype)
            if A.dtype in broken and A.shape == (16, 16):
                raise torch.linalg.LinAlgError("no convergence")
            return svd(A, **options)

        return fails

    X, y = table()
    rule = TrainedRankPruning(**LOW)
    expected = classifier(rule).fit(X, y)
    monkeypatch.setattr(torch.linalg, "svd", failing({torch.float32}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = classifier(rule).fit(X, y)
    assert torch.float64 in calls
    assert model.training_["ranks"] == expected.training_["ranks"]
    monkeypatch.setattr(torch.linalg, "svd", failing({torch.float32, torch.float64}))
    with pytest.warns(RuntimeWarning, match="decomposition of layer '2' failed"):
        model = classifier(rule).fit(X, y)
    assert model.training_["ranks"]["2"] == 16
    assert model.training_["ranks"]["0"] < 6
    assert model.score(X, y) > 0.8


def test_svd_refuses_what_is_not_finite():
    with pytest.raises(torch.linalg.LinAlgError):
        stable_svd(torch.full((3, 2), torch.nan))
    assert [part.dtype for part in stable_svd(torch.eye(3, dtype=torch.bfloat16))] == [torch.float32] * 3


# Doors


def test_both_doors_train_alike():
    X, y = table(64)
    rule = TrainedRankPruning(**LOW)
    ours = classifier(rule, batch_size=64, max_iter=30, standardize=False, learning_rate=0.05, module=network())
    ours.fit(X, y)
    theirs_rule = clone(rule)
    theirs = skorch_net(theirs_rule, batch_size=64, max_epochs=30, lr=0.05).fit(X, y)
    assert ours.training_["ranks"] == theirs_rule.report()["ranks"]
    assert np.array_equal(ours.training_["rank_curve"], theirs_rule.report()["rank_curve"])
    assert np.allclose(ours.loss_curve_, theirs.history[:, "train_loss"], rtol=1e-3)


class Nested(nn.Module):
    """A user's module: a frozen layer, one that is used twice, a convolution, and layers in a list."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.first.weight.requires_grad_(False)
        self.blocks = nn.ModuleList([nn.Linear(16, 16, bias=False), nn.Linear(16, 16), nn.Linear(16, 16)])
        self.blocks[2].weight = self.blocks[1].weight
        self.filter = nn.Conv1d(1, 1, 3, padding=1)
        self.head = nn.ModuleDict({"out": nn.Linear(16, 2)})

    def forward(self, x):
        x = self.first(x).relu()
        for layer in self.blocks:
            x = layer(x).relu()
        return self.head["out"](self.filter(x[:, None])[:, 0])


def test_layers_of_any_module_but_those_that_are_frozen_or_shared():
    X, y = table()
    rule = TrainedRankPruning(**LOW)
    net = skorch_net(rule, module=Nested()).fit(X, y)
    assert list(rule.report()["ranks"]) == ["blocks.0"]
    assert net.module_.blocks[0].bias is None
    assert isinstance(net.module_.blocks[0], ThinLinear)
    assert net.module_.blocks[1].weight is net.module_.blocks[2].weight
    known = [id(p) for group in net.optimizer_.param_groups for p in group["params"]]
    assert sorted(known) == sorted(id(p) for p in net.module_.parameters())
    model = classifier(clone(rule), module=Nested).fit(X, y)
    assert list(model.training_["ranks"]) == ["blocks.0"]
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))


def test_training_goes_on_with_thin_layers():
    X, y = table()
    rule = TrainedRankPruning(**LOW)
    model = classifier(rule).fit(X, y)
    before = model.loss_curve_[-1]
    ranks = model.ranks_[1]
    for _ in range(3):
        model.partial_fit(X, y)
    assert model.training_["n_truncations"] == 1  # step 3 of the steps 1 to 4
    assert len(model.loss_curve_) == 11
    assert model.loss_curve_[-1] < before + 0.1
    assert model.ranks_[1] <= ranks + 2
    net = skorch_net(rule).fit(X, y)
    first = net.predict_proba(X)
    net.partial_fit(X, y)
    assert isinstance(net.module_[2], ThinLinear)
    assert not np.array_equal(net.predict_proba(X), first)
    known = [id(p) for group in net.optimizer_.param_groups for p in group["params"]]
    assert sorted(known) == sorted(id(p) for p in net.module_.parameters())


@pytest.mark.parametrize("energy", [0.9, 1.0])  # thin layers, and dense ones
def test_steps_of_one_batch_each_do_not_truncate_each_time(energy):
    X, y = table(16)
    model = classifier(TrainedRankPruning(energy, period=5, final_threshold=0), max_iter=1).fit(X, y)
    assert model.training_["n_truncations"] == 1
    for _ in range(3):
        model.partial_fit(X, y)
        assert model.training_["n_truncations"] == 0


def test_nets_with_the_rule_are_cloned_pickled_and_searched():
    X, y = table()
    net = skorch_net(TrainedRankPruning(**LOW)).fit(X, y)
    again = pickle.loads(pickle.dumps(net))
    assert np.array_equal(again.predict_proba(X), net.predict_proba(X))
    search = GridSearchCV(clone(net), {"callbacks__rule__energy": [0.5, 0.9]}, cv=2, error_score="raise").fit(X, y)
    assert search.best_params_["callbacks__rule__energy"] in (0.5, 0.9)
    model = classifier(TrainedRankPruning(**LOW))
    search = GridSearchCV(model, {"training__energy": [0.5, 0.9]}, cv=2, error_score="raise").fit(X, y)
    assert search.best_estimator_.training.energy == search.best_params_["training__energy"]


def test_an_interrupt_leaves_a_finished_net():
    X, y = table()

    class Break(Callback):
        def on_batch_begin(self, net, training, **kwargs):
            if len(net.history) == 4:
                raise KeyboardInterrupt

    rule = TrainedRankPruning(**LOW)
    net = skorch_net(rule, Break()).fit(X, y)
    assert isinstance(net.module_[2], ThinLinear)
    assert np.isfinite(net.predict_proba(X)).all()
    assert not rule.subgradients_
    assert not rule.untruncated_


@pytest.mark.parametrize("case", ["one row", "constant", "zeros", "one feature"])
def test_little_to_learn_from(case):
    X, y = np.random.default_rng(0).normal(size=(33, 3)), np.random.default_rng(1).normal(size=33)
    X = {"one row": X[:1], "constant": np.ones_like(X), "zeros": 0 * X, "one feature": X[:, :1]}[case]
    model = regressor(TrainedRankPruning(**LOW), batch_size=16).fit(X, y[: len(X)])
    assert np.isfinite(model.predict(X)).all()


def test_weights_of_zeros_have_rank_zero():
    X, y = table()
    module = network()
    for part in module[2].parameters():
        nn.init.zeros_(part)
    nn.init.zeros_(module[4].weight)  # no gradient reaches the weight before it
    rule = TrainedRankPruning(**LOW)
    net = skorch_net(rule, module=module, lr=1e-12, max_epochs=1, optimizer=torch.optim.SGD, batch_size=60).fit(X, y)
    assert rule.report()["ranks"]["2"] == 0
    assert net.module_[2].up.shape == (16, 0)
    assert torch.equal(net.module_(torch.from_numpy(X))[0], net.module_[4].bias.detach())
    net.partial_fit(X, y)
    assert np.isfinite(net.predict_proba(X)).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"energy": 0}, "'energy' parameter of TrainedRankPruning"),
        ({"period": 0}, "'period'"),
        ({"nuclear_weight": -1}, "'nuclear_weight'"),
        ({"final_threshold": 1}, "'final_threshold'"),
        ({"max_rank": 0}, "'max_rank'"),
        ({"max_rank": {"1": 3}}, r"no layer '1' to limit. Use paths of \['0', '2'\]"),
        ({"max_rank": {"2": 0}}, "has to be an int >= 1"),
        ({"skip_first": 2}, "skip_first=2 and skip_last=True leave none of the 3 linear layers"),
        ({"skip_last": 1.5}, "'skip_last'"),
        ({"truncate": "yes"}, "'truncate'"),
    ],
)
def test_wrong_parameters_are_named_in_both_doors(params, message):
    X, y = table()
    for net in (classifier(TrainedRankPruning(**params)), skorch_net(TrainedRankPruning(**params))):
        with pytest.raises(ValueError, match=message):
            net.fit(X, y)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision_is_that_of_the_module(dtype):
    X, y = table()
    rule = TrainedRankPruning(**LOW)
    net = skorch_net(rule, module=network().to(dtype), optimizer=torch.optim.SGD, lr=0.1)
    net.fit(torch.from_numpy(X).to(dtype), y)
    assert {p.dtype for p in net.module_.parameters()} == {dtype}
    assert isinstance(net.module_[2], ThinLinear)
    net.partial_fit(torch.from_numpy(X).to(dtype), y)
    assert {p.dtype for p in net.module_.parameters()} == {dtype}


@pytest.mark.cuda
def test_ranks_are_the_same_on_a_gpu():
    X, y = table()
    rule = TrainedRankPruning(**LOW)
    here, there = (classifier(rule, device=device, max_iter=2).fit(X, y) for device in ("cpu", "cuda"))
    assert here.training_["ranks"] == there.training_["ranks"]
    rule = clone(rule)
    net = skorch_net(rule, device="cuda").fit(X, y)
    assert {p.device.type for p in net.module_.parameters()} == {"cuda"}
    assert isinstance(net.module_[2], ThinLinear)
