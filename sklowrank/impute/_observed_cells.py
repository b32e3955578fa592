"""The observed cells of a matrix, by rows and by columns, as matrices to multiply with.

Dense ones for tables, in which most cells are observed, CSR for lists of observations.
"""

import copy
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from .._core.rows import concat_blocks, gather_blocks, merge_sum
from .._math.sparse import csr_tensor


class CellMatrix:
    """Cells as two matrices to multiply with, dense or sparse CSR.

    Parameters
    ----------
    pattern : tensor of shape (m, n)
        Number of observations in each cell.
    sums : tensor of shape (m, n)
        Their sum, in the layout of the pattern.
    once : bool
        Whether every observed cell was observed once.
    """

    def __init__(self, pattern, sums, *, once):
        self.pattern, self.sums, self.once = pattern, sums, once
        self._buffer = None  # sums over cells are written here again and again: fresh memory would cost more than they

    def row_counts(self):
        """Return the number of observations of each row, of shape (m,)."""
        ones = torch.ones(self.pattern.shape[1], 1, dtype=self.pattern.dtype, device=self.pattern.device)
        return (self.pattern @ ones)[:, 0]

    def column_counts(self):
        """Return the number of observations of each column, of shape (n,)."""
        if self.pattern.layout == torch.strided:
            return self.pattern.sum(0)
        values = self.pattern.values()
        return values.new_zeros(self.pattern.shape[1]).index_add_(0, self.pattern.col_indices().long(), values)

    def products(self, P, F):
        """Return P @ F.mT at the cells, times their numbers of observations; valid until the next call."""
        if self.pattern.layout == torch.strided:
            return self.pattern * (P @ F.mT)
        buffer = self._writable()
        torch.sparse.sampled_addmm(buffer, P, F.mT, beta=0, out=buffer)
        if not self.once:
            buffer.values().mul_(self.pattern.values())
        return buffer

    def residual(self, P, F):
        """Return the sums minus P @ F.mT times the numbers of observations; valid until the next call."""
        products = self.products(P, F)
        if products.layout == torch.strided:
            return self.sums - products
        products.values().neg_().add_(self.sums.values())
        return products

    def squared_error(self, P, F):
        """Return the sum over the cells of (mean observation - P @ F.mT)**2, times the number of observations."""
        residual = self.residual(P, F)
        if residual.layout == torch.strided:
            return (residual**2).sum()
        values = residual.values()
        return values.dot(values) if self.once else (values**2 / self.pattern.values()).sum()

    def values_at_cells(self, P, F):
        """Return P @ F.mT at the listed cells, row by row, as a tensor of its own."""
        products = self.products(P, F).values()
        return products.clone() if self.once else products / self.pattern.values()

    def _writable(self):
        if self._buffer is None:
            pattern = self.pattern
            buffer = torch.zeros_like(pattern.values())  # not empty: beta=0 times what may be NaN there is NaN
            self._buffer = csr_tensor(pattern.crow_indices(), pattern.col_indices(), buffer, pattern.shape)
        return self._buffer


class CellBlock(NamedTuple):
    """The cells of some rows."""

    by_row: CellMatrix  # (b, n)
    by_column: CellMatrix  # (n, b)


class Cells:
    """What cells of a table and of a list have in common."""

    kind = "memory"

    def gather(self, compute, *aligned, size, batch_size="auto", merge=merge_sum):
        """Return the merged results of ``compute(block, *parts)``, of a :class:`CellBlock` of some rows each.

        See :meth:`~sklowrank._core.rows.RowSource.gather`.
        """

        def part(rows):
            block = CellBlock(self.by_row(rows), self.by_column(rows))
            return compute(block, *(None if a is None else a[rows] for a in aligned))

        return gather_blocks(part, self.shape[0], size=size, batch_size=batch_size, merge=merge)


class TableCells(Cells):
    """Cells of a table, a tensor of shape (rows, columns) in which NaN is missing."""

    def __init__(self, X):
        missing = X.isnan()
        self._pattern = (~missing).to(X.dtype)
        self._values = torch.where(missing, torch.zeros_like(X), X)
        self.shape = tuple(X.shape)
        self.row_counts, self.column_counts = self._pattern.sum(1), self._pattern.sum(0)
        self.column_squares = (self._values**2).sum(0)
        self.covariates = None

    def by_row(self, rows):
        """Return the cells of a slice of rows."""
        return CellMatrix(self._pattern[rows], self._values[rows], once=True)

    def by_column(self, rows):
        """Return the cells of a slice of rows, transposed."""
        return CellMatrix(self._pattern[rows].mT, self._values[rows].mT, once=True)

    def scatter(self):
        """Sum of squared deviations of the observations from the means of their cells: each cell has one."""
        return 0.0


