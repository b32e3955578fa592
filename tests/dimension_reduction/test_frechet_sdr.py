"""Networks find what X says about random objects, and do not learn by heart."""

import pickle
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, DataDimensionalityWarning
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from skorch.callbacks import Callback, EarlyStopping

from sklowrank.datasets import make_frechet_regression
from sklowrank.dimension_reduction import FrechetSDR
from sklowrank.dimension_reduction._frechet_sdr_solver import average, objective, split_rows
from sklowrank.metrics import distance_correlation


class Stop:
    """A callback of scikit-learn that asks to stop after two steps."""

    def setup(self, estimator, context):
        self.steps = 0

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.steps += 1
        return self.steps == 2


METRICS = {"number": "auto", "location": "wasserstein", "location_scale": "wasserstein", "matrix": "spd_log"}
QUICK = {"n_estimators": 1, "max_iter": 8, "random_state": 0}


@pytest.fixture(autouse=True)
def _short_training():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def generated(response, n=400, seed=0):
    X, y, S = make_frechet_regression(n, 6, response=response, random_state=seed)
    Xt, yt, St = make_frechet_regression(n, 6, response=response, random_state=100 + seed)
    return X, y, S, Xt, yt, St


@pytest.fixture(scope="module")
def located():
    """Responses whose mean and spread depend on X, and a fit to them."""
    data = generated("location_scale", 500)
    return FrechetSDR(2, metric="wasserstein", random_state=0).fit(data[0], data[1]), *data


# Mathematics


def test_the_objective_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    U, T = rng.normal(size=(2, 50, 3)), rng.normal(size=(2, 50, 4))
    whitened = []
    for u, t in zip(U, T):
        u = u - u.mean(0)
        C, A = u.T @ u / 50, u.T @ t / 50
        whitened.append(-np.trace(A.T @ np.linalg.inv(C + 1e-3 * np.trace(C) / 3 * np.eye(3)) @ A) / 0.5)
    U, T = torch.from_numpy(U), torch.from_numpy(T)
    assert float(objective(U, T, 0.5)) == pytest.approx(np.mean(whitened), rel=1e-6)
    M = torch.from_numpy(np.eye(3) + 0.3 * rng.normal(size=(3, 3)))
    assert float(objective(U @ M, T, 0.5)) == pytest.approx(float(objective(U, T, 0.5)), rel=0.01)


def test_outputs_that_do_not_vary_have_finite_gradients():
    U = torch.zeros(1, 40, 2, requires_grad=True)
    objective(U, torch.randn(1, 40, 3, generator=torch.Generator().manual_seed(0)), 0.5).backward()
    assert torch.isfinite(U.grad).all()


def test_each_net_leaves_out_another_fold():
    split = split_rows(103, 4, 7, torch.Generator().manual_seed(0), "cpu")
    assert split.trained.shape == (4, 103 - 14 - 1)
    assert split.held_out.shape == (4, 14)
    for trained, held_out in zip(*split):
        assert len(set(trained.tolist()) | set(held_out.tolist())) == 102
    assert len(set(split.held_out.flatten().tolist())) == 4 * 14


def test_average_gives_the_principal_components_of_the_mean_prediction():
    rng = np.random.default_rng(1)
    S, T = rng.normal(size=(200, 2)), rng.normal(size=(200, 5))
    T[:, :2] += 3 * S
    T -= T.mean(0)
    outputs = np.hstack([S @ rng.normal(size=(2, 2)) + 0.1 * rng.normal(size=(200, 2)) for _ in range(3)]) + 5
    split = split_rows(200, 3, 5, torch.Generator().manual_seed(0), "cpu")
    predicted = 0.0
    for k, rows in enumerate(split.trained.numpy()):
        u, centred = outputs[:, 2 * k : 2 * k + 2], outputs[rows, 2 * k : 2 * k + 2].mean(0)
        B = np.linalg.lstsq(u[rows] - centred, T[rows] - T[rows].mean(0), rcond=None)[0]
        predicted = predicted + (u - u.mean(0)) @ B / 3
    _, s, Vh = np.linalg.svd(predicted / 200**0.5, full_matrices=False)
    for whiten in (False, True):
        found = average(torch.from_numpy(outputs), torch.from_numpy(T), split, 2, whiten)
        Z = outputs @ found.rotation.numpy() + found.intercept.numpy()
        assert np.allclose(found.eigenvalues[:3], s[:3] ** 2, rtol=1e-6)
        assert np.allclose(Z.T @ Z / 200, np.diag([1, 1 if whiten else (s[1] / s[0]) ** 2]), atol=1e-6)
        assert np.allclose(Z @ found.loadings.numpy(), predicted @ Vh[:2].T @ Vh[:2], atol=1e-5)
        largest = np.abs(found.rotation.numpy()).argmax(0)
        assert (found.rotation.numpy()[largest, [0, 1]] > 0).all()


