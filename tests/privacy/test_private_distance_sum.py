"""Private sums of distances are near the exact ones, and as noisy as they say."""

import math
import warnings

import numpy as np
import pytest
import sklearn
import torch

from sklowrank.privacy import PrivacyLeakWarning, PrivateDistanceSum
from sklowrank.privacy._distance_features import cosine_series

RNG = np.random.default_rng(0)
X, Y = RNG.beta(2, 5, size=(500, 4)), RNG.random((40, 4))
BOUNDS = (0, 1)


@pytest.fixture(autouse=True)
def _seeds_are_for_tests():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "random_state makes the noise reproducible", PrivacyLeakWarning)
        yield


def exact_sums(metric, p, rows, queries):
    D = np.abs(queries[:, None] - rows)
    powers = {"l1": lambda: D.sum(2), "lp": lambda: (D**p).sum(2), "l2": lambda: np.sqrt((D**2).sum(2))}
    return powers.get(metric, lambda: (D**2).sum(2))().sum(1)


@pytest.mark.parametrize("adjacency", ["add_remove", "substitute"])
@pytest.mark.parametrize(
    ("metric", "p", "error"),
    [
        ("l1", 1, 0.001),
        ("lp", 0.5, 0.003),
        ("lp", 1.5, 0.001),
        ("lp", 2, 0.001),
        ("l2", 1, 0.1),
        ("sqeuclidean", 2, 1e-4),
    ],
)
def test_without_noise_sums_are_nearly_exact(metric, p, error, adjacency):
    model = PrivateDistanceSum(
        metric=metric, p=p, epsilon=1e6, bounds=BOUNDS, adjacency=adjacency, feature_random_state=0, random_state=0
    )
    exact = exact_sums(metric, p, X, Y)
    assert np.abs(model.fit(X).distance_sums(Y) / exact - 1).max() < error


def test_more_directions_come_nearer_to_the_euclidean_distance():
    exact, errors = exact_sums("l2", 1, X, Y), []
    for n in (8, 512):
        model = PrivateDistanceSum(metric="l2", epsilon=1e6, n_directions=n, bounds=BOUNDS, feature_random_state=1)
        errors.append(np.abs(model.fit(X).distance_sums(Y) / exact - 1).max())
    assert errors[1] < 0.03 < errors[0]


@pytest.mark.parametrize("metric", ["l1", "l2", "sqeuclidean"])
@pytest.mark.parametrize("delta", [1e-6, 0.0])
def test_noise_is_what_it_says(metric, delta):
    params = {"metric": metric, "delta": delta, "bounds": BOUNDS, "n_frequencies": 16, "feature_random_state": 0}
    fits = [PrivateDistanceSum(random_state=seed, **params).fit(X[:40]) for seed in range(150)]
    ratio = math.sqrt(2) if fits[0].mechanism_ == "laplace" else 1
    spread = np.std([model.sketch_ for model in fits], axis=0, ddof=1)
    assert math.sqrt((spread**2).mean()) == pytest.approx(ratio * fits[0].noise_scale_, rel=0.06)
    answers = np.std([model.distance_sums(Y) for model in fits], axis=0, ddof=1)
    assert np.allclose(answers, fits[0].standard_error(Y), rtol=0.35)
    assert fits[0].standard_error(np.full((1, 4), 0.5)) == pytest.approx(fits[0].noise_std_)
    lattice = fits[0].sketch_ * 2**20
    assert np.array_equal(lattice, np.rint(lattice))


def test_columns_share_one_budget():
    """The noise of a sum of d columns grows with d, not with d times the root of d as under split budgets."""
    one, many = (
        PrivateDistanceSum(mechanism="gaussian", bounds=BOUNDS).fit(RNG.random((30, d))).noise_std_ for d in (1, 25)
    )
    assert many / one == pytest.approx(25, rel=0.01)


def test_units_and_bounds_of_columns():
    units, shift = np.array([1e-12, 3.0, 1e6, 10.0]), np.array([0, -5, 2e6, 1.0])
    low, high = shift, shift + units
    model = PrivateDistanceSum(epsilon=1e6, bounds=(low, high), random_state=0).fit(X * units + shift)
    exact = exact_sums("l1", 1, X * units + shift, Y * units + shift)
    assert np.allclose(model.distance_sums(Y * units + shift), exact, rtol=1e-3)
    with pytest.warns(PrivacyLeakWarning, match="read from the private rows"):
        unbounded = PrivateDistanceSum().fit(X)
    assert np.allclose(unbounded.bounds_[1], X.max(0))
    with pytest.warns(UserWarning, match="outside the bounds"):
        moved = model.distance_sums(Y * units + shift + 10 * units)
    assert np.allclose(moved, model.distance_sums(np.tile(high, (40, 1))))


