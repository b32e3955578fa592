"""What a metric does not see, and the order of the rows, change nothing; near responses stand next to one another."""

import numpy as np
import pytest
import torch

from sklowrank.datasets import make_frechet_regression
from sklowrank.dimension_reduction import FrechetSDR, KernelFrechetSDR, LinearFrechetSDR
from sklowrank.dimension_reduction._distance_order import law_of, order_of_columns

RNG = np.random.default_rng(0)
N = 100
X = RNG.normal(size=(N, 3))
DRIFT = X[:, :1]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def turn(q):
    return np.linalg.qr(RNG.normal(size=(q, q)))[0]


def angle(a, b):
    return float(np.arccos(np.clip(a @ b, -1, 1)))


PLANE = np.hstack([DRIFT, np.zeros((N, 1))]) + 0.4 * RNG.normal(size=(N, 2))
GRID = np.round(2 * PLANE) / 2  # many distances are equal, and after a rotation equal but for rounding
SPHERE, HIGH = unit(np.hstack([DRIFT, 1 + 0 * X]) + 0.3 * RNG.normal(size=(N, 4))), unit(RNG.normal(size=(N, 6)))
ROOTS = RNG.normal(size=(N, 3, 6)) * np.exp(0.3 * DRIFT)[:, :, None]
SPD = ROOTS @ ROOTS.transpose(0, 2, 1) / 6 + 0.1 * np.eye(3)
SAMPLES = DRIFT + RNG.normal(size=(N, 12))
CLOUDS = [
    np.exp(RNG.normal(size=(m, 2))) * [1, 0.4] + np.array([x, -x]) for x, m in zip(X[:, 0], RNG.integers(20, 40, N))
]
BASIS, TURN2, TURN3, TURN4, TURN6 = RNG.normal(size=(3, 3)), turn(2), turn(3), turn(4), turn(6)
SYMMETRIES = {
    "number mirrored": ("euclidean", DRIFT[:, 0], 3 - DRIFT[:, 0]),
    "vectors turned and moved": ("euclidean", PLANE, PLANE @ TURN2 + 5),
    "grid turned": ("euclidean", GRID, GRID @ TURN2),
    "columns exchanged": ("manhattan", PLANE, PLANE[:, ::-1] * [-1, 1]),
    "rows scaled": ("cosine", PLANE, PLANE * np.exp(RNG.normal(size=(N, 1)))),
    "rows moved": ("correlation", SAMPLES, 2 * SAMPLES + RNG.normal(size=(N, 1))),
    "sphere turned": ("sphere", SPHERE, SPHERE @ TURN4),
    "high sphere turned": ("sphere", HIGH, HIGH @ TURN6),
    "matrices seen in another basis": ("spd_affine", SPD, BASIS @ SPD @ BASIS.T),
    "matrices inverted": ("spd_affine", SPD, np.linalg.inv(SPD)),
    "logarithms turned": ("spd_log", SPD, TURN3 @ SPD @ TURN3.T),
    "logarithms inverted": ("spd_log", SPD, np.linalg.inv(SPD)),
    "matrices turned": ("frobenius", ROOTS, TURN3 @ ROOTS),
    "distributions mirrored": ("wasserstein", SAMPLES, 3 - SAMPLES),
    "clouds turned": ("wasserstein", CLOUDS, [cloud @ TURN2 + 1 for cloud in CLOUDS]),
    "a function's symmetry": (angle, SPHERE, SPHERE @ TURN4),
    "distances cubed": ("precomputed", np.abs(DRIFT - DRIFT.T), np.abs(DRIFT - DRIFT.T) ** 3),
}
ESTIMATORS = {
    "fccov": lambda metric: LinearFrechetSDR(1, method="fccov", metric=metric, n_landmarks=32),
    "kernel": lambda metric: KernelFrechetSDR(1, metric=metric, n_landmarks=32, gamma=0.1, alpha=0.01),
    "network": lambda metric: FrechetSDR(
        1, metric=metric, n_landmarks=32, n_estimators=1, max_iter=3, tol=1.0, n_iter_no_change=1, random_state=0
    ),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_what_the_metric_does_not_see_changes_nothing(symmetry, estimator):
    metric, y, other = SYMMETRIES[symmetry]
    before, after = (ESTIMATORS[estimator](metric).fit(X, responses).transform(X) for responses in (y, other))
    assert np.abs(before - after).max() <= 1e-9 * np.abs(before).max()


@pytest.mark.parametrize("estimator", ["fccov", "kernel"])
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_the_order_of_the_rows_changes_nothing(symmetry, estimator):
    metric, y, _ = SYMMETRIES[symmetry]
    order = np.random.default_rng(1).permutation(N)
    permuted = [y[row] for row in order] if isinstance(y, list) else y[order]
    once, twice = ESTIMATORS[estimator](metric).fit(X, y), ESTIMATORS[estimator](metric).fit(X[order], permuted)
    assert np.abs(once.transform(X) - twice.transform(X)).max() < 1e-9
    assert once.score(X, y) == pytest.approx(twice.score(X, y), rel=1e-9)


def test_nor_does_it_choose_rows_where_there_are_many(monkeypatch):
    rng = np.random.default_rng(2)
    rows = rng.integers(0, 6, size=(700, 2)).astype(float)  # most of them occur often, with other responses
    y, order = np.hypot(rows[:, 0] - 2, rows[:, 1] - 3) + 0.2 * rng.normal(size=700), rng.permutation(700)
    for name, value in {"_CHOICE_ROWS": 200, "_BASIS_ROWS": 150}.items():
        monkeypatch.setattr(f"sklowrank.dimension_reduction._kernel_frechet_sdr_solver.{name}", value)
    once, twice, other = (
        KernelFrechetSDR(1, max_exact=500, random_state=seed).fit(rows[at], y[at])
        for seed, at in ((0, slice(None)), (0, order), (1, slice(None)))
    )
    assert (once.gamma_, once.alpha_) == pytest.approx((twice.gamma_, twice.alpha_), rel=1e-9)
    assert np.abs(once.transform(rows) - twice.transform(rows)).max() < 1e-6
    assert not np.array_equal(once.X_fit_, other.X_fit_)


def law(y, weight=None, metric="euclidean"):
    points = torch.from_numpy(np.asarray(y, dtype=float).reshape(len(y), -1))
    return law_of(points, np.ones(len(y)) if weight is None else weight, metric)


def test_numbers_are_ordered_as_a_line():
    y = np.random.default_rng(3).standard_cauchy(500)
    order = law(y).order
    cells = np.array_split(y[order], 64)
    ends = np.array(sorted((cell.min(), cell.max()) for cell in cells))
    assert np.sum(ends[1:, 0] < ends[:-1, 1]) <= 8  # halves of odd size do not meet the equal parts exactly


def test_cells_are_small_in_every_direction():
    y = unit(np.random.default_rng(4).normal(size=(6400, 3)))
    cells = y[law(y, metric="sphere").order].reshape(64, 100, 3)
    assert np.mean([cell.std(0).max() for cell in cells]) < 0.2  # slabs have 0.5


def test_equal_points_are_one_and_weights_are_counts():
    rng = np.random.default_rng(5)
    y, count = rng.integers(0, 9, size=(80, 2)), rng.integers(0, 3, 80)
    weighted, repeated = law(y, count.astype(float)), law(np.repeat(y, count, axis=0))
    kept = np.repeat(np.arange(80), count)
    assert np.array_equal(weighted.rows, kept[repeated.rows])
    assert np.array_equal(weighted.mass, repeated.mass)
    assert np.array_equal(weighted.order, repeated.order)
    assert np.array_equal(weighted.place[kept], repeated.place)
    assert (weighted.place[(count == 0) & ~(y[:, None] == y[kept]).all(2).any(1)] == -1).all()
    assert np.array_equal(np.argsort(weighted.order)[weighted.place[kept]], repeated.rank())


def test_columns_of_given_distances_are_ordered_by_how_near_they_are():
    y = np.array([0.0, 9.0, 1.0, -1.0, 2.0])
    D = np.abs(np.linspace(-3, 3, 50)[:, None] - y)
    assert order_of_columns(D, np.ones(50))[-2:].tolist() == [4, 1]
    count = np.random.default_rng(6).integers(0, 3, 50)
    weighted, repeated = (
        order_of_columns(D, count.astype(float)),
        order_of_columns(np.repeat(D, count, 0), np.ones(count.sum())),
    )
    assert np.array_equal(weighted, repeated)


def test_a_function_of_the_user_is_called_for_all_pairs_of_few_rows_alone():
    calls = [0]

    def metric(a, b):
        calls[0] += 1
        return abs(a - b)

    rows, y, _ = make_frechet_regression(600, 4, response="number", random_state=0)
    LinearFrechetSDR(1, method="fccov", metric=metric).fit(rows, y)
    assert calls[0] < 600 * 80  # 64 landmarks, two distances at each of six halvings
