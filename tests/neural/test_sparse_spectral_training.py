"""Sparse spectral training: its layer against autograd and numpy, its rule through both doors."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn

from sklowrank._nets.layers import ThinLinear
from sklowrank.neural import NetworkClassifier, NetworkRegressor, SparseSpectralTraining
from sklowrank.neural._sparse_spectral_layer import SpectralLinear
from sklowrank.neural._sparse_spectral_training import draw

SHORT = {"iteration_length": 3, "round_length": 2, "warmup": 2}


@pytest.fixture(autouse=True)
def _own_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


class Watch(Callback):
    """Calls a function of the net before each training step, when the rule has finished the step before."""

    def __init__(self, look):
        self.look = look

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if training:
            self.look(net)


def spectral(n_in=7, n_out=5, n_active=2, *, enhanced=True, dtype=torch.float64):
    layer = SpectralLinear.decomposing(nn.Linear(n_in, n_out, dtype=dtype), n_active, enhanced=enhanced)
    layer.activate(torch.tensor([3, 1, 0, 2][:n_active]))
    return layer


def spectral_layers(module):
    return [layer for layer in module.modules() if isinstance(layer, SpectralLinear)]


def table(n=96, n_features=6):
    X = np.random.default_rng(0).standard_normal((n, n_features)).astype(np.float32)
    return X, (X[:, :1] - X[:, 1:2] ** 2).astype(np.float32)


def skorch_net(rule, *callbacks, module=None, **params):
    module = module or nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 1))
    named = [(f"own{i}", callback) for i, callback in enumerate(callbacks)]
    params = {"lr": 0.01, "max_epochs": 4, "batch_size": 16, "optimizer": torch.optim.Adam, **params}
    return NeuralNetRegressor(
        module, callbacks=[*named, ("rule", rule)], verbose=0, train_split=None, iterator_train__shuffle=True, **params
    )


def ours(rule, *callbacks, **params):
    params = {"max_iter": 4, "tol": 0, "batch_size": 16, "learning_rate": 0.01, "random_state": 0} | params
    if callbacks:
        params["net_params"] = {"callbacks": [(f"own{i}", c) for i, c in enumerate(callbacks)]}
    return NetworkRegressor((8, 10), training=rule, device="cpu", **params)


# The layer


@pytest.mark.parametrize("enhanced", [True, False])
@pytest.mark.parametrize("shape", [(7, 5, 2), (5, 7, 2), (5, 5, 1), (4, 6, 4)])
def test_gradients_are_those_of_the_weight(shape, enhanced):
    layer = spectral(*shape, enhanced=enhanced)
    X = torch.randn(2, 3, shape[0], dtype=torch.float64, requires_grad=True)
    W, b = layer.weight.requires_grad_(), layer.bias.detach().clone()
    dense_X = X.detach().clone().requires_grad_()
    dense = nn.functional.linear(dense_X, W, b)
    assert torch.allclose(layer(X), dense, atol=1e-12)
    out_gradient = torch.randn_like(dense)
    layer(X).backward(out_gradient)
    dense.backward(out_gradient)
    U, s, V = layer.decomposition()
    active = layer.order[: len(layer.left)]
    factor = 1 if enhanced else s[active, None]
    assert torch.allclose(layer.s.grad, ((U @ W.grad) * V).sum(1), atol=1e-12)
    assert torch.allclose(layer.left.grad, factor * (W.grad @ V[active].T).T, atol=1e-12)
    assert torch.allclose(layer.right.grad, factor * (U[active] @ W.grad), atol=1e-12)
    assert torch.allclose(X.grad, dense_X.grad, atol=1e-12)
    assert torch.equal(layer.bias.grad, out_gradient.sum((0, 1)))


def test_without_enhancement_gradients_are_those_of_autograd():
    layer = spectral(enhanced=False)
    factors = [part.detach().clone().requires_grad_() for part in layer.decomposition()]
    X = torch.randn(3, 7, dtype=torch.float64)
    (X @ ((factors[0].T * factors[1]) @ factors[2]).T + layer.bias).square().sum().backward()
    layer(X).square().sum().backward()
    active = layer.order[:2]
    for mine, theirs in ((layer.left, factors[0]), (layer.right, factors[2])):
        assert torch.allclose(mine.grad, theirs.grad[active], atol=1e-12)
    assert torch.allclose(layer.s.grad, factors[1].grad, atol=1e-12)


def test_another_sample_changes_no_weight():
    layer = spectral(9, 8, 2)
    with torch.no_grad():
        layer.left.add_(1.0)  # so that active and frozen rows differ in kind
    before, U = layer.weight, layer.decomposition()[0]
    for sample in ([0, 5], [5, 7], [7, 5], [1, 2]):
        layer.activate(torch.tensor(sample))
        assert set(layer.order[:2].tolist()) == set(sample)
        assert sorted(layer.order.tolist()) == list(range(8))
        assert torch.equal(layer.left.detach(), U[layer.order[:2]])
        assert torch.allclose(layer.weight, before, atol=1e-14)
    assert torch.allclose(layer.multiplied_out().weight, before, atol=1e-14)


@pytest.mark.parametrize(("m", "tolerance"), [(500, 1e-6), (520, 1e-5)])  # float64 and float32
def test_a_decomposition_is_orthogonal_and_changes_no_output(m, tolerance):
    linear = nn.Linear(m, m)
    layer = SpectralLinear.decomposing(linear, 8)
    with torch.no_grad():
        layer.left.copy_(nn.functional.normalize(layer.left + 0.5 * torch.randn_like(layer.left)))
    X = torch.randn(20, m)
    before = layer(X).detach()
    layer.decompose(layer.weight)
    U, _, V = layer.decomposition()
    assert (U @ U.T - torch.eye(m)).abs().max() < 10 * tolerance
    assert (V @ V.T - torch.eye(m)).abs().max() < 10 * tolerance
    assert (layer(X) - before).abs().max() < 1e-5


def test_weights_of_half_precision_are_decomposed_too():
    linear = nn.Linear(514, 513).bfloat16()
    layer = SpectralLinear.decomposing(linear, 4)
    assert layer.s.dtype == layer.frozen_left.dtype == torch.bfloat16
    gap = layer.weight.float() - linear.weight.float()
    assert gap.norm() < 0.02 * linear.weight.float().norm()  # factors are rounded to 8 bits


# The sample


def test_mixed_sampling_has_the_probabilities_of_its_formula():
    s, generator = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]), torch.Generator().manual_seed(0)
    waits = torch.zeros(5, dtype=torch.int64)
    drawn = np.bincount([int(draw(s, 1, "mixed", waits, generator)) for _ in range(4000)], minlength=5) / 4000
    expected = (0.2 + s.numpy() / 10) / 2
    assert np.all(np.abs(drawn - expected) < 4 * np.sqrt(expected / 4000))  # four standard errors


@pytest.mark.parametrize(("sampling", "least"), [("mixed", 1), ("uniform", 1), ("multinomial", 0), ("top", 0)])
def test_no_index_waits_for_more_than_three_rounds(sampling, least):
    s, generator = torch.zeros(48), torch.Generator().manual_seed(0)
    s[:6] = 1.0
    waits, counts = torch.zeros(48, dtype=torch.int64), []
    for _ in range(5 * 12):
        indices = draw(s, 4, sampling, waits, generator)
        assert len(indices.unique()) == 4
        waits += 1
        waits[indices] = 0
        counts.append(torch.bincount(indices, minlength=48))
    in_three_rounds = torch.stack(counts).unfold(0, 36, 1).sum(-1)
    assert (in_three_rounds.min() >= 1) == bool(least)


# The training


def test_steps_are_those_of_the_formulas():
    """Plain gradient steps, in numpy: warm-up, clamped values, unit vectors, both vectors from the old ones."""
    rng = np.random.default_rng(0)
    X, target = rng.standard_normal((32, 6)), rng.standard_normal((32, 4))
    linear = nn.Linear(6, 4, bias=False, dtype=torch.float64)
    U, s, Vh = np.linalg.svd(linear.weight.detach().numpy(), full_matrices=False)
    V, samples, weights = Vh.T, [], []

    def look(net):
        layer = net.module_[0]
        samples.append(layer.order[:2].clone().numpy())
        weights.append(layer.weight.numpy())

    rule = SparseSpectralTraining(2, iteration_length=4, round_length=9, warmup=3, skip_last=False)
    net = skorch_net(
        rule, Watch(look), module=nn.Sequential(linear), optimizer=torch.optim.SGD, lr=0.3, batch_size=32, max_epochs=9
    ).fit(X, target)
    for step, S in enumerate(samples):
        W = (U * s) @ V.T
        assert np.allclose(weights[step], W, atol=1e-12)
        G = 2 * (X @ W.T - target).T @ X / target.size
        share = min(1, (step % 4 + 1) / 3)
        new_U, new_V = U[:, S] - 0.3 * share * G @ V[:, S], V[:, S] - 0.3 * share * G.T @ U[:, S]
        s = np.maximum(s - 0.3 * np.diag(U.T @ G @ V), 0)
        U[:, S], V[:, S] = new_U / np.linalg.norm(new_U, axis=0), new_V / np.linalg.norm(new_V, axis=0)
    assert len(samples) == 9
    assert np.allclose(net.module_[0].weight.detach().numpy(), (U * s) @ V.T, atol=1e-12)


def test_weights_get_where_no_change_of_low_rank_leads():
    """The target is a rotation; an adapter of rank 2 cannot come nearer than `nearest`."""
    rng = np.random.default_rng(0)
    target = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    X = rng.standard_normal((4000, 16)).astype(np.float32)
    starts = []
    rates = LRScheduler("CosineAnnealingLR", T_max=12 * 63, step_every="batch")
    watch = Watch(lambda net: starts.append(net.module_[0].weight.numpy()) if not starts else None)
    model = NetworkRegressor(
        (),
        training=SparseSpectralTraining(2, iteration_length=10, warmup=4, skip_last=False),
        learning_rate=0.03,
        max_iter=12,
        tol=0,
        standardize=False,
        random_state=0,
        device="cpu",
        net_params={"callbacks": [watch, rates]},
    ).fit(X, X @ target.T)
    nearest = np.linalg.norm(np.linalg.svd(target - starts[0], compute_uv=False)[2:]) / 4
    reached = np.linalg.norm(model.network()[0].weight.detach().numpy() - target) / 4
    assert nearest > 0.9
    assert reached < 0.02
    assert np.allclose(model.training_["singular_values"]["0"], 1, atol=0.05)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop])
def test_factors_keep_their_constraints(optimizer):
    seen = []

    def look(net):
        for layer in spectral_layers(net.module_):
            U, s, V = layer.decomposition()
            norms = torch.cat([U.norm(dim=1), V.norm(dim=1)])
            seen.append((s.min().item(), (norms - 1).abs().max().item()))

    X, y = table()
    net = skorch_net(SparseSpectralTraining(2, **SHORT), Watch(look), lr=0.1, optimizer=optimizer, max_epochs=8)
    net.fit(X, y)
    lows, gaps = zip(*seen)
    assert min(lows) == 0  # reached, and not crossed
    assert max(gaps) < 1e-5
    assert np.isfinite(net.history[:, "train_loss"]).all()


@pytest.mark.parametrize("door", ["skorch", "ours"])
def test_the_optimizer_holds_moments_of_the_sample_only(door):
    sizes = []

    def look(net):
        state = net.optimizer_.state
        for layer in spectral_layers(net.module_):
            own = [p for name, p in layer.named_parameters() if name != "bias"]
            sizes.append(sum(v.numel() for p in own for name, v in state.get(p, {}).items() if v.ndim))

    X, y = table()
    rule = SparseSpectralTraining(2, iteration_length=4, round_length=99)
    (skorch_net(rule, Watch(look)) if door == "skorch" else ours(rule, Watch(look))).fit(X, y)
    expected = {2 * (2 * (6 + 8) + 6), 2 * (2 * (8 + 10) + 8)}
    assert set(sizes) - expected == {0, 2 * 6, 2 * 8}  # before the first step, and of s where a sample is new
    assert expected <= set(sizes)


def test_moments_belong_to_what_is_trained():
    """After 3 steps another sample, after 6 another decomposition."""
    seen = []

    def look(net):
        layer, state = net.module_[0], net.optimizer_.state
        steps = [int(state[p]["step"]) if p in state else 0 for p in (layer.s, layer.left, layer.right, layer.bias)]
        seen.append(tuple(steps))

    X, y = table()
    skorch_net(SparseSpectralTraining(2, **SHORT), Watch(look), max_epochs=2).fit(X, y)
    expected = [(t % 6, t % 3, t % 3, t) for t in range(12)]
    assert seen == expected


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "NAdam", "Adagrad"])
def test_weight_decay_is_that_of_singular_values(optimizer):
    """Without a gradient of the loss directions stay and singular values shrink."""
    linear = nn.Linear(6, 6, bias=False, dtype=torch.float64)
    before = linear.weight.detach().clone()
    rule = SparseSpectralTraining(2, skip_last=False, **SHORT)
    net = skorch_net(
        rule,
        module=nn.Sequential(linear),
        optimizer=getattr(torch.optim, optimizer),
        optimizer__weight_decay=0.1,
        criterion=_Nothing,
    ).fit(np.zeros((64, 6)), np.zeros((64, 6)))
    after = net.module_[0].weight.detach()
    U, s, Vh = torch.linalg.svd(before)
    inside = U.T @ after @ Vh.T
    # The decay is taken out and added up to a rounding error, which optimizers divide by an eps of 1e-8 or 1e-10.
    assert torch.allclose(inside, inside.diag().diag(), atol=1e-7)
    assert (inside.diag() < s).all()
    assert (inside.diag() > -1e-12).all()


class _Nothing(nn.Module):
    def forward(self, out, target):
        return 0 * out.sum()


def test_a_schedule_and_groups_of_the_optimizer_go_on():
    rates = []

    class Rates(Callback):
        def on_epoch_end(self, net, **kwargs):
            rates.append([group["lr"] for group in net.optimizer_.param_groups])

    X, y = table()
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.5)
    rule = SparseSpectralTraining(2, **SHORT)
    net = skorch_net(rule, schedule, Rates(), optimizer__param_groups=[("2.*", {"lr": 0.2})]).fit(X, y)
    assert np.allclose(rates, np.array([0.2, 0.01]) * 0.5 ** np.arange(1, 5)[:, None])
    known = {id(p) for group in net.optimizer_.param_groups for p in group["params"]}
    assert known == {id(p) for p in net.module_.parameters()}


# What is left


@pytest.mark.parametrize("door", ["skorch", "ours"])
def test_finished_layers_are_linear_and_predict_the_same(door):
    last = {}

    class Last(Callback):
        def on_epoch_end(self, net, **kwargs):
            with torch.no_grad():
                last["out"] = net.module_(torch.from_numpy(X)).numpy()

    X, y = table()
    X -= X.mean(0)
    rule = SparseSpectralTraining(3, **SHORT)
    if door == "skorch":
        net = skorch_net(rule, Last()).fit(X, y)
        module, report = net.module_, rule.report()
        assert np.allclose(net.predict(X), last["out"], atol=1e-5)
    else:
        model = ours(rule, Last(), standardize=False).fit(X, y)
        module, report = model.network(), model.training_
        assert np.allclose(module(torch.from_numpy(X)).detach(), last["out"], atol=1e-5)
    assert [type(layer) for layer in module] == [nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    assert set(report) == {"singular_values", "n_trainable", "trainable_fraction", "selection_counts", "n_resvd"}
    assert report["n_trainable"] == 3 * 14 + 6 + 3 * 18 + 8
    assert report["trainable_fraction"] == report["n_trainable"] / (48 + 80)
    assert report["n_resvd"] == 2 * (24 // 6)  # two layers, 24 steps
    for path in ("0", "2"):
        W = module[int(path)].weight.detach().numpy()
        assert np.allclose(report["singular_values"][path], np.linalg.svd(W, compute_uv=False), atol=1e-5)
        assert report["selection_counts"][path].sum() == 3 * (1 + 24 // 3)


def test_pruned_layers_are_thin_where_that_is_smaller():
    X, y = table()
    dense = ours(SparseSpectralTraining(3, **SHORT), max_iter=1).fit(X, y)
    for energy in (0.3, 0.9):
        pruned = clone(dense).set_params(training__prune_energy=energy).fit(X, y)
        for path, s in dense.training_["singular_values"].items():
            k = len(pruned.training_["singular_values"][path])
            share = np.cumsum(s**2) / np.sum(s**2)
            assert share[k - 1] >= energy
            assert k == 1 or share[k - 2] < energy
            layer = pruned.network()[int(path)]
            n_out, n_in = dense.network()[int(path)].weight.shape
            assert (type(layer) is ThinLinear) == (k * (n_in + n_out) < n_in * n_out)
            U, s, Vh = np.linalg.svd(dense.network()[int(path)].weight.detach().numpy(), full_matrices=False)
            W = (layer.up @ layer.down if type(layer) is ThinLinear else layer.weight).detach().numpy()
            assert np.allclose(W, (U[:, :k] * s[:k]) @ Vh[:k], atol=1e-5)
    assert clone(dense).set_params(training__prune_energy=0.3).fit(X, y).n_parameters_ < dense.n_parameters_


@pytest.mark.parametrize("energy", [1.0, 0.4])
def test_partial_fit_takes_finished_layers_up_without_their_former_moments(energy):
    X, y = table()
    model = ours(SparseSpectralTraining(2, prune_energy=energy, **SHORT), max_iter=20).fit(X, y)
    before, score = model.predict(X), model.score(X, y)
    model.set_params(training__prune_energy=1.0, learning_rate=1e-8).partial_fit(X, y)
    assert np.allclose(model.predict(X), before, atol=1e-4)  # it starts where it was
    assert model.ranks_ == (6, 8)
    model.set_params(learning_rate=0.01)
    for _ in range(10):
        model.partial_fit(X, y)
    assert model.score(X, y) > score
    assert model.n_iter_ == 31


def test_the_first_step_of_partial_fit_has_new_moments_of_factors():
    """The estimator restores the optimizer's state by place and shape, but the vectors are others."""
    steps = []

    class AfterStep(Callback):
        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            layer, state = net.module_[0], net.optimizer_.state
            steps.append([int(state[p]["step"]) for p in (layer.s, layer.left, layer.right, layer.bias)])

    X, y = table(32)
    model = ours(SparseSpectralTraining(2), AfterStep(), max_iter=1).fit(X, y)
    model.partial_fit(X, y)
    assert steps == [[1, 1, 1, 1], [2, 2, 2, 2], [1, 1, 1, 3], [2, 2, 2, 4]]


