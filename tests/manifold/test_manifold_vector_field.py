"""Vector fields by a Gaussian process on the connection Laplacian: against dense references, and its traps."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neighbors import NearestNeighbors

from sklowrank.manifold import ManifoldVectorFieldRegressor
from sklowrank.manifold import _connection as connection
from sklowrank.manifold import _field_evidence as likelihood
from sklowrank.manifold import _field_process as process

FIXED = {"tangent_neighbors": 1.5, "optimizer": None, "length_scale": 20.0, "noise_variance": 0.01, "n_eigenpairs": 40}


def sphere(n, seed=0):
    """Points on a sphere and a smooth tangent field there."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X, np.cross([0, 0, 1.0], X) + 0.8 * (np.array([1.0, 0, 0]) - X[:, :1] * X)


def roll(n, seed=0, gap=0.2):
    """A sheet rolled so that its turns are close to one another, and a field that turns along it."""
    rng, a = np.random.default_rng(seed), gap / (2 * np.pi)
    t, h = np.sqrt(15 * rng.random(n) + 1) * np.pi, 2 * rng.random(n)
    X = np.c_[a * t * np.cos(t), h, a * t * np.sin(t)]
    along = np.c_[np.cos(t) - t * np.sin(t), 0 * t, np.sin(t) + t * np.cos(t)]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    angle = (a * 0.5 * (t * np.sqrt(1 + t * t) + np.arcsinh(t)) + 0.8 * h)[:, None]
    return X, np.cos(angle) * along + np.sin(angle) * np.array([0, 1.0, 0])


def some_known(F, n_known, seed=1, noise=0.1):
    """Noisy labels at some places and NaN elsewhere, and which are given."""
    rng = np.random.default_rng(seed)
    given = np.zeros(len(F), dtype=bool)
    given[rng.choice(len(F), n_known, replace=False)] = True
    return np.where(given[:, None], F + noise * rng.normal(size=F.shape), np.nan), given


