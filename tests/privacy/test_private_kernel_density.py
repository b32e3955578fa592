"""Private densities are near the exact ones, as noisy as they say, and keep nothing of the rows."""

import copy
import math
import pickle
import warnings

import numpy as np
import pytest
import sklearn
import torch
from scipy.sparse import csr_matrix
from sklearn.datasets import load_wine
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity

from sklowrank.privacy import PrivacyLeakWarning, PrivacyWarning, PrivateDistanceSum, PrivateKernelDensity

RNG = np.random.default_rng(0)
X = RNG.random((400, 2))
Y = RNG.random((50, 2))
RANDOM = {"bandwidth": 0.3, "feature_map": "rff"}


@pytest.fixture(autouse=True)
def _seeds_are_for_tests():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "random_state makes the noise reproducible", PrivacyLeakWarning)
        yield


def exact_means(kernel, rows, queries, h):
    difference = (queries[:, None] - rows) / h
    r, s = np.linalg.norm(difference, axis=2), np.abs(difference).sum(2)
    kernels = {
        "gaussian": np.exp(-(r**2) / 2),
        "exponential": np.exp(-r),
        "laplacian": np.exp(-s),
        "cauchy": 1 / (1 + r**2),
        "inverse": 1 / (1 + r),
        "inverse_l1": 1 / (1 + s),
    }
    return kernels[kernel].mean(1)


@pytest.mark.parametrize("kernel", ["gaussian", "exponential", "laplacian", "cauchy", "inverse", "inverse_l1"])
def test_without_noise_random_waves_give_the_kernel(kernel):
    model = PrivateKernelDensity(
        epsilon=1e6, kernel=kernel, bandwidth=0.3, feature_map="rff", n_components=8192, random_state=0
    ).fit(X)
    assert np.abs(model.kernel_means(Y) - exact_means(kernel, X, Y, 0.3)).max() < 4 / math.sqrt(2 * 8192)
    assert np.allclose(model.kernel_sums(Y), model.n_samples_ * model.kernel_means(Y))
    assert model.n_samples_ == pytest.approx(400, abs=0.01)


def test_without_noise_the_grid_is_exact_and_does_not_wrap():
    model = PrivateKernelDensity(epsilon=1e6, bandwidth=0.2, bounds=(0, 1), random_state=0).fit(X)
    assert model.mechanism_ == "gaussian"
    assert np.abs(model.kernel_means(Y) - exact_means("gaussian", X, Y, 0.2)).max() < 1e-4
    left = PrivateKernelDensity(epsilon=1e6, bandwidth=0.2, bounds=(0, 1), random_state=0)
    assert abs(left.fit(np.full((400, 2), 0.01)).kernel_means([[0.99, 0.01]])[0]) < 1e-3


@pytest.mark.parametrize(("kernel", "theirs"), [("gaussian", "gaussian"), ("exponential", "exponential")])
def test_densities_are_those_of_scikit_learn(kernel, theirs):
    model = PrivateKernelDensity(
        epsilon=1e6, kernel=kernel, bandwidth=0.3, feature_map="rff", n_components=8192, random_state=0
    ).fit(X)
    exact = KernelDensity(kernel=theirs, bandwidth=0.3).fit(X)
    assert np.allclose(model.score_samples(Y), exact.score_samples(Y), atol=0.15)
    assert model.score(Y) == pytest.approx(exact.score(Y), rel=0.1)


def test_laplacian_density_integrates_to_one():
    model = PrivateKernelDensity(epsilon=1e6, kernel="laplacian", bandwidth=0.5, random_state=0, n_components=4096)
    model.fit(np.zeros((100, 1)))
    places = np.linspace(-4, 4, 4001)
    assert np.exp(model.score_samples(places[:, None])).sum() * 0.002 == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "params",
    [
        {"delta": 1e-6},
        {"delta": 0.0},
        {"delta": 1e-6, "feature_map": "auto", "bounds": (0, 1)},
        {"delta": 0.0, "feature_map": "auto", "bounds": (0, 1)},
        {"adjacency": "substitute"},
        {"mechanism": "laplace"},
    ],
)
def test_noise_is_what_it_says(params):
    """Over seeds: entries of the sketch and answers spread as stated, the sketch is on the lattice."""
    params = {**RANDOM, "n_components": 64, "feature_random_state": 0, **params}
    fits = [PrivateKernelDensity(random_state=seed, **params).fit(X[:30]) for seed in range(200)]
    ratio = math.sqrt(2) if fits[0].mechanism_ == "laplace" else 1
    spread = np.std([model.sketch_ for model in fits], axis=0, ddof=1)
    assert math.sqrt((spread**2).mean()) == pytest.approx(ratio * fits[0].noise_scale_, rel=0.03)
    answers = np.std([model.kernel_sums(Y) for model in fits], axis=0, ddof=1)
    assert math.sqrt((answers**2).mean()) == pytest.approx(fits[0].noise_std_, rel=0.15)
    assert np.allclose(fits[0].standard_error(Y), fits[0].noise_std_)
    lattice = fits[0].sketch_ * 2**20
    assert np.array_equal(lattice, np.rint(lattice))


