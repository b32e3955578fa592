"""Rows and targets that adapters are given, and what happens around a fit: threads, interrupts, stored labels."""

import io
from functools import cache
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier, NeuralNetRegressor
from torch import nn

from sklowrank.adapt import LDUAdapter, TuckerAdapter
from sklowrank.neural import GrassmannClassifier, NetworkClassifier

g = np.random.default_rng(0)
y = np.arange(60) % 3
ROWS = g.normal(size=(60, 4)).astype(np.float32)
ROWS[:, 0] += 3 * y - 3
NAMES = np.array(["a", "b", "c"])[y]
FRAME = pd.DataFrame(ROWS, columns=list("wxyz"))
PARAMS = {"max_iter": 30, "batch_size": 60, "learning_rate": 0.1, "random_state": 0}


class Interrupted(nn.CrossEntropyLoss):
    """A loss that is interrupted at its tenth gradient."""

    n_steps = 0

    def forward(self, outputs, target):
        if torch.is_grad_enabled():
            Interrupted.n_steps += 1
            if Interrupted.n_steps == 10:
                raise KeyboardInterrupt
        return super().forward(outputs, target)


def mlp(n_outputs=3):
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, n_outputs))


def skorch(kind=NeuralNetClassifier, target=y, module=mlp, **params):
    how = {"max_epochs": 5, "lr": 0.1, "batch_size": 20, "train_split": None, "verbose": 0}
    if kind is NeuralNetClassifier:
        how["criterion"] = nn.CrossEntropyLoss
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(module, **{**how, **params}).fit(ROWS, target)


@cache
def usual():
    return FrozenEstimator(skorch())


@cache
def ours():
    return FrozenEstimator(NetworkClassifier((8,), max_iter=10, tol=0, random_state=0).fit(FRAME, y))


@cache
def adapted_ours():
    return TuckerAdapter(ours(), max_iter=1).fit(FRAME, y)


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        (FRAME[list("zyxw")], ValueError, "feature names"),
        (ROWS[:, :3], ValueError, "3 features"),
        (np.where(ROWS > 2, np.nan, ROWS), ValueError, "NaN"),
        (ROWS[:, 0], ValueError, "2D array"),
        (sparse.csr_array(ROWS), TypeError, "Sparse"),
    ],
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_rows_are_refused_that_the_estimator_does_not_predict(rows, error, words):
    with pytest.raises(error, match=words):
        TuckerAdapter(ours(), max_iter=1).fit(rows, y)
    with pytest.raises(error, match=words if words != "2D array" else "Expected an array of 4 columns"):
        adapted_ours().predict_raw(rows)


def test_columns_of_several_types():
    mixed = FRAME.assign(x=FRAME.x.round().astype(int), y=FRAME.y > 0, z=FRAME.z.astype(np.float64))
    model = LDUAdapter(ours(), max_iter=2).fit(mixed, y)
    assert np.allclose(model.predict_raw(mixed), model.predict_raw(mixed.astype(np.float64)), atol=1e-6)


def test_estimators_that_are_more_than_a_network_are_refused():
    fitted = GrassmannClassifier(max_iter=2, random_state=0).fit(ROWS, y)
    with pytest.raises(TypeError, match="by more than the outputs"):
        TuckerAdapter(FrozenEstimator(fitted)).fit(ROWS, y)


@pytest.mark.parametrize("form", [pd.Series, lambda t: pd.Series(t, dtype="category"), list, lambda t: pd.DataFrame(t)])
@pytest.mark.filterwarnings("ignore:A column-vector y")
def test_labels_in_other_forms_are_scored_alike(form):
    model = TuckerAdapter(usual(), **PARAMS).fit(ROWS, form(NAMES))
    assert list(model.classes_) == ["a", "b", "c"]
    assert model.score(ROWS, form(NAMES)) == model.score(ROWS, NAMES) > 0.9


def test_labels_of_a_net_need_no_order():
    net = skorch(classes=["b", "c", "a"])  # its codes 0, 1, 2 are these
    named = np.array(["b", "c", "a"])[y]
    model = TuckerAdapter(FrozenEstimator(net), max_iter=0).fit(ROWS, named)
    assert np.array_equal(model.predict(ROWS), np.array(["b", "c", "a"])[net.predict(ROWS)])
    trained = TuckerAdapter(FrozenEstimator(net), **PARAMS).fit(-ROWS, named)
    assert trained.score(-ROWS, named) > 0.9