def r2(guess, truth):
    return 1 - ((guess - truth) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()


def slow_laplacian(X, k=10, wide=15, d=2):
    """The connection Laplacian and the frames, row by row."""
    n, near = len(X), NearestNeighbors(n_neighbors=wide).fit(X).kneighbors(return_distance=False)
    T = np.array([np.linalg.svd((X[near[i]] - X[i]).T)[0][:, :d] for i in range(n)])
    W = np.zeros((n, n))
    for i in range(n):
        W[i, near[i, :k]] = W[near[i, :k], i] = 1
    L = np.diag(np.repeat(W.sum(1), d))
    for i, j in zip(*np.nonzero(W)):
        U, _, Vh = np.linalg.svd(T[i].T @ T[j])
        L[i * d : i * d + d, j * d : j * d + d] = -U @ Vh
    return L, T


@pytest.fixture(scope="module")
def small():
    X, F = sphere(150)
    y, given = some_known(F, 50)
    return X, F, y, given


@pytest.mark.parametrize("kernel", ["matern", "rbf"])
@pytest.mark.parametrize("ambient", [None, "matern"])
def test_mean_deviation_and_evidence_are_those_of_dense_algebra(small, kernel, ambient):
    X, _, y, given = small
    model = ManifoldVectorFieldRegressor(kernel=kernel, ambient=ambient, **FIXED).fit(X, y)
    L, T = slow_laplacian(X)
    w, V = np.linalg.eigh(L)
    assert np.allclose(model.eigenvalues_, w[:40], atol=1e-10)
    codes = (T @ V[:, :40].reshape(150, 2, 40)) * np.sqrt(300)
    p = model.kernel_params_
    s = np.exp(-w[:40] * 200) if kernel == "rbf" else (w[:40] + 3 / 400) ** -1.5
    K = np.einsum("aik,k,bjk->aibj", codes, p["amplitude"] * s / s.sum(), codes)
    observed, seen = codes[given], y[given]
    if ambient:
        r = np.sqrt(3) * cdist(X, X) / p["ambient_length_scale"]
        K += p["ambient_amplitude"] * np.einsum("ab,ij->aibj", (1 + r) * np.exp(-r), np.eye(3))
        target, across = seen.ravel(), K[:, :, given].reshape(150, 3, -1)
        among = K[given][:, :, given].reshape(150, 150)
    else:
        target = np.einsum("nDd,nD->nd", T[given], seen).ravel()
        across = np.einsum("aibj,bjd->aibd", K[:, :, given], T[given]).reshape(150, 3, -1)
        among = np.einsum("aid,aibj,bje->adbe", T[given], K[given][:, :, given], T[given]).reshape(100, 100)
    among = among + p["noise_variance"] * np.eye(len(among))
    mean, std = model.predict(X, return_std=True)
    assert np.allclose(mean, across @ np.linalg.solve(among, target), atol=1e-8)
    prior = np.einsum("aiai->ai", K)
    variance = prior - np.einsum("nik,kl,nil->ni", across, np.linalg.inv(among), across)
    assert np.allclose(std**2, variance, atol=1e-8)
    log_det = np.linalg.slogdet(among)[1]
    evidence = -0.5 * (target @ np.linalg.solve(among, target) + log_det + len(target) * np.log(2 * np.pi))
    assert model.log_marginal_likelihood_value_ == pytest.approx(evidence, abs=1e-6)
    assert observed.shape == (50, 3, 40)


@pytest.mark.parametrize("kernel", ["matern", "rbf"])
def test_slopes_of_the_evidence_are_differences(kernel):
    generator = torch.Generator().manual_seed(0)
    P, Y, points = (torch.randn(9, *s, generator=generator, dtype=torch.float64) for s in ((2, 7), (2, 3), (3,)))
    observed = likelihood.Observed(P, Y, torch.arange(9), torch.zeros(1), torch.ones(3))
    options = likelihood.ProcessOptions(kernel, "matern", 1.5, 5.0, 1e-3, None, 0)
    moments, _ = likelihood.moments_of(observed, likelihood.coordinates_of(observed, points), 0.8)
    moments = moments._replace(G=moments.G + torch.eye(7), b=moments.b + 0.1, y=moments.y + 3, n_rest=2, lost=0.4)
    call = lambda theta: likelihood.loss_and_slope(theta, moments, torch.linspace(0.1, 2, 7).double(), options)  # noqa: E731
    theta = np.log([2.0, 0.6, 0.05, 0.7])
    differences = [(call(theta + 1e-5 * e)[0] - call(theta - 1e-5 * e)[0]) / 2e-5 for e in np.eye(4)]
    assert np.allclose(call(theta)[1], differences, rtol=1e-6)


def test_inducing_points_are_a_bound_that_becomes_exact(small, monkeypatch):
    X, _, y, _ = small
    exact = ManifoldVectorFieldRegressor(**FIXED).fit(X, y)
    monkeypatch.setattr(likelihood, "_EXACT", 149)
    monkeypatch.setattr(likelihood, "_INDUCING", 48)
    most = ManifoldVectorFieldRegressor(**FIXED).fit(X, y)
    monkeypatch.setattr(likelihood, "_INDUCING", 20)
    few = ManifoldVectorFieldRegressor(**FIXED).fit(X, y)
    evidence = [m.log_marginal_likelihood_value_ for m in (few, most, exact)]
    assert evidence == sorted(evidence)
    scale = exact.predict(X, return_std=True)[1].mean()
    assert np.abs(most.predict(X) - exact.predict(X)).mean() < 0.2 * scale


def test_the_frames_are_arbitrary(small, monkeypatch):
    """Each tangent basis is turned or mirrored at random: nothing that is seen changes."""
    X, _, y, _ = small
    plain = ManifoldVectorFieldRegressor(**FIXED).fit(X, y)
    new = sphere(40, seed=5)[0]
    answers = [*plain.predict(X, return_std=True), plain.predict(new)]
    bases = connection._local_bases
    rng = np.random.default_rng(0)

    def turned(*args):
        found, spread = bases(*args)
        Q = np.linalg.qr(rng.normal(size=(len(found), 2, 2)))[0]
        return torch.cat([found[:, :, :2] @ torch.from_numpy(Q), found[:, :, 2:]], 2), spread

    monkeypatch.setattr(connection, "_local_bases", turned)
    other = ManifoldVectorFieldRegressor(**FIXED).fit(X, y)
    assert not np.allclose(plain.gauges_, other.gauges_)
    for one, two in zip(answers, [*other.predict(X, return_std=True), other.predict(new)]):
        assert np.allclose(one, two, atol=1e-10)


@pytest.mark.parametrize("weights", ["binary", "gaussian"])
def test_units_order_of_rows_and_turns_change_nothing(small, weights):
    X, _, y, _ = small
    fixed = {**FIXED, "weights": weights}
    mean, std = ManifoldVectorFieldRegressor(**fixed).fit(X, y).predict(X, return_std=True)
    rng = np.random.default_rng(0)
    order, Q = rng.permutation(len(X)), np.linalg.qr(rng.normal(size=(3, 3)))[0]
    other = ManifoldVectorFieldRegressor(**fixed).fit(1e20 * X[order] @ Q, 1e-20 * y[order] @ Q)
    found = other.predict(1e20 * X @ Q, return_std=True)
    assert np.allclose(1e20 * found[0] @ Q.T, mean, atol=1e-9)
    assert np.allclose(1e40 * (found[1] ** 2).sum(1), (std**2).sum(1), atol=1e-9)


def test_new_points_follow_the_laplacian():
    """At known points the extension is the mode itself, up to edges that only the other point counts."""
    X, F = roll(400)
    y, _ = some_known(F, 100)
    model = ManifoldVectorFieldRegressor(random_state=0).fit(X, y)
    beside = np.abs(model.predict(X + 1e-7) - model.predict(X))
    assert 0 < np.median(beside) < 0.05
    new, truth = roll(200, seed=3)
    assert r2(model.predict(new), truth) > 0.85


def test_blocks_and_precision_change_nothing(small, monkeypatch):
    X, _, y, _ = small
    model, new = ManifoldVectorFieldRegressor(**FIXED).fit(X, y), sphere(60, seed=5)[0]
    whole = model.predict(new, return_std=True)
    monkeypatch.setattr("sklowrank._core.blocks._AUTO_BYTES", 1 << 14)
    for one, two in zip(whole, model.predict(new, return_std=True)):
        assert np.allclose(one, two, atol=1e-12)
    single = ManifoldVectorFieldRegressor(**FIXED).fit(X.astype(np.float32), y)
    assert single.predict(X.astype(np.float32)).dtype == np.float32
    assert np.abs(single.predict(X.astype(np.float32)) - model.predict(X)).max() < 1e-3


@pytest.mark.parametrize("scalar", [False, True])
def test_eigenpairs_by_factors_and_by_filter_are_those_of_the_dense_matrix(scalar, monkeypatch):
    X, F = roll(500)
    y, _ = some_known(F[:, :1] if scalar else F, 60)
    fitted = []
    for dense, surface in ((10**6, 3), (0, 3), (0, 0)):
        monkeypatch.setattr(connection, "_DENSE", dense)
        monkeypatch.setattr(connection, "_SURFACE", surface)
        fitted.append(ManifoldVectorFieldRegressor(**FIXED).fit(X, y))
    for other in fitted[1:]:
        assert np.allclose(fitted[0].eigenvalues_, other.eigenvalues_, atol=1e-8)
        assert np.allclose(fitted[0].predict(X), other.predict(X), atol=1e-6)


def test_groups_of_equal_eigenvalues_stay_whole():
    """On a grid with the symmetries of a square, whose modes come in pairs, the answer keeps the symmetries."""
    X = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), -1).reshape(-1, 2)
    y = np.full(81, np.nan)
    y[[0, 8, 40]] = 1.0, 1.0, -1.0
    sizes = set()
    for n_eigenpairs in range(4, 20):
        model = ManifoldVectorFieldRegressor(8, n_eigenpairs=n_eigenpairs, optimizer=None).fit(X, y)
        picture = model.predict(X).reshape(9, 9)
        assert np.allclose(picture, picture[:, ::-1], atol=1e-8)
        sizes.add(len(model.eigenvalues_))
    assert len(sizes) < 16


