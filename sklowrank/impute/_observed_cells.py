"""The observed cells of a matrix, by rows and by columns, as matrices to multiply with: dense for tables, CSR else."""

import copy
from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from .._core.rows import concat_blocks, gather_blocks, merge_sum
from .._math.sparse import csr_tensor


class Face:
    """The cells seen from one side, rows or columns: two matrices to multiply with, dense or sparse CSR.

    Parameters
    ----------
    pattern : tensor of shape (m, n)
        Number of observations in each cell.
    values : tensor of shape (m, n)
        Their sum, in the layout of the pattern.
    once : bool
        Whether every observed cell was observed once.
    """

    def __init__(self, pattern, values, *, once):
        self.pattern, self.values, self.once = pattern, values, once
        self._room = None  # sums over cells are written here again and again: fresh memory would cost more than they

    def counts(self):
        """Return the number of observations of each row, of shape (m,)."""
        ones = torch.ones(self.pattern.shape[1], 1, dtype=self.pattern.dtype, device=self.pattern.device)
        return (self.pattern @ ones)[:, 0]

    def other_counts(self):
        """Return the number of observations of each column, of shape (n,)."""
        if self.pattern.layout == torch.strided:
            return self.pattern.sum(0)
        values = self.pattern.values()
        return values.new_zeros(self.pattern.shape[1]).index_add_(0, self.pattern.col_indices().long(), values)

    def fit(self, P, F):
        """Return P @ F.mT at the cells, times their numbers of observations; valid until the next call."""
        if self.pattern.layout == torch.strided:
            return self.pattern * (P @ F.mT)
        room = self._writable()
        torch.sparse.sampled_addmm(room, P, F.mT, beta=0, out=room)
        if not self.once:
            room.values().mul_(self.pattern.values())
        return room

    def residual(self, P, F):
        """Return what P @ F.mT leaves of the values; valid until the next call."""
        fit = self.fit(P, F)
        if fit.layout == torch.strided:
            return self.values - fit
        fit.values().neg_().add_(self.values.values())
        return fit

    def squared_error(self, P, F):
        """Return the sum over the cells of (mean observation - P @ F.mT)**2, times the number of observations."""
        residual = self.residual(P, F)
        if residual.layout == torch.strided:
            return (residual**2).sum()
        left = residual.values()
        return left.dot(left) if self.once else (left**2 / self.pattern.values()).sum()

    def mean_fit(self, P, F):
        """Return P @ F.mT at the listed cells, row by row, as a tensor of its own."""
        fit = self.fit(P, F).values()
        return fit.clone() if self.once else fit / self.pattern.values()

    def _writable(self):
        if self._room is None:
            pattern = self.pattern
            room = torch.zeros_like(pattern.values())  # not empty: beta=0 times what may be NaN there is NaN
            self._room = csr_tensor(pattern.crow_indices(), pattern.col_indices(), room, pattern.shape)
        return self._room


class Block(NamedTuple):
    """The cells of some rows, as a slice of all of them."""

    cells: "Cells"
    rows: slice

    def by_row(self) -> Face:
        """Return the rows' face."""
        return self.cells.by_row(self.rows)

    def by_column(self) -> Face:
        """Return the columns' face."""
        return self.cells.by_column(self.rows)


class Cells:
    """What is common to cells of a table and of a list."""

    kind = "memory"

    def gather(self, compute, *aligned, size, batch_size="auto", merge=merge_sum):
        """Return the merged results of ``compute(block, *parts)`` over blocks of rows, as `Rows.gather` does."""

        def part(rows):
            return compute(Block(self, rows), *(b[rows] for b in aligned))

        return gather_blocks(part, self.shape[0], size=size, batch_size=batch_size, merge=merge)