def test_more_waves_cost_no_privacy_under_gaussian_noise():
    few, many = (PrivateKernelDensity(n_components=n, random_state=0, **RANDOM).fit(X) for n in (16, 4096))
    assert few.noise_std_ == pytest.approx(many.noise_std_, rel=1e-3)
    assert few.noise_std_ == pytest.approx(4.531 * math.sqrt(1 + 0.25**2), rel=1e-3)
    pure = PrivateKernelDensity(delta=0.0, n_components=256, random_state=0, **RANDOM).fit(X)
    assert pure.noise_std_ == pytest.approx(2 * 16 / 0.9, rel=0.01)
    hinted = PrivateKernelDensity(delta=0.0, n_samples_hint=1000, **RANDOM).fit(X)
    assert len(hinted.amplitudes_) == 350


def test_the_count_is_noisy_unless_rows_are_substituted():
    counts = [PrivateKernelDensity(n_components=8, random_state=s, **RANDOM).fit(X).n_samples_ for s in range(100)]
    sigma = 4.531 * math.sqrt(1 + 0.25**2) / 0.25
    assert np.mean(counts) == pytest.approx(400, abs=4 * sigma / 10)
    assert np.std(counts) == pytest.approx(sigma, rel=0.3)
    public = PrivateKernelDensity(adjacency="substitute", n_components=8, **RANDOM).fit(X)
    assert public.n_samples_ == 400
    assert public.noise_std_ == pytest.approx(2 * 4.531, rel=1e-3)


def test_logarithms_stay_finite_and_sums_unbiased_far_away():
    far = np.full((3, 2), 40.0)
    fits = [PrivateKernelDensity(n_components=64, **RANDOM).fit(X[:20]) for _ in range(30)]
    sums = np.array([model.kernel_sums(far) for model in fits])
    assert sums.min() < 0 < sums.max()
    assert all(np.isfinite(model.score_samples(far)).all() for model in fits)


def test_one_release_answers_for_ever():
    model = PrivateKernelDensity(n_components=64, **RANDOM).fit(X)
    assert np.array_equal(model.kernel_sums(Y), model.kernel_sums(Y))
    changed = pickle.loads(pickle.dumps(model))
    changed.sketch_ = 2 * model.sketch_
    assert np.allclose(changed.kernel_sums(Y), 2 * model.kernel_sums(Y))
    assert not np.array_equal(model.sketch_, PrivateKernelDensity(n_components=64, **RANDOM).fit(X).sketch_)


def test_nothing_of_the_rows_is_kept():
    def kept(rows):
        return vars(pickle.loads(pickle.dumps(PrivateKernelDensity(feature_random_state=0, **RANDOM).fit(rows))))

    one, two = kept(X), kept(X[:-1])
    released = {"sketch_", "n_samples_", "floor_"}
    for name in one.keys() - released:
        assert pickle.dumps(one[name]) == pickle.dumps(two[name]), name
    raw = pickle.dumps(PrivateKernelDensity(**RANDOM).fit(X))
    assert not any(row.tobytes() in raw for row in X)


def test_disjoint_rows_in_pieces_and_from_other_holders():
    params = {"epsilon": 50.0, "n_components": 2048, "feature_random_state": 0, **RANDOM}
    whole = exact_means("gaussian", X, Y, 0.3) * 400
    pieces = PrivateKernelDensity(**params)
    first = pieces.partial_fit(X[:100]).noise_std_
    for start in (100, 200, 300):
        pieces.partial_fit(X[start : start + 100])
    assert np.abs(pieces.kernel_sums(Y) - whole).max() < 30
    assert pieces.noise_std_ == pytest.approx(2 * first)
    assert pieces.privacy_spent_[:2] == (50.0, 1e-6)
    assert pieces.privacy_spent_.n_releases == 4
    here, there = PrivateKernelDensity(**params).fit(X[:200]), PrivateKernelDensity(**params).fit(X[200:])
    total = here.kernel_sums(Y) + there.kernel_sums(Y)
    assert np.allclose(here.merge(there).kernel_sums(Y), total)
    assert here.privacy_spent_.n_releases == 2
    with pytest.raises(ValueError, match="Only sketches of the same frequencies"):
        here.merge(PrivateKernelDensity(**{**params, "feature_random_state": 1}).fit(X))
    for same in (here, copy.deepcopy(here), pickle.loads(pickle.dumps(there)), there):
        with pytest.raises(ValueError, match="have a release in common"):
            here.merge(same)
    ones = [PrivateKernelDensity(**params, random_state=0).fit(part) for part in (X[:200], X[200:])]
    with pytest.raises(ValueError, match="equal noise from equal random_state"):
        ones[0].merge(ones[1])
    ones[0].merge(PrivateKernelDensity(**params, random_state=1).fit(X))
    later = copy.deepcopy(here).partial_fit(X[:10])
    with pytest.raises(ValueError, match="have a release in common"):
        later.merge(there)
    assert later.privacy_spent_.n_releases == 3
    with pytest.raises(ValueError, match="Only sketches of the same"):
        here.merge(PrivateDistanceSum(bounds=(0, 1)).fit(X))
    with pytest.raises(ValueError, match="have changed since the first release"):
        pieces.set_params(epsilon=1.0).partial_fit(X)
    here.noise_backend_ = "another"
    with pytest.raises(ValueError, match="had its noise from 'another'"):
        here.partial_fit(X)


