"""Supervised dictionary learning: its objective, its solvers, covariates, signs, and the traps of the method."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
import torch
from scipy.optimize import nnls
from scipy.special import logsumexp
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

from sklowrank.decomposition import SupervisedDictionaryLearning, SupervisedDictionaryRegressor
from sklowrank.decomposition._sdl.objective import logistic, softmax, squared
from sklowrank.decomposition._sdl.solver_bcd import codes

CANCER, MALIGN = load_breast_cancer(return_X_y=True)
CANCER = scale(CANCER)
WINE, KINDS = load_wine(return_X_y=True)
WINE = scale(WINE)


def fitted(X, y, n_components=2, *, covariates=None, sample_weight=None, **params):
    model = SupervisedDictionaryLearning(n_components, **{"random_state": 0, **params})
    return model.fit(X, y, covariates=covariates, sample_weight=sample_weight)


def nuisance(seed, n=600, p=30):
    """A signal in one weak direction under strong nuisance, beside two covariates."""
    rg = np.random.RandomState(seed)
    Q = np.linalg.qr(rg.randn(p, 6))[0]
    u, w, z = 5 * rg.randn(n, 5), 1.5 * rg.randn(n, 1), rg.randn(n, 2)
    X = u @ Q[:, :5].T + w @ Q[:, 5:].T + 0.5 * rg.randn(n, p)
    y = rg.rand(n) < 1 / (1 + np.exp(-(2 * w[:, 0] + 1.5 * z[:, 0] - z[:, 1])))
    return X, y.astype(int), z


def objective(model, X, y, xi=0.1, C=1.0):
    """The objective as the documentation states it, in plain numpy, for the filter model without covariates."""
    X = X - model.mean_
    H = np.linalg.lstsq(model.components_.T, X.T, rcond=None)[0].T
    lost = ((X - H @ model.components_) ** 2).sum() / (X**2).sum()
    scores = X @ model.feature_coef_.T + model.intercept_
    share = 0.5 if scores.shape[1] == 1 else 1.0
    if scores.shape[1] == 1:
        scores = np.hstack([np.zeros_like(scores), scores])
    entropy = (logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]).mean()
    return entropy + xi * lost + share * (model.feature_coef_**2).sum() / (2 * C * len(y))


def angle(A, B):
    """The widest angle between two spans, in degrees."""
    return np.degrees(np.arccos(min(1.0, np.linalg.svd(A @ B.T)[1].min())))


# The objective and its optimum


@pytest.mark.parametrize(("X", "y"), [(CANCER, MALIGN), (WINE, KINDS)], ids=["two classes", "three"])
@pytest.mark.parametrize("solver", ["lbfgs", "lpgd", "bcd"])
def test_all_solvers_report_the_documented_objective(X, y, solver):
    model = fitted(X, y, solver=solver, max_iter=3000)
    assert model.loss_curve_[-1] == pytest.approx(objective(model, X, y), rel=1e-4)


@pytest.mark.parametrize(("X", "y", "r"), [(CANCER, MALIGN, 2), (CANCER, MALIGN, 5), (WINE, KINDS, 2)])
def test_two_solvers_reach_one_optimum(X, y, r):
    values = [objective(fitted(X, y, r, solver=s, tol=1e-9, max_iter=3000), X, y) for s in ("lbfgs", "lpgd")]
    assert values[1] == pytest.approx(values[0], rel=1e-3)


@pytest.mark.parametrize(("X", "y"), [(CANCER, MALIGN), (WINE, KINDS)], ids=["two classes", "three"])
def test_no_direction_lowers_the_objective(X, y):
    """At the optimum: central differences of the documented objective are as small as rounding lets them be."""
    model, rng, step = fitted(X, y), np.random.default_rng(0), 1e-5
    coef, components = model.feature_coef_.copy(), model.components_.copy()
    for _ in range(5):
        dW, dB = rng.normal(size=components.shape), rng.normal(size=model.coef_.shape)

        def at(t, dW=dW, dB=dB):
            model.components_ = components + t * dW
            model.feature_coef_ = (model.coef_ + t * dB) @ model.components_
            return objective(model, X, y)

        assert abs(at(step) - at(-step)) / (2 * step) < 1e-8
    assert np.allclose(coef, model.coef_ @ components)


@pytest.mark.parametrize("K", [2, 3])
def test_without_reconstruction_and_with_room_it_is_logistic_regression(K):
    """Two classes are penalised as two opposite columns: half as much as the one column of LogisticRegression."""
    X, y = WINE[KINDS < K], KINDS[KINDS < K]
    model = fitted(X, y, 5, xi=0)
    plain = LogisticRegression(C=2 if K == 2 else 1, tol=1e-10, max_iter=10_000).fit(X, y)
    assert np.abs(model.predict_proba(X) - plain.predict_proba(X)).max() < 1e-5


def test_much_reconstruction_is_principal_components():
    model = fitted(CANCER, MALIGN, 3, xi=1000)
    assert angle(model.components_, PCA(3).fit(CANCER).components_) < 0.5


def test_span_is_that_of_the_weights_and_the_principal_directions_they_leave():
    model = fitted(CANCER, MALIGN, 3)
    a = model.feature_coef_ / np.linalg.norm(model.feature_coef_)
    rest = PCA(2).fit(CANCER - CANCER @ a.T @ a).components_
    assert angle(np.vstack([a, rest]), model.components_) < 1e-4


def test_signal_under_nuisance_is_found_and_the_dial_works_both_ways():
    X, y, z = nuisance(0)
    pca = LogisticRegression().fit(np.hstack([PCA(3).fit_transform(X), z]), y)
    plain = pca.score(np.hstack([PCA(3).fit_transform(X), z]), y)
    model, high = fitted(X, y, 3, covariates=z), fitted(X, y, 3, xi=1.0, covariates=z)
    assert model.score(X, y, covariates=z) > plain + 0.08
    assert high.score(X, y, covariates=z) < plain + 0.03
    assert model.reconstruction_error_ > 1.2 * high.reconstruction_error_


# Form


def test_canonical_form():
    X, y, z = nuisance(0)
    model = fitted(X, y, 3, covariates=z)
    W, H = model.components_, model.transform(X)
    assert np.allclose(W @ W.T, np.eye(3), atol=1e-12)
    assert np.all(W[np.arange(3), np.abs(W).argmax(1)] > 0)
    assert np.all(np.diff((H**2).sum(0)) < 0)
    rule = H @ model.coef_[0] + z @ model.covariate_coef_[0] + model.intercept_[0]
    assert np.allclose(model.decision_function(X, covariates=z), rule)
    left = ((X - model.inverse_transform(H)) ** 2).sum() / ((X - X.mean(0)) ** 2).sum()
    assert model.reconstruction_error_ == pytest.approx(left, rel=1e-10)


@pytest.mark.parametrize("params", [{}, {"model": "feature"}, {"nonnegative": True}, {"nonnegative": "codes"}], ids=str)
def test_codes_of_training_rows_are_those_of_any_copy(params):
    X = np.abs(CANCER)
    model = SupervisedDictionaryLearning(3, random_state=0, max_iter=30, tol=1e-3, **params)
    H = model.fit_transform(X, MALIGN)
    alone = np.vstack([model.transform(row[None]) for row in X[:20]])
    assert np.abs(alone - H[:20]).max() < 1e-9 * np.abs(H).max()


@pytest.mark.parametrize("K", [2, 3])
def test_probabilities_are_finite_at_large_scores(K):
    X, y = WINE[KINDS < K], KINDS[KINDS < K]
    P = fitted(X, y).predict_proba(1e9 * X)
    assert np.allclose(P.sum(1), 1)
    assert np.isfinite(fitted(X, y).predict_log_proba(X)).all()


def test_scale_and_copies_leave_the_span():
    model = fitted(CANCER, MALIGN, 3)
    larger = fitted(10 * CANCER, MALIGN, 3, C=0.01)
    twice = fitted(np.vstack([CANCER, CANCER]), np.r_[MALIGN, MALIGN], 3, C=0.5)
    assert angle(model.components_, larger.components_) < 1e-3
    assert angle(model.components_, twice.components_) < 1e-3


# Weights


@pytest.mark.parametrize("K", [2, 3])
def test_integer_weights_are_copies_and_zero_is_absence(K):
    X, y = WINE[KINDS < K], KINDS[KINDS < K]
    weight = np.random.default_rng(0).integers(0, 4, size=len(y))
    model = fitted(X, y, sample_weight=weight)
    copies = fitted(np.repeat(X, weight, axis=0), np.repeat(y, weight))
    assert np.allclose(model.decision_function(X), copies.decision_function(X), rtol=1e-7, atol=1e-9)
    assert np.allclose(model.transform(X), copies.transform(X), rtol=1e-7, atol=1e-9)


def test_class_weight_finds_more_of_the_rare_class():
    rare = np.r_[np.flatnonzero(MALIGN == 1), np.flatnonzero(MALIGN == 0)[:15]]
    found = [
        (fitted(CANCER[rare], MALIGN[rare], 1, xi=1.0, class_weight=w).predict(CANCER[rare]) == 0).sum()
        for w in (None, {0: 1, 1: 0.05}, "balanced")
    ]
    assert found[0] < min(found[1:])


# Covariates


COLUMNS = {
    "integers": [30, 31],
    "slice": slice(30, 32),
    "mask": np.arange(32) >= 30,
    "negative": [-2, -1],
    "names": ["age", "site"],
    "callable": lambda T: [c for c in T.columns if not c.startswith("x")],
}


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_covariates_as_columns_equal_covariates_beside(columns):
    X, y, z = nuisance(1)
    table = pd.DataFrame(np.hstack([X, z]), columns=[*(f"x{i}" for i in range(30)), "age", "site"])
    beside = fitted(X, y, 3, covariates=z)
    model = fitted(table, y, 3, covariate_columns=columns)
    assert list(model.covariate_indices_) == [30, 31]
    assert np.allclose(model.predict_proba(table), beside.predict_proba(X, covariates=z), atol=1e-8)
    assert np.allclose(model.transform(table), beside.transform(X), atol=1e-8)
    assert model.inverse_transform(model.transform(table)).shape == X.shape


def test_sparse_rows_with_covariates_as_columns():
    X, y, z = nuisance(1)
    whole = np.hstack([X, z])
    dense = fitted(whole, y, 3, covariate_columns=[30, 31], center=False)
    sparse = fitted(sp.csr_array(whole), y, 3, covariate_columns=[30, 31])
    assert np.allclose(dense.predict_proba(whole), sparse.predict_proba(sp.csr_array(whole)), atol=1e-7)


def test_covariates_given_wrongly_are_refused():
    X, y, z = nuisance(2, n=100)
    model = fitted(X, y, covariates=z)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        with pytest.raises(ValueError, match="fitted with 2 covariates: pass covariates="):
            getattr(model, method)(X)
    with pytest.raises(ValueError, match="fitted with 2 covariates"):
        model.score(X, y)
    with pytest.raises(ValueError, match="covariates has 1 columns, but fit was given 2"):
        model.predict(X, covariates=z[:, :1])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted(X, y, covariates=z[:-1])
    with pytest.raises(ValueError, match="cannot be given as well"):
        fitted(X, y, covariates=z, covariate_columns=[0])
    with pytest.raises(ValueError, match="names all columns of X"):
        fitted(X, y, covariate_columns=slice(None))
    with pytest.raises(ValueError, match="NaN"):
        fitted(X, y, covariates=np.full_like(z, np.nan))
    assert model.transform(X).shape == (100, 2)


def test_covariates_are_routed_through_pipelines_and_grid_searches():
    X, y, z = nuisance(3, n=300)
    with sklearn.config_context(enable_metadata_routing=True):
        model = SupervisedDictionaryLearning(3, random_state=0)
        for method in ("fit", "predict", "score"):
            model = getattr(model, f"set_{method}_request")(covariates=True)
        pipe = make_pipeline(StandardScaler(), model)
        assert pipe.fit(X, y, covariates=z).score(X, y, covariates=z) > 0.7
        search = GridSearchCV(pipe, {"superviseddictionarylearning__xi": [0.03, 1.0]}, cv=3, error_score="raise")
        search.fit(X, y, covariates=z)
        assert search.best_params_["superviseddictionarylearning__xi"] == 0.03
        without = cross_val_score(SupervisedDictionaryLearning(3, random_state=0), X, y, cv=3).mean()
        assert search.best_score_ > without


def test_scale_of_covariates_does_not_matter_but_for_the_penalty():
    X, y, z = nuisance(0)
    model, larger = (fitted(X, y, 3, C=1e6, covariates=s * z + o) for s, o in ((1, 0), (1e4, 1e6)))
    assert np.allclose(1e4 * larger.covariate_coef_, model.covariate_coef_, rtol=1e-3)


# Signs, and the feature model


@pytest.mark.parametrize("nonnegative", [True, "components", "codes"])
@pytest.mark.parametrize("kind", ["filter", "feature"])
def test_signs_hold_and_the_objective_never_rises(kind, nonnegative):
    X, y = load_digits(n_class=3, return_X_y=True)
    model = fitted(X / 16, y, 4, model=kind, nonnegative=nonnegative, tol=1e-4)
    assert nonnegative == "codes" or model.components_.min() >= 0
    assert nonnegative == "components" or model.transform(X / 16).min() >= 0
    assert np.allclose(np.linalg.norm(model.components_, axis=1), 1)
    assert model.coef_.min() < 0 < model.coef_.max()
    assert np.diff(model.loss_curve_).max() <= 0
    assert model.score(X / 16, y) > 0.95


def test_block_descent_without_signs_reaches_the_optimum_of_lbfgs():
    values = [fitted(CANCER, MALIGN, solver=s, max_iter=5000, tol=1e-9).loss_curve_[-1] for s in ("lbfgs", "bcd")]
    assert values[1] == pytest.approx(values[0], rel=1e-4)


def test_nonnegative_codes_solve_nonnegative_least_squares():
    rng = np.random.default_rng(0)
    W, X = np.abs(rng.normal(size=(8, 3))), rng.normal(size=(20, 8))
    H = codes(torch.from_numpy(X @ W), torch.from_numpy(W), True).numpy()
    assert np.allclose(H, [nnls(W, x)[0] for x in X], atol=1e-8)


def test_feature_model_is_refitted_on_codes_that_have_not_seen_the_classes():
    model = fitted(CANCER, MALIGN, 3, model="feature", C=0.1)
    H = model.transform(CANCER)
    best = LogisticRegression(C=0.2, tol=1e-10, max_iter=10_000).fit(H, MALIGN)  # two classes: half the penalty
    assert np.allclose(model.coef_, best.coef_, rtol=1e-4)
    assert log_loss(MALIGN, model.predict_proba(CANCER)) == pytest.approx(
        log_loss(MALIGN, best.predict_proba(CANCER @ model.components_.T)), rel=1e-5
    )


# Input


def test_sparse_equals_dense_with_and_without_centring():
    X = sp.random_array((80, 30), density=0.2, random_state=np.random.default_rng(0), format="csr")
    y = (X.toarray()[:, :5].sum(1) > 0.5).astype(int)
    for center in (False, True):
        dense = fitted(X.toarray(), y, 3, center=center)
        sparse = fitted(X, y, 3, center=center)
        assert np.allclose(dense.mean_, sparse.mean_)
        assert np.allclose(dense.decision_function(X.toarray()), sparse.decision_function(X), atol=1e-7)
        assert np.allclose(np.abs(dense.transform(X.toarray())), np.abs(sparse.transform(X)), atol=1e-6)
    assert np.all(fitted(X, y).mean_ == 0)


def test_more_columns_than_rows_and_many_columns():
    """The moments are multiplied through X where there are fewer rows than half the columns."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2)) @ rng.normal(size=(2, 510)) + 0.1 * rng.normal(size=(60, 510))
    y = (X[:, 0] > 0).astype(int)
    values = [objective(fitted(X, y, solver=s, max_iter=2000, tol=1e-9), X, y) for s in ("lbfgs", "lpgd")]
    assert values[1] == pytest.approx(values[0], rel=1e-3)