class TableCells(Cells):
    """Cells of a table, a tensor of shape (rows, columns) in which NaN is missing."""

    def __init__(self, X):
        missing = X.isnan()
        self.pattern = (~missing).to(X.dtype)
        self.values = torch.where(missing, torch.zeros_like(X), X)
        self.shape = tuple(X.shape)
        self.row_counts, self.column_counts = self.pattern.sum(1), self.pattern.sum(0)
        self.column_squares = (self.values**2).sum(0)
        self.covariates = None

    def by_row(self, rows):
        """Return the face of a slice of rows."""
        return Face(self.pattern[rows], self.values[rows], once=True)

    def by_column(self, rows):
        """Return the face of all columns, of the cells in a slice of rows."""
        return Face(self.pattern[rows].mT, self.values[rows].mT, once=True)

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
        self.structure, self._indices, self._faces, self._load = counts, {}, {}, ws.load
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
        """Return the face of a slice of rows; built once, then kept."""
        return self._face("by_row", rows.start, rows.stop)

    def by_column(self, rows):
        """Return the face of all columns, of the cells in a slice of rows; built once, then kept."""
        return self._face("by_column", rows.start, rows.stop)

    def _face(self, side, start, stop):
        key = (side, start, stop)
        if key not in self._faces:
            if key not in self._indices:
                self._indices[key] = getattr(self, f"_index_{side}")(self._rows(start, stop))
            indptr, indices, order, shape = self._indices[key]
            first, last = (int(self.structure.indptr[i]) for i in (start, stop))
            sums = self._sums[first:last][order]
            counts = torch.ones_like(sums) if self._counts is None else self._counts[first:last][order]
            tensors = (csr_tensor(indptr, indices, values, shape) for values in (counts, sums))
            self._faces[key] = Face(*tensors, once=self._counts is None)
        return self._faces[key]

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
        """Return the sums of products of covariates with themselves and with what P @ F.mT leaves of the values."""
        fit = concat_blocks(self.gather(partial(_mean_fit, F), P, **options)[0])
        rest = self.covariates.weight * self.covariates.left(fit)
        return self.covariate_gram(), self.covariates.Z.mT @ rest

    def refit_covariates(self, P, F, **options):
        """Refit the linear term to what the low-rank part P @ F.mT leaves, and take it off."""
        self.take_off(linear_weights(*self.linear_sums(P, F, **options)))

    def take_off(self, weights):
        """Take a linear term off the values."""
        self.weights = weights
        self._sums, self.column_squares = self.covariates.without(weights, self.shape[1])
        self._faces.clear()


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
        self._parts = self._bare = parts
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
        return self._bare.reduce(_gram)[0]

    def scatter(self):
        """Sum of squared deviations of the observations from the means of their cells."""
        return self._scatter

    def structure(self):
        """Return the numbers of observations of all cells, a CSR matrix."""
        return sp.vstack(self._parts.reduce(_structure)[0], format="csr")

    def refit_covariates(self, P, F, **options):
        """Refit the linear term to what the low-rank part P @ F.mT leaves, and take it off."""
        self.weights = linear_weights(*self._bare.reduce(partial(_linear_sums, F, options), P))
        self._parts = self._bare.rebuilt(partial(_without, self.weights))
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
    """Return a copy of listed cells without a linear term; the indices are shared."""
    cells = copy.copy(cells)
    cells._faces = {}
    cells.take_off(weights)
    return cells


class Covariates(NamedTuple):
    """Further features of the observations, and where each observation belongs."""

    Z: torch.Tensor  # (n_observations, n_covariates)
    y: torch.Tensor  # (n_observations,)
    weight: torch.Tensor  # (n_observations,)
    cell: torch.Tensor  # (n_observations,): position of its cell
    column: torch.Tensor  # (n_observations,)
    n_cells: int

    def left(self, fit):
        """Return what the low-rank part of each cell (n_cells,) leaves of the observations."""
        return self.y - fit[self.cell]

    def without(self, weights, n_columns):
        """Return the cells' sums and the columns' sums of squares without the linear term."""
        rest = self.y - self.Z @ weights
        sums = rest.new_zeros(self.n_cells).index_add_(0, self.cell, self.weight * rest)
        return sums, rest.new_zeros(n_columns).index_add_(0, self.column, self.weight * rest**2)


def _mean_fit(F, block, P):
    return ([block.by_row().mean_fit(P, F)],)


def linear_weights(gram, products):
    """Ridge regression, of strength 1 on standardised covariates."""
    gram = gram.clone()
    gram.diagonal().add_(1.0)
    return torch.linalg.solve(gram, products)


def face_of(structure, ws):
    """Return the face of rows of a CSR structure, of which only the numbers of observations are known."""
    tensors = (ws.load(a) for a in (structure.indptr, structure.indices, structure.data))
    pattern = csr_tensor(*tensors, structure.shape)
    return Face(pattern, pattern, once=False)