def test_few_labels_on_a_tight_roll_need_the_surface():
    X, F = roll(700)
    y, given = some_known(F, 70)
    model = ManifoldVectorFieldRegressor(random_state=0).fit(X, y)
    kernel = ConstantKernel() * Matern(nu=1.5) + WhiteKernel(0.01)
    plain = GaussianProcessRegressor(kernel, random_state=0).fit(X[given], y[given])
    ours, theirs = r2(model.predict(X)[~given], F[~given]), r2(plain.predict(X[~given]), F[~given])
    assert ours > theirs + 0.05
    columns = ManifoldVectorFieldRegressor(signal="scalar", ambient=None, random_state=0).fit(X, y)
    assert ours > r2(columns.predict(X)[~given], F[~given]) + 0.02  # columns one by one do not know of tangents


def test_a_smooth_field_on_a_sphere_is_left_to_the_coordinates():
    X, F = sphere(400)
    y, given = some_known(F, 80)
    model = ManifoldVectorFieldRegressor(random_state=0).fit(X, y)
    bare = ManifoldVectorFieldRegressor(ambient=None, random_state=0).fit(X, y)
    kernel = ConstantKernel() * Matern(nu=1.5) + WhiteKernel(0.01)
    plain = GaussianProcessRegressor(kernel, random_state=0).fit(X[given], y[given])
    scores = [r2(m.predict(X[~given]), F[~given]) for m in (model, bare, plain)]
    assert scores[0] > scores[2] - 0.005
    assert scores[0] > scores[1]
    assert model.kernel_params_["ambient_amplitude"] > model.kernel_params_["amplitude"]


