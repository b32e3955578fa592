"""What a row adds is its own, is a whole number, and is no larger than the sensitivity."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from sklowrank._core.rows import Rows
from sklowrank.privacy._cosine_features import (
    amplitudes_of,
    frequencies_of,
    grid_waves,
    norms_of,
    random_waves,
    wave_sums,
)
from sklowrank.privacy._distance_features import (
    Box,
    along_columns,
    along_directions,
    moment_norms,
    moment_sums,
    series_amplitudes,
    series_norms,
    series_sums,
)
from sklowrank.privacy._lattice import (
    PARTS,
    SHRINK,
    STEP,
    TURN,
    ball_sums,
    binned_sums,
    canonical,
    exact_products,
)
from sklowrank.privacy._mechanism import PrivacyOptions, release, seeded_words
from sklowrank.privacy._sketch import Noise

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
ROWS = RNG.uniform(-1, 2, size=(60, 3))
BOX = Box(np.full(3, 0.5), np.full(3, 1.5))


def waves_of(kind, mechanism="gaussian"):
    if kind == "random":
        return random_waves("gaussian", 50, np.zeros(3), np.full(3, 0.7), np.random.default_rng(1))
    waves, weights = grid_waves(np.full(3, -1.0), np.full(3, 3.0), np.full(3, 1.0), 1e-3)
    return waves._replace(amplitudes=amplitudes_of(weights, mechanism))


def sums_of(kind, X, batch_size=16):
    """Exact sums of every kind of feature, one row of whole numbers."""
    X = Rows(torch.from_numpy(np.ascontiguousarray(X)))
    if kind in ("random", "grid"):
        return wave_sums(X, waves_of(kind), None, 1, batch_size, CPU).ravel()
    if kind == "ball":
        groups = torch.zeros(len(X), dtype=torch.int64)
        return ball_sums(X, np.zeros(3), np.full(3, 0.8), groups, 1, batch_size).ravel()
    if kind == "moments":
        return moment_sums(X, BOX, batch_size)
    series = series_of(kind)
    return series_sums(X, BOX, series, series_amplitudes(series, "gaussian")[0], 64, batch_size).ravel()


def series_of(kind):
    if kind == "columns":
        return along_columns(BOX, 1.0, 16)
    return along_directions(BOX, 6, 16, np.random.default_rng(2))


def norms(kind):
    if kind in ("random", "grid"):
        return norms_of(waves_of(kind).amplitudes)
    if kind == "ball":
        return norms_of(np.ones(1))._replace(euclidean=1.0, absolute=3**0.5)
    return moment_norms(3) if kind == "moments" else series_norms(series_amplitudes(series_of(kind), "gaussian")[0])


KINDS = ["random", "grid", "ball", "moments", "columns", "directions"]


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_batches_change_no_digit(kind):
    whole = sums_of(kind, ROWS, 60)
    assert whole.dtype == np.int64
    for rows in (ROWS, ROWS[::-1], ROWS[RNG.permutation(60)]):
        for batch_size in (1, 7, 60):
            assert np.array_equal(sums_of(kind, rows, batch_size), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_adds_no_more_than_the_sensitivity(kind):
    """For rows anywhere, the change of the sums stays below the norms, and comes near them for some kinds."""
    found = norms(kind)
    rounding = 1 if kind in ("columns", "directions", "moments") else 0
    before, largest = sums_of(kind, ROWS), np.zeros(2)
    far = np.array([[1e300, -1e300, 0.0], [1e9, 1e-9, -3.0], [np.nan, 1.0, 1.0], [np.inf, -np.inf, np.nan]])
    for row in np.vstack([RNG.normal(size=(40, 3)) * 3, far, np.zeros((1, 3)), np.full((1, 3), 2.0)]):
        change = sums_of(kind, np.vstack([ROWS, row])) - before
        largest = np.maximum(largest, [np.linalg.norm(change), np.abs(change).sum()])
    euclidean = found.euclidean / STEP + rounding * found.entries**0.5
    absolute = found.absolute / STEP + rounding * found.entries
    assert largest[0] <= euclidean
    assert largest[1] <= absolute
    if kind in ("random", "grid"):
        assert largest[0] > 0.99 * euclidean
        assert largest[1] > 0.8 * absolute


def test_entries_are_those_of_the_formula():
    waves = waves_of("random")
    angle = ROWS @ frequencies_of(waves).T
    expected = np.hstack([np.cos(angle), np.sin(angle)]).sum(0) * waves.amplitudes[0]
    assert np.allclose(sums_of("random", ROWS) * STEP, expected, atol=60 * 2e-3 * waves.amplitudes[0])
    zero = sums_of("random", np.zeros((1, 3)))
    assert not zero[50:].any()  # sines of zero are exactly zero
    assert np.all(zero[:50] == int(waves.amplitudes[0] * SHRINK / STEP))


def test_rows_far_away_have_the_phases_of_their_place():
    """Coordinates beyond 2^19 steps are multiplied in two halves; whole numbers of Python know the right phase."""
    waves = waves_of("random")
    rows = np.array([[1e3, -2e4, 0.3], [5e5, 1e6, -3e6], [0.1, -0.2, 1e9]])
    whole = [[round(x / u) for x, u in zip(row, waves.unit)] for row in rows]
    for form in (lambda X: torch.from_numpy(X), csr_matrix):
        found = wave_sums(Rows(form(rows)), waves, torch.arange(3), 3, "auto", CPU)
        for row, sums in zip(whole, found):
            phase = [sum(x * int(s) for x, s in zip(row, column)) % TURN for column in waves.steps.T]
            expected = np.cos(2 * np.pi / TURN * np.array(phase)) * waves.amplitudes
            assert np.allclose(sums[:50] * STEP, expected, atol=1e-4 * waves.amplitudes[0] + 2 * STEP)


def test_groups_are_sums_of_their_rows():
    X, groups = torch.from_numpy(ROWS), torch.arange(60) % 3
    waves = waves_of("random")
    together = wave_sums(Rows(X), waves, groups, 3, 16, CPU)
    for k in range(3):
        assert np.array_equal(together[k], wave_sums(Rows(X[groups == k]), waves, None, 1, 16, CPU)[0])


def test_sparse_rows_add_what_dense_rows_do():
    X = np.where(RNG.random((40, 300)) < 0.1, RNG.normal(size=(40, 300)), 0)
    waves = random_waves("gaussian", 20, np.zeros(300), np.full(300, 2.0), np.random.default_rng(3))
    dense = wave_sums(Rows(torch.from_numpy(X)), waves, None, 1, 8, CPU)
    assert np.array_equal(wave_sums(Rows(csr_matrix(X)), waves, None, 1, 8, CPU), dense)
    groups = torch.arange(40) % 2
    ball = ball_sums(Rows(torch.from_numpy(X)), np.zeros(300), np.full(300, 0.5), groups, 2, 8)
    assert np.array_equal(ball_sums(Rows(csr_matrix(X)), np.zeros(300), np.full(300, 0.5), groups, 2, 8), ball)


def test_products_are_exact_in_any_order():
    rows = RNG.integers(-(2**19), 2**19, size=(5, 700))
    steps = RNG.integers(-(2**24), 2**24, size=(700, 9))
    exact = rows.astype(object) @ steps.astype(object)
    found = exact_products(torch.from_numpy(rows).double(), torch.from_numpy(steps).double())
    assert (found.numpy() == exact).all()
    mixed = RNG.permutation(700)
    again = exact_products(torch.from_numpy(rows[:, mixed]).double(), torch.from_numpy(steps[mixed]).double())
    assert torch.equal(found, again)


def test_frequencies_are_whole_steps():
    for kind in ("random", "grid"):
        waves = waves_of(kind)
        assert np.array_equal(waves.steps, np.rint(waves.steps))
        assert np.abs(waves.steps).max() <= 2**24


def repeated(cells):
    """A single row of two columns whose first cell is stored many times over."""
    return csr_matrix((np.asarray(cells), np.zeros(len(cells), int), [0, len(cells)]), shape=(1, 2))


def sparse_ball(X):
    return ball_sums(Rows(X), np.zeros(2), np.ones(2), torch.zeros(X.shape[0], dtype=torch.int64), 1, "auto")


def sparse_waves(X):
    return wave_sums(Rows(X), waves_of("random")._replace(unit=np.ones(2), steps=np.ones((2, 50))), None, 1, 4, CPU)


@pytest.mark.parametrize("sums", [sparse_ball, sparse_waves])
@pytest.mark.parametrize("cells", [np.full(10_000, 10.0), [0.25, -0.25, 0.5], [1e308] * 3, np.float32([0.1] * 7)])
def test_cells_that_are_stored_twice_are_one_cell(sums, cells):
    X = repeated(cells)
    with np.errstate(over="ignore"):
        once = csr_matrix(
            X.toarray().astype(np.float64) if X.dtype == np.float64 else [[np.sum(X.data, dtype=float), 0]]
        )
    assert np.array_equal(sums(X), sums(once))
    X.has_canonical_format = True  # what a matrix says of itself is not believed
    assert np.array_equal(sums(X), sums(once))
    assert np.linalg.norm(sums(X)) * STEP <= 1
    assert len(X.data) == len(cells)  # the user's matrix is as it was


def test_order_of_stored_cells_and_stored_zeros_change_no_digit():
    X = csr_matrix(np.where(RNG.random((30, 2)) < 0.7, RNG.normal(size=(30, 2)), 0))
    mixed = csr_matrix((X.data[::-1].copy(), X.indices[::-1].copy(), X.nnz - X.indptr[::-1]), shape=X.shape)
    zeros = csr_matrix(([*X.data, 0.0, 0.0], [*X.indices, 0, 0], [*X.indptr[:-1], X.nnz + 2]), shape=X.shape)
    for sums in (sparse_ball, sparse_waves):
        assert np.array_equal(sums(mixed), sums(X))
        assert np.array_equal(sums(zeros), sums(X))
    assert canonical(zeros).has_canonical_format


@pytest.mark.parametrize("n_columns", [2**18, 2**19, 2**20])
@pytest.mark.parametrize("value", [100.0, 1e-3, -np.inf])
def test_many_columns_do_not_leave_the_ball(n_columns, value):
    group, unit = torch.zeros(1, dtype=torch.int64), np.ones(n_columns)
    row = torch.full((1, n_columns), value, dtype=torch.float64)
    dense = ball_sums(Rows(row), np.zeros(n_columns), unit, group, 1, "auto")
    norm = float(np.linalg.norm(dense.astype(float))) * STEP
    assert norm <= 1
    assert norm == pytest.approx(min(1, abs(value) * n_columns**0.5), rel=3e-3)  # entries are truncated to whole steps
    assert np.array_equal(ball_sums(Rows(csr_matrix(row.numpy())), np.zeros(n_columns), unit, group, 1, "auto"), dense)


def test_phases_of_a_million_columns_are_right():
    """Sums of products pass 63 bits, and wrap around by whole turns."""
    n = 2**20 + 3
    row = torch.full((1, n), 2.0**19, dtype=torch.float64)
    found = exact_products(row, torch.full((n, 1), 2.0**24 - 1, dtype=torch.float64))
    assert int(found) % TURN == n * 2**19 * (2**24 - 1) % TURN


def test_counts_of_a_trillion_rows_are_exact():
    """Whole numbers of Python against those of 63 bits."""
    counts = RNG.integers(0, 2**40, size=(2, 9)).astype(np.float64) * PARTS
    amplitudes, orders = np.array([[1.0, 0.5], [0.7, 0.3]]), np.array([1, 2])
    angle = np.pi / 8 * np.outer(np.arange(9), orders)
    expected = []
    for table in (np.cos(angle), np.sin(angle)):
        entries = [np.trunc(table * (size * (SHRINK / STEP))).astype(int).astype(object) for size in amplitudes]
        expected.append(
            [[int(c) for c in count.astype(int).astype(object) @ e // PARTS] for count, e in zip(counts, entries)]
        )
    assert binned_sums(counts, amplitudes, orders).tolist() == np.hstack([np.array(e) for e in expected]).tolist()


def test_a_count_of_rows_cannot_overflow():
    """Above 2^61 steps it is cut off, which moves no two numbers of rows further apart."""
    privacy = PrivacyOptions(1.0, 0.0, "add_remove", ("laplace",), None, 0.0, "builtin", seeded_words(0), "", None)
    noise = Noise("laplace", 1e-200, 1.0)
    for n, expected in ((2**40, 2.0**40), (2**43, 2.0**41), (2**60, 2.0**41)):
        sketch = release(privacy, noise, np.zeros((1, 1), dtype=np.int64), np.array([n]), 1.0, 1.0, "")
        assert sketch.class_counts.tolist() == [expected]