# What is found


@pytest.mark.parametrize(("response", "least"), [("number", 0.9), ("matrix", 0.8)])
def test_finds_what_linear_methods_miss(response, least):
    X, y, _, Xt, yt, St = generated(response, 600)
    sdr = FrechetSDR(St.shape[1], metric=METRICS[response], random_state=0).fit(X, y)
    assert distance_correlation(sdr.transform(Xt), St) > least
    assert 0.15 < sdr.score(Xt, yt) < 1
    assert sdr.score(Xt, yt[::-1]) < 0.02


def test_both_predictors_are_found_and_outputs_do_not_collapse(located):
    sdr, X, *_, Xt, _, St = located
    Z = sdr.transform(Xt)
    mean, spread = ([distance_correlation(Z[:, [j]], St[:, [k]]) for j in (0, 1)] for k in (0, 1))
    assert mean[0] > 0.75
    assert spread[1] > max(0.4, spread[0] + 0.1)
    assert np.linalg.cond(np.corrcoef(Z.T)) < 10
    assert np.allclose(np.cov(sdr.transform(X).T, bias=True), np.diag([1, sdr.transform(X)[:, 1].var()]), atol=1e-6)


def test_variances_follow_the_eigenvalues_or_are_one(located):
    sdr, X, y, *_ = located
    dependence = sdr.components_dependence_
    assert np.allclose(sdr.transform(X).var(0), dependence / dependence[0], rtol=1e-6)
    assert np.all(np.diff(dependence) < 0)
    assert sdr.dependence_ratio_.sum() < 1
    white = FrechetSDR(2, metric="wasserstein", whiten=True, **QUICK).fit(X, y)
    assert np.allclose(white.transform(X).var(0), 1)


def test_score_is_the_share_of_the_variance_explained_by_component(located):
    sdr, *_, Xt, yt, _ = located
    shares = sdr.explained_dependence(Xt, yt)
    assert shares.shape == (2,)
    assert shares.min() > 0
    assert shares.sum() == pytest.approx(sdr.score(Xt, yt))
    with sklearn.config_context(transform_output="pandas"):
        assert sdr.score(Xt, yt) == pytest.approx(shares.sum())


def test_responses_far_out_do_little_harm():
    X, y, _, Xt, _, St = generated("location", 500)
    rng = np.random.default_rng(7)
    hit = rng.random(500) < 0.1
    wild = y + np.where(hit, 30 * rng.standard_t(1, size=500), 0)[:, None]
    kept = {}
    for name, responses in (("clean", y), ("wild", wild)):
        sdr = FrechetSDR(1, metric="wasserstein", random_state=0).fit(X, responses)
        kept[name] = distance_correlation(sdr.transform(Xt), St)
    assert kept["wild"] > 0.85
    assert kept["wild"] > kept["clean"] - 0.06


def test_only_the_order_of_distances_counts():
    X, y, *_ = generated("number", 150)
    once, cubed = (
        FrechetSDR(1, n_landmarks=8, metric=metric, **QUICK).fit(X, y).transform(X)
        for metric in (lambda a, b: abs(a - b), lambda a, b: abs(a - b) ** 3)
    )
    assert np.array_equal(once, cubed)


