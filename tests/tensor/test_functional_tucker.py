"""FunctionalTuckerRegressor against formulas written out, other regressors, and its traps."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process.kernels import Matern
from sklearn.linear_model import LinearRegression

from sklowrank.tensor import FunctionalTuckerRegressor
from sklowrank.tensor._packed import folded_moment, packed, unpacked

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
FIXED = {"optimize_hyperparameters": False, "random_state": 0}


def surface(n=240, noise=0.1, seed=0, n_features=2):
    """A sum of two products of waves on rounded coordinates."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.uniform(size=(n, n_features)), 2)
    clean = np.prod(np.sin(4 * X + 1), axis=1) + np.prod(np.cos(3 * X), axis=1)
    return X, clean, clean + noise * clean.std() * rng.normal(size=n)


def rmse(guess, y):
    return np.sqrt(np.mean((guess - y) ** 2))


# Against formulas written out


@pytest.mark.parametrize("core", ["tucker", "cp"])
def test_modes_are_the_dense_solve_of_their_messages(core):
    """The last mode is fitted last: its posterior is that of messages made of the other modes, a row at a time."""
    X, _, y = surface(60, n_features=3)
    X = np.round(X, 1)
    model = FunctionalTuckerRegressor(2, core=core, tol=0, max_iter=60, **FIXED).fit(X, y)
    m, V = model.mode_means_, model.mode_covariances_
    codes = [np.searchsorted(values, X[:, k]) for k, values in enumerate(model.mode_values_)]
    tau, target = model.scale_**2 / model.noise_variance_, (y - model.intercept_) / model.scale_
    S = [V[k][codes[k]] + np.einsum("na,nb->nab", m[k][codes[k]], m[k][codes[k]]) for k in range(3)]
    if core == "cp":
        linear, quadratic = m[0][codes[0]] * m[1][codes[1]], S[0] * S[1]
    else:
        G = np.einsum("abc,def->abcdef", model.core_, model.core_) + model.core_covariance_.reshape([2] * 6)
        linear = np.einsum("abc,na,nb->nc", model.core_, m[0][codes[0]], m[1][codes[1]])
        quadratic = np.einsum("abcdef,nad,nbe->ncf", G, S[0], S[1])
    T = len(m[2])
    h, L = np.zeros((T, 2)), np.zeros((T, 2, T, 2))
    for row, t in enumerate(codes[2]):
        h[t] += tau * target[row] * linear[row]
        L[t, :, t] += tau * quadratic[row]
    K = np.kron(Matern(0.3, nu=1.5)(np.linspace(0, 1, T)[:, None]), np.eye(2))
    posterior = np.linalg.solve(np.eye(2 * T) + K @ L.reshape(2 * T, 2 * T), K)
    np.testing.assert_allclose(m[2], (posterior @ h.ravel()).reshape(T, 2), atol=1e-5)
    found = np.stack([posterior[2 * t : 2 * t + 2, 2 * t : 2 * t + 2] for t in range(T)])
    np.testing.assert_allclose(V[2], found, atol=1e-5)


@pytest.mark.parametrize("core", ["tucker", "cp"])
def test_predictions_are_moments_of_the_posterior(core):
    X, _, y = surface(n_features=3)
    model = FunctionalTuckerRegressor(2, core=core, max_iter=15, **FIXED).fit(X, y)
    new = np.random.default_rng(1).uniform(-0.1, 1.1, size=(40, 3))
    mean, std = model.predict(new, return_std="latent")
    draws = model.sample_y(new, 4000, random_state=0)
    np.testing.assert_allclose(draws.mean(1), mean, atol=0.1 * std.max())
    np.testing.assert_allclose(draws.std(1), std, rtol=0.15)
    np.testing.assert_allclose(model.predict(new, return_std=True)[1] ** 2 - std**2, model.noise_variance_, rtol=1e-9)
    functions = [model.factor_functions(k, new[:, k], return_std=True) for k in range(3)]
    path = "na,nb,nc,abc->n" if core == "tucker" else "na,na,na,a->n"
    want = np.einsum(path, *(f for f, _ in functions), model.core_)
    np.testing.assert_allclose(mean, model.intercept_ + model.scale_ * want, atol=1e-12)
    assert all(f.shape == s.shape == (40, 2) for f, s in functions)


