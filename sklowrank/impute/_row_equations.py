"""The equations of low-rank matrix completion: one side solved given the other, and what a solution says of a cell.

Model: a cell (i, j) is u_i . v_j + b_i + c_j + noise. Each side is kept as one matrix of width d: the factors, and in
its last column the offset where offsets are learnt. Seen from row i, with f_j = (v_j, 1), the cells of a row are a
linear regression of x_ij - c_j on f_j; the same holds with the roles of rows and columns swapped.
"""

import functools
from functools import partial
from typing import NamedTuple

import torch

from .._core.blocks import in_blocks, rows_per_block
from .._core.rows import concat_blocks
from .._math.linalg import signs_of_largest
from ._conjugate_gradients import conjugate_gradients


class Model(NamedTuple):
    """Everything that the equations of a row need to know: the columns' side and the priors."""

    mean: torch.Tensor  # (n, d): v_j and, with offsets, c_j
    cov: torch.Tensor | None  # (n, d, d): posterior covariances; None in 'map'
    noise: torch.Tensor  # (n,): noise variance of each column; ones in 'map'
    row_ridge: torch.Tensor  # (d,): prior precision of a row, or the penalty of 'map'
    column_ridge: torch.Tensor  # (d,): the same of a column
    offsets: bool
    ridge_by_count: bool = False  # 'map': penalty times the number of cells
    nonnegative: bool = False  # 'map'
    iterative: bool = False  # 'map': solved by conjugate gradients


class Rows(NamedTuple):
    """What the cells say of some rows, the columns being known."""

    mean: torch.Tensor  # (b, d)
    cov: torch.Tensor | None  # (b, d, d)
    log_det: torch.Tensor | None  # sum of the log-determinants of cov


def seen_by_rows(model):
    """Return what the equations of all rows sum over their cells: the columns' expectations, weighted by precision.

    None where no equations are formed.
    """
    if model.iterative:
        return None
    F, f = expectations(model.mean, model.cov, model.offsets)
    return F / model.noise.unsqueeze(1), f / model.noise.unsqueeze(1)


def solve_rows(face, model, seen, *, start=None):
    """Return the posterior of some rows ('map': the penalised least-squares solution) given the columns.

    `face` holds their cells, `seen` is what :func:`seen_by_rows` says of the model.
    """
    if model.iterative:
        return Rows(_solve_iteratively(face, model), None, None)
    F, f = seen
    A, rhs = equations(face.pattern @ F, face.values @ f, model)
    A = with_ridge(A, row_ridge(face, model))
    if model.nonnegative:
        return Rows(solve_nonnegative(A, rhs, start), None, None)
    return posterior(A, rhs, covariances=model.cov is not None)


def _solve_iteratively(face, model):
    """Solve to the working precision from zero, so that a row's answer does not depend on when it is asked."""
    d, counts = model.mean.shape[1], face.counts()
    return conjugate_gradients(
        face,
        model.mean.new_zeros(face.pattern.shape[0], d),
        model.mean,
        scaled_ridge(model.row_ridge, counts, model),
        offsets=model.offsets,
        counts=counts,
        other_counts=face.other_counts(),
        n_steps=2 * d + 20,
        tol=torch.finfo(model.mean.dtype).eps ** (2 / 3),
    )


def expectations(mean, cov, offsets):
    """Return for each entity of one side what the other side's equations sum over cells.

    F, of shape (n, d(d+1)/2 + d + 1), holds the upper triangle of E[f f'], then E[c f] and E[c^2]; f, of shape
    (n, d + 1), holds E[f] = (v, 1), then E[c]. Without offsets f = v, and what concerns c is left out.
    """
    W = mean.unsqueeze(2) * mean.unsqueeze(1)
    if cov is not None:
        W = W + cov
    d = mean.shape[1]
    upper = _upper(d, mean.device)
    if not offsets:
        return W.flatten(1)[:, upper], mean
    k = d - 1
    cross = torch.cat([W[:, :k, k], mean[:, k:], W[:, k, k:]], 1)
    W[:, :k, k], W[:, k, k] = mean[:, :k], 1
    f = torch.cat([mean[:, :k], torch.ones_like(mean[:, :1]), mean[:, k:]], 1)
    return torch.cat([W.flatten(1)[:, upper], cross], 1), f


def equations(sums, moments, model):
    """Unpack sums over cells of F and f into the matrix (b, d, d) and the right-hand side (b, d) of each row."""
    d = model.mean.shape[1]
    size = d * (d + 1) // 2
    A = sums[:, _full(d, sums.device)].unflatten(1, (d, d))
    return A, moments[:, :d] - sums[:, size : size + d] if model.offsets else moments


