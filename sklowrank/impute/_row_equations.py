"""The equations of low-rank matrix completion: one side solved given the other.

Model: a cell (i, j) is u_i . v_j + b_i + c_j + noise. Each side is kept as one matrix of width d: the factors, and in
its last column the offset where offsets are learnt. Seen from row i, with f_j = (v_j, 1), the cells of a row are a
linear regression of x_ij - c_j on f_j; the same holds with the roles of rows and columns swapped.
"""

import functools
from functools import partial
from typing import NamedTuple

import torch

from .._core.rows import concat_blocks
from .._math.linalg import signs_of_largest
from ._options import CompletionOptions


class Model(NamedTuple):
    """The posterior of the columns, or the solution of 'map', and the priors of both sides."""

    mean: torch.Tensor  # (n, d): v_j and, with offsets, c_j
    cov: torch.Tensor | None  # (n, d, d): posterior covariances; None in 'map'
    noise: torch.Tensor  # (n,): noise variance of each column; ones in 'map'
    row_ridge: torch.Tensor  # (d,): prior precision of a row, or the penalty of 'map'
    column_ridge: torch.Tensor  # (d,): the same of a column


class RowPosterior(NamedTuple):
    """What the cells say of some rows, the columns being known."""

    mean: torch.Tensor  # (b, d)
    cov: torch.Tensor | None  # (b, d, d)
    log_det: torch.Tensor | None  # sum of the log-determinants of cov


class RowEquations(NamedTuple):
    """A model, and what the equations of all rows sum over their cells."""

    model: Model
    options: CompletionOptions
    F: torch.Tensor | None  # see :func:`expectations`, divided by the noise; None where no equations are formed
    f: torch.Tensor | None


def row_equations(model, options) -> RowEquations:
    """Return the equations of rows given the columns of a model."""
    if options.iterative:
        return RowEquations(model, options, None, None)
    F, f = expectations(model.mean, model.cov, options.offsets)
    return RowEquations(model, options, F / model.noise.unsqueeze(1), f / model.noise.unsqueeze(1))


def expectations(mean, cov, offsets):
    """Return for each entity of one side what the other side's equations sum over cells.

    F, of shape (n, d(d+1)/2 + d + 1), holds the upper triangle of E[f f'], then E[c f] and E[c^2]; f, of shape
    (n, d + 1), holds E[f] = (v, 1), then E[c]. Without offsets f = v, and what concerns c is left out.
    """
    W = mean.unsqueeze(2) * mean.unsqueeze(1)
    if cov is not None:
        W = W + cov
    d = mean.shape[1]
    upper = upper_triangle(d, mean.device)
    if not offsets:
        return W.flatten(1)[:, upper], mean
    k = d - 1
    cross = torch.cat([W[:, :k, k], mean[:, k:], W[:, k, k:]], 1)
    W[:, :k, k], W[:, k, k] = mean[:, :k], 1
    f = torch.cat([mean[:, :k], torch.ones_like(mean[:, :1]), mean[:, k:]], 1)
    return torch.cat([W.flatten(1)[:, upper], cross], 1), f


@functools.lru_cache(maxsize=64)
def upper_triangle(d, device):
    """Positions of the upper triangle in a flattened (d, d) matrix."""
    i, j = torch.triu_indices(d, d, device=device)
    return i * d + j


def bytes_per_row(model, options):
    """Memory that one row of a block takes while it is solved and summed up for the columns."""
    d = model.mean.shape[1]
    return (8 * d if options.iterative else 4 * d * d + 3 * d + 2) * model.mean.dtype.itemsize


def gather_rows(cells, compute, equations, *aligned):
    """Return the merged results of ``compute(equations, block, *parts)`` over blocks whose equations fit the memory."""
    model, options = equations.model, equations.options
    size = bytes_per_row(model, options)
    return cells.gather(partial(compute, equations), *aligned, size=size, batch_size=options.batch_size)


def column_sums(equations, block, start=None):
    """Solve the rows of a block; return what the columns' equations sum over its cells, and the rows' means in a list.

    `start` are means from which non-negative rows start.
    """
    rows = solve_rows(block.by_row, equations, start=start)
    return *summed_over_rows(block, rows, equations.options), [rows.mean]


def column_sums_and_moments(keep_means, equations, block):
    """Solve the rows of a block; return what the columns' equations and the priors are learnt from, and the means."""
    rows = solve_rows(block.by_row, equations)
    means = [rows.mean] if keep_means else []
    return *summed_over_rows(block, rows, equations.options), *moment_sums(rows), means


def moment_sums(side):
    """Return sums over some rows or columns: of products of means, covariances, means, log-determinants."""
    return side.mean.mT @ side.mean, side.cov.sum(0), side.mean.sum(0), side.log_det


