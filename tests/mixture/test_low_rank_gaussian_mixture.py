"""LowRankGaussianMixture: the exact density, EM, starts, streams, the diffusion solver, and the usual mistakes."""

import warnings

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture

from sklowrank._core import blocks
from sklowrank._core.fitted import options as options_of
from sklowrank._core.rows import Rows
from sklowrank._core.workspace import open_workspace
from sklowrank._math import em
from sklowrank.cluster import KSubspaces, _k_subspaces_starts
from sklowrank.datasets import make_union_of_subspaces
from sklowrank.metrics import clustering_accuracy, subspace_recovery_error
from sklowrank.mixture import LowRankGaussianMixture, _problem
from sklowrank.mixture._starts import mixture_starts

SETTING = {"n_features": 48, "n_dims": 6, "noise": 0.02, "orthogonal": True}


def pieces(n_samples=180, seed=0, **options):
    """Three planes in 12 dimensions, apart from one another."""
    options = {"n_features": 12, "n_dims": 2, "n_clusters": 3, "noise": 0.1, "affine": True, **options}
    return make_union_of_subspaces(n_samples, random_state=seed, **options)


def dense_log_joint(model, X, noise_std=0.0):
    """The joint log densities by dense covariances and scipy."""
    columns = []
    for pi, mu, U, v, s in zip(model.weights_, model.means_, model.bases_, model.variances_, model.noise_variance_):
        cov = (U * v) @ U.T + (s + noise_std**2) * np.eye(len(U))
        columns.append(np.log(pi) + multivariate_normal(mu, cov).logpdf(X))
    return np.array(columns).T


def dense_denoiser(model, X, noise_std):
    """The posterior mean by dense linear algebra: sum of w_k (mu + C (C + g² I)^-1 (x - mu))."""
    L = dense_log_joint(model, X, noise_std)
    W = np.exp(L - logsumexp(L, axis=1, keepdims=True))
    out = np.zeros_like(X)
    for k, (mu, U, v, s) in enumerate(zip(model.means_, model.bases_, model.variances_, model.noise_variance_)):
        C = (U * v) @ U.T + s * np.eye(len(U))
        gain = C @ np.linalg.inv(C + noise_std**2 * np.eye(len(U)))
        out += W[:, [k]] * (mu + (X - mu) @ gain.T)
    return out


# The density


@pytest.mark.parametrize(
    "options",
    [{}, {"noise": "component"}, {"spectrum": "isotropic"}, {"affine": False}, {"n_dims": [1, 2, 3]}],
    ids=str,
)
def test_density_is_that_of_dense_gaussians(options):
    X, _, _ = pieces()
    model = LowRankGaussianMixture(3, **{"n_dims": 2, "random_state": 0, **options}).fit(X)
    L = dense_log_joint(model, X)
    # two ways of one sum of 12 terms of size 1e2: a few hundred eps
    np.testing.assert_allclose(model.score_samples(X), logsumexp(L, axis=1), atol=1e-10)
    np.testing.assert_allclose(model.predict_proba(X), np.exp(L - logsumexp(L, axis=1, keepdims=True)), atol=1e-10)
    assert np.array_equal(model.predict(X), L.argmax(1))
    assert model.lower_bound_ == pytest.approx(model.score(X), abs=1e-10)


def test_density_of_noise_free_rows_far_from_the_origin():
    """Where residuals are a millionth of the mean, products without care lose every digit."""
    X, y, _ = pieces(noise=0.0)
    model = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X + 1e4)
    assert clustering_accuracy(y, model.labels_) == 1
    moved = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X)
    assert model.score(X + 1e4) == pytest.approx(moved.score(X), abs=1e-4)


def test_density_integrates_to_one():
    """A mixture that is in truth K-subspaces has no density to integrate."""
    rng = np.random.default_rng(0)
    one, other = np.outer(rng.normal(size=80), [1, 0.3]), np.outer(rng.normal(size=40), [0.2, -1])
    X = np.vstack([one + np.array([0, 2]), other - np.array([0, 2])])
    model = LowRankGaussianMixture(2, n_dims=1, random_state=0).fit(X + 0.3 * rng.normal(size=X.shape))
    axis = np.linspace(-15, 15, 601)
    grid = np.array(np.meshgrid(axis, axis)).reshape(2, -1).T
    assert np.exp(model.score_samples(grid)).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("noise_std", [0.0, 0.3])