def test_noise_is_not_learned_by_heart():
    rng = np.random.default_rng(0)
    X, y, Xt, yt = rng.normal(size=(300, 10)), rng.normal(size=300), rng.normal(size=(300, 10)), rng.normal(size=300)
    sdr = FrechetSDR(1, n_estimators=2, random_state=0).fit(X, y)
    assert sdr.score(Xt, yt) > -0.05
    greedy = FrechetSDR(1, n_estimators=1, validation_fraction=0.005, max_iter=400, random_state=0)
    greedy.set_params(net_params={"module__dropout": 0.0})
    with pytest.warns(UserWarning, match="too few to leave rows out"):
        greedy.fit(X, y)
    assert greedy.score(Xt, yt) < -0.1


def test_classes_become_groups():
    X, y = sklearn.datasets.load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    sdr = FrechetSDR(2, random_state=0).fit(X, names)
    assert sklearn.neighbors.KNeighborsClassifier().fit(sdr.transform(X), y).score(sdr.transform(X), y) > 0.95
    assert sdr.landmark_objects_.tolist() == names[sdr.landmarks_].tolist()
    assert sdr.thresholds_.tolist() == [[0], [0], [0]]


# Responses and how they are handed in


def test_matrices_flat_or_stacked_and_samples_in_any_order():
    X, y, *_ = generated("matrix", 120)
    flat, stacked = (FrechetSDR(1, metric="spd", **QUICK).fit(X, r) for r in (y.reshape(-1, 9), y))
    assert np.array_equal(flat.transform(X), stacked.transform(X))
    assert flat.score(X, y) == stacked.score(X, y.reshape(-1, 9))
    X, y, *_ = generated("location", 120)
    mixed = np.random.default_rng(0).permuted(y, axis=1)
    plain, other = (FrechetSDR(1, metric="wasserstein", **QUICK).fit(X, r).transform(X) for r in (y, mixed))
    assert np.array_equal(plain, other)
    ragged = [np.quantile(row, np.linspace(0, 1, 20 + i % 9)) for i, row in enumerate(y)]
    uneven = FrechetSDR(1, metric="wasserstein", **QUICK).fit(X, ragged)
    assert abs(np.corrcoef(uneven.transform(X)[:, 0], plain[:, 0])[0, 1]) > 0.9
    assert np.isfinite(uneven.score(X, ragged))


