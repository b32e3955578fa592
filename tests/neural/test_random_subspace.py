"""Training in a random subspace against autograd through the map, by both doors, and what a fitted estimator stores."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn

from sklowrank.inspection import LearningRegime
from sklowrank.neural import NetworkClassifier, NetworkRegressor, RandomSubspace, SharpnessAware
from sklowrank.neural._random_projections import KINDS, chosen, random_projection, walsh_hadamard
from sklowrank.neural._random_subspace import flat

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _own_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def table(n=60, n_features=5):
    X = np.random.default_rng(0).normal(size=(n, n_features)).astype(np.float32)
    return X, (X[:, 0] - X[:, 1] ** 2 > -0.5).astype(np.int64)


def small(kind, **params):
    settings = {"learning_rate": 0.02, "batch_size": 32, "max_iter": 8, "tol": 0, "device": "cpu", "random_state": 0}
    return kind((8, 8), **{"training": RandomSubspace(12), **settings, **params})


classifier, regressor = partial(small, NetworkClassifier), partial(small, NetworkRegressor)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))


def skorch_net(rule, *callbacks, module=None, **params):
    named = [(f"own{i}", callback) for i, callback in enumerate(callbacks)]
    settings = {"criterion": nn.CrossEntropyLoss, "optimizer": torch.optim.Adam, "lr": 0.02, "max_epochs": 4}
    settings |= {"batch_size": 64, "train_split": None, "verbose": 0, **params}
    module = network() if module is None else module
    return NeuralNetClassifier(module, callbacks=[*named, ("rule", rule)], **settings)


def rule_of(net):
    return dict(net.callbacks_)["rule"]


def matrix(kind, n_full, dim, seed=0):
    P = random_projection(kind, n_full, dim, seed, dtype=torch.float64)
    return torch.stack([P.forward(column) for column in torch.eye(dim, dtype=torch.float64)], 1), P


# Projections


def test_walsh_hadamard_against_its_matrix():
    for length in (1, 2, 8, 16, 64, 512):
        x = torch.randn(length, dtype=torch.float64)
        assert np.allclose(walsh_hadamard(x), hadamard(length) @ x.numpy() if length > 1 else x, atol=1e-12)


def test_fastfood_against_products_of_matrices():
    n_full, dim, length = 50, 7, 64
    generator = torch.Generator().manual_seed(3)
    B = 2.0 * torch.randint(2, (length,), generator=generator).numpy() - 1
    permutation = np.eye(length)[torch.randperm(length, generator=generator).numpy()]
    G = torch.randn(length, generator=generator).numpy().astype(np.float64)
    H = hadamard(length)
    whole = H @ np.diag(G) @ permutation @ H @ np.diag(B)
    whole /= np.sqrt(length * np.sum(G**2)) * np.sqrt(n_full / length)
    assert np.allclose(matrix("fastfood", n_full, dim, seed=3)[0], whole[:n_full, :dim], atol=1e-6)


@each_kind
@pytest.mark.parametrize(("n_full", "dim"), [(1, 1), (3, 3), (1000, 40), (1024, 40), (1025, 40)])
def test_the_adjoint_is_the_transpose_and_columns_have_unit_length(kind, n_full, dim):
    P, projection = matrix(kind, n_full, dim)
    g = torch.randn(n_full, dtype=torch.float64)
    assert torch.allclose(projection.adjoint(g), P.T @ g, atol=1e-12)
    lengths = P.square().sum(0)
    if kind == "fastfood":
        assert n_full < 1000 or abs(float(lengths.mean()) - 1) < 0.05
    else:
        assert torch.allclose(lengths, torch.ones(dim, dtype=torch.float64), atol=1e-6)


def test_expected_length_of_fastfood_columns_where_padding_is_large():
    lengths = torch.stack([matrix("fastfood", 520, 20, seed)[0].square().sum(0) for seed in range(20)])  # L = 1024
    assert abs(float(lengths.mean()) - 1) < 0.02


def test_sparse_has_the_density_it_says_and_no_empty_column():
    P = matrix("sparse", 10_000, 50)[0]
    assert abs(float((P != 0).double().mean()) - 0.01) < 0.001
    assert ((matrix("sparse", 4, 200)[0] != 0).sum(0) > 0).all()


def test_auto_is_dense_while_that_takes_little_memory():
    assert (chosen("auto", 10**5, 200), chosen("auto", 10**5, 201), chosen("sparse", 9, 1)) == (
        "dense",
        "fastfood",
        "sparse",
    )


@each_kind
@pytest.mark.parametrize(("dim", "solved"), [(9, False), (10, True), (20, True)])
def test_ten_sums_need_ten_numbers(kind, dim, solved):
    """The toy problem of the paper: 1,000 parameters, ten groups whose sums are given. Ten maps of a tenth would fail
    at d = 10."""
    projection = random_projection(kind, 1000, dim, 1, dtype=torch.float64)
    start = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theta = torch.zeros(dim, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], max_iter=100, tolerance_grad=1e-14, tolerance_change=0, history_size=50)
    targets = torch.arange(1, 11, dtype=torch.float64)

    def closure():
        residual = (start + projection.forward(theta.detach())).reshape(10, 100).sum(1) - targets
        theta.grad = projection.adjoint((2 * residual).repeat_interleave(100))
        return residual.square().sum()

    for _ in range(2):
        optimizer.step(closure)
        if closure() < 1e-5:
            break
    performance = float(torch.exp(-closure()))
    assert performance > 0.999 if solved else performance < 1e-3


# Training


def by_autograd(X, y, kind, dim, seed, decay, steps, module):
    """Train theta with Adam through the map, by autograd."""
    names, start = list(dict(module.named_parameters())), flat(module.parameters()).double()
    shapes = [p.shape for p in module.parameters()]
    P = matrix(kind, len(start), dim, seed)[0]
    module = module.double()
    theta = torch.zeros(dim, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=0.02)
    X, y = torch.from_numpy(X).double(), torch.from_numpy(y)
    for _ in range(steps):
        weights = start + P @ theta
        parts = [w.view(s) for w, s in zip(weights.split([s.numel() for s in shapes]), shapes)]
        outputs = torch.func.functional_call(module, dict(zip(names, parts)), (X,))
        loss = nn.functional.cross_entropy(outputs, y) + decay / 2 * weights.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (start + P @ theta).detach(), theta.detach()


@each_kind
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_skorch_net_does_what_autograd_does(kind, decay):
    """One P for all weights, a start that stays, columns normalised over all of them, decay of the weights."""
    X, y = table()
    net = skorch_net(RandomSubspace(12, projection=kind), max_epochs=15, optimizer__weight_decay=decay).fit(X, y)
    found = rule_of(net).report()
    weights, theta = by_autograd(X, y, kind, 12, found["seed"], decay, 15, network())
    assert np.abs(theta).max() > 0.1
    assert np.allclose(found["theta"], theta, atol=2e-4)
    assert np.allclose(flat(net.module_.parameters()), weights, atol=2e-4)
    assert (found["n_full_parameters"], found["projection"]) == (66, kind)


def test_our_estimator_does_what_autograd_does():
    X, y = table()
    model = classifier(batch_size=60, max_iter=15, standardize=False, module=network(), weight_decay=0.1).fit(X, y)
    _, theta = by_autograd(X, y, "dense", 12, model.training_["seed"], 0.1, 15, network())
    assert np.allclose(model.training_["theta"], theta, atol=2e-4)


def test_all_dimensions_learn_as_much_as_all_weights():
    X, y = table()
    full = classifier(training=None, max_iter=40, learning_rate=0.05).fit(X, y).loss_curve_[-1]
    losses = [classifier(training=RandomSubspace(d), max_iter=40, learning_rate=0.05).fit(X, y) for d in (2, 20, None)]
    few, some, every = (model.loss_curve_[-1] for model in losses)
    assert few > some > every
    assert every < 2 * full + 0.01
    assert len(losses[2].training_["theta"]) == 138


def test_frozen_and_shared_parameters():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.middle, self.last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)
            self.middle.weight = self.first.weight
            self.last.weight.requires_grad_(False)

        def forward(self, x):
            return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))

    X, y = table()
    net = skorch_net(RandomSubspace(6), module=Tied()).fit(X, y)
    assert rule_of(net).report()["n_full_parameters"] == 25 + 5 + 5 + 2
    assert net.module_.middle.weight is net.module_.first.weight
    assert torch.equal(net.module_.last.weight, Tied().last.weight)
    assert not torch.equal(net.module_.first.weight, Tied().first.weight)
    model = classifier(training=RandomSubspace(6), module=Tied).fit(X, y)
    assert set(model.weights_) == {"theta", "last.weight"}
    net = model.network()
    assert net.middle.weight is net.first.weight


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (RandomSubspace(0), "subspace_dim"),
        (RandomSubspace(1.5), "subspace_dim"),
        (RandomSubspace(projection="fast"), "projection"),
        (RandomSubspace(200), "subspace_dim=200 is above the number of trained weights, 138. Pass at most 138"),
    ],
)
def test_what_is_refused(rule, text):
    X, y = table()
    with pytest.raises(ValueError, match=text):
        classifier(training=rule).fit(X, y)


def test_a_module_without_trained_parameters_is_refused():
    X, y = table()
    module = network().requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="needs a module with parameters that require a gradient"):
        classifier(module=module).fit(X, y)


# What a fitted estimator stores


@each_kind
def test_theta_and_seeds_are_all_that_is_stored(kind):
    X, y = table()
    model = NetworkClassifier(
        (64, 64), training=RandomSubspace(50, projection=kind), max_iter=3, tol=0, learning_rate=0.01, random_state=0
    ).fit(X, y)
    assert set(model.weights_) == {"theta"}
    assert model.weights_["theta"].dtype == np.float32
    assert (model.n_parameters_, model.n_dense_parameters_, model.ranks_) == (50, 4674, (5, 64))
    stored = pickle.dumps(model)
    assert len(stored) <= 12 * 50 + 20_000
    assert len(stored) < 4 * 4674  # the weights alone
    assert np.array_equal(pickle.loads(stored).predict_proba(X), model.predict_proba(X))
    assert type(model.network()) is nn.Sequential
    assert [name for name, _ in model.network().named_parameters()][:2] == ["0.weight", "0.bias"]


def test_the_pickle_grows_by_twelve_bytes_a_dimension():
    X, y = table()
    sizes = []
    for dim in (1000, 4000):
        rule = RandomSubspace(dim, projection="fastfood")
        model = NetworkClassifier((128, 128), training=rule, max_iter=1, tol=0, random_state=0).fit(X, y)
        sizes.append(len(pickle.dumps(model)))
    assert sizes[1] <= 12 * 4000 + 20_000
    assert sizes[1] - sizes[0] <= 12.1 * 3000


class Watch(Callback):
    """Keeps the module that was trained."""

    trained = None

    def on_train_end(self, net, **kwargs):
        Watch.trained = copy.deepcopy(net.module_)


def own_class(n_features, n_outputs, width=6):
    return nn.Sequential(nn.Linear(n_features, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, n_outputs))


def of_foreign_numbers(n_features, n_outputs):
    net = own_class(n_features, n_outputs)
    with torch.no_grad():
        net[0].weight.copy_(torch.from_numpy(np.random.rand(6, n_features)))  # of the user
    return net


@pytest.mark.parametrize(
    ("params", "stored"),
    [
        ({}, {"theta"}),
        ({"init_rank": 2}, {"theta"}),
        ({"early_stopping": True, "validation_fraction": 0.3}, {"theta"}),
        ({"net_params": {"module__dropout": 0.2}}, {"theta"}),
        ({"module": own_class}, {"theta", "1.running_mean"}),
        ({"module": own_class, "net_params": {"module__width": 7}}, {"theta", "1.running_mean"}),
        ({"module": of_foreign_numbers}, {"0.weight", "0.bias", "3.weight"}),
        ({"module": network()}, {"0.weight", "0.bias", "2.weight"}),
    ],
    ids=["default", "init_rank", "early stopping", "dropout", "class", "wider class", "foreign numbers", "instance"],
)
def test_the_network_is_rebuilt_as_it_was_trained(params, stored):
    X, y = table()
    np.random.seed(0)
    params = {**params, "net_params": {**params.get("net_params", {}), "callbacks": [Watch()]}}
    model = classifier(**params).fit(X, y)
    assert stored <= set(model.weights_)
    assert ("theta" in stored) == ("theta" in model.weights_)
    again, trained = model.network().state_dict(), Watch.trained.state_dict()
    assert again.keys() == trained.keys()
    assert all(np.allclose(again[name], trained[name], atol=1e-6) for name in again)
    before = model.predict_proba(X)
    model.partial_fit(X, y)
    assert ("theta" in stored) == ("theta" in model.weights_)
    assert not np.array_equal(before, model.predict_proba(X))
    again, trained = model.network().state_dict(), Watch.trained.state_dict()
    assert all(np.allclose(again[name], trained[name], atol=1e-6) for name in again)


def test_global_generators_are_left_alone():
    X, y = table()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()
    classifier(module=own_class).fit(X, y).predict(X)
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state[1], np.random.get_state()[1])


def test_partial_fit_goes_on_in_the_same_subspace_with_the_same_moments():
    X, y = table(60)
    whole = classifier(batch_size=60, max_iter=4).fit(X, y)
    steps = classifier(batch_size=60)
    for _ in range(4):
        steps.partial_fit(X, y, classes=[0, 1])
    assert steps.training_["seed"] == whole.training_["seed"]
    assert np.allclose(steps.weights_["theta"], whole.weights_["theta"], atol=1e-6)


def test_warm_start_goes_on_in_the_same_subspace():
    X, y = table()
    model = classifier(warm_start=True).fit(X, y)
    seed, loss = model.training_["seed"], model.loss_curve_[0]
    model.fit(X, y)
    assert model.training_["seed"] == seed
    assert model.loss_curve_[0] < loss
    assert model.n_parameters_ == 12


def test_another_rule_or_another_subspace_begins_where_the_weights_are():
    X, y = table()
    model = classifier().fit(X, y)
    before, seed = model.network().state_dict(), model.training_["seed"]
    still = clone(model).set_params(learning_rate=0.0, random_state=1)
    for training in (RandomSubspace(5), None, SharpnessAware()):
        other = copy.deepcopy(model).set_params(training=training, learning_rate=0.0).partial_fit(X, y)
        assert "theta" not in other.weights_
        assert other.n_parameters_ == 138
        assert all(np.allclose(value, before[name], atol=1e-6) for name, value in other.network().state_dict().items())
        back = other.set_params(training=RandomSubspace(12)).partial_fit(X, y)
        assert "theta" not in back.weights_
        assert all(np.allclose(value, before[name], atol=1e-6) for name, value in back.network().state_dict().items())
    assert still.fit(X, y).training_["seed"] != seed
    assert not still.weights_["theta"].any()


def test_the_best_epoch_is_kept():
    X, y = table()
    rising = LRScheduler(policy="LambdaLR", lr_lambda=lambda epoch: 1.0 if epoch < 2 else 1e4)
    params = {"early_stopping": True, "max_iter": 6, "n_iter_no_change": 9, "validation_fraction": 0.3}
    model = classifier(net_params={"callbacks": [rising]}, **params).fit(X, y)
    best = int(np.argmin(model.loss_curve_)) + 1
    assert best < 6
    upto = classifier(net_params={"callbacks": [rising]}, **{**params, "max_iter": best}).fit(X, y)
    assert np.array_equal(upto.weights_["theta"], model.weights_["theta"])


def test_float64_in_one_batch():
    X, y = table()
    X = X.astype(np.float64)
    weights = np.arange(60) % 3
    options = {"batch_size": 500, "standardize": False}
    weighted = classifier(**options).fit(X, y, sample_weight=weights).predict_proba(X)
    copied = classifier(**options).fit(np.repeat(X, weights, 0), np.repeat(y, weights)).predict_proba(X)
    assert np.abs(weighted - copied).max() < 1e-6  # theta is stored in float32


@pytest.mark.parametrize("rows", [1, 2])
def test_few_rows_and_constant_features(rows):
    X = np.ones((rows, 5))
    model = regressor(max_iter=2).fit(X, np.arange(rows) * 1.0)
    assert np.isfinite(model.predict(X)).all()


def test_digits_in_a_hundred_numbers_against_too_few():
    X, y = load_digits(return_X_y=True)
    A, B, a, b = train_test_split(X / 16 - 0.3, y, test_size=0.3, stratify=y, random_state=0)
    score = {}
    for dim in (20, 120):
        model = NetworkClassifier(
            (32,),
            training=RandomSubspace(dim),
            learning_rate=0.03,
            max_iter=12,
            tol=0,
            standardize=False,
            random_state=0,
        )
        score[dim] = model.fit(A, a).score(B, b)
    assert score[120] > 0.75
    assert score[120] > score[20] + 0.2


def test_a_search_over_its_parameters():
    X, y = table()
    search = GridSearchCV(classifier(max_iter=3), {"training__subspace_dim": [2, 30]}, cv=2).fit(X, y)
    assert len(search.best_estimator_.training_["theta"]) in (2, 30)


def test_a_watch_that_copies_the_network_in_training():
    X, y = table()
    regime = LearningRegime(classifier(), random_state=0).fit(X, y)
    assert set(regime.weight_change_) == {"0", "2"}


# Any skorch net


def test_the_module_of_a_skorch_net_stays_an_ordinary_one():
    X, y = table()
    net = skorch_net(RandomSubspace(12)).fit(X, y)
    assert list(dict(net.module_.named_parameters())) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert not net.module_._forward_pre_hooks
    groups = net.optimizer_.param_groups
    assert [id(p) for group in groups for p in group["params"]] == [id(p) for p in net.module_.parameters()]
    twin = pickle.loads(pickle.dumps(net))
    assert np.array_equal(twin.predict_proba(X), net.predict_proba(X))
    assert np.array_equal(net.partial_fit(X, y).predict_proba(X), twin.partial_fit(X, y).predict_proba(X))


def test_partial_fit_of_a_skorch_net_goes_on_and_a_new_network_begins_anew():
    X, y = table()
    nets = []
    for epochs in (6, 3):
        net = skorch_net(RandomSubspace(12), max_epochs=epochs, optimizer__weight_decay=0.01)
        torch.manual_seed(1)  # the same subspace
        nets.append(net.fit(X, y))
    whole, found = rule_of(nets[0]).report(), rule_of(net.partial_fit(X, y)).report()
    assert found["seed"] == whole["seed"]
    assert np.allclose(found["theta"], whole["theta"], atol=1e-5)
    assert net.optimizer_.param_groups[0]["weight_decay"] == 0.01
    with torch.no_grad():
        net.module_[0].weight.add_(1.0)  # by the user
    net.partial_fit(X, y)
    assert rule_of(net).report()["seed"] != found["seed"]


def test_schedules_and_groups_go_on():
    X, y = table()
    rates = []

    class Rates(Callback):
        def on_epoch_end(self, net, **kwargs):
            rates.append([group["lr"] for group in net.optimizer_.param_groups])

    schedule = LRScheduler(policy="StepLR", step_size=1, gamma=0.5)
    net = skorch_net(RandomSubspace(12), schedule, Rates(), optimizer__param_groups=[("2.*", {"lr": 0.2})]).fit(X, y)
    assert np.allclose(np.array(rates)[:, 1], 0.02 * 0.5 ** np.arange(1, 5))
    assert np.allclose(np.array(rates)[:, 0], 0.2 * 0.5 ** np.arange(1, 5))
    assert [len(group["params"]) for group in net.optimizer_.param_groups] == [2, 2]


def test_decay_of_some_weights_only():
    X, y = table()
    groups = [("2.*", {"weight_decay": 0.5})]
    net = skorch_net(RandomSubspace(60, projection="dense"), max_epochs=60, optimizer__param_groups=groups).fit(X, y)
    plain = skorch_net(RandomSubspace(60, projection="dense"), max_epochs=60).fit(X, y)
    assert net.module_[2].weight.norm() < 0.8 * plain.module_[2].weight.norm()
    assert [group["weight_decay"] for group in net.optimizer_.param_groups] == [0.5, 0]


def test_an_optimizer_that_evaluates_the_loss_several_times_in_a_step():
    X, y = table()
    net = skorch_net(RandomSubspace(40), optimizer=torch.optim.LBFGS, lr=1.0, max_epochs=10, optimizer__max_iter=20)
    assert net.fit(X, y).history[-1, "train_loss"] < 0.05
    P = matrix("dense", 66, 40, rule_of(net).report()["seed"])[0]
    expected = flat(network().parameters()) + P.float() @ torch.from_numpy(rule_of(net).report()["theta"])
    assert np.allclose(flat(net.module_.parameters()), expected, atol=1e-4)


def test_early_stopping_that_loads_the_best_epoch():
    X, y = table()
    stop = EarlyStopping("train_loss", patience=2, load_best=True)
    rising = LRScheduler(policy="LambdaLR", lr_lambda=lambda epoch: 1.0 if epoch < 3 else 200.0)
    net = skorch_net(RandomSubspace(12), stop, rising, max_epochs=20, batch_size=20).fit(X, y)
    found = rule_of(net).report()
    expected = flat(network().parameters()) + matrix("dense", 66, 12, found["seed"])[0].float() @ found["theta"]
    assert len(net.history) < 20
    assert np.allclose(flat(net.module_.parameters()), expected, atol=1e-5)
    loss = nn.functional.cross_entropy(net.module_(torch.from_numpy(X)), torch.from_numpy(y))
    assert loss < net.history[0, "train_loss"] < net.history[-1, "train_loss"]


def test_a_training_that_an_error_has_ended_can_go_on():
    class Break(Callback):
        broken = False

        def on_epoch_end(self, net, **kwargs):
            if not self.broken:
                self.broken = True
                raise RuntimeError("no more")

    X, y = table()
    net = skorch_net(RandomSubspace(12), Break()).initialize()
    with pytest.raises(RuntimeError, match="no more"):
        net.partial_fit(X, y)
    net.partial_fit(X, y)
    assert list(dict(net.module_.named_parameters())) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert len(net.optimizer_.param_groups[0]["params"]) == 4


def test_a_skorch_regressor_and_clone_and_search():
    X, y = table()
    net = NeuralNetRegressor(
        nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1)),
        callbacks=[("rule", RandomSubspace(12))],
        max_epochs=2,
        train_split=None,
        verbose=0,
    )
    search = GridSearchCV(net, {"callbacks__rule__subspace_dim": [3, 7]}, cv=2, scoring="neg_mean_squared_error")
    search.fit(X, y[:, None].astype(np.float32))
    assert len(rule_of(search.best_estimator_).report()["theta"]) in (3, 7)
    assert repr(clone(RandomSubspace(3, projection="sparse"))) == "RandomSubspace(projection='sparse', subspace_dim=3)"


@pytest.mark.cuda
@each_kind
def test_cuda_has_the_same_subspace(kind):
    here, there = (random_projection(kind, 1000, 20, 0, device=device) for device in ("cpu", "cuda"))
    theta, g = torch.randn(20), torch.randn(1000)
    assert torch.allclose(here.forward(theta), there.forward(theta.cuda()).cpu(), atol=1e-5)
    assert torch.allclose(here.adjoint(g), there.adjoint(g.cuda()).cpu(), atol=1e-4)
    X, y = table()
    on_cpu, on_gpu = (
        classifier(training=RandomSubspace(12, projection=kind), device=device).fit(X, y) for device in ("cpu", "cuda")
    )
    assert np.allclose(on_cpu.predict_proba(X), on_gpu.predict_proba(X), atol=1e-3)
    on_gpu.partial_fit(X, y)
    assert np.allclose(on_gpu.set_params(device="cpu").predict_proba(X), on_gpu.predict_proba(X), atol=1e-5)
