"""The observed cells of a matrix, by rows and by columns, as matrices to multiply with: dense for tables, CSR else."""

import functools
import warnings
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch


class Block(NamedTuple):
    """Some rows of the observed cells; every member is a dense tensor or a sparse CSR tensor."""

    pattern: torch.Tensor  # (rows, columns): number of observations in each cell
    values: torch.Tensor  # (rows, columns): sum of the observations in each cell
    pattern_t: torch.Tensor  # the transposes, stored so that sums over a column's cells are as fast
    values_t: torch.Tensor


class TableCells:
    """Cells of a table, a tensor of shape (rows, columns) in which NaN is missing."""

    def __init__(self, X):
        missing = X.isnan()
        self.pattern = (~missing).to(X.dtype)
        self.values = torch.where(missing, torch.zeros_like(X), X)
        self.shape = tuple(X.shape)
        self.row_counts, self.column_counts = self.pattern.sum(1), self.pattern.sum(0)
        self.column_squares = (self.values**2).sum(0)
        self.covariates = None

    def scatter(self):
        """Sum of squared deviations of the observations from the means of their cells: each cell has one."""
        return 0.0

    def block(self, rows):
        """Return the rows of a slice."""
        pattern, values = self.pattern[rows], self.values[rows]
        return Block(pattern, values, pattern.mT, values.mT)


class ListedCells:
    """Cells of a list of observations (row, column, value), a cell observed several times included.

    Parameters
    ----------
    ws : Workspace
        Where to compute.
    rows, columns : integer ndarrays of shape (n_observations,)
        Positions.
    values : ndarray of shape (n_observations,)
        Observations.
    shape : (int, int)
        Numbers of rows and columns.
    covariates : ndarray of shape (n_observations, n_covariates) or None
        Further features of each observation, standardised; :meth:`refit_covariates` removes their linear effect.
    """

    def __init__(self, ws, rows, columns, values, shape, covariates=None):
        m, n = self.shape = shape
        counts = sp.coo_matrix((np.ones(len(values), dtype=values.dtype), (rows, columns)), shape=shape).tocsr()
        counts.sum_duplicates()
        sums = sp.coo_matrix((values, (rows, columns)), shape=shape).tocsr()
        sums.sum_duplicates()
        self.structure, self._indices, self._blocks, self._load = counts, {}, {}, ws.load
        self._counts = None if counts.nnz == len(values) else ws.load(counts.data)
        self._sums = ws.load(sums.data)
        self.row_counts = ws.load(np.bincount(rows, minlength=m).astype(values.dtype))
        self.column_counts = ws.load(np.bincount(columns, minlength=n).astype(values.dtype))
        self.column_squares = ws.load(np.bincount(columns, weights=values**2, minlength=n).astype(values.dtype))
        self.covariates, self.weights = None, ws.load(np.zeros(0, dtype=values.dtype))
        if covariates is not None:
            counts.sort_indices()
            sums.sort_indices()
            key = rows.astype(np.int64) * n + columns
            cell = np.unique(key, return_inverse=True)[1]  # row by row: the order of the sorted CSR structure
            self.covariates = Covariates(
                ws.load(covariates), ws.load(values), ws.load(cell), ws.load(columns.astype(np.int64)), len(sums.data)
            )

    def block(self, rows):
        """Return the rows of a slice; built once, then kept."""
        key = (rows.start, rows.stop)
        if key not in self._blocks:
            self._blocks[key] = self._build(*key)
        return self._blocks[key]

    def _build(self, start, stop):
        if (start, stop) not in self._indices:
            self._indices[start, stop] = self._index(start, stop)
        by_row, by_column, order = self._indices[start, stop]
        first, shape = int(self.structure.indptr[start]), (stop - start, self.shape[1])
        sums = self._sums[first : first + len(order)]
        counts = torch.ones_like(sums) if self._counts is None else self._counts[first : first + len(order)]
        counts_t = counts if self._counts is None else counts[order]
        return Block(
            _csr(*by_row, counts, shape),
            _csr(*by_row, sums, shape),
            _csr(*by_column, counts_t, shape[::-1]),
            _csr(*by_column, sums[order], shape[::-1]),
        )

    def _index(self, start, stop):
        """Return where the cells of some rows lie, by rows and by columns, and the order from one to the other."""
        part = self.structure if (start, stop) == (0, self.shape[0]) else self.structure[start:stop]
        turned = sp.csr_matrix((np.arange(part.nnz), part.indices, part.indptr), shape=part.shape).tocsc()
        by_row = self._load(part.indptr), self._load(part.indices)
        return by_row, (self._load(turned.indptr), self._load(turned.indices)), self._load(turned.data)

    def scatter(self):
        """Sum of squared deviations of the observations from the means of their cells."""
        return 0.0 if self._counts is None else self.column_squares.sum() - (self._sums**2 / self._counts).sum()

    def refit_covariates(self, fit):
        """Refit the linear term to what `fit`, the low-rank part of each cell (n_cells,), leaves, and take it off."""
        self.weights = self.covariates.solve(fit)
        self._sums, self.column_squares = self.covariates.without(self.weights, self.shape[1])
        self._blocks.clear()


