"""Networks in fitted estimators are changed in a copy, stored as numpy, and answer by the estimator's own methods."""

import copy
import pickle
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array, dok_array
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.dataset import Dataset
from skorch.helper import SliceDict
from torch import nn

from sklowrank._core.compat import _fit_context
from sklowrank._core.fitted import keep
from sklowrank._core.workspace import open_workspace
from sklowrank._nets.calls import outputs_of
from sklowrank._nets.holding import hold, network_calls, restored_held, stored_held
from sklowrank._nets.layers import linear
from sklowrank._nets.randomness import Randomness
from sklowrank._nets.recording import (
    give_matrix,
    input_rows,
    layer_type,
    moments,
    moments_of,
    output_rows,
    reached,
    run,
    select_layers,
    watching,
    weight_matrix,
)
from sklowrank._nets.wrapping import HeldNetwork, checked_rows, relative_error, some_rows
from sklowrank.neural import NetworkClassifier, NetworkRegressor

X, y = load_iris(return_X_y=True)
ROWS = X.astype(np.float32)
NAMES = np.array(["setosa", "versicolor", "virginica"])[y]


class Halved(HeldNetwork, BaseEstimator):
    """Split each linear layer into two whose product it is, with half of its values."""

    _parameter_constraints = {}

    def __init__(self, estimator, module_getter=None, device="cpu"):
        self.estimator = estimator
        self.module_getter = module_getter
        self.device = device

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        X = checked_rows(self, X, reset=True, min_samples=2)
        ws = open_workspace(np.empty((0, 0)), device=self.device, random_state=0)
        held = hold(self.estimator, X, y, Randomness(ws.generator, ws.device, seeds_global=True), self.module_getter)
        for name, layer in list(held.module.named_modules()):
            if type(layer) is nn.Linear and name:
                first = linear(layer.in_features, layer.in_features, None, bias=False).to(layer.weight)
                second = copy.deepcopy(layer)
                with torch.no_grad():
                    first.weight.copy_(torch.eye(layer.in_features))
                    for part in second.parameters():
                        part *= 0.5
                held.module.set_submodule(name, nn.Sequential(first, second))
        stored = stored_held(held)
        return keep(self, ws, stored, weights_=stored.weights)