def test_tangent_spaces_are_wider_where_points_are_noisy():
    X, F = sphere(400)
    rng = np.random.default_rng(2)
    X, F = np.pad(X, ((0, 0), (0, 9))), np.pad(F, ((0, 0), (0, 9)))
    y, given = some_known(F, 100)
    assert ManifoldVectorFieldRegressor(optimizer=None).fit(X, y).tangent_neighbors_ == 1.5  # the points are clean
    noisy = X + 0.04 * rng.normal(size=X.shape)
    fits = [ManifoldVectorFieldRegressor(tangent_neighbors=w, optimizer=None).fit(noisy, y) for w in (1.5, 3, 6)]
    best = max(fits, key=lambda fit: fit.log_marginal_likelihood_value_)
    model = ManifoldVectorFieldRegressor(optimizer=None).fit(noisy, y)
    assert model.tangent_neighbors_ == best.tangent_neighbors_ > 1.5
    assert np.array_equal(model.predict(noisy), best.predict(noisy))
    bare = {"ambient": None, "random_state": 0}
    model, narrow = (ManifoldVectorFieldRegressor(**w, **bare).fit(noisy, y) for w in ({}, {"tangent_neighbors": 1.5}))
    assert model.tangent_neighbors_ > 1.5
    assert r2(model.predict(noisy)[~given], F[~given]) > r2(narrow.predict(noisy)[~given], F[~given]) + 0.01


def test_tangent_spaces_are_not_wider_where_the_surface_is_curved():
    X, F = roll(500)  # the likelihood alone would take all of space for the tangent space
    y, _ = some_known(F, 100)
    model = ManifoldVectorFieldRegressor(random_state=0).fit(X, y)
    assert (model.tangent_neighbors_, model.intrinsic_dim_) == (1.5, 2)


def test_the_likelihood_of_whole_vectors_counts_parts_beside_the_tangent_spaces_as_noise(small):
    X, _, y, given = small
    place, values = torch.arange(150), torch.from_numpy(3 * y)
    cloud = connection.connection_modes(
        torch.from_numpy(X), connection.GraphOptions(True, 10, 1.5, 2, 0.8, 40, "binary")
    )
    options = likelihood.ProcessOptions("rbf", None, 1.5, 20.0, 0.01, None, 0)
    observed = process.observe(values, place, cloud, True, in_frames=True)
    found = process.fit_process(observed, None, cloud.eigenvalues, options, None)
    noise = found.kernel.noise_variance * float(observed.scale) ** 2
    E, s = cloud.codes[given].numpy().reshape(150, 40), np.exp(-cloud.eigenvalues.numpy() * 200)
    K = (E * (s / s.sum() * float(observed.scale) ** 2)) @ E.T + noise * np.eye(150)
    target = 3 * y[given].ravel()
    slow = target @ np.linalg.solve(K, target) + np.linalg.slogdet(K)[1] + 150 * np.log(2 * np.pi)
    assert found.log_likelihood_of_all == pytest.approx(-slow / 2, abs=1e-6)