def test_any_skorch_net_takes_the_rule_and_continues():
    X, y = table()
    rule = SparseSpectralTraining(2, **SHORT)
    net = skorch_net(rule, max_epochs=30).fit(X, y)
    losses = net.history[:, "train_loss"]
    assert losses[-1] < 0.5 * losses[0]
    again = pickle.loads(pickle.dumps(net))
    assert np.array_equal(again.predict(X), net.predict(X))
    for each in (net, again):
        each.partial_fit(X, y)
        assert len(each.history) == 60
        assert each.history[-1, "train_loss"] < losses[-1]
    assert np.isfinite(net.predict(X)).all()


def test_layers_of_a_nested_module_are_counted_and_frozen_or_shared_ones_left():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.ModuleDict({"a": nn.Sequential(nn.Linear(6, 8)), "b": nn.Linear(8, 8)})
            self.c, self.head = nn.Linear(8, 8), nn.Linear(8, 1)

        def forward(self, x):
            return self.head(self.c(self.body["b"](self.body["a"](x)).relu()).relu())

    X, y = table()
    module = Own()
    module.c.requires_grad_(False)
    frozen = module.c.weight.clone()
    found = []
    watch = Watch(
        lambda net: found.append([p for p, m in net.module_.named_modules() if isinstance(m, SpectralLinear)])
    )
    net = skorch_net(SparseSpectralTraining(2, skip_first=1, **SHORT), watch, module=module).fit(X, y)
    assert found[0] == ["body.b"]
    assert torch.equal(net.module_.c.weight, frozen)
    tied = Own()
    tied.c.weight = tied.body["b"].weight
    rule = SparseSpectralTraining(2, **SHORT)
    net = skorch_net(rule, module=tied).fit(X, y)
    assert list(rule.report()["singular_values"]) == ["body.a.0"]
    assert net.module_.c.weight is net.module_.body["b"].weight
    everywhere = SparseSpectralTraining(2, skip_last=False, **SHORT)
    skorch_net(everywhere, module=Own()).fit(X, y)
    assert list(everywhere.report()["singular_values"]) == ["body.a.0", "body.b", "c", "head"]