def test_score_gradient_is_the_gradient(noise_std):
    X, _, _ = pieces()
    model = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X)
    step = 1e-5
    expected = np.empty((10, 12))
    for j in range(12):
        shift = step * np.eye(12)[j]
        high, low = (logsumexp(dense_log_joint(model, X[:10] + s, noise_std), axis=1) for s in (shift, -shift))
        expected[:, j] = (high - low) / (2 * step)
    np.testing.assert_allclose(model.score_gradient(X[:10], noise_std), expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("noise_std", [0.05, 0.5, 5.0])
def test_denoise_is_the_posterior_mean(noise_std):
    X, _, _ = pieces()
    model = LowRankGaussianMixture(3, n_dims=2, noise="component", random_state=0).fit(X)
    np.testing.assert_allclose(model.denoise(X, noise_std), dense_denoiser(model, X, noise_std), atol=1e-9)
    tweedie = X + noise_std**2 * model.score_gradient(X, noise_std)
    np.testing.assert_allclose(model.denoise(X, noise_std), tweedie, atol=1e-9)


@pytest.mark.parametrize("noise_std", [np.nan, np.inf, 1e200])
def test_noise_that_cannot_be_squared(noise_std):
    model = LowRankGaussianMixture(2, n_dims=1, init="kmeans", random_state=0)
    for method in (model.denoise, model.score_gradient):
        with pytest.raises(NotFittedError):
            method(np.zeros((1, 4)), noise_std)
    model.fit(np.random.default_rng(0).normal(size=(40, 4)))
    for method in (model.denoise, model.score_gradient):
        with pytest.raises(ValueError, match=r"noise_std=.* is above 1e\+150, or NaN"):
            method(np.zeros((1, 4)), noise_std)


def test_denoise_is_no_projection():
    """Without noise the rows come back, with all noise the mean; a projection does neither."""
    X, _, _ = pieces()
    model = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X)
    np.testing.assert_allclose(model.denoise(X, 0.0), X, atol=1e-12)
    np.testing.assert_allclose(model.denoise(X, 1e7), np.tile(model.weights_ @ model.means_, (len(X), 1)), atol=1e-6)
    assert np.abs(model.project(X) - X).max() > 0.1


def test_project_and_transform():
    X, _, _ = pieces()
    model = LowRankGaussianMixture(3, n_dims=[1, 2, 2], random_state=0).fit(X)
    labels, flat = model.predict(X), model.project(X)
    expected = [
        model.means_[k] + model.bases_[k] @ model.bases_[k].T @ (x - model.means_[k]) for x, k in zip(X, labels)
    ]
    np.testing.assert_allclose(flat, expected, atol=1e-12)
    parts = [model.predict_proba(X)[:, [k]] * ((X - model.means_[k]) @ model.bases_[k]) for k in range(3)]
    np.testing.assert_allclose(model.transform(X), np.hstack(parts), atol=1e-12)
    assert len(model.get_feature_names_out()) == 5


def test_sample_has_the_moments_of_the_model():
    X, _, _ = pieces()
    model = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X)
    S, z = model.sample(60_000)
    assert np.all(np.diff(z) >= 0)
    np.testing.assert_allclose(np.bincount(z) / len(z), model.weights_, atol=0.01)  # 5 standard errors
    for k in range(3):
        cov = (model.bases_[k] * model.variances_[k]) @ model.bases_[k].T + model.noise_variance_[k] * np.eye(12)
        np.testing.assert_allclose(np.cov(S[z == k].T), cov, atol=0.06 * np.linalg.norm(cov, 2))
    assert np.array_equal(model.sample(5)[0], model.sample(5)[0])


def test_information_criteria_count_the_parameters():
    X, _, _ = pieces()
    model = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X)
    # per component: mean 12, frame 12 * 2 - 3, spectrum 2; one noise variance, two free weights
    count = 3 * (12 + 21 + 2) + 1 + 2
    total = model.score_samples(X).sum()
    assert model.aic(X) == pytest.approx(-2 * total + 2 * count)
    assert model.bic(X) == pytest.approx(-2 * total + count * np.log(len(X)))


