"""Variational completion: number of components, precision, values missing at random, columns with few values."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_wine

from sklowrank._core.workspace import open_workspace
from sklowrank.impute import MatrixCompletionImputer
from sklowrank.impute import _columns as columns
from sklowrank.impute._observed_cells import TableCells
from sklowrank.impute._options import CompletionOptions
from sklowrank.impute._variational_solver import _sweeps, _with_more_components, variational


def options(n_components):
    return CompletionOptions(
        n_components, "variational", 1.0, "none", "cholesky", 3, True, False, "svd", "auto", selects_components=False
    )


def imputer(n_components="auto", **settings):
    return MatrixCompletionImputer(n_components, random_state=0, **settings)


def with_missing(load):
    X = load().data
    return X, np.where(np.random.RandomState(0).rand(*X.shape) < 0.3, np.nan, X)


@pytest.mark.parametrize(("load", "k"), [(load_breast_cancer, 15), (load_wine, 8), (load_wine, "auto")])
def test_float32_tables_are_filled_as_float64_ones(load, k):
    X, Z = with_missing(load)
    double, single = (imputer(k).fit_transform(Z.astype(dtype)) for dtype in (np.float64, np.float32))
    assert single.dtype == np.float32
    assert np.abs((single - double) / X.std(0)).max() < 1e-3  # rounding X moves the same optimum by some 1e-6


def test_public_attributes_have_the_precision_of_the_data():
    model = imputer(3).fit(with_missing(load_wine)[1].astype(np.float32))
    for name in ("components_", "row_embedding_", "row_intercept_", "intercept_", "mean_", "scale_", "components_cov_"):
        assert getattr(model, name).dtype == np.float32


@pytest.mark.parametrize("rank", [1, 3, 5, 8])
def test_the_default_finds_the_rank_of_an_exactly_low_rank_table(rank):
    rng = np.random.RandomState(0)
    full = rng.rand(90, rank) @ rng.rand(rank, 70)
    hole = rng.rand(90, 70) < 0.5
    Z = np.where(hole, np.nan, full)
    model = imputer().fit(Z[:50])
    gap = (model.transform(Z[50:]) - full[50:])[hole[50:]]
    assert np.sqrt(np.mean(gap**2)) < 1e-3 * full.std()
    # with positive factors the offsets of rows and columns can take the place of one component
    assert rank - 1 <= model.n_components_effective_ <= rank


def test_noise_gets_no_components_by_default():
    X = np.random.default_rng(0).normal(size=(300, 12))
    model = imputer().fit(np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X))
    assert model.component_variance_.max() < 0.05


def test_components_of_a_long_table_are_counted_on_some_of_its_rows(monkeypatch):
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(3000, 6)) @ rng.normal(size=(6, 12))
    hole = rng.random(signal.shape) < 0.3
    Z = np.where(hole, np.nan, signal + 0.5 * rng.normal(size=signal.shape))
    whole = imputer().fit(Z)
    monkeypatch.setattr(columns, "_SAMPLE_ROWS", 400)
    seen = []
    cells = columns.TableCells
    monkeypatch.setattr(columns, "TableCells", lambda X: seen.append(len(X)) or cells(X))
    sampled = imputer().fit(Z)
    assert 400 in seen
    assert {sampled.n_components_effective_, whole.n_components_effective_} <= {6, 7}
    errors = [np.sqrt(np.mean((m.transform(Z) - signal)[hole] ** 2)) for m in (sampled, whole)]
    assert errors[0] < 1.02 * errors[1]


def test_a_rare_column_may_be_missing_from_the_sample(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 2)) @ rng.normal(size=(2, 6))
    X[3:, 5] = np.nan
    monkeypatch.setattr(columns, "_SAMPLE_ROWS", 100)
    model = imputer().fit(X)
    assert np.isfinite(model.transform(X)).all()


def test_a_model_with_more_components_fits_the_same_cells():
    rng = np.random.default_rng(0)
    cells = TableCells(torch.from_numpy(rng.normal(size=(40, 2)) @ rng.normal(size=(2, 7))))
    ws = open_workspace(np.empty(0), random_state=0)
    steps = variational(cells, cells, options(2), ws, offset_variance=1.0)
    model = [next(steps) for _ in range(12)][-1].state
    wider = _with_more_components(model, 4, True, ws)
    assert wider.mean.shape == (7, 5)
    torch.testing.assert_close(wider.mean[:, [0, 1, 4]], model.mean)
    at = torch.tensor([0, 1, 4])
    torch.testing.assert_close(wider.cov[:, at[:, None], at], model.cov)
    assert (wider.cov[:, 2:4, [0, 1, 4]] == 0).all()
    assert torch.linalg.eigvalsh(wider.cov).min() > 0


def test_the_bound_never_rises_once_the_components_stand():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 12)) + 0.3 * rng.normal(size=(300, 12))
    X[rng.random(X.shape) < 0.3] = np.nan
    cells = TableCells(torch.from_numpy(X / np.sqrt(np.nanmean(X**2))))
    start = next(variational(cells, cells, options(3), open_workspace(X, random_state=0), offset_variance=1.0)).state
    steps = _sweeps(start, cells, options(3), 1.0, n_warm=0)
    losses = np.array([next(steps).loss for _ in range(40)])
    assert np.diff(losses).max() < 1e-4  # the pull of noise variances to their common value is outside the bound
    assert losses[-1] < losses[0]


def test_fills_are_not_biased_where_holes_depend_on_another_column():
    bias = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        X = np.sqrt(0.5) * (rng.normal(size=(1000, 1)) + rng.normal(size=(1000, 8)))
        gone = rng.random(1000) < 1 / (1 + np.exp(1 - 2 * X[:, 0]))
        Z = X.copy()
        Z[gone, 1] = np.nan
        bias.append((imputer().fit_transform(Z) - X)[gone, 1].mean())
    assert abs(np.mean(bias)) < 0.08  # the mean of the observed values is off by 0.69


@pytest.mark.parametrize("n_values", [2, 4])
def test_intervals_of_a_column_with_few_values(n_values):
    inside, drawn = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(150, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(150, 6))
        Z = X.copy()
        Z[rng.permutation(150)[n_values:], 3] = np.nan
        model = imputer().fit(Z)
        hole = np.isnan(Z[:, 3])
        inside.append((np.abs(model.transform(Z) - X) <= 1.645 * model.transform_std(Z))[hole, 3].mean())
        low, high = np.quantile(model.sample(Z, 50, random_state=0)[:, hole, 3], [0.05, 0.95], axis=0)
        drawn.append(((low <= X[hole, 3]) & (X[hole, 3] <= high)).mean())
    assert np.mean(inside) > 0.8
    assert np.mean(drawn) > 0.75  # the same law, seen through 50 draws


def test_widening_is_students_t_and_fades_with_more_values():
    few = columns.Columns(*[None] * 8, count=torch.tensor([2.0, 4.0, 100.0, 1e6], dtype=torch.float64))
    wider = columns.widening(few)
    # t(0.95) with 1 and 3 degrees of freedom, over the normal 1.6449, times sqrt(n / (n - 1))
    expected = [6.3138 / 1.6449 * np.sqrt(2), 2.3534 / 1.6449 * np.sqrt(4 / 3)]
    np.testing.assert_allclose(wider[:2], expected, rtol=1e-4)
    assert 1 < wider[2] < 1.02
    assert wider[3] == pytest.approx(1, abs=1e-5)