def test_model_selection_takes_responses_of_any_shape():
    X, y, *_ = generated("matrix", 150)
    Xa, Xb, ya, yb = train_test_split(X, y, random_state=0)
    model = make_pipeline(StandardScaler(), FrechetSDR(1, metric="spd_log", **QUICK))
    assert cross_val_score(model, Xa, ya, cv=3).shape == (3,)
    grid = {"frechetsdr__n_components": [1, 2], "frechetsdr__metric": ["spd_log"]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(Xa, ya)
    assert np.isfinite(search.score(Xb, yb))


def test_given_distances_keep_their_columns_when_rows_are_split():
    X, y, *_ = generated("number", 150)
    D = np.abs(y[:, None] - y[:40])
    scores = cross_val_score(FrechetSDR(1, metric="precomputed", **QUICK), X, D, cv=3, error_score="raise")
    assert np.isfinite(scores).all()
    sdr = FrechetSDR(1, metric="precomputed", n_landmarks=10, **QUICK).fit(X, D)
    assert not hasattr(
        sdr.set_params(metric="euclidean").fit(X, y).set_params(metric="precomputed").fit(X, D), "landmark_objects_"
    )
    assert len(sdr.landmarks_) == 10
    with pytest.raises(ValueError, match="y has distances to 39 objects, but fit has seen those to 40"):
        sdr.score(X, D[:, :39])


@pytest.mark.parametrize(
    ("y", "metric", "text"),
    [
        (None, "auto", "requires y to be passed"),
        (np.ones(40), "auto", "y is constant"),
        (np.arange(39.0), "auto", "inconsistent numbers of samples"),
        (-np.eye(3)[None].repeat(40, 0), "spd_log", "row 0 of y has the eigenvalue -1"),
        (np.ones((40, 2)), "sphere", "row 0 of y has length 1.41"),
        (np.r_[np.nan, np.ones(39)], "auto", "NaN"),
        (np.array(["a", None] * 20, dtype=object), "discrete", "Row 1 of y has no label"),
    ],
)
def test_bad_responses(y, metric, text):
    X = np.random.default_rng(0).normal(size=(40, 3))
    with pytest.raises(ValueError, match=text):
        FrechetSDR(1, metric=metric, **QUICK).fit(X, y)


def test_new_responses_must_be_of_the_same_kind(located):
    sdr, X, *_ = located
    pairs = FrechetSDR(1, **QUICK).fit(X, X[:, :2])
    with pytest.raises(ValueError, match=r"shape \(7,\) cannot be compared with those of shape \(2,\)"):
        pairs.score(X[:5], np.ones((5, 7)))
    with pytest.raises(ValueError, match="Samples of 2 numbers each cannot be compared with those of 1 that fit"):
        sdr.score(X[:5], np.ones((5, 7, 2)))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        sdr.score(X[:5], np.ones((4, 50)))


def test_tensors_in_tensors_out():
    X, y, *_ = generated("number", 120)
    plain = FrechetSDR(1, **QUICK).fit(X, y)
    with sklearn.config_context(array_api_dispatch=True):
        sdr = FrechetSDR(1, **QUICK).fit(torch.from_numpy(X), torch.from_numpy(y))
        Z = sdr.transform(torch.from_numpy(X))
        assert isinstance(Z, torch.Tensor)
        assert isinstance(sdr.landmark_objects_, torch.Tensor)
        assert sdr.score(torch.from_numpy(X), torch.from_numpy(y)) == pytest.approx(plain.score(X, y))
    assert np.allclose(Z, plain.transform(X))


# Width, rows, parameters


def test_number_of_components():
    X, y, *_ = generated("number", 200)
    assert FrechetSDR(2, **QUICK).fit(X[:, :1], y).transform(X[:, :1]).shape == (200, 2)
    share = FrechetSDR(0.6, **QUICK).fit(X, y)
    assert share.dependence_ratio_.sum() >= 0.6 > share.dependence_ratio_[:-1].sum()
    assert share.transform(X).shape == (200, share.n_components_)
    with pytest.warns(DataDimensionalityWarning, match="n_components=5 is more than the 1 distinct features"):
        two = FrechetSDR(5, metric="discrete", **QUICK).fit(X, y > 0)
    assert list(two.get_feature_names_out()) == ["frechetsdr0"]


def test_few_rows_are_all_trained_on():
    X, y, *_ = generated("number", 60)
    with pytest.warns(UserWarning, match=r"n_samples=8 is too few .* max_iter // 4 = 2 epochs"):
        sdr = FrechetSDR(1, **QUICK).fit(X[:8], y[:8])
    assert sdr.n_iter_ == 2
    assert np.isnan(sdr.validation_scores_).all()
    assert np.isfinite(sdr.transform(X)).all()
    with pytest.raises(ValueError, match="1 sample"):
        FrechetSDR().fit(X[:1], y[:1])


def moved(model, X, y, **params):
    """Return whether two learning rates give different weights: they start from the same ones."""
    once, twice = (clone(model).set_params(learning_rate=rate, **params).fit(X, y).weights_ for rate in (1e-3, 1e-2))
    return all(not np.array_equal(a[name], b[name]) for a, b in zip(once, twice) for name in a if "bias" not in name)


def test_one_pass_trains():
    X, y, *_ = generated("number", 100)
    model = FrechetSDR(1, max_iter=1, n_estimators=2, random_state=0)
    assert moved(model, X, y)
    assert np.isfinite(clone(model).fit(X, y).validation_scores_).all()
    with pytest.warns(UserWarning, match="max_iter // 4 = 1 epochs"):
        assert moved(model, X[:8], y[:8], max_iter=4)


class Ended(Callback):
    """Counts the ends of trainings; an interrupt comes at a moment to be named."""

    def __init__(self, moment=None, way=None):
        self.moment, self.way, self.count = moment, way, 0

    def on_batch_end(self, net, **kwargs):
        self._at("batch")

    def on_epoch_end(self, net, **kwargs):
        self._at("epoch")

    def on_train_end(self, net, **kwargs):
        self.count += 1

    def _at(self, moment):
        if moment == self.moment and self.way == "raise":
            raise KeyboardInterrupt
        if moment == self.moment:
            signal.raise_signal(signal.SIGINT)  # what Ctrl+C sends


@pytest.mark.parametrize("way", ["max_iter", "tol", "callback of scikit-learn", "early stopping"])
def test_the_end_of_a_training_is_announced(way, capsys):
    X, y, *_ = generated("number", 100)
    callbacks, model = [("ended", Ended())], FrechetSDR(1, max_iter=8, n_estimators=1, random_state=0)
    if way == "tol":
        model.set_params(n_iter_no_change=2, tol=1.0)
    elif way == "early stopping":
        callbacks.append(("stop", EarlyStopping("train_loss", patience=2, threshold=9.0, threshold_mode="abs")))
    elif way != "max_iter":
        model.set_callbacks(Stop())
    model.set_params(net_params={"callbacks": callbacks}).fit(X, y)
    assert callbacks[0][1].count == 1
    assert (model.n_iter_ == 8) is (way == "max_iter")
    assert not capsys.readouterr().out


@pytest.mark.parametrize("way", ["raise", "signal"])
@pytest.mark.parametrize("moment", ["batch", "epoch"])
def test_an_interrupt_in_a_callback_of_skorch_leaves_the_former_fit_whole(moment, way):
    X, y, *_ = generated("number", 100)
    sdr = FrechetSDR(1, **QUICK).fit(X, y)
    before, ended = sdr.transform(X), Ended(moment, way)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            sdr.set_params(net_params={"callbacks": [ended]}).fit(-X, y)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert ended.count == 1
    assert np.array_equal(sdr.transform(X), before)


class Noisy(torch.nn.Sequential):
    """A network of the user's that draws from torch's global generator."""

    def __init__(self, n_features):
        super().__init__(torch.nn.Linear(n_features, 4), torch.nn.Dropout(0.3), torch.nn.Tanh())


def test_networks_of_ones_own_in_threads():
    X, y, *_ = generated("number", 100)

    def found(seed):
        own = {"module": Noisy} if seed % 2 else {}
        return FrechetSDR(1, max_iter=4, n_estimators=1, random_state=seed, **own).fit(X, y).transform(X)

    alone, state = [found(seed) for seed in range(4)], torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(found, range(4)))
    assert all(np.array_equal(a, b) for a, b in zip(alone, beside))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)  # fmt: skip