def test_one_more_dimension_than_features_allow_is_full_covariance():
    """With D - 1 dimensions and its own noise, a component has every covariance: GaussianMixture's, from its labels."""
    X, _, _ = pieces(n_features=4, noise=0.5)
    peer = GaussianMixture(3, random_state=0, tol=1e-9, max_iter=1000, reg_covar=0).fit(X)
    model = LowRankGaussianMixture(3, n_dims=3, noise="component", init=peer.predict(X), tol=1e-9, max_iter=1000).fit(X)
    assert model.score(X) == pytest.approx(peer.score(X), abs=1e-5)


# Expectation maximisation


@pytest.mark.parametrize("affine", [False, True])
def test_one_component_is_probabilistic_pca(affine):
    X, _, _ = make_union_of_subspaces(200, 30, n_dims=4, n_clusters=1, noise=0.05, random_state=0)
    X = X + 3 * affine
    model = LowRankGaussianMixture(1, n_dims=4, affine=affine, random_state=0).fit(X)
    centred = X - X.mean(0) * affine
    e, V = np.linalg.eigh(centred.T @ centred / len(X))
    assert subspace_recovery_error(model.bases_, [V[:, -4:]]) < 1e-10
    assert model.noise_variance_[0] == pytest.approx(e[:-4].mean(), rel=1e-9)  # over D - d, not D
    np.testing.assert_allclose(model.variances_[0], e[:-5:-1] - e[:-4].mean(), rtol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"noise": "component"},
        {"spectrum": "isotropic"},
        {"affine": False, "weights": "uniform"},
        {"n_dims": [5, 1, 1]},
    ],
    ids=str,
)
def test_the_likelihood_never_falls(options):
    X, y, _ = pieces(noise=0.5)
    start = np.random.default_rng(0).permutation(y)
    options = {"n_dims": 4, "init": start, "tol": 0.0, "max_iter": 60, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        bounds = LowRankGaussianMixture(3, **options).fit(X).lower_bounds_
    assert len(bounds) > 10
    assert np.diff(bounds).min() > -1e-10
    assert bounds[-1] > bounds[0]


def test_the_m_step_is_the_maximiser():
    """No small step from it raises the likelihood of rows with known components, clamped spectra included."""
    X, y, _ = pieces(noise=0.6)
    for options in ({"n_dims": [1, 5, 6]}, {"n_dims": 4, "spectrum": "isotropic"}):
        model = LowRankGaussianMixture(3, init=y, max_iter=1, tol=1e9, **options).fit(X)
        labels = model.labels_
        start = LowRankGaussianMixture(3, init=labels, max_iter=1, tol=1e9, **options)
        ws, asked = open_workspace(X), options_of(start, _problem.MixtureOptions)
        problem = _problem.mixture_problem(Rows(X, ws), None, asked, ws, ws.generator)
        ((_, best),), _ = mixture_starts(problem)
        rows = torch.from_numpy(X) - problem.rows.shift
        own = torch.from_numpy(labels)[:, None]

        def expected(model, rows=rows, own=own):
            return float(em.log_joint(rows, model).gather(1, own).mean())

        top = expected(best)
        for factor in (0.99, 1.01):
            assert expected(best._replace(noise=best.noise * factor)) < top
            assert expected(best._replace(variances=best.variances * factor)) <= top
            scaled = (best.variances + best.noise[:, None]) * factor - best.noise[:, None] * factor
            assert expected(best._replace(variances=scaled, noise=best.noise * factor)) < top


def test_blocks_and_sketches_agree_with_one_block(monkeypatch):
    X, y, _ = pieces(300)
    fit = LowRankGaussianMixture(3, n_dims=2, init=y, tol=1e-10).fit
    whole = fit(X)
    monkeypatch.setattr(blocks, "_AUTO_BYTES", 37 * 32 * (12 + 3 * 2))  # 37 rows and their coordinates
    streamed = fit(X)
    np.testing.assert_allclose(streamed.score_samples(X), whole.score_samples(X), atol=1e-8)
    monkeypatch.setattr(em, "_WIDE", 4)
    sketched = LowRankGaussianMixture(3, n_dims=2, init=y, tol=1e-10, random_state=0).fit(X)
    assert np.diff(sketched.lower_bounds_).min() > -1e-10
    np.testing.assert_allclose(sketched.score(X), whole.score(X), atol=1e-6)


def test_weights_equal_repetition():
    X, y, _ = pieces(120, noise=0.4)
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    many, labels = np.repeat(X, counts, axis=0), np.repeat(y, counts)
    for init in ("auto", "array"):
        models = [
            LowRankGaussianMixture(3, n_dims=2, init=labels_ if init == "array" else init, random_state=0)
            for labels_ in (y, labels)
        ]
        weighted, repeated = models[0].fit(X, sample_weight=counts), models[1].fit(many)
        np.testing.assert_allclose(weighted.score_samples(X), repeated.score_samples(X), atol=1e-8)


def test_empty_components_are_seeded_again():
    X, y, _ = pieces(noise=0.05)
    start = np.where(y == 2, 1, y)  # the third component starts without a row
    model = LowRankGaussianMixture(3, n_dims=2, init=start).fit(X)
    assert np.bincount(model.labels_, minlength=3).min() > 10


def test_too_many_components_warn_with_the_cure():
    """A single row far away takes a component for itself, however often that is seeded again."""
    X, _, _ = pieces(60, n_clusters=1)
    X[7] += 1e3
    with pytest.warns(ConvergenceWarning, match="Lower n_components or n_dims"):
        LowRankGaussianMixture(2, n_dims=2, init=np.arange(60) == 7).fit(X)


def test_float32_rows_of_no_noise():
    X, y, _ = pieces(noise=0.0)
    model = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X.astype(np.float32))
    assert clustering_accuracy(y, model.labels_) == 1
    assert model.means_.dtype == model.bases_[0].dtype == np.float32
    assert np.isfinite(model.score_samples(X.astype(np.float32))).all()