@pytest.mark.parametrize("core", ["tucker", "cp"])
@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_bound_never_falls(core, damping):
    X, _, y = surface(100)
    for rank in (1, 3):
        loss = FunctionalTuckerRegressor(rank, core=core, damping=damping, max_iter=25, random_state=0).fit(X, y)
        assert np.diff(loss.loss_curve_).max() <= 1e-8 * abs(loss.loss_curve_[-1])


def test_cp_ascends_with_momentum():
    """Any damping is an ascent without."""
    X, _, y = surface(80, n_features=4)
    fits = [FunctionalTuckerRegressor(2, core="cp", damping=d, max_iter=30, **FIXED).fit(X, y) for d in (0.0, 1e-9)]
    on, off = (np.asarray(model.loss_curve_) for model in fits)
    np.testing.assert_allclose(on[:10], off[:10], rtol=1e-6)
    assert on[-1] < off[-1]
    assert np.diff(on).max() <= 0


def test_packed_matrices_have_the_products_of_full_ones():
    rng = np.random.default_rng(0)
    roots = [torch.from_numpy(rng.normal(size=(r, r))) for r in (2, 3)]
    first, second = (A @ A.T for A in roots)
    W = rng.normal(size=(6, 6))
    W = torch.from_numpy(W + W.T).reshape(2, 3, 2, 3)
    want = torch.einsum("aibj,ab,ij->", W, first, second)
    found = torch.einsum("p,q,pq->", packed(first), packed(second), folded_moment(W, [0, 1]))
    assert float(found) == pytest.approx(float(want))
    np.testing.assert_array_equal(unpacked(packed(second), 3), second)
    partly = torch.einsum("abq,q->ab", folded_moment(W, [1]), packed(second))
    np.testing.assert_allclose(partly, torch.einsum("aibj,ij->ab", W, second))


# Against other regressors


def test_beats_boosting_on_smooth_low_rank_data_and_knows_its_error():
    X, clean, y = surface(700, 0.3, n_features=3)
    train, test = slice(0, 450), slice(450, None)
    model = FunctionalTuckerRegressor(2, max_iter=40, random_state=0).fit(X[train], y[train])
    boosting = HistGradientBoostingRegressor().fit(X[train], y[train])
    assert rmse(model.predict(X[test]), clean[test]) < 0.5 * rmse(boosting.predict(X[test]), clean[test])
    mean, std = model.predict(X[test], return_std=True)
    assert 0.84 <= np.mean(np.abs(mean - y[test]) < 1.6449 * std) <= 0.96
    assert np.sqrt(model.noise_variance_) == pytest.approx(0.3 * clean.std(), rel=0.15)


def test_additive_structure_is_found():
    X, _, _ = surface(300)
    y = np.sin(5 * X[:, 0]) + X[:, 1] ** 2
    assert FunctionalTuckerRegressor(2, random_state=0).fit(X[:200], y[:200]).score(X[200:], y[200:]) > 0.999


def test_irrelevant_columns_among_many():
    rng = np.random.default_rng(0)
    X = np.round(rng.normal(size=(200, 8)), 1)
    y = 5 * X[:, 3] + rng.normal(size=200)
    model = FunctionalTuckerRegressor(2, max_iter=20, random_state=0).fit(X[:150], y[:150])
    linear = LinearRegression().fit(X[:150], y[:150])
    assert model.core_.shape == (2,)
    assert model.score(X[150:], y[150:]) > linear.score(X[150:], y[150:]) - 0.05


# Traps


def test_new_coordinates_are_those_of_a_fit_that_held_them_without_weight():
    X, _, y = surface(100)
    new = np.random.default_rng(0).uniform(0.02, 0.98, size=(20, 2))
    weight = np.r_[np.ones(100), np.full(20, 1e-11)]
    settings = {"core": "cp", "kernel": ["matern12", "matern52"], "max_iter": 10, **FIXED}
    plain = FunctionalTuckerRegressor(2, **settings).fit(X, y)
    held = FunctionalTuckerRegressor(2, **settings).fit(np.r_[X, new], np.r_[y, np.zeros(20)], sample_weight=weight)
    for a, b in zip(plain.predict(new, return_std="latent"), held.predict(new, return_std="latent")):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_far_away_is_the_prior():
    X, _, y = surface()
    model = FunctionalTuckerRegressor(3, core="cp", signal_variance=1.5, max_iter=10, **FIXED).fit(X, y)
    mean, std = model.predict([[90.0, -90.0]], return_std="latent")
    assert mean[0] == pytest.approx(y.mean())
    assert std[0] == pytest.approx(np.sqrt(3 * 1.5**2) * model.scale_)