class Plain(ClassifierMixin, BaseEstimator):
    """An estimator with a module that is neither ours nor skorch's."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.module_ = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        self.nested = {"network": self.module_}
        return self

    def predict(self, X):
        with torch.no_grad():
            return self.classes_[self.module_(torch.from_numpy(np.asarray(X))).argmax(1).numpy()]


def randomness():
    return Randomness(torch.Generator().manual_seed(0), torch.device("cpu"), seeds_global=True)


def mlp(n_outputs=3):
    return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, n_outputs))


def skorch(kind, target, n_outputs=3, *, module=mlp, **params):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        how = {"max_epochs": 3, "lr": 0.05, "train_split": None, "verbose": 0, **params}
        if not isinstance(module, nn.Module):
            how["module__n_outputs"] = n_outputs
        return kind(module, **how).fit(ROWS, target)


FITTED = {
    "ours": lambda: (NetworkClassifier((8,), max_iter=5, random_state=0).fit(X, NAMES), X),
    "ours, values": lambda: (NetworkRegressor((8,), max_iter=5, random_state=0).fit(X, X[:, 0]), X),
    "ours, a module": lambda: (NetworkClassifier(module=mlp(), max_iter=5, random_state=0).fit(X, NAMES), X),
    "skorch": lambda: (skorch(NeuralNetClassifier, y, criterion=nn.CrossEntropyLoss), ROWS),
    "skorch, instance": lambda: (skorch(NeuralNetClassifier, y, module=mlp(), criterion=nn.CrossEntropyLoss), ROWS),
    "skorch, Adam": lambda: (skorch(NeuralNetRegressor, ROWS[:, :1], 1, optimizer=torch.optim.Adam), ROWS),
    "skorch, two": lambda: (skorch(NeuralNetBinaryClassifier, (y > 0).astype(np.float32), 1), ROWS),
    "other": lambda: (Plain().fit(X, NAMES), X),
    "pipeline": lambda: (make_pipeline(StandardScaler(), NetworkClassifier((8,), max_iter=5)).fit(X, NAMES), X),
    "pipeline, skorch": lambda: (
        make_pipeline(StandardScaler().fit(ROWS), skorch(NeuralNetClassifier, y, criterion=nn.CrossEntropyLoss)),
        ROWS,
    ),
}


@pytest.mark.parametrize("name", FITTED)
def test_a_changed_network_answers_by_its_estimator_and_is_stored_as_numpy(name):
    fitted, rows = FITTED[name]()
    before = fitted.predict(rows)
    random = torch.get_rng_state()
    model = Halved(FrozenEstimator(fitted)).fit(rows)
    assert torch.equal(torch.get_rng_state(), random)
    assert np.array_equal(fitted.predict(rows), before)  # what was given is as it was
    assert all(isinstance(value, np.ndarray) for value in model.weights_.values())
    network = model.network()
    assert network is not model.network()
    assert not network.training
    assert network.state_dict().keys() == model.weights_.keys()
    assert any(type(layer) is nn.Sequential and len(layer) == 2 for layer in network.modules())
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict(rows), model.predict(rows))
    assert np.array_equal(model.estimator_.predict(rows), model.predict(rows))
    assert type(model.estimator_) is type(fitted)
    raw = model.predict_raw(rows)
    assert raw.shape[0] == len(rows)
    assert np.isfinite(raw).all()


def test_the_network_is_the_one_that_answers():
    net = skorch(NeuralNetRegressor, ROWS[:, :1], 1, module=nn.Linear(4, 1))
    half = Halved(FrozenEstimator(make_pipeline(StandardScaler().fit(ROWS), net)))
    with pytest.raises(ValueError):
        half.fit(ROWS[:1])
    rows = StandardScaler().fit_transform(ROWS)
    # A network that is one layer has no name of its own: nothing is replaced
    assert np.allclose(half.fit(ROWS).predict(ROWS), net.predict(rows), rtol=1e-5)
    one = skorch(NeuralNetRegressor, ROWS[:, :1], 1, module=nn.Sequential(nn.Linear(4, 1)))
    assert np.allclose(Halved(FrozenEstimator(one)).fit(ROWS).predict(ROWS), one.predict(ROWS) / 2, rtol=1e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("name", FITTED)
def test_outputs_from_a_gpu_leave_the_network_where_it_is(name):
    fitted, rows = FITTED[name]()
    here, there = (Halved(FrozenEstimator(fitted), device=device).fit(rows) for device in ("cpu", "cuda"))
    before = there.predict(rows)
    for _ in range(2):
        np.testing.assert_allclose(there.predict_raw(rows), here.predict_raw(rows), atol=1e-3)
        np.testing.assert_array_equal(there.predict(rows), before)


def test_it_trains_on():
    net = skorch(NeuralNetClassifier, y, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam)
    changed = Halved(FrozenEstimator(net)).fit(ROWS).estimator_
    before = {name: value.clone() for name, value in changed.module_.state_dict().items()}
    changed.partial_fit(ROWS, y)
    assert all(not torch.equal(before[name], value) for name, value in changed.module_.state_dict().items())
    ours = Halved(FrozenEstimator(NetworkClassifier((8,), max_iter=5, random_state=0).fit(X, NAMES))).fit(X).estimator_
    weights = ours.weights_
    ours.partial_fit(X, NAMES)
    assert any(not np.array_equal(weights[name], value) for name, value in ours.weights_.items())
    assert ours.n_parameters_ == sum(value.size for value in ours.weights_.values())
    assert ours.n_dense_parameters_ == 4 * 8 + 8 + 8 * 3 + 3


def test_unfitted_estimators_are_fitted_and_modules_taken_as_they_are():
    model = Halved(NetworkClassifier((8,), max_iter=5, random_state=0)).fit(X, NAMES)
    assert list(model.classes_) == ["setosa", "versicolor", "virginica"]
    assert 0 <= model.score(X, NAMES) <= 1
    module = mlp().train()
    bare = Halved(module).fit(X)
    assert module.training
    assert not hasattr(bare, "predict")
    assert bare.predict_raw(X).shape == (150, 3)
    with pytest.raises(NotFittedError):
        Halved(FrozenEstimator(NeuralNetClassifier(mlp))).fit(X)
    with pytest.raises(TypeError, match="torch"):
        Halved(FrozenEstimator(LogisticRegression().fit(X, y))).fit(X)
    with pytest.raises(NotFittedError):
        Halved(module).predict_raw(X)
    with pytest.raises(ValueError, match="Reshape"):
        bare.predict_raw(X[0])
    inner = Plain().fit(X, NAMES)
    found = Halved(FrozenEstimator(inner), module_getter=lambda plain: plain.nested["network"]).fit(X)
    held = found.estimator_
    assert held.nested["network"] is held.module_


def test_compiled_networks_are_taken_without_their_code():
    module = nn.Sequential(nn.Linear(4, 3))
    compiled = torch.compile(module, backend="eager")
    assert np.allclose(Halved(compiled).fit(X).predict_raw(X), Halved(module).fit(X).predict_raw(X))
    net = skorch(NeuralNetRegressor, ROWS[:, :1], 1, module=nn.Sequential(nn.Linear(4, 1)))
    net.module_ = torch.compile(net.module_, backend="eager")
    changed = Halved(FrozenEstimator(net)).fit(ROWS)
    assert np.allclose(changed.predict(ROWS), net.predict(ROWS) / 2, rtol=1e-5)
    assert type(changed.estimator_.module_) is nn.Sequential


def test_changed_networks_can_be_changed_again():
    net = skorch(NeuralNetRegressor, ROWS[:, :1], 1, module=nn.Sequential(nn.Linear(4, 1)))
    once = Halved(FrozenEstimator(net)).fit(ROWS)
    twice = Halved(FrozenEstimator(once)).fit(ROWS)
    bias = net.module_[0].bias.item()  # three layers of which each has been halved, the last one's bias twice
    assert np.allclose(twice.predict(ROWS) - bias / 4, (net.predict(ROWS) - bias) / 8, rtol=1e-4)
    assert Halved(FrozenEstimator(Halved(mlp()).fit(X))).fit(X).predict_raw(X).shape == (150, 3)


def test_tied_weights_and_buffers_stay():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)
            self.b.weight = self.a.weight
            self.register_buffer("positions", torch.arange(4.0), persistent=False)

        def forward(self, x):
            return self.norm(self.b(self.a(x))) + self.positions

    module = Tied().eval()
    module.norm.running_mean += 3
    module.a.weight.requires_grad_(False)
    stored = stored_held(hold(module, None, None, randomness()))
    model = Halved.__new__(Halved)
    model.__init__(module)
    keep(model, open_workspace(X), stored, weights_=stored.weights)
    network = model.network()
    assert network.a.weight is network.b.weight
    assert not network.a.weight.requires_grad
    rows = torch.from_numpy(ROWS)
    assert torch.equal(network(rows), module(rows))
    assert "positions" not in model.weights_


def test_rows_that_reach_a_network_are_those_of_its_estimator():
    fitted, rows = FITTED["pipeline, skorch"]()
    held = hold(FrozenEstimator(fitted), None, None, randomness())
    calls = network_calls(held, rows)
    assert calls.n_rows == len(rows)
    assert len(calls.arguments) == 2
    assert np.allclose(calls.joined().arguments[0][0][0], fitted[0].transform(rows), atol=1e-6)
    assert [len(args[0]) for args, _ in calls.batches(100)] == [100, 28, 22]
    assert len(calls.taken(torch.tensor([3, 140])).arguments[0][0][0]) == 2
    assert not held.module._forward_pre_hooks
    outputs = outputs_of(held.module, calls, 7)
    assert torch.allclose(outputs, outputs_of(held.module, calls, 150), atol=1e-6)


def test_moments_are_those_of_all_rows():
    g = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    rows = torch.randn(101, 4, generator=g, dtype=torch.float64) + 1e4
    calls = network_calls(hold(net, None, None, randomness()), rows)
    for size in (7, 101):
        found = moments(net, calls, ["0", "2"], output_rows, size)
        Y = (rows @ net[0].weight.T + net[0].bias).detach()
        assert found["0"].n_rows == 101
        torch.testing.assert_close(found["0"].mean, Y.mean(0), rtol=1e-12, atol=0)
        torch.testing.assert_close(found["0"].covariance, torch.cov(Y.T, correction=0), rtol=1e-7, atol=1e-9)
        inputs = moments(net, calls, ["0"], input_rows, size)["0"]
        torch.testing.assert_close(inputs.second, rows.T @ rows / 101, rtol=1e-12, atol=0)
    assert not any(layer._forward_hooks for layer in net.modules())
    assert moments_of(rows[:1]).covariance.abs().max() == 0


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 5), (3, 2, 4)),
        (nn.Conv1d(2, 5, 3, stride=2, padding=1, dilation=2), (3, 2, 11)),
        (nn.Conv2d(2, 5, (3, 2), padding="same"), (3, 2, 6, 5)),
        (nn.Conv2d(2, 5, 4, padding="same", padding_mode="reflect"), (3, 2, 6, 5)),
        (nn.Conv2d(2, 5, 3, stride=(1, 2), padding=(2, 1), dilation=(1, 2)), (3, 2, 6, 7)),
        (nn.Conv3d(2, 5, (1, 2, 3), padding="valid"), (3, 2, 4, 5, 6)),
    ],
)
def test_layers_multiply_their_rows_with_their_matrix(layer, shape):
    layer = layer.double()
    net, x = nn.Sequential(layer), torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seen = []
    with watching(net, ["0"], lambda *call: seen.append(call)):
        run(net, network_calls(hold(net, None, None, randomness()), x), 2)
    for _, found, args, out in seen:
        by_hand = input_rows(found, args, out) @ weight_matrix(found).T + found.bias
        torch.testing.assert_close(by_hand, output_rows(found, args, out), rtol=1e-10, atol=1e-12)
    at_zero, before = layer(torch.zeros_like(x)), layer(x)  # padding by reflection of zeros is zero, too
    give_matrix(layer, 2 * weight_matrix(layer))
    torch.testing.assert_close(layer(x) - at_zero, 2 * (before - at_zero), rtol=1e-10, atol=1e-12)


def test_layers_are_selected_by_name_in_the_order_of_a_pass():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early, self.never = nn.Linear(4, 3), nn.Linear(4, 4), nn.Linear(4, 4)
            self.tied = nn.Linear(4, 4)
            self.tied_too = nn.Linear(4, 4)
            self.tied_too.weight = self.tied.weight

        def forward(self, x):
            return self.late(self.tied_too(self.tied(self.early(x))))

    net = Net()
    calls = network_calls(hold(net, None, None, randomness()), ROWS)
    with pytest.warns(UserWarning, match="tied, tied_too"):
        assert select_layers(net, calls, types=("linear",)).names == ["early", "late"]
    assert select_layers(net, calls, types=("linear",), modules="*e*", exclude=["tied*"]).names == ["early", "late"]
    with pytest.raises(ValueError, match="nothing"):
        select_layers(net, calls, types=("linear",), modules=["late", "nothing*"])
    with pytest.raises(ValueError, match="No layer"):
        select_layers(net, calls, types=("conv2d",))


def test_the_fast_path_of_transformer_layers_is_closed_while_hooks_watch():
    block = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    calls = network_calls(
        hold(block, None, None, randomness()),
        np.random.default_rng(0).normal(size=(5, 3, 8)).astype(np.float32),
    )
    names = [f"layers.{i}.linear{j}" for i in range(2) for j in (1, 2)]
    assert reached(block, calls, names) == names
    assert not block.training
    assert not any(m.training for m in block.modules())


def test_some_rows_and_relative_errors():
    g = torch.Generator().manual_seed(0)
    rows, targets = some_rows(X, y, 10, g)
    assert rows.shape == (10, 4)
    assert all((row == X).all(1).any() for row in rows)
    assert len(targets) == 10
    assert some_rows(X, None, None, g)[0] is X
    outputs = torch.randn(50, 3, generator=g)
    assert relative_error(outputs, outputs) == 0
    assert relative_error(torch.zeros(50, 3) + outputs.mean(0), outputs) == pytest.approx(1)


def test_layers_that_are_more_than_their_weight_are_left_alone():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain = nn.Linear(4, 4)
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
            self.computed = nn.Linear(4, 4)
            del self.computed.weight
            self.computed.weight = torch.ones(4, 4)
            self.hooked = nn.Linear(4, 4)
            self.hooked.register_forward_hook(lambda layer, args, out: 2 * out)
            self.table = nn.Embedding(3, 4, max_norm=1.0)

        def forward(self, x):
            x = self.hooked(self.computed(self.normed(self.plain(input=x))))
            return x + self.table(torch.zeros(len(x), dtype=torch.long))

    net = Net()
    calls = network_calls(hold(net, None, None, randomness()), ROWS)
    assert select_layers(net, calls, types=("linear", "embedding")).names == ["plain"]
    assert moments(net, calls, ["plain"], input_rows, 100)["plain"].n_rows == 150  # called by keyword


class Parts(nn.Module):
    def __init__(self, n_outputs):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8)), nn.Linear(8, n_outputs)

    def forward(self, X):
        return self.head(self.body(X))


@pytest.mark.parametrize("instance", [False, True])
def test_a_module_within_the_module_of_a_net_is_changed_in_its_place(instance):
    net = skorch(NeuralNetClassifier, y, module=Parts(3) if instance else Parts, criterion=nn.CrossEntropyLoss)
    model = Halved(FrozenEstimator(net), module_getter=lambda net: net.module_.body).fit(ROWS)
    inner = model.estimator_
    assert type(inner.module_) is Parts
    assert (inner.module is inner.module_) == instance
    assert model.predict_proba(ROWS).shape == (150, 3)
    assert np.allclose(model.predict_raw(ROWS), inner.module_.body(torch.from_numpy(ROWS)).detach(), atol=1e-6)
    inner.partial_fit(ROWS, y)
    assert not np.array_equal(inner.module_.body[0][0].weight.detach(), model.weights_["0.0.weight"])  # it is trained


def test_nets_within_other_estimators_train_on():
    regressor = TransformedTargetRegressor(NeuralNetRegressor(mlp, module__n_outputs=1, max_epochs=2, verbose=0))
    regressor.fit(ROWS, ROWS[:, :1])
    inner = Halved(FrozenEstimator(regressor), module_getter=lambda fitted: fitted.regressor_.module_).fit(ROWS)
    net = inner.estimator_.regressor_
    assert {id(p) for group in net.optimizer_.param_groups for p in group["params"]} == {
        id(p) for p in net.module_.parameters()
    }


def test_former_weights_are_not_stored():
    callbacks = [LRScheduler("StepLR", step_size=1), EarlyStopping("train_loss", load_best=True)]
    how = {"criterion": nn.CrossEntropyLoss, "optimizer": torch.optim.Adam}
    fitted = skorch(NeuralNetClassifier, y, module=Parts, callbacks=callbacks, **how)
    model = Halved(FrozenEstimator(fitted)).fit(ROWS)
    estimator = model._fitted["shell"][0]
    callbacks = dict(estimator.callbacks_)
    assert callbacks["LRScheduler"].lr_scheduler_ is None
    assert callbacks["EarlyStopping"].best_model_weights_ is None
    assert model.estimator_.partial_fit(ROWS, y).history[-1]["epoch"] > len(fitted.history)
    assert fitted.callbacks_ is not estimator.callbacks_
    assert dict(fitted.callbacks_)["LRScheduler"].lr_scheduler_ is not None
    fitted = skorch(
        NeuralNetClassifier,
        y,
        module=nn.Sequential(nn.Linear(4, 500), nn.Linear(500, 3)),
        criterion=nn.CrossEntropyLoss,
    )
    shell = Halved(FrozenEstimator(fitted)).fit(ROWS)._fitted["shell"]
    assert len(pickle.dumps(shell)) < 8000  # not the instance either, whose weights take 14,000 bytes


class Halves(nn.Module):
    def __init__(self, n_outputs):
        super().__init__()
        self.left, self.right = nn.Linear(2, n_outputs), nn.Linear(2, n_outputs)

    def forward(self, left, right):
        return self.left(left) + self.right(right)


def test_inputs_by_name_and_data_sets():
    rows = {"left": ROWS[:, :2], "right": ROWS[:, 2:]}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = NeuralNetClassifier(Halves, module__n_outputs=3, criterion=nn.CrossEntropyLoss, max_epochs=2, verbose=0)
        net.fit(rows, y)
    model = Halved(FrozenEstimator(net)).fit(rows)
    raw = model.predict_raw(rows)
    for same in (SliceDict(**rows), Dataset(rows, y)):
        assert np.array_equal(Halved(FrozenEstimator(net)).fit(same).predict_raw(same), raw)
        assert np.array_equal(model.predict(same), raw.argmax(1))
    g = torch.Generator().manual_seed(0)
    few, targets = some_rows(rows, y, 10, g)
    assert few["left"].shape == (10, 2)
    assert len(targets) == len(few["right"]) == len(some_rows(Dataset(rows, y), None, 10, g)[0]) == 10
    with pytest.raises(ValueError, match="n_samples=1"):
        Halved(FrozenEstimator(net)).fit({name: part[:1] for name, part in rows.items()})


def test_tables_of_several_types_reach_a_module_and_sparse_ones_do_not():
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [True, False, True], "c": [0.5, 1.5, 2.5]})
    module = nn.Sequential(nn.Linear(3, 2))
    raw = Halved(module).fit(frame).predict_raw(frame)
    assert np.allclose(raw, Halved(module).fit(frame.astype(float)).predict_raw(frame.astype(float)))
    model = Halved(module).fit(frame)
    for kind in (csr_array, dok_array):
        with pytest.raises(TypeError, match="sparse"):
            model.predict_raw(kind(np.eye(3)))


@pytest.mark.parametrize("form", [lambda h: {"out": h}, lambda h: {"loss": h.sum(), "out": [h]}, lambda h: (h, h)])
def test_the_first_tensor_of_several_outputs_is_looked_at(form):
    class Net(nn.Sequential):
        def forward(self, x):
            return form(super().forward(x))

    plain = nn.Sequential(nn.Linear(4, 3))
    raw = Halved(Net(*plain)).fit(ROWS).predict_raw(ROWS)
    assert np.array_equal(raw, Halved(plain).fit(ROWS).predict_raw(ROWS))


def test_networks_of_other_precisions_and_kinds():
    assert Halved(nn.Sequential(nn.Linear(4, 3)).bfloat16()).fit(ROWS).predict_raw(ROWS).dtype == np.float32
    with pytest.raises(TypeError, match="scripted"):
        Halved(torch.jit.script(mlp())).fit(ROWS)
    with pytest.warns(FutureWarning):
        normed = nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3)), nn.Linear(3, 2))
    normed(torch.from_numpy(ROWS)).sum().backward()  # the weight is now computed of parameters, with a gradient
    held = hold(normed, None, None, randomness())
    expected = normed(torch.from_numpy(ROWS)).detach()
    assert torch.equal(outputs_of(held.module, network_calls(held, ROWS), 256), expected)
    again = restored_held(pickle.loads(pickle.dumps(stored_held(held))))
    assert torch.equal(outputs_of(again.module, network_calls(again, ROWS), 256), expected)


def test_threads_get_the_rows_that_they_ask_for():
    net = skorch(NeuralNetClassifier, y, criterion=nn.CrossEntropyLoss)
    model = Halved(FrozenEstimator(net)).fit(ROWS)
    parts = [ROWS[start : start + 30] for start in range(0, 150, 30)]
    expected, wrong = [model.predict_raw(part) for part in parts], []

    def ask(part, answer):
        for _ in range(20):
            found = model.predict_raw(part)
            if found.shape != answer.shape or not np.allclose(found, answer, atol=1e-5):
                wrong.append(found.shape)

    threads = [threading.Thread(target=ask, args=both) for both in zip(parts, expected)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_layers_that_some_rows_reach_come_in_the_order_of_a_pass():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.experts = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])
            self.last = nn.Linear(4, 4)

        def forward(self, x):
            h, way = self.first(x), (x[:, 0] > 5.5).long()
            out = torch.zeros_like(h)
            for at, expert in enumerate(self.experts):
                out[way == at] = expert(h[way == at])
            return self.last(out)

    calls = network_calls(hold(Net(), None, None, randomness()), ROWS)
    assert not (ROWS[:2, 0] > 5.5).any()
    names = select_layers(Net(), calls, types=("linear",)).names
    assert names == ["first", "experts.0", "experts.1", "last"]
    found = moments(Net(), calls, ["experts.0", "experts.2"], input_rows, 7)
    assert found.keys() == {"experts.0"}
    assert bool(found["experts.0"].scatter.isfinite().all())


def test_patterns_are_strings_that_match():
    module = mlp()
    calls = network_calls(hold(module, None, None, randomness()), ROWS)
    assert select_layers(module, calls, types=("linear",), modules=np.array(["0", "3"])).names == ["0", "3"]
    with pytest.raises(ValueError, match="exclude='head'"):
        select_layers(module, calls, types=("linear",), exclude="head")
    with pytest.raises(ValueError, match="modules has 0"):
        select_layers(module, calls, types=("linear",), modules=[0])


def test_layers_with_complex_weights_are_left():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.cfloat))
    calls = network_calls(hold(module[:1], None, None, randomness()), ROWS)
    assert select_layers(module[:1], calls, types=("linear",)).names == ["0"]
    assert [layer_type(layer) for layer in module] == ["linear", None]


def test_constant_outputs_have_no_error_but_a_change():
    constant = torch.full((20, 2), 3.0)
    assert relative_error(constant * (1 + 1e-7), constant) == 0
    assert relative_error(constant + 1, constant) == np.inf