def test_warm_start_goes_on():
    X, _, _ = pieces(noise=0.5)
    model = LowRankGaussianMixture(3, n_dims=2, random_state=0, tol=1e-9, max_iter=500).fit(X)
    first = model.lower_bound_
    model.set_params(warm_start=True).fit(X)
    assert model.init_used_ == "warm start"
    assert model.n_iter_ <= 2
    assert model.lower_bound_ >= first - 1e-9
    with pytest.raises(ValueError, match="n_components=4, but the fit so far has 3"):
        model.set_params(n_components=4).fit(X)


@pytest.mark.parametrize("before", [{"n_dims": 2}, {"n_dims": 3}, {"n_dims": [1, 2, 3]}])
@pytest.mark.parametrize("now", [2, 3, 1, [3, 2, 1]])
def test_warm_start_hears_of_other_dimensions(before, now):
    X, y, _ = pieces(n_dims=3)
    model = LowRankGaussianMixture(3, random_state=0, **before).fit(X)
    model.set_params(n_dims=now, warm_start=True).fit(X)
    assert model.init_used_ == "warm start"
    wanted = now if isinstance(now, list) else [now] * 3
    assert model.n_dims_.tolist() == wanted
    assert [U.shape[1] for U in model.bases_] == [len(v) for v in model.variances_] == wanted
    assert clustering_accuracy(y, model.labels_) >= 0.95
    if now == 3:
        fresh = LowRankGaussianMixture(3, n_dims=3, random_state=0).fit(X)
        assert model.score(X) >= fresh.score(X) - 1e-3  # tol is 1e-4 an iteration