def test_parameters_are_searched_through_both_doors():
    X, y = load_digits(return_X_y=True)
    X, y = (X[:200] / 16).astype(np.float32), y[:200]
    model = NetworkClassifier((16,), training=SparseSpectralTraining(2, **SHORT), max_iter=2, tol=0, random_state=0)
    search = GridSearchCV(model, {"training__rank": [1, 4]}, cv=2).fit(X, y)
    assert search.best_estimator_.training_["n_trainable"] in (16 + 80, 16 + 4 * 80)
    net = NeuralNetClassifier(
        nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)),
        criterion=nn.CrossEntropyLoss,
        callbacks=[("rule", SparseSpectralTraining(2, **SHORT))],
        max_epochs=2,
        verbose=0,
        train_split=None,
    )
    search = GridSearchCV(net, {"callbacks__rule__rank": [1, 4]}, cv=2, error_score="raise").fit(X, y)
    assert dict(search.best_estimator_.callbacks_)["rule"].n_trainable_ in (16 + 80, 16 + 4 * 80)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_best_epoch_is_what_is_left():
    """With steps that grow, the first epoch is the best one; its layers had another sample than the last ones."""
    X, y = table()
    rising = LRScheduler("LambdaLR", lr_lambda=lambda epoch: 1.0 if epoch < 1 else 1e3)
    rule = SparseSpectralTraining(2, **SHORT)
    one = ours(rule, max_iter=1, early_stopping=True).fit(X, y)
    more = ours(rule, rising, max_iter=5, early_stopping=True).fit(X, y)
    assert np.argmin(more.loss_curve_) == 0
    assert np.allclose(one.predict(X), more.predict(X), atol=1e-5)