class ListedCells(Cells):
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
    weights : ndarray of shape (n_observations,) or None
        How many observations each stands for, above 0; they need not be whole numbers.
    """

    def __init__(self, ws, rows, columns, values, shape, covariates=None, weights=None):
        m, n = self.shape = shape
        each = np.ones_like(values) if weights is None else weights.astype(values.dtype)
        counts = sp.coo_matrix((each, (rows, columns)), shape=shape).tocsr()
        counts.sum_duplicates()
        weighted = values if weights is None else each * values
        sums = sp.coo_matrix((weighted, (rows, columns)), shape=shape).tocsr()
        sums.sum_duplicates()
        self.structure, self._indices, self._matrices, self._load = counts, {}, {}, ws.load
        self._counts = None if counts.nnz == len(values) and (each == 1).all() else ws.load(counts.data)
        self._sums = ws.load(sums.data)
        self.row_counts = ws.load(np.bincount(rows, each, minlength=m).astype(values.dtype))
        self.column_counts = ws.load(np.bincount(columns, each, minlength=n).astype(values.dtype))
        self.column_squares = ws.load(np.bincount(columns, weighted * values, minlength=n).astype(values.dtype))
        self.covariates, self.weights = None, ws.load(np.zeros(0, dtype=values.dtype))
        if covariates is not None:
            counts.sort_indices()
            sums.sort_indices()
            key = rows.astype(np.int64) * n + columns
            cell = np.unique(key, return_inverse=True)[1]  # row by row: the order of the sorted CSR structure
            arrays = covariates, values, each, cell, columns.astype(np.int64)
            self.covariates = Covariates(*(ws.load(a) for a in arrays), len(sums.data))

    def by_row(self, rows):
        """Return the cells of a slice of rows; built once, then kept."""
        return self._matrix("by_row", rows.start, rows.stop)

    def by_column(self, rows):
        """Return the cells of a slice of rows, transposed; built once, then kept."""
        return self._matrix("by_column", rows.start, rows.stop)

    def _matrix(self, side, start, stop):
        key = (side, start, stop)
        if key not in self._matrices:
            if key not in self._indices:
                self._indices[key] = getattr(self, f"_index_{side}")(self._rows(start, stop))
            indptr, indices, order, shape = self._indices[key]
            first, last = (int(self.structure.indptr[i]) for i in (start, stop))
            sums = self._sums[first:last][order]
            counts = torch.ones_like(sums) if self._counts is None else self._counts[first:last][order]
            tensors = (csr_tensor(indptr, indices, values, shape) for values in (counts, sums))
            self._matrices[key] = CellMatrix(*tensors, once=self._counts is None)
        return self._matrices[key]

    def _rows(self, start, stop):
        return self.structure if (start, stop) == (0, self.shape[0]) else self.structure[start:stop]

    def _index_by_row(self, part):
        return self._load(part.indptr), self._load(part.indices), slice(None), part.shape

    def _index_by_column(self, part):
        """The same cells column by column, and where each lies in the order by rows."""
        turned = sp.csr_matrix((np.arange(part.nnz), part.indices, part.indptr), shape=part.shape).tocsc()
        return *(self._load(a) for a in (turned.indptr, turned.indices, turned.data)), part.shape[::-1]

    def scatter(self):
        """Sum of squared deviations of the observations from the means of their cells."""
        return 0.0 if self._counts is None else self.column_squares.sum() - (self._sums**2 / self._counts).sum()

    def covariate_gram(self):
        """Return the sums of products of covariates with themselves."""
        if self.covariates is None:
            return self.weights.new_zeros(0, 0)
        return (self.covariates.Z * self.covariates.weight.unsqueeze(1)).mT @ self.covariates.Z

    def linear_sums(self, P, F, **options):
        """Return the sums of products of covariates with themselves and with the residuals of P @ F.mT."""
        values = concat_blocks(self.gather(partial(_values_at_cells, F), P, **options)[0])
        residual = self.covariates.weight * self.covariates.residual(values)
        return self.covariate_gram(), self.covariates.Z.mT @ residual

    def refit_covariates(self, P, F, **options):
        """Refit the linear term to the residuals of the low-rank part P @ F.mT, and subtract it."""
        self.subtract_linear(linear_weights(*self.linear_sums(P, F, **options)))

    def subtract_linear(self, weights):
        """Subtract a linear term from the values."""
        self.weights = weights
        self._sums, self.column_squares = self.covariates.without(weights, self.shape[1])
        self._matrices.clear()


class RemoteCells:
    """Cells whose rows lie on a cluster, whole rows in each partition.

    Parameters
    ----------
    parts : partitions of `sklowrank.distributed`
        What is built of each partition is a :class:`TableCells` or :class:`ListedCells`.
    n_columns : int
        Number of columns.
    """

    kind = "cluster"

    def __init__(self, parts, n_columns):
        self._parts = self._without_covariates = parts
        rows, self.column_counts, *squares, with_covariates = parts.reduce(_totals)
        self.row_counts = torch.cat(rows)
        self.shape = (len(self.row_counts), n_columns)
        self.column_squares, self._scatter = squares
        self.covariates = True if with_covariates else None
        self.weights = self.column_counts.new_zeros(0)

    def gather(self, compute, *aligned, **options):
        """Return the merged results of ``compute(block, *parts)`` over blocks of rows."""
        return self._parts.gather(compute, *aligned, **options)

    def covariate_gram(self):
        """Return the sums of products of covariates with themselves."""
        return self._without_covariates.reduce(_gram)[0]

    def scatter(self):
        """Sum of squared deviations of the observations from the means of their cells."""
        return self._scatter

    def structure(self):
        """Return the numbers of observations of all cells, a CSR matrix."""
        return sp.vstack(self._parts.reduce(_structure)[0], format="csr")

    def refit_covariates(self, P, F, **options):
        """Refit the linear term to the residuals of the low-rank part P @ F.mT, and subtract it."""
        self.weights = linear_weights(*self._without_covariates.reduce(partial(_linear_sums, F, options), P))
        self._parts = self._without_covariates.rebuilt(partial(_without, self.weights))
        _, _, self.column_squares, self._scatter, _ = self._parts.reduce(_totals)


def _totals(cells):
    scatter = torch.as_tensor(cells.scatter(), dtype=cells.column_squares.dtype, device=cells.column_squares.device)
    counts = [cells.row_counts], cells.column_counts
    return *counts, cells.column_squares, scatter, int(cells.covariates is not None)


def _structure(cells):
    return ([cells.structure],)


def _gram(cells):
    return (cells.covariate_gram(),)


def _linear_sums(F, options, cells, P):
    return cells.linear_sums(P, F, **options)


def _without(weights, cells):
    """Return a copy of listed cells with a linear term subtracted; the indices are shared."""
    cells = copy.copy(cells)
    cells._matrices = {}
    cells.subtract_linear(weights)
    return cells


class Covariates(NamedTuple):
    """Further features of the observations, and where each observation belongs."""

    Z: torch.Tensor  # (n_observations, n_covariates)
    y: torch.Tensor  # (n_observations,)
    weight: torch.Tensor  # (n_observations,)
    cell: torch.Tensor  # (n_observations,): position of its cell
    column: torch.Tensor  # (n_observations,)
    n_cells: int

    def residual(self, values):
        """Return the observations minus the low-rank part of each cell (n_cells,)."""
        return self.y - values[self.cell]

    def without(self, weights, n_columns):
        """Return the cells' sums and the columns' sums of squares without the linear term."""
        rest = self.y - self.Z @ weights
        sums = rest.new_zeros(self.n_cells).index_add_(0, self.cell, self.weight * rest)
        return sums, rest.new_zeros(n_columns).index_add_(0, self.column, self.weight * rest**2)


def _values_at_cells(F, block, P):
    return ([block.by_row.values_at_cells(P, F)],)


def linear_weights(gram, products):
    """Ridge regression, of strength 1 on standardised covariates."""
    gram = gram.clone()
    gram.diagonal().add_(1.0)
    return torch.linalg.solve(gram, products)


def pattern_of(structure, ws):
    """Return the cells of a CSR structure of which only the numbers of observations are known."""
    tensors = (ws.load(a) for a in (structure.indptr, structure.indices, structure.data))
    pattern = csr_tensor(*tensors, structure.shape)
    return CellMatrix(pattern, pattern, once=False)