def test_warm_start_finds_dimensions_that_were_given_before():
    X, _, _ = pieces(n_dims=3, n_samples=300)
    model = LowRankGaussianMixture(3, n_dims=1, random_state=0).fit(X)
    model.set_params(n_dims="auto", warm_start=True).fit(X)
    assert model.n_dims_.tolist() == [3, 3, 3]
    model.partial_fit(X[:50])
    assert model.n_dims_.tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    "options", [{"affine": False}, {"noise": "component"}, {"spectrum": "isotropic"}, {"weights": "uniform"}]
)
def test_warm_start_hears_of_other_options(options):
    X, _, _ = pieces(n_samples=200)
    model = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X[:190])
    model.set_params(warm_start=True, **options).fit(X[:190])
    if "affine" in options:
        assert np.all(model.means_ == 0)
    if "noise" in options:
        assert len(set(model.noise_variance_)) == 3
    if "spectrum" in options:
        assert all(np.allclose(v, v[0]) for v in model.variances_)
    if "weights" in options:
        assert np.allclose(model.weights_, 1 / 3)


def test_warm_start_with_the_diffusion_solver_hears_of_other_dimensions():
    X, _, _ = pieces()
    model = LowRankGaussianMixture(3, n_dims=1, random_state=0).fit(X)
    model.set_params(n_dims=2, solver="diffusion", solver_params={"max_steps": 3}, warm_start=True).fit(X)
    assert model.n_dims_.tolist() == [2, 2, 2]
    assert len(model.loss_curve_) == 3
    model.partial_fit(X)
    assert not hasattr(model, "loss_curve_")


def test_warm_start_refuses_other_columns():
    X, _, _ = pieces()
    model = LowRankGaussianMixture(3, n_dims=2, random_state=0, warm_start=True).fit(X)
    with pytest.raises(ValueError, match="n_features=11, but the fit so far has 12"):
        model.fit(X[:, :11])


# The start


@pytest.mark.parametrize("more", ["zeros", "twice", "turned", "rare"])
def test_dimension_is_found_among_columns_that_add_none(more):
    X, y, _ = make_union_of_subspaces(300, 20, 3, 3, noise=0.2, affine=True, random_state=0)
    rng = np.random.default_rng(0)
    few = np.where(rng.random((300, 25)) < 0.01, rng.normal(size=(300, 25)), 0)
    turned = X @ np.linalg.qr(rng.normal(size=(60, 20)))[0].T
    wide = {"zeros": np.c_[X, np.zeros((300, 25))], "twice": np.c_[X, X], "turned": turned, "rare": np.c_[X, few]}[more]
    model = LowRankGaussianMixture(3, random_state=0).fit(wide)
    assert model.n_dims_.tolist() == [3] * 3
    assert clustering_accuracy(y, model.labels_) >= 0.99


def test_components_that_no_row_belongs_to_are_warned_of():
    X = np.repeat(np.random.default_rng(0).normal(size=(3, 6)), 20, axis=0)
    with pytest.warns(ConvergenceWarning, match="n_components=5"):
        model = LowRankGaussianMixture(5, n_dims=1, random_state=0).fit(X)
    assert np.array_equal(model.labels_, np.repeat(model.labels_[::20], 20))


def test_best_restarts_are_those_of_exact_runs():
    """Runs that generalised EM leaves early are not those that would have led."""
    X, _, _ = pieces(noise=0.4, n_samples=240)
    data, *_ = em.centred_rows(Rows(torch.from_numpy(X)), None, affine=True, device="cpu")
    form = em.MixtureForm((2, 2, 2), affine=True, isotropic=False, shared=True, uniform=False, floor=1e-9)
    rng = np.random.default_rng(0)
    models = [em.model_of_labels(data, torch.from_numpy(rng.integers(3, size=240)), form) for _ in range(8)]
    exact = []
    for model in models:
        run = em.expectation_maximization(data, model, form)
        exact.append([next(run).lower_bounds[-1] for _ in range(12)][-1])
    starts = [em.Start(str(place), model) for place, model in enumerate(models)]
    best = em.best_restarts(data, starts, form, n_iter=12, keep=2)
    found = [exact[int(start.name)] for start in best]
    assert max(found) >= max(exact) - 0.02  # nats a row: generalised EM lags a little behind