class Covariates(NamedTuple):
    """Further features of the observations, and where each observation belongs."""

    Z: torch.Tensor  # (n_observations, n_covariates)
    y: torch.Tensor  # (n_observations,)
    cell: torch.Tensor  # (n_observations,): position of its cell
    column: torch.Tensor  # (n_observations,)
    n_cells: int

    def solve(self, fit):
        """Ridge regression, of strength 1 on standardised covariates, of what the low-rank part leaves."""
        A = self.Z.mT @ self.Z
        A.diagonal().add_(1.0)
        return torch.linalg.solve(A, self.Z.mT @ (self.y - fit[self.cell]))

    def without(self, weights, n_columns):
        """Return the cells' sums and the columns' sums of squares without the linear term."""
        rest = self.y - self.Z @ weights
        sums = rest.new_zeros(self.n_cells).index_add_(0, self.cell, rest)
        return sums, rest.new_zeros(n_columns).index_add_(0, self.column, rest**2)


def pattern_of(structure, ws):
    """Return the pattern of rows of a CSR structure, the numbers of observations in their cells, as a tensor."""
    return _csr(*(ws.load(a) for a in (structure.indptr, structure.indices, structure.data)), structure.shape)


def fit_at_cells(block, P, F):
    """Return P @ F.mT at the observed cells, times the number of observations in each, in the layout of the pattern."""
    if block.pattern.layout == torch.strided:
        return block.pattern * (P @ F.mT)
    fit = torch.sparse.sampled_addmm(block.pattern, P, F.mT, beta=0)
    return _csr(fit.crow_indices(), fit.col_indices(), fit.values() * block.pattern.values(), fit.shape)


def residual_at_cells(block, P, F):
    """Return what P @ F.mT leaves of the values at the observed cells, in the layout of the pattern."""
    fit = fit_at_cells(block, P, F)
    if block.pattern.layout == torch.strided:
        return block.values - fit
    return _csr(fit.crow_indices(), fit.col_indices(), block.values.values() - fit.values(), fit.shape)


def sum_of_squares(block, residual):
    """Return the sum over the cells of residual**2 / count: the squared error of the cells' mean observations."""
    if residual.layout == torch.strided:
        return (residual**2).sum()
    return (residual.values() ** 2 / block.pattern.values()).sum()


def _csr(indptr, indices, values, shape):
    _meet_csr()
    return torch.sparse_csr_tensor(
        indptr, indices, values, size=shape, dtype=values.dtype, device=values.device, check_invariants=False
    )


@functools.cache
def _meet_csr():
    """Let torch say once, unheard, that its CSR tensors are in beta: it says so at the first one of a process only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        index = torch.tensor([0, 0], device="cpu")
        torch.sparse_csr_tensor(
            index, index[:0], index[:0].double(), size=(1, 1), device="cpu", dtype=torch.float64, check_invariants=False
        )