def test_more_components_than_the_data_have():
    flat = np.hstack([CANCER[:, :4], np.ones((len(CANCER), 2))])
    model = fitted(flat, MALIGN, 5)
    assert np.isfinite(model.predict_proba(flat)).all()
    assert np.allclose(model.components_ @ model.components_.T, np.eye(5), atol=1e-10)
    with pytest.warns(UserWarning, match=r"n_components=40 is too large .* 30 were used"):
        assert fitted(CANCER, MALIGN, 40).components_.shape == (30, 30)


def test_labels_of_any_kind():
    for names in (["benign", "malign"], [False, True], [-1.0, 2.0], [7, 3]):
        y = np.array(names)[MALIGN]
        model = fitted(CANCER, y)
        assert model.classes_.dtype == y.dtype
        assert model.score(CANCER, y) > 0.95
    with pytest.raises(ValueError, match="only one class"):
        fitted(CANCER, np.zeros(len(CANCER)))
    with pytest.raises(ValueError, match="Unknown label type"):
        fitted(CANCER, CANCER[:, 0])


def test_start_may_be_given():
    start = np.random.default_rng(0).normal(size=(2, 30))
    assert objective(fitted(CANCER, MALIGN, init=start), CANCER, MALIGN) == pytest.approx(
        objective(fitted(CANCER, MALIGN), CANCER, MALIGN), rel=1e-6
    )
    with pytest.raises(ValueError, match=r"init has shape \(2, 30\), but \(3, 30\) is needed"):
        fitted(CANCER, MALIGN, 3, init=start)
    with pytest.raises(ValueError, match="init has negative entries"):
        fitted(np.abs(CANCER), MALIGN, nonnegative=True, init=start)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"solver": "lbfgs", "model": "feature"}, "does not serve model='feature'"),
        ({"solver": "lpgd", "nonnegative": True}, "does not serve nonnegative=True"),
        ({"nonnegative": True}, "needs X without negative entries"),
        ({"nonnegative": "components", "init": "svd"}, "init='svd' has negative entries"),
    ],
)
def test_options_that_do_not_go_together_name_the_cure(params, text):
    with pytest.raises(ValueError, match=text):
        fitted(CANCER, MALIGN, **params)