@pytest.mark.parametrize("seed", range(3))
def test_pure_noise_stays_noise(seed):
    rng = np.random.default_rng(seed)
    X, y = np.round(rng.uniform(size=(60, 2)), 1), rng.normal(size=60)
    assert FunctionalTuckerRegressor(2, random_state=0).fit(X, y).noise_variance_ > 0.5 * y.var()


@pytest.mark.parametrize("core", ["tucker", "cp"])
def test_weights_are_counts(core):
    X, _, y = surface(80)
    settings = {"core": core, "max_iter": 8, "tol": 0, **FIXED}
    weight = np.random.default_rng(0).integers(0, 3, 80)
    weighted = FunctionalTuckerRegressor(2, **settings).fit(X, y, sample_weight=weight)
    repeated = FunctionalTuckerRegressor(2, **settings).fit(np.repeat(X, weight, 0), np.repeat(y, weight))
    new = np.random.default_rng(1).uniform(size=(30, 2))
    for a, b in zip(weighted.predict(new, return_std=True), repeated.predict(new, return_std=True)):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    assert weighted.loss_curve_ == pytest.approx(repeated.loss_curve_)


def test_blocks_and_order_of_rows_change_nothing():
    X, _, y = surface(n_features=3)
    order = np.random.default_rng(0).permutation(len(X))
    want = FunctionalTuckerRegressor(2, max_iter=8, **FIXED).fit(X, y).predict(X, return_std=True)
    for batch_size, rows in ((17, slice(None)), ("auto", order)):
        model = FunctionalTuckerRegressor(2, max_iter=8, batch_size=batch_size, **FIXED).fit(X[rows], y[rows])
        for a, b in zip(model.predict(X, return_std=True), want):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_units_of_coordinates_and_of_y(size):
    X, _, y = surface(100)
    want = FunctionalTuckerRegressor(2, max_iter=8, **FIXED).fit(X, y)
    scaled = FunctionalTuckerRegressor(2, max_iter=8, **FIXED).fit(X * size, y * size)
    for a, b in zip(scaled.predict(X * size, return_std=True), want.predict(X, return_std=True)):
        np.testing.assert_allclose(a / size, b, rtol=1e-6, atol=1e-8)


def test_float32_is_fitted_in_float64():
    X, _, y = surface(100)
    model = FunctionalTuckerRegressor(2, max_iter=8, **FIXED).fit(X.astype(np.float32), y)
    assert model.mode_means_[0].dtype == np.float64
    mean, std = model.predict(X.astype(np.float32), return_std=True)
    assert mean.dtype == std.dtype == np.float32
    np.testing.assert_allclose(mean, FunctionalTuckerRegressor(2, max_iter=8, **FIXED).fit(X, y).predict(X), atol=1e-4)


def test_labels():
    rng = np.random.default_rng(0)
    t, level = np.round(rng.uniform(size=300), 2), rng.integers(0, 8, 300)
    gain, shift = rng.normal(size=(2, 8))
    X, y = np.c_[t, 10.0 * level], gain[level] * np.sin(7 * t) + shift[level] + 0.05 * rng.normal(size=300)
    model = FunctionalTuckerRegressor(2, categorical_features=[False, True], random_state=0).fit(X[:200], y[:200])
    assert rmse(model.predict(X[200:]), y[200:]) < 0.15
    mean, std = model.predict([[0.5, 10.0], [0.5, 11.0]], return_std=True)
    assert mean[1] == pytest.approx(y[:200].mean())  # no interpolation between labels
    assert std[1] > 3 * std[0]
    draws = model.sample_y([[0.5, 10.0], [0.5, 11.0]], 500, random_state=0)
    assert draws[1].std() > 3 * draws[0].std()
    assert model.length_scale_[1] == 0.3  # not learned


def test_products_that_are_not_centred():
    X, _, _ = surface(300)
    y = np.exp(np.sin(4 * X[:, 0]) + X[:, 1])
    fits = {
        on: FunctionalTuckerRegressor(1, fit_intercept=on, random_state=0).fit(X[:200], y[:200]) for on in (False, True)
    }
    assert fits[False].intercept_ == 0.0
    assert rmse(fits[False].predict(X[200:]), y[200:]) < 0.5 * rmse(fits[True].predict(X[200:]), y[200:])


