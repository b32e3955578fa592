"""Sharpness-aware steps against ten lines of SAM, closed forms and plain training, through both doors."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping
from torch import nn
from torch.nn import functional

from sklowrank._nets.layers import mlp
from sklowrank._nets.outputs import divergence, outputs_of
from sklowrank.neural import NetworkClassifier, NetworkRegressor, SharpnessAware
from sklowrank.neural._sharpness_aware_solver import metric_of, second_order, steepest_perturbation

MEASURED = ["input_noise", "theta_prev", "theta_init", "fisher"]
SGD = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}


def table(n=60, n_features=5, seed=0):
    X = np.random.default_rng(seed).normal(size=(n, n_features)).astype(np.float32)
    return X, (X[:, 0] - X[:, 1] ** 2 > -0.5).astype(np.int64)


@pytest.fixture(autouse=True)
def _own_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def small(kind, sizes=(16,), **params):
    settings = {"learning_rate": 0.01, "batch_size": 32, "max_iter": 20, "tol": 0, "device": "cpu", "random_state": 0}
    return kind(sizes, **{**settings, **params})


classifier, regressor = partial(small, NetworkClassifier), partial(small, NetworkRegressor)


def network(*extra, n_out=2, seed=0):
    return nn.Sequential(*mlp((5,), n_out, torch.Generator().manual_seed(seed), hidden_layer_sizes=[8, 8]), *extra)


def skorch_net(rule, *callbacks, module=None, kind=NeuralNetClassifier, **params):
    torch.manual_seed(0)
    named = [(f"own{i}", callback) for i, callback in enumerate(callbacks)]
    settings = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.SGD,
        "lr": 0.1,
        "max_epochs": 4,
        "batch_size": 12,
        "train_split": None,
        "verbose": 0,
        **params,
    }
    rules = [] if rule is None else [("rule", rule)]
    return kind(network() if module is None else copy.deepcopy(module), callbacks=[*named, *rules], **settings)


def weights_of(net):
    return {name: value.detach().clone() for name, value in net.module_.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


# Against the definition


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_without_a_radius_it_is_the_base_optimizer_bit_for_bit(optimizer):
    X, y = table()
    plain, ours = (skorch_net(rule, optimizer=optimizer).fit(X, y) for rule in (None, SharpnessAware(None)))
    assert same(weights_of(plain), weights_of(ours))
    assert dict(ours.callbacks_)["rule"].report() == {"radius_curve": [0.0] * 4}
    small = {"sizes": (8,), "max_iter": 3}
    plain, ours = (classifier(training=rule, **small).fit(X, y) for rule in (None, SharpnessAware(None)))
    assert all(np.array_equal(plain.weights_[name], ours.weights_[name]) for name in plain.weights_)


def sam(module, batches, rho, lr, momentum, adaptive=False):
    """Sharpness-aware minimisation in ten lines."""
    parameters = list(module.parameters())
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=momentum)
    for X, y in batches:
        optimizer.zero_grad()
        functional.cross_entropy(module(X), y).backward()
        before = [p.detach().clone() for p in parameters]
        sizes = [p.abs() if adaptive else torch.ones_like(p) for p in before]
        norm = sum(((t * p.grad) ** 2).sum() for t, p in zip(sizes, parameters)).sqrt()
        with torch.no_grad():
            for t, p in zip(sizes, parameters):
                p += rho * t**2 * p.grad / norm
        optimizer.zero_grad()
        functional.cross_entropy(module(X), y).backward()
        with torch.no_grad():
            for p, value in zip(parameters, before):
                p.copy_(value)
        optimizer.step()


@pytest.mark.parametrize(("rho", "adaptive"), [(0.05, False), (0.5, True)])
def test_a_number_is_sam_and_adaptive_is_asam(rho, adaptive):
    X, y = table()
    rule = SharpnessAware(rho, adaptive=adaptive)
    ours = skorch_net(rule, optimizer__momentum=0.9).fit(X, y)  # 20 steps
    reference = network()
    batches = [(torch.from_numpy(X[i : i + 12]), torch.from_numpy(y[i : i + 12])) for i in range(0, 60, 12)] * 4
    sam(reference, batches, rho, 0.1, 0.9, adaptive)
    plain = skorch_net(None, optimizer__momentum=0.9).fit(X, y)
    for name, value in reference.state_dict().items():
        assert torch.allclose(ours.module_.state_dict()[name], value, rtol=0, atol=1e-6)
        assert not torch.allclose(plain.module_.state_dict()[name], value, rtol=0, atol=1e-3)
    assert np.allclose(dict(ours.callbacks_)["rule"].radius_curve_, rho)


def two_parts(seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = {nn.Parameter(torch.randn(shape, generator=generator)): None for shape in ((64, 30), (64,))}
    return (
        {p: p.detach().clone() for p in weights},
        {p: torch.randn(p.shape, generator=generator) for p in weights},
        {p: torch.rand(p.shape, generator=generator) + 1 for p in weights},
    )


def test_the_perturbation_has_the_length_of_the_radius_in_each_metric():
    weights, g, metric = two_parts()
    d = torch.tensor(0.3)

    def length(e, sizes):
        return float(sum((s.double() * part.double().square()).sum() for s, part in zip(sizes, e.values())).sqrt())

    plain = steepest_perturbation(g, None, None, d)
    assert length(plain, [torch.ones(()), torch.ones(())]) == pytest.approx(0.3, abs=1e-6)
    adaptive = steepest_perturbation(g, weights, None, d)
    assert length(adaptive, [1 / w.square() for w in weights.values()]) == pytest.approx(0.3, abs=1e-6)
    fisher = steepest_perturbation(g, None, metric, d)
    assert length(fisher, metric.values()) == pytest.approx(0.3, abs=1e-6)
    for e in (plain, adaptive, fisher):
        assert sum((part * g[p]).sum() for p, part in e.items()) > 0  # uphill


def test_the_adaptive_perturbation_does_not_depend_on_how_layers_are_scaled():
    X, y = (torch.from_numpy(part) for part in table())

    def moved(scale, adaptive):
        module = network()
        with torch.no_grad():
            for p in module[0].parameters():
                p *= scale
            module[2].weight /= scale
        functional.cross_entropy(module(X), y).backward()
        weights = {p: p.detach().clone() for p in module.parameters()}
        gradients = {p: p.grad for p in module.parameters()}
        with torch.no_grad():
            for p, e in steepest_perturbation(
                gradients, weights if adaptive else None, None, torch.tensor(0.5)
            ).items():
                p += e
            return module(X)

    assert (moved(1.0, True) - moved(10.0, True)).abs().max() < 1e-5
    assert (moved(1.0, False) - moved(10.0, False)).abs().max() > 1e-2


def test_divergences_are_those_of_the_distributions():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 7, 3))
    weights = generator.uniform(size=7)

    def softmax(z):
        return np.exp(z) / np.exp(z).sum(1, keepdims=True)

    def kl(p, q):  # a sum over classes
        return (p * np.log(p / q)).sum(1)

    p, q = softmax(a), softmax(b)
    expected = {"forward": kl(p, q), "reverse": kl(q, p), "symmetric": kl(p, q) + kl(q, p)}
    tensors = torch.from_numpy(a), torch.from_numpy(b)
    for direction, rows in expected.items():
        assert float(divergence(*tensors, "logits", direction)) == pytest.approx(rows.mean())
        weighted = divergence(*tensors, "logits", direction, torch.from_numpy(weights))
        assert float(weighted) == pytest.approx(np.average(rows, weights=weights))
        probabilities = divergence(torch.from_numpy(p), torch.from_numpy(q), "probabilities", direction)
        assert float(probabilities) == pytest.approx(rows.mean())
        chances = [1 / (1 + np.exp(-z)) for z in (a, b)]
        two = [np.stack([1 - c, c], 1) for c in chances]
        bernoulli = {"forward": kl(*two), "reverse": kl(*two[::-1]), "symmetric": kl(*two) + kl(*two[::-1])}[direction]
        assert float(divergence(*tensors, "binary logits", direction)) == pytest.approx(bernoulli.mean())
        by_chance = divergence(*(torch.from_numpy(c) for c in chances), "binary probabilities", direction)
        assert float(by_chance) == pytest.approx(bernoulli.mean())
        gaussian = ((a - b) ** 2).mean() * (1 if direction == "symmetric" else 0.5)
        assert float(divergence(*tensors, "values", direction)) == pytest.approx(gaussian)
    sequence = [torch.from_numpy(z.T[None]) for z in (a, b)]  # one row of seven positions
    assert float(divergence(*sequence, "logits")) == pytest.approx(kl(p, q).mean())
    half = [z.half() for z in tensors]
    assert float(divergence(*half, "logits")) == pytest.approx(kl(p, q).mean(), rel=1e-2)
    assert float(divergence(tensors[0][:, 0], tensors[1][:, 0], "values")) == pytest.approx(
        ((a - b)[:, 0] ** 2).mean() / 2
    )


@pytest.mark.parametrize(
    ("kind", "criterion", "outputs"),
    [
        (NeuralNetClassifier, nn.CrossEntropyLoss, "logits"),
        (NeuralNet, nn.CrossEntropyLoss, "logits"),
        (NeuralNetClassifier, nn.MultiMarginLoss, "logits"),
        (NeuralNetClassifier, nn.NLLLoss, "probabilities"),
        (NeuralNet, nn.NLLLoss, "logits"),
        (NeuralNetBinaryClassifier, nn.BCEWithLogitsLoss, "binary logits"),
        (NeuralNet, nn.MultiLabelSoftMarginLoss, "binary logits"),
        (NeuralNet, nn.BCELoss, "binary probabilities"),
        (NeuralNetRegressor, nn.MSELoss, "values"),
        (NeuralNetRegressor, nn.L1Loss, "values"),
    ],
)
def test_what_outputs_are_is_read_from_the_criterion(kind, criterion, outputs):
    assert outputs_of(skorch_net(SharpnessAware(), kind=kind, criterion=criterion).initialize()) == outputs


def test_our_estimators_say_what_their_outputs_are():
    X, y = table()
    seen = []

    class Watch(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(outputs_of(net))

    options = {"max_iter": 1, "net_params": {"callbacks": [Watch()]}}
    classifier(training=SharpnessAware(), **options).fit(X, y)
    regressor(training=SharpnessAware(), **options).fit(X, X[:, 0])
    assert set(seen[:2]) == {"logits"}
    assert set(seen[2:]) == {"values"}


# Traps


class Record(Callback):
    """Weights when the optimizer has stepped, and outputs of a pass, batch by batch."""

    def on_train_begin(self, net, **kwargs):
        self.weights = [weights_of(net)]

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        self.weights.append(weights_of(net))


@pytest.mark.parametrize("radius", [*MEASURED, 0.3])
def test_weights_are_restored_bit_for_bit(radius):
    X, y = table()
    watch = Record()
    skorch_net(SharpnessAware(radius, ema_decay=0.5), watch, lr=0.0).fit(X, y)
    assert len(watch.weights) == 21
    assert all(same(watch.weights[0], later) for later in watch.weights)


@pytest.mark.parametrize("radius", MEASURED)
def test_radii_are_positive_from_the_second_step_on_and_paths_differ(radius):
    X, y = table()
    seen = []

    class Radii(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(float(dict(net.callbacks_)["rule"].total_))

    rule = SharpnessAware(radius)
    net = skorch_net(rule, Radii(), max_epochs=1).fit(X, y)
    radii = np.diff([0.0, *seen])
    assert (radii[1:] > 0).all()
    assert (radii[0] > 0) == (radius == "input_noise")
    assert not net.module_[0].weight.requires_grad or rule.radius_curve_[0] == pytest.approx(radii.mean())
    constant = skorch_net(SharpnessAware(float(radii.mean())), max_epochs=1).fit(X, y)  # not SAM in disguise
    assert not same(weights_of(net), weights_of(constant))


def test_the_first_step_with_reference_weights_is_a_plain_one():
    X, y = table(12)
    plain = weights_of(skorch_net(None, max_epochs=1).fit(X, y))
    for radius in ("theta_prev", "theta_init", "fisher"):
        assert same(plain, weights_of(skorch_net(SharpnessAware(radius), max_epochs=1).fit(X, y)))
    assert not same(plain, weights_of(skorch_net(SharpnessAware(), max_epochs=1).fit(X, y)))


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"radius": "theta_prev"}, lambda w: w[1]),
        ({"radius": "theta_prev", "ema_decay": 0.75}, lambda w: 0.75 * w[0] + 0.25 * w[1]),
        ({"radius": "theta_prev", "ema_decay": 1.0}, lambda w: w[0]),
        ({"radius": "theta_init"}, lambda w: w[0]),
    ],
)
def test_the_reference_is_what_it_says(params, expected):
    """In the third step the radius is the divergence from the weights named."""
    X, y = table(36)
    watch, seen = Record(), []

    class Radii(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(float(dict(net.callbacks_)["rule"].total_))

    rule = SharpnessAware(radius_scale=3.0, divergence="reverse", **params)
    skorch_net(rule, watch, Radii(), max_epochs=1).fit(X, y)
    rows, module = torch.from_numpy(X[24:]), network()

    def outputs(weights):
        module.load_state_dict(weights)
        with torch.inference_mode():
            return module(rows)

    former = {name: expected([w[name] for w in watch.weights]) for name in watch.weights[0]}
    d = 3 * divergence(outputs(former), outputs(watch.weights[2]), "logits", "reverse")
    assert seen[2] - seen[1] == pytest.approx(float(d), rel=1e-3)


def test_noise_is_drawn_once_for_a_batch_from_a_generator_of_the_training():
    X, y = table(12)
    for kind in ("normal", "uniform"):
        rule = SharpnessAware(noise_scale=0.2, noise_type=kind, rho_max=9.0)
        net = skorch_net(rule, max_epochs=1).initialize()
        torch.manual_seed(5)
        seeds = torch.Generator().manual_seed(int(torch.randint(1 << 31, (), dtype=torch.int64)))
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 31, (), generator=seeds, dtype=torch.int64)))
        z = torch.randn(5, generator=generator, dtype=torch.float64)
        if kind == "uniform":
            generator.manual_seed(generator.initial_seed())
            z = 2 * torch.rand(5, generator=generator, dtype=torch.float64) - 1
        start = network()
        with torch.inference_mode():
            rows = torch.from_numpy(X)
            d = 5 * divergence(start(rows + 0.2 * z.float()), start(rows), "logits", "symmetric")
        torch.manual_seed(5)
        net.partial_fit(X, y)
        assert rule.radius_curve_[0] == pytest.approx(float(d), rel=1e-4)


@pytest.mark.parametrize("radius", [*MEASURED, 0.2])
def test_running_statistics_see_the_first_pass_only(radius):
    X, y = table(24)
    module = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    net = skorch_net(SharpnessAware(radius), module=module, lr=0.0, max_epochs=1).fit(X, y)
    plain = skorch_net(None, module=module, lr=0.0, max_epochs=1).fit(X, y)
    assert int(net.module_[1].num_batches_tracked) == 2
    assert same(weights_of(net), weights_of(plain))


def test_dropout_does_not_count_as_a_change_of_outputs():
    X, y = table(24)
    rule = SharpnessAware("theta_prev")
    net = skorch_net(rule, module=network(nn.Dropout(0.5)), lr=0.0, max_epochs=2).fit(X, y)
    assert rule.radius_curve_ == [0.0, 0.0]
    assert net.module_[-1].training


def test_the_radius_carries_no_gradient_and_both_passes_have_the_same_rows():
    X, y = table(24)
    rows, radii = [], []

    class Radii(Callback):
        def on_batch_end(self, net, **kwargs):
            radii.append(dict(net.callbacks_)["rule"].total_)

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, X):
            rows.append((X.detach().clone(), torch.is_grad_enabled()))
            return self.net(X)

    rule = SharpnessAware()
    skorch_net(rule, Radii(), module=Watch(), max_epochs=1).fit(X, y)
    passes = [rows[i : i + 3] for i in range(0, len(rows), 3)]
    for first, noised, second in passes:
        assert torch.equal(first[0], second[0])
        assert not torch.equal(first[0], noised[0])
        assert [part[1] for part in (first, noised, second)] == [True, False, True]
    assert not radii[-1].requires_grad


def test_clipping_before_the_rule_holds_for_the_gradient_of_the_step():
    X, y = table(12)
    start = network().state_dict()
    for radius in ("input_noise", 0.3):
        clip = GradientNormClipping(1e-3)
        net = skorch_net(SharpnessAware(radius), clip, lr=1.0, max_epochs=1).fit(X, y)
        step = sum((value - start[name]).double().square().sum() for name, value in weights_of(net).items()).sqrt()
        assert float(step) == pytest.approx(1e-3, rel=1e-2)


def test_parameters_without_a_gradient_stay():
    class Partly(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.unused = network(), nn.Linear(3, 3)
            self.net[0].weight.requires_grad_(False)

        def forward(self, X):
            return self.net(X)

    X, y = table()
    module = Partly()
    for radius in [*MEASURED, 0.1]:
        net = skorch_net(SharpnessAware(radius), module=module, optimizer=torch.optim.Adam).fit(X, y)
        now, before = net.module_.state_dict(), module.state_dict()
        for name in now:
            moves = not name.startswith("unused") and name != "net.0.weight"
            assert torch.equal(now[name], before[name]) is not moves


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("radius", [*MEASURED, 0.1])
def test_weights_of_rows_count_as_copies(radius, dtype):
    """Where a batch has all rows: the loss, the radius and its noise are those of the copies."""
    X, y = table(30)
    X = X.astype(dtype)
    counts = np.random.default_rng(1).integers(0, 4, size=len(X))
    rule = SharpnessAware(radius)
    options = {"batch_size": 200, "max_iter": 8, "standardize": False, "learning_rate": 0.05, "net_params": SGD}
    weighted = classifier(training=rule, **options).fit(X, y, sample_weight=counts)
    copies = classifier(training=rule, **options).fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    assert weighted.training_["radius_curve"] == pytest.approx(copies.training_["radius_curve"], abs=1e-6)
    assert weighted.training_["radius_curve"][-1] > 0
    for name, value in weighted.weights_.items():
        assert np.allclose(value, copies.weights_[name], atol=1e-6)


def test_inputs_without_floating_point_numbers_are_refused_for_noise():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2))

        def forward(self, X):
            return self.net(X)

    X, y = np.random.default_rng(0).integers(0, 9, size=(30, 3)), table(30)[1]
    with pytest.raises(ValueError, match="radius='input_noise' needs inputs of floating-point"):
        skorch_net(SharpnessAware(), module=Words()).fit(X, y)
    assert skorch_net(SharpnessAware("theta_prev"), module=Words()).fit(X, y).score(X, y) > 0.5


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"radius": "theta"}, "'radius' parameter of SharpnessAware"),
        ({"radius": 0.0}, "'radius' parameter"),
        ({"radius_scale": -1.0}, "'radius_scale' parameter"),
        ({"ema_decay": 1.5}, "'ema_decay' parameter"),
        ({"divergence": "kl"}, "'divergence' parameter"),
        ({"radius": "fisher", "adaptive": True}, "adaptive=True does not go with radius='fisher'"),
    ],
)
def test_wrong_parameters_are_refused_in_both_doors(params, message):
    X, y = table(12)
    with pytest.raises(ValueError, match=message):
        skorch_net(SharpnessAware(**params)).fit(X, y)
    with pytest.raises(ValueError, match=message):
        classifier(training=SharpnessAware(**params)).fit(X, y)


# The life of a rule


@pytest.mark.parametrize("radius", MEASURED)
def test_both_doors_train_and_the_rule_keeps_no_copies(radius):
    X, y = table()
    ours = classifier(training=SharpnessAware(radius), max_iter=30).fit(X, y)
    assert ours.score(X, y) > 0.9
    assert len(ours.training_["radius_curve"]) == 30
    assert all(type(d) is float for d in ours.training_["radius_curve"])
    net = skorch_net(SharpnessAware(radius), optimizer=torch.optim.Adam, lr=0.02, max_epochs=30).fit(X, y)
    assert net.score(X, y) > 0.9
    rule = dict(net.callbacks_)["rule"]
    assert not rule.reference_
    assert not rule.fisher_
    assert not net.module_._forward_hooks
    again = pickle.loads(pickle.dumps(net))
    assert np.array_equal(again.predict_proba(X), net.predict_proba(X))
    again.partial_fit(X, y)
    assert len(dict(again.callbacks_)["rule"].radius_curve_) == 30


def test_a_call_begins_from_its_own_start():
    """With theta_init the weights at the start of partial_fit are the reference, so its first step is a plain one."""
    X, y = table(12)
    first = skorch_net(None, max_epochs=3).fit(X, y)
    net = skorch_net(SharpnessAware("theta_init"), max_epochs=3).initialize()
    net.module_.load_state_dict(weights_of(first))
    net.partial_fit(X, y)
    before = weights_of(net)
    net.set_params(max_epochs=1).partial_fit(X, y)
    plain = skorch_net(None, max_epochs=1).initialize()
    plain.module_.load_state_dict(before)
    assert same(weights_of(plain.partial_fit(X, y)), weights_of(net))


def test_warm_start_and_partial_fit_begin_from_their_own_start():
    X, y = table(30)
    options = {"batch_size": 30, "max_iter": 2, "net_params": SGD}
    for way in ("fit", "partial_fit"):
        plain, ours = (classifier(warm_start=True, **options).fit(X, y) for _ in range(2))
        ours.set_params(training=SharpnessAware("theta_init"))
        for model in (plain, ours):
            getattr(model.set_params(max_iter=1), way)(X, y)  # one batch, one step
        assert ours.training_["radius_curve"] == [0.0]
        assert all(np.array_equal(plain.weights_[name], ours.weights_[name]) for name in plain.weights_)
    ours.set_params(max_iter=2).fit(X, y)
    assert ours.training_["radius_curve"][0] == 0 < ours.training_["radius_curve"][1]


def test_clone_and_search():
    X, y = table()
    assert clone(SharpnessAware(0.1)).get_params()["radius"] == 0.1
    search = GridSearchCV(classifier(training=SharpnessAware(), max_iter=2), {"training__radius": [None, 0.1]}, cv=2)
    assert search.fit(X, y).best_params_["training__radius"] in (None, 0.1)
    grid = {"callbacks__rule__noise_scale": [0.1, 0.2]}
    assert GridSearchCV(skorch_net(SharpnessAware()), grid, cv=2).fit(X, y).best_params_


def test_early_stopping_an_interrupt_and_an_error_leave_the_weights_of_a_step():
    X, y = table()
    stopped = skorch_net(SharpnessAware(), EarlyStopping("train_loss", patience=1, threshold=9.0), max_epochs=9).fit(
        X, y
    )
    assert len(stopped.history) == 2

    class Interrupt(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.passes = network(), 0

        def forward(self, X):
            self.passes += 1
            if self.passes == 12:  # at moved weights
                raise KeyboardInterrupt
            return self.net(X)

    watch = Record()
    net = skorch_net(SharpnessAware(), watch, module=Interrupt()).fit(X, y)  # skorch catches it
    assert same(watch.weights[-1], weights_of(net))
    assert not net.module_._forward_hooks


@pytest.mark.parametrize("radius", [*MEASURED, 0.1])
def test_a_batch_of_one_row_a_constant_and_one_class(radius):
    X, y = table(5)
    X[:, 2] = 3.0
    rule = SharpnessAware(radius)
    assert np.isfinite(classifier(training=rule, batch_size=1, max_iter=2).fit(X, y).predict_proba(X)).all()
    constant = classifier(training=rule, max_iter=2).fit(X, np.zeros(5, dtype=int))
    assert (constant.predict(X) == 0).all()
    assert np.isfinite(regressor(training=rule, max_iter=3).fit(X, X[:, :2]).predict(X)).all()


@pytest.mark.parametrize("radius", [*MEASURED, 0.1])
def test_precision_follows_the_module(radius):
    X, y = table()
    single, double = SharpnessAware(radius), SharpnessAware(radius)
    a = skorch_net(single, max_epochs=2).fit(X, y)
    b = skorch_net(double, module=network().double(), max_epochs=2).fit(X.astype(np.float64), y)
    assert b.module_[0].weight.dtype == torch.float64
    assert single.radius_curve_ == pytest.approx(double.radius_curve_, rel=1e-3, abs=1e-6)
    for name, value in a.module_.state_dict().items():
        assert torch.allclose(value.double(), b.module_.state_dict()[name], atol=1e-4)


def test_inputs_by_name_and_further_arguments_reach_every_pass():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.sizes = network(), []

        def forward(self, a, b, factor):
            self.sizes.append(factor)
            return self.net(torch.cat([a, b], 1)) * factor

    X, y = table(12)
    net = skorch_net(SharpnessAware(), module=Named(), max_epochs=1)
    net.fit({"a": X[:, :2], "b": X[:, 2:]}, y, factor=2.0)
    assert net.module_.sizes == [2.0, 2.0, 2.0]


def test_a_net_that_calls_parts_of_its_module_needs_a_radius_that_compares_no_outputs():
    class Parts(NeuralNetClassifier):
        def infer(self, x, **fit_params):
            return self.module_[1:](self.module_[0](x))

    X, y = table()
    for radius in ("fisher", 0.1):
        assert np.isfinite(skorch_net(SharpnessAware(radius), kind=Parts).fit(X, y).history[:, "train_loss"]).all()
    with pytest.raises(ValueError, match="the net calls only parts of it"):
        skorch_net(SharpnessAware(), kind=Parts).fit(X, y)


def test_the_fisher_metric_is_one_where_gradients_are_mean():
    squares = {0: torch.tensor([0.0, 1.0]), 1: torch.tensor([[2.0], [5.0]])}
    metric = metric_of(squares)
    assert torch.allclose(metric[0], torch.tensor([1.0, 1.5]))
    assert torch.allclose(metric[1], torch.tensor([[2.0], [3.5]]))


def test_half_the_squared_length_in_a_metric():
    weights, former, metric = two_parts()
    expected = sum(float((m * (weights[p] - former[p]) ** 2).sum()) for p, m in metric.items()) / 2
    assert float(second_order(former, weights, metric)) == pytest.approx(expected, rel=1e-5)


# What it is for


def test_flatter_minima_on_noisy_digits():
    X, y = load_digits(return_X_y=True)
    X = (X / 16 - 0.3).astype(np.float32)
    X, others, y, truth = train_test_split(X, y, train_size=0.5, stratify=y, random_state=0)
    noisy = others + np.random.default_rng(0).normal(scale=0.25, size=others.shape).astype(np.float32)
    options = {"net_params": SGD, "learning_rate": 0.05, "max_iter": 40, "standardize": False}
    plain, ours = (classifier((64, 64), training=rule, **options).fit(X, y) for rule in (None, SharpnessAware()))
    assert ours.score(noisy, truth) >= plain.score(noisy, truth) + 0.012
    assert ours.score(others, truth) >= plain.score(others, truth) + 0.003


@pytest.mark.cuda
@pytest.mark.parametrize("radius", [*MEASURED, 0.1])
def test_on_a_gpu_as_on_the_cpu_with_one_stop_an_epoch(radius):
    X, y = table()
    here = skorch_net(SharpnessAware(radius), max_epochs=2).fit(X, y)
    there = skorch_net(SharpnessAware(radius), max_epochs=2, device="cuda").fit(X, y)
    for name, value in here.module_.state_dict().items():
        assert torch.allclose(value, there.module_.state_dict()[name].cpu(), atol=1e-4)
