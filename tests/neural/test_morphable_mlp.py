"""MorphableMLPClassifier and MorphableMLPRegressor: networks of every width against numpy, against slices, refusals."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_friedman1
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklowrank.neural import MorphableMLPClassifier, MorphableMLPRegressor, NetworkClassifier, NetworkRegressor
from sklowrank.neural._morphable_network import MorphableNetwork, Shape, basis_at, layers_of, stored_weights

X, y = load_digits(return_X_y=True)
A, B, a, b = train_test_split(X / 16 - 0.3, y, test_size=0.3, random_state=0, stratify=y)
FORMS = ["nested", "spectral"]


def small(cls=MorphableMLPClassifier, **settings):
    defaults = {"width_range": (6, 12), "train_widths": 3, "n_frequencies": 4, "max_iter": 2, "random_state": 0}
    return cls(**{**defaults, **settings})


@pytest.fixture(scope="module")
def fitted():
    """One fit of each form to digits."""
    settings = {"standardize": False, "max_iter": 30, "random_state": 0}
    return {form: MorphableMLPClassifier(weight_function=form, **settings).fit(A, a) for form in FORMS}


def by_formula(model, width, rows):
    """The outputs of the network of a width in numpy, unit by unit where that is slow enough to be plain."""
    w, n = model.weights_, model.n_hidden_layers
    if model.weight_function == "nested":
        P, share = np.eye(len(w["first"]))[:width], np.sqrt(width)
    else:
        places = [(i + 0.5) / width for i in range(width)]
        frequencies = range(1, model.n_frequencies + 1)
        waves = [[f(np.pi * k * u) * np.sqrt(2) for f in (np.sin, np.cos) for k in frequencies] for u in places]
        P, share = np.c_[np.ones(width), waves] / np.sqrt(2 * model.n_frequencies + 1), width
    z = (rows - model.mean_) / model.scale_ @ (P @ w["first"][:, :-1]).T + P @ w["first"][:, -1]
    for i in range(n - 1):
        z = np.maximum(z, 0) @ (P @ w[f"hidden{i}"] @ P.T / share).T + P @ w[f"hidden{i}_bias"]
    return np.maximum(z, 0) @ (P @ w["last"]) / share + w["last_bias"]


# Weights of a width


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_answers_are_those_of_the_stored_weights(form, depth):
    model = small(MorphableMLPRegressor, weight_function=form, n_hidden_layers=depth).fit(A, A[:, 20:22])
    for width in (6, 7, 12):
        values = by_formula(model, width, B) * model.y_scale_ + model.y_mean_
        np.testing.assert_allclose(model.predict(B, width=width), values, atol=1e-6)


def test_the_basis_is_orthonormal_up_to_its_size():
    P = basis_at(400, 8, torch.device("cpu")).numpy()
    assert P.shape == (400, 17)
    np.testing.assert_allclose(17 * np.square(P).mean(0), 1, atol=1e-12)
    np.testing.assert_allclose(basis_at(30, 4, torch.device("cpu")), basis_at(90, 4, torch.device("cpu"))[1::3])


@pytest.mark.parametrize("form", FORMS)
def test_outputs_have_one_size_at_every_width(form):
    """Without the division by a power of the width activations grow with it."""
    shape = Shape(form, 8, 200, 3, "relu", 16, 256, 8)
    net = MorphableNetwork(torch.Generator().manual_seed(0), shape=shape, widths=[16])
    weights = {name: p.detach() for name, p in net.named_parameters()}
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    found = []
    for width in (16, 64, 256):
        z = rows
        for W, c in layers_of(weights, shape, width, unit=256)[:-1]:
            z = torch.relu(z @ W.T + c)
        W, c = layers_of(weights, shape, width, unit=256)[-1]
        found.append(float((z @ W.T + c).square().mean()))
    assert max(found) < 4 * min(found)


def test_the_largest_width_starts_as_a_plain_network_does():
    shape = Shape("nested", 50, 10, 3, "relu", 16, 128, 8)
    net = MorphableNetwork(torch.Generator().manual_seed(0), shape=shape, widths=[128])
    weights = {name: p.detach() for name, p in net.named_parameters()}
    variances = [float(W.var()) for W, _ in layers_of(weights, shape, 128, unit=128)]
    np.testing.assert_allclose(variances, [1 / 150, *[1 / 384] * 3], rtol=0.15)
    stored = stored_weights({name: w.numpy() for name, w in weights.items()}, shape)
    assert all(not weights[name].any() for name in weights if name.endswith("bias"))
    np.testing.assert_allclose(stored["hidden0"], weights["hidden0"] * 128**0.5)
    np.testing.assert_array_equal(stored["first"], weights["first"])


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_the_stored_weights(form):
    shape = Shape(form, 3, 2, 2, "tanh", 2, 5, 2)
    net = MorphableNetwork(torch.Generator().manual_seed(0), shape=shape, widths=[4])
    net(torch.ones(2, 3)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad.abs().max() > 0, name
        if form == "nested" and name != "last_bias":  # units beyond the width have no part in it
            assert not parameter.grad[4:].any()
            assert parameter.grad[:4].any()


# What is learned


def test_small_networks_are_far_better_than_slices_of_a_plain_one(fitted):
    plain = MLPClassifier((64, 64), max_iter=30, learning_rate_init=3e-3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain.fit(A, a)
    W, c = plain.coefs_, plain.intercepts_
    for width, gain in ((16, 0.3), (32, 0.1)):
        z = np.maximum(B @ W[0][:, :width] + c[0][:width], 0)
        z = np.maximum(z @ W[1][:width, :width] + c[1][:width], 0)
        slices = np.mean((z @ W[2][:width] + c[2]).argmax(1) == b)
        assert np.mean(fitted["nested"].predict(B, width=width) == b) > slices + gain
    assert fitted["nested"].score(B, b) > plain.score(B, b) - 0.02


@pytest.mark.parametrize("form", FORMS)
def test_widths_between_those_of_training_are_as_good(fitted, form):
    _, between = fitted[form].size_curve(B, b, [20, 29, 45, 61])
    _, trained = fitted[form].size_curve(B, b)
    assert between.min() > 0.93
    assert between.min() > trained.mean() - 0.03


def test_wide_spectral_networks_are_one_function(fitted):
    model = fitted["spectral"]
    with pytest.warns(UserWarning, match="width=128 is outside of width_range"):
        wide = model.predict_proba(B, width=128)
    assert np.abs(wide - model.predict_proba(B, width=64)).mean() < 0.01
    assert model.n_parameters_ < model.n_parameters(64)


def test_regression_follows_units_and_beats_a_line():
    R, r = make_friedman1(600, noise=0.5, random_state=0)
    R, S, r, s = train_test_split(R, r, random_state=0)
    model = MorphableMLPRegressor(max_iter=60, random_state=0).fit(R, np.c_[r, 7 - 1000 * r])
    found = model.predict(S, width=40)
    line = Ridge().fit(R, r).score(S, s)
    assert r2_score(s, found[:, 0]) > line + 0.05
    assert r2_score(7 - 1000 * s, found[:, 1]) > line + 0.05
    short = MorphableMLPRegressor(max_iter=3, random_state=0)
    expected = short.fit(R, r).predict(S)
    for scale in (2.0**-80, 2.0**80):
        moved = clone(short).fit(R * scale, r / scale).predict(S * scale)
        np.testing.assert_allclose(moved * scale, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="y contains infinity"):
        clone(short).fit(R, np.where(r > 20, np.inf, r))


def test_without_standardize_columns_stay_and_targets_do_not():
    model = small(MorphableMLPRegressor, standardize=False).fit(A, 1e6 * A[:, 20] + 1e9)
    assert not model.mean_.any()
    assert (model.scale_ == 1).all()
    assert model.y_mean_ == pytest.approx(1e9, rel=1e-3)
    assert np.abs(model.predict(B) - 1e9).max() < 1e7


# Widths as a user asks for them


@pytest.mark.parametrize("form", FORMS)
def test_resized_answers_as_the_width_does_and_is_trained_on(fitted, form):
    model = fitted[form]
    plain = model.resized(20)
    assert type(plain) is NetworkClassifier
    np.testing.assert_array_equal(plain.predict_proba(B), model.predict_proba(B, width=20))
    np.testing.assert_array_equal(plain.classes_, model.classes_)
    assert plain.n_parameters_ == model.n_parameters(20) == 65 * 20 + 20 * 21 + 10 * 21
    assert plain.n_features_in_ == 64
    outputs = plain.network()(torch.from_numpy(B).float()).detach().numpy()
    np.testing.assert_array_equal(outputs.argmax(1), plain.predict(B))
    again = pickle.loads(pickle.dumps(plain))
    assert again.partial_fit(A, a).n_iter_ == model.n_iter_ + 1
    assert again.score(B, b) > 0.93
    assert clone(plain).set_params(max_iter=2).fit(A, a).n_parameters_ == plain.n_parameters_


def test_resized_regressor_keeps_names_and_units():
    import pandas as pd

    frame = pd.DataFrame(A[:, 18:30], columns=[f"p{i}" for i in range(12)])
    model = small(MorphableMLPRegressor).fit(frame, 100 + A[:, 30])
    plain = model.resized(7)
    assert type(plain) is NetworkRegressor
    assert list(plain.feature_names_in_) == list(frame.columns)
    np.testing.assert_array_equal(plain.predict(frame), model.predict(frame, width=7))


@pytest.mark.parametrize("form", FORMS)
def test_the_module_is_plain_and_its_own(fitted, form):
    net = fitted[form].network(20)
    assert [type(layer).__name__ for layer in net] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert not net.training
    with torch.no_grad():
        net[0].weight.zero_()
    assert fitted[form].network(20)[0].weight.any()
    assert sum(p.numel() for p in net.parameters()) == fitted[form].n_parameters(20)


def test_default_width_is_read_when_it_is_used(fitted):
    model = copy.deepcopy(fitted["nested"])
    np.testing.assert_array_equal(model.predict_proba(B), model.predict_proba(B, width=64))
    model.set_params(default_width=20)
    np.testing.assert_array_equal(model.predict_proba(B), model.predict_proba(B, width=20))
    assert model.score(B, b) == accuracy_score(b, model.predict(B, width=20))
    assert model.n_parameters() == model.n_parameters(20)
    assert len(model.network()[0].weight) == 20
    with pytest.raises(ValueError, match=r"default_width=65 has to be an integer from 1 to 64"):
        model.set_params(default_width=65).predict(B)
    model.set_params(default_width=None, weight_function="spectral", activation="tanh", width_range=(1, 2))
    np.testing.assert_array_equal(model.predict_proba(B), fitted["nested"].predict_proba(B))  # the fit decides


def test_a_size_curve_has_the_scores_of_widths(fitted):
    model = fitted["nested"]
    before = pickle.dumps(model)
    widths, scores = model.size_curve(B, b)
    np.testing.assert_array_equal(widths, [16, 24, 32, 40, 48, 56, 64])
    assert scores.tolist() == [accuracy_score(b, model.predict(B, width=h)) for h in widths]
    assert pickle.dumps(model) == before  # predictions store nothing


@pytest.mark.parametrize("widths", [20, [], [20.0, 33.0], [[20, 33]], "20", [True], [20, 65], [0, 20]])
def test_widths_that_no_size_curve_has_are_refused(fitted, widths):
    with pytest.raises(ValueError, match=r"^widths=.* has to be a sequence of integers from 1 to 64, the largest of"):
        fitted["nested"].size_curve(B, b, widths)


def test_widths_of_a_size_curve_stay_in_order(fitted):
    for widths in ((33, 20, 33), np.array([33, 20, 33], np.uint8), torch.tensor([33, 20, 33])):
        found, scores = fitted["spectral"].size_curve(B, b, widths)
        assert found.tolist() == [33, 20, 33]
        assert scores[0] == scores[2] == accuracy_score(b, fitted["spectral"].predict(B, width=33))


def test_widths_of_training():
    assert small(train_widths=[12, 7, 7]).fit(A, a).train_widths_.tolist() == [7, 12]
    assert small(train_widths=1).fit(A, a).train_widths_.tolist() == [12]
    assert small(train_widths=99).fit(A, a).train_widths_.tolist() == list(range(6, 13))
    assert small(width_range=(5, 5)).fit(A, a).predict(B, width=5).shape == b.shape


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [0, -3, 25, 2.5, "6", True, None])
def test_widths_that_no_network_has_are_refused(form, width):
    model = small(weight_function=form).fit(A, a)
    calls = (lambda: model.predict(B, width=width), lambda: model.resized(width), lambda: model.network(width))
    for call in calls:
        if width is None:
            call()
        else:
            with pytest.raises(ValueError, match=r"^width=.* has to be an integer from 1 to (12|24)"):
                call()


def test_widths_outside_of_the_range_warn():
    model = small().fit(A, a)
    for call in (model.predict, model.predict_proba, model.predict_log_proba):
        with pytest.warns(UserWarning, match=r"width=5 is outside of width_range=\(6, 12\)"):
            call(B, width=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(B, width=np.int64(6))
        model.predict(B, width=12)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"width_range": (12, 6)}, r"width_range=\(12, 6\) has to be two integers"),
        ({"width_range": (0, 6)}, "width_range="),
        ({"width_range": (2.5, 6)}, "width_range="),
        ({"width_range": (6, 8, 12)}, "width_range="),
        ({"train_widths": [6, 40]}, r"train_widths=\[6, 40\] .*width_range=\(6, 12\)"),
        ({"train_widths": []}, "train_widths="),
        ({"train_widths": [6.5]}, "train_widths="),
        ({"train_widths": np.array(6.5)}, r"train_widths=array\(6.5\) has to be the number of widths"),
        ({"train_widths": np.array(-1)}, r"train_widths=array\(-1\) has to be the number of widths"),
        ({"default_width": 13}, r"default_width=13 has to be an integer from 1 to 12"),
        ({"weight_function": "spectral", "default_width": 25}, r"default_width=25 .* from 1 to 24"),
        ({"weight_function": "spectral", "n_frequencies": 7}, "n_frequencies=7 is above the smallest width 6"),
        ({"learning_rate": 1e30}, "in training. Lower learning_rate"),
    ],
)
def test_what_cannot_be_is_refused(settings, match):
    with pytest.raises(ValueError, match=match):
        small(**settings).fit(A, a)


# In a user's hands


def test_nothing_but_the_seed_decides():
    fits = [small(random_state=seed).fit(A, a) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(fits[0].weights_["first"], fits[1].weights_["first"])
    assert np.abs(fits[0].weights_["first"] - fits[2].weights_["first"]).max() > 0.1
    other = small(train_widths=[6, 12]).fit(A, a)  # nested networks draw from all widths of the range
    np.testing.assert_array_equal(other.weights_["first"], fits[0].weights_["first"])


@pytest.mark.parametrize("form", FORMS)
def test_logarithms_are_those_of_the_probabilities_and_stay_finite(fitted, form):
    model = fitted[form]
    np.testing.assert_allclose(np.exp(model.predict_log_proba(B, width=20)), model.predict_proba(B, width=20))
    np.testing.assert_array_equal(model.resized(20).predict_log_proba(B), model.predict_log_proba(B, width=20))
    far = model.predict_log_proba(1e4 * B, width=20)  # probabilities of 0 in float64
    assert np.isfinite(far).all()
    assert far.min() < -800
    assert model.predict_log_proba(B.astype(np.float32)).dtype == np.float32


def test_a_width_is_routed_where_it_is_requested():
    with sklearn.config_context(enable_metadata_routing=True):
        model = small().set_predict_request(width=True).set_predict_proba_request(width=True)
        pipe = make_pipeline(StandardScaler(), model).fit(A, a)
        rows = pipe[0].transform(B)
        np.testing.assert_array_equal(pipe.predict_proba(B, width=7), pipe[1].predict_proba(rows, width=7))
        np.testing.assert_array_equal(pipe.predict(B), pipe[1].predict(rows, width=12))
        with pytest.raises(UnsetMetadataPassedError, match="width"):
            make_pipeline(StandardScaler(), small()).fit(A, a).predict(B, width=7)


def test_a_width_reaches_predict_through_a_pipeline_and_a_search():
    pipe = make_pipeline(StandardScaler(), small()).fit(A, a)
    assert pipe.predict(B, width=7).shape == b.shape
    search = GridSearchCV(small(), {"weight_function": FORMS, "default_width": [6, 12]}, cv=2).fit(A[:200], a[:200])
    assert search.best_estimator_.predict(B, width=9).shape == b.shape


def test_weight_decay_shrinks_weights():
    free, held = (small(max_iter=10, weight_decay=decay).fit(A, a).weights_ for decay in (0.0, 0.1))
    for name in ("first", "hidden0", "last"):
        assert np.linalg.norm(held[name]) < np.linalg.norm(free[name]), name


def test_few_rows_constant_columns_and_one_class():
    rows = np.c_[A[:9, 20], np.ones(9)]
    for form in FORMS:
        model = small(weight_function=form).fit(rows, a[:9] % 2)
        assert np.isfinite(model.predict_proba(np.ones((2, 2)))).all()
        one = small(weight_function=form).fit(rows[:1], ["only"])
        assert one.predict(rows, width=7).tolist() == ["only"] * 9
    constant = small(MorphableMLPRegressor, max_iter=100).fit(rows, np.ones(9))
    np.testing.assert_allclose(constant.predict(rows), 1, atol=0.1)


def test_float32_rows_are_answered_in_float32(fitted):
    found = fitted["nested"].predict_proba(B.astype(np.float32), width=20)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, fitted["nested"].predict_proba(B, width=20), atol=1e-5)


@pytest.mark.cuda
@pytest.mark.parametrize("form", FORMS)
def test_a_gpu_answers_as_the_cpu_does(form):
    model = small(weight_function=form, device="cuda").fit(A, a)
    there = model.predict_proba(B, width=7)
    np.testing.assert_allclose(there, model.set_params(device="cpu").predict_proba(B, width=7), atol=1e-6)
    assert next(model.network(7, device="cuda").parameters()).is_cuda
    alike = small(weight_function=form, device="cpu").fit(A, a).predict_proba(B, width=7)
    np.testing.assert_allclose(there, alike, atol=1e-2)  # the same draws
