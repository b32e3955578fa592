"""Ordered factors against autograd, closed forms and plain training, through both doors."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping, LRScheduler
from torch import nn

from sklowrank._nets.layers import ThinLinear, mlp
from sklowrank.compress import LowRankCompressor
from sklowrank.neural import NetworkClassifier, NetworkRegressor, OrderedRank, TrainedRankPruning
from sklowrank.neural._ordered_rank_solver import (
    PrefixLinear,
    add_penalty_gradient,
    cut,
    importances,
    rank_by_importance,
    shorten,
    shortened_state,
)


@pytest.fixture(autouse=True)
def _own_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def table(n=96, n_features=8, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, n_features)).astype(np.float32)
    return X, (X[:, 0] - X[:, 1] ** 2 > -0.5).astype(np.int64)


def fitted(rule, kind=NetworkClassifier, sizes=(12, 10), data=None, **params):
    settings = {"learning_rate": 0.01, "batch_size": 32, "max_iter": 8, "tol": 0, "device": "cpu", "random_state": 0}
    return kind(sizes, training=rule, **{**settings, **params}).fit(*(data or table()))


def network(n_out=2, seed=0, sizes=(12, 10)):
    return mlp((8,), n_out, torch.Generator().manual_seed(seed), hidden_layer_sizes=sizes)


def skorch_net(rule, *callbacks, module=None, kind=NeuralNetClassifier, **params):
    torch.manual_seed(0)
    named = [(f"own{i}", callback) for i, callback in enumerate(callbacks)]
    settings = {"optimizer": torch.optim.Adam, "lr": 0.01, "max_epochs": 4, "batch_size": 32, "train_split": None}
    settings |= {"criterion": nn.CrossEntropyLoss} if kind is NeuralNetClassifier else {}
    module = network() if module is None else copy.deepcopy(module)
    return kind(module, callbacks=[*named, ("rank", rule)], verbose=0, **{**settings, **params})


def thin(n_in=6, n_out=5, rank=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layer = ThinLinear(n_in, n_out, rank)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    return layer.double()


# Against the definition


def test_penalty_gradient_is_that_of_the_tail_norms():
    layer = PrefixLinear.of(thin())
    tails = [part[j:].norm() for part in (layer.down, layer.up.T) for j in range(4)]
    expected = torch.autograd.grad(3.0 * sum(tails), [layer.down, layer.up])
    add_penalty_gradient(layer, 3.0)
    assert torch.allclose(layer.down.grad, expected[0], rtol=1e-9)
    assert torch.allclose(layer.up.grad, expected[1], rtol=1e-9)
    later = (layer.down.grad / layer.down.detach()).mean(1)
    assert (later.diff() > 0).all()  # later components shrink faster
    with torch.no_grad():
        layer.down.zero_()
    layer.down.grad = None
    add_penalty_gradient(layer, 1.0)
    assert torch.equal(layer.down.grad, torch.zeros_like(layer.down))  # not NaN


def test_importances_are_products_of_tail_norms():
    layer = thin()
    up, down = layer.up.detach().numpy(), layer.down.detach().numpy()
    expected = [np.linalg.norm(up[:, j:]) * np.linalg.norm(down[j:]) for j in range(4)]
    assert np.allclose(importances(layer), expected, rtol=1e-12)
    assert rank_by_importance(np.array([4.0, 2.0, 0.19, 0.0]), 0.05) == 2
    assert rank_by_importance(np.array([4.0, 2.0, 0.19, 0.0]), 0.0) == 3
    assert rank_by_importance(np.zeros(3), 0.05) == 0
    assert rank_by_importance(np.array([]), 0.05) == 0


@pytest.mark.parametrize("distill", [False, True])
@pytest.mark.parametrize("full_pass", [False, True])
def test_a_step_is_that_of_the_formula(full_pass, distill):
    X, y = (torch.from_numpy(part) for part in table(32))
    rule = OrderedRank(1e-2, full_pass=full_pass, distill=distill, progressive=False, threshold=0, skip_last=False)
    net = skorch_net(rule, optimizer=torch.optim.SGD, lr=0.1, max_epochs=1)
    reference, drawn = [], []

    class Watch(Callback):
        def on_batch_begin(self, net, **kwargs):
            reference.append(copy.deepcopy(net.module_))

    net.callbacks.insert(0, ("watch", Watch()))
    original = rule._draw
    rule._draw = lambda module: drawn.append(original(module)) or drawn[-1]
    net.fit(X, y)
    (before,), (cuts,) = reference, drawn
    names = [name for name, _ in before.named_parameters()]
    parameters = list(before.parameters())
    cross_entropy = nn.functional.cross_entropy
    whole = before(X)
    for path, j in cuts.items():
        before.get_submodule(path).prefix = j
    short = before(X)
    loss = cross_entropy(short, whole.detach().softmax(1) if distill and full_pass else y)
    loss = loss + cross_entropy(whole, y) if full_pass else loss
    for layer in before:
        if isinstance(layer, ThinLinear):
            loss = loss + 1e-2 * sum(
                part[j:].norm() for part in (layer.down, layer.up.T) for j in range(len(part)) if j < layer.rank
            )
    for name, parameter, gradient in zip(names, parameters, torch.autograd.grad(loss, parameters, allow_unused=True)):
        moved = parameter if gradient is None else parameter - 0.1 * gradient
        assert torch.allclose(net.module_.get_parameter(name), moved, atol=1e-6)


def test_all_cuts_are_drawn_once_before_one_comes_again():
    rule = OrderedRank()
    rule.generator_ = torch.Generator().manual_seed(0)
    module = network()
    rule.convert(module)
    drawn = [tuple(rule._draw(module).items()) for _ in range(18)]
    assert {part for (part,) in drawn} == {("0", j) for j in range(1, 9)} | {("2", j) for j in range(1, 11)}
    rule.set_params(sampler="independent")
    both = [rule._draw(module) for _ in range(300)]
    assert {draw["0"] for draw in both} == set(range(1, 9))
    assert {draw["2"] for draw in both} == set(range(1, 11))


def test_a_linear_map_is_recovered_at_every_rank():
    rng = np.random.default_rng(0)
    U, V = (np.linalg.qr(rng.normal(size=(n, 4)))[0] for n in (8, 6))
    s = np.array([4.0, 2.5, 1.5, 0.8])
    A = (U * s) @ V.T
    X = rng.normal(size=(2048, 6))
    X = np.linalg.qr(X)[0] * 2048**0.5  # so that the best map of rank r is the nearest matrix
    decay = LRScheduler("CosineAnnealingLR", T_max=60)
    model = fitted(
        OrderedRank(0.0, threshold=0, distill=False, skip_last=False),
        NetworkRegressor,
        (),
        (X, X @ A.T),
        standardize=False,
        max_iter=60,
        learning_rate=0.02,
        batch_size=64,
        net_params={"callbacks": [("decay", decay)]},
    )
    up, down = model.weights_["0.up"], model.weights_["0.down"]
    for r in range(1, 5):
        best = (U[:, :r] * s[:r]) @ V.T[:r]
        assert np.linalg.norm(up[:, :r] @ down[:r] - best) <= 0.03 * np.linalg.norm(best)


# Ordering


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = (X / 16 - 0.3).astype(np.float32)
    X, X_new, y, y_new = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
    return fitted(OrderedRank(1e-3), sizes=(64, 64), data=(X, y), learning_rate=2e-3, max_iter=25), X_new, y_new


def test_prefixes_beat_components_in_another_order_and_scores_rise_with_rank(digits):
    model, X, y = digits
    ranks = model.training_["ranks"]
    scores = [model.resized({p: min(r, k) for p, k in ranks.items()}).score(X, y) for r in (1, 2, 4, 6, 8, 12)]
    assert np.all(np.diff(scores) >= -0.02)
    backwards = copy.deepcopy(model)
    for path in ranks:
        for name, axis in (("up", 1), ("down", 0)):
            backwards.weights_[f"{path}.{name}"] = np.flip(model.weights_[f"{path}.{name}"], axis).copy()
    assert np.allclose(backwards.predict_proba(X), model.predict_proba(X), atol=1e-5)
    half = {path: rank // 2 for path, rank in ranks.items()}
    assert model.resized(half).score(X, y) > backwards.resized(half).score(X, y) + 0.2


def test_what_is_reported_is_what_the_network_is(digits):
    model = digits[0]
    report = model.training_
    assert list(report["ranks"]) == ["0", "2"]
    assert tuple(report["ranks"].values()) == model.ranks_
    assert all(rank < 64 for rank in model.ranks_)
    for path, values in report["importances"].items():
        assert values.shape == (report["ranks"][path],)
        assert (np.diff(values) <= 0).all()
    assert report["rank_curve"].shape == (25, 2)
    assert (np.diff(report["rank_curve"], axis=0) <= 0).all()
    assert tuple(report["rank_curve"][-1]) == model.ranks_
    assert model.n_parameters_ == sum(p.numel() for p in model.network().parameters())
    assert model.n_parameters_ < 0.6 * model.n_dense_parameters_


@pytest.mark.parametrize("size", [0.5, 0.35, 0.2])
def test_resized_keeps_to_the_size_and_decomposes_nothing(digits, size, monkeypatch):
    model, X, _ = digits
    before = pickle.dumps(model)

    def no(*args, **kwargs):
        raise AssertionError("a decomposition")

    monkeypatch.setattr(torch.linalg, "svd", no)
    small = model.resized(size)
    assert (
        small.n_parameters_
        <= min(size * model.n_dense_parameters_, model.n_parameters_ + 1)
        < small.n_parameters_ + 200
    )
    assert small.n_parameters_ == sum(p.numel() for p in small.network().parameters())
    assert small.n_dense_parameters_ == model.n_dense_parameters_
    for path, rank in small.training_["ranks"].items():  # prefixes
        assert np.array_equal(small.weights_[f"{path}.down"], model.weights_[f"{path}.down"][:rank])
        assert np.array_equal(small.weights_[f"{path}.up"], model.weights_[f"{path}.up"][:, :rank])
        assert len(small.training_["importances"][path]) == rank
    assert pickle.dumps(model) == before
    again = pickle.loads(pickle.dumps(small))
    assert np.array_equal(again.predict(X), small.predict(X))
    assert small.resized(1.0).n_parameters_ == small.n_parameters_


def test_size_curve_is_the_score_of_each_size(digits):
    model, X, y = digits
    sizes, scores = model.size_curve(X, y, [0.5, {"0": 3, "2": 4}])
    small = model.resized({"0": 3, "2": 4})
    assert small.ranks_ == (3, 4)
    assert sizes[1] == small.n_parameters_ == 3 * 128 + 64 + 4 * 128 + 64 + 650
    assert scores[1] == small.score(X, y)


def test_one_threshold_on_relative_importance_cuts_all_layers():
    module = nn.Sequential(thin(6, 5, 4), thin(5, 30, 5, seed=1), nn.Linear(30, 2).double())
    relative = {path: importances(module[int(path)]) / importances(module[int(path)])[0] for path in ("0", "1")}
    dense = 6 * 5 + 5 + 5 * 30 + 30 + 62
    seen = set()
    for size in np.linspace(0.55, 1.0, 30):
        small = copy.deepcopy(module)
        cut(small, float(size))
        kept = [small[0].rank, small[1].rank]
        seen.add(tuple(kept))
        count = min(kept[0] * 11, 30) + 5 + min(kept[1] * 35, 150) + 30 + 62
        assert count <= size * dense
        lowest = min(relative[path][rank - 1] for path, rank in zip("01", kept) if rank > 1) if max(kept) > 1 else 2
        highest = max((relative[path][rank] for path, rank in zip("01", kept) if rank < len(relative[path])), default=0)
        assert lowest >= highest
    assert len(seen) > 4
    assert seen >= {(4, 5)}  # the factors of full rank are multiplied out: nothing is cut


def test_sizes_that_cannot_be_are_refused_by_name(digits):
    model = digits[0]
    for size in (0, 1.5, -1, "half", None, True, float("nan")):
        with pytest.raises(ValueError, match="size="):
            model.resized(size)
    with pytest.raises(ValueError, match=r"size=0\.01 is below the smallest network"):
        model.resized(0.01)
    with pytest.raises(ValueError, match="no layer '4'"):
        model.resized({"4": 2})
    for rank in (-1, 65, 2.0, True):
        with pytest.raises(ValueError, match="from 0 to the rank"):
            model.resized({"0": rank})
    constant = model.resized({"2": 0})
    assert np.allclose(constant.predict_proba(digits[1]), constant.predict_proba(digits[1])[:1])


def test_a_compressed_network_has_no_layers_to_cut(digits):
    model, X = digits[:2]
    compressed = LowRankCompressor(FrozenEstimator(model), compression=0.5).fit(X).estimator_
    with pytest.raises(ValueError, match=r"no layers in factors.*compress or adapt what resized returns"):
        compressed.resized(0.5)


def test_other_rules_have_no_sizes():
    for rule in (None, TrainedRankPruning()):
        for name in ("resized", "size_curve"):
            with pytest.raises(AttributeError, match="OrderedRank"):
                getattr(NetworkClassifier(training=rule), name)
            assert not hasattr(NetworkRegressor(training=rule), name)
    with pytest.raises(Exception, match="not fitted"):
        NetworkClassifier(training=OrderedRank()).resized(0.5)


# Training


def test_spectral_start_is_the_plain_network_and_batches_are_those_of_plain_training():
    plain = fitted(None, learning_rate=0.0)
    ours = fitted(OrderedRank(threshold=0), learning_rate=0.0)
    X = table()[0]
    assert np.allclose(plain.predict_proba(X), ours.predict_proba(X), atol=1e-6)
    drawn = fitted(OrderedRank(threshold=0, init="default"), learning_rate=0.0)
    assert not np.allclose(plain.predict_proba(X), drawn.predict_proba(X), atol=1e-2)
    nothing = OrderedRank(0.0, threshold=0, sampler=None, skip_first=1)  # factors of one layer of two
    assert fitted(nothing, max_iter=1).ranks_ == (8, 10)
    assert list(fitted(nothing, max_iter=1).training_["ranks"]) == ["2"]


def test_components_are_dropped_from_the_state_of_the_optimizer():
    seen = []

    class Watch(Callback):
        def on_batch_end(self, net, training, **kwargs):
            for _, p in net.module_.named_parameters():
                moment = net.optimizer_.state[p]["exp_avg"]
                seen.append((p.shape == moment.shape, float(net.optimizer_.state[p]["step"])))

    net = skorch_net(OrderedRank(1e-2, threshold=0.2), Watch(), max_epochs=6)
    net.fit(*table())
    assert all(same for same, _ in seen)
    assert {step for _, step in seen} == set(range(1, 19))  # moments of the components that are left go on
    assert net.module_[0].rank < 8
    known = [p for group in net.optimizer_.param_groups for p in group["params"]]
    assert {id(p) for p in known} == {id(p) for p in net.module_.parameters()}


def test_moments_are_those_of_the_components_that_stay():
    layer = thin()
    former = layer.up
    state = {"step": torch.tensor(3.0), "exp_avg": torch.arange(20.0).reshape(5, 4), "other": 1}
    new, axis = shorten(layer, 2)[former]
    kept = shortened_state(state, former, 2, axis)
    assert torch.equal(kept["exp_avg"], state["exp_avg"][:, :2])
    assert kept["exp_avg"].shape == new.shape
    assert kept["step"] == 3
    assert shortened_state({"row": torch.zeros(5)}, former, 2, axis) == {}


@pytest.mark.parametrize(
    "rule",
    [
        OrderedRank(sampler="independent"),
        OrderedRank(sampler=None),
        OrderedRank(full_pass=False),
        OrderedRank(distill=False),
        OrderedRank(progressive=False, threshold=0.3),
        OrderedRank(init="default"),
        OrderedRank(0.0, skip_last=False),
    ],
)
def test_every_parameter_trains(rule):
    X, y = table(200)
    model = fitted(rule, max_iter=30, data=(X, y))
    assert model.score(X, y) > 0.9
    assert list(model.training_["ranks"]) == (["0", "2"] if rule.skip_last else ["0", "2", "4"])
    values = fitted(rule, NetworkRegressor, max_iter=40, data=(X, X[:, 0] * 50 + 7))
    assert values.score(X, X[:, 0] * 50 + 7) > 0.9


def test_without_progressive_components_go_at_the_end():
    model = fitted(OrderedRank(progressive=False, threshold=0.3))
    assert (model.training_["rank_curve"] == [8, 10]).all()
    assert all(rank < full for rank, full in zip(model.ranks_, (8, 10)))


def test_training_goes_on_with_what_is_left():
    X, y = table()
    model = fitted(OrderedRank(threshold=0.2))
    ranks = model.ranks_
    model.partial_fit(X, y)
    assert all(now <= before for now, before in zip(model.ranks_, ranks))
    small = model.resized({"0": 2, "2": 3}).partial_fit(X, y)
    assert max(small.ranks_) <= 3
    warm = fitted(OrderedRank(threshold=0.2), warm_start=True)
    before = warm.loss_curve_[-1]
    assert warm.fit(X, y).loss_curve_[0] < before * 1.2
    parts = NetworkClassifier((12,), training=OrderedRank(), learning_rate=0.01, random_state=0)
    for _ in range(20):
        parts.partial_fit(X, y, classes=[0, 1])
    assert parts.score(X, y) > fitted(None, max_iter=1).score(X, y) + 0.1


def test_the_best_epoch_keeps_the_ranks_it_had():
    X, y = table(200)
    model = fitted(OrderedRank(threshold=0.2), data=(X, y), early_stopping=True, max_iter=40, n_iter_no_change=5)
    best = int(np.argmin(model.loss_curve_)) + 1
    upto = fitted(OrderedRank(threshold=0.2), data=(X, y), early_stopping=True, max_iter=best, n_iter_no_change=99)
    assert model.ranks_ == upto.ranks_
    assert np.array_equal(model.predict_proba(X), upto.predict_proba(X))


@pytest.mark.parametrize("X", [np.zeros((1, 3)), np.ones((20, 1)), np.zeros((5, 4))])
def test_degenerate_tables(X):
    y = np.arange(len(X)) % 2
    model = fitted(OrderedRank(), data=(X, y), max_iter=3)
    assert np.isfinite(model.predict_proba(X)).all()
    assert np.isfinite(fitted(OrderedRank(), NetworkRegressor, data=(X, y * 1.0), max_iter=3).predict(X)).all()


def test_weights_equal_copies_where_one_batch_holds_all_rows():
    X, y = table(40)
    X, w = X.astype(np.float64), np.arange(40) % 3
    weighted = NetworkClassifier((6,), training=OrderedRank(), batch_size=200, max_iter=5, tol=0, random_state=0)
    copied = clone(weighted).fit(X.repeat(w, 0), y.repeat(w))
    assert np.allclose(weighted.fit(X, y, w).predict_proba(X), copied.predict_proba(X), atol=1e-7)


class Normalised(nn.Module):
    def __init__(self, n_features, n_outputs):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_features, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(16, n_outputs)

    def forward(self, X):
        return self.head(self.body(X))


def test_statistics_of_batch_normalisation():
    X, y = table(200)
    model = fitted(OrderedRank(threshold=0), data=(X, y), module=Normalised, max_iter=20)
    net, rows = model.network(), torch.tensor((X - model.mean_) / model.scale_, dtype=torch.float32)
    with torch.inference_mode():
        outputs = net.body[0](rows)
    assert torch.allclose(net.body[1].running_mean, outputs.mean(0), atol=0.3)  # of the whole network
    small = model.resized({"body.0": 1}, X)
    net = small.network()
    with torch.inference_mode():
        outputs = net.body[0](rows)
    # the mean over batches of 32 rows, the last one of 8
    assert torch.allclose(
        net.body[1].running_mean, torch.stack([b.mean(0) for b in outputs.split(32)]).mean(0), atol=1e-5
    )
    stale = model.resized({"body.0": 1})
    assert np.array_equal(stale.weights_["body.1.running_mean"], model.weights_["body.1.running_mean"])
    assert model.size_curve(X, y, [{"body.0": 1}])[1][0] == small.score(X, y)


def test_frozen_and_shared_weights_stay_as_they_are():
    module = network()
    module[2].weight.requires_grad_(False)
    rule = OrderedRank()
    rule.generator_ = torch.Generator().manual_seed(0)
    assert [edit.path for edit in rule.convert(module)] == ["0"]
    with pytest.raises(ValueError, match="skip_first=2 and skip_last=True leave none of the 3 linear layers"):
        fitted(OrderedRank(skip_first=2))
    for params in ({"group_lasso": -1}, {"threshold": 2}, {"sampler": "all"}, {"init": "zero"}, {"skip_first": -1}):
        with pytest.raises(ValueError, match=next(iter(params))):
            fitted(OrderedRank(**params))


# As a callback of any skorch net


@pytest.mark.parametrize("kind", [NeuralNetClassifier, NeuralNetRegressor])
def test_any_skorch_net_takes_it(kind):
    X, y = table(200)
    target = y if kind is NeuralNetClassifier else (X[:, :1] - X[:, 1:2])
    module = network(2 if kind is NeuralNetClassifier else 1)
    net = skorch_net(OrderedRank(1e-3), kind=kind, module=module, max_epochs=40).fit(X, target)
    assert net.score(X, target) > 0.85
    assert [type(layer) for layer in net.module_ if isinstance(layer, ThinLinear)] == [ThinLinear, ThinLinear]
    report = dict(net.callbacks_)["rank"].report()
    assert report["ranks"] == {path: net.module_.get_submodule(path).rank for path in ("0", "2")}
    before = net.predict_proba(X) if kind is NeuralNetClassifier else net.predict(X)
    again = pickle.loads(pickle.dumps(net))
    assert np.array_equal(again.predict(X), net.predict(X))
    copied = copy.deepcopy(net.module_)
    edits = cut(copied, 0.5)
    assert {edit.path for edit in edits} <= {"0", "2"}
    assert sum(p.numel() for p in copied.parameters()) < sum(p.numel() for p in net.module_.parameters())
    net.partial_fit(X, target)
    after = net.predict_proba(X) if kind is NeuralNetClassifier else net.predict(X)
    assert not np.array_equal(before, after)
    again.partial_fit(X, target)
    clone(net).fit(X, target)


def test_probabilities_teach_as_logits_do():
    X, y = table(64)
    logits = skorch_net(OrderedRank(), optimizer=torch.optim.SGD, lr=0.1).fit(X, y)
    module = nn.Sequential(*network(), nn.Softmax(1))
    shares = skorch_net(OrderedRank(), optimizer=torch.optim.SGD, lr=0.1, criterion=nn.NLLLoss, module=module).fit(X, y)
    for (_, a), b in zip(logits.module_.named_parameters(), shares.module_.parameters()):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("place", ["before", "after"])
def test_early_stopping_that_loads_the_best_epoch(place):
    X, y = table(200)
    stop = EarlyStopping("train_loss", patience=2, threshold=0.5, threshold_mode="rel", load_best=True)
    net = skorch_net(OrderedRank(1e-2, threshold=0.3), stop, max_epochs=20)
    if place == "after":
        net.callbacks.reverse()
    net.fit(X, y)
    assert len(net.history) < 20
    best = dict(net.callbacks_)["own0"].best_model_weights_
    assert all(torch.equal(value, best[name]) for name, value in net.module_.state_dict().items())
    before = net.predict_proba(X)
    known = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
    assert known == {id(p) for p in net.module_.parameters()}
    net.callbacks_ = [(name, callback) for name, callback in net.callbacks_ if name != "own0"]
    net.partial_fit(X, y)
    assert not np.array_equal(before, net.predict_proba(X))


def test_schedules_and_clipping_before_the_rule():
    X, y = table()
    rates, norms = [], []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            rates.append([group["lr"] for group in net.optimizer_.param_groups])

        def on_batch_end(self, net, training, **kwargs):
            norms.append(float(torch.stack([p.grad.norm() for p in net.module_.parameters()]).norm()))

    schedule = LRScheduler(policy="StepLR", step_size=1, gamma=0.5)
    skorch_net(OrderedRank(1e-2), schedule, GradientNormClipping(0.01), Watch()).fit(X, y)
    assert np.allclose(np.array(rates)[:, 0], 0.01 * 0.5 ** np.arange(1, 5))
    assert max(norms) <= 0.0101


def test_searches_of_both_doors():
    X, y = table()
    net = skorch_net(OrderedRank(), module=None)
    search = GridSearchCV(net, {"callbacks__rank__group_lasso": [0.0, 0.1]}, cv=2, scoring="accuracy").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    model = NetworkClassifier((8,), training=OrderedRank(), max_iter=2, tol=0, random_state=0)
    search = GridSearchCV(model, {"training__group_lasso": [0.0, 0.1]}, cv=2).fit(X, y)
    check_is_fitted(search.best_estimator_)
    assert model.training.group_lasso == 1e-5
    assert repr(OrderedRank(0.1)) == "OrderedRank(group_lasso=0.1)"


def test_an_interrupted_training_leaves_a_plain_network():
    class Break(Callback):
        def on_batch_end(self, net, training, **kwargs):
            raise RuntimeError("no more")

    X, y = table()
    net = skorch_net(OrderedRank(), Break())
    with pytest.raises(RuntimeError, match="no more"):
        net.fit(X, y)
    model = NetworkClassifier((8,), training=OrderedRank(), net_params={"callbacks": [("break", Break())]})
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(X, y)


def test_same_seed_same_fit_and_global_generators_are_left_alone():
    state = torch.get_rng_state()
    a, b = fitted(OrderedRank()), fitted(OrderedRank())
    assert all(np.array_equal(a.weights_[name], b.weights_[name]) for name in a.weights_)
    assert torch.equal(state, torch.get_rng_state())
    other = fitted(OrderedRank(), random_state=1)
    assert not np.array_equal(a.predict_proba(table()[0]), other.predict_proba(table()[0]))


@pytest.mark.cuda
def test_a_fit_on_a_gpu_is_one_on_the_cpu():
    X, _ = table()
    here, there = (fitted(OrderedRank(), device=device, max_iter=2) for device in ("cpu", "cuda"))
    assert np.allclose(here.predict_proba(X), there.predict_proba(X), atol=1e-3)
    assert there.resized(0.9).network("cuda")[0].up.device.type == "cuda"
