"""What the three estimators owe to responses of any form: batches, sizes and functions of one's own change nothing."""

import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
from numpydoc.docscrape import ClassDoc
from sklearn.base import clone
from sklearn.model_selection import KFold, LeaveOneOut, cross_val_score

from sklowrank.dimension_reduction import FrechetSDR, KernelFrechetSDR, LinearFrechetSDR

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
SIZES = RNG.integers(5, 30, 40)
SAMPLES = [RNG.normal(x, 1, m) for x, m in zip(X[:, 0], SIZES)]
CLOUDS = [np.array([x, -x]) + 0.3 * RNG.normal(size=(m, 2)) for x, m in zip(X[:, 0], SIZES)]
UNEVEN = {
    "samples": ("wasserstein", SAMPLES),
    "clouds": ("wasserstein", CLOUDS),
    "function": (lambda a, b: abs(a.mean() - b.mean()), SAMPLES),
    "function of clouds": (lambda a, b: np.linalg.norm(a.mean(0) - b.mean(0)), CLOUDS),
}
each = pytest.mark.parametrize(
    "estimator",
    [
        LinearFrechetSDR(1),
        LinearFrechetSDR(1, method="fccov"),
        LinearFrechetSDR(1, method="second"),
        KernelFrechetSDR(1, random_state=0),
        FrechetSDR(1, n_estimators=1, max_iter=3, random_state=0),
    ],
    ids=["wire", "fccov", "second", "kernel", "network"],
)


def fitted(estimator, metric, y, **params):
    return clone(estimator).set_params(metric=metric, **params).fit(X, y)


@each
@pytest.mark.parametrize("form", UNEVEN)
def test_responses_of_unequal_size_are_scored_in_any_batch(form, estimator):
    metric, y = UNEVEN[form]
    model = fitted(estimator, metric, y)
    whole = model.score(X, y)
    assert np.isfinite(whole)
    assert model.score(X[::-1], y[::-1]) == pytest.approx(whole)
    one = [model.score(X[i : i + 1], y[i : i + 1]) for i in range(5)]
    assert np.isfinite(one).all()
    assert np.isfinite(model.score(X, [sample[:5] for sample in y]))  # all of one size
    series = pd.Series(y)
    assert fitted(estimator, metric, series).score(X, series) == pytest.approx(whole)


@each
@pytest.mark.parametrize("form", ["samples", "clouds"])
def test_sizes_of_new_samples_need_not_be_those_of_fit(form, estimator):
    metric, y = UNEVEN[form]
    model = fitted(estimator, metric, np.array([sample[:5] for sample in y]))
    scores = [model.score(X, y), model.score(X, [np.repeat(s[:5], 8, axis=0) for s in y]), model.score(X[:1], y[:1])]
    assert np.isfinite(scores).all()
    twin = pickle.loads(pickle.dumps(model))
    assert twin.score(X, y) == scores[0]


@pytest.mark.parametrize("cv", [LeaveOneOut(), KFold(3)], ids=["leave one out", "three folds"])
def test_cross_validation_of_samples_of_unequal_size(cv):
    for estimator in (LinearFrechetSDR(1), KernelFrechetSDR(1, gamma=0.1, alpha=0.1)):
        model = clone(estimator).set_params(metric="wasserstein")
        assert np.isfinite(cross_val_score(model, X, SAMPLES, cv=cv, error_score="raise")).all()


@each
@pytest.mark.parametrize("form", ["samples", "clouds"])
def test_stored_models_know_the_form(form, estimator):
    metric, y = UNEVEN[form]
    model = fitted(estimator, metric, y)
    stored = skops.io.dumps(model)
    there = skops.io.loads(stored, trusted=skops.io.get_untrusted_types(data=stored))
    assert there.score(X, y) == model.score(X, y)
    assert len(model.landmark_objects_) == len(model.landmarks_)


def test_clouds_show_the_direction_that_moves_them():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(200, 5))
    clouds = [np.array([x, -x]) + 0.3 * rng.normal(size=(m, 2)) for x, m in zip(rows[:, 0], rng.integers(30, 60, 200))]
    for method in ("wire", "fccov"):
        found = LinearFrechetSDR(1, method=method, metric="wasserstein").fit(rows, clouds).components_[0]
        assert abs(found[0]) / np.linalg.norm(found) > 0.99


@each
def test_matrices_that_are_not_symmetric_are_refused(estimator):
    S = np.array([[[2.0, x], [x, 2.0]] for x in 0.5 * np.tanh(X[:, 0])])
    rounded = S + 1e-10 * np.triu(np.ones((2, 2)), 1)
    model = fitted(estimator, "spd", rounded)
    spoilt = S.copy()
    spoilt[7, 1, 0] += 0.2
    for call in (lambda: fitted(estimator, "spd", spoilt), lambda: model.score(X, spoilt)):
        with pytest.raises(ValueError, match="symmetric matrices, but row 7 of y differs from its transpose by"):
            call()


@pytest.mark.parametrize("method", ["fccov", "second"])
def test_a_weight_is_a_number_of_rows_for_samples_too(method):
    count = np.random.default_rng(2).integers(0, 3, 40)
    rows = np.repeat(np.arange(40), count)
    for metric, y in UNEVEN.values():
        model = LinearFrechetSDR(1, method=method, metric=metric)
        weighted = clone(model).fit(X, y, sample_weight=count).transform(X)
        repeated = clone(model).fit(X[rows], [y[row] for row in rows]).transform(X)
        assert np.allclose(weighted, repeated, atol=1e-7)


def test_linear_and_kernel_have_equal_texts_ranges_and_defaults():
    pair = LinearFrechetSDR, KernelFrechetSDR
    texts = [{p.name: (p.type, p.desc) for p in ClassDoc(cls)["Parameters"]} for cls in pair]
    shared = set(texts[0]) & set(texts[1])
    assert shared == {"n_components", "metric", "n_landmarks", "n_thresholds", "device"}
    for name in shared:
        assert texts[0][name] == texts[1][name]
        assert str(pair[0]._parameter_constraints[name]) == str(pair[1]._parameter_constraints[name])
        assert pair[0]().get_params()[name] == pair[1]().get_params()[name]


@pytest.mark.parametrize("estimator", [LinearFrechetSDR(1), KernelFrechetSDR(1)], ids=["linear", "kernel"])
def test_given_distances_leave_no_objects_of_a_former_fit(estimator):
    X = np.random.default_rng(0).normal(size=(60, 2))
    estimator.fit(X, X[:, 0])
    assert estimator.landmark_objects_.shape == (60,)
    estimator.set_params(metric="precomputed").fit(X, abs(X[:, :1] - X[:, 0]))
    assert not hasattr(estimator, "landmark_objects_")
    assert "landmarks" not in estimator._fitted  # an attribute holds them