# Losses


@pytest.mark.parametrize("loss", [logistic, softmax, squared], ids=["logistic", "softmax", "squared"])
def test_losses_have_their_derivatives(loss):
    generator = torch.Generator().manual_seed(0)
    width = 3 if loss is softmax else 1
    scores = torch.randn(6, width, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.eye(width, dtype=torch.float64)[torch.arange(6) % width]
    values, slopes = loss.value_and_slope(scores, targets)
    (by_autograd,) = torch.autograd.grad(values.sum(), scores, create_graph=True)
    assert torch.allclose(slopes, by_autograd)
    direction = torch.randn(6, width, generator=generator, dtype=torch.float64)
    H = torch.autograd.functional.hessian(lambda s: loss.value_and_slope(s, targets)[0].sum(), scores.detach())
    H = H.reshape(6 * width, 6 * width)
    predictions = loss.link(scores.detach())
    assert torch.allclose(loss.curve(predictions, direction).flatten(), H @ direction.flatten())
    steepest = torch.stack(
        [torch.linalg.eigvalsh(H[i : i + width, i : i + width]).max() for i in range(0, 6 * width, width)]
    )
    assert (steepest <= loss.steepness(predictions) + 1e-12).all()
    assert (steepest <= loss.bound + 1e-12).all()


# Regression


def test_regressor_without_reconstruction_and_with_room_is_ridge_regression():
    X, y = load_diabetes(return_X_y=True)
    X = scale(X)
    model = SupervisedDictionaryRegressor(3, xi=0, random_state=0).fit(X, y)
    plain = Ridge(alpha=1.0, tol=1e-12).fit(X, y)
    assert np.allclose(model.predict(X), plain.predict(X), rtol=1e-6)


def test_regressor_beats_principal_components_in_the_units_of_y():
    X, y = load_diabetes(return_X_y=True)
    X = scale(X)
    model = SupervisedDictionaryRegressor(2, random_state=0).fit(X, 1000 * y)
    plain = make_pipeline(PCA(2), Ridge()).fit(X, 1000 * y)
    assert model.score(X, 1000 * y) > plain.score(X, 1000 * y) + 0.05
    rule = model.transform(X) @ model.coef_[0] + model.intercept_[0]
    assert np.allclose(model.predict(X), rule)


def test_regressor_with_covariates_weights_and_constant_targets():
    X, y = load_diabetes(return_X_y=True)
    X, z, y = scale(X)[:, 2:], scale(X)[:, :2], y
    weight = np.random.default_rng(0).integers(0, 3, size=len(y))
    model = SupervisedDictionaryRegressor(2, random_state=0).fit(X, y, sample_weight=weight, covariates=z)
    rows = np.repeat(np.arange(len(y)), weight)
    copies = SupervisedDictionaryRegressor(2, random_state=0).fit(X[rows], y[rows], covariates=z[rows])
    assert np.allclose(model.predict(X, covariates=z), copies.predict(X, covariates=z), rtol=1e-7)
    assert model.score(X, y, covariates=z) > 0.45
    flat = SupervisedDictionaryRegressor(2, random_state=0).fit(X, np.full(len(y), 3.0))
    assert np.allclose(flat.predict(X), 3.0)