def test_generalised_em_ends_where_em_does():
    X, _, _ = pieces(noise=0.4)
    data, *_ = em.centred_rows(Rows(torch.from_numpy(X)), None, affine=True, device="cpu")
    form = em.MixtureForm((2, 2, 2), affine=True, isotropic=False, shared=True, uniform=False, floor=1e-9)
    start = em.model_of_labels(data, torch.from_numpy(np.random.default_rng(0).integers(3, size=180)), form)
    slow = em.expectation_maximization(data, start, form)
    quick = em.run_restarts(data, [em.Start("random", start)], form, tol=1e-9)
    for _ in range(300):
        one, other = next(slow), next(quick).state
    assert np.all(np.diff(other.lower_bounds) > -1e-8)
    assert other.lower_bounds[-1] == pytest.approx(one.lower_bounds[-1], abs=0.05)


def test_phase_transition_needs_more_than_random_starts():
    """With 12 rows in each of three 6-dimensional subspaces, twenty random starts miss what the default finds."""
    ours, oracle, chance = [], [], []
    for seed in range(3):
        X, y, truth = make_union_of_subspaces(36, n_clusters=3, random_state=seed, **SETTING)
        model = LowRankGaussianMixture(3, n_dims=6, affine=False, random_state=seed).fit(X)
        assert clustering_accuracy(y, model.labels_) == 1
        ours.append(subspace_recovery_error(model.bases_, truth))
        known = [np.linalg.svd(X[y == k], full_matrices=False)[2][:6].T for k in range(3)]
        oracle.append(subspace_recovery_error(known, truth))
        start = KSubspaces(3, n_dims=6, affine=False, init="random", n_init=20, random_state=seed).fit(X)
        chance.append(subspace_recovery_error(start.bases_, truth))
    assert np.mean(ours) <= np.mean(oracle) + 0.01
    assert np.mean(chance) >= 0.3


@pytest.mark.parametrize("init", ["tsc", "omp", "lsr", "k-subspaces", "auto"])
def test_every_start_from_directions_finds_subspaces(init):
    X, y, _ = make_union_of_subspaces(180, n_clusters=3, random_state=0, **SETTING)
    model = LowRankGaussianMixture(3, n_dims=6, affine=False, init=init, random_state=0).fit(X)
    assert clustering_accuracy(y, model.labels_) == 1
    assert init in ("auto", model.init_used_)


@pytest.mark.parametrize("init", ["kmeans", "auto"])
def test_pieces_apart_are_found_from_their_places(init):
    X, y, _ = pieces(noise=0.05)
    model = LowRankGaussianMixture(3, n_dims=2, init=init, random_state=0).fit(X)
    assert clustering_accuracy(y, model.labels_) == 1


def test_random_start_is_an_option_with_restarts():
    X, _, _ = pieces(noise=0.3)
    few, many = (LowRankGaussianMixture(3, n_dims=2, init="random", n_init=n, random_state=0).fit(X) for n in (1, 8))
    assert few.init_used_ == "random"
    assert many.lower_bound_ >= few.lower_bound_


def test_labels_of_any_kind_and_a_callable_start_alike():
    X, y, _ = pieces()
    names = np.array(["b", "a", "c"])[y]
    seen = {}

    def init(X, n_components, random_state):
        seen.update(shape=X.shape, n_components=n_components, random_state=random_state)
        return names

    by_array = LowRankGaussianMixture(3, n_dims=2, init=names).fit(X)
    by_call = LowRankGaussianMixture(3, n_dims=2, init=init, random_state=7).fit(X)
    assert (by_array.init_used_, by_call.init_used_) == ("array", "callable")
    assert seen == {"shape": X.shape, "n_components": 3, "random_state": 7}
    np.testing.assert_array_equal(by_array.score_samples(X), by_call.score_samples(X))


def test_given_dimensions_go_where_they_fit():
    X, y, _ = pieces(400, n_dims=3, noise=0.1)
    plane = y == 1
    X = np.where(plane[:, None], X.mean(0) + 0.1 * np.random.default_rng(0).normal(size=X.shape), X)
    X[plane, 0] += np.random.default_rng(1).normal(size=plane.sum())
    model = LowRankGaussianMixture(3, n_dims=[3, 3, 1], init=y).fit(X)
    assert np.bincount(model.labels_[plane]).argmax() == 2


