"""The vectorised equations against the formulas, written out cell by cell."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sklowrank._core.workspace import open_workspace
from sklowrank.impute._cell_values import draws_of_rows, values_of_rows, variances_of_rows
from sklowrank.impute._observed_cells import ListedCells, TableCells
from sklowrank.impute._options import CompletionOptions
from sklowrank.impute._row_equations import (
    Model,
    RowPosterior,
    row_equations,
    solve_rows,
    squared_error,
    update_rows,
    with_ordered_components,
)

M, N, K = 7, 6, 2


def options(offsets, variational=True):
    inference = "variational" if variational else "map"
    return CompletionOptions(K, inference, 1.0, "none", "cholesky", 3, bool(offsets), False, "svd", "auto", False)


def example(offsets, variational=True):
    """A small table with missing values, a model of its columns with random means and covariances, options."""
    rng = np.random.default_rng(3)
    X = np.where(rng.random((M, N)) < 0.3, np.nan, rng.normal(size=(M, N)))
    d = K + offsets
    root = 0.3 * rng.normal(size=(N, d, d))
    tensors = (
        rng.normal(size=(N, d)),
        root @ root.transpose(0, 2, 1) + 0.05 * np.eye(d),
        0.2 + rng.random(N),
        0.5 + rng.random(d),
        0.5 + rng.random(d),
    )
    mean, cov, noise, row_ridge, column_ridge = (torch.from_numpy(a) for a in tensors)
    if not variational:
        cov, noise = None, torch.ones_like(noise)
    return X, Model(mean, cov, noise, row_ridge, column_ridge), options(offsets, variational)


def listed(X):
    i, j = np.nonzero(~np.isnan(X))
    return ListedCells(open_workspace(X), i, j, X[i, j], X.shape)


def row_by_hand(x, model, chosen):
    """The posterior of one row, cell by cell, as the specification of the method writes it."""
    d = model.mean.shape[1]
    A, rhs = np.diag(model.row_ridge.numpy()), np.zeros(d)
    for j in np.flatnonzero(~np.isnan(x)):
        n = model.mean[j].numpy()
        T = np.zeros((d, d)) if model.cov is None else model.cov[j].numpy()
        if chosen.offsets:
            k = d - 1
            f, c = np.append(n[:k], 1.0), n[k]
            E = np.outer(f, f)
            E[:k, :k] += T[:k, :k]
            e = np.append(c * n[:k] + T[:k, k], c)
        else:
            f, E, e = n, np.outer(n, n) + T, np.zeros(d)
        A = A + E / model.noise[j].item()
        rhs = rhs + (x[j] * f - e) / model.noise[j].item()
    return np.linalg.solve(A, rhs), np.linalg.inv(A)


@pytest.mark.parametrize("variational", [True, False])
@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("kind", [TableCells, listed])
def test_rows_solve_their_equations(kind, offsets, variational):
    X, model, chosen = example(offsets, variational)
    cells = TableCells(torch.from_numpy(X)) if kind is TableCells else listed(X)
    rows = solve_rows(cells.by_row(slice(0, M)), row_equations(model, chosen))
    for i in range(M):
        mean, cov = row_by_hand(X[i], model, chosen)
        np.testing.assert_allclose(rows.mean[i].numpy(), mean, rtol=1e-9)
        if variational:
            np.testing.assert_allclose(rows.cov[i].numpy(), cov, rtol=1e-9)


@pytest.mark.parametrize("offsets", [True, False])
def test_predictive_variance_is_that_of_draws(offsets):
    """The closed form against its formula cell by cell, and against the spread of many draws."""
    X, model, chosen = example(offsets)
    rows = solve_rows(TableCells(torch.from_numpy(X)).by_row(slice(0, M)), row_equations(model, chosen))
    variances, k = variances_of_rows(rows, model, chosen), K
    for i in range(M):
        for j in range(N):
            f, g = model.mean[j].clone(), rows.mean[i].clone()
            if offsets:
                f[k], g[k] = 1, 1
            S, T = rows.cov[i], model.cov[j]
            expected = f @ S @ f + g @ T @ g + (S[:k, :k] * T[:k, :k]).sum() + model.noise[j]
            assert variances[i, j].item() == pytest.approx(expected.item(), rel=1e-10)
    ws = open_workspace(X, random_state=0)
    draws = torch.stack(list(draws_of_rows(rows, model, chosen, 20_000, ws)))
    # 20,000 draws: the variance of a heavy-tailed product is known to a few per cent, its mean to 0.01 of its spread
    np.testing.assert_allclose(draws.var(0), variances, rtol=0.12)
    assert ((draws.mean(0) - values_of_rows(rows.mean, model, chosen)).abs() < 0.05 * variances.sqrt()).all()


def test_a_cell_observed_twice_counts_twice():
    X, model, chosen = example(offsets=True)
    i, j = np.nonzero(~np.isnan(X))
    ws = open_workspace(X)
    twice = ListedCells(ws, np.r_[i, i], np.r_[j, j], np.r_[X[i, j] + 0.5, X[i, j] - 0.5], X.shape)
    noisier = model._replace(noise=model.noise / 2)
    one = solve_rows(listed(X).by_row(slice(0, M)), row_equations(noisier, chosen))
    two = solve_rows(twice.by_row(slice(0, M)), row_equations(model, chosen))
    np.testing.assert_allclose(one.mean, two.mean, rtol=1e-9)
    np.testing.assert_allclose(one.cov, two.cov, rtol=1e-9)
    apart = squared_error(twice, two.mean, model, chosen) - 2 * squared_error(listed(X), two.mean, model, chosen)
    assert apart.item() == pytest.approx(2 * len(i) * 0.25)


@pytest.mark.parametrize("variational", [True, False])
def test_rows_updated_with_new_cells_equal_rows_solved_from_all(variational):
    X, model, chosen = example(offsets=True, variational=variational)
    rng = np.random.default_rng(0)
    first = np.where(rng.random(X.shape) < 0.5, np.nan, X)
    second = np.where(np.isnan(first), X, np.nan)
    before = solve_rows(listed(first).by_row(slice(0, M)), row_equations(model, chosen)).mean
    updated = update_rows(listed(second).by_row(slice(0, M)), listed(first).by_row(slice(0, M)), before, model, chosen)
    whole = solve_rows(listed(X).by_row(slice(0, M)), row_equations(model, chosen)).mean
    np.testing.assert_allclose(updated, whole, rtol=1e-8)


@pytest.mark.parametrize("variational", [True, False])
def test_ordering_components_keeps_the_fit_and_fixes_signs(variational):
    X, model, chosen = example(offsets=True, variational=variational)
    if not variational:  # a rotation is free where all components have one ridge
        ridge = torch.full_like(model.row_ridge, 0.7)
        model = model._replace(row_ridge=ridge, column_ridge=ridge)
    matrix = TableCells(torch.from_numpy(X)).by_row(slice(0, M))
    before = solve_rows(matrix, row_equations(model, chosen)).mean
    ordered = with_ordered_components(model, chosen)
    after = solve_rows(matrix, row_equations(ordered, chosen)).mean
    np.testing.assert_allclose(values_of_rows(before, model, chosen), values_of_rows(after, ordered, chosen), rtol=1e-9)
    factors = ordered.mean[:, :K]
    assert (factors.gather(0, factors.abs().argmax(0, keepdim=True)) > 0).all()


def test_blocks_of_listed_cells_are_their_rows():
    X, model, chosen = example(offsets=True)
    cells, whole = listed(X), np.nan_to_num(X)
    for rows in (slice(0, M), slice(0, 3), slice(3, M)):
        by_row, by_column = cells.by_row(rows), cells.by_column(rows)
        assert np.array_equal(by_row.sums.to_dense().numpy(), whole[rows])
        assert np.array_equal(by_column.sums.to_dense().numpy(), whole[rows].T)
        assert np.array_equal(by_row.pattern.to_dense().numpy(), ~np.isnan(X[rows]))
        assert np.array_equal(by_row.row_counts().numpy(), by_column.column_counts().numpy())
    assert sp.issparse(cells.structure)
    assert isinstance(solve_rows(cells.by_row(slice(0, 0)), row_equations(model, chosen)), RowPosterior)