def test_modes_of_torch_around_networks_of_ones_own_and_tensors(mode):
    X, y, *_ = generated("number", 100)
    sdr = FrechetSDR(1, module=Noisy, **QUICK)
    with sklearn.config_context(array_api_dispatch=True):
        rows = torch.from_numpy(X).float()
        expected = sdr.fit(rows, y).transform(rows)
        with mode():
            rows = torch.from_numpy(X).float()
            there = clone(sdr).fit(rows, y)
            assert torch.equal(there.transform(rows), expected)
            assert there.score(rows, y) == sdr.score(torch.from_numpy(X).float(), y)


def test_a_network_of_another_width_is_named():
    X, y, *_ = generated("number", 100)
    with pytest.raises(ValueError, match=r"module has to map rows of n_features_in_=6 columns"):
        FrechetSDR(1, module=torch.nn.Linear(7, 5)).fit(X, y)


def test_training_ends_where_the_held_out_score_no_longer_rises():
    X, y, *_ = generated("number", 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        early = FrechetSDR(1, tol=0.02, n_iter_no_change=5, random_state=0).fit(X, y)
    assert early.n_iter_ < 100
    assert len(early.loss_curve_) == early.n_iter_
    assert early.validation_scores_.shape == (5,)
    longer = FrechetSDR(1, tol=0.02, n_iter_no_change=20, random_state=0).fit(X, y)
    assert longer.n_iter_ > early.n_iter_
    assert longer.validation_scores_.min() >= early.validation_scores_.min()


def test_parameters_set_after_the_fit_change_nothing(located):
    sdr, X, y, *_ = located
    expected, score = sdr.transform(X), sdr.score(X, y)
    other = pickle.loads(pickle.dumps(sdr)).set_params(
        n_components=1,
        hidden_layer_sizes=(3,),
        net_params={"module__activation": "relu"},
        n_estimators=1,
        metric="euclidean",
        standardize=False,
    )
    assert np.array_equal(other.transform(X), expected)
    assert other.score(X, y) == score
    assert not hasattr(clone(other), "weights_")


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh"])
def test_layers_and_activations(activation):
    X, y, *_ = generated("number", 100)
    deep = FrechetSDR(1, hidden_layer_sizes=[8, 4, 4], net_params={"module__activation": activation}, **QUICK).fit(X, y)
    assert [W.shape for name, W in deep.weights_[0].items() if name.startswith("weights")] == [
        (6, 8), (8, 4), (4, 4), (4, 1)
    ]  # fmt: skip
    flat = FrechetSDR(1, hidden_layer_sizes=(), net_params={"module__activation": activation}, **QUICK).fit(X, y)
    Z = flat.transform(X)[:, 0]
    assert np.allclose(np.linalg.lstsq(np.c_[X, np.ones(100)], Z, rcond=None)[1], 0)  # no layer, so linear
    with pytest.raises(ValueError, match=r"hidden_layer_sizes=\(8, 0\) has an empty layer"):
        FrechetSDR(1, hidden_layer_sizes=(8, 0), **QUICK).fit(X, y)


class Images(torch.nn.Module):
    """Rows as images of 2 x 3 pixels, through a convolution."""

    def __init__(self, channels=4):
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, channels, 2)
        self.dropout = torch.nn.Dropout(0.2)

    def forward(self, x):
        return self.dropout(torch.relu(self.convolution(x.reshape(-1, 1, 2, 3)).flatten(1)))