def with_ridge(A, ridge):
    """Add the ridge to the diagonals of A, and as much as keeps a singular A factorisable in its precision."""
    diagonal = A.diagonal(dim1=1, dim2=2)
    diagonal += ridge + 16 * torch.finfo(A.dtype).eps * diagonal.amax(1, keepdim=True)
    return A


def scaled_ridge(ridge, counts, model):
    """Return the ridge: one for all, or one for each row or column, times its number of observations."""
    return ridge * counts.unsqueeze(1) if model.ridge_by_count else ridge


def row_ridge(face, model):
    """Return the ridge of the rows of a face."""
    return model.row_ridge * face.counts().unsqueeze(1) if model.ridge_by_count else model.row_ridge


def posterior(A, rhs, *, covariances):
    """Solve A x = rhs for each row, and invert A where covariances are asked for."""
    L = torch.linalg.cholesky(A)
    mean = torch.cholesky_solve(rhs.unsqueeze(2), L).squeeze(2)
    if not covariances:
        return Rows(mean, None, None)
    return Rows(mean, torch.cholesky_inverse(L), -2 * L.diagonal(dim1=1, dim2=2).log().sum())


def solve_nonnegative(A, rhs, start=None, *, passes=100):
    """Minimise x'Ax / 2 - rhs'x over x >= 0 for each row by coordinate descent; from a start a few passes suffice."""
    x = torch.zeros_like(rhs) if start is None else start.clone()
    diagonal = A.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(A.dtype).tiny)
    for _ in range(passes if start is None else 3):
        for k in range(x.shape[1]):
            slope = (A[:, k] * x).sum(1) - rhs[:, k]
            x[:, k] = (x[:, k] - slope / diagonal[:, k]).clamp_min(0)
    return x


@functools.lru_cache(maxsize=64)
def _upper(d, device):
    """Positions of the upper triangle in a flattened (d, d) matrix."""
    i, j = torch.triu_indices(d, d, device=device)
    return i * d + j