def test_dimension_is_found():
    X, _, _ = pieces(300, noise=0.05)
    assert LowRankGaussianMixture(3, random_state=0).fit(X).n_dims_.tolist() == [2, 2, 2]


@pytest.mark.parametrize(("n_dims", "n_clusters"), [(4, 5), (6, 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_dimension_is_found_where_starts_mix_clusters(n_dims, n_clusters, seed):
    X, _, _ = make_union_of_subspaces(500, 28, n_dims, n_clusters, noise=0.15, random_state=seed)
    model = LowRankGaussianMixture(n_clusters, random_state=0).fit(X)
    assert model.n_dims_.tolist() == [n_dims] * n_clusters


def test_many_rows_start_from_some_and_stream(monkeypatch):
    for module in (_problem, _k_subspaces_starts):
        monkeypatch.setattr(module, "MOST_ROWS", 500)
    X, y, _ = pieces(1200)
    model = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X)
    assert clustering_accuracy(y, model.labels_) > 0.99
    weighted = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X, sample_weight=np.ones(len(X)))
    np.testing.assert_allclose(weighted.score_samples(X[:100]), model.score_samples(X[:100]), atol=1e-8)


# Streams


def test_partial_fit_comes_near_fit_and_goes_on_from_it():
    X, _, _ = pieces(3000)
    whole = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X)
    stream = LowRankGaussianMixture(3, n_dims=2, random_state=0)
    for batch in np.array_split(X, 15):
        stream.partial_fit(batch)
    assert stream.n_iter_ == 15
    assert whole.score(X) - stream.score(X) < 0.05
    before = whole.score(X)
    whole.partial_fit(X[:200])
    assert before - whole.score(X) < 0.05


def test_partial_fit_follows_a_drift():
    X, _, _ = pieces(600)
    stream = LowRankGaussianMixture(3, n_dims=2, random_state=0)
    for t in range(60):
        stream.partial_fit(X[np.arange(t * 100, t * 100 + 100) % 600] + 0.02 * t)
    still = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X)
    assert stream.score(X + 1.2) > still.score(X + 1.2) + 1


# The diffusion solver


def test_diffusion_with_one_component_is_pca():
    X, _, _ = make_union_of_subspaces(200, n_clusters=1, random_state=0, **SETTING)
    options = {"solver": "diffusion", "solver_params": {"max_steps": 400}, "random_state": 0}
    model = LowRankGaussianMixture(1, n_dims=6, affine=False, **options).fit(X)
    V = np.linalg.svd(X, full_matrices=False)[2][:6].T
    assert subspace_recovery_error(model.bases_, [V]) < 0.06
    np.testing.assert_allclose(model.bases_[0].T @ model.bases_[0], np.eye(6), atol=1e-12)
    assert len(model.loss_curve_) == model.n_iter_ == 400
    assert model.converged_


def test_diffusion_learns_all_parameters():
    X, y, _ = pieces(400, noise=0.2)
    em_fit = LowRankGaussianMixture(3, n_dims=2, init=y).fit(X)
    wrong = np.where(np.random.default_rng(0).random(400) < 0.15, 0, y)
    options = {"n_dims": 2, "init": wrong, "solver": "diffusion", "random_state": 0}
    start = LowRankGaussianMixture(3, solver_params={"max_steps": 1}, **options).fit(X)
    model = LowRankGaussianMixture(3, solver_params={"max_steps": 500}, **options).fit(X)
    assert model.score(X) > start.score(X)
    assert em_fit.score(X) - model.score(X) < 0.5 * (em_fit.score(X) - start.score(X))


def test_diffusion_heeds_the_law_of_the_noise():
    """With hardly any noise the loss is the D that no denoiser can save; with much, a good one saves a share."""
    X, y, _ = pieces()
    losses = {}
    for log_mean in (-6.0, 0.0):
        law = {"noise_log_mean": log_mean, "noise_log_std": 0.0, "max_steps": 1}
        options = {"solver": "diffusion", "solver_params": law, "random_state": 0}
        model = LowRankGaussianMixture(3, n_dims=2, init=y, **options).fit(X)
        losses[log_mean] = model.loss_curve_[0]
    assert losses[-6.0] == pytest.approx(12, rel=0.1)
    assert losses[0.0] < 0.8 * losses[-6.0]