def test_labels_are_stored_without_pickling():
    model = TuckerAdapter(usual(), head="reset", **PARAMS).fit(ROWS, NAMES.astype(object))
    file = io.BytesIO()
    np.savez(file, **model.get_adapter())
    file.seek(0)
    expected = model.predict(ROWS)
    loaded = model.set_adapter(dict(np.load(file)))
    assert np.array_equal(loaded.predict(ROWS), expected)
    assert loaded.classes_.dtype == object
    state = model.get_adapter()
    state["3.bias"][0] = np.nan
    with pytest.raises(ValueError, match=r"3\.bias of the state has NaN"):
        model.set_adapter(state)


def test_targets_of_another_width_are_not_broadcast():
    frozen = FrozenEstimator(skorch(NeuralNetRegressor, ROWS[:, :1], lambda: mlp(1)))
    with pytest.raises(ValueError, match=r"outputs of shape \(1,\) for each row, and y has \(2,\)"):
        TuckerAdapter(frozen).fit(ROWS, ROWS[:, :2])
    assert TuckerAdapter(frozen, head="reset", max_iter=2).fit(ROWS, ROWS[:, :2]).predict(ROWS).shape == (60, 2)
    with pytest.raises(ValueError, match="y has the dtype <U1"):
        TuckerAdapter(frozen).fit(ROWS, NAMES)
    as_integers = TuckerAdapter(frozen, max_iter=2, random_state=0).fit(ROWS, y)
    as_objects = TuckerAdapter(frozen, max_iter=2, random_state=0).fit(ROWS, y.astype(object))
    assert np.array_equal(as_integers.predict(ROWS), as_objects.predict(ROWS))


def test_weights_of_classes_have_to_be_those_of_a_new_head():
    frozen = FrozenEstimator(skorch(criterion__weight=torch.tensor([1.0, 2, 3])))
    assert TuckerAdapter(frozen, max_iter=1).fit(ROWS, y).n_iter_ == 1
    with pytest.raises(ValueError, match="y has 2 classes, and the criterion of the net has weights of 3"):
        TuckerAdapter(frozen, head="reset").fit(ROWS, y > 0)


def test_a_row_alone_gives_no_statistics():
    model = TuckerAdapter(usual(), train_norm=True, batch_size=20, max_iter=2).fit(ROWS[:41], y[:41])
    assert np.isfinite(model.predict_raw(ROWS)).all()
    with pytest.raises(ValueError, match="batch_size=1"):
        TuckerAdapter(usual(), train_norm=True, batch_size=1).fit(ROWS, y)


def test_the_warning_names_what_can_be_set():
    with pytest.warns(ConvergenceWarning, match="Raise max_iter, or set validation_fraction=0") as caught:
        TuckerAdapter(usual(), validation_fraction=0.3, max_iter=2, random_state=0).fit(ROWS, y)
    assert "tol" not in str(caught[0].message)


def test_disabling_acts_in_its_own_thread():
    model = TuckerAdapter(usual(), **PARAMS).fit(-ROWS, y)
    adapted, base, elsewhere = model.predict_proba(ROWS), usual().predict_proba(ROWS), []
    with model.disable():
        thread = Thread(target=lambda: elsewhere.append(model.predict_proba(ROWS)))
        thread.start()
        thread.join()
        assert np.array_equal(model.predict_proba(ROWS), base)
    assert np.array_equal(elsewhere[0], adapted)
    with pytest.raises(RuntimeError), model.disable(), model.disable():
        raise RuntimeError
    assert np.array_equal(model.predict_proba(ROWS), adapted)


def test_an_interrupted_fit_leaves_everything_as_it_was():
    net = skorch()
    model = TuckerAdapter(FrozenEstimator(net), **PARAMS).fit(-ROWS, y)
    before, adapted, generators = net.predict_proba(ROWS), model.predict_proba(ROWS), torch.get_rng_state()
    net.criterion_, Interrupted.n_steps = Interrupted(), 0
    with pytest.raises(KeyboardInterrupt):
        model.fit(ROWS, y)
    assert torch.equal(torch.get_rng_state(), generators)
    assert np.array_equal(net.predict_proba(ROWS), before)
    assert np.array_equal(model.predict_proba(ROWS), adapted)
    assert all(parameter.requires_grad for parameter in net.module_.parameters())
