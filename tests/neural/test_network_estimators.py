"""The pair of estimators without a training rule."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sklowrank.neural import NetworkClassifier, NetworkRegressor

WINE, DIABETES = load_wine(return_X_y=True), load_diabetes(return_X_y=True)
DIGITS = train_test_split(*load_digits(return_X_y=True), test_size=0.3, random_state=0)
QUICK = {"max_iter": 5, "tol": 0, "random_state": 0}


def weights_of(model):
    return [layer.weight.detach().numpy() for layer in model.network() if isinstance(layer, nn.Linear)]


def test_accuracy_is_that_of_the_network_of_scikit_learn():
    X, X_test, y, y_test = DIGITS
    ours = NetworkClassifier((64,), max_iter=20, tol=0, random_state=0).fit(X, y)
    theirs = MLPClassifier((64,), batch_size=64, max_iter=20, alpha=0, n_iter_no_change=99, random_state=0)
    theirs = make_pipeline(StandardScaler(), theirs)
    with pytest.warns(ConvergenceWarning):
        theirs.fit(X, y)
    assert ours.score(X_test, y_test) > theirs.score(X_test, y_test) - 0.01  # five rows of 540


def test_probabilities_are_those_of_the_network_by_hand():
    X, y = WINE
    model = NetworkClassifier((8, 6), activation="tanh", **QUICK).fit(X, y)
    H = (X - X.mean(0)) / X.std(0)
    for i, (W, b) in enumerate(zip(*[iter(model.weights_.values())] * 2)):
        H = H @ W.T.astype(float) + b
        H = np.tanh(H) if i < 2 else H
    P = np.exp(H) / np.exp(H).sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(X), P, rtol=1e-10, atol=0)
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(P), rtol=1e-10, atol=1e-10)


def test_weights_of_rows_are_copies_where_one_batch_holds_them():
    X, y = WINE
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    repeated = np.repeat(np.arange(len(X)), weight)
    for model in (NetworkClassifier((8,), batch_size=1000, **QUICK), NetworkRegressor((8,), batch_size=1000, **QUICK)):
        weighted = clone(model).fit(X, y, sample_weight=weight)
        copied = clone(model).fit(X[repeated], y[repeated])
        np.testing.assert_allclose(weighted.weights_["0.weight"], copied.weights_["0.weight"], rtol=0, atol=1e-7)
        np.testing.assert_allclose(weighted.mean_, copied.mean_, rtol=1e-12)
        assert not np.array_equal(weighted.weights_["0.weight"], clone(model).fit(X, y).weights_["0.weight"])


def test_training_is_exact_where_one_batch_holds_all_rows_of_float64():
    X, y = WINE
    seen = []

    class Watch(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["params"][0].dtype)
            return super().step(closure)

    for rows, size in ((X, 1000), (X, 64), (X.astype(np.float32), 1000)):
        seen.clear()
        model = NetworkClassifier((4,), batch_size=size, net_params={"optimizer": Watch}, **QUICK).fit(rows, y)
        assert set(seen) == {torch.float64 if rows.dtype == np.float64 and size > 64 else torch.float32}
        assert {w.dtype for w in model.weights_.values()} == {np.dtype(np.float32)}


def test_targets_have_units_of_their_own():
    X, y = DIABETES
    model = NetworkRegressor((16,), max_iter=30, tol=0, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.5
    assert isinstance(model.y_mean_, float)
    both = clone(model).fit(X, np.c_[1e6 * y - 1e9, y])
    assert both.predict(X).shape == (442, 2)
    np.testing.assert_allclose(both.y_scale_[0] / both.y_scale_[1], 1e6)
    column = clone(model).fit(X, y[:, None])
    assert column.predict(X).shape == (442, 1)
    np.testing.assert_array_equal(column.predict(X)[:, 0], model.predict(X))
    with pytest.raises(ValueError, match="y has 2 targets, but the network was fitted to 1"):
        model.partial_fit(X, np.c_[y, y])


def test_early_stopping_holds_out_rows_of_each_class():
    X, X_test, y, _ = DIGITS
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(len(y)) < 0.3, rng.integers(0, 10, len(y)), y)
    model = NetworkClassifier((64,), max_iter=60, early_stopping=True, n_iter_no_change=5, random_state=0)
    model.fit(X, noisy)
    best = int(np.argmin(model.loss_curve_)) + 1
    assert best < model.n_iter_ < 60
    stopped = clone(model).set_params(max_iter=best, n_iter_no_change=99)
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        stopped.fit(X, noisy)
    np.testing.assert_array_equal(stopped.predict_proba(X_test), model.predict_proba(X_test))
    rare = np.r_[np.zeros(90, dtype=int), np.ones(10, dtype=int)]
    seen = []

    class Loss(nn.Module):
        def forward(self, X):
            if not self.training and len(X) == 20:
                seen.append(float(X[:, 0].sum()))
            return X.expand(-1, 2) * self.weight

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

    labelled = NetworkClassifier(
        module=Loss, early_stopping=True, validation_fraction=0.2, standardize=False, max_iter=1, random_state=0
    )
    with pytest.warns(ConvergenceWarning):
        labelled.fit(rare[:, None].astype(float), rare)
    assert set(seen) == {2.0}  # a fifth of the ten rows
    with pytest.raises(ValueError, match=r"n_samples=1\. Set early_stopping=False"):
        NetworkClassifier(early_stopping=True).fit(X[:1], y[:1])


def test_partial_fit_begins_with_an_epoch_of_fit_and_goes_on():
    X, y = WINE
    model = NetworkClassifier((8,), random_state=0).partial_fit(X, y, classes=[0, 1, 2, 3])
    one = NetworkClassifier((8,), max_iter=1, tol=0, random_state=0).fit(X, y)
    assert model.predict_proba(X).shape == (178, 4)
    again = NetworkClassifier((8,), random_state=0).partial_fit(X, y, classes=[0, 1, 2])
    np.testing.assert_array_equal(again.predict_proba(X), one.predict_proba(X))
    stored = pickle.loads(pickle.dumps(again))
    np.testing.assert_array_equal(stored.partial_fit(X, y).predict_proba(X), again.partial_fit(X, y).predict_proba(X))
    assert again.n_iter_ == len(again.loss_curve_) == 2
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        NetworkClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match="not the same as in the first call"):
        again.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="not among the classes"):
        again.partial_fit(X, y + 1)


def test_a_warm_start_keeps_units_and_refuses_another_network():
    X, y = DIABETES
    model = NetworkRegressor((8,), warm_start=True, **QUICK).fit(X, y)
    mean, loss = model.y_mean_, model.loss_curve_[-1]
    model.fit(X, y)
    assert model.loss_curve_[0] < 1.05 * loss
    former = model.mean_
    model.fit(X[:100] + 1.0, y[:100] + 7.0)
    assert model.y_mean_ == mean
    np.testing.assert_array_equal(model.mean_, former)
    for changed in ({"hidden_layer_sizes": (9,)}, {"activation": "tanh"}, {"module": nn.Linear(10, 1)}):
        with pytest.raises(ValueError, match="warm_start"):
            clone(model).set_params(warm_start=True).fit(X, y).set_params(**changed).fit(X, y)
    cold = clone(model).set_params(warm_start=False).fit(X, y)
    assert cold.fit(X, y).loss_curve_[0] == cold.loss_curve_[0] > 1.05 * loss


def test_rank_of_the_start():
    X, y = WINE
    still = {**QUICK, "max_iter": 1, "learning_rate": 0.0}
    full = weights_of(NetworkClassifier((8, 8, 6), **still).fit(X, y))
    low = weights_of(NetworkClassifier((8, 8, 6), init_rank=2, **still).fit(X, y))
    assert [np.linalg.matrix_rank(W, tol=1e-5) for W in low] == [8, 2, 2, 3]
    np.testing.assert_allclose([np.linalg.norm(W) for W in low], [np.linalg.norm(W) for W in full], rtol=1e-6)
    same = weights_of(NetworkClassifier((8, 8, 6), init_rank=6, **still).fit(X, y))
    np.testing.assert_array_equal(same[2], full[2])
    with pytest.raises(ValueError, match="init_rank=7 is above the width 6"):
        NetworkClassifier((8, 8, 6), init_rank=7).fit(X, y)
    with pytest.raises(ValueError, match="init_rank=1 needs a weight between two hidden layers"):
        NetworkClassifier((8,), init_rank=1).fit(X, y)


def test_tolerance_is_a_share_of_the_lowest_loss():
    X, y = WINE
    model = NetworkClassifier((8,), max_iter=300, tol=0.02, n_iter_no_change=3, learning_rate=0.03, random_state=0).fit(
        X, y
    )
    curve = np.array(model.loss_curve_)
    gains = 1 - curve[1:] / np.minimum.accumulate(curve)[:-1]
    assert 4 <= model.n_iter_ < 300
    assert gains[-3:].max() <= 0.02 < min(gains[i : i + 3].max() for i in range(len(gains) - 3))


def test_attributes_say_the_size():
    X, y = WINE
    model = NetworkClassifier((8, 6), **QUICK).fit(X, y)
    assert model.ranks_ == (8, 6)
    assert model.n_parameters_ == model.n_dense_parameters_ == 13 * 8 + 8 + 8 * 6 + 6 + 6 * 3 + 3
    assert model.training_ == {}
    linear = NetworkRegressor((), **QUICK).fit(X, y)
    assert linear.ranks_ == ()
    assert linear.n_parameters_ == 14


def test_targets_may_have_negative_strides():
    X, y = DIABETES
    model = NetworkRegressor((4,), **QUICK).fit(X[::-1], y[::-1])
    np.testing.assert_array_equal(model.predict(X), clone(model).fit(X[::-1].copy(), y[::-1].copy()).predict(X))