@pytest.mark.parametrize("way", ["interrupt", "early stopping"])
def test_a_training_that_is_cut_short_leaves_linear_layers(way):
    class Break(Callback):
        def on_batch_end(self, net, **kwargs):
            if way == "interrupt" and len(net.history) == 2:
                raise KeyboardInterrupt

    X, y = table()
    stop = EarlyStopping("train_loss", patience=1, threshold=9.0, threshold_mode="abs")
    net = skorch_net(SparseSpectralTraining(2, **SHORT), Break(), stop, max_epochs=9).fit(X, y)
    assert len(net.history) < 9
    assert not spectral_layers(net.module_)
    assert np.isfinite(net.predict(X)).all()


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (np.ones((1, 3)), np.ones(1)),
        (np.arange(8.0)[:, None], np.arange(8.0)),
        (np.ones((8, 3)), np.arange(8.0)),
        (np.zeros((8, 1)), np.zeros(8)),
    ],
)
@pytest.mark.parametrize("energy", [1.0, 0.5])
def test_one_row_one_feature_constant_features(X, y, energy):
    rule = SparseSpectralTraining(4, prune_energy=energy, **SHORT)
    model = NetworkRegressor((1, 5), training=rule, max_iter=8, tol=0, batch_size=3, random_state=0).fit(X, y)
    assert np.isfinite(model.partial_fit(X, y).predict(X)).all()