def test_networks_of_ones_own():
    X, y, *_ = generated("number", 150)
    params = {"n_estimators": 2, "max_iter": 5, "random_state": 0}
    sdr = FrechetSDR(1, module=Images, net_params={"module__channels": 3}, **params).fit(X, y)
    assert sdr.weights_[0]["0.convolution.weight"].shape == (3, 1, 2, 2)
    assert not np.array_equal(*(weights["0.convolution.weight"] for weights in sdr.weights_))
    expected = sdr.transform(X)
    assert np.array_equal(pickle.loads(pickle.dumps(sdr)).transform(X), expected)
    instance = FrechetSDR(1, module=Images(), **params).fit(X, y)
    assert instance.weights_[0]["0.convolution.weight"].shape == (4, 1, 2, 2)
    own = FrechetSDR(1, net_params={"optimizer": torch.optim.SGD}, **params).fit(X, y)
    assert not np.array_equal(own.transform(X), FrechetSDR(1, **params).fit(X, y).transform(X))
    with pytest.raises(ValueError, match=r"net_params=\{'max_epochs'"):
        FrechetSDR(1, net_params={"max_epochs": 3}, **params).fit(X, y)


def test_constant_columns_of_any_size_and_frames():
    X, y, *_ = generated("number", 120)
    X[:, 4], X[:, 5] = 1e25, 7
    sdr = FrechetSDR(1, **QUICK).fit(X, y)
    Z = sdr.transform(X)
    assert Z.std() > 0.5
    frame = pd.DataFrame(X, columns=list("abcdef"))
    named = FrechetSDR(1, **QUICK).set_output(transform="pandas").fit(frame, pd.Series(y))
    assert np.array_equal(named.transform(frame).to_numpy(), Z)
    assert named.score(frame, pd.Series(y)) == sdr.score(X, y)


@pytest.mark.slow
def test_generic_checks_with_the_defaults():
    results = check_estimator(FrechetSDR(), on_fail=None, on_skip=None)
    assert not [r["check_name"] for r in results if r["status"] in ("failed", "xfail")]