def test_seeded_releases_have_noise_of_their_own():
    model = PrivateKernelDensity(n_components=512, random_state=0, **RANDOM).fit(X[:1])
    noise = model.sketch_.copy()
    other = model.partial_fit(X[:1]).sketch_ - noise
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.2


@pytest.mark.parametrize("map_", ["rff", "fourier"])
def test_order_and_batches_change_no_digit(map_):
    params = {"bandwidth": 0.4, "feature_map": map_, "bounds": (0, 1), "random_state": 3}
    sketches = [
        PrivateKernelDensity(batch_size=size, **params).fit(rows).sketch_
        for size, rows in ((4096, X), (1, X[:200].repeat(1, 0)), (3, X[::-1]), (4096, X[RNG.permutation(400)]))
    ]
    assert np.array_equal(sketches[0], sketches[2])
    assert np.array_equal(sketches[0], sketches[3])
    one_by_one = PrivateKernelDensity(batch_size=1, **params).fit(X).sketch_
    assert np.array_equal(sketches[0], one_by_one)


def test_sparse_rows_tensors_and_single_precision():
    rows = np.where(RNG.random((60, 5)) < 0.4, RNG.normal(size=(60, 5)), 0)
    model = PrivateKernelDensity(bandwidth=1.0, n_components=64, random_state=0)
    dense = model.fit(rows).kernel_sums(rows)
    assert np.allclose(model.fit(csr_matrix(rows)).kernel_sums(csr_matrix(rows)), dense)
    with pytest.raises(ValueError, match="bounds cannot be had with sparse X"):
        PrivateKernelDensity(bounds=(0, 1)).fit(csr_matrix(rows))
    with sklearn.config_context(array_api_dispatch=True):
        there = model.fit(torch.from_numpy(rows)).kernel_sums(torch.from_numpy(rows))
        assert isinstance(model.sketch_, torch.Tensor)
    assert np.allclose(there, dense)
    single = model.fit(rows.astype(np.float32)).kernel_sums(rows.astype(np.float32))
    assert single.dtype == np.float32


def test_what_leaks_is_said():
    def said(model):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            model.fit(X)
        return {w.category for w in seen}

    plain = {"n_components": 8, **RANDOM}
    assert said(PrivateKernelDensity(**plain)) == set()
    assert said(PrivateKernelDensity(feature_random_state=0, **plain)) == set()
    assert said(PrivateKernelDensity(random_state=0, **plain)) == {PrivacyLeakWarning}
    assert said(PrivateKernelDensity(delta=0.01, **plain)) == {PrivacyWarning}
    unbounded = PrivateKernelDensity(bandwidth=0.5, feature_map="fourier")
    assert said(unbounded) == {PrivacyLeakWarning}
    assert unbounded.bounds is None
    assert np.allclose(unbounded.bounds_[0], X.min(0))
    assert PrivateKernelDensity(**plain).fit(X).noise_secure_
    assert not PrivateKernelDensity(random_state=0, **plain).fit(X).noise_secure_


def told_of_noise(rows, **params):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        PrivateKernelDensity(random_state=0, **params).fit(rows)
    return any("indistinguishable from noise" in str(w.message) for w in seen)


def test_a_bandwidth_that_does_not_fit_the_units_is_told_from_the_release():
    """Without bounds nothing else that is public knows the units of X."""
    raw = load_wine().data
    assert told_of_noise(raw)
    assert told_of_noise(RNG.normal(size=(20_000, 2)) * 1e4)
    assert told_of_noise(RNG.normal(size=(2000, 2)) * 100, bandwidth=0.5)
    assert told_of_noise(RNG.normal(size=(2000, 2)), bandwidth=1e-3, bounds=(-4, 4))
    assert not told_of_noise(RNG.normal(size=(400, 2)))
    assert not told_of_noise(RNG.normal(size=(2000, 2)) * 100, bandwidth=50.0)
    assert not told_of_noise(RNG.normal(size=(2000, 2)), bandwidth=0.5, bounds=(-4, 4), delta=0.0)
    assert not told_of_noise(X[:30], **RANDOM)  # too few rows to know