def test_a_weight_of_zeros_is_trained_and_pruned():
    X, y = table()
    module = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 1))
    nn.init.zeros_(module[0].weight)
    rule = SparseSpectralTraining(2, prune_energy=0.9, **SHORT)
    net = skorch_net(rule, module=module, max_epochs=20, lr=0.05).fit(X, y)
    assert net.history[-1, "train_loss"] < 0.97 * net.history[0, "train_loss"]


def test_a_diverging_training_says_so():
    X, y = table()
    with pytest.raises(ValueError, match="Lower learning_rate"):
        ours(SparseSpectralTraining(2, **SHORT), learning_rate=1e30).fit(X, y)


@pytest.mark.parametrize(
    "params",
    [
        {"rank": 0},
        {"rank": 2.5},
        {"iteration_length": 0},
        {"round_length": "all"},
        {"sampling": "best"},
        {"enhanced_gradient": "yes"},
        {"warmup": -1},
        {"skip_first": -1},
        {"skip_last": 1.5},
        {"prune_energy": 0},
        {"prune_energy": 1.1},
    ],
)
def test_wrong_parameters_are_named(params):
    X, y = table()
    with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter"):
        ours(SparseSpectralTraining(**params)).fit(X, y)
    with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter"):
        skorch_net(SparseSpectralTraining(**params)).fit(X, y)


