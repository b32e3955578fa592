"""What estimators with one network call, through a small classifier and a small regressor."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from skorch.callbacks import Callback, EarlyStopping
from torch import nn

from sklowrank._nets.layers import ThinLinear
from tests._nets.small import SmallClassifier, SmallRegressor
from tests._nets.test_rules import Truncation

IRIS = load_iris(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)


def test_classes_are_learned_and_answered_as_they_were_given():
    X, y = IRIS
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = SmallClassifier().fit(X, names)
    assert model.score(X, names) > 0.95
    proba = model.predict_proba(X)
    assert np.allclose(proba.sum(1), 1)
    assert len(model.loss_curve_) == model.n_iter_ == 20
    assert model.loss_curve_[-1] < 0.3 * model.loss_curve_[0]
    network = model.network()
    rows = torch.from_numpy((X - model.mean_) / model.scale_).float()
    assert np.allclose(network(rows).softmax(1).detach(), proba, atol=1e-6)
    with torch.no_grad():
        network[0].weight.zero_()
    assert np.array_equal(model.predict_proba(X), proba)
    assert model.n_parameters_ == model.n_dense_parameters_ == 4 * 16 + 16 + 16 * 3 + 3
    assert SmallClassifier(max_iter=1).fit(X, np.full(150, 7)).predict(X).tolist() == [7] * 150
    with pytest.raises(NotFittedError):
        SmallClassifier().network()


def test_values_in_units_of_their_own():
    X, y = DIABETES
    model = SmallRegressor(max_iter=30).fit(X, y)
    assert model.score(X, y) > 0.5
    far = SmallRegressor(max_iter=30).fit(1e4 * X + 1e6, np.c_[1e6 * y - 1e9, y])
    assert far.predict(1e4 * X + 1e6).shape == (442, 2)
    assert np.corrcoef(far.predict(1e4 * X + 1e6).T)[0, 1] > 0.98
    column = SmallRegressor(max_iter=30).fit(X, y[:, None]).predict(X)
    assert np.array_equal(column[:, 0], model.predict(X))
    constant = SmallRegressor((), max_iter=60).fit(X, np.full(442, 3.0))
    assert np.abs(constant.predict(X) - 3).max() < 0.01
    raw = SmallRegressor(max_iter=2, standardize=False).fit(X, y)
    assert not raw.mean_.any()
    assert raw.y_scale_ == 1.0


def test_weights_are_copies_where_a_batch_holds_all_rows():
    X, y = IRIS
    weights = np.random.default_rng(0).integers(0, 4, 150)
    full = {"batch_size": 10**6, "max_iter": 30}
    weighted = SmallClassifier(**full).fit(X, y, sample_weight=weights)
    copied = SmallClassifier(**full).fit(np.repeat(X, weights, 0), np.repeat(y, weights))
    assert np.abs(weighted.predict_proba(X) - copied.predict_proba(X)).max() < 1e-4
    values = SmallRegressor(**full).fit(X, X[:, 0] ** 2, sample_weight=weights)
    again = SmallRegressor(**full).fit(np.repeat(X, weights, 0), np.repeat(X[:, 0] ** 2, weights))
    assert np.allclose(values.y_mean_, again.y_mean_)
    assert np.allclose(values.predict(X), again.predict(X), atol=1e-3)
    with pytest.raises(ValueError, match="at least one non-zero"):
        SmallClassifier().fit(X, y, sample_weight=np.zeros(150))


def test_partial_fit_goes_on_with_the_state_of_the_optimizer():
    X, y = IRIS
    model = SmallClassifier(max_iter=3).fit(X, y)
    steps = model._fitted["optimizer"][0]["step"]
    before = model.loss_curve_[-1]
    for _ in range(10):
        model.partial_fit(X, y)
    assert model.n_iter_ == len(model.loss_curve_) == 13
    assert model.loss_curve_[-1] < before
    assert model._fitted["optimizer"][0]["step"] == steps / 3 * 13
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.partial_fit(X, y).predict_proba(X), model.partial_fit(X, y).predict_proba(X))
    with pytest.raises(ValueError, match="y has the label 9, which is not among the classes"):
        model.partial_fit(X, np.where(y == 1, 9, y))
    values = SmallRegressor(max_iter=2).fit(*DIABETES)
    mean = values.y_mean_
    assert values.partial_fit(DIABETES[0][:50], 2 * DIABETES[1][:50]).y_mean_ == mean


def test_a_warm_start_goes_on_and_refuses_another_shape():
    X, y = IRIS
    model = SmallClassifier(max_iter=5, warm_start=True).fit(X, y)
    first = model.loss_curve_
    assert model.fit(X, y).loss_curve_[0] < first[-1]
    with pytest.raises(ValueError, match="former network does not suit"):
        model.set_params(hidden_layer_sizes=(8,)).fit(X, y)


def test_stopping_by_tolerance_and_on_held_out_rows(recwarn):
    X, y = IRIS
    calm = SmallClassifier(max_iter=500, tol=0.05, n_iter_no_change=3).fit(X, y)
    assert calm.n_iter_ < 300
    held = SmallClassifier(max_iter=500, early_stopping=True, n_iter_no_change=5, learning_rate=0.1).fit(X, y)
    assert held.n_iter_ < 400
    best = int(np.argmin(held.loss_curve_)) + 1
    upto = clone(held).set_params(max_iter=best, n_iter_no_change=999).fit(X, y)
    assert np.array_equal(upto.predict_proba(X), held.predict_proba(X))
    SmallClassifier(max_iter=3).fit(X, y)
    assert [w.category for w in recwarn if w.category is ConvergenceWarning] == [ConvergenceWarning]  # of `upto`
    with pytest.warns(ConvergenceWarning, match="stopped at max_iter=3"):
        SmallClassifier(max_iter=3, tol=1e-4).fit(X, y)


class Noisy(nn.Sequential):
    """A network of the user's that draws from torch's global generator."""

    def __init__(self, n_features, n_outputs, width=8):
        super().__init__(nn.Linear(n_features, width), nn.Dropout(0.3), nn.Tanh(), nn.Linear(width, n_outputs))


def test_networks_of_ones_own_in_threads():
    X, y = IRIS

    def found(seed):
        own = {"module": Noisy, "net_params": {"module__width": 6}} if seed % 2 else {}
        return SmallClassifier(max_iter=4, random_state=seed, **own).fit(X, y).predict_proba(X)

    alone, state = [found(seed) for seed in range(4)], torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(found, range(4)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, beside))
    assert torch.equal(state, torch.get_rng_state())
    own = SmallClassifier(module=Noisy(4, 3), max_iter=2).fit(X, y)
    assert np.array_equal(pickle.loads(pickle.dumps(own)).predict_proba(X), own.predict_proba(X))
    with pytest.raises(ValueError, match=r"module has to map \(n, 4\) to \(n, 3\)"):
        SmallClassifier(module=nn.Linear(4, 2)).fit(X, y)


def test_a_rule_trains_inside_an_estimator():
    X, y = IRIS
    rule = Truncation(every=40)
    model = SmallClassifier((16, 16), training=rule, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.9
    assert not hasattr(rule, "ranks_")  # the user's is copied
    assert model.training_ == {"ranks": [2, 2, 1]}
    assert model.n_parameters_ < model.n_dense_parameters_ == 5 * 16 + 17 * 16 + 17 * 3
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))
    assert [type(layer) for layer in model.network()][::2] == [ThinLinear] * 3
    model.set_params(training__multiply=True).partial_fit(X, y)
    assert model.n_parameters_ == model.n_dense_parameters_
    assert model.n_iter_ == 21


@pytest.mark.parametrize("way", ["tol", "callback of scikit-learn", "early stopping"])
def test_a_rule_finishes_however_a_fit_ends(way):
    class Stop:
        def setup(self, estimator, context):
            self.steps = 0

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            pass

        def on_fit_task_end(self, estimator, context):
            self.steps += 1
            return self.steps == 2

    ended = []

    class Ended(Callback):
        def on_train_end(self, net, **kwargs):
            ended.append(type(net.module_[0]))

    model, callbacks = SmallClassifier(training=Truncation(multiply=True), max_iter=30), [("ended", Ended())]
    if way == "tol":
        model.set_params(tol=10.0, n_iter_no_change=2)
    elif way == "early stopping":
        callbacks.append(("stop", EarlyStopping("train_loss", patience=2, threshold=9.0, threshold_mode="abs")))
    else:
        model.set_callbacks(Stop())
    model.set_params(net_params={"callbacks": callbacks}).fit(*IRIS)
    assert model.n_iter_ < 5
    assert ended == [nn.Linear]
    assert model.n_parameters_ == model.n_dense_parameters_


def test_callbacks_score_on_the_way_and_change_nothing():
    X, y = IRIS
    monitor = ScoringMonitor(scoring={"score": lambda fitted, X, y: fitted.score(X, y)})
    plain = SmallClassifier(max_iter=6, training=Truncation()).fit(X, y)
    watched = clone(plain).set_callbacks(monitor).fit(X, y)
    scores = monitor.get_logs().data_as_pandas["score"].dropna()
    assert len(scores) >= 6
    assert np.array_equal(plain.predict_proba(X), watched.predict_proba(X))


def test_predictions_of_a_row_do_not_depend_on_the_others():
    X, y = IRIS
    model = SmallClassifier().fit(X.astype(np.float32), y)
    proba = model.predict_proba(X.astype(np.float32))
    assert proba.dtype == np.float32
    rows = np.concatenate([model.predict_proba(X[i : i + 1].astype(np.float32)) for i in range(150)])
    assert np.abs(rows - proba).max() < 1e-6
    twice = model.predict_proba(np.r_[X, X].astype(np.float32))
    assert np.array_equal(twice[:150], twice[150:])