@pytest.mark.parametrize(
    "params", [{"bounds": (0, 1), "query_margin": 1.0}, {"feature_map": "rff", "kernel": "exponential"}]
)
def test_a_bandwidth_for_each_column_is_a_change_of_units(params):
    units = np.array([1.0, 1000.0])
    plain = PrivateKernelDensity(bandwidth=0.25, random_state=0, **params).fit(X)
    if "bounds" in params:
        params = {**params, "bounds": (0, units)}
    scaled = PrivateKernelDensity(bandwidth=0.25 * units, random_state=0, **params).fit(X * units)
    queries = np.vstack([X[:9], [[1.2, 0.5]]])
    assert np.allclose(plain.kernel_means(queries), scaled.kernel_means(queries * units), rtol=1e-3, atol=1e-3)
    densities = scaled.score_samples(queries * units) + np.log(units[1])
    assert np.allclose(plain.score_samples(queries), densities, rtol=1e-2, atol=1e-2)


def test_queries_outside_of_the_grid_are_moved_with_a_warning():
    model = PrivateKernelDensity(bandwidth=0.2, bounds=(0, 1), query_margin=1.0, random_state=0).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inside = model.kernel_sums([[1.2, 0.5]])
    with pytest.warns(UserWarning, match="outside the bounds"):
        outside = model.kernel_sums([[7.0, 0.5]])
    assert np.allclose(inside, outside)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"epsilon": True}, "finite number above 0"),
        ({"epsilon": math.inf}, "epsilon"),
        ({"epsilon": 0}, "epsilon"),
        ({"delta": 1.0}, "delta"),
        ({"mechanism": "gaussian", "delta": 0.0}, "needs delta > 0"),
        ({"epsilon": 1e300}, "at most 1e\\+18"),
        ({"epsilon": 1e-15, "delta": 0.0}, "epsilon=1e-15 needs noise of the scale"),
        ({"epsilon": 10**400}, "epsilon=1000"),
        ({"delta": math.nan}, "delta=nan has to be a number from 0 to below 1"),
        ({"count_weight": 1e-7}, "count_weight=1e-07 is below 2\\^-20"),
        ({"count_weight": 2.0**-21}, "count_weight"),
        ({"count_weight": 1e-7, "delta": 0.0}, "count_weight"),
        ({"count_weight": 1e300, "mechanism": "gaussian"}, "lower count_weight"),
        ({"bounds": (0, math.nan)}, "bounds=nan has to hold finite real numbers"),
        ({"bounds": (-1e308, 1e308)}, "bounds=-1e\\+308 is beyond 1e\\+150.* Rescale"),
        ({"bounds": (0, 5e-324)}, "less than 1e-150 apart"),
        ({"bounds": (1, 1)}, "lowest < highest"),
        ({"bounds": (0, 1, 2)}, "pair"),
        ({"bounds": (0, "1")}, "finite real numbers"),
        ({"bounds": (0, 10**400)}, "finite real numbers"),
        ({"bandwidth": [0.1, math.nan]}, "positive number"),
        ({"bandwidth": 1e-308}, "positive number from 1e-150"),
        ({"feature_map": "fourier", "bounds": (0, 1), "query_margin": 1e308}, "lower query_margin"),
        ({"bounds": (1, 0)}, "lowest < highest"),
        ({"bounds": (0, [1, 2, 3])}, "one for each of 2 columns"),
        ({"bandwidth": "scott"}, "looking at the private rows"),
        ({"bandwidth": [0.1, 0.2, 0.3]}, "one for each of 2 columns"),
        ({"bandwidth": [0.1, 0.0]}, "positive number"),
        ({"kernel": "cauchy", "feature_map": "fourier", "bounds": (0, 1)}, "needs kernel='gaussian'"),
        ({"feature_map": "fourier", "bandwidth": 1e-4, "bounds": (0, 1)}, "Raise bandwidth"),
    ],
)
def test_bad_parameters(params, text):
    with pytest.raises(ValueError, match=text):
        PrivateKernelDensity(**params).fit(X)


def test_grid_search_over_the_bandwidth():
    model = PrivateKernelDensity(epsilon=20.0, bounds=(0, 1), random_state=0)
    search = GridSearchCV(model, {"bandwidth": [0.3, 20.0]}, cv=2).fit(X)
    assert search.best_params_["bandwidth"] == 0.3
