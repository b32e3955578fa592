"""Networks are found in whatever holds them, copied, and answer as it does."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklowrank._nets.found import find_network
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