def test_columns_of_numbers_have_units_of_their_own(small):
    X, F, _, given = small
    y = np.where(given[:, None], F[:, :2], np.nan)
    model = ManifoldVectorFieldRegressor(random_state=0).fit(X, y)
    other = ManifoldVectorFieldRegressor(random_state=0).fit(X, y * [1, 1e6] + [5, 0])
    assert np.allclose(model.predict(X) * [1, 1e6] + [5, 0], other.predict(X), rtol=1e-4, atol=1e-4)
    ratio = other.kernel_params_["amplitude"] / model.kernel_params_["amplitude"]
    assert np.allclose(ratio, [1, 1e12], rtol=1e-3)
    change = other.log_marginal_likelihood_value_ - model.log_marginal_likelihood_value_
    assert change == pytest.approx(-given.sum() * np.log(1e6), rel=1e-6)


def test_copies_of_a_point_are_one_location(small):
    X, _, y, _ = small
    model = ManifoldVectorFieldRegressor(**FIXED).fit(X, y)
    twice = ManifoldVectorFieldRegressor(**FIXED).fit(np.r_[X, X], np.r_[y, np.full_like(y, np.nan)])
    assert np.allclose(model.predict(X), twice.predict(X), atol=1e-10)
    assert np.array_equal(twice.gauges_[:150], twice.gauges_[150:])
    labelled = ManifoldVectorFieldRegressor(**FIXED).fit(np.r_[X, X], np.r_[y, y])
    assert np.isfinite(labelled.predict(X, return_std=True)).all()


def test_draws_have_mean_and_covariance_of_the_posterior(small):
    X, _, y, _ = small
    for ambient in (None, "matern"):
        model = ManifoldVectorFieldRegressor(ambient=ambient, **FIXED).fit(X, y)
        mean, std = model.predict(X[:20], return_std=True)
        draws = model.sample_y(X[:20], 2000, random_state=0)
        assert draws.shape == (20, 3, 2000)
        assert np.abs(draws.mean(2) - mean).max() < 5 * std.max() / np.sqrt(2000)
        assert np.allclose(draws.std(2), std, rtol=0.1, atol=1e-6)
    assert ManifoldVectorFieldRegressor(**FIXED).fit(X, y[:, 0]).sample_y(X[:5], 7).shape == (5, 7)


def test_refusals(small):
    X, F, _, _ = small
    make = ManifoldVectorFieldRegressor
    torn = F.copy()
    torn[7, 1] = np.nan
    for model, y, text in (
        (make(), torn, r"NaN in part: \[7\]"),
        (make(), np.full_like(F, np.nan), "no label"),
        (make(signal="tangent"), F[:, :2], "signal='tangent' needs vectors of n_features=3"),
        (make(intrinsic_dim=4), F, "intrinsic_dim=4 is too large"),
    ):
        with pytest.raises(ValueError, match=text):
            model.fit(X, y)
    with pytest.raises(ValueError, match="minimum of 2"):
        make().fit(X[:1], F[:1])


def test_small_and_flat_clouds():
    X, F = sphere(12)
    for n in (2, 3, 6):
        assert np.isfinite(ManifoldVectorFieldRegressor(random_state=0).fit(X[:n], F[:n]).predict(X)).all()
    line = np.c_[np.linspace(0, 1, 30), np.zeros((30, 2))]
    model = ManifoldVectorFieldRegressor(random_state=0).fit(line, np.c_[np.cos(3 * line[:, 0]), line[:, 1:]])
    assert model.intrinsic_dim_ == 1
    assert np.abs(model.predict(line)[:, 0] - np.cos(3 * line[:, 0])).max() < 0.05
    with pytest.warns(UserWarning, match="mean of y"):
        model = ManifoldVectorFieldRegressor().fit(np.ones((9, 3)), F[:9])
    assert np.allclose(model.predict(np.ones((1, 3))), F[:9].mean(0))