def summed_over_rows(block, rows, options):
    """Return what the columns' equations sum over the cells of a block whose rows are known."""
    F, f = expectations(rows.mean, rows.cov, options.offsets)
    return block.by_column.pattern @ F, block.by_column.sums @ f


def solve_rows(cells, equations, *, start=None):
    """Return the posterior of some rows ('map': the penalised least-squares solution), given their cells."""
    model, options, F, f = equations
    if options.iterative:
        return RowPosterior(_solved_iteratively(cells, model, options), None, None)
    A, rhs = unpacked(cells.pattern @ F, cells.sums @ f, options)
    A = with_ridge(A, scaled_ridge(model.row_ridge, cells.row_counts, options))
    if options.nonnegative:
        return RowPosterior(solve_nonnegative(A, rhs, start), None, None)
    return posterior(A, rhs, covariances=model.cov is not None)


def unpacked(sums, moments, options):
    """Unpack sums over cells of F and f into the matrix (b, d, d) and the right-hand side (b, d) of each row."""
    d = moments.shape[1] - options.offsets
    size = d * (d + 1) // 2
    A = sums[:, _from_upper_triangle(d, sums.device)].unflatten(1, (d, d))
    return A, moments[:, :d] - sums[:, size : size + d] if options.offsets else moments


@functools.lru_cache(maxsize=64)
def _from_upper_triangle(d, device):
    """Positions in the packed upper triangle of the entries of a flattened symmetric (d, d) matrix."""
    i = torch.arange(d, device=device).unsqueeze(1)
    low, high = torch.minimum(i, i.mT), torch.maximum(i, i.mT)
    return (low * d - low * (low + 1) // 2 + high).flatten()


def scaled_ridge(ridge, counts, options):
    """Return the ridge: one for all, or one for each row or column, times its number of observations.

    `counts` are these numbers, or a function that returns them.
    """
    if options.reg_scaling != "count" or options.variational:
        return ridge
    return ridge * (counts() if callable(counts) else counts).unsqueeze(1)


def with_ridge(A, ridge):
    """Add the ridge to the diagonals of A, and as much as keeps a singular A factorisable in its precision."""
    diagonal = A.diagonal(dim1=1, dim2=2)
    diagonal += ridge + 16 * torch.finfo(A.dtype).eps * diagonal.amax(1, keepdim=True)
    return A


def posterior(A, rhs, *, covariances):
    """Solve A x = rhs for each row, and invert A where covariances are asked for."""
    L = torch.linalg.cholesky(A)
    mean = torch.cholesky_solve(rhs.unsqueeze(2), L).squeeze(2)
    if not covariances:
        return RowPosterior(mean, None, None)
    return RowPosterior(mean, torch.cholesky_inverse(L), -2 * L.diagonal(dim1=1, dim2=2).log().sum())


def solve_nonnegative(A, rhs, start=None, *, passes=100):
    """Minimise x'Ax / 2 - rhs'x over x >= 0 for each row by coordinate descent; from a start a few passes suffice."""
    x = torch.zeros_like(rhs) if start is None else start.clone()
    diagonal = A.diagonal(dim1=1, dim2=2).clamp_min(torch.finfo(A.dtype).tiny)
    for _ in range(passes if start is None else 3):
        for k in range(x.shape[1]):
            slope = (A[:, k] * x).sum(1) - rhs[:, k]
            x[:, k] = (x[:, k] - slope / diagonal[:, k]).clamp_min(0)
    return x


def _solved_iteratively(cells, model, options):
    """Solve to the working precision from zero, so that a row's answer does not depend on when it is asked."""
    d, counts = model.mean.shape[1], cells.row_counts()
    return conjugate_gradients(
        cells,
        model.mean.new_zeros(cells.pattern.shape[0], d),
        model.mean,
        scaled_ridge(model.row_ridge, counts, options),
        offsets=options.offsets,
        counts=(counts, cells.column_counts()),
        n_steps=2 * d + 20,
        tol=torch.finfo(model.mean.dtype).eps ** (2 / 3),
    )


def conjugate_gradients(cells, x, other, ridge, *, offsets, counts, n_steps, tol=0.0):
    """Improve the penalised least-squares solutions x of all rows by at most `n_steps` steps.

    Only products with the pattern occur: nothing of the size of cells times factors is formed. The preconditioner is
    shared: the mean Gram matrix of the other side, times each row's number of cells, plus the ridge.

    Parameters
    ----------
    cells : CellMatrix
        The cells of the rows.
    x : tensor of shape (m, d)
        Where to start: factors and, with `offsets`, the offset.
    other : tensor of shape (n, d)
        The same of the other side.
    ridge : tensor of shape (d,) or (m, d)
        Penalties.
    counts : pair of tensors of shape (m,) and (n,)
        Numbers of observations of the rows, and of the other side.
    tol : float
        Stop when every row's residual, in the norm of the preconditioner, has shrunk to this; 0 asks no questions and
        does not make a GPU wait.
    """
    f, P, F = other, x, other
    if offsets:
        one = torch.ones_like(other[:, :1])
        f = torch.cat([other[:, :-1], one], 1)
        P, F = torch.cat([x, torch.ones_like(x[:, :1])], 1), torch.cat([f, other[:, -1:]], 1)
    weight = counts[1].unsqueeze(1)
    e, Q = torch.linalg.eigh((weight * f).mT @ f / weight.sum().clamp_min(1))
    spectrum = (counts[0].unsqueeze(1) * e.clamp_min(0) + ridge).clamp_min(torch.finfo(x.dtype).tiny)

    r = cells.residual(P, F) @ f - ridge * x
    z = ((r @ Q) / spectrum) @ Q.mT
    p, rz = z, (r * z).sum(1, keepdim=True)
    goal = tol**2 * rz
    for _ in range(n_steps):
        if tol and bool((rz <= goal).all()):
            break
        Ap = cells.products(p, f) @ f + ridge * p
        step = _ratio(rz, (p * Ap).sum(1, keepdim=True))
        x, r = x + step * p, r - step * Ap
        z = ((r @ Q) / spectrum) @ Q.mT
        old, rz = rz, (r * z).sum(1, keepdim=True)
        p = z + _ratio(rz, old) * p
    return x


def _ratio(a, b):
    """a / b, and 0 where b has run out: a row that has converged stays where it is."""
    return torch.where(b > torch.finfo(b.dtype).tiny, a / b, torch.zeros_like(a))


def update_rows(cells, before, mean, model, options):
    """Return the means of rows after new cells, given the matrix of those seen `before` and the means they led to."""
    _, options, F, f = row_equations(model, options._replace(solver="cholesky"))
    A, _ = unpacked(before.pattern @ F, torch.zeros_like(cells.sums @ f), options)
    A = with_ridge(A, scaled_ridge(model.row_ridge, before.row_counts, options))
    more, rhs = unpacked(cells.pattern @ F, cells.sums @ f, options)
    rhs = rhs + (A @ mean.unsqueeze(2)).squeeze(2)
    if options.reg_scaling == "count" and not options.variational:
        more = with_ridge(more, scaled_ridge(model.row_ridge, cells.row_counts, options))
    if options.nonnegative:
        return solve_nonnegative(A + more, rhs)
    return posterior(A + more, rhs, covariances=False).mean


# Of all rows


def with_ordered_components(model, options):
    """Order the components by their strength and make each one's largest entry positive; the fit stays the same."""
    d = model.mean.shape[1]
    k = d - options.offsets
    factors = model.mean[:, :k]
    if not len(factors):
        return model
    if options.nonnegative:
        order = torch.linalg.vector_norm(factors, dim=0).argsort(descending=True)
        return model._replace(mean=factors[:, order])
    T = torch.eye(d, dtype=factors.dtype, device=factors.device)
    if model.cov is None:  # an equal ridge on all components leaves a rotation free
        T[:k, :k] = torch.linalg.eigh(factors.mT @ factors).eigenvectors.flip(1)
    T[:k, :k] = T[:k, :k] * signs_of_largest((factors @ T[:k, :k]).mT)
    cov = None if model.cov is None else T.mT @ model.cov @ T
    return model._replace(mean=model.mean @ T, cov=cov)


def means_of_rows(cells, model, options):
    """Return the means of all rows, the columns being given."""
    return concat_blocks(gather_rows(cells, _means, row_equations(model, options))[0])


def _means(equations, block):
    return ([solve_rows(block.by_row, equations).mean],)


def squared_error(cells, rows, model, options):
    """Return the sum of squared residuals of all observations, the means of all rows being given."""
    P, F = factors_of_cells(rows, model, options)
    size = bytes_per_row(model, options)
    found = cells.gather(partial(_squared_error, F), P, size=size, batch_size=options.batch_size)
    return found[0] + cells.scatter()


def _squared_error(F, block, P):
    return (block.by_row.squared_error(P, F),)


def refit_linear_term(cells, rows, model, options):
    """Refit the covariates of listed cells to what the low-rank part leaves, the means of all rows being given."""
    P, F = factors_of_cells(rows, model, options)
    cells.refit_covariates(P, F, size=bytes_per_row(model, options), batch_size=options.batch_size)


def factors_of_cells(rows, model, options):
    """Return P, F with P @ F.mT the model's cells: (u, b, 1) and (v, 1, c), or u and v without offsets."""
    if not options.offsets:
        return rows, model.mean
    one = torch.ones_like(model.mean[:, :1])
    return (
        torch.cat([rows, torch.ones_like(rows[:, :1])], 1),
        torch.cat([model.mean[:, :-1], one, model.mean[:, -1:]], 1),
    )