def test_starts():
    X, _, y = surface(60, n_features=2)
    one, three = (FunctionalTuckerRegressor(2, n_init=n, max_iter=10, random_state=0).fit(X, y) for n in (1, 3))
    assert three.loss_curve_[-1] <= one.loss_curve_[-1]


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (np.zeros((1, 2)), [3.0]),
        (np.zeros((5, 1)), np.arange(5.0)),
        (np.c_[np.arange(6.0), np.full(6, 2.0)], np.arange(6.0)),
        (np.random.default_rng(0).uniform(size=(9, 2)), np.full(9, 5.0)),
        (np.random.default_rng(0).uniform(size=(3, 30)), np.arange(3.0)),
    ],
    ids=["one row", "one coordinate", "constant column", "constant y", "wide"],
)
def test_odd_shapes(X, y):
    model = FunctionalTuckerRegressor(2, max_iter=30, random_state=0).fit(X, y)
    mean, std = model.predict(np.r_[X, X + 1], return_std=True)
    assert np.isfinite(mean).all()
    assert (std > 0).all()
    assert np.mean(mean[: len(y)]) == pytest.approx(np.mean(y), abs=0.3)
    assert np.isfinite(model.sample_y(X, 2, random_state=0)).all()


@pytest.mark.parametrize("core", ["tucker", "cp"])
def test_constant_y_for_many_sweeps(core):
    X = np.random.default_rng(0).uniform(size=(30, 2))
    model = FunctionalTuckerRegressor(1, core=core, tol=0, max_iter=30, random_state=0).fit(X, np.full(30, 5.0))
    np.testing.assert_allclose(model.predict(X), 5.0, atol=0.05)


def test_large_core_is_refused():
    X = np.random.default_rng(0).uniform(size=(20, 6))
    with pytest.raises(ValueError, match=r"at most 4096 can be learned. Lower rank, or use core='cp'"):
        FunctionalTuckerRegressor(5, core="tucker").fit(X, X[:, 0])


def test_refusals():
    X, _, y = surface(20)
    for settings, word in (
        ({"rank": [2]}, "one for each column"),
        ({"rank": [0, 2]}, "no int >= 1"),
        ({"rank": [2.5, 2]}, "no int >= 1"),
        ({"rank": [1, 2], "core": "cp"}, "needs equal ones"),
        ({"kernel": ["matern12", "rbf"]}, "unknown entry"),
        ({"length_scale": [0.1, -1.0]}, "not a positive number"),
        ({"noise_prior": (1.0, 0.0)}, "no pair of positive"),
        ({"categorical_features": [2]}, "does not have"),
        ({"categorical_features": [True]}, "is a mask of shape"),
    ):
        with pytest.raises(ValueError, match=word):
            FunctionalTuckerRegressor(**settings).fit(X, y)
    with pytest.raises(ValueError, match="at least one non-zero"):
        FunctionalTuckerRegressor().fit(X, y, sample_weight=np.zeros(20))
    model = FunctionalTuckerRegressor(1, max_iter=2).fit(X, y)
    with pytest.raises(ValueError, match="return_std"):
        model.predict(X, return_std="noise")
    with pytest.raises(ValueError, match="no column"):
        model.factor_functions(2, [0.0])
    with pytest.raises(ValueError, match="no column"):
        model.factor_functions(0.5, [0.0])
    for n_samples in (0, 2.5, True):
        with pytest.raises(ValueError, match="'n_samples' parameter of sample_y must be"):
            model.sample_y(X, n_samples)


def test_defaults_converge_on_a_surface():
    X, _, y = surface()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model = FunctionalTuckerRegressor(random_state=0).fit(X, y)
    assert model.n_iter_ < 100


@pytest.mark.cuda
def test_cuda_gives_the_same():
    X, _, y = surface(n_features=3)
    want, found = (FunctionalTuckerRegressor(2, max_iter=8, device=d, **FIXED).fit(X, y) for d in ("cpu", "cuda"))
    for a, b in zip(found.predict(X, return_std=True), want.predict(X, return_std=True)):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert found.sample_y(X, 3, random_state=0) == pytest.approx(want.sample_y(X, 3, random_state=0), abs=1e-5)