def test_labels_without_noise():
    """Noise-free labels: the optimum lies at the lower bound of the noise."""
    X, F = sphere(120)
    model = ManifoldVectorFieldRegressor(noise_variance=0.0, random_state=0).fit(X, F)
    assert r2(model.predict(X), F) > 0.9999


def test_scores_are_those_of_rows_with_a_label(small):
    X, _, y, given = small
    model = ManifoldVectorFieldRegressor(**FIXED).fit(X, y)
    weights = np.linspace(1, 2, 150)
    assert model.score(X, y) == model.score(X[given], y[given])
    assert model.score(X, y, weights) == model.score(X[given], y[given], weights[given])
    scores = cross_val_score(ManifoldVectorFieldRegressor(**FIXED), X, y, cv=KFold(3, shuffle=True, random_state=0))
    assert np.isfinite(scores).all()


def test_a_point_far_from_all_others_has_no_gaussian_weights(small):
    X, F, _, _ = small
    model = ManifoldVectorFieldRegressor(weights="gaussian", **FIXED)
    model.fit(np.r_[X, [[100.0, 0, 0]]], np.r_[F, [[1.0, 1, 1]]])
    assert r2(model.predict(X), F) > 0.9
    assert np.isfinite(model.predict([[50.0, 0, 0], [1e5, 0, 0]], return_std=True)).all()


@pytest.mark.parametrize("kernel", ["matern", "rbf"])
@pytest.mark.parametrize("length_scale", [1e-300, 1e300])
def test_extreme_length_scales_are_limits(small, kernel, length_scale):
    X, _, y, _ = small
    settings = {**FIXED, "kernel": kernel}
    found, limit = (
        ManifoldVectorFieldRegressor(**{**settings, "length_scale": length}).fit(X, y).predict(X)
        for length in (length_scale, 1e-3 if length_scale < 1 else 3e3)
    )
    assert np.allclose(found, limit, atol=1e-4)


def test_the_kernel_of_large_smoothness_is_the_exponential_one(small):
    X, _, y, _ = small
    smooth = ManifoldVectorFieldRegressor(kernel="rbf", **FIXED).fit(X, y).predict(X)
    for nu in (1e8, 1e16, 1e300):
        assert np.allclose(ManifoldVectorFieldRegressor(nu=nu, **FIXED).fit(X, y).predict(X), smooth, atol=1e-4)
    for nu in (1e-300, 1e300):
        model = ManifoldVectorFieldRegressor(nu=nu, n_eigenpairs=20, random_state=0).fit(X, y)
        assert np.isfinite(model.predict(X)).all()


def test_the_number_of_draws_is_checked(small):
    X, _, y, _ = small
    model = ManifoldVectorFieldRegressor(**FIXED).fit(X, y)
    for bad, error in ((0, ValueError), (1.5, TypeError), (True, ValueError)):
        with pytest.raises(error, match="n_samples"):
            model.sample_y(X[:3], bad)


@pytest.mark.cuda
def test_cuda_gives_the_same_field(small):
    X, _, y, _ = small
    new = sphere(40, seed=5)[0]
    cpu = ManifoldVectorFieldRegressor(device="cpu", **FIXED).fit(X, y)
    cuda = ManifoldVectorFieldRegressor(device="cuda", **FIXED).fit(X, y)
    for points in (X, new):
        for one, two in zip(cpu.predict(points, return_std=True), cuda.predict(points, return_std=True)):
            assert np.allclose(one, two, atol=1e-8)
    large, F = roll(3000)
    y, given = some_known(F, 300)
    model = ManifoldVectorFieldRegressor(device="cuda", random_state=0).fit(large, y)
    assert r2(model.predict(large)[~given], F[~given]) > 0.95