@pytest.mark.parametrize("metric", ["l1", "lp", "l2", "sqeuclidean"])
def test_extreme_columns_give_finite_sums_or_a_named_error(metric):
    params = {"metric": metric, "p": 2.0, "n_frequencies": 8, "feature_random_state": 0}
    for constant in (1e120, 5e-324, 0.0):
        with pytest.warns(PrivacyLeakWarning):
            model = PrivateDistanceSum(**params).fit(np.c_[np.full(20, constant), np.arange(20.0)])
        assert np.isfinite(model.distance_sums([[constant, 3.0]])).all()
    for low, high in ((0, 1e-149), (-1e149, 1e149), (0, [1e-100, 1e100])):
        bounded = PrivateDistanceSum(bounds=(low, high), **params).fit(X[:, :2])
        assert np.isfinite(bounded.distance_sums(np.zeros((1, 2)))).all()
    with pytest.warns(PrivacyLeakWarning), pytest.raises(ValueError, match="columns beyond 1e\\+150"):
        PrivateDistanceSum(**params).fit(np.full((3, 2), 1e200))


def test_transformer_and_scores():
    model = PrivateDistanceSum(bounds=BOUNDS, random_state=0).set_output(transform="pandas").fit(X)
    column = model.transform(Y)
    assert list(column.columns) == ["privatedistancesum0"]
    assert np.allclose(column.iloc[:, 0], model.mean_distances(Y))
    assert np.allclose(model.score_samples(Y), -model.mean_distances(Y))
    assert np.allclose(model.mean_distances(Y) * model.n_samples_, model.distance_sums(Y))


def test_pieces_of_disjoint_rows():
    params = {"epsilon": 50.0, "bounds": BOUNDS, "metric": "l2", "feature_random_state": 0}
    pieces, whole = PrivateDistanceSum(**params), PrivateDistanceSum(**params).fit(X)
    for part in np.array_split(X, 4):
        pieces.partial_fit(part)
    assert pieces.noise_std_ == pytest.approx(2 * whole.noise_std_)
    assert np.allclose(pieces.distance_sums(Y), whole.distance_sums(Y), atol=8 * pieces.noise_std_)
    assert pieces.privacy_spent_.n_releases == 4
    assert pieces.privacy_spent_.epsilon == 50.0
    here, there = (PrivateDistanceSum(**params).fit(part) for part in (X[:200], X[200:]))
    total = here.distance_sums(Y) + there.distance_sums(Y)
    assert np.allclose(here.merge(there).distance_sums(Y), total)
    assert here.noise_std_ == pytest.approx(math.sqrt(2) * whole.noise_std_)
    with pytest.raises(ValueError, match="have a release in common"):
        here.merge(here)
    with pytest.raises(ValueError, match="Only sketches of the same frequencies"):
        here.merge(PrivateDistanceSum(**{**params, "feature_random_state": 1}).fit(X))
    with pytest.raises(ValueError, match="have changed"):
        pieces.set_params(adjacency="substitute").partial_fit(X)


def test_batches_devices_and_tensors():
    params = {"bounds": BOUNDS, "random_state": 0}
    whole = PrivateDistanceSum(**params).fit(X)
    for size in (1, 7):
        assert np.array_equal(PrivateDistanceSum(batch_size=size, **params).fit(X[::-1]).sketch_, whole.sketch_)
    with sklearn.config_context(array_api_dispatch=True):
        there = PrivateDistanceSum(**params).fit(torch.from_numpy(X))
        assert isinstance(there.transform(torch.from_numpy(Y)), torch.Tensor)
    assert np.array_equal(np.asarray(there.sketch_), whole.sketch_)
    with pytest.raises(TypeError, match="Sparse data was passed"):
        PrivateDistanceSum(**params).fit(__import__("scipy.sparse").sparse.csr_matrix(X))


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0])
def test_cosine_series(p):
    constant, orders, weights = cosine_series(p, 400)
    u = np.linspace(-1, 1, 101)
    series = constant + np.cos(np.pi * u[:, None] * orders) @ weights
    assert np.abs(series - np.abs(u) ** p).max() < (0.05 if p < 1 else 0.002)