# Quality against the plain baseline, and refusals


def test_beats_gaussian_mixtures_in_many_dimensions():
    X, y, _ = make_union_of_subspaces(1000, 50, n_dims=3, n_clusters=4, noise=0.1, random_state=0)
    train, new = X[:240], X[240:]
    model = LowRankGaussianMixture(4, n_dims=3, affine=False, random_state=0).fit(train)
    peers = [
        GaussianMixture(4, covariance_type=c, random_state=0).fit(train).score(new) for c in ("full", "tied", "diag")
    ]
    assert model.score(new) > max(peers) + 10
    assert clustering_accuracy(y[240:], model.predict(new)) > 0.98
    noisy = new + 0.5 * np.random.default_rng(0).normal(size=new.shape)
    pca = PCA(12).fit(train)
    by_pca = ((pca.inverse_transform(pca.transform(noisy)) - new) ** 2).mean()
    assert ((model.denoise(noisy, 0.5) - new) ** 2).mean() < 0.5 * by_pca


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_dims": 12}, "n_dims=12 is too large for X with n_features=12. Pass at most 11"),
        ({"n_dims": [1, 2]}, "names 2 dimensions for n_components=3"),
        ({"n_components": 200}, "n_samples=180 should be >= n_components=200. Lower n_components or add data"),
        ({"init": [0, 1]}, r"init has shape \(2,\), but X has n_samples=180"),
        ({"init": np.arange(180)}, "init has 180 different labels for n_components=3"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(options, message):
    X, _, _ = pieces()
    with pytest.raises(ValueError, match=message):
        LowRankGaussianMixture(**{"n_components": 3, **options}).fit(X)


def test_other_refusals():
    X, _, _ = pieces()
    model = LowRankGaussianMixture(3, n_dims=2, random_state=0).fit(X)
    with pytest.raises(ValueError, match="noise_std"):
        model.denoise(X, -1.0)
    for count in (0, 2.5, True):
        with pytest.raises(ValueError, match="n_samples"):
            model.sample(count)


def test_options_of_the_diffusion_solver_are_named():
    X, _, _ = pieces()
    model = LowRankGaussianMixture(3, n_dims=2, solver="diffusion", random_state=0)
    with pytest.raises(ValueError, match=r"unknown keys \['steps'\].*'batch_size', 'learning_rate', 'max_steps'"):
        model.set_params(solver_params={"steps": 3}).fit(X)
    with pytest.raises(ValueError, match=r"solver_params\['max_steps'\] == 0, must be >= 1"):
        model.set_params(solver_params={"max_steps": 0}).fit(X)
    with pytest.raises(TypeError, match=r"solver_params\['batch_size'\] must be an instance of int"):
        model.set_params(solver_params={"batch_size": 2.5}).fit(X)
    with pytest.raises(ValueError, match="must be finite"):
        model.set_params(solver_params={"noise_log_mean": np.nan}).fit(X)


def test_the_centre_and_the_scale_of_rows_far_away_are_found_in_one_pass(monkeypatch):
    X = 1e6 + np.random.default_rng(0).normal(size=(400, 3)) * [1, 2, 3]
    weights = np.random.default_rng(1).integers(0, 3, 400).astype(float)
    centre, deviation = np.average(X, axis=0, weights=weights), np.cov(X.T, aweights=weights, ddof=0).trace() / 3
    monkeypatch.setattr(blocks, "_AUTO_BYTES", 50 * 32 * 3)
    rows, variance, rounding = em.centred_rows(
        Rows(torch.from_numpy(X)), torch.from_numpy(weights), affine=True, device="cpu"
    )
    np.testing.assert_allclose(rows.shift, centre, atol=1e-9)  # 1e6 rounds by 1e-10
    assert variance == pytest.approx(deviation, rel=1e-9)
    assert rounding == np.finfo(float).eps * X[weights > 0].max()
    _, about_zero, _ = em.centred_rows(Rows(torch.from_numpy(X)), None, affine=False, device="cpu")
    assert about_zero == pytest.approx((X**2).mean(), rel=1e-12)