def test_a_network_without_a_layer_for_it_is_refused():
    X, y = table()
    model = NetworkRegressor((), training=SparseSpectralTraining())
    with pytest.raises(ValueError, match="leave none of the 1 linear"):
        model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)


# Precision, seeds, devices


def test_precision_is_that_of_the_module():
    X, y = table()
    seen = []
    watch = Watch(lambda net: seen.extend(v.dtype for v in net.module_.state_dict().values()))
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    net = skorch_net(SparseSpectralTraining(2, **SHORT), watch, module=module).fit(X.astype(float), y.astype(float))
    assert set(seen) == {torch.float64, torch.int64}
    assert net.module_[0].weight.dtype == torch.float64
    weighted = ours(SparseSpectralTraining(2, **SHORT), batch_size=512)
    X, y = X.astype(float), y.ravel().astype(float)
    counts = np.arange(len(X)) % 3
    by_weight = clone(weighted).fit(X, y, sample_weight=counts)
    by_copies = clone(weighted).fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    assert np.allclose(by_weight.predict(X), by_copies.predict(X), atol=1e-6)


def test_seeds_decide_and_global_generators_stay():
    X, y = table()
    state = torch.get_rng_state()
    first, same, other = (ours(SparseSpectralTraining(2, **SHORT), random_state=seed).fit(X, y) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(first.predict(X), same.predict(X))
    assert not np.allclose(first.predict(X), other.predict(X))
    counts = [model.training_["selection_counts"]["2"] for model in (first, other)]
    assert not np.array_equal(*counts)


@pytest.mark.cuda
def test_a_gpu_computes_the_same():
    X, y = table()
    rule = SparseSpectralTraining(2, **SHORT)
    cpu, gpu = (ours(rule, max_iter=1).set_params(device=device).fit(X, y) for device in ("cpu", "cuda"))
    assert np.allclose(cpu.predict(X), gpu.predict(X), atol=1e-3)
    net = skorch_net(rule, device="cuda").fit(X, y)
    assert np.isfinite(net.predict(X)).all()
