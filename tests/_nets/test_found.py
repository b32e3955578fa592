"""Networks are found in whatever holds them, copied, and answer as it does."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklowrank._core.fitted import keep, recall
from sklowrank._core.workspace import open_workspace
from sklowrank._nets.architecture import edited
from sklowrank._nets.found import StoredNetwork, find_network, restored_network, stored_network
from sklowrank._nets.layers import ThinLinear
from sklowrank.adapt import LDUAdapter
from sklowrank.compress import LowRankCompressor, SecondOrderPruner
from sklowrank.neural import NetworkClassifier, NetworkRegressor, TrainedRankPruning
from tests._nets.small import SmallClassifier, SmallRegressor

X, y = load_iris(return_X_y=True)
ROWS = X.astype(np.float32)


def module(n_outputs):
    return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, n_outputs))


def skorch(kind, n_outputs, target, **params):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(module(n_outputs), max_epochs=5, lr=0.05, train_split=None, verbose=0, **params).fit(ROWS, target)


HOLDERS = {
    "ours, classes": lambda: (SmallClassifier().fit(X, np.array(list("abc"))[y]), X),
    "ours, values": lambda: (SmallRegressor().fit(X, X[:, 0] ** 2), X),
    "ours, columns": lambda: (SmallRegressor().fit(X, X[:, :2] ** 2), X),
    "skorch, classes": lambda: (skorch(NeuralNetClassifier, 3, y, criterion=nn.CrossEntropyLoss), ROWS),
    "skorch, two classes": lambda: (skorch(NeuralNetBinaryClassifier, 1, (y > 0).astype(np.float32)), ROWS),
    "skorch, values": lambda: (skorch(NeuralNetRegressor, 1, ROWS[:, :1]), ROWS),
    "frozen": lambda: (FrozenEstimator(SmallClassifier().fit(X, y)), X),
    "pipeline": lambda: (make_pipeline(StandardScaler(), SmallClassifier(max_iter=5)).fit(100 * X, y), 100 * X),
    "frozen pipeline": lambda: (FrozenEstimator(make_pipeline(StandardScaler(), SmallRegressor()).fit(X, X[:, 0])), X),
    "last step alone": lambda: (make_pipeline(SmallClassifier()).fit(X, y), X),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_the_network_answers_as_what_holds_it(name):
    model, rows = HOLDERS[name]()
    before = model.predict(rows)
    found = find_network(model)
    assert not found.module.training
    outputs = found.module(found.prepare(rows))
    answers = found.answer(outputs)
    assert answers.shape == before.shape
    if found.classes is None:
        assert np.allclose(answers, before, rtol=1e-5, atol=1e-5)
    else:
        assert np.array_equal(answers, before)
        assert set(before) <= set(found.classes)
    with torch.no_grad():
        for parameter in found.module.parameters():
            parameter.zero_()
    assert np.array_equal(model.predict(rows), before)


def test_a_bare_module_gives_its_outputs():
    net = module(2).double()
    found = find_network(net)
    assert net.training
    assert found.classes is None
    outputs = found.module(found.prepare(ROWS))
    assert outputs.dtype == torch.float64
    assert np.array_equal(found.answer(outputs), net.eval()(torch.from_numpy(ROWS).double()).detach())
    assert torch.equal(found.prepare(ROWS.astype(object)), found.prepare(ROWS))  # what lists of mixed types become
    words = nn.EmbeddingBag(10, 3)
    assert find_network(words).prepare([[1, 2], [3, 4]]).dtype == torch.int64


@pytest.mark.parametrize(
    "model",
    [
        LinearRegression(),
        make_pipeline(StandardScaler(), LinearRegression()),
        make_pipeline(StandardScaler(), "passthrough"),
        FrozenEstimator(LinearRegression()),
        NeuralNetRegressor(module(1)),  # not fitted
        SmallClassifier,
        nn.Linear,
        None,
        "network",
    ],
    ids=str,
)
def test_what_holds_no_network_is_refused(model):
    with pytest.raises(
        TypeError, match=r"holds no network\. Pass an estimator of sklowrank with network\(\), a skorch net"
    ):
        find_network(model)


# Probabilities, losses, storage


@pytest.mark.parametrize(
    "name",
    [name for name in HOLDERS if name not in ("ours, values", "ours, columns", "skorch, values", "frozen pipeline")],
)
def test_probabilities_are_those_of_the_model(name):
    model, rows = HOLDERS[name]()
    found = find_network(model)
    assert found.has_probabilities
    assert np.allclose(found.probabilities(found.outputs(rows)), model.predict_proba(rows), atol=1e-6)


def test_skorch_with_probabilities_as_outputs():
    net = NeuralNetClassifier(nn.Sequential(module(3), nn.Softmax(1)), max_epochs=2, train_split=None, verbose=0)
    found = find_network(net.fit(ROWS, y))
    outputs = found.outputs(ROWS)
    assert np.array_equal(found.answer(outputs), net.predict(ROWS))
    assert np.allclose(found.probabilities(outputs), net.predict_proba(ROWS), atol=1e-6)
    expected = -outputs[torch.arange(len(y)), torch.from_numpy(y)].log()
    assert torch.allclose(found.loss(outputs, found.encode(y)), expected, atol=1e-4)


def test_skorch_predicts_places_whatever_the_labels():
    """A net of skorch takes the place of the largest output for the label."""
    labels = np.where(y == 0, 3, y).astype(np.int64)
    net = skorch(NeuralNetClassifier, 4, labels, criterion=nn.CrossEntropyLoss)
    found = find_network(net)
    assert list(found.classes) == [1, 2, 3]
    assert np.array_equal(found.answer(found.outputs(ROWS)), net.predict(ROWS))


LOSSES = {
    "ours, classes": (SmallClassifier, np.array(list("abc"))[y]),
    "ours, values": (SmallRegressor, X[:, 0] ** 2),
    "ours, columns": (SmallRegressor, X[:, :2] ** 2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_rows_is_that_of_the_training(name):
    kind, target = LOSSES[name]
    model = kind(max_iter=1, batch_size=len(X), learning_rate=0.0).fit(X, target)
    found = find_network(model)
    losses = found.loss(found.outputs(X), found.encode(target))
    assert losses.shape == (len(X),)
    assert float(losses.mean()) == pytest.approx(model.loss_curve_[0], rel=1e-5)
    with pytest.raises(ValueError, match=r"is not among the classes|targets, but"):
        found.encode(np.array(["z"] * 3) if "classes" in name else np.ones((3, 5)))


def test_the_loss_of_skorch_nets_is_their_criterion():
    net = skorch(NeuralNetRegressor, 1, ROWS[:, :1], criterion=nn.SmoothL1Loss)
    found = find_network(net)
    outputs = found.outputs(ROWS)
    expected = nn.functional.smooth_l1_loss(outputs, torch.from_numpy(ROWS[:, :1]), reduction="none")[:, 0]
    assert torch.allclose(found.loss(outputs, found.encode(ROWS[:, :1])), expected)
    assert net.criterion_.reduction == "mean"
    binary = skorch(NeuralNetBinaryClassifier, 1, (y > 0).astype(np.float32))
    found = find_network(binary)
    outputs = found.outputs(ROWS)
    expected = nn.functional.binary_cross_entropy_with_logits(
        outputs[:, 0], torch.from_numpy((y > 0).astype(np.float32)), reduction="none"
    )
    assert torch.allclose(found.loss(outputs, found.encode(y > 0)), expected)


class _Mean(nn.Module):
    def forward(self, outputs, target):
        return (outputs - target).abs().mean()


def test_a_criterion_without_a_loss_of_rows_is_named():
    found = find_network(skorch(NeuralNetRegressor, 1, ROWS[:, :1], criterion=_Mean))
    with pytest.raises(TypeError, match=r"criterion=_Mean has no reduction"):
        found.loss(found.outputs(ROWS), found.encode(ROWS[:, :1]))


def test_the_loss_of_a_bare_module_goes_by_its_targets():
    found = find_network(module(3))
    outputs = found.outputs(ROWS)
    codes = torch.from_numpy(y)
    expected = nn.functional.cross_entropy(outputs, codes, reduction="none")
    assert torch.allclose(found.loss(outputs, found.encode(y)), expected)
    target = ROWS[:, :3]
    expected = (outputs - torch.from_numpy(target)).square().mean(1)
    assert torch.allclose(found.loss(outputs, found.encode(target)), expected)


class _Changed(BaseEstimator):
    """An estimator that keeps a changed network."""

    def fit(self, found, edits=()):
        return keep(self, open_workspace(X, device="cpu"), stored_network(found, edits))

    def network(self):
        ws = open_workspace(X, device="cpu").exact()
        return restored_network(recall(self, StoredNetwork, ws)).module


def small_lstm():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.lstm, self.out = nn.Embedding(9, 4), nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)
            self.register_buffer("shift", torch.tensor([1.0]), persistent=False)
            self.again = self.out  # one layer under two names

        def forward(self, words):
            return self.again(self.lstm(self.table(words))[0][:, -1] + self.shift)

    return Last()


STORED = {
    **{name: lambda name=name: (HOLDERS[name]()[0], HOLDERS[name]()[1]) for name in HOLDERS},
    "bare": lambda: (module(2).double(), X),
    "words": lambda: (small_lstm(), np.random.default_rng(0).integers(9, size=(6, 3))),
    "ours, a module": lambda: (SmallClassifier(module=nn.Sequential(nn.Linear(4, 3))).fit(X, y), X),
    "ours, a class": lambda: (SmallClassifier(module=partial(nn.Linear, 4, 3)).fit(X, y), X),
}


@pytest.mark.parametrize("name", STORED)
def test_a_changed_network_comes_back_from_what_is_stored(name):
    holder, rows = STORED[name]()
    found = find_network(holder)
    edits = []
    for path, layer in list(found.module.named_modules()):
        if type(layer) is nn.Linear and path != "again" and path:
            edits.append(edited(found.module, path, ThinLinear.nearest_to(layer, 1)))
    expected = found.outputs(rows)
    changed = copy.deepcopy(_Changed().fit(found, edits))
    with torch.no_grad():
        for parameter in found.module.parameters():
            parameter.zero_()
    again = find_network(changed)
    assert not again.module.training
    assert torch.equal(again.outputs(rows), expected)
    assert np.array_equal(again.answer(expected), found.answer(expected))
    twin = find_network(changed)
    assert all(a is not b for a, b in zip(again.module.parameters(), twin.module.parameters()))
    if name == "bare":
        bare = changed._fitted["architecture"]["module"]
        assert all(parameter.is_meta for parameter in bare.parameters())  # weights are stored once


def test_a_pipeline_in_a_pipeline():
    inner = make_pipeline(StandardScaler(), SmallClassifier(max_iter=5))
    model = make_pipeline(StandardScaler(), inner).fit(100 * X, y)
    found = find_network(model)
    assert np.array_equal(found.answer(found.outputs(100 * X)), model.predict(100 * X))


def _pair_of_units(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4)) * [1, 10, 1e-3, 1] + [0, 5, 1e3, 0]
    if kind == "classes":
        return X, (X[:, 0] + X[:, 3] > 0).astype(int), NetworkClassifier
    y = 1e4 + 100 * X[:, 0]
    return X, y if kind == "values" else np.c_[y, -2 * y], NetworkRegressor


@pytest.mark.parametrize("kind", ["classes", "values", "two values"])
def test_a_whole_network_takes_rows_and_gives_values_in_their_own_units(kind):
    X, y, estimator = _pair_of_units(kind)
    model = estimator((16, 16), training=TrainedRankPruning(max_rank=2), max_iter=4, random_state=0).fit(X, y)
    steps = make_pipeline(StandardScaler(), clone(model)).fit(X, y)
    Z = steps[0].transform(X)
    frozen, piped = FrozenEstimator(model), FrozenEstimator(steps)
    for made, rows in (
        (model, X),
        (LowRankCompressor(frozen, compression=0.9).fit(X), X),
        (LDUAdapter(frozen, max_iter=2).fit(X, y), X),
        (SecondOrderPruner(frozen, sparsity=0.3).fit(X, y), X),
        (LowRankCompressor(piped, compression=0.9).fit(X), Z),
        (SecondOrderPruner(piped, sparsity=0.3).fit(X, y), Z),
    ):
        net = made.network(whole=True)
        assert not net.training
        inputs = torch.tensor(rows)
        traced = torch.jit.trace(net, inputs[:2])
        with torch.inference_mode():
            out, again = net(inputs).double().numpy(), traced(inputs).double().numpy()
        answer = made.predict(rows if made is model else X)
        assert np.array_equal(out, again)
        if kind == "classes":
            assert np.array_equal(model.classes_[out.argmax(1)], answer)
        else:
            assert out.shape == answer.shape
            assert np.allclose(out, answer, rtol=1e-5)


def test_modules_of_others_have_no_units():
    module = nn.Sequential(nn.Linear(3, 2))
    small = LowRankCompressor(module, rank=1, modules="0").fit(np.random.default_rng(0).normal(size=(20, 3)))
    assert type(small.network(whole=True)) is nn.Sequential
