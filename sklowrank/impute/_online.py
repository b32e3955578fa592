"""Values that arrive in batches: the posterior of the columns after one batch is their prior for the next.

Streaming variational Bayes: a column's posterior precision is a sum over its values, so a batch adds to it and nothing
of earlier batches is kept. What earlier rows said stays as it was said, given the columns of then.
"""

from functools import partial

import numpy as np
import scipy.sparse as sp
import torch

from .._core.compat import get_namespace
from ._observed_cells import face_of
from ._row_equations import (
    bytes_per_row,
    equations,
    expectations,
    posterior,
    seen_by_rows,
    with_ridge,
)

ROUNDS = 4  # of rows given columns and columns given rows, in each batch
LEAST_NOISE = 1e-10  # the values of the first fit have mean square 1


def absorb(cells, model, counts, *, batch_size, earlier=None):
    """Return the model and the noise after a batch of cells, and the means of the batch's rows.

    `counts` (n,) are the numbers of values that the columns have had before. `earlier` says what is known of rows that
    are not new: a CSR matrix (m, n) of their numbers of values, their means (m, d), and a workspace.
    """
    before = model
    precision = torch.cholesky_inverse(torch.linalg.cholesky(before.cov))
    shift = precision @ before.mean.unsqueeze(2)
    for _ in range(ROUNDS):
        sums, moments, _ = _row_half(cells, model, before, earlier, batch_size)
        A, rhs = equations(sums, moments, model)
        noise = model.noise[:, None, None]
        columns = posterior(precision + A / noise, (shift + rhs.unsqueeze(2) / noise).squeeze(2), covariances=True)
        model = model._replace(mean=columns.mean, cov=columns.cov)
    model = model._replace(noise=_noise(cells, model, sums, moments, counts))
    return model, torch.cat(_row_half(cells, model, before, earlier, batch_size)[2])


def _row_half(cells, model, before, earlier, batch_size):
    """Solve the rows of a batch, and sum over each column's new cells what the column's equations need."""
    beside, known = (), None
    if earlier is not None:
        seen, means, ws = earlier
        beside, known = (seen, means), partial(_known, before, seen_by_rows(before), ws)
    collect = partial(_row_sums, model, seen_by_rows(model), known)
    return cells.gather(collect, *beside, size=2 * bytes_per_row(model), batch_size=batch_size)


def _row_sums(model, seen, known, block, *earlier):
    face, (F, f) = block.by_row(), seen
    A, rhs = equations(face.pattern @ F, face.values @ f, model)
    if known is None:
        A = with_ridge(A, model.row_ridge)
    else:
        A_known, rhs_known = known(*earlier)
        A, rhs = A + A_known, rhs + rhs_known
    rows = posterior(A, rhs, covariances=True)
    G, g = expectations(rows.mean, rows.cov, model.offsets)
    face = block.by_column()
    return face.pattern @ G, face.values @ g, [rows.mean]


def _known(model, seen, ws, structure, means):
    """Return the equations of rows from their earlier values, of which the pattern and the solution are known."""
    F, f = seen
    face = face_of(structure, ws)
    A, _ = equations(face.pattern @ F, f.new_zeros(structure.shape[0], f.shape[1]), model)
    A = with_ridge(A, model.row_ridge)
    return A, (A @ means.unsqueeze(2)).squeeze(2)


def _noise(cells, model, sums, moments, counts):
    """Return the noise of each column: the mean over earlier values and new ones of the expected squared residual."""
    A, rhs = equations(sums, moments, model)
    second = model.mean.unsqueeze(2) * model.mean.unsqueeze(1) + model.cov
    residual = cells.column_squares - 2 * (model.mean * rhs).sum(1) + (A * second).sum((1, 2))
    if model.offsets:
        residual = residual - 2 * moments[:, -1] + sums[:, -1]
    total = (counts + cells.column_counts).clamp_min(torch.finfo(counts.dtype).tiny)
    noise = (counts * model.noise + residual.clamp_min(0)) / total
    return torch.where(cells.column_counts > 0, noise.clamp_min(LEAST_NOISE), model.noise)


def keeps_a_posterior(estimator):
    """Ask the fit for posterior covariances, or, where there is none yet, the parameter."""
    fitted = hasattr(estimator, "_model")
    if (estimator._model["cov"] is None) if fitted else (estimator.inference != "variational"):
        done = "was fitted" if fitted else "is to be fitted"
        raise AttributeError(
            f"This needs the posterior of a {type(estimator).__name__} fitted with inference='variational'; this one "
            f"{done} with 'map', which gives no standard errors."
        )
    return True


def stacked(a, b):
    """Return the rows of two tables as one; a dense one beside a sparse one becomes sparse, without its holes."""
    if sp.issparse(a) or sp.issparse(b):
        return sp.vstack([_sparse(a), _sparse(b)], format="csr")
    return get_namespace(a, b)[0].concat([a, b])


def _sparse(X):
    if sp.issparse(X):
        return X
    X = np.asarray(X)
    rows, columns = np.nonzero(~np.isnan(X))
    return sp.csr_matrix((X[rows, columns], (rows, columns)), shape=X.shape)