@functools.lru_cache(maxsize=64)
def _full(d, device):
    """Positions in the packed upper triangle of the entries of a flattened symmetric (d, d) matrix."""
    i = torch.arange(d, device=device).unsqueeze(1)
    low, high = torch.minimum(i, i.mT), torch.maximum(i, i.mT)
    return (low * d - low * (low + 1) // 2 + high).flatten()


def bytes_per_row(model):
    """Memory that one row of a block takes while it is solved and summed up for the columns."""
    d = model.mean.shape[1]
    return (8 * d if model.iterative else 4 * d * d + 3 * d + 2) * model.mean.dtype.itemsize


def in_row_blocks(compute, cells, model, batch_size, *beside):
    """Return the merged results of ``compute(block, *parts)``, so many rows at once that their equations fit."""
    return cells.gather(compute, *beside, size=bytes_per_row(model), batch_size=batch_size)


def means_of_rows(cells, model, batch_size):
    """Return the means of all rows, the columns being given."""
    return concat_blocks(in_row_blocks(partial(_means, model, seen_by_rows(model)), cells, model, batch_size)[0])


def _means(model, seen, block):
    return ([solve_rows(block.by_row(), model, seen).mean],)


def refit_linear_term(cells, rows, model, batch_size):
    """Refit the covariates of listed cells to what the low-rank part leaves, the means of all rows being given."""
    cells.refit_covariates(*augmented(rows, model), size=bytes_per_row(model), batch_size=batch_size)


def augmented(rows, model):
    """Return P, F with P @ F.mT the model's cells: (u, b, 1) and (v, 1, c), or u and v without offsets."""
    if not model.offsets:
        return rows, model.mean
    one = torch.ones_like(model.mean[:, :1])
    return (
        torch.cat([rows, torch.ones_like(rows[:, :1])], 1),
        torch.cat([model.mean[:, :-1], one, model.mean[:, -1:]], 1),
    )


def squared_error(cells, rows, model, batch_size):
    """Return the sum of squared residuals of all observations, the means of all rows being given."""
    P, F = augmented(rows, model)
    return in_row_blocks(partial(_squared_error, F), cells, model, batch_size, P)[0] + cells.scatter()


def _squared_error(F, block, P):
    return (block.by_row().squared_error(P, F),)


def canonical(model):
    """Order the components by their strength and make each one's largest entry positive; the fit stays the same."""
    d = model.mean.shape[1]
    k = d - model.offsets
    factors = model.mean[:, :k]
    if not len(factors):
        return model
    if model.nonnegative:
        order = torch.linalg.vector_norm(factors, dim=0).argsort(descending=True)
        return model._replace(mean=factors[:, order])
    T = torch.eye(d, dtype=factors.dtype, device=factors.device)
    if model.cov is None:  # an equal ridge on all components leaves a rotation free
        T[:k, :k] = torch.linalg.eigh(factors.mT @ factors).eigenvectors.flip(1)
    T[:k, :k] = T[:k, :k] * signs_of_largest((factors @ T[:k, :k]).mT)
    return model._replace(mean=model.mean @ T, cov=None if model.cov is None else T.mT @ model.cov @ T)


def cells_of(rows_mean, model):
    """Return the model's values of all cells of some rows, of shape (b, n)."""
    P, F = augmented(rows_mean, model)
    return P @ F.mT


def variances_of(rows, model):
    """Return the predictive variances of all cells of some rows, of shape (b, n), noise included."""
    return variance_of_rows(rows, model) @ variance_of_columns(model).mT + model.noise


def variance_of_rows(rows, model):
    """Return what each row adds to a cell's variance: its product with :func:`variance_of_columns` is that variance.

    Var[u . v + b] = <cov of the row, E[f f']> + <E[g] E[g]', cov of the column>, with f = (v, 1) and g = (u, 1); of
    symmetric matrices the upper triangle suffices, each entry off the diagonal counted twice.
    """
    d = model.mean.shape[1]
    upper = _upper(d, model.mean.device)
    g = rows.mean.clone()
    if model.offsets:
        g[:, -1] = 1
    both = torch.cat([rows.cov.flatten(1)[:, upper], (g.unsqueeze(2) * g.unsqueeze(1)).flatten(1)[:, upper]], 1)
    return both * torch.where(upper % (d + 1) == 0, 1.0, 2.0).to(both.dtype).repeat(2)


def variance_of_columns(model):
    """Return the columns' counterpart of :func:`variance_of_rows`."""
    upper = _upper(model.mean.shape[1], model.mean.device)
    second = expectations(model.mean, model.cov, model.offsets)[0][:, : len(upper)]
    return torch.cat([second, model.cov.flatten(1)[:, upper]], 1)


def row_covariances(face, model, seen):
    """Return the posterior covariances of rows of which only the pattern of observed cells is known."""
    F, f = seen
    A, _ = equations(face.pattern @ F, f.new_zeros(face.pattern.shape[0], f.shape[1]), model)
    return torch.cholesky_inverse(torch.linalg.cholesky(with_ridge(A, row_ridge(face, model))))


def update_rows(face, before, mean, model):
    """Return the means of rows after new cells, given the face of those seen `before` and the means they led to."""
    F, f = seen_by_rows(model._replace(iterative=False))
    A, _ = equations(before.pattern @ F, torch.zeros_like(face.values @ f), model)
    A = with_ridge(A, row_ridge(before, model))
    more, rhs = equations(face.pattern @ F, face.values @ f, model)
    rhs = rhs + (A @ mean.unsqueeze(2)).squeeze(2)
    if model.ridge_by_count:
        more = with_ridge(more, row_ridge(face, model))
    if model.nonnegative:
        return solve_nonnegative(A + more, rhs)
    return posterior(A + more, rhs, covariances=False).mean


def factors_of(mean, model):
    """Return the factors of one side without the offset."""
    return mean[:, : mean.shape[1] - model.offsets]


def widened(factors, n_components):
    """Append zeros for components that were switched off."""
    return torch.nn.functional.pad(factors, (0, n_components - factors.shape[1]))


def pairs_of(P, F, rows, columns):
    """Return P[rows] . F[columns] for a list of cells, some at a time."""
    need = 3 * P.shape[1] * P.dtype.itemsize
    block = rows_per_block("auto", len(rows), need)
    parts = in_blocks(lambda c: (P[rows[c]] * F[columns[c]]).sum(1), len(rows), block, bytes_per_row=need)
    return torch.cat([P.new_zeros(0), *parts])


def draws_of(rows, model, n_draws, ws):
    """Yield draws of all cells of some rows, of shape (b, n): columns' and rows' factors and noise drawn anew."""
    rows_root, columns_root = (torch.linalg.cholesky(cov) for cov in (rows.cov, model.cov))
    for _ in range(n_draws):
        u = rows.mean + _correlated(rows_root, ws)
        v = model._replace(mean=model.mean + _correlated(columns_root, ws))
        yield cells_of(u, v) + model.noise.sqrt() * ws.randn(len(u), len(v.mean))


def _correlated(root, ws):
    return (root @ ws.randn(*root.shape[:2], 1)).squeeze(2)
